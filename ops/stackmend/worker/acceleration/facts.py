"""Probe text to state: what a model server computes with."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import FactValueError

from stackmend.answers import parse_size, read_json
from stackmend.connection import (
    PROBE_TIMEOUT,
    make_mark,
    parse_probe,
    parse_rows,
    parse_sections,
    read_script,
    script,
)
from stackmend.problems import join_problems
from stackmend.redaction import format_safe_line
from stackmend.worker.acceleration.serverlog import parse_log
from stackmend.worker.acceleration.spec import AccelerationSpec
from stackmend.worker.acceleration.state import (
    Client,
    Container,
    Cpu,
    DeviceRequest,
    Engine,
    Gpu,
    InnerNode,
    Inside,
    LoadedModel,
    Memory,
    Scope,
    Smi,
    StoredModel,
    Usage,
    WorkerAcceleration,
)

Sections = Mapping[str, tuple[int, list[str]]]

#: Models, clients and the like that are kept of an answer.
MOST = 200

_NUMBER = re.compile(r"[0-9]{1,18}")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_SETTING = re.compile(r"([A-Z0-9_]{1,80})=([A-Za-z0-9_.,:/-]{0,200})")
_CPUS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_THREADS = re.compile(r"(?:^| )(?:-t|--threads|--n_threads|--n-threads)[ =]([0-9]{1,4})(?= |$)")

_VERSION = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_UNIT = re.compile(r"[A-Za-z0-9@_.:\\-]{1,200}\.service")
_ACCESS = re.compile(r"r?w?m?")
_NUMBERS = re.compile(r"(/dev/nvidia[0-9]{1,4}) ([0-9a-f]{1,8}) ([0-9a-f]{1,8})")
_RUNTIME = re.compile(r"[a-z0-9_.-]{1,40}")


class Acceleration(FactBase[WorkerAcceleration]):
    """What a model server computes with, and what keeps it from computing faster; reads only.

    + project: the Compose project that the server's service belongs to; empty for any.
    + service: the Compose service that is the server, or a container's name without a project.
    + endpoint: the address of a server that is not such a service, as the host sees it.
    + minutes: how far back its log is read.
    + samples: how often the loaded models are read, a second apart.

    The probe opens each device file of an accelerator inside the container, for reading, as the
    server's own user does; it runs ``nvidia-smi`` on the host and in there. Of the environment of
    containers it reads only what sets a context, threads, or how long a model stays.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.worker.acceleration.facts.Acceleration project=ai
    """

    _mark = ""
    limit = PROBE_TIMEOUT

    def command(
        self,
        project: str = "",
        service: str = "ollama",
        endpoint: str = "",
        minutes: int = 10,
        samples: int = 2,
    ) -> StringCommand:
        """The probe, with its arguments quoted.

        :raises FactValueError: naming the argument that is wrong.
        """
        try:
            spec = AccelerationSpec.model_validate(
                {
                    "project": project,
                    # Of the two it is the endpoint that is read.
                    **({"endpoint": endpoint} if endpoint else {"service": service}),
                    "minutes": int(minutes),
                    "samples": int(samples),
                }
            )
        except ValidationError as error:
            raise FactValueError(join_problems(error)) from None
        place = spec.endpoint
        # A GPU that hangs is waited for on the host and in the container.
        self.limit = 2 * PROBE_TIMEOUT + spec.samples
        self._mark = make_mark()
        return script(
            "stackmend.worker.acceleration",
            "probe",
            spec.project,
            spec.service,
            "https" if place and place.tls else "http",
            place.address if place else "",
            str(place.port) if place else "",
            str(spec.minutes),
            str(spec.samples),
            read_script("stackmend.checks", "attempt"),
            mark=self._mark,
            shared=["own"],
        )

    def process(self, output: list[str]) -> WorkerAcceleration:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(lambda lines: parse(lines, self._mark), output, "the acceleration")


def parse(output: Sequence[str], mark: str) -> WorkerAcceleration:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "complete" not in found:
        raise ValueError("it did not run to its end")
    environment = _parse_environment(found)
    usage, quota, limit = _parse_usage(found)
    container = _parse_container(found, environment)
    if container is not None:
        container = container.model_copy(
            update={
                "quota": min(filter(None, (quota, container.quota)), default=0.0),
                "memory": min(filter(None, (limit, container.memory)), default=0),
            }
        )
    clients, gateways = _parse_clients(found, environment, container)
    reason, version, answers = _parse_version(found)
    return WorkerAcceleration(
        now=float(found["clock"][1][0]),
        is_local=_get_lines(found, "local")[:1] != ["no"],
        cpu=_parse_cpu(found),
        memory=_parse_memory(found),
        vram=tuple(_parse_vram(found)),
        has_dxg="/dev/dxg" in _get_lines(found, "dxg"),
        smi=_parse_smi(found),
        engine=_parse_engine(found),
        container=container,
        settings=environment.get("", ()),
        unit=_parse_unit(found),
        reason=reason,
        answers=answers,
        version=version,
        address=_parse_address(found),
        inside=_parse_inside(found),
        scope=_parse_scope(found),
        usage=usage,
        samples=tuple(_parse_samples(found)),
        stored=tuple(
            StoredModel(name=_format_name(row), size=_parse_size(row.get("size")))
            for row in _list_models(_parse_answer(found, "tags")[1])
        ),
        log=parse_log(
            _get_lines(found, "started"),
            _get_lines(found, "log"),
            cut="log" in found and found["log"][0] in (124, 137),
        ),
        clients=clients,
        gateways=gateways,
    )


def _get_lines(found: Sections, name: str) -> list[str]:
    return found.get(name, (0, []))[1]


def _split_pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        word, _, value = line.partition(" ")
        yield word, value.strip()


def _read_number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0


def _parse_cpu(found: Sections) -> Cpu:
    rows = list(_split_pairs(_get_lines(found, "cpu")))
    values = dict(rows)
    processors = _read_number(values.get("processors", ""))
    return Cpu(
        model=format_safe_line(values.get("model", ""), 100),
        cores=_read_number(values.get("cores", "")) or processors,
        performance=_read_number(values.get("performance", "")),
        processors=processors,
        architecture=format_safe_line(values.get("architecture", ""), 40),
        flags=tuple(values["flags"].split()) if "flags" in values else None,
        governors=tuple(format_safe_line(value, 100) for word, value in rows if word == "governor"),
    )


def _parse_memory(found: Sections) -> Memory:
    rows = (line.partition(":")[::2] for line in _get_lines(found, "memory"))
    values = {word: _read_number(value.strip().partition(" ")[0]) << 10 for word, value in rows}
    swapped = []
    for name, (_, lines) in found.items():
        if name.startswith("swapped ") and lines:
            swapped.append(_read_number(lines[0]))
    return Memory(
        total=values.get("MemTotal", 0),
        available=values.get("MemAvailable", 0),
        swap=values.get("SwapTotal", 0),
        swap_free=values.get("SwapFree", 0),
        swapped_in=tuple(swapped),
    )


def _parse_smi(found: Sections) -> Smi:
    if "smi" not in found:
        return Smi()
    status, lines = found["smi"]
    gpus: list[Gpu] = []
    others: list[str] = []
    driver = ""
    for line in lines[:MOST]:
        row = [part.strip() for part in line.split(",", 3)]
        if len(row) != 4 or not _VERSION.fullmatch(row[0]):
            others.append(line)
            continue
        driver = row[0]
        total, used = (_read_number(part) << 20 for part in row[1:3])
        gpus.append(Gpu(name=format_safe_line(row[3], 80), memory=total, used=used))
    output = format_safe_line(" ".join(" ".join(others).split()), 400)
    return Smi(status=status, output=output, driver=driver, gpus=tuple(gpus))


def _parse_vram(found: Sections) -> Iterable[tuple[str, int]]:
    for address, size in _split_pairs(_get_lines(found, "vram")[:MOST]):
        if _PCI.fullmatch(address):
            yield address, _read_number(size)


def _parse_unit(found: Sections) -> str:
    for line in _get_lines(found, "unit")[:1]:
        if _UNIT.fullmatch(line):
            return line
    return ""


def _parse_engine(found: Sections) -> Engine:
    status, lines = found.get("engine", (0, []))
    if status == 127:
        return Engine(reason="docker is not installed on this host")
    rows = parse_rows(lines, 5)
    if not rows:
        reason = " ".join(" ".join(lines).split()) if "engine" in found else ""
        return Engine(reason=format_safe_line(reason or "it was not asked", 400))
    version, runtimes, default, cgroup_driver, directories = rows[0]
    return Engine(
        version=format_safe_line(str(version or ""), 40),
        runtimes=tuple(
            sorted(name for name in map(str, _list(runtimes)) if _RUNTIME.fullmatch(name))
        ),
        default_runtime=format_safe_line(str(default or ""), 40),
        cdi=bool(_list(directories)),
        cgroup_driver=format_safe_line(str(cgroup_driver or ""), 40),
    )


def _parse_environment(found: Sections) -> dict[str, tuple[tuple[str, str], ...]]:
    """Of each container, by its id, the variables that matter; of the host's process by ''."""
    settings: dict[str, dict[str, str]] = {}
    for line in _get_lines(found, "environment"):
        owner, _, entry = line.partition(" ")
        if match := _SETTING.fullmatch(entry[1:-1]):
            settings.setdefault(owner, {})[match[1]] = match[2]
    for line in _get_lines(found, "process"):
        if match := _SETTING.fullmatch(line):
            settings.setdefault("", {})[match[1]] = match[2]
    return {owner: tuple(sorted(pairs.items())) for owner, pairs in settings.items()}


