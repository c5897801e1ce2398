"""How long a run has been at work on one host. Pure: whoever asks says what time it is."""

from __future__ import annotations


class Clock:
    """Counts the seconds of the operations on one host, without those that it waits for others.

    Example:
        >>> clock = Clock()
        >>> clock.start(10.0)
        >>> clock.drop(2.0)
        >>> clock.measure(15.0)
        3.0
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None

    def start(self, now: float) -> None:
        """Count from now on, if it does not already.

        :param now: seconds on a clock that never goes back.
        """
        if self._since is None:
            self._since = now

    def stop(self, now: float) -> None:
        """Count no more.

        :param now: seconds on the same clock.
        """
        self._spent, self._since = self.measure(now), None

    def drop(self, seconds: float) -> None:
        """Take off what was waited for others.

        :param seconds: how long that was.
        """
        self._spent -= seconds

    def measure(self, now: float) -> float:
        """Seconds until now.

        :param now: seconds on the same clock.
        """
        return self._spent + (0.0 if self._since is None else now - self._since)
