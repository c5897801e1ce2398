"""Models on the disk, laid out as Ollama does.

    manifests/<host>/<namespace>/<model>/<tag>   JSON, as a registry serves it
    blobs/sha256-<hex>                           config and layers

A model's digest is the sha256 of its manifest's bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from server import gguf

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
MODEL_LAYER = "application/vnd.ollama.image.model"
TEMPLATE_LAYER = "application/vnd.ollama.image.template"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


class BadName(ValueError):
    """What was given is no name of a model."""


class BadDigest(ValueError):
    """What was given is no digest, or not that of the content."""


class NoModel(LookupError):
    """There is no model of that name."""


@dataclass(frozen=True)
class Name:
    """A model's full name.

    >>> str(Name.parse("tiny"))
    'tiny:latest'
    >>> str(Name.parse("registry:5000/team/tiny:1b"))
    'registry:5000/team/tiny:1b'
    """

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `[host/namespace/]model[:tag]`. Raises `BadName`."""
        path, colon, tag = text.rpartition(":")
        if not colon or "/" in tag:
            path, tag = text, TAG
        parts = path.split("/")
        if len(parts) > 3:
            raise BadName(text)
        host, namespace, model = [*(HOST, NAMESPACE)[: 3 - len(parts)], *parts]
        if not _HOST.fullmatch(host) or not all(
            _PART.fullmatch(part) for part in (namespace, model, tag)
        ):
            raise BadName(text)
        return cls(host, namespace, model, tag)

    def __str__(self) -> str:
        shown = f"{self.model}:{self.tag}"
        if self.host != HOST:
            return f"{self.host}/{self.namespace}/{shown}"
        return shown if self.namespace == NAMESPACE else f"{self.namespace}/{shown}"


@dataclass(frozen=True)
class Model:
    """A model that is there.

    + name: its name
    + manifest: the parsed manifest
    + digest: sha256 of the manifest's bytes, in hex
    + modified: seconds since 1970
    + config: the parsed config
    + weights: the GGUF file
    + template: how a prompt is rendered
    """

    name: Name
    manifest: dict[str, Any]
    digest: str
    modified: float
    config: dict[str, Any]
    weights: Path
    template: str

    @property
    def size(self) -> int:
        """Bytes of the config and all layers."""
        return sum(layer["size"] for layer in (self.manifest["config"], *self.manifest["layers"]))


class Library:
    """The models under a directory, which is created.

    + root: such as `/root/.ollama/models`
    """

    def __init__(self, root: Path) -> None:
        self._manifests = root / "manifests"
        self._blobs = root / "blobs"
        self._manifests.mkdir(parents=True, exist_ok=True)
        self._blobs.mkdir(parents=True, exist_ok=True)

    def get(self, text: str) -> Model:
        """Return a model by its name. Raises `BadName`, `NoModel`."""
        name = Name.parse(text)
        try:
            return self._read(name)
        except FileNotFoundError:
            raise NoModel(text) from None

    def models(self) -> list[Model]:
        """Return all models, the latest modified first; those without a config are left out."""
        found = []
        for path in self._manifests.glob("*/*/*/*"):
            try:
                found.append(self._read(Name(*path.relative_to(self._manifests).parts)))
            except (FileNotFoundError, ValueError):
                continue
        return sorted(found, key=lambda model: model.modified, reverse=True)

    def blob(self, digest: str) -> Path:
        """Return where the blob of a digest lies or would lie. Raises `BadDigest`."""
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise BadDigest(digest)
        return self._blobs / f"sha256-{match[1]}"

    def put(self, chunks: Iterable[bytes], digest: str | None = None) -> dict[str, Any]:
        """Store a blob; return its `digest` and `size`.

        Raises `BadDigest` where the content is not that of `digest`, and stores nothing then.
        """
        with tempfile.NamedTemporaryFile(dir=self._blobs, delete=False) as file:
            known, size = hashlib.sha256(), 0
            for chunk in chunks:
                file.write(chunk)
                known.update(chunk)
                size += len(chunk)
        found = f"sha256:{known.hexdigest()}"
        if digest is not None and self.blob(digest) != self.blob(found):
            Path(file.name).unlink()
            raise BadDigest(f"digest mismatch, expected {digest!r}, got {found!r}")
        Path(file.name).chmod(0o644)
        Path(file.name).replace(self.blob(found))
        return {"digest": found, "size": size}

    def create(self, text: str, weights: str, template: str = "{{ .Prompt }}") -> Model:
        """Make a model of a GGUF that was `put`.

        + text: the model's name
        + weights: the blob's digest
        Raises `BadName`, `BadDigest`, `FileNotFoundError`, `gguf.NotGGUF`.
        """
        name = Name.parse(text)
        path = self.blob(weights)
        header = gguf.read(path)
        layers = [
            {"mediaType": MODEL_LAYER, "digest": weights, "size": path.stat().st_size},
            {"mediaType": TEMPLATE_LAYER, **self.put([template.encode()])},
        ]
        config = {
            "model_format": "gguf",
            "model_family": header.family,
            "model_families": [header.family],
            "model_type": header.parameter_size,
            "file_type": header.quantization,
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, **self.put([_json(config)])},
            "layers": layers,
        }
        self.write(name, _json(manifest))
        return self._read(name)

    def write(self, name: Name, manifest: bytes) -> None:
        """Make a manifest, whose blobs are there, that of a name."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._blobs, delete=False) as file:
            file.write(manifest)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)

    def copy(self, source: str, destination: str) -> None:
        """Give a model a second name. Raises `BadName`, `NoModel`."""
        name = Name.parse(destination)
        model = self.get(source)
        self.write(name, self._path(model.name).read_bytes())

    def delete(self, text: str) -> None:
        """Remove a name, and the blobs that no other name needs. Raises `BadName`, `NoModel`."""
        model = self.get(text)
        self._path(model.name).unlink()
        needed = {digest for other in self.models() for digest in _digests(other.manifest)}
        for digest in _digests(model.manifest) - needed:
            self.blob(digest).unlink(missing_ok=True)

    def _path(self, name: Name) -> Path:
        return self._manifests / name.host / name.namespace / name.model / name.tag

    def _read(self, name: Name) -> Model:
        path = self._path(name)
        raw = path.read_bytes()
        manifest = json.loads(raw)
        layers = {layer["mediaType"]: self.blob(layer["digest"]) for layer in manifest["layers"]}
        template = layers.get(TEMPLATE_LAYER)
        return Model(
            name=name,
            manifest=manifest,
            digest=hashlib.sha256(raw).hexdigest(),
            modified=path.stat().st_mtime,
            config=json.loads(self.blob(manifest["config"]["digest"]).read_bytes()),
            weights=layers[MODEL_LAYER],
            template=template.read_text() if template else "{{ .Prompt }}",
        )


def _digests(manifest: dict[str, Any]) -> set[str]:
    return {layer["digest"] for layer in (manifest["config"], *manifest["layers"])}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
