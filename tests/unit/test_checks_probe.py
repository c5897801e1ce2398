"""The probe against real peers, with each tool that a host may have, and none besides."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackmend.checks.facts import CheckResults, parse
from stackmend.checks.state import CheckResult
from tests.marks import checked
from tests.shells import NAMES
from tests.unit.checks_peer import Peer, Shell, make_shell, peer

TOOLS = {
    "curl": ("curl",),
    "wget": ("wget",),
    "busybox wget": ("busybox wget",),
    "python3": ("python3",),
    "bash": ("bash",),
    "nc": ("busybox nc",),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Peer]:
    with peer() as made:
        yield made


def http_check(server: Peer, path: str = "ok", **fields: Any) -> dict[str, Any]:
    # The machine that runs the tests is busy: only what must end in time gets little of it.
    slow = path in {"hang", "drip", "stream", "slow_head"}
    return {"kind": "http", "url": f"{server.url}/{path}", "timeout": 4 if slow else 25, **fields}


# Path, fields, outcome, what the evidence says. Of every tool the same is asked.
ANSWERS: list[tuple[str, dict[str, Any], str, str]] = [
    ("ok", {}, "passed", "HTTP 200"),
    ("ok?deep=1&x=%20", {}, "passed", "HTTP 200"),
    ("ok", {"contains": "all is well"}, "passed", "with the text"),
    ("ok", {"contains": "$(touch nowhere) 'quoted' ü\n"}, "passed", "with the text"),
    ("ok", {"contains": "well\n$(touch"}, "passed", "with the text"),
    ("ok", {"contains": "well\n\n"}, "failed", "without the text"),
    ("ok", {"contains": "*"}, "failed", "without the text"),
    ("ok", {"contains": "HTTP/1"}, "failed", "without the text"),
    ("chunked", {"contains": "all is well"}, "passed", "HTTP 200"),
    ("binary", {"contains": "all is well"}, "passed", "HTTP 200"),
    ("large", {}, "passed", "HTTP 200"),
    ("large", {"contains": "all is well"}, "passed", "HTTP 200"),
    ("large", {"contains": "the end"}, "failed", "without the text"),
    ("early", {"contains": "all is well"}, "passed", "HTTP 200"),
    ("broken", {}, "failed", "HTTP 500 instead of 200"),
    ("broken", {"status": "5xx"}, "passed", "HTTP 500"),
    ("missing", {"status": [200, 404]}, "passed", "HTTP 404"),
    ("missing", {"status": "200-299"}, "failed", "HTTP 404 instead of 200-299"),
    ("unauthorized", {"status": 401}, "passed", "HTTP 401"),
    ("elsewhere", {}, "failed", "HTTP 302 instead of 200"),
    ("elsewhere", {"status": 302}, "passed", "HTTP 302"),
    ("hang", {}, "failed", "no answer within 4 s"),
    ("slow_head", {}, "failed", "within 4 s"),
    ("drip", {}, "failed", "not complete within 4 s"),
    ("stream", {}, "failed", "not complete within 4 s"),
    ("stream", {"contains": "all is well", "timeout": 8}, "passed", "with the text"),
    ("reset", {}, "failed", ""),
    ("empty", {}, "failed", "without an answer"),
    ("partial", {}, "failed", "before it was complete"),
    ("garbage", {}, "failed", ""),
]
# What a tool cannot do: these take a 1xx other than 100 for the answer.
LACKING = {"python3": {"early"}, "busybox wget": {"early"}}


def differences(tool: str, results: Sequence[CheckResult]) -> list[object]:
    wrong: list[object] = []
    for (path, _, outcome, words), result in zip(ANSWERS, results, strict=True):
        if path in LACKING.get(tool, ()):
            continue
        if result.method != tool or result.outcome != outcome or words not in result.evidence:
            wrong.append((outcome, words, result))
    return wrong


def all_answers(server: Peer, shell: Shell) -> list[CheckResult]:
    checks = [
        http_check(server, path, name=f"{number} {path}", **fields)
        for number, (path, fields, _, _) in enumerate(ANSWERS)
    ]
    # A few at once: thirty interpreters would keep each other from answering in time.
    return [
        found
        for first in range(0, len(checks), 8)
        for found in shell.check(checks[first : first + 8])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_sees_the_same(tool: str, server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", *TOOLS[tool])
    assert not differences(tool, all_answers(server, shell))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "busybox"])
def test_each_shell_sees_the_same(name: str, server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", "curl", shell=name)
    assert not differences("curl", all_answers(server, shell))


def test_they_run_at_once(server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", "curl")
    checks = [http_check(server, "hang", name=str(number), timeout=2) for number in range(20)]
    output, seconds = shell.run(checks)
    assert [found.outcome for found in parse(output.split("\n"))] == ["failed"] * 20
    assert seconds < 20 * 2


def test_without_timeout_it_keeps_the_time_itself(server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", "bash", without="timeout")
    results = shell.check(
        [
            http_check(server, "hang", timeout=1),
            http_check(server, "drip", timeout=1),
            http_check(server, timeout=1),
        ]
    )
    assert [result.outcome for result in results] == ["failed", "failed", "passed"]
    assert "no answer within 1 s" in results[0].evidence
    assert all(result.seconds < 15 for result in results)


def made() -> set[str]:
    """What probes have made on this machine for as long as they run."""
    places = (Path("/dev/shm"), Path("/run"), Path("/tmp"))
    return {str(found) for p in places for found in p.glob("stackmend-checks.*")}


def assert_gone(new: set[str]) -> None:
    """Another worker's probe may be under way: what it made goes too, a moment later."""
    deadline = time.monotonic() + 60
    while new & made() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not new & made()


