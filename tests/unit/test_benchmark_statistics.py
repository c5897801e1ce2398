"""What samples come to, and whether two measurements differ."""

from __future__ import annotations

import itertools
import random
import statistics as standard
import sys
from collections.abc import Sequence
from typing import Any

import numpy
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from stackmend.worker.benchmark import baseline, statistics
from stackmend.worker.benchmark.spec import Limits
from stackmend.worker.benchmark.state import Conditions, Level, Load, Repeat, Sample
from tests.benchmarks import gate
from tests.unit.benchmark_world import FINGERPRINT, Noise, Series, hold, measure, summarize

VALUES = st.floats(0.001, 1e6, allow_nan=False)

FEW = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def sample(**fields: Any) -> Sample:
    known = {"sent": 0.0, "end": 2.0, "ttft": 0.5, "last": 1.9, "output_tokens": 15}
    return Sample.model_validate(known | fields)


# Percentiles and figures


@given(st.lists(VALUES, min_size=1, max_size=30), st.floats(0, 1))
def test_percentiles_are_numpy_s(values: list[float], share: float) -> None:
    expected = float(numpy.quantile(values, share))
    assert statistics.compute_percentile(values, share) == pytest.approx(expected)


def test_the_round_trip_is_taken_out_of_ttft_only() -> None:
    repeat = Repeat(wall=3.0, samples=(sample(), sample(ttft=0.7, ttft_output=0.9)))
    raw = statistics.compute_figures(repeat, Limits(), 0.0)
    found = statistics.compute_figures(repeat, Limits(), 0.05)
    assert found.ttft == pytest.approx((0.55, 0.64))
    assert found.ttft_output == pytest.approx((0.85, 0.85))
    assert (found.tpot, found.end, found.output_tps) == (raw.tpot, raw.end, raw.output_tps)
    assert found.tpot == pytest.approx((1.3 / 14, 0.1 - 0.05 * (0.1 - 1.2 / 14)), rel=0.01)


def test_tokens_of_samples_that_do_not_count_are_not_counted_but_their_time_is() -> None:
    samples = (sample(), sample(invalid="cached"), sample(invalid="error"))
    found = statistics.compute_figures(Repeat(wall=4.0, samples=samples), Limits())
    assert found.output_tps == 15 / 4
    assert found.requests_ps == 1 / 4
    assert (found.valid, found.invalid) == (1, (("cached", 1), ("error", 1)))


def test_tokens_of_answers_that_ended_too_soon_count_and_make_no_noise() -> None:
    """The server wrote them in this time; that the model ended there is its own affair."""
    short = sample(invalid="short", output_tokens=5)
    repeat = Repeat(wall=4.0, samples=(sample(), short, short, sample(invalid="short", last=None)))
    found = statistics.compute_figures(repeat, Limits())
    assert (found.output_tps, found.requests_ps, found.valid) == (25 / 4, 1 / 4, 1)
    (level,) = measure(Noise(), loads=[1])
    repeats = tuple(
        row.model_copy(update={"samples": (*row.samples, short, short)}) for row in level.repeats
    )
    assert summarize([level.model_copy(update={"repeats": repeats})])[0].noisy == ""


def test_goodput_counts_requests_that_meet_every_limit() -> None:
    samples = (
        sample(),
        sample(ttft=0.9),
        sample(end=9.0),
        sample(ttft=None),
        sample(last=1.99, output_tokens=3),
    )
    repeat = Repeat(wall=10.0, samples=samples)
    limits = Limits(ttft=0.6, end=5.0, tpot=0.2)
    assert statistics.compute_figures(repeat, limits).goodput == 0.1
    # 0.9 s to the first token are less than 0.6 s once the round trip is taken out.
    assert statistics.compute_figures(repeat, limits, 0.35).goodput == 0.2
    assert statistics.compute_figures(repeat, Limits()).goodput is None


