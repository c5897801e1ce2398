"""What a declared project says, in the terms that the engine shows it in."""

import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any

from stackmend.compose import drift
from stackmend.compose.state import KEPT, Declared, StackState

# Compose leaves these out of a service's hash: they change what is done around a container, not the
# container (docker/compose pkg/compose/hash.go).
AROUND = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles", "develop", KEPT})

REPLICAS = "deploy.replicas"

#: Ends of names that files have and directories have not.
FILE_ENDINGS = frozenset(
    ".bash .cfg .cnf .conf .crt .css .csv .env .hcl .htm .html .ini .j2 .js .json .key .lua .md "
    ".pem .php .pl .properties .ps1 .py .rb .rules .sh .sql .tmpl .toml .ts .txt .xml .yaml "
    ".yml".split()
)
#: Images, without registry and tag, and programs that are redis or speak as it does.
_REDIS_IMAGES = frozenset({"redis", "valkey", "keydb", "redis-stack", "redis-stack-server"})
_REDIS_SERVER = re.compile(r"(?:^|[\s/])(?:redis|valkey|keydb)-server(?:\s|$)")


def resolve_service(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A service's section with the definitions of the configs and secrets that it uses."""
    body = dict((config.get("services") or {}).get(name) or {})
    if networks := body.get("networks"):
        # A network that is only named has no settings, and is not absent.
        body["networks"] = {key: settings or {} for key, settings in networks.items()}
    for section in ("configs", "secrets"):
        used = {}
        for item in body.get(section) or ():
            key = item.get("source", "")
            used[key] = {**item, "definition": (config.get(section) or {}).get(key)}
        if used:
            body[section] = used
    return body


def find_certain_differences(
    body: Mapping[str, Any], shape: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Where a container is certainly not what a declaration says: (path, desired, has).

    What the declaration leaves to the image, or says in words of its own, is Compose's to compare.
    """
    deploy = body.get("deploy") or {}
    resources = deploy.get("resources") or {}
    limits, reserved = resources.get("limits") or {}, resources.get("reservations") or {}
    desired: dict[str, Any] = {
        "cpu_shares": int(body.get("cpu_shares") or 0),
        "cpuset": str(body.get("cpuset") or ""),
        "mem_reservation": int(body.get("mem_reservation") or reserved.get("memory") or 0),
        "mem_limit": int(body.get("mem_limit") or limits.get("memory") or 0),
        "cpus": float(body.get("cpus") or limits.get("cpus") or 0),
        "pids_limit": int(body.get("pids_limit") or limits.get("pids") or 0),
        "ports": sorted(_format_port(port) for port in body.get("ports") or ()),
        "privileged": bool(body.get("privileged")),
        "read_only": bool(body.get("read_only")),
    }
    desired = {key: value or None for key, value in desired.items()}
    has = {key: shape.get(key) or None for key in desired}
    if "restart_policy" not in deploy:
        desired["restart"] = body.get("restart") or "no"
        has["restart"] = shape.get("restart", "no")
    for key in ("command", "entrypoint", "user", "working_dir", "memswap_limit"):
        if body.get(key):
            value = int(body[key]) if key == "memswap_limit" else body[key]
            desired[key], has[key] = value, shape.get(key)
    test = (body.get("healthcheck") or {}).get("test")
    if isinstance(test, list):
        desired["healthcheck.test"] = test
        has["healthcheck.test"] = (shape.get("healthcheck") or {}).get("Test")
    mounts = shape.get("volumes") or {}
    for mount in body.get("volumes") or ():
        if mount.get("type") == "bind":
            path = f"volumes.{mount['target']}"
            found = mounts.get(mount["target"]) or {}
            desired[path], has[path] = _format_mount(mount), _format_mount(found)
    for key in ("environment", "labels"):
        values = {name: str(value) for name, value in (body.get(key) or {}).items() if value}
        desired[key] = values
        has[key] = {name: (shape.get(key) or {}).get(name) for name in values}
    return list(drift.find_differences(desired, has))


def _format_mount(mount: Mapping[str, Any]) -> str:
    return f"{mount.get('source')}{':ro' if mount.get('read_only') else ''}"


def find_network_differences(
    desired: Mapping[str, Any], has: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Where a network is certainly not what a declaration says: (path, has, desired).

    What the declaration leaves to the engine is the engine's choice.
    """
    declared: dict[str, Any] = {
        key: bool(desired[key])
        for key in ("internal", "attachable", "enable_ipv6")
        if desired.get(key) is not None
    }
    if desired.get("driver"):
        declared["driver"] = desired["driver"]
    declared["driver_opts"] = {k: str(v) for k, v in (desired.get("driver_opts") or {}).items()}
    pools = (desired.get("ipam") or {}).get("config") or ()
    if subnets := sorted(str(pool["subnet"]) for pool in pools if pool.get("subnet")):
        declared["subnets"] = subnets
    actual = {key: has.get(key) for key in declared}
    actual["driver_opts"] = {
        k: (has.get("driver_opts") or {}).get(k) for k in declared["driver_opts"]
    }
    return list(drift.find_differences(actual, declared))


def _format_port(port: Mapping[str, Any]) -> str:
    """A declared port as the engine shows it."""
    # An empty address is the engine's way to say every one.
    address = port.get("host_ip") or "0.0.0.0"  # noqa: S104
    published, target = port.get("published") or "", port.get("target")
    return f"{address}:{published}->{target}/{port.get('protocol') or 'tcp'}"


def sort_into_levels(services: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The services in rounds: each needs only those of earlier rounds."""
    left = {
        name: {needed for needed in (body.get("depends_on") or {}) if needed in services}
        for name, body in services.items()
    }
    for name, body in services.items():
        for key in ("network_mode", "pid", "ipc"):
            target = str(body.get(key) or "")
            if target.startswith("service:") and target[8:] in services:
                left[name].add(target[8:])
    rounds: list[list[str]] = []
    while left:
        # Compose refuses circles; should one come, its services go together.
        ready = sorted(name for name, needs in left.items() if not needs & set(left)) or sorted(
            left
        )
        rounds.append(ready)
        for name in ready:
            del left[name]
    return rounds


def list_mounts(config: Mapping[str, Any]) -> list[str]:
    """Every path that any service mounts from the host."""
    return sorted(
        {path for name in config.get("services") or {} for path in list_sources(config, name)}
    )


def list_required_mounts(config: Mapping[str, Any]) -> list[str]:
    """Every path on the host that a service mounts and that the engine must not make."""
    services = config.get("services") or {}
    return sorted({path for name in services for path in list_required_sources(config, name)})


def list_required_sources(config: Mapping[str, Any], name: str) -> list[str]:
    """The paths of one service: files by their names, and what it says not to make."""
    body = (config.get("services") or {}).get(name) or {}
    made = {
        str(mount.get("source"))
        for mount in body.get("volumes") or ()
        if mount.get("type") == "bind"
        and (mount.get("bind") or {}).get("create_host_path") is not False
        and not is_file_name(str(mount.get("source")))
        and not is_file_name(str(mount.get("target")))
    }
    return [path for path in list_sources(config, name) if path not in made]


def is_file_name(path: str) -> bool:
    """Whether nobody would call a directory so.

    >>> is_file_name("/etc/app.conf"), is_file_name("/etc/app.d")
    (True, False)
    """
    return posixpath.splitext(path)[1].lower() in FILE_ENDINGS


def list_sources(config: Mapping[str, Any], name: str) -> list[str]:
    """The paths on the host that a service sees: bind mounts, and the files of configs, secrets."""
    body = (config.get("services") or {}).get(name) or {}
    paths = [
        str(mount["source"])
        for mount in body.get("volumes") or ()
        if mount.get("type") == "bind" and mount.get("source")
    ]
    for section in ("configs", "secrets"):
        for item in body.get(section) or ():
            definition = (config.get(section) or {}).get(item.get("source", "")) or {}
            if definition.get("file"):
                paths.append(str(definition["file"]))
    return paths


def list_container_names(project: str, name: str, body: Mapping[str, Any]) -> list[str]:
    """The names that Compose gives a service's containers."""
    if body.get("container_name"):
        return [str(body["container_name"])]
    return [f"{project}-{name}-{number}" for number in range(1, count_replicas(body) + 1)]


def is_published(port: str, published: Collection[str]) -> bool:
    """Whether the engine publishes a port; out of a range, or none given, it chose one itself."""
    if port in published:
        return True
    bound, _, target = port.partition("->")
    address, _, number = bound.rpartition(":")
    first, _, last = (number or "0").partition("-")
    desired = range(int(first), int(last or first) + 1)
    for other in published:
        bound, _, found = other.partition("->")
        host, _, number = bound.rpartition(":")
        if (host, found) == (address, target) and (
            desired == range(1) or (number.isdigit() and int(number) in desired)
        ):
            return True
    return False


def find_unpublished(declared: Declared, state: StackState) -> tuple[str, ...]:
    """The ports that services are to have on the host and none of the project's containers has.

    A port that the engine may choose itself, out of a range or wholly, is none of them: it takes
    one that is free.
    """
    has = {
        bound.partition("->")[0] + "/" + bound.rpartition("/")[2]
        for container in state.containers
        if container.running
        for bound in container.published
    }
    desired: dict[str, None] = {}
    for body in declared.services.values():
        for port in body.get("ports") or () if count_replicas(body) else ():
            address, _, number = _format_port(port).partition("->")[0].rpartition(":")
            protocol = port.get("protocol") or "tcp"
            if number.isdigit() and f"{address}:{number}/{protocol}" not in has:
                address = f"[{address}]" if ":" in address else address
                desired[f"{address}:{number}/{protocol}"] = None
    return tuple(desired)


def is_redis(image: str, body: Mapping[str, Any]) -> bool:
    """Whether a service runs redis, by its image's name or its command; a sentinel is none."""
    words = [*(body.get("entrypoint") or ()), *(body.get("command") or ())]
    command = " ".join(map(str, words))
    if "sentinel" in command:
        return False
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return name in _REDIS_IMAGES or _REDIS_SERVER.search(command) is not None


def is_kept(body: Mapping[str, Any]) -> bool:
    """Whether a service's containers stay as they are, and nothing starts them."""
    return body.get(KEPT) is True


def count_replicas(body: Mapping[str, Any]) -> int:
    """How many containers a service should have: of one that is kept as it is, none more."""
    if is_kept(body):
        return 0
    replicas = (body.get("deploy") or {}).get("replicas")
    number = body.get("scale") if replicas is None else replicas
    return 1 if number is None else int(number)
