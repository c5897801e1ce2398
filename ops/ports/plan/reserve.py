"""Keeping wanted ports from the kernel, which gives ports to outgoing connections. Pure."""

from collections.abc import Collection, Iterable

from ops.ports.plan.model import Action
from ops.ports.spec import PortsSpec
from ops.ports.state import HostPorts


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


def unreserved(spec: PortsSpec, state: HostPorts) -> Collection[int]:
    """The wanted ports that an outgoing connection may be given."""
    if state.system == "darwin":
        return ()
    first, last = state.ephemeral
    wanted = {one.port for one in spec.ports if first <= one.port <= last}
    return wanted - parsed(state.reserved)


def reserving(spec: PortsSpec, state: HostPorts) -> tuple[str, str]:
    """The ranges that are to be reserved, and why; empty where there is nothing to reserve."""
    ranges = compressed(unreserved(spec, state))
    first, last = state.ephemeral
    return ranges, (
        f"the kernel gives ports from {first} to {last} to outgoing connections, "
        "which then stand in the way"
    )


def reserve(spec: PortsSpec, state: HostPorts) -> tuple[Action, ...]:
    """The step that reserves what is wanted and not reserved yet; it ends nothing."""
    ranges, why = reserving(spec, state)
    if not ranges:
        return ()
    return (
        Action(
            verb="reserve",
            subject=ranges,
            cause=why,
            ports=tuple(ranges.split(",")),
            undo="ports.restored with the name of its record",
        ),
    )
