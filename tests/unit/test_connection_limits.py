"""Nothing is waited for without a limit, and nothing of ours outlives its own on a host."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host

from stackmend.connection import (
    CommandTimeout,
    RemoteError,
    channel,
    hold_lock,
    process,
    run,
    spawn,
)
from stackmend.connection.settings import Settings
from tests.connected import connected, local
from tests.shells import find

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with local() as host:
        yield host


@pytest.fixture
def mark() -> str:
    """Seconds that nobody else sleeps, to be told by."""
    return f"{500 + os.getpid() % 400}.{time.monotonic_ns() % 10**9}"


def sleepers(mark: str) -> list[int]:
    """The processes of this machine that sleep so long."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{mark}\0".encode():
                found.append(int(path.parent.name))
    return found


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.05)


# Limits by default


@pytest.mark.parametrize(("readonly", "name"), [(True, "READ_LIMIT"), (False, "LIMIT")])
def test_a_command_without_a_limit_has_one(
    host: Host, monkeypatch: pytest.MonkeyPatch, mark: str, readonly: bool, name: str
) -> None:
    monkeypatch.setattr(channel, name, 1)
    with pytest.raises(CommandTimeout) as caught:
        run(host, f"echo begun; sleep {mark} & sleep {mark}; true", readonly=readonly)
    assert "did not end within 1 s" in str(caught.value)
    assert f"sleep {mark}" in str(caught.value)
    assert caught.value.stdout == b"begun\n"
    eventually(lambda: not sleepers(mark))


def test_a_command_that_closes_its_output_and_goes_on_has_its_limit(host: Host, mark: str) -> None:
    with pytest.raises(CommandTimeout):
        run(host, f"exec >&- 2>&-; sleep {mark}", timeout=1)
    eventually(lambda: not sleepers(mark))


