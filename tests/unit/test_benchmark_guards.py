"""Whom a measurement would disturb, and what it would fill: refused with its numbers."""

from __future__ import annotations

from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend import connection
from stackmend.worker.benchmark import guards, identity, occupation, plan
from stackmend.worker.benchmark.identity import Reply
from stackmend.worker.benchmark.plan import Measure
from stackmend.worker.benchmark.spec import BenchmarkSpec, Consent, Profile
from stackmend.worker.benchmark.state import (
    Answers,
    BenchmarkState,
    Conditions,
    Gpu,
    Loaded,
    Queue,
    Served,
    Usage,
)
from stackmend.worker.context import Shape
from tests.unit.test_benchmark_plan import GIB, MACHINE, SERVER, SPEC, STATE, change

#: Llama 3.1 8B: 128 KiB of context for each token.
SHAPE = Shape(layers=32, heads=8, key=128, value=128, trained=131072)

QUEUE = BenchmarkSpec(project="ai", target="queue")
OPENAI = BenchmarkSpec(project="ai", target="openai", service="llm")

TASKS = BenchmarkState(
    machine=MACHINE,
    answers=Answers(
        address="172.18.0.4",
        port=8000,
        engine="queue",
        models=(Served(name="tiny"),),
        queue=Queue(),
    ),
)


def watched(
    seconds: float, state: BenchmarkState = STATE, waited: float = 0.0, during: float = 0.5
) -> BenchmarkState:
    """The server's use of the CPU, within half a second."""
    usage = Usage(used=seconds, waited=waited, during=during)
    server = SERVER.model_copy(update={"usage": usage})
    return change(state, "machine", servers=(server,))


def answered(state: BenchmarkState = STATE, **fields: Any) -> BenchmarkState:
    return change(state, "answers", **fields)


def cramped(**fields: Any) -> BenchmarkState:
    """8 GiB are free, no GPU, and no limit; the model has 5 GiB and is not loaded."""
    server = SERVER.model_copy(update={"memory_limit": 0, **fields.pop("server", {})})
    machine = {"available": 8 * GIB, "gpus": (), "servers": (server,)}
    state = change(STATE, "machine", **machine | fields.pop("machine", {}))
    models = (Served(name="tiny:latest", digest="a" * 64, size=5 * GIB),)
    return answered(state, **{"loaded": (), "models": models, "version": "0.12.6"} | fields)


VRAM = {"gpus": (Gpu(name="NVIDIA L4", memory=24 * GIB, free=23 * GIB),), "available": 5 * GIB}

FEW = BenchmarkSpec(project="ai", profile=Profile(concurrency=(1,), requests=1, warmups=0))

BUSY = 'to allow it, add "busy" to allow in the stack\'s section worker.benchmark'
MEMORY = BUSY.replace("busy", "memory")
RAM = "; or start the server with LLAMA_ARG_CACHE_RAM=0"

