"""Rules of a host's packet filter that keep a check's packets from arriving. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

_IPTABLES = re.compile(r"(?:(\w+) )?\[(\d+):(\d+)\] (-A (\S+)(?: .*)? -[jg] (\S+).*)")
_NFTABLES = re.compile(r"(\w+) (\S+) (\S+) (.*\b(drop|reject)\b.*)")
#: Words of whoever wrote the rule: they match nothing.
_WORDS = re.compile(
    r'(--comment|--log-prefix|(?<!-)\bcomment|\bprefix) ("(?:[^"\\]|\\.)*"|[^\s-]\S*)'
)
_VALUE = r"(\{[^}]*\}|\S+)"
_ADDRESSES = re.compile(rf"(?: -[sd]|\b[sd]addr) {_VALUE}")
_PORTS = re.compile(rf"(?: --[sd](?:ports?)|\b[sd]port) {_VALUE}")
_INTERFACES = re.compile(rf"(?: -[io]|\b[io]if(?:name)?) {_VALUE}")
_STATES = re.compile(rf"(?: --(?:ct)?state|\bct state) {_VALUE}")
_PROTOCOLS = re.compile(rf"(?: -p|\b(?:l4proto|ip protocol|nexthdr)) {_VALUE}")
#: Whatever else a rule asks for, nobody knows whether the check's packets have it.
_KNOWN = re.compile(
    r"-A \S+| -[jg] \S+(?: --reject-with \S+)?| -[sdiop] \S+| --[sd]ports? \S+| --(?:ct)?state \S+"
    r'| --comment ""| -m (?:tcp|multiport|comment|conntrack|state)\b'
)
_KNOWN_NFT = re.compile(
    rf"\b(?:ip6? [sd]addr|(?:tcp|th) [sd]port|(?:meta )?[io]if(?:name)?|ct state"
    rf"|meta (?:l4proto|protocol|nfproto)|ip protocol|ip6 nexthdr|ether type"
    rf"|comment|prefix|level|group|flags|packets|bytes|name) {_VALUE}"
    rf"|\b(?:log|counter|drop|reject(?: with .*)?)(?=\s|$)"
)
_MET_NOTHING = re.compile(r"\bpackets 0 bytes 0\b")
_BRIDGE = re.compile(r"br-[0-9a-f]{12}")
#: After these the next rule is asked.
_GOING_ON = ("LOG", "NFLOG", "MARK", "CONNMARK", "SET", "TRACE", "TCPMSS")
#: Where the stack's section "engine" removes a rule with consent.
_REMOVABLE = ("DOCKER-USER", "FORWARD")


class Blocking(NamedTuple):
    """A rule that drops or rejects what a check sends.

    :param removable: whether the engine's section removes it where it is named there.
    """

    text: str
    removable: bool


class Traffic(NamedTuple):
    """What a check sends through a host's packet filter.

    :param names: whose the addresses of both ends are.
    :param ports: those that are called.
    :param bridges: the interfaces of the networks of both ends; empty where they are not known.
    :param spared: the hooks that it does not come by, in small letters.
    """

    names: Mapping[str, str]
    ports: Collection[int]
    bridges: Collection[str] = ()
    spared: Collection[str] = ()


def find_blocking(
    iptables: Iterable[str],
    nftables: Iterable[str],
    traffic: Traffic,
    edges: Iterable[str] = (),
    sets: Iterable[str] = (),
) -> list[Blocking]:
    """The rules that are about this traffic, and that it comes by.

    :param iptables: lines `[TABLE] [PACKETS:BYTES] RULE`, without a table of the filter's: what
        drops or rejects, and of the filter's FORWARD and DOCKER-USER all, in their order.
    :param nftables: lines `FAMILY TABLE CHAIN RULE`.
    :param traffic: what a check sends.
    :param edges: lines `TABLE FROM CHAIN`: a chain is reached from a hook or another chain; the
        table of nftables is `FAMILY/TABLE`, and its hooks have an @ before them.
    :param sets: lines `FAMILY TABLE NAME ELEMENTS` of nftables.
    """
    roots = _find_roots(edges)
    return [
        *_find_in_iptables(iptables, traffic, roots),
        *_find_in_nftables(nftables, traffic, roots, sets),
    ]


def _find_in_iptables(
    lines: Iterable[str], traffic: Traffic, roots: Mapping[tuple[str, str], set[str]]
) -> Iterable[Blocking]:
    parsed = [
        (line, match)
        for line in lines
        if (match := _IPTABLES.fullmatch(_WORDS.sub(r'\1 ""', line)))
    ]
    let_through: set[str] = set()
    if any(
        match[5] == "DOCKER-USER" and match[6] == "ACCEPT" and _can_let_through(match[4], traffic)
        for _, match in parsed
    ):
        let_through.add("FORWARD")
    for line, match in parsed:
        table, packets, octets, rule, chain, target = match.groups()
        removable = not table and chain in _REMOVABLE
        if target not in ("DROP", "REJECT"):
            # Docker's own chains accept what is between its networks' containers.
            harmless = target == "DOCKER-USER" or target in _GOING_ON
            if removable and not harmless and _can_let_through(rule, traffic):
                let_through.add(chain)
            continue
        # What it never met it did not drop.
        if packets == "0" or (removable and chain in let_through):
            continue
        hooks = roots.get((table or "filter", chain), {chain.lower()})
        if hooks <= set(traffic.spared) or _has_condition(rule, _KNOWN):
            continue
        own = chain == "OUTPUT"
        if whose := _find_subjects(rule, traffic, own=own, anything=removable):
            where = f"the table {table} of " if table else ""
            raw = line[line.index("-A ") :]
            text = f"{target.lower()}s traffic of {whose}: {raw}"
            counted = f"({packets} packets, {octets} bytes so far)"
            text = f"somebody's rule of {where}the packet filter {text} {counted}"
            yield Blocking(text, removable)


def _find_in_nftables(
    lines: Iterable[str],
    traffic: Traffic,
    roots: Mapping[tuple[str, str], set[str]],
    sets: Iterable[str],
) -> Iterable[Blocking]:
    elements: dict[tuple[str, str, str], str] = {}
    for line in sets:
        if len(words := line.split(" ", 3)) == 4:
            key = (words[0], words[1], f"@{words[2]}")
            elements[key] = elements.get(key, "") + re.sub("[{}]", " ", words[3])
    for line in lines:
        match = _NFTABLES.fullmatch(_WORDS.sub(r'\1 ""', line))
        if match is None or _MET_NOTHING.search(match[4]):
            continue
        family, table, chain, rule, target = match.groups()
        hooks = roots.get((f"{family}/{table}", chain), set())
        if (hooks and hooks <= set(traffic.spared)) or _has_condition(rule, _KNOWN_NFT):
            continue
        for (of, where, name), text in elements.items():
            if (of, where) == (family, table):
                rule = re.sub(re.escape(name) + r"(?!\S)", lambda _, text=text: f"{{{text}}}", rule)
        if whose := _find_subjects(rule, traffic):
            text = f"{target}s traffic of {whose}: {line.split(' ', 3)[3].strip()}"
            place = f"nft table {family} {table}, chain {chain}"
            yield Blocking(
                f"somebody's rule of the packet filter ({place}) {text}", removable=False
            )


def _find_roots(edges: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """The hooks from which each chain is reached, in small letters."""
    callers: dict[tuple[str, str], set[str]] = {}
    for line in edges:
        if len(words := line.split()) == 3:
            callers.setdefault((words[0], words[2]), set()).add(words[1])
    roots = {}
    for key in callers:
        table, chain = key
        reached, left = {chain}, [chain]
        while left:
            new = callers.get((table, left.pop()), set()) - reached
            reached |= new
            left += new
        roots[key] = {
            name.lstrip("@").lower()
            for name in reached
            if name.startswith("@") or (table, name) not in callers
        }
    return roots


def _has_condition(rule: str, known: re.Pattern[str]) -> bool:
    """Whether a rule asks for more than addresses, ports, interfaces and new connections."""
    if " ! " in rule or "!=" in rule or known.sub("", rule).strip():
        return True
    protocols = (_split(group) for group in _PROTOCOLS.findall(rule))
    states = (_split(group) for group in _STATES.findall(rule))
    return not all("tcp" in words or "all" in words for words in protocols) or not all(
        "NEW" in words or "new" in words for words in states
    )


def _can_let_through(rule: str, traffic: Traffic) -> bool:
    """Whether a rule before others may let new connections of this traffic through."""
    states = (_split(group) for group in _STATES.findall(rule))
    # With an exception it may be about anything.
    return " ! " in rule or (
        all("NEW" in words for words in states) and _find_addressed(rule, traffic) is not None
    )


def _find_addressed(rule: str, traffic: Traffic) -> set[str] | None:
    """Whose addresses a rule names; ``None`` where it is about others' traffic."""
    for group in _INTERFACES.findall(rule):
        if not any(_is_own(word.strip('"'), traffic.bridges) for word in _split(group)):
            return None
    subjects: set[str] = set()
    for group in _ADDRESSES.findall(rule):
        hit = {name for address, name in traffic.names.items() if _has_address(group, address)}
        if not hit:
            return None
        subjects |= hit
    groups = _PORTS.findall(rule)
    if not all(any(_has_port(group, port) for port in traffic.ports) for group in groups):
        return None
    return subjects


