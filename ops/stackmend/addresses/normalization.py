"""A project's configuration in the forms that its addresses are read in, whatever it was. Pure."""

from collections.abc import Mapping
from typing import Any

_MAPPINGS = ("environment", "networks", "depends_on", "deploy", "healthcheck")
_LISTS = ("ports", "volumes", "configs", "links", "external_links", "expose")


def normalize(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose sections are what Compose makes of them; what is not is left out.

    :param config: what ``docker compose config --format json`` gives, or what should be it.

    Example:
        >>> config = {"services": {"a": None, "b": {"environment": ["X=1"], "ports": 8}}}
        >>> normalize(config)["services"]
        {'a': {}, 'b': {'environment': {'X': '1'}}}
    """
    services = _map(config.get("services"))
    return {
        **config,
        "services": {str(name): _normalize_service(_map(body)) for name, body in services.items()},
        "networks": {key: _map(body) for key, body in _map(config.get("networks")).items()},
        "configs": {key: _map(body) for key, body in _map(config.get("configs")).items()},
    }


def _normalize_service(body: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(body)
    for key in _MAPPINGS:
        if key in made:
            made[key] = _map(made[key])
    for key in _LISTS:
        if key in made and not isinstance(made[key], list):
            del made[key]
    for key in ("ports", "configs"):
        if key in made:
            made[key] = [item for item in made[key] if isinstance(item, Mapping)]
    if "networks" in made:
        made["networks"] = {
            name: _normalize_network(settings) if isinstance(settings, Mapping) else None
            for name, settings in made["networks"].items()
        }
    return made


def _normalize_network(settings: Mapping[str, Any]) -> dict[str, Any]:
    aliases = settings.get("aliases")
    return {**settings, "aliases": aliases if isinstance(aliases, list) else []}


def _map(value: Any) -> dict[str, Any]:
    """A section as a mapping, where it may be a list of names, each with what follows its ``=``."""
    if isinstance(value, Mapping):
        return {str(key): below for key, below in value.items()}
    if not isinstance(value, list):
        return {}
    pairs = (str(item).partition("=") for item in value)
    return {key: text if sign else None for key, sign, text in pairs}


def to_number(text: Any) -> int:
    """A port or a count that is written in at most five digits; 0 for anything else.

    >>> to_number("8080"), to_number("9" * 5000), to_number("x")
    (8080, 0, 0)
    """
    plain = str(text)
    return int(plain) if len(plain) < 6 and plain.isascii() and plain.isdecimal() else 0
