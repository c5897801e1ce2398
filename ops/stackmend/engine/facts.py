"""Probe text to state: which container engines a host has, and what they are set to."""

import base64
import binascii
import re
import shlex
from collections.abc import Mapping, Sequence, Set
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from pyinfra.api import FactBase, StringCommand

from stackmend.connection import make_mark, parse_probe, parse_rows, parse_sections, script
from stackmend.engine import openpgp
from stackmend.engine.state import (
    Config,
    Container,
    Daemon,
    Device,
    EngineStatus,
    HostEngine,
    Loose,
    Network,
    Origin,
    Package,
    Program,
    Published,
    Release,
    Rule,
    Service,
)
from stackmend.paths import STATE_ROOT
from stackmend.steering import parse_ignored

#: Where a host keeps what it has to remember of its engine.
ROOT = f"{STATE_ROOT}/engine"

#: Packages that are engines, belong to one, or pretend to be one.
PACKAGES = (
    "docker-ce docker-ce-cli docker-ce-rootless-extras containerd.io docker-buildx-plugin "
    "docker-compose-plugin docker.io docker-cli docker-buildx docker-compose docker-compose-v2 "
    "docker docker-cli-compose docker-cli-buildx docker-openrc moby-engine docker-engine "
    "moby-cli moby-compose moby-buildx docker-common docker-latest podman-docker containerd runc "
    "ca-certificates"
).split()

#: The keyrings that we put in place, by package manager.
KEYRINGS = {
    "apt": "/etc/apt/keyrings/stackmend-docker.asc",
    "dnf": "/etc/pki/rpm-gpg/stackmend-docker.asc",
}

#: More rules of the packet filter than this are not read.
MOST_RULES = 5000

Section = tuple[int, list[str]]


class HostEngines(FactBase[HostEngine]):
    """Which container engines a host has, and what they are set to; reads only, in one command.

    Which distribution it is, which packages of which engine it has, what provides ``docker``, what
    the engine and Compose answer, what its service starts it with, what daemon.json holds, which
    repositories name Docker. Without root, much of it is hidden, and ``root`` says so.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.engine.facts.HostEngines
    """

    _mark = ""

    def command(self) -> StringCommand:
        """The probe."""
        self._mark = make_mark()
        return script(
            "stackmend.engine",
            "probe",
            ROOT,
            " ".join(PACKAGES),
            " ".join(KEYRINGS.values()),
            mark=self._mark,
            shared=["steering"],
        )

    def process(self, output: list[str]) -> HostEngine:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(lambda lines: parse(lines, self._mark), output, "the engine")


#: What systemd says of a service whose process is not there, or not ready.
_DOWN = frozenset({"inactive", "failed", "activating", "deactivating"})


def parse(output: Sequence[str], mark: str) -> HostEngine:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "done" not in found:
        raise ValueError("it did not run to its end")
    host = _parse_pairs(found["host"][1])
    service = _parse_service(found)
    status, reason, client, server = _parse_versions(found)
    if status == "hung" and service.active in _DOWN:
        # systemd takes connections for an engine that is not there.
        status, reason = "stopped", f"docker.service is {service.active}"
    compose, lines = found.get("compose", (1, []))
    texts = [*(line.strip() for line in lines), ""]
    return HostEngine.model_validate(
        {
            "system": host["system"],
            "architecture": host.get("architecture", ""),
            "manager": host.get("manager", ""),
            "release": _parse_release(_read_lines(found, "release")),
            "packages": _parse_packages(_read_lines(found, "packages")),
            "snap": any(line.startswith("snap|") for line in _read_lines(found, "programs")),
            "programs": _parse_programs(_read_lines(found, "programs")),
            "daemons": _parse_daemons(_read_lines(found, "daemons")),
            "service": service,
            "status": status,
            "reason": reason,
            "client": client,
            "server": server,
            "compose": texts[0].removeprefix("v") if compose == 0 else "",
            "containers": _parse_containers(_read_lines(found, "containers")),
            "config": _parse_config(found),
            "origins": _parse_origins(_read_lines(found, "origins")),
            "keys": {
                name.removeprefix("key "): _parse_fingerprints(lines)
                for name, (_, lines) in found.items()
                if name.startswith("key ")
            },
            "pending": "pending" in found,
            "apparmor": "apparmor" in host,
            "left": tuple(line for line in _read_lines(found, "left") if line),
            "ignored": parse_ignored(_read_lines(found, "steering")),
            "root": host["root"] == "0",
            "restarted": "restarted" in found,
            "containerd": _parse_containerd(found),
            "pid_file": _parse_pid_file(_read_lines(found, "pidfile")),
            "database": _explain_database(_read_lines(found, "database")),
            **_parse_beneath(found),
        }
    )


