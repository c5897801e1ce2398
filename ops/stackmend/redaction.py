"""The one redactor: a secret of the user appears in nothing that the process shows.

Terminal, report, journal and errors all ask :func:`redact`. A secret is found in the notations in
which programs write values:

- as it is, and stripped; of a secret of several lines each line of at least 8 characters as well;
- quoted for a URL, with either case of hex digits, whatever is left unquoted, ``+`` for a space;
- escaped as in JSON, Python, Go, YAML, a ``.env`` file or a shell's ``"…"``, ``'…'`` and ``$'…'``;
- with entities of XML and HTML;
- in base64 and its variant for URLs, alone or within a longer text, such as ``user:password``;
- in base64 of base64, where it has at least 8 bytes;
- in hex and octal, also with colons or spaces between bytes;
- with every character escaped, as ``%70%61``, ``\\x70\\x61``, ``\\160\\141`` or ``&#112;&#97;``;
- with a NUL beside each character, as ASCII in UTF-16 has it;
- wrapped: any of these over several lines, with an indentation, a ``\\`` or an escaped line end.

Shorter than 4 characters a secret is found as it is only, where it stands as a word of its own:
otherwise it would take a part of every other word with it.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from html.entities import codepoint2name
from itertools import islice
from typing import Any
from urllib.parse import quote, quote_plus

from stackmend.text import LINE_LIMIT, make_printable

MASK = "*MASKED*"
#: A shorter secret is found as a word of its own only.
SHORTEST = 4
#: A shorter line of a secret of several lines is not looked for by itself.
SHORTEST_LINE = 8

#: Keys of a host's data whose plain text is secret as well: those of pyinfra's connectors.
PASSWORD_KEY = re.compile(r"password$")

#: Paths of addresses that whoever knows them can send to.
SECRET_PATH = re.compile(r"(^|\.)((report|schedule)\.ping|report\.notify(\.[0-9]+)?)$")

#: How deep settings are looked through for secrets, and how much of one value.
DEEPEST, MOST = 64, 100_000

_RUN = re.compile(r"[A-Za-z0-9]+")
# From what is rare in text to what is common: where a search begins decides how often it begins.
_RARE = "QZXJqzKVYWjxUGHFBPMOLDNEISCATR9876543210vbkywgfpmhucldrsnoiate"
#: Long enough to be rare, short enough to be looked for quickly.
_ANCHOR = 8
# Bounded, because whoever writes the text may write megabytes of them. Groups are not repeated
# possessively: before 3.11.5 Python then misses matches (https://github.com/python/cpython/issues/106052).
_SLASHES = r"\\{1,40}+"
_MAYBE_SLASHES = r"\\{0,40}+"
_PERCENT = "%(?:25){0,4}"
_ENTITY = "&(?:amp;){0,4}"
_LETTERS = {
    "\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r",
    "\x1b": "[eE]", " ": " ", "\x85": "N", "\xa0": "_", "\u2028": "L", "\u2029": "P",
}  # fmt: skip
_QUOTES = frozenset("'\"\\")
# One quote or backslash in any notation; shells nest them, so that one may stand for several.
_QUOTE = (
    rf"(?:{_SLASHES}(?:x(?:22|27|5[cC])|u00(?:22|27|5[cC])|042|047|134)"
    rf"|{_PERCENT}(?:22|27|5[cC])"
    rf"|{_ENTITY}(?:quot|apos|#0{{0,6}}(?:34|39|92)|#[xX]0{{0,6}}(?:22|27|5[cC]));"
    r"""|[\\'"])"""
)
_BASE64 = r"[A-Za-z0-9+/_\-]"
# What a secret still has a part in, beside what is certain of it in base64 of base64.
_AROUND = f"{_BASE64}{{0,6}}"
#: A name that means a secret, whatever its value.
SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?|secret|token|api_?key|private_?key|access_?key|credential|\bauth\b|_key$",
    re.I,
)
#: What breaks a text into lines, within it: a line end with what stands around it where a program
#: wraps, also escaped; and the same with the marks that say that the line goes on.
_WRAP = re.compile(
    r"(?<=\S)(?:[ \t]{0,80}\r?\n[ \t]{0,80}|(?:\\{1,8}r)?\\{1,8}n|(?:%0[dD])?%0[aA])(?=\S)"
)
_MARKED_WRAP = re.compile(r"(?<=\S)[\\=]\r?\n[ \t]{0,80}(?=\S)")
#: Characters that are all escaped, one beside the other, and bytes in hex with a sign between them:
#: what stands in each, how often at least, and the whole.
_ESCAPED = (
    ("%", 4, re.compile(r"(?:%[0-9A-Fa-f]{2}){4,}")),
    ("\\x", 4, re.compile(r"(?:\\{1,2}x[0-9A-Fa-f]{2}){4,}")),
    ("\\u", 4, re.compile(r"(?:\\{1,2}u[0-9A-Fa-f]{4}){4,}")),
    ("&#", 4, re.compile(r"(?:&#[0-9]{1,7};){4,}|(?:&#[xX][0-9A-Fa-f]{1,6};){4,}")),
    (":", 7, re.compile(r"\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){7,}\b")),
    ("-", 7, re.compile(r"\b[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){7,}\b")),
    (" ", 7, re.compile(r"\b[0-9A-Fa-f]{2}(?: [0-9A-Fa-f]{2}){7,}\b")),
    (" ", 3, re.compile(r"\b[0-9A-Fa-f]{4}(?: [0-9A-Fa-f]{4}){3,}(?: [0-9A-Fa-f]{2})?\b")),
    ("\\", 4, re.compile(r"(?:\\{1,2}[0-3][0-7]{2}){4,}")),
    (" ", 7, re.compile(r"\b[0-3][0-7]{2}(?: [0-3][0-7]{2}){7,}\b")),
)
_OCTAL = re.compile(r"(?:[ \\]{0,2}[0-3][0-7]{2})+")
_NULS = re.compile("\0+")
_CODE = re.compile(r"(%|\\[xu]|&#[xX]|&#)([0-9A-Fa-f]+)")
#: User and password before a host: in a URL, or as Go writes them, without a scheme. A user alone
#: may be a token.
LOGIN = re.compile(
    r"(?<=://)(?P<user>[^\s/@:\"'<>]{0,256}+)(?::(?P<password>[^\s/\"'<>]{0,512}))?@"
    r"|(?<![^\s,;=\"'])[^\s/@:=,;\"']{1,128}+:(?!//)(?P<bare>[^\s/\"',;]{1,256})@(?!sha\d)(?=[\w(\[])"
)
# What follows such a word, and what stands for a password in a URL.
_LIKELY = re.compile(
    r"(?i)((?:passw|passphrase|pass\b|pwd|secret|token|credential|api[-_]?key|private[-_]?key)"
    r"[\w.-]{0,64}+)([\"']?[=:]\s?|\s{1,9}+)\S+"
)
_LIKELY_URL = re.compile(r"(?i)(://[^\s/:@]*+:)[^\s/@]++@")
_DOTENV = str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"})


