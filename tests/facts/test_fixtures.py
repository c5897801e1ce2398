"""One test for each fixture: what a real host printed, and the value that a fact makes of it.

The fixtures are in the format of pyinfra-testing: a folder for each fact, named by its path below
``stackmend``; ``arg``, ``output`` and ``fact`` in each file. That package itself cannot be used
beside other tests: it imports pyinfra's command line, which puts gevent's threads and sockets in
the place of this process's own while the tests are collected.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml

FIXTURES = sorted(Path(__file__).parent.glob("*.*.*/*.yaml"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fact(path: Path) -> None:
    module, _, name = path.parent.name.rpartition(".")
    fact = getattr(import_module(f"stackmend.{module}"), name)()
    fixture = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert fact.command(**fixture["arg"])
    value = fact.process(fixture["output"].split("\n"))
    assert json.loads(json.dumps(value.to_json())) == fixture["fact"]


def test_there_are_fixtures() -> None:
    assert len(FIXTURES) >= 10
