"""Tests of time are tried again only where another process was late as well."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest

from tests import calm


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says how late this machine is, whatever it is."""

    class Known(calm.Lateness):
        def __exit__(self, *_: object) -> None:
            super().__exit__()
            self.seconds = seconds[0]

    seconds = [0.0]
    monkeypatch.setattr(calm, "Lateness", Known)
    monkeypatch.setattr(calm, "PAUSE", 0.0)

    def be(value: float) -> None:
        seconds[0] = value

    return be


@pytest.mark.parametrize("decorate", [calm.calmly, calm.exactly])
def test_a_failure_without_lateness_is_one_at_once(
    late: Callable[[float], None], decorate: Callable[[Callable[[], None]], Callable[[], None]]
) -> None:
    attempts = []

    def test() -> None:
        attempts.append(1)
        raise AssertionError

    with pytest.raises(AssertionError):
        decorate(test)()
    assert len(attempts) == 1
    late(1.0)
    # A test of what is exact says nothing on a machine that is late; another one fails at last.
    expected = pytest.skip.Exception if decorate is calm.exactly else AssertionError
    with pytest.raises(expected):
        decorate(test)()
    assert len(attempts) == 1 + calm.ATTEMPTS


def test_lateness_is_measured() -> None:
    with calm.Lateness() as found:
        pass
    assert found.seconds >= 0


def test_a_run_whose_exact_tests_were_all_skipped() -> None:
    def report(when: str, longrepr: str, *keywords: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(when=when, longrepr=longrepr, keywords=dict.fromkeys(keywords))

    skipped = report("call", calm.SKIPPED, "exact")
    assert calm.is_skipped_in_all({"skipped": [skipped]})
    assert not calm.is_skipped_in_all({"skipped": [report("setup", "no docker")]})
    assert not calm.is_skipped_in_all({})
    for outcome in ("passed", "failed"):
        stats = {"skipped": [skipped], outcome: [report("call", "", "exact")]}
        assert not calm.is_skipped_in_all(stats)