def test_the_server_s_own_times() -> None:
    own = sample(total=2.0, load=0.1, prefill=0.5, decode=1.0, prompt_tokens=100, cached_tokens=50)
    found = statistics.compute_figures(Repeat(wall=2.0, samples=(own,)), Limits())
    assert found.queue == pytest.approx(0.4)
    assert found.prefill_tps == pytest.approx(100)
    assert found.decode_tps == pytest.approx(15)
    silent = statistics.compute_figures(Repeat(wall=2.0, samples=(sample(),)), Limits())
    assert (silent.queue, silent.prefill_tps, silent.decode_tps) == (None, None, None)


def test_a_repeat_without_samples_that_count() -> None:
    level = Level(
        load=Load(concurrency=1),
        repeats=(Repeat(wall=1.0, samples=(sample(invalid="error"),)),) * 5,
    )
    found = statistics.summarize(level, Limits())
    assert found.noisy == "no request counts"
    assert found.output_tps.median == 0
    assert found.ttft is None
    assert statistics.compare([found], [found], 0.1) == ()


@given(st.lists(VALUES, min_size=1, max_size=12))
def test_steadiness(values: list[float]) -> None:
    found = statistics.compute_steadiness(values)
    assert found.median == standard.median(values)
    assert min(values) <= found.low <= found.high <= max(values)
    assert found.spread >= 0


def test_without_scipy_the_interval_is_the_least_and_the_greatest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = [1.0, *(2.0 + index / 10 for index in range(10)), 9.0]
    found = statistics.compute_steadiness(values)
    assert 1.0 < found.low < found.median < found.high < 9.0
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    found = statistics.compute_steadiness(values)
    assert (found.low, found.high) == (1.0, 9.0)


def test_equal_samples_give_equal_intervals() -> None:
    values = [random.Random(3).random() + index for index in range(5)]
    assert statistics.compute_steadiness(values) == statistics.compute_steadiness(values)


# Mann-Whitney


@given(
    st.lists(VALUES, min_size=1, max_size=10),
    st.lists(VALUES, min_size=1, max_size=10),
)
def test_p_is_scipy_s_where_no_values_are_equal(before: list[float], after: list[float]) -> None:
    assume(len({*before, *after}) == len(before) + len(after))
    expected = scipy.stats.mannwhitneyu(before, after, method="exact").pvalue
    assert statistics.compute_p(before, after) == pytest.approx(float(expected))


@given(FEW, FEW)
def test_p_is_that_of_all_ways_to_choose_also_with_ties(
    before: list[int], after: list[int]
) -> None:
    pooled = [*before, *after]
    ranks = scipy.stats.rankdata(pooled)
    observed = sum(ranks[: len(before)])
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(before))]
    tail = min(sum(s <= observed for s in sums), sum(s >= observed for s in sums)) / len(sums)
    assert statistics.compute_p(before, after) == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize(("size", "p"), [(3, 0.1), (4, 0.0286), (5, 0.0079)])
def test_the_smallest_p_of_few_repeats(size: int, p: float) -> None:
    """Three repeats can prove nothing at 0.05."""
    before, after = range(size), range(100, 100 + size)
    assert statistics.compute_p(before, after) == pytest.approx(p, abs=0.0001)


def test_p_of_many_values_is_scipy_s() -> None:
    draw = random.Random(1)
    before = [draw.gauss(10, 1) for _ in range(40)]
    after = [draw.gauss(10.6, 1) for _ in range(30)]
    expected = scipy.stats.mannwhitneyu(before, after, method="asymptotic").pvalue
    assert statistics.compute_p(before, after) == pytest.approx(float(expected), rel=0.02)
    assert statistics.compute_p([5.0] * 40, [5.0] * 30) == 1.0


@given(FEW, FEW)
def test_p_does_not_depend_on_the_side_or_the_order(before: list[int], after: list[int]) -> None:
    p = statistics.compute_p(before, after)
    assert 0 < p <= 1
    assert statistics.compute_p(after, before) == pytest.approx(p)
    assert statistics.compute_p(before[::-1], sorted(after)) == pytest.approx(p)


# Comparisons


