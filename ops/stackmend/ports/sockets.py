"""What the probe printed of sockets, addresses and the packet filter, as tables. Pure."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from stackmend.ports.state import Socket

_USERS = re.compile(r'\("(?P<name>.{0,15}?)",pid=(?P<pid>\d+),fd=\d+\)(?=,\("|\)(?: |$))')
_STATES = {
    "01": "ESTAB",
    "02": "SYN-SENT",
    "03": "SYN-RECV",
    "04": "FIN-WAIT-1",
    "05": "FIN-WAIT-2",
    "06": "TIME-WAIT",
    "07": "UNCONN",
    "08": "CLOSE-WAIT",
    "09": "LAST-ACK",
    "0A": "LISTEN",
    "0B": "CLOSING",
}


def parse_ss(lines: Iterable[str]) -> tuple[Socket, ...]:
    """The rows of ``ss -H -tuanpe``. A row that cannot be read is left out."""
    found = []
    for line in lines:
        row = line.split(None, 6)
        # The name of a process, which may hold a newline, is too short to make such a row.
        if len(row) < 6 or row[0] not in ("tcp", "udp") or len(row[1]) < len("ESTAB"):
            continue
        details = row[6] if len(row) > 6 else ""
        with suppress(ValueError):
            address, port, any_kind = _parse_ss_address(row[4])
            only = _find_once(r"\bv6only:([01])\b", details)
            dual: bool | None = None
            if address == "::":
                dual = only == "0" if only else any_kind or None
            # TCP has no other state that is not one of a connection.
            state = "BOUND" if row[:2] == ["tcp", "UNCONN"] else row[1]
            found.append(
                Socket(
                    protocol=row[0],
                    address=address,
                    port=port,
                    state=state,
                    inode=int(_find_once(r"\bino:(\d{1,20})\b", details) or 0),
                    dual=dual,
                    peer="" if row[5].endswith(":*") else row[5],
                    pids=_parse_pids(details),
                )
            )
    return tuple(found)


def _find_once(pattern: str, details: str) -> str:
    """What a row says once; a process's name or control group may say the same and more."""
    values = set(re.findall(pattern, details))
    return values.pop() if len(values) == 1 else ""


def _parse_ss_address(text: str) -> tuple[str, int, bool]:
    address, _, port = text.rpartition(":")
    # "*" is ss's word for an IPv6 socket that takes IPv4 as well.
    return normalize("::" if address == "*" else address), int(port), address == "*"


def normalize(address: str) -> str:
    """An address as ``ipaddress`` writes it, without the interface; a mapped one as IPv4."""
    bare = re.sub(r"%[^\]]*", "", address).strip("[]")
    found = ip_address(bare)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def _parse_pids(details: str) -> tuple[int, ...]:
    """The owners that ss names; none where a process's name makes them ambiguous."""
    at = details.find("users:(")
    if at < 0:
        return ()
    place, found = at + len("users:("), []
    while match := _USERS.match(details, place):
        found.append(int(match["pid"]))
        place = match.end() + 1
    return tuple(sorted(set(found)))


def parse_proc(lines: Iterable[str], owners: Iterable[str]) -> tuple[Socket, ...]:
    """Rows of /proc/net as the probe cuts them, and the processes that have their inodes."""
    pids: dict[int, set[int]] = {}
    for line in owners:
        with suppress(ValueError):
            inode, pid = map(int, line.split())
            pids.setdefault(inode, set()).add(pid)
    found = []
    for line in lines:
        row = line.split()
        if len(row) != 6 or row[0] not in ("tcp", "tcp6", "udp", "udp6"):
            continue
        with suppress(ValueError):
            address, port = _parse_kernel_address(row[2])
            peer, peer_port = _parse_kernel_address(row[3])
            inode = int(row[5])
            found.append(
                Socket(
                    protocol=row[0][:3],
                    address=address,
                    port=port,
                    state=_STATES.get(row[1], row[1]),
                    inode=inode,
                    peer=f"{peer}:{peer_port}" if peer_port else "",
                    pids=tuple(sorted(pids.get(inode, ()))),
                )
            )
    return tuple(found)


def _parse_kernel_address(text: str) -> tuple[str, int]:
    digits, _, port = text.partition(":")
    raw = bytes.fromhex(digits)
    # Four bytes at a time, in the order of the machine: little-endian on all that run Docker
    # but s390x, where loopback would read 1.0.0.127.
    packed = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return normalize(str(ip_address(packed))), int(port, 16)


def parse_bound(lines: Iterable[str]) -> tuple[Socket, ...]:
    """The sockets that are bound and do not listen, as the probe found them."""
    found: dict[int, Socket] = {}
    for line in lines:
        with suppress(ValueError):
            inode, pid, address, port, only = line.split()
            known = found.get(int(inode))
            normal = normalize(address)
            found[int(inode)] = Socket(
                protocol="tcp",
                address=normal,
                port=int(port),
                state="BOUND",
                inode=int(inode),
                dual=only == "0" if normal == "::" else None,
                pids=tuple(sorted({int(pid), *(known.pids if known else ())})),
            )
    return tuple(found.values())


def parse_rules(lines: Iterable[str]) -> frozenset[tuple[str, int]]:
    """The ports that a packet filter sends to Kubernetes, with their protocols."""
    found = set()
    for line in lines:
        protocol = re.search(r"-p (tcp|udp)\b", line)
        for match in re.finditer(r"--dports? ([\d,:]+)", line) if protocol else ():
            for part in match[1].split(","):
                first, _, last = part.partition(":")
                if protocol and first.isdigit():
                    ports = range(int(first), min(int(last or first), 65535) + 1)
                    found |= {(protocol[1], port) for port in ports}
        # An element of kube-proxy's map in nftables.
        for match in re.finditer(r"\b(tcp|udp) \. (\d+) : goto external-", line):
            found.add((match[1], int(match[2])))
    return frozenset(found)


def parse_addresses(lines: Sequence[str]) -> frozenset[str]:
    """The addresses that the host has, of /proc/net/fib_trie and /proc/net/if_inet6.

    ``::`` is among them where the kernel has IPv6 at all.
    """
    found = set()
    last = ""
    for line in lines:
        if line == "::":
            found.add(line)
        if match := re.search(r"\|-- ([\d.]+)", line):
            last = match[1]
        elif "/32 host LOCAL" in line:
            found.add(last)
        elif match := re.match(r"([0-9a-f]{32}) ", line):
            found.add(str(ip_address(bytes.fromhex(match[1]))))
    return frozenset(found)
