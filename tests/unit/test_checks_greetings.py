"""Greetings: the exact bytes, what servers answer to them, and what liars do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stackmend.checks import GreetingCheck
from stackmend.checks.facts import CheckResults, parse
from stackmend.checks.greetings import (
    find_protocol,
    list_patterns,
    make_request,
    read_greeting,
)
from stackmend.checks.state import CheckResult
from stackmend.text import make_printable
from tests.marks import checked
from tests.unit import greetings
from tests.unit.checks_peer import make_shell

PROTOCOLS = ("http", "postgres", "amqp", "mysql", "mongodb", "clickhouse", "redis")


def make(protocol: str, **fields: Any) -> GreetingCheck:
    return GreetingCheck.model_validate(
        {"address": "db:5432", "protocol": protocol, "inside": "api", **fields}
    )


# What is sent


def test_the_request_of_a_postgres() -> None:
    """A StartupMessage: its length, protocol 3.0, pairs, and the end."""
    assert make_request(make("postgres")) == (
        b"\x00\x00\x00\x44\x00\x03\x00\x00user\0postgres\0database\0postgres\0"
        b"application_name\0stackmend\0\0"
    )
    sent = make_request(make("postgres", user="äpp", database="d b"))
    assert int.from_bytes(sent[:4], "big") == len(sent)
    assert sent[8:].startswith("user\0äpp\0database\0d b\0".encode())
    assert b"user\0app\0database\0app\0" in make_request(make("postgres", user="app"))


def test_the_requests_of_others() -> None:
    assert make_request(make("amqp")) == b"AMQP\x00\x00\x09\x01"
    assert make_request(make("redis")) == b"PING\r\n"
    assert make_request(make("clickhouse")) == b"GET / HTTP/1.0\r\n\r\n"
    assert make_request(make("http", address="ollama:11434")) == (
        b"HEAD / HTTP/1.1\r\nHost: ollama:11434\r\nUser-Agent: stackmend\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert b"Host: [::1]:80\r\n" in make_request(make("http", address="[::1]:80"))
    assert b"Host: xn--bcher-kva:80\r\n" in make_request(make("http", address="bücher:80"))
    # OP_MSG, with the one document {hello: 1, $db: "admin"}.
    assert make_request(make("mongodb")).hex() == (
        "340000000100000000000000dd07000000000000" + "00" + "1f000000"
        "1068656c6c6f0001000000" + "022464620006000000" + "61646d696e00" + "00"
    )
    # A HandshakeResponse41 as nobody, and COM_QUIT.
    login, quit_ = make_request(make("mysql"))[:47], make_request(make("mysql"))[47:]
    assert login.hex() == "2b000001" + "00820000" + "00000001" + "21" + "00" * 23 + (
        b"stackmend\0\0".hex()
    )
    assert quit_.hex() == "0100000001"


# What comes back


@pytest.mark.parametrize(
    ("check", "reply", "outcome", "text"),
    [
        (make("postgres"), greetings.POSTGRES_SCRAM, "passed", "asks for a password (SCRAM)"),
        (make("postgres"), greetings.POSTGRES_TRUST, "passed", "lets in without a password"),
        (make("postgres"), greetings.POSTGRES_NO_ROLE, "passed", "lets not everybody in (28000)"),
        (make("postgres"), greetings.POSTGRES_TLS_ONLY, "passed", "lets not everybody in (28000)"),
        (
            make("postgres", user="nobody"),
            greetings.POSTGRES_NO_ROLE,
            "failed",
            'it is a postgres, and refuses: role "nobody" does not exist (28000)',
        ),
        (
            make("postgres", database="nothere"),
            greetings.POSTGRES_NO_DATABASE,
            "failed",
            'it is a postgres, and refuses: database "nothere" does not exist (3D000)',
        ),
        (make("postgres", user="nobody"), greetings.POSTGRES_TLS_ONLY, "unknown", "TLS is not"),
        (make("postgres", user="x"), greetings.POSTGRES_SCRAM, "passed", "asks for a password"),
        (make("postgres", user="x"), greetings.POSTGRES_TRUST, "passed", "without a password"),
        (make("postgres"), greetings.POSTGRES_STARTING, "failed", "system is starting up (57P03)"),
        (make("postgres"), greetings.POSTGRES_FULL, "failed", "too many clients already (53300)"),
        (make("amqp"), greetings.RABBITMQ, "passed", "it is a broker that speaks AMQP"),
        (make("amqp"), b"AMQP\3\1\0\0", "passed", "it is a broker that speaks AMQP 1.0.0"),
        (make("mysql"), greetings.MARIADB, "passed", "it is a mysql (5.5.5-10.11.19-MariaDB"),
        (make("mysql"), greetings.MARIADB_NOT_ALLOWED, "failed", "is not allowed to connect"),
        (make("mysql"), greetings.MARIADB_BLOCKED, "failed", "because of many connection errors"),
        (make("mysql"), greetings.MYSQL_FULL, "failed", "refuses: Too many connections (1040)"),
        (make("mongodb"), greetings.MONGODB, "passed", "it is a mongodb"),
        (make("mongodb"), greetings.MONGODB_SECONDARY, "passed", "a mongodb, and no primary"),
        (make("clickhouse"), greetings.CLICKHOUSE, "passed", "it is a clickhouse"),
        (make("http"), greetings.HTTP, "passed", "HTTP 400"),
        (make("redis"), greetings.REDIS, "passed", "PONG"),
        (make("redis"), greetings.REDIS_CLOSED, "passed", "a redis, and asks for a password"),
        (make("redis"), greetings.REDIS_DENIED, "failed", "refuses: DENIED Redis is running in"),
        (make("redis"), b"-LOADING Redis is loading\r\n", "failed", "refuses: LOADING Redis"),
    ],
)  # fmt: skip
def test_what_servers_answer(check: GreetingCheck, reply: bytes, outcome: str, text: str) -> None:
    read = read_greeting(check, reply)
    assert (read.outcome, text in read.text) == (outcome, True), read
    # The shell, which makes a second attempt of what is not well, agrees.
    assert matches(list_patterns(check), reply) == (outcome == "passed")


@pytest.mark.parametrize(
    ("protocol", "reply", "text"),
    [
        ("clickhouse", greetings.HTTP, "it speaks HTTP, not ClickHouse's native protocol"),
        ("http", greetings.CLICKHOUSE, "it speaks ClickHouse's native protocol, not HTTP"),
        ("http", greetings.MONGODB_BY_HTTP, "it speaks MongoDB's protocol, not HTTP"),
        ("http", greetings.HTTPS, "it speaks HTTPS, not HTTP"),
        ("http", greetings.RABBITMQ_OTHER, "it speaks AMQP, not HTTP"),
        ("http", greetings.MARIADB, "it speaks MySQL's protocol, not HTTP"),
        ("postgres", greetings.HTTP, "it speaks HTTP, not Postgres' protocol"),
        ("postgres", greetings.REDIS_CLOSED, "it speaks redis' protocol, not Postgres' protocol"),
        ("postgres", greetings.MARIADB, "it speaks MySQL's protocol, not Postgres' protocol"),
        ("postgres", greetings.SSH, "it speaks SSH, not Postgres' protocol"),
        ("redis", greetings.HTTP, "it speaks HTTP, not redis' protocol"),
        ("redis", greetings.TLS, "it speaks TLS, not redis' protocol"),
        ("mysql", greetings.POSTGRES_SCRAM, "it speaks Postgres' protocol, not MySQL's protocol"),
        ("amqp", greetings.TLS, "it speaks TLS, not AMQP"),
        ("amqp", b"INFO {\"server_id\":\"x\"}\r\n", "it speaks NATS, not AMQP"),
        ("mongodb", b"220 mail ready\r\n", "it speaks SMTP or FTP, not MongoDB's protocol"),
        ("postgres", b"\x00\x1b[2Jwhat", "does not speak Postgres' protocol; it begins: "),
    ],
)  # fmt: skip
def test_what_speaks_another_protocol(protocol: str, reply: bytes, text: str) -> None:
    read = read_greeting(make(protocol), reply)
    assert read.outcome == "failed"
    assert text in read.text
    assert "\x1b" not in read.text


def test_no_two_protocols_are_taken_for_each_other() -> None:
    replies = {
        "postgres": [v for k, v in vars(greetings).items() if k.startswith("POSTGRES_")],
        "amqp": [greetings.RABBITMQ, greetings.RABBITMQ_OTHER],
        "mysql": [v for k, v in vars(greetings).items() if k.startswith(("MARIADB", "MYSQL"))],
        "mongodb": [greetings.MONGODB, greetings.MONGODB_BY_HTTP],
        "clickhouse": [greetings.CLICKHOUSE],
        "http": [greetings.HTTP],
        "redis": [greetings.REDIS, greetings.REDIS_CLOSED, greetings.REDIS_DENIED],
    }
    for protocol, known in replies.items():
        assert {find_protocol(reply) for reply in known} == {protocol}


def matches(patterns: tuple[str, ...], reply: bytes) -> bool:
    """Whether a shell finds one of the patterns in an answer."""
    script = "set -f; for p in $1; do case $2 in $p) echo yes; exit ;; esac; done"
    done = subprocess.run(
        ["sh", "-c", script, "sh", " ".join(patterns), reply.hex()],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout == "yes\n"


@given(protocol=st.sampled_from(PROTOCOLS), reply=st.binary(min_size=1, max_size=200))
@example("postgres", b"R\0\0\0\x08\0\0\0\0R\0\0\0\x08\0\0\0\0" * 20)
@example("postgres", b"E\0\0\x00\x09\0")
@example("mysql", b"\0\0\0\0\xff")
@example("mysql", b"\x01\0\0\0\x0a")
@example("http", b"HTTP/1.1 abc")
@example("redis", b"-NOAUTH \x1b]0;x\x07")
def test_whatever_is_answered_is_read_and_printable(protocol: str, reply: bytes) -> None:
    read = read_greeting(make(protocol), reply)
    assert read.outcome in ("passed", "failed", "unknown")
    assert make_printable(read.text, 1000) == read.text


# The probe's lines


def result(check: GreetingCheck, *lines: str) -> CheckResult:
    printed = [
        "checks 1",
        f"0 spec {json.dumps(check.model_dump(mode='json'))}",
        *(f"0 {line}" for line in ("method nsenter+bash", "ms 9", *lines)),
        "end",
    ]
    (found,) = parse(printed)
    return found


def test_the_evidence() -> None:
    check = make("postgres")
    well = result(check, "rc 0", f"hex {greetings.POSTGRES_SCRAM.hex()}", "result passed")
    assert well.ok
    assert well.evidence == (
        "greet postgres at db:5432 from inside api: it is a postgres, and asks for a password "
        "(SCRAM) in 9 ms"
    )
    ill = result(check, "rc 0", f"hex {greetings.HTTP.hex()}", "result failed")
    assert ill.evidence.endswith("it speaks HTTP, not Postgres' protocol")
    assert ill.remedy == "address the port of db that speaks Postgres' protocol"
    silent = result(check, "rc 28", "result failed")
    assert silent.evidence.endswith("no answer within 5 s")
    refused = result(check, "rc 7", "result failed", "said Connection refused")
    assert "connection refused" in refused.evidence
    without = result(check, "rc 99", "result unknown", "reason the host lacks od")
    assert (without.outcome, "lacks od" in without.evidence) == ("unknown", True)


def test_a_shell_that_says_passed_is_not_believed() -> None:
    found = result(make("http"), "rc 0", f"hex {greetings.CLICKHOUSE.hex()}", "result passed")
    assert found.outcome == "failed"
    assert "speaks ClickHouse's native protocol, not HTTP" in found.evidence
    for lie in ("hex zz", "hex 5", f"hex {'é' * 4}"):
        assert result(make("http"), "rc 0", lie, "result failed").outcome == "failed"


def inspected(name: str, service: str, address: str) -> str:
    network = {"n": {"IPAddress": address, "Gateway": "", "Aliases": ["db"]}}
    fields = (f"/{name}", "p", service, {"Status": "running"}, network, None)
    return "inspect 7\t" + "\t".join(map(json.dumps, fields))


def test_a_name_that_leads_to_two_services() -> None:
    reply = ("rc 0", f"hex {greetings.POSTGRES_SCRAM.hex()}", "result passed")
    mine = inspected("p-db-1", "db", "172.18.0.2")
    found = result(make("postgres"), *reply, "resolved 172.18.0.2 172.18.0.9", mine)
    assert found.ok
    assert found.hints == ("name-shared",)
    assert found.details == (
        "the name db has 2 addresses, and calls go to any: 172.18.0.2 (p-db-1), 172.18.0.9 "
        "(no container of the project)",
    )
    other = inspected("p-old-1", "old", "172.18.0.9")
    found = result(make("postgres"), *reply, "resolved 172.18.0.2 172.18.0.9", mine, other)
    assert "172.18.0.9 (p-old-1)" in found.details[0]
    # Replicas, two protocols of one container, and names of the world have several by right.
    twin = inspected("p-db-2", "db", "172.18.0.9")
    for lines in (
        ("resolved 172.18.0.2 172.18.0.9", mine, twin),
        ("resolved 172.18.0.2 fd00::2", mine),
        ("resolved 203.0.113.1 203.0.113.2", mine),
        ("resolved 172.18.0.2", mine),
    ):
        assert result(make("postgres"), *reply, *lines).hints == ()


@pytest.mark.parametrize(
    ("lines", "hint", "text"),
    [
        (
            ["host-listen 0100007F:2CAA", "host-listen 00000000000000000000000001000000:2CAA"],
            "host-loopback-only",
            "on the host, port 11434 is listened to on 127.0.0.1, ::1 only: no container can reach "
            "that; it has to listen on 172.17.0.1 as well",
        ),
        ([], "host-nothing-listens", "on the host nothing listens on port 11434"),
        (
            ["host-listen 00000000:2CAA", "host-reaches 172.17.0.1", "input -P INPUT DROP"],
            "host-filtered",
            "the host itself gets through to 172.17.0.1:11434, and api does not: its packet filter "
            "keeps containers out (-P INPUT DROP)",
        ),
    ],
)  # fmt: skip
def test_a_container_that_calls_its_host(lines: list[str], hint: str, text: str) -> None:
    check = make("http", address="host.docker.internal:11434")
    called = ("rc 7", "result failed", "resolved 172.17.0.1", "called 172.17.0.1")
    found = result(check, *called, *lines)
    assert hint in found.hints
    assert text in found.details


def test_a_host_that_is_not_named() -> None:
    check = make("http", address="host.docker.internal:11434")
    found = result(check, "rc 6", "result failed", "resolved ")
    assert found.hints == ("name-not-resolved",)
    assert any("host-gateway" in line for line in found.details)


@pytest.mark.parametrize("text", ["a b", "'; id; '", "$(id)", "-x", "%s\\n", "ü"])
def test_values_are_quoted(text: str) -> None:
    check = make("postgres", user=text, database=text)
    command = CheckResults().command("p", [check]).get_raw_value()
    octal = "".join(f"\\{byte:03o}" for byte in make_request(check))
    # The spec is there too, as a line of its own that the shell only prints.
    assert octal in command
    assert not checked(command, "")


# The probe against servers on loopback, with each tool that a host may have

TOOLS = {"bash": "bash", "python3": "python3", "nc": "busybox nc"}


def test_a_host_without_od(tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", "bash", without="od")
    (found,) = shell.check([{"kind": "greeting", "address": "127.0.0.1:1", "protocol": "http"}])
    assert found.outcome == "unknown"
    assert "lacks od" in found.evidence


def test_a_host_without_any_tool(tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin")
    (found,) = shell.check([{"kind": "greeting", "address": "127.0.0.1:1", "protocol": "http"}])
    assert found.outcome == "unknown"
    assert "tool that can ask this" in found.evidence


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_greets(tool: str, tmp_path: Path) -> None:
    """Servers that answer as recorded, that speak first, that pause, are silent and close."""
    shell = make_shell(tmp_path / "bin", TOOLS[tool])
    requests: list[bytes] = []

    def answer_postgres(request: bytes) -> bytes:
        requests.append(request)
        return greetings.POSTGRES_SCRAM

    def ask(protocol: str, port: int, **fields: Any) -> dict[str, Any]:
        address = f"127.0.0.1:{port}"
        return {"kind": "greeting", "address": address, "protocol": protocol, "timeout": 4} | fields

    with (
        greetings.serve(answer_postgres) as postgres,
        greetings.serve(lambda _: greetings.POSTGRES_SCRAM, pause=0.05) as slow,
        greetings.serve(lambda _: b"", first=greetings.MARIADB) as mariadb,
        greetings.serve(lambda _: greetings.RABBITMQ) as rabbitmq,
        greetings.serve(lambda _: greetings.MONGODB) as mongodb,
        greetings.serve(lambda _: greetings.HTTP) as web,
        greetings.serve(lambda _: b"") as silent,
        greetings.serve(lambda _: None) as closing,
        greetings.serve(lambda r: greetings.HTTP if r.startswith(b"GET ") else None) as shy,
    ):
        results = shell.check(
            [
                ask("postgres", postgres),
                ask("postgres", slow),
                ask("mysql", mariadb),
                ask("amqp", rabbitmq),
                ask("mongodb", mongodb),
                ask("http", web),
                ask("postgres", web),
                ask("amqp", silent, timeout=1),
                ask("amqp", closing),
                ask("mongodb", shy),
                ask("postgres", mariadb),
            ]
        )
    assert requests == [make_request(make("postgres"))]
    assert [r.outcome for r in results] == ["passed"] * 6 + ["failed"] * 5, results
    assert {r.method for r in results} == {tool}
    texts = [r.evidence.partition(": ")[2] for r in results[6:]]
    assert texts[0] == "it speaks HTTP, not Postgres' protocol"
    # busybox's nc ends its own side first, and is then left.
    assert tool == "nc" or texts[1] == "no answer within 1 s"
    assert texts[2] in (
        "the connection was accepted and closed without an answer",
        "the connection was reset before an answer came",
    )
    assert texts[3] == "it speaks HTTP, not MongoDB's protocol"
    assert texts[4] == "it speaks MySQL's protocol, not Postgres' protocol"
