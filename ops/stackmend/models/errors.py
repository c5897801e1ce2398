"""How getting a model onto a server can fail."""

from __future__ import annotations

from collections.abc import Collection

from stackmend.errors import StepError


class Full(StepError):
    """The disk of the models is full."""


class TransientError(Exception):
    """An attempt failed, and another one may succeed.

    :param wasted: whether what had arrived until then is lost.
    :param lost: the blobs that are lost, where that is known.
    """

    def __init__(self, reason: str, *, wasted: bool = False, lost: Collection[str] = ()) -> None:
        super().__init__(reason)
        self.wasted = wasted
        self.lost = lost


class PeerUnavailable(Exception):
    """A host cannot give a model, but another may; the text says why.

    :param corrupt: the blob that it gave with another content, if it did.
    """

    def __init__(self, reason: str, *, corrupt: str = "") -> None:
        super().__init__(reason)
        self.corrupt = corrupt
