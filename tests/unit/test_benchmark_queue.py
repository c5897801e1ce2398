"""A queue is measured by its tasks: as many a minute as it does, and each as long as it takes."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.host import Host

from stackmend.decision import Finding, Refusal
from stackmend.errors import StepError
from stackmend.reconcile import Observation
from stackmend.worker.benchmark import (
    guards,
    identity,
    leftovers,
    measuring,
    queue,
    statistics,
)
from stackmend.worker.benchmark.baseline import make_references
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.plan import Measure, Plan, list_problems
from stackmend.worker.benchmark.queue import LATEST, SOONEST, Pace, parse_progress
from stackmend.worker.benchmark.reconciler import BenchmarkReconciler
from stackmend.worker.benchmark.spec import BenchmarkSpec, Limits, Profile
from stackmend.worker.benchmark.state import Answers as Known
from stackmend.worker.benchmark.state import (
    BenchmarkState,
    Entry,
    Level,
    Load,
    Machine,
    Record,
    Repeat,
    Sample,
    Served,
    Server,
    Usage,
)
from stackmend.worker.benchmark.state import Queue as Line
from stackmend.worker.benchmark.store import Files
from stackmend.worker.context import Shape
from tests.calm import calmly
from tests.unit.benchmark_world import FINGERPRINT

# What a queue says


def done(**more: Any) -> dict[str, Any]:
    timings = {
        "queued_seconds": 1.5,
        "run_seconds": 2.0,
        "prompt_eval_count": 64,
        "prompt_eval_duration": 200_000_000,
        "eval_count": 32,
        "eval_duration": 1_600_000_000,
        "load_duration": 1_000_000,
        "total_duration": 1_900_000_000,
    }
    return {
        "state": "done",
        "attempts": 1,
        "answer": "so",
        "error": None,
        "timings": timings | more.pop("timings", {}),
        **more,
    }


def sample(body: dict[str, Any], end: float = 3.6) -> Sample:
    return queue.make_sample(parse_progress(body), 7.0, 0.01, end, prompt_tokens=64)


def test_a_task_is_a_sample_without_a_first_token() -> None:
    # It was over at 3.51 s by the queue's own clock, whenever that was asked for.
    assert sample(done()) == Sample(
        sent=7.0,
        end=3.51,
        prompt_tokens=64,
        output_tokens=32,
        load=0.001,
        prefill=0.2,
        decode=1.6,
        total=3.5,
    )
    assert sample(done(timings={"queued_seconds": None})).end == 3.6


@pytest.mark.parametrize(
    ("body", "invalid", "reason"),
    [
        (done(state="failed", error="no \x1b[2J"), "error", "the task failed: no \\x1b[2J"),
        (done(state="failed"), "error", "the task failed: no reason given"),
        (done(attempts=2), "error", "the task was attempted 2 times"),
        (
            done(timings={"load_duration": 4e9}),
            "reloaded",
            "the server loaded the model for this task, in 4.00 s",
        ),
        (done(answer=" "), "short", "the answer of the task is empty"),
        (done(timings={"eval_count": 0}), "short", "the answer of the task is empty"),
        (
            done(timings={"run_seconds": 9}),
            "implausible",
            "the queue says that the task took 10.50 s, and it was over after 3.60 s",
        ),
        (
            done(timings={"prompt_eval_count": 40}),
            "cut",
            "the server read 40 tokens of a prompt of about 64",
        ),
    ],
)
def test_what_does_not_count(body: dict[str, Any], invalid: str, reason: str) -> None:
    found = sample(body)
    assert (found.invalid, found.reason) == (invalid, reason)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"state": "gone"},
        done(attempts=-1),
        {**done(), "timings": [1]},
        done(timings={"run_seconds": "2"}),
        done(timings={"queued_seconds": -1}),
        done(timings={"eval_count": 1e40}),
    ],
)
def test_what_is_no_answer_of_a_queue(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"none|known"):
        parse_progress(body)


@given(
    st.lists(st.floats(0, 1e6), max_size=5),
    st.sampled_from(["queued", "running"]),
    st.floats(0, 1e6),
)
def test_a_task_is_asked_about_neither_too_often_nor_too_rarely(
    runs: list[float], state: str, running: float
) -> None:
    pace = Pace()
    for run in runs:
        pace.learn(run)
    pause = pace.find_pause(state, running)
    assert SOONEST <= pause <= LATEST
    # Never so late that it would be part of what is measured.
    if state == "running":
        assert pause <= max(SOONEST, 0.02 * max([running, *runs]))
    elif runs:
        assert pause <= max(SOONEST, 0.5 * min(runs))


# What it comes to


def level(seconds: float, vary: float = 0.01, repeats: int = 5) -> Level:
    """One task after another, each of about so many seconds."""
    rows = []
    for number in range(repeats):
        each = seconds * (1 + vary * number / repeats)
        samples = tuple(
            Sample(sent=n * each, end=each, output_tokens=9, decode=each / 2, total=each)
            for n in range(8)
        )
        rows.append(Repeat(wall=8 * each, samples=samples))
    return Level(load=Load(concurrency=1), repeats=tuple(rows))


def test_a_queue_has_tasks_and_no_tokens() -> None:
    summary = statistics.summarize(level(2.0, vary=0), Limits())
    assert (summary.output_tps.median, summary.median.requests_ps) == (0, 0.5)
    assert summary.requests_ps is not None
    assert summary.end is not None
    assert (summary.requests_ps.median, summary.end.median) == (0.5, 2.0)
    assert (summary.ttft, summary.tpot, summary.noisy) == (None, None, "")
    assert summary.median.queue == 1.0


def test_a_queue_that_varies_is_noisy() -> None:
    assert statistics.summarize(level(2.0, vary=1), Limits()).noisy == "its repeats vary by 29%"


def test_a_slower_queue_fails_with_both_numbers_in_tasks_a_minute() -> None:
    def entry(seconds: float) -> Entry:
        summary = statistics.summarize(level(seconds), Limits())
        return Entry(at=1, cause="", fingerprint=FINGERPRINT, summaries=(summary,))

    spec = BenchmarkSpec(project="ai", target="queue", minimum={"tasks_pm": 25})

    def list_found(now: float, before: float) -> list[Finding]:
        held = make_references(entry(before))
        record = Record(latest=entry(now), held=held, best=held)
        return list(list_problems(spec, record))

    found = list_found(3.0, 2.0)
    assert [finding.cause for finding in found] == [
        "tasks: 19.9 tasks/min at its best load, less than 25",
        "concurrency 1: tasks 19.9 tasks/min, 29.9 in the baseline "
        "(-33%, threshold 10%, p = 0.0079)",
        "concurrency 1: time for a task 3.01 s, 2.01 in the baseline "
        "(+50%, threshold 10%, p = 0.0079)",
    ]
    assert list_found(2.0, 3.0) == []


# A queue that answers

SLOTS = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]

INFORMATION = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
}


class Queue(ThreadingHTTPServer):
    """A queue whose tasks take so long, so many at one time.

    + seconds: of each task, at a server
    + slots: tasks at one time
    """

    daemon_threads = True

    def __init__(self, seconds: float = 0.2, slots: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.seconds = seconds
        self.pool = ThreadPoolExecutor(slots)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.prompts: list[str] = []
        self.polls = 0
        self.numbers = itertools.count()
        #: Overrides what is said of a finished task; and for how many polls nobody answers.
        self.more: dict[str, Any] = {}
        self.away = 0
        #: Why no task gets further than its first attempt; empty where they do.
        self.delayed = ""
        #: Models of the worker's server, as it reports them one time after another.
        self.reports: list[list[str]] = []
        self.slots: list[dict[str, Any]] = SLOTS
        #: Tasks in its line, as it says them one time after another.
        self.line: list[int] = []

    def submit(self, body: dict[str, Any]) -> str:
        name = f"t{next(self.numbers)}"
        submitted = time.monotonic()
        self.prompts.append(body["prompt"])
        self.tasks[name] = {"state": "queued", "attempts": 0, "timings": {}}

        if self.delayed:
            put_off = {"attempts": 1, "error": self.delayed}
            self.tasks[name] |= put_off
            return name

        def work() -> None:
            started = time.monotonic()
            self.tasks[name] = {"state": "running", "attempts": 1, "timings": {}}
            time.sleep(self.seconds)
            tokens = len(body["prompt"].split()) + 10
            self.tasks[name] = (
                done(
                    timings={
                        "queued_seconds": started - submitted,
                        "run_seconds": time.monotonic() - started,
                        "prompt_eval_count": tokens,
                        "prompt_eval_duration": 0,
                    },
                )
                | self.more
            )

        self.pool.submit(work)
        return name


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Queue

    def reply(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def do_GET(self) -> None:
        if self.path == "/healthz":
            models = self.server.reports.pop(0) if self.server.reports else []
            workers = {"w": {"model": "tiny", "ollama": "ok", "models": models}}
            queue = {"waiting": 0, "running": 0, "delayed": 2}
            if self.server.line:
                queue = {"waiting": self.server.line.pop(0), "running": 0, "delayed": 0}
            self.reply(200, {"queue": queue, "workers": workers})
            return
        if not self.path.startswith("/tasks/"):
            self.reply(200, self.server.slots) if self.path == "/slots" else self.reply(404, {})
            return
        self.server.polls += 1
        if self.server.away:
            self.server.away -= 1
            self.reply(503, {"error": "redis is away"})
            return
        self.reply(200, self.server.tasks[self.path.removeprefix("/tasks/")])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/show":
            self.reply(200, {"model_info": INFORMATION if body == {"model": "tiny"} else {}})
            return
        assert self.headers["Content-Type"] == "application/json"
        self.reply(202, {"id": self.server.submit(body)})

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Queue]:
    with Queue() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()
        found.pool.shutdown(wait=False, cancel_futures=True)


def at(server: Queue) -> Endpoint:
    return Endpoint("queue", "127.0.0.1", server.server_port, "")


PROFILE = Profile(prompt_tokens=64, concurrency=(2,), requests=4, warmups=1, timeout=10)


def measure(host: Host, server: Queue, profile: Profile = PROFILE) -> tuple[Level, ...]:
    prepared = queue.prepare(host, at(server), profile)
    return measuring.measure(host, at(server), profile, prepared=prepared)


@calmly
def test_tasks_a_minute_and_seconds_a_task_are_true(here: Host, server: Queue) -> None:
    server.prompts.clear()
    server.polls = 0
    (found,) = measure(here, server)
    summary = statistics.summarize(found, Limits())
    # One at a time, two under way: each waits for the one before it.
    assert summary.median.requests_ps == pytest.approx(5, rel=0.05)
    assert summary.median.end is not None
    assert summary.median.end[0] == pytest.approx(0.4, rel=0.05)
    assert (summary.median.valid, summary.median.invalid) == (20, ())
    # Two to find out, two to warm up, and five repeats of four; none begins as another did.
    assert len(server.prompts) == 24
    assert len({tuple(prompt.split()[:3]) for prompt in server.prompts}) == 24
    assert {len(prompt.split()) for prompt in server.prompts[2:]} == {54}
    assert server.polls < 24 * 20


def test_a_queue_whose_clock_is_too_slow(here: Host, server: Queue) -> None:
    """Its tasks take a fifth of a second; it says that they took a hundredth."""
    server.more = {"timings": {"queued_seconds": 0.0, "run_seconds": 0.01}}
    with pytest.raises(StepError, match=r"took 0\.01 s, and that it was not over after 0\."):
        queue.prepare(here, at(server), PROFILE)


def test_a_task_is_over_no_sooner_than_the_queue_said() -> None:
    def check(unfinished: float) -> Sample:
        return queue.make_sample(parse_progress(done()), 7.0, 0.01, 9.0, unfinished=unfinished)

    # By its clock it was over at 3.51 s; of two clocks one may be some slower.
    assert (check(3.7).invalid, check(3.7).end) == (None, 3.51)
    assert check(4.0).invalid == "implausible"


@calmly
def test_an_open_loop_shows_how_the_line_grows(here: Host, server: Queue) -> None:
    profile = Profile(prompt_tokens=64, rate=8, requests=6, warmups=0, timeout=10)
    (found,) = measure(here, server, profile)
    ends = [sample.end for sample in found.repeats[0].samples]
    # Eight a second come, and five are done.
    assert ends == sorted(ends)
    assert ends[-1] > ends[0] + 0.25


@pytest.mark.parametrize(
    "more",
    [{"state": "failed", "error": "no"}, {"attempts": 3}],
)
def test_tasks_that_come_to_nothing_end_the_measurement(
    here: Host, server: Queue, more: dict[str, Any]
) -> None:
    prepared = queue.prepare(here, at(server), PROFILE)
    server.more = more
    with pytest.raises(StepError, match=r"none of \d requests at concurrency 2 counts: the task"):
        measuring.measure(here, at(server), PROFILE, prepared=prepared)
    with pytest.raises(StepError, match=r"cannot measure http://127\.0\.0\.1:\d+: the task"):
        queue.prepare(here, at(server), PROFILE)


def test_a_task_that_does_not_end_is_waited_for_no_longer_than_it_may_take(
    here: Host, server: Queue
) -> None:
    server.seconds = 1.0
    began = time.monotonic()
    with pytest.raises(StepError, match=r"not over within 0\.5 s: it is running"):
        queue.prepare(here, at(server), Profile(timeout=0.5))
    assert time.monotonic() - began < 5


def test_a_model_that_a_queue_s_server_lacks_is_waited_for_by_nobody(
    here: Host, server: Queue
) -> None:
    server.delayed = "model 'llama9' not found"
    began = time.monotonic()
    with pytest.raises(StepError) as caught:
        queue.prepare(here, at(server), Profile(timeout=60))
    assert time.monotonic() - began < 10
    assert str(caught.value).endswith(
        "model 'llama9' not found; its task stays in the queue, which tries it again until it "
        "gives up; pull the model, or name another one"
    )


def test_a_task_that_is_put_off_is_waited_for_with_a_line(
    here: Host, server: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(queue.announce, "show_line", lambda _, text: lines.append(text))
    server.delayed = "the model server cannot be reached: refused"
    with pytest.raises(StepError, match=r"not over within 1 s: it is queued: the model server"):
        queue.prepare(here, at(server), Profile(timeout=1))
    assert lines == [f"the queue puts the first task off: {server.delayed}"]


def test_a_queue_that_is_away_for_a_moment_loses_no_task(here: Host, server: Queue) -> None:
    prepared = queue.prepare(here, at(server), PROFILE)
    server.away = 3
    (found,) = measuring.measure(here, at(server), PROFILE, prepared=prepared)
    assert sum(len(repeat.valid) for repeat in found.repeats) == 20


# What is asked before a server is measured


def known(server: Queue, engine: str) -> Known:
    return Known(
        address="127.0.0.1", port=server.server_port, engine=engine, models=(Served(name="tiny"),)
    )


@pytest.mark.parametrize(("engine", "every"), [("llama.cpp", 0.02), ("llama.cpp", 0), ("vllm", 0)])
def test_a_server_in_steady_use_is_recognised(
    here: Host, server: Queue, monkeypatch: pytest.MonkeyPatch, engine: str, every: float
) -> None:
    """No answer is under way at either reading, and yet it is not idle."""
    monkeypatch.setattr(guards, "INTERVAL", 0.1)
    server.slots = [{"id_task": 4, "is_processing": False}]
    over = threading.Event()

    def ask() -> None:
        while not over.wait(every):
            server.slots[0]["id_task"] += 1

    thread = threading.Thread(target=ask)
    if every:
        thread.start()
    spec = BenchmarkSpec(project="ai", target="openai", service="llm")
    try:
        found = identity.complete(here, spec, Machine(now=1), known(server, engine))
    finally:
        over.set()
        if every:
            thread.join()
    assert found.is_active is (bool(every) if engine == "llama.cpp" else None)


@pytest.mark.parametrize(
    ("reports", "found"),
    [([["tiny"], ["tiny", "new"]], ["new"]), ([["tiny"], ["tiny"]], ["tiny"])],
)
def test_a_model_that_was_pulled_just_now_is_no_refusal(
    here: Host,
    server: Queue,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[list[str]],
    found: list[str],
) -> None:
    monkeypatch.setattr(identity, "REPORTED", 0.01)
    server.reports = list(reports)
    address = f"http://127.0.0.1:{server.server_port}"
    spec = BenchmarkSpec(target="queue", endpoint=address, model="new")
    answers = identity.ask(here, spec, Machine(now=1))
    assert [model.name for model in answers.models] == found
    assert not server.reports


def test_a_server_that_counts_nothing_is_read_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = BenchmarkSpec(project="ai", target="openai", service="llm")
    usage = Usage(used=0.03, during=0.5)
    machine = Machine(now=1, servers=(Server(process=7, usage=usage),))
    read = BenchmarkReconciler(None, spec, None, lambda _: None)  # type: ignore[arg-type]
    monkeypatch.setattr(read, "fetch", lambda *_, fresh: [machine] if fresh else [])
    answers = Known(engine="openai", models=(Served(name="tiny"),))
    state = read._watch(BenchmarkState(machine=machine, answers=answers))
    (watched,) = state.machine.servers
    assert watched.usage == Usage(used=0.12, during=2.0)
    assert "is computing" in guards.list_refusals(spec, state)[0].reason
    counted = answers.model_copy(update={"is_active": False})
    still = BenchmarkState(machine=machine, answers=counted)
    assert read._watch(still) is still


def test_whom_a_measurement_would_disturb_is_asked(
    here: Host, server: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "INTERVAL", 0.01)
    line = Server(addresses=(("127.0.0.1", 9), ("127.0.0.1", server.server_port)))
    machine = Machine(now=1, queues=(line,))
    ollama, openai = (
        BenchmarkSpec(project="ai"),
        BenchmarkSpec(project="ai", target="openai", service="llm"),
    )
    found = identity.complete(here, ollama, machine, known(server, "ollama"))
    assert found.queue == Line(waiting=2, delayed=2)
    assert found.shape == Shape(layers=2, heads=4, key=16, value=16)
    found = identity.complete(here, openai, machine, known(server, "llama.cpp"))
    assert (found.queue, found.requests) == (Line(waiting=2, delayed=2), 1)


def test_who_does_not_answer_is_not_known(here: Host, server: Queue) -> None:
    machine = Machine(now=1, queues=(Server(addresses=(("127.0.0.1", 9),)),))
    answers = known(server, "ollama").model_copy(update={"port": 9})
    assert identity.complete(here, BenchmarkSpec(project="ai"), machine, answers) == answers


# Tasks that an earlier measurement left


def wait(
    host: Host, server: Queue, directory: Path, waiting: int, **policy: Any
) -> tuple[int, float]:
    """Tasks that are left, and seconds until that was said."""
    files = Files(*(str(directory / f"x.{name}") for name in ("json", "latest.json", "asking")))
    settings: dict[str, Any] = {"profile": {"concurrency": [2, 4], "timeout": 3}, **policy}
    spec = BenchmarkSpec(project="ai", target="queue", **settings)
    known = Known(
        address="127.0.0.1", port=server.server_address[1], queue=Line(waiting=waiting, running=0)
    )
    began = time.monotonic()
    found = leftovers.wait_for_own(host, spec, files, known).queue
    assert found is not None
    return found.waiting, time.monotonic() - began


def leave(host: Host, directory: Path, *, asking: bool) -> None:
    files = Files(*(str(directory / f"x.{name}") for name in ("json", "latest.json", "asking")))
    leftovers.mark(host, files, asking=asking)


def test_tasks_of_a_killed_measurement_are_waited_for(
    here: Host, server: Queue, tmp_path: Path
) -> None:
    leave(here, tmp_path, asking=True)
    server.line = [2, 0]
    left, took = wait(here, server, tmp_path, 3)
    assert left == 0
    assert 2 <= took < 6


def test_who_only_observes_waits_for_no_tasks(
    here: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a dry run and the doctor do; a measurement that has its turn waits."""
    spec = BenchmarkSpec(project="ai", target="queue")
    room = BenchmarkReconciler(here, spec, None, lambda _: None)  # type: ignore[arg-type]
    room._files = Files(*(str(tmp_path / f"x.{name}") for name in ("json", "latest", "asking")))
    leave(here, tmp_path, asking=True)
    busy = Known(address="127.0.0.1", port=1, queue=Line(waiting=2, running=0))
    idle = busy.model_copy(update={"queue": Line(waiting=0, running=0)})
    waited: list[Known] = []

    def wait(_host: object, _spec: object, _files: object, answers: Known) -> Known:
        waited.append(answers)
        return idle

    monkeypatch.setattr(leftovers, "wait_for_own", wait)
    monkeypatch.setattr(identity, "complete", lambda *_: busy)
    state = BenchmarkState(machine=Machine(now=1), answers=busy)
    refusal, other = (
        Refusal(subject="x", reason=reason, remedy=guards.allow(word))
        for reason, word in (("2 waiting", "busy"), ("full", "memory"))
    )
    plan = Plan(refusals=(refusal, other))
    assert room._complete_answers(state).answers.queue == busy.queue
    assert waited == []
    seen = room.preview(Observation(plan, state))
    assert seen.refusals == (other,)
    assert [(row.kind, row.blocks) for row in seen.findings] == [("waits", False)]
    action = Measure.model_construct(subject="x", cause="it is too old", model="")
    with room.take_turn(Plan.model_construct(actions=(action,))):
        # Of the same reading, which was answered without a wait.
        assert room._complete_answers(state).answers.queue == idle.queue
    assert waited == [busy]
    # Tasks of others are refused at once.
    leave(here, tmp_path, asking=False)
    assert room._complete_answers(state).answers.queue == busy.queue
    assert room.preview(Observation(plan, state)) == plan


