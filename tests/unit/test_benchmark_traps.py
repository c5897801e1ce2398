"""Every bad habit of a model server is recognised, and what it spoils does not count."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import pytest
from pyinfra.api.host import Host

from stackmend.errors import StepError
from stackmend.redaction import redact
from stackmend.worker.benchmark import contact, measuring
from stackmend.worker.benchmark.definitions import Question, make_sample
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.learning import Prepared, prepare
from stackmend.worker.benchmark.sending import Run, Task, open_client, open_clients, send
from stackmend.worker.benchmark.spec import Profile
from stackmend.worker.benchmark.state import Load, Sample
from tests import paced
from tests.calm import calmly, urgency
from tests.paced import Paced

Api = Literal["ollama", "openai"]

pytestmark = pytest.mark.slow

TOKENS = 12

#: The share by which a figure may differ from what the server did.
CLOSE = 0.15
PROFILE = Profile(prompt_tokens=64, output_tokens=TOKENS, timeout=5, warmups=0)
PACE = {"ttft": 0.1, "tpot": 0.01, "slots": 4, "load": 0.3, "every": 1, "after": 0, "trap": ""}

#: What each trap makes of a sample, where the two APIs agree.
SPOILED = {
    "early": ("incomplete", "without its last message"),
    "abrupt": ("incomplete", "the connection ended within the answer"),
    "no-done": ("incomplete", "without its last message"),
    "error-200": ("error", "out of memory"),
    "error-late": ("error", "out of memory"),
    "chunks-as-tokens": ("implausible", "counts chunks for tokens"),
    "at-once": ("implausible", "does not stream"),
    "cut": ("cut", "40 tokens of a prompt of about 64"),
    "cached": ("cached", "had kept"),
    "short": ("short", "ended after 4 of 12"),
    "http-500": ("error", "HTTP 500"),
    "http-429": ("refused", "HTTP 429"),
    "hang": ("timeout", "within 0.5 s"),
    "hang-first": ("timeout", "within 0.5 s"),
    "loris": ("timeout", "within 0.5 s"),
    "megabyte": ("error", "longer than"),
    "flood": ("error", "longer than"),
    "garbage": ("error", "form of this API"),
    "uncounted": ("uncounted", "does not count"),
    "liar": ("implausible", "for an answer of"),
}

#: What only Ollama's API says.
OLLAMA_ALONE = {"reload": ("reloaded", "in 0.30 s")}


@pytest.fixture(scope="module", autouse=True)
def _before_others() -> Iterator[None]:
    with urgency():
        yield


@pytest.fixture(scope="module")
def known(here: Host, running: Paced) -> dict[Api, Prepared]:
    """What is known of the server once it has been asked, when it keeps prompts and is honest."""
    running.set(**{**PACE, "trap": "prefix"})
    apis: tuple[Api, Api] = ("ollama", "openai")
    return {api: prepare(here, at(running, api), PROFILE) for api in apis}


def at(server: Paced, api: Api) -> Endpoint:
    return Endpoint(api, "127.0.0.1", server.port, "paced")


def make_task(prepared: Prepared, timeout: float = 5.0) -> Task:
    return Task(
        protocol=prepared.protocol,
        prompts=prepared.prompts,
        words=prepared.words,
        question=Question(TOKENS, prepared.prompt_tokens),
        timeout=timeout,
        reference=prepared.reference,
        rtt=prepared.rtt,
    )


def ask(
    host: Host, server: Paced, api: Api, prepared: Prepared, requests: int = 2, timeout: float = 5.0
) -> Sequence[Sample]:
    """Samples of a server, two at one time."""
    load = Load(concurrency=2)
    with open_clients(host, at(server, api), load, requests, timeout) as clients:
        run = Run(clients, make_task(prepared, timeout))
        _, samples = run.run_closed(requests, give_up=False)
    return samples


CASES = [(api, trap) for trap in SPOILED for api in ("ollama", "openai")]
CASES += [("ollama", trap) for trap in OLLAMA_ALONE]


@pytest.mark.parametrize(("api", "trap"), CASES)
@calmly
def test_what_a_trap_spoils_does_not_count(
    here: Host, server: Paced, known: dict[Api, Prepared], api: Api, trap: str
) -> None:
    invalid, words = (SPOILED | OLLAMA_ALONE)[trap]
    timeout = 0.5 if invalid == "timeout" else 5.0
    server.set(trap=trap)
    samples = ask(here, server, api, known[api], timeout=timeout)
    # Each of two is sent again where the model ended early, with another salt.
    assert len(samples) == (8 if trap == "short" else 2)
    for sample in samples:
        assert sample.invalid == invalid, sample.reason
        assert words in sample.reason
        assert sample.reason.isprintable()
    prompts = [record.prompt for record in server.read_records()]
    assert len(set(prompts)) == len(prompts) == len(samples)


@pytest.mark.parametrize("api", ["ollama", "openai"])
@pytest.mark.parametrize("trap", ["early", "cached", "cut", "http-500"])
@calmly
def test_only_what_is_spoiled_is_left_out(
    here: Host, server: Paced, known: dict[Api, Prepared], api: Api, trap: str
) -> None:
    server.set(trap=trap, every=3)
    samples = ask(here, server, api, known[api], requests=9)
    records = server.read_records()
    assert sum(sample.invalid is not None for sample in samples) == 3
    good = [sample for sample in samples if sample.invalid is None]
    honest = [record for record in records if not record.trap]
    agree(good, honest)


def agree(samples: Sequence[Sample], records: Sequence[paced.Record]) -> None:
    """What was measured is what the server did.

    How exact it is on a quiet machine, `test_benchmark_truth.py` says.
    """
    assert all(sample.invalid is None for sample in samples), [s.reason for s in samples]
    ttft = statistics.median(sample.ttft or 0 for sample in samples)
    truth = statistics.median(record.first - record.arrived for record in records)
    assert ttft == pytest.approx(truth, rel=CLOSE)
    tpot = statistics.median(sample.tpot or 0 for sample in samples)
    # The first piece of text has as many tokens as the server bundles.
    times = [
        (record.last - record.first) / (record.tokens - sample.first_tokens)
        for record, sample in zip(records, samples, strict=True)
    ]
    assert tpot == pytest.approx(statistics.median(times), rel=CLOSE)


@pytest.mark.parametrize("api", ["ollama", "openai"])
@calmly
def test_a_server_that_keeps_prompts_looks_no_faster_than_it_is(
    here: Host, server: Paced, known: dict[Api, Prepared], api: Api
) -> None:
    server.set(trap="prefix")
    samples = ask(here, server, api, known[api], requests=6)
    records = server.read_records()
    agree(samples, records)
    assert max(record.kept_tokens for record in records) <= 1
    # As it looks to a client that asks the same again: ten times as fast, and recognised.
    task = make_task(known[api])
    request = task.protocol.build(task.prompts.make(task.words), TOKENS, 1)
    with open_client(here, at(server, api), 5) as client:
        again = [
            make_sample(send(client, task, request)[1], task.question, reference=task.reference)
            for _ in range(2)
        ]
    assert again[0].invalid is None
    assert again[1].invalid == "cached"
    assert (again[1].ttft or 1) < 0.5 * (again[0].ttft or 0)


@pytest.mark.parametrize("api", ["ollama", "openai"])
@calmly
def test_a_server_that_bundles_tokens(
    here: Host, server: Paced, known: dict[Api, Prepared], api: Api
) -> None:
    server.set(trap="bundles", bundle=3)
    samples = ask(here, server, api, known[api], requests=4)
    agree(samples, server.read_records())
    for sample in samples:
        assert (sample.first_tokens, sample.chunks, sample.output_tokens) == (3, 4, TOKENS)
        # Pieces for tokens would be three times as much.
        assert sample.tpot == pytest.approx(PACE["tpot"], rel=CLOSE)


@pytest.mark.parametrize("api", ["ollama", "openai"])
@calmly
def test_a_server_that_thinks_first(
    here: Host, server: Paced, known: dict[Api, Prepared], api: Api
) -> None:
    server.set(trap="thinks")
    samples = ask(here, server, api, known[api], requests=4)
    agree(samples, server.read_records())
    for sample in samples:
        assert sample.ttft_output is not None
        assert sample.ttft is not None
        assert sample.ttft_output - sample.ttft > 0.03
        assert sample.output_tokens == TOKENS
    server.set(trap="thinks-only")
    for sample in ask(here, server, api, known[api]):
        assert (sample.invalid, sample.ttft_output) == (None, None)
        assert sample.ttft is not None


@pytest.mark.parametrize("api", ["ollama", "openai"])
@pytest.mark.parametrize("trap", ["empty-first", "hostile", "num-ctx", "stale"])
@calmly
def test_what_spoils_nothing_of_ours(
    here: Host, server: Paced, known: dict[Api, Prepared], api: Api, trap: str
) -> None:
    # An empty piece is no first token; text is counted and never shown; num_ctx is left alone; what
    # an idle connection did not take is sent over a new one.
    if trap == "num-ctx":
        ask(here, server, api, known[api], requests=1)
    server.set(trap=trap)
    agree(ask(here, server, api, known[api], requests=4), server.read_records())


@calmly
def test_a_model_that_ends_early_once_is_asked_again(
    here: Host, server: Paced, known: dict[Api, Prepared]
) -> None:
    server.set(trap="short", every=3)
    samples = ask(here, server, "ollama", known["ollama"], requests=4)
    assert sorted(sample.invalid or "" for sample in samples) == ["", "", "", "", "short"]
    assert len(server.read_records()) == 5


@calmly
def test_a_rate_stays_what_it_is_where_the_model_ends_early(
    here: Host, server: Paced, known: dict[Api, Prepared]
) -> None:
    server.set(trap="short", every=2)
    load = Load(rate=20)
    with open_clients(here, at(server, "ollama"), load, 6, 5.0) as clients:
        run = Run(clients, make_task(known["ollama"]))
        _, samples = run.run_open(6, load.rate, seed=1)
    assert sorted(sample.invalid or "" for sample in samples) == [""] * 3 + ["short"] * 3
    assert len(run.lags) == 6
    assert min(run.lags) >= 0


# Before anything is measured


@pytest.mark.parametrize(
    ("api", "trap", "words", "remedy"),
    [
        ("ollama", "uncounted", "does not count", "update the server"),
        ("openai", "uncounted", "does not count", "update the server"),
        ("ollama", "cut", "it cuts prompts", "give the server a larger context"),
        ("ollama", "chunks-asked", "counts chunks for tokens", "update the server"),
        ("openai", "chunks-asked", "counts chunks for tokens", "update the server"),
        ("ollama", "error-200", "out of memory", "read the server's log"),
        ("ollama", "reload", "loaded the model for this request", "end what has the model loaded"),
        ("openai", "http-429", "HTTP 429", "run again when the server takes more requests"),
        (
            "openai",
            "cached",
            "of a prompt that nobody sent before",
            "start the server without a cache of prompts",
        ),
        ("openai", "hides", "tokens of reasoning, and sends none", "update the server"),
    ],
)
def test_a_server_that_cannot_be_measured(
    here: Host, server: Paced, api: Api, trap: str, words: str, remedy: str
) -> None:
    server.set(trap=trap)
    started = time.monotonic()
    with pytest.raises(StepError, match=words) as caught:
        prepare(here, at(server, api), PROFILE)
    assert str(caught.value).isprintable()
    assert str(caught.value).rpartition("; ")[2].startswith(remedy)
    assert time.monotonic() - started < 20


def test_a_server_that_hides_what_it_writes_and_does_not_say_so(here: Host, server: Paced) -> None:
    """Its text has fewer tokens than it counts, in as few pieces."""
    server.set(trap="hides", timings=False, tpot=0.002)
    profile = PROFILE.model_copy(update={"output_tokens": 40})
    with pytest.raises(StepError, match="does not send all that it writes"):
        prepare(here, at(server, "openai"), profile)
    server.set(timings=True)


@calmly
def test_a_server_that_takes_no_field_that_it_does_not_know(here: Host, server: Paced) -> None:
    server.set(trap="strict")
    prepared = prepare(here, at(server, "openai"), PROFILE)
    samples = ask(here, server, "openai", prepared)
    assert [sample.invalid for sample in samples] == [None, None]


@calmly
def test_a_server_that_spends_a_while_on_a_model_that_is_loaded(here: Host, server: Paced) -> None:
    server.set(trap="reload", load=0.15)
    prepared = prepare(here, at(server, "ollama"), PROFILE)
    assert prepared.verified
    samples = ask(here, server, "ollama", prepared)
    assert [sample.invalid for sample in samples] == [None, None]
    # A load that takes longer is one.
    server.set(trap="reload", load=0.6)
    assert {sample.invalid for sample in ask(here, server, "ollama", prepared)} == {"reloaded"}


@calmly
def test_the_api_of_openai_hides_a_load(
    here: Host, server: Paced, known: dict[Api, Prepared]
) -> None:
    """As the documentation says: only Ollama's own API tells it from a slow first token."""
    server.set(trap="reload", load=0.3)
    samples = ask(here, server, "openai", known["openai"])
    assert [(sample.invalid, sample.load) for sample in samples] == [(None, None)] * 2
    assert all((sample.ttft or 0) > 0.3 + PACE["ttft"] for sample in samples)
    server.set(trap="reload", load=0.3)
    assert {sample.invalid for sample in ask(here, server, "ollama", known["ollama"])} == {
        "reloaded"
    }


