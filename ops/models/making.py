"""What models are created from: GGUF files and Modelfiles of the controller's. Changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.models.plan import Made
from ops.models.spec import ModelsSpec, Wanted

#: Bytes that are read at once.
CHUNK = 1024 * 1024

_COMMAND = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)

#: Commands that are one text of the request.
_TEXTS = ("template", "system", "renderer", "parser", "requires")

_digests: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Recipe:
    """A model that is created.

    :param request: what the server is asked, without the files.
    :param files: the weights: path on the controller and digest, by name.
    :param adapters: likewise, what is laid over them.
    """

    request: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    adapters: Mapping[str, tuple[Path, str]] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """What the server is asked, once it has the files."""
        body = dict(self.request)
        for key, files in (("files", self.files), ("adapters", self.adapters)):
            if files:
                body[key] = {name: digest for name, (_, digest) in files.items()}
        return body

    def blobs(self) -> dict[str, Path]:
        """The files that the server has to have, by digest."""
        return {digest: path for path, digest in (*self.files.values(), *self.adapters.values())}

    def made(self) -> Made:
        """The same for the plan."""
        text = json.dumps(self.body(), sort_keys=True)
        return Made(
            digest=hashlib.sha256(text.encode()).hexdigest(),
            files={digest: path.stat().st_size for digest, path in self.blobs().items()},
        )


def recipe(one: Wanted) -> Recipe:
    """How a model is created.

    :raises OSError: a file cannot be read.
    :raises ValueError: the Modelfile is none.
    """
    if one.gguf is not None:
        return Recipe(files={one.gguf.name: (one.gguf, _weights(one.gguf))})
    assert one.modelfile is not None, "only what is created has a recipe"
    return modelfile(one.modelfile.read_text(encoding="utf-8"), one.modelfile.parent)


def made(spec: ModelsSpec) -> dict[str, Made]:
    """What the wanted models are created from now, by the model's key."""
    found: dict[str, Made] = {}
    for one in spec.wanted:
        if not one.created:
            continue
        try:
            found[one.name.key] = recipe(one).made()
        except OSError as error:
            found[one.name.key] = Made(problem=f"{error.filename}: {error.strerror}")
        except ValueError as error:
            found[one.name.key] = Made(problem=str(error))
    return found


def modelfile(text: str, directory: Path) -> Recipe:
    """How a Modelfile has its model created.

    :param text: the Modelfile.
    :param directory: what its paths are relative to.
    :raises OSError: a file that it names cannot be read.
    :raises ValueError: a line is none of a Modelfile.
    """
    request: dict[str, Any] = {}
    files: dict[str, tuple[Path, str]] = {}
    adapters: dict[str, tuple[Path, str]] = {}
    for command, value in _commands(text):
        if command == "from":
            path = _path(value, directory)
            if path is None:
                request["from"] = value
            else:
                files[path.name] = (path, _weights(path))
        elif command == "adapter":
            path = directory / Path(value).expanduser()
            adapters[path.name] = (path, _weights(path))
        elif command in _TEXTS:
            request[command] = value
        elif command == "license":
            request.setdefault("license", []).append(value)
        elif command == "parameter":
            _parameter(request.setdefault("parameters", {}), value)
        elif command == "message":
            role, _, content = value.partition(" ")
            message = {"role": role.lower(), "content": _unquoted(content.strip())}
            request.setdefault("messages", []).append(message)
        else:
            raise ValueError(f"{command.upper()} is no command of a Modelfile")
    if not files and "from" not in request:
        raise ValueError("the Modelfile has no FROM")
    return Recipe(request, files, adapters)


def content(path: Path) -> Iterator[bytes]:
    """A file, piece by piece."""
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command in lower case with its value; a value in three quotes may have many lines."""
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _COMMAND.fullmatch(line)
        if found is None:
            raise ValueError(f"{line.strip()[:60]!r} is no line of a Modelfile")
        command, value = found[1].lower(), found[2].strip()
        if value.count('"""') == 1:
            for more in lines:
                value += "\n" + more
                if '"""' in more:
                    break
            else:
                raise ValueError(f'{command.upper()}: its """ is not closed')
        yield command, _unquoted(value) if command != "message" else value


def _unquoted(value: str) -> str:
    value = value.strip()
    for quotes in ('"""', '"'):
        if len(value) >= 2 * len(quotes) and value.startswith(quotes) and value.endswith(quotes):
            return value[len(quotes) : -len(quotes)]
    return value


def _parameter(parameters: dict[str, Any], text: str) -> None:
    name, _, value = text.partition(" ")
    value = _unquoted(value)
    if name == "stop":
        parameters.setdefault(name, []).append(value)
        return
    try:
        parameters[name] = json.loads(value)
    except ValueError:
        parameters[name] = value


def _path(value: str, directory: Path) -> Path | None:
    """The file that FROM names; ``None`` where it is a model's name."""
    path = directory / Path(value).expanduser()
    return path if path.exists() or value.startswith((".", "/", "~")) else None


def _weights(path: Path) -> str:
    """The digest of a file, read once for as long as it is the same one."""
    if path.is_dir():
        raise ValueError(f"{path} is a directory: name one file, in GGUF")
    found = path.stat()
    key = (os.fspath(path.resolve()), found.st_size, found.st_mtime_ns)
    if key not in _digests:
        digest = hashlib.sha256()
        for data in content(path):
            digest.update(data)
        _digests[key] = f"sha256:{digest.hexdigest()}"
    return _digests[key]
