"""What may be written out of a project's files, and what may be a secret. Pure."""

import re
from collections.abc import Collection, Iterable

from stackmend.addresses.state import Edit
from stackmend.redaction import LOGIN, SECRET_NAME, redact_likely

#: A longer text may hold anything.
LONGEST = 4096
# A name of a variable is no secret, and what stands in for it may be one.
_INTERPOLATED = re.compile(
    r"\$\{[A-Za-z_]\w*(?::?[-+](?P<other>[^{}]*)|:?\?[^{}]*)?\}|\$[A-Za-z_]\w*"
)
_PARAMETER = re.compile(
    r"(?i)(?<![A-Za-z])(?:[\w.-]{0,64}[_.-])?(?:key|auth|sig|signature|sas|pw)[\"']?\s?[=:]\s?[\"']?"
    r"[^\s\"'&,}]"
)
#: Part of a path that nobody would choose as a name.
_TOKEN = re.compile(r"://[^\s\"']*/(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16}")
_PIECE = re.compile(
    r"(?P<scheme>(?:jdbc:)?[A-Za-z][A-Za-z0-9+.-]{0,40}://)?"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[\w.-]{1,63})?(?::\d{1,5})?"
    r"(?:/(?:\d{1,3}|v\d|api|app|db|files|graphql|mcp|sse|ws)?){0,4}"
)
_ASSIGNED = re.compile(
    r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][\w.-]*)[ \t]*=[ \t]*(?P<value>.*?)"
    r"(?P<note>[ \t]#.*)?"
)
#: Values of which no secret is made.
_SWITCH = re.compile(r"(?i)(?:\d{1,5}|true|false|yes|no|on|off|debug|info|warn(?:ing)?|error)?")
_NOTE = re.compile(r"[ \t]*(?:#[A-Za-z ,.'()-]*)?")
#: What is in more than a host and a port.
_MORE = re.compile(r"[^\w.:\[\]-]")
_SELF = frozenset({"localhost", "127.0.0.1", "[::1]"})


def has_secret(text: str, *, raw: bool = True) -> bool:
    """Whether a text holds what may be a secret: a login, a parameter, a long part of a path.

    :param raw: whether it is text of a compose file, in which a variable in its place is none; in
        a value that Compose made, a dollar stands for itself.

    >>> has_secret("redis://:p@redis"), has_secret("redis://:${PASSWORD}@redis")
    (True, False)
    """
    plain = text[:LONGEST]
    if raw:
        plain = _INTERPOLATED.sub(lambda match: match["other"] or "", plain)
    return bool(
        len(text) > LONGEST
        or any(login for match in LOGIN.finditer(plain) for login in match.groups())
        or _PARAMETER.search(plain)
        or _TOKEN.search(plain)
        or redact_likely(plain) != plain
    )


def is_plain(name: str, value: str, known: Collection[str]) -> bool:
    """Whether a value holds addresses alone: no login, no parameter and no path that may be secret.

    :param name: the variable that has it.
    :param known: hosts and texts that need no scheme to be known as such, in lower case.

    >>> is_plain("URL", "redis://redis:6379/0", ()), is_plain("URL", "redis://u@redis", ())
    (True, False)
    """
    if SECRET_NAME.search(name) or len(value) > LONGEST:
        return False
    for piece in re.split(r"[\s,;|\"']+", value):
        match = _PIECE.fullmatch(piece)
        if piece.lower() in known or piece in ("", "[", "]"):
            continue
        if not match or not (match["scheme"] or (match["host"] or "").lower() in {*known, *_SELF}):
            return False
    return True


def is_plain_line(line: str, known: Collection[str]) -> bool:
    """Whether a line of an env file holds addresses, a switch or nothing."""
    line = line.strip()
    match = _ASSIGNED.fullmatch(line) if len(line) <= LONGEST else None
    if match is None:
        return _NOTE.fullmatch(line) is not None and not has_secret(line)
    name, value, note = match["name"], match["value"], match["note"] or ""
    if not _NOTE.fullmatch(note) or has_secret(note) or SECRET_NAME.search(name):
        return False
    return _SWITCH.fullmatch(value) is not None or is_plain(name, value, known)


def is_written(edit: Edit) -> bool:
    """Whether what an edit writes may be written anywhere, wherever it comes from."""
    return _MORE.search(edit.new) is None or is_plain(edit.place.key, edit.new, ())


def list_known(edits: Iterable[Edit], services: Iterable[str]) -> frozenset[str]:
    """The texts that are known to be addresses: what is replaced, and by what."""
    texts = [text.lower() for edit in edits for text in (edit.old, edit.new)]
    # A whole value that takes another's place is looked at like any other.
    written = [text for text in texts if not _MORE.search(text)]
    hosts = [text.rpartition(":")[0] if ":" in text else text for text in written]
    return frozenset({*written, *hosts, *(name.lower() for name in services)} - {""})


def show(text: str) -> str:
    """A text of an address as it may be displayed: without login, query and long parts of a path.

    >>> show("http://u:p@api:80/x?key=1")
    'http://***@api:80/x?***'
    """
    text = re.sub(r"://[^\s/]*@", "://***@", text[:LONGEST])
    text = re.sub(r"(://[^\s?]*\?)[^\s\"',;]+", r"\1***", text)
    return re.sub(r"(?<=/)(?=[\w-]*\d)[\w-]{16,}", "***", text)
