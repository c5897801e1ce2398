"""What a project's files say of its model server: which service it is, and who names a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stackmend.compose.published import read_services, substitute
from stackmend.compose.source import SourceError
from stackmend.compose.spec import ComposeSpec, GitSource
from stackmend.models.spec import Name

_IMAGE = re.compile(r"(?:^|/)ollama(?:[:@]|$)")
_COMMAND = re.compile(r"(?:^|[\s/])ollama\s+(?:serve|start)(?:\s|$)")
#: Variables of Ollama's own; one in another image is no proof by itself.
_OWN = re.compile(r"OLLAMA_(?:HOST|MODELS|KEEP_ALIVE|NUM_PARALLEL|CONTEXT_LENGTH)")
_MODEL = re.compile(r"OLLAMA_(?:[A-Z0-9_]*_)?MODEL(?:_NAME)?")


@dataclass(frozen=True)
class DeclaredServer:
    """The model server of a project, as its files have it.

    :param service: the service that it is.
    :param models: the models that variables of the project's services name.
    """

    service: str
    models: tuple[str, ...] = ()


def find_server(spec: ComposeSpec) -> DeclaredServer | None:
    """The one service of a project that is Ollama, as far as its files alone say.

    :param spec: the project; of one in a git repository nothing is known.
    :returns: ``None`` where no service is, more than one is, or the files cannot be read.

    Example:
        >>> find_server(stack)
        DeclaredServer(service='ollama', models=('llama3.2:1b',))
    """
    if isinstance(spec.source, GitSource):
        return None
    try:
        _, services, variables = read_services(spec)
    except SourceError:
        return None
    enabled = {*spec.profiles, *variables.get("COMPOSE_PROFILES", "").split(",")}
    # One that nobody starts is missed by nobody.
    left_out = {name for name, service in services if not _is_started(service, enabled)}
    servers = {
        name
        for name, service in services
        if name not in left_out and _is_server(name, service, variables)
    }
    if len(servers) != 1:
        return None
    models = [
        model for _, service in services for model in _list_models(service, variables) if model
    ]
    return DeclaredServer(servers.pop(), tuple(dict.fromkeys(models)))


def _is_started(service: Mapping[str, Any], enabled: Collection[str]) -> bool:
    deploy, profiles = service.get("deploy"), service.get("profiles")
    replicas = deploy.get("replicas") if isinstance(deploy, dict) else None
    if 0 in (service.get("scale", 1), 1 if replicas is None else replicas):
        return False
    return (
        not isinstance(profiles, list) or not profiles or bool({*map(str, profiles)} & {*enabled})
    )


def _is_server(name: str, service: Mapping[str, Any], variables: Mapping[str, str]) -> bool:
    raw = service.get("command") or ""
    command = " ".join(map(str, raw)) if isinstance(raw, list) else str(raw)
    if _IMAGE.search(substitute(service.get("image"), variables)) or _COMMAND.search(command):
        return True
    return name == "ollama" and any(_OWN.fullmatch(key) for key, _ in _list_environment(service))


def _list_models(service: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[str]:
    for key, value in _list_environment(service):
        text = substitute(value, variables)
        if _MODEL.fullmatch(key) and text and "$" not in text:
            with suppress(ValueError):
                yield str(Name.parse(text))


def _list_environment(service: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    raw = service.get("environment")
    if isinstance(raw, dict):
        yield from ((str(key), value) for key, value in raw.items())
    for line in raw if isinstance(raw, list) else ():
        key, _, value = str(line).partition("=")
        yield key, value
