"""A pasted error: read within limits, and the incidents that it is about as text."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stackmend import controller_files
from stackmend.incidents import diagnose_text

if TYPE_CHECKING:
    from stackmend.incidents import Incident, Match

#: Bytes of the end of a text that are read: more than all that is looked at.
MAXIMUM = 2 * 1024**2

#: Where a process finds what it was started with.
STREAMS = ("/dev/fd", "/proc/self/fd")

#: Characters of a line.
WIDTH = 80

_LABELS = ("remedy", "allow", "proof")


def diagnose(path: Path, incidents: Iterable[Incident]) -> tuple[Match, ...]:
    """The incidents that a text is about, the best match first.

    :param path: the file; ``-`` for standard input.
    :param incidents: those to look for.
    :raises Unreadable: it cannot be read.
    """
    text, dropped = _read(path)
    found = diagnose_text(text, incidents)
    return tuple(each.model_copy(update={"number": each.number + dropped}) for each in found)


def format_matches(matches: Sequence[Match]) -> str:
    """What a text is about, in lines of at most 80 characters.

    :param matches: of :func:`diagnose`.
    """
    if not matches:
        return "no known incident found"
    return "\n".join(line for match in matches for line in _format_match(match))


def _format_match(match: Match) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{match.severity.upper()}  {match.incident}: {match.title}",
        WIDTH,
        subsequent_indent="  ",
    )
    rows = {"found": f"{match.line} [line {match.number}]"}
    rows |= zip(_LABELS, (match.remedy, match.inventory, match.proof), strict=True)
    for label, text in rows.items():
        if text:
            yield from textwrap.wrap(
                f"  {label:<7}{text}", WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False
            )


def _read(path: Path) -> tuple[str, int]:
    """The end of a text, and how many lines before it are left out."""
    try:
        with _open(path) as stream:
            kept, dropped = _read_end(stream)
    except OSError as error:
        raise controller_files.Unreadable(f"cannot be read: {error.strerror}") from None
    return kept.decode(errors="replace"), dropped


def _open(path: Path) -> AbstractContextManager[BinaryIO]:
    if str(path) == "-":
        if sys.stdin is None:
            raise controller_files.Unreadable("cannot be read: standard input is closed")
        return nullcontext(sys.stdin.buffer)
    # A shell's <(command) is a pipe that somebody does write to.
    if str(path.parent) not in STREAMS:
        controller_files.check(path)
    return path.open("rb")


def _read_end(stream: BinaryIO) -> tuple[bytes, int]:
    kept, dropped = b"", 0
    while chunk := stream.read(MAXIMUM):
        kept += chunk
        dropped += kept[:-MAXIMUM].count(b"\n")
        kept = kept[-MAXIMUM:]
    return kept, dropped
