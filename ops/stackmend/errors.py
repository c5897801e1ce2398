"""What ends a step, in every room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from traceback import StackSummary, walk_tb

#: The calls that an unexpected error is located by.
_CALLS = 4


class StepError(Exception):
    """A step failed.

    :param reason: what failed and why, in one sentence.
    :param log: what the failing thing wrote last, line by line.
    :param status: the exit status of the command that failed, if it was one.
    """

    def __init__(self, reason: str, log: Sequence[str] = (), *, status: int | None = None) -> None:
        super().__init__(reason)
        self.log = tuple(log)
        self.status = status


def describe_fault(error: Exception) -> StepError:
    """An error that no room expects, such as a fault of its own, as one of a step.

    :param error: what was raised.

    Example:
        >>> str(describe_fault(KeyError("name")))
        "unexpected KeyError: 'name'"
    """
    calls = StackSummary.extract(walk_tb(error.__traceback__), lookup_lines=False)[-_CALLS:]
    places = [f"{PurePath(call.filename).name} line {call.lineno}: {call.name}" for call in calls]
    return StepError(f"unexpected {type(error).__name__}: {error}", places)
