"""What pictures of a benchmark show: charts and tables as data, before anything is drawn.

Page, terminal and PNG are made of the same cells, so that no figure can differ between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackmend.worker.figures import Figure, Unit

Mark = Literal["", "good", "bad", "warn"]


Role = Literal["now", "high", "before", "level"]


@dataclass(frozen=True)
class Link:
    """Text that leads to a section of the page."""

    text: str
    anchor: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    :param parts: texts, figures and links, one after the other.
    :param mark: whether it is good or bad news.
    """

    parts: tuple[str | Figure | Link, ...]
    mark: Mark = ""

    @property
    def sign(self) -> str:
        """What says beside the colour that a figure stands out."""
        return "! " if self.mark == "warn" and isinstance(self.parts[0], Figure) else ""

    def __str__(self) -> str:
        return "".join(map(str, self.parts))


@dataclass(frozen=True)
class Column:
    """The heading of a column.

    :param heading: in words.
    :param unit: of the figures below it.
    :param text: whether it holds texts, which begin at the left.
    """

    heading: str
    unit: str = ""
    text: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells below headings; the first cell of each row names it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Series:
    """The figures that one line of a chart connects, one for each place on its axis.

    :param name: in the legend.
    :param role: what decides how it looks.
    :param values: ``None`` where nothing was measured.
    :param low: ends of their intervals; empty for none.
    :param high: likewise.
    :param dots: what the repeats came to, for each place.
    :param band: one interval for all places.
    :param notes: figures that stand in the legend.
    """

    name: str
    role: Role
    values: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    dots: tuple[tuple[float, ...], ...] = ()
    band: tuple[float, float] | None = None
    notes: tuple[str | Figure, ...] = ()


@dataclass(frozen=True)
class Chart:
    """What one picture shows.

    :param key: in the names of files and anchors.
    :param kind: ``levels`` has loads on its axis, ``history`` measurements, ``hosts`` a row each.
    :param title: what is measured.
    :param subtitle: of what.
    :param unit: of its figures.
    :param axis: what its places are.
    :param places: in words.
    :param series: its lines.
    :param alternative: for those who do not see it.
    """

    key: str
    kind: Literal["levels", "history", "hosts"]
    title: str
    subtitle: str
    unit: Unit
    axis: str
    places: tuple[str, ...]
    series: tuple[Series, ...]
    alternative: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(value is None for series in self.series for value in series.values)


@dataclass(frozen=True)
class Block:
    """A chart with its table, or a table alone.

    :param chart: ``None`` where a table says all.
    :param table: the same figures.
    :param note: what has to be known to read it.
    :param folded: whether it is opened only by whoever wants to read it.
    """

    table: Table
    chart: Chart | None = None
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Note:
    """A fact that whoever reads figures has to know."""

    text: str
    mark: Mark = "warn"


@dataclass(frozen=True)
class Section:
    """One measurement.

    :param anchor: its address within the page.
    :param title: the host.
    :param facts: name and text of what was measured.
    :param notes: what stands out.
    :param blocks: its charts and tables.
    :param overview: one row for each load, narrow enough for a terminal.
    :param folded: whether it is opened only by whoever wants to read it, as one of many.
    """

    anchor: str
    title: str
    facts: tuple[tuple[str, Cell], ...]
    notes: tuple[Note, ...]
    blocks: tuple[Block, ...]
    overview: Table
    folded: bool = False


@dataclass(frozen=True)
class Content:
    """All that is shown.

    :param title: of the page.
    :param fleet: all of them side by side; empty for one measurement.
    :param sections: of each measurement.
    :param several: what stands side by side: ``hosts``, ``servers`` or ``measurements``.
    """

    title: str
    fleet: tuple[Block, ...]
    sections: tuple[Section, ...]
    several: str
