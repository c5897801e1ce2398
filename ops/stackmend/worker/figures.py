"""How a figure is written: messages, the page, the table and a picture show the same digits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

#: What stands for a figure that was not measured.
MISSING = "-"

#: Below this many seconds all times of a kind are written in milliseconds.
SECONDS_FROM = 10.0

#: From here on a figure is written with an exponent.
LARGEST = 1e12


@dataclass(frozen=True)
class Unit:
    """What a figure is written in.

    :param name: as it stands in the heading of a column.
    :param factor: by which the stored figure is multiplied.
    :param digits: that count.
    :param places: behind the point at most.
    """

    name: str
    factor: float = 1.0
    digits: int = 3
    places: int = 6


TOKENS = Unit("tok/s")
REQUESTS = Unit("requests/s")
TASKS = Unit("tasks/min", 60.0)
PERCENT = Unit("%", 100.0, places=1)
SECONDS = Unit("s")
MILLISECONDS = Unit("ms", 1000.0)
GIBIBYTES = Unit("GiB", 1 / 1024**3)
CELSIUS = Unit("°C")
PLAIN = Unit("")
PROBABILITY = Unit("", digits=2)


@dataclass(frozen=True)
class Figure:
    """A figure as it is stored, and how it is written.

    :param value: in the stored unit; ``None`` where it was not measured.
    :param unit: what it is written in.
    :param signed: whether a plus stands before it.
    """

    value: float | None
    unit: Unit = PLAIN
    signed: bool = False

    def __str__(self) -> str:
        return format_figure(self.value, self.unit, signed=self.signed)


def format_figure(value: float | None, unit: Unit = PLAIN, *, signed: bool = False) -> str:
    """A figure with the digits that count, without its unit.

    >>> format_figure(0.01234, MILLISECONDS)
    '12.3'

    :param value: in the stored unit.
    :param unit: what it is written in.
    :param signed: whether a plus stands before it.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    scaled = value * unit.factor
    if abs(scaled) >= LARGEST:
        return f"{scaled:.2e}"
    # Rounded first: 9.999 is 10.0, and not 10.00.
    rounded = float(f"{scaled:.{unit.digits}g}") if abs(scaled) < 10**unit.digits else scaled
    magnitude = math.floor(math.log10(abs(rounded))) if rounded else 0
    if 0 < abs(scaled) < 10.0**-unit.places and unit.places > 1:
        return f"{scaled:.1e}"
    places = 0 if is_count(value, unit) else unit.digits - 1 - magnitude
    text = f"{rounded:{'+' if signed else ''},.{min(max(places, 0), unit.places)}f}"
    return text if any(digit in "123456789" for digit in text) else "0"


def format_setting(value: float) -> str:
    """A figure that a user set, with all its digits.

    >>> format_setting(5000.0)
    '5,000'

    :param value: the figure.
    """
    return f"{value:,.10g}"


def is_count(value: float, unit: Unit) -> bool:
    """Whether a figure counts things, and so has no decimal places."""
    return isinstance(value, int) and unit.factor == 1


def choose_time(values: Iterable[float | None]) -> Unit:
    """The unit for all times of a kind, by the longest."""
    longest = max((value for value in values if value is not None), default=0.0)
    return SECONDS if longest >= SECONDS_FROM else MILLISECONDS


def format_moment(at: float, *, day: bool = False) -> str:
    """A moment in UTC.

    :param at: seconds since 1970.
    :param day: whether the day is enough.
    """
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return MISSING
    return f"{moment:%Y-%m-%d}" if day else f"{moment:%Y-%m-%d %H:%M} UTC"


def format_moments(moments: Sequence[float]) -> tuple[str, ...]:
    """The day of each moment; of several of one day the time as well.

    :param moments: seconds since 1970.
    """
    days = [format_moment(at, day=True) for at in moments]
    counts = Counter(days)
    return tuple(
        day if counts[day] == 1 else format_moment(at)
        for day, at in zip(days, moments, strict=True)
    )
