"""Probe text to state: what runs on the host, and what Compose makes of the desired files."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from itertools import takewhile
from typing import Any

from pyinfra.api import FactBase, StringCommand

from stackmend.compose.resolvers import find_engine_resolver, parse_resolvers
from stackmend.compose.source import COMPOSE_FILES, MAXIMUM_BYTES, OVERRIDE_FILES, is_service_name
from stackmend.compose.state import (
    OUR_FILES,
    Applied,
    Container,
    Declared,
    Endpoint,
    Engine,
    Image,
    Labelled,
    Mended,
    Replaced,
    Resolver,
    StackState,
    Surroundings,
)
from stackmend.connection import make_mark, parse_probe, parse_rows, parse_sections, script
from stackmend.errors import StepError
from stackmend.paths import STATE_ROOT, is_inside, is_name, is_plain
from stackmend.problems import abbreviate
from stackmend.provenance import LABEL, TEMPORARY_NAME
from stackmend.steering import parse_ignored

#: What Compose reads in a directory where nobody names it the files, and what is ours beside them.
DEFAULTS = (".env", *COMPOSE_FILES, *OVERRIDE_FILES, *OUR_FILES)

#: The problem of a record that is none of ours, or whose lists lead out of their directories.
UNREADABLE = "the record of the last apply cannot be read"

#: Labels of Compose that differ without the declaration differing, or that say where it was
#: applied from; those are compared on their own.
VOLATILE_LABELS = frozenset(
    LABEL + name
    for name in (
        "config-hash container-number version image replace project.working_dir "
        "project.config_files project.environment_file"
    ).split()
)

#: What an engine takes subnets from where its settings name nothing else (moby ``ipamutils``).
DEFAULT_POOLS = (
    *((f"172.{number}.0.0/16", 16) for number in range(17, 32)),
    ("192.168.0.0/16", 20),
)

#: What Compose prints of a warning; of what an engine says beside it nothing.
WARNING = re.compile(r'\blevel=warning msg="((?:[^"\\]|\\.)*)"')

#: What the engine calls a volume that nobody gave a name.
ANONYMOUS = re.compile(r"[0-9a-f]{64}")

# What dockerd or the client says, up to v29 (moby client/errors.go, cli/command).
ENGINE_PROBLEMS = (
    ("forbidden", re.compile(r"permission denied.*(docker|daemon)", re.I | re.S)),
    (
        "stopped",
        re.compile(
            r"cannot connect to the docker daemon|failed to connect to the docker api", re.I
        ),
    ),
    ("hung", re.compile(r"does not answer within")),
)

_REPLACED = re.compile(r"([0-9]{1,10}) (file|directory|other|missing) (file|directory|other) (/.*)")


class ComposeStack(FactBase[StackState]):
    """What the host has of one Compose project, read in one command that changes nothing.

    + project: the Compose project's name.
    + directory: where the project's files live on the host.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.compose.facts.ComposeStack project=ai directory=/opt/ai
    """

    _mark = _project = ""

    def command(self, project: str, directory: str) -> StringCommand:
        """The probe, with its arguments quoted."""
        self._mark, self._project = make_mark(), project
        return script(
            "stackmend.compose",
            "probe",
            project,
            directory,
            f"{STATE_ROOT}/{project}",
            str(MAXIMUM_BYTES),
            *DEFAULTS,
            mark=self._mark,
            before=["images"],
            shared=["walk", "steering"],
        )

    def process(self, output: list[str]) -> StackState:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(
            lambda lines: parse(lines, self._mark, self._project), output, "the project"
        )


def parse(output: Sequence[str], mark: str, project: str) -> StackState:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "clock" not in found:
        raise ValueError("it printed nothing that is ours")
    now = float(found["clock"][1][0])
    files, outside = _parse_digests(found.get("files")), _parse_digests(found.get("outside"))
    lead_inside = all(map(is_inside, files)) and all(map(is_plain, outside))
    applied, problem = _parse_applied(found.get("applied"), project)
    if not lead_inside:
        applied, problem, files, outside = None, UNREADABLE, {}, {}
    elif applied:
        files = _add_unchanged(files, applied, found.get("files"))
    known: dict[str, Any] = {
        "now": now,
        "writable": found["writable"][0] == 0,
        "applied": applied,
        "applied_problem": problem,
        "files": files,
        "obstacles": _parse_obstacles(found.get("files")),
        # Listed below "/", where the probe looks for them.
        "outside": {f"/{path}": digest for path, digest in outside.items()},
        "mends": _parse_mends(found.get("mends")),
        "ignored": parse_ignored(found.get("steering", (0, []))[1]),
        "defaults": tuple(name for name in found.get("defaults", (0, []))[1] if name in DEFAULTS),
        "sharing": tuple(name for name in found.get("sharing", (0, []))[1] if is_name(name)),
        "layer": "\n".join(found.get("layer", (0, []))[1]),
        "staged": "staged" in found,
        "stale": tuple(name for name in found.get("stale", (0, []))[1] if is_name(name)),
    }
    if "names" not in found:
        if "engine" in found:
            paths = found["engine"][1]
            engine = Engine(status="absent", reason="docker is not installed")
            if paths:
                engine = Engine(status="unexecutable", reason=paths[0])
            return StackState(engine=engine, **known)
        raise ValueError("it ended before Docker was asked")
    status, lines = found["names"]
    if status != 0:
        return StackState(engine=classify_engine_problem("\n".join(lines)), **known)
    listed_names = parse_rows(lines, 5)
    for section in ("containers", "image labels", "networks", "volumes", "images"):
        if why := _explain_missing(section, found, any(row[4] == project for row in listed_names)):
            return StackState(engine=why, **known)

    def list_items(section: str, width: int) -> list[list[Any]]:
        return parse_rows(found.get(section, (0, []))[1], width)

    letters = dict(line.split(" ") for line in found.get("processes", (0, []))[1] if line)
    hashes = {id_: _make_hash_label(value) for id_, value in list_items("image labels", 2)}
    replaced = _parse_replaced(found.get("mounts"))
    resolvers = parse_resolvers(found.get("resolvers"))
    containers = [
        _parse_container(raw, letters, hashes, replaced, resolvers)
        for raw in _parse_documents(found.get("containers", (0, []))[1])
    ]
    networks, volumes = list_items("networks", 4), list_items("volumes", 3)
    return StackState(
        engine=Engine(status="up"),
        containers=_select_own(containers, project),
        neighbours=tuple(other for other in containers if other.project != project),
        names={name: row[4] for row in listed_names for name in row[2].split(",")},
        elsewhere=tuple(sorted(_list_elsewhere(listed_names, project))),
        networks={name: id_ for name, id_, *_ in networks},
        network_labels={name: Labelled(project=owner, key=key) for name, _, owner, key in networks},
        volume_labels={name: Labelled(project=owner, key=key) for name, owner, key in volumes},
        images=_parse_images(found.get("images")),
        resolver=find_engine_resolver(found, resolvers),
        **known,
    )


def _list_elsewhere(rows: Sequence[Sequence[str]], project: str) -> set[str]:
    """What containers that are none of a project's are called, and their services.

    A label holds whatever an image gives it: what is no service's name is none.
    """
    others = [(names, service) for _, _, names, service, owner in rows if owner != project]
    found = {name for names, service in others for name in (*names.split(","), service)}
    return set(filter(is_service_name, found))


def _explain_missing(
    name: str, found: Mapping[str, tuple[int, list[str]]], ours: bool
) -> Engine | None:
    """Why a section does not say what is there: nothing is gone only because it was not listed.

    :raises ValueError: the probe was cut off before it.
    """
    due = ours if name in ("containers", "image labels") else name != "images" or "applied" in found
    if name not in found:
        if due:
            raise ValueError(f"it ended before it told of the {name}")
        return None
    status, lines = found[name]
    text = "\n".join(lines)
    # A container may end between being listed and being inspected.
    if status == 0 or (name == "containers" and "no such container" in text.lower()):
        return None
    return classify_engine_problem(text)


def update_containers(
    state: StackState,
    inspected: Sequence[Mapping[str, Any]],
    project: str,
    image_labels: Mapping[str, Mapping[str, str]],
) -> StackState:
    """A state with the containers as the engine's API shows them at a later moment.

    :param image_labels: the labels of images, by their ids.
    """
    containers = [_parse_container(raw, {}, image_labels) for raw in inspected]
    return state.model_copy(update={"containers": _select_own(containers, project), "foreign": ()})


class EngineHung(ValueError):
    """The host's engine does not answer."""


