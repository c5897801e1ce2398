"""What the figures of a request mean, and which samples do not count."""

from __future__ import annotations

import ast
import dataclasses
import math
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.errors import StepError
from stackmend.worker.benchmark import learning
from stackmend.worker.benchmark.definitions import (
    PAIR,
    REMEDIES,
    Answer,
    Counts,
    Problem,
    Question,
    Reference,
    Text,
    count_first_tokens,
    find_miscount,
    find_remedy,
    make_sample,
)
from stackmend.worker.benchmark.loads import find_timeout
from stackmend.worker.benchmark.measuring import is_flat
from stackmend.worker.benchmark.spec import MOST_SAMPLES, Limits, Profile
from stackmend.worker.benchmark.state import Conditions, Invalid, Level, Load, Repeat, Sample
from stackmend.worker.benchmark.statistics import compute_figures
from stackmend.worker.benchmark.steadiness import Watch, find_client_noise, find_lag
from stackmend.worker.benchmark.turns import Turns, is_loopback

ROOM = Path(learning.__file__).parent

TOKENS = 21
ASKED = Question(TOKENS, 100)
COUNTS = Counts(
    prompt=100, kept=0, output=TOKENS, load=0.01, prefill=0.2, decode=0.42, total=0.65, full=True
)


def answer(**changed: Any) -> Answer:
    """An answer of 21 tokens: the first after 0.2 s, then one each 20 ms."""
    texts = tuple(Text(0.2 + 0.02 * number, 4) for number in range(TOKENS))
    return dataclasses.replace(Answer(texts, COUNTS, end=0.61, complete=True), **changed)


def counted(**changed: Any) -> Answer:
    return answer(counts=dataclasses.replace(COUNTS, **changed))


def sample(of: Answer, reference: Reference | None = None, rtt: float = 0.0) -> Sample:
    return make_sample(of, ASKED, reference=reference, rtt=rtt)


def test_an_answer_that_counts() -> None:
    found = make_sample(answer(), ASKED, sent=3.0)
    assert (found.invalid, found.reason) == (None, "")
    assert (found.sent, found.ttft, found.ttft_output) == (3.0, 0.2, 0.2)
    assert found.tpot == pytest.approx(0.02)
    assert (found.end, found.output_tokens, found.chunks) == (0.61, TOKENS, TOKENS)


def test_reasoning_counts_for_the_first_token_and_not_for_that_of_the_output() -> None:
    texts = tuple(
        dataclasses.replace(text, reasoning=number < 10)
        for number, text in enumerate(answer().texts)
    )
    found = sample(answer(texts=texts))
    assert found.ttft == 0.2
    assert found.ttft_output == pytest.approx(0.4)
    assert found.invalid is None
    thoughts = tuple(dataclasses.replace(text, reasoning=True) for text in texts)
    assert sample(answer(texts=thoughts)).ttft_output is None


def test_tokens_that_come_bundled() -> None:
    # Three tokens a piece: the piece comes with its last token.
    texts = tuple(Text(0.2 + 0.02 * (3 * number + 2), 12) for number in range(7))
    found = sample(answer(texts=texts))
    assert (found.first_tokens, found.chunks) == (3, 7)
    assert found.tpot == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("wrong", "invalid", "words"),
    [
        (answer(problem=Problem("error", "out of memory")), "error", "out of memory"),
        (answer(complete=False), "incomplete", "without its last message"),
        (counted(load=0.5), "reloaded", "in 0.50 s"),
        (counted(output=None), "uncounted", "does not count"),
        (counted(output=22), "implausible", "22 tokens where 21"),
        (counted(output=5), "implausible", "counts chunks for tokens, or its context is full"),
        (answer(texts=()), "implausible", "sends no text"),
        (answer(texts=(Text(0.6, 80),)), "implausible", "in one piece"),
        (
            answer(texts=(Text(0.59, 4), *(Text(0.6, 4) for _ in range(20)))),
            "implausible",
            "something between holds it back",
        ),
        (counted(total=2.0), "implausible", "took 2.00 s for an answer of 0.61 s"),
        (counted(decode=9.0), "implausible", "for an answer of 0.61 s"),
        (counted(prefill=0.4, decode=0.1), "implausible", "first text came after 0.20 s"),
        (counted(prompt=60), "cut", "60 tokens of a prompt of about 100"),
        (counted(prompt=130), "implausible", "130 tokens of a prompt that has about 100"),
        (counted(prompt=None), "cached", "does not count the prompt"),
        (counted(kept=90), "cached", "had kept 90 of the 100"),
        (counted(output=20, full=False), "short", "ended after 20 of 21"),
    ],
)
def test_an_answer_that_does_not_count(wrong: Answer, invalid: str, words: str) -> None:
    found = sample(wrong)
    assert found.invalid == invalid
    assert words in found.reason


