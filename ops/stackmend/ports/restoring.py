"""Bring back what a record on the host holds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.decision import Action
from stackmend.ports import commands
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.reporting import Collector


@dataclass
class Restoring:
    """One record of one host, to be brought back."""

    host: "Host"
    record: str
    report: "Collector"

    def is_well(self) -> bool:
        """Whether all that the record holds is as it was. Changes nothing."""
        try:
            return self._run(look=True).ok
        except connection.RemoteError:
            # Said when it is carried out.
            return False

    def converge(self, state: "State", host: "Host") -> bool:
        """Bring it back, and say whether it is back."""
        try:
            seen = self._run(look=True)
            if seen.status != commands.DUE:
                return seen.ok or self._failed(seen)
            # "latest" is another one as soon as somebody frees a port.
            self.record = seen.text.strip()
            with connection.hold_lock(self.host, commands.LOCK):
                action = Action(
                    verb="bring back",
                    subject=self.record,
                    cause="what was ended is wanted again",
                    undo="ports.free ends it again",
                )
                with announce.track(self.host, self.report, action):
                    done = self._run(look=False)
                    if not done.ok:
                        raise _NotBack
                return True
        except _NotBack:
            return self._failed(done)
        except connection.RemoteError as error:
            announce.report_error(self.host, self.report, "ports", str(error))
            return False

    def _run(self, *, look: bool) -> "connection.Result":
        return connection.run(self.host, commands.restore(self.record, look=look), readonly=look)

    def _failed(self, result: "connection.Result") -> bool:
        reason = result.reason
        message = f"record {self.record}: {reason}"
        announce.report_error(self.host, self.report, "ports", message)
        return False


class _NotBack(Exception):
    """The script could not bring it back."""