def _parse_container(
    found: Sections, environment: Mapping[str, tuple[tuple[str, str], ...]]
) -> Container | None:
    rows = parse_rows(_get_lines(found, "container"), 15)
    if not rows:
        return None
    identity, name, status, image, runtime, requests, devices, privileged, *limits = rows[0]
    memory, nano, quota, period, cpuset, entrypoint, command = limits
    line = " ".join(str(word) for part in (entrypoint, command) for word in _list(part))
    threads = _THREADS.search(line)
    cpus = _parse_size(nano) / 1e9
    if not cpus and _parse_size(quota):
        cpus = _parse_size(quota) / (_parse_size(period) or 100_000)
    return Container(
        id=str(identity),
        name=format_safe_line(str(name).removeprefix("/"), 200),
        status=format_safe_line(str(status), 40),
        image=format_safe_line(str(image), 300),
        runtime=format_safe_line(str(runtime or ""), 80),
        requests=tuple(
            _parse_request(row) for row in _list(requests)[:MOST] if isinstance(row, Mapping)
        ),
        devices=tuple(
            format_safe_line(str(row.get("PathOnHost", "")), 200)
            for row in _list(devices)[:MOST]
            if isinstance(row, Mapping)
        ),
        privileged=privileged is True,
        memory=_parse_size(memory),
        quota=cpus,
        cpuset=_count_cpus(str(cpuset or "")),
        threads=int(threads[1]) if threads else 0,
        settings=environment.get(str(identity), ()),
    )


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) else []


