"""Tests of how long things take, on a machine that others use as well.

A process that does not get to run for a while makes every time wrong, and proves nothing. What is
wrong by itself is wrong at every attempt.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec

from stackmend.errors import StepError

P = ParamSpec("P")

#: Attempts, and seconds between them, each time as many more.
ATTEMPTS, PAUSE = 6, 0.5


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
