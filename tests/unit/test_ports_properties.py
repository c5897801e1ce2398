"""What holds of every plan for every host: only what may be ended is, and then nothing is left."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackmend.ports.plan import Plan, plan
from stackmend.ports.spec import RULE_KINDS, PortsSpec, is_named
from stackmend.ports.state import Container, Holder, HostPorts, PortState, Process, Socket, Unit
from tests.unit.ports_world import after, ends, hidden, host, on_windows, outgoing, render, spec

PORTS = ("6379", "6380", "0.0.0.0:40001", "[::]:53/udp")
GUARDED = (1, 600, 601)

#: Programs by what a process number has in common with others: the same number is the same one.
EXES = (
    "/usr/bin/python3.11",
    "/opt/a [1]/serve*",
    "/usr/bin/dockerd",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/sbin/sshd",
    "/usr/lib/systemd/systemd-resolved",
    "/usr/bin/docker-proxy",
    "",
)
PROTECTED_EXES = {*EXES[2:7]}
USERS = ("bob", "root", "redis")
PROTECTED_UNITS = {"docker.service", "ssh.socket", "systemd-resolved.service"}
UNITS = ("web.service", "redis-server.service", "web.socket", *sorted(PROTECTED_UNITS))
CONTAINERS = ("cache", "db", "web-1")
RULES = (
    *(f"{kind}:*" for kind in RULE_KINDS),
    "exe:/usr/bin/*",
    "exe:/opt/a [[]1]/serve[*]",
    "unit:web.*",
    "unit:redis-server.service",
    "container:cache",
    "project:other",
    "user:bob",
    "user:r*",
    "connection:192.0.2.7:*",
)
rules = st.lists(st.sampled_from(RULES), max_size=5, unique=True).map(tuple)
everything = st.just(tuple(f"{kind}:*" for kind in RULE_KINDS))
pids = st.one_of(st.integers(2, 30), st.sampled_from(GUARDED))


def process(pid: int) -> Process:
    """The one process of this number."""
    exe = EXES[pid % len(EXES)]
    return Process(
        pid=pid,
        started=pid * 7,
        exe=exe,
        name=exe.rpartition("/")[2] or "named",
        argv=("dockerd", str(pid)),
        user=USERS[pid % len(USERS)],
        parent=pid // 2,
    )


@st.composite
def holders(draw: st.DrawFn) -> Holder:
    kind = draw(
        st.sampled_from(
            (
                "process",
                "process",
                "unit",
                "socket unit",
                "container",
                "windows",
                "outgoing",
                "node port",
                "hidden",
            )
        )
    )
    if kind == "process":
        pid = draw(pids)
        inode = draw(st.sampled_from((0, 11, 12, pid * 100)))
        sockets = (Socket(protocol="tcp", address="", port=1, state="LISTEN", inode=inode),)
        return Holder(kind="process", sockets=sockets, process=process(pid))
    if kind in ("unit", "socket unit"):
        name = draw(st.sampled_from(UNITS))
        service = name.replace(".socket", ".service")
        paired = name.startswith(("web", "ssh", "docker"))
        is_socket = name.endswith(".socket")
        one = Unit(
            name=name,
            manager=draw(st.sampled_from(("system", "bob"))),
            main_pid=99,
            triggers=(service,) if is_socket else (),
            triggered_by=(service.replace(".service", ".socket"),)
            if paired and not is_socket
            else (),
        )
        by = (
            Process(pid=1, exe="/usr/lib/systemd/systemd")
            if is_socket
            else Process(pid=99, started=1, exe="/usr/bin/thing", user="redis", unit=name)
        )
        return Holder.model_validate({"kind": kind, "unit": one, "process": by})
    if kind == "container":
        name = draw(st.sampled_from(CONTAINERS))
        one_container = Container(id=name * 8, name=name, project="other" if name != "db" else "")
        has = draw(st.booleans())
        return Holder(
            kind="container", container=one_container, process=process(2) if has else None
        )
    if kind == "windows":
        return on_windows(draw(st.sampled_from(("nginx.exe", "System", "wslrelay.exe"))))
    if kind == "outgoing":
        return outgoing(draw(pids))
    return hidden() if kind == "hidden" else Holder(kind="node port")


@st.composite
def hosts(draw: st.DrawFn) -> HostPorts:
    states = []
    for port in draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=4, unique=True)):
        (desired,) = spec(port).ports
        status = draw(st.sampled_from(("held", "held", "held", "free", "ours", "unknown")))
        who = draw(st.lists(holders(), max_size=3)) if status in ("held", "ours") else []
        states.append(
            PortState.model_validate({"desired": desired, "status": status, "holders": tuple(who)})
        )
    engine = draw(st.sampled_from(("up", "up", "up", "up", "absent", "stopped", "unknown")))
    return host(
        states,
        engine=engine,
        guarded=GUARDED,
        processes={pid: process(pid) for pid in range(2, 31)},
        reserved=draw(st.sampled_from(("", "40000-40010"))),
    )


def wanted_of(state: HostPorts, **more: Any) -> PortsSpec:
    return PortsSpec.model_validate({"ports": tuple(p.desired for p in state.ports), **more})


def untouchable(holder: Holder) -> bool:
    """Whether nothing may end it, said once more and in other words than the plan's."""
    one = holder.process
    if holder.kind in ("hidden", "node port", "reserved"):
        return True
    if one is not None and one.pid in GUARDED and not (one.pid == 1 and holder.unit):
        return True
    if holder.container is not None:
        return False
    if holder.windows is not None:
        return holder.windows.image != "nginx.exe"
    if holder.unit is not None:
        reported = {holder.unit.name, *holder.unit.triggers, *holder.unit.triggered_by}
        if reported & (PROTECTED_UNITS | {"docker.socket", "ssh.service"}):
            return True
    return one is not None and one.pid != 1 and one.exe in PROTECTED_EXES