REFUSED: dict[str, tuple[BenchmarkSpec, BenchmarkState, str, str]] = {
    "tasks wait": (
        QUEUE,
        answered(TASKS, queue=Queue(waiting=3, running=1)),
        "the queue is not empty: 3 waiting, 1 running; a measurement would slow that",
        BUSY,
    ),
    "a task runs": (
        QUEUE,
        answered(TASKS, queue=Queue(running=1)),
        "the queue is not empty: 0 waiting, 1 running; a measurement would slow that",
        BUSY,
    ),
    "tasks of the queue before the server": (
        SPEC,
        answered(queue=Queue(waiting=2)),
        "the queue is not empty: 2 waiting, 0 running; a measurement would slow that",
        BUSY,
    ),
    "it says so": (
        OPENAI,
        answered(requests=2),
        "it has 2 requests of others; a measurement would slow that",
        BUSY,
    ),
    "it counted some": (
        OPENAI,
        answered(requests=0, is_active=True),
        "it answered requests of others within 2.5 s; a measurement would slow that",
        BUSY,
    ),
    "its processes compute now and then": (
        OPENAI,
        watched(0.2, during=2.0),
        "ai-ollama-1 is computing: it used 0.20 s of CPU time within 2.00 s; "
        "a measurement would slow that",
        BUSY,
    ),
    "its processes compute": (
        SPEC,
        watched(0.31),
        "ai-ollama-1 is computing: it used 0.31 s of CPU time within 0.50 s; "
        "a measurement would slow that",
        BUSY,
    ),
    "its processes would compute, and are held up": (
        SPEC,
        watched(0.06, waited=0.44),
        "ai-ollama-1 is computing: it used 0.06 s of CPU time within 0.50 s; "
        "a measurement would slow that",
        BUSY,
    ),
    "weights": (
        SPEC,
        cramped(machine={"available": 5 * GIB, "swap": GIB}),
        "memory may run short: tiny:latest needs about 6.0 GiB to be loaded, and 5.0 GiB are free; "
        "1.0 GiB of swap are in use",
        MEMORY,
    ),
    "weights, and a GPU that the server is kept from": (
        SPEC,
        cramped(machine=VRAM, server={"settings": ("CUDA_VISIBLE_DEVICES=-1",)}),
        "memory may run short: tiny:latest needs about 6.0 GiB to be loaded, and 5.0 GiB are free",
        MEMORY,
    ),
    "context": (
        FEW,
        cramped(shape=SHAPE, server={"settings": ("OLLAMA_CONTEXT_LENGTH=32768",)}),
        "memory may run short: tiny:latest needs about 9.2 GiB to be loaded, and 8.0 GiB are free",
        MEMORY,
    ),
    "context of parallel requests": (
        FEW,
        cramped(shape=SHAPE, server={"settings": ("OLLAMA_NUM_PARALLEL=8",)}),
        "memory may run short: tiny:latest needs about 9.2 GiB to be loaded, and 8.0 GiB are free",
        MEMORY,
    ),
    "prompts that are kept, and weights": (
        SPEC,
        cramped(shape=SHAPE, version="0.33.1", server={"settings": ("OLLAMA_NUM_PARALLEL=1",)}),
        "memory may run short: tiny:latest needs about 5.8 GiB to be loaded, its server keeps up "
        "to 8.0 GiB of the prompts of a measurement, and 8.0 GiB are free",
        MEMORY + RAM,
    ),
    "prompts within a limit": (
        SPEC,
        cramped(
            shape=SHAPE,
            version="0.33.1",
            loaded=(Loaded(name="tiny:latest", size=6 * GIB),),
            server={"memory_limit": 7 * GIB, "settings": ("LLAMA_ARG_CACHE_RAM=2048",)},
        ),
        "memory may run short: its server keeps up to 2.0 GiB of the prompts of a measurement, "
        "and 1.0 GiB are free",
        MEMORY + RAM,
    ),
}

#: Another model is loaded, which nothing but its consent lets stay.
BESIDE = SPEC.model_copy(update={"allow": ("model",)})


@pytest.mark.parametrize(
    ("loaded", "machine", "server", "free"),
    [
        # What a server does with the model that it has, it will do with the next.
        (Loaded(name="big:latest", size=GIB), VRAM, {}, "5.0 GiB are free"),
        # What others have of its limit is not free.
        (Loaded(name="big:latest", size=3 * GIB), {}, {"memory_limit": 8 * GIB}, "5.0 GiB are"),
    ],
)
def test_what_another_model_has_is_not_free(
    loaded: Loaded, machine: dict[str, Any], server: dict[str, Any], free: str
) -> None:
    state = cramped(loaded=(loaded,), machine=machine, server=server)
    (refusal,) = plan.plan(BESIDE, state).refusals
    assert free in refusal.reason
    assert "needs about 6.0 GiB" in refusal.reason


