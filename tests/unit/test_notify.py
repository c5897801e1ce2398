"""Messages and pings reach a real HTTP server, once; a dead one costs a run little."""

from __future__ import annotations

import http.server
import json
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stackmend import redaction, spec
from stackmend.reporting import files, notices, notify
from stackmend.reporting.notices import KEEP
from stackmend.reporting.state import RunRecord
from tests.lab import controller
from tests.unit.test_notices import EVERY, FIRST, make_host, make_run

# Apprise imports it where Python still has it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

#: What messages call this machine.
HERE = f"{platform.node()} (@local)"


class Target:
    """What a server on loopback was sent."""

    def __init__(self, server: http.server.ThreadingHTTPServer) -> None:
        self.port = server.server_address[1]
        self.requests: list[tuple[str, bytes]] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/secret-topic"

    @property
    def ping(self) -> str:
        return f"http://127.0.0.1:{self.port}/ping/secret-check"

    def take(self) -> list[tuple[str, bytes]]:
        taken, self.requests = self.requests, []
        return taken

    def take_titles(self) -> list[str]:
        return [json.loads(body)["title"] for _, body in self.take()]


@contextmanager
def listening() -> Iterator[Target]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append((self.path, body))
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Target(server)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes long to import what sends."""
    monkeypatch.setattr(notify, "LIMIT", 60.0)


@pytest.fixture
def target() -> Iterator[Target]:
    with listening() as found:
        yield found


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


def run(number: int, outcome: Any) -> RunRecord:
    return make_run(FIRST + number * EVERY, web=make_host(outcome))


def test_a_host_that_mends_itself_is_called_by_its_name() -> None:
    found = notices.Notice(host="@local", event="broke", lines=("why",))
    message = notices.compose([found], "ai1")
    assert message.title == "stackmend: ai1 (@local): broke"
    assert message.body == "ai1 (@local): broke\n  why"
    assert notices.compose([found]).title == "stackmend: @local: broke"
    other = found.model_copy(update={"host": "web"})
    assert notices.compose([other], "ai1").title == "stackmend: web: broke"


@pytest.mark.slow
def test_one_when_it_breaks_one_when_it_is_well_none_between(
    target: Target, tmp_path: Path
) -> None:
    outcomes = ["converged", "failed", "failed", "unreachable", "changed", "converged"]
    said = []
    for number, outcome in enumerate(outcomes):
        assert notify.send(tmp_path, run(number, outcome), "", [target.url, target.url]) == []
        said.append(target.take_titles())
    assert said == [
        [],
        ["stackmend: web: broke"],
        [],
        [],
        ["stackmend: web: well again"],
        [],
    ]


def test_none_after_a_restart_of_the_controller(target: Target, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from stackmend import reporting; "
        "from stackmend.reporting import notify; "
        "print(notify.send(pathlib.Path(sys.argv[1]), "
        "reporting.read(pathlib.Path(sys.argv[2])), '', [sys.argv[3]]))"
    )
    for number in range(2):
        record = tmp_path / f"{number}.json"
        record.write_text(run(number, "failed").model_dump_json())
        command = [sys.executable, "-c", program, str(tmp_path), str(record), target.url]
        subprocess.run(command, check=True, timeout=60)
        assert target.take_titles() == ["stackmend: web: broke"] * (number == 0)


def test_a_target_that_was_dead_hears_later_and_the_others_not_twice(
    target: Target, tmp_path: Path
) -> None:
    with listening() as other:
        other.status = 500
        both = [target.url, other.url]
        (reason,) = notify.send(tmp_path, run(0, "failed"), "", both)
        assert reason == "1 of 2 messages did not arrive; the next run tries again"
        assert (target.take_titles(), len(other.take())) == (["stackmend: web: broke"], 1)
        other.status = 200
        assert notify.send(tmp_path, run(1, "failed"), "", both) == []
        assert (target.take_titles(), other.take_titles()) == ([], ["stackmend: web: broke"])


def test_another_inventory_with_its_own_targets_repeats_nothing(
    target: Target, tmp_path: Path
) -> None:
    with listening() as other:
        for number in range(2):
            notify.send(tmp_path, run(number, "failed"), "", [target.url])
            another = make_run(FIRST + number * EVERY, db=make_host("failed"))
            notify.send(tmp_path, another, "", [other.url])
        assert target.take_titles() == ["stackmend: web: broke"]
        assert other.take_titles() == ["stackmend: db: broke"]
        late = make_run(FIRST + KEEP + 2 * EVERY, db=make_host("failed"))
        notify.send(tmp_path, late, "", [other.url])
    assert "web" not in (tmp_path / notify.NAME).read_text()


def test_one_that_nobody_heard_of_is_not_said_to_be_well(target: Target, tmp_path: Path) -> None:
    target.status = 503
    notify.send(tmp_path, run(0, "failed"), "", [target.url])
    target.status = 200
    target.take()
    assert notify.send(tmp_path, run(1, "converged"), "", [target.url]) == []
    assert target.take() == []


@pytest.mark.timed
def test_a_dead_target_delays_a_run_by_no_more_than_the_limit(
    target: Target, silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LIMIT", 6.0)
    hanging = f"json://127.0.0.1:{silent}/?rto=60"
    began = time.monotonic()
    failed = notify.send(
        tmp_path,
        run(0, "failed"),
        "",
        [hanging, target.url, "json://127.0.0.1:1/"],
        f"http://127.0.0.1:{silent}/",
    )
    assert time.monotonic() - began < 6.0 + 3.0
    assert failed == [
        "2 of 3 messages did not arrive; the next run tries again",
        "the ping did not arrive",
    ]
    # What did arrive is known, although the others never ended.
    assert target.take_titles() == ["stackmend: web: broke"]
    monkeypatch.undo()
    assert notify.send(tmp_path, run(1, "failed"), "", [target.url]) == []
    assert target.take() == []


def test_a_ping_says_how_each_run_ended(target: Target, tmp_path: Path) -> None:
    outcomes = {"converged": 0, "changed": 0, "failed": 1, "refused": 1, "unknown": 1}
    for number, (outcome, status) in enumerate(outcomes.items()):
        record = run(number, outcome)
        assert notify.send(tmp_path, record, "1 host", [], f"{target.ping}/?a=b") == []
        ((path, body),) = target.take()
        base, _, query = path.partition("?")
        assert base == f"/ping/secret-check/{status}"
        assert query.startswith("a=b&rid=")
        assert body == b"1 host"
    dry = make_run(FIRST, "dry", web=make_host("failed"))
    assert notify.send(tmp_path, dry, "", [target.url], target.ping) == []
    assert target.take() == []
    # Without a target nothing has to be remembered.
    assert not (tmp_path / notify.NAME).exists()


@pytest.mark.timed
def test_a_ping_waits_for_no_other_run_and_all_of_it_has_one_limit(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LIMIT", 10.0)
    began = time.monotonic()
    with files.lock(tmp_path / notify.NAME):
        failed = notify.send(tmp_path, run(0, "failed"), "1 host", [target.url], target.ping)
    assert time.monotonic() - began < 10.0 + 3.0
    path = tmp_path / notify.NAME
    assert failed == [f"nothing was sent: another run keeps {path}; the next run tries again"]
    ((asked, body),) = target.take()
    assert asked.startswith("/ping/secret-check/1?rid=")
    assert body == b"1 host"


def test_what_cannot_be_remembered_is_said_and_the_ping_is_sent(
    target: Target, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    failed = notify.send(tmp_path / "file", run(0, "failed"), "", [target.url], target.ping)
    assert [reason.partition(":")[0] for reason in failed] == ["what was sent cannot be remembered"]
    assert len(target.take()) == 1


def test_what_is_remembered_names_no_address(target: Target, tmp_path: Path) -> None:
    notify.send(tmp_path, run(0, "failed"), "", [target.url])
    text = (tmp_path / notify.NAME).read_text()
    assert "web" in text
    assert "secret" not in text
    (tmp_path / notify.NAME).write_text("{")
    assert notify.send(tmp_path, run(1, "failed"), "", [target.url]) == []
    assert target.take_titles() == ["stackmend: web: broke"] * 2


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"notify": ["json://127.0.0.1", "nonsense"]}, "report.notify[1]: is no address that"),
        ({"notify": "json://127.0.0.1"}, "report.notify: must be a list"),
        ({"notify": ["json://127.0.0.1"] * 21}, "report.notify: "),
        ({"ping": "ftp://127.0.0.1/x"}, "report.ping: must be an address that begins with http"),
        ({"ping": "https://"}, "report.ping: must be an address that begins with http"),
        ({"ping": "https://[/"}, "report.ping: must be an address that begins with http"),
        ({"ping": 5}, "report.ping: "),
    ],
)
def test_a_wrong_setting_is_one_error_without_its_value(report: Any, words: str) -> None:
    with pytest.raises(spec.SpecError) as error:
        spec.parse_machine({"stack": {"engine": {}, "report": report}})
    assert str(error.value).startswith(f"stack.{words}")
    assert len(str(error.value).splitlines()) == 1
    assert "127.0.0.1" not in str(error.value)


def test_without_apprise_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackmend.reporting.targets.find_spec", lambda name: None)
    with pytest.raises(spec.SpecError, match=r"pip install 'stackmend\[notify\]'"):
        spec.parse_machine({"stack": {"engine": {}, "report": {"notify": ["json://x"]}}})


def test_addresses_are_secrets_also_as_plain_text() -> None:
    data = {"stack": {"report": {"notify": ["json://a", "json://b"], "ping": "http://c"}}}
    assert dict(redaction.find_secrets(data)) == {
        "stack.report.notify.0": "json://a",
        "stack.report.notify.1": "json://b",
        "stack.report.ping": "http://c",
    }


@pytest.mark.slow
def test_a_run_sends_them(target: Target, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("from stackmend import reporting\nreporting.install()\n")
    (tmp_path / "deploy.py").write_text(
        "from pyinfra import host\nfrom pyinfra.operations import server\n"
        "server.shell(name='try', commands=[host.data.command])\n"
    )

    def apply(command: str, *more: str) -> controller.Run:
        report = {"notify": [target.url], "ping": target.ping}
        data = {"command": command, "stack": {"engine": {}, "report": report}}
        (tmp_path / "hosts.py").write_text(f"hosts = [('@local', {data!r})]\n")
        ended = controller.run("hosts.py", "deploy.py", "-y", *more, cwd=tmp_path, timeout=180)
        assert "secret" not in ended.out
        return ended

    broken = apply(f"echo {target.url}; false")
    requests = dict(target.take())
    assert json.loads(requests["/secret-topic"])["title"] == f"stackmend: {HERE}: broke"
    (ping,) = (path for path in requests if path.startswith("/ping/secret-check/1?rid="))
    assert b"1 failed" in requests[ping]
    assert "did not arrive" not in broken.out
    apply("true", "--dry")
    assert target.take() == []
    apply("true")
    titles = [json.loads(body)["title"] for path, body in target.take() if "ping" not in path]
    assert titles == [f"stackmend: {HERE}: well again"]
