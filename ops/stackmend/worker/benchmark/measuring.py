"""Measuring a model server: what is found out first, warm-ups, repeats at each load.

>>> prepared = prepare(host, endpoint, profile)
>>> levels = measure(host, endpoint, profile, prepared=prepared)
"""

from __future__ import annotations

import ipaddress
import math
import secrets
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Self
from typing import Protocol as Interface

from stackmend import connection
from stackmend.errors import StepError
from stackmend.reporting import announce
from stackmend.text import format_limit
from stackmend.worker.benchmark.definitions import (
    KEPT_TOKENS,
    Answer,
    Counts,
    Problem,
    Question,
    Reference,
    compute_prefill_speed,
    find_miscount,
    find_problem,
)
from stackmend.worker.benchmark.prompts import WORDS, Prompts, count_words
from stackmend.worker.benchmark.protocols import Protocol, parse_count, parse_object
from stackmend.worker.benchmark.protocols.ollama import Ollama
from stackmend.worker.benchmark.protocols.openai import OpenAI
from stackmend.worker.benchmark.sending import Asking, Run, Task, open_client, open_clients, send
from stackmend.worker.benchmark.state import Conditions, Level, Load, Repeat, Sample

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import HTTPClient
    from stackmend.worker.benchmark.endpoint import Endpoint
    from stackmend.worker.benchmark.spec import Profile

#: Reads the host's conditions, before a repeat; what it gives reads them again, and tells what
#: happened between.
ReadConditions = Callable[[], Callable[[], Conditions]]

#: Called with the requests that were answered, those in all, and what is done.
OnProgress = Callable[[int, int, str], None]

#: Round trips of which the least counts.
ROUND_TRIPS = 9

#: Seconds for what a server answers at once.
SOON = 30.0

#: Seconds that a model may take to load.
LOADING = 900.0

#: How often a request is sent again whose answer teaches nothing.
LEARNING_RETRIES = 2

#: Words of the two prompts from which the tokens of a word are computed: each word of the list
#: once, and twice, since some words have more tokens than others.
FEW_WORDS, MORE_WORDS = len(WORDS), 2 * len(WORDS)

#: Tokens of an answer that is of no interest.
FEW_TOKENS = 2

#: Tokens of a prompt's word, where the server does not count prompts.
USUAL_TOKENS = 1.3

#: Tokens of an answer whose text is read again, in order to see whether the server counts tokens.
RECOUNTED_TOKENS = 8

#: Years until a model is unloaded, from which on somebody wants it kept for ever.
FOR_EVER = 10

#: Seconds of requests, one after another, after which a level has fewer rounds of them, and a
#: measurement no more levels that add nothing.
BUDGET = 1200.0

#: Rounds of requests that a repeat has at least.
LEAST_ROUNDS = 2

#: How often the time that requests take one after another a request may take, and seconds beyond
#: which none may.
WAITING, LONGEST = 3, 7200.0

#: How many times the output of fewer requests a level has to have, before more of them may help.
FLAT = 1.05

#: Share of a CPU that measuring may use: a process of Python has one.
MOST_BUSY = 0.7

#: Seconds that this process may come late to anything, and the share of the time to a first token,
#: or between two requests of an open loop, by which it may be late.
LATE, MOST_LATE = 0.005, 0.1

#: Seconds between two readings of how late it comes.
SLEEP = 0.05

#: Measurements of this process at one time, and seconds that one waits for its turn.
MOST_TURNS, TURN = 8, 6 * 3600.0

#: The order in which two servers are measured: neither has the better half of the time.
ORDER = (0, 1, 1, 0)


class Ready(Interface):
    """What is known of a server that can be measured."""

    @property
    def rtt(self) -> float:
        """Seconds of one round trip to it."""

    @property
    def load(self) -> float | None:
        """Seconds that it took to load the model."""

    @property
    def probe(self) -> str:
        """The path of a request that it answers at once."""

    @property
    def serial(self) -> bool:
        """Whether requests at one time would end one another."""

    @property
    def cold(self) -> float:
        """Seconds that one answer takes; 0 where that is not known."""

    @property
    def verified(self) -> bool:
        """Whether its counts of tokens were verified."""

    def make_task(self, profile: Profile) -> Asking:
        """What is asked again and again.

        :param profile: how it is asked.
        """


