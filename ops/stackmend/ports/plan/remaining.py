"""Who holds a port again that was freed a moment ago, and what would really stop it. Pure."""

from collections.abc import Collection
from typing import Literal

from stackmend.frozen import Frozen
from stackmend.ports.format import format_argv, format_process, join_some, list_evidence
from stackmend.ports.plan.target import (
    Target,
    find_target,
    is_launcher,
    quote_rule,
    suggest_rules,
)
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Holder, HostPorts, PortState, Process


class Remaining(Frozen):
    """A port that was to be free and is not.

    :param kind: ``back``: somebody new holds it; ``still``: who held it before has not let go;
        ``closing``: only what the kernel keeps for a while is left of it; ``unknown``: it
        cannot be read any more.
    :param reason: what is seen.
    :param remedy: what would stop it.
    """

    port: PortSpec
    kind: Literal["back", "still", "closing", "unknown"]
    reason: str
    remedy: str = ""


def list_remaining(
    freed: Collection[str], before: HostPorts, after: HostPorts
) -> tuple[Remaining, ...]:
    """What stands in the way of ports that were just freed.

    :param freed: the ports, as :class:`~stackmend.ports.spec.PortSpec` writes them.
    :param before: what the host had before anything was stopped.
    :param after: what it has now.
    """
    known = list_identities(before)
    return tuple(
        remaining
        for port in after.ports
        if str(port.desired) in freed
        and (remaining := _explain_port(port, known, after)) is not None
    )


def list_identities(state: HostPorts) -> frozenset[tuple[int, int]]:
    """The processes that hold ports, each by what tells it from a later one of its number."""
    return frozenset(
        (holder.process.pid, holder.process.started)
        for port in state.ports
        for holder in port.holders
        if holder.process is not None and holder.process.pid != 1
    )


def _explain_port(
    port: PortState, known: Collection[tuple[int, int]], after: HostPorts
) -> Remaining | None:
    if port.status == "unknown":
        reason = port.problem or "cannot tell any more whether it is free"
        return Remaining(port=port.desired, kind="unknown", reason=reason)
    if port.status != "held":
        return None
    for holder in sorted(port.holders, key=lambda holder: holder.model_dump_json()):
        target = find_target(holder)
        if target is None:
            continue
        who, process = target.description, holder.process
        if process is not None and (process.pid, process.started) in known:
            reason = f"{who} has not let go of it"
            return Remaining(port=port.desired, kind="still", reason=reason)
        parent = after.processes.get(process.parent) if process is not None else None
        return Remaining(
            port=port.desired,
            kind="back",
            reason=f"{who} holds it again{_name_starter(parent)}",
            remedy=_find_remedy(target, holder, parent),
        )
    evidence = join_some(line for holder in port.holders for line in list_evidence(holder))
    return Remaining(
        port=port.desired,
        kind="closing",
        reason=evidence or port.evidence or "no owner can be seen",
        remedy="connections that are being closed go away within a minute or two",
    )


def _name_starter(parent: Process | None) -> str:
    if parent is None or parent.pid == 1:
        return ""
    unit = f" of unit {parent.unit}" if parent.unit else ""
    return f", started by {format_process(parent)}{unit}"


def _find_remedy(target: Target, holder: Holder, parent: Process | None) -> str:
    """What would stop who brought it back."""
    if target.container is not None:
        return (
            "first stop what started the container again (a unit, an orchestrator, a scheduled "
            "job; `docker events` shows when)"
        )
    if target.units:
        return _stop_unit(target)
    return (
        _stop_parent(parent, holder.process)
        if target.members
        else ("first stop what started it again")
    )


def _stop_unit(target: Target) -> str:
    triggers = {
        name
        for holder in target.holders
        if holder.unit is not None
        for name in holder.unit.triggered_by
    } - {*target.units}
    if triggers:
        return f"{join_some(sorted(triggers))} starts it: stop that too"
    unit = target.units[-1]
    return (
        f"another unit, a timer or a script starts it (`systemctl list-dependencies --reverse "
        f"{unit}` and `journalctl -u {unit}` show which); stop that, or mask the unit; allowing "
        f"{join_some(suggest_rules(target))} stops it and not what starts it"
    )


def _stop_parent(parent: Process | None, process: Process | None) -> str:
    if parent is not None and parent.unit.endswith(".service") and not is_launcher(parent.unit):
        return (
            f'its parent belongs to {parent.unit}: "allow": ["unit:{parent.unit}"], or '
            f"`systemctl stop {parent.unit}`"
        )
    if parent is not None and parent.pid != 1:
        command = format_argv(parent.argv)
        target = find_target(Holder(kind="process", process=parent))
        rules = suggest_rules(target) if target is not None else ()
        named = f', or add "allow": [{", ".join(map(quote_rule, rules))}]' if rules else ""
        return f"its parent starts it again: end pid {parent.pid} ({command}) first{named}"
    where = f" in {process.unit}" if process is not None and process.unit else ""
    return f"what started it{where} has ended by itself: a scheduled job, or somebody's script"
