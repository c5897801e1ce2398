"""Probe text to state: what a host has for a measurement, and what it measured before."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import FactValueError

from stackmend.answers import read_json
from stackmend.connection import make_mark, parse_probe, parse_sections, script
from stackmend.problems import list_problems
from stackmend.redaction import format_safe_line, redact_likely
from stackmend.worker.benchmark.reader import check_record
from stackmend.worker.benchmark.spec import QUEUE_PORT, BenchmarkSpec
from stackmend.worker.benchmark.state import SCHEMA, Gpu, Machine, Record, Server, Usage

#: Characters of one setting, and of other names that a host gives.
LONGEST_SETTING, LONGEST_NAME = 300, 120

#: Settings of one server.
MOST_SETTINGS = 200

#: From this many bytes on a limit of memory is none.
UNLIMITED = 1 << 60

_CONTAINER = re.compile(r"(server|worker|queue) ([0-9a-f]{64})")
_PROCESS = re.compile(r"process ([0-9]{1,10})")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_IMAGE = re.compile(r"sha256:[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")

#: Variables that say how many threads a server computes with.
_THREADS = ("LLAMA_ARG_THREADS", "N_THREADS", "OMP_NUM_THREADS")

#: Values that are no secret whatever they are of.
_HARMLESS = re.compile(r"true|false|on|off|yes|no|auto|none", re.I)
_COUNT = re.compile(r"-?[0-9]{0,9}(?:\.[0-9]{1,6})?")

#: Words of options and variables whose values change a server's speed, and those that forbid it.
#: The probe has them too, and sends no other values; this holds against a host that lies.
_SPEEDS = frozenset(
    """attn batch cache compute cpu ctx devices device draft dtype engine fa flash gpu hf hff hfr
    kernel kv layers len library limit lora m mask mlock mmap mode model moe numa num parallel
    pooling quantization repo rope sched split spread tensor threads type ubatch visible worker
    workers""".split()
)
_NEVER = frozenset("api auth hft key keys pass password secret token url".split())
_WORD = re.compile(r"[a-z0-9]+")
_SECRET_WORD = re.compile(r"(?!tokens$).*(?:key|token|secret|pass|credential).*")
_PLAIN = re.compile(r"[A-Za-z0-9_./,:+-]{1,200}")
_COMMAND = re.compile(r"[a-z][a-z0-9_.-]{0,30}|/[A-Za-z0-9_./-]{1,120}")

Sections = Mapping[str, tuple[int, list[str]]]


@dataclass(frozen=True)
class Query:
    """The arguments of a reading, and the mark of its sections."""

    mark: str = ""
    service: str = ""
    worker: str = ""
    server: str = ""
    port: int = 0
    record: str = ""


class BenchmarkHost(FactBase[Machine]):
    """What a host has for a measurement, and what was measured; reads only, asks no server.

    + project: the Compose project that the service belongs to; empty for any.
    + service: the Compose service that is measured; empty where an endpoint is.
    + worker: the service that takes the tasks of a queue; empty without one.
    + address: of an endpoint, as the host sees it.
    + port: that the server listens on.
    + record: the file on the host with what was measured.
    + queue: the service whose queue sends tasks to the server; empty for none.

    Hardware, the control groups of the server's processes and what of its environment changes its
    speed come over one channel. No value of a variable or argument that may be a secret leaves the
    host.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.worker.benchmark.facts.BenchmarkHost project=ai
    """

    _query = Query()

    def command(
        self,
        project: str = "",
        service: str = "ollama",
        worker: str = "",
        address: str = "",
        port: int = 11434,
        record: str = "/nonexistent",
        queue: str = "",
    ) -> StringCommand:
        """The probe, with its arguments quoted.

        :raises FactValueError: naming the argument that is wrong.
        """
        if not _NUMBER.fullmatch(str(port)):
            raise FactValueError(f"port: must be a number; got {port!r}")
        server = f"{address}:{port}" if address else service
        self._query = Query(make_mark(), service, worker, server, int(port), record)
        return script(
            "stackmend.worker.benchmark",
            "probe",
            project,
            service,
            worker,
            address,
            str(port),
            record,
            queue,
            " ".join(sorted(_SPEEDS)),
            " ".join(sorted(_NEVER)),
            mark=self._query.mark,
            before=["group"],
            shared=["own"],
        )

    def process(self, output: list[str]) -> Machine:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(lambda lines: parse(lines, self._query), output, "the benchmark")


def make_arguments(spec: BenchmarkSpec, record: str) -> dict[str, Any]:
    """The arguments of :class:`BenchmarkHost` for what is desired."""
    return {
        "project": spec.project,
        "service": spec.service_name,
        "worker": spec.worker if spec.target == "queue" else "",
        "address": spec.endpoint.address if spec.endpoint is not None else "",
        "port": spec.server_port,
        "record": record,
        "queue": spec.queue_name,
    }


def parse(output: Sequence[str], query: Query) -> Machine:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, query.mark)
    if "complete" not in found:
        raise ValueError("it did not run to its end")
    memory = _parse_memory(_get_lines(found, "memory"))
    cores = _parse_number(_get_lines(found, "cores"))
    servers: dict[str, list[Server]] = {"server": [], "worker": [], "queue": []}
    for name, (_, lines) in found.items():
        if match := _CONTAINER.fullmatch(name):
            port = QUEUE_PORT if match[1] == "queue" else query.port
            servers[match[1]].append(_parse_container(match[2], lines, found, port, cores))
        elif match := _PROCESS.fullmatch(name):
            servers["server"].append(
                _add_limits(
                    Server(name="process of the host", settings=_parse_settings(lines)),
                    int(match[1]),
                    found,
                    cores,
                )
            )
    gpus, driver = _parse_gpus(_get_lines(found, "gpus"), _get_lines(found, "amd"))
    record, problem = _parse_record(found.get("record"), query.record)
    return Machine(
        now=float(_get_lines(found, "clock")[0]),
        cpu=clean_line(" ".join(_get_lines(found, "cpu"))),
        cores=cores,
        memory=memory.get("MemTotal", 0),
        available=memory.get("MemAvailable", 0),
        swap=max(0, memory.get("SwapTotal", 0) - memory.get("SwapFree", 0)),
        gpus=gpus,
        driver=driver,
        servers=tuple(_limit_memory(server, memory) for server in servers["server"]),
        workers=tuple(_limit_memory(server, memory) for server in servers["worker"]),
        queues=tuple(servers["queue"]),
        reason=_explain(found, query, servers["server"]),
        record=record,
        record_problem=problem,
    )


def _get_lines(found: Sections, name: str) -> list[str]:
    return found.get(name, (0, []))[1]


def clean_line(text: str, longest: int = LONGEST_NAME) -> str:
    """Foreign text as one line, its blanks as one each."""
    return format_safe_line(" ".join(text.split()), longest) if text.strip() else ""


def _parse_number(lines: Sequence[str]) -> int:
    text = (lines or ["0"])[0].strip()
    return int(text) if _NUMBER.fullmatch(text) else 0


def _parse_memory(lines: Sequence[str]) -> dict[str, int]:
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        number = (rest.split() or [""])[0]
        if _NUMBER.fullmatch(number):
            found[name] = int(number) * 1024
    return found


def _parse_gpus(nvidia: Sequence[str], amd: Sequence[str]) -> tuple[tuple[Gpu, ...], str]:
    gpus, driver = [], ""
    for line in nvidia[:64]:
        fields = [field.strip() for field in line.rsplit(",", 3)]
        if len(fields) != 4 or not _NUMBER.fullmatch(fields[1]):
            continue
        free = int(fields[2]) << 20 if _NUMBER.fullmatch(fields[2]) else None
        gpus.append(Gpu(name=clean_line(fields[0]), memory=int(fields[1]) << 20, free=free))
        driver = clean_line(fields[3])
    for line in amd[:64]:
        total, used, device = [*line.split(" "), "", "", ""][:3]
        if not _NUMBER.fullmatch(total):
            continue
        free = int(total) - int(used) if _NUMBER.fullmatch(used) else None
        gpus.append(Gpu(name=clean_line(f"AMD {device}"), memory=int(total), free=free))
    return tuple(gpus), driver


def _parse_container(
    container: str, lines: Sequence[str], found: Sections, port: int, cores: int
) -> Server:
    known: dict[str, str] = {}
    addresses: list[tuple[str, int]] = []
    published: list[tuple[str, int]] = []
    for line in lines:
        key, _, rest = line.partition(" ")
        if key == "published":
            published += _parse_published(rest, port)
        elif key == "address":
            address = _parse_json(rest)
            if _ADDRESS.fullmatch(address):
                addresses.append((address, port))
        elif key in ("name", "image", "network"):
            known[key] = _parse_json(rest)
        elif key == "process":
            known[key] = rest.strip()
    if known.get("network") == "host":
        addresses = [("127.0.0.1", port)]
    image = known.get("image", "")
    process = known.get("process", "")
    return _add_limits(
        Server(
            container=container,
            name=clean_line(known.get("name", "").removeprefix("/")),
            image=image if _IMAGE.fullmatch(image) else "",
            addresses=tuple(dict.fromkeys([*addresses, *published])),
            settings=_parse_settings(lines),
        ),
        int(process) if _NUMBER.fullmatch(process) else 0,
        found,
        cores,
    )


def _parse_json(text: str) -> str:
    with suppress(ValueError):
        if isinstance(value := json.loads(text), str):
            return value
    return ""


def _parse_published(text: str, port: int) -> Iterator[tuple[str, int]]:
    fields = text.split(" ")
    if len(fields) != 3:
        return
    inner, address, outer = map(_parse_json, fields)
    address = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    if inner == f"{port}/tcp" and _ADDRESS.fullmatch(address) and _NUMBER.fullmatch(outer):
        number = int(outer)
        if 1 <= number <= 65535:
            yield address, number


def _parse_settings(lines: Sequence[str]) -> tuple[str, ...]:
    """Variables as they are, sorted, and behind them the arguments in their order, as one.

    Of what is not known to be harmless no value is kept, but only its name.
    """
    variables, arguments = set(), []
    for line in lines:
        key, _, rest = line.partition(" ")
        text = _parse_json(rest) if rest.startswith('"') else rest
        if key == "setting":
            name, equals, value = text.partition("=")
            kept = f"{name}={_keep_value(name, value)}" if equals else name
            variables.add(clean_line(kept, LONGEST_SETTING))
        elif key == "argument" and rest:
            arguments.append(text)
    found = sorted(variables - {""})[:MOST_SETTINGS]
    if arguments:
        found.append(
            f"arguments: {clean_line(' '.join(_list_arguments(arguments)), 4 * LONGEST_SETTING)}"
        )
    return tuple(found)


def _list_arguments(arguments: Sequence[str]) -> Iterator[str]:
    """Options with those of their values that change a speed, and commands."""
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option, equals, value = argument.partition("=")
            yield f"{option}={_keep_value(option, value)}" if equals else option
            option = "" if equals else option
        else:
            yield _keep_value(option, argument) if option else _keep_command(argument)
            option = ""


def _keep_value(name: str, value: str) -> str:
    """A value if it is of a known kind: a number, a word of a known option, a path."""
    if _HARMLESS.fullmatch(value):
        return value
    words = set(_WORD.findall(name.lower()))
    if words & _NEVER or any(map(_SECRET_WORD.fullmatch, words - _SPEEDS)):
        return "…"
    if _COUNT.fullmatch(value):
        return value
    return redact_likely(value) if words & _SPEEDS and _PLAIN.fullmatch(value) else "…"


def _keep_command(argument: str) -> str:
    return argument if _COMMAND.fullmatch(argument) else "…"


def _add_limits(server: Server, process: int, found: Sections, cores: int) -> Server:
    """A server with what its control groups and its processes say."""
    quotas, limits, threads = [], [], []
    for line in _get_lines(found, f"limits {process}"):
        key, *fields = line.split()
        if key == "cpu" and len(fields) == 2 and all(map(_NUMBER.fullmatch, fields)):
            if int(fields[1]):
                quotas.append(int(fields[0]) / int(fields[1]))
        elif key == "memory" and fields and _NUMBER.fullmatch(fields[0]):
            limits.append(int(fields[0]))
        elif key == "allowed" and fields:
            allowed = _count_allowed(fields[0])
            if 0 < allowed < cores:
                quotas.append(float(allowed))
        elif key == "threads" and fields and _NUMBER.fullmatch(fields[0]):
            threads.append(int(fields[0]))
    for setting in server.settings:
        name, _, value = setting.partition("=")
        if name in _THREADS and _NUMBER.fullmatch(value) and not threads:
            threads.append(int(value))
    return server.model_copy(
        update={
            "process": process,
            "quota": round(min(quotas), 3) if quotas else 0.0,
            "memory_limit": min((limit for limit in limits if limit < UNLIMITED), default=0),
            "threads": max(threads, default=0),
            "usage": _find_usage(_get_lines(found, "usage"), process),
            "connections": _count_connections(_get_lines(found, "connections"), process),
        }
    )


def _find_usage(lines: Sequence[str], process: int) -> Usage | None:
    """What a server used of the CPU between two readings; ``None`` where that is not known."""
    read = []
    for line in lines[:1000]:
        number, *values = line.split() or [""]
        if number == str(process) and len(values) == 3 and all(map(_SECONDS.fullmatch, values)):
            read.append([float(value) for value in values])
    if len(read) != 2:
        return None
    during, used, waited = (round(now - then, 6) for then, now in zip(*read, strict=True))
    # What a thread waited for that has ended meanwhile is not known.
    return Usage(used=used, waited=max(0.0, waited), during=during) if during > 0 <= used else None


def _count_connections(lines: Sequence[str], process: int) -> int | None:
    """Connections to a server's port; ``None`` where its networks could not be read."""
    own = [line.split()[1:] for line in lines[:10_000] if line.split()[:1] == [str(process)]]
    return sum(len(ends) == 2 for ends in own) if ["-"] in own else None