def test_tasks_of_others_are_not_waited_for(here: Host, server: Queue, tmp_path: Path) -> None:
    def assert_at_once(waiting: int, **policy: Any) -> None:
        left, took = wait(here, server, tmp_path, waiting, **policy)
        assert (left, took < 1) == (waiting, True)

    server.line = [0] * 9
    # Nothing was left; and once something was, it is over.
    assert_at_once(3)
    leave(here, tmp_path, asking=True)
    leave(here, tmp_path, asking=False)
    assert_at_once(3)
    # More than a measurement leaves; and who may disturb them has no need to wait.
    leave(here, tmp_path, asking=True)
    assert_at_once(5)
    assert_at_once(3, allow=["busy"])
    # What was left two hours ago is not there any more.
    mark = tmp_path / "x.asking"
    os.utime(mark, (mark.stat().st_atime, mark.stat().st_mtime - 7200))
    assert_at_once(3)


def test_tasks_that_do_not_end_are_waited_for_no_longer(
    here: Host, server: Queue, tmp_path: Path
) -> None:
    leave(here, tmp_path, asking=True)
    server.line = [3] * 20
    left, took = wait(here, server, tmp_path, 3)
    assert left == 3
    assert 3 <= took < 8
    # More came meanwhile: they are of others.
    server.line = [3, 7]
    left, took = wait(here, server, tmp_path, 3, profile={"concurrency": [4], "timeout": 60})
    assert left == 7
    assert took < 8
