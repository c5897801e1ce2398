"""Measuring end to end: tasks through the stack's own queue, as a user's program sends them.

``POST /tasks`` takes a prompt and gives an id; ``GET /tasks/<id>`` says how far the task is, and
its times once it is over. A task is asked about rarely while it waits, and often enough towards its
end that asking is no part of its time: that comes from the queue's own clock. Only differences of
that clock are taken, so that it need not be right.

A task that nobody asks about any more, because a run was killed or gave up, ends by itself.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stackmend import connection
from stackmend.errors import StepError
from stackmend.reporting import announce
from stackmend.worker.benchmark import definitions
from stackmend.worker.benchmark.contact import SOON, measure_round_trips
from stackmend.worker.benchmark.definitions import Counts, Problem, Question
from stackmend.worker.benchmark.identity import HEALTH
from stackmend.worker.benchmark.prompts import (
    FEW_WORDS,
    MORE_WORDS,
    Prompts,
    find_scale,
    find_usual_words,
)
from stackmend.worker.benchmark.protocols import (
    WrongForm,
    format_message,
    parse_count,
    parse_object,
    parse_seconds,
)
from stackmend.worker.benchmark.sending import CONNECTING, classify, open_client
from stackmend.worker.benchmark.state import Invalid, Sample

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import HTTPClient, HTTPResponse
    from stackmend.worker.benchmark.endpoint import Endpoint
    from stackmend.worker.benchmark.spec import Profile

#: Seconds between two questions about a task: at least, and at most. A connection that is idle for
#: longer is closed by some servers.
SOONEST, LATEST = 0.02, 4.0

#: The share of a task's time that lies between two questions while it runs, and how much of it is
#: waited for while it is still in the line.
WHILE_RUNNING, WHILE_QUEUED = 0.02, 0.5

#: Seconds until the next question about a task that waits, as long as none has come to its end.
UNKNOWN = 0.1

#: Bytes that an answer may have.
MOST_BYTES = 8 << 20

#: What becomes of a task that nobody asks about any more.
_LEFT = "its task stays in the queue, which tries it again until it gives up"

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: What a task's error says where the model server lacks the model: no attempt mends that.
_MISSING = re.compile(r"\bmodel\b.{0,400}\bnot found\b", re.IGNORECASE)

_STATES = ("queued", "running", "done", "failed")


@dataclass(frozen=True)
class Progress:
    """What a queue says of one task.

    :param state: how far it is.
    :param attempts: how often it was begun.
    :param error: why it failed, or was put off.
    :param has_answer: whether there is any text.
    :param total: seconds from its submission to its end, by the queue's clock.
    :param run: seconds of those from its beginning on.
    :param counts: the model server's.
    """

    state: Literal["queued", "running", "done", "failed"]
    attempts: int = 0
    error: str = ""
    has_answer: bool = False
    total: float | None = None
    run: float | None = None
    counts: Counts = field(default_factory=Counts)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.state in ("done", "failed")


def parse_progress(body: Mapping[str, Any]) -> Progress:
    """What an answer to ``GET /tasks/<id>`` says.

    :param body: its JSON.
    :raises ValueError: it has not the form of this API.

    Example:
        >>> parse_progress({"state": "queued", "attempts": 0}).is_over
        False
    """
    state = body.get("state")
    if state not in _STATES:
        raise WrongForm("it has no state that is known")
    timings = body.get("timings") or {}
    if not isinstance(timings, dict):
        raise WrongForm("its timings are none")
    error, answer = body.get("error"), body.get("answer")
    queued = parse_seconds(timings.get("queued_seconds"), 1)
    run = parse_seconds(timings.get("run_seconds"), 1)
    return Progress(
        state=state,
        attempts=parse_count(body.get("attempts")) or 0,
        error=format_message(error) if error else "",
        has_answer=isinstance(answer, str) and bool(answer.strip()),
        total=None if queued is None or run is None else queued + run,
        run=run,
        counts=Counts(
            prompt=parse_count(timings.get("prompt_eval_count")),
            output=parse_count(timings.get("eval_count")),
            load=parse_seconds(timings.get("load_duration"), 1e-9),
            prefill=parse_seconds(timings.get("prompt_eval_duration"), 1e-9),
            decode=parse_seconds(timings.get("eval_duration"), 1e-9),
            total=parse_seconds(timings.get("total_duration"), 1e-9),
        ),
    )


def make_sample(
    progress: Progress,
    sent: float,
    accepted: float,
    end: float,
    prompt_tokens: int | None = None,
    unfinished: float = 0.0,
) -> Sample:
    """The sample that a task is, with the reason for which it does not count.

    It ended when the queue says that it did, rather than when that was asked for.

    :param progress: what the queue says of it at its end.
    :param sent: when it was sent, since the repeat began.
    :param accepted: seconds from then until the queue had taken it.
    :param end: seconds until it was known to be over.
    :param prompt_tokens: tokens that its prompt has, as far as that is known.
    :param unfinished: seconds until the queue was last asked that said that it was not over.
    """
    counts, total = progress.counts, progress.total
    problem = _find_problem(progress, end, prompt_tokens) or _check_clock(
        total, accepted, unfinished
    )
    if problem is None and total is not None:
        end = min(end, accepted + total)
    return Sample(
        sent=sent,
        end=end,
        prompt_tokens=counts.prompt,
        output_tokens=counts.output,
        load=counts.load,
        prefill=counts.prefill,
        decode=counts.decode,
        total=total if total is not None else counts.total,
        invalid=problem.invalid if problem else None,
        reason=problem.reason if problem else "",
    )


def _find_problem(progress: Progress, end: float, prompt_tokens: int | None) -> Problem | None:
    counts = progress.counts
    if progress.state != "done":
        return Problem("error", f"the task failed: {progress.error or 'no reason given'}")
    if progress.attempts > 1:
        return Problem("error", f"the task was attempted {progress.attempts} times")
    if counts.load is not None and counts.load > definitions.LOADED:
        return Problem(
            "reloaded", f"the server loaded the model for this task, in {counts.load:.2f} s"
        )
    if not progress.has_answer or counts.output == 0:
        return Problem("short", "the answer of the task is empty")
    if progress.total is not None and definitions.is_beyond(progress.total, end):
        return Problem(
            "implausible",
            f"the queue says that the task took {progress.total:.2f} s, and it was over after "
            f"{end:.2f} s",
        )
    return definitions.check_prompt(counts, Question(0, prompt_tokens))


def _check_clock(total: float | None, accepted: float, unfinished: float) -> Problem | None:
    """Whether the queue's clock has as much time go by as went by at least."""
    if total is None or not definitions.is_beyond(unfinished, accepted + total):
        return None
    return Problem(
        "implausible",
        f"the queue says that the task took {total:.2f} s, and that it was not over after "
        f"{unfinished:.2f} s",
    )


