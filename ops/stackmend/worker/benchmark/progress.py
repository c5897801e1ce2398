"""The progress of measurements: a bar for each on a terminal, a line now and then without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

from stackmend.reporting import announce
from stackmend.reporting.bars import Board, make_console
from stackmend.text import format_limit

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds between two lines where there is no terminal.
EVERY = 30.0

#: Called with the requests that were answered, those in all, and what is done.
OnProgress = Callable[[int, int, str], None]


_board = Board(
    lambda: (MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[doing]}"))
)


@contextmanager
def display(host: Host, server: str) -> Iterator[OnProgress]:
    """Show the progress of a measurement for as long as the block lasts.

    :param host: the host.
    :param server: what is measured, in words.
    :returns: what is to be called after each request.
    """
    if not make_console().is_terminal:
        yield _Lines(host, server).update
        return
    progress, task = _board.open(f"{host.name} {server}", None, doing="loading")

    def update(done: int, total: int, doing: str) -> None:
        progress.update(task, completed=done, total=total, doing=doing)

    try:
        yield update
    finally:
        _board.close(progress, task)


class _Lines:
    """A line now and then, with the time that is left."""

    def __init__(self, host: Host, server: str) -> None:
        self._host = host
        self._server = server
        self._started = self._last = time.monotonic()

    def update(self, done: int, total: int, doing: str) -> None:
        now = time.monotonic()
        if now - self._last < EVERY or not 0 < done < total:
            return
        self._last = now
        left = (now - self._started) / done * (total - done)
        announce.show_line(
            self._host,
            f"{self._server}: {done} of {total} requests, {doing}, about {format_limit(left)} left",
        )
