"""Pages and pictures on disk: a reader sees all of a file or nothing of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from stackmend.reporting.files import write
from stackmend.worker.benchmark.state import Result
from stackmend.worker.pictures.arrange import build_content
from stackmend.worker.pictures.charts import draw_png
from stackmend.worker.pictures.content import Chart, Content
from stackmend.worker.pictures.page import render_content
from stackmend.worker.pictures.palette import Theme

#: The page within a directory.
PAGE = "benchmark.html"

#: Characters of a host in the name of a file.
LONGEST_SLUG = 40

THEMES: tuple[Theme, ...] = ("light", "dark")

_OTHERS = re.compile(r"[^a-z0-9]+")


def write_pages(results: Iterable[Result], directory: Path, *, png: bool = True) -> Path:
    """Write the page and its pictures into a directory, and return the page's path.

    ``benchmark.html`` stands by itself; ``*-light.png`` and ``*-dark.png`` are for whoever wants to
    send a picture. Files of earlier runs are replaced where they have the same name.

    :param results: of one or more hosts.
    :param directory: made if it is missing.
    :param png: whether pictures are written too; of a large fleet they take a minute.
    :raises ExtraMissingError: matplotlib is not installed; nothing is written.
    :raises OSError: a file cannot be written.

    Example:
        >>> write_pages([result], Path("var/benchmark"))
        PosixPath('var/benchmark/benchmark.html')
    """
    content = build_content(results)
    page = render_content(content)
    if png:
        _write_pictures(content, directory, THEMES)
    return _write(directory / PAGE, page.encode())


def write_page(results: Iterable[Result], path: Path) -> Path:
    """Write the page alone.

    :param results: of one or more hosts.
    :param path: of the page; its directory is made if it is missing.
    :raises ExtraMissingError: matplotlib is not installed.
    :raises OSError: it cannot be written.
    """
    return _write(path, render_content(build_content(results)).encode())


def write_pictures(
    results: Iterable[Result], directory: Path, themes: Iterable[Theme] = THEMES
) -> list[Path]:
    """Write each chart as PNG.

    :param results: of one or more hosts.
    :param directory: made if it is missing.
    :param themes: what the pictures will lie on.
    :raises ExtraMissingError: matplotlib is not installed.
    :raises OSError: a file cannot be written.
    """
    return _write_pictures(build_content(results), directory, themes)


def _write_pictures(content: Content, directory: Path, themes: Iterable[Theme]) -> list[Path]:
    return [
        _write(directory / f"{name}-{theme}.png", draw_png(chart, theme))
        for name, chart in _list_charts(content)
        for theme in themes
    ]


def _list_charts(content: Content) -> Iterator[tuple[str, Chart]]:
    """Each chart with its name; no two have the same, whatever the hosts are called."""
    for block in content.fleet:
        if block.chart is not None and not block.chart.is_empty:
            yield block.chart.key, block.chart
    for section in content.sections:
        for block in section.blocks:
            if block.chart is not None and not block.chart.is_empty:
                slug = _OTHERS.sub("-", section.title.lower()).strip("-")[:LONGEST_SLUG]
                yield f"{block.chart.key}-{slug}".strip("-"), block.chart


def _read_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write(path: Path, data: bytes) -> Path:
    # As any file and directory that the user makes: others may read it where the user lets them.
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, data, 0o666 & ~_read_umask())
    return path