def test_a_measurement_equals_itself() -> None:
    levels = summarize(measure(Noise(repeat=0.03, request=0.1, seed=1)))
    found = statistics.compare(levels, levels, 0.1)
    assert {row.outcome for row in found} == {"equal"}
    assert {(row.load.concurrency, row.figure) for row in found} == {
        (load, figure) for load in (1, 2, 4, 8) for figure in ("output_tps", "ttft", "tpot")
    }


def test_the_threshold_is_never_below_twice_the_baseline_s_own_spread() -> None:
    unsteady = summarize(measure(Noise(repeat=0.09, seed=4)))
    steady = summarize(measure(Noise(seed=5)))
    for row, level in zip(
        [row for row in statistics.compare(unsteady, steady, 0.1) if row.figure == "output_tps"],
        unsteady,
        strict=True,
    ):
        assert row.threshold == pytest.approx(max(0.1, 2 * level.output_tps.spread))


def test_only_practically_different_is_noisy_with_the_probability() -> None:
    before = summarize(measure(Noise(seed=1), loads=[1]))
    levels = measure(Noise(seed=2), slower=1.2, loads=[1])
    mixed = levels[0].repeats[:3] + measure(Noise(seed=3), loads=[1])[0].repeats[:2]
    level = levels[0].model_copy(update={"repeats": mixed})
    (now,) = summarize([level])
    steady = now.output_tps.model_copy(update={"spread": 0.01})
    now = now.model_copy(update={"output_tps": steady, "noisy": ""})
    row = next(row for row in statistics.compare(before, [now], 0.1) if row.figure == "output_tps")
    assert row.outcome == "noisy"
    assert "chance alone differs so with a probability of" in row.reason
    assert statistics.find_unsure([row]) == (Load(concurrency=1),)


def test_what_is_better_is_not_measured_again() -> None:
    before = summarize(measure(Noise(seed=1), slower=1.5))
    found = statistics.compare(before, summarize(measure(Noise(seed=2))), 0.1)
    # TTFT is the same but where requests wait for one another.
    assert {row.outcome for row in found} == {"better", "equal"}
    assert statistics.find_unsure(found) == ()


def test_other_programs_that_were_not_there_before_are_the_reason() -> None:
    quiet = summarize(measure(Noise(seed=1), conditions=Conditions(others=0.02)))
    hogged = summarize(measure(Noise(seed=2), slower=1.4, conditions=Conditions(others=0.5)))
    worse = [row for row in statistics.compare(quiet, hogged, 0.1) if row.outcome != "equal"]
    assert {row.outcome for row in worse} == {"noisy"}
    assert worse[0].reason == "other programs used 50% of the CPU time, 2% before"
    always = summarize(measure(Noise(seed=3), conditions=Conditions(others=0.5)))
    found = statistics.compare(always, hogged, 0.1)
    assert any(row.outcome == "worse" for row in found)


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(oom_kills=1), "the kernel killed 5 processes for memory"),
        (Conditions(swapped=5000), "5000 pages came in from swap during one repeat"),
        (Conditions(steal=0.2), "the hypervisor gave 20% of the CPU time to others"),
        (Conditions(thermal=3), "the CPU was throttled 15 times for its temperature"),
        (Conditions(throttled=3.0, swapped=3, steal=0.01, busy=1.0), ""),
    ],
)
def test_what_the_host_did_makes_a_level_noisy(conditions: Conditions, reason: str) -> None:
    (found,) = summarize(measure(Noise(), loads=[1], conditions=conditions))
    assert found.noisy == reason


def test_repeats_that_vary_make_a_level_noisy() -> None:
    (found,) = summarize(measure(Noise(repeat=0.3, seed=2), loads=[1]))
    assert found.noisy.startswith("its repeats vary by ")


def test_many_samples_that_do_not_count_make_a_level_noisy() -> None:
    (level,) = measure(Noise(), loads=[1])
    repeats = tuple(
        repeat.model_copy(
            update={
                "samples": (
                    *repeat.samples[2:],
                    *(s.model_copy(update={"invalid": "reloaded"}) for s in repeat.samples[:2]),
                )
            }
        )
        for repeat in level.repeats
    )
    (found,) = summarize([level.model_copy(update={"repeats": repeats})])
    assert found.noisy == "10 of 40 requests do not count: reloaded 10"