def test_a_template_before_the_salt_may_be_kept() -> None:
    assert sample(counted(kept=8)).invalid is None
    assert sample(counted(kept=9)).invalid == "cached"
    assert sample(counted(kept=40), Reference(kept=35)).invalid is None


def test_a_prompt_that_is_read_absurdly_fast_was_kept() -> None:
    keeps = Reference(cold=500, warm=50_000)
    assert keeps.limit == pytest.approx(5000)
    assert sample(counted(prefill=0.2), keeps).invalid is None
    found = sample(counted(prefill=0.002), keeps)
    assert found.invalid == "cached"
    assert "at 50000 tokens/s" in found.reason
    # Where keeping makes no difference, it does no harm.
    assert Reference(cold=500, warm=900).limit == math.inf
    assert Reference().limit == math.inf


def test_without_the_servers_times_the_first_token_bounds_the_speed() -> None:
    keeps = Reference(cold=500, warm=50_000)
    silent = {"prefill": None, "decode": None, "total": None, "load": None}
    assert sample(counted(**silent), keeps).invalid is None
    early = tuple(dataclasses.replace(text, at=text.at - 0.19) for text in answer().texts)
    quick = dataclasses.replace(counted(**silent), texts=early)
    assert sample(quick, keeps).invalid == "cached"
    # Over a long way the first text comes late, however fast the prompt was read.
    late = tuple(dataclasses.replace(text, at=text.at + 0.1) for text in early)
    distant = dataclasses.replace(quick, texts=late, end=1.0)
    assert sample(distant, keeps).invalid is None
    assert sample(distant, keeps, rtt=0.1).invalid == "cached"


def test_an_answer_without_a_counted_prompt_counts_where_no_times_contradict() -> None:
    assert sample(counted(prompt=None, prefill=None, decode=None)).invalid is None


def test_a_text_that_is_read_as_many_more_tokens_than_it_was_written_as() -> None:
    assert find_miscount(32, 33) is None
    assert find_miscount(32, 30) is None
    assert find_miscount(32, 38) is None
    assert find_miscount(32, 39) is not None
    problem = find_miscount(32, 128)
    assert problem is not None
    assert "reads as 128" in problem.reason


def test_the_round_trip_of_a_repeat_is_taken_out_of_its_times() -> None:
    samples = (sample(answer()),)
    near = Repeat(wall=1.0, samples=samples, rtt=0.05)
    assert compute_figures(near, Limits(), rtt=0.15).ttft == pytest.approx((0.15, 0.15))
    far = Repeat(wall=1.0, samples=samples)
    assert compute_figures(far, Limits(), rtt=0.15).ttft == pytest.approx((0.05, 0.05))


def test_a_first_token_within_a_round_trip_makes_a_level_noisy() -> None:
    samples = (sample(answer()),)
    one = Load(concurrency=1)
    assert find_client_noise(one, [Repeat(wall=1.0, samples=samples, rtt=0.19)]) == ""
    noisy = find_client_noise(one, [Repeat(wall=1.0, samples=samples, rtt=0.21)])
    assert noisy == "a first token came after 0.200 s, and a round trip took 0.210 s"


@pytest.mark.parametrize(
    ("load", "conditions", "words"),
    [
        (Load(concurrency=1), Conditions(client=0.7, lag=0.019), ""),
        (Load(concurrency=1), Conditions(client=0.71), "measuring used 71% of a CPU"),
        (Load(concurrency=1), Conditions(lag=0.021), "it was 0.021 s late"),
        (Load(rate=10), Conditions(lag=0.009), ""),
        (Load(rate=10), Conditions(lag=0.011), "it sent requests 0.011 s late"),
    ],
)
def test_a_controller_without_time_makes_a_level_noisy(
    load: Load, conditions: Conditions, words: str
) -> None:
    """The first token came after 0.2 s."""
    repeat = Repeat(wall=1.0, samples=(sample(answer()),), conditions=conditions)
    noisy = find_client_noise(load, [repeat])
    assert words in noisy
    assert bool(noisy) is bool(words)


