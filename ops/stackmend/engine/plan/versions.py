"""Versions of engines, as packages and programs write them."""

import re

from stackmend.engine.spec import MINIMUM_COMPOSE, MINIMUM_ENGINE

_UPSTREAM = re.compile(r"(?:[0-9]+:)?v?([0-9]+(?:\.[0-9]+)*)")


def extract_upstream(version: str) -> str:
    """What a package's version says of the program: ``5:28.5.1-1~debian.12`` → ``28.5.1``."""
    match = _UPSTREAM.match(version)
    return match[1] if match else ""


def parse_version(version: str) -> tuple[int, ...]:
    """A version as one that can be compared."""
    return tuple(int(part) for part in extract_upstream(version).split(".") if part)


def is_within(version: str, pin: str) -> bool:
    """Whether a version is the one that a pin names, as far as it names one."""
    pinned = parse_version(pin)
    return parse_version(version)[: len(pinned)] == pinned


def is_old_engine(version: str) -> bool:
    """Whether an engine is older than what everything here works with."""
    return parse_version(version) < parse_version(MINIMUM_ENGINE)


def is_old_compose(version: str) -> bool:
    """Whether a Compose is older than what everything here works with."""
    return parse_version(version) < parse_version(MINIMUM_COMPOSE)
