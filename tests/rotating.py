"""Cases of which each day has its own: all of them come round within a few days.

A parametrized test on hosts may have so many cases that all of them in each run would cost more
time than they are worth. It says how many a run has: ``@pytest.mark.rotating(4)``. Where
``STACKMEND_TEST_ALL`` is set, or where tests are named, none is left out.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

#: The day whose cases run. Set once, so that all workers of a run have the same.
_DAY = int(os.environ.setdefault("STACKMEND_TEST_DAY", str(datetime.now(UTC).toordinal())))


def choose(cases: int, size: int, day: int) -> set[int]:
    """The numbers of the cases that a day has, of which each comes round.

    >>> choose(5, 2, 0), choose(5, 2, 1), choose(5, 2, 2)
    ({0, 1}, {2, 3}, {0, 4})
    """
    return {(day * size + number) % cases for number in range(min(size, cases))}


def describe() -> str:
    """What a run says of it at its beginning."""
    if "STACKMEND_TEST_ALL" in os.environ:
        return "rotating cases: all of them"
    return f"rotating cases: those of day {_DAY}; STACKMEND_TEST_ALL=1 runs all of them"


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the cases that are another day's."""
    named = any("::" in word for word in config.args) or config.option.keyword
    if named or "STACKMEND_TEST_ALL" in os.environ:
        return
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("rotating"):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    others: set[pytest.Item] = set()
    for cases in tests.values():
        marker = cases[0].get_closest_marker("rotating")
        assert marker is not None
        chosen = choose(len(cases), marker.args[0], _DAY)
        others.update(case for number, case in enumerate(cases) if number not in chosen)
    if others:
        config.hook.pytest_deselected(items=[item for item in items if item in others])
        items[:] = [item for item in items if item not in others]
