"""What ends a step, in every room."""

from __future__ import annotations

from collections.abc import Sequence


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
