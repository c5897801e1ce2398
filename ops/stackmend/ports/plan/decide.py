"""Go through the desired ports: who holds each, what would stop it, and whether that may be."""

from collections.abc import Iterable

from stackmend.decision import Finding, Refusal
from stackmend.ports import windows
from stackmend.ports.format import format_holder, format_running, join_some, list_evidence, shorten
from stackmend.ports.plan.model import CloseConnections, Plan, Reserve
from stackmend.ports.plan.protection import Protection, find_protection
from stackmend.ports.plan.target import (
    Connections,
    Target,
    find_target,
    is_allowed,
    merge_targets,
    quote_rule,
    suggest_rules,
)
from stackmend.ports.spec import PortsSpec, compress_ports, list_unreserved
from stackmend.ports.state import Holder, HostPorts, PortState

_ENGINE_STOPPED = (
    "start it first (systemctl start docker; journalctl -u docker says why it stopped): while it "
    "is down, a port that a container has looks like anybody's"
)
_UNKNOWN = "cannot tell whether it is free"
_AS_ROOT = "connect as root, or set _sudo = True in the host's data"
_WAIT = "wait for that connection to end"
_RUN_AGAIN = "run again; what ends and starts all the time shows in the host's own logs"
_RESERVED = (
    '"on_conflict": "stop" reserves the port, so that the kernel gives it to no other connection'
)


def plan(spec: PortsSpec, state: HostPorts) -> Plan:
    """What is to be done so that the desired ports can be bound.

    A holder is stopped only where that frees a desired port: every holder of the port must be one
    that may be stopped. Where anything is refused, nothing is stopped at all.

    :param spec: the desired ports, and what may be done about them.
    :param state: what the host has.
    """
    ports = _list_ports(spec, state)
    findings = [finding for port in ports if (finding := _report_port(port)) is not None]
    unknown = [port for port in ports if port.status == "unknown"]
    held = [port for port in ports if port.status == "held"]
    refusals = _refuse_without_engine(state, taken=bool(unknown or held))
    refusals += [_refuse_unknown(port, state) for port in unknown]
    targets = merge_targets(
        (
            target.model_copy(update={"ports": (str(port.desired),)})
            for port in held
            for holder in port.holders
            if (target := find_target(holder)) is not None
        ),
        {pid: process.parent for pid, process in state.processes.items()},
    )
    refusals += _refuse_without_target(held)
    unprotected = []
    for target in targets:
        protection = find_protection(target, spec, state)
        if protection is None:
            unprotected.append(target)
            continue
        refusals.append(
            Refusal(
                subject=join_some(target.ports),
                reason=f"held by {target.description}, and never stopped: {protection.reason}",
                remedy=protection.remedy,
            )
        )
    refusals += filter(None, (_refuse_without_rule(target, spec, state) for target in unprotected))
    stops = () if refusals else tuple(target.stop() for target in unprotected)
    reserves: tuple[Reserve, ...] = ()
    ranges, cause = _find_unreserved(spec, state)
    if ranges and spec.on_conflict == "stop":
        reserves = (Reserve(subject=ranges, cause=cause),)
    elif ranges:
        cause += '; "on_conflict": "stop" reserves them'
        findings.append(Finding(subject=ranges, kind="not reserved", cause=cause, blocks=False))
    # A program whose connection is closed may connect again at once.
    closing = any(isinstance(action, CloseConnections) for action in stops)
    actions = (*reserves, *stops) if closing else (*stops, *reserves)
    return Plan(findings=tuple(findings), actions=actions, refusals=tuple(refusals))


def explain_allocated(port: PortState, error: str) -> Plan:
    """What follows where the engine's own list has a port that nothing stands in the way of.

    :param port: the port, which could be bound, or which a container of the project has.
    :param error: what the engine says.
    """
    subject = str(port.desired)
    if port.status == "ours":
        cause = f"held by {join_some(map(_describe, port.holders))}, the project's own"
        remedy = "let Compose stop that container first (docker compose stop SERVICE)"
    else:
        cause = "Docker's own list has it for one of its containers, and no container has it"
        remedy = "restart Docker (systemctl restart docker; Docker Desktop: restart it)"
    return Plan(
        findings=(Finding(subject=subject, kind="allocated", cause=cause, evidence=(error,)),),
        refusals=(Refusal(subject=subject, reason=cause, remedy=remedy),),
    )


def _list_ports(spec: PortsSpec, state: HostPorts) -> list[PortState]:
    """Every desired port, in order; one that the probe does not report is unknown."""
    observed = {port.desired: port for port in state.ports}
    return [
        observed.get(port)
        or PortState(desired=port, status="unknown", problem="the probe does not report it")
        for port in sorted(
            dict.fromkeys(spec.ports), key=lambda port: (port.port, port.protocol, port.address)
        )
    ]


def _report_port(port: PortState) -> Finding | None:
    subject = str(port.desired)
    if port.status == "unknown":
        cause = port.problem or _UNKNOWN
        return Finding(
            subject=subject, kind="unknown", cause=cause, evidence=_collect_evidence(port, ())
        )
    if port.status != "held":
        return None
    holders = sorted(port.holders, key=lambda holder: holder.model_dump_json())
    who = join_some(map(_describe, holders))
    cause = f"held by {who}" if holders else "held, and no owner can be seen"
    return Finding(
        subject=subject, kind="held", cause=cause, evidence=_collect_evidence(port, holders)
    )


