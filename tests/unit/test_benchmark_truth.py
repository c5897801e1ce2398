"""What the benchmark measures of a server of known speed is that speed."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import statistics
from collections import Counter
from collections.abc import Iterator

import pytest
from pyinfra.api.host import Host

from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.interleaving import measure_interleaved
from stackmend.worker.benchmark.learning import Prepared, prepare
from stackmend.worker.benchmark.loading import release
from stackmend.worker.benchmark.loads import count_all_requests
from stackmend.worker.benchmark.measuring import measure
from stackmend.worker.benchmark.spec import Limits
from stackmend.worker.benchmark.state import Conditions, Load, Summary
from stackmend.worker.benchmark.statistics import compare as compare_runs
from stackmend.worker.benchmark.statistics import summarize as summarize_level
from tests import paced
from tests.calm import exactly, urgency
from tests.paced import Pace, Paced, compute_truth
from tests.paced.measured import (
    CONCURRENCIES,
    SHORT,
    SLOTS,
    SPEEDS,
    Speed,
    check_delay,
    check_speed,
    compare,
    count_requests,
    list_concurrencies,
    run_once,
    summarize,
)

pytestmark = pytest.mark.slow

PACE = {"ttft": 0.02, "tpot": 0.002, "slots": 4, "trap": "", "cold": False}


@pytest.fixture(scope="module", autouse=True)
def _before_others() -> Iterator[None]:
    with urgency():
        yield


@pytest.fixture(scope="module")
def endpoint(running: Paced) -> Endpoint:
    return Endpoint("openai", "127.0.0.1", running.port, "paced")


@pytest.fixture(scope="module")
def prepared(here: Host, endpoint: Endpoint) -> Prepared:
    return prepare(here, endpoint, SHORT)


@exactly
@pytest.mark.parametrize("speed", SPEEDS, ids=str)
def test_the_speed_at_each_concurrency(
    here: Host, server: Paced, endpoint: Endpoint, prepared: Prepared, speed: Speed
) -> None:
    check_speed(here, server, endpoint, prepared, speed, list_concurrencies(speed, lab=False))


def test_every_speed_is_measured_at_every_concurrency() -> None:
    """Here or on a lab host, each cell once: about 5.5 s for each speed, here and there."""
    cells = Counter(
        (speed, number)
        for speed in SPEEDS
        for lab in (False, True)
        for number in list_concurrencies(speed, lab=lab)
    )
    assert cells == Counter(itertools.product(SPEEDS, CONCURRENCIES))
    assert len(cells) == 40
    for speed, lab in itertools.product(SPEEDS, (False, True)):
        pace = Pace(ttft=speed.ttft, tpot=speed.tpot, slots=SLOTS)
        seconds = sum(
            compute_truth(pace, number, count_requests(number), speed.tokens).wall
            for number in list_concurrencies(speed, lab=lab)
        )
        assert seconds == pytest.approx(5.5, abs=0.6)


@exactly
@pytest.mark.parametrize(("there", "back"), [(0.05, 0.0), (0.025, 0.025)])
def test_through_a_delay(here: Host, server: Paced, there: float, back: float) -> None:
    with paced.relayed(server.port, there, back) as port:
        endpoint = Endpoint("openai", "127.0.0.1", port, "paced")
        check_delay(here, server, endpoint, 0.05)


@exactly
def test_an_open_loop_shows_the_queue(
    here: Host, server: Paced, endpoint: Endpoint, prepared: Prepared
) -> None:
    # Each takes 0.2 s in the one slot; twice as many come as it can serve.
    server.set(ttft=0.13, tpot=0.01, slots=1)
    wall, samples = run_once(here, endpoint, prepared, Load(rate=10), 8, 8)
    truth = paced.read_truth(server.read_records())
    found = summarize(wall, samples, prepared.rtt)
    compare(found, truth, f"{found}, recorded {truth}")
    sent = [sample.sent for sample in samples]
    assert all(0.03 < after - before < 0.17 for before, after in itertools.pairwise(sent))
    waits = [sample.ttft or 0 for sample in samples]
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0]


def test_a_rate_beyond_all_bounds(here: Host, server: Paced, endpoint: Endpoint) -> None:
    profile = SHORT.model_copy(update={"rate": 400.0, "requests": 20})
    server.set(ttft=0.05)
    (level,) = measure(here, endpoint, profile)
    assert level.load == Load(rate=400)
    assert [len(repeat.samples) for repeat in level.repeats] == [20] * 5


# A measurement


def test_a_measurement(here: Host, server: Paced, endpoint: Endpoint) -> None:
    progress: list[tuple[int, int, str]] = []
    readings = itertools.count()

    def read_conditions() -> Conditions:
        return Conditions(swapped=next(readings))

    levels = measure(
        here,
        endpoint,
        SHORT,
        read_conditions=lambda: read_conditions,
        on_progress=lambda *step: progress.append(step),
    )
    assert [level.load.concurrency for level in levels] == [1, 2]
    for level in levels:
        assert len(level.repeats) == 5
        for repeat in level.repeats:
            assert len(repeat.valid) == len(repeat.samples) == SHORT.requests
            assert repeat.wall == max(sample.sent + sample.end for sample in repeat.samples)
            assert min(sample.sent for sample in repeat.samples) == 0
            assert repeat.rtt is not None
            assert 0 < repeat.rtt < 1
    swapped = [repeat.conditions.swapped for level in levels for repeat in level.repeats]
    assert swapped == list(range(10))
    total = count_all_requests(SHORT)
    assert total == 1 + 2 + 2 * 5 * 4
    assert [step[0] for step in progress] == list(range(1, total + 1))
    assert {step[1] for step in progress} == {total}
    assert progress[0][2] == "concurrency 1, warm-up"
    assert progress[-1][2] == "concurrency 2, repeat 5 of 5"
    # Every prompt of it all is another one, from its first words on.
    prompts = [record.prompt for record in server.read_records()]
    assert len({" ".join(prompt.split()[:4]) for prompt in prompts}) >= len(prompts) - 1


@exactly
@pytest.mark.parametrize(("slower", "trips"), [(1.0, 0), (1 / 0.7, 20)])
def test_a_slowdown_of_thirty_percent_trips_each_time_and_nothing_else(
    here: Host, server: Paced, endpoint: Endpoint, slower: float, trips: int
) -> None:
    profile = SHORT.model_copy(update={"concurrency": (1,), "output_tokens": 16})
    known = prepare(here, endpoint, profile)

    def run(tpot: float) -> list[Summary]:
        server.set(ttft=0.005, tpot=tpot)
        levels = measure(here, endpoint, profile, prepared=known)
        return [summarize_level(level, Limits(), known.rtt) for level in levels]

    before = run(0.004)
    found = [compare_runs(before, run(0.004 * slower), 0.1, {}) for _ in range(20)]
    assert sum(any(row.outcome == "worse" for row in rows) for rows in found) == trips


def test_two_servers_take_turns(here: Host, server: Paced, endpoint: Endpoint) -> None:
    profile = SHORT.model_copy(update={"concurrency": (1,)})
    with paced.serving(ttft=0.02, tpot=0.006) as other:
        new = Endpoint("ollama", "127.0.0.1", other.port, "paced")
        known = (prepare(here, endpoint, profile), prepare(here, new, profile))
        server.set()
        other.set()
        before, after = measure_interleaved(here, endpoint, new, profile, prepared=known)
        turns = [(record.arrived, "A") for record in server.read_records()]
        turns += [(record.arrived, "B") for record in other.read_records()]
    # A warm-up of each, then repeats of four requests.
    order = "".join(name for _, name in sorted(turns))
    assert order == "AB" + "".join(4 * turn for turn in "ABBAABBAAB")
    assert [len(level.repeats) for level in (*before, *after)] == [5, 5]
    tpots = [
        statistics.median(
            sample.tpot or 0 for level in levels for r in level.repeats for sample in r.valid
        )
        for levels in (before, after)
    ]
    assert tpots[1] > 1.5 * tpots[0]


@pytest.mark.parametrize("counting", [0, 1])
def test_two_servers_are_asked_the_same(
    here: Host, server: Paced, endpoint: Endpoint, counting: int
) -> None:
    """Where one of them does not count a prompt, the words of the other make it up."""
    profile = SHORT.model_copy(update={"concurrency": (1,)})
    known = prepare(here, endpoint, profile)
    silent = dataclasses.replace(known, words=known.words // 2, prompt_tokens=None)
    pair = (known, silent) if counting == 0 else (silent, known)
    server.set()
    measure_interleaved(here, endpoint, endpoint, profile, prepared=pair)
    prompts = {len(record.prompt.split()) for record in server.read_records()}
    assert prompts == {known.words}


def test_what_ollama_keeps_in_memory_stays_as_it_was(here: Host, server: Paced) -> None:
    """A model that somebody keeps for ever stays; another one's time is the server's again."""
    ollama = Endpoint("ollama", "127.0.0.1", server.port, "paced")
    known = prepare(here, ollama, SHORT)
    # The paced server's model is loaded until 2100.
    assert {record.keep_alive for record in server.read_records()} == {-1}
    server.set()
    release(here, ollama, known.protocol)
    assert server.read_loads() == []
    server.set(cold=True, load=0.01)
    known = prepare(here, ollama, SHORT)
    assert {record.keep_alive for record in server.read_records()} == {3600}
    release(here, ollama, known.protocol)
    assert server.read_loads() == [3600, None]
    # What a client asked for holds again: a day, of which an hour has passed.
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=23)
    server.set(cold=False, expires=until.isoformat())
    known = prepare(here, ollama, SHORT)
    release(here, ollama, known.protocol)
    first, last = server.read_loads()
    assert first == 3600
    assert 22.9 * 3600 < last <= 23 * 3600
    server.set(expires="2100-01-01T00:00:00Z")
