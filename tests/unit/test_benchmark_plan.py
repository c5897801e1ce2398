"""Whether a server is measured, with which cause, and what its result falls short of."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.worker.benchmark import baseline, fingerprint, plan, store
from stackmend.worker.benchmark.plan import Collect, Measure
from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import (
    Answers,
    BenchmarkState,
    Conditions,
    Entry,
    Fingerprint,
    Gpu,
    Level,
    Loaded,
    Machine,
    Record,
    Served,
    Server,
)
from stackmend.worker.benchmark.steadiness import find_client_noise
from tests.benchmarks.gate import KINDS
from tests.unit.benchmark_world import Noise, Series, measure, summarize

NOW = 1_700_000_000.0

GIB = 1 << 30

SERVER = Server(
    container="c" * 64,
    name="ai-ollama-1",
    process=4711,
    image="sha256:" + "1" * 64,
    addresses=(("172.18.0.2", 11434),),
    quota=4.0,
    memory_limit=32 * GIB,
    settings=("OLLAMA_NUM_PARALLEL=4",),
    threads=4,
)

MACHINE = Machine(
    now=NOW,
    cpu="EPYC 7003",
    cores=8,
    memory=64 * GIB,
    available=50 * GIB,
    gpus=(Gpu(name="NVIDIA L4", memory=24 * GIB, free=20 * GIB),),
    driver="550.1",
    servers=(SERVER,),
)

ANSWERS = Answers(
    address="172.18.0.2",
    port=11434,
    engine="ollama",
    version="0.33.0",
    models=(Served(name="tiny:latest", digest="a" * 64, size=GIB),),
    loaded=(Loaded(name="tiny:latest", size=GIB, vram=GIB, context=4096),),
)

SPEC = BenchmarkSpec(project="ai")

STATE = BenchmarkState(machine=MACHINE, answers=ANSWERS)


def build(state: BenchmarkState = STATE, spec: BenchmarkSpec = SPEC) -> Fingerprint:
    model = fingerprint.find_model(spec, state.answers)
    assert model is not None
    return fingerprint.build(spec, state, model)


def make_entry(at: float = NOW - 3600, slower: float = 1.0, seed: int = 1, **more: Any) -> Entry:
    levels = measure(Noise(repeat=0.005, seed=seed), slower)
    return Entry(
        at=at,
        cause="it was never measured",
        fingerprint=more.get("fingerprint", build()),
        summaries=summarize(levels),
    )


ENTRY = make_entry()


def recorded(
    latest: Entry | None = ENTRY, held: Entry | None = None, **more: Any
) -> BenchmarkState:
    references = baseline.make_references(held) if held is not None else ()
    record = Record(latest=latest, held=references, **more)
    return STATE.model_copy(update={"machine": MACHINE.model_copy(update={"record": record})})


def change(state: BenchmarkState, part: str, **fields: Any) -> BenchmarkState:
    return state.model_copy(update={part: getattr(state, part).model_copy(update=fields)})


def cause(state: BenchmarkState, spec: BenchmarkSpec = SPEC) -> str:
    found = plan.plan(spec, state)
    assert found.refusals == ()
    (action,) = found.actions
    assert isinstance(action, Measure)
    return action.cause


def test_what_was_never_measured_is() -> None:
    found = plan.plan(SPEC, STATE)
    (action,) = found.actions
    assert str(action) == "measure service ollama: it was never measured"
    assert isinstance(action, Measure)
    assert (action.model, action.fingerprint) == ("tiny:latest", build())


def test_a_result_that_holds_is_the_answer() -> None:
    assert plan.plan(SPEC, recorded()).empty


def server(**fields: Any) -> dict[str, Any]:
    return {"servers": (SERVER.model_copy(update=fields),)}


CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "version": ("answers", {"version": "0.34.0"}, "the server's version changed: 0.33.0 → 0.34.0"),
    "engine": ("answers", {"engine": "vllm"}, "the server changed: ollama → vllm"),
    "model": (
        "answers",
        {"models": (Served(name="tiny:latest", digest="b" * 64),)},
        f"the model's digest changed: {'a' * 12} → {'b' * 12}",
    ),
    "context": (
        "answers",
        {"loaded": (Loaded(name="tiny:latest", size=GIB, vram=GIB, context=8192),)},
        "the model's context changed: 4096 tokens → 8192 tokens",
    ),
    "processor": (
        "answers",
        {"loaded": (Loaded(name="tiny:latest", size=GIB, vram=GIB // 2, context=4096),)},
        "where the model lies changed: gpu → 50% gpu",
    ),
    "image": (
        "machine",
        server(image="sha256:" + "2" * 64),
        f"the digest of the server's image changed: {'1' * 12} → {'2' * 12}",
    ),
    "threads": ("machine", server(threads=8), "the number of threads changed: 4 → 8"),
    "quota": ("machine", server(quota=0.0), "the CPUs that the server may use changed: 4 → all"),
    "limit": (
        "machine",
        server(memory_limit=16 * GIB),
        "the memory that the server may have changed: 32.0 GiB → 16.0 GiB",
    ),
    "settings": (
        "machine",
        server(settings=("OLLAMA_FLASH_ATTENTION=1", "OLLAMA_NUM_PARALLEL=2")),
        "the server's settings changed: OLLAMA_NUM_PARALLEL=4 → OLLAMA_NUM_PARALLEL=2, "
        "none → OLLAMA_FLASH_ATTENTION=1",
    ),
    "replicas": (
        "machine",
        {"servers": (SERVER, SERVER)},
        "the number of replicas changed: 1 → 2",
    ),
    "gpu gone": ("machine", {"gpus": ()}, "the GPUs changed: NVIDIA L4 24.0 GiB → none"),
    "driver": ("machine", {"driver": "560"}, "the GPUs' driver changed: 550.1 → 560"),
    "cpu": ("machine", {"cpu": "Xeon"}, "the CPU changed: EPYC 7003 → Xeon"),
    "cores": ("machine", {"cores": 16}, "the number of cores changed: 8 → 16"),
    "memory": ("machine", {"memory": 128 * GIB}, "the host's memory changed: 64.0 GiB → 128.0 GiB"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_change_is_measured_with_its_cause(kind: str) -> None:
    part, fields, expected = CHANGES[kind]
    assert cause(change(recorded(), part, **fields)) == expected


def test_every_field_of_a_fingerprint_is_compared() -> None:
    """One that is forgotten in the words would never be noticed."""
    assert set(fingerprint._FIELDS) == set(Fingerprint.model_fields)


def test_two_changes_are_both_named() -> None:
    state = change(change(recorded(), "machine", cores=16), "answers", version="0.34.0")
    assert cause(state) == (
        "the server's version changed: 0.33.0 → 0.34.0; the number of cores changed: 8 → 16"
    )


def test_a_worker_of_a_queue_that_changes() -> None:
    spec = BenchmarkSpec(project="ai", target="queue", model="tiny:latest")
    workers = (Server(image="sha256:" + "7" * 64),)
    state = change(STATE, "machine", workers=workers)
    entry = make_entry(fingerprint=build(state, spec))
    twice = change(recorded(entry), "machine", workers=workers * 2)
    assert cause(twice, spec) == "the number of replicas changed: 1 → 2"
    anew = change(recorded(entry), "machine", workers=(Server(image="sha256:" + "8" * 64),))
    assert cause(anew, spec) == (
        f"the digest of the worker's image changed: {'7' * 12} → {'8' * 12}"
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"output_tokens": 64}, "output_tokens: 128 → 64"),
        ({"prompt_tokens": 64, "warmups": 0}, "prompt_tokens: 512 → 64; warmups: 2 → 0"),
        ({"concurrency": (1, 4)}, "concurrency: 1,2,4,8 → 1,4"),
        ({"requests": 16}, "requests: 8, or 4 for each at one time → 16"),
        (
            {"rate": 1.5, "requests": 16},
            "concurrency: 1,2,4,8 → none; rate: none → 1.5; "
            "requests: 8, or 4 for each at one time → 16",
        ),
    ],
)
def test_of_what_is_asked_the_parts_that_change_are_named(asked: Any, expected: str) -> None:
    assert cause(recorded(), BenchmarkSpec(project="ai", profile=asked)) == expected


@given(
    before=st.builds(dict, profile=st.just({}), target=st.sampled_from(["ollama", "queue"])),
    model=st.text(min_size=1, max_size=40),
    other=st.text(min_size=1, max_size=40),
)
def test_whatever_is_asked_differs_by_its_model(before: Any, model: str, other: str) -> None:
    spec = BenchmarkSpec(project="ai", **before)
    old, new = (
        Fingerprint(parameters=fingerprint.make_parameters(spec, name), engine="ollama")
        for name in (model, other)
    )
    assert bool(fingerprint.list_changes(old, new)) is (model != other)


def test_what_was_asked_in_another_form_is_named_as_a_whole() -> None:
    old = Fingerprint(parameters="protocol 0", engine="ollama")
    (found,) = fingerprint.list_changes(old, old.model_copy(update={"parameters": "protocol 1"}))
    assert found == "what is asked changed: protocol 0 → protocol 1"


def test_a_minimum_or_a_limit_is_nothing_that_is_asked() -> None:
    spec = BenchmarkSpec(
        project="ai", minimum={"goodput": 0.1}, profile={"limits": {"end": 100}}, threshold=0.3
    )
    assert fingerprint.make_parameters(spec, "m") == fingerprint.make_parameters(SPEC, "m")


def test_other_limits_of_a_good_request_are_measured_and_stay_comparable() -> None:
    spec = BenchmarkSpec(project="ai", profile={"limits": {"end": 100}})
    assert cause(recorded(), spec) == "the limits of a good request changed"
    assert fingerprint.is_comparable(build(spec=spec), ENTRY.fingerprint)


def test_what_a_server_does_not_say_reaches_no_minimum() -> None:
    silent = summarize(measure(Noise()))
    silent = tuple(
        row.model_copy(update={"median": row.median.model_copy(update={"decode_tps": None})})
        for row in silent
    )
    spec = BenchmarkSpec(project="ai", minimum={"decode_tps": 5})
    entry = ENTRY.model_copy(update={"summaries": silent})
    (finding,) = plan.plan(spec, recorded(entry)).problems
    assert finding.cause == (
        "decoding: the server does not say it, so nothing is known to reach 5 tokens/s"
    )


@pytest.mark.parametrize("field", sorted(fingerprint.WHILE_LOADED))
def test_a_model_that_was_unloaded_meanwhile_is_no_change(field: str) -> None:
    state = change(recorded(), "answers", loaded=())
    state = change(state, "machine", **server(threads=0))
    assert getattr(build(state), field) in ("", 0)
    assert plan.plan(SPEC, state).empty
    later = fingerprint.complete(build(state), build())
    assert later == build()


def test_a_kernel_that_keeps_a_little_more_memory_is_no_change() -> None:
    assert plan.plan(SPEC, change(recorded(), "machine", memory=64 * GIB - (200 << 20))).empty


@pytest.mark.parametrize(
    ("age", "max_age", "expected"),
    [
        (3600, "2h", ""),
        (7201, "2h", "the stored result is 2 h old, more than 2 h"),
        (8 * 86400, "7d", "the stored result is 8 d old, more than 7 d"),
        (0, 0, ""),
        (1, 0, "the stored result is 1 s old, more than 0 s"),
        (-200, "7d", ""),
        (-86400, "7d", "the stored result is of a time to come: the host's clock was set"),
    ],
)
def test_age(age: float, max_age: Any, expected: str) -> None:
    spec = BenchmarkSpec(project="ai", max_age=max_age)
    state = recorded(make_entry(at=NOW - age))
    if expected:
        assert cause(state, spec) == expected
    else:
        assert plan.plan(spec, state).empty


def test_a_result_that_is_not_on_the_controller_is_collected() -> None:
    found = plan.plan(SPEC, recorded().model_copy(update={"collected": False}))
    (action,) = found.actions
    assert isinstance(action, Collect)
    assert action.cause == "its result is not on this controller yet"


def test_a_result_that_was_held_against_another_minimum_is_collected_again() -> None:
    state = recorded().model_copy(update={"is_outdated": True})
    (action,) = plan.plan(SPEC, state).actions
    assert isinstance(action, Collect)
    assert action.cause == "minimum changed since it was collected"


def test_a_record_that_cannot_be_read_is_said_and_written_anew() -> None:
    found = plan.plan(SPEC, change(STATE, "machine", record_problem="it is no JSON"))
    assert [finding.cause for finding in found.findings] == ["it is no JSON"]
    assert found.problems == ()
    assert len(found.actions) == 1


@pytest.mark.parametrize(
    ("answers", "spec", "reason", "remedy"),
    [
        ({"reason": "it is silent"}, SPEC, "it is silent", "start the server, then run again"),
        ({"models": ()}, SPEC, "it has no model", "pull a model first"),
        (
            {"models": (Served(name="a:1"), Served(name="b:1"))},
            SPEC,
            "it has 2 models: a:1, b:1",
            'add "model" to the section worker.benchmark',
        ),
        (
            {},
            BenchmarkSpec(project="ai", model="other"),
            "it has no model other; it has tiny:latest",
            "pull the model",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    answers: dict[str, Any], spec: BenchmarkSpec, reason: str, remedy: str
) -> None:
    found = plan.plan(spec, change(STATE, "answers", **answers))
    (refusal,) = found.refusals
    assert refusal.reason == reason
    assert remedy in refusal.remedy
    assert found.actions == ()


def test_a_request_beyond_the_context_is_refused_before_it_is_measured() -> None:
    spec = BenchmarkSpec(project="ai", profile={"prompt_tokens": 4000, "output_tokens": 500})
    (refusal,) = plan.plan(spec, STATE).refusals
    assert refusal.reason == (
        "the model's context has 4096 tokens, and a request of the profile needs 4500: 4000 of the "
        "prompt and 500 of the answer"
    )
    assert "a context of 4500 tokens at least" in refusal.remedy
    fits = BenchmarkSpec(project="ai", profile={"prompt_tokens": 3596, "output_tokens": 500})
    assert plan.plan(fits, STATE).refusals == ()
    # Of a model that is not loaded it is known once it was measured, and is said then.
    unloaded = change(STATE, "answers", loaded=())
    assert plan.plan(spec, unloaded).refusals == ()
    measured = make_entry(fingerprint=build(STATE, spec))
    found = plan.plan(spec, change(unloaded, "machine", record=Record(latest=measured)))
    narrow = [row for row in found.findings if row.kind == "narrow context"]
    assert [(row.cause, row.blocks) for row in narrow] == [(refusal.reason, False)]


def test_a_name_without_its_tag_is_latest() -> None:
    assert cause(STATE, BenchmarkSpec(project="ai", model="Tiny")) == "it was never measured"


def test_of_two_names_the_exact_one_is_asked() -> None:
    rows = ("FOO", "foo", "tiny:LATEST", "tiny:latest", "Bar")
    answers = Answers(models=tuple(Served(name=name) for name in rows))
    for asked, found in (("foo", "foo"), ("FOO", "FOO"), ("tiny", "tiny:latest"), ("bar", "Bar")):
        model = fingerprint.find_model(BenchmarkSpec(project="ai", model=asked), answers)
        assert model is not None
        assert model.name == found


# Guards


def test_another_model_in_memory_is_a_refusal_unless_it_is_allowed() -> None:
    loaded = (*(ANSWERS.loaded or ()), Loaded(name="big:latest", size=GIB))
    state = change(STATE, "answers", loaded=loaded)
    (refusal,) = plan.plan(SPEC, state).refusals
    assert "another model is loaded: big:latest" in refusal.reason
    assert 'add "model" to allow' in refusal.remedy
    assert plan.plan(BenchmarkSpec(project="ai", allow="model"), state).refusals == ()
    # Nothing is measured, so nothing is disturbed.
    assert plan.plan(SPEC, change(recorded(), "answers", loaded=loaded)).empty


def test_too_little_memory_is_a_refusal_unless_it_is_allowed() -> None:
    models = (Served(name="tiny:latest", digest="a" * 64, size=40 * GIB),)
    state = change(STATE, "answers", loaded=(), models=models)
    (refusal,) = plan.plan(SPEC, state).refusals
    assert refusal.reason == (
        "memory may run short: tiny:latest needs about 48.0 GiB to be loaded, and 32.0 GiB are free"
    )
    assert plan.plan(BenchmarkSpec(project="ai", allow="memory"), state).refusals == ()
    roomy = change(state, "machine", **server(memory_limit=0))
    assert plan.plan(SPEC, roomy).refusals == ()
    gpus = (Gpu(name="H200", memory=140 * GIB, free=139 * GIB),)
    assert plan.plan(SPEC, change(state, "machine", gpus=gpus)).refusals == ()


# The gate


@pytest.mark.parametrize(
    ("minimum", "expected"),
    [
        (50, ""),
        (500, "output: 176 tokens/s at its best load, less than 500"),
        (5000, "output: 176 tokens/s at its best load, less than 5,000"),
        ({"requests_ps": 100}, "requests: 2.75 requests/s at its best load, less than 100"),
        ({"decode_tps": 1}, ""),
        ({"decode_tps": 70}, "decoding: 51.0 tokens/s at its best load, less than 70"),
    ],
)
def test_below_minimum_fails_with_both_numbers(minimum: Any, expected: str) -> None:
    spec = BenchmarkSpec(project="ai", minimum=minimum)
    found = plan.plan(spec, recorded())
    assert [finding.cause for finding in found.problems] == ([expected] if expected else [])
    assert found.empty is not bool(expected)
    assert found.actions == ()


def test_worse_than_the_baseline_fails_with_both_numbers_and_what_changed_since() -> None:
    best = make_entry(
        at=NOW - 86400, seed=2, fingerprint=build(change(STATE, "answers", version="0.32.0"))
    )
    slow = make_entry(slower=1 / 0.7, seed=3)
    found = plan.plan(SPEC, recorded(slow, best))
    slower = [row for row in found.problems if row.kind == "slower"]
    first = slower[0].cause
    assert first.startswith("concurrency 1: output 32.1 tokens/s, 43.8 in the baseline (-27%, ")
    assert "p = 0.0079" in first
    assert slower[0].evidence == ("since then: the server's version changed: 0.32.0 → 0.33.0",)
    assert not found.empty
    # And so it stays, with no further request.
    assert found.actions == ()
    spec = BenchmarkSpec(project="ai", baseline="none")
    assert plan.plan(spec, recorded(slow, best)).empty


def test_the_last_result_is_the_baseline_where_that_is_desired() -> None:
    spec = BenchmarkSpec(project="ai", baseline="last")
    record = baseline.update(Record(), make_entry(at=NOW - 86400, seed=2), (), 0.1)
    slow = make_entry(slower=1 / 0.7, seed=3)
    held = baseline.find_next(spec, record, slow.fingerprint)
    record = baseline.update(record, slow, held, 0.1)
    assert any(row.blocks for row in plan.list_problems(spec, record))
    # And so the slower one is accepted: the next is held against it.
    held = baseline.find_next(spec, record, slow.fingerprint)
    again = make_entry(slower=1 / 0.7, seed=4)
    record = baseline.update(record, again, held, 0.1)
    assert not any(row.blocks for row in plan.list_problems(spec, record))


@pytest.mark.parametrize("kind", ["best", "last"])
def test_a_baseline_that_asked_something_else_is_none(kind: str) -> None:
    spec = BenchmarkSpec(project="ai", baseline=kind)
    other = build().model_copy(update={"parameters": "something else"})
    record = baseline.update(Record(), make_entry(fingerprint=other), (), 0.1)
    assert baseline.find_next(spec, record, build()) == ()
    assert len(baseline.find_next(spec, record, other)) == 4


def test_a_slower_load_is_no_baseline_although_another_became_faster() -> None:
    """The best load decides nothing: each is held against its own best."""
    series = Series(Noise(repeat=0.005, seed=1))
    for _ in range(3):
        assert series.run() == ()

    for _ in range(6):
        causes = series.run({1: 2.3, 4: 0.97})
        assert causes
        assert all(cause.startswith("concurrency 1: ") for cause in causes)
    best = {row.summary.load.concurrency: row.summary.output_tps for row in series.record.best}
    assert best[1].median == pytest.approx(43.8, rel=0.05)


def test_what_the_latest_is_held_against_is_kept_with_it() -> None:
    series = Series(Noise(repeat=0.005, seed=1))
    series.run()
    before = series.record.best
    series.run(0.5)
    series.run(0.5)
    assert series.record.held == before
    assert series.record.best != before


def test_the_best_is_a_middle_and_no_single_lucky_result() -> None:
    series = Series(Noise(repeat=0.005, seed=1), loads=[1])
    for slower in (1.0, 1.0, 1.0, 0.95, 1.0):
        series.run(slower)
    (best,) = series.record.best
    assert best.summary.output_tps.median == pytest.approx(43.8, rel=0.02)
    # A server that stays faster becomes the measure.
    for _ in range(3):
        series.run(0.5)
    (best,) = series.record.best
    assert best.summary.output_tps.median > 60
    # And one that becomes slower again does not, however often.
    for _ in range(8):
        assert series.run(1.0)
    assert series.record.best == (best,)


def test_loads_without_a_steady_result_are_named() -> None:
    stolen = Conditions(steal=0.2)
    series = Series(Noise(seed=1))
    series.run(conditions=stolen)
    causes = {row.kind: row for row in plan.list_problems(SPEC, series.record)}
    missing = causes["no baseline"]
    assert missing.cause.startswith("concurrency 1, concurrency 4: no steady result yet")
    assert not missing.blocks
    series.run()
    assert not list(plan.list_problems(SPEC, series.record))


def test_a_noisy_load_leaves_the_others_their_baseline() -> None:
    def disturb(levels: tuple[Level, ...]) -> tuple[Level, ...]:
        return (measure(Noise(), 1.0, [1], conditions=Conditions(steal=0.2))[0], *levels[1:])

    series = Series(Noise(repeat=0.005, seed=1))
    series.run(change=disturb)
    assert [row.summary.load.concurrency for row in series.record.best] == [4]


def test_one_disturbed_repeat_hides_no_slowdown() -> None:
    def disturb(levels: tuple[Level, ...]) -> tuple[Level, ...]:
        hot = [
            level.repeats[0].model_copy(update={"conditions": Conditions(thermal=1)})
            for level in levels
        ]
        return tuple(
            level.model_copy(update={"repeats": (repeat, *level.repeats[1:])})
            for level, repeat in zip(levels, hot, strict=True)
        )

    series = Series(Noise(repeat=0.005, seed=1))
    series.run()
    assert series.run(10.0, change=disturb)


def test_noise_that_stays_hides_no_slowdown_for_long() -> None:
    series = Series(Noise(repeat=0.005, seed=1))
    series.run()
    stolen = Conditions(steal=0.2)
    assert series.run(10.0, conditions=stolen) == ()
    causes = series.run(10.0, conditions=stolen)
    assert causes
    assert (
        "the hypervisor gave 20% of the CPU time to others; so was the result before" in causes[0]
    )


@pytest.mark.parametrize(
    ("conditions", "where"),
    [
        (Conditions(lag=0.3), "on this controller"),
        (Conditions(steal=0.2), "on the host"),
    ],
)
def test_a_remedy_of_noise_names_the_machine_that_had_no_time(
    conditions: Conditions, where: str
) -> None:
    levels = measure(Noise(seed=3), conditions=conditions)
    levels = tuple(
        level.model_copy(update={"noisy": find_client_noise(level.load, level.repeats)})
        for level in levels
    )
    entry = make_entry().model_copy(update={"summaries": summarize(levels)})
    noisy = [row for row in plan.list_problems(SPEC, Record(latest=entry)) if row.kind == "noisy"]
    assert noisy
    assert all(f"while nothing else runs {where}: " in row.remedy for row in noisy)


def test_noise_is_said_and_fails_nothing() -> None:
    disturbed = Entry(
        at=NOW,
        cause="",
        fingerprint=build(),
        summaries=summarize(
            measure(Noise(seed=3), slower=2, conditions=Conditions(others=0.6, busy=1.0))
        ),
    )
    found = plan.plan(SPEC, recorded(disturbed, make_entry(at=NOW - 9, seed=2)))
    assert found.problems == ()
    assert found.empty
    assert {finding.kind for finding in found.findings} == {"noisy"}
    assert "other programs used 60% of the CPU time" in found.findings[0].cause


@pytest.mark.parametrize(
    ("kind", "conditions", "slower"),
    [("noisy", Conditions(steal=0.2), 1.0), ("slower", None, 2.0)],
)
def test_what_is_noisy_or_fails_is_measured_again_soon(
    kind: str, conditions: Conditions | None, slower: float
) -> None:
    series = Series(Noise(repeat=0.005, seed=1))
    series.run()
    series.run(slower, conditions)
    latest = series.record.latest
    assert latest is not None

    def find(age: float, retries: int = 0, **more: Any) -> str:
        again = latest.model_copy(update={"retries": retries})
        record = series.record.model_copy(update={"latest": again})
        spec = BenchmarkSpec(project="ai", **more)
        return plan.find_cause(spec, record, latest.fingerprint, latest.at + age)

    assert find(3000) == ""
    assert find(3700) == f"the stored result is {kind}, and 1.03 h old"
    # What stays so is measured ever less often.
    assert find(3700, retries=1) == ""
    assert find(7300, retries=1) != ""
    assert plan.count_retries(SPEC, series.record) == 1
    assert find(3000, max_age="10min").startswith("the stored result is 50 min old, more than")


@pytest.mark.parametrize("retries", [0, 3])
def test_a_remedy_says_when_a_run_measures_again(retries: int) -> None:
    stolen = summarize(measure(Noise(repeat=0.005), conditions=Conditions(steal=0.2)))
    update = {"summaries": stolen, "at": 1_796_018_400.0, "retries": retries}
    noisy = ENTRY.model_copy(update=update)
    record = Record(latest=noisy, previous=noisy)
    spec = BenchmarkSpec(project="ai", minimum=250)
    moment = {0: "2026-11-30 07:00 UTC", 3: "2026-11-30 14:00 UTC"}[retries]
    remedies = {row.kind: row.remedy for row in plan.list_problems(spec, record)}
    when = f'from {moment} on that measures again, and before then with "max_age": 0'
    assert remedies["noisy"] == f"run again while nothing else runs on the host: {when}"
    assert remedies["below minimum"].endswith(f"; then run again: {when}")
    at = plan.find_next_time(spec, noisy)
    assert plan.find_cause(spec, record, noisy.fingerprint, at) == ""
    assert plan.find_cause(spec, record, noisy.fingerprint, at + 1) != ""
    soon = BenchmarkSpec(project="ai", minimum=250, max_age=0)
    assert plan.find_cause(soon, record, noisy.fingerprint, noisy.at + 1) != ""


def test_a_steady_result_counts_no_retries() -> None:
    series = Series(Noise(repeat=0.005, seed=1))
    series.run()
    assert plan.count_retries(SPEC, series.record) == 0
    assert plan.count_retries(SPEC, Record()) == 0


STOLEN = "the hypervisor gave 20% of the CPU time to others"


def test_a_minimum_that_noise_may_hide_fails_only_once_it_stays_so() -> None:
    stolen = summarize(measure(Noise(repeat=0.005), conditions=Conditions(steal=0.2)))
    noisy = ENTRY.model_copy(update={"summaries": stolen})
    spec = BenchmarkSpec(project="ai", minimum=250)
    found = plan.plan(spec, recorded(noisy))
    assert found.problems == ()
    (finding,) = [row for row in found.findings if "less than 250" in row.cause]
    assert finding.kind == "noisy"
    assert f"not proven, {STOLEN}" in finding.cause
    (failed,) = plan.plan(spec, recorded(noisy, previous=noisy)).problems
    assert failed.cause.endswith("; so was the result before")
    assert "not proven" not in failed.cause


def test_a_minimum_that_no_noise_hides_fails_at_once() -> None:
    stolen = summarize(measure(Noise(repeat=0.005), conditions=Conditions(steal=0.2)))
    noisy = ENTRY.model_copy(update={"summaries": stolen})
    (failed,) = plan.plan(BenchmarkSpec(project="ai", minimum=5000), recorded(noisy)).problems
    assert failed.kind == "below minimum"
    expected = r"output: 17\d tokens/s at its best load, 17\d in its best repeat, less than 5,000"
    assert re.fullmatch(expected, failed.cause)


def test_repeats_that_vary_say_by_the_best_of_them_what_is_missed() -> None:
    noisy = ENTRY.model_copy(update={"summaries": summarize(measure(Noise(repeat=0.2, seed=4)))})
    assert all(row.noisy.startswith("its repeats vary") for row in noisy.summaries[2:])
    most = max(row.output_tps for summary in noisy.summaries for row in summary.repeats)

    def fails(minimum: float) -> bool:
        return bool(
            plan.plan(BenchmarkSpec(project="ai", minimum=minimum), recorded(noisy)).problems
        )

    assert not fails(1.09 * most)
    assert fails(1.5 * most)


def test_requests_that_do_not_count_prove_no_minimum_missed() -> None:
    (summary,) = summarize(measure(Noise(), loads=(4,)))
    lost = summary.median.model_copy(update={"valid": 20, "invalid": (("implausible", 60),)})
    row = summary.model_copy(update={"median": lost, "noisy": "60 of 80 requests do not count"})
    noisy = ENTRY.model_copy(update={"summaries": (row,)})
    for factor, kind in ((8.0, "noisy"), (9.0, "below minimum")):
        spec = BenchmarkSpec(project="ai", minimum=factor * row.output_tps.median)
        findings = plan.plan(spec, recorded(noisy)).findings
        (finding,) = [row for row in findings if "less than" in row.cause]
        assert finding.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_noise_alone_misses_no_minimum_and_a_slowdown_does(kind: str) -> None:
    many = measure(Noise(seed=6, **KINDS[kind]), loads=(4,), repeats=40)
    usual = summarize(many)[0].output_tps.median
    spec = BenchmarkSpec(project="ai", baseline="none", minimum=0.85 * usual)
    series = Series(Noise(seed=5, **KINDS[kind]), spec)
    assert [series.run() for _ in range(12)] == [()] * 12
    assert series.run(1 / 0.7) or series.run(1 / 0.7)


def test_a_minimum_within_the_interval_is_not_proven_to_be_missed() -> None:
    best = ENTRY.summaries[-1].output_tps
    within = (best.median + best.high) / 2
    spec = BenchmarkSpec(project="ai", minimum=within)
    found = plan.plan(spec, recorded())
    assert found.problems == ()
    assert "in its repeats" in found.findings[0].cause
    assert plan.plan(BenchmarkSpec(project="ai", minimum=2 * best.high), recorded()).problems


def test_another_only_model_is_nothing_to_compare_with() -> None:
    models = (Served(name="other:latest", digest="b" * 64, size=GIB),)
    other = build(change(STATE, "answers", models=models))
    assert not fingerprint.is_comparable(ENTRY.fingerprint, other)


def test_another_file_of_the_same_name_is_another_model() -> None:
    spec = BenchmarkSpec(project="ai", target="openai", endpoint="http://h", model="m")
    before, after = (
        build(change(STATE, "answers", models=(Served(name="m", size=size),)), spec)
        for size in (GIB, 2 * GIB)
    )
    assert fingerprint.list_changes(before, after) == (
        f"the model's digest changed: m {GIB} → m {2 * GIB}",
    )


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("gpu", "96% gpu", False),
        ("gpu", "94% gpu", True),
        ("35% gpu", "40% gpu", False),
        ("35% gpu", "41% gpu", True),
        ("cpu", "5% gpu", False),
        ("cpu", "gpu", True),
    ],
)
def test_a_server_that_places_a_model_a_little_differently(
    before: str, after: str, changed: bool
) -> None:
    rows = [build().model_copy(update={"processor": text}) for text in (before, after)]
    assert bool(fingerprint.list_changes(*rows)) is changed


# The record


def test_a_record_remembers_the_previous_and_the_history() -> None:
    first, second = make_entry(at=NOW, seed=1), make_entry(at=NOW + 1, seed=2)
    record = baseline.update(Record(), first, (), 0.1)
    assert (record.latest, record.previous, record.steady) == (first, None, (first,))
    assert record.best == baseline.make_references(first)
    record = baseline.update(record, second, record.best, 0.1)
    assert (record.latest, record.previous) == (second, first)
    assert [past.at for past in record.history] == [NOW]
    other = second.model_copy(
        update={"fingerprint": build().model_copy(update={"parameters": "something else"})}
    )
    record = baseline.update(record, other, (), 0.1)
    assert (record.latest, record.previous, record.steady) == (other, None, (other,))
    # What asked something else is neither a baseline nor a line of the same picture.
    assert record.best == baseline.make_references(other)
    assert [past.at for past in record.history] == [NOW, NOW + 1]
    assert baseline.list_history(record) == ()


def test_a_record_is_bounded() -> None:
    record = Record(latest=ENTRY)
    for number in range(12):
        record = baseline.update(record, make_entry(seed=number), record.best, 0.1)
    full = record.model_copy(update={"history": (baseline.make_past(ENTRY),) * (baseline.KEPT - 1)})
    full = baseline.update(full, ENTRY, full.best, 0.1)
    assert len(full.history) == baseline.KEPT
    assert len(full.steady) == baseline.WINDOW
    assert len(store._dump(full)) < 300_000