def test_nobody_answers(here: Host) -> None:
    with pytest.raises(StepError, match="does not answer"):
        contact.measure_rtt(here, Endpoint("ollama", "127.0.0.1", 9, "paced"))


def test_a_server_that_fails_all_the_time_is_given_up(
    here: Host, server: Paced, known: dict[Api, Prepared]
) -> None:
    server.set(trap="hang-first")
    profile = PROFILE.model_copy(update={"concurrency": (2,), "requests": 500, "timeout": 0.3})
    with pytest.raises(StepError, match=r"none of [34] requests .* within 0\.3 s; allow a"):
        measuring.measure(here, at(server, "ollama"), profile, prepared=known["ollama"])
    assert len(server.read_records()) <= 4


def test_a_server_that_hangs_after_its_first_answers_is_given_up(
    here: Host, server: Paced, known: dict[Api, Prepared]
) -> None:
    server.set(trap="hang", after=4)
    profile = PROFILE.model_copy(
        update={"concurrency": (2,), "requests": 40, "timeout": 0.5, "warmups": 0}
    )
    with pytest.raises(StepError, match=r"of \d+ requests at concurrency 2 do not count"):
        measuring.measure(here, at(server, "ollama"), profile, prepared=known["ollama"])
    assert len(server.read_records()) < 14