def test_nothing_is_left_behind(server: Peer, tmp_path: Path) -> None:
    before = made()
    make_shell(tmp_path / "bin", "curl").check([http_check(server), http_check(server, "empty")])
    assert_gone(made() - before)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_behind_by_a_lost_connection(
    name: str, server: Peer, tmp_path: Path
) -> None:
    before = made()
    command = CheckResults().command("none", [http_check(server, "hang")], 1).get_raw_value()
    with make_shell(tmp_path / "bin", "curl", shell=name).start(command) as run:
        assert run.stdout is not None
        deadline = time.monotonic() + 30
        while not (new := made() - before) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert new
        run.stdout.close()
        run.wait(60)
    assert_gone(new)


def test_a_failed_one_is_tried_again(tmp_path: Path, server: Peer) -> None:
    before = len(server.requests)
    shell = make_shell(tmp_path / "bin", "curl")
    result = shell.check([http_check(server, "broken")], attempts=2)[0]
    assert result.outcome == "failed"
    assert "tried twice" in result.evidence
    assert len(server.requests) == before + 2
    assert shell.check([http_check(server)], attempts=2)[0].ok
    assert len(server.requests) == before + 3


def test_a_flapping_one_passes(tmp_path: Path) -> None:
    class Flapping(http.server.BaseHTTPRequestHandler):
        answers = iter((503, 200))

        def do_GET(self) -> None:
            self.send_response(next(self.answers))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Flapping) as flapping:
        threading.Thread(target=flapping.serve_forever, daemon=True).start()
        check = {"kind": "http", "url": f"http://127.0.0.1:{flapping.server_port}/"}
        result = make_shell(tmp_path / "bin", "curl").check([check], attempts=2)[0]
        flapping.shutdown()
    assert result.ok


