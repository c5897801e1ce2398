"""How every room acts: under its lock, and on a look that is taken under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ops import connection
from ops.reports import telling

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from ops.decision import Plan
    from ops.reports import Collector


class Look(Protocol):
    """A reading, with what follows from it."""

    @property
    def plan(self) -> Plan[Any]:
        """What was found, what is to be done, and what is refused."""


L = TypeVar("L", bound=Look)


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
    if not look.plan.actions:
        telling.tell(worker.host, worker.report, look.plan)
        return look.plan.empty
    with connection.hold_lock(worker.host, lock) as lease:
        # What other rooms read of the host before is of then as well.
        connection.forget(worker.host)
        look = worker.look_again()
        telling.tell(worker.host, worker.report, look.plan)
        return worker.carry_out(look, lease)
