"""The path of a check: which service calls which, what a call of each found, who is to blame. Pure.

A check is addressed to one service, and fails because of another. A hop is one call between two
services, as ``depends_on`` and the addresses in their environment say. Each is asked three times:
from the network of the one that calls, in the network of the one that is called, and from the host
to its address. What passes and what fails then tells which of the two ends is broken.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from stackmend.addresses import is_call, read
from stackmend.addresses.state import Address
from stackmend.checks.spec import Check, RedisCheck, TcpCheck, make_if_valid
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.declaration import count_replicas, is_redis
from stackmend.compose.state import StackState
from stackmend.frozen import Frozen

#: Seconds for one call, which a service beside it answers at once.
HOP_TIMEOUT = 3
#: Hops of one path: three checks for each must fit into one probe.
MAXIMUM_HOPS = 16

_SERVICE = re.compile(r"[A-Za-z0-9._-]+")
#: Words that make a redis a replica of another.
_REPLICA = re.compile(r"replicaof|slaveof", re.I)
_RULES = (
    'no restart of a service mends it: the stack\'s section "engine" does, with '
    '"allow": ["restart"]; or run `systemctl restart docker` there'
)
_FILTER = (
    "see the host's packet filter (`iptables-save | grep -e DROP -e REJECT`, `nft list ruleset`)"
)
#: What lies beneath every service, by what a check's diagnosis calls it: what mends it.
BENEATH: dict[str, str] = {
    "forwarding-off": _RULES,
    "forwarding-blocked": _RULES,
    "nat-missing": _RULES,
    "masquerade-missing": _RULES,
    "traffic-dropped": "no restart of a service mends it: remove the rule there, or name it in "
    'the stack\'s section "engine", in "allow", as "rule:-A ..."',
    "traffic-blocked": "no restart of a service mends it: remove the rule there (`iptables -D` "
    "with its table, or `nft delete rule`)",
}


def list_checked(check: Check, services: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The services that a check passes through.

    :param services: the declared services of its project.
    """
    names = set(check.list_services(services))
    if check.source is None and check.port is not None:
        for name, body in services.items():
            ports = (port.get("published") for port in body.get("ports") or ())
            if str(check.port) in map(str, ports):
                names.add(name)
    return names


class Hop(Frozen):
    """One call of a service to another.

    :param redis: whether the one that is called runs redis, which then is asked as such.
    """

    source: str
    target: str
    port: int
    redis: bool = False

    def __str__(self) -> str:
        return f"{self.source} → {self.target}:{self.port}"

    @property
    def own(self) -> str:
        """The name of the call that the target makes to itself."""
        return f"{self.target}:{self.port} in its own network"

    @property
    def outer(self) -> str:
        """The name of the host's call to the target's address."""
        return f"host → {self.target}:{self.port}"


class Blame(Frozen):
    """A service that a broken hop points to.

    :param service: to be restarted; empty where a restart of neither end would help.
    :param other: the other end, which is left to try once that did not help.
    :param spared: a service that a restart would harm.
    :param evidence: the hop, and what was reached of it.
    """

    service: str = ""
    other: str = ""
    spared: str = ""
    evidence: str
    remedy: str = ""


def find_hops(
    services: Mapping[str, Mapping[str, Any]], project: str, start: Collection[str]
) -> tuple[Hop, ...]:
    """The hops that lead on from services, nearest first.

    :param start: the services that a check passes through.
    """
    queue = [name for name in start if name in services]
    if not queue:
        # Reading all addresses takes longer than most else of a plan.
        return ()
    calls: dict[str, list[Address]] = {name: [] for name in services}
    for address in read({"services": services, "name": project}):
        calls[address.place.service].append(address)
    found: dict[Hop, None] = {}
    reached = set(queue)
    for name in queue:
        for target, port, is_private in _list_calls(services, name, calls[name]):
            if target not in reached:
                reached.add(target)
                queue.append(target)
            body = services[target]
            redis = is_redis(str(body.get("image") or f"{project}-{target}"), body)
            port = port or _find_port(body) or (6379 if redis else 0)
            # Asked without TLS, or without the caller's own login, it would refuse what is well.
            redis = redis and not is_private
            if 0 < port < 65536 and count_replicas(body) and not body.get("network_mode"):
                found[Hop(source=name, target=target, port=port, redis=redis)] = None
    return tuple(found)[:MAXIMUM_HOPS]


def _list_calls(
    services: Mapping[str, Mapping[str, Any]], name: str, addresses: Iterable[Address]
) -> Iterator[tuple[str, int, bool]]:
    """The services that a service calls, each with the port, and whether only it may log in.

    The port is 0 where the address has none.
    """
    addressed: set[str] = set()
    for address in addresses:
        if is_call(address):
            addressed.add(address.target)
            yield address.target, address.port, address.is_private
    for target in services[name].get("depends_on") or {}:
        if target in services and target not in addressed:
            yield target, 0, False


def _find_port(body: Mapping[str, Any]) -> int:
    """The port that a service listens on, by what it publishes or exposes; 0 where it says none."""
    for port in body.get("ports") or ():
        if port.get("protocol", "tcp") == "tcp" and str(port.get("target", "")).isdecimal():
            return int(port["target"])
    for exposed in body.get("expose") or ():
        number, _, protocol = str(exposed).partition("/")
        if number.isdecimal() and protocol in ("", "tcp"):
            return int(number)
    return 0


