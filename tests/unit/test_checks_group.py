"""Checks that one entry into a network makes: who is asked together, and what is noted of each."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackmend.checks.facts import AT_ONCE, GROUP, KILLING, CheckResults, find_limit
from stackmend.checks.spec import Check, TcpCheck, parse_checks
from stackmend.connection import read_script

ATTEMPT = read_script("stackmend.checks", "attempt")


def list_groups(*checks: dict[str, object]) -> list[list[str]]:
    """The calls of each group, and last those that stand alone."""
    command = CheckResults().command("p", list(checks)).get_raw_value()
    calls = command[command.rindex("\nchecks_containers\n") :]
    groups = [
        found.splitlines() for found in re.findall(r"checks_calls\(\) \{\n(.*?)}\n", calls, re.S)
    ]
    counts = re.findall(r"^checks_group (\d+)$", calls, re.M)
    assert [str(len(group)) for group in groups] == counts
    rest = re.sub(r"(?s)checks_calls\(\) \{\n.*?}\n", "", calls).splitlines()
    alone = [line for line in rest if re.match(r"checks_(tcp|http|greet|redis|exec) ", line)]
    return [*groups, alone]


def tcp(inside: str | None = "api", **fields: object) -> dict[str, object]:
    return {"kind": "tcp", "address": "db:1"} | ({"inside": inside} if inside else {}) | fields


def test_what_one_caller_calls_is_one_group() -> None:
    greeting = {"kind": "greeting", "address": "db:5432", "protocol": "postgres", "inside": "api"}
    redis = {"kind": "redis", "service": "redis", "address": "redis:6379", "inside": "web"}
    http = {"kind": "http", "url": "http://web/", "inside": "api"}
    called = [greeting, redis, tcp(), tcp("web"), http, {**tcp("web"), "timeout": 9, "name": "x"}]
    groups = list_groups(*called)
    assert [[line.split()[:2] for line in group] for group in groups] == [
        [["checks_greet", "0"], ["checks_tcp", "2"]],
        [["checks_redis", "1"], ["checks_tcp", "3"]],
        # A group is ended as a whole: it has one time.
        [["checks_tcp", "5"]],
        [["checks_http", "4"]],
    ]


def test_a_group_is_no_larger_than_leaves_room_for_others() -> None:
    groups = list_groups(*(tcp(name=f"{n}") for n in range(2 * GROUP + 1)))
    assert [len(group) for group in groups] == [GROUP, GROUP, 1, 0]
    assert GROUP < AT_ONCE


def test_groups_that_leave_room_end_within_the_limit() -> None:
    """Two groups that leave no room for a third go one after the other, as the limit knows."""
    checks: list[Check] = [
        TcpCheck(address="db:1", inside=f"s{n // 11}", name=f"{n}", timeout=5) for n in range(99)
    ]
    assert find_limit(checks, 1) == find_limit([], 1) + 5 * (6 + KILLING)
    assert find_limit(checks[:22], 1) == find_limit([], 1) + 6 + KILLING


@pytest.fixture
def ports() -> Iterator[dict[str, int]]:
    """Servers: a redis that wants a password, one that is silent, and a port that nobody has."""
    with (
        socket.create_server(("127.0.0.1", 0)) as redis,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            closed = nobody.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = redis.accept()
                except OSError:
                    return
                with connection:
                    heard = b""
                    while b"QUIT" not in heard and (part := connection.recv(4096)):
                        heard += part
                    well = b"AUTH\r\n$5\r\np'w d\r\n" in heard
                    connection.sendall(b"+PONG\r\n" if well else b"-NOAUTH no\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield {"redis": redis.getsockname()[1], "silent": silent.getsockname()[1], "closed": closed}


def test_each_has_its_own_answer(
    each_shell: list[str], ports: dict[str, int], tmp_path: Path
) -> None:
    """One that is not answered keeps no other one from it, and no secret is an argument."""
    (tmp_path / "1.secret").write_text("p'w d\n")
    (tmp_path / "1.login").write_text("")
    (tmp_path / "2.secret").write_text("")
    (tmp_path / "2.login").write_text("")
    host, redis = "127.0.0.1", str(ports["redis"])
    links = [
        ("0", "tcp", host, redis, "no"),
        ("1", "redis", host, redis, "-"),
        ("2", "redis", host, redis, "-"),
        # What it is asked with is not known: it is not asked.
        ("3", "redis", host, redis, "-"),
        ("4", "tcp", host, str(ports["closed"]), "no"),
        ("5", "greet", host, str(ports["silent"]), r"\120\111\116\107"),
    ]
    began = time.monotonic()
    words = [word for link in links for word in link]
    done = subprocess.run(
        [*each_shell, "-s", "--", "all", "2", str(tmp_path), *words],
        input=ATTEMPT.encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert time.monotonic() - began < 20
    statuses = {
        index: (tmp_path / f"{index}.first").read_text().split()
        for index in ("0", "1", "2", "4", "5")
    }
    assert {index: words[0] for index, words in statuses.items()} == {
        "0": "0",
        "1": "0",
        "2": "0",
        "4": "7",
        "5": "28",
    }
    assert all(int(began) <= int(ended) for _, began, ended in statuses.values())
    assert not (tmp_path / "3.first").exists()
    assert (tmp_path / "1.reply").read_bytes() == b"+PONG\r\n"
    assert (tmp_path / "2.reply").read_bytes() == b"-NOAUTH no\r\n"
    assert "method bash" in (tmp_path / "0.err").read_text()


def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"x" * 65536)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        (tmp_path / "0.secret").write_text("")
        (tmp_path / "0.login").write_text("")
        link = ("0", "redis", "127.0.0.1", str(server.getsockname()[1]), "-")
        subprocess.run(
            ["sh", "-s", "--", "all", "5", str(tmp_path), *link],
            input=ATTEMPT.encode(),
            timeout=60,
            check=True,
        )
    assert (tmp_path / "0.reply").stat().st_size == 65536


def test_checks_are_grouped_in_their_order() -> None:
    """Whatever the order they are made in, results come in the order of the checks."""
    checks = parse_checks([tcp("b", name="1"), tcp("a", name="2"), tcp("b", name="3")])
    groups = list_groups(*(check.model_dump(mode="json") for check in checks))
    assert [[line.split()[1] for line in group] for group in groups] == [["0", "2"], ["1"], []]
