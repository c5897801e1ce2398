"""The plan, as text: who holds what and what is allowed in, what will be done and why out.

Each scenario's plan lies as plain text below ``golden/ports_plan``. ``UPDATE_GOLDEN=1 pytest``
writes them anew; what then changes is to be read as the change of behaviour that it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from ops.ports.plan import Plan, Verb, allocated, compressed, exactly, left, parsed, plan
from ops.ports.spec import PortsSpec, names
from ops.ports.state import Holder, HostPorts, PortState
from tests.unit.ports_world import (
    WANTED,
    after,
    bare,
    container,
    held,
    hidden,
    host,
    on_windows,
    outgoing,
    process,
    program,
    render,
    socket_unit,
    spec,
    stop,
    unit,
)

GOLDEN = Path(__file__).parent / "golden" / "ports_plan"
EVERYTHING = ("exe:*", "unit:*", "container:*", "project:*", "user:*")

SCENARIOS: dict[str, Callable[[], Plan]] = {}


def scenario(build: Callable[[], Plan]) -> Callable[[], Plan]:
    SCENARIOS[build.__name__] = build
    return build


# Nothing to do


@scenario
def free() -> Plan:
    """Nobody holds it."""
    return plan(stop(), held())


@scenario
def ours() -> Plan:
    """Our own running container has it."""
    state = PortState(wanted=spec().ports[0], verdict="ours", holders=(container(project="ai"),))
    return plan(stop(6379, *EVERYTHING, project="ai"), host([state]))


# Each kind of holder, without consent and with it


@scenario
def process_reported() -> Plan:
    """By default nothing is done; the line to add is said."""
    return plan(spec(), held(bare()))


@scenario
def process_allowed() -> Plan:
    """A bare process whose program is allowed."""
    return plan(stop(6379, "exe:/usr/bin/python3*"), held(bare()))


@scenario
def process_reported_and_allowed() -> Plan:
    """A rule alone is no consent to act."""
    return plan(spec(allow=["exe:*"]), held(bare()))


@scenario
def process_of_a_user() -> Plan:
    """A rule may name the user."""
    return plan(stop(6379, "user:bob"), held(bare()))


@scenario
def process_whose_program_cannot_be_read() -> Plan:
    """Then its user is the rule."""
    return plan(spec(), held(bare(exe="", name="thing")))


@scenario
def process_of_which_nothing_is_known() -> Plan:
    """No rule could name it."""
    return plan(stop(6379, *EVERYTHING[1:2]), held(bare(exe="", user="", uid=-1)))


@scenario
def secrets_on_a_command_line() -> Plan:
    """What looks like a secret is not told."""
    argv = ("redis-server", "--requirepass", "tr0ub4dor", "--url=redis://me:hunter2@db/")
    return plan(spec(), held(bare(argv=argv)))


@scenario
def two_processes_of_one_socket() -> Plan:
    """A worker that its master started is ended with it, the master first."""
    master, worker = bare(800, inode=42), bare(805, inode=42, parent=800)
    return plan(stop(6379, "user:bob"), held(worker, master))


@scenario
def two_processes_with_reuseport() -> Plan:
    """Each has a socket of its own; both have to go."""
    return plan(stop(6379, "user:bob"), held(bare(800), bare(805)))


@scenario
def two_processes_of_which_one_is_allowed() -> Plan:
    """To end one of them would free nothing."""
    one, other = bare(800), bare(805, exe="/opt/other")
    return plan(stop(6379, "exe:/usr/bin/python3.11"), held(one, other))


@scenario
def one_process_with_several_ports() -> Plan:
    """It is ended once."""
    return plan(stop("6379-6381", "user:bob"), held(bare(), ports="6379-6381"))


@scenario
def process_started_over_ssh() -> Plan:
    """Without a login manager it is in the SSH server's unit, and is not that unit."""
    return plan(
        stop(6379, "user:bob"),
        held(unit("ssh.service", 1234, exe="/usr/bin/nc", user="bob", main_pid=50)),
    )


@scenario
def process_in_a_scope() -> Plan:
    """A scope is no service."""
    return plan(stop(6379, "user:bob"), held(bare(unit="session-3.scope", session=True)))


