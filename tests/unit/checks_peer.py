"""An HTTP peer that answers well and badly, and the shell environments that ask it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackmend.checks.facts import CheckResults, parse
from stackmend.checks.state import CheckResult
from tests.marks import checked
from tests.shells import find

# What probe.sh and attempt.sh call, beside the tool that asks.
BASE = (
    "awk cat cp dd grep head id ls mkdir mktemp mv od readlink rm sed sh sleep sort timeout tr "
    "true wc"
).split()


class Peer:
    """Raw sockets, because a well-made server cannot misbehave."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self.requests: list[bytes] = []
        self._closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._closing.set()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            stack.enter_context(contextlib.suppress(OSError))
            connection.settimeout(20)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                stack.enter_context(connection)
            request = b""
            while b"\r\n\r\n" not in request:
                part = connection.recv(65536)
                if not part:
                    return
                request += part
            self.requests.append(request)
            verb, path = request.split(b" ")[:2]
            name = path.decode().strip("/").partition("?")[0].replace("%20", "_") or "ok"
            getattr(self, f"_do_{name}", self._do_missing)(connection, verb, request)
            if self._tls:
                connection.unwrap()

    @staticmethod
    def _answer(
        connection: socket.socket,
        verb: bytes,
        body: bytes,
        status: bytes = b"200 OK",
        headers: bytes = b"",
    ) -> None:
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n"
        connection.sendall(head % (status, len(body), headers))
        if verb != b"HEAD":
            connection.sendall(body)

    def _do_ok(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, b"all is well\n$(touch nowhere) 'quoted' \xc3\xbc\n")

    def _do_missing(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, b"there is no such thing\n", b"404 Not Found")

    def _do_echo(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, request)

    def _do_broken(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, b"database is gone\n", b"500 Internal Server Error")

    def _do_elsewhere(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, b"", b"302 Found", b"Location: /ok\r\n")

    def _do_unauthorized(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, b"who are you\n", b"401 Unauthorized")

    def _do_early(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        self._do_ok(connection, verb, request)

    def _do_chunked(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        if b"HTTP/1.0" in request:
            self._answer(connection, verb, b"all is well")
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"6\r\nall is\r\n5\r\n well\r\n0\r\n\r\n")

    def _do_binary(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, bytes(range(256)) * 8 + b"all is well" + b"\0\xff" * 99)

    def _do_large(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._answer(connection, verb, b"all is well" + b"x" * 3_000_000 + b"the end")

    def _do_hang(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        self._closing.wait(20)

    def _do_drip(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not self._closing.wait(0.1):
            connection.sendall(b"x")

    def _do_slow_head(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 500:
            connection.sendall(bytes([byte]))
            if self._closing.wait(0.1):
                return

    def _do_stream(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nall is well\n" + b"padding " * 2048)
        while not self._closing.wait(0.1):
            connection.sendall(b"x")

    def _do_reset(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def _do_empty(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        connection.close()

    def _do_partial(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nall is")

    def _do_garbage(self, connection: socket.socket, verb: bytes, request: bytes) -> None:
        connection.sendall(b"-ERR unknown command 'GET'\r\n" * 3)


@contextlib.contextmanager
def peer(tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A peer on a port of its own, closed at the end."""
    made = Peer(tls)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Shell:
    """A shell whose PATH holds the base utilities and the tools that were chosen, nothing else."""

    argv: tuple[str, ...]
    path: Path

    def check(
        self,
        checks: Sequence[Mapping[str, Any]],
        attempts: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> tuple[CheckResult, ...]:
        """The results of `checks`, as a host with these tools finds them."""
        return parse(self.run(checks, attempts, env)[0].split("\n"))

    def run(
        self,
        checks: Sequence[Mapping[str, Any]],
        attempts: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> tuple[str, float]:
        """What the probe prints, and the seconds it took."""
        began = time.monotonic()
        command = CheckResults().command("none", list(checks), attempts=attempts).get_raw_value()
        with self.start(command, env) as process:
            try:
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        assert err == b"", err.decode(errors="replace")
        lines = checked(command, out.decode(errors="replace"))
        return "\n".join(lines), time.monotonic() - began

    def start(self, command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """The command, under way."""
        return subprocess.Popen(
            [*self.argv, "-c", command],
            env={"PATH": str(self.path), "HOME": "/nonexistent", "LANG": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def make_shell(directory: Path, *tools: str, shell: str = "dash", without: str = "") -> Shell:
    """A PATH in `directory` with `tools`; `busybox wget` means busybox under the name wget.

    With the shell `busybox` the base utilities are busybox's too.
    """
    directory.mkdir()
    for name in set(BASE) - set(without.split()):
        base = "busybox" if shell == "busybox" else name
        (directory / name).symlink_to(find(base))
    for tool in tools:
        program, _, applet = tool.partition(" ")
        name = applet or program
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(find(program))
    argv = (find("busybox"), "ash") if shell == "busybox" else (find(shell),)
    return Shell(argv, directory)
