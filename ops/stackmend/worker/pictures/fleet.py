"""All hosts of a fleet side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stackmend.worker.benchmark.state import Load, Result
from stackmend.worker.figures import Figure
from stackmend.worker.pictures.common import (
    MOST_SERIES,
    conclude,
    describe_load,
    find,
    format_load,
    is_below,
    name_axis,
    shorten,
)
from stackmend.worker.pictures.content import Block, Cell, Chart, Column, Link, Series, Table
from stackmend.worker.pictures.metrics import Metric, is_measured

#: Hosts in one picture.
MOST_HOSTS = 50

#: Characters of a host in a table.
LONGEST_LINK = 48


def build_fleet(
    results: Sequence[Result], labels: Sequence[str], metrics: Sequence[Metric], several: str
) -> tuple[Block, ...]:
    """Every metric that any of several results has, these below one another.

    :param results: of hosts, or of one.
    :param labels: what tells each from the others.
    :param metrics: that any of them has.
    :param several: what they are of: ``hosts``, ``servers`` or ``measurements``.
    """
    blocks = []
    for metric in metrics:
        measured = [
            (result, label, index)
            for index, (result, label) in enumerate(zip(results, labels, strict=True))
            if is_measured(metric, result)
        ]
        if not measured:
            continue
        loads = sorted(
            {summary.load for result, _, _ in measured for summary in result.summaries},
            key=lambda load: (load.rate, load.concurrency),
        )
        for start in range(0, len(measured), MOST_HOSTS):
            part = measured[start : start + MOST_HOSTS]
            more = len(measured) > MOST_HOSTS
            where = f", {start + 1} to {start + len(part)} of {len(measured)}" if more else ""
            blocks.append(_compare(metric, part, loads, f"{several}{where}", start))
    return tuple(blocks)


def _compare(
    metric: Metric,
    measured: Sequence[tuple[Result, str, int]],
    loads: Sequence[Load],
    several: str,
    start: int,
) -> Block:
    def take(result: Result, load: Load) -> float | None:
        summary = find(result.summaries, load)
        return metric.middle(summary.median) if summary else None

    table = Table(
        f"{metric.title}, all {several}",
        (
            Column(several.partition(",")[0].removesuffix("s"), text=True),
            *(Column(describe_load(load), metric.unit.name) for load in loads),
            Column("outcome", text=True),
        ),
        tuple(
            (
                Cell((Link(shorten(label, LONGEST_LINK), f"m{index}"),)),
                *(Cell((Figure(take(result, load), metric.unit),)) for load in loads),
                conclude(
                    [item for item in result.comparisons if item.figure == metric.key],
                    noisy=any(summary.noisy for summary in result.summaries),
                    below=is_below(result) and metric.is_throughput,
                ),
            )
            for result, label, index in measured
        ),
    )
    drawn = _select(loads, [result for result, _, _ in measured])
    chart = Chart(
        key=f"fleet-{metric.key}" + (f"-{start + 1}" if start else ""),
        kind="hosts",
        title=f"{metric.title}, {metric.unit.name}",
        subtitle=f"all {several}",
        unit=metric.unit,
        axis=name_axis(loads),
        places=tuple(label for _, label, _ in measured),
        series=tuple(
            Series(
                name=format_load(load),
                role="level",
                values=tuple(take(result, load) for result, _, _ in measured),
            )
            for load in drawn
        ),
        alternative=f"{metric.title} of all {several}; the table has the same figures",
    )
    note = "Medians over the repeats."
    if len(loads) > len(drawn):
        note += f" The picture has {len(drawn)} of {len(loads)} loads."
    if chart.is_empty:
        return Block(table, note="No sample counts: there is nothing to draw.")
    return Block(table, chart, note)


def _select(loads: Sequence[Load], results: Sequence[Result]) -> list[Load]:
    """As many loads as one picture holds: those that most hosts were measured at."""
    counts = Counter(summary.load for result in results for summary in result.summaries)
    ranked = sorted(loads, key=lambda load: (-counts[load], loads.index(load)))[:MOST_SERIES]
    return sorted(ranked, key=loads.index)
