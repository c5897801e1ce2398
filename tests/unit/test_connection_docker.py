"""What docker-py reads of an exec, byte for byte, however the bytes happen to arrive."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyinfra.api.host import Host

from stackmend.connection import RemoteError, docker
from tests.connected import local

UPGRADED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


OUTPUT = frame(1, b"out " * 5000) + frame(2, b"err\n") + frame(1, b"end")


class Engine:
    """Answers on a Unix socket as an engine does; the pieces of an exec's answer are given."""

    def __init__(self, path: Path) -> None:
        self.pieces: list[bytes] = []
        self.connections = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as lines:
            while request := lines.readline():
                length = 0
                while (header := lines.readline()) not in (b"\r\n", b""):
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                lines.read(length)
                if b"/start" in request:
                    for piece in self.pieces:
                        peer.sendall(piece)
                        time.sleep(0.05)
                    return
                body = json.dumps({"ApiVersion": "1.44", "Id": "0" * 64}).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                peer.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr("stackmend.connection.docker_api.SOCKET", str(tmp_path / "docker.sock"))
    engine = Engine(tmp_path / "docker.sock")
    yield engine
    engine.close()


@pytest.fixture
def host() -> Iterator[Host]:
    with local() as host:
        yield host


@pytest.mark.parametrize(
    "arrive",
    [
        lambda whole: [whole],
        lambda whole: [whole[:150], whole[150:]],
        lambda whole: [whole[: len(UPGRADED) + 3], whole[len(UPGRADED) + 3 :]],
        lambda whole: [whole[:-1], whole[-1:]],
    ],
    ids=["all at once", "within the headers", "within a frame", "the end late"],
)
def test_an_exec_loses_nothing(
    host: Host, engine: Engine, arrive: Callable[[bytes], list[bytes]]
) -> None:
    engine.pieces = arrive(UPGRADED + OUTPUT)
    with docker(host) as client:
        assert client.api.exec_start("0", demux=True) == (b"out " * 5000 + b"end", b"err\n")
        chunks = client.api.exec_start("0", stream=True)
        assert b"".join(chunks) == b"out " * 5000 + b"err\nend"


def test_connections_are_kept(host: Host, engine: Engine) -> None:
    with docker(host) as client:
        assert client.api.api_version == "1.44"
        for _ in range(5):
            client.api.version()
    assert engine.connections == 1


def test_no_engine_is_an_error_in_words(host: Host, engine: Engine) -> None:
    engine.close()
    with pytest.raises(RemoteError, match=r"@local: .*refused.*\(speak to Docker\)"), docker(host):
        pass


def test_an_answer_without_end_is_an_error(
    host: Host, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackmend.connection.docker_api.LONGEST", 10_000)
    engine.pieces = [UPGRADED + OUTPUT]
    with docker(host) as client, pytest.raises(OSError, match="longer than 10000 bytes"):
        client.api.exec_start("0")
    with docker(host, endless=True) as client:
        assert client.api.exec_start("0", demux=True) == (b"out " * 5000 + b"end", b"err\n")