def _read_lines(found: Mapping[str, Section], name: str) -> list[str]:
    return found.get(name, (0, []))[1]


def _parse_pairs(lines: Sequence[str], separator: str = " ") -> dict[str, str]:
    parts = (line.partition(separator) for line in lines if line)
    return {name: value.strip() for name, _, value in parts}


def _parse_release(lines: Sequence[str]) -> Release:
    named: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("=")
        if re.fullmatch(r"[A-Z_]+", name):
            named[name] = "".join(shlex.split(value)[:1]) if value else ""
    return Release(
        id=named.get("ID", ""),
        like=tuple(named.get("ID_LIKE", "").split()),
        version=named.get("VERSION_ID", ""),
        codename=named.get("UBUNTU_CODENAME") or named.get("VERSION_CODENAME", ""),
        name=named.get("PRETTY_NAME", ""),
    )


def _parse_packages(lines: Sequence[str]) -> dict[str, Package]:
    listed = (line.split(" ") for line in lines)
    return {
        row[0]: Package(version=row[1], complete=row[2] == "installed")
        for row in listed
        # A package whose settings alone are left has a version, too.
        if len(row) == 3 and row[1] and row[2] not in ("config-files", "not-installed")
    }


def _parse_programs(lines: Sequence[str]) -> dict[str, Program]:
    listed = (line.split("|") for line in lines)
    return {
        row[0]: Program(path=row[1], real=row[2], package=row[3])
        for row in listed
        if len(row) == 4 and row[0] != "snap"
    }


def _parse_daemons(lines: Sequence[str]) -> tuple[Daemon, ...]:
    found = []
    for owner, unit, argv in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        pid, _, uid = owner.partition(" ")
        words = bytes.fromhex(argv).decode(errors="replace").split("\0")
        words = [word for word in words if word]
        found.append(Daemon(pid=int(pid), uid=int(uid or 0), unit=unit, argv=tuple(words)))
    return tuple(found)


def _parse_service(found: Mapping[str, Section]) -> Service:
    if "systemd" in found:
        properties = _parse_pairs(_read_lines(found, "systemd"), "=")
        files = [path for path, _, _ in map(_parse_variable, _read_lines(found, "environment"))]
        return Service(
            manager="systemd",
            load=properties.get("LoadState", ""),
            active=properties.get("ActiveState", ""),
            enabled=properties.get("UnitFileState", ""),
            fragment=properties.get("FragmentPath", ""),
            flags=_parse_flags(properties, _read_lines(found, "environment")),
            sources=tuple(
                dict.fromkeys(
                    path
                    for path in (
                        properties.get("FragmentPath", ""),
                        *properties.get("DropInPaths", "").split(),
                        *files,
                    )
                    if path
                )
            ),
        )
    if "openrc" in found:
        properties = _parse_pairs(_read_lines(found, "openrc"))
        return Service(
            manager="openrc",
            load=properties.get("load", "not-found"),
            active="active" if "started" in properties.get("status", "") else "inactive",
            enabled="enabled" if "enabled" in properties else "disabled",
        )
    if "sysv" in found:
        status = found["sysv"][0]
        return Service(manager="sysv", load="loaded", active="active" if not status else "inactive")
    return Service()


def _parse_variable(line: str) -> tuple[str, str, str]:
    path, _, rest = line.partition(" ")
    name, _, value = rest.partition("=")
    return path.removeprefix("="), name.strip(), value.strip()


def _parse_flags(properties: Mapping[str, str], environment: Sequence[str]) -> tuple[str, ...]:
    """The words that a unit starts dockerd with, its variables put in as systemd does it."""
    found = re.search(r"argv\[\]=(.*?) ; (?:ignore_errors|flags)=", properties.get("ExecStart", ""))
    if found is None:
        return ()
    values = dict(part.partition("=")[::2] for part in _split(properties.get("Environment", "")))
    for _, name, value in map(_parse_variable, environment):
        if name and not name.startswith("#"):
            values[name] = " ".join(_split(value))
    words: list[str] = []
    for word in found[1].split()[1:]:
        variable = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", word)
        if variable:
            words += values.get(variable[1], "").split()
        else:
            words.append(
                re.sub(
                    r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda match: values.get(match[1], ""), word
                )
            )
    return tuple(words)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _parse_versions(
    found: Mapping[str, Section],
) -> tuple[EngineStatus, str, str, str]:
    if "versions" not in found:
        for path in found.get("unexecutable", (0, []))[1]:
            return "unexecutable", f"{path} is there, and nobody may execute it", "", ""
        return "absent", "no docker client was found", "", ""
    status, lines = found["versions"]
    answers = [line.split("|") for line in lines if re.fullmatch(r"[^ |]+\|[^ |]*", line)]
    client, server = answers[0] if answers else ("", "")
    if status == 0 and server:
        return "up", "", client, server
    output = " ".join(line.strip() for line in lines if "|" not in line).strip()
    lower = output.lower()
    if status in (124, 137):
        return "hung", "docker did not answer within 10 seconds", client, ""
    if "permission denied" in lower:
        return "forbidden", output, client, ""
    if "cannot connect to the docker daemon" in lower or "connect to the docker api" in lower:
        return "stopped", output, client, ""
    return "unknown", output or "docker failed and printed nothing", client, ""


