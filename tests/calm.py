"""Tests of how long things take, on a machine that others use as well.

A process that does not get to run for a while makes every time wrong, and proves nothing. What is
wrong by itself is wrong at every attempt.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec

from stackmend.errors import StepError

P = ParamSpec("P")

#: Attempts, and seconds between them, each time as many more.
ATTEMPTS, PAUSE = 4, 0.5

#: Seconds between two attempts by which lateness is found.
SLEEP = 0.02

#: The nice value of what must not wait.
URGENT = -15


def calmly(test: Callable[P, None]) -> Callable[P, None]:
    """A test that holds if it holds in one of several attempts.

    + test: begins from the start at each
    """

    @functools.wraps(test)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        for number in range(1, ATTEMPTS):
            try:
                return test(*args, **kwargs)
            except (AssertionError, StepError) as error:
                print(f"attempt {number}: {error}")
                time.sleep(PAUSE * number)
        return test(*args, **kwargs)

    return attempt


class Lateness:
    """How late this machine lets something come, found out while something else is measured.

    + attempt: something short, whose time differs only by how busy the machine is
    + seconds: by which it is late at most, but for one time in twenty; once it is over
    """

    def __init__(self, attempt: Callable[[], object]) -> None:
        self.seconds = 0.0
        self._attempt = attempt
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        found = []
        while not self._over.wait(SLEEP) or not found:
            started = time.monotonic()
            self._attempt()
            found.append(time.monotonic() - started)
        self.seconds = sorted(found)[int(0.95 * len(found))] - min(found)

    def __enter__(self) -> Lateness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def urgency() -> Iterator[None]:
    """This process, and those that it starts, run before others where the machine lets them."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, URGENT)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
