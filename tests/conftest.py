"""What all tests share."""

from __future__ import annotations

import pytest

from tests.lab.fixtures import (
    bare_host,
    closed_host,
    host,
    hosts,
    lab,
    model_registry,
    packages,
    registry,
    trixie_host,
)

__all__ = [
    "bare_host",
    "closed_host",
    "host",
    "hosts",
    "lab",
    "model_registry",
    "packages",
    "registry",
    "trixie_host",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real hosts, so that ``-m 'not lab'`` runs the rest."""
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):  # every fixture that gives hosts needs it
            item.add_marker("lab")
