"""Servers whose answers look right and are not: none of them gets a figure that is not true."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any, Literal

import pytest
from pyinfra.api.host import Host

from stackmend.connection import HTTPError, http_client
from stackmend.errors import StepError
from stackmend.worker.benchmark import contact, learning, measuring
from stackmend.worker.benchmark.contact import measure_round_trips
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.sending import open_client
from stackmend.worker.benchmark.spec import Limits, Profile
from stackmend.worker.benchmark.state import Summary
from stackmend.worker.benchmark.statistics import summarize
from tests.calm import calmly
from tests.unit.benchmark_server import Asked, Served, Wire, answer, describe, last, serving, text

pytestmark = pytest.mark.slow

TOKENS = 40


def at(served: Served, protocol: Literal["ollama", "openai"] = "openai") -> Endpoint:
    return Endpoint(protocol, "127.0.0.1", served.port, "m")


def make_profile(**changed: Any) -> Profile:
    usual: dict[str, Any] = {
        "prompt_tokens": 32,
        "output_tokens": TOKENS,
        "concurrency": (1,),
        "requests": 2,
        "warmups": 0,
        "timeout": 10,
    }
    return Profile(**(usual | changed))


def measure(host: Host, served: Served, **changed: Any) -> Summary:
    (level,) = measuring.measure(host, at(served), make_profile(**changed))
    return summarize(level, Limits())


# Tokens that nobody counted


@pytest.mark.parametrize("written", [12, 27, 29, 36, 38])
def test_a_context_that_is_full_is_no_answer_of_as_many_tokens_as_were_asked(
    here: Host, written: int
) -> None:
    """llama-cpp-python counts no stream, and says "length" where its context ends as well."""

    def post(wire: Wire, asked: Asked) -> None:
        wire.begin()
        for _ in range(min(written, asked.tokens)):
            wire.chunk(text(" w"))
            time.sleep(0.002)
        wire.chunk(text("", "length") + b"data: [DONE]\n\n")
        wire.end()

    words = f"reached its limit of 40, and sends {written} pieces"
    with serving(post) as served, pytest.raises(StepError, match=words):
        measure(here, served)


def test_a_server_that_counts_no_stream_is_measured(here: Host) -> None:
    """Some of its tokens are half of a character, and no piece of their own."""

    def post(wire: Wire, asked: Asked) -> None:
        wire.begin()
        for number in range(asked.tokens):
            wire.chunk(text("" if number % 5 == 4 else " w"))
            time.sleep(0.002)
        wire.chunk(text("", "length") + b"data: [DONE]\n\n")
        wire.end()

    with serving(post) as served:
        found = measure(here, served)
    assert (found.median.valid, found.median.invalid) == (10, ())


@pytest.mark.parametrize(("pieces", "counts"), [(34, True), (27, False)])
def test_characters_of_several_tokens_explain_fewer_pieces(
    here: Host, pieces: int, counts: bool
) -> None:
    """Five of the pieces are a character of three bytes, which may have been as many tokens."""

    def post(wire: Wire, asked: Asked) -> None:
        wire.begin()
        whole = asked.tokens < TOKENS
        for number in range(asked.tokens if whole else pieces):
            wire.chunk(text("\N{SNOWMAN}" if not whole and number % 6 == 5 else " w"))
            time.sleep(0.002)
        wire.chunk(text("", "length") + b"data: [DONE]\n\n")
        wire.end()

    with serving(post) as served:
        if counts:
            assert measure(here, served).median.valid == 10
        else:
            with pytest.raises(StepError, match="does not count"):
                measure(here, served)


# The round trip, which is taken out of the time to a first token


def measure_trip(host: Host, served: Served) -> float:
    with open_client(host, at(served), 5) as client:
        return measure_round_trips(client, at(served), "/v1/models")


def test_a_busy_moment_is_no_part_of_a_round_trip(here: Host) -> None:
    pauses = itertools.cycle([0.0, 0.03, 0.02, 0.03])

    def get(wire: Wire, asked: Asked) -> None:
        time.sleep(next(pauses))
        describe(wire, asked)

    with serving(answer, get) as served:
        assert measure_trip(here, served) < 0.015


def test_what_a_server_does_for_the_list_of_its_models_is_no_part_of_a_round_trip(
    here: Host,
) -> None:
    """A gateway asks others for it; the time to a first token does not get shorter by that."""

    def get(wire: Wire, asked: Asked) -> None:
        if asked.path.endswith("/models"):
            time.sleep(0.1)
        describe(wire, asked)

    def post(wire: Wire, asked: Asked) -> None:
        answer(wire, asked, first=0.15)

    with serving(post, get) as served:
        found = measure(here, served)
    assert found.median.ttft is not None
    assert found.median.ttft[0] >= 0.14


def test_connecting_is_no_part_of_a_round_trip(here: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that closes each connection has every request connect anew."""
    dial = http_client.dial

    def dial_slowly(*arguments: Any, **more: Any) -> Any:
        time.sleep(0.05)
        return dial(*arguments, **more)

    def get(wire: Wire, asked: Asked) -> bool:
        wire.json({"data": [{"id": "m"}]}, more="Connection: close\r\n")
        return False

    monkeypatch.setattr(http_client, "dial", dial_slowly)
    with serving(answer, get) as served:
        assert measure_trip(here, served) < 0.04
        assert len({asked.number for asked in served.asked}) > 9