@scenario
def unit_reported() -> Plan:
    """A service is asked for by its unit."""
    return plan(spec(), held(unit()))


@scenario
def unit_with_stop_and_no_rule() -> Plan:
    """Only the rule is missing then."""
    return plan(stop(), held(unit()))


@scenario
def unit_allowed() -> Plan:
    """The service is stopped, its process never signalled."""
    return plan(stop(6379, "unit:redis-*.service"), held(unit()))


@scenario
def unit_allowed_by_its_program() -> Plan:
    """Its program may be ended, and the unit is how."""
    return plan(stop(6379, "exe:/usr/bin/redis-server"), held(unit()))


@scenario
def unit_of_a_user() -> Plan:
    """It is stopped by that user's own manager."""
    return plan(stop(6379, "unit:dev.service"), held(unit("dev.service", manager="bob")))


@scenario
def socket_and_its_service() -> Plan:
    """systemd and the service hold the same socket: both are stopped in one command."""
    service = unit("web.service", triggered_by=("web.socket",))
    state = held(socket_unit(triggers=("web.service",)), service)
    return plan(stop(6379, "unit:web.service"), state)


@scenario
def socket_whose_service_is_idle() -> Plan:
    """pid 1 listens, and is not ended for it."""
    return plan(stop(6379, "unit:web.socket"), held(socket_unit(triggers=("web.service",))))


@scenario
def program_of_a_supervisor() -> Plan:
    """Its supervisor stops it."""
    return plan(stop(6379, "exe:/usr/bin/python3*"), held(program()))


@scenario
def program_without_a_stop() -> Plan:
    """How it is stopped is not known."""
    return plan(stop(6379, *EVERYTHING), held(program(stop=())))


@scenario
def container_reported() -> Plan:
    """A container of another project."""
    return plan(spec(), held(container(project="other", service="db")))


@scenario
def container_allowed() -> Plan:
    """It is stopped by its engine, through whatever process has its port."""
    return plan(stop(6379, "container:cache"), held(container(pid=77)))


@scenario
def container_allowed_by_its_project() -> Plan:
    """Of a second engine."""
    one = container(project="other", engine="docker:unix:///run/second.sock")
    return plan(stop(6379, "project:other"), held(one))


@scenario
def container_is_not_its_program() -> Plan:
    """A rule for programs of the host allows no container."""
    return plan(stop(6379, "exe:*", "user:*", "unit:*"), held(container(pid=77)))


@scenario
def container_whose_port_dockerd_has() -> Plan:
    """userland-proxy=false: dockerd has the socket, and is not touched."""
    return plan(stop(6379, "container:*"), held(container(pid=50, exe="/usr/bin/dockerd")))


@scenario
def container_of_no_known_engine() -> Plan:
    """A control group names it, and no engine does."""
    return plan(stop(6379, *EVERYTHING), held(bare(container="f" * 64)))


@scenario
def own_container_beside_another() -> Plan:
    """Our own project's container is Compose's to settle."""
    return plan(stop(6379, *EVERYTHING, project="ai"), held(container(project="ai")))


@scenario
def windows_process() -> Plan:
    """On the other side of a WSL2 machine."""
    return plan(stop(6379, "exe:Redis-Server.exe"), held(on_windows(), system="wsl"))


@scenario
def windows_process_reported() -> Plan:
    """Its image is the rule."""
    return plan(spec(), held(on_windows(), system="wsl"))


@scenario
def docker_desktop() -> Plan:
    """Never ended."""
    return plan(stop(6379, *EVERYTHING), held(on_windows("com.docker.backend.exe"), system="wsl"))


@scenario
def macos_process() -> Plan:
    """On macOS it is named, and left to the user."""
    return plan(stop(6379, *EVERYTHING), held(bare(exe="/opt/homebrew/bin/redis"), system="darwin"))


# What nothing can be done about


@scenario
def outgoing_connection() -> Plan:
    """It is over by itself; the port is reserved, so that there is no next one."""
    return plan(stop(40000, *EVERYTHING), held(outgoing(), ports=40000))


