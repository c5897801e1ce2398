"""A signal ends a run of pyinfra's command line in time, whatever the run is at."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from stackmend import reporting
from stackmend.connection import signals
from stackmend.reporting.state import RunRecord
from stackmend.schedule.units import MARK

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WITHIN = 5.0

OPERATION = """
import threading, time
from contextlib import suppress
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pyinfra import host
from pyinfra.api import operation, FunctionCommand
from stackmend import connection, reporting
from stackmend.connection import signals

@operation()
def busy(how):
    reporting.record(host, "room.busy")
    def work(state, host):
        Path("begun").touch()
        if how == "compute":
            while True:
                pass
        if how == "threads":
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(time.sleep, [60, 60]))
        if how == "wait":
            threading.Event().wait(90)
        if how == "swallow":
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        if how == "step":
            with signals.step(host.name, "make it"):
                connection.run(host, "sleep 1; touch made")
            connection.run(host, "touch never")
        if how == "print":
            connection.run(host, "touch printing; seq 1 200000")
        if how in ("sshd", "source"):
            import taking_back
            with suppress(Exception), signals.step(host.name, how):
                taking_back.begin(how, host)
        if how == "lines":
            for number in range(10**6):
                host.log(f"line {number}")
                connection.run(host, "touch acted")
                time.sleep(0.01)
        if how == "terminal":
            with signals.hold_terminal():
                input("who? ")
        return True
    yield FunctionCommand(work, (), {})
"""


TAKING_BACK = """
import time
from pathlib import Path
from types import SimpleNamespace
from pyinfra.api import StringCommand
from stackmend.access import reconciler as access
from stackmend.engine import reconciler
from stackmend.errors import StepError

def fails(error):
    def fail(*arguments, **named):
        Path("acting").touch()
        time.sleep(1)
        raise error("no")
    return fail

def touch(name):
    return lambda *arguments, **named: StringCommand("touch", name)

def begin(how, host):
    # Only the way to the host is real: what is asked of it touches a file.
    if how == "sshd":
        access.commands.revert = touch("back")
        this = object.__new__(access.OperatorReconciler)
        this._run_action = lambda *arguments: None
        this._log_in = fails(StepError)
        this.host = host
        this._set_password_login(None, None)
    module = reconciler
    module.commands.drop_lists, module.commands.place = touch("dropped"), touch("back")
    module.commands.install = touch("never")
    gives = module.Source(engine="engine", compose="", packages=(), keyring="/one")
    module.find_source = lambda *arguments: gives
    this = object.__new__(module.InstallationReconciler)
    this.host = host
    this.spec = None
    module.refresh = fails(StepError)
    action = SimpleNamespace(packages=["engine"], extras=[])
    this._install_engine(action, SimpleNamespace(origins=[], keys=[], manager="apt"), None)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "config.py").write_text("from stackmend import reporting\nreporting.install()\n")
    (tmp_path / "room.py").write_text(OPERATION)
    return tmp_path


