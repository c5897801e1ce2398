"""Go through the wanted ports: who holds each, what would end it, and whether it may be ended."""

import json
from collections.abc import Iterable

from stackmend.decision import Finding, Refusal
from stackmend.ports import windows
from stackmend.ports.plan import words
from stackmend.ports.plan.model import Action, Plan
from stackmend.ports.plan.protected import Barrier, barrier
from stackmend.ports.plan.reserve import reserve, reserving
from stackmend.ports.plan.target import Target, allowed, consent, target, united
from stackmend.ports.spec import PortSpec, PortsSpec
from stackmend.ports.state import Holder, HostPorts, PortState
from stackmend.ports.words import holder as described

_ENGINE_STOPPED = (
    "start it first (systemctl start docker; journalctl -u docker says why it stopped): while it "
    "is down, a port that a container has looks like anybody's"
)
_UNDO = "ports.restored with the name of its record"


def plan(spec: PortsSpec, state: HostPorts) -> Plan:
    """What is to be done so that the wanted ports can be bound.

    A holder is ended only where that frees a wanted port: every holder of the port must be one that
    may be ended. Where anything is refused, nothing is ended at all.

    :param spec: the wanted ports, and what may be done about them.
    :param state: what the host has.
    """
    ports = _ports(spec, state)
    findings = [finding for one in ports if (finding := _finding(one)) is not None]
    taken = [one for one in ports if one.verdict in ("held", "unknown")]
    refusals = _engine(state, taken)
    untold = [one for one in taken if one.verdict == "unknown"]
    refusals += [_untold(one, state) for one in untold]
    held = [one for one in taken if one.verdict == "held"]
    parents = {pid: process.parent for pid, process in state.processes.items()}
    targets = united(
        (
            found.model_copy(update={"ports": (str(port.wanted),)})
            for port in held
            for holder in port.holders
            if (found := target(holder)) is not None
        ),
        parents,
    )
    barred = {
        index: why
        for index, one in enumerate(targets)
        if (why := barrier(one, spec, state)) is not None
    }
    refusals += _stuck(held)
    refusals += [
        Refusal(
            subject=words.some(one.ports),
            reason=f"held by {one.said}, and never ended: {barred[index].reason}",
            remedy=barred[index].remedy,
        )
        for index, one in enumerate(targets)
        if index in barred
    ]
    free = [one for index, one in enumerate(targets) if index not in barred]
    refusals += [refusal for one in free if (refusal := _consent(one, spec)) is not None]
    reserved = reserve(spec, state) if spec.on_conflict == "stop" else ()
    if spec.on_conflict == "report":
        findings += _advice(spec, state)
    ended = () if refusals else tuple(_ending(one) for one in free)
    return Plan(findings=tuple(findings), actions=(*ended, *reserved), refusals=tuple(refusals))


def allocated(port: PortState, said: str) -> Plan:
    """What follows where the engine's own list has a port that nothing stands in the way of.

    :param port: the port, which could be bound, or which a container of the project has.
    :param said: the engine's own words.
    """
    subject = str(port.wanted)
    if port.verdict == "ours":
        cause = f"held by {words.some(_who(holder) for holder in port.holders)}, the project's own"
        remedy = "let Compose stop that container first (docker compose stop SERVICE)"
    else:
        cause = "Docker's own list has it for one of its containers, and no container has it"
        remedy = "restart Docker (systemctl restart docker; Docker Desktop: restart it)"
    return Plan(
        findings=(Finding(subject=subject, kind="allocated", cause=cause, evidence=(said,)),),
        refusals=(Refusal(subject=subject, reason=cause, remedy=remedy),),
    )


def _ports(spec: PortsSpec, state: HostPorts) -> list[PortState]:
    """Every wanted port, in order; one that the probe did not tell of is unknown."""
    told = {one.wanted: one for one in state.ports}
    order = dict.fromkeys(spec.ports)
    return [
        told.get(wanted)
        or PortState(wanted=wanted, verdict="unknown", problem="the probe did not tell of it")
        for wanted in sorted(order, key=_order)
    ]


def _order(wanted: PortSpec) -> tuple[int, str, str]:
    return wanted.port, wanted.protocol, wanted.address


def _finding(port: PortState) -> Finding | None:
    subject = str(port.wanted)
    if port.verdict == "unknown":
        cause = port.problem or "whether it is free cannot be told"
        return Finding(subject=subject, kind="unknown", cause=cause, evidence=_seen(port, ()))
    if port.verdict != "held":
        return None
    holders = sorted(port.holders, key=lambda one: one.model_dump_json())
    who = words.some(dict.fromkeys(_who(holder) for holder in holders))
    cause = f"held by {who}" if holders else "held, and no owner can be seen"
    return Finding(subject=subject, kind="held", cause=cause, evidence=_seen(port, holders))


def _seen(port: PortState, holders: Iterable[Holder]) -> tuple[str, ...]:
    lines = [port.evidence] if port.evidence else []
    for holder in holders:
        lines += words.evidence(holder)
        lines += filter(None, (windows.explain(holder) if holder.kind == "windows" else "",))
    return tuple(dict.fromkeys(lines))