@scenario
def node_port() -> Plan:
    """Kubernetes takes it before a socket could."""
    return plan(stop(6379, *EVERYTHING), held(Holder(kind="node port")))


@scenario
def hidden_owner() -> Plan:
    """Never free, and nobody to end."""
    return plan(stop(6379, *EVERYTHING), held(hidden("its inode is in no /proc/*/fd")))


@scenario
def no_owner_at_all() -> Plan:
    """A bind failed, and nothing is known besides."""
    state = PortState(wanted=spec().ports[0], verdict="held", evidence="bind (perl)")
    return plan(stop(6379, *EVERYTHING), host([state]))


@scenario
def unknown() -> Plan:
    """An address that the host does not have."""
    wanted = spec("192.0.2.9:80").ports[0]
    state = PortState(wanted=wanted, verdict="unknown", problem="the host has no 192.0.2.9")
    return plan(stop("192.0.2.9:80", *EVERYTHING), host([state]))


@scenario
def not_told() -> Plan:
    """The probe left a wanted port out."""
    return plan(stop("6379,6380", *EVERYTHING), held(ports=6379))


@scenario
def resolved() -> Plan:
    """Port 53: two settings, and never the service."""
    holder = unit("systemd-resolved.service", exe="/usr/lib/systemd/systemd-resolved")
    return plan(stop(53, *EVERYTHING), held(holder, ports=53))


@scenario
def protected_by_the_user() -> Plan:
    """``protect`` beats ``allow``."""
    return plan(stop(6379, *EVERYTHING, protect=["unit:redis-*"]), held(unit()))


# The engine


@scenario
def live_restore() -> Plan:
    """The engine is down and its containers are not: what looks free is not."""
    return plan(stop(), held(engine="stopped", live_containers=2))


@scenario
def engine_stopped() -> Plan:
    """Nothing is freed while it cannot be asked."""
    return plan(stop(6379, *EVERYTHING), held(bare(), engine="stopped"))


@scenario
def engine_forbidden() -> Plan:
    """Nor while it does not answer us."""
    return plan(stop(6379, *EVERYTHING), held(bare(), engine="forbidden", engine_reason="denied"))


@scenario
def allocated_to_nobody() -> Plan:
    """The engine's own list has it, and nothing on the host."""
    return allocated(held().ports[0], "Bind for 0.0.0.0:6379 failed: port is already allocated")


@scenario
def allocated_to_our_own() -> Plan:
    """Another container of the project is in the way: no entry is left over."""
    one = container("ai-old-1", project="ai", service="old")
    state = PortState(wanted=spec().ports[0], verdict="ours", holders=(one,))
    return allocated(state, "Bind for 0.0.0.0:6379 failed: port is already allocated")


# Reserving


@scenario
def reserved_besides() -> Plan:
    """What is reserved already is not done again."""
    return plan(stop("40000-40005,50000"), held(ports="40000-40005,50000", reserved="40002,50000"))


@scenario
def reserving_is_only_told() -> Plan:
    """``report`` changes nothing at all."""
    return plan(spec("40000"), held(ports=40000))


@scenario
def one_refusal_keeps_all() -> Plan:
    """What the stack cannot have whole is not worth ending anything for."""
    states = [
        PortState(wanted=one, verdict="held", holders=(holder,))
        for one, holder in zip(spec("6379,6380").ports, (bare(), unit()), strict=True)
    ]
    return plan(stop("6379,6380", "user:bob"), host(states))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_plan_is_as_it_was_agreed(name: str) -> None:
    text = f"# {SCENARIOS[name].__doc__}\n" + render(SCENARIOS[name]())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    agreed = path.read_text(encoding="utf-8") if path.exists() else ""
    difference = difflib.unified_diff(agreed.splitlines(), text.splitlines(), lineterm="")
    assert text == agreed, "\n".join(difference)


def test_no_golden_text_is_left_behind() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)


def test_every_verb_is_in_some_scenario() -> None:
    done = {action.verb for build in SCENARIOS.values() for action in build().actions}
    assert done == set(get_args(Verb))


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