@contextlib.contextmanager
def started(
    site: Path,
    deploy: str,
    *words: str,
    inventory: str = "@local",
    out: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    (site / "deploy.py").write_text(deploy)
    with subprocess.Popen(
        [sys.executable, "-m", "pyinfra", inventory, "deploy.py", *words],
        cwd=site,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/ops:{site}", "PYINFRA_PROGRESS": "off"},
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def appears(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What it has written; it ended in time, with the status that says why."""
    process.send_signal(number)
    began = time.monotonic()
    process.wait(60)
    assert time.monotonic() - began < WITHIN
    assert process.stdout is not None
    out = process.stdout.read()
    assert process.returncode == 128 + number, out
    assert "Traceback" not in out, out
    return out


def blocked(stream: object) -> None:
    """Wait until nothing more fits into what it writes to."""
    until = time.monotonic() + 60
    descriptor = stream if isinstance(stream, int) else stream.fileno()  # type: ignore[attr-defined]
    before, since = -1, time.monotonic()
    while time.monotonic() - since < 0.7:
        assert time.monotonic() < until
        waiting = int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
        if waiting != before or waiting < 4000:
            before, since = waiting, time.monotonic()
        time.sleep(0.05)


def unread(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """It ended in time, with the status that says why, and nobody read a word of it."""
    process.send_signal(number)
    began = time.monotonic()
    assert process.wait(10) == 128 + number
    assert time.monotonic() - began < WITHIN


def record(site: Path, number: signal.Signals) -> RunRecord:
    found = reporting.read(site / "var/reports/latest.json")
    assert (found.interrupted, found.complete) == (number.name, False)
    return found


BUSY = "from room import busy\nbusy(how={!r})\n"


class Pinged(http.server.BaseHTTPRequestHandler):
    paths: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("timed", [True, False])
def test_the_switch_of_a_timer_hears_of_a_run_that_is_ended(
    site: Path, monkeypatch: pytest.MonkeyPatch, timed: bool
) -> None:
    assert signals.TIMER == MARK
    monkeypatch.setattr(Pinged, "paths", [])
    if timed:
        monkeypatch.setenv(MARK, "stackmend-host")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pinged) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        report = {"ping": f"http://127.0.0.1:{server.server_port}/check"}
        hosts = [("@local", {"stack": {"report": report}})]
        (site / "fleet.py").write_text(f"hosts = {hosts!r}\n")
        with started(site, BUSY.format("wait"), "-y", inventory="fleet.py") as process:
            appears(site / "begun")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        server.shutdown()
    record(site, signal.SIGTERM)
    assert [path.split("?")[0] for path in Pinged.paths] == ["/check/1"] * timed


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("compute", signal.SIGTERM),
        ("compute", signal.SIGINT),
        ("threads", signal.SIGTERM),
        ("wait", signal.SIGHUP),
        ("swallow", signal.SIGINT),
        ("terminal", signal.SIGINT),
        ("terminal", signal.SIGTERM),
    ],
)
def test_whatever_an_operation_does(site: Path, how: str, number: signal.Signals) -> None:
    with started(site, BUSY.format(how), "-y") as process:
        appears(site / "begun")
        time.sleep(0.3)
        ended(process, number)
    assert record(site, number).hosts["@local"].interrupted_at == "room.busy"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_nobody_reads_what_it_prints(site: Path, number: signal.Signals) -> None:
    with started(site, BUSY.format("print"), "-y", "-vvv") as process:
        appears(site / "printing")
        blocked(process.stdout)
        unread(process, number)
    assert record(site, number).hosts["@local"].interrupted_at == "room.busy"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_nobody_reads_how_it_ended(site: Path, number: signal.Signals) -> None:
    """The run is over, its record written, and only its last words wait."""
    deploy = "from pyinfra.operations import server\nserver.shell('true')\n"
    late = "import atexit, os\natexit.register(lambda: os.write(1, b'.' * 2**20))\n"
    (site / "config.py").write_text(late + (site / "config.py").read_text())
    with started(site, deploy, "-y") as process:
        appears(site / "var/reports/latest.json")
        blocked(process.stdout)
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(10) in {0, 128 + number}
        assert time.monotonic() - began < WITHIN


@pytest.mark.parametrize("last", ["--> ", "Connecting to hosts", "[@local]", "Preparing"])
def test_a_reader_that_leaves_after_a_line(site: Path, last: str) -> None:
    with started(site, BUSY.format("lines"), "-y", "-vvv") as process:
        assert process.stdout is not None
        while last not in process.stdout.readline():
            pass
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
    # Before it has read who its hosts are, there is no run to be recorded.
    assert last == "--> " or record(site, signal.SIGPIPE).hosts


def test_a_reader_that_leaves_in_the_midst_of_an_operation(site: Path) -> None:
    with started(site, BUSY.format("lines"), "-y") as process:
        assert process.stdout is not None
        appears(site / "acted")
        process.stdout.close()
        began = time.monotonic()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert time.monotonic() - began < WITHIN
    assert record(site, signal.SIGPIPE).hosts["@local"].interrupted_at == "room.busy"
    (site / "acted").unlink()
    time.sleep(1)
    assert not (site / "acted").exists()


def test_a_reader_that_leaves_when_all_is_done(site: Path) -> None:
    """Then there is nothing to be ended: the run is well, and says so."""
    deploy = "from pyinfra.operations import server\nserver.shell('sleep 0')\n"
    leave = "import atexit, os\nr, w = os.pipe()\nos.close(r)\n"
    late = leave + "atexit.register(lambda: [os.dup2(w, 1), os.dup2(w, 2)])\n"
    with started(site, deploy + late, "-y") as process:
        assert process.wait(30) == 0
    found = reporting.read(site / "var/reports/latest.json")
    assert (found.interrupted, found.complete) == ("", True)


def test_a_terminal_that_is_held(site: Path) -> None:
    """As by Ctrl-S."""
    ours, theirs = os.openpty()
    with started(site, BUSY.format("print"), "-y", "-vvv", out=theirs) as process:
        appears(site / "printing")
        blocked(ours)
        unread(process, signal.SIGTERM)
    assert record(site, signal.SIGTERM).hosts["@local"].interrupted_at == "room.busy"
    os.close(ours)
    os.close(theirs)


def test_a_step_under_way_is_ended_and_no_other_is_begun(site: Path) -> None:
    with started(site, BUSY.format("step"), "-y") as process:
        appears(site / "begun")
        time.sleep(0.2)
        ended(process, signal.SIGTERM)
    assert (site / "made").exists()
    time.sleep(1)
    assert not (site / "never").exists()
    assert record(site, signal.SIGTERM).hosts["@local"].interrupted_at == "room.busy"


def test_a_step_that_takes_longer_is_named_and_comes_to_its_end(site: Path) -> None:
    (site / "room.py").write_text(OPERATION.replace("sleep 1;", "sleep 6;"))
    with started(site, BUSY.format("step"), "-y") as process:
        appears(site / "begun")
        time.sleep(0.2)
        ended(process, signal.SIGTERM)
    assert record(site, signal.SIGTERM).hosts["@local"].interrupted_at == "room.busy: make it"
    appears(site / "made")
    assert not (site / "never").exists()


@pytest.mark.parametrize("how", ["sshd", "source"])
def test_what_a_step_under_way_did_is_taken_back(site: Path, how: str) -> None:
    (site / "taking_back.py").write_text(TAKING_BACK)
    with started(site, BUSY.format(how), "-y") as process:
        appears(site / "acting")
        ended(process, signal.SIGTERM)
    assert (site / "back").exists()


def test_a_second_signal_ends_it_at_once(site: Path) -> None:
    with started(site, BUSY.format("compute"), "-y") as process:
        appears(site / "begun")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_hosts_are_connected_to(site: Path, number: signal.Signals) -> None:
    """They take the connection and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        data = {"ssh_hostname": "127.0.0.1", "ssh_port": port}
        (site / "inventory.py").write_text(f"far = [(n, {data!r}) for n in ('one', 'two')]\n")
        with started(site, BUSY.format("wait"), "-y", inventory="inventory.py") as process:
            silent.settimeout(60)
            peer, _ = silent.accept()
            with peer:
                time.sleep(0.3)
                ended(process, number)
    hosts = record(site, number).hosts
    assert {name: (one.outcome, one.interrupted_at) for name, one in hosts.items()} == {
        "one": ("unknown", "connecting"),
        "two": ("unknown", "connecting"),
    }


def test_while_a_person_is_asked_to_go_on(site: Path) -> None:
    with started(site, BUSY.format("wait")) as process:
        assert process.stdout is not None
        until = time.monotonic() + 60
        seen = ""
        while "Detected changes" not in seen:
            assert time.monotonic() < until
            seen += process.stdout.readline()
        time.sleep(1)
        ended(process, signal.SIGINT)
    assert not (site / "begun").exists()
    assert record(site, signal.SIGINT).hosts["@local"].interrupted_at == "preparing"


def test_while_files_are_loaded(site: Path) -> None:
    deploy = "from pathlib import Path\nPath('begun').touch()\nwhile True: pass\n"
    with started(site, deploy, "-y") as process:
        appears(site / "begun")
        ended(process, signal.SIGTERM)
    assert record(site, signal.SIGTERM).hosts["@local"].outcome == "unknown"


def test_a_terminal_that_goes_is_nothing_to_who_ignores_it(site: Path) -> None:
    deploy = BUSY.format("step")
    program = f"trap '' HUP; exec {sys.executable} -m pyinfra @local deploy.py -y"
    (site / "deploy.py").write_text(deploy)
    with subprocess.Popen(
        ["sh", "-c", program],
        cwd=site,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/ops:{site}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        appears(site / "begun")
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert (site / "never").exists()
