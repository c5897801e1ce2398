"""The room of ``docs/adding-a-room.md``, written down as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

PAGE = Path(__file__).parents[1] / "docs/adding-a-room.md"


def read_page() -> dict[str, str]:
    """The files of the page, each named by the line before it."""
    found = {}
    name = ""
    for token in MarkdownIt().parse(PAGE.read_text(encoding="utf-8")):
        if token.type == "inline" and (named := re.fullmatch(r"`([\w/.]+)`:", token.content)):
            name = named[1]
        elif token.type == "fence" and name:
            found[name] = token.content
            name = ""
    return found


def write_room(directory: Path) -> None:
    """Put the files where the page says that they lie."""
    for name, text in read_page().items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