@dataclass(frozen=True)
class Prepared:
    """What is known of a server before it is measured.

    :param protocol: how it is asked.
    :param rtt: seconds of one round trip to it, over the connection it is measured through.
    :param load: seconds that it took to load the model; ``None`` where it had it, or does not say.
    :param words: that make up a prompt of the profile's length.
    :param prompt_tokens: that the server counts of such a prompt; ``None`` where it counts none.
    :param reference: how it reads prompts.
    :param prompts: the source of all further ones.
    :param cold: seconds that one answer took, of a prompt that it had never met; 0 where that is
        not known.
    """

    protocol: Protocol
    rtt: float
    load: float | None
    words: int
    prompt_tokens: int | None
    reference: Reference
    prompts: Prompts
    cold: float = 0.0
    verified: bool = False

    @property
    def probe(self) -> str:
        """The path of a request that the server answers at once."""
        return self.protocol.probe

    @property
    def serial(self) -> bool:
        """Whether requests at one time would end one another."""
        return self.protocol.serial

    def make_task(self, profile: Profile) -> Task:
        """What is sent again and again.

        :param profile: how the server is asked.
        """
        return Task(
            protocol=self.protocol,
            prompts=self.prompts,
            words=self.words,
            question=Question(profile.output_tokens, self.prompt_tokens),
            timeout=profile.timeout,
            reference=self.reference,
            rtt=self.rtt,
        )


def measure_rtt(host: Host, endpoint: Endpoint) -> float:
    """Seconds of one round trip to a server: the least of several, one after another.

    What is beyond the least is no part of the way: somebody was busy.

    :param host: the host that reaches it.
    :param endpoint: the server.
    :raises StepError: it does not answer.
    """
    protocol = _make_protocol(endpoint)
    with open_client(host, endpoint, SOON) as client:
        _note_models(client, protocol)
        return measure_round_trips(client, endpoint, protocol.probe)


def _make_protocol(endpoint: Endpoint) -> Protocol:
    if endpoint.protocol == "ollama":
        return Ollama(endpoint.prefix, endpoint.model)
    return OpenAI(endpoint.prefix, endpoint.model)


def _note_models(client: HTTPClient, protocol: Protocol) -> None:
    if isinstance(protocol, OpenAI):
        with suppress(connection.HTTPError, ValueError):
            protocol.note_models(parse_object(client.get(protocol.models, timeout=SOON).content))


def measure_round_trips(client: HTTPClient, endpoint: Endpoint, path: str) -> float:
    """As :func:`measure_rtt`, with a client that is open already.

    :param client: of the server.
    :param endpoint: the server.
    :param path: of a request that it answers at once.
    :raises StepError: it does not answer.
    """
    took = []
    # The first one connects.
    for _ in range(ROUND_TRIPS + 1):
        started = time.monotonic()
        try:
            client.get(path, timeout=SOON)
        except connection.HTTPError as error:
            raise StepError(f"{endpoint} does not answer: {error}") from error
        took.append(time.monotonic() - started)
    return min(took[1:])


def prepare(host: Host, endpoint: Endpoint, profile: Profile) -> Prepared:
    """Find out what a measurement needs to know: load the model, and learn how it counts.

    Sends a few requests, which are part of no measurement.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param profile: how it will be asked.
    :raises StepError: it does not answer, or not so that it can be measured.
    """
    with open_client(host, endpoint, max(profile.timeout, LOADING)) as client:
        protocol = _make_protocol(endpoint)
        _note_models(client, protocol)
        rtt = measure_round_trips(client, endpoint, protocol.probe)
        load = _load(client, endpoint, protocol)
        learner = _Learner(client, endpoint, protocol, profile, rtt)
        return replace(learner.learn(), load=load)


