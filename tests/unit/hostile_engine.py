"""An engine's API on a socket, for the real client: containers, images and networks as one says.

What the engine answers is data of the test; what a probe then reads was written by Docker's own
client, so that no format of it has to be imitated.
"""

from __future__ import annotations

import json
import re
import socketserver
import struct
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LABEL = "com.docker.compose."


def container(number: int, name: str, **more: Any) -> dict[str, Any]:
    """A container as `docker inspect` shows it."""
    made: dict[str, Any] = {
        "Id": f"{number:x}" * 64,
        "Name": f"/{name}",
        "Created": "2026-01-01T00:00:00Z",
        "Path": "/bin/sh",
        "Args": [],
        "Image": f"sha256:{'a' * 64}",
        "RestartCount": 0,
        "Mounts": [],
        "State": {
            "Status": "running",
            "Running": True,
            "Pid": 1,
            "ExitCode": 0,
            "Error": "",
            "OOMKilled": False,
            "StartedAt": "2026-01-01T00:00:00.123456789Z",
        },
        "Config": {
            "Hostname": f"{number:x}" * 12,
            "Image": "lab/box:1",
            "Env": ["PATH=/bin"],
            "Cmd": ["serve"],
            "Labels": {},
            "User": "",
            "WorkingDir": "",
        },
        "HostConfig": {
            "NetworkMode": "shop_default",
            "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
            "AutoRemove": False,
        },
        "NetworkSettings": {"Networks": {}, "Ports": {}},
    }
    for key, value in more.items():
        if isinstance(value, dict):
            made[key] = {**made[key], **value}
        else:
            made[key] = value
    return made


def compose_labels(project: str, service: str, **more: str) -> dict[str, str]:
    """The labels that Compose gives to a container."""
    labels = {
        "project": project,
        "service": service,
        "container-number": "1",
        "oneoff": "False",
        "config-hash": "f" * 64,
        "image": f"sha256:{'a' * 64}",
        "project.working_dir": f"/opt/{project}",
        **more,
    }
    return {LABEL + key: value for key, value in labels.items()}


