"""Asking a server what it is disturbs nobody, and waits for a model that is being loaded."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from stackmend.errors import StepError
from stackmend.reporting.collect import Collector
from stackmend.worker.benchmark import identity, learning, loading
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.identity import Reply, explain_silence, parse_queue_server
from stackmend.worker.benchmark.learning import prepare
from stackmend.worker.benchmark.plan import plan
from stackmend.worker.benchmark.reconciler import BenchmarkReconciler
from stackmend.worker.benchmark.spec import BenchmarkSpec, Profile
from stackmend.worker.benchmark.state import Answers, BenchmarkState, Machine, Record, Server, Usage
from tests.paced import Paced
from tests.unit.benchmark_world import Noise, entry, measure

pytestmark = pytest.mark.slow

PACE = {"ttft": 0.02, "tpot": 0.002, "trap": "", "loading": 0, "build": ""}

IDLE = Server(connections=0, usage=Usage(used=0.0, during=0.5))

#: llama-cpp-python's, and that of another program of FastAPI.
DESCRIBED = Reply(200, {"info": {"title": "🦙 llama.cpp Python API"}})
OTHER = Reply(200, {"info": {"title": "FastAPI"}})


def make_spec(server: Paced, **fields: Any) -> BenchmarkSpec:
    endpoint: Any = f"http://127.0.0.1:{server.port}/v1"
    return BenchmarkSpec(project="ai", target="openai", endpoint=endpoint, **fields)


def make_machine(*servers: Server) -> Machine:
    return Machine(now=1_700_000_000, servers=servers)


class Stream:
    """An answer of 50 tokens to somebody else, which takes 1.5 s."""

    def __init__(self, server: Paced) -> None:
        server.set(trap="interrupts", ttft=0.1, tpot=0.03)
        self._server = server
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        body = {"model": "paced", "prompt": "a b", "max_tokens": 50, "stream": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._server.port}/v1/completions", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.read()

    def __enter__(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not any(record.tokens for record in self._server.read_records()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)

    @property
    def tokens(self) -> int:
        """That it came to."""
        (record,) = self._server.read_records()
        return record.tokens


@pytest.mark.parametrize(
    ("servers", "reason"),
    [
        ((IDLE.model_copy(update={"connections": 1}),), "1 connection of others to it last"),
        ((IDLE.model_copy(update={"connections": 3}),), "3 connections of others to it last"),
        (
            (IDLE.model_copy(update={"usage": Usage(used=0.5, during=0.5)}),),
            "it used 0.50 s of CPU time within 0.50 s",
        ),
        ((IDLE.model_copy(update={"connections": None}),), "cannot see who is connected to it"),
        ((), "cannot see who is connected to it"),
    ],
)
def test_looking_ends_no_answer(
    here: Host, server: Paced, servers: tuple[Server, ...], reason: str
) -> None:
    machine, spec = make_machine(*servers), make_spec(server)
    stream = Stream(server)
    with stream:
        found = identity.ask(here, spec, machine)
    assert stream.tokens == 50
    assert reason in found.reason
    assert "llama-cpp-python" in found.reason
    (refusal,) = plan(spec, BenchmarkState(machine=machine, answers=found)).refusals
    assert 'add "busy" to allow' in refusal.remedy
    assert refusal.remedy.startswith("run again when nobody uses it")


def test_who_consents_has_it_asked_all_the_same(here: Host, server: Paced) -> None:
    """The server of these tests does end an answer for the list of models."""
    stream = Stream(server)
    with stream:
        found = identity.ask(here, make_spec(server, allow="busy"), make_machine())
    assert stream.tokens < 50
    assert (found.engine, found.reason) == ("llama-cpp-python", "")


def test_an_idle_server_is_asked(here: Host, server: Paced) -> None:
    server.set(trap="interrupts")
    found = identity.ask(here, make_spec(server), make_machine(IDLE))
    assert (found.engine, found.reason) == ("llama-cpp-python", "")
    assert [model.name for model in found.models] == ["paced"]


def test_llama_cpp_is_asked_whatever_it_does(here: Host, server: Paced) -> None:
    server.set(build="b6000")
    found = identity.ask(here, make_spec(server), make_machine())
    assert (found.engine, found.version, found.reason) == ("llama.cpp", "b6000", "")


BUSY = Server(connections=2)
PATIENT = [
    BUSY.model_copy(update={"settings": (setting,)})
    for setting in (
        "INTERRUPT_REQUESTS=false",
        "arguments: -m llama_cpp.server --interrupt_requests False --n_ctx 2048",
        "arguments: --interrupt_requests=0",
    )
]


@pytest.mark.parametrize(
    ("described", "known", "server", "silent"),
    [
        (DESCRIBED, "", BUSY, True),
        (DESCRIBED, "openai", BUSY, True),
        (DESCRIBED, "", IDLE, False),
        *((DESCRIBED, "", server, False) for server in PATIENT),
        (DESCRIBED, "", BUSY.model_copy(update={"settings": ("INTERRUPT_REQUESTS=true",)}), True),
        # It may be one behind a proxy that hides this, unless it was another one before.
        (Reply(404), "", BUSY, True),
        (Reply(404), "llama-cpp-python", BUSY, True),
        (Reply(404), "openai", BUSY, False),
        (OTHER, "", BUSY, False),
        (Reply(200, {"info": {"title": 5}}), "", BUSY, True),
    ],
)
def test_who_may_be_asked(described: Reply, known: str, server: Server, silent: bool) -> None:
    assert bool(explain_silence(described, known, server)) is silent


# A model that is being loaded


@pytest.fixture
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PAUSE", 0.01)


@pytest.mark.usefixtures("_without_pauses")
def test_a_server_that_loads_its_model_is_waited_for(here: Host, server: Paced) -> None:
    """llama.cpp listens before it has its model."""
    profile = Profile(prompt_tokens=64, output_tokens=12, timeout=5, warmups=0)
    endpoint = Endpoint("openai", "127.0.0.1", server.port, "paced")
    server.set(loading=3)
    prepared = prepare(here, endpoint, profile)
    assert prepared.prompt_tokens == 64
    server.set(loading=3, build="b6000")
    found = identity.ask(here, make_spec(server), make_machine())
    # What says its version was asked while it loaded.
    assert (found.version, found.context, found.reason) == ("b6000", 4096, "")


@pytest.mark.usefixtures("_without_pauses")
def test_a_server_that_loads_for_too_long_is_refused(
    here: Host, server: Paced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "LOADING", 0.2)
    profile = Profile(prompt_tokens=64, output_tokens=12, timeout=1, warmups=0)
    server.set(loading=10**6)
    endpoint = Endpoint("openai", "127.0.0.1", server.port, "paced")
    with pytest.raises(StepError, match=r"Loading model \(HTTP 503\)"):
        prepare(here, endpoint, profile)
    spec = make_spec(server, profile=profile)
    machine = make_machine(IDLE)
    found = identity.ask(here, spec, machine)
    assert "it still loads its model" in found.reason
    (refusal,) = plan(spec, BenchmarkState(machine=machine, answers=found)).refusals
    assert refusal.remedy == "wait until it has loaded its model, then run again"


@pytest.mark.parametrize(
    ("target", "reason"),
    [("ollama", "it answers HTTP 404"), ("queue", "it answers HTTP 404")],
)
def test_a_server_that_is_not_the_one_meant_is_not_to_be_started(
    here: Host, server: Paced, target: Any, reason: str
) -> None:
    # The paced server speaks Ollama's API too, but not there.
    endpoint: Any = f"http://127.0.0.1:{server.port}/elsewhere"
    spec = BenchmarkSpec(project="ai", target=target, endpoint=endpoint)
    machine = make_machine(IDLE)
    found = identity.ask(here, spec, machine)
    (refusal,) = plan(spec, BenchmarkState(machine=machine, answers=found)).refusals
    assert refusal.reason == reason
    assert refusal.remedy == identity.CORRECT


def test_a_server_that_is_not_there_is_named_once(here: Host) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        endpoint: Any = f"http://127.0.0.1:{port}"
        spec = BenchmarkSpec(project="ai", endpoint=endpoint)
        machine = make_machine()
        found = identity.ask(here, spec, machine)
    (refusal,) = plan(spec, BenchmarkState(machine=machine, answers=found)).refusals
    assert refusal.reason.startswith(f"it does not answer at port {port}: ")
    assert "http://" not in refusal.reason.removeprefix(f"it does not answer at port {port}: ")
    assert refusal.remedy == identity.START


@pytest.mark.parametrize(
    ("reply", "reason", "remedy"),
    [
        (Reply(401), "it asks for a key (HTTP 401)", 'add "api_key" to the section'),
        (Reply(503), "it answers HTTP 503", identity.READ_LOG),
        (Reply(200, reason="no JSON"), "its answer is no JSON: no JSON", identity.CORRECT),
        (Reply(200, {"status": "ok"}), "what answers there is no queue", identity.CORRECT),
    ],
)
def test_an_answer_that_says_nothing_has_the_remedy_for_it(
    reply: Reply, reason: str, remedy: str
) -> None:
    found = parse_queue_server(reply, None)
    assert found.reason.startswith(reason)
    assert found.remedy.startswith(remedy)


def test_a_refusal_shows_no_result_of_before(here: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look like the answer of the server that is asked now."""
    spec = BenchmarkSpec(project="ai")
    latest = entry(measure(Noise(seed=1)), 1_700_000_000)
    machine = make_machine().model_copy(update={"record": Record(latest=latest)})
    answers = Answers(reason="it answers HTTP 404", remedy=identity.CORRECT)
    state = BenchmarkState(machine=machine, answers=answers)
    monkeypatch.setattr(BenchmarkReconciler, "_read", lambda _self, *, fresh: state)
    shown: list[Path] = []
    report = Collector("worker.benchmarked")
    observed = BenchmarkReconciler(here, spec, report, shown.append).observe()
    assert observed.plan.refusals
    assert (shown, report.measures) == ([], {})