def _load(client: HTTPClient, endpoint: Endpoint, protocol: Protocol) -> float | None:
    """Load the model; how long that took, where it was not loaded."""
    if not isinstance(protocol, Ollama):
        return None
    loaded = _read_loaded(client, protocol, endpoint.model)
    if loaded is not None:
        # With another context the server would end the one that a client asked for.
        protocol.context = loaded.context
        protocol.expiry = loaded.expiry
        if loaded.expiry > time.time() + FOR_EVER * 365 * 86400:
            # Somebody keeps it for ever; a request of ours with a limit would end that.
            protocol.keep = -1
    started = time.monotonic()
    _request_load(client, endpoint, protocol, protocol.keep)
    return time.monotonic() - started if loaded is None else None


def _request_load(
    client: HTTPClient, endpoint: Endpoint, protocol: Ollama, keep: int | None
) -> None:
    request = protocol.build_load(keep)
    try:
        answer = client.post(request.path, content=request.content, timeout=LOADING)
        fields = parse_object(answer.content[:100_000])
    except (connection.HTTPError, ValueError) as error:
        raise StepError(f"{endpoint} does not load the model: {error}") from error
    if answer.status_code != 200 or "error" in fields:
        parser = protocol.make_parser(1)
        parser.feed(answer.content[:100_000], 0.0)
        problem = parser.make_answer(0.0).problem
        reason = problem.reason if problem else f"HTTP {answer.status_code}"
        raise StepError(f"{endpoint} does not load the model: {reason}")


class _Loaded(NamedTuple):
    """A model in memory.

    :param context: tokens of its context; 0 where the server does not say.
    :param expiry: when it will be unloaded, in seconds since 1970.
    """

    context: int
    expiry: float


def _read_loaded(client: HTTPClient, protocol: Ollama, model: str) -> _Loaded | None:
    """The model as it lies in memory; ``None`` where it does not."""
    with suppress(connection.HTTPError, ValueError, TypeError, KeyError, AttributeError):
        for row in parse_object(client.get(protocol.loaded, timeout=SOON).content)["models"]:
            if model in (row["name"], row["name"].removesuffix(":latest")):
                expiry = datetime.fromisoformat(row["expires_at"]).timestamp()
                return _Loaded(parse_count(row.get("context_length")) or 0, expiry)
    return None


def release(host: Host, endpoint: Endpoint, prepared: Prepared) -> None:
    """Let the server keep the model as long as it would have by itself.

    One that a client had loaded stays until the time that this one had set, if that is to come.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param prepared: of :func:`prepare`.
    """
    protocol = prepared.protocol
    if not isinstance(protocol, Ollama) or protocol.keep < 0:
        return
    left = math.ceil(protocol.expiry - time.time())
    # It is unloaded an hour later where this fails.
    with suppress(StepError), open_client(host, endpoint, SOON) as client:
        _request_load(client, endpoint, protocol, left if left > 0 else None)


