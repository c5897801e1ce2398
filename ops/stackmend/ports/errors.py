"""What an engine says when it cannot bind a port, in every spelling that is known.

Where the spellings come from:

- Docker up to 26 (``Error starting userland proxy: listen tcp4 …``), 27 (``failed to bind port
  …/tcp: Error starting …``, stefanprodan/dockprom#308), 28 (moby v28
  ``libnetwork/drivers/bridge/port_mapping_linux.go``: ``failed to bind host port for %s``, and for
  a range ``failed to bind host port %d for %s``; winboat-org/winboat#29) and 29
  (``failed to bind host port %s/%s``; microsoft/WSL#40984).
- Docker's own allocator: ``ErrPortAlreadyAllocated`` in moby ``libnetwork/portallocator``, the same
  words since 2014 (moby#36591). It prints an IPv6 address without brackets: ``Bind for :::8080``.
- Rootless Docker: ddev/ddev#8293, moby#52903, moby#53153.
- Podman: ``rootlessport listen tcp …`` (podman#6762, ddev/ddev#8293), ``cannot listen on the TCP
  port: listen tcp4 :53 …`` (podman#19108), pasta's ``Failed to bind port`` (podman#21563,
  cockpit-podman#1586) and its later ``Listen failed for HOST TCP port``.
- Docker Desktop: ``Ports are not available`` (for-win#6613, #8881, #10008, #14385, #14399, #14407;
  for-mac#6461), before 2018 ``Bind for …: unexpected error`` (for-mac#3755, for-win#2614). What
  Windows itself adds may come in the language of the machine.
"""

import re
from ipaddress import ip_address
from typing import Literal

from stackmend.frozen import Frozen
from stackmend.ports.spec import Protocol

#: Why the port could not be bound. ``kernel``: another socket of the machine has it, or the system
#: refused it in words that are not known. ``engine``: the engine's own allocator has given it to
#: one of its containers. ``forbidden``: Windows keeps it, mostly in an excluded port range.
#: ``unavailable``: the address is none of the machine's. ``privilege``: the engine may not bind a
#: port so low.
Reason = Literal["kernel", "engine", "forbidden", "unavailable", "privilege"]


class BindError(Frozen):
    """A port that an engine could not bind.

    :param address: as ``ipaddress`` writes it; ``0.0.0.0`` where the engine names none.
    :param port: 1 to 65535.
    :param protocol: ``tcp`` where the engine names none, as its own allocator does.
    :param reason: see :data:`Reason`.
    :param text: the engine's own words: the lines that say so.
    """

    address: str
    port: int
    protocol: Protocol
    reason: Reason
    text: str

    @property
    def allocated_by_engine(self) -> bool:
        """Whether the engine's own allocator refused it: no process of the host has the port."""
        return self.reason == "engine"


_ADDRESS = r"(?P<address>\[[0-9a-fA-F:.%\w]*\]|[0-9a-fA-F:.]*|\*)"
_PORT = r"(?P<port>[0-9]{1,5})\b"
_LISTEN = (
    rf"listen (?P<protocol>tcp|udp)(?P<family>[46]?)\s+{_ADDRESS}:{_PORT}: bind: (?P<words>[^\n]*)"
)

