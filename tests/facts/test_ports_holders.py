"""What the state of a host's ports says, read from what real hosts printed."""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyinfra.api import FactProcessError
from pyinfra.api.exceptions import FactValueError

from stackmend.ports.facts import PortHolders, group_ports
from stackmend.ports.format import format_port
from stackmend.ports.spec import PortSpec, parse_ports
from stackmend.ports.state import Holder, HostPorts, PortState
from tests.lab.holders import ARGUMENT, CWD, HOME
from tests.marks import MARK, asked, framed

FIXTURES = Path(__file__).parent / "ports.facts.PortHolders"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.yaml"))


@cache
def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FIXTURES / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def printed(name: str) -> str:
    return str(fixture(name)["output"])


def process(name: str, text: str) -> HostPorts:
    """What a text means as the answer to what a fixture was asked."""
    return asked(PortHolders, **fixture(name)["arg"]).process(text.split("\n"))


@cache
def read(name: str) -> HostPorts:
    return process(name, printed(name))


def port(state: HostPorts, number: int, protocol: str = "tcp", address: str = "") -> PortState:
    (found,) = [
        row
        for row in state.ports
        if (row.desired.port, row.desired.protocol) == (number, protocol)
        and row.desired.address == (address or "0.0.0.0")
    ]
    return found


def holder(name: str, number: int, protocol: str = "tcp") -> Holder:
    row = port(read(name), number, protocol)
    assert row.status == "held"
    (found,) = row.holders
    return found


# The command


def expanded(groups: str) -> tuple[PortSpec, ...]:
    """The ports that ``group_ports`` wrote, as the probe reads them."""
    found = []
    for group in groups.split():
        protocol, address, ports = group.split("/")
        for part in ports.split(","):
            first, _, last = part.partition("-")
            for port in range(int(first), int(last or first) + 1):
                found.append(
                    PortSpec.model_validate(
                        {"protocol": protocol, "address": address, "port": port}
                    )
                )
    return tuple(sorted(found, key=lambda one: (one.port, one.protocol, one.address)))


@pytest.mark.parametrize("text", ["shop", "-x", "a b", "'; id; '", "$(id)", 'ä\n"b"'])
def test_the_command_quotes_what_it_is_given(text: str) -> None:
    command = PortHolders().command("80", project=text, directory=f"/opt/{text}")
    given_words = shlex.split(command.get_raw_value())
    assert given_words[:6] == ["printf", r"%s\n", MARK, "|", "sh", "-c"]
    # What is asked for a project stays here.
    assert given_words[7:] == ["probe", "tcp/0.0.0.0/80", "( sport = :80 )", "80-80"]


def test_many_ports_are_one_short_question() -> None:
    words_ = shlex.split(PortHolders().command(ports=range(2, 8002, 2)).get_raw_value())
    assert words_[9] == "( ( sport >= :2 and sport <= :8000 ) )"
    assert len(words_[8]) < 64 << 10


@pytest.mark.parametrize("ports", ["0", "70000", "6379/sctp", "90-80", "shop:80", [80, "x"]])
def test_a_port_that_is_none_is_one_clear_error(ports: object) -> None:
    with pytest.raises(FactValueError, match=r"^ports: \[\d\]: .*"):
        PortHolders().command(ports=ports)


addresses = st.sampled_from(["0.0.0.0", "127.0.0.1", "::", "::1", "10.0.0.7"])
wanted_ports = st.builds(
    PortSpec,
    address=addresses,
    port=st.integers(1, 65535),
    protocol=st.sampled_from(["tcp", "udp"]),
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.sets(wanted_ports, max_size=30))
def test_what_is_wanted_arrives(desired: set[PortSpec]) -> None:
    assert expanded(group_ports(parse_ports(desired))) == parse_ports(desired)


# Verdicts


def test_quiet() -> None:
    state = read("quiet")
    assert {row.status for row in state.ports if row.desired.port == 20003} == {"free"}
    assert {row.evidence for row in state.ports if row.status == "free"} == {"bind (python3)"}
    assert (state.engine, state.root, state.system) == ("up", True, "linux")
    for address in ("10.9.9.9", "::1"):
        row = port(state, 20000, address=address)
        assert (row.status, row.holders) == ("unknown", ())
        assert address in row.problem


