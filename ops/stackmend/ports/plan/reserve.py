"""Keeping wanted ports from the kernel, which gives ports to outgoing connections. Pure."""

from stackmend.ports import ranges
from stackmend.ports.plan.model import Action
from stackmend.ports.spec import PortsSpec
from stackmend.ports.state import HostPorts


def reserving(spec: PortsSpec, state: HostPorts) -> tuple[str, str]:
    """The ranges that are to be reserved, and why; empty where there is nothing to reserve."""
    ports = () if state.system == "darwin" else spec.ports
    first, last = state.ephemeral
    return ranges.compressed(ranges.unreserved(ports, state.ephemeral, state.reserved)), (
        f"the kernel gives ports from {first} to {last} to outgoing connections, "
        "which then stand in the way"
    )


def reserve(spec: PortsSpec, state: HostPorts) -> tuple[Action, ...]:
    """The step that reserves what is wanted and not reserved yet; it ends nothing."""
    wanted, why = reserving(spec, state)
    return (reservation(wanted, why),) if wanted else ()


def reservation(wanted: str, why: str) -> Action:
    """The step that reserves ranges, as :func:`~stackmend.ports.ranges.compressed` writes them."""
    return Action(
        verb="reserve",
        subject=wanted,
        cause=why,
        ports=tuple(wanted.split(",")),
        undo="ports.restored with the name of its record",
    )
