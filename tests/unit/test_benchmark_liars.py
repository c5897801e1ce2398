"""Servers whose answers look right and are not: none of them gets a figure that is not true."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pyinfra.api.host import Host

from stackmend.errors import StepError
from stackmend.worker.benchmark import measuring
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.spec import Limits, Profile
from stackmend.worker.benchmark.state import Summary
from stackmend.worker.benchmark.statistics import summarize
from tests.connected import local
from tests.unit.benchmark_server import Asked, Served, Wire, last, serving, text

pytestmark = pytest.mark.slow

TOKENS = 40


@pytest.fixture(scope="module")
def here() -> Iterator[Host]:
    with local() as host:
        yield host


def at(served: Served, protocol: Literal["ollama", "openai"] = "openai") -> Endpoint:
    return Endpoint(protocol, "127.0.0.1", served.port, "m")


def make_profile(**changed: Any) -> Profile:
    usual = {
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


def answer(wire: Wire, asked: Asked, first: float = 0.05, each: float = 0.002) -> None:
    """An honest answer."""
    wire.begin()
    time.sleep(first)
    for _ in range(asked.tokens):
        wire.chunk(text(" w"))
        time.sleep(each)
    wire.chunk(last(asked))
    wire.end()


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
