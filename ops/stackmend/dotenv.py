"""What a ``.env`` assigns, and where it stands there. Pure."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_NAME = re.compile(
    r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][\w.-]*)[ \t]*(?P<assigns>[=:])?[ \t]*"
)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\"", re.DOTALL)
_END = re.compile(r"[ \t\r]*(?:[ \t]#.*)?")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "\\": "\\", '"': '"', "$": "$"}


class Assignment(NamedTuple):
    """One line of a ``.env``, or several where a quoted value holds them.

    :param name: the variable.
    :param line: the line that it begins in, from 0.
    :param start: where its value begins, in characters; quotes are not of the value.
    :param end: where it ends.
    :param written: what stands there; ``None`` where only the name does, or where a quote does not
        end.
    :param value: what Compose reads; ``None`` where something else decides that, such as another
        variable.
    """

    name: str
    line: int
    start: int
    end: int
    written: str | None = None
    value: str | None = None


def iterate_assignments(text: str) -> Iterator[Assignment]:
    """What a ``.env`` or an env file assigns, in its order; the last one of a name counts.

    :param text: the file's content.

    Example:
        >>> [(found.name, found.line, found.value) for found in iterate_assignments("A=1\\nB='x'")]
        [('A', 0, '1'), ('B', 1, 'x')]
    """
    at = line = 0
    while at < len(text):
        end = _find_line_end(text, at)
        if match := _NAME.match(text, at, end):
            found = Assignment(match["name"], line, match.end("name"), match.end("name"))
            if match["assigns"]:
                found, end = _read_value(text, found._replace(start=match.end()), end)
            yield found
        line += text.count("\n", at, end) + 1
        at = end + 1


def parse_dotenv(text: str) -> dict[str, str | None]:
    """The variables that a ``.env`` assigns.

    :param text: the file's content.
    :returns: name → value, as it is written where another variable stands in it; ``None`` where
        only the name stands, or where a quote does not end.
    """
    return {
        found.name: found.written if found.value is None else found.value
        for found in iterate_assignments(text)
    }


def _find_line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _read_value(text: str, found: Assignment, end: int) -> tuple[Assignment, int]:
    """An assignment with its value, and where its last line ends.

    :param end: where its first line ends.
    """
    start = found.start
    if text[start : start + 1] in ("'", '"'):
        if quoted := _QUOTED.match(text, start):
            last = _find_line_end(text, quoted.end())
            if _END.fullmatch(text, quoted.end(), last):
                written = quoted[0][1:-1]
                value = _undo_escapes(written) if quoted[0][0] == '"' else written
                if quoted[0][0] == "'" and "\\'" in written:
                    value = None
                at = start + 1
                end = at + len(written)
                return found._replace(start=at, end=end, written=written, value=value), last
        return found._replace(end=start + len(text[start:end].rstrip(" \t\r"))), end
    written = re.split(r"[ \t]#", text[start:end], maxsplit=1)[0].rstrip(" \t\r")
    value = None if "$" in written else written
    return found._replace(end=start + len(written), written=written, value=value), end


def _undo_escapes(text: str) -> str | None:
    """What Compose reads between double quotes; ``None`` where another variable is in it."""
    if "$" in _ESCAPE.sub("", text) or any(c not in _ESCAPED for c in _ESCAPE.findall(text)):
        return None
    return _ESCAPE.sub(lambda match: _ESCAPED[match[1]], text)