def test_the_worst_repeat_is_named_with_what_it_is_held_against() -> None:
    """The first one that was late said less than the others."""
    samples = (sample(answer()),)
    lags = [Conditions(lag=lag) for lag in (0.021, 0.3, 0.022)]
    repeats = [Repeat(wall=1.0, samples=samples, conditions=row) for row in lags]
    assert find_client_noise(Load(concurrency=1), repeats) == (
        "this controller had no time: it was 0.300 s late, and 0.020 s are the most where a first "
        "token comes after 0.200 s"
    )
    busy = Repeat(wall=1.0, samples=samples, conditions=Conditions(client=0.95, lag=0.021))
    assert find_client_noise(Load(concurrency=1), [busy]) == (
        "this controller had no time: measuring used 95% of a CPU, and 70% are the most"
    )


def test_the_end_of_the_last_answers_is_no_time_in_which_requests_come() -> None:
    """Eight within four seconds, and five more until the last one is answered."""
    samples = (sample(answer()),) * 8
    found = compute_figures(Repeat(wall=9.0, samples=samples, window=4.0), Limits(end=1))
    assert (found.requests_ps, found.goodput) == (2.0, 2.0)
    assert found.output_tps == pytest.approx(8 * TOKENS / 9)


def test_what_watches_this_process_says_how_busy_and_how_late_it_is() -> None:
    with Watch() as watch:
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass
    assert watch.share > 0
    assert watch.lag >= 0
    assert find_lag([0.0] * 19 + [1.0]) == 0.0
    assert find_lag([0.0] * 10 + [1.0] * 10) == 1.0


def test_each_server_is_measured_by_one_at_a_time() -> None:
    turns = Turns(2)
    with turns.take("a", 0):
        with pytest.raises(StepError, match="timed out after"), turns.take("a", 0.01):
            pass
        # Nor more at one time than this process has time for.
        with (
            turns.take("b", 0),
            pytest.raises(StepError, match="timed out after"),
            turns.take("c", 0.01),
        ):
            pass
    with turns.take("a", 0), turns.take("c", 0):
        pass


def test_the_host_itself() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "gpu.example.org", "fd00::1")))


# How much is asked


def test_an_open_loop_has_requests_enough_for_its_rate() -> None:
    assert Profile(rate=0.5).count_requests(0) == 30
    assert Profile(rate=4).count_requests(0) == 80
    assert Profile(rate=4, requests=8).count_requests(0) == 8
    assert Profile(rate=1000).samples == MOST_SAMPLES


def test_a_slow_server_is_asked_less_and_waited_for_longer() -> None:
    profile, eight = Profile(), Load(concurrency=8)
    assert profile.count_requests(8, cold=0.5) == 32
    assert profile.count_requests(8, cold=49) == 16
    assert profile.count_requests(1, cold=49) == 4
    # What is named is asked, however long it takes.
    assert Profile(requests=20).count_requests(8, cold=49) == 20
    assert find_timeout(profile, eight, cold=0.5) == 300
    assert find_timeout(profile, eight, cold=49) == 3 * 8 * 49
    assert find_timeout(Profile(timeout=300), eight, cold=49) == 300


@given(st.floats(0, 7200), st.integers(1, 256))
def test_the_rounds_of_a_level_are_full(cold: float, number: int) -> None:
    count = Profile().count_requests(number, cold)
    assert count % number == 0 or count == 8
    assert count >= 2 * number or number == 1


def test_further_levels_of_a_server_that_does_no_more() -> None:
    def level(number: int, wall: float) -> Level:
        repeat = Repeat(wall=wall, samples=(sample(answer()),) * 4)
        return Level(load=Load(concurrency=number), repeats=(repeat,) * 5)

    assert not is_flat([level(1, 4.0)])
    assert is_flat([level(1, 4.0), level(2, 3.9)])
    assert not is_flat([level(1, 4.0), level(2, 3.0)])


def test_every_slot_of_a_level_is_warm() -> None:
    assert Profile().count_warmups(8) == 8
    assert Profile().count_warmups(1) == 2
    assert Profile(warmups=0).count_warmups(8) == 0


def test_tokens_that_are_counted_and_not_sent() -> None:
    found = sample(counted(reasoning=15))
    assert found.invalid == "implausible"
    assert "15 tokens of reasoning, and sends none" in found.reason
    thoughts = tuple(dataclasses.replace(text, reasoning=True) for text in answer().texts[:15])
    streamed = dataclasses.replace(counted(reasoning=15), texts=thoughts + answer().texts[15:])
    assert sample(streamed).invalid is None
    # Where nothing says so, the text has too few tokens for what was counted, in few pieces.
    assert find_miscount(100, 22, 22) is not None
    assert find_miscount(100, 22, 100) is None
    assert find_miscount(100, 95, 25) is None


