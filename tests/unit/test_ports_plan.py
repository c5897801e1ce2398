"""The plan, as text: who holds what and what is allowed in, what will be done and why out.

Each scenario's plan lies as plain text below ``golden/ports_plan``. ``UPDATE_GOLDEN=1 pytest``
writes them anew; what then changes is to be read as the change of behaviour that it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from stackmend.ports.plan import Action, Plan, explain_allocated, plan
from stackmend.ports.plan.restore import plan_return
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Container, Holder, HostPorts, PortState, Unit
from tests.unit.ports_world import (
    EVERYTHING,
    WANTED,
    bare,
    container,
    held,
    hidden,
    host,
    on_windows,
    outgoing,
    program,
    render,
    socket_unit,
    spec,
    stop,
    unit,
)

GOLDEN = Path(__file__).parent / "golden" / "ports_plan"

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
    state = PortState(desired=spec().ports[0], status="ours", holders=(container(project="ai"),))
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
    nameless = bare(exe="", user="", uid=-1)
    return plan(stop(6379, *EVERYTHING[1:2]), held(nameless, root=False))


@scenario
def process_that_is_just_ending() -> Plan:
    """Root reads the program of all others."""
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
    """Its own rule closes it, and no other; the port is reserved, so that there is no next one."""
    return plan(stop(40000, *EVERYTHING), held(outgoing(), ports=40000))


@scenario
def outgoing_connections_closed() -> Plan:
    """The port is reserved first: whoever connects again at once gets another one."""
    several = (outgoing(), outgoing(peer="[2001:db8::7]:443", inode=5001))
    allowed = stop(40000, "connection:192.0.2.7:443", "connection:[[]2001:db8::7]:*")
    return plan(allowed, held(*several, ports=40000))


@scenario
def one_of_two_connections_allowed() -> Plan:
    """Then none is closed: the port would not be free."""
    several = (outgoing(), outgoing(peer="198.51.100.1:80", inode=5001))
    return plan(stop(40000, "connection:192.0.2.7:443"), held(*several, ports=40000))


@scenario
def connection_of_a_tunnel() -> Plan:
    """Somebody may come in by it."""
    holder = outgoing(exe="/usr/bin/ssh")
    return plan(stop(40000, "connection:*"), held(holder, ports=40000))


@scenario
def connection_of_the_engine() -> Plan:
    """A pull of an image, perhaps."""
    holder = outgoing(exe="/usr/bin/dockerd")
    return plan(stop(40000, "connection:*"), held(holder, ports=40000))


@scenario
def connection_of_a_protected_program() -> Plan:
    """``protect`` names the program, whatever is allowed of the connection."""
    desired = stop(40000, "connection:*", protect=["exe:/usr/bin/curl"])
    return plan(desired, held(outgoing(), ports=40000))


@scenario
def connection_of_nobody() -> Plan:
    """A mount of NFS has no process; it is left alone."""
    held_by = outgoing()
    nobody = held_by.model_copy(update={"process": None, "why_hidden": "a connection (ESTAB)"})
    return plan(stop(40000, "connection:*"), held(nobody, ports=40000))


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
    state = PortState(desired=spec().ports[0], status="held", evidence="bind (perl)")
    return plan(stop(6379, *EVERYTHING), host([state]))


@scenario
def unknown() -> Plan:
    """An address that the host does not have."""
    desired = spec("192.0.2.9:80").ports[0]
    state = PortState(desired=desired, status="unknown", problem="the host has no 192.0.2.9")
    return plan(stop("192.0.2.9:80", *EVERYTHING), host([state]))


@scenario
def not_told() -> Plan:
    """The probe left a desired port out."""
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
    return explain_allocated(
        held().ports[0], "Bind for 0.0.0.0:6379 failed: port is already allocated"
    )


@scenario
def allocated_to_our_own() -> Plan:
    """Another container of the project is in the way: no entry is left over."""
    one = container("ai-old-1", project="ai", service="old")
    state = PortState(desired=spec().ports[0], status="ours", holders=(one,))
    return explain_allocated(state, "Bind for 0.0.0.0:6379 failed: port is already allocated")


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
        PortState(desired=one, status="held", holders=(holder,))
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
    done = {type(action) for build in SCENARIOS.values() for action in build().actions}
    assert done == set(get_args(Action))


def test_what_was_stopped_is_started_where_its_ports_are_free() -> None:
    free = HostPorts(ports=(PortState(desired=PortSpec(port=6379), status="free"),))
    for ports in (None, free):
        assert [action.verb for action in plan_return("20260101T120000Z-1", ports).actions] == [
            "bring back"
        ]


@pytest.mark.parametrize(
    ("holder", "remedy"),
    [
        (
            Holder(
                kind="container",
                container=Container(id="1", name="ai-redis-1", project="ai", service="redis"),
            ),
            "take the port from redis in project ai and apply that, then run this again",
        ),
        (
            Holder(kind="container", container=Container(id="1", name="web")),
            "stop container web, then run this again",
        ),
        (
            Holder(kind="unit", unit=Unit(name="redis.service")),
            "systemctl stop redis.service, then run this again",
        ),
        (Holder(kind="hidden"), "free the port, then run this again"),
    ],
    ids=["project", "container", "unit", "hidden"],
)
def test_nothing_is_started_whose_port_another_holds(holder: Holder, remedy: str) -> None:
    port = PortState(desired=PortSpec(port=6379), status="held", holders=(holder,))
    plan = plan_return("20260101T120000Z-1", HostPorts(ports=(port,)))
    assert plan.actions == ()
    (refusal,) = plan.refusals
    assert refusal.subject == WANTED
    assert refusal.reason.startswith(
        f"what record 20260101T120000Z-1 holds is not started: {WANTED} is held by "
    )
    assert refusal.remedy == remedy
