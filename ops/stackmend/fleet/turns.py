"""In which order hosts are changed: a few at first, more once one is proven, none after failures.

Pure: whoever asks says what time it is.
"""

from __future__ import annotations

from typing import Literal

#: How a host is after it was changed. ``worse``: it was well before, and has failed since.
#: ``other``: it has failed as before, or was not changed after all.
Result = Literal["well", "worse", "other"]

#: Seconds after which a host that is still in the same operation keeps no other waiting: a pull of
#: many gigabytes, or something that hangs.
LONGEST_TURN = 600.0


def find_worst(before: Result | None, now: Result) -> Result:
    """How a host is by all the operations that changed it: what one made worse, none makes well.

    :param before: how it is by the earlier ones; none where there was none.
    :param now: how it is by the last one.

    Example:
        >>> find_worst("worse", "well")
        'worse'
    """
    order: tuple[Result, ...] = ("worse", "other", "well")
    return min(before or "well", now, key=order.index)


class Turns:
    """Which hosts of a run may be changed now.

    :param canary: how many at a time, until one that was changed is proven well.
    :param parallel: how many at a time after that.
    :param stop_after: how many in a row have to get worse for no other to begin; 0 for never.

    Example:
        >>> turns = Turns(canary=1, parallel=2, stop_after=1)
        >>> turns.begin("ai1", 0.0), turns.begin("ai2", 0.0)
        (True, False)
        >>> turns.end("ai1", "worse")
        >>> turns.stopped
        ('ai1',)
    """

    def __init__(self, *, canary: int, parallel: int, stop_after: int) -> None:
        self._canary = canary
        self._parallel = parallel
        self._stop_after = stop_after
        self._changing: dict[str, float] = {}
        self._worse: list[str] = []
        self._proven = False
        self._ended = False

    @property
    def is_over(self) -> bool:
        """Whether no other host may begin."""
        return self._ended or bool(self.stopped)

    @property
    def stopped(self) -> tuple[str, ...]:
        """The hosts in a row that got worse, where they are so many that no other may begin."""
        is_over = self._stop_after and len(self._worse) >= self._stop_after
        return tuple(self._worse) if is_over else ()

    def begin_operation(self) -> None:
        """Take what follows for another change: no host is proven well with it yet."""
        self._proven = False

    def stop(self) -> None:
        """Let no other host begin."""
        self._ended = True

    def begin(self, host: str, now: float) -> bool:
        """Whether a host may be changed from now on; one that is being changed may go on.

        :param host: its name.
        :param now: seconds on a clock that never goes back.
        """
        if host in self._changing:
            return True
        if self.is_over:
            return False
        counted = sum(now - since < LONGEST_TURN for since in self._changing.values())
        if counted >= (max(self._parallel, self._canary) if self._proven else self._canary):
            return False
        self._changing[host] = now
        return True

    def renew(self, host: str, now: float) -> None:
        """Note that a host begins another operation; one that is being changed does not hang.

        :param host: its name.
        :param now: seconds on the same clock.
        """
        if host in self._changing:
            self._changing[host] = now

    def end(self, host: str, result: Result) -> None:
        """Note how a host is that was changed, if it was; the next one may begin.

        :param host: its name.
        :param result: how it is now.
        """
        if self._changing.pop(host, None) is None:
            return
        if result == "worse":
            self._worse.append(host)
        elif result == "well" and not self.stopped:
            self._worse.clear()
            self._proven = True
