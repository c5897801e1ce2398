"""Carry out a plan and prove it. What is to be done is decided by ``plan``, never here."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.acting import act_upon
from stackmend.errors import StepError
from stackmend.ports import commands
from stackmend.ports.look import Look, Reader
from stackmend.ports.plan import Action, left
from stackmend.ports.plan.reserve import reservation
from stackmend.ports.spec import PortsSpec
from stackmend.ports.state import HostPorts
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.reporting import Collector

#: Seconds between two looks at ports that were freed.
PAUSE = 1.0

#: How many records of one second there can be.
RECORDS = 1000


class _Taken(Exception):
    """There is a record of this name already; nothing was done."""


class _Gone(Exception):
    """What was to be ended had gone by itself; nothing was done."""


class Freeing(Reader):
    """The wanted ports of one host, to be freed."""

    def __init__(self, host: "Host", spec: PortsSpec, report: "Collector") -> None:
        super().__init__(host, spec, report)
        self._number = 0

    def converge(self, state: "State", host: "Host") -> bool:
        """Free what is held and may be freed, prove it, and say whether all can be bound.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            return act_upon(self.look(), self, commands.LOCK)
        except (StepError, connection.RemoteError) as error:
            self.failed(str(error))
        return False

    def carry_out(self, look: Look, lease: "connection.Lease") -> bool:
        """Free what a look found held and may be freed, and prove it."""
        if look.state is None:
            return False
        freed: list[str] = []
        for action in look.plan.actions:
            lease.check()
            if self.act(action, look.state.now) and action.verb != "reserve":
                freed += action.ports
        if look.plan.refusals:
            return False
        look = self._prove(freed, look.state)
        if not look.plan.empty:
            self.tell(look.plan)
        return look.plan.empty

    def act(self, action: Action, now: float) -> bool:
        """Carry out one step; whether there was still something to be done.

        :param now: the host's clock, in seconds since 1970.
        :raises StepError: it could not be done.
        """
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        while self._number < RECORDS:
            self._number += 1
            record = f"{stamp}-{self._number}"
            undo = f"ports.restored(record={record!r})"
            try:
                self._end(action.model_copy(update={"undo": undo}), record)
            except _Taken:
                continue
            except _Gone:
                announce.show_line(self.host, f"  {action.subject}: gone by itself")
                return False
            announce.show_line(self.host, f"  {action.subject}: {undo} brings it back")
            return True
        raise StepError(f"{commands.ROOT} holds {RECORDS} records of this second")

    def _end(self, action: Action, record: str) -> None:
        with announce.track(self.host, self.report, action):
            grace = self.spec.grace * max(1, len(action.members))
            result = connection.run(
                self.host,
                commands.end(action, record, self.spec.grace),
                timeout=commands.LIMIT + grace,
            )
            if result.status == commands.TAKEN:
                raise _Taken
            if result.status == commands.GONE:
                raise _Gone
            if not result.ok:
                reason = result.reason
                raise StepError(f"could not {action.verb} {action.subject}: {reason}")

    def _prove(self, freed: Sequence[str], before: HostPorts) -> Look:
        """Look at once, and again until what was freed has stayed so for a while."""
        since = time.monotonic()
        while True:
            look = self.glance()
            if look.state is None:
                raise StepError(f"not proven free: {look.plan.refusals[0].reason}")
            rest = left(freed, before, look.state)
            for one in rest:
                if one.kind == "back":
                    raise StepError(f"{one.port}: {one.said}. To go on: {one.remedy}")
            waited = time.monotonic() - since
            # What the kernel keeps for a while, or who is slow to let go, has as long as a process
            # has to end.
            settle = self.spec.settle if freed else 0
            limit = max(settle, self.spec.grace) if rest else settle
            if waited >= limit:
                break
            time.sleep(min(PAUSE, limit - waited))
        if rest:
            raise StepError("; ".join(f"{one.port} is not free: {one.said}" for one in rest))
        return look


def reserve(host: "Host", report: "Collector", ranges: str, cause: str, now: float) -> None:
    """Keep ports from outgoing connections for good, where nothing of ours has them yet.

    They are added to those that are kept already. ``ports.restored`` takes it back.

    :param report: the collector of the operation that needs it.
    :param ranges: the ports, as :func:`~stackmend.ports.ranges.compressed` writes them.
    :param cause: why.
    :param now: the host's clock, in seconds since 1970.
    :raises StepError: it could not be done.
    """
    Freeing(host, PortsSpec(), report).act(reservation(ranges, cause), now)


def is_free(look: Look) -> bool:
    """Whether a reading says of every wanted port that it can be bound."""
    return look.state is not None and all(
        port.verdict in ("free", "ours") for port in look.state.ports
    )
