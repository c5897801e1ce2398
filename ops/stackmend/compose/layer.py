"""A compose file of ours that adds services to one host's project, or changes them. Pure.

It is made by a room for one host, and kept in the project's memory there. It is laid over the
project's own files, below the one that corrects their links. Where it does not fit them the project
stays as it is: without it, what it added would go, and what calls that would call something else.
"""

from typing import Any, NamedTuple

import yaml

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
    gone = [name for name in missing if added[name].keys() == {KEPT}]
    if lost := sorted({*missing} - {*gone}):
        names = ", ".join(lost)
        return Layered(
            own,
            f"the project's files no longer declare {names}",
            f"declare {names} there, or take its section out of that file",
        )
    if gone:
        left = {name: body for name, body in data["services"].items() if name not in gone}
        laid = yaml.safe_dump({**data, "services": left}, sort_keys=True).encode()
    kept = frozenset(name for name, body in added.items() if body.get(KEPT) is True)
    return Layered(own.add_layer(laid), kept=kept - {*gone})


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


def _list_declared(own: Source) -> frozenset[str]:
    """The services that any compose file of the project may declare."""
    found: set[str] = set()
    for path, file in own.files.items():
        if path.endswith((".yaml", ".yml")):
            try:
                found |= _list_services(parse(path, file.content)).keys()
            except SourceError:
                continue
    return frozenset(found)


def _list_services(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    services = data.get("services")
    if not isinstance(services, dict):
        return {}
    return {str(name): body for name, body in services.items() if isinstance(body, dict)}