class NoCompose(ValueError):
    """The host's Docker has no Compose plugin; the text is Docker's own."""


def parse_declared(output: Sequence[str], mark: str, directory: str) -> Declared:
    """What ``resolve.sh`` printed.

    :raises EngineHung: the engine did not answer.
    :raises NoCompose: the host has no Compose.
    :raises StepError: a service has a name that stackmend cannot use.
    :raises ValueError: Compose refuses the files; the text is Compose's own.
    """
    found = parse_sections(output, mark)
    _refuse_hung(found)
    status, lines = found.get("compose", (0, []))
    if status != 0:
        raise NoCompose(" ".join(line.strip() for line in lines if line.strip()))
    if "unpacked" not in found:
        raise ValueError("the host did not take the project's files (it printed nothing)")
    status, lines = found["unpacked"]
    workdir = lines[0] if lines else ""
    if status != 0 or not workdir:
        raise ValueError(f"the host could not unpack the project's files: {' '.join(lines[1:])}")
    if "config" not in found or (found["config"][0] == 0 and not {"differs", "images"} <= {*found}):
        raise ValueError("the host did not run docker compose to its end")
    problem = "\n".join(found.get("problem", (0, []))[1]).replace(workdir, directory).strip()
    status, lines = found["config"]
    if status != 0:
        raise ValueError(problem or "docker compose config failed without a word")
    (config,) = _parse_documents(lines)
    for name in config.get("services") or {}:
        if not is_service_name(name):
            # Compose takes it, so no other choice of files would help.
            raise StepError(
                f"services: stackmend takes no service called {abbreviate(name)}; rename it"
            )
    return Declared(
        config=_finalize(config, workdir, directory),
        hashes=dict(line.split(" ", 1) for line in found.get("hashes", (0, []))[1] if " " in line),
        images=_parse_images(found.get("images")),
        networks={
            raw["Name"]: _parse_network(raw)
            for raw in _parse_documents(found.get("networks", (0, []))[1])
        },
        volumes={
            raw["Name"]: {"driver": raw.get("Driver"), "driver_opts": raw.get("Options") or {}}
            for raw in _parse_documents(found.get("volumes", (0, []))[1])
        },
        warnings=_parse_warnings(problem),
        differs=tuple(line for line in found.get("differs", (0, []))[1] if line),
        obstacles=_parse_obstacles(found.get("barred")),
    )


