"""Scripts that lie beside the modules that send them, and the sections that they write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import TypeVar

from pyinfra.api import FactProcessError
from pyinfra.api.command import QuoteString, StringCommand

T = TypeVar("T")


def script(
    room: str, name: str, *arguments: str, mark: str | None = None, before: Sequence[str] = ()
) -> StringCommand:
    """A script of a room as a command, with its arguments quoted.

    Args:
        room: the package that the script lies in, such as ``ops.compose``.
        name: its file name without ``.sh``.
        *arguments: what it is given.
        mark: for a script that writes sections (``begin``, ``end`` and ``section`` are then
            known to it): the mark that frames them, see :func:`frame`.
        before: other scripts of the room that go before it, with functions that it calls.

    Example:
        >>> script("ops.compose", "free", "/opt/ai")
    """
    body = "".join(text(room, part) for part in (*before, name))
    if mark is not None:
        body = text(__package__, "frame") + body
        arguments = (mark, *arguments)
    return StringCommand("sh", "-c", QuoteString(body), name, *map(QuoteString, arguments))


@cache
def text(room: str, name: str) -> str:
    """The text of a script, without its comments: every host pays for each byte that is sent.

    Args:
        room: the package that the script lies in.
        name: its file name without ``.sh``.
    """
    lines = (files(room) / f"{name}.sh").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("# ")]
    return "\n".join(kept) + "\n"


def frame(*parts: str) -> str:
    """A mark that frames sections, and that no output can hold by chance.

    Args:
        *parts: what the script is asked; other questions have other marks.
    """
    return "==" + hashlib.sha256("\0".join(("stackmend", *parts)).encode()).hexdigest()[:20]


def sections(output: Sequence[str], mark: str) -> dict[str, tuple[int, list[str]]]:
    """Split framed output into name → (exit status, lines); what was cut off is left out.

    Args:
        output: the lines that the script wrote.
        mark: the mark that it was given.
    """
    found: dict[str, tuple[int, list[str]]] = {}
    name: str | None = None
    lines: list[str] = []
    for line in output:
        if line.startswith(mark):
            _, word, value = line.split(" ", 2)
            if word == "begin":
                name, lines = value, []
            elif name is not None:
                # end() starts a line of its own, which leaves one empty line behind the text.
                if lines and not lines[-1]:
                    lines.pop()
                found[name] = (int(value), lines)
                name = None
        elif name is not None:
            lines.append(line)
    return found


def parsed(parse: Callable[[list[str]], T], output: list[str], of: str) -> T:
    """What a probe's output means; output that means nothing is one kind of error.

    Any other kind that comes out of a fact's ``process`` would end pyinfra's run on every host.

    Args:
        parse: from the output to what it means.
        output: the lines that the probe wrote.
        of: what it was to read, for the message.

    Raises:
        FactProcessError: the output cannot be parsed; the message says why.
    """
    try:
        return parse(output)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FactProcessError(f"the probe of {of} cannot be read: {error}") from error