def test_the_spread_is_that_of_the_quartiles() -> None:
    """Of a normal distribution the standard deviation, whatever one repeat does."""
    draw = random.Random(5)
    for size in (5, 10, 20):
        found = [
            statistics.compute_steadiness([draw.gauss(100, 4) for _ in range(size)]).spread
            for _ in range(400)
        ]
        assert standard.fmean(found) == pytest.approx(0.04, rel=0.1)
    calm = statistics.compute_steadiness([100, 101, 99, 100, 100.5])
    upset = statistics.compute_steadiness([100, 101, 99, 100, 900])
    assert upset.spread < 3 * calm.spread < 0.05


def test_disturbed_repeats_are_left_out_while_five_others_are_left() -> None:
    (quiet,) = measure(Noise(), loads=[1])
    hot = quiet.repeats[0].model_copy(update={"wall": 900.0, "conditions": Conditions(thermal=2)})
    (six,) = summarize([quiet.model_copy(update={"repeats": (hot, *quiet.repeats)})])
    assert (six.disturbed, six.noisy) == ((0,), "")
    assert six.output_tps == summarize([quiet])[0].output_tps
    assert statistics.compare(summarize([quiet]), [six], 0.1)[0].p == 1.0
    (five,) = summarize([quiet.model_copy(update={"repeats": (hot, *quiet.repeats[1:])})])
    assert five.disturbed == ()
    assert five.noisy == "the CPU was throttled 2 times for its temperature"


def test_how_runs_differ_is_what_a_difference_has_to_exceed() -> None:
    before, after = summarize(measure(Noise(), loads=[1])), summarize(measure(Noise(), 1.2, [1]))
    assert statistics.compare(before, after, 0.1)[0].outcome == "worse"
    runs = {"concurrency 1": 0.06}
    row = statistics.compare(before, after, 0.1, runs)[0]
    assert (row.outcome, row.threshold) == ("equal", pytest.approx(0.18))


def test_how_runs_differ_is_known_by_neighbours() -> None:
    """One that became faster once is no server that varies."""
    series = Series(Noise(run=0.03, seed=3), loads=[1])
    for number in range(19):
        series.run(1.0 if number < 9 else 0.5)
    found = baseline.find_run_spreads(baseline.list_past(series.record), FINGERPRINT)
    assert found["concurrency 1"] == pytest.approx(0.03, rel=0.5)


def test_how_runs_differ_is_rarely_known_too_small() -> None:
    """Whatever chance makes of few runs; a limit that is too small fails runs for nothing."""
    chance, found = random.Random(1), {}
    for runs in (4, 20):
        rows = [[chance.lognormvariate(0, 0.05) for _ in range(runs)] for _ in range(400)]
        spreads = [baseline.compute_run_spread(row) for row in rows]
        found[runs] = sum(spread < 0.8 * 0.05 for spread in spreads) / len(spreads)
    assert found[4] < 0.4
    assert found[20] < 0.1


def test_a_difference_that_runs_nearly_have_by_themselves_is_doubtful() -> None:
    before, after = summarize(measure(Noise(), loads=[1])), summarize(measure(Noise(), 1.2, [1]))

    def find_outcome(runs: dict[str, float] | None) -> tuple[str, str]:
        row = statistics.compare(before, after, 0.1, runs)[0]
        return row.outcome, row.reason

    # 15 % fewer tokens a second.
    assert find_outcome(None) == ("worse", "")
    assert find_outcome({}) == ("noisy", "too few results say how much whole runs differ")
    assert find_outcome({"concurrency 1": 0.036}) == ("worse", "")
    assert find_outcome({"concurrency 1": 0.046}) == ("noisy", "whole runs differ by 5%")
    slow = summarize(measure(Noise(), 1 / 0.7, [1]))
    assert statistics.compare(before, slow, 0.1, {})[0].outcome == "worse"


