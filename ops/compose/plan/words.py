"""Short words for long things."""

from collections.abc import Iterable, Sequence


def short(image_id: str) -> str:
    """The part of an image's id that people compare."""
    return image_id.removeprefix("sha256:")[:12]


def line(text: str) -> str:
    """Text on one line, cut where it is long."""
    joined = " ".join(text.split())
    return joined if len(joined) <= 200 else joined[:199] + "…"


def few(items: Sequence[str]) -> list[str]:
    """A few of many, and how many more."""
    more = [f"and {len(items) - 6} more"] if len(items) > 6 else []
    return [*items[:6], *more]


def some(items: Iterable[str], between: str = "; ") -> str:
    """A few of many as one text."""
    return between.join(few(list(items)))