@pytest.mark.slow
def test_what_keeps_the_output_open_is_not_waited_for(
    host: Host, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    monkeypatch.setattr(channel, "KILL_AFTER", 1)
    began = time.monotonic()
    with contextlib.suppress(CommandTimeout):
        run(host, f"setsid sleep {mark} & echo done", timeout=1)
    assert time.monotonic() - began < 20
    for pid in sleepers(mark):
        os.kill(pid, signal.SIGKILL)


def test_a_command_held_open_ends_on_the_host(
    host: Host, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    monkeypatch.setitem(channel.open_stream.__kwdefaults__, "limit", 1)  # type: ignore[index]
    with spawn(host, f"sleep {mark} & cat; sleep {mark}") as stream:
        assert stream.read() == b""
    eventually(lambda: not sleepers(mark))


def test_the_end_of_a_command_held_open_is_waited_for_so_long(host: Host, mark: str) -> None:
    began = time.monotonic()
    with spawn(host, f"exec >&-; sleep {mark}") as stream:
        assert stream.wait(1) != 0
    assert time.monotonic() - began < 10


def test_a_lock_that_nobody_answers_for_is_an_error(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackmend.connection.lease.ANSWER_WITHIN", 1)
    flock = tmp_path / "flock"
    flock.write_text("#!/bin/sh\nsleep 30\n")
    flock.chmod(0o755)
    began = time.monotonic()
    where = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with pytest.raises(RemoteError), hold_lock(host, str(tmp_path / "lock"), _env=where):
        raise AssertionError("it was never given")
    assert time.monotonic() - began < 15


# A server of SSH that says nothing at one point or another


class Mute(paramiko.ServerInterface):
    """Grants everything but the command, of which it never speaks."""

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        time.sleep(30)
        return False


class Undecided(Mute):
    """Never says whether one may come in."""

    def check_auth_password(self, username: str, password: str) -> int:
        time.sleep(30)
        return paramiko.common.AUTH_FAILED


@pytest.fixture
def mute(request: pytest.FixtureRequest) -> Iterator[int]:
    key = paramiko.ECDSAKey.generate()
    kind = getattr(request, "param", Mute)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transports = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    transport = paramiko.Transport(peer)
                    transport.add_server_key(key)
                    transport.start_server(server=kind())
                    transports.append(transport)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        for transport in transports:
            transport.close()


def test_a_host_that_never_begins_the_command(mute: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OPEN_TIMEOUT", 1)
    given = {"ssh_hostname": "127.0.0.1", "ssh_port": mute, "ssh_user": "a", "ssh_password": "b"}
    strict = {"ssh_strict_host_key_checking": "off", "ssh_allow_agent": False}
    with connected("mute", **given, **strict, ssh_look_for_keys=False) as host:
        began = time.monotonic()
        with pytest.raises(RemoteError) as caught:
            run(host, "true")
        assert time.monotonic() - began < 10
    assert "true" in str(caught.value)


@pytest.mark.parametrize("mute", [Undecided], indirect=True)
def test_a_host_that_never_decides_about_a_login(mute: int) -> None:
    given = {"ssh_hostname": "127.0.0.1", "ssh_port": mute, "ssh_user": "a", "ssh_password": "b"}
    strict = {"ssh_strict_host_key_checking": "off", "ssh_allow_agent": False}
    # 30 by default, see test_limits.py.
    soon = {"ssh_paramiko_connect_kwargs": {"auth_timeout": 1}}
    began = time.monotonic()
    with (
        pytest.raises(ConnectError, match="timeout"),
        connected("mute", **given, **strict, **soon, ssh_look_for_keys=False),
    ):
        raise AssertionError("it came in")
    assert time.monotonic() - began < 10


# What is tied to this process


def tethered(shell: str, script: str) -> tuple[str, bytes]:
    """A tethered command as it goes over the wire, for a host whose ``sh`` is this one."""
    command = StringCommand(script)
    call = channel._compose(Settings(shell=shell), command, None, 60, tethered=True)
    return call.line, call.body


def begin(shell: str, script: str) -> subprocess.Popen[bytes]:
    line, body = tethered(shell, script)
    begun = subprocess.Popen(
        ["/bin/sh", "-c", line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert begun.stdin is not None
    begun.stdin.write(body)
    begun.stdin.flush()
    return begun


@pytest.fixture(params=["dash", "bash", "busybox"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    program = find(request.param)
    if request.param != "busybox":
        return program
    link = tmp_path / "sh"
    link.symlink_to(program)
    return str(link)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "sleep {}; true",
        "sleep {} & sleep {}; true",
        "sh -c 'sleep {}; true'; true",
        "trap '' HUP PIPE; {{ true && sleep {}; }}",
        "sh -c \"trap '' TERM; sleep {}; sleep {}\"",
    ],
)
def test_it_ends_with_all_its_children_when_it_is_let_go(
    shell: str, mark: str, script: str
) -> None:
    with begin(shell, script.replace("{{", "{").replace("}}", "}").replace("{}", mark)) as begun:
        eventually(lambda: bool(sleepers(mark)))
        assert begun.stdin is not None
        begun.stdin.close()
        eventually(lambda: not sleepers(mark))
        assert begun.wait(20) != 0


@pytest.mark.parametrize("status", [0, 3, 75])
def test_it_ends_by_itself_with_its_own_status(shell: str, status: int) -> None:
    # Its input stays open: nobody has let go of it.
    with begin(shell, f"cat; echo said; exit {status}") as begun:
        assert begun.wait(20) == status
        assert begun.stdout is not None
        # Behind the marker, which each command writes first.
        assert begun.stdout.read()[32:] == b"said\n"


def test_it_gives_its_result_and_leaves_nothing(host: Host, mark: str) -> None:
    result = run(host, "echo out; echo err >&2; exit 4", tethered=True)
    assert (result.status, result.stdout, result.stderr) == (4, b"out\n", b"err\n")


def test_it_ends_when_this_process_is_killed(mark: str) -> None:
    program = (
        "from tests.connected import local\n"
        "from stackmend.connection import run\n"
        f"with local() as host: run(host, 'sleep {mark}; true', tethered=True)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    eventually(lambda: bool(sleepers(mark)), 60)
    killed.kill()
    killed.wait()
    eventually(lambda: not sleepers(mark))


def test_it_cannot_be_given_input(host: Host) -> None:
    with pytest.raises(ValueError, match="input"):
        run(host, "true", stdin=b"x", tethered=True)


def test_a_command_of_this_machine_is_not_met_by_the_terminals_signals(
    host: Host, tmp_path: Path
) -> None:
    told = tmp_path / "group"
    run(host, f"ps -o pgid= -p $$ >{shlex.quote(str(told))}")
    assert int(told.read_text()) != os.getpgid(0)
