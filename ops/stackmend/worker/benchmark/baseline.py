"""What a measurement is held against, level by level. Pure.

A best of single draws rises with every run that chance made fast, until each usual one looks slow.
So the best of a level is the best *middle* of a few results in a row, and only results that are no
worse take part in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from math import ceil, log, sqrt
from statistics import fmean

from stackmend.worker.benchmark import fingerprint
from stackmend.worker.benchmark.spec import BenchmarkPolicy
from stackmend.worker.benchmark.state import (
    Comparison,
    Entry,
    Fingerprint,
    Past,
    Record,
    Reference,
    Summary,
)
from stackmend.worker.benchmark.statistics import COMPARED, compare

#: Steady results in a row, of which the middle one counts.
WINDOW = 5

#: Earlier measurements by which it is known how runs differ, and how many of them at least.
RUNS, FEWEST_RUNS = 20, 4

#: Earlier measurements that are kept, each in one line.
KEPT = 500

#: By this the mean of the distances of neighbours is the standard deviation of runs, where one of
#: ten is left out: those to both sides of what somebody changed.
_NEIGHBOURS, _LEFT_OUT = 0.93, 0.1

#: How many standard errors the deviation may be greater than it comes out of so few runs.
_SURELY = 1.65


def find_next(spec: BenchmarkPolicy, record: Record, now: Fingerprint) -> tuple[Reference, ...]:
    """What a measurement of now is held against: empty where nothing earlier asked the same.

    It is kept with the measurement, whatever becomes of the record later.

    :param spec: what is desired.
    :param record: what was measured before.
    :param now: what the measurement holds for.
    """
    if spec.baseline == "last":
        latest = record.latest
        same = latest is not None and fingerprint.is_comparable(latest.fingerprint, now)
        return make_references(latest) if latest is not None and same else ()
    return _keep_comparable(record.best, now)


def make_references(entry: Entry) -> tuple[Reference, ...]:
    """Each level of a measurement, as later ones are held against it."""
    return tuple(
        Reference(at=entry.at, fingerprint=entry.fingerprint, summary=summary)
        for summary in entry.summaries
    )


def hold(
    record: Record,
    references: Sequence[Reference],
    entry: Entry,
    threshold: float,
) -> tuple[Comparison, ...]:
    """Hold a measurement against references, by how runs differed before.

    :param record: what was measured before, for how much runs differ from one another.
    :param references: levels of earlier measurements.
    :param entry: the measurement.
    :param threshold: by how much a figure has to differ to matter, as a share.
    """
    return compare(
        [reference.summary for reference in references],
        entry.summaries,
        threshold,
        find_run_spreads(record.history, entry.fingerprint),
    )


def update(record: Record, entry: Entry, held: Sequence[Reference], threshold: float) -> Record:
    """The record with a new measurement.

    A level that is steady and in no figure worse is one of those whose middle counts. That becomes
    the best as long as there are few, and later where it is better.

    :param record: what was measured before.
    :param entry: the new measurement.
    :param held: of :func:`find_next`.
    :param threshold: by how much a figure has to differ to matter, as a share.
    """
    now = entry.fingerprint
    previous, history = record.latest, list_past(record)
    if previous is not None and not fingerprint.is_comparable(previous.fingerprint, now):
        previous = None
    best = _keep_comparable(record.best, now)
    steady = tuple(row for row in record.steady if fingerprint.is_comparable(row.fingerprint, now))
    known = record.model_copy(update={"history": history})
    runs = find_run_spreads(history, now)
    worse = {
        row.load
        for row in hold(known, best, entry, threshold)
        if row.is_worse and row.outcome in ("worse", "noisy")
    }
    accepted = tuple(
        summary
        for summary in entry.summaries
        if not summary.noisy and summary.load not in worse and find_speed(summary)
    )
    if accepted:
        steady = (*steady, entry.model_copy(update={"summaries": accepted}))[-WINDOW:]
        best = tuple(_list_best(best, steady, accepted, runs))
    return Record(
        latest=entry,
        previous=previous,
        steady=steady,
        best=best,
        held=tuple(held),
        history=history,
    )


def list_past(record: Record) -> tuple[Past, ...]:
    """The history that a record has once the next measurement is there."""
    if record.latest is None:
        return record.history
    return _shorten((*record.history, make_past(record.latest)))[-KEPT:]


def find_speed(summary: Summary) -> float:
    """Output tokens a second, or requests where there are none."""
    return summary.output_tps.median or summary.median.requests_ps


def make_past(entry: Entry) -> Past:
    """One measurement in one line."""
    return Past(
        at=entry.at,
        asked=_shorten_parameters(entry.fingerprint),
        noisy=tuple(str(row.load) for row in entry.summaries if row.noisy),
        **{name: tuple(_list_medians(entry, name)) for name in COMPARED},
    )


def find_run_spreads(history: Sequence[Past], now: Fingerprint) -> Mapping[str, float]:
    """How much steady measurements that asked the same differ, by load in words.

    By the distances of neighbours, so that a server that once became faster or slower does not
    count as one that varies; of all figures the one that varies most, since what distinguishes runs
    changes all of them.

    :param history: earlier measurements.
    :param now: what is held against them.
    """
    asked = _shorten_parameters(now)
    values: dict[tuple[str, str], list[float]] = {}
    for past in [row for row in history if row.asked == asked][-RUNS:]:
        for name in COMPARED:
            for load, value in getattr(past, name):
                if value > 0 and load not in past.noisy:
                    values.setdefault((load, name), []).append(value)
    found: dict[str, float] = {}
    for (load, _), row in values.items():
        if len(row) >= FEWEST_RUNS:
            found[load] = max(compute_run_spread(row), found.get(load, 0.0))
    return found


def compute_run_spread(values: Sequence[float]) -> float:
    """How much runs differ, as a share, and as great as that may well be.

    :param values: of runs one after another, two at least.
    """
    distances = sorted(abs(log(b) - log(a)) for a, b in pairwise(values))
    kept = distances[: len(distances) - ceil(_LEFT_OUT * len(distances))]
    surely = 1 + _SURELY / sqrt(2 * len(kept))
    return surely * fmean(kept) / _NEIGHBOURS


def list_history(record: Record) -> tuple[Past, ...]:
    """Earlier measurements that asked the same as the latest."""
    if record.latest is None:
        return ()
    asked = _shorten_parameters(record.latest.fingerprint)
    return tuple(row for row in record.history if row.asked == asked)


def _keep_comparable(references: Sequence[Reference], now: Fingerprint) -> tuple[Reference, ...]:
    return tuple(row for row in references if fingerprint.is_comparable(row.fingerprint, now))


def _list_best(
    best: Sequence[Reference],
    steady: Sequence[Entry],
    accepted: Sequence[Summary],
    runs: Mapping[str, float],
) -> Iterator[Reference]:
    known = {row.summary.load: row for row in best}
    changed = {summary.load for summary in accepted}
    for load in {**known, **dict.fromkeys(summary.load for summary in accepted)}:
        if load not in changed:
            yield known[load]
            continue
        rows = [
            row for entry in steady for row in make_references(entry) if row.summary.load == load
        ]
        ordered = sorted(rows, key=lambda row: find_speed(row.summary))
        middle = ordered[(len(ordered) - 1) // 2]
        before = known.get(load)
        is_full = len(rows) >= WINDOW
        # What runs differ by makes none the best: each such step would be by chance, and upwards.
        faster = 1 + runs.get(str(load), 0.0)
        if (
            before is not None
            and is_full
            and find_speed(before.summary) * faster >= find_speed(middle.summary)
        ):
            yield before
        else:
            yield middle


def _list_medians(entry: Entry, name: str) -> Iterator[tuple[str, float]]:
    for summary in entry.summaries:
        value = getattr(summary, name)
        if value is not None and (value.median or name == "output_tps"):
            yield str(summary.load), float(f"{value.median:.6g}")


def _shorten(history: Sequence[Past]) -> tuple[Past, ...]:
    """Of older lines no more than the pictures show."""
    older, later = history[:-RUNS], history[-RUNS:]
    others = {name: () for name in COMPARED if name != "output_tps"}
    return (*(row.model_copy(update=others) for row in older), *later)


def _shorten_parameters(of: Fingerprint) -> str:
    return sha256(of.parameters.encode()).hexdigest()[:16]