@calmly
def test_the_levels_that_were_measured_are_kept(
    here: Host, server: Paced, known: dict[Api, Prepared]
) -> None:
    """Ten requests at concurrency 1 are answered, and none of those at two."""
    server.set(trap="hang-first", after=10)
    profile = Profile(
        prompt_tokens=64,
        output_tokens=TOKENS,
        timeout=0.5,
        warmups=0,
        concurrency=(1, 2, 4),
    ).model_copy(update={"requests": 2})
    levels = measuring.measure(here, at(server, "ollama"), profile, prepared=known["ollama"])
    assert [level.load.concurrency for level in levels] == [1, 2]
    assert levels[0].noisy == ""
    assert "none of 2 requests at concurrency 2 counts" in levels[1].noisy


def test_a_model_that_is_not_loaded(here: Host, server: Paced) -> None:
    server.set(cold=True, load=0.3)
    prepared = prepare(here, at(server, "ollama"), PROFILE)
    assert prepared.load is not None
    assert 0.3 <= prepared.load < 3
    # None of what is measured afterwards has it loaded.
    assert {record.load for record in server.read_records()} == {0.0}
    server.set(cold=False)
    assert prepare(here, at(server, "ollama"), PROFILE).load is None


def test_a_client_that_asked_for_a_context_keeps_its_model(here: Host, server: Paced) -> None:
    """Asked with another context, the server would load the model anew for each of both."""
    server.set(trap="client-ctx", context=8192)
    prepared = prepare(here, at(server, "ollama"), PROFILE)
    samples = ask(here, server, "ollama", prepared, requests=2)
    assert {record.load for record in server.read_records()} == {0.0}
    assert [sample.invalid for sample in samples] == [None, None]
    server.set(context=4096)


