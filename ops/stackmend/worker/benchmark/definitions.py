"""What the figures of a request mean, and when they mean nothing: from events to a sample.

Pure: a protocol gives the events of one answer with the time of each; here they become a
:class:`Sample`, with the reason for which it does not count where there is one.

*TTFT* is the time from sending to the first text, be it reasoning or output. *TPOT* is the time
from the first text to the last, by the tokens that came after the first text. Tokens are counted by
the server, never by the pieces that an answer comes in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stackmend.worker.benchmark.state import Invalid, Sample

#: Seconds of loading above which the server loaded the model for this request.
LOADED = 0.1

#: Seconds that a server may spend on a model that is loaded, at most, and how many times what it
#: usually spends.
WARM, WARM_FACTOR = 0.25, 2.0

#: The share, and the number, by which the tokens of a prompt may differ from what was sent.
PROMPT_SHARE, PROMPT_TOKENS = 0.05, 4

#: The share, and the number, of a prompt's tokens that may have been kept: a template stands before
#: the salt, and a token that begins every prompt.
KEPT_SHARE, KEPT_TOKENS = 0.05, 8

#: How much faster a prompt that was kept has to be read before keeping is recognised by speed.
FASTER = 4.0

#: The share, and the seconds, by which times of the server's may exceed those of the client.
CLOCK_SHARE, CLOCK = 0.05, 0.05

#: The share of the writing time in which the text of an answer has to come.
STREAMED = 0.5

#: Seconds that one request has a token written in at least, on any hardware, and pieces of text
#: from which on that many tokens do not come at one moment by chance.
FASTEST, MANY = 1e-4, 8

#: Tokens that come in one piece of any server that bundles them.
PAIR = 2

#: Tokens that are no text: those that begin and end reasoning, or half of a character.
HIDDEN = 4

#: The share of the tokens that come as pieces of their own where a server does not bundle: some
#: tokens are no text, or half of a character.
UNBUNDLED = 0.7

#: The share of the tokens that nothing need explain, where those that a server does not count come
#: in fewer pieces.
UNEXPLAINED = 0.02

#: What is to be done about samples that do not count, where no other one does.
REMEDIES: Mapping[Invalid, str] = {
    "short": "ask for fewer output_tokens in the profile",
    "cached": "start the server without a cache of prompts",
    "cut": "give the server a larger context, or ask for fewer prompt_tokens in the profile",
    "reloaded": "end what has the model loaded again: worker.accelerated names it",
    "incomplete": "read the server's log, mend the cause, then run again",
    "error": "read the server's log, mend the cause, then run again",
    "refused": "start the server, then run again",
    "timeout": "allow a longer timeout in the profile, or ask for fewer tokens",
    "uncounted": "update the server to a version that counts the tokens of a stream",
    "implausible": "update the server to a version whose counts are of what it sends",
}

#: The same of a request that a server did not take, by the status of its answer.
_REFUSED = {
    401: "set api_key to a key that the server takes",
    403: "set api_key to a key that the server takes",
    404: "name a model and an address that the server has",
    405: "name a model and an address that the server has",
    429: "run again when the server takes more requests",
    503: "run again when the server takes requests",
}
_STATUS = re.compile(r"\(HTTP ([0-9]{3})\)$")


@dataclass(frozen=True)
class Text:
    """A piece of text came.

    :param at: seconds since the request was sent.
    :param characters: that it has; never none.
    :param reasoning: whether it is reasoning rather than output.
    """

    at: float
    characters: int
    reasoning: bool = False


@dataclass(frozen=True)
class Counts:
    """What the server counted; ``None`` where it does not say.

    :param prompt: tokens of the prompt, those that it had kept included.
    :param kept: those of them that it had kept.
    :param output: tokens of the answer, its reasoning included.
    :param assumed: whether the server did not count these, and says that it reached its limit.
    :param pieces: that these came in, those without text included.
    :param wide: bytes of the text beyond one for each character: tokens that are part of a
        character come together with its other parts.
    :param reasoning: those of them that are reasoning.
    :param load: seconds for loading the model.
    :param prefill: seconds for the prompt.
    :param decode: seconds for the answer.
    :param total: seconds in all.
    :param full: whether it ended because it had written what was asked for; ``None`` where it does
        not say.
    """

    prompt: int | None = None
    kept: int | None = None
    output: int | None = None
    load: float | None = None
    prefill: float | None = None
    decode: float | None = None
    total: float | None = None
    full: bool | None = None
    reasoning: int | None = None
    assumed: bool = False
    pieces: int = 0
    wide: int = 0


@dataclass(frozen=True)
class Problem:
    """Why an answer is none.

    :param invalid: the class.
    :param reason: in words, safe to be printed.
    """

    invalid: Invalid
    reason: str


@dataclass(frozen=True)
class Answer:
    """What came back for one request.

    :param texts: the pieces of text, in order.
    :param counts: what the server counted.
    :param end: seconds from sending to the end of the answer.
    :param complete: whether its last message came.
    :param problem: what went wrong, if anything did.
    :param content: the text itself, where it was kept.
    :param model: the name of the model that answers; empty where the server does not say.
    """

    texts: tuple[Text, ...] = ()
    counts: Counts = Counts()
    end: float = 0.0
    complete: bool = False
    problem: Problem | None = None
    content: str = field(default="", repr=False)
    model: str = ""


@dataclass(frozen=True)
class Question:
    """What was asked.

    :param output_tokens: tokens that the answer is to have.
    :param prompt_tokens: tokens that the prompt has, as far as that is known.
    """

    output_tokens: int
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Reference:
    """How a server reads a prompt that it has never met, and one that it has just had.

    :param cold: prompt tokens a second of the former; 0 where that is not known.
    :param warm: those of the latter.
    :param kept: tokens that it had kept of the former: those of its template.
    :param load: seconds that it spends on a model that is loaded before each answer.
    """

    cold: float = 0.0
    warm: float = 0.0
    kept: int = 0
    load: float = 0.0

    @property
    def limit(self) -> float:
        """Prompt tokens a second beyond which a prompt was kept; infinite where nothing shows it.

        Where keeping makes no difference to the speed, it does no harm to a measurement either.
        """
        if self.cold <= 0 or self.warm < FASTER * self.cold:
            return math.inf
        return math.sqrt(self.cold * self.warm)

    @property
    def loaded(self) -> float:
        """Seconds of loading above which the server loaded the model for a request."""
        return max(LOADED, WARM_FACTOR * self.load) if self.load <= WARM else LOADED


def make_sample(
    answer: Answer,
    question: Question,
    *,
    sent: float = 0.0,
    reference: Reference | None = None,
    rtt: float = 0.0,
) -> Sample:
    """The sample that an answer is, with the reason for which it does not count.

    :param answer: what came back.
    :param question: what was asked.
    :param sent: when it was sent, since the repeat began.
    :param reference: how the server reads prompts; without one, keeping is recognised only where
        the server says so.
    :param rtt: seconds of one round trip to the server; taken out of no figure of the sample.

    Example:
        >>> texts = (Text(0.2, 4), Text(0.3, 4), Text(0.4, 4))
        >>> answer = Answer(texts, Counts(prompt=9, output=3), end=0.41, complete=True)
        >>> make_sample(answer, Question(3)).tpot
        0.1
    """
    counts = answer.counts
    output = [text for text in answer.texts if not text.reasoning]
    problem = find_problem(answer, question, reference or Reference(), rtt)
    return Sample(
        sent=sent,
        ttft=answer.texts[0].at if answer.texts else None,
        ttft_output=output[0].at if output else None,
        last=answer.texts[-1].at if answer.texts else None,
        end=answer.end,
        prompt_tokens=counts.prompt,
        cached_tokens=counts.kept,
        output_tokens=counts.output,
        first_tokens=count_first_tokens(answer.texts, counts.output),
        chunks=len(answer.texts),
        load=counts.load,
        prefill=counts.prefill,
        decode=counts.decode,
        total=counts.total,
        invalid=problem.invalid if problem else None,
        reason=problem.reason if problem else "",
    )


def count_first_tokens(texts: Sequence[Text], tokens: int | None) -> int:
    """About how many tokens came with the first piece of text.

    One, unless there are many fewer pieces than tokens; then by its share of the characters.

    :param texts: the pieces; those that came at one moment are one.
    :param tokens: of the answer, as the server counts them.
    """
    if not tokens or not texts or len({text.at for text in texts}) >= UNBUNDLED * tokens:
        return 1
    characters = sum(text.characters for text in texts)
    share = sum(text.characters for text in texts if text.at == texts[0].at) / characters
    return max(1, min(tokens, round(share * tokens)))


def find_problem(
    answer: Answer, question: Question, reference: Reference, rtt: float = 0.0
) -> Problem | None:
    """Why an answer does not count; ``None`` where it does.

    :param answer: what came back.
    :param question: what was asked.
    :param reference: how the server reads prompts.
    :param rtt: seconds of one round trip to the server.
    """
    if answer.problem is not None:
        return answer.problem
    if not answer.complete:
        return Problem("incomplete", "the stream ended without its last message")
    counts = answer.counts
    if counts.load is not None and counts.load > reference.loaded:
        return Problem(
            "reloaded", f"the server loaded the model for this request, in {counts.load:.2f} s"
        )
    return (
        _check_output(answer, question)
        or _check_times(answer)
        or check_prompt(counts, question)
        or _check_kept(answer, reference, rtt)
        or _check_length(counts, question)
    )


def _check_output(answer: Answer, question: Question) -> Problem | None:
    """Whether the tokens of the answer are counted, and can be right."""
    tokens, asked = answer.counts.output, question.output_tokens
    if tokens is None:
        return Problem("uncounted", "the server does not count the tokens of its answer")
    pieces = answer.counts.pieces
    # Its own limit may be what is left of its context.
    missing = tokens - pieces - answer.counts.wide
    if answer.counts.assumed and missing > max(1, UNEXPLAINED * tokens):
        return Problem(
            "uncounted",
            "the server does not count the tokens of its answer: it says that it has reached its "
            f"limit of {asked}, and sends {pieces} pieces of text",
        )
    if tokens > asked:
        return Problem("implausible", f"the server counts {tokens} tokens where {asked} were asked")
    if tokens < asked and answer.counts.full:
        return Problem(
            "implausible",
            f"the server counts {tokens} tokens and says that it has reached its limit of {asked}: "
            "it counts chunks for tokens, or its context is full",
        )
    hidden = answer.counts.reasoning or 0
    if hidden > HIDDEN and answer.texts and not any(text.reasoning for text in answer.texts):
        return Problem(
            "implausible",
            f"the server counts {hidden} tokens of reasoning, and sends none of that",
        )
    if tokens and not answer.texts:
        return Problem("implausible", f"the server counts {tokens} tokens and sends no text")
    return None


def _check_times(answer: Answer) -> Problem | None:
    """Whether the server's times fit into the client's, and the text came as it was written."""
    counts, texts = answer.counts, answer.texts
    spent = sum(part for part in (counts.load, counts.prefill, counts.decode) if part)
    spent = max(spent, counts.total or 0.0)
    if is_beyond(spent, answer.end):
        return Problem(
            "implausible",
            f"the server says that it took {spent:.2f} s for an answer of {answer.end:.2f} s",
        )
    if not texts or not counts.output or counts.output < 2:
        return None
    if counts.prefill is not None and is_beyond(counts.prefill, texts[0].at):
        return Problem(
            "implausible",
            f"the server says that it read the prompt for {counts.prefill:.2f} s, "
            f"and its first text came after {texts[0].at:.2f} s",
        )
    took = texts[-1].at - texts[0].at
    later = counts.output - count_first_tokens(texts, counts.output)
    # Many tokens within no time after a long silence were not written then.
    at_once = len(texts) > MANY and took < FASTEST * counts.output and texts[0].at > CLOCK
    if at_once or (len(texts) == 1 and counts.output > PAIR):
        return Problem(
            "implausible",
            f"all {counts.output} tokens came in one piece: the server, or what stands before it, "
            "does not stream",
        )
    written = (counts.decode or 0.0) * later / counts.output
    if written > CLOCK and took < STREAMED * written:
        return Problem(
            "implausible",
            f"the text came within {took:.2f} s, and was written in {written:.2f} s: something "
            "between holds it back",
        )
    return None


def is_beyond(part: float, all_of_it: float) -> bool:
    """Whether a time is longer than that which contains it, whatever two clocks differ by."""
    return part > all_of_it * (1 + CLOCK_SHARE) + CLOCK


def check_prompt(counts: Counts, question: Question) -> Problem | None:
    """Whether all of the prompt was read.

    :param counts: the server's.
    :param question: with the tokens that the prompt has, as far as that is known.
    """
    if counts.prompt is None and counts.prefill is not None:
        return Problem(
            "cached", "the server does not count the prompt, as old ones do that have kept it"
        )
    sent = question.prompt_tokens
    if counts.prompt is None or sent is None:
        return None
    leeway = max(PROMPT_TOKENS, PROMPT_SHARE * sent)
    if counts.prompt < sent - leeway:
        return Problem("cut", f"the server read {counts.prompt} tokens of a prompt of about {sent}")
    if counts.prompt > sent + leeway:
        return Problem(
            "implausible",
            f"the server counts {counts.prompt} tokens of a prompt that has about {sent}",
        )
    return None


def _check_kept(answer: Answer, reference: Reference, rtt: float) -> Problem | None:
    """Whether the prompt was read, rather than kept from another request."""
    counts = answer.counts
    if counts.prompt is None:
        return None
    beyond = (counts.kept or 0) - reference.kept
    if beyond > max(KEPT_TOKENS, KEPT_SHARE * counts.prompt):
        return Problem(
            "cached",
            f"the server had kept {counts.kept} of the {counts.prompt} tokens of the prompt",
        )
    speed = compute_prefill_speed(answer, rtt)
    if speed is not None and speed > reference.limit:
        return Problem(
            "cached",
            f"the server read the prompt at {speed:.0f} tokens/s, and reads one that it does not "
            f"know at {reference.cold:.0f}: it had kept it",
        )
    return None


def compute_prefill_speed(answer: Answer, rtt: float = 0.0) -> float | None:
    """Prompt tokens a second: by the server's own time, or else as many at least as fit into TTFT.

    :param answer: what came back.
    :param rtt: seconds of one round trip to the server.
    """
    counts = answer.counts
    if counts.prompt is None:
        return None
    took = counts.prefill
    if took is None:
        took = answer.texts[0].at - rtt if answer.texts else None
    return None if took is None else counts.prompt / max(took, 1e-6)


def _check_length(counts: Counts, question: Question) -> Problem | None:
    """Whether the answer is as long as was asked."""
    assert counts.output is not None, "checked before"
    if counts.output < question.output_tokens:
        return Problem(
            "short",
            f"the model ended after {counts.output} of {question.output_tokens} tokens",
        )
    return None


#: A text has to be so many times longer, in tokens, than its server counted it when it wrote it,
#: before the server is known to count something else.
RECOUNTED = 1.2

#: The share of the tokens that its server counted when it wrote it that a text has to have, or the
#: server is known to have written what it did not send.
SENT = 0.5


def find_remedy(invalid: Invalid, reason: str) -> str:
    """What is to be done where no sample counts, for the most frequent of their reasons.

    :param invalid: the class.
    :param reason: in words; a status at its end says more.

    Example:
        >>> find_remedy("refused", "no such model (HTTP 404)")
        'name a model and an address that the server has'
    """
    status = _STATUS.search(reason)
    known = _REFUSED.get(int(status[1])) if status and invalid == "refused" else None
    return known or REMEDIES[invalid]


def find_miscount(counted: int, recounted: int, chunks: int | None = None) -> Problem | None:
    """Whether a server counts something else than the tokens that it sends.

    The text of an answer, sent back as a prompt, has as many tokens as it had when it was written,
    or fewer: but not so many fewer where it came in as few pieces.

    :param counted: tokens that the server counted when it wrote the text.
    :param recounted: tokens that it counts when it reads the text.
    :param chunks: pieces that the text came in.
    """
    if recounted > max(RECOUNTED * counted, counted + PROMPT_TOKENS):
        return Problem(
            "implausible",
            f"the server counts {counted} tokens of an answer that it reads as {recounted}: it "
            "counts chunks for tokens",
        )
    few = chunks is not None and chunks < UNBUNDLED * counted
    if few and recounted < min(SENT * counted, counted - PROMPT_TOKENS):
        return Problem(
            "implausible",
            f"the server counts {counted} tokens of an answer that it reads as {recounted}: it "
            "does not send all that it writes",
        )
    return None
