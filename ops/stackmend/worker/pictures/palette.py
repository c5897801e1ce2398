"""Colours of what is drawn, told apart without seeing them by markers beside them."""

from __future__ import annotations

from typing import Literal

from stackmend.pages import COLOURS

Theme = Literal["light", "dark"]

#: Of lines side by side, with their markers.
SERIES = ("blue", "orange", "green", "purple", "brown", "cyan", "red", "grey")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def choose(name: str, theme: Theme) -> str:
    """A colour in hex.

    :param name: one of ``COLOURS``.
    :param theme: what it lies on.
    """
    return COLOURS[name][theme == "dark"]
