"""Text that tries what hostile text can: every notation of a secret, whatever steers a terminal."""

import base64
import html
import json
import os
import pty
import re
import shlex
import subprocess
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus
from xml.sax.saxutils import quoteattr

import yaml

from stackmend.compose.source import format_dotenv
from stackmend.redaction import MASK
from stackmend.text import LINE_LIMIT

#: Stands where a mask stood: no secret and no text holds it.
HOLE = "\U0010fffe"

SEQUENCES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x00\x08\x9b1m\u202etxt\u2028end"
#: What pyinfra's own styles, its spinner and its prompt are made of.
OWN = re.compile(r"\x1b\[(?:0|1|3\d|9\d)(?:;\d+)*m|\x1b\[K|\r(?=\x1b\[K)")


def steering(output: str) -> set[str]:
    left = OWN.sub("", output.replace("\r\n", "\n"))
    return {c for c in left if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Zl"}}


def ansi_c(text: str) -> str:
    """As bash writes it in $'…': what cannot be printed as octal bytes."""
    return "".join(
        {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\x1b": "\\E"}.get(c)
        or (c if " " <= c <= "~" else "".join(f"\\{b:03o}" for b in c.encode()))
        for c in text
    )


def in_basic_auth(text: str, user: str) -> str:
    return base64.b64encode(f"{user}:{text}".encode()).decode()


NOTATIONS: dict[str, Callable[[str], str]] = {
    "as it is": lambda v: v,
    "URL": lambda v: quote(v),
    "URL, all quoted": lambda v: quote(v, safe=""),
    "URL, little quoted": lambda v: quote(v, safe="/:@!$&'()*+,;=~"),
    "URL, lower case": lambda v: re.sub("%..", lambda m: m[0].lower(), quote(v, safe="")),
    "form": quote_plus,
    "JSON": lambda v: json.dumps(v)[1:-1],
    "JSON, not only ASCII": lambda v: json.dumps(v, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda v: json.dumps(json.dumps(v))[1:-1],
    "JSON of Go": lambda v: (
        json.dumps(v, ensure_ascii=False)[1:-1]
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    ),
    "repr": lambda v: repr(v)[1:-1],
    "repr of bytes": lambda v: repr(v.encode())[2:-1],
    "shell": shlex.quote,
    "shell in shell": lambda v: shlex.quote(f"echo {shlex.quote(v)}"),
    "shell, '\\''": lambda v: "'" + v.replace("'", "'\\''") + "'",
    'shell, "…"': lambda v: '"' + re.sub(r'([\\"$`])', r"\\\1", v) + '"',
    "shell, $'…'": lambda v: f"$'{ansi_c(v)}'",
    ".env": lambda v: format_dotenv({"NAME": v}),
    "YAML": lambda v: yaml.safe_dump(v, default_style='"', width=10**6),
    "YAML, not only ASCII": lambda v: yaml.safe_dump(
        v, default_style='"', width=10**6, allow_unicode=True
    ),
    "HTML": html.escape,
    "XML": quoteattr,
    "entities": lambda v: "".join(c if c.isascii() and c.isalnum() else f"&#{ord(c)};" for c in v),
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 for URLs": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "basic auth, 1": lambda v: in_basic_auth(v, "u"),
    "basic auth, 2": lambda v: in_basic_auth(v, "us"),
    "basic auth, 3": lambda v: in_basic_auth(v, "use"),
    "base64, quoted for a URL": lambda v: quote(in_basic_auth(v, "u"), safe=""),
    "hex": lambda v: v.encode().hex(),
    "HEX": lambda v: v.encode().hex().upper(),
}


def unescaped(text: str) -> str:
    with suppress(UnicodeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an escape that Python does not know stays as it is
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    return ""


def unescaped_bytes(text: str) -> str:
    """As a shell reads octal and hex: they are bytes, not characters."""
    return unescaped(text).encode("latin-1", "ignore").decode("utf-8", "ignore")


def in_base64(text: str) -> str:
    found = []
    for run in re.findall(r"[A-Za-z0-9+/_-]{4,}", unquote(text)):
        for start in range(4):
            part = run[start:].translate(str.maketrans("-_", "+/"))
            part = part[: len(part) // 4 * 4] if len(part) % 4 == 1 else part
            with suppress(ValueError):
                data = base64.b64decode(part + "=" * (-len(part) % 4))
                found.append(data.decode("utf-8", "ignore"))
    return "\n".join(found)


def in_hex(text: str) -> str:
    runs = re.findall(r"(?:[0-9a-fA-F]{2})+", text)
    return "\n".join(bytes.fromhex(run).decode("utf-8", "ignore") for run in runs)


#: What somebody who reads the output may do to have the secret back.
READERS: list[Callable[[str], str]] = [
    lambda text: text,
    unquote,
    unquote_plus,
    html.unescape,
    unescaped,
    unescaped_bytes,
    lambda text: unescaped(unescaped(text)),
    lambda text: re.sub(r"\\(.)", r"\1", text, flags=re.S),
    lambda text: re.sub(r"""'(?:\\'|"'")'""", "'", text),
    in_base64,
    in_hex,
]


def holds(shown: str, secret: str) -> bool:
    left = shown.replace(MASK, HOLE)
    return any(secret in reader(left) for reader in READERS)


def assert_clean(text: str, secret: str) -> None:
    assert not holds(text, secret)
    assert steering(text) == set()
    # An escape takes up to ten characters.
    assert max(map(len, OWN.sub("", text).splitlines())) < 10 * LINE_LIMIT + 100


def strings(data: object) -> list[str]:
    if isinstance(data, dict):
        return [text for item in data.items() for text in strings(list(item))]
    if isinstance(data, list):
        return [text for item in data for text in strings(item)]
    return [data] if isinstance(data, str) else []


def on_a_terminal(arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a program on a terminal of its own; its exit status, and all that it shows there."""
    leader, follower = pty.openpty()
    try:
        process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=follower,
        )
    finally:
        os.close(follower)
    seen = bytearray()
    with os.fdopen(leader, "rb", buffering=0) as stream, suppress(OSError):  # its writer is gone
        while data := stream.read(65536):
            seen += data
    return process.wait(60), seen.decode("utf-8", "surrogateescape")
