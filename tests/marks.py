"""Framed output as probes write it, under a mark that tests can foresee."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pytest
from pyinfra.api import FactBase

from stackmend.connection import parse_partial_section

T = TypeVar("T", bound=FactBase[Any])
V = TypeVar("V")

#: The mark that readings have in these tests, as a random source that always says 0 makes it.
MARK = f"=={'0' * 32}"


@pytest.fixture
def foreseen(monkeypatch: pytest.MonkeyPatch) -> str:
    """Every reading's mark is :data:`MARK`."""
    monkeypatch.setattr("stackmend.connection.scripts.token_hex", lambda size: "0" * (2 * size))
    return MARK


def asked(fact: type[T], *arguments: object, **named: object) -> T:
    """A fact of a kind that has been asked for: it knows its mark, where that is foreseen."""
    one = fact()
    one.command(*arguments, **named)
    return one


def answer(
    fact: type[FactBase[V]],
    *arguments: object,
    shell: Sequence[str] = ("sh",),
    env: Mapping[str, str] | None = None,
    **named: object,
) -> V:
    """What a fact says of this machine, its probe run by a shell of choice; it may not complain.

    + env: variables beside those of this process
    """
    one = fact()
    words = shlex.split(one.command(*arguments, **named).get_raw_value())
    assert (words[:2], words[3:6]) == (["printf", r"%s\n"], ["|", "sh", "-c"])
    done = subprocess.run(
        [*shell, *words[5:]],
        input=f"{words[2]}\n".encode(),
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=60,
    )
    assert done.stderr == b""
    return one.process(done.stdout.decode(errors="replace").removesuffix("\n").split("\n"))


def checked(command: str, printed: str) -> list[str]:
    """The lines of the checks that a command of theirs printed, out of their frame."""
    found = re.search("==[0-9a-f]{32}", command)
    assert found is not None
    return parse_partial_section(printed.split("\n"), found[0], "checks")


def framed(parts: Mapping[str, tuple[int, Sequence[str]] | None], mark: str = MARK) -> list[str]:
    """Sections, each with exit status and lines, as ``frame.sh`` writes them; not where None."""
    lines: list[str] = []
    for name, part in parts.items():
        if part is not None:
            status, said = part
            quoted = [f"|{line}" for line in said]
            lines += ["", f"{mark} begin {name}", *quoted, "", f".{status}", f"{mark} end"]
    return lines