def _parse_containers(lines: Sequence[str]) -> tuple[Container, ...]:
    return tuple(
        Container(id=id_, name=name.removeprefix("/"), auto_remove=auto_remove)
        for id_, name, auto_remove in parse_rows(lines, 3)
    )


def _parse_containerd(found: Mapping[str, Section]) -> str:
    """The state of the containerd that dockerd is told to use; empty where it has its own.

    ``hung`` where it does not answer, and dockerd with it.
    """
    if "silent" in found:
        return "hung"
    properties = _parse_pairs(_read_lines(found, "containerd"), "=")
    external = "--containerd" in " ".join(_read_lines(found, "systemd"))
    return (
        properties.get("ActiveState", "")
        if properties.get("LoadState") == "loaded" and external
        else ""
    )


def _parse_pid_file(lines: Sequence[str]) -> tuple[int, str] | None:
    pid, _, name = " ".join(lines).strip().partition(" ")
    return (int(pid), name) if pid and name != "dockerd" else None


def _explain_database(lines: Sequence[str]) -> str:
    """Why the engine does not start with its database of networks."""
    line = " ".join(lines).strip()
    if "libnetwork/datastore" in line:
        return "dockerd crashes as it reads it"
    return line.rpartition("error obtaining controller instance: ")[2]


def _parse_beneath(found: Mapping[str, Section]) -> dict[str, Any]:
    """What the engine made in the kernel: networks, ports that are published, rules, devices."""
    rows = parse_rows(_read_lines(found, "endpoints"), 4)
    names = {pid: name.removeprefix("/") for name, pid, _, _ in rows}
    # The engine leaves out those that it chose itself, until it is started again.
    chosen = {
        network: endpoint["Gateway"]
        for _, _, _, endpoints in rows
        for network, endpoint in (endpoints or {}).items()
        if endpoint.get("Gateway")
    }
    networks = [
        _parse_network(row, {*names.values()}, chosen.get(row[0], ""))
        for row in parse_rows(_read_lines(found, "networks"), 6)
    ]
    links = _parse_links(_read_lines(found, "links"))
    assigned = [
        match.groups()
        for line in _read_lines(found, "addresses")
        if (match := re.match(r"\d+: (\S+)\s+inet (\S+)", line))
    ]
    rules = None
    if "rules" in found:
        lines, others = _read_lines(found, "rules"), _read_lines(found, "others")
        if max(len(lines), len(others)) < MOST_RULES:
            rules = (*parse_rules(lines), *parse_rules(others, foreign=True))
    return {
        "networks": tuple(networks),
        "published": tuple(
            port
            for name, _, ports, _ in rows
            for port in _parse_ports(name.removeprefix("/"), ports or {})
        ),
        "rules": rules,
        "devices": {
            name: Device(
                up="UP" in flags,
                addresses=tuple(address for device, address in assigned if device == name),
            )
            for name, (_, flags, _) in links.items()
        },
        "loose": tuple(_find_loose(_read_lines(found, "ends"), links, networks, names)),
        "forwarding": "".join(_read_lines(found, "forwarding")[:1]),
    }


def _parse_network(row: Sequence[Any], running: Set[str], chosen: str) -> Network:
    """A network with those of its containers that ran before its rules were read and after.

    :param running: the containers that ran before.
    :param chosen: the gateway that its containers have.
    """
    name, id_, internal, options, pools, containers = row
    options = options or {}
    subnets = [pool for pool in pools or () if ":" not in pool.get("Subnet", ":")]
    return Network(
        name=name,
        bridge=options.get("com.docker.network.bridge.name") or f"br-{id_[:12]}",
        subnets=tuple(str(ip_network(pool["Subnet"])) for pool in subnets),
        gateways=tuple(
            f"{gateway}/{ip_network(pool['Subnet']).prefixlen}"
            for pool in subnets
            if (gateway := pool.get("Gateway") or chosen)
            and ip_address(gateway) in ip_network(pool["Subnet"])
        ),
        internal=internal,
        options=options,
        containers={
            container["Name"]: str(ip_interface(container["IPv4Address"]).ip)
            for container in (containers or {}).values()
            if container.get("IPv4Address") and container["Name"] in running
        },
    )


