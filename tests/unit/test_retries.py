"""What comes over the network is tried again: only where that can help, and within a limit."""

from __future__ import annotations

import time

import pytest
import tenacity

from stackmend import retries
from stackmend.connection import Result

RESET = Result(1, b"", b"curl: (56) Recv failure: Connection reset by peer\nfatal: early EOF\n")
WELL = Result(0, b"", b"curl: (56) Recv failure: Connection reset by peer\n")


class Clock:
    """Time that passes while somebody sleeps, and while an attempt is made."""

    def __init__(self, each: float) -> None:
        self.now, self.each = 0.0, each
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(each=1)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(tenacity.nap.time, "sleep", clock.sleep)
    return clock


def run(clock: Clock, *results: Result, limit: float = 1000) -> tuple[Result, list[float]]:
    """The result, and the seconds that each attempt had."""
    given: list[float] = []

    def attempt(left: float) -> Result:
        given.append(left)
        clock.now += min(clock.each, left)
        return results[min(len(given), len(results)) - 1]

    return retries.retry(attempt, limit=limit), given


def test_what_may_pass_is_tried_again(clock: Clock) -> None:
    result, given = run(clock, RESET, RESET, WELL)
    assert result is WELL
    assert len(given) == 3
    assert 1 <= clock.pauses[0] <= 3
    assert 2 <= clock.pauses[1] <= 4


def test_it_ends_and_the_last_result_is_told(clock: Clock) -> None:
    result, given = run(clock, RESET)
    assert result is RESET
    assert len(given) == retries.ATTEMPTS
    assert sum(clock.pauses) <= retries.PAUSES


@pytest.mark.parametrize("code", [401, 403, 404, 407])
def test_what_does_not_pass_is_tried_once(clock: Clock, code: int) -> None:
    text = f"fatal: unable to access 'https://x/': The requested URL returned error: {code}"
    failed = Result(128, b"", text.encode())
    assert run(clock, failed) == (failed, [1000])


@pytest.mark.parametrize(
    "text", ["", "no space left on device", "x509: certificate signed by unknown authority", "oops"]
)
def test_what_has_another_cause_is_tried_once(clock: Clock, text: str) -> None:
    failed = Result(1, b"", text.encode())
    assert run(clock, failed) == (failed, [1000])


def test_all_attempts_have_one_limit(clock: Clock) -> None:
    clock.each = 400
    result, given = run(clock, RESET, limit=1000)
    assert result is RESET
    assert len(given) == 3
    assert given[2] < 200
    assert clock.now <= 1000
    clock.now, clock.each = 0, 999.5
    assert len(run(clock, RESET, limit=1000)[1]) == 1


def test_pauses_differ(clock: Clock) -> None:
    for _ in range(8):
        run(clock, RESET, WELL)
    assert len(set(clock.pauses)) > 1


def test_the_reason_is_the_class_with_the_line_that_says_so() -> None:
    assert retries.explain(RESET) == (
        "something on the way resets the connection "
        "(curl: (56) Recv failure: Connection reset by peer)"
    )
    leak = b"fatal: unable to access 'https://me:s3cret@x/': Could not resolve host: x"
    assert "s3cret" not in retries.explain(Result(1, b"", leak))
    assert retries.explain(Result(1, b"", b"a\nb\n")) == "a; b"
    # A build's log is on standard output, and what it ends with is a wrapper.
    build = Result(
        17,
        b"#5 0.298 wget: can't connect to remote host (127.0.0.1): Connection refused\n",
        b'failed to solve: process "/bin/sh -c wget" did not complete successfully: exit code: 1\n',
    )
    assert retries.explain(build).startswith("nothing listens there (#5 0.298 wget: ")
