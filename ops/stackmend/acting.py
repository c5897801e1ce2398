"""How every room looks, tells what it found, and acts: under its lock, on a look taken under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from stackmend import connection
from stackmend.decision import Plan
from stackmend.reconcile import another_run, project_lock, unread
from stackmend.reporting import announce

__all__ = ["Teller", "act_upon", "another_run", "project_lock", "unread"]

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector


class Look(Protocol):
    """A reading, with what follows from it."""

    @property
    def plan(self) -> Plan[Any]:
        """What was found, what is to be done, and what is refused."""


L = TypeVar("L", bound=Look)


class Teller:
    """What is the same wherever one host is looked at: how it is told what was found.

    A room's reader adds ``look``; what it keeps of a host beside these is the room's own.
    """

    #: What an error is about, for the report.
    about: ClassVar[str]

    host: Host
    report: Collector

    def look(self) -> Look:
        """Read the host and decide. Changes nothing."""
        raise NotImplementedError

    def is_well(self) -> bool:
        """Look, and tell what was found while nothing is executed yet."""
        look = self.look()
        if not self.host.state.is_executing:
            self.tell(look.plan)
        return look.plan.empty

    def tell(self, decided: Plan[Any]) -> None:
        """Show what was found and what follows, on the terminal and in the report."""
        announce.report_plan(self.host, self.report, decided)

    def failed(self, message: str) -> None:
        """Show an error, its first line for itself, on the terminal and in the report."""
        first, *rest = message.splitlines() or [""]
        announce.report_error(self.host, self.report, self.about, first, rest)


class Worker(Protocol[L]):
    """Who brings one host to what is wanted."""

    host: Host
    report: Collector

    def look_again(self) -> L:
        """Read the host now, whatever was read before, and decide."""

    def carry_out(self, look: L, lease: connection.Lease) -> bool:
        """Do what follows from a look, and prove it."""


def act_upon(look: L, worker: Worker[L], lock: str) -> bool:
    """Have what a look found carried out; whether all is as wanted then.

    Where there is something to do the host is looked at once more under the lock, because whoever
    held it until now may have changed what was read before.

    :param look: what was read; where nothing is to be done it is told, and that is all.
    :param worker: who does it.
    :param lock: the file on the host whose lock keeps others from acting meanwhile.
    :raises RemoteError: the lock cannot be had, or the host not be reached.
    """
    if look.plan.refusals and (busy := another_run(worker.host, lock)):
        announce.report_plan(worker.host, worker.report, Plan(refusals=(busy,)))
        return False
    if not look.plan.actions:
        announce.report_plan(worker.host, worker.report, look.plan)
        return look.plan.empty
    with connection.hold_lock(worker.host, lock) as lease:
        # What other rooms read of the host before is of then as well.
        connection.invalidate(worker.host)
        look = worker.look_again()
        announce.report_plan(worker.host, worker.report, look.plan)
        return worker.carry_out(look, lease)