class _Learner:
    """Finds out how a server counts, and how it reads prompts."""

    def __init__(
        self,
        client: HTTPClient,
        endpoint: Endpoint,
        protocol: Protocol,
        profile: Profile,
        rtt: float,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._protocol = protocol
        self._profile = profile
        self._rtt = rtt
        self._prompts = Prompts(secrets.randbits(64))
        self._base = 0.0
        self._verified = False
        self._load = math.inf

    def learn(self) -> Prepared:
        few = self._ask_words(FEW_WORDS)
        if few.prompt is None:
            words = max(1, round(self._profile.prompt_tokens / USUAL_TOKENS))
            return self._finish(words, None)
        more = self._ask_words(MORE_WORDS)
        per_word = ((more.prompt or 0) - few.prompt) / (MORE_WORDS - FEW_WORDS)
        if per_word < 1:
            raise self._refuse(
                f"it counts {few.prompt} tokens of a prompt of {FEW_WORDS} words and "
                f"{more.prompt} of one of {MORE_WORDS}: it cuts prompts, or does not count them"
            )
        base = self._base = few.prompt - per_word * FEW_WORDS
        words = count_words(self._profile.prompt_tokens, base, per_word)
        return self._finish(words, round(base + per_word * words))

    def _finish(self, words: int, expected: int | None) -> Prepared:
        """Ask as it will be asked, and once more the same: the server then had the prompt."""
        output = self._profile.output_tokens
        prompt = self._prompts.make(words)
        cold = self._ask(prompt, Question(output, expected))
        again = self._ask(prompt, Question(min(FEW_TOKENS, output), None))
        self._verify_count(cold, words, expected)
        counts = cold.counts
        kept = counts.kept or 0
        if expected is not None and kept > max(0.0, self._base) + KEPT_TOKENS:
            raise self._refuse(
                f"it had kept {kept} of the {counts.prompt} tokens of a prompt that nobody sent "
                "before"
            )
        reference = Reference(
            cold=compute_prefill_speed(cold, self._rtt) or 0.0,
            warm=compute_prefill_speed(again, self._rtt) or 0.0,
            kept=kept,
            load=self._load if self._load < math.inf else 0.0,
        )
        if reference.limit < math.inf:
            # A prompt that was read slowly by chance would make every other look as if kept.
            other = self._ask(
                self._prompts.make(words), Question(min(FEW_TOKENS, output), expected)
            )
            speed = compute_prefill_speed(other, self._rtt) or 0.0
            reference = replace(reference, cold=max(reference.cold, speed))
        return Prepared(
            protocol=self._protocol,
            rtt=self._rtt,
            load=None,
            words=words,
            prompt_tokens=counts.prompt or expected,
            reference=reference,
            prompts=self._prompts,
            cold=cold.end,
            verified=self._verified,
        )

    def _verify_count(self, answer: Answer, words: int, expected: int | None) -> None:
        """Have the server read what it wrote, and compare its counts."""
        counted, prompt = answer.counts.output, answer.counts.prompt
        known = counted is not None and prompt is not None and expected is not None
        # What is no text, or spaces alone, is counted differently when it is read.
        readable = "\ufffd" not in answer.content and answer.content.strip()
        if not known or not readable or len(answer.texts) < RECOUNTED_TOKENS:
            return
        assert counted is not None, "known"
        base = self._ask(self._prompts.make(1), Question(1, None)).counts.prompt
        salted = f"{self._prompts.make(1)} {answer.content}"
        recounted = self._ask(salted, Question(1, None)).counts.prompt
        if base is None or recounted is None:
            return
        if problem := find_miscount(counted, recounted - base, len(answer.texts)):
            raise self._refuse(problem.reason)
        self._verified = True

    def _ask_words(self, words: int) -> Counts:
        return self._ask(self._prompts.make(words), Question(FEW_TOKENS, None)).counts

    def _ask(self, prompt: str, question: Question) -> Answer:
        """An answer that may be short or kept, and is otherwise right."""
        answer, problem = self._try(prompt, question)
        protocol = self._protocol
        if (
            isinstance(protocol, OpenAI)
            and not protocol.chat
            and problem is not None
            and problem.invalid == "refused"
            and any(status in problem.reason for status in ("(HTTP 404)", "(HTTP 405)"))
        ):
            # No completions without messages here.
            protocol.chat = True
            answer, problem = self._try(prompt, question)
        if (
            isinstance(protocol, OpenAI)
            and protocol.lenient
            and problem is not None
            and any(status in problem.reason for status in ("(HTTP 400)", "(HTTP 422)"))
        ):
            # It takes no field that it does not know.
            protocol.lenient = False
            answer, problem = self._try(prompt, question)
        for _ in range(LEARNING_RETRIES):
            # The first request loads a model; and a stall of this process spoils any.
            if problem is None or problem.invalid not in ("reloaded", "implausible"):
                break
            answer, problem = self._try(prompt, question)
        if problem is not None and problem.invalid not in ("short", "cached"):
            raise self._refuse(problem.reason)
        return answer

    def _try(self, prompt: str, question: Question) -> tuple[Answer, Problem | None]:
        task = Task(
            protocol=self._protocol,
            prompts=self._prompts,
            words=0,
            question=question,
            timeout=self._profile.timeout,
            rtt=self._rtt,
            keep=True,
        )
        request = self._protocol.build(prompt, question.output_tokens, self._prompts.make_seed())
        _, answer = send(self._client, task, request)
        if (load := answer.counts.load) is not None:
            self._load = min(self._load, load)
        reference = Reference(kept=10**9, load=self._load)
        return answer, find_problem(answer, question, reference, self._rtt)

    def _refuse(self, reason: str) -> StepError:
        return StepError(f"cannot measure {self._endpoint}: {reason}")


def list_loads(profile: Profile) -> tuple[Load, ...]:
    """The loads of a profile.

    :param profile: how a server is asked.
    """
    if profile.rate is not None:
        return (Load(rate=profile.rate),)
    return tuple(Load(concurrency=number) for number in profile.concurrency)


def count_requests(profile: Profile, load: Load, cold: float = 0.0) -> int:
    """Requests of one repeat.

    As many rounds of a closed loop as are asked for, or by default; fewer, and two at least, where
    the answers would take longer than :data:`BUDGET`. The last round is always full: an idle tail
    of another length would look like another speed.

    :param profile: how a server is asked.
    :param load: at which load.
    :param cold: seconds that one answer takes; 0 where that is not known.
    """
    usual = profile.count_requests(load.concurrency)
    if profile.requests or not load.concurrency or not cold:
        return usual
    number = load.concurrency
    # A server that answers one at a time takes as long as all of them together.
    rounds = BUDGET / (profile.repeats * number * cold)
    return min(usual, max(LEAST_ROUNDS, int(min(rounds, usual))) * number)


def find_timeout(profile: Profile, load: Load, cold: float) -> float:
    """Seconds that one request may take: those of the profile, or more where it names none.

    :param profile: how a server is asked.
    :param load: at which load.
    :param cold: seconds that one answer takes; 0 where that is not known.
    """
    if "timeout" in profile.model_fields_set:
        return profile.timeout
    return min(LONGEST, max(profile.timeout, WAITING * max(1, load.concurrency) * cold))


def count_warmups(profile: Profile, load: Load) -> int:
    """Requests before a level that are not counted: one at least for each at one time.

    :param profile: how a server is asked.
    :param load: at which load.
    """
    return max(profile.warmups, load.concurrency) if profile.warmups else 0


def count_all_requests(profile: Profile, *cold: float) -> int:
    """Requests of a measurement, its warm-ups included.

    :param profile: how a server is asked.
    :param cold: seconds that one answer takes, for each server that is measured; one of which
        nothing is known where none is named.
    """
    return sum(
        count_warmups(profile, load) + profile.repeats * count_requests(profile, load, each)
        for load in list_loads(profile)
        for each in cold or (0.0,)
    )


def measure(
    host: Host,
    endpoint: Endpoint,
    profile: Profile,
    read_conditions: ReadConditions | None = None,
    on_progress: OnProgress = lambda *_: None,
    *,
    prepared: Ready | None = None,
) -> tuple[Level, ...]:
    """Measure a server at every load of a profile.

    :param host: the host that reaches it.
    :param endpoint: the server.
    :param profile: how it is asked.
    :param read_conditions: reads what the host does meanwhile.
    :param on_progress: called after each request.
    :param prepared: of :func:`prepare`, if that was done.
    :raises StepError: it cannot be measured: no request of a repeat counts.
    """
    own = prepare(host, endpoint, profile) if prepared is None else None
    known: Ready | None = prepared or own
    assert known is not None, "one of them"
    try:
        (levels,) = _measure(host, [(endpoint, known)], profile, read_conditions, on_progress, (0,))
    finally:
        if own is not None:
            release(host, endpoint, own)
    return levels


def measure_interleaved(
    host: Host,
    old: Endpoint,
    new: Endpoint,
    profile: Profile,
    read_conditions: ReadConditions | None = None,
    on_progress: OnProgress = lambda *_: None,
    *,
    prepared: tuple[Prepared, Prepared] | None = None,
) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
    """Measure two servers at one time, so that neither has the quieter half of it: A B B A.

    Only one of them is asked at a time, and both by prompts of as many words: those that make up
    the profile's length where the old one counts them, or else where the new one does.

    :param host: the host that reaches both.
    :param old: one server.
    :param new: the other.
    :param profile: how they are asked.
    :param read_conditions: reads what the host does meanwhile.
    :param on_progress: called after each request.
    :param prepared: of :func:`prepare`, if that was done for both.
    :returns: the levels of the one, and those of the other.
    :raises StepError: one of them cannot be measured.
    """
    own = prepared is None
    servers = list(zip((old, new), prepared or (), strict=False))
    try:
        if own:
            for endpoint in (old, new):
                servers.append((endpoint, prepare(host, endpoint, profile)))
        alike = _match_words([each for _, each in servers])
        same = list(zip((old, new), alike, strict=True))
        before, after = _measure(host, same, profile, read_conditions, on_progress, ORDER)
    finally:
        if own:
            for server in servers:
                release(host, *server)
    return before, after


def _match_words(servers: Sequence[Prepared]) -> list[Prepared]:
    """Servers that are asked by prompts of as many words."""
    words = next((each.words for each in servers if each.prompt_tokens), servers[0].words)
    return [
        replace(
            each,
            words=words,
            prompt_tokens=each.prompt_tokens and round(each.prompt_tokens * words / each.words),
        )
        for each in servers
    ]


def _measure(
    host: Host,
    servers: Sequence[tuple[Endpoint, Ready]],
    profile: Profile,
    read_conditions: ReadConditions | None,
    on_progress: OnProgress,
    order: Sequence[int],
) -> list[tuple[Level, ...]]:
    """The levels of each server, whose repeats come in an order that is begun again and again."""
    profile = _limit_profile(host, servers, profile)
    total = count_all_requests(profile, *(prepared.cold for _, prepared in servers))
    _announce(host, servers, profile)
    levels: list[list[Level]] = [[] for _ in servers]
    progress = _Progress(total, on_progress)
    spent = time.monotonic()
    for load in list_loads(profile):
        benches = [
            _Bench(host, endpoint, prepared, profile, load, progress)
            for endpoint, prepared in servers
        ]
        repeats: list[list[Repeat]] = [[] for _ in servers]
        failure = ""
        for bench in benches:
            bench.run_warmups()
        for number in _list_turns(order, profile.repeats, len(servers)):
            taken = len(repeats[number]) + 1
            progress.doing = f"{load}, repeat {taken} of {profile.repeats}"
            repeats[number].append(benches[number].run_repeat(read_conditions))
            if failure := benches[number].explain_failure(repeats[number][-1]):
                break
        if failure and not levels[0]:
            raise StepError(f"cannot measure {failure}")
        for number, taken_repeats in enumerate(repeats):
            if taken_repeats:
                noisy = failure or find_client_noise(load, taken_repeats)
                level = Level(load=load, repeats=tuple(taken_repeats), noisy=noisy)
                levels[number].append(level)
        if failure:
            announce.show_line(host, f"measuring no further: {failure}")
            break
        late = time.monotonic() - spent > BUDGET
        if late and load != list_loads(profile)[-1] and all(map(is_flat, levels)):
            announce.show_line(
                host, f"measuring no further: at {load} the server does no more than at fewer"
            )
            break
    return [tuple(own) for own in levels]


def is_flat(levels: Sequence[Level]) -> bool:
    """Whether the last level has hardly more output than one before: nor will further ones.

    :param levels: so far.
    """
    speeds = [
        statistics.median(
            sum(sample.output_tokens or 1 for sample in repeat.valid) / repeat.wall
            for repeat in level.repeats
        )
        for level in levels
    ]
    return len(speeds) > 1 and speeds[-1] < FLAT * max(speeds[:-1])


def _announce(host: Host, servers: Sequence[tuple[Endpoint, Ready]], profile: Profile) -> None:
    """Say how long it takes at most, where that is long."""
    seconds = sum(
        prepared.cold * count_all_requests(profile, prepared.cold) for _, prepared in servers
    )
    if seconds > BUDGET and profile.rate is None:
        slowest = max(prepared.cold for _, prepared in servers)
        announce.show_line(
            host,
            f"one answer takes {slowest:.0f} s: measuring takes up to {format_limit(seconds)}, and "
            "less where requests at one time are answered at one time",
        )


def _limit_profile(
    host: Host, servers: Sequence[tuple[Endpoint, Ready]], profile: Profile
) -> Profile:
    """The profile with what its servers can do of that which nobody asked for."""
    serial = [endpoint for endpoint, prepared in servers if prepared.serial]
    if serial and profile.rate is None and "concurrency" not in profile.model_fields_set:
        announce.show_line(
            host,
            f"{serial[0]} answers one request at a time, and another one ends that: measuring at "
            "concurrency 1",
        )
        profile = profile.model_copy(update={"concurrency": (1,)})
    return profile


def find_client_noise(load: Load, repeats: Sequence[Repeat]) -> str:
    """Why the client's side of a level is not steady enough; empty where it is.

    :param load: how requests were sent.
    :param repeats: of the level.
    """
    for repeat in repeats:
        share, lag = repeat.conditions.client, repeat.conditions.lag
        if share is not None and share > MOST_BUSY:
            return f"this controller had no time: measuring used {share:.0%} of a CPU"
        if lag is not None and load.rate and lag > MOST_LATE / load.rate:
            return f"this controller had no time: it sent requests {lag:.3f} s late"
        first = min((row.ttft for row in repeat.valid if row.ttft is not None), default=math.inf)
        if lag is not None and lag > max(LATE, MOST_LATE * first):
            return f"this controller had no time: it was {lag:.3f} s late"
        if repeat.rtt is not None and repeat.rtt > first:
            return (
                f"a first token came after {first:.3f} s, and a round trip took {repeat.rtt:.3f} s"
            )
    return ""


def find_lag(values: Sequence[float]) -> float:
    """The lateness that 19 of 20 do not exceed.

    :param values: one at least.
    """
    return sorted(values)[int(0.95 * (len(values) - 1))]


class Watch:
    """What this process had of the CPU for as long as the block lasted.

    All measurements of a process share one CPU at most.

    :param share: of one CPU that the process used.
    :param lag: seconds by which a sleep of it ended late, 19 times of 20 at most.
    """

    def __init__(self) -> None:
        self.share = self.lag = 0.0
        self._late: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read_lateness, daemon=True)

    def _read_lateness(self) -> None:
        while True:
            due = time.monotonic() + SLEEP
            if self._over.wait(SLEEP):
                return
            self._late.append(time.monotonic() - due)

    def __enter__(self) -> Self:
        self._started, self._used = time.monotonic(), time.process_time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        wall = time.monotonic() - self._started
        self.share = (time.process_time() - self._used) / wall if wall > 0 else 0.0
        self._over.set()
        self._thread.join()
        self.lag = find_lag(self._late) if self._late else 0.0