def _limit_memory(server: Server, memory: Mapping[str, int]) -> Server:
    """A limit that the host itself is below is none."""
    total = memory.get("MemTotal", 0)
    if total and server.memory_limit >= total:
        return server.model_copy(update={"memory_limit": 0})
    return server


def _count_allowed(text: str) -> int:
    """CPUs of a list such as ``0-3,8``."""
    count = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        if _NUMBER.fullmatch(first) and (not last or _NUMBER.fullmatch(last)):
            count += max(0, int(last or first) - int(first) + 1)
    return count


def _explain(found: Sections, query: Query, servers: Sequence[Server]) -> str:
    """Why there is no server to be asked; empty where there may be one."""
    status, lines = found.get("engine", (0, []))
    if status == 127:
        return "docker is not installed on this host"
    if status != 0:
        output = clean_line(" ".join(lines), LONGEST_SETTING)
        return f"cannot ask Docker: {output or 'no reason given'}"
    if query.service and not servers:
        return f"no container of the service {query.service} runs"
    return ""


def _parse_record(section: tuple[int, list[str]] | None, file: str) -> tuple[Record, str]:
    if section is None:
        return Record(), ""
    status, lines = section
    record = f"the record of what was measured{f' ({file})' if file else ''}"
    if status != 0:
        return (
            Record(),
            f"cannot read {record}: {clean_line(' '.join(lines))}",
        )
    try:
        raw = read_json("\n".join(lines))
    except ValueError:
        return Record(), f"{record} is not one of stackmend"
    if isinstance(raw, dict) and raw.get("schema_version") != SCHEMA:
        return Record(), f"{record} is of another version of stackmend"
    try:
        check_record(raw)
        return Record.model_validate(raw), ""
    except ValidationError as error:
        reason = next(list_problems(error))
    except ValueError as error:
        reason = str(error)
    return Record(), f"{record} is not one of stackmend: {clean_line(reason, LONGEST_SETTING)}"
