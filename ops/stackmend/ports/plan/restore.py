"""Whether what was stopped may be started again: only where its ports are free."""

from typing import Literal

from stackmend import decision
from stackmend.decision import Refusal
from stackmend.ports.format import format_port
from stackmend.ports.state import HostPorts, PortState


class Restore(decision.Action):
    """Bring back what a record holds, to the state that it had."""

    verb: Literal["bring back"] = "bring back"
    cause: str = "what was stopped is desired again"
    undo: str = "ports.free stops it again"


def plan_return(record: str, ports: HostPorts | None) -> decision.Plan[Restore]:
    """What is to be done so that what a record holds is as it was.

    :param record: its name.
    :param ports: the ports that it had, as they are now; ``None`` where it needs none.
    """
    taken = [port for port in ports.ports if port.status != "free"] if ports else []
    if not taken:
        return decision.Plan(actions=(Restore(subject=record),))
    return decision.Plan(refusals=tuple(_refuse(record, port) for port in taken))


def _refuse(record: str, port: PortState) -> Refusal:
    return Refusal(
        subject=str(port.desired),
        reason=f"what record {record} holds is not started: {format_port(port)}",
        remedy=f"{_find_remedy(port)}, then run this again",
    )


def _find_remedy(port: PortState) -> str:
    holders = port.holders
    container = next((each.container for each in holders if each.container), None)
    unit = next((each.unit for each in holders if each.unit), None)
    if container is not None and container.project:
        return (
            f"take the port from {container.service or container.name} in project "
            f"{container.project} and apply that"
        )
    if container is not None:
        return f"stop container {container.name}"
    if unit is not None:
        user = "" if unit.manager == "system" else "--user "
        return f"systemctl {user}stop {unit.name}"
    return "free the port" if port.status == "held" else "see why its status is unknown"