def list_containers(state: StackState) -> tuple[str, ...]:
    """A project's containers as the probe of the checks has them, by service and number."""
    # A label holds whatever an image gives it: what is no service's name is no service.
    named = [
        other
        for other in state.containers
        if other.service and _SERVICE.fullmatch(other.service) and not other.oneoff
    ]
    return tuple(
        f"{other.service} {other.number} {other.status} {other.id} {other.name}"
        for other in sorted(named, key=lambda other: (other.service or "", other.number))
    )


def make_checks(
    hops: Iterable[Hop], services: Mapping[str, Mapping[str, Any]], state: StackState
) -> tuple[Check, ...]:
    """The checks that prove each hop, from each of its ends."""
    made: dict[str, Check] = {}
    for hop in hops:
        address, own = f"{hop.target}:{hop.port}", f"127.0.0.1:{hop.port}"
        common: dict[str, Any] = {"timeout": HOP_TIMEOUT, "deadline": 0}
        calling = {"address": address, "inside": hop.source}
        through: Check | None
        beside: Check | None
        if hop.redis:
            common |= {"service": hop.target, "role": find_role(services[hop.target])}
            through = make_if_valid(RedisCheck, name=str(hop), **calling, **common)
            beside = make_if_valid(RedisCheck, name=hop.own, address=own, **common)
        else:
            through = make_if_valid(TcpCheck, name=str(hop), **calling, **common)
            beside = make_if_valid(TcpCheck, name=hop.own, address=own, inside=hop.target, **common)
        # Of a service whose name is no name of a host nobody is called.
        if through is None or beside is None:
            continue
        made |= {hop.own: beside, str(hop): through}
        addresses = [
            endpoint.address
            for container in state.list_containers(hop.target)[:1]
            for endpoint in container.endpoints.values()
            if endpoint.address
        ]
        where = f"{addresses[0]}:{hop.port}" if addresses else ""
        common = {"timeout": HOP_TIMEOUT, "deadline": 0}
        if outer := make_if_valid(TcpCheck, name=hop.outer, address=where, **common):
            made[hop.outer] = outer
    return tuple(made.values())


def find_role(body: Mapping[str, Any]) -> Literal["master", "any"]:
    """The role that a redis is asked for: any one where its declaration may make it a replica.

    A configuration file that its command names is read by the check itself, unless a password
    stands beside it; what another one makes it nobody knows.
    """
    words = (body.get("command"), body.get("entrypoint"), body.get("environment"))
    if _REPLICA.search(f"{words}"):
        return "any"
    if ".conf" in f"{words[:2]}" and "--requirepass" not in f"{words}":
        return "master"
    return "any" if has_file(body) else "master"


def has_file(body: Mapping[str, Any]) -> bool:
    """Whether a redis is started with a configuration file of its own, or may be."""
    words = [str(word) for key in ("entrypoint", "command") for word in body.get(key) or ()]
    return any(re.search(r"/[^\s/]+\.conf\b|\.conf(?:\s|$)", word) for word in words) or any(
        isinstance(item, Mapping)
        and re.search(r"\.conf$|/(?:etc|conf|config)(?:/|$)", str(item.get("target") or ""))
        for key in ("volumes", "configs")
        for item in body.get(key) or ()
    )


def find_blame(hops: Sequence[Hop], results: Mapping[str, CheckResult]) -> tuple[Blame, ...]:
    """Who is to blame for each broken hop."""
    calling = {hop.source for hop in hops if _has_outcome(results.get(str(hop)), "passed")}
    found: dict[str, Blame] = {}
    for hop in hops:
        result = results.get(str(hop))
        if not _has_outcome(result, "failed") or result is None:
            continue
        own, outer = results.get(hop.own), results.get(hop.outer)
        alone = _has_outcome(own, "passed")
        evidence = f"{hop}: {_shorten(result)}"
        service, other, spared, remedy = hop.target, hop.source, "", result.remedy
        beneath = next((BENEATH[hint] for hint in result.hints if hint in BENEATH), "")
        if beneath:
            service, other, remedy = "", "", beneath
            evidence = "; ".join((evidence, *result.details[:1]))
        elif "restart-harms" in (*result.hints, *(own.hints if own else ())):
            service, other, spared = "", "", hop.target
            remedy = remedy or (own.remedy if own else "")
        elif own is not None and own.outcome == "failed":
            evidence = f"{evidence}; {hop.own}: {_shorten(own)}"
        elif alone and _has_outcome(outer, "failed"):
            evidence += f"; {hop.target} answers itself, and neither {hop.source} nor the host"
        elif alone and _has_outcome(outer, "passed") and hop.source not in calling:
            service, other = hop.source, hop.target
            evidence += f"; {hop.target} answers itself and the host: {hop.source} is cut off"
            remedy = remedy or _FILTER
        elif alone and _has_outcome(outer, "passed"):
            service, other = "", ""
            evidence += (
                f"; {hop.target} answers itself and the host, and {hop.source} reaches others: "
                "something between them keeps them apart"
            )
            remedy = _FILTER
        blame = Blame(service=service, other=other, spared=spared, evidence=evidence, remedy=remedy)
        found.setdefault(f"{blame.service or hop}", blame)
    return tuple(found.values())


def list_unknown(hops: Sequence[Hop], results: Mapping[str, CheckResult]) -> tuple[str, ...]:
    """The hops of which it is not known whether they work, and why."""
    return tuple(
        f"{hop}: {_shorten(result)}"
        for hop in hops
        if (result := results.get(str(hop))) is not None and result.outcome == "unknown"
    )


def _has_outcome(result: CheckResult | None, outcome: str) -> bool:
    return result is not None and result.outcome == outcome


def _shorten(result: CheckResult) -> str:
    """What came of a call, without what was asked, which the hop's name says."""
    return result.evidence.partition(": ")[2] or result.evidence
