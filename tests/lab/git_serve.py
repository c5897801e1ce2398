"""A git server that misbehaves when told to: ``python3 git_serve.py DIRECTORY PORT``.

Serves the repositories below ``DIRECTORY`` with git's own ``http-backend``. The file ``fault`` in
it says what is wrong now: ``reset``, ``empty``, ``status CODE``, ``login USER:PASSWORD`` (others
get 401), ``cut BYTES...`` (once for each number: of all that it answers, so many bytes; then a
reset), ``hang``, or ``first N FAULT`` (the fault N times, then none); ``at PATH FAULT`` is one of
requests for that path alone. Each request is a line of ``requests``.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(sys.argv[1])
_lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        """Whatever is asked for."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._read_chunks())
        login = self.headers.get("Authorization") or "-"
        with _lock:
            fault = self._take_fault()
            with (ROOT / "requests").open("a") as log:
                log.write(f"{self.command} {self.path} {login} {fault or 'well'}\n")
        kind, _, value = fault.partition(" ")
        if kind == "reset":
            self._reset()
        elif kind == "hang":
            time.sleep(600)
        elif kind == "status":
            self.wfile.write(f"HTTP/1.0 {value} Fault\r\nContent-Length: 0\r\n\r\n".encode())
        elif kind == "login" and login != f"Basic {base64.b64encode(value.encode()).decode()}":
            self.wfile.write(b"HTTP/1.0 401 No\r\nWWW-Authenticate: Basic realm=lab\r\n\r\n")
        elif kind != "empty":
            answer = self._ask_git(body)
            if kind == "cut":
                self._cut(answer, *map(int, value.split()))
            else:
                self.wfile.write(answer)

    do_POST = do_GET

    def _take_fault(self) -> str:
        path = ROOT / "fault"
        fault, at = path.read_text().strip() if path.exists() else "", ""
        if fault.startswith("at "):
            _, where, fault = fault.split(" ", 2)
            at = f"at {where} "
            if self.path != where:
                return ""
        if fault.startswith("first "):
            _, left, rest = fault.split(" ", 2)
            path.write_text(f"{at}first {int(left) - 1} {rest}" if int(left) > 1 else "")
            return rest
        return fault

    def _read_chunks(self) -> list[bytes]:
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        return chunks

    def _ask_git(self, body: bytes) -> bytes:
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(ROOT),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
        )
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        status = b"200 OK"
        lines = []
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"status: "):
                status = line[8:]
            else:
                lines.append(line)
        lines.append(f"Content-Length: {len(rest)}".encode())
        return b"HTTP/1.0 " + status + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + rest

    def _cut(self, answer: bytes, limit: int, *later: int) -> None:
        with _lock:
            path = ROOT / "sent"
            sent = int(path.read_text()) if path.exists() else 0
            over = sent + len(answer) > limit
            path.write_text(str(0 if over else sent + len(answer)))
            if over:
                left = " ".join(map(str, later))
                (ROOT / "fault").write_text(f"cut {left}" if left else "")
        if sent + len(answer) <= limit:
            self.wfile.write(answer)
            return
        self.wfile.write(answer[: max(0, limit - sent)])
        self.wfile.flush()
        time.sleep(0.05)
        self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # What still refers to the socket would keep it open.
        with contextlib.suppress(OSError):
            os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
