"""What a ``.env`` assigns, and where: each form as Docker Compose reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.compose.source import format_dotenv
from stackmend.dotenv import Assignment, iterate_assignments, parse_dotenv


def test_each_line_assigns_and_the_last_one_counts() -> None:
    text = "A=1\n export B = 'two words'\n#C=3\nD\nE=\nA=2\n"
    assert parse_dotenv(text) == {"A": "2", "B": "two words", "D": None, "E": ""}


def test_lines_of_a_quoted_value_assign_nothing() -> None:
    text = 'A=x\nKEY="-----BEGIN\nA=\n-----END"\nB=y\n'
    assert parse_dotenv(text) == {"A": "x", "KEY": "-----BEGIN\nA=\n-----END", "B": "y"}
    assert [found.line for found in iterate_assignments(text)] == [0, 1, 4]


@pytest.mark.parametrize(
    ("line", "written", "value"),
    [
        ("A=b c  # no part of it", "b c", "b c"),
        ("A=b#c", "b#c", "b#c"),
        ("A: b", "b", "b"),
        ("A=b\r", "b", "b"),
        ("A=$B", "$B", None),
        ("A='$B'  # no part of it", "$B", "$B"),
        ('A="$B"', "$B", None),
        (r'A="\$B\n\\"', r"\$B\n\\", "$B\n\\"),
        (r'A="\x"', r"\x", None),
        (r"A='it\'s'", r"it\'s", None),
        ("A=", "", ""),
        ("A", None, None),
        ("A='b", None, None),
        ("A='b'c", None, None),
    ],
)
def test_each_form(line: str, written: str | None, value: str | None) -> None:
    before = "# é\nFIRST=1\n"
    text = f"{before}{line}\nLAST=1\n"
    first, found, last = iterate_assignments(text)
    assert (first.name, last) == (
        "FIRST",
        Assignment("LAST", 3, len(text) - 2, len(text) - 1, "1", "1"),
    )
    assert (found.name, found.line, found.written, found.value) == ("A", 2, written, value)
    assert written is None or text[found.start : found.end] == written
    assert len(before) < found.start <= found.end <= len(before) + len(line)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_what_is_written_comes_back(value: str) -> None:
    assert parse_dotenv(format_dotenv({"A": value, "B": "b"})) == {"A": value, "B": "b"}


@given(st.text("A=:'\"\\ \t\r\n#$.x"))
def test_any_text_is_read_in_order(text: str) -> None:
    at = 0
    for found in iterate_assignments(text):
        assert at <= found.start <= found.end <= len(text)
        assert found.line == text.count("\n", 0, found.start) or found.start == found.end
        at = found.end
