"""Whether the load of ``python -m tests.lab.healthy`` went on, by its counts."""

from __future__ import annotations

import re

import pytest

from tests.lab.healthy import KINDS, LOAD, compare_counts

BEFORE = {"api healthz": 40, "api tasks": 10, "redis": 20, "ollama": 9}
AFTER = {kind: number + 5 for kind, number in BEFORE.items()}


def test_a_load_that_goes_on_is_well() -> None:
    assert compare_counts({}, AFTER) == []
    assert compare_counts(BEFORE, AFTER) == []


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_that_stands_still_is_named(kind: str) -> None:
    expected = [f"load: {kind} stands at {BEFORE[kind]}"]
    assert compare_counts(BEFORE, {**AFTER, kind: BEFORE[kind]}) == expected
    without = {name: number for name, number in AFTER.items() if name != kind}
    assert compare_counts(BEFORE, without) == [f"load: {kind} stands at 0"]


def test_what_fails_is_named_once_with_how_often() -> None:
    failed = "redis: TimeoutError: timed out"
    assert compare_counts(BEFORE, {**AFTER, failed: 3}) == [f"load: 3 x {failed}"]
    assert compare_counts({**BEFORE, failed: 3}, {**AFTER, failed: 3}) == []


def test_the_load_has_these_kinds() -> None:
    assert {*re.findall(r'repeat\(\s*"([^"]+)"', LOAD.read_text(encoding="utf-8"))} == {*KINDS}
