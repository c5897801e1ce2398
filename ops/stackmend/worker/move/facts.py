"""Probe text to state."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from pyinfra.api import FactBase, StringCommand

from stackmend import answers
from stackmend.connection import make_mark, parse_probe, parse_rows, parse_sections, script
from stackmend.paths import STATE_ROOT, is_name, is_plain
from stackmend.redaction import SECRET_NAME, format_safe_line, redact_likely
from stackmend.worker.move.state import HostMove, ModelFile, MoveRecord, Runner

#: Bytes of what the engine says of a project's containers.
LONGEST = 32 << 20

#: Characters of a word of a command.
LONGEST_WORD = 4096

#: Characters of the record.
LONGEST_RECORD = 262144

_URL = re.compile(r"https?://[^@\s]{1,500}")
#: Variables that are kept, and those of which only that they are set.
_KEPT = ("LLAMA_ARG_PORT", "PORT", "LLAMA_ARG_CTX_SIZE", "N_CTX")
_SET = ("LLAMA_API_KEY", "LLAMA_ARG_API_KEY", "LLAMA_ARG_MMPROJ", "LLAMA_ARG_EMBEDDINGS")
#: The settings of a container that ``docker update`` changes as well.
_LIMITS = (
    *("NanoCpus", "CpuQuota", "CpuPeriod", "CpuShares", "CpusetCpus", "CpusetMems"),
    *("Memory", "MemorySwap", "MemoryReservation"),
)
_NUMBER = re.compile(r"[0-9]{1,18}")
_CALLER = re.compile(r"(?:[0-9A-F]{8}|[0-9A-F]{32}):[0-9A-F]{4}")
_INODE = re.compile(r"[0-9]{1,20}:[0-9]{1,20}")
_TCP = re.compile(r"([0-9]{1,5})/tcp")
_ID = re.compile(r"[0-9a-f]{64}")


def parse_callers(text: str) -> tuple[str, ...]:
    """The addresses of those that are connected, other than the container itself.

    :param text: lines as ``0100007F:1F90``, words of 32 bits in the host's order.
    """
    found = set()
    for line in text.split():
        if not _CALLER.fullmatch(line):
            continue
        words = [line[at : at + 8] for at in range(0, line.index(":"), 8)]
        packed = b"".join(bytes.fromhex(word)[::-1] for word in words)
        address = ipaddress.ip_address(packed)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if not address.is_loopback:
            found.add(str(address))
    return tuple(sorted(found))


class WorkerMove(FactBase[HostMove]):
    """What containers of a project say of the models that they serve, and where a move stands.

    Reads only.

    + project: the Compose project's name.
    """

    _mark = _project = ""

    def command(self, project: str) -> StringCommand:
        """The probe, with its arguments quoted."""
        self._mark, self._project = make_mark(), project
        arguments = (project, f"{STATE_ROOT}/{project}")
        return script("stackmend.worker.move", "probe", *arguments, mark=self._mark, shared=["own"])

    def process(self, output: list[str]) -> HostMove:
        """The state that the probe printed."""
        return parse_probe(
            lambda lines: parse(lines, self._mark, self._project), output, "the project's workers"
        )


def parse(output: Sequence[str], mark: str, project: str) -> HostMove:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "read" not in found:
        raise ValueError("it was cut off")
    record, problem = _parse_record(found.get("record"), project)
    volumes = found.get("volumes", (0, []))
    failed = found.get("engine", (0, []))[0] or volumes[0]
    return HostMove(
        runners=_parse_runners(found),
        record=record,
        record_problem=problem,
        layer="\n".join(found.get("layer", (0, []))[1]),
        gpu='"nvidia"' in "\n".join(found.get("gpu", (0, []))[1]),
        free=_parse_free(found.get("free")),
        available=_parse_available(found.get("memory")),
        gpu_free=_parse_vram(found.get("vram")),
        volumes=tuple(line for line in volumes[1] if is_name(line))[:1000],
        problem="the engine does not list the project's containers" if failed else "",
    )


def _parse_record(
    section: tuple[int, list[str]] | None, project: str
) -> tuple[MoveRecord | None, str]:
    if section is None:
        return None, ""
    text = "\n".join(section[1])
    try:
        record: MoveRecord | None = MoveRecord.model_validate(
            answers.read_json(text, LONGEST_RECORD)
        )
    except (ValueError, ValidationError):
        record = None
    if record is None or record.project != project:
        return None, f"{STATE_ROOT}/{project}/move.json is no record that stackmend wrote of it"
    return record, ""


def _parse_free(section: tuple[int, list[str]] | None) -> int | None:
    """Bytes that are free, as ``df -kP`` says."""
    if section is None or section[0] != 0 or not section[1]:
        return None
    words = section[1][-1].split()
    return int(words[3]) * 1024 if len(words) > 3 and words[3].isdecimal() else None


def _parse_available(section: tuple[int, list[str]] | None) -> int | None:
    """Bytes of memory that programs may take, as ``/proc/meminfo`` says."""
    if section is None or section[0] != 0 or not section[1]:
        return None
    match = re.fullmatch(r"MemAvailable:\s{1,20}([0-9]{1,15}) kB", section[1][0])
    return int(match[1]) * 1024 if match else None


def _parse_vram(section: tuple[int, list[str]] | None) -> int | None:
    """Bytes that are free on all GPUs, as ``nvidia-smi`` says in MiB."""
    if section is None or section[0] != 0:
        return None
    numbers = [line.strip() for line in section[1] if line.strip()]
    if not numbers or not all(re.fullmatch("[0-9]{1,9}", number) for number in numbers):
        return None
    return sum(map(int, numbers)) << 20


def _parse_runners(found: Mapping[str, tuple[int, list[str]]]) -> tuple[Runner, ...]:
    if "containers" not in found:
        return ()
    documents = answers.read_json("\n".join(found["containers"][1]), LONGEST)
    if not isinstance(documents, list):
        raise ValueError("the engine lists no containers")
    labels = {
        id_: {key: value for key, value in (of or {}).items() if isinstance(value, str)}
        for id_, of in parse_rows(found.get("images", (0, []))[1], 2)
        if isinstance(id_, str) and (of is None or isinstance(of, dict))
    }
    rows = [line.split("\t") for line in found.get("processes", (0, []))[1]]
    runners = []
    for raw in documents:
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            runners.append(_parse_runner(raw, labels, rows))
    return tuple(sorted(runners, key=lambda runner: (runner.service, runner.id)))


def _parse_runner(
    raw: Mapping[str, Any], labels: Mapping[str, Mapping[str, str]], rows: Sequence[Sequence[str]]
) -> Runner:
    config, settings = raw["Config"], raw["HostConfig"]
    service = str(config["Labels"]["com.docker.compose.service"])
    if not is_name(service) or not _ID.fullmatch(str(raw["Id"])):
        raise ValueError("it has no name of a service")
    first = str(raw["State"]["Pid"])
    own = [row[1:] for row in rows if row and row[0] == first]
    networks: Mapping[str, Any] = raw["NetworkSettings"].get("Networks") or {}
    return Runner(
        service=service,
        id=raw["Id"],
        image=str(config["Image"])[:500],
        image_id=str(raw["Image"])[:100],
        process=int(raw["State"]["Pid"]),
        image_labels=dict(labels.get(raw["Image"], {})),
        command=_hide_secrets([*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]),
        env=_select_variables(config.get("Env") or ()),
        libraries=tuple(
            dict.fromkeys(row[1] for row in own if len(row) == 2 and row[0] == "library")
        ),
        files=_parse_files(own),
        accelerated=bool(settings.get("DeviceRequests") or settings.get("Devices")),
        addresses=tuple(
            str(address)
            for each in networks.values()
            if (address := each.get("IPAddress") or each.get("GlobalIPv6Address"))
        ),
        ports=tuple(
            int(match[1])
            for port in config.get("ExposedPorts") or ()
            if (match := _TCP.fullmatch(str(port)))
        ),
        published=tuple(
            f"{bound.get('HostIp') or '*'}:{bound['HostPort']}"
            for bindings in (raw["NetworkSettings"].get("Ports") or {}).values()
            for bound in bindings or ()
        ),
        settings=_list_settings(config["Labels"], settings),
    )


def _list_settings(labels: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What a container was made of, as Compose digests it, and the limits that it has by now."""
    digest = str(labels.get("com.docker.compose.config-hash", ""))[:100]
    limits = (f"{key}={settings[key]}"[:100] for key in _LIMITS if settings.get(key))
    return (f"made of {digest}", *limits)