class Redactor:
    """Replaces a set of secrets in text.

    :param secrets: the secrets; :meth:`add` adds to them.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._search: _Search | None = None
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Add a secret; an empty one is ignored."""
        if secret.strip() and secret not in self._secrets:
            self._secrets.add(secret)
            self._search = None

    @property
    def secrets(self) -> frozenset[str]:
        """All secrets that it replaces."""
        return frozenset(self._secrets)

    def redact(self, text: str, mask: str = MASK) -> str:
        """The text with every secret replaced, in whichever notation it stands there.

        :param text: the text, as long as it likes.
        :param mask: what stands in place of a secret.
        """
        if not self._secrets or not text:
            return text
        spans = sorted(self._searched.find_spans(text))
        if not spans:
            return text
        parts = []
        done = 0
        for start, end in _merge_spans(spans):
            parts += [text[done:start], mask]
            done = end
        return "".join([*parts, text[done:]])

    def redact_lines(self, lines: Iterable[str], mask: str = MASK) -> list[str]:
        """The same of each of some lines, also where a secret stands in several of them.

        :param lines: the lines; as many come back.
        :param mask: what stands in place of a secret, or of the part of it in a line.
        """
        lines = list(lines)
        text = "\n".join(lines)
        spans = list(_merge_spans(sorted(self._searched.find_spans(text)))) if self._secrets else []
        if not spans:
            return lines
        redacted = []
        start = 0
        for line in lines:
            parts, done, end = [], 0, start + len(line)
            for begins, ends in spans:
                if begins < end and ends > start:
                    parts += [line[done : max(0, begins - start)], mask]
                    done = min(ends, end) - start
            redacted.append("".join([*parts, line[done:]]))
            start = end + 1
        return redacted

    def count_partial(self, text: str) -> int:
        """How many characters at the end of a text may be the beginning of a secret."""
        if not self._secrets or not text:
            return 0
        beginnings = self._searched.beginnings
        for length in range(min(len(text), self._searched.longest), 0, -1):
            tail = text[-length:]
            at = bisect_left(beginnings, tail)
            if at < len(beginnings) and beginnings[at].startswith(tail):
                return length
        return 0

    @property
    def _searched(self) -> _Search:
        if self._search is None:
            self._search = _Search(self._secrets)
        return self._search


