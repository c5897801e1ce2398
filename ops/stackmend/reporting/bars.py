"""Bars of progress on the terminal: one board for all bars of a kind in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn


class Board:
    """The bars of one kind, drawn while there are any.

    :param columns: makes what stands right of a bar.
    """

    def __init__(self, columns: Callable[[], Sequence[ProgressColumn]]) -> None:
        self._columns = columns
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks = 0

    def open(self, title: str, total: int | None, **fields: Any) -> tuple[Progress, TaskID]:
        """Add a bar.

        :param title: what stands left of it.
        :param total: what is complete; ``None`` where that is not known yet.
        :param fields: what its columns show besides.
        :returns: what updates it, and its number there.
        """
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    *self._columns(),
                    console=make_console(),
                    transient=True,
                )
                self._progress.start()
            self._tasks += 1
            return self._progress, self._progress.add_task(title, total=total, **fields)

    def close(self, progress: Progress, task: TaskID) -> None:
        """Take a bar away, and the board with the last one.

        :param progress: of :meth:`open`.
        :param task: likewise.
        """
        with self._lock:
            progress.remove_task(task)
            self._tasks -= 1
            if not self._tasks:
                progress.stop()
                self._progress = None


def make_console() -> Console:
    """Where bars are drawn: pyinfra writes what it does to standard error as well."""
    return Console(stderr=True)
