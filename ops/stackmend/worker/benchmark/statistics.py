"""What samples come to, and whether two measurements differ. Pure.

The unit is the repeat: requests of one repeat share its load and its clock, and are never pooled
over repeats.
"""

from collections.abc import Callable, Mapping, Sequence
from math import comb, sqrt
from statistics import NormalDist, fmean, median, stdev
from typing import Any, Literal

from stackmend.worker.benchmark.spec import Limits
from stackmend.worker.benchmark.state import (
    Comparison,
    Figures,
    Invalid,
    Level,
    Load,
    Repeat,
    Sample,
    Steadiness,
    Summary,
)
from stackmend.worker.figures import MILLISECONDS, format_figure

#: Standard deviation by mean from which on a level is noisy.
NOISY_SPREAD = 0.1

#: Share of its requests that may not count before a level is noisy.
NOISY_INVALID = 0.1

#: Shares of the host's CPU time from which on a hypervisor or other programs disturb.
NOISY_STEAL, NOISY_OTHERS = 0.05, 0.1

#: Pages that may come in from swap during a repeat.
NOISY_SWAPPED = 256

#: Repeats that the host did not disturb, from which on those that it did are left out.
CLEAN = 5

#: Seconds by which times to a first token have to differ at least.
LEAST_SECONDS = 0.005

#: Share of a request's time from which on another round trip explains a difference.
EXPLAINED = 0.02

#: What a time is compared to one of nothing.
LARGEST_RATIO = 1000.0

#: Standard deviations of runs from one another that make no difference, and up to which one is
#: doubtful until the next result.
RUN_SPREADS, SURE_SPREADS = 3, 4

#: The difference that runs explain at most, however much they differ: a server that has lost a
#: third of its speed is slower on any machine.
MOST_SPREAD = 0.2

#: How many times the threshold a difference has to be where it is not known how runs differ.
UNKNOWN = 2

#: The greatest probability that a difference is chance.
SIGNIFICANT = 0.05

#: Repeats of each side up to which the test is exact.
EXACT = 20

#: The figures that are compared, and whether more of them is better.
COMPARED = {
    "output_tps": True,
    "ttft": False,
    "tpot": False,
    "requests_ps": True,
    "end": False,
}

#: The figures of a repeat that are a median and a 95th percentile.
_PAIRS = ("ttft", "ttft_output", "tpot", "end")


