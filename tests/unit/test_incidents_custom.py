"""A user's own incidents: found and validated before any host is contacted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackmend.incidents import custom, load
from stackmend.problems import Problem
from stackmend.spec import SpecError, Stack, check
from tests.example_incident import EXAMPLE

ROOT = Path(__file__).parents[2]

ONE = """
from stackmend.incidents import Incident, TextPattern

INCIDENTS = [
    Incident(
        id="{id}",
        title="Something of ours",
        severity="warning",
        patterns=[TextPattern(pattern="{pattern}", examples=["{example}"])],
        remedy="mend it",
        proof="it is mended",
    ),
]
"""


def write(directory: Path, text: str, name: str = "own.py") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def make(id: str = "ours", pattern: str = "it broke", example: str = "It broke!") -> str:
    return ONE.format(id=id, pattern=pattern, example=example)


def test_a_file_is_executed_once_and_gives_its_incidents(tmp_path: Path) -> None:
    # A second time it would raise.
    once = f"from pathlib import Path\nPath({str(tmp_path / 'once')!r}).touch(exist_ok=False)\n"
    file = write(tmp_path, once + make())
    first, second = load([file]), load([file])
    assert [incident.id for incident in first] == ["ours"]
    assert first == second


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("INCIDENTS = 1", "must assign a list of incidents to INCIDENTS"),
        ("", "must assign a list of incidents to INCIDENTS"),
        ("INCIDENTS = ['x']", "INCIDENTS holds a str, which is no Incident"),
        ("raise RuntimeError('no \\x1b[31m')", "cannot be executed: RuntimeError: no \\x1b[31m"),
        ("def", "cannot be executed: SyntaxError"),
        ("import sys; sys.exit(3)", "cannot be executed: SystemExit"),
        (make(example="all is well"), "ours: the pattern 'it broke' does not match its example"),
        (make(pattern="it .* broke"), "repeats without an end"),
        (make(id="Ours!"), "cannot be executed: ValidationError"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(Problem) as raised:
        load([file])
    assert reason in str(raised.value)
    assert str(raised.value).startswith(f"incidents[0]: {file}: ")
    assert "\x1b" not in str(raised.value)


def test_a_file_that_is_not_there_and_one_that_is_no_python(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"incidents\[0\]: .*none\.py"):
        load([tmp_path / "none.py"])
    with pytest.raises(Problem, match=r"must be a Python file"):
        load([write(tmp_path, make(), "own.txt")])


def test_two_incidents_of_one_id_are_refused(tmp_path: Path) -> None:
    files = [write(tmp_path, make(), "a.py"), write(tmp_path, make(), "b.py")]
    with pytest.raises(Problem, match=r"incidents\[1\]: .*a second 'ours'"):
        load(files)


def settings(tmp_path: Path, *files: Path) -> dict[str, Any]:
    (tmp_path / "compose.yaml").write_text("services: {a: {image: a}}\n")
    stack = {"project": "ai", "source": str(tmp_path), "directory": "/opt/ai"}
    return {"stack": {**stack, "incidents": [str(file) for file in files]}}


def test_a_stack_names_the_files_and_they_are_read_with_it(tmp_path: Path) -> None:
    stack = check(settings(tmp_path, write(tmp_path, make())))
    assert isinstance(stack, Stack)
    assert [incident.id for incident in custom.load(stack.incidents)] == ["ours"]
    with pytest.raises(SpecError, match=r"stack\.incidents\[0\]: .*must assign a list"):
        check(settings(tmp_path, write(tmp_path, "INCIDENTS = 1", "wrong.py")))


def test_the_example_of_the_documentation_is_one(tmp_path: Path) -> None:
    ids = [incident.id for incident in load([write(tmp_path, EXAMPLE)])]
    assert ids == ["no-memory-limit", "upstream-slow"]
