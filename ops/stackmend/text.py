"""Text from elsewhere, made fit for a terminal, a report and a journal.

What a host, an image, a container or a user's file says may hold anything: escape sequences that
set a title or clear the screen, carriage returns, marks that turn the direction of writing, lines
of megabytes. Shown as it is, it would steer the terminal of whoever looks at it.
"""

from __future__ import annotations

import re

#: Characters of one value within a message.
VALUE_LIMIT = 500
#: Characters of one line of output.
LINE_LIMIT = 2000
#: Lines of one piece of output.
LINES_LIMIT = 500

# C0 without tab and line feed, DEL, C1; soft hyphen and other fillers that show nothing; marks of
# direction, zero widths, separators of lines and paragraphs; tags; halves of surrogate pairs.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff"
)
_STEERING = re.compile(f"[{_UNSEEN}]")
_STEERING_OR_BREAK = re.compile(f"[{_UNSEEN}\\n\\t]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def make_printable(text: str, limit: int = VALUE_LIMIT) -> str:
    """Text as one line of at most ``limit`` characters, each control character made visible.

    >>> printable("a title: \\x1b]0;owned\\x07\\n")
    'a title: \\\\x1b]0;owned\\\\x07\\\\n'

    :param text: the text; lone surrogates in it are shown as well.
    :param limit: how many of its characters are shown; a mark tells how many more there are.
    """
    return cut(text, limit, _STEERING_OR_BREAK)


def make_lines_printable(text: str, limit: int = LINE_LIMIT, lines: int = LINES_LIMIT) -> str:
    """The same for text of several lines: line feeds and tabs stay, each line is cut by itself.

    :param text: the text; a carriage return before a line feed is dropped.
    :param limit: how many characters of a line are shown.
    :param lines: how many lines are shown: the last ones, as the end of a log explains it.
    """
    if len(text) <= limit and _STEERING.search(text) is None and text.count("\n") < lines:
        return text
    rows = text.replace("\r\n", "\n").split("\n")
    dropped = len(rows) - lines
    if dropped > 0:
        rows = [f"… ({dropped:,} earlier lines)", *rows[dropped:]]
    return "\n".join(cut(row, limit) for row in rows)


def cut(text: str, limit: int, unseen: re.Pattern[str] = _STEERING) -> str:
    """The first ``limit`` characters of a text, made visible, and a mark for what is left out."""
    if len(text) <= limit:
        return escape(text, unseen)
    return f"{escape(text[:limit], unseen)}… ({len(text) - limit:,} more characters)"


def escape(text: str, unseen: re.Pattern[str] = _STEERING) -> str:
    """Text with what steers a terminal, or cannot be seen, written as Python escapes it."""
    return unseen.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def format_limit(seconds: float) -> str:
    """A limit in the two largest units that tell it, rounded up.

    :param seconds: how long.

    Example:
        >>> format_limit(4000)
        '1 h 7 min'
    """
    minutes = -(-int(seconds) // 60)
    parts = {"d": minutes // 1440, "h": minutes // 60 % 24, "min": minutes % 60}
    units = [f"{count} {unit}" for unit, count in parts.items() if count]
    return " ".join(units[:2]) or "1 min"