def compute_percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies, between two of them in proportion.

    :param values: one at least, in any order.
    :param share: from 0 to 1.

    Example:
        >>> compute_percentile([4, 1, 3, 2], 0.5)
        2.5
    """
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    # Of equal values no rounding makes another one.
    if ordered[low] == ordered[high]:
        return float(ordered[low])
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def compute_figures(repeat: Repeat, limits: Limits, rtt: float = 0.0) -> Figures:
    """What one repeat comes to.

    Only samples that count are counted, in tokens as in times; the wall time is that of all. Of
    answers that ended too soon the tokens count as well: the server has written them.

    :param limits: what a good request meets.
    :param rtt: one round trip of the connection, taken out of the times to the first token; that
        of the repeat is better.
    """
    valid = repeat.valid
    wall = repeat.wall
    rtt = rtt if repeat.rtt is None else repeat.rtt

    def compute_rate(count: float, during: float = wall) -> float:
        return count / during if during > 0 else 0.0

    # The end of the last answers is no time in which requests come.
    window = repeat.window or wall

    def find_pair(figure: Callable[[Sample], float | None]) -> tuple[float, float] | None:
        values = [value for value in map(figure, valid) if value is not None]
        if not values:
            return None
        return median(values), compute_percentile(values, 0.95)

    def find_median(figure: Callable[[Sample], float | None]) -> float | None:
        values = [value for value in map(figure, valid) if value is not None]
        return median(values) if values else None

    reasons: dict[Invalid, int] = {}
    for sample in repeat.samples:
        if sample.invalid is not None:
            reasons[sample.invalid] = reasons.get(sample.invalid, 0) + 1
    good = [sample for sample in valid if _is_good(sample, limits, rtt)]
    return Figures(
        output_tps=compute_rate(
            sum(
                sample.output_tokens or 0
                for sample in repeat.samples
                if sample.last is not None and (sample.invalid is None or _is_short(sample))
            )
        ),
        requests_ps=compute_rate(len(valid), window),
        goodput=None if limits == Limits() else compute_rate(len(good), window),
        ttft=find_pair(lambda sample: _subtract(sample.ttft, rtt)),
        ttft_output=find_pair(lambda sample: _subtract(sample.ttft_output, rtt)),
        tpot=find_pair(lambda sample: sample.tpot),
        end=find_pair(lambda sample: sample.end),
        queue=find_median(_find_queue),
        prefill_tps=find_median(
            lambda sample: _compute_ratio(
                (sample.prompt_tokens or 0) - (sample.cached_tokens or 0), sample.prefill
            )
        ),
        decode_tps=find_median(
            lambda sample: _compute_ratio(sample.output_tokens or 0, sample.decode)
        ),
        valid=len(valid),
        invalid=tuple(sorted(reasons.items())),
    )


def summarize(level: Level, limits: Limits, rtt: float = 0.0) -> Summary:
    """What one level comes to.

    :param limits: what a good request meets.
    :param rtt: one round trip of the connection, taken out of the times to the first token.
    """
    figures = tuple(compute_figures(repeat, limits, rtt) for repeat in level.repeats)
    disturbed = _find_disturbed(level.repeats)
    clean = [at for at in range(len(figures)) if at not in disturbed]
    repeats = [level.repeats[at] for at in clean]
    counted = [figures[at] for at in clean if figures[at].valid] or list(figures)
    output = compute_steadiness([row.output_tps for row in counted])
    # Tokens are what a model server is for, and tasks what a queue is for.
    requests = end = None
    if not output.median:
        requests = compute_steadiness([row.requests_ps for row in counted])
        end = _find_steadiness([row.end[0] for row in counted if row.end])
    return Summary(
        load=level.load,
        repeats=figures,
        median=_find_medians(counted),
        output_tps=output,
        ttft=_find_steadiness([row.ttft[0] for row in counted if row.ttft]),
        tpot=_find_steadiness([row.tpot[0] for row in counted if row.tpot]),
        requests_ps=requests,
        end=end,
        others=_compute_mean([row.conditions.others for row in repeats]),
        disturbed=disturbed,
        rtt=rtt,
        is_hidden=_is_hidden(repeats, rtt),
        noisy=level.noisy
        or _find_noise(repeats, [figures[at] for at in clean], requests or output),
    )


def compute_steadiness(values: Sequence[float]) -> Steadiness:
    """How one figure varies over the repeats.

    :param values: one for each repeat, one at least.
    """
    middle = median(values)
    low, high = _find_interval(values)
    return Steadiness(median=middle, low=low, high=high, spread=compute_spread(values))


def compute_spread(values: Sequence[float]) -> float:
    """The standard deviation by the median; 0 where that is.

    :param values: one for each repeat, one at least.
    """
    middle = median(values)
    return _compute_deviation(values) / middle if middle > 0 else 0.0


def _compute_deviation(values: Sequence[float]) -> float:
    """The standard deviation, by the quartiles: one repeat that is far out does not change it."""
    size = len(values)
    if size < 4:
        return stdev(values) if size > 1 else 0.0
    quartiles = compute_percentile(values, 0.75) - compute_percentile(values, 0.25)
    # Quartiles of few values lie closer together than those of many.
    return quartiles / (1.349 * (1 - 1.33 / size))


def compute_p(before: Sequence[float], after: Sequence[float]) -> float:
    """How probable two samples that differ so, or more, are by chance: Mann-Whitney, two-sided.

    Exact up to :data:`EXACT` values on each side, ties included; beyond that by the normal
    distribution.

    Example:
        >>> round(compute_p([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]), 4)
        0.0079
    """
    ranks = _rank_twice([*before, *after])
    size, total = len(before), len(ranks)
    if not size or size == total:
        return 1.0
    observed = sum(ranks[:size])
    if size <= EXACT and total - size <= EXACT:
        return _compute_exact(ranks, size, observed)
    expected = size * (total + 1)
    mean = fmean(ranks)
    variance = size * (total - size) / (total * (total - 1)) * sum((r - mean) ** 2 for r in ranks)
    if variance <= 0:
        return 1.0
    # The sums move in steps of two halves of a rank.
    distance = max(0.0, abs(observed - expected) - 1) / sqrt(variance)
    return min(1.0, 2 * NormalDist().cdf(-distance))


def compare(
    before: Sequence[Summary],
    after: Sequence[Summary],
    threshold: float,
    runs: Mapping[str, float] | None = None,
) -> tuple[Comparison, ...]:
    """Hold the levels of a measurement against those of the same load of an earlier one.

    A difference counts where it matters, which is more than the threshold, than twice the spread of
    the earlier level's repeats and than thrice that of runs, and where chance is improbable as
    well. It is noisy where the repeats now vary so, or where the connection explains it.

    :param before: the earlier levels.
    :param after: the levels now.
    :param threshold: by how much a figure has to differ to matter, as a share.
    :param runs: the spread of whole runs that nothing distinguishes, by load in words; one that is
        not there is not known yet. ``None`` where both were measured in one run.
    """
    earlier = {summary.load: summary for summary in before}
    found = []
    for now in after:
        then = earlier.get(now.load)
        if then is None:
            continue
        for figure, more_is_better in COMPARED.items():
            spread = 0.0 if runs is None else runs.get(str(now.load))
            limit = max(threshold, min(MOST_SPREAD, RUN_SPREADS * (spread or 0.0)))
            comparison = _compare_figure(then, now, figure, more_is_better, limit)
            if comparison is not None and spread is None:
                reason = "too few results say how much whole runs differ"
                comparison = _mark_doubtful(comparison, UNKNOWN * threshold, reason)
            elif comparison is not None and spread:
                reason = f"whole runs differ by {spread:.0%}"
                limit = min(MOST_SPREAD, SURE_SPREADS * spread)
                comparison = _mark_doubtful(comparison, limit, reason)
            if comparison is not None:
                found.append(comparison)
    return tuple(found)


def _mark_doubtful(comparison: Comparison, limit: float, reason: str) -> Comparison:
    """A comparison of which it is doubtful whether something became worse, up to a limit."""
    if comparison.outcome != "worse" or abs(comparison.ratio - 1) > limit:
        return comparison
    return comparison.model_copy(update={"outcome": "noisy", "reason": reason})


def is_disturbed(summary: Summary) -> bool:
    """Whether something else than the spread of its repeats makes a level noisy.

    :param summary: of the level.
    """
    return summary.noisy not in ("", _format_spread(summary.requests_ps or summary.output_tps))


def find_unsure(comparisons: Sequence[Comparison]) -> tuple[Load, ...]:
    """The loads of which more repeats are needed: something is worse there, or may be."""
    found = {
        comparison.load: None
        for comparison in comparisons
        if comparison.outcome == "worse" or (comparison.outcome == "noisy" and comparison.is_worse)
    }
    return tuple(found)


def add_repeats(levels: Sequence[Level], more: Sequence[Level]) -> tuple[Level, ...]:
    """The levels with the further repeats of those that were measured again."""
    added = {level.load: level for level in more}
    return tuple(
        level.model_copy(
            update={
                "repeats": (*level.repeats, *added[level.load].repeats),
                "noisy": level.noisy or added[level.load].noisy,
            }
        )
        if level.load in added
        else level
        for level in levels
    )


def _compare_figure(
    then: Summary, now: Summary, figure: str, more_is_better: bool, least: float
) -> Comparison | None:
    old: Steadiness | None = getattr(then, figure)
    new: Steadiness | None = getattr(now, figure)
    if old is None or new is None:
        return None
    if old.median <= 0:
        # A time that the round trip hides is noise; no tokens at all are nothing to compare.
        return _compare_hidden(then, now, figure, least) if figure == "ttft" else None
    limit = max(least, 2 * old.spread)
    ratio = new.median / old.median
    p = compute_p(_list_values(then, figure), _list_values(now, figure))
    outcome: Literal["equal", "worse", "better", "noisy"] = "equal"
    reason = ""
    is_worse = (ratio < 1) is more_is_better
    if abs(ratio - 1) > limit and not _is_within_round_trip(then, now, figure):
        reason = _find_disturbance(then, now) if is_worse else ""
        reason = reason or now.noisy or then.noisy
        reason = reason or _find_round_trip(then, now, figure, abs(ratio - 1), limit)
        if abs(ratio - 1) <= 2 * new.spread:
            reason = reason or f"the repeats vary by {new.spread:.0%}"
        if p >= SIGNIFICANT:
            reason = reason or f"chance alone differs so with a probability of {p:.2g}"
        outcome = "noisy" if reason else "worse" if is_worse else "better"
    return Comparison(
        load=now.load,
        figure=figure,
        before=old.median,
        after=new.median,
        ratio=ratio,
        threshold=limit,
        p=p,
        outcome=outcome,
        reason=reason,
    )


def _compare_hidden(then: Summary, now: Summary, figure: str, least: float) -> Comparison | None:
    """A first token that came sooner than the round trip lasts: it is compared to nothing."""
    old: Steadiness | None = getattr(then, figure)
    new: Steadiness | None = getattr(now, figure)
    if old is None or new is None or new.median <= old.median + _find_resolution(then, now):
        return None
    return Comparison(
        load=now.load,
        figure=figure,
        before=old.median,
        after=new.median,
        ratio=LARGEST_RATIO,
        threshold=least,
        p=compute_p(_list_values(then, figure), _list_values(now, figure)),
        outcome="noisy",
        reason=_format_hidden(then),
    )


def _format_hidden(summary: Summary) -> str:
    rtt = format_figure(summary.rtt, MILLISECONDS)
    return f"the round trip of {rtt} ms is longer than a time to a first token"


def _find_resolution(then: Summary, now: Summary) -> float:
    """Seconds by which times to a first token have to differ: the round trip is known no better."""
    return max(LEAST_SECONDS, max(then.rtt, now.rtt) / 4)


def _is_within_round_trip(then: Summary, now: Summary, figure: str) -> bool:
    if figure != "ttft" or then.ttft is None or now.ttft is None:
        return False
    return abs(now.ttft.median - then.ttft.median) <= _find_resolution(then, now)


def _find_round_trip(
    then: Summary, now: Summary, figure: str, difference: float, limit: float
) -> str:
    """Why the connection alone may make the difference; empty where it does not."""
    if figure == "ttft":
        hidden = next((row for row in (now, then) if row.is_hidden), None)
        return _format_hidden(hidden) if hidden is not None else ""
    # In a closed loop the next request waits until the answer has come the whole way.
    end = now.median.end
    if figure == "tpot" or not now.load.concurrency or end is None or end[0] <= 0:
        return ""
    share = abs(now.rtt - then.rtt) / end[0]
    if share <= EXPLAINED or difference - share > limit:
        return ""
    before, after = (format_figure(row.rtt, MILLISECONDS) for row in (then, now))
    return (
        f"the round trip of the connection is {after} ms, {before} ms before: "
        f"{share:.0%} of a request"
    )


def _list_values(summary: Summary, figure: str) -> list[float]:
    values = []
    for at, row in enumerate(summary.repeats):
        value = getattr(row, figure)
        if row.valid and value is not None and at not in summary.disturbed:
            values.append(value[0] if isinstance(value, tuple) else value)
    return values


def _find_disturbance(then: Summary, now: Summary) -> str:
    """What took time from a measurement that it did not take from the earlier one."""
    if now.others is None or now.others < NOISY_OTHERS:
        return ""
    if now.others - (then.others or 0.0) < NOISY_OTHERS:
        return ""
    before = "" if then.others is None else f", {then.others:.0%} before"
    return f"other programs used {now.others:.0%} of the CPU time{before}"


def _is_hidden(repeats: Sequence[Repeat], rtt: float) -> bool:
    """Whether a first token came sooner than the round trip that is taken out of its time."""
    times = [sample.ttft for repeat in repeats for sample in repeat.valid]
    return any(time is not None and time < rtt for time in times)


def _find_disturbed(repeats: Sequence[Repeat]) -> tuple[int, ...]:
    """The repeats that the host disturbed, where enough others are left."""
    found = tuple(at for at, repeat in enumerate(repeats) if _find_condition([repeat]))
    return found if len(repeats) - len(found) >= CLEAN else ()


def _find_noise(repeats: Sequence[Repeat], figures: Sequence[Figures], output: Steadiness) -> str:
    """Why a level must not be compared; empty where it may."""
    sent = sum(not _is_short(sample) for repeat in repeats for sample in repeat.samples)
    counted = sum(row.valid for row in figures)
    if not counted:
        return "no request counts"
    if sent - counted > NOISY_INVALID * sent:
        reasons: dict[str, int] = {}
        for row in figures:
            for why, count in row.invalid:
                reasons[why] = reasons.get(why, 0) + count
        if short := sum(_is_short(sample) for repeat in repeats for sample in repeat.samples):
            reasons["short"] -= short
            reasons = {why: count for why, count in reasons.items() if count}
        named = ", ".join(f"{why} {count}" for why, count in sorted(reasons.items()))
        return f"{sent - counted} of {sent} requests do not count: {named}"
    if reason := _find_condition(repeats):
        return reason
    if output.spread > NOISY_SPREAD:
        return _format_spread(output)
    return ""


def _format_spread(output: Steadiness) -> str:
    return f"its repeats vary by {output.spread:.0%}"


def _find_condition(repeats: Sequence[Repeat]) -> str:
    conditions = [repeat.conditions for repeat in repeats]
    if kills := sum(row.oom_kills or 0 for row in conditions):
        return f"the kernel killed {kills} processes for memory"
    if (swapped := max(row.swapped or 0 for row in conditions)) > NOISY_SWAPPED:
        return f"{swapped} pages came in from swap during one repeat"
    if (steal := max(row.steal or 0.0 for row in conditions)) > NOISY_STEAL:
        return f"the hypervisor gave {steal:.0%} of the CPU time to others"
    if events := sum(row.thermal or 0 for row in conditions):
        return f"the CPU was throttled {events} times for its temperature"
    return ""


def _find_medians(figures: Sequence[Figures]) -> Figures:
    """The median of each figure; samples are counted over all repeats."""

    def find_median(name: str) -> float | None:
        values = [value for row in figures if (value := getattr(row, name)) is not None]
        return median(values) if values else None

    pairs = {}
    for name in _PAIRS:
        values = [value for row in figures if (value := getattr(row, name)) is not None]
        pairs[name] = (
            (median(value[0] for value in values), median(value[1] for value in values))
            if values
            else None
        )
    invalid: dict[Invalid, int] = {}
    for row in figures:
        for why, count in row.invalid:
            invalid[why] = invalid.get(why, 0) + count
    return Figures(
        output_tps=find_median("output_tps") or 0.0,
        requests_ps=find_median("requests_ps") or 0.0,
        goodput=find_median("goodput"),
        queue=find_median("queue"),
        prefill_tps=find_median("prefill_tps"),
        decode_tps=find_median("decode_tps"),
        valid=sum(row.valid for row in figures),
        invalid=tuple(sorted(invalid.items())),
        **pairs,
    )


def _find_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median: by bootstrap with scipy, else the least and greatest."""
    least, most = min(values), max(values)
    if len(values) < 3 or least == most:
        return least, most
    try:
        from scipy.stats import bootstrap  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return least, most

    def find_medians(sample: Any, axis: int) -> Any:
        import numpy  # type: ignore[import-not-found, unused-ignore]

        return numpy.median(sample, axis=axis)

    found = bootstrap(
        (list(values),),
        find_medians,
        n_resamples=2000,
        method="percentile",
        vectorized=True,
        rng=0,
    ).confidence_interval
    # Rounding may lead out of what was measured.
    return max(least, float(found.low)), min(most, float(found.high))


