"""What is tried once more, and what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.alone import MOST

ROOT = Path(__file__).parents[2]
CHANCE = """
from pathlib import Path

def test_chance():
    before = Path("before")
    came = before.exists()
    before.touch()
    assert came
"""


def fails_and_is_tried_again(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.alone` behind a run that failed, in a directory of its own."""
    (directory / "test_it.py").write_text(text)
    words = [sys.executable, "-m"]
    first = subprocess.run([*words, "pytest", "-q"], cwd=directory, capture_output=True)
    assert first.returncode == pytest.ExitCode.TESTS_FAILED, first.stdout
    return subprocess.run(
        [*words, "tests.alone"],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_what_passes_alone_is_named_and_fails_nothing(tmp_path: Path) -> None:
    done = fails_and_is_tried_again(tmp_path, CHANCE)
    assert done.returncode == 0, done.stdout
    assert "passed  test_it.py::test_chance" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "def test_it():\n    assert False\n",
        "import pytest\n\n@pytest.fixture\ndef host():\n    assert False\n\n"
        "def test_it(host):\n    pass\n",
    ],
    ids=["test", "fixture"],
)
def test_what_fails_again_fails(tmp_path: Path, text: str) -> None:
    done = fails_and_is_tried_again(tmp_path, f"{CHANCE}\n{text}")
    assert done.returncode == 1
    assert "passed  test_it.py::test_chance" in done.stdout
    assert "FAILED  test_it.py::test_it" in done.stdout


def test_many_failures_are_not_chance(tmp_path: Path) -> None:
    tests = "".join(f"def test_{number}():\n    assert False\n\n" for number in range(MOST + 1))
    done = fails_and_is_tried_again(tmp_path, tests)
    assert done.returncode == 1
    assert f"{MOST + 1} failed" in done.stdout
    assert "collected" not in done.stdout
