"""Throughput of earlier measurements, of the baseline, and of this run."""

from __future__ import annotations

from stackmend.worker import figures
from stackmend.worker.benchmark.state import Result, Summary
from stackmend.worker.figures import Figure
from stackmend.worker.pictures.common import (
    MOST_SERIES,
    describe_baseline,
    describe_load,
    find,
    name_baseline,
    select,
)
from stackmend.worker.pictures.content import Block, Cell, Chart, Column, Series, Table

#: Measurements in one picture.
MOST_PAST = 40


def build_history(result: Result, anchor: str, subtitle: str) -> Block | None:
    """Throughput of earlier measurements, of the baseline, and of this run."""
    if not result.history and result.baseline is None:
        return None
    loads = [summary.load for summary in result.summaries]
    points: dict[float, dict[str, float]] = {
        past.at: dict(past.output_tps) for past in result.history
    }
    baseline_at = result.baseline.at if result.baseline else None
    if baseline_at is not None:
        points.setdefault(baseline_at, {}).update(
            {
                str(summary.load): summary.output_tps.median
                for summary in result.baseline_summaries
                if summary.median.valid
            }
        )
    now = result.measurement.at
    points.pop(now, None)
    past = sorted(at for at in points if at != baseline_at)
    kept = [baseline_at] if baseline_at is not None and baseline_at in points else []
    # This run has a place, and the baseline, however old it is.
    left = max(0, len(past) - (MOST_PAST - 1 - len(kept)))
    moments = sorted([*past[left:], *kept])
    rows = [(at, points[at]) for at in moments]
    current = {
        str(summary.load): summary.output_tps.median
        for summary in result.summaries
        if summary.median.valid
    }
    rows.append((now, current))
    columns = (
        Column("measured"),
        *(Column(describe_load(load), figures.TOKENS.name) for load in loads),
        Column("", text=True),
    )
    marks = {baseline_at: name_baseline(result), now: "this run"}
    table = Table(
        "History: output tokens a second",
        columns,
        tuple(
            (
                Cell((figures.format_moment(at),)),
                *(Cell((Figure(values.get(str(load)), figures.TOKENS),)) for load in loads),
                Cell((marks.get(at, ""),)),
            )
            for at, values in rows
        ),
    )
    series = tuple(
        Series(
            name=str(load),
            role="level",
            values=tuple(values.get(str(load)) for _, values in rows),
            band=_take_band(before),
            notes=_list_notes(current.get(str(load)), name_baseline(result), before),
        )
        for load in select(loads)
        for before in [find(result.baseline_summaries, load)]
    )
    chart = Chart(
        key=f"{anchor}-history",
        kind="history",
        title=f"History of throughput, {figures.TOKENS.name}",
        subtitle=subtitle,
        unit=figures.TOKENS,
        axis="measurements, the oldest first",
        places=figures.format_moments([at for at, _ in rows]),
        series=series,
        alternative=(
            f"Output tokens a second of {len(rows)} measurements; the table has the same figures"
        ),
    )
    notes = []
    if result.baseline is not None:
        notes.append(f"Shaded: the interval of {describe_baseline(result)}, its noise band.")
    if left:
        notes.append(f"{left:,} earlier measurements are left out.")
    if len(loads) > MOST_SERIES:
        notes.append(f"The picture has {MOST_SERIES} of {len(loads)} loads.")
    # A queue has no tokens.
    if not any(value for line in series for value in line.values):
        return None
    return Block(table, chart, " ".join(notes))


def _take_band(summary: Summary | None) -> tuple[float, float] | None:
    if summary is None or not summary.median.valid:
        return None
    return summary.output_tps.low, summary.output_tps.high


def _list_notes(now: float | None, name: str, before: Summary | None) -> tuple[str | Figure, ...]:
    current = ("now ", Figure(now, figures.TOKENS))
    if (band := _take_band(before)) is None or before is None:
        return current
    low, middle, high = (
        Figure(value, figures.TOKENS) for value in (band[0], before.output_tps.median, band[1])
    )
    return (*current, f", {name} ", middle, " (", low, " to ", high, ")")
