"""What models are created from: GGUF files and Modelfiles of the controller's. Changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackmend import controller_files
from stackmend.controller_files import Unreadable
from stackmend.models.plan import Made
from stackmend.models.spec import ModelSpec, ModelsPolicy, ModelsSpec
from stackmend.problems import Problem, abbreviate, in_one_line, show

#: Gives the digest of a file.
Digest = Callable[[Path], str]

_COMMAND = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)

#: Commands that are one text of the request.
_TEXTS = ("template", "system", "renderer", "parser", "requires")

_digests: dict[tuple[str, int, int], str] = {}


class MakingProblem(Problem):
    """What a model is created from cannot be used; the text begins with its place."""


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


def check(policy: ModelsPolicy) -> None:
    """See that all that models are created from can be read; weights are looked at, not read.

    :raises MakingProblem: naming the model, and what is wrong.
    """
    for index, one in enumerate(policy.wanted):
        if one.created:
            field = "gguf" if one.gguf is not None else "modelfile"
            try:
                _recipe(one, _weighed)
            except ValueError as error:
                raise MakingProblem(f"models.wanted.{index}.{field}: {error}") from None


def recipe(one: ModelSpec) -> Recipe:
    """How a model is created.

    :raises ValueError: a file cannot be read, or the Modelfile is none.
    """
    return _recipe(one, _weights)


def made(spec: ModelsSpec) -> dict[str, Made]:
    """What the wanted models are created from now, by the model's key."""
    found: dict[str, Made] = {}
    for one in spec.wanted:
        if not one.created:
            continue
        try:
            found[one.name.key] = recipe(one).made()
        except ValueError as error:
            found[one.name.key] = Made(problem=in_one_line(error))
    return found


def _recipe(one: ModelSpec, digest: Digest) -> Recipe:
    if one.gguf is not None:
        return Recipe(files={one.gguf.name: (one.gguf, digest(one.gguf))})
    assert one.modelfile is not None, "only what is created has a recipe"
    try:
        text = controller_files.read_text(one.modelfile)
    except Unreadable as error:
        raise _unreadable(one.modelfile, error) from None
    return modelfile(text, one.modelfile.parent, digest)


def modelfile(text: str, directory: Path, digest: Digest | None = None) -> Recipe:
    """How a Modelfile has its model created.

    :param text: the Modelfile.
    :param directory: what its paths are relative to.
    :param digest: what gives a file's digest, by default from its content.
    :raises ValueError: a file that it names cannot be read, or a line is none of a Modelfile.
    """
    digest = digest or _weights
    request: dict[str, Any] = {}
    files: dict[str, tuple[Path, str]] = {}
    adapters: dict[str, tuple[Path, str]] = {}
    for command, value in _commands(text):
        if command == "from":
            path = _path(value, directory)
            if path is None:
                request["from"] = value
            else:
                files[path.name] = (path, digest(path))
        elif command == "adapter":
            path = directory / _expanded(value)
            adapters[path.name] = (path, digest(path))
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
            raise ValueError(f"{show(command.upper())} is no command of a Modelfile")
    if not files and "from" not in request:
        raise ValueError("the Modelfile has no FROM")
    return Recipe(request, files, adapters)


def content(path: Path) -> Iterator[bytes]:
    """A file, piece by piece.

    :raises ValueError: it cannot be read, or changes meanwhile.
    """
    try:
        yield from controller_files.pieces(path)
    except Unreadable as error:
        raise _unreadable(path, error) from None


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command in lower case with its value; a value in three quotes may have many lines."""
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _COMMAND.fullmatch(line)
        if found is None:
            raise ValueError(f"{abbreviate(line.strip())} is no line of a Modelfile")
        command, value = found[1].lower(), found[2].strip()
        if value.count('"""') == 1:
            for more in lines:
                value += "\n" + more
                if '"""' in more:
                    break
            else:
                raise ValueError(f'{show(command.upper())}: its """ is not closed')
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
        parameters[name] = json.loads(value, parse_constant=str)
    except (ValueError, RecursionError):
        parameters[name] = value


def _path(value: str, directory: Path) -> Path | None:
    """The file that FROM names; ``None`` where it is a model's name."""
    path = directory / _expanded(value)
    if value.startswith((".", "/", "~")):
        return path
    try:
        return path if controller_files.exists(path) else None
    except Unreadable:
        return None  # A model's name may be what no file's can be.


def _expanded(value: str) -> Path:
    try:
        return controller_files.expand(Path(value))
    except Unreadable as error:
        raise _unreadable(Path(value), error) from None


def _weights(path: Path) -> str:
    """The digest of a file, read once for as long as it is the same one."""
    found = _looked_at(path)
    key = (str(path.absolute()), found.st_size, found.st_mtime_ns)
    if key not in _digests:
        digest = hashlib.sha256()
        for data in content(path):
            digest.update(data)
        _digests[key] = f"sha256:{digest.hexdigest()}"
    return _digests[key]


def _weighed(path: Path) -> str:
    """In place of a digest, of a file that can be read."""
    _looked_at(path)
    return ""


def _looked_at(path: Path) -> controller_files.Status:
    try:
        return controller_files.check(path)
    except Unreadable as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Unreadable) -> ValueError:
    return ValueError(f"{show(str(path))} {error}")
