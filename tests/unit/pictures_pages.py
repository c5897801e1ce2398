"""A page of pictures as its tables, read by a parser or by a browser; and what they must hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

#: By what a stored figure is multiplied to be shown.
FACTORS = {"ms": 1000, "%": 100, "tasks/min": 60, "GiB": 1 / 1024**3}


@dataclass
class Cell:
    """What is shown, and the stored figures that it was made of."""

    text: str = ""
    values: list[str] = field(default_factory=list)


@dataclass
class Table:
    """A table below a heading, within a section."""

    section: str
    title: str
    headings: list[str] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)

    def column(self, heading: str) -> list[Cell]:
        index = self.headings.index(heading)
        return [row[index] for row in self.rows]


class Page(HTMLParser):
    """Tables of a page, and all its tags."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[Table] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._section = ""
        self._texts: list[Cell] = []
        self._data: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag in ("section", "div") and found.get("id"):
            self._section = found["id"] or ""
        if tag == "div" and found.get("role") == "region":
            self.tables.append(Table(self._section, found["aria-label"] or ""))
        if tag == "tr" and self.tables:
            self.tables[-1].rows.append([])
        if tag in ("th", "td"):
            self._texts.append(Cell())
        if tag == "data" and self._texts:
            self._texts[-1].values.append(found["value"] or "")

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self.tables[-1].rows[-1].append(self._texts.pop())
        if tag == "thead":
            (row,) = self.tables[-1].rows
            self.tables[-1].headings = [" ".join(cell.text.split()) for cell in row]
            self.tables[-1].rows = []

    def handle_data(self, data: str) -> None:
        if self._texts:
            self._texts[-1].text += data


def read_tables(page: str) -> list[Table]:
    return Page(page).tables


def load_tables(data: Sequence[dict[str, Any]]) -> list[Table]:
    """Tables that a browser has listed."""
    return [
        Table(
            table["section"],
            table["title"],
            table["headings"],
            [[Cell(**cell) for cell in row] for row in table["rows"]],
        )
        for table in data
    ]


def check_figures(tables: Sequence[Table], results: Sequence[dict[str, Any]]) -> int:
    """Hold every figure of every chart against the JSON; returns how many were compared.

    :param results: as JSON has them, in the order of the page.
    """
    compared = 0
    for index, result in enumerate(results):
        found = {table.title: table for table in tables if table.section == f"m{index}"}
        levels = result["summaries"]
        before = {load_key(level): level for level in result["baseline_summaries"]}
        compared += check_metric(found, "Throughput", levels, before, pick("output_tps"), result)
        compared += check_metric(
            found, "Time to first token", levels, before, pick("ttft", 0), result
        )
        compared += check_metric(
            found, "Time for each further token", levels, before, pick("tpot", 0), result
        )
        for title, name in (
            ("Time to first token", "ttft"),
            ("Time for each further token", "tpot"),
        ):
            if title in found:
                compared += check_column(
                    found[title], "95th", [pick(name, 1)(item) for item in levels]
                )
        compared += check_history(found, result)
        repeats = found["Each repeat, and what the host did meanwhile"]
        flat = [repeat for level in levels for repeat in level["repeats"]]
        compared += check_column(repeats, "count", [repeat["valid"] for repeat in flat])
    return compared


def pick(name: str, index: int | None = None) -> Callable[[dict[str, Any]], float | None]:
    """A figure of a level's median; nothing where no sample counts."""

    def take(level: dict[str, Any]) -> float | None:
        median = level["median"]
        if not median["valid"] or median[name] is None:
            return None
        return median[name] if index is None else median[name][index]

    return take


def load_key(level: dict[str, Any]) -> tuple[int, float]:
    return level["load"]["concurrency"], level["load"]["rate"]


def check_metric(
    found: dict[str, Table],
    title: str,
    levels: Sequence[dict[str, Any]],
    before: dict[tuple[int, float], dict[str, Any]],
    take: Callable[[dict[str, Any]], float | None],
    result: dict[str, Any],
) -> int:
    if title not in found:
        return 0
    table = found[title]
    compared = check_column(table, "median", [take(level) for level in levels])
    name = {"Throughput": "output_tps", "Time to first token": "ttft"}.get(title, "tpot")
    if before:
        matched = [before.get(load_key(level)) for level in levels]
        engines = {result[which]["fingerprint"]["engine"] for which in ("measurement", "baseline")}
        heading = "baseline" if len(engines) == 1 else "before"
        compared += check_column(
            table, heading, [take(level) if level else None for level in matched]
        )
        comparisons = {
            load_key(item): item for item in result["comparisons"] if item["figure"] == name
        }
        ordered = [comparisons.get(load_key(level)) for level in levels]
        compared += check_column(
            table, "change", [item["ratio"] - 1 if item else None for item in ordered]
        )
        compared += check_column(table, "p", [item["p"] if item else None for item in ordered])
        assert ("outcome" in table.headings) is any(ordered)
        outcomes = table.column("outcome") if any(ordered) else []
        for cell, item in zip(outcomes, ordered, strict=any(ordered)):
            assert (item["outcome"] in cell.text) if item else cell.text == "-"
    intervals = [level[name] if take(level) is not None else None for level in levels]
    if any(intervals):
        column = find_heading(table, "interval")
        for cell, item in zip(table.column(column), intervals, strict=True):
            assert [*map(float, cell.values)] == ([item["low"], item["high"]] if item else [])
            compared += 1
    for level, row in zip(levels, table.rows, strict=True):
        assert bool(level["noisy"]) is any(cell.text == "noisy" for cell in row)
    return compared


def check_history(found: dict[str, Table], result: dict[str, Any]) -> int:
    table = found.get("History: output tokens a second")
    if table is None:
        values = [value for past in result["history"] for _, value in past["output_tps"]]
        assert not any(values)
        assert not result["baseline"]
        return 0
    shown = {row[0].text: row for row in table.rows}
    compared = 0
    for past in result["history"][-30:]:
        values = [value for _, value in past["output_tps"]]
        rows = [
            row
            for row in table.rows
            if [float(value) for cell in row for value in cell.values] == values
        ]
        assert rows
        compared += len(values)
    assert len(shown) == len(table.rows)
    return compared


def find_heading(table: Table, name: str) -> str:
    return next(item for item in table.headings if item == name or item.startswith(f"{name} "))


def check_column(table: Table, heading: str, expected: Sequence[float | None]) -> int:
    """Hold one column against what JSON has, the exact figure and the digits that are shown."""
    name = next(
        (item for item in table.headings if item == heading or item.rpartition(" ")[0] == heading),
        None,
    )
    if name is None:
        assert not any(value is not None for value in expected), (table.title, heading)
        return 0
    factor = FACTORS.get(name.removeprefix(heading).strip(), 1)
    cells = table.column(name)
    assert len(cells) == len(expected)
    for cell, value in zip(cells, expected, strict=True):
        if value is None:
            assert (cell.text.strip(), cell.values) == ("-", [])
            continue
        assert [*map(float, cell.values)] == [value]
        text = cell.text.strip().replace(",", "")
        half = 0.5 * 10 ** -len(text.partition(".")[2])
        assert abs(float(text) - value * factor) <= half * 1.0001, (heading, text, value)
    return len(cells)