def test_a_server_that_ends_an_answer_for_the_next_request(here: Host, server: Paced) -> None:
    server.set(trap="interrupts", tpot=0.002, ttft=0.02)
    endpoint = at(server, "openai")
    prepared = prepare(here, endpoint, PROFILE)
    assert "/models" not in prepared.probe
    (level,) = measuring.measure(here, endpoint, PROFILE, prepared=prepared)
    assert level.load == Load(concurrency=1)
    assert all(repeat.valid == repeat.samples for repeat in level.repeats)
    # Who asks for more all the same gets it.
    samples = ask(here, server, "openai", prepared, requests=4)
    assert {sample.invalid for sample in samples} & {"uncounted", "implausible"}


@calmly
def test_a_server_with_messages_alone(here: Host, server: Paced) -> None:
    server.set(completions=False)
    prepared = prepare(here, at(server, "openai"), PROFILE)
    server.set(completions=False)
    agree(ask(here, server, "openai", prepared, requests=4), server.read_records())
    server.set(completions=True)


def test_a_server_that_wants_a_key(here: Host, server: Paced) -> None:
    server.set(key="s3cret")
    endpoint = at(server, "openai")
    with pytest.raises(StepError, match="HTTP 401"):
        prepare(here, endpoint, PROFILE)
    with_key = dataclasses.replace(endpoint, api_key="s3cret")
    assert prepare(here, with_key, PROFILE).prompt_tokens == 64
    # A server that repeats it in a message does not get it printed.
    assert redact("no such key: s3cret") == "no such key: *MASKED*"
    server.set(key="")
