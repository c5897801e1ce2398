"""What ``store.sh`` prints of a directory of models."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from stackmend import answers
from stackmend.answers import read_json
from stackmend.models.spec import Name
from stackmend.models.state import BlobProblem, Layer, PartialDownload, Place, StoredModel

Section = tuple[int, list[str]]

_BLOB = re.compile(r"sha256[-:]([0-9a-f]{64})")
_AVAILABLE = re.compile(r"(?=(?<!\S)\d+\s+\d+\s+(\d{1,18})\s+(?:\d+%|-)(?!\S))", re.ASCII)
_PART = re.compile(r"sha256[-:]([0-9a-f]{64})-partial(?:-[0-9]+)?")


@dataclass(frozen=True)
class Disk:
    """What the directory holds, in fields of :class:`stackmend.models.state.StoreState`."""

    place: Place
    models: tuple[StoredModel, ...]
    blobs: Mapping[str, int]
    problems: tuple[BlobProblem, ...]
    hashed: bool
    partials: tuple[PartialDownload, ...]
    free: int | None


def parse_disk(found: Mapping[str, Section], place: Place) -> Disk | str:
    """What the sections of the script say, or why they say nothing.

    :param found: the sections.
    :param place: the directory that was read.
    """
    if "stored" not in found:
        inside = f" inside the container {place.container[:12]}" if place.container else ""
        return f"cannot read {place.path}{inside}: there is no shell, find or stat"
    if "forbidden" in found["place"][1]:
        return f"this user may not read {place.path}"
    if reason := _explain_missing_tool(found):
        return reason
    blobs, partials = _parse_blobs(found)
    hashes = _parse_hashes(found["hashes"]) if "hashes" in found else None
    models = tuple(_parse_models(found))
    owner = (found["owner"][1] or [""])[0]
    return Disk(
        place=place.model_copy(update={"owner": owner if found["owner"][0] == 0 else ""}),
        models=models,
        blobs=blobs,
        problems=tuple(_find_problems(models, blobs, hashes)),
        hashed=hashes is not None
        and all(
            layer.digest in hashes
            for model in models
            for layer in model.layers or ()
            if layer.size and blobs.get(layer.digest) == layer.size
        ),
        partials=partials,
        free=_parse_free(found["free"]),
    )


def _explain_missing_tool(found: Mapping[str, Section]) -> str:
    for name in ("manifests", "blobs"):
        status, lines = found.get(name, (0, []))
        output = " ".join(lines)
        if status == 127 or "stat': No such file" in output or "can't execute" in output:
            return f"cannot list the models' files: {output}"
    return ""


def _parse_free(section: Section) -> int | None:
    """Bytes available, from ``df -kP``; a device and its mount point may look like numbers, too."""
    status, lines = section
    found = _AVAILABLE.findall("\n".join(lines)) if status == 0 else []
    return int(found[0]) * 1024 if len(found) == 1 else None


def _parse_sums(section: Section | None) -> Iterator[tuple[str, str]]:
    """File and digest, of what ``sha256sum`` printed."""
    for line in section[1] if section else ():
        digest, _, name = line.partition("  ")
        if name:
            yield name.removeprefix("./"), digest.removeprefix("\\")


def _parse_hashes(section: Section) -> dict[str, str]:
    """What each blob's content has as its digest, by the digest that its name says."""
    return {
        f"sha256:{match[1]}": f"sha256:{digest}"
        for name, digest in _parse_sums(section)
        if (match := _BLOB.fullmatch(name))
    }


def _parse_blobs(
    found: Mapping[str, Section],
) -> tuple[dict[str, int], tuple[PartialDownload, ...]]:
    blobs: dict[str, int] = {}
    allocated: dict[str, int] = {}
    written: dict[str, float] = {}
    for line in found.get("blobs", (0, []))[1]:
        fields = line.split(" ", 3)
        if len(fields) < 4 or not fields[0].isdecimal():
            continue
        name = fields[3].removeprefix("./")
        if match := _BLOB.fullmatch(name):
            blobs[f"sha256:{match[1]}"] = int(fields[0])
        elif match := _PART.fullmatch(name):
            digest = f"sha256:{match[1]}"
            allocated.setdefault(digest, 0)
            if name.endswith("-partial"):
                # stat counts blocks of 512 bytes.
                allocated[digest] = int(fields[1]) * 512
            written[digest] = max(written.get(digest, 0), float(fields[2]))
    arrived: dict[str, int] = {}
    for line in found.get("parts", (0, []))[1]:
        name, _, content = line.partition(":")
        if match := _PART.fullmatch(name.removeprefix("./")):
            with suppress(ValueError, LookupError, TypeError):
                digest = f"sha256:{match[1]}"
                arrived[digest] = arrived.get(digest, 0) + answers.parse_size(
                    read_json(content)["Completed"]
                )
    return blobs, tuple(
        PartialDownload(
            digest=digest,
            bytes=arrived.get(digest, 0),
            allocated=allocated[digest],
            modified=written[digest],
        )
        for digest in sorted(allocated)
    )


