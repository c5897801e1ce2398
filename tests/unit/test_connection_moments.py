"""When bytes left and came: by the kernel, however late this process reads them."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from stackmend.connection import (
    http,
    iterate_lines,
    read_arrival,
    read_departure,
)
from stackmend.connection.moments import Inbox, Wire, find_wire
from tests.calm import calmly
from tests.connected import local
from tests.unit.test_connection_http import certificate, trusting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's kernel says it")

#: Seconds by which a moment may differ from what another thread noted, and for which bytes wait.
NEAR, LATE = 0.02, 0.2

#: Seconds until the kernel notes moments, where no other socket had it do so.
BEGUN = 0.1

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with client, server.accept()[0] as peer:
            yield client, peer


@calmly
def test_bytes_came_before_they_were_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with client, server.accept()[0] as peer:
            wire = Wire(client)
            time.sleep(BEGUN)
            peer.sendall(b"a")
            sent = time.monotonic()
            time.sleep(LATE)
            assert wire.recv(10) == b"a"
            assert abs(wire.came - sent) < NEAR


def test_a_socket_without_stamps_has_the_moment_of_reading() -> None:
    here, there = socket.socketpair()
    with here, there:
        wire = Wire(here)
        there.sendall(b"a")
        time.sleep(0.05)
        before = time.monotonic()
        assert wire.recv(10) == b"a"
        assert before <= wire.came <= time.monotonic()


def test_a_clock_that_was_set_makes_no_moment(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, peer = pair
    wire = Wire(client)
    real = time.time_ns
    for step in (3600, -3600):
        monkeypatch.setattr(time, "time_ns", lambda step=step: real() + step * 10**9)
        peer.sendall(b"a")
        before = time.monotonic()
        wire.recv(10)
        assert before <= wire.came <= time.monotonic()


@calmly
def test_what_ssh_reads_has_the_moment_at_which_it_came() -> None:
    """Paramiko keeps its socket where we look for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with client, server.accept()[0] as peer:
            transport = paramiko.Transport(client)
            wire = find_wire(transport)
            assert wire is not None
            assert find_wire(transport) is wire
            time.sleep(BEGUN)
            peer.sendall(b"SSH-2")
            sent = time.monotonic()
            time.sleep(LATE)
            assert transport.packetizer.read_all(5) == b"SSH-2"
            assert abs(wire.came - sent) < NEAR
            transport.packetizer.write_all(b"x")
            assert abs(wire.left - time.monotonic()) < NEAR
            transport.close()


def test_pieces_that_wait_keep_their_moments(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    wire = Wire(pair[0])
    inbox = Inbox(wire)
    for wire.came, data in ((1.0, b"aa"), (2.0, b"b"), (3.0, b"cccc")):
        inbox.feed(data)
    assert inbox.split(inbox.read(5, 1)) == [(b"aa", 1.0), (b"b", 2.0), (b"cc", 3.0)]
    assert inbox.split(inbox.read(5, 1)) == [(b"cc", 3.0)]


def test_pieces_without_number_are_no_memory(pair: tuple[socket.socket, socket.socket]) -> None:
    inbox = Inbox(Wire(pair[0]))
    for _ in range(20_000):
        inbox.feed(b"x")
    assert len(inbox.pieces) < 5_000
    assert b"".join(data for data, _ in inbox.split(inbox.read(20_000, 1))) == b"x" * 20_000


@pytest.mark.parametrize("tls", [False, True])
def test_an_answer_has_both_moments(tmp_path: Path, tls: bool) -> None:
    """The request's end counts, and each line has its own, read when both have long come."""
    check_moments(tmp_path, tls)


@calmly
def check_moments(tmp_path: Path, tls: bool) -> None:
    moments: list[float] = []
    known = certificate(tmp_path, "127.0.0.1") if tls else None
    context = None
    if known is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(known)

    def answer() -> None:
        peer = server.accept()[0]
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(peer, server_side=True) if context else peer as one:
            asked = b""
            while not asked.endswith(b"question"):
                asked += one.recv(4096)
            moments.append(time.monotonic())
            time.sleep(0.05)
            one.sendall(HEAD)
            for line in (b"a\n", b"b\n"):
                moments.append(time.monotonic())
                one.sendall(line)
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server, local() as host:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        came = []
        with (
            http(host, "127.0.0.1", port, tls=trusting(known) if known else False) as client,
            client.stream("POST", "/", content=b"question") as found,
        ):
            departed = read_departure(found)
            for _ in iterate_lines(found):
                came.append(read_arrival(found))
        thread.join(5)
    assert abs(departed - moments[0]) < NEAR
    assert abs(came[0] - moments[1]) < NEAR
    assert abs(came[1] - moments[2]) < NEAR
