"""How bringing a model can fail."""

from __future__ import annotations

from collections.abc import Collection

from stackmend.errors import StepError


class Full(StepError):
    """There is no room for it where the models lie."""


class TransientError(Exception):
    """It did not work this time.

    :param wasted: whether what had come until then is lost.
    :param lost: the blobs that were lost, where that is known.
    """

    def __init__(self, reason: str, *, wasted: bool = False, lost: Collection[str] = ()) -> None:
        super().__init__(reason)
        self.wasted = wasted
        self.lost = lost


class PeerUnavailable(Exception):
    """One host cannot give a model, but another may; the text says why."""