def _parse_models(found: Mapping[str, Section]) -> Iterator[StoredModel]:
    modified: dict[str, float] = {}
    for line in found.get("manifests", (0, []))[1]:
        seconds, _, path = line.partition(" ")
        if seconds.isdecimal():
            modified[path.removeprefix("./")] = float(seconds)
    digests = dict(_parse_sums(found.get("digests")))
    contents = _parse_contents(found.get("contents"), modified)
    configs = _parse_contents(found.get("configs"), None)
    for path in sorted(modified):
        parts = path.split("/")
        try:
            host, namespace, model, tag = parts
            name = Name.parse(f"{host}/{namespace}/{model}:{tag}")
            layers = parse_layers(read_json(contents[path]))
        except (ValueError, LookupError, TypeError):
            # Not a manifest, or one that cannot be read: Ollama does not list it either.
            continue
        config = _parse_config(configs, layers[0].digest)
        digest = digests.get(path, "")
        yield StoredModel(
            name=name,
            digest=digest if len(digest) == 64 else "",
            size=sum(layer.size for layer in layers),
            quantization=str(config.get("file_type") or ""),
            family=str(config.get("model_family") or ""),
            parameters=str(config.get("model_type") or ""),
            layers=layers,
            modified=modified[path],
        )


def _parse_contents(section: Section | None, known: Mapping[str, Any] | None) -> dict[str, str]:
    """Each file's text, of what ``grep -H`` printed: ``PATH:LINE``.

    :param known: the files there are, where their names may hold colons.
    """
    lines: dict[str, list[str]] = {}
    for line in section[1] if section else ():
        line = line.removeprefix("./")
        at = line.find(":")
        while known is not None and at >= 0 and line[:at] not in known:
            at = line.find(":", at + 1)
        if at >= 0:
            lines.setdefault(line[:at], []).append(line[at + 1 :])
    return {path: "\n".join(text) for path, text in lines.items()}


def _parse_config(configs: Mapping[str, str], digest: str) -> dict[str, Any]:
    with suppress(ValueError, LookupError):
        config = read_json(configs[digest.replace(":", "-")])
        if isinstance(config, dict):
            return config
    return {}


def parse_layers(manifest: Any) -> tuple[Layer, ...]:
    """The blobs of a manifest, the config first.

    :raises ValueError: it is not a manifest.
    """
    try:
        layers = tuple(
            Layer(
                digest=answers.parse_string(layer["digest"]).replace("sha256-", "sha256:"),
                size=answers.parse_size(layer["size"]),
                media_type=answers.parse_string(layer.get("mediaType")),
            )
            for layer in (manifest["config"], *(manifest["layers"] or ()))
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not a manifest: {error}") from None
    if not all(_BLOB.fullmatch(layer.digest) for layer in layers):
        raise ValueError("not a manifest: it names a blob by what is no digest")
    return layers


def _find_problems(
    models: Sequence[StoredModel], blobs: Mapping[str, int], hashes: Mapping[str, str] | None
) -> Iterator[BlobProblem]:
    needed: dict[str, tuple[int, list[str]]] = {}
    for model in models:
        for layer in dict.fromkeys(model.layers or ()):
            needed.setdefault(layer.digest, (layer.size, []))[1].append(str(model.name))
    for digest, (size, names) in sorted(needed.items()):
        found = blobs.get(digest)
        if found is None:
            kind: Literal["missing", "truncated", "corrupt"] = "missing"
        elif found != size:
            kind = "truncated"
        elif (hashes or {}).get(digest, digest) != digest:
            kind = "corrupt"
        else:
            continue
        yield BlobProblem(
            digest=digest, kind=kind, models=tuple(dict.fromkeys(names)), size=size, found=found
        )
