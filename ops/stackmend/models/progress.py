"""The progress of pulls: a bar for each on a terminal, a line now and then without one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import (
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from stackmend.models.plan import format_size
from stackmend.reporting import announce
from stackmend.reporting.bars import Board, make_console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra.api.host import Host
    from rich.progress import Progress, TaskID

#: Seconds between two lines where there is no terminal.
EVERY = 10.0


class Tally:
    """The bytes that one server receives, each counted once, however many models share its blob."""

    def __init__(self) -> None:
        self._present: dict[str, int] = {}
        self._lock = threading.Lock()
        #: Bytes that arrived so far, whatever became of them.
        self.received = 0

    def get_present(self, digest: str) -> int:
        """Bytes of a blob that are present."""
        return self._present.get(digest, 0)

    def has_measured(self, digest: str) -> bool:
        """Whether it is known how much of a blob is present."""
        return digest in self._present

    def start(self, present: Mapping[str, int]) -> None:
        """Note what was present before, of blobs that nothing is known of yet."""
        with self._lock:
            self._present = {**present, **self._present}

    def advance(self, digest: str, present: int) -> None:
        """Count what arrived of a blob; less than what is known is out of date."""
        with self._lock:
            self.received += max(0, present - self._present.get(digest, 0))
            self._present[digest] = max(present, self._present.get(digest, 0))

    def reset(self, digest: str, present: int) -> None:
        """Note that only so much of a blob is present, whatever was before."""
        with self._lock:
            self._present[digest] = present


class Meter:
    """The bytes of one model, while they arrive.

    :param tally: counts those of all models of the server.
    :param sizes: bytes of its blobs, as far as they are known.
    :param guess: whether it is not known what the server had: a blob that is complete when the
        server first names it was then present before.
    """

    def __init__(self, tally: Tally, sizes: Mapping[str, int], *, guess: bool = False) -> None:
        self._tally = tally
        self._sizes = dict(sizes)
        self._last: dict[str, int] = {}
        self._guess = guess
        #: Bytes that arrived for this model so far, whatever became of them.
        self.received = 0

    def update(self, digest: str, present: int, total: int) -> None:
        """Count what arrived of a blob; less than before means that it started again.

        :param total: bytes of it; 0 where the server does not say.
        """
        last = self._last.get(digest)
        if last is not None and present < last:
            self._tally.reset(digest, present)
        elif self._guess and 0 < present == total and not self._tally.has_measured(digest):
            self._tally.start({digest: present})
        before = self._tally.get_present(digest) if last is None else last
        self.received += max(0, present - before)
        self._tally.advance(digest, present)
        self._last[digest] = present
        if total:
            self._sizes[digest] = total

    def restart(self, digest: str, present: int) -> None:
        """Note that a blob continues, or starts again, from here."""
        self._tally.reset(digest, present)
        self._last[digest] = present

    def complete(self, sizes: Mapping[str, int] | None = None) -> None:
        """Count all of it as present, also what arrived between two reports of the server.

        :param sizes: bytes of its blobs, where they were not known before.
        """
        self._sizes |= sizes or {}
        for digest, size in self._sizes.items():
            self._tally.advance(digest, size)
            self._last[digest] = size

    @property
    def present(self) -> int:
        """Bytes of the model that are present."""
        return sum(
            min(size, self._tally.get_present(digest)) for digest, size in self._sizes.items()
        )

    @property
    def total(self) -> int:
        """Bytes of the model, as far as they are known."""
        return sum(self._sizes.values())


_board = Board(
    lambda: (
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
)


class Display:
    """One pull as the user sees it."""

    def __init__(self, host: Host, model: str, meter: Meter) -> None:
        self._host = host
        self._model = model
        self._meter = meter
        self._bar: tuple[Progress, TaskID] | None = None
        self._last = time.monotonic()
        self._present = meter.present
        if make_console().is_terminal:
            self._bar = _board.open(f"{host.name} {model}", meter.total or None, status="")

    def show_status(self, status: str) -> None:
        """Show what the server does."""
        self._draw(status)

    def update(self, digest: str, present: int, total: int) -> None:
        """Count what arrived of a blob, and show it."""
        self._meter.update(digest, present, total)
        self._draw("")

    def restart(self, digest: str, present: int) -> None:
        """Note that a blob continues, or starts again, from here."""
        self._meter.restart(digest, present)

    def count_pieces(self, digest: str, total: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the pieces of a blob on, and show how far it is."""
        present = 0
        for piece in pieces:
            present += len(piece)
            self.update(digest, present, total)
            yield piece

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            _board.close(*self._bar)
            self._bar = None

    def _draw(self, status: str) -> None:
        meter = self._meter
        if self._bar is not None:
            progress, task = self._bar
            fields: dict[str, Any] = {"status": status} if status else {}
            progress.update(task, completed=meter.present, total=meter.total or None, **fields)
            return
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        rate = (meter.present - self._present) / (now - self._last)
        self._last, self._present = now, meter.present
        share = f" ({meter.present / meter.total:.0%})" if meter.total else ""
        announce.show_line(
            self._host,
            f"{self._model}: {format_size(meter.present)} of {format_size(meter.total)}{share}, "
            f"{format_size(max(0, int(rate)))}/s" + (f", {status}" if status else ""),
        )


@contextmanager
def display(host: Host, model: str, meter: Meter) -> Iterator[Display]:
    """Show the progress of a model for as long as the block lasts.

    :param host: the host that receives it.
    :param model: the model.
    :param meter: counts its bytes.
    """
    pull = Display(host, model, meter)
    try:
        yield pull
    finally:
        pull.close()