_process = Redactor()


def register(secret: str | bytes | None) -> None:
    """Never let this value appear in anything that the process shows.

    :param secret: the secret; ``None`` and an empty one are ignored.
    """
    if isinstance(secret, bytes):
        secret = secret.decode("utf-8", "surrogateescape")
    if secret:
        _process.add(secret)


def get_secrets() -> frozenset[str]:
    """Every secret that was registered."""
    return _process.secrets


def redact(text: str) -> str:
    """The text with every registered secret replaced."""
    return _process.redact(text)


def redact_lines(lines: Iterable[str]) -> list[str]:
    """The same of each of some lines, also where a secret stands in several of them."""
    return _process.redact_lines(lines)


def redact_likely(text: str) -> str:
    """The text with what only looks like a secret replaced, as in ``--password=x``."""
    return _LIKELY_URL.sub(r"\1***@", _LIKELY.sub(r"\1\2***", text))


def format_safe_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Foreign text as one line that may be shown anywhere: redacted, printable, then cut.

    :param text: output of a host, an image or a container.
    :param limit: how many of its characters are shown; half of a secret would not be known again.
    """
    return make_printable(redact(text), limit)


def format_foreign_line(text: str, limit: int = LINE_LIMIT) -> str:
    """The same for what may hold secrets that nobody has named: what only looks like one goes too.

    :param text: a line of a log, or what somebody pasted.
    :param limit: how many of its characters are shown.
    """
    return format_safe_line(redact_likely(text), limit)


def format_foreign_lines(lines: Iterable[str], limit: int = LINE_LIMIT) -> tuple[str, ...]:
    """The same for the lines of one text, over which a secret may be wrapped.

    :param lines: of a log, as many come back.
    :param limit: how many of the characters of each are shown.
    """
    return tuple(make_printable(redact(redact_likely(line)), limit) for line in redact_lines(lines))


def count_partial(text: str) -> int:
    """How many characters at the end of a text may be the beginning of a registered secret."""
    return _process.count_partial(text)


@lru_cache(maxsize=32)
def redactor(secrets: frozenset[str]) -> Redactor:
    """A redactor of these secrets and no others, made once."""
    return Redactor(secrets)


def find_secrets(
    data: Any, path: str = "", _visited: dict[int, Any] | None = None, _depth: int = 0
) -> Iterator[tuple[str, str]]:
    """Yield (path, value) for whatever is given as secret anywhere inside settings.

    A secret is a ``pydantic.SecretStr`` or ``SecretBytes``, a ``HiddenValue`` of pyinfra, the plain
    text of a key that ends in ``password``, and each address in a ``report`` or a ``schedule``.
    Nothing is validated yet: what holds itself, is without end or fails when it is asked holds no
    secret that settings can have.
    """
    # Each value is looked at once: one that stands in many places may be many when written out.
    visited = {} if _visited is None else _visited
    if issubclass(type(data), str | bytes | int | float | None) or id(data) in visited:
        return
    if _depth > DEEPEST:
        return
    visited[id(data)] = data
    try:
        revealed, items = _reveal(data)
    except Exception:  # The methods of what a user gives may fail in any way.
        return
    if revealed is not None:
        yield path, revealed
    for key, item in items:
        below = f"{path}.{_format_key(key)}" if path else _format_key(key)
        if issubclass(type(item), str) and (
            (issubclass(type(key), str) and PASSWORD_KEY.search(str.__str__(key)))
            or SECRET_PATH.search(below)
        ):
            yield below, str.__str__(item)
        else:
            yield from find_secrets(item, below, visited, _depth + 1)


def _reveal(data: Any) -> tuple[str | None, list[tuple[Any, Any]]]:
    """The secret that a value is, or what it holds."""
    for reader in ("get_secret_value", "unmask"):
        if callable(reveal := getattr(data, reader, None)) and not isinstance(data, type):
            value = reveal()
            if isinstance(value, bytes):
                value = value.decode("utf-8", "surrogateescape")
            return str(value), []
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(data, Mapping):
        items = data.items()
    elif isinstance(data, list | tuple | set | frozenset):
        items = enumerate(data)
    elif hasattr(type(data), "model_fields"):
        items = vars(data).items()
    return None, list(islice(items, MOST))


def _format_key(key: Any) -> str:
    if type(key) is int and key.bit_length() < 64:
        return str(key)
    return (
        make_printable(str.__str__(key), 80) if issubclass(type(key), str) else type(key).__name__
    )


class _Needle:
    """One text to be found in all its notations; its expressions are made when they are needed."""

    def __init__(self, anchored: str, expressions: Callable[[], Iterable[str]]) -> None:
        self.anchored = anchored
        self._expressions = expressions

    @cached_property
    def patterns(self) -> list[re.Pattern[str]]:
        return [re.compile(expression) for expression in self._expressions()]

    @cached_property
    def anchors(self) -> list[str]:
        """What stands there in every notation: any of these will do to look for it."""
        runs = _RUN.findall(self.anchored)
        least = min(_ANCHOR // 2, max(map(len, runs), default=0))
        return [
            run[start : start + _ANCHOR] for run in runs for start in range(len(run) - least + 1)
        ]


class _Search:
    """All secrets, made ready to be looked for in one pass over a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        beginnings: set[str] = set()
        needles: list[_Needle] = []
        for secret in secrets:
            if len(secret.strip()) < SHORTEST:
                needles.append(_make_word_needle(secret.strip()))
                continue
            for piece in _list_pieces(secret):
                literals = _list_literals(piece)
                beginnings |= literals
                needles.append(_Needle(piece, _list_notations(piece, literals)))
                for core, expression in _find_base64(piece):
                    beginnings.add(core)
                    needles.append(_Needle(core, _give(expression)))
                for core in _find_double_base64(piece):
                    beginnings.add(core)
                    needles.append(_Needle(core, _give(f"{_AROUND}{re.escape(core)}{_AROUND}=*")))
                for digits in {_encode(piece).hex(), _encode(piece).hex().upper()}:
                    beginnings.add(digits)
                    needles.append(_Needle(digits, _give(re.escape(digits))))
        self.beginnings = sorted(beginnings)
        self.longest = max(map(len, beginnings), default=1)
        self._unanchored = [needle for needle in needles if not needle.anchors]
        self._by_anchor: dict[str, list[_Needle]] = {}
        for anchor, needle in _choose_anchors([needle for needle in needles if needle.anchors]):
            self._by_anchor.setdefault(anchor, []).append(needle)
        # The longest first: at one place only one is found, and it stands for those it begins with.
        anchors = sorted(self._by_anchor, key=len, reverse=True)
        self._trie = _build_trie(anchors)
        self._any = re.compile(self._trie) if anchors else None

    @cached_property
    def _each(self) -> re.Pattern[str]:
        # Anchors overlap: one is looked for at every place, behind the beginning of another too.
        return re.compile(f"(?=({self._trie}))")

    def find_spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where secrets stand in a text; they may overlap."""
        yield from self._find_plain_spans(text)
        for view in _list_views(text):
            for start, end in self._find_plain_spans(view.text):
                # Of two words that only now stand beside each other a short one is made by chance.
                if end - start >= SHORTEST_LINE:
                    yield view.locate(start, end)

    def _find_plain_spans(self, text: str) -> Iterator[tuple[int, int]]:
        for needle in {id(needle): needle for needle in self._find_candidates(text)}.values():
            for pattern in needle.patterns:
                for match in pattern.finditer(text):
                    yield match.span()

    def _find_candidates(self, text: str) -> Iterator[_Needle]:
        yield from self._unanchored
        if self._any is None or (first := self._any.search(text)) is None:
            return
        for found in {match[1] for match in self._each.finditer(text, first.start())}:
            for length in range(1, len(found) + 1):
                yield from self._by_anchor.get(found[:length], ())


class _View:
    """A text with parts of it written otherwise, and where each place of it stands in the text.

    :param text: the text.
    :param parts: of each part where it begins and ends, and what is written instead; in order.
    :param below: what the text itself is a view of, if it is one.
    """

    def __init__(
        self, text: str, parts: Iterable[tuple[int, int, str]], below: _View | None = None
    ) -> None:
        self._below = below
        #: Where pieces begin here, and where they begin and end there; whether they are the same.
        self._starts: list[int] = []
        self._pieces: list[tuple[int, int, bool]] = []
        written: list[str] = []
        at = done = 0
        for start, end, instead in (*parts, (len(text), len(text), "")):
            for begins, ends, new, same in (
                (done, start, text[done:start], True),
                (start, end, instead, False),
            ):
                if new:
                    self._starts.append(at)
                    self._pieces.append((begins, ends, same))
                    written.append(new)
                    at += len(new)
            done = end
        self.text = "".join(written)

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of it stands in the text that it was made from first.

        :param start: where the part begins here.
        :param end: where it ends.
        """
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, end - 1) - 1
        begins, _, same = self._pieces[first]
        found = begins + (start - self._starts[first] if same else 0)
        begins, ends, same = self._pieces[last]
        until = begins + end - self._starts[last] if same else ends
        return self._below.locate(found, until) if self._below else (found, until)