def _parse_request(row: Mapping[str, Any]) -> DeviceRequest:
    count = row.get("Count")
    capabilities = [word for group in _list(row.get("Capabilities")) for word in _list(group)]
    return DeviceRequest(
        driver=format_safe_line(str(row.get("Driver") or ""), 40),
        count=count if isinstance(count, int) and -1 <= count < 10_000 else 0,
        ids=tuple(format_safe_line(str(name), 80) for name in _list(row.get("DeviceIDs"))[:64]),
        capabilities=tuple(format_safe_line(str(word), 40) for word in capabilities[:32]),
    )


def _count_cpus(text: str) -> int:
    count = 0
    for part in text.split(","):
        if match := _CPUS.fullmatch(part.strip()):
            first, last = int(match[1]), int(match[2] or match[1])
            count += max(0, last - first + 1)
    return count


def _parse_scope(found: Sections) -> Scope | None:
    """What systemd has of the container's scope; ``None`` where it has no such unit."""
    rows = [line.partition("=")[::2] for line in _get_lines(found, "scope")]
    if ("LoadState", "loaded") not in rows:
        return None
    policy = next((value for name, value in rows if name == "DevicePolicy"), "")
    entries = (value.partition(" ")[::2] for name, value in rows if name == "DeviceAllow")
    numbers = (_NUMBERS.fullmatch(value) for name, value in rows if name == "Number")
    return Scope(
        policy=format_safe_line(policy, 40),
        allowed=tuple(
            (format_safe_line(name, 100), access)
            for name, access in entries
            if _ACCESS.fullmatch(access)
        )[:1000],
        numbers=tuple(
            (match[1], f"{int(match[2], 16)}:{int(match[3], 16)}") for match in numbers if match
        )[:MOST],
    )


def _parse_usage(found: Sections) -> tuple[Usage, float, int]:
    """What the server's processes use; CPUs and bytes that its control groups leave it."""
    sums = dict.fromkeys(("resident", "swapped", "periods", "throttled"), 0)
    quotas, limits = [], []
    for word, value in _split_pairs(_get_lines(found, "usage")):
        if word in sums:
            sums[word] += _read_number(value)
        elif word == "quota":
            quota, _, period = value.partition(" ")
            if _read_number(quota) and _read_number(period):
                quotas.append(_read_number(quota) / _read_number(period))
        elif word == "memory" and _read_number(value):
            limits.append(_read_number(value))
    usage = Usage(
        resident=sums["resident"] << 10,
        swapped=sums["swapped"] << 10,
        periods=sums["periods"],
        throttled=sums["throttled"],
    )
    return usage, min(quotas, default=0.0), min(limits, default=0)