class Turns:
    """Whose turn it is to measure: so many at one time, and of one server one alone.

    :param most: measurements at one time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, server: str, timeout: float) -> Iterator[None]:
        """Wait for a turn, and have it for as long as the block lasts.

        :param server: what is measured.
        :param timeout: seconds to wait.
        :raises StepError: others are measured for longer.
        """

        def is_free() -> bool:
            return not self._taken[server] and self._taken.total() < self._most

        with self._changed:
            if not self._changed.wait_for(is_free, timeout):
                raise StepError(
                    f"timed out after {format_limit(timeout)} waiting for other measurements of "
                    "this run; run again for this host alone"
                )
            self._taken[server] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[server] -= 1
                self._changed.notify_all()


_turns = Turns(MOST_TURNS)


@contextmanager
def take_turn(host: Host, endpoint: Endpoint, *, shared: bool) -> Iterator[None]:
    """Measure where no other measurement of this process spoils it, once there is none.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param shared: whether several hosts may reach the same server at its address.
    :raises StepError: there are others for too long.
    """
    here = not shared or is_loopback(endpoint.address)
    server = f"{host.name} {endpoint}" if here else f"{endpoint.address} {endpoint.port}"
    with _turns.take(server, TURN):
        yield


def is_loopback(address: str) -> bool:
    """Whether an address is that of each host itself.

    :param address: an IP address or a name.
    """
    if address == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def _list_turns(order: Sequence[int], repeats: int, servers: int) -> Iterator[int]:
    """Whose turn it is, until each has had as many."""
    for number in range(repeats * servers):
        yield order[number % len(order)]


class _Progress:
    """Counts requests."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self.doing = ""
        self._total = total
        self._done = 0
        self._on_progress = on_progress

    def count(self, _: Sample) -> None:
        self._done += 1
        self._on_progress(min(self._done, self._total), self._total, self.doing)


