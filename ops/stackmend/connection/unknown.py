"""The value that says "could not tell"."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands where a fact could not be read, with the reason in words.

    It is never to be taken for "nothing there": a plan made from it is a refusal.

    :param reason: why nothing is known, one line, ready to be shown to the user.

    Example:
        >>> Unknown("docker: permission denied").reason
        'docker: permission denied'
    """

    reason: str

    def __str__(self) -> str:
        return f"unknown: {self.reason}"
