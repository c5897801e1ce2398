"""Models on the disk, laid out as Ollama does.

    manifests/<host>/<namespace>/<model>/<tag>   JSON, as a registry serves it
    blobs/sha256-<hex>                           config and layers

A model's digest is the sha256 of its manifest's bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from server import gguf

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
MODEL_LAYER = "application/vnd.ollama.image.model"
TEMPLATE_LAYER = "application/vnd.ollama.image.template"
SYSTEM_LAYER = "application/vnd.ollama.image.system"
LICENSE_LAYER = "application/vnd.ollama.image.license"
PARAMETERS_LAYER = "application/vnd.ollama.image.params"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"

UNUSED_KEPT = 3600.0
"""Seconds that a start of the server leaves blobs alone which no manifest names."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
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
        for rule, part in ((_HOST, host), (_NAMESPACE, namespace), (_PART, model), (_PART, tag)):
            if not rule.fullmatch(part):
                raise BadName(text)
        return cls(host, namespace, model, tag)

    @property
    def path(self) -> str:
        """Where its manifest lies below `manifests/`, and what a registry calls it."""
        return f"{self.host}/{self.namespace}/{self.model}/{self.tag}"

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
    + files: its layers' blobs by media type
    """

    name: Name
    manifest: dict[str, Any]
    digest: str
    modified: float
    config: dict[str, Any]
    files: dict[str, Path]

    @property
    def weights(self) -> Path:
        """The GGUF file."""
        return self.files[MODEL_LAYER]

    @property
    def template(self) -> str:
        """How a prompt is rendered."""
        return self.text(TEMPLATE_LAYER) or "{{ .Prompt }}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The options that it comes with."""
        found: dict[str, Any] = json.loads(self.text(PARAMETERS_LAYER) or "{}")
        return found

    def text(self, kind: str) -> str:
        """Return what the layer of a media type says; nothing where there is none."""
        return self.files[kind].read_text() if kind in self.files else ""

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
        name = self.existing(Name.parse(text))
        try:
            return self._read(name)
        except FileNotFoundError:
            raise NoModel(text) from None

    def existing(self, name: Name) -> Name:
        """Return the name in the spelling that it has here: Ollama does not mind the case."""
        folded = name.path.lower()
        for path in self._manifests.glob("*/*/*/*"):
            here = str(path.relative_to(self._manifests))
            if here.lower() == folded:
                return Name(*here.split("/"))
        return name

    def models(self) -> list[Model]:
        """Return all models, the latest modified first; those without a config are left out."""
        found = []
        for path in self._manifests.glob("*/*/*/*"):
            try:
                found.append(self._read(Name(*path.relative_to(self._manifests).parts)))
            except (OSError, ValueError, LookupError):
                continue
        return sorted(found, key=lambda model: model.modified, reverse=True)

    def digests(self, name: Name) -> set[str]:
        """Return the digests that a name's manifest names; none where it has no readable one."""
        try:
            return _digests(json.loads(self._path(name).read_bytes()))
        except (OSError, ValueError, LookupError):
            return set()

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
        with tempfile.NamedTemporaryFile(dir=self._blobs, prefix="sha256-", delete=False) as file:
            kept = Path(file.name)
            try:
                known, size = hashlib.sha256(), 0
                for chunk in chunks:
                    file.write(chunk)
                    known.update(chunk)
                    size += len(chunk)
                file.flush()
                found = f"sha256:{known.hexdigest()}"
                if digest is not None and self.blob(digest) != self.blob(found):
                    raise BadDigest(f"digest mismatch, expected {digest!r}, got {found!r}")
            except BaseException:
                kept.unlink()
                raise
        kept.chmod(0o644)
        kept.replace(self.blob(found))
        return {"digest": found, "size": size}

    def create(self, name: Name, layers: list[dict[str, Any]], said: Mapping[str, Any]) -> Model:
        """Make a model of layers whose blobs are there, and of what a request says besides.

        + name: the model's
        + layers: as a manifest has them; their sizes are looked up
        + said: the `template`, `system`, `parameters` and `license`, in place of those of `layers`
        Raises `BadDigest`, `FileNotFoundError`, `gguf.NotGGUF`.
        """
        for kind, value in (
            (TEMPLATE_LAYER, said.get("template")),
            (SYSTEM_LAYER, said.get("system")),
            (LICENSE_LAYER, said.get("license")),
            (PARAMETERS_LAYER, said.get("parameters")),
        ):
            if value:
                content = value.encode() if isinstance(value, str) else _json(value)
                layers = [layer for layer in layers if layer["mediaType"] != kind]
                layers.append({"mediaType": kind, **self.put([content])})
        layers = [{**layer, "size": self.blob(layer["digest"]).stat().st_size} for layer in layers]
        weights = next(layer for layer in layers if layer["mediaType"] == MODEL_LAYER)
        header = gguf.read(self.blob(weights["digest"]))
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
        name = self.existing(Name.parse(destination))
        path = self._path(self.existing(Name.parse(source)))
        try:
            self.write(name, path.read_bytes())
        except FileNotFoundError:
            raise NoModel(source) from None

    def delete(self, text: str) -> None:
        """Remove a name, and the blobs that no other name needs. Raises `BadName`, `NoModel`."""
        name = self.existing(Name.parse(text))
        digests = self.digests(name)
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise NoModel(text) from None
        _remove_empty(path.parent, self._manifests)
        self.remove_unused(digests)

    def remove_unused(self, digests: set[str]) -> None:
        """Remove those of the blobs that no manifest names."""
        for digest in digests - self._needed():
            self.blob(digest).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what no manifest names and what is left of pulls, where it is older than an hour.

        The server does it when it starts, unless OLLAMA_NOPRUNE is set or a manifest is unreadable.
        """
        if not all(_is_json(path) for path in self._manifests.glob("*/*/*/*")):
            return
        needed = {self.blob(digest).name for digest in self._needed()}
        for path in self._blobs.iterdir():
            with contextlib.suppress(FileNotFoundError):
                old = time.time() - path.stat().st_mtime >= UNUSED_KEPT
                if old and path.is_file() and path.name not in needed:
                    path.unlink()

    def _needed(self) -> set[str]:
        names = (path.relative_to(self._manifests) for path in self._manifests.glob("*/*/*/*"))
        return {digest for name in names for digest in self.digests(Name(*name.parts))}

    def _path(self, name: Name) -> Path:
        return self._manifests / name.path

    def _read(self, name: Name) -> Model:
        path = self._path(name)
        raw = path.read_bytes()
        manifest = json.loads(raw)
        layers = {layer["mediaType"]: self.blob(layer["digest"]) for layer in manifest["layers"]}
        return Model(
            name=name,
            manifest=manifest,
            digest=hashlib.sha256(raw).hexdigest(),
            modified=path.stat().st_mtime,
            config=json.loads(self.blob(manifest["config"]["digest"]).read_bytes()),
            files=layers,
        )


def _digests(manifest: dict[str, Any]) -> set[str]:
    return {layer["digest"] for layer in (manifest["config"], *manifest["layers"])}


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _remove_empty(directory: Path, top: Path) -> None:
    while directory != top and not any(directory.iterdir()):
        directory.rmdir()
        directory = directory.parent


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