def consented(holder: Holder, allow: tuple[str, ...]) -> bool:
    """Whether some rule speaks of it at all."""
    one, unit, container = holder.process, holder.unit, holder.container
    if holder.kind == "outgoing":
        return all(is_named(allow, "connection", socket.peer) for socket in holder.sockets)
    if container is not None:
        return is_named(allow, "container", container.name, container.id) or is_named(
            allow, "project", container.project
        )
    if holder.windows is not None:
        return is_named(allow, "exe", holder.windows.image)
    if unit is not None and is_named(allow, "unit", unit.name, *unit.triggers, *unit.triggered_by):
        return True
    return (
        one is not None
        and one.pid != 1
        and (is_named(allow, "exe", one.exe) or is_named(allow, "user", one.user))
    )


def ended(decided: Plan, state: HostPorts) -> list[Holder]:
    """Everything of the host that a plan ends, desired or not."""
    return [
        holder
        for port in state.ports
        for holder in port.holders
        if any(ends(action, holder) for action in decided.actions)
    ]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state=hosts(), allow=rules | everything, protect=rules, seed=st.integers(0, 999))
def test_every_plan_ends_what_it_may_and_nothing_else(
    state: HostPorts, allow: tuple[str, ...], protect: tuple[str, ...], seed: int
) -> None:
    desired = wanted_of(state, on_conflict="stop", allow=allow, protect=protect)
    decided = plan(desired, state)
    ends_only_what_is_wanted_and_allowed(decided, state, allow)
    ends_nothing_protected(decided, state, protect)
    leaves_nothing_to_do(decided, state, desired)
    is_the_same_in_any_order(decided, state, desired, random.Random(seed))


def ends_only_what_is_wanted_and_allowed(
    decided: Plan, state: HostPorts, allow: tuple[str, ...]
) -> None:
    held = [port for port in state.ports if port.status == "held"]
    for action in decided.actions:
        if action.verb == "reserve":
            continue
        assert action.destructive
        assert set(action.ports) <= {str(port.desired) for port in held}
        mine = [holder for port in held for holder in port.holders if ends(action, holder)]
        assert mine, "an action ends what holds a desired port"
        # Of units that are stopped together, a rule may name any.
        enough = any if action.verb == "stop unit" else all
        assert enough(consented(holder, allow) for holder in mine)


def ends_nothing_protected(decided: Plan, state: HostPorts, protect: tuple[str, ...]) -> None:
    for holder in ended(decided, state):
        assert not untouchable(holder)
        assert not is_named(protect, "connection", *(socket.peer for socket in holder.sockets))
        if holder.unit is not None:
            assert not is_named(protect, "unit", holder.unit.name)
        if holder.container is not None:
            assert not is_named(protect, "container", holder.container.name)
            assert not is_named(protect, "project", holder.container.project)
        if holder.process is not None and holder.process.pid != 1:
            assert not is_named(protect, "user", holder.process.user)
            assert not is_named(protect, "exe", holder.process.exe)


def leaves_nothing_to_do(decided: Plan, state: HostPorts, desired: PortsSpec) -> None:
    if decided.refusals:
        assert all(action.verb == "reserve" for action in decided.actions)
        return
    left = plan(desired, after(decided, state))
    assert left.empty, render(decided) + render(left)
    done = [(action.verb, action.subject) for action in decided.actions]
    assert len(done) == len(set(done)), "nothing is done twice"


def is_the_same_in_any_order(
    decided: Plan, state: HostPorts, desired: PortsSpec, chance: random.Random
) -> None:
    def mixed(items: Any) -> tuple[Any, ...]:
        return tuple(chance.sample(list(items), len(items)))

    ports = [port.model_copy(update={"holders": mixed(port.holders)}) for port in state.ports]
    processes = dict(mixed(state.processes.items()))
    other = state.model_copy(update={"ports": mixed(ports), "processes": processes})
    turned = desired.model_copy(
        update={name: mixed(getattr(desired, name)) for name in ("ports", "allow", "protect")}
    )
    assert render(plan(turned, other)) == render(decided)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state=hosts(), allow=rules | everything)
def test_report_never_acts(state: HostPorts, allow: tuple[str, ...]) -> None:
    decided = plan(wanted_of(state, allow=allow), state)
    assert decided.actions == ()
    taken = [port for port in state.ports if port.status in ("held", "unknown")]
    reported = {finding.subject for finding in decided.findings if finding.blocks}
    assert reported == {str(port.desired) for port in taken}
    assert bool(decided.refusals) >= bool(taken)