def test_our_own_sshd_is_guarded() -> None:
    for name in ("quiet", "not_installed"):
        state = read(name)
        found = holder(name, 22)
        assert found.process is not None
        assert found.process.pid in state.guarded
        assert found.unit is not None
        assert (found.unit.name, found.unit.active) == ("ssh.service", "active")
        assert 1 in state.guarded
        shells = [state.processes[pid] for pid in state.guarded if pid in state.processes]
        assert any(one.name == "sh" and one.session for one in shells)
        # What we send is not told back to us.
        assert all(one.argv == () for one in shells)


def test_every_holder_comes_with_its_ancestors() -> None:
    for name in NAMES:
        state = read(name)
        for row in state.ports:
            for one in row.holders:
                process = one.process
                while process is not None and process.parent > 0:
                    assert process.parent in state.processes, (name, format_port(row))
                    process = state.processes[process.parent]


EVIDENCE = {
    "processes": "bind (python3)",
    "processes_without_python3": "bind (perl)",
    "processes_by_ss_alone": "ss",
    "processes_by_proc_alone": "/proc/net",
    "processes_seen_by_a_user": "bind (python3)",
}
ALL_SEEN = [name for name in EVIDENCE if not name.endswith("user")]


@pytest.mark.parametrize("name", EVIDENCE)
def test_the_evidence_is_named(name: str) -> None:
    for row in read(name).ports:
        assert row.evidence.startswith(EVIDENCE[name]), row


@pytest.mark.parametrize("name", ALL_SEEN)
def test_processes(name: str) -> None:
    found = holder(name, 21001)
    assert found.kind == "process"
    process = found.process
    assert process is not None
    assert process.argv[1:] == (f"{HOME}/hold.py", "tcp", "0.0.0.0", "21001", ARGUMENT)
    assert (process.cwd, process.uid, process.user) == (CWD, 0, "root")
    assert process.exe.startswith("/usr/bin/python3")
    assert process.started > 0
    assert process.session
    assert (found.sockets[0].state, found.sockets[0].pids) == ("LISTEN", (process.pid,))
    other = holder(name, 21002).process
    assert other is not None
    assert other.user == "keeper"
    shared = port(read(name), 21003)
    assert len({one.process.pid for one in shared.holders if one.process}) == 2
    for number in (21004, 21005, 21023):
        if (name, number) != ("processes_by_proc_alone", 21005):
            assert holder(name, number).kind == "process"
    assert holder(name, 21007, "udp").kind == "process"
    assert port(read(name), 21011).status == "free"


@pytest.mark.parametrize("name", [*ALL_SEEN, "processes_seen_by_a_user"])
def test_a_connection_to_elsewhere(name: str) -> None:
    found = holder(name, 21010)
    assert found.kind == "outgoing"
    assert found.sockets[0].peer == "127.0.0.1:21110"
    assert (found.process is None) == name.endswith("user")


def test_v6only_is_beside_v4() -> None:
    for name in ("processes", "processes_without_python3", "processes_by_ss_alone"):
        assert port(read(name), 21006).status == "free"
    # Where nothing tells it from one that takes both, it is neither free nor anybody's fault.
    for number in (21005, 21006):
        row = port(read("processes_by_proc_alone"), number)
        assert (row.status, row.holders) == ("unknown", ())
        assert "IPv6" in row.problem


def test_bound_and_not_listening() -> None:
    found = holder("processes", 21008)
    assert found.kind == "process"
    assert found.process is not None
    assert found.process.argv[2] == "tcp,bound"
    assert found.evidence == ("pidfd_getfd",)
    assert holder("processes_without_python3", 21008).kind == "hidden"
    # Only a bind tells of it: what did not bind says so.
    row = port(read("processes_by_ss_alone"), 21008)
    assert "would not be listed" in row.evidence


def test_a_user_is_not_told_and_takes_nothing_for_free() -> None:
    state = read("processes_seen_by_a_user")
    assert not state.root
    for row in state.ports:
        if row.desired.port in (21006, 21011):
            assert row.status == "free"
        else:
            assert row.status == "held"
            assert {one.kind for one in row.holders} <= {"hidden", "outgoing"}
            assert all(one.why_hidden for one in row.holders)


