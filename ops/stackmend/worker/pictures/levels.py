"""Figures against the load, this run beside the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stackmend.worker import figures
from stackmend.worker.benchmark.state import Comparison, Result, Summary
from stackmend.worker.figures import MISSING, PLAIN, Figure, Unit
from stackmend.worker.pictures.common import (
    OUTCOMES,
    T,
    conclude,
    count_invalid,
    describe_baseline,
    find,
    find_comparison,
    format_load,
    is_below,
    name_axis,
    name_baseline,
)
from stackmend.worker.pictures.content import Block, Cell, Chart, Column, Role, Series, Table
from stackmend.worker.pictures.metrics import Metric, take_pair


def build_levels(result: Result, metric: Metric, anchor: str, subtitle: str) -> Block:
    """One metric against the load."""
    summaries = result.summaries
    loads = [summary.load for summary in summaries]
    before = [find(result.baseline_summaries, load) for load in loads]
    series = [
        _build_series("this run" if metric.high is None else "median", "now", metric, summaries)
    ]
    if (high := metric.high) is not None:
        values = tuple(high(summary.median) for summary in summaries)
        series.append(Series("95th", "high", values))
    if any(before):
        series.append(_build_series(name_baseline(result), "before", metric, before))
    chart = Chart(
        key=f"{anchor}-{metric.key}",
        kind="levels",
        title=f"{metric.title}, {metric.unit.name}",
        subtitle=subtitle,
        unit=metric.unit,
        axis=name_axis(loads),
        places=tuple(map(format_load, loads)),
        series=tuple(series),
        alternative=f"{metric.title} against {name_axis(loads)}; the table has the same figures",
    )
    note = "Dots: each repeat."
    if any(line.low for line in series if line.role == "now"):
        note += " Bars: the interval of the repeats."
    if any(line.low for line in series if line.role == "before"):
        note += f" Shaded: the same interval of {describe_baseline(result)}, its noise band."
    return Block(
        _build_table(result, metric, before),
        chart,
        note if not chart.is_empty else "No sample counts: there is nothing to draw.",
    )


def _omit_unknown(items: Sequence[T | None]) -> tuple[T | None, ...]:
    """Nothing at all where nothing is known."""
    return tuple(items) if any(item is not None for item in items) else ()


def _build_series(
    name: str, role: Role, metric: Metric, summaries: Sequence[Summary | None]
) -> Series:
    known = [
        summary if summary is not None and metric.middle(summary.median) is not None else None
        for summary in summaries
    ]
    steady = [metric.steadiness(summary) if summary else None for summary in known]
    return Series(
        name=name,
        role=role,
        values=tuple(metric.middle(summary.median) if summary else None for summary in known),
        low=_omit_unknown([item.low if item else None for item in steady]),
        high=_omit_unknown([item.high if item else None for item in steady]),
        dots=tuple(
            tuple(
                value
                for repeat in (summary.repeats if summary else ())
                if (value := metric.middle(repeat)) is not None
            )
            for summary in known
        ),
    )


def _build_table(result: Result, metric: Metric, before: Sequence[Summary | None]) -> Table:
    unit = metric.unit
    columns = [Column(name_axis(summary.load for summary in result.summaries))]
    rows = [[Cell((format_load(summary.load),))] for summary in result.summaries]

    def add(
        heading: str,
        name: str,
        cells: Sequence[Cell],
        *,
        always: bool = False,
        text: bool = False,
    ) -> None:
        if always or any(str(cell) != MISSING for cell in cells):
            columns.append(Column(heading, name, text))
            for row, cell in zip(rows, cells, strict=True):
                row.append(cell)

    def list_figures(
        take: Callable[[Summary], float | None], written: Unit, of: Sequence[Summary | None]
    ) -> list[Cell]:
        return [Cell((Figure(take(item) if item else None, written),)) for item in of]

    def take_middle(summary: Summary) -> float | None:
        return metric.middle(summary.median)

    def list_intervals(of: Sequence[Summary | None]) -> list[Cell]:
        return [_build_interval(metric, summary) for summary in of]

    def list_highs(of: Sequence[Summary | None]) -> list[Cell]:
        high = metric.high
        return list_figures(lambda item: high(item.median) if high else None, unit, of)

    def list_spreads(of: Sequence[Summary | None]) -> list[Cell]:
        return [
            Cell(
                (Figure(_take_spread(metric, item), figures.PERCENT),),
                "warn" if item is not None and item.noisy else "",
            )
            for item in of
        ]

    now = result.summaries
    name = name_baseline(result)
    found = [find_comparison(result, metric, summary.load) for summary in now]
    add("median", unit.name, list_figures(take_middle, unit, now), always=True)
    add("95th", unit.name, list_highs(now))
    add(name, unit.name, list_figures(take_middle, unit, before))
    add("change", "%", [_build_change(comparison) for comparison in found])
    p = [Cell((Figure(item.p if item else None, figures.PROBABILITY),)) for item in found]
    add("p", "", p)
    add("outcome", "", [_build_outcome(comparison) for comparison in found], text=True)
    noise = [Cell(("noisy",), "warn") if item.noisy else Cell((MISSING,)) for item in now]
    add("noise", "", noise, text=True)
    add("spread", "%", list_spreads(now))
    add("interval", unit.name, list_intervals(now))
    add(f"interval of {name}", unit.name, list_intervals(before))
    add(f"95th of {name}", unit.name, list_highs(before))
    if metric.key in ("output_tps", "requests_ps"):
        add("requests", "1/s", list_figures(lambda item: item.median.requests_ps, PLAIN, now))
        add("good ones", "1/s", list_figures(lambda item: item.median.goodput, PLAIN, now))
    if metric.key == "ttft" and any(
        summary.median.ttft_output != summary.median.ttft for summary in now
    ):
        for index, heading in enumerate(("first of output", "95th of output")):
            output = [
                Cell((Figure(take_pair(summary.median.ttft_output, index), unit),))
                for summary in now
            ]
            add(heading, unit.name, output)
    return Table(metric.title, tuple(columns), tuple(map(tuple, rows)))


def _build_interval(metric: Metric, summary: Summary | None) -> Cell:
    if summary is None or metric.middle(summary.median) is None:
        return Cell((MISSING,))
    if (steady := metric.steadiness(summary)) is None:
        return Cell((MISSING,))
    return Cell((Figure(steady.low, metric.unit), " to ", Figure(steady.high, metric.unit)))


def _take_spread(metric: Metric, summary: Summary | None) -> float | None:
    if summary is None or metric.middle(summary.median) is None:
        return None
    return steady.spread if (steady := metric.steadiness(summary)) else None


def _build_change(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return Cell((MISSING,))
    mark = OUTCOMES[comparison.outcome][1]
    return Cell((Figure(comparison.ratio - 1, figures.PERCENT, signed=True),), mark)


def _build_outcome(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return Cell((MISSING,))
    text, mark = OUTCOMES[comparison.outcome]
    return Cell((text,), mark)


def build_overview(result: Result, metrics: Sequence[Metric]) -> Table:
    """One row for each load, for a terminal of 80 columns."""
    columns = [Column(name_axis(summary.load for summary in result.summaries))]
    names = {"output_tps": "", "requests_ps": "", "ttft": "TTFT", "tpot": "TPOT", "end": "task"}
    for metric in metrics:
        name = names[metric.key]
        columns.append(Column(f"{name} p50".strip() if name else "median", metric.unit.name))
        if metric.high is not None:
            columns.append(Column("p95", metric.unit.name))
    columns += [Column("count"), Column("outcome")]
    rows = []
    for summary in result.summaries:
        cells = [Cell((format_load(summary.load),))]
        for metric in metrics:
            cells.append(Cell((Figure(metric.middle(summary.median), metric.unit),)))
            if (high := metric.high) is not None:
                cells.append(Cell((Figure(high(summary.median), metric.unit),)))
        valid = sum(repeat.valid for repeat in summary.repeats)
        invalid = sum(count_invalid(summary).values())
        cells.append(Cell((Figure(valid), "/", Figure(valid + invalid)), "warn" if invalid else ""))
        cells.append(_conclude_level(result, summary, metrics))
        rows.append(tuple(cells))
    return Table("", tuple(columns), tuple(rows))


def _conclude_level(result: Result, summary: Summary, metrics: Sequence[Metric]) -> Cell:
    found = [find_comparison(result, metric, summary.load) for metric in metrics]
    return conclude(
        [item for item in found if item is not None],
        noisy=bool(summary.noisy),
        below=is_below(result),
    )
