"""How bringing a model can fail."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackmend.connection import Result


class Failed(Exception):
    """It cannot be done, and trying again would not help; the text says why."""


class Full(Failed):
    """There is no room for it where the models lie."""


class Passing(Exception):
    """It did not work this time.

    :param wasted: whether what had come until then is lost.
    :param lost: the blobs that were lost, where that is known.
    """

    def __init__(self, reason: str, *, wasted: bool = False, lost: Collection[str] = ()) -> None:
        super().__init__(reason)
        self.wasted = wasted
        self.lost = lost


class Gone(Exception):
    """One host cannot give a model, but another may; the text says why."""


def said(result: Result) -> str:
    """Why a command failed, in one line."""
    return " ".join(result.error_text.split()) or f"exit status {result.status}"
