"""What a host needs to mend itself: its settings, and each file of this machine that they name.

The settings lie as JSON beside an inventory that puts back what JSON cannot hold: which values are
secret, and which are files. Nothing of it may be read by others than root.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr

from stackmend import compose, controller_files
from stackmend.compose.spec import ComposeSpec
from stackmend.controller_files import Unreadable
from stackmend.problems import Problem, join_path, show

#: Bytes of one file that the settings name, and of all of them.
MAXIMUM_FILE = 64 * 1024**2
MAXIMUM = 96 * 1024**2

#: Sections that are about how this machine reaches hosts, or about its own reports and timers.
LEFT_OUT = frozenset({"access", "report", "schedule"})

#: Fields that are an address, or a file of this machine.
_ADDRESS_OR_FILE = frozenset({("engine", "key"), ("engine", "toolkit_key")})

#: The inventory of a host that mends itself.
INVENTORY = '''\
"""This host's own settings, brought by stackmend (schedule.timer), which puts changes back."""

import json
from pathlib import Path

from pydantic import SecretStr

HERE = Path(__file__).resolve().parent


def load():
    data = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
    for kind, places in (("secrets", data["secrets"]), ("files", data["files"])):
        for *way, last in places:
            at = data
            for key in ("stack", *way):
                at = at[key]
            at[last] = SecretStr(at[last]) if kind == "secrets" else str(HERE / at[last])
    return data["stack"]


hosts = [("@local", {"stack": load()})]
'''


@dataclass
class Bundle:
    """The files that a host gets, by their paths below its own directory.

    :ivar files: permission bits and content of each.
    """

    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """One digest over every path, mode and content."""
        total = hashlib.sha256()
        for path, (mode, content) in sorted(self.files.items()):
            head = f"{len(path.encode())} {path} {mode:o} {len(content)}\n"
            total.update(head.encode(errors="surrogateescape") + content)
        return total.hexdigest()[:32]

    def make_archive(self, more: Mapping[str, bytes]) -> bytes:
        """All of it as a tar archive.

        :param more: further files.
        """
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
            rows = {**self.files, **{path: (0o600, content) for path, content in more.items()}}
            for path, (mode, content) in sorted(rows.items()):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), mode
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def make_bundle(settings: BaseModel, report: Mapping[str, Any]) -> Bundle:
    """Pack a host's settings, with each file of this machine that they name.

    :param settings: a validated ``Stack`` or ``Machine``.
    :param report: the host's own section ``report``.
    :raises Problem: one of the files cannot be read; the text begins with the setting.
    """
    raw = {key: value for key, value in _list_set(settings).items() if key not in LEFT_OUT}
    raw["report"] = dict(report)
    packer = _Packer(settings)
    stack = packer.pack(raw, ())
    data = {"stack": stack, "secrets": packer.secrets, "files": packer.places}
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True)
    packer.files["fleet/settings.json"] = (0o600, text.encode())
    packer.files["fleet/inventory.py"] = (0o600, INVENTORY.encode())
    return Bundle(packer.files)


def _list_set(model: BaseModel) -> dict[str, Any]:
    """What was set of a model, and what tells it from models of other kinds."""
    return {
        name: _dump(getattr(model, name))
        for name, field_ in type(model).model_fields.items()
        if name in model.model_fields_set or _is_kind(field_.annotation)
    }


def _dump(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _list_set(value)
    if isinstance(value, Mapping):
        return {key: _dump(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        ordered = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_dump(item) for item in ordered]
    return value


def _is_kind(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


class _Packer:
    """Turns settings into JSON, and collects what JSON cannot hold."""

    def __init__(self, settings: BaseModel) -> None:
        self._settings = settings
        self._left = MAXIMUM
        self.secrets: list[tuple[str | int, ...]] = []
        self.places: list[tuple[str | int, ...]] = []
        self.files: dict[str, tuple[int, bytes]] = {}

    def pack(self, value: Any, at: tuple[str | int, ...]) -> Any:
        """A value as JSON holds it.

        :param at: its path.
        """
        if isinstance(value, Mapping):
            return {str(key): self.pack(item, (*at, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.pack(item, (*at, number)) for number, item in enumerate(value)]
        if isinstance(value, SecretStr | SecretBytes):
            self.secrets.append(at)
            secret = value.get_secret_value()
            return secret if isinstance(secret, str) else secret.decode()
        if isinstance(value, Path) or (at in _ADDRESS_OR_FILE and value and "://" not in value):
            return self._pack_path(Path(value), at)
        if isinstance(value, Decimal):
            return float(value)
        if value is None or type(value) in (bool, int, float, str):
            return value
        # An integer or a text of a kind of its own, such as a number of bytes or an address.
        return int(value) if isinstance(value, int) else str(value)

    def _pack_path(self, path: Path, at: tuple[str | int, ...]) -> str | None:
        name = f"files/{len(self.places)}"
        try:
            path = controller_files.expand(path)
            if at == ("source",) and isinstance(self._settings, ComposeSpec):
                self._add(name, compose.read_files(self._settings))
            else:
                found = controller_files.check(path)
                content = controller_files.read(path, MAXIMUM_FILE)
                beside, name = name, f"{name}/{path.name}"
                self._add("", {name: (found.st_mode & 0o777, content)})
                if at[-1] == "modelfile":
                    self._pack_named(path, content, beside)
        except Unreadable as error:
            raise Problem(f"{join_path(*at)}: {show(str(path))} {error}") from None
        self.places.append(at)
        return name

    def _pack_named(self, path: Path, content: bytes, beside: str) -> None:
        """Pack the files that a Modelfile names, so that its paths lead to them there as well."""
        # Few settings have one, and each run on a controller loads this module.
        from stackmend.models import modelfiles

        try:
            request = modelfiles.parse_modelfile(content.decode(), path.parent, lambda file: "")
        except ValueError as error:
            raise Unreadable(f"cannot be read: {error}") from None
        for named, _ in (*request.files.values(), *request.adapters.values()):
            if not named.is_relative_to(path.parent) or ".." in named.parts:
                raise Unreadable(
                    f"names {show(str(named))}, which a host that mends itself does not have: move "
                    "it beside the Modelfile, and name it by a relative path"
                )
            status = controller_files.check(named)
            try:
                weights = controller_files.read(named, MAXIMUM_FILE)
            except Unreadable as error:
                raise Unreadable(f"names {show(str(named))}, which {error}") from None
            target = f"{beside}/{named.relative_to(path.parent)}"
            self._add("", {target: (status.st_mode & 0o777, weights)})

    def _add(self, directory: str, files: Mapping[str, tuple[int, bytes]]) -> None:
        for path, (mode, content) in files.items():
            self._left -= len(content)
            if self._left < 0:
                raise Unreadable(f"and the other files hold more than {MAXIMUM} bytes together")
            target = f"fleet/{directory}/{path}" if directory else f"fleet/{path}"
            self.files[target] = (mode & 0o777, content)
