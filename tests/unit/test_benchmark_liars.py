"""Servers whose answers look right and are not: none of them gets a figure that is not true."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pyinfra.api.host import Host

from stackmend.connection import http_client
from stackmend.errors import StepError
from stackmend.worker.benchmark import measuring
from stackmend.worker.benchmark.contact import measure_round_trips
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.sending import open_client
from stackmend.worker.benchmark.spec import Limits, Profile
from stackmend.worker.benchmark.state import Summary
from stackmend.worker.benchmark.statistics import summarize
from tests.connected import local
from tests.unit.benchmark_server import Asked, Served, Wire, answer, describe, last, serving, text

pytestmark = pytest.mark.slow

TOKENS = 40


@pytest.fixture(scope="module")
def here() -> Iterator[Host]:
    with local() as host:
        yield host


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


@pytest.mark.parametrize("written", [12, 27])
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
