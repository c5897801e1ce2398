"""The same figures on a terminal, or wherever its output goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from stackmend import terminal
from stackmend.worker.benchmark.state import Result
from stackmend.worker.figures import Figure
from stackmend.worker.pictures.arrange import build_content
from stackmend.worker.pictures.content import Cell, Section

if TYPE_CHECKING:
    from rich.table import Table

#: Columns where the output does not say how many it has, and the least that a table needs.
COLUMNS, LEAST = 80, 40

#: Columns of the bar beside each throughput.
BAR = 8

_STYLES = {"good": "green", "bad": "red", "warn": "yellow", "": ""}
_MARKS = {"good": "+", "bad": "!", "warn": "!", "": "-"}


def show(results: Iterable[Result], out: TextIO, width: int | None = None) -> None:
    """Print what was measured, a table for each measurement; needs no extra.

    :param results: of one or more hosts.
    :param out: where to; without colours where it is no terminal, in ASCII where it knows no more.
    :param width: columns of the output; by default those of the terminal, and 80 elsewhere.
    """
    # rich takes long to import: only where a table is shown.
    from rich.console import Console
    from rich.text import Text

    if width is None and not out.isatty():
        width = COLUMNS
    console = Console(
        file=out, width=width and max(width, LEAST), highlight=False, markup=False, emoji=False
    )
    with console.capture() as capture:
        for section in build_content(results).sections:
            console.print(Text(section.title, style="bold"))
            facts = ", ".join(f"{name} {cell}" for name, cell in section.facts)
            console.print(Text(facts, style="dim"))
            console.print(_make_table(section, console.encoding))
            for note in section.notes:
                console.print(Text(f"{_MARKS[note.mark]} {note.text}", style=_STYLES[note.mark]))
            console.print()
    terminal.write_styled(out, _fit(capture.get(), console.encoding))


def _make_table(section: Section, encoding: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    overview = section.overview
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for index, column in enumerate(overview.columns):
        name = f"{column.heading}\n{column.unit}" if column.unit else column.heading
        outcome = index == len(overview.columns) - 1
        table.add_column(name, justify="left" if outcome else "right", no_wrap=True)
        if index == 1:
            table.add_column("", min_width=BAR)
    greatest = max((_measure(row[1]) for row in overview.rows), default=0.0)
    block = "█" if "utf" in encoding.lower() else "#"
    for row in overview.rows:
        first, second, *others = (
            Text(f"{cell.sign}{cell}", style=_STYLES[cell.mark]) for cell in row
        )
        length = round(BAR * _measure(row[1]) / greatest) if greatest else 0
        table.add_row(first, second, Text(block * length), *others)
    return table


def _measure(cell: Cell) -> float:
    return next((part.value or 0.0 for part in cell.parts if isinstance(part, Figure)), 0.0)


def _fit(text: str, encoding: str) -> str:
    """The text in the characters that the output has."""
    return text.replace("\u00a0", " ").encode(encoding, "replace").decode(encoding)
