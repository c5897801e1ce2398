"""The tables without a picture: repeats, samples that do not count, the fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from stackmend.text import make_printable
from stackmend.worker import figures
from stackmend.worker.benchmark.state import Conditions, Fingerprint, Invalid, Load, Result
from stackmend.worker.figures import MISSING, Figure, Unit
from stackmend.worker.pictures.common import (
    LONGEST_REASON,
    STEAL,
    clean,
    count_invalid,
    format_load,
    name_axis,
    name_baseline,
)
from stackmend.worker.pictures.content import Cell, Column, Table
from stackmend.worker.pictures.metrics import Metric, take_pair

#: Why a sample does not count, for people.
INVALID: dict[Invalid, str] = {
    "short": "the model ended before it had written what was asked for",
    "cached": "the server answered from a prefix that it had kept",
    "cut": "the server read less of the prompt than was sent",
    "reloaded": "the model was loaded for this request",
    "incomplete": "the answer ended without its last message",
    "error": "the server reported an error",
    "refused": "the server refused the request",
    "timeout": "the answer took too long",
    "uncounted": "the server does not count its tokens",
    "implausible": "the server's counts and times contradict one another",
}


def choose_server_unit(results: Iterable[Result]) -> Unit:
    """The unit of the server's own times: one for all hosts, so that they compare."""
    return figures.choose_time(
        value
        for result in results
        for summary in result.summaries
        for value in (*(summary.median.end or ()), summary.median.queue)
    )


def build_server_times(result: Result, unit: Unit) -> Table:
    """The figures that have no picture.

    :param result: of one host.
    :param unit: of its times, as :func:`choose_server_unit` has it.
    """
    columns = (
        Column(name_axis(summary.load for summary in result.summaries)),
        Column("answer ends after", unit.name),
        Column("95th", unit.name),
        Column("waits in the server", unit.name),
        Column("prompt", figures.TOKENS.name),
        Column("answer", figures.TOKENS.name),
    )
    return Table(
        "Whole answers, and the server's own times",
        columns,
        tuple(
            (
                Cell((format_load(summary.load),)),
                Cell((Figure(take_pair(summary.median.end, 0), unit),)),
                Cell((Figure(take_pair(summary.median.end, 1), unit),)),
                Cell((Figure(summary.median.queue, unit),)),
                Cell((Figure(summary.median.prefill_tps, figures.TOKENS),)),
                Cell((Figure(summary.median.decode_tps, figures.TOKENS),)),
            )
            for summary in result.summaries
        ),
    )


def build_repeats(result: Result, metrics: Sequence[Metric]) -> Table:
    """Each repeat with what the host did meanwhile; columns that say nothing are left out."""
    pairs = [
        (summary, number, repeat, _find_conditions(result, summary.load, number))
        for summary in result.summaries
        for number, repeat in enumerate(summary.repeats)
    ]
    columns = [
        Column(name_axis(summary.load for summary in result.summaries)),
        Column("repeat"),
    ]
    rows = [
        [Cell((format_load(summary.load),)), Cell((Figure(number + 1),))]
        for summary, number, _, _ in pairs
    ]

    def add(heading: str, unit: str, cells: Sequence[Cell]) -> None:
        if any(str(cell) != MISSING for cell in cells):
            columns.append(Column(heading, unit))
            for row, cell in zip(rows, cells, strict=True):
                row.append(cell)

    names = {"output_tps": "throughput", "requests_ps": "throughput", "ttft": "first token"}
    names |= {"tpot": "each token", "end": "task"}
    for metric in metrics:
        add(
            names[metric.key],
            metric.unit.name,
            [Cell((Figure(metric.middle(repeat), metric.unit),)) for _, _, repeat, _ in pairs],
        )
    add("count", "", [Cell((Figure(repeat.valid),)) for _, _, repeat, _ in pairs])
    invalid = [sum(count for _, count in repeat.invalid) for _, _, repeat, _ in pairs]
    add("do not", "", [Cell((Figure(count),), "warn" if count else "") for count in invalid])
    for heading, unit, take, least in _CONDITIONS:
        values = [take(conditions) if conditions else None for *_, conditions in pairs]
        add(
            heading,
            unit.name,
            [
                Cell((Figure(value, unit),), "warn" if (value or 0) > least else "")
                for value in values
            ],
        )
    held_back = [
        ", ".join(map(clean, conditions.gpu_throttle)) if conditions else ""
        for *_, conditions in pairs
    ]
    if any(held_back):
        add(
            "GPU held back",
            "",
            [Cell((text or MISSING,), "warn" if text else "") for text in held_back],
        )
    return Table(
        "Each repeat, and what the host did meanwhile", tuple(columns), tuple(map(tuple, rows))
    )


