"""A small server that answers as a test says, byte by byte."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO


@dataclass(frozen=True)
class Asked:
    """A request that came.

    + number: of its connection, from 0
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    number: int

    @property
    def words(self) -> int:
        """Words of its prompt."""
        messages = self.body.get("messages") or [{}]
        return len(str(self.body.get("prompt") or messages[0].get("content") or "").split())

    @property
    def tokens(self) -> int:
        """Tokens that its answer is to have."""
        options = self.body.get("options") or {}
        return int(self.body.get("max_tokens") or options.get("num_predict") or 0)


class Wire:
    """One connection, as its server writes to it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def begin(self, media: str = "text/event-stream") -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.send(head.encode())

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def json(self, value: Any, status: int = 200, more: str = "") -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n{more}"
        self.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def event(**fields: Any) -> bytes:
    """One event of OpenAI's API."""
    return b"data: " + json.dumps({"model": "m"} | fields).encode() + b"\n\n"


def text(value: str, reason: str | None = None, **fields: Any) -> bytes:
    """A piece of text of OpenAI's API."""
    choice = {"index": 0, "text": value, "finish_reason": reason}
    return event(choices=[choice], **fields)


def last(asked: Asked, tokens: int | None = None) -> bytes:
    """What ends an answer that is counted."""
    usage = {"prompt_tokens": asked.words, "completion_tokens": tokens or asked.tokens}
    return text("", "length") + event(choices=[], usage=usage) + b"data: [DONE]\n\n"


def answer(wire: Wire, asked: Asked, first: float = 0.05, each: float = 0.002) -> None:
    """An honest answer of OpenAI's API."""
    wire.begin()
    time.sleep(first)
    for _ in range(asked.tokens):
        wire.chunk(text(" w"))
        time.sleep(each)
    wire.chunk(last(asked))
    wire.end()


def describe(wire: Wire, asked: Asked) -> None:
    """What an idle server says of itself, with one model, `m`."""
    row = {"name": "m", "size": 1000, "digest": "a" * 64}
    loaded = {**row, "size_vram": 0, "expires_at": "2027-06-01T00:00:00Z", "context_length": 4096}
    known = {
        "/v1/models": {"data": [{"id": "m", "owned_by": "x"}]},
        "/api/version": {"version": "0.12.0"},
        "/api/tags": {"models": [row]},
        "/api/ps": {"models": [loaded]},
    }
    if asked.path in known:
        wire.json(known[asked.path])
    else:
        wire.json({"error": "no such path"}, 404)


Answer = Callable[[Wire, Asked], object]


@dataclass
class Served:
    """A server that runs.

    + asked: requests so far
    """

    port: int
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def serving(post: Answer, get: Answer = describe) -> Iterator[Served]:
    """A server on a free port of loopback: what POSTs and GETs are answered by.

    An answer that is `False` has its connection closed.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    served = Served(listener.getsockname()[1])

    def accept() -> None:
        number = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=handle, args=(connection, number), daemon=True).start()
            number += 1

    def handle(connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError, ValueError):
            while (asked := _read(stream, number)) is not None:
                served.asked.append(asked)
                answer = post if asked.method == "POST" and asked.path != "/api/show" else get
                if answer(Wire(connection), asked) is False:
                    return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield served
    finally:
        # Closing alone does not wake the thread that waits.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _read(stream: BinaryIO, number: int) -> Asked | None:
    line = stream.readline()
    if not line:
        return None
    method, path, _ = line.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while row := stream.readline().strip():
        name, _, value = row.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, json.loads(body or b"{}"), number)