@pytest.mark.slow
def test_what_chance_explains_fails_no_second_time_either() -> None:
    """Requests that vary by half: each result in this series is noisy, and some are slow by it."""
    assert gate.count_alarms("requests 50 %", 8, runs=20) == 0


def test_repeats_that_vary_now_do_not_widen_the_limit_but_are_noise() -> None:
    """Else whoever is slow and unsteady would be equal."""
    before = summarize(measure(Noise(repeat=0.005, seed=1), loads=[1]))
    (now,) = summarize(measure(Noise(repeat=0.005, seed=2), 1.3, [1]))
    wild = now.model_copy(update={"output_tps": now.output_tps.model_copy(update={"spread": 0.2})})
    row = statistics.compare(before, [wild], 0.1)[0]
    assert (row.outcome, row.threshold) == ("noisy", 0.1)
    assert row.reason == "the repeats vary by 20%"
    assert statistics.compare(before, [now], 0.1)[0].outcome == "worse"


def delay(levels: Sequence[Level], seconds: float) -> tuple[Level, ...]:
    """The same as a controller measures it that is farther away, one request at a time."""
    found = []
    for level in levels:
        rows = []
        for repeat in level.repeats:
            samples = tuple(
                row.model_copy(
                    update={
                        "ttft": (row.ttft or 0) + seconds,
                        "last": (row.last or 0) + seconds,
                        "end": row.end + seconds,
                    }
                )
                for row in repeat.samples
            )
            wall = repeat.wall + seconds * len(samples)
            rows.append(repeat.model_copy(update={"samples": samples, "wall": wall}))
        found.append(level.model_copy(update={"repeats": tuple(rows)}))
    return tuple(found)


def test_another_round_trip_is_noise_and_no_slowdown() -> None:
    levels = measure(Noise(repeat=0.005, seed=1), loads=[1])
    before = summarize(delay(levels, 0.01), 0.01)
    rows = {
        row.figure: row
        for row in statistics.compare(before, summarize(delay(levels, 0.31), 0.31), 0.1)
    }
    assert rows["output_tps"].outcome == "noisy"
    assert rows["output_tps"].reason == (
        "the round trip of the connection is 310 ms, 10.0 ms before: 17% of a request"
    )
    assert {rows["ttft"].outcome, rows["tpot"].outcome} == {"equal"}
    # It explains no more than it is.
    slow = delay(measure(Noise(repeat=0.005, seed=1), 2.0, [1]), 0.31)
    assert statistics.compare(before, summarize(slow, 0.31), 0.1)[0].outcome == "worse"


def test_times_to_a_first_token_differ_by_more_than_the_round_trip_is_known() -> None:
    def shift(ttft: float) -> tuple[Level, ...]:
        return delay(measure(Noise(repeat=0.005, seed=1), loads=[1]), ttft - 0.2)

    def compare(before: float, after: float, rtt: float) -> tuple[str, str]:
        rows = statistics.compare(summarize(shift(before), rtt), summarize(shift(after), rtt), 0.1)
        (found,) = [row for row in rows if row.figure == "ttft"]
        return found.outcome, found.reason

    assert compare(0.01, 0.014, 0.0) == ("equal", "")
    assert compare(0.01, 0.05, 0.0) == ("worse", "")
    assert compare(0.2, 0.23, 0.15) == ("equal", "")
    reason = "the round trip of 150 ms is longer than a time to a first token"
    assert compare(0.1, 0.4, 0.15) == ("noisy", reason)


# Twenty of twenty

NOISES = {
    "steady": {"repeat": 0.005, "request": 0.01},
    "unsteady": {"repeat": 0.04, "request": 0.05},
    "delays": {"request": 0.5},
    "hogged": {"repeat": 0.02, "hogged": 0.3, "hog": 2.0},
    "wild": {"repeat": 0.25},
}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_never_trips(kind: str) -> None:
    tripped = [
        seed
        for seed in range(20)
        if any(
            row.outcome == "worse"
            for row in hold(
                measure(Noise(seed=2 * seed, **NOISES[kind])),
                Noise(seed=2 * seed + 1, **NOISES[kind]),
            )
        )
    ]
    assert tripped == []


