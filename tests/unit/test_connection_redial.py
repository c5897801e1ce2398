"""A connection that breaks off while it is made is made again; whatever else fails is not."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.sshuserclient.client import get_host_keys
from pyinfra.context import ctx_state

from stackmend.connection import redial
from stackmend.connection.link import IDLE, BrokenOff, quicken

KEYS = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()


class LetIn(paramiko.ServerInterface):
    """Takes the password "right", and no other."""

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if password == "right" else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password"


def end(peer: socket.socket) -> None:
    """An OpenSSH at its MaxStartups before 8.9: it ends the connection, and that is all."""


def refuse(peer: socket.socket) -> None:
    """One since then."""
    peer.sendall(b"Exceeded MaxStartups\r\n")


def reset(peer: socket.socket) -> None:
    """A firewall's answer, after the greeting."""
    peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    peer.recv(1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def greet(peer: socket.socket) -> None:
    """Ends once it has the other side's offer of keys."""
    peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    peer.recv(4096)


def listen(peer: socket.socket) -> None:
    """Says nothing until the other side goes."""
    while peer.recv(4096):
        pass


def speak_http(peer: socket.socket) -> None:
    """No sshd at all."""
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 101)
    peer.recv(4096)


class Sshd:
    """Treats its first connections badly, and serves all later ones."""

    def __init__(self, stack: contextlib.ExitStack, first: int, drop: Callable[..., None]) -> None:
        self._socket = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._stack, self._first, self._drop = stack, first, drop
        self.port = self._socket.getsockname()[1]
        self.times: list[float] = []
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        stack.callback(thread.join, 5)
        stack.callback(self._socket.shutdown, socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self.times.append(time.monotonic())
                if len(self.times) > self._first:
                    transport = paramiko.Transport(peer)
                    self._stack.callback(transport.close)
                    transport.add_server_key(KEYS[0])
                    transport.start_server(server=LetIn(), event=threading.Event())
                else:
                    with peer, contextlib.suppress(OSError):
                        self._drop(peer)


@pytest.fixture
def make_sshd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sshd]]:
    monkeypatch.setattr(redial, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(redial, "JITTER", 0.01)
    with contextlib.ExitStack() as stack:
        yield lambda first, drop=end: Sshd(stack, first, drop)


def connect(
    port: int, tmp_path: Path, password: str = "right", through: str = "", **config: Any
) -> None:
    """Connect as a run does, and leave again.

    + through: the lines of a user's SSH configuration that lead there
    """
    (tmp_path / "config").write_text(f"Host 127.0.0.1\n{through}\n" if through else "")
    get_host_keys.cache.clear()  # type: ignore[attr-defined]
    data = {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": port,
        "ssh_user": "ops",
        "ssh_password": password,
        "ssh_look_for_keys": False,
        "ssh_allow_agent": False,
        "ssh_known_hosts_file": str(tmp_path / "known_hosts"),
        "ssh_config_file": str(tmp_path / "config"),
    }
    inventory = Inventory((["shop"], data))
    with ctx_state.use(State(inventory, Config(**config))):
        quicken(inventory)
        redial.add_attempts(inventory)
        host = inventory.get_host("shop")
        try:
            host.connect(raise_exceptions=True)
            assert host.connected
            # While it is idle it is rarely woken, and its end is noticed at once all the same.
            transport = host.connector.client.get_transport()  # type: ignore[attr-defined]
            assert transport.sock.gettimeout() == IDLE
            began = time.monotonic()
            transport.close()
            assert time.monotonic() - began < IDLE / 2
        finally:
            if client := getattr(host.connector, "client", None):
                client.close()


@pytest.mark.parametrize("drop", [end, refuse, reset, greet])
def test_an_sshd_that_drops_the_first_connections(
    make_sshd: Callable[..., Sshd], tmp_path: Path, drop: Callable[..., None]
) -> None:
    sshd = make_sshd(3, drop)
    connect(sshd.port, tmp_path)
    assert len(sshd.times) == 4


@pytest.mark.parametrize("drop", [end, reset])
def test_an_sshd_that_drops_every_connection(
    make_sshd: Callable[..., Sshd], tmp_path: Path, drop: Callable[..., None]
) -> None:
    sshd = make_sshd(100, drop)
    with pytest.raises(
        ConnectError, match=r"keys are agreed on.*; tried 6 times within \d+ s; rem"
    ):
        connect(sshd.port, tmp_path)
    assert len(sshd.times) == redial.ATTEMPTS == 6


def test_no_further_attempt_begins_after_the_limit(
    make_sshd: Callable[..., Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redial, "FIRST_PAUSE", 0.6)
    sshd = make_sshd(100)
    with pytest.raises(ConnectError, match="tried 2 times within 1 s"):
        connect(sshd.port, tmp_path, CONNECT_TIMEOUT=1)
    assert len(sshd.times) == 2


def test_pauses_grow_and_differ(
    make_sshd: Callable[..., Sshd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.undo()
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)

    def drop() -> None:
        try:
            raise BrokenOff("dropped")
        except BrokenOff:
            raise ConnectError("SSH error (dropped)")  # noqa: B904  # as pyinfra raises it

    for _ in range(2):
        with pytest.raises(ConnectError, match="tried 6 times"):
            redial.connect(drop, 60)
    first, second = pauses[:5], pauses[5:]
    assert len(second) == 5
    assert first != second
    for pause, least in zip(pauses, [0.25, 0.5, 1, 2, 4] * 2, strict=True):
        assert least <= pause <= least + 1


@pytest.mark.parametrize("first", [0, 2])
def test_a_refused_login_is_not_repeated(
    make_sshd: Callable[..., Sshd], tmp_path: Path, first: int
) -> None:
    sshd = make_sshd(first)
    with pytest.raises(ConnectError, match="Authentication error") as caught:
        connect(sshd.port, tmp_path, password="wrong")
    assert len(sshd.times) == first + 1
    assert "tried" not in str(caught.value)


def test_another_host_key_is_not_asked_for_again(
    make_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    sshd = make_sshd(0)
    known = paramiko.HostKeys()
    known.add(f"[127.0.0.1]:{sshd.port}", KEYS[1].get_name(), KEYS[1])
    known.save(str(tmp_path / "known_hosts"))
    with pytest.raises(ConnectError, match="SSH host key error"):
        connect(sshd.port, tmp_path)
    assert len(sshd.times) == 1


def test_what_is_no_sshd_is_not_asked_again(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    web = make_sshd(100, speak_http)
    with pytest.raises(ConnectError, match="Indecipherable protocol version"):
        connect(web.port, tmp_path)
    assert len(web.times) == 1


def test_a_refused_connection_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr("tenacity.nap.time.sleep", pytest.fail)
    with pytest.raises(ConnectError, match="Could not connect") as caught:
        connect(port, tmp_path)
    assert "tried" not in str(caught.value)


def test_a_jump_host_that_drops_connections(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    jump = make_sshd(100)
    with pytest.raises(ConnectError, match="tried 6 times"):
        connect(1, tmp_path, through=f"ProxyJump localhost:{jump.port}")
    assert len(jump.times) == 6


@pytest.fixture
def _reaped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """paramiko neither waits for the programs that it runs nor closes their pipes."""
    begun: list[subprocess.Popen[bytes]] = []
    begin = paramiko.ProxyCommand.__init__

    def note(self: paramiko.ProxyCommand, line: str) -> None:
        begin(self, line)
        begun.append(self.process)

    monkeypatch.setattr(paramiko.ProxyCommand, "__init__", note)
    yield
    assert begun
    # They end the program as well, and want it to be there.
    for thread in threading.enumerate():
        if isinstance(thread, paramiko.Transport):
            thread.join(10)
    for program in begun:
        with program:
            program.kill()


@pytest.mark.usefixtures("_reaped")
def test_a_program_between_that_ends_is_not_run_again(tmp_path: Path) -> None:
    """It may have been refused a login."""
    with pytest.raises(ConnectError) as caught:
        connect(1, tmp_path, through=f"ProxyCommand sh -c 'echo run >>{tmp_path}/runs'")
    assert "tried" not in str(caught.value)
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_silent_sshd_is_not_asked_again(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = make_sshd(100, listen)
    with pytest.raises(ConnectError, match="does not answer within 1 s"):
        connect(sshd.port, tmp_path, CONNECT_TIMEOUT=1)
    assert len(sshd.times) == 1