class Pace:
    """How long tasks take, as far as that is known: by this it is decided when to ask again."""

    def __init__(self) -> None:
        self._fastest: float | None = None

    def learn(self, run: float | None) -> None:
        """Take note of a task's seconds from its beginning to its end."""
        if run is not None and (self._fastest is None or run < self._fastest):
            self._fastest = run

    def find_pause(self, state: str, running: float) -> float:
        """Seconds until a task is asked about again.

        :param state: how far it is.
        :param running: seconds since it was first known to run.
        """
        fastest = self._fastest
        if state == "queued":
            pause = UNKNOWN if fastest is None else WHILE_QUEUED * fastest
        else:
            pause = WHILE_RUNNING * max(running, fastest or 0.0)
        return min(LATEST, max(SOONEST, pause))


class _TaskError(Exception):
    """A task came to nothing."""

    def __init__(self, invalid: Invalid, reason: str) -> None:
        super().__init__(reason)
        self.problem = Problem(invalid, reason)


@dataclass(frozen=True)
class QueueTask:
    """What is submitted again and again.

    :param prompts: the source of prompts.
    :param words: that a prompt has.
    :param prefix: what stands before the paths of the API.
    :param model: the model that is asked for; empty for that of the worker.
    :param timeout: seconds that a task may take.
    :param pace: how long tasks take.
    :param prompt_tokens: that the server counts of a prompt; ``None`` where that is not known.
    :param on_delay: called with why a task was put off, for each other reason once.
    """

    prompts: Prompts
    words: int
    prefix: str
    model: str
    timeout: float
    pace: Pace
    prompt_tokens: int | None = None
    on_delay: Callable[[str], None] = lambda _: None

    def ask(self, client: HTTPClient, began: float) -> Iterator[Sample]:
        """Submit one task, and wait for its end: what a run does again and again."""
        started = time.monotonic()
        try:
            task, started = self._submit(client)
            accepted = time.monotonic() - started
            progress, unfinished = self._wait(client, task, started)
        except _TaskError as error:
            end = time.monotonic() - started
            yield Sample(
                sent=started - began,
                end=end,
                invalid=error.problem.invalid,
                reason=error.problem.reason,
            )
            return
        end = time.monotonic() - started
        sample = make_sample(
            progress, started - began, accepted, end, self.prompt_tokens, unfinished
        )
        if sample.invalid != "implausible":
            self.pace.learn(progress.run)
        yield sample

    def _submit(self, client: HTTPClient) -> tuple[str, float]:
        """The id of a new task, and when it was sent."""
        body = {"prompt": self.prompts.make(self.words)}
        if self.model:
            body["model"] = self.model
        started = time.monotonic()
        try:
            answer = client.post(
                f"{self.prefix}/tasks",
                content=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
                timeout=(CONNECTING, SOON, SOON, CONNECTING),
            )
        except connection.HTTPError as error:
            raise _TaskError(*classify(error, SOON)) from error
        fields = _read_answer(answer, (200, 201, 202))
        task = fields.get("id")
        if not isinstance(task, str) or not _ID.fullmatch(task):
            raise _TaskError("error", "the queue gives the task no id")
        return task, started

    def _wait(self, client: HTTPClient, task: str, started: float) -> tuple[Progress, float]:
        """What the queue says of a task at its end, and how long it was not over at least."""
        deadline, unfinished = started + self.timeout, 0.0
        state, ran, reason, delayed = "queued", None, "", ""
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise _TaskError(
                    "timeout",
                    f"the task is not over within {self.timeout:g} s: it is {state}{reason}",
                )
            if state == "running" and ran is None:
                ran = now
            pause = self.pace.find_pause(state, now - ran if ran is not None else 0.0)
            time.sleep(min(pause, deadline - now))
            asked = time.monotonic() - started
            try:
                answer = client.get(
                    f"{self.prefix}/tasks/{task}", timeout=(CONNECTING, SOON, SOON, CONNECTING)
                )
            except connection.HTTPError as error:
                # The task goes on, whoever answers for it.
                reason = f", and the queue does not answer: {classify(error, SOON)[1]}"
                time.sleep(min(UNKNOWN, max(0.0, deadline - time.monotonic())))
                continue
            if answer.status_code == 503:
                reason = ", and the queue answers HTTP 503"
                time.sleep(min(UNKNOWN, max(0.0, deadline - time.monotonic())))
                continue
            try:
                progress = parse_progress(_read_answer(answer, (200,)))
            except ValueError as error:
                raise _TaskError(
                    "error", f"the answer has not the form of this API: {error}"
                ) from error
            if progress.is_over:
                return progress, unfinished
            unfinished = asked
            if _MISSING.search(progress.error):
                raise _TaskError("refused", f"{progress.error}; {_LEFT}")
            if progress.error not in ("", delayed):
                delayed = progress.error
                self.on_delay(delayed)
            state, reason = progress.state, f": {progress.error}" if progress.error else ""


