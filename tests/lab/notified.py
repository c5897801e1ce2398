"""Who hears of runs: a target that keeps what it is sent, and one that never answers."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator


class Target:
    """What a server on loopback was sent."""

    def __init__(self, port: int) -> None:
        self.port = port
        #: The path and the body of each request, in their order.
        self.requests: list[tuple[str, str]] = []

    def list_bodies(self, path: str) -> list[str]:
        """The bodies that came to a path."""
        return [body for to, body in self.requests if to.startswith(path)]


@contextlib.contextmanager
def listening() -> Iterator[Target]:
    """A target that answers each request at once."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.requests.append((self.path, body.decode(errors="replace")))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Target(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


class Dead:
    """A target that accepts and never answers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.accepted: list[socket.socket] = []


@contextlib.contextmanager
def dead() -> Iterator[Dead]:
    """A target that takes connections, and what is sent, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Dead(server.getsockname()[1])
        server.settimeout(0.2)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    found.accepted.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield found
        finally:
            ended.set()
            thread.join()
            for connection in found.accepted:
                connection.close()