#: What looks like one of these and is none.
ALLOWED: dict[str, tuple[BenchmarkSpec, BenchmarkState]] = {
    "an empty queue": (QUEUE, TASKS),
    "a queue that is not known": (SPEC, answered(queue=None)),
    "a healthcheck, or a timer": (SPEC, watched(0.14)),
    "a timer that is held up": (SPEC, watched(0.01, waited=0.6)),
    "a scheduler that spins, and no requests": (OPENAI, answered(watched(0.5), requests=0)),
    "exactly what fits": (SPEC, cramped(machine={"available": 6 * GIB})),
    "a GPU has the room": (SPEC, cramped(machine=VRAM)),
    "no prompts kept": (
        FEW,
        cramped(shape=SHAPE, version="0.33.1", server={"settings": ("LLAMA_ARG_CACHE_RAM=0",)}),
    ),
    "an old server keeps none": (SPEC, cramped(shape=SHAPE)),
    # 320 prompts of 640 tokens would take 25 GiB, and no more than 8 are kept.
    "as many prompts as are kept": (
        SPEC,
        cramped(shape=SHAPE, version="0.33.1", loaded=(Loaded(name="tiny:latest", size=GIB),)),
    ),
    "few prompts": (FEW, cramped(shape=SHAPE, version="0.33.1")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_who_or_what_would_be_disturbed_is_refused_with_numbers(kind: str) -> None:
    spec, state, reason, remedy = REFUSED[kind]
    (refusal,) = plan.plan(spec, state).refusals
    assert (refusal.subject, refusal.reason) == (spec.server, reason)
    assert refusal.remedy == remedy


@pytest.mark.parametrize("kind", REFUSED)
def test_only_its_own_consent_allows_it(kind: str) -> None:
    spec, state, _, remedy = REFUSED[kind]
    own = next(name for name in get_args(Consent) if f'"{name}"' in remedy)
    for consent in get_args(Consent):
        found = plan.plan(spec.model_copy(update={"allow": (consent,)}), state)
        assert bool(found.refusals) is (consent != own)
        assert any(isinstance(action, Measure) for action in found.actions)


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_disturbs_nobody_is_measured(kind: str) -> None:
    spec, state = ALLOWED[kind]
    assert plan.plan(spec, state).refusals == ()


@given(
    queue=st.none() | st.builds(Queue, waiting=st.integers(0, 3), running=st.integers(0, 3)),
    used=st.none() | st.floats(0, 2),
    others=st.booleans(),
    available=st.integers(GIB, 20 * GIB),
    allow=st.sets(st.sampled_from(get_args(Consent))),
)
def test_nothing_is_measured_without_the_consent_of_each_guard(
    queue: Queue | None, used: float | None, others: bool, available: int, allow: set[Consent]
) -> None:
    state = cramped(
        queue=queue,
        shape=SHAPE,
        loaded=(Loaded(name="big:latest", size=GIB),) if others else (),
        machine={"available": available},
        server={"usage": None if used is None else Usage(used=used, during=0.5)},
    )
    needed = set()
    if (queue is not None and queue.waiting + queue.running) or (used or 0) > 0.15:
        needed.add("busy")
    if others:
        needed.add("model")
    if guards.find_need(state, state.answers.models[0]) > available:
        needed.add("memory")
    spec = SPEC.model_copy(update={"allow": tuple(allow)})
    refusals = plan.plan(spec, state).refusals
    assert len(refusals) == len(needed - allow)
    for consent in needed - allow:
        assert any(f'"{consent}"' in refusal.remedy for refusal in refusals)


# While it is measured


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(), ""),
        (Conditions(oom_kills=0, available=0.5, swapped=10_000), ""),
        (Conditions(available=0.08, swapped=256), ""),
        (Conditions(oom_kills=1), "the kernel killed 1 process for memory"),
        (Conditions(oom_kills=2, available=0.9), "the kernel killed 2 processes for memory"),
        (Conditions(available=0.049), "4.9% of the host's memory are left"),
        (
            Conditions(available=0.08, swapped=300),
            "the host swaps: 300 pages came in, and 8.0% of its memory are left",
        ),
    ],
)
def test_a_measurement_ends_before_the_memory_does(conditions: Conditions, reason: str) -> None:
    assert guards.find_shortage(conditions) == reason


