"""Errors of Compose as one short text."""

from __future__ import annotations

import pytest

from stackmend.compose.plan.format import drop_repeated

DENIED = "pull access denied for nobody/nothing, repository does not exist"


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        # As Compose 2.26, 2.40 and 5 print it.
        (
            [f" web Error {DENIED}", f"Error response from daemon: {DENIED}"],
            [f"Error response from daemon: {DENIED}"],
        ),
        (
            [" Image lab/no:1 Error manifest unknown", "Error: manifest unknown"],
            ["Error: manifest unknown"],
        ),
        (["one", "two", "one"], ["two", "one"]),
        (["a web Error here", "another"], ["a web Error here", "another"]),
        ([" web Error no space left", "unrelated"], [" web Error no space left", "unrelated"]),
        ([], []),
    ],
)
def test_what_a_later_line_says_again_is_left_out(lines: list[str], kept: list[str]) -> None:
    assert drop_repeated(lines) == kept
