"""Tests of how long things take, on a machine that others use as well.

A process that does not get to run for a while makes every time wrong, and proves nothing. That it
did not is found out by another process, which runs none of what is tested: a failure without that
is one, at the first attempt.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from stackmend.errors import StepError

P = ParamSpec("P")

#: Attempts, and seconds between them, each time as many more.
ATTEMPTS, PAUSE = 4, 0.5

#: Seconds by which a process may be late on a machine that has the time for it.
LATE = 0.005

#: The nice value of what must not wait.
URGENT = -15

#: What a test says that is skipped because this machine was late at every attempt.
SKIPPED = "this machine was late at every attempt"

_PROGRAM = Path(__file__).with_name("late.py")


def calmly(test: Callable[P, None]) -> Callable[P, None]:
    """A test that holds if it holds in one of several attempts; another one only after lateness.

    + test: begins from the start at each
    """
    return _attempt_calmly(test, skip=False)


def exactly(test: Callable[P, None]) -> Callable[P, None]:
    """As `calmly`; skipped where this machine was late at every attempt.

    For what is as exact as it can be on a quiet machine alone; a run says where all were skipped.
    """
    return pytest.mark.exact(_attempt_calmly(test, skip=True))


def _attempt_calmly(test: Callable[P, None], *, skip: bool) -> Callable[P, None]:
    @functools.wraps(test)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        for number in range(1, ATTEMPTS + 1):
            late = Lateness()
            try:
                with late:
                    return test(*args, **kwargs)
            except (AssertionError, StepError) as error:
                print(f"attempt {number}, {late.seconds:.4f} s late: {error}")
                if late.seconds <= LATE:
                    raise
                if number == ATTEMPTS and not skip:
                    raise
            time.sleep(PAUSE * number)
        pytest.skip(SKIPPED)

    return pytest.mark.timed(attempt)


def is_skipped_in_all(stats: Mapping[str, Sequence[Any]]) -> bool:
    """Whether exact tests were to run, and this machine was late for all of them.

    + stats: reports by their outcome, as pytest's terminal has them
    """
    skipped = any(SKIPPED in str(report.longrepr) for report in stats.get("skipped", ()))
    ran = any(
        "exact" in report.keywords
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, ())
        if report.when == "call"
    )
    return skipped and not ran


class Lateness:
    """How late this machine lets a process run, found out by one that does nothing else.

    + seconds: by which it was late at most; once it is over
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Lateness:
        command = [sys.executable, "-I", str(_PROGRAM)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        output, _ = self._process.communicate("", timeout=60)
        self.seconds = float(output)


@contextlib.contextmanager
def urgency() -> Iterator[None]:
    """This process, and those that it starts, run before others where the machine lets them."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, URGENT)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