def _collect_evidence(port: PortState, holders: Iterable[Holder]) -> tuple[str, ...]:
    lines = [port.evidence] if port.evidence else []
    for holder in holders:
        lines += list_evidence(holder)
        lines += filter(None, (windows.explain(holder) if holder.kind == "windows" else "",))
    return tuple(dict.fromkeys(lines))


def _describe(holder: Holder) -> str:
    target = find_target(holder)
    if target is not None:
        return target.description
    process = holder.process
    if holder.container is None and process is not None and process.container:
        return f"container {process.container[:12]}{format_running(process)}"
    return format_holder(holder)


def _refuse_without_engine(state: HostPorts, *, taken: bool) -> list[Refusal]:
    """Nothing is freed while the engine cannot say what its containers have."""
    reason, remedy = "", _ENGINE_STOPPED
    if state.engine == "stopped" and state.live_containers:
        count = state.live_containers
        verb = "do" if count > 1 else "does"
        reason = f"the Docker daemon does not run, but {count} of its containers {verb}"
    elif taken and state.engine == "stopped":
        reason = "the Docker daemon does not run"
    elif taken and state.engine in ("forbidden", "unknown"):
        why = f": {state.engine_reason}" if state.engine_reason else ""
        reason = "cannot read which ports Docker's containers have" + shorten(why)
        remedy = f"{_AS_ROOT}; see what `docker ps` says on the host"
    return [Refusal(subject="engine", reason=reason, remedy=remedy)] if reason else []


def _refuse_unknown(port: PortState, state: HostPorts) -> Refusal:
    remedy = "fix the cause above and rerun"
    if port.problem and not port.desired.is_wildcard:
        remedy += "; `ip address` shows the addresses that the host has"
    if not state.root:
        remedy += f"; {_AS_ROOT}"
    return Refusal(subject=str(port.desired), reason=port.problem or _UNKNOWN, remedy=remedy)


def _refuse_without_target(held: list[PortState]) -> list[Refusal]:
    """Refusals for holders that cannot be stopped, one for each reason."""
    ports: dict[Protection, list[str]] = {}
    for port in held:
        holders = port.holders or (Holder(kind="hidden", why_hidden="no socket of it is listed"),)
        for holder in holders:
            if find_target(holder) is None:
                ports.setdefault(_explain_holder(holder), []).append(str(port.desired))
    return [
        Refusal(subject=join_some(subjects), reason=reason, remedy=remedy)
        for (reason, remedy), subjects in sorted(ports.items(), key=lambda item: (item[1], item[0]))
    ]


def _explain_holder(holder: Holder) -> Protection:
    reason = f"held by {_describe(holder)}"
    match holder.kind:
        case "outgoing":
            return Protection(
                f"{reason}; released when it closes",
                f"{_WAIT}, or end it yourself; {_RESERVED}",
            )
        case "node port":
            return Protection(
                reason,
                "give your service another port, or change the Kubernetes service that has it",
            )
        case "container" if holder.container is None:
            return Protection(
                reason,
                "run again; where no container of `docker ps` has the port then, restart Docker",
            )
        case "reserved":
            return Protection(reason, windows.explain(holder))
        case "program" if holder.program is not None:
            return Protection(
                f"{reason}; how {holder.program.supervisor} stops it is not known",
                f"stop it with {holder.program.supervisor}'s own command",
            )
    process = holder.process
    if process is not None and process.container:
        return Protection(
            f"{reason}, which no engine that answers knows",
            "stop it with the engine that started it",
        )
    return Protection(
        reason,
        "run ss -lntup as root on the host; a process of another PID namespace, a kernel "
        "service such as NFS, or a virtual machine's host shows no owner",
    )


def _refuse_without_rule(target: Target, spec: PortsSpec, state: HostPorts) -> Refusal | None:
    """The refusal to stop a holder that nobody allowed, with the very line that allows it."""
    allowed = is_allowed(target, spec.allow)
    if allowed and spec.on_conflict == "stop":
        return None
    subject, reason = join_some(target.ports), f"held by {target.description}"
    rules = () if allowed else suggest_rules(target)
    if not allowed and not rules:
        # Root reads both of every process but one that is just ending.
        why = "it is just ending" if state.root else "its program and its user are unknown"
        remedy = _RUN_AGAIN if state.root else _AS_ROOT
        return Refusal(subject=subject, reason=f"{reason}; {why}", remedy=remedy)
    settings = [] if spec.on_conflict == "stop" else ['"on_conflict": "stop"']
    settings += [f'"allow": [{", ".join(map(quote_rule, rules))}]'] if rules else []
    line = f'add {", ".join(settings)} to the stack\'s "ports" section'
    if isinstance(target.owner, Connections):
        reason += "; released when it closes"
        remedy = f"{_WAIT}; to have it closed, and the program left alone, {line}; {_RESERVED}"
    else:
        remedy = f"to allow stopping it, {line}"
    return Refusal(subject=subject, reason=reason, remedy=remedy)


def _find_unreserved(spec: PortsSpec, state: HostPorts) -> tuple[str, str]:
    """The ranges that are to be reserved, and why; empty where nothing is left to reserve."""
    ports = () if state.system == "darwin" else spec.ports
    first, last = state.ephemeral
    return compress_ports(list_unreserved(ports, state.ephemeral, state.reserved)), (
        f"the kernel gives ports from {first} to {last} to outgoing connections, "
        "which then stand in the way"
    )