def _parse_ports(name: str, ports: Mapping[str, Any]) -> list[Published]:
    found = []
    for inner, bindings in ports.items():
        port, _, protocol = inner.partition("/")
        for binding in bindings or ():
            if ":" not in binding["HostIp"]:
                found.append(
                    Published(
                        container=name,
                        port=int(port),
                        protocol=protocol,
                        host_port=int(binding["HostPort"]),
                    )
                )
    return found


def _parse_links(lines: Sequence[str]) -> dict[str, tuple[int, list[str], bool]]:
    """Devices: name → number, flags, whether it is on a bridge."""
    found = {}
    for line in lines:
        if match := re.match(r"(\d+): ([^\s:@]+)(?:@\S+)?: <([^>]*)>(.*)", line):
            number, name, flags, rest = match.groups()
            found[name] = (int(number), flags.split(","), " master " in rest)
    return found


def parse_rules(lines: Sequence[str], *, foreign: bool = False) -> list[Rule]:
    """Rules as ``iptables-save`` prints them; those of another iptables are nothing but there."""
    rules: list[Rule] = []
    table, counts = "", dict[str, int]()
    for line in lines:
        if line.startswith("*"):
            table, counts = line[1:].strip(), {}
            continue
        match = re.fullmatch(r"(?:\[(\d+):(\d+)\] )?(-A (\S+)(?: .*)?)", line)
        if match is None:
            continue
        packets, octets, text, chain = match.groups()
        counts[chain] = counts.get(chain, 0) + 1
        try:
            shlex.split(text)
        except ValueError:
            continue
        rules.append(
            Rule(
                table=f"other {table}" if foreign else table,
                text=text,
                position=counts[chain],
                packets=int(packets or 0),
                octets=int(octets or 0),
            )
        )
    return rules


def _find_loose(
    lines: Sequence[str],
    links: Mapping[str, tuple[int, list[str], bool]],
    networks: Sequence[Network],
    names: Mapping[int, str],
) -> list[Loose]:
    """Ports of containers that are on no bridge, and the bridge where each belongs."""
    peers: dict[tuple[str, str], int] = {}
    found = []
    for line in lines:
        if match := re.match(r"(\d+) link \d+: ([^\s:@]+)@if(\d+):", line):
            peers[match[1], match[2]] = int(match[3])
    for line in lines:
        match = re.match(r"(\d+) address \d+: (\S+)\s+inet (\S+)", line)
        if match is None or (match[1], match[2]) not in peers:
            continue
        container = names.get(int(match[1]), "")
        address = str(ip_interface(match[3]).ip)
        found += [
            Loose(container=container, device=device, bridge=network.bridge)
            for device, (number, _, attached) in links.items()
            if number == peers[match[1], match[2]] and not attached
            for network in networks
            if network.containers.get(container) == address
        ]
    return found


def _parse_config(found: Mapping[str, Section]) -> Config:
    lines = _read_lines(found, "config")
    properties: dict[str, Any] = _parse_pairs([line for line in lines if " " in line])
    kind = next((line for line in lines if line and " " not in line), "missing")
    status, text = found.get("text", (0, []))
    content = "\n".join(text)
    problem = ""
    if status:
        problem = content or f"exit status {status}"
    elif "�" in content:
        problem = "it is not text in UTF-8"
    path = properties.get("path", "/etc/docker/daemon.json")
    refused, reasons = found.get("refused", (0, []))
    copies = [name for name in found if name.startswith("copy ")]
    return Config.model_validate(
        {
            "kind": kind,
            "path": path,
            "real": properties.get("real", ""),
            "text": "" if problem else content,
            "problem": problem,
            # One of another status than 1 could not be asked: a time-out, no memory.
            "refused": _shorten_refusal(reasons, path) if refused == 1 else "",
            "copied": {"path": copies[0][5:], "text": _join(found[copies[0]][1])}
            if copies and not found[copies[0]][0]
            else None,
        }
    )


def _join(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _shorten_refusal(lines: Sequence[str], path: str) -> str:
    """What dockerd says of a file that it does not read, without what it says of itself."""
    text = " ".join(line.strip() for line in lines if not line.startswith("time="))
    return text.rpartition(f"{path}: ")[2] or "it does not say why"


def _parse_origins(lines: Sequence[str]) -> tuple[Origin, ...]:
    files: dict[str, list[str]] = {}
    for line in lines:
        path, _, text = line.partition("\t")
        files.setdefault(path, []).append(text)
    return tuple(
        Origin(path=path, text="".join(f"{line}\n" for line in text))
        for path, text in files.items()
        if path
    )


def _parse_fingerprints(lines: Sequence[str]) -> tuple[str, ...]:
    try:
        return openpgp.find_fingerprints(base64.b64decode("".join(lines)))
    except (ValueError, binascii.Error):
        # Not the key that it should be, whatever it is.
        return ()