def _refuse_hung(found: Mapping[str, tuple[int, list[str]]]) -> None:
    if "hung" in found:
        raise EngineHung("the Docker daemon does not answer")


def parse_surroundings(output: Sequence[str], mark: str) -> Surroundings:
    """What ``surroundings.sh`` printed; what the host did not say is left out.

    :raises EngineHung: the engine did not answer.
    """
    found = parse_sections(output, mark)
    _refuse_hung(found)

    def list_lines(section: str) -> list[str]:
        status, lines = found.get(section, (1, []))
        return lines if status == 0 else []

    info: dict[str, Any] = next(iter(_parse_documents(list_lines("info"))), {})
    known = {*list_lines("gpu")}
    if "bus 0x1002" in known or "cdi" in known or not info or "gpu" not in found:
        # Engines differ in what they make of those.
        gpus = None
    elif "driver" not in known:
        gpus = "no driver" if "bus 0x10de" in known else "none"
    else:
        gpus = (
            "usable" if "hook" in known or "nvidia" in str(info.get("Runtimes")) else "no toolkit"
        )
    return Surroundings.model_validate(
        {
            "subnets": {
                name: tuple(pool["Subnet"] for pool in pools or () if pool.get("Subnet"))
                for name, pools in parse_rows(list_lines("networks"), 2)
            },
            "routes": tuple(_parse_routes(list_lines("routes"))),
            "pools": tuple(
                (pool["Base"], pool["Size"]) for pool in info.get("DefaultAddressPools") or ()
            )
            or (DEFAULT_POOLS if info else ()),
            "cpus": info.get("NCPU") or 0,
            "gpus": gpus,
            "absent": tuple(list_lines("absent")),
        }
    )


