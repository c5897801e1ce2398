"""Whether a server is measured, and whether what it came to is enough. Pure."""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple

from stackmend import decision
from stackmend.decision import Finding, Refusal
from stackmend.worker.benchmark import baseline, fingerprint, guards, statistics
from stackmend.worker.benchmark.spec import BenchmarkPolicy, BenchmarkSpec
from stackmend.worker.benchmark.state import (
    CONTROLLER,
    BenchmarkState,
    Comparison,
    Entry,
    Figures,
    Fingerprint,
    Load,
    Record,
    Reference,
    Shortfall,
    Summary,
)
from stackmend.worker.figures import format_figure, format_moment, format_setting

#: Seconds by which the clock of a host may be behind that of the run that measured.
BEHIND = 300

#: Seconds after which a result that is noisy or fails is measured again, twice as many each time,
#: and how often they are doubled.
RETRY, MOST_RETRIES = 3600.0, 10

#: By what a host that disturbs all repeats of a load may slow the best of them.
DISTURBED = 2

#: What a measurement after a noisy one needs.
QUIET = " while nothing else runs on the host"
QUIET_CONTROLLER = f" while nothing else runs on {CONTROLLER}"

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

    prepares: ClassVar[bool] = True
    lasts: ClassVar[bool] = False

    verb: Literal["measure"] = "measure"
    undo: str = "none needed: only the result is written"
    model: str
    fingerprint: Fingerprint


class Collect(decision.Action):
    """Write the result that the host has to the controller as well."""

    prepares: ClassVar[bool] = True
    lasts: ClassVar[bool] = False

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
        if narrow := guards.find_narrow_context(spec, now.context):
            refusals = (narrow, *refusals)
        action = Measure(subject=spec.server, cause=cause, model=model.name, fingerprint=now)
        return Plan(findings=tuple(findings), actions=(action,), refusals=refusals)
    assert record.latest is not None, "nothing is to be measured"
    # Of a model that was loaded for the measurement it is known since then.
    if narrow := guards.find_narrow_context(spec, record.latest.fingerprint.context):
        findings.append(
            Finding(
                subject=narrow.subject,
                kind="narrow context",
                cause=narrow.reason,
                remedy=narrow.remedy,
                blocks=False,
            )
        )
    findings += list_problems(spec, record)
    actions: tuple[Action, ...] = ()
    if not state.collected:
        actions = (Collect(subject=spec.server, cause="its result is not on this controller yet"),)
    elif state.is_outdated:
        actions = (Collect(subject=spec.server, cause="minimum changed since it was collected"),)
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
    if clock > find_next_time(spec, latest) and (kind := find_weakness(spec, record)):
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


def find_next_time(spec: BenchmarkPolicy, latest: Entry) -> float:
    """From when on a result that is noisy or fails is measured again, in seconds since 1970.

    :param spec: what is desired.
    :param latest: the result.
    """
    return latest.at + min(spec.max_age, RETRY * 2.0**latest.retries)


def _format_again(spec: BenchmarkPolicy, latest: Entry, condition: str = "") -> str:
    """The remedy that is another measurement, with what makes a run one."""
    moment = format_moment(find_next_time(spec, latest))
    return (
        f"run again{condition}: from {moment} on that measures again, "
        'and before then with "max_age": 0'
    )


def _find_quiet(noise: str) -> str:
    """What a measurement needs after one with such noise."""
    return QUIET_CONTROLLER if noise.startswith(CONTROLLER) else QUIET


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
                remedy=_format_again(spec, latest, _find_quiet(summary.noisy)),
                blocks=False,
            )
    yield from _hold_against_minimum(spec, record)
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
            remedy=_format_again(spec, latest, QUIET),
            blocks=False,
        )


def _hold_against_minimum(spec: BenchmarkSpec, record: Record) -> Iterator[Finding]:
    latest = record.latest
    assert latest is not None, "there is a result"
    for row in list_shortfalls(spec, record):
        yield Finding(
            subject=spec.server,
            kind="below minimum" if row.fails else "noisy",
            cause=_format_shortfall(row),
            remedy=_find_shortfall_remedy(spec, row, latest),
            blocks=row.fails,
        )


def list_shortfalls(spec: BenchmarkPolicy, record: Record) -> tuple[Shortfall, ...]:
    """The figures of the latest result that do not reach their minimum.

    Noise excuses a load no further than its best repeat reaches.

    :param spec: what is desired.
    :param record: the result, and the one before it.
    """
    return tuple(_find_shortfalls(spec, record))


