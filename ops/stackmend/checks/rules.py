"""Rules of a host's packet filter that keep a check's packets from arriving. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

_IPTABLES = re.compile(r"(?:(\w+) )?\[(\d+):(\d+)\] (-A (\S+) .*-j (DROP|REJECT)\b.*)")
_NFTABLES = re.compile(r"(\w+) (\S+) (\S+) (.*\b(drop|reject)\b.*)")
#: One about what comes from elsewhere, with an exception, or of another protocol is no cause.
_ELSEWHERE = re.compile(
    r" -[io] (?!br-|docker|lo\b)| ! | -p (?!tcp\b)"
    r'|\b[io]if(?:name)? (?!"?(?:br-|docker|lo\b))|!=|\b(?:udp|sctp|icmp\w*) '
)
#: Where a port alone says enough: no machine elsewhere sends what such a rule meets.
_OWN = re.compile(r"-A OUTPUT | -[io] |\b[io]if")
_ADDRESSES = re.compile(r"(?: -[sd]|\b[sd]addr) (\{[^}]*\}|\S+)")
_PORTS = re.compile(r"(?: --[sd](?:ports?)|\b[sd]port) (\{[^}]*\}|\S+)")
#: Where the stack's section "engine" removes a rule with consent.
_REMOVABLE = ("DOCKER-USER", "FORWARD")


class Blocking(NamedTuple):
    """A rule that drops or rejects what a check sends.

    :param removable: whether the engine's section removes it where it is named there.
    """

    text: str
    removable: bool


def find_blocking(
    iptables: Iterable[str],
    nftables: Iterable[str],
    names: Mapping[str, str],
    ports: Collection[int],
) -> list[Blocking]:
    """The rules that are about these addresses and ports.

    :param iptables: lines `[TABLE] [PACKETS:BYTES] RULE`, without a table of the filter's.
    :param nftables: lines `FAMILY TABLE CHAIN RULE`.
    :param names: whose the addresses of both ends are.
    :param ports: those that are called.
    """
    found = []
    for line in iptables:
        if match := _IPTABLES.fullmatch(line):
            table, packets, octets, rule, chain, target = match.groups()
            removable = not table and chain in _REMOVABLE
            # What it never met it did not drop, however few it may meet.
            if packets == "0" and not (removable and _ADDRESSES.search(rule)):
                continue
            if whose := _find_subjects(rule, names, ports):
                where = f"the table {table} of " if table else ""
                text = f"{target.lower()}s traffic of {whose}: {rule}"
                counted = f"({packets} packets, {octets} bytes so far)"
                text = f"somebody's rule of {where}the packet filter {text} {counted}"
                found.append(Blocking(text, removable))
    for line in nftables:
        if match := _NFTABLES.fullmatch(line):
            family, table, chain, rule, target = match.groups()
            if whose := _find_subjects(rule, names, ports):
                text = f"{target}s traffic of {whose}: {rule.strip()}"
                place = f"nft table {family} {table}, chain {chain}"
                text = f"somebody's rule of the packet filter ({place}) {text}"
                found.append(Blocking(text, removable=False))
    return found


def _find_subjects(rule: str, names: Mapping[str, str], ports: Collection[int]) -> str:
    """Whose traffic a rule is about; empty where it is none of these."""
    if _ELSEWHERE.search(rule):
        return ""
    subjects: set[str] = set()
    for group in _ADDRESSES.findall(rule):
        hit = {name for address, name in names.items() if _has_address(group, address)}
        if not hit:
            return ""
        subjects |= hit
    groups = _PORTS.findall(rule)
    if not all(any(_has_port(group, port) for port in ports) for group in groups):
        return ""
    if groups and not subjects and _OWN.search(rule):
        return f"port {', '.join(map(str, sorted(ports)))}"
    return ", ".join(sorted(subjects))


def _split(group: str) -> list[str]:
    return [word for word in re.split(r"[{},\s]+", group) if word]


def _has_address(group: str, address: str) -> bool:
    for word in _split(group):
        try:
            if ipaddress.ip_address(address) in ipaddress.ip_network(word, strict=False):
                return True
        except ValueError:
            continue
    return False


def _has_port(group: str, port: int) -> bool:
    for word in _split(group):
        first, _, last = word.replace("-", ":").partition(":")
        bounds = (first, last or first)
        if all(map(str.isdecimal, bounds)) and int(bounds[0]) <= port <= int(bounds[1]):
            return True
    return False
