"""Foreign JSON: read within limits, or refused as a ``ValueError``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

#: Bytes of one answer, as many as registries themselves take for a manifest.
LONGEST = 4 << 20

#: How deep lists and objects lie within one another.
DEEPEST = 64

#: Bytes that one file may have; a number beyond it is no size.
LARGEST = 16 << 40

_MARK = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(data: bytes | str, longest: int = LONGEST) -> Any:
    """Read the value that JSON holds.

    >>> read_json(b'{"size": 5}')
    {'size': 5}

    :param data: bytes of UTF-8, or text.
    :param longest: how many of them there may be.
    :raises ValueError: it is no JSON, longer or deeper than it may be, names a key of one object
        twice, or holds a number or text that cannot be kept.
    """
    if len(data) > longest:
        raise ValueError(f"it is longer than {longest} bytes")
    text = data.decode() if isinstance(data, bytes) else data
    _check_depth(text)
    try:
        value = json.loads(
            text,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_parse_float,
            object_pairs_hook=_build_object,
        )
        if _HALF.search(text):
            # Half of a surrogate pair can be neither shown nor sent.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it lies too deep") from None
    return value


def parse_size(value: Any) -> int:
    """A number of bytes.

    :raises ValueError: it is none that a file can have.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError(f"a size is a number from 0 to {LARGEST}")
    return value


def parse_string(value: Any) -> str:
    """Text; nothing where there is none.

    :raises ValueError: it is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("it is no text")
    return value


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth, quoted = 0, False
    for mark in _MARK.finditer(text):
        if mark[0] == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif mark[0] in "[{":
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"it lies deeper than {DEEPEST}")
        elif mark[0] in "]}":
            depth -= 1


def _parse_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number has more than 20 digits")
    return int(digits)


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


def _build_object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError("an object names a key twice")
        found[key] = value
    return found