def _parse_inside(found: Sections) -> Inside | None:
    if "inside" not in found:
        return None
    lines = _get_lines(found, "inside")
    if "ran" not in lines:
        reason = " ".join(" ".join(lines).split())
        return Inside(reason=format_safe_line(reason or "it did not answer in time", 300))
    nodes: list[InnerNode] = []
    smi: int | None = None
    output = ""
    for word, value in _split_pairs(lines):
        first, _, remainder = value.partition(" ")
        if word == "node" and len(nodes) < MOST:
            problem = remainder.rpartition(": ")[2] if remainder else ""
            nodes.append(
                InnerNode(path=format_safe_line(first, 100), problem=format_safe_line(problem, 100))
            )
        elif word == "smi" and _NUMBER.fullmatch(first):
            smi, output = int(first), format_safe_line(" ".join(remainder.split()), 300)
    return Inside(nodes=tuple(nodes), smi=smi, output=output)


_STATUS_LINE = re.compile(r"\s*HTTP/\d(?:\.\d)? (\d{3})\b")


def _parse_answer(found: Sections, name: str) -> tuple[int | None, Any]:
    """The tool's exit status and the body of an answer; ``None`` for what is not there."""
    lines = [line.rstrip("\r") for line in _get_lines(found, f"api {name}")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return None, None
    *lines, last = lines
    status = int(last) if re.fullmatch(r"[0-9]{1,3}", last) else None
    if lines and _STATUS_LINE.match(lines[0]):
        lines = lines[lines.index("") + 1 :] if "" in lines else []
    try:
        return status, read_json("\n".join(lines))
    except ValueError:
        return status, None


def _parse_version(found: Sections) -> tuple[str, str, bool]:
    """Why the server does not say what it is, its version, and whether it answers at all."""
    status, body = _parse_answer(found, "version")
    if status is None:
        return "it was not asked", "", True
    if status in (28, 124, 137):
        return "it takes a connection and sends nothing in time", "", False
    if status != 0:
        return f"it does not answer (status {status} of the request)", "", False
    version = body.get("version") if isinstance(body, Mapping) else None
    if not isinstance(version, str):
        return "what answers is not Ollama", "", True
    return "", format_safe_line(version, 40), True


def _parse_address(found: Sections) -> tuple[str, int] | None:
    for line in _get_lines(found, "reached"):
        address, _, port = line.partition(" ")
        if port.isdecimal() and 0 < int(port) < 65536:
            return address, int(port)
    return None


def _list_models(body: Any) -> list[Mapping[str, Any]]:
    rows = body.get("models") if isinstance(body, Mapping) else None
    return [row for row in _list(rows)[:MOST] if isinstance(row, Mapping)]


def _parse_samples(found: Sections) -> Iterable[tuple[LoadedModel, ...]]:
    for name in found:
        if name.startswith("api ps "):
            _, body = _parse_answer(found, name.removeprefix("api "))
            if isinstance(body, Mapping) and "models" in body:
                yield tuple(map(_parse_loaded, _list_models(body)))


def _parse_loaded(row: Mapping[str, Any]) -> LoadedModel:
    return LoadedModel(
        name=_format_name(row),
        digest=format_safe_line(str(row.get("digest") or ""), 80),
        size=_parse_size(row.get("size")),
        size_vram=_parse_size(row.get("size_vram")),
        context=_parse_size(row.get("context_length")),
        expires=format_safe_line(str(row.get("expires_at") or ""), 40),
    )


def _format_name(row: Mapping[str, Any]) -> str:
    return format_safe_line(str(row.get("name") or row.get("model") or ""), 200)


def _parse_size(value: Any) -> int:
    with suppress(ValueError):
        return parse_size(value)
    return 0


def _parse_clients(
    found: Sections,
    environment: Mapping[str, tuple[tuple[str, str], ...]],
    server: Container | None,
) -> tuple[tuple[Client, ...], tuple[str, ...]]:
    clients: list[Client] = []
    gateways: dict[str, None] = {}
    for identity, name, service, addresses, gates in parse_rows(_get_lines(found, "clients"), 5):
        if server is not None and identity == server.id:
            gateways |= dict.fromkeys(map(str, _list(gates)))
            continue
        label = str(service or "") or str(name).removeprefix("/")
        clients.append(
            Client(
                service=format_safe_line(label, 80),
                addresses=tuple(
                    address
                    for address in map(str, _list(addresses)[:MOST])
                    if _ADDRESS.fullmatch(address)
                ),
                settings=environment.get(str(identity), ()),
            )
        )
    known = tuple(gate for gate in gateways if _ADDRESS.fullmatch(gate))
    return tuple(clients[:MOST]), known
