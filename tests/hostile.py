"""Text that somebody on a host chose to deceive whoever reads it: strategies for hypothesis.

They give what a label, a path, an argument, a unit, a log line or an HTTP answer may hold: text
framed as a probe frames its own, separators of every format, control characters, bytes that are no
UTF-8, and values of a megabyte.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from hypothesis import strategies as st

#: What a test that makes marks known may put in place of a random one.
KNOWN = "c0ffee" * 8

#: The mark that a reading then has.
KNOWN_MARK = f"=={KNOWN[:32]}"

#: Sections of every room, by their names.
SECTIONS = (
    "clock writable applied stale mends files outside engine names containers processes networks "
    "images unpacked config problem compose differs hashes host release packages programs daemons "
    "systemd environment origins versions left text done pci nodes proof driver tools package "
    "account group groups sudo check settings end services ports timers whole record reached "
    "proxy place free owner manifests digests contents blobs parts configs stored named complete "
    "bind sockets owners bound guards links users units rules shims live addresses"
).split()

#: What parts the fields and lines of some format, or means something to a shell, an awk or a sed.
SEPARATORS = (
    *("|", "||", "\t", " ", "  ", ",", ";", ":", "::", "=", "/", "//", "\\", "\\n", "\\0"),
    *('"', "'", "`id`", "$(id)", "${HOME}", "$$", "*", "?", "[", "]", "{", "}", "-", "--"),
    *("%s%n", "{{.ID}}"),
    *("-n", "-e", "&", "<", ">", "!", "#", "~", "..", "../..", "/etc/passwd", " -> ", "null", "0"),
    *('"},{"', "[]", "{}", '\\"', "\\u0000", "<no value>", "[unprintable]", "pid=1,fd=1)"),
)

#: Characters that ends lines somewhere, or that a terminal obeys.
CONTROLS = (
    *("\n", "\n\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"),
    *("\x1b[2J", "\x1b]0;owned\x07", "\x07", "\x08", "\x7f", "\x01", "\x9b", "\u202e", "\ufeff"),
    *("\ufffd", "\U0001f525", "ä", "日本語", "e\u0301", "\u200b"),
)

#: Bytes that are no UTF-8, or only almost.
BROKEN = (b"\xff", b"\xfe\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80")


def computed(*parts: str) -> str:
    """A mark that anybody could compute, as marks once were."""
    return "==" + hashlib.sha256("\0".join(("stackmend", *parts)).encode()).hexdigest()[:20]


#: Marks that somebody may try: computed ones, a known one in each form, and one that is none.
MARKS = (
    *(computed(*parts) for parts in (("shop", "/opt/shop"), ("engines",), ("accelerators",))),
    *(computed(*parts) for parts in (("basics",), ("ops",), ("resolve",))),
    *(KNOWN[:length] for length in (16, 20, 24, 32, 40, 48)),
    *(f"=={KNOWN[:length]}" for length in (16, 20, 24, 32, 40, 48)),
    *("==", "=="[:1], f"=={secrets.token_hex(10)}"),
)


def forged(mark: str, section: str, body: str, status: int = 0) -> str:
    """Text that ends the section it stands in, and goes on as another one."""
    return (
        f"\n\n{mark} end 0\n\n{mark} begin {section}\n{body}\n\n{mark} end {status}\n"
        f"\n{mark} begin rest\n"
    )


def quoting(mark: str, section: str, body: str, status: int = 0) -> str:
    """The same for frames whose text has a bar before each line, and its status after them."""
    return (
        f"\n\n.0\n{mark} end\n\n{mark} begin {section}\n|{body}\n\n.{status}\n{mark} end\n"
        f"\n{mark} begin rest\n|"
    )


def counted(mark: str, section: str, body: str, status: int = 0) -> str:
    """The same for frames that say how long what they hold is."""
    length = len(body.encode())
    return (
        f"\n{mark} {section} {status} {length}\n{body}\n{mark} {section} {length} {status}\n"
        f"\n{mark} {status}\n\n{mark} 0 0\n\n{mark} 1 0\n"
    )


def quoted(section: str, body: str) -> str:
    """The same for frames that are lines of JSON, or mark each line that they hold."""
    row = f'{{"section": "{section}", "status": 0, "lines": ["{body}"]}}'
    return f'\n"}}\n{row}\n<{section}\n >{body}\n'


def marks(*known: str) -> st.SearchStrategy[str]:
    """A mark that might be the right one; those that are known to be right come first."""
    return st.sampled_from((*known, *known, *[KNOWN_MARK] * 8, *MARKS))


def frames(
    *known: str, sections: Sequence[str] = (), bodies: Sequence[str] = ()
) -> st.SearchStrategy[str]:
    """Text that would be taken for a section, if the reader could be deceived.

    :param known: marks that are right.
    :param sections: names of the sections of the room that reads it.
    :param bodies: what would do harm there.
    """
    names = st.sampled_from((*sections, *sections, *SECTIONS))
    body = st.sampled_from((*bodies, *bodies, "", "0", "x|y|z|w", "forged", "- ../../root/victim"))
    status = st.sampled_from((0, 0, 1, 127))
    return st.one_of(
        st.builds(forged, marks(*known), names, body, status),
        st.builds(quoting, marks(*known), names, body, status),
        st.builds(counted, marks(*known), names, body, status),
        st.builds(quoted, names, body),
    )


def long_text() -> st.SearchStrategy[str]:
    """Up to a megabyte of one thing, which often ends in something else."""
    return st.builds(
        lambda piece, length, end: piece * (length // len(piece)) + end,
        st.sampled_from(("x", "a b ", "\n", "|", "ä", "y\n", "\\")),
        st.sampled_from((4095, 4096, 65_536, 131_072, 1_048_576)),
        st.sampled_from(("", "\n", "|end", f"\n{MARKS[0]} end 0\n")),
    )


def weighted(*choices: tuple[int, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    """One of these, each as often as its number says."""
    strategies = [strategy for times, strategy in choices for _ in range(times)]
    return st.sampled_from(range(len(strategies))).flatmap(strategies.__getitem__)


def hostile_text(
    *known: str,
    sections: Sequence[str] = (),
    bodies: Sequence[str] = (),
    nul: bool = False,
    newlines: bool = True,
    longest: int = 1 << 21,
) -> st.SearchStrategy[str]:
    """Text of somebody who knows how it is read.

    :param known: marks that are right.
    :param sections: names of the sections of the room that reads it.
    :param bodies: what would do harm there.
    :param nul: whether it may hold NUL.
    :param newlines: whether it may hold newlines.
    :param longest: how many characters it may have.
    """
    pieces = [
        (3, frames(*known, sections=sections, bodies=bodies)),
        (2, st.sampled_from(SEPARATORS)),
        (2, st.sampled_from(CONTROLS)),
        (1, st.text(st.characters(exclude_categories=("Cs",)), max_size=12)),
        (1, st.sampled_from(("a", "web", "shop", "redis", "0" * 64, "running"))),
        (1, st.sampled_from(tuple(bodies) or ("",))),
    ]
    text = st.lists(weighted(*pieces), max_size=6).map("".join)
    if longest > 100_000:
        # A megabyte takes its time everywhere.
        text = weighted((60, text), (1, long_text()))

    def fitting(value: str) -> str:
        if not nul:
            value = value.replace("\0", "")
        if not newlines:
            value = value.replace("\n", " ")
        return value[:longest]

    return text.map(fitting)


def hostile_bytes(
    *known: str,
    sections: Sequence[str] = (),
    bodies: Sequence[str] = (),
    nul: bool = False,
    newlines: bool = True,
    longest: int = 1 << 21,
) -> st.SearchStrategy[bytes]:
    """The same as bytes, of which not all are UTF-8."""
    text = hostile_text(
        *known, sections=sections, bodies=bodies, nul=nul, newlines=newlines, longest=longest
    ).map(lambda value: value.encode("utf-8", "surrogatepass"))
    broken = st.builds(
        lambda start, part, end: (start + part + end)[:longest],
        text,
        st.sampled_from(BROKEN),
        st.sampled_from((b"", b"\n" if newlines else b" ", b"end")),
    )
    return st.one_of(text, text, broken)


def hostile_name(*known: str, **more: Sequence[str]) -> st.SearchStrategy[bytes]:
    """The name of a file: any bytes but NUL and the slash, 255 at most."""

    def named(value: bytes) -> bytes:
        name = value.replace(b"/", b"_")[:255]
        return name if name not in (b"", b".", b"..") else b"_"

    return hostile_bytes(*known, **more, longest=255).map(named)  # type: ignore[arg-type]


def hostile_label(*known: str, **more: Sequence[str]) -> st.SearchStrategy[str]:
    """The value of a label: an image's config may hold any text, NUL among it."""
    return hostile_text(*known, **more, nul=True)  # type: ignore[arg-type]


def hostile_argument(*known: str, **more: Sequence[str]) -> st.SearchStrategy[bytes]:
    """An argument of a process; one is 128 KiB at most."""
    return hostile_bytes(*known, **more, longest=100_000)  # type: ignore[arg-type]


def hostile_comm(*known: str) -> st.SearchStrategy[bytes]:
    """What a process calls itself: fifteen bytes."""
    return hostile_bytes(*known, longest=15).filter(bool)
