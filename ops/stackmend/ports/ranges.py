"""Ports as the kernel lists those that it keeps from outgoing connections. Pure."""

from collections.abc import Iterable

from stackmend.ports.spec import PortSpec


def parsed(text: str) -> frozenset[int]:
    """The ports of a list as ``ip_local_reserved_ports`` has it: ``a,b-c``.

    What is no port is left out, so that nothing of ours is taken for reserved that is not.
    """
    found: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if first.isdecimal() and (last.isdecimal() if dash else True):
            found.update(range(int(first), min(int(last or first), 65535) + 1))
    return frozenset(port for port in found if port > 0)


def compressed(ports: Iterable[int]) -> str:
    """Ports as the kernel writes such a list: in order, neighbours as one range."""
    ranges: list[list[int]] = []
    for port in sorted(set(ports)):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def unreserved(
    ports: Iterable[PortSpec], ephemeral: tuple[int, int], reserved: str
) -> frozenset[int]:
    """The ports that an outgoing connection may be given.

    :param ports: those that something of ours is to be bound to.
    :param ephemeral: the first and the last port that the kernel gives to outgoing connections.
    :param reserved: the kernel's list of those that it does not.
    """
    first, last = ephemeral
    return frozenset(one.port for one in ports if first <= one.port <= last) - parsed(reserved)
