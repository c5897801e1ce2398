"""One policy for what comes over the network: what may be over a moment later is tried again.

Few attempts, with pauses that grow and differ from host to host, within one total limit. Only for
classes in which trying again can help (:data:`stackmend.connectivity.faults.TRANSIENT`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import tenacity

from stackmend.connectivity.faults import TITLES, TRANSIENT
from stackmend.connectivity.texts import Cause, find_cause
from stackmend.redaction import format_safe_line, redact_likely

if TYPE_CHECKING:
    from stackmend.connection import Result

T = TypeVar("T")

#: Attempts of one thing, the first one among them.
ATTEMPTS = 4

#: Seconds: the first pause, the longest, and what is added to each by chance.
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 1.0, 20.0, 2.0

#: Seconds of all pauses together, for the limit that a run prints.
PAUSES = sum(min(LONGEST_PAUSE, FIRST_PAUSE * 2**number + JITTER) for number in range(ATTEMPTS - 1))


def retry(
    attempt: Callable[[float], Result],
    *,
    limit: float,
    on_retry: Callable[[str], None] = lambda _: None,
    shortest: float = 1.0,
) -> Result:
    """Attempt a command until it succeeds, fails for good, or the time is over.

    :param attempt: runs it once; given the seconds that are left for it.
    :param limit: seconds for all attempts and the pauses between them.
    :param on_retry: told why, and when it is tried again.
    :param shortest: seconds that an attempt needs at least; with less left there is none.
    :returns: the last attempt's result.
    """
    until = time.monotonic() + limit

    def is_transient(result: Result) -> bool:
        cause = None if result.ok else find_result_cause(result)
        return cause is not None and cause.name in TRANSIENT

    def is_over(call: tenacity.RetryCallState) -> bool:
        left = until - time.monotonic() - call.upcoming_sleep
        return call.attempt_number >= ATTEMPTS or left < shortest

    def report(call: tenacity.RetryCallState) -> None:
        assert call.outcome is not None, "what is tried again has failed"
        cause = find_result_cause(call.outcome.result())
        assert cause is not None, "what has no class is not tried again"
        on_retry(f"{format_cause(cause)}; next attempt in {call.upcoming_sleep:.0f} s")

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(is_transient),
        stop=is_over,
        wait=tenacity.wait_exponential_jitter(
            initial=FIRST_PAUSE, max=LONGEST_PAUSE, jitter=JITTER
        ),
        before_sleep=report,
        retry_error_callback=lambda call: call.outcome.result(),  # type: ignore[union-attr]
    )(lambda: attempt(max(shortest, until - time.monotonic())))


def find_result_cause(result: Result) -> Cause | None:
    """What a command that failed says of the outside world."""
    return find_cause(f"{result.text}\n{result.error_text}")


def explain(result: Result) -> str:
    """Why a command failed: the class with the line that says so, or its last lines."""
    cause = find_result_cause(result)
    return format_cause(cause) if cause else redact_likely(result.reason)


def format_cause(cause: Cause) -> str:
    """A class in words, with its evidence."""
    return f"{TITLES[cause.name]} ({redact_likely(format_safe_line(cause.line, 300))})"
