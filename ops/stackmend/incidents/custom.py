"""A user's own incidents, read from Python files of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from stackmend import controller_files
from stackmend.controller_files import MAXIMUM_TEXT, Unreadable
from stackmend.incidents.spec import Incident
from stackmend.problems import Problem, show
from stackmend.text import make_printable

#: The name that such a file gives its incidents.
NAME = "INCIDENTS"

#: What a file held, by its path: each is executed once.
_loaded: dict[Path, tuple[Incident, ...]] = {}


def load(paths: Sequence[Path]) -> tuple[Incident, ...]:
    """The incidents that files define, in their order.

    :param paths: Python files; each assigns a list or tuple of :class:`Incident` to ``INCIDENTS``.
    :raises Problem: a file cannot be read or executed, holds something else, an incident's example
        is matched by none of its patterns, or two incidents have one id; the text names the file.
    """
    found: dict[str, Incident] = {}
    for at, path in enumerate(paths):
        for incident in _load_file(path, f"incidents[{at}]: {show(str(path))}"):
            if incident.id in found:
                raise Problem(f"incidents[{at}]: {show(str(path))}: a second {incident.id!r}")
            found[incident.id] = incident
    return tuple(found.values())


def _load_file(path: Path, where: str) -> tuple[Incident, ...]:
    try:
        file = controller_files.expand(path)
        controller_files.read(file, MAXIMUM_TEXT)
    except Unreadable as error:
        raise Problem(f"{where} {error}") from None
    file = file.absolute()
    if file not in _loaded:
        _loaded[file] = tuple(_check(_execute(file, where), where))
    return _loaded[file]


def _execute(file: Path, where: str) -> Any:
    name = f"stackmend_incidents_{len(_loaded)}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Problem(f"{where}: must be a Python file, which ends in .py")
    module = module_from_spec(spec)
    # Its own classes are looked up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's file raises
        reason = make_printable(f"{type(error).__name__}: {error}")
        raise Problem(f"{where}: cannot be executed: {reason}") from None
    return getattr(module, NAME, None)


def _check(raw: Any, where: str) -> Iterator[Incident]:
    if not isinstance(raw, list | tuple):
        raise Problem(f"{where}: must assign a list of incidents to {NAME}")
    for incident in raw:
        if not isinstance(incident, Incident):
            kind = type(incident).__name__
            raise Problem(f"{where}: {NAME} holds a {kind}, which is no Incident")
        for pattern in incident.patterns:
            for example in pattern.examples:
                if not pattern.search(example.lower()):
                    raise Problem(
                        f"{where}: {incident.id}: the pattern {pattern.pattern!r} does not match "
                        f"its example {make_printable(example)!r}"
                    )
        yield incident
