"""The limits that the documents tell are those that the code has, and a dry run tells their sum."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import paramiko
import pytest
from pyinfra.api import Config

from stackmend import connection, reconcile
from stackmend.basics import commands as basics
from stackmend.checks.facts import KILLING, find_limit
from stackmend.checks.spec import parse_checks
from stackmend.compose import commands as compose
from stackmend.compose import observer, reconciler, remote
from stackmend.connection import (
    channel,
    docker_api,
    fetching,
    lease,
    link,
    preamble,
    process,
    redial,
)
from stackmend.connection.first_contact.contact import Contact
from stackmend.engine import commands as engine
from stackmend.models import client, reading
from stackmend.ports import commands as ports
from stackmend.schedule import commands as schedule
from stackmend.schedule import units, wheels
from stackmend.schedule.spec import TimerSpec
from stackmend.text import format_limit
from stackmend.worker.acceleration.facts import Acceleration
from stackmend.worker.move import reconciler as move
from stackmend.worker.move.spec import ATTEMPTS

PAGE = (Path(__file__).parents[2] / "docs/limits.md").read_text(encoding="utf-8")
ROWS = {
    cells[1].strip(): cells[2].strip()
    for line in PAGE.splitlines()
    if line.startswith("| ") and len(cells := line.split("|")) == 5
}

FRAME = connection.read_frame()
#: What a host runs to prove what it was brought.
BRING = (Path(schedule.__file__).parent / "bring.sh").read_text(encoding="utf-8")


def read_acceleration_limit() -> float:
    """What reading a model server's chain has beside a second for each sample."""
    fact = Acceleration()
    fact.command(project="shop", samples=7)
    assert fact.limit is not None
    return fact.limit - 7


def list_connection_limits() -> list[float]:
    """What pyinfra and paramiko give a connection, sshd's greeting and a login."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = paramiko.Transport(ours)
        return [Config().CONNECT_TIMEOUT, transport.banner_timeout, transport.auth_timeout]


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ("a connection, sshd's greeting", list_connection_limits()),
        ("further attempts, five at most", [redial.LIMIT]),
        ("sshd of a machine never reached", [Contact("root").wait]),
        ("a host that answers nothing", [link.DEAD_AFTER]),
        ("the host granting a channel", [process.OPEN_TIMEOUT]),
        ("a shell, or sudo", [preamble.BEGINS_WITHIN]),
        ("a probe", [fetching.PROBE_TIMEOUT]),
        ("all probes", [fetching.TIMEOUT]),
        ("a command that reads", [channel.READ_LIMIT]),
        ("the lock of a host", [lease.ANSWER_WITHIN]),
        ("a command of an earlier run", [compose.BUSY_TIMEOUT]),
        ("a command that changes something", [channel.LIMIT]),
        ("a command that changes the project", [compose.LIMIT, compose.BUSY_TIMEOUT]),
        ("the images of a service", [compose.IMAGE_LIMIT, compose.BUSY_TIMEOUT]),
        ("models read with", [reading.HASHING]),
        ("what a model server computes with", [read_acceleration_limit()]),
        (
            "a host that unpacks",
            [schedule.LIMIT, *map(float, re.findall(r"^timeout (\d+)", BRING, re.MULTILINE))],
        ),
        ("pip on this machine", [wheels.LIMIT]),
        ("a run that a timer begins", [TimerSpec().timeout, units.STOP]),
        ("the same, while neither a file grows", [compose.IDLE_LIMIT]),
        ("the refs of a git server", [remote.LIST_LIMIT]),
        ("a commit of it", [remote.TREE_LIMIT]),
        ("the logs of containers", [observer.LOG_TIMEOUT]),
        ("links that should work", [reconciler.LINK_TIMEOUT]),
        ("a script that changes the engine", [engine.LIMIT]),
        ("packages and the clock", [basics.LIMIT]),
        ("ending a holder", [ports.LIMIT]),
        ("an answer of Docker", [docker_api.TIMEOUT]),
        ("both servers of a move measured", [ATTEMPTS, 2]),
        ("the image of a move's new server", [move.PULLING]),
        ("a model's file copied to it", [move.COPYING]),
        ("a legacy worker answering", [move.ANSWERING]),
        ("a model loading", [client.LOADING]),
        ("a pull of a model", [client.LONGEST_PULL]),
        ("the engine answering", [int(re.findall(r"STACKMEND_ENGINE_LIMIT:-(\d+)", FRAME)[0])]),
        ("the same, once it hung", [fetching.HUNG_LIMIT]),
    ],
)
def test_the_page_says_what_the_code_has(what: str, seconds: list[float]) -> None:
    (told,) = [cell for name, cell in ROWS.items() if name.startswith(what)][:1]
    assert [float(number) for number in re.findall(r"\d+", told)] == seconds


def test_checks_have_the_time_that_they_declare() -> None:
    check = {"kind": "tcp", "address": "127.0.0.1:1"}
    checks = parse_checks(
        [{**check, "name": f"c{index}", "timeout": 10 + index / 10} for index in range(33)]
    )
    assert find_limit([]) == fetching.PROBE_TIMEOUT
    assert find_limit(checks[:1]) == 30 + 2 * (11 + KILLING)
    assert find_limit(checks, attempts=1) == pytest.approx(30 + 2 * (14.2 + KILLING))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "1 min"),
        (60, "1 min"),
        (61, "2 min"),
        (3600, "1 h"),
        (4000, "1 h 7 min"),
        (90061, "1 d 1 h"),
        (604800, "7 d"),
    ],
)
def test_a_limit_in_words(seconds: float, told: str) -> None:
    assert format_limit(seconds) == told


def test_what_an_operation_has_beside_its_actions() -> None:
    assert reconcile.OVERHEAD == 3 * fetching.TIMEOUT + lease.ANSWER_WITHIN
