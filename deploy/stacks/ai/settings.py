"""Settings of the images' programs: environment variables, read once at the start."""

from __future__ import annotations

import math
import os
import sys
from typing import NoReturn


def get_text(name: str, default: str) -> str:
    """Return the variable, or `default` where it is unset or empty."""
    return os.environ.get(name) or default


def get_number(name: str, default: float, *, least: float) -> float:
    """Return the variable as a number; end the program with one line where it is none.

    :param name: the environment variable
    :param default: taken where it is unset or empty
    :param least: the smallest value that is accepted
    """
    raw = get_text(name, str(default))
    try:
        value = float(raw)
    except ValueError:
        _refuse(f"{name}={raw!r}: must be a number")
    if not least <= value < math.inf:
        _refuse(f"{name}={raw!r}: must be at least {least:g}")
    return value


def get_integer(name: str, default: int, *, least: int) -> int:
    """Return the variable as a whole number; see `number`."""
    value = get_number(name, default, least=least)
    if not value.is_integer():
        _refuse(f"{name}={get_text(name, '')!r}: must be a whole number")
    return int(value)


def _refuse(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    raise SystemExit(2)