# What servers and queues say

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="a b"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a b"} 1.0
vllm:num_requests_waiting_by_reason{engine="0"} 7.0
"""


def test_requests_that_a_server_has() -> None:
    assert identity.parse_metrics(METRICS) == 3
    assert (
        identity.parse_metrics("llamacpp:requests_processing 1\nllamacpp:requests_deferred 4") == 5
    )
    assert identity.parse_metrics("llamacpp:requests_processing -1\nx 3") is None
    assert identity.parse_slots([{"is_processing": True}, {"is_processing": False}]) == 1
    assert identity.parse_slots([{"id": 0}]) is None
    assert identity.parse_slots({"error": {"code": 501}}) is None


COUNTED = """\
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="a b"} 1.2e+06
vllm:prompt_tokens_created{engine="0"} 1.7e+09
llamacpp:tokens_predicted_total 7
http_requests_total 4
"""


def test_what_a_server_counts_of_its_requests() -> None:
    assert identity.parse_counters(COUNTED) == {
        'vllm:prompt_tokens_total{engine="0",model_name="a b"}': "1.2e+06",
        "llamacpp:tokens_predicted_total": "7",
    }
    assert identity.parse_counters("http_requests_total 4") is None
    slots = [{"id_task": 41}, {"id_task": -1}, {}, 7]
    assert identity.parse_slot_tasks(slots) == {"slot 0": "41", "slot 1": "-1"}
    assert identity.parse_slot_tasks([{"id": 0}]) is None
    row = {"name": "tiny", "expires_at": "2026-11-30T12:00:00Z"}
    assert identity.parse_ends({"models": [row]}) == {"tiny": "2026-11-30T12:00:00Z"}
    assert identity.parse_ends({"models": []}) == {}
    assert identity.parse_ends([row]) is None


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, False),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
        ({"a": "1"}, {"a": "2"}, True),
        ({}, {"a": "1"}, True),
    ],
)
def test_a_server_in_use_counts_on(
    before: dict[str, str], after: dict[str, str], changed: bool
) -> None:
    assert identity.has_changed(before, after) is changed


def test_a_server_that_counts_nothing_is_watched_for_longer() -> None:
    short = watched(0.02)
    assert guards.has_to_be_watched(OPENAI, short)
    assert not guards.has_to_be_watched(OPENAI, answered(short, is_active=False))
    assert not guards.has_to_be_watched(OPENAI.model_copy(update={"allow": ("busy",)}), short)
    assert not guards.has_to_be_watched(OPENAI, STATE), "nothing is known of its use"
    readings = [watched(used).machine for used in (0.02, 0.2, 0.04, 0.1)]
    (server,) = guards.add_readings(readings).servers
    assert server.usage is not None
    assert (round(server.usage.used, 2), server.usage.during) == (0.36, 2.0)
    assert guards.is_computing(server.usage)
    # A server that waits uses less than a hundredth.
    idle = guards.add_readings([watched(0.005).machine] * 4).servers[0].usage
    assert idle is not None
    assert not guards.is_computing(idle)


HEALTH = {
    "redis": "ok",
    "queue": {"waiting": 2, "running": 1, "delayed": 3},
    "workers": {"w1": {"model": "b", "ollama": "ok"}, "w2": {"model": "a", "ollama": "ok"}},
}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(200, HEALTH), ""),
        (Reply(503, {"redis": "away"}), "it answers HTTP 503"),
        (Reply(200, {"status": "ok"}), "what answers there is no queue of this kind"),
        (Reply(200, {**HEALTH, "queue": {"waiting": -1, "running": 0, "delayed": 0}}), "no queue"),
        (Reply(200, {**HEALTH, "workers": {}}), "no worker takes the tasks of the queue"),
        (
            Reply(200, {**HEALTH, "workers": {"w": {"ollama": "model 'x' not found"}}}),
            "its worker says: model 'x' not found",
        ),
    ],
)
def test_what_a_queue_says_of_itself(reply: Reply, reason: str) -> None:
    found = identity.parse_queue_server(reply, None)
    if reason:
        assert reason in found.reason
        return
    assert found.reason == ""
    assert found.queue == Queue(waiting=5, running=1, delayed=3)
    assert [model.name for model in found.models] == ["a, b"]
    assert identity.parse_queue_server(reply, "c").models == (Served(name="c"),)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("llama9", ["tiny:latest", "qwen3:4b"]),
        ("qwen3", ["tiny:latest", "qwen3:4b"]),
        ("Tiny", ["Tiny"]),
        ("qwen3:4b", ["qwen3:4b"]),
    ],
)
def test_a_model_that_no_worker_s_server_has_is_refused_at_once(
    asked: str, expected: list[str]
) -> None:
    worker = {"model": "tiny", "ollama": "ok", "models": ["tiny:latest", "qwen3:4b", 7]}
    old = {"model": "tiny", "ollama": "ok"}
    reply = Reply(200, {**HEALTH, "workers": {"old": old, "new": worker}})
    found = identity.parse_queue_server(reply, asked)
    assert [model.name for model in found.models] == expected
    spec = BenchmarkSpec(project="ai", target="queue", model=asked)
    refused = plan.plan(spec, BenchmarkState(machine=MACHINE, answers=found)).refusals
    missing = f"it has no model {asked}; it has tiny:latest, qwen3:4b"
    assert (missing in [refusal.reason for refusal in refused]) is (expected != [asked])


def test_tasks_that_were_put_off_are_named() -> None:
    state = answered(queue=Queue(waiting=3, delayed=1))
    (refusal,) = guards.list_refusals(SPEC, state)
    assert "3 waiting (1 put off after a failed attempt), 0 running" in refusal.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["queue", "waiting", "running", "delayed", "workers", "is_processing"]),
            children,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.text(max_size=80))
def test_whatever_they_say_is_parsed(body: Any, text: str) -> None:
    found = identity.parse_queue_server(Reply(200, body), None)
    assert found.reason.isprintable()
    assert identity.parse_slots(body) is None or isinstance(body, list)
    assert (identity.parse_metrics(text) or 0) >= 0


# For rooms that would disturb them as well


def test_what_another_room_would_disturb_is_read_by_the_same_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[Any] = [MACHINE]
    answers = Answers(address="172.18.0.4", port=8000, engine="llama.cpp")
    monkeypatch.setattr(connection, "fetch_facts", lambda *_: read)
    monkeypatch.setattr(identity, "ask", lambda *_: answers)
    for more, reason in (
        ({"requests": 0}, ""),
        ({"requests": 2}, "it has 2 requests of others"),
        ({"queue": Queue(waiting=3)}, "the queue is not empty: 3 waiting, 0 running"),
    ):
        completed = answers.model_copy(update=more)
        monkeypatch.setattr(identity, "complete", lambda *_, found=completed: found)
        assert occupation.read_busy(cast(Any, None), OPENAI) == reason
    interrupted = Answers(reason="it is llama-cpp-python, and 1 connection", remedy="run again")
    monkeypatch.setattr(identity, "ask", lambda *_: interrupted)
    assert occupation.read_busy(cast(Any, None), OPENAI) == interrupted.reason
    read[0] = connection.Unknown("it does not answer")
    assert "cannot be read: it does not answer" in occupation.read_busy(cast(Any, None), OPENAI)