def _find_subjects(
    rule: str, traffic: Traffic, *, own: bool = False, anything: bool = False
) -> str:
    """Whose traffic a rule is about; empty where it is none of these.

    :param own: nothing that comes from elsewhere meets it, so a port alone says enough.
    :param anything: one without addresses and ports is about this traffic, too.
    """
    subjects = _find_addressed(rule, traffic)
    if subjects is None:
        return ""
    interfaces = _INTERFACES.findall(rule)
    if _PORTS.search(rule) and not subjects and (own or interfaces or anything):
        return f"port {', '.join(map(str, sorted(traffic.ports)))}"
    if anything and not subjects:
        return f"all of {', '.join(sorted(set(interfaces)))}" if interfaces else "all containers"
    return ", ".join(sorted(subjects))


def _is_own(interface: str, bridges: Collection[str]) -> bool:
    """Whether an interface may be one of these networks', or the loopback."""
    if bridges and (_BRIDGE.fullmatch(interface) or interface == "docker0"):
        return interface in bridges
    return interface == "lo" or interface.startswith(("br-", "docker"))


def _split(group: str) -> list[str]:
    return [word for word in re.split(r"[{},\s]+", group) if word]


def _has_address(group: str, address: str) -> bool:
    own = ipaddress.ip_address(address)
    for word in _split(group):
        first, dash, last = word.partition("-")
        try:
            if dash:
                low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
                found = low.version == high.version == own.version and int(low) <= int(own) <= int(
                    high
                )
            else:
                found = own in ipaddress.ip_network(word, strict=False)
        except ValueError:
            continue
        if found:
            return True
    return False


def _has_port(group: str, port: int) -> bool:
    for word in _split(group):
        first, _, last = word.replace("-", ":").partition(":")
        bounds = (first, last or first)
        if all(map(str.isdecimal, bounds)) and int(bounds[0]) <= port <= int(bounds[1]):
            return True
    return False
