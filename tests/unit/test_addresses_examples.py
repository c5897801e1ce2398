"""The examples in the docstrings of the room ``addresses`` are what it does."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from stackmend import addresses

MODULES = sorted(module.name for module in pkgutil.iter_modules(addresses.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"{addresses.__name__}.{name}")).failed == 0


def test_there_are_examples() -> None:
    modules = [importlib.import_module(f"{addresses.__name__}.{name}") for name in MODULES]
    assert sum(doctest.testmod(module).attempted for module in modules) > 30
