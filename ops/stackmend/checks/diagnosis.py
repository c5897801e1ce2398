"""Why a check failed: what the probe saw around it, in words and as hints for a plan. Pure."""

from __future__ import annotations

import ipaddress
import json
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from stackmend.checks.rules import Traffic, find_blocking
from stackmend.checks.spec import (
    Check,
    ExecCheck,
    GreetingCheck,
    HttpCheck,
    NameCheck,
    RedisCheck,
    TcpCheck,
)
from stackmend.checks.state import Hint
from stackmend.redaction import format_safe_line

Called = HttpCheck | TcpCheck | GreetingCheck | RedisCheck

# The tab between the JSON documents of `inspect` stays.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class Answer:
    """What the probe printed about one check: keys, each with every value it was given."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def add(self, key: str, value: str) -> None:
        """Keep one more value of `key`, without control characters: it may come from others."""
        self._lines.setdefault(key, []).append(_CONTROL.sub(" ", value).strip())

    def get(self, key: str) -> str:
        """Return the last value of `key`, an empty string when there is none."""
        return self._lines.get(key, [""])[-1]

    def get_all(self, key: str) -> list[str]:
        """Return every value of `key`, in order."""
        return self._lines.get(key, [])

    def get_number(self, key: str) -> int:
        """Return the last value of `key` as a number, 0 when it is none."""
        return _parse_number(self.get(key))

    def __contains__(self, key: str) -> bool:
        return key in self._lines


def _parse_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _HealthRun(_Model):
    Output: str = ""


class _Health(_Model):
    Status: str = "none"
    Log: tuple[_HealthRun, ...] | None = None


class _State(_Model):
    Status: str
    Health: _Health | None = None


class _Network(_Model):
    IPAddress: IPv4Address | Literal[""] = ""
    Gateway: str = ""
    Aliases: tuple[str, ...] | None = None
    DNSNames: tuple[str, ...] | None = None
    NetworkID: str = ""


class _Binding(_Model):
    HostPort: str = ""


class _Container(_Model):
    """One container: what `docker inspect` prints of it, and where it listens (None: not read)."""

    name: str
    service: str | None
    state: _State
    networks: dict[str, _Network] | None
    bindings: dict[str, tuple[_Binding, ...] | None] | None
    listens: list[tuple[str, int]] | None

    @field_validator("name")
    @classmethod
    def _strip_slash(cls, value: str) -> str:
        return value.lstrip("/")

    @property
    def running(self) -> bool:
        return self.state.Status == "running"

    @property
    def on(self) -> dict[str, _Network]:
        return self.networks or {}

    def find_container(self, host: str) -> bool:
        names = {self.service, self.name}
        for network in self.on.values():
            names.update(network.Aliases or ())
            names.update(network.DNSNames or ())
            names.add(str(network.IPAddress) or self.name)
        return host in names

    def find_published_port(self, port: int) -> int | None:
        """Return the container's port that it publishes as the host's `port`."""
        for inner, outer in (self.bindings or {}).items():
            published = {_parse_number(binding.HostPort) for binding in outer or ()}
            if inner.endswith("/tcp") and port in published:
                return _parse_number(inner.partition("/")[0])
        return None


def explain(check: Check, answer: Answer, details: list[str], hints: list[Hint]) -> None:
    """Add to `details` and `hints` what the probe's diagnosis shows of a check that failed."""
    if isinstance(check, NameCheck):
        if "stopped" not in answer:
            hints.append("name-not-resolved")
        return
    containers = _parse_containers(answer)
    if isinstance(check, ExecCheck):
        for container in containers:
            if container.service == check.service:
                _explain_health(container, details, hints)
        return
    if isinstance(check, HttpCheck) and answer.get("out"):
        details.append(f"the answer begins: {answer.get('out')}")
    if answer.get("said"):
        details.append(f"{answer.get('method')} said: {answer.get('said')}")
    sources = [c for c in containers if c.running and c.service == check.source]
    _explain_name(check, answer, details, hints)
    if check.source is None:
        targets = _explain_published(check, answer, containers, details, hints)
    else:
        targets = [c for c in containers if c.find_container(check.host)]
        _explain_networks(check, sources, targets, details, hints)
        for target in targets:
            _explain_listening(target, check.port, details, hints)
        _explain_call_of_host(check, answer, containers, details, hints)
    for target in targets:
        _explain_health(target, details, hints)
    _explain_forwarding(answer, details, hints)
    _explain_dropping(check, answer, sources, targets, details, hints)
    # Between two containers of one network nothing is translated.
    if check.source is None or not targets:
        _explain_nat(answer, sources + targets, details, hints)