def _list_views(text: str) -> Iterator[_View]:
    """A text without the breaks of its lines, and with escapes that stand side by side read."""
    bases: list[tuple[str, _View | None]] = [(text, None)]
    # Most texts are one line, which ends.
    if text.find("\n", 0, -1) >= 0 or "\\n" in text or "%0" in text:
        for pattern in (_WRAP, _MARKED_WRAP):
            if parts := [(*match.span(), "") for match in pattern.finditer(text)]:
                view = _View(text, parts)
                yield view
                bases.append((view.text, view))
    if "\0" in text:
        yield _View(text, [(*match.span(), "") for match in _NULS.finditer(text)])
    for base, below in bases:
        for sign, least, pattern in _ESCAPED:
            if base.count(sign) < least:
                continue
            if parts := [(*m.span(), _read_escaped(m[0])) for m in pattern.finditer(base)]:
                yield _View(base, parts, below)


def _read_escaped(run: str) -> str:
    """What is written where each character is escaped; of hex digits those alone."""
    if _OCTAL.fullmatch(run):
        numbers = [int(digits, 8) for digits in re.findall("[0-7]{3}", run)]
        return bytes(numbers).decode(errors="replace")
    if run[0] in "%\\&":
        codes = _CODE.findall(run)
        numbers = [int(digits, 10 if sign == "&#" else 16) for sign, digits in codes]
        if max(numbers) < 0x100:
            return bytes(numbers).decode(errors="replace")
        return "".join(chr(number) if number < 0x110000 else "\ufffd" for number in numbers)
    return re.sub(r"[^0-9A-Fa-f]", "", run)


