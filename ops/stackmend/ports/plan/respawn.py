"""Who holds a port again that was freed a moment ago, and what would really stop it. Pure."""

from collections.abc import Collection
from typing import Literal

from stackmend.frozen import Frozen
from stackmend.ports.plan import words
from stackmend.ports.plan.target import Target, consent, lending, target
from stackmend.ports.state import Holder, HostPorts, PortState, Process


class Left(Frozen):
    """A port that was to be free and is not.

    :param kind: ``back``: somebody new holds it; ``still``: who held it before has not let go;
        ``passing``: only what the kernel keeps for a while is left of it; ``unknown``: it cannot
        be told any more.
    :param said: what is seen, in words.
    :param remedy: what would stop it.
    """

    port: str
    kind: Literal["back", "still", "passing", "unknown"]
    said: str
    remedy: str = ""


def left(freed: Collection[str], before: HostPorts, after: HostPorts) -> tuple[Left, ...]:
    """What stands in the way of ports that were just freed.

    :param freed: the ports, as :class:`~stackmend.ports.spec.PortSpec` writes them.
    :param before: what the host had before anything was ended.
    :param after: what it has now.
    """
    known = {
        (holder.process.pid, holder.process.started)
        for port in before.ports
        for holder in port.holders
        if holder.process is not None and holder.process.pid != 1
    }
    return tuple(
        found
        for port in after.ports
        if str(port.wanted) in freed and (found := _left(port, known, after)) is not None
    )


def _left(port: PortState, known: Collection[tuple[int, int]], after: HostPorts) -> Left | None:
    name = str(port.wanted)
    if port.verdict == "unknown":
        return Left(port=name, kind="unknown", said=port.problem or "it cannot be told any more")
    if port.verdict != "held":
        return None
    for holder in sorted(port.holders, key=lambda one: one.model_dump_json()):
        one = target(holder)
        if one is None:
            continue
        process = holder.process
        if process is not None and (process.pid, process.started) in known:
            return Left(port=name, kind="still", said=f"{one.said} has not let go of it")
        said, remedy = _back(one, holder, after)
        return Left(port=name, kind="back", said=f"{one.said} holds it again{said}", remedy=remedy)
    evidence = words.some(line for holder in port.holders for line in words.evidence(holder))
    return Left(
        port=name,
        kind="passing",
        said=evidence or port.evidence or "no owner can be seen",
        remedy="connections that are being closed go away within a minute or two",
    )


def _back(one: Target, holder: Holder, after: HostPorts) -> tuple[str, str]:
    """Who brought it back, and what would stop that."""
    process = holder.process
    parent = after.processes.get(process.parent) if process is not None else None
    by = ""
    if parent is not None and parent.pid != 1:
        by = f", started by {words.process(parent)}"
        if parent.unit:
            by += f" of unit {parent.unit}"
    if one.container is not None:
        return by, (
            "whatever started the container again (a unit, an orchestrator, a scheduled job; "
            "`docker events` shows when) must be stopped first"
        )
    if one.units:
        return by, _unit(one)
    if one.program is not None or one.windows is not None:
        return by, "whatever started it again must be stopped first"
    return by, _parent(parent, process)


def _unit(one: Target) -> str:
    triggers = {
        name
        for holder in one.holders
        if holder.unit is not None
        for name in holder.unit.triggered_by
    } - {*one.units}
    if triggers:
        return f"{words.some(sorted(triggers))} starts it: stop that too"
    rules = words.some(consent(one))
    return (
        f"another unit, a timer or a script starts it (`systemctl list-dependencies --reverse "
        f"{one.units[-1]}` and `journalctl -u {one.units[-1]}` show which); stop that, or mask "
        f"the unit; allowing {rules} ends it and not what starts it"
    )


def _parent(parent: Process | None, process: Process | None) -> str:
    if parent is not None and parent.unit.endswith(".service") and not lending(parent.unit):
        return f'its parent belongs to {parent.unit}: "allow": ["unit:{parent.unit}"], or ' + (
            f"`systemctl stop {parent.unit}`"
        )
    if parent is not None and parent.pid != 1:
        return f"its parent starts it again: end pid {parent.pid} ({words.argv(parent.argv)}) first"
    unit = process.unit if process is not None else ""
    where = f" in {unit}" if unit else ""
    return f"what started it{where} has gone by itself: a scheduled job, or a script of somebody's"