def test_addresses_without_a_bind() -> None:
    for name in ("processes_by_ss_alone", "processes_by_proc_alone"):
        assert port(read(name), 20000, address="10.9.9.9").status == "unknown"


def test_units() -> None:
    for number, restart in ((21012, "no"), (21013, "always")):
        found = holder("kept", number)
        assert found.kind == "unit"
        assert found.unit is not None
        assert found.process is not None
        assert (found.unit.active, found.unit.restart) == ("active", restart)
        assert found.unit.main_pid == found.process.pid
        assert not found.process.session
    assert holder("kept", 21012).unit.enabled == "enabled"  # type: ignore[union-attr]


def test_socket_units() -> None:
    idle, awake = holder("kept", 21014), holder("kept", 21015)
    for found in (idle, awake):
        assert found.kind == "socket unit"
        assert found.unit is not None
        assert found.unit.name.endswith(".socket")
        assert found.unit.triggers == (found.unit.name.replace(".socket", ".service"),)
    assert idle.process is not None
    assert idle.process.pid == 1
    # The service that it started is told, and is no holder of its own.
    assert awake.process is not None
    assert awake.process.name == "python3"


def test_a_supervisor_is_asked() -> None:
    found = holder("kept", 21016)
    assert found.kind == "program"
    assert found.program is not None
    assert (found.program.supervisor, found.program.name) == ("supervisord", "shelf")
    assert found.program.stop[0].endswith("/supervisorctl")
    assert found.program.stop[1:] == ("-c", "/etc/supervisor/supervisord.conf", "stop", "shelf")
    assert found.program.start[-2:] == ("start", "shelf")


def test_containers() -> None:
    expected = {
        21017: ("elsewhere-web-1", "docker", "docker-proxy"),
        21018: ("restarting", "docker", "docker-proxy"),
        21019: ("host-network", "docker", "httpd"),
        21020: ("second", "docker:unix:///run/second/docker.sock", "docker-proxy"),
        21021: ("third", "docker:unix:///run/third/docker.sock", "dockerd"),
        21022: ("pod", "podman", "conmon"),
    }
    for number, (name, engine, program) in expected.items():
        found = holder("containers", number)
        assert found.kind == "container"
        assert found.container is not None
        assert found.process is not None
        assert (found.container.name, found.container.engine) == (name, engine)
        assert found.process.name == program
        assert found.container.pid > 0
        assert found.container.host_network == (number == 21019)
    assert holder("containers", 21018, "udp").container == holder("containers", 21018).container
    project = holder("containers", 21017).container
    assert project is not None
    assert (project.project, project.service) == ("elsewhere", "web")
    assert project.working_dir == "/opt/elsewhere"
    assert holder("containers", 21018).container.restart == "always"  # type: ignore[union-attr]
    narrow = port(read("containers"), 21017, address="127.0.0.1")
    assert [one.container for one in narrow.holders] == [project]


def test_ours() -> None:
    state = read("ours")
    assert port(state, 21017).status == "ours"
    assert port(state, 21018).status == "held"


def test_the_engine_is_down_and_its_containers_live() -> None:
    state = read("engine_stopped")
    assert state.engine == "stopped"
    assert "Cannot connect" in state.engine_reason
    assert state.live_restore
    assert state.live_containers >= 1


def test_no_engine() -> None:
    state = read("not_installed")
    assert state.engine == "absent"
    assert port(state, 20001).status == "free"


# Other systems: the probe's frame around what their tools were recorded to print


def reported(ports: str, **parts: str) -> HostPorts:
    sections = {name.replace("_", " "): (0, text.split("\n")) for name, text in parts.items()}
    return asked(PortHolders, ports).process(framed({**sections, "done": (0, [])}))


def recorded(path: str) -> str:
    return (FIXTURES.parent / path).read_text(encoding="utf-8")


