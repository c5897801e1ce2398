"""The incident of ``docs/doctor.md``, as a reader would copy it."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt

PAGE = Path(__file__).parents[1] / "docs/doctor.md"

#: The first Python file of the page.
EXAMPLE = next(
    token.content
    for token in MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
    if token.type == "fence" and token.info == "python"
)
