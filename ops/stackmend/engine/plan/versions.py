"""Versions of engines, as packages and programs write them."""

import re

from stackmend.engine.spec import MINIMUM_COMPOSE, MINIMUM_ENGINE

_UPSTREAM = re.compile(r"(?:[0-9]+:)?v?([0-9]+(?:\.[0-9]+)*)")


def upstream(version: str) -> str:
    """What a package's version says of the program: ``5:28.5.1-1~debian.12`` → ``28.5.1``."""
    found = _UPSTREAM.match(version)
    return found[1] if found else ""


def numbers(version: str) -> tuple[int, ...]:
    """A version as one that can be compared."""
    return tuple(int(part) for part in upstream(version).split(".") if part)


def matches(version: str, pin: str) -> bool:
    """Whether a version is the one that is asked for, as far as that is said."""
    wanted = numbers(pin)
    return numbers(version)[: len(wanted)] == wanted


def engine_is_old(version: str) -> bool:
    """Whether an engine is older than what everything here works with."""
    return numbers(version) < numbers(MINIMUM_ENGINE)


def compose_is_old(version: str) -> bool:
    """Whether a Compose is older than what everything here works with."""
    return numbers(version) < numbers(MINIMUM_COMPOSE)
