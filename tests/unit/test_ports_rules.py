"""What is protected, what a rule allows, and who took a port back: the plan, rule by rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stackmend.ports.plan import Plan, list_remaining, plan, plan_starters
from stackmend.ports.plan.model import StopProcess, StopUnits
from stackmend.ports.plan.target import escape
from stackmend.ports.spec import PortsSpec, compress_ports, is_named, parse_ranges
from stackmend.ports.state import Holder, HostPorts, PortState
from tests.unit.ports_world import (
    EVERYTHING,
    WANTED,
    after,
    bare,
    container,
    held,
    hidden,
    host,
    on_windows,
    process,
    program,
    socket_unit,
    spec,
    stop,
    unit,
)

# Protected, whatever is allowed

PROGRAMS = (
    "/usr/bin/dockerd",
    "/opt/docker/bin/dockerd",
    "/snap/docker/2893/bin/dockerd",
    "/usr/bin/dockerd (deleted)",
    "/usr/bin/dockerd-current",
    "/usr/bin/docker-containerd",
    "/usr/bin/containerd",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/libexec/docker/docker-proxy",
    "/usr/bin/rootlesskit",
    "/usr/bin/conmon",
    "/usr/bin/kubelet",
    "/var/lib/rancher/k3s/data/current/bin/k3s",
    "/usr/lib/systemd/systemd-resolved",
    "/usr/lib/systemd/systemd-networkd",
    "/usr/lib/systemd/systemd-journald",
    "/usr/lib/systemd/systemd",
    "/usr/sbin/NetworkManager",
    "/usr/bin/dbus-daemon",
    "/usr/sbin/sshd",
    "/usr/lib/openssh/sshd-session",
)
UNITS = (
    "docker.service",
    "docker.socket",
    "snap.docker.dockerd.service",
    "containerd.service",
    "kubelet.service",
    "systemd-resolved.service",
    "systemd-networkd.service",
    "systemd-journald.service",
    "NetworkManager.service",
    "dbus.socket",
    "ssh.service",
    "sshd.service",
    "ssh.socket",
    "ssh@5-10.0.0.1:22-10.0.0.2:5555.service",
)


def never(state: HostPorts, *, desired: PortsSpec | None = None) -> Plan:
    decided = plan(desired or stop(6379, *EVERYTHING), state)
    assert not decided.actions
    (refusal,) = decided.refusals
    assert refusal.remedy
    return decided


@pytest.mark.parametrize("exe", PROGRAMS)
def test_a_program_that_others_hang_on_is_never_ended(exe: str) -> None:
    never(held(bare(exe=exe)))
    # It is what its file is called, not what it calls itself.
    never(held(bare(exe=exe, name="python3", argv=("python3",))))
    # Of what cannot be read, its own word counts.
    name = exe.rpartition("/")[2].removesuffix(" (deleted)")
    never(held(bare(exe="", name=name)))


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_that_others_hang_on_is_never_stopped(name: str) -> None:
    if name.endswith(".socket"):
        never(held(socket_unit(name, triggers=(name.replace(".socket", ".service"),))))
    else:
        never(held(unit(name, exe="/usr/sbin/sshd" if "ssh" in name else "/usr/bin/any")))


@pytest.mark.parametrize("exe", PROGRAMS)
def test_who_only_calls_itself_so_is_not_protected(exe: str) -> None:
    name = exe.rpartition("/")[2].removesuffix(" (deleted)")
    pretender = bare(exe="/usr/bin/python3.11", name=name[:15], argv=(exe, "--serve"))
    (action,) = plan(stop(6379, "user:bob"), held(pretender)).actions
    assert action.verb == "stop process"


def test_what_calls_itself_so_inside_a_container_is_that_container() -> None:
    (action,) = plan(
        stop(6379, "container:*"), held(container(pid=77, exe="/usr/local/bin/dockerd"))
    ).actions
    assert action.verb == "stop container"


def test_the_first_process_and_what_we_came_through_are_never_ended() -> None:
    never(held(bare(1, exe="/sbin/anything")))
    never(held(bare(600, exe="/usr/bin/anything")))
    never(held(unit("web.service", 601)))


def test_a_service_that_we_came_through_is_never_stopped() -> None:
    agent = process(600, "/usr/bin/agent", unit="agent.service")
    never(held(unit("agent.service", 900), processes={600: agent}))
    inside = process(601, "/bin/sh", container="c" * 64)
    never(held(container(), processes={601: inside}))


def test_a_service_that_a_protected_socket_starts_is_protected() -> None:
    never(held(unit("any.service", triggered_by=("docker.socket",))))


@pytest.mark.parametrize(
    ("rule", "holder"),
    [
        ("exe:/usr/bin/python3*", bare()),
        ("user:bob", bare()),
        ("user:redis", unit()),
        ("unit:redis-server.service", unit()),
        ("exe:/usr/bin/redis-server", unit()),
        ("container:cache", container()),
        ("project:other", container(project="other")),
        ("exe:redis-server.exe", on_windows()),
        ("unit:web.service", socket_unit(triggers=("web.service",))),
    ],
)
def test_protect_beats_allow(rule: str, holder: Holder) -> None:
    desired = stop(6379, *EVERYTHING, rule, protect=[rule])
    system: Any = "wsl" if holder.kind == "windows" else "linux"
    never(held(holder, system=system), desired=desired)


@pytest.mark.parametrize("rule", ["exe:/usr/bin/thing", "user:redis"])
def test_protect_holds_for_what_runs_behind_a_socket_unit(rule: str) -> None:
    behind = process(99, "/usr/bin/thing", unit="web.service", user="redis")
    state = held(socket_unit(triggers=("web.service",)), processes={99: behind})
    desired = stop(6379, "unit:web.socket", protect=[rule])
    never(state, desired=desired)


# Rules


@pytest.mark.parametrize("value", ["a*b", "[x]", "what?", "plain", "[!a]*", "]", "ä b"])
def test_a_rule_that_is_offered_names_exactly_what_it_is_for(value: str) -> None:
    pattern = escape(value)
    assert is_named([f"exe:{pattern}"], "exe", value)
    assert not is_named([f"exe:{pattern}"], "exe", value + "x")
    assert not is_named([f"exe:{pattern}"], "exe", value.replace("*", "zz").replace("?", "z") + "!")


@pytest.mark.parametrize(
    "holder",
    [
        bare(),
        bare(exe="/opt/a [1]/x*"),
        bare(exe='/opt/\x1b[31m"ä"\\'),
        bare(exe="", name="x"),
        unit(),
        unit("web@[1].service"),
        socket_unit(triggers=("web.service",)),
        container("we?rd"),
        container(project="other"),
        program(),
    ],
)
def test_the_line_that_a_refusal_offers_is_enough(holder: Holder) -> None:
    import json
    import re

    (refusal,) = plan(spec(), held(holder)).refusals
    found = re.search(r'"on_conflict": "stop", "allow": (\[.*\]) to', refusal.remedy)
    assert found is not None
    decided = plan(stop(6379, *json.loads(found[1])), held(holder))
    assert len(decided.actions) == 1
    assert plan(stop(), after(decided, held(holder))).empty


def test_what_is_told_tells_a_terminal_nothing() -> None:
    odd = "\x1b]0;pwned\x07\x9b"
    reported = [
        bare(exe=f"/opt/{odd}", argv=(odd, odd), name=odd),
        unit(exe=f"/opt/{odd}"),
        program(odd),
        on_windows(odd),
    ]
    for holder in reported:
        for desired in (spec(), stop(6379, *EVERYTHING)):
            decided = plan(desired, held(holder))
            lines = [
                *map(str, decided.actions),
                *(text for one in decided.findings for text in (one.cause, *one.evidence)),
                *(text for one in decided.refusals for text in (one.reason, one.remedy)),
            ]
            assert all(line.isprintable() for line in lines), lines


def test_a_rule_of_another_name_allows_nothing() -> None:
    for rule in ("exe:/usr/bin/python3", "user:bo", "unit:*", "container:*", "project:*"):
        decided = plan(stop(6379, rule), held(bare()))
        assert not decided.actions
        assert decided.refusals


def test_a_windows_process_has_no_user() -> None:
    assert not plan(stop(6379, "user:*"), held(on_windows(), system="wsl")).actions


# Ranges


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", set()),
        ("\n", set()),
        ("1,3-5\n", {1, 3, 4, 5}),
        ("8080", {8080}),
        (" 1 , 2 - 3 ", {1, 2, 3}),
        ("x,5-,-7,9-8,70000,0", set()),
    ],
)
def test_reserved_ports_are_read(text: str, ports: set[int]) -> None:
    assert parse_ranges(text) == ports


def test_ports_are_written_as_the_kernel_writes_them() -> None:
    assert compress_ports([5, 1, 3, 4, 9]) == "1,3-5,9"
    assert compress_ports([]) == ""


# Who is back


def back(holder: Holder, **more: Any) -> Any:
    (found,) = list_remaining([WANTED], held(bare()), held(holder, **more))
    return found


def test_a_port_that_stays_free_leaves_nothing() -> None:
    assert list_remaining([WANTED], held(bare()), held()) == ()


def test_what_nobody_freed_is_not_asked_about() -> None:
    assert list_remaining([], held(bare()), held(bare(5))) == ()


def test_a_shell_that_starts_it_again_is_named() -> None:
    loop = process(700, "/usr/bin/dash", argv=("sh", "-c", "while :; do serve; done"), parent=1)
    found = back(bare(999), processes={700: loop})
    assert found.kind == "back"
    assert "dash (pid 700 of user bob): sh -c while :; do serve; done" in found.reason
    assert found.remedy == (
        "its parent starts it again: end pid 700 (sh -c while :; do serve; done) first, or add "
        '"allow": ["exe:/usr/bin/dash"]'
    )


def test_a_parent_of_a_unit_is_named_by_its_unit() -> None:
    parent = process(700, "/usr/bin/dash", unit="keeper.service", parent=1)
    found = back(bare(999), processes={700: parent})
    assert '"allow": ["unit:keeper.service"]' in found.remedy


def test_a_parent_that_is_gone() -> None:
    found = back(bare(999, parent=1, unit="cron.service"))
    assert "cron.service" in found.remedy


def test_a_unit_that_is_back_is_named_with_what_starts_it() -> None:
    found = back(unit("web.service"))
    assert found.kind == "back"
    assert "web.service" in found.reason
    assert "systemctl list-dependencies --reverse web.service" in found.remedy


LOOP = {"argv": ("sh", "-c", "while :; do serve; done"), "parent": 1}


def starters(*rules: str, parent: Any = None, holder: Holder | None = None, **more: Any) -> Plan:
    """What is stopped once somebody new, whom process 700 started, holds the port."""
    known = {700: parent or process(700, "/usr/bin/dash", **LOOP)}
    after = held(holder or bare(999, parent=700), processes=known)
    return plan_starters(stop(6379, *rules, **more), [WANTED], held(bare()), after)


@pytest.mark.parametrize("rules", [("exe:*",), ("user:bob",), ("exe:*/dash", "exe:*/python3*")])
def test_a_parent_that_rules_name_is_stopped_before_what_it_started(rules: Sequence[str]) -> None:
    (action,) = starters(*rules).actions
    assert isinstance(action, StopProcess)
    assert [member.process.pid for member in action.members] == [700, 999]
    assert action.destructive


@pytest.mark.parametrize("rules", [("exe:*/python3*",), ("exe:*/dash",), ("user:else",), ()])
def test_a_parent_that_no_rule_names_is_left(rules: Sequence[str]) -> None:
    assert not starters(*rules).actions


def test_a_parent_of_a_unit_is_stopped_with_it_by_its_own_rule_alone() -> None:
    parent = process(700, "/usr/bin/dash", unit="keeper.service", **LOOP)
    assert not starters("exe:*", "user:*", parent=parent).actions
    (action,) = starters("unit:keeper.*", parent=parent).actions
    assert isinstance(action, StopUnits)
    assert action.units == ("keeper.service",)


@pytest.mark.parametrize(
    ("parent", "protect"),
    [
        (process(700, "/usr/bin/dash", parent=1), ["exe:*/dash"]),
        (process(700, "/usr/bin/dash", parent=1), ["exe:*/python3*"]),
        (process(700, "/usr/bin/containerd-shim-runc-v2", parent=1), []),
        (process(700, "/usr/bin/dash", unit="docker.service", parent=1), []),
    ],
)
def test_a_parent_that_is_protected_is_left(parent: Any, protect: list[str]) -> None:
    assert not starters(*EVERYTHING, parent=parent, protect=protect).actions


def test_our_own_shell_is_no_parent_to_stop() -> None:
    ours = process(600, "/usr/bin/dash", parent=1)
    after = held(bare(999, parent=600), processes={600: ours})
    assert not plan_starters(stop(6379, *EVERYTHING), [WANTED], held(bare()), after).actions


def test_who_has_not_let_go_starts_no_search_for_its_parent() -> None:
    assert not starters(*EVERYTHING, holder=bare(parent=700)).actions


def test_who_has_not_let_go_is_no_respawner() -> None:
    assert back(bare()).kind == "still"


def test_what_the_kernel_keeps_is_closing() -> None:
    assert back(hidden()).kind == "closing"


def test_a_port_that_cannot_be_told_any_more() -> None:
    state = PortState(desired=spec().ports[0], status="unknown", problem="cut off")
    (found,) = list_remaining([WANTED], held(bare()), host([state]))
    assert (found.kind, found.reason) == ("unknown", "cut off")
