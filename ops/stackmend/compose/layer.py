"""A compose file of ours that adds services to one host's project, or changes them. Pure.

It is made by a room for one host, and kept in the project's memory there. It is laid over the
project's own files, below the one that corrects their links. Where it does not fit them the project
stays as it is: without it, what it added would go, and what calls that would call something else.
"""

import hashlib
import pprint
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from stackmend.compose.closure import list_laid_over
from stackmend.compose.plan.format import fit_line, join_few
from stackmend.compose.source import Source, SourceError, parse
from stackmend.compose.state import KEPT, LAYER_FILE, Declared

#: Characters that it may have: as many as the probe reads.
LONGEST = 65536


class Layered(NamedTuple):
    """A project's files with such a file laid over them.

    :param problem: why it is not; empty where it is, or where there is none.
    :param remedy: what would be right then.
    :param kept: the services whose containers stay as they are.
    """

    source: Source
    problem: str = ""
    remedy: str = ""
    kept: frozenset[str] = frozenset()


def include_layer(own: Source, content: str) -> Layered:
    """The project's own files, and over them a file of ours, where it fits them.

    A service that it changes must still be declared. One that it only keeps as it is may be gone:
    then nothing is left of it to keep.

    :param own: the project's own files, or those of a correction below.
    :param content: YAML, as it was read from a host; empty for none.
    """
    text = content.strip()
    if not text:
        return Layered(own)
    try:
        if len(text) > LONGEST:
            raise SourceError(f"it is longer than {LONGEST} characters")
        laid = f"{text}\n".encode()
        data = parse(LAYER_FILE, laid)
    except (SourceError, UnicodeError) as error:
        return Layered(own, str(error), "put back the file that was there")
    added, declared = _list_services(data), _list_declared(own)
    if not added:
        return Layered(own)
    if own.names_files:
        problem = "the project's .env names its compose files, and no other can be laid over them"
        return Layered(own, problem, "take COMPOSE_FILE out of .env")
    missing = [
        name
        for name, body in added.items()
        if not body.keys() & {"image", "build"} and name not in declared
    ]
    absent = [name for name in missing if added[name].keys() == {KEPT}]
    if lost := sorted({*missing} - {*absent}):
        names = fit_line(join_few(lost, ", "))
        return Layered(
            own,
            f"the project's files no longer declare {names}",
            f"declare {names} there, or take its section out of that file",
        )
    if absent:
        left = {name: body for name, body in data["services"].items() if name not in absent}
        laid = yaml.safe_dump({**data, "services": left}, sort_keys=True).encode()
    kept = frozenset(name for name, body in added.items() if body.get(KEPT) is True)
    return Layered(own.add_layer(laid), kept=kept - {*absent})


def describe_layer(own: Source, content: str) -> str:
    """What such a file does to a project, in words; empty where it does nothing.

    :param own: the project's own files.
    :param content: YAML that fits them.
    """
    changed, kept = _sort(own, content)
    added = [
        name
        for name, body in _list_services(_load(content)).items()
        if name not in changed and name not in kept and body.keys() - {KEPT}
    ]
    parts = {"adds": added, "changes": changed, "keeps as it stands": kept}
    return ", ".join(
        f"{verb} {fit_line(join_few(sorted(names), ', '))}"
        for verb, names in parts.items()
        if names
    )


def find_covered(own: Source, content: str) -> dict[str, tuple[str, str]]:
    """The values of a project's own files that such a file takes the place of.

    :param own: the project's own files.
    :param content: YAML that fits them.
    :returns: by where each stands, as ``client.environment.URL``: a digest of the value that is
        laid over it, and one of the project's own.
    """
    changed, _ = _sort(own, content)
    if not changed:
        return {}
    before: dict[str, Any] = {}
    for path in list_laid_over(own):
        for name, body in _list_services(_parse(own, path)).items():
            before |= _flatten(name, body)
    return {
        where: (_hash_value(value), _hash_value(before.get(where)))
        for name, body in changed.items()
        for where, value in _flatten(name, body).items()
    }


def find_edited(
    known: Mapping[str, tuple[str, str]], covered: Mapping[str, tuple[str, str]]
) -> list[str]:
    """Where a project's own files changed beneath what is laid over them.

    :param known: what :func:`find_covered` found when it was laid over them.
    :param covered: what it finds now.
    """
    return sorted(
        where
        for where, (laid, own) in covered.items()
        if where in known and known[where][0] == laid and known[where][1] != own
    )


def keep_covered(
    known: Mapping[str, tuple[str, str]], covered: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """What is recorded of covered values: of each, the own one that it was laid over at first.

    :param known: what is recorded so far.
    :param covered: what :func:`find_covered` finds now.
    """
    edited = set(find_edited(known, covered))
    return {where: known[where] if where in edited else pair for where, pair in covered.items()}


def mark_kept(declared: Declared, kept: frozenset[str]) -> Declared:
    """A declaration with the services marked that are kept: Compose tells nothing of such keys.

    :param declared: what Compose makes of a project's files.
    :param kept: the services.
    """
    services = {
        name: {**body, KEPT: True} if name in kept else body
        for name, body in declared.services.items()
    }
    if not kept & services.keys():
        return declared
    return declared.model_copy(update={"config": {**declared.config, "services": services}})


def _sort(own: Source, content: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The sections that change services of the project, by name, and those that are only kept."""
    services = _list_services(_load(content))
    declared = _list_declared(own) if services else frozenset()
    changed = {
        name: {key: value for key, value in body.items() if key != KEPT}
        for name, body in services.items()
        if name in declared
    }
    kept = [name for name, body in changed.items() if not body]
    return {name: body for name, body in changed.items() if body}, kept


def _load(content: str) -> dict[str, Any]:
    return parse(LAYER_FILE, content.encode()) if content.strip() else {}


def _parse(own: Source, path: str) -> dict[str, Any]:
    try:
        return parse(path, own.files[path].content)
    except SourceError:
        return {}


def _flatten(name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A section's values by where they stand, variables one by one."""
    found: dict[str, Any] = {}
    for key, value in body.items():
        if key == "environment" and isinstance(value, list):
            value = dict(str(word).partition("=")[::2] for word in value)
        if key == "environment" and isinstance(value, dict):
            found |= {f"{name}.{key}.{variable}": str(text) for variable, text in value.items()}
        else:
            found[f"{name}.{key}"] = value
    return found


def _hash_value(value: Any) -> str:
    # Unlike JSON, it takes whatever YAML has, in an order of its own.
    text = pprint.saferepr(value)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _list_declared(own: Source) -> frozenset[str]:
    """The services that any compose file of the project may declare."""
    found: set[str] = set()
    for path in own.files:
        if path.endswith((".yaml", ".yml")):
            found |= _list_services(_parse(own, path)).keys()
    return frozenset(found)


def _list_services(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    services = data.get("services")
    if not isinstance(services, dict):
        return {}
    return {str(name): body for name, body in services.items() if isinstance(body, dict)}