def _merge_spans(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Merge overlapping spans, so that no end of one secret is left beside another."""
    start = end = -1
    for begins, ends in spans:
        if begins >= end:
            if end > 0:
                yield start, end
            start, end = begins, ends
        end = max(end, ends)
    if end > 0:
        yield start, end


def _choose_anchors(needles: list[_Needle]) -> Iterator[tuple[str, _Needle]]:
    """One anchor for each needle, such that all begin with few characters, and rare ones."""
    left = needles
    while left:
        counts = {
            first: sum(1 for needle in left if any(a[0] == first for a in needle.anchors))
            for first in {anchor[0] for needle in left for anchor in needle.anchors}
        }
        best = max(counts, key=lambda first: (counts[first] / (4 + _RARE.index(first)), first))
        unanchored = []
        for needle in left:
            anchor = max((a for a in needle.anchors if a[0] == best), key=len, default=None)
            if anchor is None:
                unanchored.append(needle)
            else:
                yield anchor, needle
        left = unanchored


def _build_trie(texts: Iterable[str]) -> str:
    """An expression that finds the longest of the words at a place without trying each of them."""
    root: dict[str, Any] = {}
    for text in texts:
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[""] = {}

    def build_branches(node: dict[str, Any]) -> str:
        # Unfolded upside down: an optional rest is tried before its absence.
        rests = [
            re.escape(character) + build_branches(below)
            for character, below in sorted(node.items())
            if character
        ]
        if not rests:
            return ""
        joined = rests[0] if len(rests) == 1 and "" not in node else f"(?:{'|'.join(rests)})"
        return f"{joined}?" if "" in node else joined

    return "|".join(
        re.escape(character) + build_branches(below) for character, below in sorted(root.items())
    )


def _list_pieces(secret: str) -> list[str]:
    pieces = {secret, secret.strip()}
    lines = secret.splitlines()
    if len(lines) > 1:
        pieces.update(
            line for line in (line.strip() for line in lines) if len(line) >= SHORTEST_LINE
        )
    return sorted(pieces, key=len, reverse=True)


def _make_word_needle(secret: str) -> _Needle:
    return _Needle(secret, _give(rf"(?<!\w){re.escape(secret)}(?!\w)"))


def _give(*expressions: str) -> Callable[[], Iterable[str]]:
    return lambda: expressions


def _list_notations(piece: str, literals: set[str]) -> Callable[[], Iterable[str]]:
    def build_expressions() -> Iterator[str]:
        # What the libraries themselves write, to the letter, and whatever else is written so.
        yield "|".join(map(re.escape, sorted(literals, key=len, reverse=True)))
        yield _build_loose(piece)

    return build_expressions


def _list_literals(piece: str) -> set[str]:
    forms = {
        piece,
        json.dumps(piece)[1:-1],
        json.dumps(piece, ensure_ascii=False)[1:-1],
        repr(piece)[1:-1],
        # The quotes around it are the shell's, not its own.
        shlex.quote(piece)[1:-1] if shlex.quote(piece) != piece else piece,
        piece.translate(_DOTENV),
        html.escape(piece),
    }
    for encode in (quote, quote_plus):
        for safe in ("", "/"):
            forms.add(encode(_encode(piece), safe=safe))
    return forms


def _build_loose(piece: str) -> str:
    """An expression for a text each character of which may be escaped in any way of its own."""
    parts = []
    index = 0
    after_quotes = False
    while index < len(piece):
        character = piece[index]
        if character in _QUOTES:
            run = index
            while run < len(piece) and piece[run] in _QUOTES:
                run += 1
            count = run - index
            # At its end no more than its own: what follows may be the quotes around it.
            most = f",{count + 40}}}" if run < len(piece) else "}"
            parts.append(f"{_QUOTE}{{{count}{most}")
            index = run
        else:
            parts.append(_match_character(character, after_quotes))
            index += 1
        after_quotes = character in _QUOTES
    return "".join(parts)


@lru_cache(maxsize=1024)
def _match_character(character: str, after_quotes: bool) -> str:
    if character.isascii() and character.isalnum():
        return character
    code = ord(character)
    encoded = _encode(character)
    raw = re.escape(character)
    if character == "\n":
        raw = r"\r?\n[ \t]{0,80}+"
    elif character == "$":
        raw = r"\${1,2}"
    elif character == " ":
        raw = r"[ +]"
    elif character == "%":
        raw = "%(?:25){0,5}"
    elif character == "&":
        raw = "&(?:amp;|#0{0,6}38;|#[xX]0{0,6}26;){0,5}"
    escapes = [f"U{_match_hex(code, 8)}"]
    if character in _LETTERS:
        escapes.append(_LETTERS[character])
    if code < 0x100:
        escapes.append(f"x{_match_hex(code, 2)}")
    if code < 0x10000:
        escapes.append(f"u{_match_hex(code, 4)}")
    else:
        high, low = divmod(code - 0x10000, 0x400)
        escapes.append(f"u{_match_hex(0xD800 + high, 4)}{_SLASHES}u{_match_hex(0xDC00 + low, 4)}")
    escapes.append(_SLASHES.join(f"x{_match_hex(byte, 2)}" for byte in encoded))
    escapes.append(_SLASHES.join(f"{byte:03o}" for byte in encoded))
    names = [f"#0{{0,6}}{code}", f"#[xX]0{{0,6}}{_match_hex(code, 1)}"]
    if code in codepoint2name:
        names.append(codepoint2name[code])
    # Quotes before it have taken its own backslashes with them.
    before = _MAYBE_SLASHES if after_quotes else _SLASHES
    return (
        f"(?:{_MAYBE_SLASHES}{raw}"
        f"|{before}(?:{'|'.join(escapes)})"
        f"|{''.join(f'{_PERCENT}{_match_hex(byte, 2)}' for byte in encoded)}"
        f"|{_ENTITY}(?:{'|'.join(names)});)"
    )


def _match_hex(number: int, width: int) -> str:
    return "".join(
        digit if digit.isdigit() else f"[{digit}{digit.upper()}]" for digit in f"{number:0{width}x}"
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _find_base64(piece: str) -> Iterator[tuple[str, str]]:
    """Yield (what is found for certain, an expression) for each place among groups of 3 bytes."""
    data = _encode(piece)
    for before in range(3):
        bits = (before + len(data)) * 8
        core = _encode_certainly(data, before)
        expression = "".join(
            {"+": r"(?:\\{0,9}+[+\-]|%2[bB])", "/": r"(?:\\{0,9}+[/_]|%2[fF])"}.get(
                character, character
            )
            for character in core
        )
        if before:
            expression = f"{_BASE64}?{expression}"
        if bits % 6:
            expression = f"{expression}{_BASE64}?(?:=|%3[dD]){{0,2}}"
        yield core, expression


def _find_double_base64(piece: str) -> Iterator[str]:
    """Yield what is certain of it in base64 of base64, for each place among groups of 3 bytes."""
    data = _encode(piece)
    if len(data) < SHORTEST_LINE:
        return
    for before in range(3):
        once = _encode_certainly(data, before)
        for again in range(3):
            yield _encode_certainly(once.encode(), again)


def _encode_certainly(data: bytes, before: int) -> str:
    """What no neighbour has a bit of, where so many bytes stand before it."""
    text = base64.b64encode(bytes(before) + data).decode()
    return text[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
