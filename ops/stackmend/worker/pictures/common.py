"""What all parts of a page name and find in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, get_args

from stackmend.redaction import format_foreign_line
from stackmend.worker.benchmark.state import (
    Comparison,
    Invalid,
    Load,
    Measurement,
    Result,
    Summary,
)
from stackmend.worker.figures import MISSING
from stackmend.worker.pictures.content import Cell, Mark
from stackmend.worker.pictures.metrics import Metric

T = TypeVar("T")

#: Lines in one picture.
MOST_SERIES = 8

#: Share of the CPU time that others may have before it stands out.
STEAL = 0.01

#: Characters of a name, of a reason, and of a name within a picture.
LONGEST_NAME, LONGEST_REASON, LONGEST_LABEL = 120, 300, 20

OUTCOMES: dict[str, tuple[str, Mark]] = {
    "better": ("▲ better", "good"),
    "worse": ("▼ worse", "bad"),
    "noisy": ("≈ noisy", "warn"),
    "equal": ("= equal", ""),
}


def clean(text: str, limit: int = LONGEST_NAME) -> str:
    """Foreign text on one line, as long as a name may be."""
    return format_foreign_line(text, limit)


def name_model(measurement: Measurement) -> str:
    """The model that was asked, by its name, and by a part of its digest where that is all."""
    known = measurement.fingerprint.model
    return measurement.model or (known[:12] if len(known) == 64 else known)


def shorten(text: str, limit: int = LONGEST_LABEL) -> str:
    """Clean text for a picture, where there is little room: its beginning and its end."""
    if len(text) <= limit:
        return text
    end = limit // 3
    return f"{text[: limit - 1 - end]}…{text[-end:]}"


def find(summaries: Iterable[Summary], load: Load) -> Summary | None:
    """The summary of a load; the first where there are several."""
    return next((summary for summary in summaries if summary.load == load), None)


def select(items: Sequence[T]) -> Sequence[T]:
    """As many as one picture holds, the last of all among them."""
    if len(items) <= MOST_SERIES:
        return items
    return [*items[: MOST_SERIES - 1], items[-1]]


def format_load(load: Load) -> str:
    """A load as the first cell of its row."""
    return str(load.concurrency) if load.concurrency else f"{load.rate:g}/s"


def describe_load(load: Load) -> str:
    """A load as the heading of a column."""
    return f"at {load.concurrency}" if load.concurrency else f"at {load.rate:g}/s"


def name_axis(loads: Iterable[Load]) -> str:
    """What tells loads apart."""
    closed = {load.concurrency > 0 for load in loads}
    if len(closed) != 1:
        return "load"
    return "concurrency" if closed.pop() else "rate"


def name_baseline(result: Result) -> str:
    """``before`` where another engine was measured, as at a move; else ``baseline``."""
    if result.baseline is None:
        return "baseline"
    same = result.baseline.fingerprint.engine == result.measurement.fingerprint.engine
    return "baseline" if same else "before"


def describe_baseline(result: Result) -> str:
    """The same within a sentence."""
    return "the baseline" if name_baseline(result) == "baseline" else "what ran before"


def count_invalid(summary: Summary) -> dict[Invalid, int]:
    """Samples of a level that do not count, by why; in the order of the kinds."""
    counts: dict[Invalid, int] = {}
    for repeat in summary.repeats:
        for kind, count in repeat.invalid:
            counts[kind] = counts.get(kind, 0) + count
    return {kind: counts[kind] for kind in get_args(Invalid) if counts.get(kind)}


def find_comparison(result: Result, metric: Metric, load: Load) -> Comparison | None:
    """The comparison of one figure of one level, if there is one."""
    return next(
        (item for item in result.comparisons if item.load == load and item.figure == metric.key),
        None,
    )


def is_below(result: Result) -> bool:
    """Whether a result fails for its minimum."""
    return any(row.fails for row in result.shortfalls)


def conclude(comparisons: Iterable[Comparison], *, noisy: bool, below: bool) -> Cell:
    """The worst of several outcomes.

    :param comparisons: whose outcomes they are.
    :param noisy: whether any of the levels is so by itself.
    :param below: whether the measurement fails for its minimum.
    """
    if below:
        return Cell(("▼ minimum",), "bad")
    outcomes = {comparison.outcome for comparison in comparisons}
    for outcome in ("worse", "noisy", "better", "equal"):
        if outcome == "better" and noisy:
            return Cell(("noisy",), "warn")
        if outcome in outcomes:
            text, mark = OUTCOMES[outcome]
            return Cell((text,), mark)
    return Cell((MISSING,))