@pytest.mark.parametrize("listed", [True, False])
def test_another_model_answers(here: Host, listed: bool) -> None:
    """A server may call the model as it likes, but not by the name of another one that it has."""

    def get(wire: Wire, asked: Asked) -> None:
        if asked.path == "/v1/models":
            wire.json({"data": [{"id": "m"}, *([{"id": "tiny"}] if listed else [])]})
        else:
            describe(wire, asked)

    def post(wire: Wire, asked: Asked) -> None:
        wire.begin()
        for _ in range(asked.tokens):
            wire.chunk(text(" w", model="tiny"))
            time.sleep(0.002)
        wire.chunk(last(asked))
        wire.end()

    with serving(post, get) as served:
        if listed:
            with pytest.raises(StepError, match="another model answers: tiny"):
                measure(here, served)
        else:
            assert measure(here, served).median.valid == 10


@pytest.mark.parametrize("protocol", ["openai", "ollama"])
def test_a_server_that_falls_back_to_another_model(
    here: Host, protocol: Literal["openai", "ollama"]
) -> None:
    """As a gateway does under load: no list has that model, and some answers are by it."""
    numbers = itertools.count()

    def post(wire: Wire, asked: Asked) -> None:
        asked_much = asked.tokens == TOKENS
        name = "small" if asked_much and next(numbers) % 3 == 2 else "m-2026"
        if protocol == "ollama":
            answer_ollama(wire, asked, model=name)
            return
        wire.begin()
        for _ in range(asked.tokens):
            wire.chunk(text(" w", model=name))
            time.sleep(0.002)
        wire.chunk(last(asked).replace(b'"model": "m"', f'"model": "{name}"'.encode()))
        wire.end()

    with serving(post) as served:
        (level,) = measuring.measure(here, at(served, protocol), make_profile(requests=6))
    samples = [sample for repeat in level.repeats for sample in repeat.samples]
    assert sum(sample.invalid is None for sample in samples) == 20
    assert {sample.reason for sample in samples if sample.invalid} == {
        "another model answers: small, and m-2026 did before"
    }


@pytest.mark.parametrize("odd", ["\ufffd", " \ufffd\ufffd\ufffd", ""])
def test_a_server_that_counts_chunks_is_found_out_by_any_answer(here: Host, odd: str) -> None:
    """Each chunk has four tokens and is counted as one; some answers cannot be read again."""
    answers = itertools.count()

    def post(wire: Wire, asked: Asked) -> None:
        number = next(answers) if asked.tokens == TOKENS else -1
        wire.begin()
        for at in range(asked.tokens):
            wire.chunk(text(odd if at == 3 or (number == 0 and at) else " a b c d"))
            time.sleep(0.002)
        wire.chunk(last(asked))
        wire.end()

    with serving(post) as served, pytest.raises(StepError, match="counts chunks for tokens"):
        measure(here, served)


