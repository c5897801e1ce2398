"""Scripts that lie beside the modules that send them, and the sections that they write."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from secrets import token_hex
from typing import Any, TypeVar

from pyinfra.api import FactProcessError
from pyinfra.api.command import QuoteString, StringCommand

T = TypeVar("T")

#: Characters of an error that a message says: it may quote what a host has written.
MAXIMUM_REASON = 500

_STATUS = re.compile(r"\.[0-9]{1,3}")


def script(
    room: str,
    name: str,
    *arguments: str,
    mark: str | None = None,
    fed: bool = False,
    before: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> StringCommand:
    """A script of a room as a command, with its arguments quoted.

    :param room: the package that the script lies in, such as ``stackmend.compose``.
    :param name: its file name without ``.sh``.
    :param *arguments: what it is given.
    :param mark: for a script that writes sections (``begin``, ``end``, ``quoted`` and ``section``
        are then known to it): the mark of this reading, of :func:`make_mark`. The script reads it
        from its standard input: arguments can be seen by every user of a host.
    :param fed: the caller sends the mark, as the first line of what the script is to read.
    :param before: other scripts of the room that go before it, with functions that it calls, and
        programs in other languages that it runs, see :func:`read_script`.
    :param shared: the same of those that all rooms have, beside this module.

    Example:
        >>> script("stackmend.compose", "free", "/opt/ai")
    """
    body = _join_scripts(room, (*before, name), tuple(shared), framed=mark is not None)
    feed: tuple[object, ...] = ()
    if mark is not None:
        feed = () if fed else ("printf", r"'%s\n'", QuoteString(mark), "|")
    return StringCommand(*feed, "sh", "-c", QuoteString(body), name, *map(QuoteString, arguments))


@cache
def _join_scripts(
    room: str, names: tuple[str, ...], shared: tuple[str, ...], *, framed: bool
) -> str:
    """The text of scripts in their order, one for all hosts."""
    body = "".join(read_script(__package__, part) for part in shared)
    body += "".join(read_script(room, part) for part in names)
    return f"IFS= read -r mark || exit 70\n{read_frame()}{body}" if framed else body


def write_own(path: str, *, present: bool = True) -> StringCommand:
    """Replace a file that only root reads by standard input, in one step; or remove it.

    Nobody but root (or who we are) may change anything in its directory, which is made.

    :param path: the file, in a directory of stackmend's own.
    :param present: whether there is to be one.

    Example:
        >>> write_own(f"{STATE_ROOT}/ai/move.json")
    """
    return script(__package__, "keep", path, "yes" if present else "no", shared=["walk"])


@cache
def read_script(room: str, name: str) -> str:
    """The text of a script, without its comments: every host pays for each byte that is sent.

    Of a program in another language it is an assignment: what ``bind.py`` holds is ``$bind_py``.

    :param room: the package that the script lies in.
    :param name: its file name; a script of the shell goes without its ``.sh``.
    """
    file = PurePath(name if "." in name else f"{name}.sh")
    lines = (files(room) / str(file)).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("# ")]
    body = "\n".join(kept) + "\n"
    if file.suffix == ".sh":
        return body
    return f"{file.stem}_{file.suffix[1:]}={shlex.quote(body)}\n"


def read_frame() -> str:
    """The functions that write sections, with a ``docker`` that never hangs."""
    return read_script(__package__, "failed") + read_script(__package__, "frame")


def make_mark() -> str:
    """The mark of one reading's sections: known to nobody on the host before it is read."""
    return f"=={token_hex(16)}"


def parse_sections(output: Sequence[str], mark: str) -> dict[str, tuple[int, list[str]]]:
    """Split framed output into name → (exit status, lines); what was cut off is left out.

    :param output: the lines that the script wrote.
    :param mark: the mark that it was given.
    :raises ValueError: the frames are not as ``frame.sh`` writes them.
    """
    if not mark:
        raise ValueError("it was asked without a mark")
    found: dict[str, tuple[int, list[str]]] = {}
    name: str | None = None
    status: int | None = None
    lines: list[str] = []
    complete = False
    for line in output:
        if name is None:
            if line.startswith(f"{mark} begin "):
                name, status, lines, complete = line.removeprefix(f"{mark} begin "), None, [], False
            elif line.startswith(mark):
                raise ValueError("a section ends that has not begun")
        elif status is not None:
            if line != f"{mark} end":
                raise ValueError(f"the section {name!r} does not end as it should")
            # To be sure of a line of its own the status begins one: without an empty line of the
            # frame before it, the last line is what was left open, or nothing.
            if not complete and lines and not lines[-1]:
                lines.pop()
            found[name] = (status, lines)
            name = None
        elif line.startswith("|") and not complete:
            lines.append(line[1:])
        elif not line and not complete:
            complete = True
        elif _STATUS.fullmatch(line):
            status = int(line[1:])
        else:
            raise ValueError(f"the section {name!r} holds a line that is not quoted")
    return found


def parse_partial_section(output: Sequence[str], mark: str, name: str) -> list[str]:
    """The lines of one section as far as they came, where the end of it may be missing.

    :param output: the lines that the script wrote.
    :param mark: the mark that it was given.
    :param name: the section.
    """
    lines: list[str] | None = None
    for line in output:
        if lines is None:
            lines = [] if mark and line == f"{mark} begin {name}" else None
        elif line == f"{mark} end":
            break
        elif line.startswith("|"):
            lines.append(line[1:])
    return lines or []


def parse_rows(lines: Sequence[str], width: int) -> list[list[Any]]:
    """Lists in JSON, one a line; a client's warnings between them are left out.

    :param lines: the lines of a section.
    :param width: how many values a list has.
    """
    found = []
    for line in lines:
        with suppress(json.JSONDecodeError):
            if isinstance(values := json.loads(line), list) and len(values) == width:
                found.append(values)
    return found


def parse_probe(parse: Callable[[list[str]], T], output: list[str], of: str) -> T:
    """What a probe's output means; output that means nothing is one kind of error.

    Any other kind that comes out of a fact's ``process`` would end pyinfra's run on every host.

    :param parse: from the output to what it means.
    :param output: the lines that the probe wrote.
    :param of: what it was to read, for the message.
    :raises FactProcessError: the output cannot be parsed; the message says why.
    """
    try:
        return parse(output)
    except Exception as error:  # whatever a host makes of it: a recursion too deep, a date too far
        reason = " ".join(str(error).split()) or type(error).__name__
        if len(reason) > MAXIMUM_REASON:
            reason = f"{reason[:MAXIMUM_REASON]}…"
        raise FactProcessError(f"the probe of {of} cannot be read: {reason}") from error