def _who(holder: Holder) -> str:
    found = target(holder)
    if found is not None:
        return found.said
    process = holder.process
    if holder.container is None and process is not None and process.container:
        return f"container {process.container[:12]} ({words.process(process)})"
    return described(holder)


def _engine(state: HostPorts, taken: list[PortState]) -> list[Refusal]:
    """Nothing is freed while the engine cannot say what its containers have."""
    if state.engine == "stopped" and state.live_containers:
        count = state.live_containers
        return [
            Refusal(
                subject="engine",
                reason=f"the Docker daemon does not run, but {count} of its containers "
                f"{'do' if count > 1 else 'does'}",
                remedy=_ENGINE_STOPPED,
            )
        ]
    if not taken:
        return []
    if state.engine == "stopped":
        return [
            Refusal(
                subject="engine", reason="the Docker daemon does not run", remedy=_ENGINE_STOPPED
            )
        ]
    if state.engine in ("forbidden", "unknown"):
        said = f": {state.engine_reason}" if state.engine_reason else ""
        return [
            Refusal(
                subject="engine",
                reason="which ports Docker's containers have cannot be told" + words.line(said),
                remedy="connect as root, or set _sudo = True in the host's data; "
                "see what `docker ps` says on the host",
            )
        ]
    return []


def _untold(port: PortState, state: HostPorts) -> Refusal:
    remedy = "see the reason"
    if port.problem and not port.wanted.everywhere:
        remedy += "; `ip address` shows the addresses that the host has"
    if not state.root:
        remedy += "; connect as root, or set _sudo = True in the host's data"
    return Refusal(
        subject=str(port.wanted),
        reason=port.problem or "whether it is free cannot be told",
        remedy=remedy,
    )


def _stuck(held: list[PortState]) -> list[Refusal]:
    """Refusals for what nothing can be done about, one for each reason."""
    ports: dict[Barrier, list[str]] = {}
    for port in held:
        holders = port.holders or (Holder(kind="hidden", why_hidden="no socket of it is listed"),)
        for holder in holders:
            if target(holder) is None:
                ports.setdefault(_hopeless(holder), []).append(str(port.wanted))
    return [
        Refusal(subject=words.some(found), reason=stuck.reason, remedy=stuck.remedy)
        for stuck, found in sorted(ports.items(), key=lambda item: (item[1], item[0]))
    ]


def _hopeless(holder: Holder) -> Barrier:
    who = _who(holder)
    match holder.kind:
        case "outgoing":
            return Barrier(
                f"held by {who}, which will be over by itself",
                'wait for that connection to end, or end it yourself; "on_conflict": "stop" '
                "reserves the port, so that the kernel gives it to no other connection",
            )
        case "node port":
            return Barrier(
                f"held by {who}",
                "give your service another port, or change the Kubernetes service that has it",
            )
        case "container" if holder.container is None:
            return Barrier(
                f"held by {who}",
                "run again; where no container of `docker ps` has the port then, restart Docker",
            )
        case "reserved":
            return Barrier(f"held by {who}", windows.explain(holder))
        case "program" if holder.program is not None:
            return Barrier(
                f"held by {who}; how {holder.program.supervisor} stops it is not known",
                f"stop it with {holder.program.supervisor}'s own command",
            )
    process = holder.process
    if process is not None and process.container:
        return Barrier(
            f"held by {who}, which no engine that answers knows",
            "stop it with the engine that started it",
        )
    return Barrier(
        f"held by {who}",
        "look as root on the host (ss -lntup); a process of another PID namespace, a kernel "
        "service such as NFS, or a virtual machine's host shows no owner",
    )


def _consent(one: Target, spec: PortsSpec) -> Refusal | None:
    """The refusal to end a holder without being told to, with the very line that allows it."""
    may = allowed(one, spec.allow)
    if may and spec.on_conflict == "stop":
        return None
    rules = () if may else consent(one)
    if not may and not rules:
        return Refusal(
            subject=words.some(one.ports),
            reason=f"held by {one.said}, and neither its program nor its user can be told",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    line = [] if spec.on_conflict == "stop" else ['"on_conflict": "stop"']
    line += [f'"allow": [{", ".join(_quoted(rule) for rule in rules)}]'] if rules else []
    return Refusal(
        subject=words.some(one.ports),
        reason=f"held by {one.said}",
        remedy=f'{", ".join(line)} in the stack\'s "ports" section lets it be ended',
    )


def _quoted(rule: str) -> str:
    # As Python and JSON read it; what is not to be printed is written as its number.
    return json.dumps(rule, ensure_ascii=not rule.isprintable())


def _ending(one: Target) -> Action:
    return Action(
        verb=one.verb,
        subject=one.subject,
        cause=f"{words.some(one.ports)} held by {one.said}",
        destructive=True,
        undo=_UNDO,
        ports=one.ports,
        container=one.container,
        units=one.units,
        manager=one.manager,
        program=one.program,
        members=one.members,
        windows=one.windows,
    )


def _advice(spec: PortsSpec, state: HostPorts) -> list[Finding]:
    """What ``report`` only tells: it never acts."""
    ranges, why = reserving(spec, state)
    if not ranges:
        return []
    return [
        Finding(
            subject=ranges,
            kind="not reserved",
            cause=f'{why}; "on_conflict": "stop" reserves what is wanted',
            blocks=False,
        )
    ]