def _parse_containers(answer: Answer) -> list[_Container]:
    listens: dict[str, list[tuple[str, int]]] = {}
    for line in answer.get_all("listen"):
        pid, _, text = line.partition(" ")
        sockets = listens.setdefault(pid, [])
        if socket := _parse_socket(text):
            sockets.append(socket)
    found = {}
    for line in answer.get_all("inspect"):
        try:
            pid, *fields = line.split("\t")
            name, _project, service, state, networks, bindings = map(json.loads, fields)
            container = _Container(
                name=name,
                service=service,
                state=state,
                networks=networks,
                bindings=bindings,
                listens=listens.get(pid),
            )
        except ValueError:
            continue
        found[container.name] = container
    return list(found.values())


def _parse_socket(text: str) -> tuple[str, int] | None:
    """Decode the kernel's `0100007F:1F90`: words of 32 bits in little endian, then the port."""
    address, _, port = text.partition(":")
    try:
        raw = bytes.fromhex(address)
        words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
        return str(ipaddress.ip_address(b"".join(words))), int(port, 16)
    except ValueError:
        return None


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_loopback(text: str) -> bool:
    address = _parse_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    found = mapped or address
    return found is not None and found.is_loopback


def _parse_subnet(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        return None


def _hint_not_running(container: _Container, hints: list[Hint]) -> None:
    hints.append(
        "container-paused" if container.state.Status == "paused" else "container-not-running"
    )


def _explain_name(check: Called, answer: Answer, details: list[str], hints: list[Hint]) -> None:
    if isinstance(check, RedisCheck) and check.address is None:
        return
    if "resolved" not in answer or _parse_address(check.host) or check.host == "localhost":
        return
    place = "there" if check.source is not None else "the host"
    if addresses := answer.get("resolved").split():
        details.append(f"seen from {place} {check.host} is {', '.join(addresses)}")
    else:
        details.append(f"seen from {place} the name {check.host} has no address")
        hints.append("name-not-resolved")
        if check.host == "host.docker.internal":
            details.append(
                "on Linux a container knows it only by "
                '`extra_hosts: ["host.docker.internal:host-gateway"]`'
            )


def _explain_networks(
    check: Called,
    sources: list[_Container],
    targets: list[_Container],
    details: list[str],
    hints: list[Hint],
) -> None:
    for target in targets:
        if not target.running:
            details.append(f"{target.name} is {target.state.Status}")
            _hint_not_running(target, hints)
    for source in sources[:1]:
        for target in targets:
            if target.name != source.name and not source.on.keys() & target.on.keys():
                details.append(
                    f"{source.name} and {target.name} share no network: {source.name} is on "
                    f"{_list_networks(source)}, {target.name} on {_list_networks(target)}"
                )
                hints.append("no-shared-network")
    if not targets and "name-not-resolved" in hints:
        details.append(f"no container of the project answers to the name {check.host}")


def _list_networks(container: _Container) -> str:
    return ", ".join(sorted(container.on)) or "none"


def _explain_listening(
    target: _Container, port: int, details: list[str], hints: list[Hint]
) -> None:
    if not target.running or target.listens is None:
        return
    addresses = sorted({address for address, found in target.listens if found == port})
    if not addresses:
        # 127.0.0.11 is Docker's own resolver.
        others = {found for address, found in target.listens if address != "127.0.0.11"}
        heard = ", ".join(map(str, sorted(others))) or "none"
        details.append(f"in {target.name} nothing listens on port {port} (ports heard: {heard})")
        hints.append("nothing-listens")
    elif all(_is_loopback(address) for address in addresses):
        where = " and ".join(f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in addresses)
        details.append(f"{target.name} listens on {where} only: nothing outside it can reach that")
        hints.append("loopback-only")
    else:
        details.append(f"{target.name} listens on port {port}")


def _explain_published(
    check: Called,
    answer: Answer,
    containers: list[_Container],
    details: list[str],
    hints: list[Hint],
) -> list[_Container]:
    asked = set(answer.get("resolved").split())
    own = set(answer.get_all("own"))
    here = not own or bool(asked & own) or any(map(_is_loopback, asked))
    if "resolved" in answer and not (asked and here):
        # Another machine is asked, or none: what this one publishes does not matter.
        return []
    targets = []
    for container in containers:
        inner = container.find_published_port(check.port)
        if inner is None:
            continue
        targets.append(container)
        if container.running:
            details.append(f"{container.name} publishes its port {inner} as {check.port}")
            _explain_listening(container, inner, details, hints)
        else:
            details.append(
                f"{container.name} would publish {check.port}, but is {container.state.Status}"
            )
            _hint_not_running(container, hints)
    heard = sorted(
        {socket[0] for line in answer.get_all("host-listen") if (socket := _parse_socket(line))}
    )
    if heard:
        details.append(f"on the host, port {check.port} is listened to on {', '.join(heard)}")
    elif not targets:
        details.append(f"no container publishes port {check.port}, and nothing listens on it here")
        hints.append("port-not-published")
    return targets


def _explain_call_of_host(
    check: Called,
    answer: Answer,
    containers: list[_Container],
    details: list[str],
    hints: list[Hint],
) -> None:
    """A container that calls the host itself: three things have to be right there."""
    address = answer.get("called")
    if _parse_address(address) is None:
        return
    published = False
    for container in containers:
        if inner := container.find_published_port(check.port):
            published = True
            better = f"{container.service}:{inner}" if container.service else "it"
            details.append(
                f"{container.name} publishes its port {inner} as the host's {check.port}: "
                f"containers on its networks reach it as {better}"
            )
    sockets = [_parse_socket(line) for line in answer.get_all("host-listen")]
    heard = sorted({socket[0] for socket in sockets if socket is not None})
    if answer.get("host-reaches") == address:
        rules = "; ".join(answer.get_all("input")[:3])
        details.append(
            f"the host itself gets through to {address}:{check.port}, and {check.source} does not: "
            "its packet filter keeps containers out" + (f" ({rules})" if rules else "")
        )
        hints.append("host-filtered")
    elif heard and all(map(_is_loopback, heard)):
        details.append(
            f"on the host, port {check.port} is listened to on {', '.join(heard)} only: no "
            f"container can reach that; it has to listen on {address} as well"
        )
        hints.append("host-loopback-only")
    elif heard:
        details.append(
            f"on the host, port {check.port} is listened to on {', '.join(heard)}, not on {address}"
        )
    elif not published:
        details.append(f"on the host nothing listens on port {check.port}")
        hints.append("host-nothing-listens")


def explain_shared_name(
    check: Check, answer: Answer, details: list[str], hints: list[Hint]
) -> None:
    """Tell of a name that leads to several services in turn, also where the check passes."""
    if isinstance(check, ExecCheck | NameCheck) or check.source is None:
        return
    addresses = [
        address
        for text in answer.get("resolved").split()
        if isinstance(address := _parse_address(text), IPv4Address)
    ]
    owners: dict[IPv4Address, tuple[str, str]] = {
        network.IPAddress: (container.service or container.name, container.name)
        for container in _parse_containers(answer)
        for network in container.on.values()
        if isinstance(network.IPAddress, IPv4Address) and container.running
    }
    services = {owners[address][0] if address in owners else "" for address in addresses}
    if len(addresses) < 2 or len(services) < 2:
        return
    names = ", ".join(
        f"{address} ({owners[address][1] if address in owners else 'no container of the project'})"
        for address in addresses
    )
    details.append(
        f"the name {check.host} has {len(addresses)} addresses, and calls go to any: {names}"
    )
    hints.append("name-shared")


def _explain_health(container: _Container, details: list[str], hints: list[Hint]) -> None:
    health = container.state.Health
    if health is None or health.Status not in ("unhealthy", "starting"):
        return
    last = format_safe_line(" ".join(health.Log[-1].Output.split()), 200) if health.Log else ""
    details.append(
        f"the healthcheck of {container.name} says {health.Status}" + (f": {last}" if last else "")
    )
    if health.Status == "unhealthy":
        hints.append("unhealthy")


def _has_iptables_only(answer: Answer) -> bool:
    # Where Docker keeps its rules in nftables' own tables, iptables shows none of them.
    return answer.get("tables") == "iptables" and "nftable" not in answer


def _explain_forwarding(answer: Answer, details: list[str], hints: list[Hint]) -> None:
    if answer.get("forwarding") == "0":
        details.append("the host forwards nothing: /proc/sys/net/ipv4/ip_forward is 0")
        hints.append("forwarding-off")
    rules = answer.get_all("forward")
    if (
        _has_iptables_only(answer)
        and "-P FORWARD DROP" in rules
        and not any("DOCKER" in rule for rule in rules)
    ):
        details.append("the host's FORWARD chain drops everything: Docker's rules are gone from it")
        hints.append("forwarding-blocked")


def _explain_dropping(
    check: HttpCheck | TcpCheck | GreetingCheck | RedisCheck,
    answer: Answer,
    sources: list[_Container],
    targets: list[_Container],
    details: list[str],
    hints: list[Hint],
) -> None:
    """Somebody's rules that drop what these containers send, or what is sent to them."""
    containers = sources + targets
    asked = set(answer.get("resolved").split())
    # What shares the host's network comes from the host.
    from_host = check.source is None or any("host" in source.on for source in sources)
    own = {str(network.IPAddress) for source in sources for network in source.on.values()}
    if not from_host and asked and all(_is_loopback(to) or to in own for to in asked):
        # It does not leave the container's network.
        return
    names = {
        str(network.IPAddress): container.name
        for container in containers
        for network in container.on.values()
        if network.IPAddress
    }
    ports = {check.port} if check.port else set()
    if from_host:
        names |= dict.fromkeys(("127.0.0.1", "::1", *asked), "the host")
        inner = (container.find_published_port(check.port) for container in containers)
        ports |= {port for port in inner if port}
    spared = ["ingress", "egress"]
    if from_host:
        spared += ["forward"]
    elif not answer.get("called"):
        spared += ["input", "output"]
    bridges = {
        "docker0" if name == "bridge" else f"br-{network.NetworkID[:12]}"
        for container in containers
        for name, network in container.on.items()
        if network.NetworkID
    }
    traffic = Traffic({a: n for a, n in names.items() if _parse_address(a)}, ports, bridges, spared)
    for rule in find_blocking(
        answer.get_all("drop"),
        answer.get_all("nft"),
        traffic,
        answer.get_all("edge"),
        answer.get_all("nftset"),
    ):
        # Before all that only follows from it.
        details.insert(0, rule.text)
        hints.append("traffic-dropped" if rule.removable else "traffic-blocked")


def _explain_nat(
    answer: Answer, containers: list[_Container], details: list[str], hints: list[Hint]
) -> None:
    if not _has_iptables_only(answer):
        return
    rules = answer.get_all("nat")
    missing = [
        chain
        for chain in ("PREROUTING", "OUTPUT")
        if not any(rule.startswith(f"-A {chain} ") and "-j DOCKER" in rule for rule in rules)
    ]
    if missing:
        details.append(
            "Docker's NAT rules are gone from the host: no jump to its chain in "
            + " and ".join(missing)
        )
        hints.append("nat-missing")
    masqueraded = [
        subnet
        for rule in rules
        if (match := re.search(r"-s (\S+) .*MASQUERADE", rule))
        and (subnet := _parse_subnet(match[1]))
    ]
    for container in containers:
        for name, network in container.on.items():
            address = network.IPAddress
            # An internal network has no gateway and no route out.
            if not isinstance(address, IPv4Address) or not network.Gateway:
                continue
            if not any(address in subnet for subnet in masqueraded):
                details.append(
                    f"nothing masquerades for the network {name}: what {container.name} sends out "
                    "gets no answer"
                )
                hints.append("masquerade-missing")