@pytest.mark.usefixtures("_without_intervals")
@pytest.mark.parametrize("kind", ["wild", "delays"])
def test_noise_is_marked(kind: str) -> None:
    found = [summarize(measure(Noise(seed=seed, **NOISES[kind]))) for seed in range(20)]
    assert [seed for seed, levels in enumerate(found) if not any(x.noisy for x in levels)] == []


@pytest.mark.usefixtures("_without_intervals")
def test_repeats_that_share_the_cpu_are_never_worse() -> None:
    """They need no mark: few change no middle, and of many the host says who took the CPU."""
    before = summarize(measure(Noise(), conditions=Conditions(others=0.0)))
    taken = Conditions(others=0.3)
    found = [
        row
        for seed in range(20)
        for row in statistics.compare(
            before,
            summarize(measure(Noise(seed=seed, **NOISES["hogged"]), conditions=taken)),
            0.1,
            {},
        )
    ]
    assert {row.outcome for row in found if row.ratio < 0.7 and row.figure == "output_tps"} == {
        "noisy"
    }
    assert "worse" not in {row.outcome for row in found}


@pytest.mark.usefixtures("_without_intervals")
@pytest.mark.parametrize("kind", NOISES)
def test_the_gate_trips_of_no_noise(kind: str) -> None:
    """By the record that a host keeps: two results, and one of the same server."""
    assert [seed for seed in range(20) if make_third(kind, seed).run()] == []


@pytest.mark.usefixtures("_without_intervals")
@pytest.mark.parametrize("kind", ["steady", "unsteady"])
def test_the_gate_trips_of_a_slowdown_of_thirty_percent(kind: str) -> None:
    found = [make_third(kind, seed).run(1 / 0.7) for seed in range(20)]
    assert [seed for seed, causes in enumerate(found) if not causes] == []
    assert all(any("output" in cause for cause in causes) for causes in found)


def make_third(kind: str, seed: int) -> Series:
    """A server of which two results are there."""
    series = Series(Noise(seed=seed, **NOISES[kind]))
    assert series.run() == series.run() == ()
    return series


@pytest.mark.parametrize("kind", ["steady", "unsteady"])
def test_a_slowdown_of_thirty_percent_always_trips(kind: str) -> None:
    """1 / 0.7: each token takes 43 % longer."""
    missed = [
        seed
        for seed in range(20)
        if not any(
            row.outcome == "worse" and row.figure == "output_tps"
            for row in hold(
                measure(Noise(seed=2 * seed, **NOISES[kind])),
                Noise(seed=2 * seed + 1, **NOISES[kind]),
                slower=1 / 0.7,
            )
        )
    ]
    assert missed == []


# Fifty runs in a row


@pytest.fixture
def _without_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """They decide nothing, and take most of the time."""
    monkeypatch.setitem(sys.modules, "scipy.stats", None)


@pytest.mark.usefixtures("_without_intervals")
@pytest.mark.parametrize(
    ("kind", "most"), [("runs 2 %", 0.01), ("runs 3 %", 0.02), ("runs 5 %", 0.02)]
)
def test_a_server_that_stays_the_same_rarely_fails_in_fifty_runs(kind: str, most: float) -> None:
    """A best of lucky draws would rise until usual ones fail: 11 % of them at 3 %."""
    alarms = sum(gate.count_alarms(kind, seed) for seed in range(4))
    assert alarms <= most * 4 * gate.RUNS


@pytest.mark.usefixtures("_without_intervals")
@pytest.mark.parametrize("kind", ["runs 2 %", "runs 3 %", "runs 5 %"])
def test_a_slowdown_is_caught_after_twenty_runs_and_stays_so(kind: str) -> None:
    found = [gate.has_caught(kind, seed, 1 / 0.7) for seed in range(4)]
    assert found == [(True, True)] * 4
