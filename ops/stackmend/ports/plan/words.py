"""Holders in words, without what is secret."""

import re
from collections.abc import Iterable, Sequence

from stackmend.ports.state import Holder, Process, Socket

#: What follows such a word on a command line is nobody's business.
_SECRET = re.compile(
    r"(?i)([\w.-]*(?:passw|passphrase|pass\b|pwd|secret|token|credential|api-?key|private-?key)"
    r"[\w.-]*)(=|:|\s+)(\S+)"
)
_URL = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@")


def shown(text: str) -> str:
    """Text without what would tell a terminal to do something."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def line(text: str, limit: int = 160) -> str:
    """Text on one line, cut where it is long."""
    joined = shown(" ".join(text.split()))
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def argv(words: Sequence[str]) -> str:
    """A command line, with what looks like a secret replaced."""
    return line(_URL.sub(r"\1***@", _SECRET.sub(r"\1\2***", " ".join(words))))


def process(one: Process) -> str:
    """``python3.11 (pid 812 of user bob): python3 -m http.server``.

    It is called what its program's file is called, not what it calls itself.
    """
    user = f" of user {one.user}" if one.user else f" of uid {one.uid}" if one.uid >= 0 else ""
    said = argv(one.argv)
    return f"{name(one)} (pid {one.pid}{user})" + (f": {said}" if said else "")


def name(one: Process) -> str:
    """The short name of a process's program."""
    return shown(program(one)) or "a program"


def program(one: Process) -> str:
    """What a process's program is called: by its file, or by itself where that is not known."""
    return one.exe.rpartition("/")[2].removesuffix(" (deleted)") or one.name


def socket(one: Socket) -> str:
    """One socket as ``ss`` would list it."""
    address = f"[{one.address}]" if ":" in one.address else one.address
    peer = f" to {one.peer}" if one.peer else ""
    return f"{one.protocol} {address}:{one.port} {one.state}{peer}"


def evidence(holder: Holder) -> list[str]:
    """What is known of a holder, line by line."""
    told = [f"seen by {', '.join(holder.evidence)}"] if holder.evidence else []
    told += [socket(one) for one in holder.sockets]
    if holder.process is not None:
        told.append(process(holder.process))
    return told


def some(items: Iterable[str], most: int = 6) -> str:
    """A few of many as one text."""
    listed = list(dict.fromkeys(items))
    more = [f"and {len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *more])
