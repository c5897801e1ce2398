"""What all pages that stackmend writes have in common: one file, no script, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from stackmend.text import LINE_LIMIT, make_printable

#: Colours by name: on light, on dark. No two of one scheme are equal: a name is known by its light
#: colour. They follow the palette of Okabe and Ito, which people see apart whatever they see.
COLOURS: Mapping[str, tuple[str, str]] = {
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


class Fragment(NamedTuple):
    """A part of a page that another room has made.

    :param body: its elements; their ids are no others' of the page.
    :param style: its own style sheet.
    """

    body: Markup
    style: str


def make_policy(style: str) -> str:
    """What a page may do, as its Content-Security-Policy: use its one style sheet, and no more.

    :param style: the text of the sheet, by whose hash the browser knows it.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def make_environment(package: str) -> Environment:
    """What renders the templates of a package: all foreign text escaped, and made visible.

    :param package: the package that the templates lie in.
    """
    return Environment(
        loader=FunctionLoader(lambda name: read(package, name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_make_visible,
    )


def read(package: str, name: str) -> str:
    """A file that travels with a package, such as a template.

    :param package: the package.
    :param name: the file's.
    """
    return files(package).joinpath(name).read_text(encoding="utf-8")


def make_style(*sheets: str) -> str:
    """The one style sheet of a page: the colours, what all pages share, and what it has of its own.

    :param sheets: its own, in order.
    """
    return "".join([_format_colours(), read(__package__, "pages.css"), *sheets])


def _format_colours() -> str:
    """Light ones, dark ones where the reader prefers them, and their classes.

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


def _make_visible(value: Any) -> Any:
    """Text without what a browser obeys though it is escaped, such as marks of direction."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return make_printable(value, LINE_LIMIT)
    return value