def _parse_routes(lines: Sequence[str]) -> Iterator[str]:
    """The subnets that the kernel's table reaches without a gateway."""
    for line in lines[1:]:
        words = line.split()
        if len(words) > 7 and words[2] == "00000000" != words[7]:
            # Numbers as they lie in memory, whose lowest byte comes first.
            address, mask = (bytes.fromhex(words[at])[::-1] for at in (1, 7))
            yield str(IPv4Network((address, IPv4Address(mask).compressed), strict=False))


def _parse_warnings(problem: str) -> tuple[str, ...]:
    """What Compose warned of, each once."""
    found = (WARNING.search(line) for line in problem.split("\n"))
    texts = (match[1].replace('\\"', '"') for match in found if match)
    return tuple(dict.fromkeys(texts))


def classify_engine_problem(text: str) -> Engine:
    """Why Docker did not answer, from what its client printed."""
    for status, pattern in ENGINE_PROBLEMS:
        if pattern.search(text):
            return Engine.model_validate({"status": status, "reason": text.strip()})
    return Engine(status="unknown", reason=text.strip() or "docker failed without a word")


def _parse_documents(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The JSON in the lines, whatever warnings stand around it."""
    for at, line in enumerate(lines):
        # A warning may begin with a bracket, too.
        with suppress(json.JSONDecodeError):
            if line.startswith(("[", "{")):
                value, _ = json.JSONDecoder().raw_decode("\n".join(lines[at:]))
                return value if isinstance(value, list) else [value]
    if any(line.startswith(("[", "{")) for line in lines):
        raise ValueError("what should be JSON is not")
    return []


def _finalize(value: Any, workdir: str, directory: str) -> Any:
    """Undo Compose's escaping of dollars, and put the final directory for the passing one."""
    if isinstance(value, str):
        value = value.replace("$$", "$")
        if value == workdir or value.startswith(workdir + "/"):
            value = directory + value[len(workdir) :]
        return value
    if isinstance(value, list):
        return [_finalize(item, workdir, directory) for item in value]
    if isinstance(value, dict):
        return {key: _finalize(item, workdir, directory) for key, item in value.items()}
    return value


def _parse_images(section: tuple[int, list[str]] | None) -> dict[str, Image]:
    images = {}
    for line in section[1] if section else []:
        row, _, ref = line.rpartition(" ")
        for id_, volumes, healthcheck, project, service, env, ports in parse_rows([row], 7):
            images[ref] = Image(
                id=id_,
                volumes=tuple(sorted(volumes or ())),
                built_for=(project or "", service or ""),
                healthcheck=isinstance(healthcheck, dict)
                and healthcheck.get("Test") not in (None, [], ["NONE"]),
                env=dict(entry.partition("=")[::2] for entry in env or ()),
                ports=tuple(sorted(ports or ())),
            )
    return images


def _parse_network(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A network as the engine shows it, in Compose's words."""
    return {
        "driver": raw.get("Driver"),
        "internal": raw.get("Internal", False),
        "attachable": raw.get("Attachable", False),
        "enable_ipv6": raw.get("EnableIPv6", False),
        "driver_opts": raw.get("Options") or {},
        "subnets": sorted(
            pool.get("Subnet", "") for pool in (raw.get("IPAM") or {}).get("Config") or ()
        ),
    }


def _parse_applied(
    section: tuple[int, list[str]] | None, project: str
) -> tuple[Applied | None, str]:
    if section is None:
        return None, ""
    with suppress(ValueError, RecursionError):
        applied = Applied.model_validate_json("\n".join(section[1]))
        if applied.project == project:
            return applied, ""
    # The record holds the stack's environment: nothing of it may stand in a message.
    return None, UNREADABLE


def _parse_digests(section: tuple[int, list[str]] | None) -> dict[str, str | None]:
    digests: dict[str, str | None] = {}
    for line in section[1] if section else []:
        digest, _, path = line.partition("  ")
        if path and not digest.startswith("!"):
            digests[path] = None if digest == "-" else digest
    return digests


def _add_unchanged(
    differing: dict[str, str | None], applied: Applied, section: tuple[int, list[str]] | None
) -> dict[str, str | None]:
    """All the record's files, where the probe listed only those that differ from it.

    :raises ValueError: some of them were not compared.
    """
    same = [line for line in section[1] if line.startswith("=")] if section else []
    if not same:
        return differing
    if same != [f"={len(applied.files.keys() - differing.keys())}"]:
        raise ValueError("it did not look at all files of the record")
    return {**applied.files, **differing}


def _parse_obstacles(section: tuple[int, list[str]] | None) -> dict[str, str]:
    """What is in the way of files, and what it is (connection/walk.sh)."""
    lines = section[1] if section else []
    kinds = (line[1:].partition("  ") for line in lines if line.startswith("!"))
    return {path: kind for kind, _, path in kinds}


def _parse_mends(section: tuple[int, list[str]] | None) -> tuple[Mended, ...]:
    mends = []
    for line in section[1] if section else []:
        at, _, rest = line.partition(" ")
        action, _, service = rest.partition(" ")
        if re.fullmatch("[0-9]{1,12}", at) and service:
            mends.append(Mended(at=float(at), service=service, action=action))
    return tuple(mends)


def _parse_replaced(section: tuple[int, list[str]] | None) -> dict[str, dict[str, Replaced]]:
    """What containers hold of what was replaced on the host: process → place → kind."""
    found: dict[str, dict[str, Replaced]] = {}
    for line in section[1] if section else []:
        if match := _REPLACED.fullmatch(line):
            pid, here, there, place = match.groups()
            kind: Any = here if here in (there, "missing") else "kind"
            found.setdefault(pid, {})[place] = kind
    return found


def _parse_time(text: str) -> float:
    """The engine's time stamp in seconds; 0 for its "never"."""
    if not text or text.startswith("0001-"):
        return 0
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()


def _make_hash_label(config_hash: str | None) -> dict[str, str]:
    """What tells whether an image's labels are a container's: Compose's hash is all that counts."""
    return {LABEL + "config-hash": config_hash} if config_hash else {}


def _parse_container(
    raw: Mapping[str, Any],
    letters: Mapping[str, str],
    image_labels: Mapping[str, Mapping[str, str]],
    replaced: Mapping[str, Mapping[str, Replaced]] | None = None,
    resolvers: Mapping[str, Resolver] | None = None,
) -> Container:
    config, host, state = raw["Config"], raw["HostConfig"], raw["State"]
    labels = config.get("Labels") or {}
    health = state.get("Health") or {}
    results = health.get("Log") or []
    log = [entry for entry in results if entry.get("ExitCode")]
    in_a_row = [*takewhile(lambda entry: entry.get("ExitCode"), reversed(results))]
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    bound = (raw.get("NetworkSettings") or {}).get("Ports") or {}
    policy = host.get("RestartPolicy") or {}
    number = labels.get(LABEL + "container-number", "")
    return Container(
        id=raw["Id"],
        name=raw["Name"].removeprefix("/"),
        project=labels.get(LABEL + "project"),
        service=labels.get(LABEL + "service"),
        number=int(number) if re.fullmatch("[0-9]{1,9}", number) else 0,
        oneoff=labels.get(LABEL + "oneoff", "").lower() == "true",
        # The label stays on for ever; the name "<id>_<name>" only until the old one is gone.
        replaces=LABEL + "replace" in labels
        and TEMPORARY_NAME.match(raw["Name"].removeprefix("/")) is not None,
        working_dir=labels.get(LABEL + "project.working_dir", ""),
        config_hash=labels.get(LABEL + "config-hash", ""),
        status=state["Status"],
        health=health.get("Status") if health.get("Status") != "none" else None,
        health_output=log[-1].get("Output", "").strip() if log else "",
        health_failures=tuple(_parse_time(entry.get("Start", "")) for entry in reversed(in_a_row)),
        exit_code=state.get("ExitCode", 0),
        error=state.get("Error", ""),
        oom_killed=bool(state.get("OOMKilled")),
        restart_count=raw.get("RestartCount", 0),
        restart=policy.get("Name") or "no",
        started_at=_parse_time(state.get("StartedAt", "")),
        process=letters.get(str(state.get("Pid"))),
        image=config.get("Image", ""),
        image_id=raw.get("Image", ""),
        endpoints={
            name: Endpoint(
                network_id=endpoint.get("NetworkID") or "",
                address=endpoint.get("IPAddress") or "",
                aliases=tuple(endpoint.get("Aliases") or ()),
            )
            for name, endpoint in networks.items()
        },
        published=tuple(sorted(_format_bindings(bound))),
        borrows={
            key: mode.removeprefix("container:")
            for key, mode in (
                ("network_mode", host.get("NetworkMode") or ""),
                ("pid", host.get("PidMode") or ""),
                ("ipc", host.get("IpcMode") or ""),
            )
            if mode.startswith("container:")
        },
        anonymous={
            mount["Destination"]: mount["Name"]
            for mount in raw.get("Mounts") or ()
            if mount["Type"] == "volume" and ANONYMOUS.fullmatch(mount.get("Name", ""))
        },
        shape=_make_shape(raw),
        labels={key: value for key, value in labels.items() if key.startswith(LABEL)},
        image_labels=image_labels.get(raw.get("Image", "")),
        replaced=(replaced or {}).get(str(state.get("Pid")), {}),
        resolver=(resolvers or {}).get(raw["Id"]),
    )


def _format_bindings(ports: Mapping[str, Any]) -> list[str]:
    # An empty address is the engine's way to say every one.
    return [
        f"{binding.get('HostIp') or '0.0.0.0'}:{binding.get('HostPort', '')}->{port}"  # noqa: S104
        for port, bindings in ports.items()
        for binding in bindings or ()
    ]


def _select_own(containers: Sequence[Container], project: str) -> tuple[Container, ...]:
    ours = {container.id: container for container in containers if container.project == project}
    return tuple(_name_lender(container, ours) for container in ours.values())


def _name_lender(container: Container, ours: Mapping[str, Container]) -> Container:
    """Name the service whose namespace a container shares, where its id names one of ours."""
    if not container.borrows:
        return container
    shape = dict(container.shape)
    for key, id_ in container.borrows.items():
        other = ours.get(id_)
        shape[key] = f"service:{other.service}" if other else f"container:{id_[:12]}"
    return container.model_copy(update={"shape": shape})


def _make_shape(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a container was declared to be, in Compose's words, without what passes."""
    config, host = raw["Config"], raw["HostConfig"]
    id_ = raw["Id"]
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    policy = host.get("RestartPolicy") or {}
    restart = policy.get("Name") or "no"
    if policy.get("MaximumRetryCount"):
        restart += f":{policy['MaximumRetryCount']}"
    shape: dict[str, Any] = {
        "command": config.get("Cmd"),
        "entrypoint": config.get("Entrypoint"),
        "environment": dict(
            sorted(
                (entry.partition("=")[0], entry.partition("=")[2])
                for entry in config.get("Env") or ()
            )
        ),
        "labels": {
            # Compose lists dependencies in any order.
            key: ",".join(sorted(value.split(","))) if key == LABEL + "depends_on" else value
            for key, value in sorted((config.get("Labels") or {}).items())
            if key not in VOLATILE_LABELS
        },
        "user": config.get("User"),
        "working_dir": config.get("WorkingDir"),
        "hostname": "" if id_.startswith(config.get("Hostname") or "-") else config.get("Hostname"),
        "healthcheck": config.get("Healthcheck"),
        "stop_signal": config.get("StopSignal"),
        "stop_grace_period": config.get("StopTimeout"),
        "tty": config.get("Tty"),
        "stdin_open": config.get("OpenStdin"),
        "ports": sorted(_format_bindings(host.get("PortBindings") or {})),
        "volumes": {mount["Destination"]: _parse_mount(mount) for mount in raw.get("Mounts") or ()},
        "networks": {
            name: {
                # A container's own name and id always lead to it, and differ among replicas.
                "aliases": sorted(
                    alias
                    for alias in endpoint.get("Aliases") or ()
                    if not id_.startswith(alias) and alias != raw["Name"].removeprefix("/")
                ),
                "address": (endpoint.get("IPAMConfig") or {}).get("IPv4Address", ""),
            }
            for name, endpoint in networks.items()
        },
        "restart": restart,
        "network_mode": _parse_mode(host.get("NetworkMode")),
        "mem_limit": host.get("Memory"),
        "memswap_limit": host.get("MemorySwap"),
        "mem_reservation": host.get("MemoryReservation"),
        "cpus": (host.get("NanoCpus") or 0) / 1e9 or _compute_cpus(host),
        "cpu_shares": host.get("CpuShares"),
        "cpuset": host.get("CpusetCpus"),
        "cpuset_mems": host.get("CpusetMems"),
        "cpu_rt_runtime": host.get("CpuRealtimeRuntime"),
        "blkio_weight": host.get("BlkioWeight"),
        "pids_limit": host.get("PidsLimit"),
        "privileged": host.get("Privileged"),
        "read_only": host.get("ReadonlyRootfs"),
        "cap_add": sorted(host.get("CapAdd") or ()),
        "cap_drop": sorted(host.get("CapDrop") or ()),
        "security_opt": sorted(host.get("SecurityOpt") or ()),
        "devices": host.get("Devices"),
        "gpus": host.get("DeviceRequests"),
        "extra_hosts": sorted(host.get("ExtraHosts") or ()),
        "dns": host.get("Dns"),
        "dns_search": host.get("DnsSearch"),
        "sysctls": host.get("Sysctls"),
        "ulimits": host.get("Ulimits"),
        "shm_size": host.get("ShmSize"),
        "tmpfs": host.get("Tmpfs"),
        "logging": host.get("LogConfig"),
        "init": host.get("Init"),
        "pid": host.get("PidMode"),
        "ipc": host.get("IpcMode"),
        "userns_mode": host.get("UsernsMode"),
        "runtime": host.get("Runtime"),
        "oom_score_adj": host.get("OomScoreAdj"),
    }
    # "Not set" has many spellings (null, 0, "", [], {}) that change between engine versions.
    return {key: value for key, value in shape.items() if value not in (None, 0, "", [], {}, False)}


def _compute_cpus(host: Mapping[str, Any]) -> float:
    period = host.get("CpuPeriod") or 100000
    return (host.get("CpuQuota") or 0) / period


def _parse_mode(mode: str | None) -> str:
    """The network mode, unless it merely names one of the networks."""
    return mode if mode in ("host", "none", "bridge") else ""


def _parse_mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    source = mount.get("Source", "")
    if mount["Type"] == "volume":
        name = mount.get("Name", "")
        source = "(anonymous)" if ANONYMOUS.fullmatch(name) else name
    return {"type": mount["Type"], "source": source, "read_only": not mount.get("RW", True)}