class _Bench:
    """One server at one load."""

    def __init__(
        self,
        host: Host,
        endpoint: Endpoint,
        prepared: Ready,
        profile: Profile,
        load: Load,
        progress: _Progress,
    ) -> None:
        self._host = host
        self._endpoint = endpoint
        self._prepared = prepared
        self._profile = profile
        self._load = load
        self._progress = progress
        self._timeout = find_timeout(profile, load, prepared.cold)
        self._task = prepared.make_task(profile.model_copy(update={"timeout": self._timeout}))
        self._gave_up = False

    def run_warmups(self) -> None:
        """Requests that are not counted, as many at one time as there will be."""
        warmups = count_warmups(self._profile, self._load)
        if not warmups:
            return
        self._progress.doing = f"{self._load}, warm-up"
        with self._open_connected(warmups) as clients:
            run = Run(clients, self._task, self._progress.count)
            run.run_closed(warmups)

    def run_repeat(self, read_conditions: ReadConditions | None) -> Repeat:
        """One run of requests, with the host's conditions meanwhile."""
        requests = count_requests(self._profile, self._load, self._prepared.cold)
        with self._open_connected(requests) as clients:
            # It changes, and one of an hour ago is taken out of no time of now.
            rtt = None
            with suppress(StepError):
                rtt = measure_round_trips(clients[0], self._endpoint, self._prepared.probe)
            read_again = read_conditions() if read_conditions else Conditions
            run = Run(clients, self._task, self._progress.count)
            rate = self._load.rate
            with Watch() as watch:
                if self._load.concurrency:
                    wall, samples = run.run_closed(requests)
                else:
                    wall, samples = run.run_open(requests, rate, seed=requests)
            own = {"client": watch.share, "lag": find_lag(run.lags) if run.lags else watch.lag}
            self._gave_up = run.gave_up
            return Repeat(
                wall=wall,
                samples=samples,
                conditions=read_again().model_copy(update=own),
                rtt=rtt,
                window=requests / rate if rate else None,
            )

    def explain_failure(self, repeat: Repeat) -> str:
        """Why no further repeat is worth its time, beginning with the server; empty if one is."""
        count, total = len(repeat.samples) - len(repeat.valid), len(repeat.samples)
        if repeat.valid and not self._gave_up:
            return ""
        failed = f"{count} of {total} requests at {self._load} do not count"
        if not repeat.valid:
            failed = f"none of {total} requests at {self._load} counts"
        return f"{self._endpoint}: {failed}: {_format_reasons(repeat.samples)}"

    @contextmanager
    def _open_connected(self, requests: int) -> Iterator[list[HTTPClient]]:
        """Clients that are connected: what connecting takes is no part of a request."""
        timeout = self._timeout
        with open_clients(self._host, self._endpoint, self._load, requests, timeout) as clients:
            for client in clients:
                with suppress(connection.HTTPError):
                    client.get(self._prepared.probe, timeout=SOON)
            yield clients


def _format_reasons(samples: Sequence[Sample]) -> str:
    """Why samples do not count, the most frequent reasons first."""
    reasons = Counter(sample.reason for sample in samples if sample.invalid)
    return "; ".join(reason for reason, _ in reasons.most_common(2))