def never(state: HostPorts, *, wanted: PortsSpec | None = None) -> Plan:
    decided = plan(wanted or stop(6379, *EVERYTHING), state)
    assert not decided.actions
    (refusal,) = decided.refusals
    assert refusal.way_out
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
    wanted = stop(6379, *EVERYTHING, rule, protect=[rule])
    system: Any = "wsl" if holder.kind == "windows" else "linux"
    never(held(holder, system=system), wanted=wanted)


# Rules


@pytest.mark.parametrize("value", ["a*b", "[x]", "what?", "plain", "[!a]*", "]", "ä b"])
def test_a_rule_that_is_offered_names_exactly_what_it_is_for(value: str) -> None:
    pattern = exactly(value)
    assert names([f"exe:{pattern}"], "exe", value)
    assert not names([f"exe:{pattern}"], "exe", value + "x")
    assert not names([f"exe:{pattern}"], "exe", value.replace("*", "zz").replace("?", "z") + "!")


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
    found = re.search(r'"on_conflict": "stop", "allow": (\[.*\]) in', refusal.way_out)
    assert found is not None
    decided = plan(stop(6379, *json.loads(found[1])), held(holder))
    assert len(decided.actions) == 1
    assert plan(stop(), after(decided, held(holder))).empty


def test_what_is_told_tells_a_terminal_nothing() -> None:
    odd = "\x1b]0;pwned\x07\x9b"
    told = [
        bare(exe=f"/opt/{odd}", argv=(odd, odd), name=odd),
        unit(exe=f"/opt/{odd}"),
        program(odd),
        on_windows(odd),
    ]
    for holder in told:
        for wanted in (spec(), stop(6379, *EVERYTHING)):
            decided = plan(wanted, held(holder))
            lines = [
                *map(str, decided.actions),
                *(text for one in decided.findings for text in (one.cause, *one.evidence)),
                *(text for one in decided.refusals for text in (one.reason, one.way_out)),
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
    assert parsed(text) == ports


def test_ports_are_written_as_the_kernel_writes_them() -> None:
    assert compressed([5, 1, 3, 4, 9]) == "1,3-5,9"
    assert compressed([]) == ""


# Who is back


def back(holder: Holder, **more: Any) -> Any:
    (found,) = left([WANTED], held(bare()), held(holder, **more))
    return found


def test_a_port_that_stays_free_leaves_nothing() -> None:
    assert left([WANTED], held(bare()), held()) == ()


def test_what_nobody_freed_is_not_asked_about() -> None:
    assert left([], held(bare()), held(bare(5))) == ()


def test_a_shell_that_starts_it_again_is_named() -> None:
    loop = process(700, "/usr/bin/dash", argv=("sh", "-c", "while :; do serve; done"), parent=1)
    found = back(bare(999), processes={700: loop})
    assert found.kind == "back"
    assert "dash (pid 700 of user bob): sh -c while :; do serve; done" in found.said
    assert found.way_out == (
        "its parent starts it again: end pid 700 (sh -c while :; do serve; done) first"
    )


def test_a_parent_of_a_unit_is_named_by_its_unit() -> None:
    parent = process(700, "/usr/bin/dash", unit="keeper.service", parent=1)
    found = back(bare(999), processes={700: parent})
    assert '"allow": ["unit:keeper.service"]' in found.way_out


def test_a_parent_that_is_gone() -> None:
    found = back(bare(999, parent=1, unit="cron.service"))
    assert "cron.service" in found.way_out


def test_a_unit_that_is_back_is_named_with_what_starts_it() -> None:
    found = back(unit("web.service"))
    assert found.kind == "back"
    assert "web.service" in found.said
    assert "systemctl list-dependencies --reverse web.service" in found.way_out


def test_who_has_not_let_go_is_no_respawner() -> None:
    assert back(bare()).kind == "still"


def test_what_the_kernel_keeps_passes() -> None:
    assert back(hidden()).kind == "passing"


def test_a_port_that_cannot_be_told_any_more() -> None:
    state = PortState(wanted=spec().ports[0], verdict="unknown", problem="cut off")
    (found,) = left([WANTED], held(bare()), host([state]))
    assert (found.kind, found.said) == ("unknown", "cut off")
