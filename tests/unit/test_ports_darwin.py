"""lsof's field output is read and attributed.

Proven here: that texts in the form of published output (tests/facts/ports_darwin, see its README)
are read as they should be. No Mac was asked.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.ports import darwin
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Holder, Process, Socket

RECORDED = Path(__file__).parents[1] / "facts" / "ports_darwin"
LSOF = (RECORDED / "lsof.txt").read_text(encoding="utf-8")
PS = (RECORDED / "ps.txt").read_text(encoding="utf-8")

SOCKETS = darwin.parse_sockets(LSOF)
PROCESSES = darwin.parse_processes(LSOF, PS)


def holders(
    port: int, address: str = "0.0.0.0", protocol: str = "tcp", refused: bool = False
) -> tuple[Holder, ...]:
    desired = PortSpec.model_validate({"address": address, "port": port, "protocol": protocol})
    return darwin.find_holders(desired, SOCKETS, PROCESSES, refused=refused)


def test_every_socket_is_read_once() -> None:
    assert [(s.protocol, s.address, s.port, s.state, s.pids) for s in SOCKETS] == [
        ("tcp", "::", 22, "LISTEN", (1,)),
        ("tcp", "0.0.0.0", 56355, "LISTEN", (977,)),
        ("tcp", "0.0.0.0", 7000, "LISTEN", (1347,)),
        ("tcp", "::", 7000, "LISTEN", (1347,)),
        ("tcp", "0.0.0.0", 5000, "LISTEN", (1347,)),
        ("tcp", "::", 5000, "LISTEN", (1347,)),
        ("tcp", "::", 8080, "LISTEN", (4105,)),
        ("tcp", "192.0.2.10", 52012, "ESTAB", (5001,)),
        ("udp", "0.0.0.0", 5353, "UNCONN", (5001,)),
        ("udp", "192.0.2.10", 60001, "ESTAB", (5001,)),
        ("tcp", "0.0.0.0", 3000, "LISTEN", (40466, 40467)),
        ("tcp", "::1", 5432, "LISTEN", (54717,)),
        ("udp", "fe80:4::aede:48ff:fe00:1122", 123, "UNCONN", (54717,)),
        ("tcp", "127.0.0.1", 6379, "BOUND", (54717,)),
    ]
    assert SOCKETS[7].peer == "198.51.100.7:443"
    assert SOCKETS[0].inode == 0x6B1D5B7D05EA0001


def test_a_process_is_known_from_ps_and_else_from_lsof() -> None:
    assert PROCESSES[1347] == Process(
        pid=1347,
        started=1795420872,
        name="ControlCenter",
        exe="/System/Library/CoreServices/ControlCenter.app/Contents/MacOS/ControlCenter",
        uid=501,
        user="ana",
        parent=1,
    )
    assert PROCESSES[5001] == Process(
        pid=5001, name="Brave Browser Helper", uid=501, user="ana", parent=4990
    )
    assert PROCESSES[4990].exe.endswith("/Brave Browser")
    assert PROCESSES[54717].exe == ""


def test_the_same_address_is_in_the_way() -> None:
    (found,) = holders(5000)
    assert found.kind == "process"
    assert found.process == PROCESSES[1347]
    assert [socket.address for socket in found.sockets] == ["0.0.0.0"]
    assert holders(5001) == ()
    assert holders(5353) == ()
    assert len(holders(5353, protocol="udp")) == 1
    assert [one.process.pid for one in holders(3000) if one.process] == [40466, 40467]


@pytest.mark.parametrize(
    ("port", "address", "refused", "expected"),
    [
        (6379, "127.0.0.1", False, [54717]),
        (6379, "0.0.0.0", False, []),
        (6379, "0.0.0.0", True, [54717]),
        (3000, "127.0.0.1", False, []),
        (3000, "127.0.0.1", True, [40466, 40467]),
        (8080, "0.0.0.0", False, []),
        (8080, "0.0.0.0", True, [4105]),
        (5432, "127.0.0.1", True, []),
        (5432, "::", True, [54717]),
        (6379, "192.0.2.10", True, []),
    ],
)
def test_what_overlaps_is_named_where_a_bind_was_refused(
    port: int, address: str, refused: bool, expected: list[int]
) -> None:
    found = holders(port, address, refused=refused)
    assert [one.process.pid for one in found if one.process] == expected


def test_an_outgoing_connection_is_told_from_a_listener() -> None:
    (found,) = holders(52012, "192.0.2.10")
    assert found.kind == "outgoing"


def test_control_center_is_explained_and_protected() -> None:
    for port in (5000, 7000):
        (found,) = holders(port)
        assert darwin.is_protected(found)
        assert "AirPlay Receiver" in darwin.explain(found)
    # Without ps, and as an lsof that cuts names off has it.
    short = Holder(kind="process", process=Process(pid=1347, name="ControlCe"))
    assert darwin.is_protected(short)
    assert "AirPlay Receiver" in darwin.explain(short)


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (Process(pid=1, name="launchd", exe="/sbin/launchd"), "macOS keeps it"),
        (Process(pid=977, name="rapportd", exe="/usr/libexec/rapportd"), "macOS keeps it"),
        (Process(pid=80, name="httpd", exe="/usr/sbin/httpd"), "apachectl stop"),
        (
            Process(
                pid=4105,
                name="com.docker.backend",
                exe="/Applications/Docker.app/Contents/MacOS/com.docker.backend",
            ),
            "Docker Desktop",
        ),
        (Process(pid=4106, name="com.docker.vpnkit"), "Docker Desktop"),
        (Process(pid=4107), "macOS keeps it"),
    ],
    ids=lambda value: value.name if isinstance(value, Process) else "",
)
def test_what_must_not_be_ended_is_protected_and_explained(process: Process, words: str) -> None:
    holder = Holder(kind="process", process=process)
    assert darwin.is_protected(holder)
    assert words in darwin.explain(holder)


def test_a_users_own_program_is_neither_protected_nor_explained() -> None:
    (found, _) = holders(3000)
    assert not darwin.is_protected(found)
    assert darwin.explain(found) == ""


@given(st.one_of(st.text(max_size=300), st.integers(0, len(LSOF)).map(lambda at: LSOF[:at])))
@settings(max_examples=300, deadline=None)
def test_nothing_that_lsof_writes_can_break_it(text: str) -> None:
    sockets, processes = darwin.parse_sockets(text), darwin.parse_processes(text, text)
    assert all(isinstance(one, Socket) for one in sockets)
    darwin.find_holders(PortSpec(port=5000), sockets, processes)


@given(st.one_of(st.text(max_size=200), st.integers(0, len(PS)).map(lambda at: PS[:at])))
@settings(max_examples=200, deadline=None)
def test_nothing_that_ps_writes_can_break_it(text: str) -> None:
    darwin.parse_processes(LSOF, text)
