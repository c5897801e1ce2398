"""Who holds a port: the tables of a host, put together, and the status that is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.ports import attribution
from stackmend.ports.attribution import Tables, find_holders, is_conflicting
from stackmend.ports.classification import Evidence, classify
from stackmend.ports.format import format_holder, format_port, format_process
from stackmend.ports.listing import Section, parse_containers
from stackmend.ports.processes import is_in_session, mark_sessions
from stackmend.ports.spec import PortSpec, parse_port
from stackmend.ports.state import Container, Holder, PortState, Process, Program, Socket, Unit

ID = "0123456789abcdef" * 4


def want(text: str) -> PortSpec:
    (one,) = parse_port(text)
    return one


def socket(at: str = "0.0.0.0", port: int = 80, **more: Any) -> Socket:
    settings = {"protocol": "tcp", "state": "LISTEN", "inode": 7, "pids": (100,), **more}
    return Socket(address=at, port=port, **settings)


def process(pid: int = 100, **more: Any) -> Process:
    settings = {"name": "server", "exe": "/srv/server", "user": "root", "uid": 0, "parent": 1}
    return Process(pid=pid, **{**settings, **more})


def container(**more: Any) -> Container:
    settings = {"name": "web", "published": ("0.0.0.0:80/tcp",), "project": "shop", **more}
    return Container(id=ID, **settings)


def tables(*listed: Socket, people: tuple[Process, ...] = (), **more: Any) -> Tables:
    known = {one.pid: one for one in (process(1, name="systemd", parent=0), *people)}
    return Tables(sockets=listed, processes=known, **more)


# Which sockets stand in the way


@pytest.mark.parametrize(
    ("wish", "other", "expected"),
    [
        ("0.0.0.0:80", socket("0.0.0.0"), True),
        ("0.0.0.0:80", socket("127.0.0.1"), True),
        ("127.0.0.1:80", socket("0.0.0.0"), True),
        ("127.0.0.1:80", socket("127.0.0.1"), True),
        ("127.0.0.1:80", socket("127.0.0.2"), False),
        ("0.0.0.0:80", socket("0.0.0.0", 81), False),
        ("0.0.0.0:80/udp", socket("0.0.0.0"), False),
        ("0.0.0.0:80", socket("0.0.0.0", protocol="udp"), False),
        ("0.0.0.0:80", socket("::", dual=True), True),
        ("127.0.0.1:80", socket("::", dual=True), True),
        ("0.0.0.0:80", socket("::", dual=False), False),
        ("0.0.0.0:80", socket("::", dual=None), None),
        ("0.0.0.0:80", socket("::1"), False),
        ("[::]:80", socket("0.0.0.0"), False),
        ("[::]:80", socket("::", dual=False), True),
        ("[::]:80", socket("::", dual=True), True),
        ("[::]:80", socket("::1"), True),
        ("[::1]:80", socket("::", dual=None), True),
        ("[::1]:80", socket("fe80::1"), False),
    ],
)
def test_conflicts(wish: str, other: Socket, expected: bool | None) -> None:
    assert is_conflicting(want(wish), other) is expected


def test_one_that_may_take_ipv4_counts_only_where_no_other_explains_it() -> None:
    six, four = socket("::", dual=None, pids=(6,)), socket("0.0.0.0", pids=(4,))
    assert attribution.find_conflicts(want("80"), [six]) == (six,)
    assert attribution.find_conflicts(want("80"), [six, four]) == (four,)


def test_connections_count_only_where_nobody_waits() -> None:
    there = socket("10.0.0.1", state="ESTAB", peer="10.0.0.2:443")
    listener = socket()
    assert attribution.find_conflicts(want("80"), [there]) == (there,)
    assert attribution.find_conflicts(want("80"), [there, listener]) == (listener,)
    (found,) = find_holders(want("80"), tables(there, people=(process(),)), blocked=True)
    assert found.kind == "outgoing"
    assert "10.0.0.2:443 (server" in format_holder(found)


# Who it is


def found_one(state: Tables, text: str = "80") -> Holder:
    (one,) = find_holders(want(text), state, blocked=True)
    return one


def test_two_processes_that_share_a_port_are_two() -> None:
    both = tables(
        socket(pids=(100,)), socket(inode=8, pids=(101,)), people=(process(100), process(101))
    )
    found = find_holders(want("80"), both, blocked=True)
    assert [one.process.pid for one in found if one.process] == [100, 101]


def test_a_unit_with_many_workers_is_one() -> None:
    people = tuple(process(pid, unit="web.service", manager="system") for pid in (100, 101))
    one = found_one(tables(socket(pids=(100, 101)), people=people))
    assert one.kind == "unit"
    assert one.unit == Unit(name="web.service")


@pytest.mark.parametrize(
    ("unit", "name", "main", "expected"),
    [
        ("session-4.scope", "x", 0, True),
        ("cron.service", "x", 9, True),
        ("cron.service", "cron", 9, False),
        ("ssh.service", "python3", 9, True),
        ("ssh.service", "sshd", 9, False),
        ("sshd@3-1.service", "x", 9, True),
        ("ssh.service", "x", 100, False),
        ("user@1000.service", "x", 0, True),
        ("cronicle.service", "x", 0, False),
        ("web.service", "x", 0, False),
    ],
)
def test_what_users_start_is_no_service(unit: str, name: str, main: int, expected: bool) -> None:
    one = process(unit=unit, manager="system", name=name).model_copy(
        update={"session": unit.startswith("session")}
    )
    assert is_in_session(one, main) is expected
    table = tables(
        socket(),
        people=(one,),
        units=(Unit(name=unit, main_pid=main),),
    )
    assert (found_one(table).kind == "process") is expected
    (after,) = mark_sessions({100: one}, table.units).values()
    assert after.session is expected


def test_a_socket_and_the_service_it_started_are_one() -> None:
    sock = Unit(name="web.socket", triggers=("web.service",), listens=("[::]:80 (Stream)",))
    other = Unit(name="z.socket", triggers=("z.service",), listens=("[::]:80 (Datagram)",))
    people = (process(100, unit="web.service", manager="system"),)
    one = found_one(
        tables(socket("::", dual=True, pids=(1, 100)), people=people, units=(other, sock))
    )
    assert (one.kind, one.unit) == ("socket unit", sock)
    assert one.process == people[0]


def test_a_socket_of_pid_1_that_no_unit_explains_is_pid_1() -> None:
    one = found_one(tables(socket(pids=(1,))))
    assert one.kind == "process"
    assert one.process is not None
    assert one.process.pid == 1


def test_supervisors() -> None:
    program = Program(supervisor="supervisord", name="web", stop=("x",))
    people = (process(100, parent=50), process(50, parent=40), process(40, name="supervisord"))
    asked = tables(socket(), people=people, programs={50: program, 40: program})
    assert found_one(asked).program == program
    silent = {40: Program(supervisor="supervisord", name="")}
    mute = found_one(tables(socket(), people=people, programs=silent))
    assert mute.program == Program(supervisor="supervisord", name="server")
    own = found_one(tables(socket(pids=(40,)), people=people, programs=silent))
    assert own.kind == "process"


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (
            process(50, name="runsv", argv=("runsv", "web"), cwd="/etc/sv/web"),
            ("runit", "web", ("sv", "down", "/etc/sv/web")),
        ),
        (
            process(50, name="s6-supervise", argv=("s6-supervise", "web"), cwd="/run/s6/web"),
            ("s6", "web", ("s6-svc", "-d", "/run/s6/web")),
        ),
        (
            process(50, name="supervise-daemo", argv=("supervise-daemon", "web")),
            ("openrc", "web", ("rc-service", "web", "stop")),
        ),
    ],
)
def test_other_supervisors(parent: Process, expected: tuple[str, str, tuple[str, ...]]) -> None:
    program = found_one(tables(socket(), people=(process(parent=50), parent))).program
    assert program is not None
    assert (program.supervisor, program.name, program.stop) == expected


PROXY = process(name="docker-proxy", argv=("docker-proxy", "-host-ip", "0.0.0.0"))


def test_a_proxy_is_its_container() -> None:
    one = found_one(tables(socket(), people=(PROXY,), containers=(container(),)))
    assert (one.kind, one.container, one.process) == ("container", container(), PROXY)


def test_a_proxy_without_a_container_is_a_process() -> None:
    gone = (container(running=False), container(published=("0.0.0.0:81/tcp",)))
    one = found_one(tables(socket(), people=(PROXY,), containers=gone))
    assert (one.kind, one.process) == ("process", PROXY)


DOCKERD = process(50, name="dockerd", unit="docker.service", manager="system")
FORWARDS = ("docker-proxy", "-container-ip", "172.18.0.3", "-container-port", "8000")


def engine_proxy(pid: int = 100, **more: Any) -> Process:
    settings = {"parent": 50, "unit": "docker.service", "manager": "system", "argv": FORWARDS}
    return process(pid, name="docker-proxy", **{**settings, **more})


@pytest.mark.parametrize("listed", [(), (container(running=False, published=("0.0.0.0:81/tcp",)),)])
@pytest.mark.parametrize("unit", ["docker.service", "snap.docker.dockerd.service", ""])
def test_a_proxy_of_the_engine_is_never_the_engines_own_unit(
    listed: tuple[Container, ...], unit: str
) -> None:
    """Its container was just ended or is just being started: nobody is named, and it is told."""
    people = (DOCKERD, engine_proxy(unit=unit))
    one = found_one(tables(socket(), people=people, containers=listed))
    assert (one.kind, one.container, one.unit) == ("container", None, None)
    assert "172.18.0.3 port 8000" in format_holder(one)


def test_a_proxy_whose_engine_went_is_none_of_its_unit_either() -> None:
    one = found_one(tables(socket(), people=(engine_proxy(parent=1),)))
    assert (one.kind, one.container) == ("container", None)


def test_an_engine_that_shares_its_proxys_socket_is_the_same_holder() -> None:
    people, shared = (DOCKERD, engine_proxy()), socket(pids=(50, 100))
    assert found_one(tables(shared, people=people, containers=(container(),))).container
    assert found_one(tables(shared, people=people)).kind == "container"
    # Without a proxy beside it the socket is its own.
    assert found_one(tables(socket(pids=(50,)), people=people)).kind == "unit"


def row(status: str, ports: Any, bindings: Any) -> Section:
    names = ["sha256:0", ID, "/web", status, 7, "always", "shop_default"]
    labels = ["shop", "web", "/opt/shop", "False", "/opt/shop/compose.yaml", "1", "c0ffee", ""]
    return 0, [json.dumps([*names, ports, *labels, bindings])]


BINDINGS = {
    "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}],
    "1/tcp": [{"HostIp": "", "HostPort": "8000-8010"}, {"HostIp": "", "HostPort": "0"}],
    "2/udp": [{"HostIp": "", "HostPort": ""}],
    "3/udp": None,
}


@pytest.mark.parametrize("ports", [{}, None, {"8000/tcp": None}])
def test_a_container_that_is_restarted_has_the_ports_it_is_configured_with(ports: Any) -> None:
    (one,) = parse_containers({"containers docker": row("restarting", ports, BINDINGS)})
    assert (one.published, one.running) == (("127.0.0.1:80/tcp",), True)
    at = socket("127.0.0.1")
    table = tables(at, people=(DOCKERD, engine_proxy()), containers=(one,))
    found = found_one(table, "127.0.0.1:80")
    assert (found.kind, found.container) == ("container", one)


def test_a_container_that_is_listed_later_is_the_proxys() -> None:
    at = socket("127.0.0.1")
    first, later = row("running", {}, {}), row("exited", {}, BINDINGS)
    # What was listed at first stands; what was not is added as it was later.
    (one,) = parse_containers({"later docker": later, "containers docker": first})
    assert one.published == ()
    (one,) = parse_containers({"later docker": later})
    assert (one.published, one.running) == (("127.0.0.1:80/tcp",), False)
    state = tables(at, people=(DOCKERD, engine_proxy()), containers=(one,))
    assert found_one(state, "127.0.0.1:80").container == one.model_copy(update={"running": True})
    # Of two it may be either, unless one of them runs.
    other = one.model_copy(update={"id": "f" * 64, "name": "other"})
    two = replace(state, containers=(one, other))
    assert found_one(two, "127.0.0.1:80").container is None
    runs = other.model_copy(update={"running": True})
    assert found_one(replace(state, containers=(one, runs)), "127.0.0.1:80").container == runs


def test_a_container_that_runs_has_the_ports_that_it_has() -> None:
    reported = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "81"}]}
    for status in ("running", "restarting"):
        (one,) = parse_containers({"containers docker": row(status, reported, BINDINGS)})
        assert one.published == ("127.0.0.1:81/tcp",)
    (one,) = parse_containers({"containers docker": row("running", {}, BINDINGS)})
    assert one.published == ()


def test_the_engine_itself_may_hold_it_for_a_container() -> None:
    engine = process(name="dockerd", unit="docker.service", manager="system")
    one = found_one(tables(socket(), people=(engine,), containers=(container(),)))
    assert one.kind == "container"
    # Its own socket is its own.
    assert found_one(tables(socket(), people=(engine,))).kind == "unit"


def test_another_process_beside_a_container_is_another_holder() -> None:
    narrow = container(published=("127.0.0.1:80/tcp",))
    both = (socket("127.0.0.1"), socket("10.0.0.1", inode=8, pids=(101,)))
    found = find_holders(
        want("80"),
        tables(*both, people=(PROXY, process(101)), containers=(narrow,)),
        blocked=True,
    )
    assert [one.kind for one in found] == ["container", "process"]


def test_a_carrier_of_podman_that_cannot_be_asked_is_the_only_container_of_its_user() -> None:
    carrier = process(name="rootlessport", uid=1000, user="ann")
    argv = ("conmon", "-c", ID, "-n", "pod")
    monitor = process(50, name="conmon", argv=argv, uid=1000, user="ann")
    one = found_one(tables(socket(), people=(carrier, monitor)))
    assert one.container == Container(id=ID, name="pod", engine="podman:ann")
    assert one.evidence == ("ss", "conmon")
    # Of two it may be either: then it is what it is.
    other = process(51, name="conmon", argv=argv, uid=1000, user="ann")
    assert found_one(tables(socket(), people=(carrier, monitor, other))).kind == "process"
    assert found_one(tables(socket(), people=(carrier,))).kind == "process"


def test_a_carrier_belongs_to_its_own_kind_of_engine() -> None:
    pod = container(engine="podman")
    carrier = process(name="rootlessport")
    mixed = tables(socket(), people=(carrier,), containers=(pod, container()))
    found = find_holders(want("80"), mixed, blocked=True)
    assert [one.process for one in found] == [None, carrier]
    assert found[1].container == pod


def test_who_merely_calls_himself_a_proxy_is_no_container() -> None:
    narrow = container(published=("127.0.0.1:80/tcp",))
    table = tables(socket("10.0.0.1"), people=(PROXY,), containers=(narrow,))
    found = find_holders(want("80"), table, blocked=True)
    assert [(one.kind, len(one.sockets)) for one in found] == [("container", 0), ("process", 1)]
    unseen = tables(socket("10.0.0.1", pids=()), containers=(narrow,), root=False)
    found = find_holders(want("80"), unseen, blocked=True)
    assert [one.kind for one in found] == ["container", "hidden"]


def test_an_unseen_proxy_is_its_container() -> None:
    one = found_one(tables(socket(pids=()), containers=(container(),), root=False))
    assert one.kind == "container"


def test_a_host_network_container_is_told_by_its_control_group_or_monitor() -> None:
    known = container(published=(), host_network=True)
    one = found_one(tables(socket(), people=(process(container=ID),), containers=(known,)))
    assert (one.kind, one.container) == ("container", known)
    monitor = process(
        50, name="conmon", argv=("conmon", "-c", ID, "-n", "pod"), uid=1000, user="ann"
    )
    unknown = found_one(tables(socket(), people=(process(parent=50), monitor)))
    assert unknown.container is not None
    assert (unknown.container.name, unknown.container.engine) == ("pod", "podman:ann")
    foreign = found_one(tables(socket(), people=(process(container=ID),)))
    assert foreign.container is not None
    assert foreign.container.engine == "containerd"


@pytest.mark.parametrize(
    ("settings", "words_"),
    [
        ({"root": False}, "only root"),
        ({"wsl": True}, "another distribution"),
        ({"searched": False}, "without python3"),
        ({}, "no process was found"),
    ],
)
def test_a_hidden_owner_says_why(settings: dict[str, Any], words_: str) -> None:
    (found,) = find_holders(want("80"), tables(**settings), blocked=True)
    assert found.kind == "hidden"
    assert words_ in found.why_hidden


def test_a_name_cannot_write_on_the_terminal() -> None:
    name = "x\x1b[2J\ny"
    for odd in (process(name=name, exe=""), process(exe=f"/srv/{name}")):
        assert format_process(odd) == "x?[2J?y (pid 100 of user root)"


# Statuses


def test_what_is_sent_to_kubernetes_is_held() -> None:
    observed = Evidence(tables=tables(rules=frozenset({("tcp", 30080)})), tool="python3")
    row = classify(want("30080"), observed)
    assert (row.status, [one.kind for one in row.holders]) == ("held", ["node port"])


def status(text: str, error: str | None = "EADDRINUSE", **more: Any) -> PortState:
    refused: Mapping[PortSpec, str] = {want(text): error} if error else {}
    settings: dict[str, Any] = {"tables": tables(), "tool": "python3", "refused": refused, **more}
    return classify(want(text), Evidence(**settings))


def test_a_bind_decides() -> None:
    listed = tables(socket("0.0.0.0"), people=(process(),))
    assert status("80", None, tables=listed).status == "free"
    row = status("80", tables=listed)
    assert row.status == "held"
    assert row.evidence == "bind (python3): address already in use (EADDRINUSE)"
    nobody = status("80")
    assert (nobody.status, nobody.holders[0].kind) == ("held", "hidden")


@pytest.mark.parametrize("error", ["EADDRNOTAVAIL", "EAFNOSUPPORT", "EINVAL", "E999"])
def test_what_can_never_be_bound_is_not_held(error: str) -> None:
    row = status("[::1]:80", error)
    assert (row.status, row.holders) == ("unknown", ())
    assert row.problem


def test_a_bind_that_is_forbidden_says_nothing() -> None:
    assert status("80", "EACCES").status == "free"
    held = status("80", "EACCES", tables=tables(socket(pids=()), root=False))
    assert held.status == "held"
    assert held.evidence.endswith("so ss")


def test_an_ended_connection_without_a_bind_is_not_told() -> None:
    ended = socket(state="TIME-WAIT", peer="10.0.0.1:443", pids=())
    assert status("80", None, tool="", tables=tables(ended)).status == "unknown"
    assert status("80", tables=tables(ended)).holders[0].kind == "outgoing"


def test_an_ipv6_socket_of_unknown_kind_without_a_bind_is_not_told() -> None:
    six = tables(socket("::", dual=None), people=(process(),))
    row = status("80", None, tool="", tables=six)
    assert (row.status, row.holders) == ("unknown", ())
    assert status("[::]:80", None, tool="", tables=six).status == "held"
    both = tables(socket("::", dual=None), people=(PROXY,), containers=(container(),))
    assert status("80", None, tool="", tables=both).holders[0].kind == "container"


def ours(**more: Any) -> str:
    settings = {"project": "shop", "directory": "/opt/shop", "containers": (container(),), **more}
    held = settings.pop("containers")
    at = settings.pop("at", "0.0.0.0")
    table = tables(socket(at), people=(PROXY,), containers=held)
    return status("80", tables=table, **settings).status


def test_ours() -> None:
    mine = container(working_dir="/opt/shop")
    assert ours(containers=(mine,)) == "ours"
    narrow = mine.model_copy(update={"published": ("127.0.0.1:80/tcp",)})
    assert ours(containers=(narrow,), at="127.0.0.1") == "ours"
    assert ours(containers=(mine,), directory="") == "ours"
    assert ours(containers=(mine,), project="") == "held"
    assert ours(containers=(mine,), project="other") == "held"
    assert ours(containers=(mine,), directory="/opt/other") == "held"
    assert ours(containers=(mine.model_copy(update={"oneoff": True}),)) == "held"
    assert ours(containers=(mine.model_copy(update={"running": False}),)) == "held"


def test_a_foreign_holder_beside_ours_is_the_only_one_named() -> None:
    mine = container(published=("127.0.0.1:80/tcp",))
    table = tables(
        socket("127.0.0.1"),
        socket("10.0.0.1", inode=8, pids=(101,)),
        people=(PROXY, process(101)),
        containers=(mine,),
    )
    row = status("80", tables=table, project="shop")
    assert (row.status, [one.kind for one in row.holders]) == ("held", ["process"])


def test_what_the_engine_has_given_away_is_held_although_a_bind_succeeds() -> None:
    row = status("80", None, tables=tables(containers=(container(),)))
    assert row.status == "held"
    assert row.evidence == "bind (python3), but docker ps"
    other = container(engine="podman")
    assert status("80", None, tables=tables(containers=(other,))).status == "free"


# Whatever is listed

sockets_ = st.builds(
    Socket,
    protocol=st.sampled_from(["tcp", "udp"]),
    address=st.sampled_from(["0.0.0.0", "127.0.0.1", "10.0.0.1", "::", "::1"]),
    port=st.sampled_from([80, 81]),
    state=st.sampled_from(["LISTEN", "UNCONN", "BOUND", "ESTAB", "TIME-WAIT"]),
    inode=st.integers(0, 5),
    dual=st.sampled_from([True, False, None]),
    peer=st.sampled_from(["", "10.0.0.9:443"]),
    pids=st.sets(st.integers(1, 6), max_size=3).map(tuple),
)
people_ = st.dictionaries(
    st.integers(1, 6),
    st.builds(
        Process,
        pid=st.just(0),
        name=st.sampled_from(["x", "systemd", "docker-proxy", "dockerd", "conmon", "runsv"]),
        parent=st.integers(0, 6),
        unit=st.sampled_from(["", "a.service", "session-1.scope", "cron.service"]),
        container=st.sampled_from(["", ID]),
        cwd=st.sampled_from(["", "/sv"]),
    ),
).map(lambda found: {pid: one.model_copy(update={"pid": pid}) for pid, one in found.items()})
containers_ = st.lists(
    st.builds(
        container,
        engine=st.sampled_from(["docker", "podman", "docker:unix:///x"]),
        running=st.booleans(),
        published=st.sampled_from([(), ("0.0.0.0:80/tcp",), ("[::]:80/tcp", "127.0.0.1:81/udp")]),
    ),
    max_size=2,
).map(tuple)
tables_ = st.builds(
    Tables,
    sockets=st.lists(sockets_, max_size=5).map(tuple),
    processes=people_,
    containers=containers_,
    root=st.booleans(),
)
wishes = st.sampled_from(["80", "127.0.0.1:80", "[::]:80", "81/udp"])


@settings(deadline=None)  # a busy machine is no failure
@given(wishes, tables_, st.sampled_from(["python3", ""]))
def test_what_is_refused_or_listed_is_never_free(text: str, table: Tables, tool: str) -> None:
    assert status(text, "EADDRINUSE", tables=table).status == "held"
    row = status(text, None, tool=tool, tables=table)
    if not tool and attribution.find_conflicts(want(text), table.sockets):
        assert row.status != "free"
    assert row.holders or row.status in ("free", "unknown")
    assert format_port(row)


@settings(deadline=None)  # a busy machine is no failure
@given(wishes, tables_, st.sampled_from(["a.service", "docker.service"]))
def test_no_proxy_of_an_engine_is_ever_a_unit(text: str, table: Tables, unit: str) -> None:
    def of_the_engine(one: Process) -> Process:
        if one.name not in ("docker-proxy", "dockerd"):
            return one.model_copy(update={"unit": ""})
        parent = 9 if one.name == "docker-proxy" else 1
        return one.model_copy(update={"unit": unit, "manager": "system", "parent": parent})

    people = {pid: of_the_engine(one) for pid, one in table.processes.items()}
    engine = process(9, name="dockerd", unit=unit, manager="system")
    state = replace(table, processes={**people, 9: engine})
    for found in find_holders(want(text), state, blocked=True):
        if found.process is not None and found.process.name == "docker-proxy":
            assert found.kind in ("container", "outgoing")


@settings(deadline=None)  # a busy machine is no failure
@given(wishes, tables_)
def test_the_order_of_the_lists_does_not_matter(text: str, table: Tables) -> None:
    turned = Tables(
        sockets=table.sockets[::-1],
        processes=dict(reversed(table.processes.items())),
        containers=table.containers,
        root=table.root,
    )

    def keys(state: Tables) -> list[tuple[Any, ...]]:
        return [
            (one.kind, one.process and one.process.pid, one.container, frozenset(one.sockets))
            for one in find_holders(want(text), state, blocked=True)
        ]

    assert keys(table) == keys(turned)
