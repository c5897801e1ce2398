"""The DNS servers that containers ask, and those that one which starts now would be given."""

import json
import re
from collections.abc import Mapping
from ipaddress import ip_address

from stackmend.compose.state import Resolver

_RESOLV_CONF = "/etc/resolv.conf"
_UPLINKS = "/run/systemd/resolve/resolv.conf"
_RESOLVER_LINE = re.compile(
    rf"(?:/.*/([0-9a-f]{{64}})/resolv\.conf|({_RESOLV_CONF}|{_UPLINKS})):"
    r"(?:# (ExtServers|Overrides): \[(.*)\]|nameserver\s+(\S.*))"
)


def parse_resolvers(section: tuple[int, list[str]] | None) -> dict[str, Resolver]:
    """The DNS servers that each was given: by a container's id, or by a file of the host's.

    The engine notes them from 25 on (moby ``libnetwork/internal/resolvconf``): ``host(ADDRESS)`` is
    asked from the host.
    """
    noted: dict[str, dict[str, list[str]]] = {}
    for line in section[1] if section else []:
        if match := _RESOLVER_LINE.fullmatch(line):
            id_, file, key, listed, server = match.groups()
            words = listed.split() if key else server.split()[:1]
            noted.setdefault(id_ or file, {}).setdefault(key or "nameserver", []).extend(words)
    found = {}
    for owner, lines in noted.items():
        words = lines.get("nameserver" if owner.startswith("/") else "ExtServers")
        servers = [word.removeprefix("host(").removesuffix(")") for word in words or ()]
        if words is not None and all(map(_is_address, servers)):
            overridden = "nameservers" in lines.get("Overrides", ())
            # One address is written in several ways.
            same = tuple(str(ip_address(server)) for server in servers)
            found[owner] = Resolver(servers=same, overridden=overridden)
    return found


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def find_engine_resolver(
    found: Mapping[str, tuple[int, list[str]]], resolvers: Mapping[str, Resolver]
) -> Resolver | None:
    """What the engine gives a container that starts now: its own servers, or the host's."""
    status, lines = found.get("daemon", (0, ["{}"]))
    try:
        settings = json.loads("\n".join(lines)) if status == 0 else None
    except ValueError:
        return None
    if not isinstance(settings, dict):
        return None
    if own := settings.get("dns"):
        if not isinstance(own, list) or not all(_is_address(str(server)) for server in own):
            return None
        servers = tuple(str(ip_address(str(server))) for server in own)
        return Resolver(servers=servers, overridden=True)
    host = resolvers.get(_RESOLV_CONF)
    if host is not None and host.servers == ("127.0.0.53",):
        # What systemd-resolved itself asks (moby ``libnetwork/resolvconf``).
        return resolvers.get(_UPLINKS, host)
    return host
