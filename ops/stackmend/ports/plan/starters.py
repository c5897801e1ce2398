"""Who started again what was stopped a moment ago, and may be stopped as well. Pure."""

from collections.abc import Collection

from stackmend.ports.plan.model import Member, Plan
from stackmend.ports.plan.protection import find_protection
from stackmend.ports.plan.remaining import list_identities
from stackmend.ports.plan.target import (
    Processes,
    Target,
    find_target,
    is_allowed,
    merge_targets,
)
from stackmend.ports.spec import PortsSpec, is_named
from stackmend.ports.state import Holder, HostPorts


def plan_starters(
    spec: PortsSpec, freed: Collection[str], before: HostPorts, after: HostPorts
) -> Plan:
    """Stop the parents that started holders again, where a rule names them, and these holders.

    :param spec: what may be done about holders.
    :param freed: the ports that were freed, as :class:`~stackmend.ports.spec.PortSpec` writes them.
    :param before: what the host had before anything was stopped.
    :param after: what it has now.
    """
    known = list_identities(before)
    found = [
        (starter.model_copy(update={"ports": (str(port.desired),)}))
        for port in after.ports
        if str(port.desired) in freed and port.status == "held"
        for holder in port.holders
        if (starter := _find_starter(spec, holder, known, after)) is not None
    ]
    parents = {pid: process.parent for pid, process in after.processes.items()}
    return Plan(actions=tuple(target.stop() for target in merge_targets(found, parents)))


def _find_starter(
    spec: PortsSpec, holder: Holder, known: Collection[tuple[int, int]], after: HostPorts
) -> Target | None:
    target, process = find_target(holder), holder.process
    if target is None or process is None or not isinstance(target.owner, Processes):
        return None
    parent = after.processes.get(process.parent)
    if (process.pid, process.started) in known or parent is None or parent.pid <= 1:
        return None
    above = Holder(kind="process", process=parent)
    starter = find_target(above)
    if starter is None or any(find_protection(found, spec, after) for found in (starter, target)):
        return None
    if starter.units:
        # It may be much more than what holds the port: nothing less than its own name is consent.
        return starter if is_named(spec.allow, "unit", *starter.units) else None
    if not (is_allowed(starter, spec.allow) and is_allowed(target, spec.allow)):
        return None
    members = (Member(process=parent), *target.owner.members)
    return Target(owner=Processes(members=members), holders=(above, holder))
