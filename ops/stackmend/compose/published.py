"""Ports that a project's files publish, as far as the files alone say: no engine is asked."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackmend.compose.source import (
    COMPOSE_FILES,
    OVERRIDE_FILES,
    PORT,
    Source,
    SourceError,
    load,
    parse,
)
from stackmend.compose.spec import ComposeSpec
from stackmend.dotenv import parse_dotenv

# ${NAME}, ${NAME:-default}, ${NAME-default}, $NAME
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::?-(?P<default>[^{}$]*))?\}|(?P<plain>\w+))")


_RANGE = re.compile(r"[1-9][0-9]*(?:-[1-9][0-9]*)?")

#: The longest text that may be a port.
LONGEST = 256


def find_published_ports(spec: ComposeSpec) -> tuple[str, ...]:
    """The ports of the host that a project publishes, each as ``ports.free`` takes it.

    For a host that has no engine yet. What depends on a variable that neither ``env`` nor ``.env``
    nor the file itself gives a value, what is included from elsewhere, and what the engine may
    choose is left out; where the files cannot be read there is nothing.

    :param spec: the project.
    :returns: ``ADDRESS:PORT/PROTOCOL`` each.
    """
    try:
        _, services, variables = read_declared(spec)
    except SourceError:
        return ()
    found = (
        port
        for service in services
        for raw in _list_ports(service)
        for port in _parse_port(raw, variables)
    )
    return tuple(dict.fromkeys(found))


def read_declared(
    spec: ComposeSpec,
) -> tuple[Source, list[Mapping[str, Any]], Mapping[str, str]]:
    """A project's files, its services as each file has them, and the variables that have a value.

    :param spec: the project.
    :raises SourceError: the files cannot be read.
    """
    source, named, variables = read_services(spec)
    return source, [service for _, service in named], variables


def read_services(
    spec: ComposeSpec,
) -> tuple[Source, list[tuple[str, Mapping[str, Any]]], Mapping[str, str]]:
    """The same, with the name of each service.

    :param spec: the project.
    :raises SourceError: the files cannot be read.
    """
    source = load(spec)
    names = [name for name in (*COMPOSE_FILES, *OVERRIDE_FILES) if name in source.files]
    files = [parse(name, source.files[name].content) for name in names]
    dotenv = source.files[".env"].content.decode(errors="replace") if ".env" in source.files else ""
    variables = {
        name: value for name, value in parse_dotenv(dotenv).items() if value is not None
    } | spec.variables
    # No part of a port is longer, and one that is would be written out once for each use of it.
    variables = {name: value for name, value in variables.items() if len(value) <= LONGEST}
    services = [
        (str(name), _as_mapping(service))
        for data in files
        for name, service in _as_mapping(data.get("services")).items()
    ]
    return source, services, variables


def _as_mapping(raw: Any) -> Mapping[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _list_ports(service: Any) -> list[Any]:
    ports = _as_mapping(service).get("ports")
    return ports if isinstance(ports, list) else []


def _parse_port(raw: Any, variables: Mapping[str, str]) -> Iterator[str]:
    if isinstance(raw, dict):
        address = raw.get("host_ip") or ""
        ports, protocol = raw.get("published") or "", raw.get("protocol") or "tcp"
    else:
        parts = PORT.fullmatch(substitute(raw, variables))
        if parts is None:
            return
        address, ports = parts["host"] or "", parts["published"] or ""
        protocol = parts["protocol"] or "tcp"
    address, ports = substitute(address, variables), substitute(ports, variables)
    if not _RANGE.fullmatch(ports) or protocol not in ("tcp", "udp"):
        return
    first, _, last = ports.partition("-")
    if not int(first) <= int(last or first) <= 65535:
        return
    if ":" in address and not address.startswith("["):
        address = f"[{address}]"
    yield f"{address}:{ports}/{protocol}" if address else f"{ports}/{protocol}"


def substitute(raw: Any, variables: Mapping[str, str]) -> str:
    """A short text with the variables that have a value in their places; empty for a long one.

    :param raw: what a file has there.
    :param variables: their values.
    """
    text = str(raw) if isinstance(raw, str | int | float) else ""
    if len(text) > LONGEST:
        return ""

    def get_value(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        default = match["default"]
        if raw := variables.get(name):
            return raw
        return match[0] if default is None else default

    return _VARIABLE.sub(get_value, text)
