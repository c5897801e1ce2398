"""The models room's host: a server in a container, its directory, and those who name models."""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from hypothesis import strategies as st

from stackmend.models.facts import ModelStore
from stackmend.models.spec import Name
from tests import hostile
from tests.unit.hostile_engine import compose_labels, container
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, at
from tests.unit.models_store import CONFIG, Store

_WEIGHTS = b"w" * 500
_MODEL = "registry.ollama.ai/library/tiny/latest"
_REQUEST = json.dumps({"project": "ai", "service": "ollama", "endpoint": "", "hashes": False})
_MARK = hostile.computed(_REQUEST)
_MODELS: dict[str, Any] = {
    "sections": (
        *("clock", "record", "engine", "container x", "api version", "said version", "reached"),
        *("directory", "place", "blobs", "manifests", "digests", "contents", "named", "complete"),
    ),
    "bodies": (
        "env OLLAMA_MODELS=/etc",
        "\nOLLAMA_MODELS=/etc\n",
        "\nmount /root/.ollama\t/etc\n",
        "\nworker OLLAMA_MODEL evil\n",
        f"\n500 8 1700000000 ./sha256-{'e' * 64}\n",
        f"\n1700000000 ./{_MODEL}\n",
        f"\n./{_MODEL}:{{}}\n",
        "127.0.0.1 1 ",
        "HTTP/1.1 500 no",
        '{"version": "9.9"}',
    ),
}


def _text(**more: Any) -> st.SearchStrategy[str]:
    return hostile.hostile_text(_MARK, **{**_MODELS, **more})


def _bytes(**more: Any) -> st.SearchStrategy[bytes]:
    return hostile.hostile_bytes(_MARK, **{**_MODELS, **more})


