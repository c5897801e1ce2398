"""What models are created from: GGUF files and Modelfiles of the controller. Changes nothing."""

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
from stackmend.models.plan import ModelSource, list_bases
from stackmend.models.spec import ModelSpec, ModelsPolicy, ModelsSpec, Name
from stackmend.problems import Problem, abbreviate, join_problems, show

#: Gives the digest of a file.
Digest = Callable[[Path], str]

_COMMAND = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)

#: Commands that are one text of the request.
_TEXTS = ("template", "system", "renderer", "parser", "requires")

_digests: dict[tuple[str, int, int], str] = {}


class ModelSourceProblem(Problem):
    """What a model is created from cannot be used; the text begins with the field's path."""


@dataclass(frozen=True)
class CreateRequest:
    """What the server is asked to create a model from.

    :param fields: the request's fields, without the files.
    :param files: the weights: path on the controller and digest, by name.
    :param adapters: likewise, the adapters.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    adapters: Mapping[str, tuple[Path, str]] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The request's body, for a server that has the files."""
        body = dict(self.fields)
        for key, files in (("files", self.files), ("adapters", self.adapters)):
            if files:
                body[key] = {name: digest for name, (_, digest) in files.items()}
        return body

    @property
    def blobs(self) -> dict[str, Path]:
        """The files that the server has to have, by digest."""
        return {digest: path for path, digest in (*self.files.values(), *self.adapters.values())}

    @property
    def base(self) -> Name | None:
        """The model that it is created from, where that is no file."""
        try:
            return Name.parse(str(self.fields["from"])) if "from" in self.fields else None
        except ValueError:
            # The server says what is wrong with it.
            return None

    @property
    def source(self) -> ModelSource:
        """The same for the plan.

        :raises ValueError: a file is no longer there.
        """
        text = json.dumps(self.body, sort_keys=True)
        return ModelSource(
            digest=hashlib.sha256(text.encode()).hexdigest(),
            files={digest: _check(path).st_size for digest, path in self.blobs.items()},
            base=self.base,
        )


def check(policy: ModelsPolicy) -> None:
    """Check that all files that models are created from can be read, and that no model is made,
    over others, from itself; reads no weights.

    :raises ModelSourceProblem: naming the model, and what is wrong.
    """
    bases: dict[str, str] = {}
    for index, model in enumerate(policy.wanted):
        if model.is_created:
            field = "gguf" if model.gguf is not None else "modelfile"
            try:
                base = build_request(model, _check_file).base
            except ValueError as error:
                raise ModelSourceProblem(f"models.wanted[{index}].{field}: {error}") from None
            if base is not None:
                bases[model.name.key] = base.key
    for index, model in enumerate(policy.wanted):
        key = model.name.key
        if bases.get(key) != key and key in list_bases(key, bases):
            raise ModelSourceProblem(
                f"models.wanted[{index}].modelfile: {model} is made from {bases[key]}, and that, "
                f"in the end, from {model}"
            )


def read_sources(spec: ModelsSpec) -> dict[str, ModelSource]:
    """What the desired models are created from now, by the model's key."""
    sources: dict[str, ModelSource] = {}
    for model in spec.wanted:
        if not model.is_created:
            continue
        try:
            sources[model.name.key] = build_request(model).source
        except ValueError as error:
            sources[model.name.key] = ModelSource(problem=join_problems(error))
    return sources


def build_request(model: ModelSpec, digest: Digest | None = None) -> CreateRequest:
    """The request that creates a model.

    :param digest: what gives a file's digest, by default from its content.
    :raises ValueError: a file cannot be read, or the Modelfile is none.
    """
    digest = digest or _hash_file
    if model.gguf is not None:
        return CreateRequest(files={model.gguf.name: (model.gguf, digest(model.gguf))})
    assert model.modelfile is not None, "this model is not created from a file"
    try:
        text = controller_files.read_text(model.modelfile)
    except Unreadable as error:
        raise _make_unreadable(model.modelfile, error) from None
    return parse_modelfile(text, model.modelfile.parent, digest)


