"""Links of one stack on a real host, each asked as its caller asks: who answers, who may come in.

The caller's image is one static program, without a shell. The database and the broker answer as
recorded from real ones (``tests/unit/greetings.py``); redis is redis.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from stackmend.checks.spec import Check
from stackmend.checks.state import CheckResult
from stackmend.compose.observer import Observer
from stackmend.compose.source import Source
from stackmend.compose.spec import ComposeSpec
from stackmend.connection import count_channels
from tests import connected
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.test_checks import look
from tests.unit import greetings

PROJECT = "linked"
PASSWORD = 'p@s\'s/%$x "ü"'
URL = f"redis://:{quote(PASSWORD, safe='')}@redis:6379/0"

SERVE = """
import socket, sys, threading

def run(connection, first, reply):
    connection.sendall(first)
    if connection.recv(65536):
        connection.sendall(reply)
        while connection.recv(65536): pass
    connection.close()

def listen(port, first, reply):
    server = socket.create_server(("0.0.0.0", port), backlog=64)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=run, args=(connection, first, reply), daemon=True).start()

for word in sys.argv[1:]:
    port, first, reply = word.split(":")
    threading.Thread(
        target=listen, args=(int(port), bytes.fromhex(first), bytes.fromhex(reply))
    ).start()
"""
PORTS = {
    5432: (b"", greetings.POSTGRES_SCRAM),
    5433: (b"", greetings.POSTGRES_STARTING),
    5672: (b"", greetings.RABBITMQ),
    3306: (greetings.MARIADB, b""),
    8123: (b"", greetings.HTTP),
    9000: (b"", greetings.CLICKHOUSE),
}
CALLER = {
    "image": "lab/static:1",
    "command": ["/busybox", "sleep", "3600"],
    "extra_hosts": ["host.docker.internal:host-gateway"],
}
REDIS = {"image": "lab/redis:7", "tmpfs": ["/data:size=1m,mode=1777"]}
SERVICES: dict[str, dict[str, Any]] = {
    "caller": CALLER | {"environment": {"REDIS_URL": URL.replace("$", "$$")}},
    "wrong": CALLER | {"environment": {"REDIS_URL": "redis://:another@redis:6379/0"}},
    "bare": CALLER | {"environment": {"REDIS_URL": "redis://redis:6379/0"}},
    "filed": CALLER
    | {
        "environment": {"REDIS_PASSWORD_FILE": "/run/secrets/password"},
        "volumes": ["./password:/run/secrets/password:ro"],
    },
    "ordered": CALLER
    | {
        "command": [
            "/busybox",
            "sh",
            "-c",
            f": '{URL.replace('$', '$$')}'; exec /busybox sleep 3600",
        ]
    },
    "redis": REDIS | {"command": ["redis-server", "--requirepass", PASSWORD.replace("$", "$$")]},
    "open": REDIS,
    "db": {
        "image": "lab/python:3.11",
        "command": ["python3", "-c", SERVE]
        + [f"{port}:{first.hex()}:{reply.hex()}" for port, (first, reply) in PORTS.items()],
    },
    "web": {"image": "lab/box:1"},
}


def redis(inside: str, service: str = "redis", **fields: Any) -> dict[str, Any]:
    return {
        "kind": "redis",
        "service": service,
        "address": f"{service}:6379",
        "inside": inside,
        "password_from": "REDIS_URL",
        **fields,
    }


def greet(protocol: str, address: str, inside: str = "caller", **fields: Any) -> dict[str, Any]:
    check = {"kind": "greeting", "protocol": protocol, "address": address, "inside": inside}
    return check | fields


LINKS = [
    redis("caller"),
    redis("filed", password_from="REDIS_PASSWORD_FILE"),
    redis("ordered", password_from="command"),
    greet("postgres", "db:5432"),
    greet("amqp", "db:5672"),
    greet("mysql", "db:3306"),
    greet("clickhouse", "db:9000"),
    greet("http", "web:80"),
    {"kind": "tcp", "address": "web:80", "inside": "caller"},
    {"kind": "http", "url": "http://web/", "inside": "caller"},
]


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    """A host with the stack, for all tests of the module: each puts back what it breaks."""
    host = lab.take(1)[0]
    box = host.docker("create", "lab/box:1")
    host.sh(f"mkdir -p /opt/static && docker cp {box}:/bin/busybox /opt/static/busybox")
    host.sh("cp /opt/static/busybox /opt/busybox")
    host.docker("rm", box)
    host.sh("tar -c -C /opt/static busybox | docker import - lab/static:1")
    services = json.dumps({"services": SERVICES})
    host.put("/opt/linked/password", f"{PASSWORD}\n")
    host.put("/opt/linked/compose.yaml", services)
    host.docker("compose", "-f", "/opt/linked/compose.yaml", "-p", PROJECT, "up", "-d")
    for name in ("redis", "open"):
        host.wait_for(f"docker exec {PROJECT}-{name}-1 redis-cli ping")
    host.wait_for(f"docker exec {PROJECT}-web-1 nc -w 1 db 9000 -e true")
    return host


def ask(host: LabHost, *checks: dict[str, Any], **options: Any) -> tuple[CheckResult, ...]:
    results = look(host, checks, project=PROJECT, **options)
    printed = repr(results)
    assert PASSWORD not in printed
    assert quote(PASSWORD, safe="") not in printed
    return results


def cli(host: LabHost, service: str, *words: str, at: str = "127.0.0.1") -> str:
    login = ["-a", PASSWORD, "--no-auth-warning"] if at == "redis" or service == "redis" else []
    container = f"{PROJECT}-{service}-1"
    return host.docker("exec", container, "redis-cli", "-h", at, *login, *words, check=False)


def test_a_static_program_alone(host: LabHost) -> None:
    """Every link of a caller without a shell, and nothing is started beside it."""
    assert "executable file not found" in host.sh(
        f"docker exec {PROJECT}-caller-1 sh -c true 2>&1", check=False
    )
    began, before = host.now(), host.identities()
    results = ask(host, *LINKS)
    assert [r.outcome for r in results] == ["passed"] * len(LINKS), results
    assert all(r.method.startswith("nsenter+") for r in results)
    assert host.identities() == before
    # Not even a command in a container: only the file with a password was read.
    events = host.api(f"/events?since={began}&until={host.now()}")
    assert {event["Action"] for event in events} == {"archive-path"}
    assert "PONG, it takes writes" in results[0].evidence
    assert "it is a postgres, and asks for a password (SCRAM)" in results[3].evidence


def test_a_network_is_entered_once_for_all(host: LabHost) -> None:
    """However many links a caller has; and of no link the engine is asked."""
    for name in ("nsenter", "docker"):
        path = host.sh(f"command -v {name}").strip()
        wrapper = f'#!/bin/sh\necho "{name} $1" >>/run/counted\nexec {path} "$@"\n'
        host.put(f"/opt/counted/{name}", wrapper, "0755")
    links = [
        *(redis("caller", name=f"redis {number}") for number in range(3)),
        *LINKS[3:8],
        *({**LINKS[8], "name": f"tcp {number}"} for number in range(3)),
    ]
    counted = "PATH=/opt/counted:$PATH; export PATH; "
    results = ask(host, *links, redis("bare", "open"), before=counted)
    lines = host.read("/run/counted").decode().splitlines()
    host.sh("rm -r /opt/counted /run/counted")
    assert [r.outcome for r in results] == ["passed"] * len(results), results
    asked = [line for line in lines if line.startswith("docker ")]
    assert len(lines) - len(asked) == 2, lines
    # Whose containers there are is asked once, whatever is asked of them.
    assert asked[:2] == ["docker ps", "docker container"], lines
    assert asked[2:] in ([], ["docker image"]), lines


def test_a_static_program_and_no_right_to_enter(host: LabHost) -> None:
    host.sh("usermod -aG docker operator")
    try:
        links = [*LINKS[2:5], greet("postgres", "db:5432", inside="web")]
        *results, with_tools = ask(host, *links, user="operator", sudo=False)
    finally:
        host.sh("gpasswd -d operator docker")
    assert [r.outcome for r in results] == ["unknown"] * 3
    assert (with_tools.outcome, with_tools.method) == ("passed", "exec+nc")
    assert "its container has no shell to ask from" in results[1].evidence


def test_what_is_wrong_with_a_link(host: LabHost) -> None:
    """The wrong protocol, a server that starts, a wrong port, a name of nobody: each with why."""
    other, starting, port, name = ask(
        host,
        greet("clickhouse", "db:8123"),
        greet("postgres", "db:5433"),
        greet("postgres", "db:5439"),
        greet("postgres", "postgres:5432"),
    )
    assert "it speaks HTTP, not ClickHouse's native protocol" in other.evidence
    assert "the database system is starting up (57P03)" in starting.evidence
    assert port.hints == ("nothing-listens",)
    assert name.hints == ("name-not-resolved",)


def test_a_long_hosts_file_is_read_or_said_to_be_too_long(host: LabHost) -> None:
    """A name at its end is found; one that may stand behind what is read is not known."""
    own = host.docker("inspect", "-f", "{{.HostsPath}}", f"{PROJECT}-web-1").strip()
    host.sh(f"cp {own} /run/hosts")
    asked = [
        {"kind": "name", "hostname": "last", "inside": "web"},
        {"kind": "tcp", "address": "last:1", "inside": "web"},
    ]
    try:
        host.sh(f"{{ seq 20000 | sed 's/^/10.9.9.9 name-/'; echo 127.0.0.1 last; }} >>{own}")
        name, tcp = ask(host, *asked, attempts=1)
        assert (name.outcome, tcp.outcome) == ("passed", "failed"), (name, tcp)
        assert "refused" in tcp.evidence
        host.sh(f"cp /run/hosts {own}; {{ yes '# a comment' | head -c 1100000; echo; }} >>{own}")
        host.sh(f"echo 127.0.0.1 last >>{own}")
        results = ask(host, *asked, attempts=1)
    finally:
        host.sh(f"cp /run/hosts {own}")
    assert [result.outcome for result in results] == ["unknown"] * 2, results
    assert "is longer than 1 MiB, and last is not in what was read" in results[0].evidence


def test_a_name_that_a_foreign_container_has_too(host: LabHost) -> None:
    network = ("--network", f"{PROJECT}_default", "--network-alias", "db")
    host.docker("run", "-d", "--name", "foreign", *network, "lab/box:1")
    try:
        # It goes on until the one that answers is asked.
        results = ask(host, greet("postgres", "db:5432"), attempts=2)
    finally:
        host.docker("rm", "-f", "foreign")
    assert results[0].hints[-1] == "name-shared", results
    assert "the name db has 2 addresses" in results[0].details[-1]
    assert "no container of the project" in results[0].details[-1]


@pytest.fixture
def quiet_redis(host: LabHost) -> Iterator[LabHost]:
    yield host
    host.docker("restart", "-t", "1", f"{PROJECT}-redis-1", f"{PROJECT}-open-1")
    for name in ("redis", "open"):
        host.wait_for(f"docker exec {PROJECT}-{name}-1 redis-cli ping")


def test_a_redis_that_answers_ping_and_is_not_well(quiet_redis: LabHost) -> None:
    """States set by hand: what ping says of each, and what the caller of a link finds."""
    host = quiet_redis
    # Two callers that have no right password, and a redis that is well.
    wrong, bare, right = ask(host, redis("wrong"), redis("bare"), redis("caller"))
    assert right.ok
    assert "it refuses the password that REDIS_URL of wrong gives: WRONGPASS" in wrong.evidence
    assert "it takes the one that --requirepass of redis gives" in wrong.evidence
    assert "it asks for a password, and REDIS_URL of bare holds none: NOAUTH" in bare.evidence
    assert wrong.hints == bare.hints == ("login-refused", "restart-harms")
    assert "NOAUTH" in host.docker(
        "exec", f"{PROJECT}-open-1", "redis-cli", "-h", "redis", "ping", check=False
    )
    # A password that somebody set.
    assert cli(host, "redis", "config", "set", "requirepass", "x") == "OK"
    (changed,) = ask(host, redis("caller"))
    assert "; it refuses the one that --requirepass of redis gives, too" in changed.evidence
    assert "changed at run time" in changed.remedy
    # And one where there was none: its callers are right, and have none.
    states = [
        (["config", "set", "requirepass", "x"], "asks for a password, and REDIS_URL of bare holds"),
        (["replicaof", "192.0.2.66", "6379"], "it is a replica of 192.0.2.66:6379, link down"),
        (["config", "set", "protected-mode", "yes"], "it is in protected mode"),
        (["config", "set", "maxmemory", "1"], "its memory is full, and it refuses writes: OOM"),
    ]
    undo = {
        "requirepass": ["-a", "x", "config", "set", "requirepass", ""],
        "replicaof": ["replicaof", "no", "one"],
        "protected-mode": ["config", "set", "protected-mode", "no"],
        "maxmemory": ["config", "set", "maxmemory", "0"],
    }
    for words, text in states:
        assert cli(host, "open", *words) == "OK"
        within = cli(host, "open", "ping")
        (found,) = ask(host, redis("bare", "open"))
        back = undo[words[2] if words[0] == "config" else words[0]]
        assert "OK" in cli(host, "open", *back)
        assert found.outcome == "failed", (words, found)
        assert text in found.evidence
        assert found.remedy
        assert within == "PONG" or words[2] == "requirepass"
        assert ask(host, redis("bare", "open"))[0].ok, words


def test_a_redis_whose_disk_is_full(quiet_redis: LabHost) -> None:
    host, container = quiet_redis, f"{PROJECT}-open-1"
    assert cli(host, "open", "set", "precious", "yes") == "OK"
    host.docker("exec", container, "sh", "-c", "cat /dev/zero >/data/full", check=False)
    cli(host, "open", "bgsave")
    host.wait_for(f"docker exec {container} redis-cli info persistence | grep -q bgsave_status:err")
    # It exits with 0, as healthchecks have it.
    assert "MISCONF" in host.docker("exec", container, "redis-cli", "ping")
    (found,) = ask(host, redis("bare", "open"))
    assert found.outcome == "failed"
    assert "it cannot save to its disk, and refuses writes: MISCONF" in found.evidence
    assert "restart-harms" in found.hints
    host.docker("exec", container, "rm", "/data/full")
    cli(host, "open", "bgsave")
    host.wait_for(f"docker exec {container} redis-cli info persistence | grep -q bgsave_status:ok")
    assert ask(host, redis("bare", "open"))[0].ok


def test_the_host_as_a_container_calls_it(host: LabHost) -> None:
    check = greet("http", "host.docker.internal:9999", timeout=2)
    (nobody,) = ask(host, check)
    assert nobody.hints == ("host-nothing-listens",), nobody
    serve = "/opt/busybox httpd -f -p {} >/dev/null 2>&1 </dev/null & echo $! >/run/served"
    host.sh(serve.format("127.0.0.1:9999"))
    host.wait_for("curl -s http://127.0.0.1:9999/")
    (loopback,) = ask(host, check)
    assert loopback.hints == ("host-loopback-only",), loopback
    host.sh("kill $(cat /run/served)")
    host.sh(serve.format("9999"))
    host.wait_for("curl -s http://127.0.0.1:9999/")
    (well,) = ask(host, check)
    assert well.ok, well
    for target in ("DROP", "REJECT"):
        rule = f"INPUT -i br-+ -p tcp --dport 9999 -j {target}"
        host.sh(f"iptables -I {rule}")
        (filtered,) = ask(host, check)
        host.sh(f"iptables -D {rule}; :")
        assert "host-filtered" in filtered.hints, filtered
        assert any(f"-j {target}" in line for line in filtered.details)
    host.sh("kill $(cat /run/served)")


def test_fifty_links_at_once(host: LabHost, capsys: pytest.CaptureFixture[str]) -> None:
    """All through one command, and several of them at work at any time."""
    many = [
        {**link, "name": f"{number} {link['kind']}"} for number, link in enumerate((LINKS * 7)[:50])
    ]
    began = time.monotonic()
    results = ask(host, *many)
    seconds = time.monotonic() - began
    assert [r.outcome for r in results] == ["passed"] * 50, results
    alone = sum(r.seconds for r in results)
    with capsys.disabled():
        print(f"\n50 links: {seconds:.1f} s in one command; {alone:.1f} s one after another")
    # The command's own start and end count, in which none of them is at work.
    assert seconds < alone / 2


@pytest.mark.parametrize("count", [50, 150])
def test_links_are_one_channel_however_many_they_are(host: LabHost, count: int) -> None:
    """As a run asks them, by its own connection; the host's sshd counts."""
    many = [
        {**link, "name": f"{number} {link['kind']}"}
        for number, link in enumerate((LINKS * 15)[:count])
    ]
    raw = {"project": PROJECT, "source": "/opt", "directory": "/opt/linked"}
    checks: list[Check] = []
    for at in range(0, count, 50):
        part = ComposeSpec.model_validate({**raw, "checks": many[at : at + 50]})
        checks += part.checks
    with connected.lab(host, "root") as connection:
        observer = Observer(connection, ComposeSpec.model_validate(raw), Source({}))
        state = observer.read_state()
        mark, before = host.mark(), count_channels(connection)
        results = observer.read_links(checks, state, attempts=1)
        assert count_channels(connection) - before == len(host.sessions_since(mark)) == 1
    assert {result.outcome for result in results.values()} == {"passed"}, results
    assert len(results) == count
