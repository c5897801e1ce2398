"""Which of a project's files Docker Compose reads to say what the project means.

It is asked with these alone, so that a large project is sent once, when it is installed. Too many
do no harm: wherever a path is not known here, all files go.
"""

import itertools
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from stackmend.addresses import Sources
from stackmend.compose.source import (
    COMPOSE_FILES,
    OVERRIDE_FILES,
    Source,
    SourceError,
    format_dotenv,
    name_files,
    parse,
)
from stackmend.compose.state import LAYER_FILE, LINKS_FILE
from stackmend.dotenv import parse_dotenv


def find_closure(source: Source) -> Source:
    """The files of a project that Compose reads, or all of them."""
    files = source.files
    by_name: dict[str, list[str]] = {}
    for path in files:
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    # Relative to what a path is depends on where it stands: any file of its name will do.
    names = [".env", *COMPOSE_FILES, *OVERRIDE_FILES, LAYER_FILE, LINKS_FILE]
    needed: set[str] = set()
    while names:
        for path in by_name.get(names.pop(), ()):
            if path in needed:
                continue
            needed.add(path)
            if PurePosixPath(path).name == ".env":
                # It may name other compose files.
                if b"COMPOSE_" in files[path].content:
                    return source
                continue
            if PurePosixPath(path).suffix not in (".yaml", ".yml"):
                continue
            try:
                named = list(_find_named(parse(path, files[path].content)))
            except SourceError:
                return source
            if not all(isinstance(name, str) and "$" not in name for name in named):
                return source
            names += [PurePosixPath(name).name for name in named]
    return Source({path: file for path, file in files.items() if path in needed})


def read_sources(source: Source, variables: Mapping[str, str] | None = None) -> Sources:
    """A project's own files, with those of them known that Compose lays over each other.

    :param source: the files.
    :param variables: what the inventory adds to ``.env``.
    """
    made = format_dotenv(variables) if variables else ""
    return Sources(source.contents, list_laid_over(source), made)


def list_laid_over(source: Source) -> tuple[str, ...]:
    """The compose files that make up a project, the later laid over the earlier.

    Those that others include come first; what only ``extends`` names is none of them.
    """
    assigned = {}
    if source.names_files:
        assigned = parse_dotenv(source.files[".env"].content.decode(errors="replace"))
    if listed := assigned.get("COMPOSE_FILE"):
        separator = assigned.get("COMPOSE_PATH_SEPARATOR") or ":"
        names = [posixpath.normpath(name) for name in listed.split(separator)]
    else:
        words = name_files(source.files, names_files=False)
        names = [path for word, path in itertools.pairwise(words) if word == "--file"]
    names = [name for name in names if name in source.files and name != LINKS_FILE]
    included: list[str] = []
    left = [*names]
    while left:
        path = left.pop()
        try:
            data = parse(path, source.files[path].content)
        except SourceError:
            continue
        for name in _find_included(data):
            other = posixpath.normpath(posixpath.join(posixpath.dirname(path), str(name)))
            if other in source.files and other not in (*names, *included):
                included.append(other)
                left.append(other)
    return (*reversed(included), *names)


def _find_included(data: Mapping[str, Any]) -> Iterator[Any]:
    """The compose files that a compose file includes."""
    for item in _as_list(data.get("include")):
        yield from _as_list(item.get("path") if isinstance(item, dict) else item)


def _find_named(data: Mapping[str, Any]) -> Iterator[Any]:
    """The paths that a compose file names for Compose itself to read."""
    yield from _find_included(data)
    for item in _as_list(data.get("include")):
        yield from _as_list(item.get("env_file")) if isinstance(item, dict) else ()
    services = data.get("services")
    for body in services.values() if isinstance(services, dict) else ():
        if not isinstance(body, dict):
            continue
        for key in ("env_file", "label_file"):
            for item in _as_list(body.get(key)):
                yield item.get("path") if isinstance(item, dict) else item
        extends = body.get("extends")
        if isinstance(extends, dict) and "file" in extends:
            yield extends["file"]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