def test_what_a_loaded_model_takes_each_time_is_no_loading() -> None:
    assert sample(counted(load=0.15)).invalid == "reloaded"
    warm = Reference(load=0.12)
    assert sample(counted(load=0.15, prefill=0.1, total=0.6), warm).invalid is None
    assert sample(counted(load=0.25), warm).invalid == "reloaded"
    # What is longer is loading, be it each time.
    assert Reference(load=9).loaded == 0.1


# Properties

times = st.lists(st.floats(0, 100), min_size=1, max_size=50).map(sorted)


@given(times, st.integers(0, 200), st.data())
def test_what_comes_first_holds_at_least_a_token(
    at: list[float], tokens: int, data: st.DataObject
) -> None:
    texts = [Text(t, data.draw(st.integers(1, 99))) for t in at]
    first = count_first_tokens(texts, tokens)
    assert 1 <= first <= max(1, tokens)


@given(times, st.integers(2, 100), st.floats(0.001, 1000))
def test_times_scale(at: list[float], tokens: int, factor: float) -> None:
    def measured(by: float) -> Sample:
        texts = tuple(Text(t * by, 3) for t in at)
        counts = Counts(output=tokens)
        done = Answer(texts, counts, end=at[-1] * by, complete=True)
        return make_sample(done, Question(tokens))

    one, other = measured(1), measured(factor)
    assert other.first_tokens == one.first_tokens
    if one.tpot is not None:
        assert other.tpot is not None
        assert other.tpot == pytest.approx(one.tpot * factor, abs=1e-9)
    assert one.ttft is not None
    assert other.ttft == pytest.approx(one.ttft * factor)


@given(st.floats(0.01, 1), st.floats(0.001, 0.1), st.integers(2, 60), st.integers(1, 9))
def test_the_schedule_is_found_again(ttft: float, tpot: float, tokens: int, bundle: int) -> None:
    """Whatever way the tokens come in, what is found is how they were written."""
    sizes = [min(bundle, tokens - start) for start in range(0, tokens, bundle)]
    written = 0
    texts = []
    for size in sizes:
        written += size
        texts.append(Text(ttft + (written - 1) * tpot, 5 * size))
    end = texts[-1].at
    found = make_sample(
        Answer(tuple(texts), Counts(output=tokens, full=True), end, complete=True),
        Question(tokens),
    )
    if len(texts) == 1:
        # A server that bundles has two tokens in one piece as well.
        assert found.invalid == (None if tokens == PAIR else "implausible")
        assert found.tpot is None
        return
    assert found.invalid is None
    assert found.tpot == pytest.approx(tpot)
    assert found.ttft == pytest.approx(ttft + (sizes[0] - 1) * tpot)


numbers = st.none() | st.integers(0, 10**6)
seconds = st.none() | st.floats(0, 10**6)


@given(
    st.builds(
        Answer,
        texts=st.lists(
            st.builds(Text, st.floats(0, 100), st.integers(1, 99), st.booleans()), max_size=9
        ).map(tuple),
        counts=st.builds(
            Counts,
            numbers,
            numbers,
            numbers,
            seconds,
            seconds,
            seconds,
            seconds,
            st.none() | st.booleans(),
        ),
        end=st.floats(0, 100),
        complete=st.booleans(),
    ),
    st.integers(1, 1000),
)
def test_whatever_comes_is_a_sample(of: Answer, asked: int) -> None:
    found = make_sample(of, Question(asked, 100), reference=Reference(100, 9999))
    assert bool(found.reason) == (found.invalid is not None)
    if found.invalid is None:
        # What counts has all the tokens, and all of its figures that exist are sound.
        assert found.output_tokens == asked
        assert found.ttft is not None
        assert of.complete


# What is to be done


@pytest.mark.parametrize("invalid", get_args(Invalid))
def test_each_class_of_samples_has_its_remedy(invalid: Invalid) -> None:
    assert find_remedy(invalid, "a reason") == REMEDIES[invalid]


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("invalid key (HTTP 401)", "set api_key to a key that the server takes"),
        ("no such model (HTTP 404)", "name a model and an address that the server has"),
        ("cannot connect: refused", "start the server, then run again"),
    ],
)
def test_a_status_says_more(reason: str, remedy: str) -> None:
    assert find_remedy("refused", reason) == remedy


def test_what_ends_a_step_says_what_to_do() -> None:
    """Each reason that the room raises has a remedy behind a semicolon."""
    found = 0
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "StepError":
                found += 1
                text = ast.unparse(node)
                assert "; " in text or "explain_failure(" in text, f"{path.name}: {text}"
    assert found > 10
