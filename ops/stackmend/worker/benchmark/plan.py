"""Whether a server is measured, and whether what it came to is enough. Pure."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from stackmend import decision
from stackmend.decision import Finding, Refusal
from stackmend.worker.benchmark import baseline, fingerprint, guards
from stackmend.worker.benchmark.spec import BenchmarkSpec, Minimum
from stackmend.worker.benchmark.state import (
    BenchmarkState,
    Comparison,
    Entry,
    Figures,
    Fingerprint,
    Load,
    Record,
    Reference,
    Summary,
)

#: Seconds by which the clock of a host may be behind that of the run that measured.
BEHIND = 300

#: Seconds after which a result that is noisy or fails is measured again, twice as many each time,
#: and how often they are doubled.
RETRY, MOST_RETRIES = 3600.0, 10

#: Figures in words, with their unit.
_FIGURES = {
    "output_tps": ("output", "tokens/s"),
    "decode_tps": ("decoding", "tokens/s"),
    "requests_ps": ("requests", "requests/s"),
    "goodput": ("goodput", "requests/s"),
    "tasks_pm": ("tasks", "tasks/min"),
    "ttft": ("time to first token", "s"),
    "tpot": ("time per output token", "s"),
    "end": ("time for a task", "s"),
}


class Measure(decision.Action):
    """Measure the server, and keep the result.

    :param model: the model that is asked.
    :param fingerprint: what the result holds for.
    """

    verb: Literal["measure"] = "measure"
    undo: str = "none needed: only the result is written"
    model: str
    fingerprint: Fingerprint


class Collect(decision.Action):
    """Write the result that the host has to the controller as well."""

    verb: Literal["collect"] = "collect"
    undo: str = "remove the file"


Action = Measure | Collect
Plan = decision.Plan[Action]


def plan(spec: BenchmarkSpec, state: BenchmarkState) -> Plan:
    """Whether the stored result is the answer, and what that result comes to.

    :param spec: what is desired.
    :param state: the host, its server, and what was measured before.
    """
    record = state.machine.record
    model = fingerprint.find_model(spec, state.answers)
    if state.answers.reason or model is None:
        return Plan(refusals=(_refuse_unknown(spec, state),))
    now = fingerprint.build(spec, state, model)
    findings = list(_find_record_problem(state))
    cause = find_cause(spec, record, now, state.machine.now)
    if cause:
        refusals = guards.list_refusals(spec, state)
        action = Measure(subject=spec.server, cause=cause, model=model.name, fingerprint=now)
        return Plan(findings=tuple(findings), actions=(action,), refusals=refusals)
    assert record.latest is not None, "nothing is to be measured"
    findings += list_problems(spec, record)
    actions: tuple[Action, ...] = ()
    if not state.collected:
        actions = (Collect(subject=spec.server, cause="its result is not on this controller yet"),)
    return Plan(findings=tuple(findings), actions=actions)


def find_cause(spec: BenchmarkSpec, record: Record, now: Fingerprint, clock: float) -> str:
    """Why a server is measured; empty where the stored result holds.

    :param record: the stored result, if there is one, and what it is held against.
    :param now: what a measurement of now would hold for.
    :param clock: the host's, in seconds since 1970.
    """
    latest = record.latest
    if latest is None:
        return "it was never measured"
    if changes := fingerprint.list_changes(latest.fingerprint, now):
        return "; ".join(changes)
    if latest.limits != spec.profile.limits:
        return "the limits of a good request changed"
    if latest.at > clock + BEHIND:
        return "the stored result is of a time to come: the host's clock was set"
    if (age := clock - latest.at) > spec.max_age:
        return f"the stored result is {_format_age(age)} old, more than {_format_age(spec.max_age)}"
    soon = RETRY * 2**latest.retries
    if age > soon and (kind := find_weakness(spec, record)):
        return f"the stored result is {kind}, and {_format_age(age)} old"
    return ""


def find_weakness(spec: BenchmarkSpec, record: Record) -> str:
    """For what the latest result does not hold as long as others; empty where it does.

    :param spec: what is desired.
    :param record: the result, and what it is held against.
    """
    kinds = {finding.kind for finding in list_problems(spec, record)}
    return next((kind for kind in ("slower", "below minimum", "noisy") if kind in kinds), "")


def count_retries(spec: BenchmarkSpec, record: Record) -> int:
    """How often in a row nothing better than noise or a failure was measured, up to the next time.

    :param spec: what is desired.
    :param record: what was measured before.
    """
    if record.latest is None or not find_weakness(spec, record):
        return 0
    return min(MOST_RETRIES, record.latest.retries + 1)


def list_problems(spec: BenchmarkSpec, record: Record) -> Iterator[Finding]:
    """What the latest result falls short of: each with both numbers.

    Noise blocks nothing, unless the result before was as slow under noise.

    :param spec: what is desired.
    :param record: the result, what it is held against, and the one before it.
    """
    latest = record.latest
    assert latest is not None, "there is a result"
    for summary in latest.summaries:
        if summary.noisy:
            yield Finding(
                subject=spec.server,
                kind="noisy",
                cause=f"{summary.load}: {summary.noisy}",
                remedy="measure again while nothing else runs on the host",
                blocks=False,
            )
    if spec.minimum is not None:
        yield from _hold_against_minimum(spec, spec.minimum, record)
    if spec.baseline == "none":
        return
    yield from _list_missing(spec, record, latest)
    found = baseline.hold(record, record.held, latest, spec.threshold)
    yield from _format_comparisons(spec, found, record, latest)


def _list_missing(spec: BenchmarkSpec, record: Record, latest: Entry) -> Iterator[Finding]:
    """The loads of which there is no baseline, and will be none for the next measurement."""
    known = {row.summary.load for row in (*record.held, *record.best)}
    missing = [str(row.load) for row in latest.summaries if row.load not in known]
    if spec.baseline == "best" and missing:
        yield Finding(
            subject=spec.server,
            kind="no baseline",
            cause=f"{', '.join(missing)}: no steady result yet, so none is compared to a baseline",
            remedy="measure again while nothing else runs on the host",
            blocks=False,
        )


def _hold_against_minimum(
    spec: BenchmarkSpec, minimum: Minimum, record: Record
) -> Iterator[Finding]:
    assert record.latest is not None, "there is a result"
    for field, limit in minimum:
        if limit is None:
            continue
        name, unit = _FIGURES[field]
        best = _find_best(record.latest, field)
        if best is None:
            yield Finding(
                subject=spec.server,
                kind="below minimum",
                cause=f"{name}: the server does not say it, so {limit:g} {unit} are not proven",
                remedy="take another figure as minimum",
            )
            continue
        if best.median >= limit:
            continue
        before = _find_best(record.previous, field) if record.previous is not None else None
        again = before is not None and before.median < limit
        noise = best.noisy or (
            f"up to {best.high:.3g} in its repeats" if best.high >= limit else ""
        )
        cause = f"{name}: {best.median:.3g} {unit} at its best load, less than {limit:g}"
        blocks = not noise or again
        yield Finding(
            subject=spec.server,
            kind="below minimum" if blocks else "noisy",
            cause=cause
            + (f": not proven, {noise}" if noise else "")
            + ("; so was the result before" if noise and again else ""),
            remedy="find out what slows the server, or lower minimum"
            if blocks
            else "measure again while nothing else runs on the host",
            blocks=blocks,
        )


class _Best(NamedTuple):
    """A figure at the load at which it is best: its median, the end of its interval, its noise."""

    median: float
    high: float
    noisy: str


def _find_best(entry: Entry, field: str) -> _Best | None:
    found = []
    for summary in entry.summaries:
        value = _read_figure(summary.median, field)
        if value is not None:
            found.append(_Best(value, _find_high(summary, field, value), summary.noisy))
    return max(found, key=lambda best: best.median, default=None)


def _find_high(summary: Summary, field: str, middle: float) -> float:
    steadiness = {
        "output_tps": summary.output_tps,
        "requests_ps": summary.requests_ps,
    }.get(field)
    if steadiness is not None:
        return steadiness.high
    repeats = [
        value
        for at, row in enumerate(summary.repeats)
        if at not in summary.disturbed and (value := _read_figure(row, field)) is not None
    ]
    return max(repeats, default=middle)


def _read_figure(figures: Figures, field: str) -> float | None:
    if field == "tasks_pm":
        return figures.requests_ps * 60
    value: float | None = getattr(figures, field)
    return value


def _format_comparisons(
    spec: BenchmarkSpec, found: Sequence[Comparison], record: Record, latest: Entry
) -> Iterator[Finding]:
    references = {reference.summary.load: reference for reference in record.held}
    before = _find_slow(spec, record)
    for row in found:
        if row.outcome not in ("worse", "noisy") or not row.is_worse:
            continue
        cause = _format_cause(spec, row)
        again = row.outcome == "noisy" and (row.load, row.figure) in before
        worse = row.outcome == "worse" or again
        if row.outcome == "noisy":
            cause += f": {row.reason}"
        if again:
            cause += "; so was the result before"
        yield Finding(
            subject=spec.server,
            kind="slower" if worse else "noisy",
            cause=cause,
            evidence=_list_evidence(references[row.load], latest) if worse else (),
            remedy='find out what slows the server, or add "baseline": "last" to accept it'
            if worse
            else "measure again while nothing else runs on the host",
            blocks=worse,
        )


def _find_slow(spec: BenchmarkSpec, record: Record) -> set[tuple[Load, str]]:
    """The figures in which the result before the latest was slower, be it under noise."""
    if record.previous is None:
        return set()
    found = baseline.hold(record, record.held, record.previous, spec.threshold)
    return {
        (row.load, row.figure)
        for row in found
        if row.is_worse and row.outcome in ("worse", "noisy")
    }


def _format_cause(spec: BenchmarkSpec, row: Comparison) -> str:
    is_tasks = spec.target == "queue" and row.figure == "requests_ps"
    name, unit = _FIGURES["tasks_pm" if is_tasks else row.figure]
    after, before = (60 * row.after, 60 * row.before) if is_tasks else (row.after, row.before)
    return (
        f"{row.load}: {name} {after:.3g} {unit}, {before:.3g} in the baseline "
        f"({row.ratio - 1:+.0%}, threshold {row.threshold:.0%}, p = {row.p:.2g})"
    )


def _list_evidence(reference: Reference, latest: Entry) -> tuple[str, ...]:
    changes = fingerprint.list_changes(reference.fingerprint, latest.fingerprint)
    return tuple(f"since then: {change}" for change in changes)


def _find_record_problem(state: BenchmarkState) -> Iterator[Finding]:
    if state.machine.record_problem:
        yield Finding(
            subject="stored result",
            kind="unreadable",
            cause=state.machine.record_problem,
            remedy="copy it elsewhere to keep it: the next result takes its place",
            blocks=False,
        )


def _refuse_unknown(spec: BenchmarkSpec, state: BenchmarkState) -> Refusal:
    if reason := state.answers.reason:
        return Refusal(
            subject=spec.server,
            reason=reason,
            remedy=state.answers.remedy or "start the server, then run again",
        )
    names = [model.name for model in state.answers.models]
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    if spec.model is not None:
        return Refusal(
            subject=spec.server,
            reason=f"it has no model {spec.model}; it has {listed or 'none'}",
            remedy="pull the model, or name another one",
        )
    return Refusal(
        subject=spec.server,
        reason=f"it has {len(names)} models: {listed}" if names else "it has no model",
        remedy='name the model that is measured: add "model" to the section worker.benchmark'
        if names
        else "pull a model first",
    )


def _format_age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"