def _read_answer(answer: HTTPResponse, good: tuple[int, ...]) -> Mapping[str, Any]:
    content = answer.content
    fields: Mapping[str, Any] = {}
    if len(content) > MOST_BYTES:
        raise _TaskError("error", f"the answer is longer than {MOST_BYTES} bytes")
    try:
        fields = parse_object(content)
    except ValueError as error:
        if answer.status_code in good:
            raise _TaskError("error", "the answer is no JSON object") from error
    if answer.status_code not in good:
        reason = format_message(fields.get("error"))
        raise _TaskError("refused", f"{reason} (HTTP {answer.status_code})")
    return fields


@dataclass(frozen=True)
class Prepared:
    """What is known of a queue before it is measured.

    :param rtt: seconds of one round trip to it.
    :param words: that make up a prompt of the profile's length.
    :param prompt_tokens: that the model server counts of such a prompt; ``None`` where it counts
        none.
    :param prompts: the source of prompts.
    :param prefix: what stands before the paths of the API.
    :param model: the model that is asked for; empty for that of the worker.
    :param pace: how long tasks take.
    :param load: not known of a queue.
    :param cold: nor is what a task takes that meets no other.
    :param verified: a queue gives no text that could be counted again.
    """

    rtt: float
    words: int
    prompt_tokens: int | None
    prompts: Prompts
    prefix: str
    model: str
    pace: Pace = field(default_factory=Pace)
    load: float | None = None
    cold: float = 0.0
    verified: bool = False

    @property
    def serial(self) -> bool:
        """A queue takes any number of tasks."""
        return False

    @property
    def probe(self) -> str:
        """The path of a request that the queue answers at once."""
        return self.prefix + HEALTH

    def make_task(self, profile: Profile) -> QueueTask:
        """What is submitted again and again.

        :param profile: how the queue is asked.
        """
        return QueueTask(
            prompts=self.prompts,
            words=self.words,
            prefix=self.prefix,
            model=self.model,
            timeout=profile.timeout,
            pace=self.pace,
            prompt_tokens=self.prompt_tokens,
        )


