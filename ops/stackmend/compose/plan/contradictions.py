"""What no engine can do, as the files alone say: known on the controller, before any contact."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stackmend.compose.plan.declaration import count_replicas

#: The least memory that the engine gives a container (moby ``daemon/daemon_unix.go``).
MINIMUM_MEMORY = 6 * 1024**2

_BYTES = re.compile(r"(\d{1,30}(?:\.\d{1,30})?) *([kmgtp]?)i?b?", re.IGNORECASE | re.ASCII)
_RANGE = re.compile(r"\d{1,5}(?:-\d{1,5})?", re.ASCII)

#: The address of a port that is published on every one; an empty one means both families.
_EVERY = {"": (4, 6), "0.0.0.0": (4,), "::": (6,)}  # noqa: S104

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Contradiction(NamedTuple):
    """What cannot be, and what would be right.

    :param subject: the service or network.
    """

    subject: str
    reason: str
    remedy: str


def find_contradictions(config: Mapping[str, Any]) -> Iterator[Contradiction]:
    """What the engine would stop at, with a part of the stack started already.

    :param config: the project in Compose's long syntax; what is not certain is left out.
    """
    services = {
        name: body for name, body in (config.get("services") or {}).items() if count_replicas(body)
    }
    yield from _find_shared_ports(services)
    yield from _find_small_memory(services)
    yield from _find_shared_subnets(config, services)
    yield from _find_addresses(config, services)
    yield from _find_unsupported(config, services)


def parse_bytes(value: object) -> int | None:
    """A size as a compose file gives it, in bytes; ``None`` where it is none.

    >>> parse_bytes("4m")
    4194304
    """
    match = _BYTES.fullmatch(str(value))
    if match is None:
        return None
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def parse_network(value: object) -> Network | None:
    """A subnet, or ``None`` where it is none; the engine takes one with host bits as well."""
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        return None


def list_subnets(network: Mapping[str, Any]) -> list[Network]:
    """The subnets that a network is declared with."""
    pools = (network.get("ipam") or {}).get("config") or ()
    found = (parse_network(pool["subnet"]) for pool in pools if pool.get("subnet"))
    return [subnet for subnet in found if subnet]


def is_overlapping(subnet: Network, other: Network) -> bool:
    """Whether two subnets share an address."""
    return subnet.version == other.version and subnet.overlaps(other)


def _find_shared_ports(services: Mapping[str, Mapping[str, Any]]) -> Iterator[Contradiction]:
    holders: dict[tuple[str, int], list[tuple[str, str, object]]] = {}
    for name, body in services.items():
        if body.get("network_mode") == "host":
            continue
        for port in body.get("ports") or ():
            protocol, address = port.get("protocol") or "tcp", str(port.get("host_ip") or "")
            for number, target in _list_fixed(port):
                where = f"{f'{address}:' if address else ''}{number}/{protocol}"
                if count_replicas(body) > 1:
                    yield Contradiction(
                        name,
                        f"its {count_replicas(body)} replicas would all publish port {where}",
                        "publish a range of ports, no fixed one, or run one replica",
                    )
                held = holders.setdefault((protocol, number), [])
                for other, its_address, its_target in held:
                    # Compose takes what is there twice for one.
                    if (other, its_address, its_target) == (name, address, target):
                        break
                    if _is_same_address(address, its_address):
                        whose = "twice" if other == name else f"by {other} as well"
                        yield Contradiction(
                            name,
                            f"port {where} is published {whose}",
                            "publish one of them on another port or address",
                        )
                        break
                held.append((name, address, target))


def _list_fixed(port: Mapping[str, Any]) -> list[tuple[int, object]]:
    """The numbers that a port takes on the host, each with what it leads to.

    Out of a range for one port of a container, the engine takes one that is free.
    """
    published, target = str(port.get("published") or ""), str(port.get("target") or "")
    if not (_RANGE.fullmatch(published) and _RANGE.fullmatch(target)):
        return []
    numbers, targets = _expand(published), _expand(target)
    if numbers == [0] or len(numbers) != len(targets):
        return []
    return list(zip(numbers, targets, strict=True))


def _expand(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _is_same_address(address: str, other: str) -> bool:
    if address == other:
        return True
    families = [_EVERY.get(text) or (_get_family(text),) for text in (address, other)]
    return bool({*families[0]} & {*families[1]}) and (address in _EVERY or other in _EVERY)


def _get_family(address: str) -> int:
    return 6 if ":" in address else 4


def _find_small_memory(services: Mapping[str, Mapping[str, Any]]) -> Iterator[Contradiction]:
    for name, body in services.items():
        resources = (body.get("deploy") or {}).get("resources") or {}
        limits, reservations = resources.get("limits") or {}, resources.get("reservations") or {}
        field, raw = "mem_limit", body.get("mem_limit")
        if not raw:
            field, raw = "deploy.resources.limits.memory", limits.get("memory")
        limit = parse_bytes(raw) if raw else None
        if not limit:
            continue
        if limit < MINIMUM_MEMORY:
            yield Contradiction(
                name,
                f"{field} is {raw}, and the engine takes no less than 6m",
                f"raise {field} to what the program needs",
            )
        reserved = parse_bytes(body.get("mem_reservation") or reservations.get("memory") or 0)
        if reserved and reserved > limit:
            yield Contradiction(
                name,
                f"{field} is {raw}, and less than the memory that it reserves",
                f"raise {field}, or reserve less",
            )
        swap = parse_bytes(body.get("memswap_limit") or 0)
        if swap and swap < limit:
            yield Contradiction(
                name,
                f"memswap_limit is {body['memswap_limit']}, and less than {field}, which it holds",
                f"raise memswap_limit to at least {raw}, or leave it out",
            )


def _find_shared_subnets(
    config: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]]
) -> Iterator[Contradiction]:
    declared: list[tuple[str, Network]] = []
    for key in _list_made(config, services):
        for subnet in list_subnets(config["networks"][key]):
            for other, its_subnet in declared:
                if is_overlapping(subnet, its_subnet):
                    yield Contradiction(
                        f"network {key}",
                        f"its subnet {subnet} overlaps {its_subnet} of network {other}",
                        f"declare another subnet in networks.{key}.ipam, or none",
                    )
            declared.append((key, subnet))


def _list_made(
    config: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """The networks with settings that Compose makes for the services."""
    used = {key for body in services.values() for key in body.get("networks") or ()}
    for key, network in sorted((config.get("networks") or {}).items()):
        if key in used and network and not network.get("external"):
            yield key


def _find_addresses(
    config: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]]
) -> Iterator[Contradiction]:
    networks = config.get("networks") or {}
    holders: dict[tuple[str, str], str] = {}
    for name, body in services.items():
        for key, place in (body.get("networks") or {}).items():
            address = str((place or {}).get("ipv4_address") or "")
            if not address:
                continue
            other = holders.setdefault((key, address), name)
            if other != name or count_replicas(body) > 1:
                whose = f"{other} has as well" if other != name else "each of its replicas has"
                yield Contradiction(
                    name,
                    f"networks.{key}.ipv4_address is {address}, which {whose}",
                    "give each container another address, or none",
                )
            network = networks.get(key) or {}
            if network.get("external"):
                continue
            subnets = list_subnets(network)
            # Host bits and notations are the engine's to judge; what is no address it refuses.
            at = parse_network(address)
            if at is None or not any(is_overlapping(at, subnet) for subnet in subnets):
                which = ", ".join(map(str, subnets)) or "none declared"
                yield Contradiction(
                    name,
                    f"networks.{key}.ipv4_address is {address}, which is in no subnet of network "
                    f"{key} ({which})",
                    f"declare a subnet in networks.{key}.ipam that holds it, or another address",
                )


def _find_unsupported(
    config: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]]
) -> Iterator[Contradiction]:
    for name, body in services.items():
        for section in ("configs", "secrets"):
            for item in body.get(section) or ():
                key = str(item.get("source") or "")
                if ((config.get(section) or {}).get(key) or {}).get("external"):
                    yield Contradiction(
                        name,
                        f"{section}.{key} is external, which only a swarm has",
                        f"give {section}.{key} a file of the project, or `environment`",
                    )