#: What a host did: heading, unit, where it is, and the value above which it stands out.
_CONDITIONS: tuple[tuple[str, Unit, Callable[[Conditions], float | None], float], ...] = (
    ("throttled", figures.SECONDS, lambda item: item.throttled, 0),
    ("periods", figures.PLAIN, lambda item: item.throttled_periods, 0),
    ("steal", figures.PERCENT, lambda item: item.steal, STEAL),
    ("CPU busy", figures.PERCENT, lambda item: item.busy, float("inf")),
    ("from swap", Unit("pages"), lambda item: item.swapped, 0),
    ("OOM kills", figures.PLAIN, lambda item: item.oom_kills, 0),
    ("load", figures.PLAIN, lambda item: item.load_average, float("inf")),
    ("too hot", Unit("times"), lambda item: item.thermal, 0),
    ("GPU", figures.CELSIUS, lambda item: item.gpu_temperature, float("inf")),
)


def _find_conditions(result: Result, load: Load, number: int) -> Conditions | None:
    level = next((level for level in result.measurement.levels if level.load == load), None)
    if level is None or number >= len(level.repeats):
        return None
    return level.repeats[number].conditions


def build_invalid(result: Result) -> Table | None:
    """Samples that do not count, by why, with what the server said; ``None`` where all count."""
    rows = []
    for summary in result.summaries:
        level = next(
            (level for level in result.measurement.levels if level.load == summary.load), None
        )
        samples = [sample for repeat in level.repeats for sample in repeat.samples] if level else []
        for kind, count in count_invalid(summary).items():
            example = next((s.reason for s in samples if s.invalid == kind and s.reason), "")
            rows.append(
                (
                    Cell((format_load(summary.load),)),
                    Cell((kind,)),
                    Cell((Figure(count),)),
                    Cell((INVALID[kind],)),
                    Cell((clean(example, LONGEST_REASON) or MISSING,)),
                )
            )
    if not rows:
        return None
    columns = (
        Column(name_axis(summary.load for summary in result.summaries)),
        Column("kind", text=True),
        Column("samples"),
        Column("why", text=True),
        Column("for example", text=True),
    )
    return Table("Samples that do not count", columns, tuple(rows))


#: Names of a fingerprint's fields for people, where the field's own does not do.
_FIELDS = {
    "quota": "CPUs by quota",
    "memory_limit": "memory limit",
    "gpus": "GPUs",
    "cpu": "CPU",
    "worker_image": "worker's image",
}


def build_fingerprint(result: Result) -> Table:
    """What the figures hold for, and where the baseline differs."""
    now = result.measurement.fingerprint
    before = result.baseline.fingerprint if result.baseline else None
    columns = [Column("what"), Column("this run", text=True)]
    if before is not None:
        columns.append(Column(name_baseline(result), text=True))
    rows = []
    for name in Fingerprint.model_fields:
        cells = [_format_field(name, now)]
        if before is not None:
            other = _format_field(name, before)
            changed = getattr(before, name) != getattr(now, name)
            cells.append(Cell(other.parts, "warn") if changed else Cell(("the same",)))
        if all(str(cell) in (MISSING, "the same") for cell in cells) and str(cells[0]) == MISSING:
            continue
        rows.append((Cell((_FIELDS.get(name, name.replace("_", " ")),)), *cells))
    return Table("Fingerprint", tuple(columns), tuple(rows))


def _format_field(name: str, fingerprint: Fingerprint) -> Cell:
    value = getattr(fingerprint, name)
    if not value:
        return Cell((MISSING,))
    if name in ("memory", "memory_limit"):
        return Cell((Figure(value, figures.GIBIBYTES), " GiB"))
    if isinstance(value, int | float):
        return Cell((Figure(value),))
    if isinstance(value, tuple):
        return Cell((make_printable(", ".join(map(clean, value)), 2 * LONGEST_REASON),))
    return Cell((clean(value, LONGEST_REASON),))