def _parse_files(rows: Sequence[Sequence[str]]) -> tuple[ModelFile, ...]:
    files = {
        row[3]: (int(row[1]), row[2])
        for row in rows
        if len(row) == 4
        and row[0] == "file"
        and _NUMBER.fullmatch(row[1])
        and row[3].startswith("/")
        and is_plain(row[3])
    }
    return tuple(
        ModelFile(
            path=path,
            size=min(size, answers.LARGEST),
            inode=inode if _INODE.fullmatch(inode) else "",
        )
        for path, (size, inode) in sorted(files.items())
    )


def _select_variables(lines: Sequence[Any]) -> dict[str, str]:
    """The variables of a container that say how it serves, or whom it calls; no login is there."""
    pairs = (str(line).partition("=")[::2] for line in lines)
    return {
        key: "***" if key in _SET else redact_likely(value)
        for key, value in pairs
        if (_URL.fullmatch(value) and not SECRET_NAME.search(key)) or key in (*_KEPT, *_SET)
    }


def _hide_secrets(command: Sequence[Any]) -> tuple[str, ...]:
    """The words of a command; what may be a secret, also within a script, is none of them."""
    kept: list[str] = []
    after = False
    for word in map(str, command):
        name, _, value = word.partition("=")
        secret = name.startswith("-") and bool(SECRET_NAME.search(name.replace("-", "_")))
        safe = redact_likely(format_safe_line(word, LONGEST_WORD))
        kept.append("***" if after else f"{name}=***" if secret and value else safe)
        # A script is a word of its own.
        after = secret and not value and len(word.split()) == 1
    return tuple(kept)
