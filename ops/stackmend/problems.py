"""Problems of settings as messages: one printable line each, as long as a person reads."""

import unicodedata
from collections.abc import Iterator
from itertools import islice
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

from stackmend.text import make_printable

#: The longest line of one problem, and the most problems that are reported at once.
MAXIMUM_LINE = 1000
MAXIMUM_PROBLEMS = 50

#: The longest text that is quoted as it stands.
MAXIMUM_QUOTED = 120

#: Categories of characters that move the cursor, end a line, or are no characters at all.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})

#: Characters that change the direction in which a line is read.
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

_repr = Repr()
_repr.maxstring = _repr.maxother = MAXIMUM_QUOTED
_repr.maxlevel = 3


class Problem(ValueError):
    """A setting cannot be used; the text is one line that begins with its path."""

    def __init__(self, text: str) -> None:
        super().__init__(cut_line(text))


def list_problems(error: ValidationError, *where: str) -> Iterator[str]:
    """Each problem in one line, the field's path first; the value may be secret, and is left out.

    :param where: what stands before the field in its path.
    """
    found = error.errors(include_url=False, include_input=False)
    for item in islice(found, MAXIMUM_PROBLEMS):
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        elif item["type"] == "missing":
            message = "missing"
        elif item["type"] == "model_type":
            message = "must be a mapping"
        # What tells the kinds of a value apart is in angle brackets, and no part of its path.
        path = join_path(*where, *(part for part in item["loc"] if str(part)[:1] != "<"))
        yield cut_line(": ".join(filter(None, [path, message])))
    if len(found) > MAXIMUM_PROBLEMS:
        yield cut_line(f"{join_path(*where)}: … and {len(found) - MAXIMUM_PROBLEMS} more problems")


def join_problems(error: ValueError) -> str:
    """All problems in one line."""
    return "; ".join(list_problems(error)) if isinstance(error, ValidationError) else str(error)


def join_path(*parts: str | int) -> str:
    """Join the parts of a field's path with dots."""
    return ".".join(map(show, parts))


def show(value: Any) -> str:
    """A name as it stands, where it is short and shows what it is; else as :func:`abbreviate`."""
    text = value if isinstance(value, str) else str(value) if isinstance(value, int) else None
    if text is None or len(text) > MAXIMUM_QUOTED or not text.isprintable():
        return abbreviate(value)
    return text


def abbreviate(value: Any) -> str:
    """A value as Python writes it, its middle left out where it is long: never more than a line."""
    try:
        text = _repr.repr(value)
    except Exception:  # The value may be anything, and its own methods may fail.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 4 * MAXIMUM_QUOTED else f"{text[: 4 * MAXIMUM_QUOTED]}..."


def cut_line(text: str) -> str:
    """Make a text one line that moves no cursor and is no longer than a person reads."""
    return make_printable(text, MAXIMUM_LINE)


def is_plain(text: str) -> bool:
    """Whether a text holds no character that moves the cursor, ends a line, or turns it around.

    Names may hold more than is shown as it stands, such as what joins two signs to one.
    """
    return text.isprintable() or not any(
        character in _DIRECTIONS or unicodedata.category(character) in _CONTROLS
        for character in text
    )
