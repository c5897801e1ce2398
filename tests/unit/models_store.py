"""A directory of models and a server of this process, for tests of what is read of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stackmend.models.spec import Name
from stackmend.models.state import Place, StoredModel, StoreState

CONFIG = {
    "model_format": "gguf",
    "model_family": "llama",
    "model_type": "1.2B",
    "file_type": "Q4_K_M",
}


class Store:
    """A directory of models as Ollama lays it out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self.path(digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def path(self, digest: str) -> Path:
        return self.root / "blobs" / f"sha256-{digest.removeprefix('sha256:')}"

    def model(self, path: str, weights: bytes) -> tuple[str, str]:
        """The digests of the manifest and of the weights."""
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(json.dumps(CONFIG).encode(), "config"),
            "layers": [self.blob(weights, "model")],
        }
        place = self.root / "manifests" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        raw = json.dumps(manifest, indent=1).encode()
        place.write_bytes(raw)
        return hashlib.sha256(raw).hexdigest(), manifest["layers"][0]["digest"]


class Peer:
    """A server of this process; ``answers`` holds status and body by path."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            "/api/version": (200, {"version": "0.24.0"}),
            "/api/ps": (200, {"models": []}),
            "/api/tags": (200, {"models": []}),
        }
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = peer.answers.get(self.path, (404, "404 page not found"))
                data = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def shows(self, **models: str) -> None:
        rows = [{"name": name, "digest": digest, "size": 7} for name, digest in models.items()]
        self.answers["/api/tags"] = (200, {"models": rows})


@contextlib.contextmanager
def serving(peer: Peer) -> Iterator[Peer]:
    """It answers while the block runs."""
    threading.Thread(target=peer.server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield peer
    finally:
        peer.server.shutdown()
        peer.server.server_close()


def named(state: StoreState, text: str) -> StoredModel:
    found = state.find_model(Name.parse(text))
    assert found is not None
    return found


def blob_path(place: Place, digest: str) -> Path:
    """The file of a blob."""
    return Path(place.path, "blobs", digest.replace(":", "-"))


def manifest_path(place: Place, name: Name) -> Path:
    """The file of a model's manifest."""
    return Path(place.path, "manifests", name.path)
