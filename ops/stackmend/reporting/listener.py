"""What a program is called with that runs pyinfra in its own process, and shows the run itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from stackmend.diagnosis import HostSupport
    from stackmend.reporting.state import Outcome, RunRecord


class Listener(ABC):
    """Who hears of a run: of each host once it has ended there, and of the record at the end."""

    #: Whether it hears of each host that the doctor was at what a support bundle holds of it.
    wants_support = False

    @abstractmethod
    def on_support(self, host: str, support: HostSupport) -> None:
        """Hear what a support bundle holds of a host, where that is wanted.

        :param host: its name.
        :param support: what was read of it.
        """

    @abstractmethod
    def on_host(self, host: str, outcome: Outcome, seconds: float) -> None:
        """Hear that nothing more is to be done on a host.

        :param host: its name.
        :param outcome: how it ended there.
        :param seconds: since the run began.
        """

    @abstractmethod
    def on_record(self, record: RunRecord, path: Path | None) -> None:
        """Hear how all of it ended; also where a signal ended it, shortly before the process exits.

        :param record: the run; no registered secret is in it.
        :param path: where it was written, ``None`` if it was not.
        """

    @abstractmethod
    def on_no_record(self) -> None:
        """Hear that the run has ended and that there is no record of it, as is said on stderr."""
