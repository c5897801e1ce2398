"""Sending requests to a model server, in time: one, as many at one time, or so many a second.

Each request of a *closed loop* follows at once upon the end of another, so that as many are under
way all the time; those of an *open loop* are sent when their time has come, whether earlier ones
have ended or not. Time runs from the moment at which a request is sent over a connection that
exists: connecting is no part of it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from stackmend import connection
from stackmend.redaction import register
from stackmend.worker.benchmark.definitions import Answer, Question, Reference, make_sample
from stackmend.worker.benchmark.protocols import Protocol, Request, format_message, parse_object
from stackmend.worker.benchmark.state import Invalid, Load, Sample

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import HTTPClient, HTTPError, HTTPResponse
    from stackmend.worker.benchmark.endpoint import Endpoint
    from stackmend.worker.benchmark.prompts import Prompts

#: Seconds to wait for a connection.
CONNECTING = 15.0

#: Bytes that an answer may have: some, and some for each of its tokens.
ANSWER_BYTES, TOKEN_BYTES = 1 << 18, 1 << 12

#: Bytes that one line of an answer may have.
LINE_BYTES = 1 << 18

#: Seconds for which a server may leave an answer open after its last message.
LINGERING = 0.02

#: How often a request is sent again, with another salt, where the model ended early.
RETRIES = 3

#: Requests of an open loop that may be under way at one time.
MOST_AT_ONCE = 256

#: The share of the time between two requests of an open loop by which one may be sent later.
JITTER = 0.5

#: Statuses by which a server does not take a request, rather than fails at it.
_REFUSING = (401, 403, 404, 405, 429, 503)


class Asking(Interface):
    """What a run asks again and again; several clients ask at one time."""

    def ask(self, client: HTTPClient, began: float) -> Iterator[Sample]:
        """Ask once, and again where the answer teaches nothing: a sample for each.

        :param client: that nothing else uses meanwhile.
        :param began: when the run began, on the monotonic clock.
        """


@dataclass(frozen=True)
class Task:
    """What is sent again and again.

    :param protocol: the API.
    :param prompts: the source of prompts.
    :param words: that a prompt has.
    :param question: what is asked, in tokens.
    :param timeout: seconds that one request may take.
    :param reference: how the server reads prompts.
    :param rtt: seconds of one round trip to the server.
    :param keep: whether the text of an answer is kept.
    """

    protocol: Protocol
    prompts: Prompts
    words: int
    question: Question
    timeout: float
    reference: Reference = field(default_factory=Reference)
    rtt: float = 0.0
    keep: bool = False

    def ask(self, client: HTTPClient, began: float) -> Iterator[Sample]:
        """Send a prompt, and another one where the model ended early; as :class:`Asking`."""
        for _ in range(RETRIES + 1):
            prompt, seed = self.prompts.make(self.words), self.prompts.make_seed()
            request = self.protocol.build(prompt, self.question.output_tokens, seed)
            sent, answer = send(client, self, request)
            sample = make_sample(
                answer,
                self.question,
                sent=sent - began,
                reference=self.reference,
                rtt=self.rtt,
            )
            yield sample
            if sample.invalid != "short":
                return


@contextmanager
def open_client(host: Host, endpoint: Endpoint, timeout: float) -> Iterator[HTTPClient]:
    """A client of one server, with connections of its own.

    :param host: the host that reaches it.
    :param endpoint: the server.
    :param timeout: seconds that each answer may take in all.
    """
    with connection.http(
        host,
        endpoint.address,
        endpoint.port,
        tls=endpoint.tls,
        timeout=timeout,
        total=timeout,
        endless=True,
    ) as client:
        if endpoint.api_key:
            register(endpoint.api_key)
            client.headers["Authorization"] = f"Bearer {endpoint.api_key}"
        yield client


def send(client: HTTPClient, task: Task, request: Request) -> tuple[float, Answer]:
    """Send one request and read its answer.

    :param client: of :func:`open_client`.
    :param task: what the request is part of.
    :param request: what is sent.
    :returns: when it was sent, on the monotonic clock, and the answer; what goes wrong is part of
        that.
    """
    attempt = _Attempt(client, task, request)
    attempt.execute()
    if attempt.is_stale:
        attempt = _Attempt(client, task, request)
        attempt.execute()
    return attempt.started, attempt.parser.make_answer(attempt.read_clock())


class _Attempt:
    """A request that is sent once; its time runs from the moment at which it is."""

    def __init__(self, client: HTTPClient, task: Task, request: Request) -> None:
        self._client = client
        self._task = task
        self._request = request
        self._connected = False
        self._answered = False
        self.parser = task.protocol.make_parser(task.question.output_tokens)
        self.parser.keep = task.keep
        self.started = time.monotonic()

    def read_clock(self) -> float:
        """Seconds since it was sent."""
        return time.monotonic() - self.started

    @property
    def is_stale(self) -> bool:
        """Whether the server let go of the idle connection just when it was used again."""
        incomplete = self.parser.invalid == "incomplete"
        return incomplete and not self._connected and not self._answered

    def execute(self) -> None:
        """Send it, and read the answer; what goes wrong is part of that."""
        timeout = self._task.timeout
        try:
            with self._client.stream(
                "POST",
                self._request.path,
                content=self._request.content,
                headers={"Content-Type": "application/json"},
                timeout=(CONNECTING, timeout, timeout, CONNECTING),
                extensions={"trace": self._note_event},
            ) as answer:
                self._answered = True
                # When it left, not when this process set about sending it.
                self.started = connection.read_departure(answer)
                if answer.status_code != 200:
                    self.parser.fail(*_read_refusal(answer))
                else:
                    self._read_lines(answer)
        except connection.HTTPError as error:
            # What comes after the last message is of no account.
            if self.parser.ended is None:
                self.parser.fail(*classify(error, timeout))

    def _read_lines(self, answer: HTTPResponse) -> None:
        most = ANSWER_BYTES + TOKEN_BYTES * self._task.question.output_tokens
        came, ended = 0, False
        for line in connection.iterate_lines(answer, LINE_BYTES):
            # When it came, not when this process had the time for it.
            self.parser.feed(line, connection.read_arrival(answer) - self.started)
            came += len(line) + 1
            if came > most:
                self.parser.fail("error", f"the answer is longer than {most} bytes")
            if self.parser.invalid is not None:
                return
            if self.parser.ended is not None and not ended:
                # The next request needs the connection: it waits no longer than connecting takes.
                ended = True
                connection.end_within(answer, max(LINGERING, self._task.rtt))

    def _note_event(self, event: str, _: Any) -> None:
        if event == "connection.connect_tcp.complete":
            self._connected = True
        elif event == "http11.send_request_body.started":
            self.started = time.monotonic()


def _read_refusal(answer: HTTPResponse) -> tuple[Invalid, str]:
    status = answer.status_code
    content = answer.read()
    if 300 <= status < 400:
        # Nothing is sent to where an answer leads: it may be anywhere.
        named = answer.headers.get("location")
        target = f"to {format_message(named)}" if named else "elsewhere"
        return "refused", f"it redirects {target}: name that address as endpoint (HTTP {status})"
    try:
        reason = format_message(parse_object(content).get("error"))
    except ValueError:
        reason = format_message(content[:1000].decode(errors="replace"))
    return "refused" if status in _REFUSING else "error", f"{reason} (HTTP {status})"


def classify(error: HTTPError, timeout: float) -> tuple[Invalid, str]:
    """What a request that failed means: the class and the reason.

    :param error: that it ended with.
    :param timeout: seconds that it had.
    """
    if connection.find_layer(error) != "http":
        return "refused", f"cannot connect: {error}"
    if isinstance(error, connection.TooMuch):
        return "error", str(error)
    if connection.is_silent(error):
        return "timeout", f"the answer did not end within {timeout:g} s"
    return "incomplete", f"the connection ended within the answer: {error}"


class Run:
    """One run of requests at one load.

    :param clients: a client for each that may be under way.
    :param task: what is sent.
    :param on_sample: called after each request that counts or is given up.
    """

    def __init__(
        self,
        clients: Sequence[HTTPClient],
        task: Asking,
        on_sample: Callable[[Sample], None] = lambda _: None,
    ) -> None:
        self._clients = clients
        self._task = task
        self._on_sample = on_sample
        self._lock = threading.Lock()
        self._samples: list[Sample] = []
        self._error: BaseException | None = None
        self._stopped = False
        self._began = 0.0
        #: Whether it ended early, as most of what came back counts for nothing.
        self.gave_up = False
        #: Seconds by which each request of an open loop was sent too late.
        self.lags: list[float] = []
        self._once = False

    def run_closed(
        self, requests: int, *, give_up: bool = True
    ) -> tuple[float, tuple[Sample, ...]]:
        """Send as many at one time as there are clients.

        :param requests: in all.
        :param give_up: whether to stop where nothing but failures comes back.
        :returns: seconds from the first request to the end of the last answer, and the samples.
        """
        numbers = iter(range(requests))

        def handle(client: HTTPClient) -> None:
            while not self._stopped:
                with self._lock:
                    if next(numbers, None) is None:
                        return
                self._ask(client)
                if give_up and self._is_hopeless():
                    self.gave_up = self._stopped = True

        self._began = time.monotonic()
        self._join([self._start(handle, client) for client in self._clients[:requests]])
        return self._collect()

    def run_open(self, requests: int, rate: float, seed: int) -> tuple[float, tuple[Sample, ...]]:
        """Send so many a second.

        The times are even but for a jitter, by a seed: every repeat has the same. None is sent
        again where the model ended early.

        :param requests: in all.
        :param rate: requests a second.
        :param seed: of the jitter.
        :returns: as :meth:`run_closed`.
        """
        free = list(self._clients)
        self._once = True

        def handle(client: HTTPClient) -> None:
            try:
                self._ask(client)
            finally:
                with self._lock:
                    free.append(client)

        threads = []
        self._began = time.monotonic()
        for moment in make_arrivals(requests, rate, seed):
            time.sleep(max(0.0, self._began + moment - time.monotonic()))
            self.lags.append(time.monotonic() - self._began - moment)
            if self._stopped:
                break
            with self._lock:
                client = free.pop() if free else None
            if client is None:
                reason = f"{len(self._clients)} requests are under way: the rate is too high"
                at = time.monotonic() - self._began
                self._keep(Sample(sent=at, end=0.0, invalid="refused", reason=reason))
                continue
            threads.append(self._start(handle, client))
        self._join(threads)
        return self._collect()

    def _ask(self, client: HTTPClient) -> None:
        """Ask until there is an answer that counts, or none to be had."""
        for sample in self._task.ask(client, self._began):
            self._keep(sample)
            # One that is sent again is none that the rate has.
            if self._stopped or self._once:
                break
        self._on_sample(sample)

    def _keep(self, sample: Sample) -> None:
        with self._lock:
            self._samples.append(sample)

    def _is_hopeless(self) -> bool:
        """Whether most of what came back counts for nothing, of every client one or more."""
        with self._lock:
            # A model that ended early answered all the same.
            failed = sum(sample.invalid not in (None, "short") for sample in self._samples)
            counted = sum(sample.invalid is None for sample in self._samples)
            if len(self._samples) < max(3, len(self._clients)):
                return False
            return not counted or failed > max(counted, len(self._clients))

    def _start(self, handle: Callable[[HTTPClient], None], client: HTTPClient) -> threading.Thread:
        def run_guarded() -> None:
            try:
                handle(client)
            except BaseException as error:
                # The one who waits raises it.
                self._error = self._error or error
                self._stopped = True

        thread = threading.Thread(target=run_guarded, daemon=True)
        thread.start()
        return thread

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stopped = True
            raise
        if self._error is not None:
            raise self._error

    def _collect(self) -> tuple[float, tuple[Sample, ...]]:
        samples = sorted(self._samples, key=lambda sample: sample.sent)
        if not samples:
            return 0.0, ()
        first = samples[0].sent
        moved = (sample.model_copy(update={"sent": sample.sent - first}) for sample in samples)
        samples = list(moved)
        return max(sample.sent + sample.end for sample in samples), tuple(samples)


def make_arrivals(requests: int, rate: float, seed: int) -> list[float]:
    """When the requests of an open loop are sent, in seconds since it began.

    One in each interval of ``1 / rate``, within its first half: even enough that a few requests
    make up the rate, and uneven enough to keep no step with the server.

    :param requests: in all.
    :param rate: requests a second.
    :param seed: the same one gives the same times.
    """
    chance = random.Random(seed)  # noqa: S311  # no secret
    return [(number + JITTER * chance.random()) / rate for number in range(requests)]


@contextmanager
def open_clients(
    host: Host, endpoint: Endpoint, load: Load, requests: int, timeout: float
) -> Iterator[list[HTTPClient]]:
    """A client for each request that may be under way at one time.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param load: how requests are sent.
    :param requests: of one run.
    :param timeout: seconds that each answer may take in all.
    """
    number = min(requests, load.concurrency or MOST_AT_ONCE)
    with ExitStack() as stack:
        yield [stack.enter_context(open_client(host, endpoint, timeout)) for _ in range(number)]