def prepare(host: Host, endpoint: Endpoint, profile: Profile) -> Prepared:
    """Find out what a measurement needs to know, by two short tasks that are part of none.

    These have the model loaded as well.

    :param host: the host that reaches the queue.
    :param endpoint: its API.
    :param profile: how it will be asked.
    :raises StepError: it does not answer, or its tasks come to nothing.
    """
    prefix, model = endpoint.prefix, endpoint.model
    prompts, pace = Prompts(secrets.randbits(64)), Pace()

    def show_delay(reason: str) -> None:
        announce.show_line(host, f"the queue puts the first task off: {reason}")

    with open_client(host, endpoint, max(SOON, CONNECTING)) as client:
        rtt = measure_round_trips(client, endpoint, prefix + HEALTH)
        found: list[int | None] = []
        for words in (FEW_WORDS, MORE_WORDS):
            task = QueueTask(
                prompts, words, prefix, model, profile.timeout, pace, on_delay=show_delay
            )
            (sample,) = task.ask(client, time.monotonic())
            if sample.invalid not in (None, "reloaded", "short"):
                remedy = _find_remedy(sample)
                raise StepError(f"cannot measure {endpoint}: {sample.reason}; {remedy}")
            found.append(sample.prompt_tokens)
    words, expected = _count_words(profile.prompt_tokens, *found)
    return Prepared(
        rtt=rtt,
        words=words,
        prompt_tokens=expected,
        prompts=prompts,
        prefix=prefix,
        model=model,
        pace=pace,
    )


def _find_remedy(sample: Sample) -> str:
    if _MISSING.search(sample.reason):
        return "pull the model, or name another one"
    assert sample.invalid is not None, "it does not count"
    return definitions.find_remedy(sample.invalid, sample.reason)


def _count_words(tokens: int, few: int | None, more: int | None) -> tuple[int, int | None]:
    """Words of a prompt of about so many tokens, and the tokens that it then has."""
    scale = find_scale(few, more) if few is not None and more is not None else None
    if scale is None or not scale.is_plausible:
        return find_usual_words(tokens), None
    words = scale.find_words(tokens)
    return words, scale.count_tokens(words)
