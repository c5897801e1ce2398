"""How steady the client's side of a measurement was: what this process had of the CPU."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

from stackmend.worker.benchmark.state import CONTROLLER

if TYPE_CHECKING:
    from stackmend.worker.benchmark.state import Load, Repeat

#: Share of a CPU that measuring may use: a process of Python has one.
MOST_BUSY = 0.7

#: Seconds that this process may come late to anything, and the share of the time to a first token,
#: or between two requests of an open loop, by which it may be late.
LATE, MOST_LATE = 0.005, 0.1

#: Seconds between two readings of how late it comes.
SLEEP = 0.05


def find_client_noise(load: Load, repeats: Sequence[Repeat]) -> str:
    """Why the client's side of a level is not steady enough; empty where it is.

    Of several reasons it is the one that is furthest beyond its limit.

    :param load: how requests were sent.
    :param repeats: of the level.
    """
    found = [row for repeat in repeats for row in _list_noise(load, repeat) if row[0] > 1]
    return max(found)[1] if found else ""


def _list_noise(load: Load, repeat: Repeat) -> Iterator[tuple[float, str]]:
    """How many times its limit each part of the client's side is in a repeat, and that in words."""
    share, lag, rtt = repeat.conditions.client, repeat.conditions.lag, repeat.rtt
    if share is not None:
        cause = f"measuring used {share:.0%} of a CPU, and {MOST_BUSY:.0%} are the most"
        yield share / MOST_BUSY, f"{CONTROLLER} had no time: {cause}"
    if lag is not None and load.rate:
        most = MOST_LATE / load.rate
        cause = f"it sent requests {lag:.3f} s late, and {most:.3f} s are the most"
        yield lag / most, f"{CONTROLLER} had no time: {cause}"
    first = min((row.ttft for row in repeat.valid if row.ttft is not None), default=math.inf)
    if lag is not None and first < math.inf:
        most = max(LATE, MOST_LATE * first)
        cause = (
            f"it was {lag:.3f} s late, and {most:.3f} s are the most where a first token comes "
            f"after {first:.3f} s"
        )
        yield lag / most, f"{CONTROLLER} had no time: {cause}"
    if rtt is not None and rtt > first:
        yield (
            rtt / first if first > 0 else math.inf,
            f"a first token came after {first:.3f} s, and a round trip took {rtt:.3f} s",
        )


def find_lag(values: Sequence[float]) -> float:
    """The lateness that 19 of 20 do not exceed.

    :param values: one at least.
    """
    return sorted(values)[int(0.95 * (len(values) - 1))]


class Watch:
    """What this process had of the CPU for as long as the block lasted.

    All measurements of a process share one CPU at most.

    :param share: of one CPU that the process used.
    :param lag: seconds by which a sleep of it ended late, 19 times of 20 at most.
    """

    def __init__(self) -> None:
        self.share = self.lag = 0.0
        self._late: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read_lateness, daemon=True)

    def _read_lateness(self) -> None:
        while True:
            due = time.monotonic() + SLEEP
            if self._over.wait(SLEEP):
                return
            self._late.append(time.monotonic() - due)

    def __enter__(self) -> Self:
        self._started, self._used = time.monotonic(), time.process_time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        wall = time.monotonic() - self._started
        self.share = (time.process_time() - self._used) / wall if wall > 0 else 0.0
        self._over.set()
        self._thread.join()
        self.lag = find_lag(self._late) if self._late else 0.0
