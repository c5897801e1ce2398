"""What is found out of a server before it is measured: how it counts, and how it reads prompts.

>>> prepared = prepare(host, endpoint, profile)
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stackmend.errors import StepError
from stackmend.reporting import announce
from stackmend.worker.benchmark.contact import SOON, choose_protocol, measure_round_trips
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
    find_remedy,
)
from stackmend.worker.benchmark.loading import (
    LOADING,
    load_model,
    release,
    wait_until_loaded,
)
from stackmend.worker.benchmark.prompts import (
    FEW_WORDS,
    MORE_WORDS,
    Prompts,
    find_scale,
    find_usual_words,
)
from stackmend.worker.benchmark.protocols import Protocol, is_loading
from stackmend.worker.benchmark.protocols.openai import OpenAI
from stackmend.worker.benchmark.sending import Task, open_client, send

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import HTTPClient
    from stackmend.worker.benchmark.endpoint import Endpoint
    from stackmend.worker.benchmark.spec import Profile
    from stackmend.worker.benchmark.state import Invalid

#: How often a request is sent again whose answer teaches nothing, and requests in all at most.
LEARNING_RETRIES, MOST_ASKED = 2, 30

#: Tokens of an answer that is of no interest.
FEW_TOKENS = 2

#: Tokens of an answer whose text is read again, in order to see whether the server counts tokens,
#: and the share of its characters that may be none that can be read.
RECOUNTED_TOKENS, UNREADABLE = 8, 0.25


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


class TooSlow(StepError):
    """A server that answers, and ends no request within the time that each has.

    :param endpoint: the server.
    :param reason: what it did.
    :param remedy: what to do.
    """

    def __init__(self, endpoint: Endpoint, reason: str, remedy: str) -> None:
        super().__init__(f"cannot measure {reason}; {remedy}")
        self.endpoint = endpoint


def prepare(host: Host, endpoint: Endpoint, profile: Profile) -> Prepared:
    """Find out what a measurement needs to know: load the model, and learn how it counts.

    Sends a few requests, which are part of no measurement.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param profile: how it will be asked.
    :raises TooSlow: it ends no answer within the profile's ``timeout``.
    :raises StepError: it does not answer, or not so that it can be measured.
    """
    with open_client(host, endpoint, SOON) as client:
        protocol = choose_protocol(client, endpoint)
        rtt = measure_round_trips(client, endpoint, protocol.probe)
    load = load_model(host, endpoint, protocol)
    try:
        timeout = find_limit(profile)
        with open_client(host, endpoint, timeout) as client:
            learner = _Learner(host, client, endpoint, protocol, profile, rtt, timeout)
            return replace(learner.learn(), load=load)
    except BaseException:
        release(host, endpoint, protocol)
        raise


def find_limit(profile: Profile) -> float:
    """Seconds that each request of :func:`prepare` may take, which shows how long answers take.

    :param profile: how a server is asked.
    """
    if "timeout" in profile.model_fields_set:
        return profile.timeout
    return max(profile.timeout, LOADING)


class _Learner:
    """Finds out how a server counts, and how it reads prompts."""

    def __init__(
        self,
        host: Host,
        client: HTTPClient,
        endpoint: Endpoint,
        protocol: Protocol,
        profile: Profile,
        rtt: float,
        timeout: float,
    ) -> None:
        self._host = host
        self._client = client
        self._endpoint = endpoint
        self._protocol = protocol
        self._profile = profile
        self._rtt = rtt
        self._timeout = timeout
        self._prompts = Prompts(secrets.randbits(64))
        self._base = 0.0
        self._verified = False
        self._load = math.inf

    def learn(self) -> Prepared:
        few = self._ask_words(FEW_WORDS)
        if few.prompt is None:
            return self._finish(find_usual_words(self._profile.prompt_tokens), None)
        more = self._ask_words(MORE_WORDS)
        scale = find_scale(few.prompt, more.prompt or 0)
        if not scale.is_plausible:
            raise self._refuse(
                "cut",
                f"it counts {few.prompt} tokens of a prompt of {FEW_WORDS} words and "
                f"{more.prompt} of one of {MORE_WORDS}: it cuts prompts, or does not count them",
            )
        self._base = scale.base
        words = scale.find_words(self._profile.prompt_tokens)
        return self._finish(words, scale.count_tokens(words))

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
                "cached",
                f"it had kept {kept} of the {counts.prompt} tokens of a prompt that nobody sent "
                "before",
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
        """Have the server read what it wrote, and compare its counts.

        :param answer: to a prompt of so many words, that has so many tokens.
        """
        if expected is None or answer.counts.output is None or answer.counts.prompt is None:
            return self._report_unverified("it does not count both prompts and answers")
        for attempt in range(LEARNING_RETRIES + 1):
            if attempt:
                # A model may have little to say, and what is half of a character cannot be read.
                question = Question(self._profile.output_tokens, expected)
                answer = self._ask(self._prompts.make(words), question)
            if self._compare_counts(answer):
                self._verified = True
                return None
        return self._report_unverified(f"no answer has {RECOUNTED_TOKENS} tokens that can be read")

    def _compare_counts(self, answer: Answer) -> bool:
        """Whether an answer says how its server counts; one that counts otherwise is refused."""
        counted, content = answer.counts.output or 0, answer.content
        # Halves of characters have more tokens when they are read; what is left has fewer.
        readable = content.replace("\ufffd", "")
        if counted < RECOUNTED_TOKENS or not readable.strip():
            return False
        if len(content) - len(readable) > UNREADABLE * len(content):
            return False
        base = self._ask(self._prompts.make(1), Question(1, None)).counts.prompt
        salted = f"{self._prompts.make(1)} {readable}"
        recounted = self._ask(salted, Question(1, None)).counts.prompt
        if base is None or recounted is None:
            return False
        if problem := find_miscount(counted, recounted - base, len(answer.texts)):
            raise self._refuse(problem.invalid, problem.reason)
        return True

    def _report_unverified(self, reason: str) -> None:
        announce.show_line(
            self._host, f"{self._endpoint}: its counts of tokens are not verified: {reason}"
        )

    def _ask_words(self, words: int) -> Counts:
        return self._ask(self._prompts.make(words), Question(FEW_TOKENS, None)).counts

    def _ask(self, prompt: str, question: Question) -> Answer:
        """An answer that may be short or kept, and is otherwise right."""
        answer, problem = self._try_loaded(prompt, question)
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
            raise self._refuse(problem.invalid, problem.reason)
        # From now on the same one has to answer.
        protocol.named = protocol.named or answer.model
        return answer

    def _try_loaded(self, prompt: str, question: Question) -> tuple[Answer, Problem | None]:
        """As :meth:`_try`; a server that loads its model meanwhile is waited for."""
        return wait_until_loaded(
            self._host,
            str(self._endpoint),
            LOADING,
            lambda: self._try(prompt, question),
            lambda result: _is_loading(result[1]),
        )

    def _try(self, prompt: str, question: Question) -> tuple[Answer, Problem | None]:
        task = Task(
            protocol=self._protocol,
            prompts=self._prompts,
            words=0,
            question=question,
            timeout=self._timeout,
            rtt=self._rtt,
            keep=True,
        )
        request = self._protocol.build(prompt, question.output_tokens, self._prompts.make_seed())
        _, answer = send(self._client, task, request)
        if (load := answer.counts.load) is not None:
            self._load = min(self._load, load)
        reference = Reference(kept=10**9, load=self._load)
        return answer, find_problem(answer, question, reference, self._rtt)

    def _refuse(self, invalid: Invalid, reason: str) -> StepError:
        remedy = find_remedy(invalid, reason)
        if invalid == "timeout":
            return TooSlow(self._endpoint, f"{self._endpoint}: {reason}", remedy)
        return StepError(f"cannot measure {self._endpoint}: {reason}; {remedy}")


def _is_loading(problem: Problem | None) -> bool:
    return (
        problem is not None
        and problem.reason.endswith("(HTTP 503)")
        and is_loading(503, problem.reason)
    )