class Server:
    """What answers for the model server: whole answers, byte for byte, by path."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    self.wfile.write(server.answers.get(self.path, b"HTTP/1.0 404 no\r\n\r\n"))

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                """A client that was ended has lost nothing."""

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.port: int = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()


SERVER = Server()


def answer(body: Any, reason: str = "OK", header: str = "x", status: int = 200) -> bytes:
    """An answer over HTTP, with a header of its own."""
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    head = f"HTTP/1.1 {status} {reason}\r\nX-Note: {header}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _lay(host: HostileHost, values: Mapping[str, Any], mounted: bool = True) -> None:
    def of(slot: str, otherwise: Any) -> Any:
        return values.get(slot, otherwise)

    host.clear("var/lib", "home")
    store = Store(host.path("home/models"))
    config = json.dumps({**CONFIG, "model_family": of("family", "llama")}).encode()
    weights = store.blob(_WEIGHTS, "model")
    manifest = {"schemaVersion": 2, "config": store.blob(config, "config"), "layers": [weights]}
    place = f"home/models/manifests/{_MODEL}"
    host.write(place, json.dumps(manifest))
    host.write("home/models/manifests/registry.ollama.ai/library/odd/1", of("manifest", b"{}"))
    host.write(b"home/models/blobs/x" + of("name of a blob", b""), of("blob", b"nothing"))
    host.write(b"home/models/manifests/registry.ollama.ai/" + of("name", b"odd name"), b"{}")
    for path in host.path("home/models").rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    row = {
        "name": "tiny:latest",
        "size": 7,
        "expires_at": of("expiry", "2026"),
        "details": {"family": "x"},
    }
    other = {"name": of("name of a model", "/"), "size": 1}
    served = of("answer", {"models": [row, other]})
    note = of("header", "x")
    SERVER.answers = {
        "/api/version": answer({"version": of("version", "0.24.0")}, of("reason", "OK"), note),
        "/api/ps": answer({"models": [row]}, of("reason", "OK"), note),
        "/api/tags": answer(served, of("reason", "OK"), note),
    }
    # As df prints them, which puts a question mark for what would break its table.
    what, where = (
        "".join("?" if ord(part) < 32 else part for part in of(slot, "x"))
        for slot in ("what is mounted", "where it is mounted")
    )
    host.says(
        "df",
        "Filesystem     1024-blocks  Used Available Capacity Mounted on\n"
        f"x{what}              1024    24      1000       3% /{where}\n",
    )
    said = of("what the container says", b"")
    host.engine.runs = lambda *_: (said, b"", 0)
    host.engine.containers = [
        container(
            1,
            "ai-ollama-1",
            Config={
                "Env": [
                    f"OLLAMA_HOST=0.0.0.0:{SERVER.port}",
                    f"NOTE={of('variable of the server', 'x')}",
                    "HOME=/root",
                ],
                "Labels": {
                    **compose_labels("ai", "ollama"),
                    "note": of("label", "x"),
                },
            },
            HostConfig={"NetworkMode": "ai_default"},
            Mounts=[
                {
                    "Type": "bind",
                    "Destination": "/root/.ollama" if mounted else "/elsewhere",
                    "Source": str(host.path("home")),
                    "RW": True,
                },
                {
                    "Type": "bind",
                    "Destination": f"/x{of('mount', '')}",
                    "Source": f"/y{of('source of a mount', '')}",
                    "RW": True,
                },
            ],
            NetworkSettings={"Networks": {"ai_default": {"IPAddress": "127.0.0.1"}}},
        ),
        container(
            2,
            "ai-worker-1",
            Config={
                "Env": [
                    f"OLLAMA_MODEL={of('model of a worker', 'tiny')}",
                    f"NOTE={of('variable of a worker', 'x')}",
                ],
                "Labels": compose_labels("ai", of("service of a worker", "worker")),
            },
        ),
    ]


def _named(dump: Dump, value: str) -> None:
    (worker,) = dump["named"]
    names = {}
    for part in value.split(","):
        with contextlib.suppress(ValueError):
            names[Name.parse(part.strip())] = None
    dump["named"] = tuple({**worker, "name": name.model_dump()} for name in names)


def _service(dump: Dump, value: str) -> None:
    dump["named"] = tuple({**one, "service": value} for one in dump["named"])


def _is_name(text: str) -> bool:
    try:
        Name.parse(text)
    except ValueError:
        return False
    return True


def _unserved(dump: Dump, value: bytes) -> None:
    """Without its list nothing is known of what the server shows."""
    dump["models"][0]["served"] = None


def _unmeasured(dump: Dump, _: str) -> None:
    """What looks like numbers beside the numbers leaves none that is certain."""
    dump["free"] = None


def _family(dump: Dump, value: str) -> None:
    """Another text makes another config, and that another manifest."""
    dump["models"][0]["family"] = value


def _dump(state: Any) -> Dump:
    dump: Dump = state.model_dump()
    # A busybox that has df in itself measures this machine, which is larger than what is told here.
    dump["free"] = 1_024_000 if (dump["free"] or 0) > 1 << 30 else dump["free"]
    # The config's digest follows from what it says.
    for model in dump["models"]:
        model["digest"] = ""
        model["size"] = 0
        model["layers"] = len(model["layers"] or ())
    # The config's size, too.
    sizes = sorted((dump["blobs"] or {}).values())
    dump["blobs"] = (len(sizes), len(_WEIGHTS) in sizes)
    return dump


def _mounted() -> st.SearchStrategy[str]:
    bodies = (" 1 2 3 4% /", " 7 8 9", "\n9 9 9 9 9% /\n", " 1 2 3 - ")
    return hostile.hostile_text(bodies=bodies, longest=300)


MODELS = Room(
    name="models",
    facts=[(ModelStore, {"project": "ai"})],
    lay=_lay,
    scripts=frozenset({"models/probe.sh", "models/store.sh", "checks/attempt.sh"}),
    passing=frozenset({"now"}),
    programs={"df": 'cat "$say/df"'},
    dump=_dump,
    few=20,
    many=700,
    slots=[
        Slot("version", _text(), at("server", "version")),
        Slot("reason", _text(newlines=False, longest=500).map(lambda v: v.replace("\r", ""))),
        Slot("header", _text(newlines=False, longest=500).map(lambda v: v.replace("\r", ""))),
        Slot("answer", _bytes(nul=True), _unserved),
        Slot("expiry", _text(), at("loaded", 0, "expires")),
        Slot("name of a model", _text().filter(lambda value: not _is_name(value))),
        Slot(
            "family",
            _text(longest=1000).filter(lambda value: len(json.dumps(value)) < 2000 and value),
            _family,
        ),
        Slot("manifest", _bytes(nul=True)),
        Slot(
            "name of a blob",
            hostile.hostile_name(_MARK, **_MODELS).map(lambda name: name[:250]),
        ),
        Slot("name", hostile.hostile_name(_MARK, **_MODELS)),
        Slot("blob", _bytes(nul=True)),
        Slot("what is mounted", _mounted(), otherwise=_unmeasured),
        Slot("where it is mounted", _mounted(), otherwise=_unmeasured),
        Slot("variable of the server", _text()),
        Slot("label", hostile.hostile_label(_MARK, **_MODELS)),
        Slot("mount", _text(longest=1000)),
        Slot("source of a mount", _text(longest=1000)),
        Slot("model of a worker", _text(), _named),
        Slot("variable of a worker", _text()),
        Slot("service of a worker", _text(longest=1000), _service),
    ],
)


def _lay_inside(host: HostileHost, values: Mapping[str, Any]) -> None:
    _lay(host, values, mounted=False)


#: The directory is in the container alone, and told of by whatever its shell is.
INSIDE = Room(
    name="models inside",
    facts=[(ModelStore, {"project": "ai"})],
    lay=_lay_inside,
    scripts=frozenset({"models/probe.sh", "models/store.sh", "checks/attempt.sh"}),
    passing=frozenset({"now", "reason"}),
    dump=_dump,
    few=10,
    many=300,
    slots=[
        # The container has been given the mark of what it tells, and may tell what it likes of
        # its own directory.
        Slot("what the container says", _bytes(nul=True), refusable=True),
        Slot("variable of the server", _text()),
        Slot("label", hostile.hostile_label(_MARK, **_MODELS)),
    ],
)
