"""The registry's HTTP routes, and those by which the lab sets it (`/_lab/…`)."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from server.library import MANIFEST_TYPE, NoModel

from registry.faults import Fault, Faults
from registry.store import Store

_TOKEN = "lab-token"
_ROUTE = re.compile(
    r"/v2/(?P<repository>[^/]+/[^/]+)/(?P<kind>manifests|blobs|tags)/(?P<reference>[^/]+)"
)
_STORAGE = re.compile(r"/storage/(?P<repository>[^/]+/[^/]+)/(?P<digest>[^/]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK = 1 << 17
_NO_LINGER, _RESET = struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)


@dataclass
class State:
    """What the requests share.

    + private: `token` or `denied` by repository; the rest is open
    + log: of the requests, the first first
    """

    store: Store
    faults: Faults = field(default_factory=Faults)
    private: dict[str, str] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    """A server on a port.

    + tls: its certificate, if it speaks TLS
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, state: State, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("0.0.0.0", port), Handler)
        self.state = state
        self.tls = tls

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # What lies in a buffer counts as sent, and whoever has left never got it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK)
        if self.tls:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        # An orderly end would come before the reset that closing such a socket sends.
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) != _NO_LINGER:
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no error."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    # What is no request at all, a TLS handshake say, is answered like one of HTTP.
    default_request_version = "HTTP/1.0"
    timeout = 660

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/_lab/log":
            self._json(200, self.server.state.log)
            return
        self._said: dict[str, Any] = {
            "method": self.command,
            "path": self.path,
            "model": "",
            "on": "",
            "range": self.headers.get("Range", ""),
            "status": 0,
            "sent": 0,
            "peer": self.client_address[0],
            "begun": time.time(),
        }
        self.server.state.log.append(self._said)
        if path in ("/v2", "/v2/"):
            self._json(200, {})
        elif path == "/v2/_catalog":
            self._json(200, {"repositories": list(self.server.state.store.repositories())})
        elif path == "/token":
            self._json(200, {"token": _TOKEN})
        elif match := _ROUTE.fullmatch(path):
            self._of_repository(**match.groupdict())
        elif match := _STORAGE.fullmatch(path):
            self._said.update(model=match["repository"], on="storage")
            self._content(match["digest"])
        else:
            self._error(404, "NOT_FOUND", "no such route")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = json.loads(body or b"{}")
        state = self.server.state
        match urlsplit(self.path).path:
            case "/_lab/push":
                return self._json(200, state.store.push(**asked))
            case "/_lab/remove":
                with contextlib.suppress(NoModel):
                    state.store.remove(**asked)
            case "/_lab/fault":
                if asked["on"] != "manifest":
                    asked["target"] = self._digest(asked["target"])
                state.faults.add(Fault(**asked))
            case "/_lab/rate":
                target = self._digest(asked["target"])
                if asked["rate"]:
                    state.faults.rates[target] = asked["rate"]
                else:
                    state.faults.rates.pop(target, None)
            case "/_lab/clear":
                state.faults.clear()
                state.private.clear()
            case "/_lab/private":
                state.private[asked["repository"]] = asked["how"]
            case "/_lab/forget":
                state.log.clear()
            case _:
                return self._error(404, "NOT_FOUND", "no such route")
        return self._json(200, {})

    def _digest(self, target: str) -> str:
        named = target and not target.startswith("sha256:")
        return self.server.state.store.weights(target) if named else target

    def _of_repository(self, repository: str, kind: str, reference: str) -> None:
        state = self.server.state
        name = f"{repository}:{reference}" if kind == "manifests" else repository
        self._said.update(model=name, on={"manifests": "manifest", "blobs": "blob"}.get(kind, ""))
        how = state.private.get(repository)
        known = self.headers.get("Authorization", "") == f"Bearer {_TOKEN}"
        if how == "denied" or (how and not known):
            scheme = "https" if self.server.tls else "http"
            realm = f"{scheme}://{self.headers['Host']}/token"
            service, scope = self.headers["Host"], f"repository:{repository}:pull"
            challenge = f'Bearer realm="{realm}",service="{service}",scope="{scope}"'
            headers = {"WWW-Authenticate": challenge}
            return self._error(401, "UNAUTHORIZED", "authentication required", headers)
        if kind == "tags":
            tags = state.store.repositories().get(repository)
            if tags is None:
                return self._error(404, "NAME_UNKNOWN", "repository name not known to registry")
            return self._json(200, {"name": repository, "tags": tags})
        if kind == "manifests":
            return self._manifest(repository, reference)
        return self._blob(repository, reference)

    def _manifest(self, repository: str, tag: str) -> None:
        fault = self.server.state.faults.take(f"{repository}:{tag}", "manifest")
        raw = self.server.state.store.manifest(repository, tag)
        if fault and fault.kind == "status":
            return self._answer(fault.status, fault.body.encode(), {})
        if fault and fault.kind == "stall":
            return self._stall()
        if fault:
            return self._break_off(reset=fault.kind == "reset")
        if raw is None:
            return self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return self._answer(200, raw, {"Content-Type": MANIFEST_TYPE})

    def _blob(self, repository: str, digest: str) -> None:
        path = self.server.state.store.blob(digest)
        fault = self.server.state.faults.take(digest, "blob")
        if fault and fault.kind == "status":
            return self._answer(fault.status, fault.body.encode(), {})
        if path is None:
            return self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.command == "HEAD":
            self._begin(200, {"Content-Length": str(path.stat().st_size)})
            return None
        # Where content is, is another host's name, as it is with the real registry.
        host = self.headers["Host"].replace("registry", "storage").replace("127.0.0.1", "localhost")
        where = f"{'https' if self.server.tls else 'http'}://{host}"
        return self._answer(307, b"", {"Location": f"{where}/storage/{repository}/{digest}"})

    def _content(self, digest: str) -> None:
        state = self.server.state
        path = state.store.blob(digest)
        if path is None:
            return self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        size = path.stat().st_size
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        end = min(int(match[2] or size - 1) + 1, size) if match else size
        if start >= end and size:
            return self._answer(416, b"", {"Content-Range": f"bytes */{size}"})
        fault = state.faults.take(digest, "storage", start, end)
        if fault and fault.kind == "status":
            return self._answer(fault.status, fault.body.encode(), {})
        headers = {
            "Content-Length": str(end - start),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Location": self.path,
        }
        if match:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._begin(206 if match else 200, headers)
        if self.command == "HEAD":
            return None
        ends_early = fault is not None and fault.kind != "mismatch"
        flipped = fault.at if fault and fault.kind == "mismatch" else None
        self._send(path, digest, start, fault.at if fault and ends_early else end, flipped)
        if fault and fault.kind == "stall":
            return self._stall()
        if fault and ends_early:
            return self._break_off(reset=fault.kind == "reset")
        return None

    def _send(self, path: Path, digest: str, start: int, end: int, flipped: int | None) -> None:
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                rate = self.server.state.faults.rate(digest)
                # A tenth of a second's worth, so that a slow sender is a steady one.
                most = _CHUNK if rate is None else max(1, min(_CHUNK, int(rate / 10)))
                chunk = bytearray(file.read(min(most, end - start)))
                if flipped is not None and start <= flipped < start + len(chunk):
                    chunk[flipped - start] ^= 0xFF
                begun = time.monotonic()
                self.connection.sendall(chunk)
                start += len(chunk)
                self._said["sent"] += len(chunk)
                if rate:
                    time.sleep(max(0.0, begun + len(chunk) / rate - time.monotonic()))

    def _stall(self) -> None:
        """Say no more, until the client has left or faults are cleared."""
        self.close_connection = True
        over = self.server.state.faults.over
        self.connection.settimeout(0.1)
        while not over.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _break_off(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._answer(status, body, {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._begin(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        if not self.path.startswith("/_lab/"):
            self._said["status"] = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The lab reads `/_lab/log`."""