def _is_short(sample: Sample) -> bool:
    """Whether an answer has text, and ended too soon: the model's doing, and no disturbance."""
    return sample.invalid == "short" and sample.last is not None and bool(sample.output_tokens)


def _is_good(sample: Sample, limits: Limits, rtt: float) -> bool:
    return all(
        limit is None or (value is not None and value <= limit)
        for limit, value in (
            (limits.ttft, _subtract(sample.ttft, rtt)),
            (limits.tpot, sample.tpot),
            (limits.end, sample.end),
        )
    )


def _find_queue(sample: Sample) -> float | None:
    """Seconds that a request waited in the server, by its own times."""
    if sample.total is None or sample.decode is None:
        return None
    return max(0.0, sample.total - (sample.load or 0) - (sample.prefill or 0) - sample.decode)


def _subtract(value: float | None, rtt: float) -> float | None:
    return None if value is None else max(0.0, value - rtt)


def _compute_ratio(count: float, seconds: float | None) -> float | None:
    return count / seconds if seconds and count > 0 else None


def _find_steadiness(values: Sequence[float]) -> Steadiness | None:
    return compute_steadiness(values) if values else None


def _compute_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _rank_twice(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, so that the mean rank of equal ones is a whole number."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for at in order[start:end]:
            ranks[at] = start + 1 + end
        start = end
    return ranks


def _compute_exact(ranks: Sequence[int], size: int, observed: int) -> float:
    """The share of all ways to choose so many of the ranks whose sum is as far out, twice."""
    sums: list[dict[int, int]] = [{} for _ in range(size + 1)]
    sums[0][0] = 1
    for rank in ranks:
        for chosen in range(size, 0, -1):
            target = sums[chosen]
            for total, count in sums[chosen - 1].items():
                target[total + rank] = target.get(total + rank, 0) + count
    below = sum(count for total, count in sums[size].items() if total <= observed)
    above = sum(count for total, count in sums[size].items() if total >= observed)
    return min(1.0, 2 * min(below, above) / comb(len(ranks), size))
