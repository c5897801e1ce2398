"""What the registry has: models made of the tiny one, each with content of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.library import MODEL_LAYER, Library, Name

_HOST = "registry"
_CHUNK = 1 << 20


class Store:
    """The models under a directory.

    + root: such as `/srv/models`
    + tiny: the library that has the model called `tiny`
    """

    def __init__(self, root: Path, tiny: Library) -> None:
        self._root = root
        self._library = Library(root)
        self._weights = tiny.get("tiny").weights.read_bytes()

    def push(self, name: str, size: int | None, seed: int) -> dict[str, Any]:
        """Make a model, or another one under the same name.

        + name: `namespace/model:tag`
        + size: bytes of its weights' blob at least; the tiny model's own where it is less
        + seed: what its content is random by
        Returns its `digest` and its `layers`, the config last.
        """
        layer = {"mediaType": MODEL_LAYER, **self._library.put(self._content(size or 0, seed))}
        said = {
            "template": "{{ .Prompt }}",
            "license": f"made by the lab of the number {seed}\n",
            "parameters": {"stop": ["<|end|>"]},
        }
        model = self._library.create(_name(name), [layer], said)
        layers = [*model.manifest["layers"], model.manifest["config"]]
        raw = self.manifest(*name.rsplit(":", 1))
        return {"digest": model.digest, "layers": layers, "manifest": (raw or b"").decode()}

    def remove(self, name: str) -> None:
        """Forget a tag, and the blobs that no other needs."""
        self._library.delete(f"{_HOST}/{name}")

    def manifest(self, repository: str, tag: str) -> bytes | None:
        """Return the bytes of a manifest; none where there is no such tag."""
        path = self._root / "manifests" / _HOST / repository / tag
        return path.read_bytes() if path.is_file() else None

    def blob(self, digest: str) -> Path | None:
        """Return the file of a blob; none where there is none."""
        path = self._library.blob(digest)
        return path if path.is_file() else None

    def weights(self, name: str) -> str:
        """Return the digest of a model's weights."""
        manifest = json.loads(self.manifest(*name.rsplit(":", 1)) or b'{"layers": []}')
        layers = (layer for layer in manifest["layers"] if layer["mediaType"] == MODEL_LAYER)
        return str(next(layers)["digest"])

    def repositories(self) -> dict[str, list[str]]:
        """Return the tags by repository."""
        found: dict[str, list[str]] = {}
        for path in sorted((self._root / "manifests" / _HOST).glob("*/*/*")):
            namespace, model, tag = path.parts[-3:]
            found.setdefault(f"{namespace}/{model}", []).append(tag)
        return found

    def _content(self, size: int, seed: int) -> Iterator[bytes]:
        """The tiny model, and what no engine reads behind it."""
        yield self._weights
        source = random.Random(seed)
        missing = max(16, size - len(self._weights))
        while missing:
            yield source.randbytes(min(_CHUNK, missing))
            missing -= min(_CHUNK, missing)


def _name(text: str) -> Name:
    return Name.parse(f"{_HOST}/{text}")