class Engine:
    """What the engine has. To be changed only while nobody asks."""

    def __init__(self, path: Path) -> None:
        self.containers: list[dict[str, Any]] = []
        self.images: dict[str, dict[str, Any]] = {}
        self.networks: list[dict[str, Any]] = []
        #: What each container has written, whatever is asked of it.
        self.log = b""
        #: What a command in a container writes: from its argv and standard input.
        self.runs: Callable[[list[str], bytes], tuple[bytes, bytes, int]] = lambda *_: (b"", b"", 0)
        self.problem: tuple[int, str] | None = None
        #: What it says of itself, beside its name and its directory.
        self.info: dict[str, Any] = {}
        self._execs: dict[str, tuple[list[str], bool]] = {}
        self._statuses: dict[str, int] = {}
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "client"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                split = urlsplit(self.path)
                path = re.sub(r"^/v[0-9.]+", "", unquote(split.path))
                query = {key: values[0] for key, values in parse_qs(split.query).items()}
                self.say(*engine.answer(path, query))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = re.sub(r"^/v[0-9.]+", "", unquote(urlsplit(self.path).path))
                if match := re.fullmatch(r"/containers/([^/]+)/exec", path):
                    asked = json.loads(body)
                    id_ = f"{len(engine._execs):064x}"
                    engine._execs[id_] = (asked["Cmd"], bool(asked.get("AttachStdin")))
                    self.say(201, {"Id": id_, "For": match[1]})
                elif match := re.fullmatch(r"/exec/([^/]+)/start", path):
                    self.carry(match[1])
                else:
                    self.say(404, {"message": "page not found"})

            def carry(self, id_: str) -> None:
                """Take over the connection, as the engine does for what is attached."""
                upgrade = (
                    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream"
                )
                self.wfile.write(upgrade + b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                command, attached = engine._execs[id_]
                given = (
                    b"".join(iter(lambda: self.connection.recv(65536), b"")) if attached else b""
                )
                out, err, engine._statuses[id_] = engine.runs(command, given)
                for stream, data in ((1, out), (2, err)):
                    if data:
                        self.wfile.write(struct.pack(">BxxxL", stream, len(data)) + data)
                self.close_connection = True

            def say(self, status: int, answer: Any) -> None:
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Api-Version", "1.43")
                self.send_header("Ostype", "linux")
                self.send_header("Server", "Docker/24.0.9 (linux)")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """A client that was ended has lost nothing."""

        path.parent.mkdir(parents=True, exist_ok=True)
        self._server = Server(str(path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Status and body of a GET."""
        if path == "/_ping":
            return 200, b"OK"
        if self.problem is not None:
            return self.problem[0], {"message": self.problem[1]}
        if path == "/version":
            return 200, {"Version": "24.0.9", "ApiVersion": "1.43", "Os": "linux", "Arch": "amd64"}
        if path == "/info":
            return 200, {
                "OperatingSystem": "Debian",
                "DockerRootDir": "/home/engine",
                **self.info,
            }
        if path == "/containers/json":
            filters = json.loads(query.get("filters") or "{}")
            everyone = query.get("all") in ("1", "true")
            return 200, [
                _listed(one)
                for one in self.containers
                if (everyone or one["State"]["Running"]) and _kept(one, filters)
            ]
        if match := re.fullmatch(r"/exec/([^/]+)/json", path):
            status = self._statuses.get(match[1], 0)
            return 200, {"ID": match[1], "Running": False, "ExitCode": status}
        if match := re.fullmatch(r"/containers/([^/]+)/json", path):
            for one in self.containers:
                if one["Id"].startswith(match[1]) or one["Name"] == f"/{match[1]}":
                    return 200, one
            return 404, {"message": f"No such container: {match[1]}"}
        if re.fullmatch(r"/containers/[^/]+/logs", path):
            lines = (b"2026-01-01T00:00:00.000000000Z " + line for line in self.log.split(b"\n"))
            return 200, b"".join(
                struct.pack(">BxxxL", 1, len(line) + 1) + line + b"\n" for line in lines
            )
        if match := re.fullmatch(r"/images/(.+)/json", path):
            for name, image in self.images.items():
                if match[1] in (name, image["Id"]):
                    return 200, image
            return 404, {"message": f"No such image: {match[1]}"}
        if path == "/volumes":
            return 200, {"Volumes": [], "Warnings": None}
        if path == "/networks":
            filters = json.loads(query.get("filters") or "{}")
            return 200, [one for one in self.networks if _labelled(one.get("Labels"), filters)]
        if match := re.fullmatch(r"/networks/([^/]+)", path):
            for one in self.networks:
                if one["Id"].startswith(match[1]) or one["Name"] == match[1]:
                    return 200, one
        return 404, {"message": "page not found"}


def _wanted(filters: dict[str, Any], key: str) -> Sequence[str]:
    found = filters.get(key) or {}
    return [name for name, on in found.items() if on] if isinstance(found, dict) else found


def _labelled(labels: Any, filters: dict[str, Any]) -> bool:
    known = labels or {}
    for wanted in _wanted(filters, "label"):
        key, equals, value = wanted.partition("=")
        if key not in known or (equals and known[key] != value):
            return False
    return True


def _kept(one: dict[str, Any], filters: dict[str, Any]) -> bool:
    if not _labelled(one["Config"]["Labels"], filters):
        return False
    if any(not re.search(wanted, one["Name"]) for wanted in _wanted(filters, "name")):
        return False
    ports = {port for _, port in _published(one)}
    return not (wanted := _wanted(filters, "publish")) or any(
        port.partition("/")[0] in ports for port in wanted
    )


def _published(one: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (inner, binding["HostPort"])
        for inner, bindings in one["NetworkSettings"]["Ports"].items()
        for binding in bindings or ()
    ]


def _listed(one: dict[str, Any]) -> dict[str, Any]:
    """A container as the engine lists it."""
    ports = [
        {
            "IP": binding.get("HostIp") or "0.0.0.0",
            "PrivatePort": int(inner.partition("/")[0]),
            "PublicPort": int(binding["HostPort"]),
            "Type": inner.partition("/")[2],
        }
        for inner, bindings in one["NetworkSettings"]["Ports"].items()
        for binding in bindings or ()
    ]
    return {
        "Id": one["Id"],
        "Names": [one["Name"]],
        "Image": one["Config"]["Image"],
        "ImageID": one["Image"],
        "Command": " ".join(one["Config"]["Cmd"] or ()),
        "Created": 1_700_000_000,
        "Ports": ports,
        "Labels": one["Config"]["Labels"],
        "State": one["State"]["Status"],
        "Status": "Up 5 minutes",
        "HostConfig": {"NetworkMode": one["HostConfig"]["NetworkMode"]},
        "NetworkSettings": {"Networks": one["NetworkSettings"]["Networks"]},
        "Mounts": one["Mounts"],
    }