def test_counts_that_nothing_verifies_are_named(
    here: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer has enough text to be read again; an honest server says how much it counts."""
    lines: list[str] = []
    monkeypatch.setattr(learning.announce, "show_line", lambda _, line: lines.append(line))
    with serving(answer) as served:
        assert not learning.prepare(here, at(served), make_profile(output_tokens=6)).verified
        assert learning.prepare(here, at(served), make_profile()).verified
    (line,) = lines
    assert "its counts of tokens are not verified: no answer has 8" in line


# Limits while it is found out how a server counts


def answer_ollama(wire: Wire, asked: Asked, counted: float = 1.0, model: str = "m") -> None:
    """An answer of Ollama's API."""
    if not asked.tokens:
        wire.json({"model": model, "done": True, "response": ""})
        return
    wire.begin("application/x-ndjson")
    for _ in range(asked.tokens):
        wire.chunk(json.dumps({"model": model, "response": " w", "done": False}).encode() + b"\n")
        time.sleep(0.002)
    counts = {"prompt_eval_count": asked.words, "eval_count": round(asked.tokens * counted)}
    done = {"model": model, "response": "", "done": True, "done_reason": "length", **counts}
    wire.chunk(json.dumps(done).encode() + b"\n")
    wire.end()


def test_a_model_is_let_go_where_its_server_cannot_be_measured(here: Host) -> None:
    def post(wire: Wire, asked: Asked) -> None:
        answer_ollama(wire, asked, counted=0.5)

    with serving(post) as served:
        with pytest.raises(StepError, match="chunks for tokens"):
            learning.prepare(here, at(served, "ollama"), make_profile())
        kept = [asked.body.get("keep_alive") for asked in served.asked if asked.method == "POST"]
    assert kept[0] == kept[1] == 3600
    # A client had it until some day to come.
    assert kept[-1] > 3600


def test_a_request_that_shows_how_a_server_counts_has_a_limit(here: Host) -> None:
    """It says that it is at it, and never gets there."""

    def post(wire: Wire, asked: Asked) -> None:
        ends = time.monotonic() + 8
        while time.monotonic() < ends:
            wire.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            time.sleep(0.01)

    profile = make_profile(timeout=1.0)
    started = time.monotonic()
    with serving(post) as served, pytest.raises(StepError, match=r"did not end within 1 s"):
        learning.prepare(here, at(served), profile)
    assert 1 <= time.monotonic() - started < 4
    # Who names none is asked by it how long answers take.
    assert (learning.find_limit(profile), learning.find_limit(Profile())) == (1, 900)


def test_what_a_server_answers_at_once_does_not_trickle(
    here: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(wire: Wire, asked: Asked) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\n")
        for _ in range(80):
            wire.send(b" ")
            time.sleep(0.1)

    monkeypatch.setattr(contact, "SOON", 0.5)
    started = time.monotonic()
    with serving(answer, get) as served, open_client(here, at(served), 60) as client:
        with pytest.raises(HTTPError, match=r"timed out|did not end within"):
            contact.get_soon(client, "/v1/models")
        with pytest.raises(StepError, match="does not answer"):
            measure_round_trips(client, at(served), "/v1/models")
    assert time.monotonic() - started < 4


# Answers that come at another time than they are written


@pytest.mark.parametrize("parts", [1, 2])
def test_an_answer_that_is_held_back_until_its_end(here: Host, parts: int) -> None:
    """As a proxy does that buffers: forty events, and none of the server's own times."""

    def post(wire: Wire, asked: Asked) -> None:
        time.sleep(0.1 + 0.002 * asked.tokens)
        wire.begin()
        pieces = [text(" w")] * asked.tokens
        half = len(pieces) // parts
        for data in (pieces[:half], [*pieces[half:], last(asked)]):
            wire.chunk(b"".join(data) or b"\n")
        wire.end()

    with serving(post) as served, pytest.raises(StepError, match="in one piece"):
        measure(here, served)


@calmly
def test_a_stream_that_comes_in_lumps(here: Host) -> None:
    """What comes at one moment is the first text; what comes later took its own time."""

    def post(wire: Wire, asked: Asked) -> None:
        wire.begin()
        for done in range(0, asked.tokens, 10):
            size = min(10, asked.tokens - done)
            time.sleep(0.004 * size)
            wire.chunk(b"".join([text(" w")] * size))
        wire.chunk(last(asked))
        wire.end()

    with serving(post) as served:
        found = measure(here, served)
    assert found.median.tpot is not None
    assert found.median.tpot[0] == pytest.approx(0.004, rel=0.15)


def test_a_server_that_bundles_a_few_tokens_is_measured(here: Host) -> None:
    """As vLLM does with several steps at a time: two tokens come in one piece as well."""

    def post(wire: Wire, asked: Asked) -> None:
        wire.begin()
        for done in range(0, asked.tokens, 8):
            size = min(8, asked.tokens - done)
            time.sleep(0.002 * size)
            wire.chunk(text(" w" * size))
        wire.chunk(last(asked))
        wire.end()

    with serving(post) as served:
        found = measure(here, served)
    assert (found.median.valid, found.median.invalid) == (10, ())


@calmly
def test_a_stream_that_stays_open_after_its_last_message(here: Host) -> None:
    """The next request does not wait for its end."""

    def post(wire: Wire, asked: Asked) -> None:
        wire.begin()
        for _ in range(asked.tokens):
            wire.chunk(text(" w"))
            time.sleep(0.005)
        wire.chunk(last(asked))
        time.sleep(0.5)
        wire.end()

    with serving(post) as served:
        found = measure(here, served, requests=4)
    assert found.median.invalid == ()
    # Forty tokens in 0.2 s; those of a client that waits would be 60 a second.
    assert found.median.output_tps > 150
    assert len({asked.number for asked in served.asked}) > 20
