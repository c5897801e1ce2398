"""Secrets that are known when they are met, and how to look for them in any encoding.

Nothing here shares code with what hides them.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import yaml

#: By what they are for: each with another kind of character that some notation writes otherwise.
ENV = {
    "PLAIN_TOKEN": "canary-plain-7c1f9b2e",
    "QUOTED_TOKEN": "canary'single\"double\\back-83aa",
    "LINES_TOKEN": "canary-first-line-91d0\ncanary-second-line-4fe2",
    "PERCENT_TOKEN": "canary%25s%(x)s%d-5b7c",
    "DOLLAR_TOKEN": "canary$HOME${X}$$-77e1",
    "UNICODE_TOKEN": "canary-schlüssel-☃-日本-a3d4",
    "BASE64_TOKEN": base64.b64encode(b"canary-in-base64-0f33??>>").decode(),
    "MARKUP_TOKEN": "canary<b>&amp;</b>-1ee5",
    "SPACED_TOKEN": "canary with spaces = and # 6d21",
    "LONG_TOKEN": "canary-" + "".join(f"{number:03d}x" for number in range(60)),
}

#: A line end with an indentation, also escaped.
_WRAP = re.compile(r"[ \t]*(?:\r?\n|\\+r\\+n|\\+n)[ \t]*")


def list_encodings(secret: str) -> Iterator[tuple[str, str]]:
    """Each notation of a secret, with its name."""
    data = secret.encode()
    yield "plain", secret
    yield "JSON", json.dumps(secret)[1:-1]
    yield "JSON of Unicode", json.dumps(secret, ensure_ascii=False)[1:-1]
    yield "JSON in JSON", json.dumps(json.dumps(secret)[1:-1])[1:-1]
    yield "Python", repr(secret)[1:-1]
    yield "URL", quote(secret, safe="")
    yield "URL path", quote(secret)
    yield "form", quote_plus(secret)
    yield "each byte in %", "".join(f"%{byte:02X}" for byte in data)
    yield "HTML", html.escape(secret)
    yield "shell", shlex.quote(secret).strip("'")
    yield "YAML", yaml.safe_dump(secret, allow_unicode=True).removesuffix("\n...\n").strip("'\"\n")
    yield (
        "dotenv",
        secret.translate(str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n"})),
    )
    yield "Compose", secret.replace("$", "$$")
    yield "hex", data.hex()
    yield "HEX", data.hex().upper()
    yield "hex:colons", data.hex(":")
    yield "hex with spaces", data.hex(" ")
    yield "octal", "".join(f"\\{byte:03o}" for byte in data)
    yield (
        "octal where it is not ASCII",
        "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in data),
    )
    # As whoever takes UTF-16 for UTF-8 has it, which has no word for what is not ASCII.
    for order in ("le", "be") if secret.isascii() else ():
        yield f"UTF-16 {order}", secret.encode(f"utf-16-{order}").decode().strip("\0")
    for shift, core in _list_base64(data):
        yield f"base64 at {shift}", core
        yield f"base64 for URLs at {shift}", core.replace("+", "-").replace("/", "_")
        for again, twice in _list_base64(core.encode()):
            yield f"base64 at {again} of base64 at {shift}", twice
    for line in secret.splitlines() if "\n" in secret else ():
        yield "one line of it", line


def _list_base64(data: bytes) -> Iterator[tuple[int, str]]:
    """What is there of some bytes for certain, by how many stand before them, less whole groups."""
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        # The first characters belong to what stands before it, the last to what follows.
        yield shift, text[(0, 2, 3)[shift] : -1]


def find(text: str, secrets: dict[str, str]) -> list[str]:
    """Where secrets stand in a text: their names, and in which notation."""
    unwrapped = _WRAP.sub("", text)
    spaced = re.sub(r"[ :\n]", "", text).lower()
    found = []
    for name, secret in secrets.items():
        for notation, written in list_encodings(secret):
            if written in text or written in unwrapped:
                at = text.find(written)
                found.append(f"{name} as {notation}: …{text[max(0, at - 80) : at + 80]!r}…")
        if secret.encode().hex() in spaced:
            found.append(f"{name} as hex")
        if "".join(f"{byte:03o}" for byte in secret.encode()) in spaced:
            found.append(f"{name} as octal")
    return found
