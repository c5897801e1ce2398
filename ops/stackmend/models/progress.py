"""How far pulls are: a bar for each on a terminal, a line now and then without one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from stackmend.models.plan import human
from stackmend.reporting import announce

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra.api.host import Host

#: Seconds between two lines where there is no terminal.
EVERY = 10.0


class Tally:
    """The bytes that come to one server, each counted once, however many models share its blob."""

    def __init__(self) -> None:
        self._there: dict[str, int] = {}
        self._lock = threading.Lock()
        #: Bytes that have come since it began, whatever became of them.
        self.came = 0

    def there(self, digest: str) -> int:
        """Bytes of a blob that are there."""
        return self._there.get(digest, 0)

    def known(self, digest: str) -> bool:
        """Whether it is known how much of a blob is there."""
        return digest in self._there

    def begins(self, there: Mapping[str, int]) -> None:
        """So much was there before, of blobs that nothing is known of yet."""
        with self._lock:
            self._there = {**there, **self._there}

    def reached(self, digest: str, there: int) -> None:
        """So much of a blob is there now; less than what is known is old news."""
        with self._lock:
            self.came += max(0, there - self._there.get(digest, 0))
            self._there[digest] = max(there, self._there.get(digest, 0))

    def fell(self, digest: str, there: int) -> None:
        """Only so much of a blob is there, whatever there was."""
        with self._lock:
            self._there[digest] = there


class Meter:
    """The bytes of one model, while it comes.

    :param tally: counts those of all models of the server.
    :param sizes: bytes of its blobs, as far as they are known.
    :param guess: whether nobody knows what the server had: a blob that is whole when the server
        speaks of it first was then there before.
    """

    def __init__(self, tally: Tally, sizes: Mapping[str, int], *, guess: bool = False) -> None:
        self._tally = tally
        self._sizes = dict(sizes)
        self._told: dict[str, int] = {}
        self._guess = guess
        #: Bytes that have come for this model since it began, whatever became of them.
        self.came = 0

    def told(self, digest: str, there: int, total: int) -> None:
        """So much of a blob is there now; less than before means that it was begun anew.

        :param total: bytes of it; 0 where the server does not say.
        """
        last = self._told.get(digest)
        if last is not None and there < last:
            self._tally.fell(digest, there)
        elif self._guess and 0 < there == total and not self._tally.known(digest):
            self._tally.begins({digest: there})
        self.came += max(0, there - (self._tally.there(digest) if last is None else last))
        self._tally.reached(digest, there)
        self._told[digest] = there
        if total:
            self._sizes[digest] = total

    def at(self, digest: str, there: int) -> None:
        """A blob goes on, or begins again, from here."""
        self._tally.fell(digest, there)
        self._told[digest] = there

    def complete(self, sizes: Mapping[str, int] | None = None) -> None:
        """All of it is there: what came between two words of the server is counted too.

        :param sizes: bytes of its blobs, where they were not known before.
        """
        self._sizes |= sizes or {}
        for digest, size in self._sizes.items():
            self._tally.reached(digest, size)
            self._told[digest] = size

    @property
    def there(self) -> int:
        """Bytes of the model that are there."""
        return sum(min(size, self._tally.there(one)) for one, size in self._sizes.items())

    @property
    def total(self) -> int:
        """Bytes of the model, as far as they are known."""
        return sum(self._sizes.values())


class _Board:
    """The bars of all pulls of this process, drawn while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks = 0

    def open(self, title: str, total: int) -> tuple[Progress, TaskID]:
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    DownloadColumn(binary_units=True),
                    TransferSpeedColumn(),
                    TimeRemainingColumn(),
                    TextColumn("{task.fields[said]}"),
                    console=_console(),
                    transient=True,
                )
                self._progress.start()
            self._tasks += 1
            return self._progress, self._progress.add_task(title, total=total or None, said="")

    def close(self, progress: Progress, task: TaskID) -> None:
        with self._lock:
            progress.remove_task(task)
            self._tasks -= 1
            if not self._tasks:
                progress.stop()
                self._progress = None


_board = _Board()


def _console() -> Console:
    # pyinfra writes what it does to standard error as well.
    return Console(stderr=True)


class Shown:
    """One pull as the user sees it."""

    def __init__(self, host: Host, model: str, meter: Meter) -> None:
        self._host = host
        self._model = model
        self._meter = meter
        self._bar: tuple[Progress, TaskID] | None = None
        self._last = time.monotonic()
        self._there = meter.there
        if _console().is_terminal:
            self._bar = _board.open(f"{host.name} {model}", meter.total)

    def said(self, words: str) -> None:
        """The server says what it does."""
        self._draw(words)

    def told(self, digest: str, there: int, total: int) -> None:
        """So much of a blob is there."""
        self._meter.told(digest, there, total)
        self._draw("")

    def at(self, digest: str, there: int) -> None:
        """A blob goes on, or begins again, from here."""
        self._meter.at(digest, there)

    def counting(self, digest: str, total: int) -> Callable[[bytes], bytes]:
        """What passes the pieces of a blob on and tells of them."""
        there = 0

        def passed(piece: bytes) -> bytes:
            nonlocal there
            there += len(piece)
            self.told(digest, there, total)
            return piece

        return passed

    def close(self) -> None:
        """It is over, in whatever way."""
        if self._bar is not None:
            _board.close(*self._bar)
            self._bar = None

    def _draw(self, words: str) -> None:
        meter = self._meter
        if self._bar is not None:
            progress, task = self._bar
            fields: dict[str, Any] = {"said": words} if words else {}
            progress.update(task, completed=meter.there, total=meter.total or None, **fields)
            return
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        rate = (meter.there - self._there) / (now - self._last)
        self._last, self._there = now, meter.there
        share = f" ({meter.there / meter.total:.0%})" if meter.total else ""
        doing = f", {words}" if words else ""
        announce.show_line(
            self._host,
            f"{self._model}: {human(meter.there)} of {human(meter.total)}{share}, "
            f"{human(max(0, int(rate)))}/s{doing}",
        )


@contextmanager
def shown(host: Host, model: str, meter: Meter) -> Iterator[Shown]:
    """Show how far a model is for as long as the block lasts.

    :param host: the host that it comes to.
    :param model: the model.
    :param meter: counts its bytes.
    """
    one = Shown(host, model, meter)
    try:
        yield one
    finally:
        one.close()