def parse_modelfile(text: str, directory: Path, digest: Digest | None = None) -> CreateRequest:
    """The request of a Modelfile.

    :param text: the Modelfile.
    :param directory: what its paths are relative to.
    :param digest: what gives a file's digest, by default from its content.
    :raises ValueError: a file that it names cannot be read, or a line is none of a Modelfile.
    """
    digest = digest or _hash_file
    request: dict[str, Any] = {}
    files: dict[str, tuple[Path, str]] = {}
    adapters: dict[str, tuple[Path, str]] = {}
    for command, value in _read_commands(text):
        if command == "from":
            path = _find_file(value, directory)
            if path is None:
                request["from"] = value
            else:
                files[path.name] = (path, digest(path))
        elif command == "adapter":
            path = directory / _expand(value)
            adapters[path.name] = (path, digest(path))
        elif command in _TEXTS:
            request[command] = value
        elif command == "license":
            request.setdefault("license", []).append(value)
        elif command == "parameter":
            _add_parameter(request.setdefault("parameters", {}), value)
        elif command == "message":
            role, _, content = value.partition(" ")
            message = {"role": role.lower(), "content": _unquote(content.strip())}
            request.setdefault("messages", []).append(message)
        else:
            raise ValueError(f"{show(command.upper())} is no command of a Modelfile")
    if not files and "from" not in request:
        raise ValueError("the Modelfile has no FROM")
    return CreateRequest(request, files, adapters)


def read_pieces(path: Path) -> Iterator[bytes]:
    """A file, piece by piece.

    :raises ValueError: it cannot be read, or changes meanwhile.
    """
    try:
        yield from controller_files.read_pieces(path)
    except Unreadable as error:
        raise _make_unreadable(path, error) from None


def _read_commands(text: str) -> Iterator[tuple[str, str]]:
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
        yield command, _unquote(value) if command != "message" else value


def _unquote(value: str) -> str:
    value = value.strip()
    for quotes in ('"""', '"'):
        if len(value) >= 2 * len(quotes) and value.startswith(quotes) and value.endswith(quotes):
            return value[len(quotes) : -len(quotes)]
    return value


def _add_parameter(parameters: dict[str, Any], text: str) -> None:
    name, _, value = text.partition(" ")
    value = _unquote(value)
    if name == "stop":
        parameters.setdefault(name, []).append(value)
        return
    try:
        parameters[name] = json.loads(value, parse_constant=str)
    except (ValueError, RecursionError):
        parameters[name] = value


def _find_file(value: str, directory: Path) -> Path | None:
    """The file that FROM names; ``None`` where it is a model's name."""
    path = directory / _expand(value)
    if value.startswith((".", "/", "~")):
        return path
    try:
        return path if controller_files.is_there(path) else None
    except Unreadable:
        return None  # A model's name may be what no file's can be.


def _expand(value: str) -> Path:
    try:
        return controller_files.expand(Path(value))
    except Unreadable as error:
        raise _make_unreadable(Path(value), error) from None


def _hash_file(path: Path) -> str:
    """The digest of a file, read once for as long as it is the same one."""
    status = _check(path)
    key = (str(path.absolute()), status.st_size, status.st_mtime_ns)
    if key not in _digests:
        digest = hashlib.sha256()
        for data in read_pieces(path):
            digest.update(data)
        _digests[key] = f"sha256:{digest.hexdigest()}"
    return _digests[key]


def _check_file(path: Path) -> str:
    """Check that a file can be read, in place of giving its digest."""
    _check(path)
    return ""


def _check(path: Path) -> controller_files.Status:
    try:
        return controller_files.check(path)
    except Unreadable as error:
        raise _make_unreadable(path, error) from None


def _make_unreadable(path: Path, error: Unreadable) -> ValueError:
    return ValueError(f"{show(str(path))} {error}")
