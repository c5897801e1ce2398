"""Colours: each for light and for dark, told apart without seeing them by markers beside them.

They follow the palette of Okabe and Ito, which people see apart whatever colours they see.
"""

from __future__ import annotations

from typing import Literal

Theme = Literal["light", "dark"]

#: Name: on light, on dark. No two of one theme are equal: a name is known by its light colour.
COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1c2228", "#e8ecf0"),
    "muted": ("#5b6670", "#9daab6"),
    "grid": ("#dfe4e9", "#2f3740"),
    "blue": ("#0067a5", "#56b4e9"),
    "orange": ("#c34a00", "#f0a030"),
    "green": ("#007a5a", "#2fc79a"),
    "purple": ("#8f3f7f", "#e08fc8"),
    "brown": ("#7a5c00", "#e6d25a"),
    "cyan": ("#1f7f94", "#7fd6e3"),
    "red": ("#b3202c", "#ff8a80"),
    "grey": ("#4a4f58", "#c0c6cc"),
}

#: Of lines side by side, with their markers.
SERIES = ("blue", "orange", "green", "purple", "brown", "cyan", "red", "grey")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def choose(name: str, theme: Theme) -> str:
    """A colour in hex.

    :param name: one of ``COLOURS``.
    :param theme: what it lies on.
    """
    return COLOURS[name][theme == "dark"]


def format_css() -> str:
    """The colours as CSS: light ones, dark ones where the reader prefers them, and their classes.

    ``f-NAME`` fills a part of a picture with a colour, ``s-NAME`` strokes it.
    """
    light = "".join(f"--{name}:{pair[0]};" for name, pair in COLOURS.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in COLOURS.items())
    classes = "".join(
        f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}" for name in COLOURS
    )
    # Paper is light, whatever the reader prefers on a screen.
    return (
        f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"{classes}\n"
    )