def _find_shortfalls(spec: BenchmarkPolicy, record: Record) -> Iterator[Shortfall]:
    if record.latest is None:
        return
    for field, limit in spec.minimum or ():
        if limit is None:
            continue
        found = _list_reached(record.latest, field, spec.threshold)
        best = max(found, key=lambda row: row.median, default=None)
        if best is None:
            yield Shortfall(figure=field, minimum=limit)
            continue
        if best.median >= limit:
            continue
        previous = record.previous
        before = _list_reached(previous, field, spec.threshold) if previous is not None else []
        noise = best.noisy
        if not noise and best.high >= limit:
            noise = f"up to {format_figure(best.high)} in its repeats"
        if all(row.ceiling < limit for row in found):
            noise = ""
        yield Shortfall(
            figure=field,
            minimum=limit,
            value=best.median,
            most=max(row.most for row in found) if best.noisy and not noise else None,
            noise=noise,
            again=bool(before) and all(row.median < limit for row in before),
        )


def _format_shortfall(row: Shortfall) -> str:
    name, unit = _FIGURES[row.figure]
    minimum = format_setting(row.minimum)
    if row.value is None:
        return f"{name}: the server does not say it, so nothing is known to reach {minimum} {unit}"
    cause = f"{name}: {format_figure(row.value)} {unit} at its best load"
    if row.most is not None:
        cause += f", {format_figure(row.most)} in its best repeat"
    cause += f", less than {minimum}"
    if row.noise:
        cause += "; so was the result before" if row.again else f": not proven, {row.noise}"
    return cause


class _Reached(NamedTuple):
    """What a load reached of a figure.

    :ivar median: of its repeats.
    :ivar high: the end of its interval.
    :ivar most: the best of all its repeats.
    :ivar ceiling: beyond it no noise of this kind explains a figure.
    :ivar noisy: why the load is noisy; empty where it is not.
    """

    median: float
    high: float
    most: float
    ceiling: float
    noisy: str


def _list_reached(entry: Entry, field: str, threshold: float) -> list[_Reached]:
    found = []
    for summary in entry.summaries:
        value = _read_figure(summary.median, field)
        if value is None:
            continue
        repeats = [
            row
            for figures in summary.repeats
            if figures.valid and (row := _read_figure(figures, field)) is not None
        ]
        most = max(repeats, default=value)
        ceiling = _find_ceiling(summary, repeats, threshold)
        high = _find_high(summary, field, value)
        found.append(_Reached(value, high, most, ceiling, summary.noisy))
    return found


def _find_ceiling(summary: Summary, repeats: Sequence[float], threshold: float) -> float:
    """What a load does not reach, however noisy it was.

    Repeats that vary say by the best of them what the server can do. What disturbed all of them
    has slowed the best one as well.
    """
    if not repeats:
        return math.inf
    ceiling = max(repeats) * (1 + max(threshold, statistics.compute_spread(repeats)))
    if not statistics.is_disturbed(summary):
        return ceiling
    valid = summary.median.valid
    lost = sum(count for _, count in summary.median.invalid)
    return DISTURBED * ceiling * (valid + lost) / valid if valid else math.inf


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


def _find_shortfall_remedy(spec: BenchmarkSpec, row: Shortfall, latest: Entry) -> str:
    if row.value is None:
        return "take another figure as minimum"
    if row.fails:
        again = _format_again(spec, latest)
        return f"find out what slows the server, or lower minimum; then {again}"
    return _format_again(spec, latest, _find_quiet(row.noise))


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
        again = _is_doubtful(row) and (row.load, row.figure) in before
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
            remedy='find out what slows the server, or add "baseline": "last" to accept it; then '
            + _format_again(spec, latest)
            if worse
            else _format_again(spec, latest, _find_quiet(row.reason)),
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
        if row.is_worse and (row.outcome == "worse" or _is_doubtful(row))
    }


def _is_doubtful(row: Comparison) -> bool:
    """Whether noise may explain a difference, and chance does not: twice it does not either."""
    return row.outcome == "noisy" and row.p < statistics.SIGNIFICANT


def _format_cause(spec: BenchmarkSpec, row: Comparison) -> str:
    is_tasks = spec.target == "queue" and row.figure == "requests_ps"
    name, unit = _FIGURES["tasks_pm" if is_tasks else row.figure]
    after, before = (60 * row.after, 60 * row.before) if is_tasks else (row.after, row.before)
    return (
        f"{row.load}: {name} {format_figure(after)} {unit}, "
        f"{format_figure(before)} in the baseline "
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
            return f"{format_setting(float(f'{seconds / size:.3g}'))} {unit}"
    return f"{seconds:.0f} s"