#: In the order in which they are believed when two of them begin at the same place.
_SPELLINGS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"Bind for {_ADDRESS}:{_PORT} failed:\s+(?P<engine>port is\s+already allocated)",
        rf"Bind for {_ADDRESS}:{_PORT}: unexpected error (?P<words>[^\n]*)",
        rf"failed to bind(?: host)? port {_ADDRESS}:{_PORT}/(?P<protocol>tcp|udp):\s+"
        r"(?P<words>[^\n]*)",
        rf"failed to bind host port for {_ADDRESS}:{_PORT}:\S*/(?P<protocol>tcp|udp):\s+"
        r"(?P<words>[^\n]*)",
        rf"failed to bind host port {_PORT} for {_ADDRESS}:[0-9]\S*/(?P<protocol>tcp|udp):\s+"
        r"(?P<words>[^\n]*)",
        # What only repeats Go's own words is believed behind the words of an engine alone: a
        # program inside a container says the same of its own ports.
        rf"(?:userland proxy|ports are not available|RootlessKit PortManager|rootlessport"
        rf"|programming external connectivity|cannot listen on the (?:TCP|UDP) port)"
        rf"(?:(?!\blisten (?:tcp|udp))[^\n]){{0,600}}?\b{_LISTEN}",
        rf"exposing port (?P<protocol>tcp|udp) {_ADDRESS}:{_PORT}"
        r"(?:(?!\bbind: )[^\n]){0,300}?\bbind: (?P<words>[^\n]*)",
        rf"Failed to bind port {_PORT} \((?P<words>[^)\n]*)\)"
        r"(?: for option '-(?P<option>[tu]) (?:(?P<address>[0-9a-fA-F:.\[\]]+)(?:%\w+)?/)?)?",
        rf"Listen failed for HOST (?P<protocol>TCP|UDP) port (?:{_ADDRESS}(?:%\w+)?/)?{_PORT}: "
        r"(?P<words>[^\n]*)",
    )
)

# The words of Linux, macOS and Windows (WSAEACCES), the latter in the languages that were found.
# What a console made of an umlaut is not to matter: only letters that survive are looked for.
_PATTERNS: tuple[tuple[Reason, re.Pattern[str]], ...] = (
    ("engine", re.compile(r"port is\s+already allocated", re.I)),
    (
        "forbidden",
        re.compile(
            r"forbidden by its access permissions|Zugri(?:ff|f)s?srechte des Sockets"
            r"|ses autorisations d.acc|permisos de acceso|permiss[õo]es de acesso"
            r"|访问权限不允许|アクセス許可で禁じられた",
            re.I,
        ),
    ),
    ("unavailable", re.compile(r"can(?:'t|not) assign requested address|not valid in its context")),
    ("privilege", re.compile(r"permission denied", re.I)),
)


def parse(text: str) -> BindError | None:
    """The first bind error that a text of an engine holds, or ``None``: then it is another error.

    A text of Compose may hold several lines; Docker itself names one port only, even where several
    are in conflict.

    :param text: what the engine or Compose wrote, whole.
    """
    found = [match for pattern in _SPELLINGS for match in pattern.finditer(text)]
    # sorted() keeps the order of the spellings where two begin at the same place.
    for match in sorted(found, key=lambda match: match.start()):
        error = _parse_error(text, match)
        if error is not None:
            return error
    return None


def _parse_error(text: str, match: re.Match[str]) -> BindError | None:
    groups = match.groupdict()
    port = int(groups["port"])
    # What engines bind where none is named.
    everywhere = "::" if groups.get("family") == "6" else "0.0.0.0"  # noqa: S104
    address = _parse_address(groups["address"], everywhere)
    if address is None or not 1 <= port <= 65535:
        return None
    protocol: Protocol = "tcp"
    if (groups.get("protocol") or "").lower() == "udp" or groups.get("option") == "u":
        protocol = "udp"
    words = groups.get("engine") or groups.get("words") or ""
    reason: Reason = next(
        (reason for reason, pattern in _PATTERNS if pattern.search(words)), "kernel"
    )
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.end())
    return BindError(
        address=address,
        port=port,
        protocol=protocol,
        reason=reason,
        text=text[start : len(text) if end < 0 else end].strip(),
    )


def _parse_address(text: str | None, everywhere: str) -> str | None:
    """As ``ipaddress`` writes it; ``None`` for what is no address."""
    text = (text or "").strip("[]").partition("%")[0]
    if text in ("", "*"):
        return everywhere
    try:
        return str(ip_address(text))
    except ValueError:
        return None