def test_darwin() -> None:
    state = reported(
        "5000,5001,127.0.0.1:6379",
        host="system darwin\nroot 501\nnow 1795500000",
        settings="",
        bind_perl="EADDRINUSE tcp 0.0.0.0 5000\nEADDRINUSE tcp 127.0.0.1 6379\ndone",
        lsof=recorded("ports_darwin/lsof.txt"),
        ps=recorded("ports_darwin/ps.txt"),
        guards="54717",
    )
    assert (state.system, state.engine, state.root) == ("darwin", "absent", False)
    assert [row.status for row in state.ports] == ["held", "free", "held"]
    (found,) = port(state, 5000).holders
    assert found.process is not None
    assert (found.process.name, found.evidence) == ("ControlCenter", ("lsof",))
    assert found.process.pid in state.processes
    assert state.guarded == (54717,)


@pytest.mark.parametrize("desktop", [True, False])
def test_wsl(desktop: bool) -> None:
    def output(name: str) -> str:
        return recorded(f"ports_windows/{name}.txt").encode("cp850").hex()

    state = reported(
        "6379,6380",
        host="system wsl\nroot 0\nnow 1795500000",
        settings="32768 60999\n4000-4002",
        bind_python3="done",
        netstat=output("netstat_en"),
        tasklist=output("tasklist_en"),
        excluded4tcp=output("excluded_en"),
        excluded4udp=output("nothing_excluded_en"),
        engine_docker="up",
        desktop="Docker Desktop" if desktop else "Debian GNU/Linux 12 (bookworm)",
    )
    assert (state.system, state.engine, state.reserved) == ("wsl", "up", "4000-4002")
    row = port(state, 6379)
    # An engine of the distribution's own binds on this side, where nothing is in its way.
    assert row.status == ("held" if desktop else "free")
    assert [one.kind for one in row.holders] == (["windows"] if desktop else [])
    assert port(state, 6380).status == "free"


# What was cut off


@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_off_is_no_state(name: str) -> None:
    lines = printed(name).split("\n")
    last = max(at for at, line in enumerate(lines) if line == f"{MARK} end")
    for end in range(0, last, max(1, last // 60)):
        with pytest.raises(FactProcessError):
            process(name, "\n".join(lines[:end]))


def well(text: str, name: str) -> None:
    """Either no state at all, or one that calls nothing free that was held."""
    try:
        state = process(name, text)
    except FactProcessError:
        return
    known = {row.desired: row.status for row in read(name).ports}
    for row in state.ports:
        assert row.status != "free" or known.get(row.desired) in ("free", None), format_port(row)


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(NAMES), st.data())
def test_cut_anywhere_nothing_held_is_free(name: str, data: st.DataObject) -> None:
    text = printed(name)
    well(text[: data.draw(st.integers(0, len(text)))], name)


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from([name for name in NAMES if name in EVIDENCE or name == "kept"]), st.data())
def test_a_damaged_line_makes_nothing_held_free(name: str, data: st.DataObject) -> None:
    """A row that a hostile name broke in two is one that is not read, and no more."""
    lines = printed(name).split("\n")
    begin = next(at for at, line in enumerate(lines) if " begin processes" in line)
    at = data.draw(st.integers(begin + 1, len(lines) - 1))
    if not lines[at].startswith("|"):
        return
    cut = data.draw(st.integers(1, len(lines[at])))
    lines[at] = lines[at][:cut] + "\n|" + lines[at][cut:]
    well("\n".join(lines), name)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
@example("")
@example(f"{MARK} begin done")
@example("\n".join(framed({"done": (0, [])})))
def test_rubbish_is_no_state(text: str) -> None:
    with pytest.raises(FactProcessError):
        process("quiet", text)


# What a person reads


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_says_it_first_and_holds_nothing_empty(name: str) -> None:
    shown = read(name).to_json()
    assert next(iter(shown)) == "ports"
    for row, state in zip(shown["ports"], read(name).ports, strict=True):
        assert next(iter(row)) == "message"
        assert row["message"].startswith(str(state.desired))
        assert ("holders" in row) == bool(state.holders)
    text = json.dumps(shown)
    assert not {'""', "[]", "{}", "null"} & set(text.replace(",", " ").split())
    assert shown["root"] is read(name).root