@pytest.mark.parametrize("tool", ["curl", "wget", "python3", "bash", "nc"])
def test_method_headers_and_url_arrive(tool: str, server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", *TOOLS[tool])
    odd = "a 'b' \"c\" $(touch x) `y` ü \\n %s -H;"
    checks = [
        http_check(server, "echo", name="headers", headers={"X-Odd": odd, "X-Two": "2"}),
        http_check(server, "echo?q=ä&r=$(x)", name="url"),
        http_check(server, "echo", name="options", method="OPTIONS"),
        http_check(server, "echo", name="host", headers={"Host": "elsewhere.example"}),
        http_check(server, "ok", name="head", method="HEAD"),
    ]
    wanted = [f"X-Odd: {odd}\r\n", "/echo?q=%C3%A4&r=$(x) HTTP", "OPTIONS /echo HTTP"]
    for check, text in zip(checks, [*wanted, f"Host: {'elsewhere.example'}"], strict=False):
        check["contains"] = text
    for result in shell.check(checks):
        assert result.outcome == "passed", result
        assert result.method == tool


@pytest.mark.parametrize(("tool", "words"), [(tool, "refused") for tool in TOOLS])
def test_refused_is_told_from_a_name_error(tool: str, words: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    shell = make_shell(tmp_path / "bin", *TOOLS[tool], "getent")
    refused, name = shell.check(
        [
            {"kind": "http", "url": f"http://127.0.0.1:{port}/"},
            {"kind": "http", "url": "http://nobody.invalid/", "timeout": 20},
        ]
    )
    assert refused.outcome == name.outcome == "failed"
    if tool != "nc":  # busybox nc says no more than that it failed
        assert words in refused.evidence
        assert "does not resolve" in name.evidence
    assert "nothing listens on it here" in " ".join(refused.details)
    assert "the name nobody.invalid has no address" in " ".join(name.details)
    assert name.hints == ("name-not-resolved",)


@pytest.mark.parametrize("tool", ["getent", "python3"])
def test_a_name_is_resolved_and_nothing_more(tool: str, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", tool)
    here, nobody = shell.check(
        [
            {"kind": "name", "hostname": "localhost"},
            {"kind": "name", "hostname": "nobody.invalid", "timeout": 20},
        ]
    )
    assert here.outcome == "passed", here
    assert here.evidence.startswith("resolve localhost from the host: it is ")
    assert {"127.0.0.1", "::1"} & {word.strip(",") for word in here.evidence.split()}
    assert here.method == nobody.method == "resolver"
    assert (nobody.outcome, nobody.hints) == ("failed", ("name-not-resolved",))
    assert nobody.evidence == "resolve nobody.invalid from the host: it does not resolve"


def test_a_name_that_a_container_is_asked_for_is_said_to_be_so(tmp_path: Path) -> None:
    """As of every other check: its network could not be entered, so its own tools asked."""
    shell = make_shell(tmp_path / "bin", "getent", "bash")
    docker = tmp_path / "bin" / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = exec ] || exit 1\nshift 5\nexec "$@"\n')
    docker.chmod(0o755)
    checks = [
        {"kind": "name", "hostname": "localhost", "inside": "api"},
        {"kind": "tcp", "address": "localhost:1", "inside": "api"},
    ]
    containers = (f"api 1 running {'1' * 64} shop-api-1",)
    command = CheckResults().command("shop", checks, attempts=1, containers=containers)
    with shell.start(command.get_raw_value()) as process:
        out, _ = process.communicate(timeout=60)
    name, call = parse(checked(command.get_raw_value(), out.decode()))
    assert (name.outcome, name.method) == ("passed", "exec+resolver")
    assert (call.outcome, call.method) == ("failed", "exec+bash")


def test_a_name_without_an_answer_in_time_is_not_known(tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin")
    late = tmp_path / "bin" / "getent"
    late.write_text("#!/bin/sh\nsleep 30\n")
    late.chmod(0o755)
    (result,) = shell.check([{"kind": "name", "hostname": "slow", "timeout": 1}])
    assert result.outcome == "unknown", result
    assert "no answer came in time" in result.evidence
    assert result.hints == ()


def test_a_call_that_waits_for_its_name_says_so(tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin")
    for tool in ("getent", "bash"):
        late = tmp_path / "bin" / tool
        late.write_text("#!/bin/sh\nsleep 30\n")
        late.chmod(0o755)
    (result,) = shell.check([{"kind": "tcp", "address": "slow:6379", "timeout": 1}], attempts=1)
    assert result.outcome == "failed", result
    assert "the name slow got no answer within 1 s" in result.evidence
    assert "/etc/resolv.conf" in result.remedy
    assert "name-not-resolved" not in result.hints


@pytest.mark.parametrize("tool", ["bash", "python3", "nc"])
def test_tcp(tool: str, server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", *TOOLS[tool])
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.1", 0)) as proxy,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        port = taken.getsockname()[1]
        taken.close()

        def close_at_once() -> None:
            connection, _ = proxy.accept()
            connection.close()

        threading.Thread(target=close_at_once, daemon=True).start()
        checks: list[dict[str, Any]] = [
            {"kind": "tcp", "address": f"127.0.0.1:{server.port}"},
            {"kind": "tcp", "address": f"localhost:{server.port}"},
            {"kind": "tcp", "address": f"127.0.0.1:{port}"},
            {"kind": "tcp", "address": f"127.0.0.1:{proxy.getsockname()[1]}"},
            {"kind": "tcp", "address": f"[::1]:{six.getsockname()[1]}"},
        ]
        opened, named, refused, closed, sixth = shell.check(checks)
    assert opened.outcome == named.outcome == sixth.outcome == "passed", (opened, named, sixth)
    assert opened.method == tool
    assert refused.outcome == "failed"
    assert "refused" in refused.evidence
    if tool != "nc":  # it does not wait to see it closed
        assert closed.outcome == "failed"
        assert "closed at once" in closed.evidence


@pytest.mark.parametrize("tool", ["bash", "python3", "nc"])
def test_tcp_without_an_answer_ends_in_time(tool: str, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", *TOOLS[tool])
    # A listener whose queue is full drops what comes: a peer that is not there at all.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for caller in waiting:
            caller.setblocking(False)
            caller.connect_ex(address)
        check = {"kind": "tcp", "address": f"127.0.0.1:{address[1]}", "timeout": 0.5}
        result = shell.check([check])[0]
        for caller in waiting:
            caller.close()
    assert result.outcome == "failed"
    assert "no answer within 0.5 s" in result.evidence
    assert result.seconds < 15


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "peer.pem"
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    path.write_bytes(secret + made.public_bytes(pem))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["curl", "wget", "python3"])
def test_https(tool: str, certificate: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    shell = make_shell(tmp_path / "bin", *TOOLS[tool])
    with peer(context) as server, peer() as plain:
        trusted, untrusted, not_tls = shell.check(
            [
                http_check(server, contains="all is well", insecure=True),
                http_check(server, name="untrusted"),
                {"kind": "http", "url": plain.url.replace("http:", "https:")},
            ]
        )
    assert trusted.ok, trusted
    assert untrusted.outcome == "failed"
    assert "certificate is not trusted" in untrusted.evidence
    assert not_tls.outcome == "failed"


def test_https_with_a_tool_that_cannot_is_not_known(tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", "bash")
    result = shell.check([{"kind": "http", "url": "https://127.0.0.1:1/"}])[0]
    assert result.outcome == "unknown"
    assert "tool that can ask this" in result.evidence


def test_no_tool_at_all_is_not_known(server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin")
    checks = [http_check(server), {"kind": "tcp", "address": f"127.0.0.1:{server.port}"}]
    assert [result.outcome for result in shell.check(checks)] == ["unknown", "unknown"]


def test_a_tool_that_fails_by_itself_gives_way_to_the_next(server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", "python3")
    # A curl too old to know an option, and a wget that crashes as busybox's does with -T.
    for name, text in {"curl": "exit 2", "wget": "kill -SEGV $$"}.items():
        program = shell.path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    result = shell.check([http_check(server)])[0]
    assert result.ok
    assert result.method == "python3"


def test_without_docker_what_is_inside_is_not_known(server: Peer, tmp_path: Path) -> None:
    shell = make_shell(tmp_path / "bin", "curl")
    outside, inside, within = shell.check(
        [
            http_check(server),
            {"kind": "tcp", "address": "redis:6379", "inside": "api"},
            {"kind": "exec", "service": "api", "command": "true"},
        ]
    )
    assert outside.ok
    assert inside.outcome == within.outcome == "unknown"
    assert "docker is not installed here" in inside.evidence


def test_proxies_of_the_environment_are_not_used(server: Peer, tmp_path: Path) -> None:
    for tool in ("curl", "wget", "busybox wget", "python3"):
        shell = make_shell(tmp_path / tool.replace(" ", "-"), *TOOLS[tool])
        proxy = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
        assert shell.check([http_check(server)], env=proxy)[0].ok


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60))
def test_any_header_and_text_arrive_exactly(
    value: str, server: Peer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not value.strip():
        value += "x"
    value = value.strip()
    shell = make_shell(tmp_path_factory.mktemp("any") / "bin", "curl")
    check = http_check(server, "echo", headers={"X-Any": value}, contains=f"X-Any: {value}\r\n")
    result = shell.check([check])[0]
    assert result.ok, result
