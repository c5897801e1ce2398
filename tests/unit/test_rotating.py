"""Which cases a run has, and that each comes round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rotating import choose

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.mark.rotating(2)
@pytest.mark.parametrize("case", "abcde")
def test_cases(case):
    pass

def test_other():
    pass
"""


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 800_000))
def test_each_case_comes_round(cases: int, size: int, day: int) -> None:
    days = -(-cases // size)
    chosen = [choose(cases, size, day + number) for number in range(days)]
    assert set().union(*chosen) == set(range(cases))
    assert {len(numbers) for numbers in chosen} == {min(cases, size)}


@pytest.mark.parametrize(
    ("words", "more", "number"),
    [
        ((), {}, 3),
        ((), {"STACKMEND_TEST_ALL": "1"}, 6),
        (("test_it.py::test_cases",), {}, 5),
        (("-k", "cases"), {}, 5),
    ],
    ids=["a day's", "all", "named", "by keyword"],
)
def test_what_runs(
    tmp_path: Path, words: tuple[str, ...], more: dict[str, str], number: int
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(
        "from tests.rotating import leave_out\n\n"
        "def pytest_collection_modifyitems(config, items):\n    leave_out(config, items)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", *words],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "STACKMEND_TEST_DAY": "1", **more},
        capture_output=True,
        text=True,
    )
    assert f"{number} passed" in done.stdout, done.stdout
