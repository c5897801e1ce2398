"""The parts of the loop that are the ports' own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stackmend import connection, decision
from stackmend.errors import StepError
from stackmend.ports import commands
from stackmend.ports.facts import PortHolders, list_arguments
from stackmend.ports.plan import (
    Action,
    Plan,
    Reserve,
    list_remaining,
    plan,
    plan_starters,
)
from stackmend.ports.plan.model import CloseConnections, StopProcess
from stackmend.ports.spec import PortsSpec
from stackmend.ports.state import Holder, HostPorts
from stackmend.reconcile import (
    Observation,
    Reconciler,
    find_other_run,
    observe_unreadable,
)
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector

#: Seconds between two observations of ports that move.
PAUSE = 1.0

#: How often a refusal is observed again before it stands.
ATTEMPTS = 5

#: How often where a holder has no name each time: what crashes in a loop is often seen ending.
MOVING_ATTEMPTS = 15

#: How often who starts a holder again is stopped as well: it may have been started itself.
STARTERS = 3


@dataclass
class PortsReconciler(Reconciler[HostPorts, Action]):
    """The desired ports of one host."""

    subject = "ports"
    all_or_nothing = False

    host: Host
    spec: PortsSpec
    report: Collector
    _freed: list[str] = field(default_factory=list)
    _lease: connection.Lease | None = None

    def find_step_limit(self, action: Action) -> float:
        """Seconds that one action has, with the grace of what it ends."""
        processes = len(action.members) if isinstance(action, StopProcess) else 1
        return commands.LIMIT + self.spec.grace * processes

    def observe(self, *, fresh: bool = False) -> Observation[HostPorts, Action]:
        """Observe until refusals rest on what stays: on two readings in a row, and on no other run.

        What another run is making, a container that is restarted or a process that is just ending
        is seen half made.
        """
        observed = self._observe_once(fresh=fresh)
        for attempt in range(MOVING_ATTEMPTS):
            moving = _is_moving(observed.state)
            if observed.state is None or not observed.plan.refusals:
                break
            if attempt >= ATTEMPTS and not moving:
                break
            if busy := find_other_run(self.host):
                return Observation(Plan(refusals=(busy,)), observed.state)
            time.sleep(PAUSE)
            before, observed = observed, self._observe_once(fresh=True)
            if observed.plan.refusals == before.plan.refusals and not _is_moving(observed.state):
                break
        return observed

    def _observe_once(self, *, fresh: bool) -> Observation[HostPorts, Action]:
        if not self.spec.ports:
            return Observation(Plan())
        (state,) = self.fetch((PortHolders, list_arguments(self.spec)), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "who holds its ports")
        return Observation(plan(self.spec, state), state)

    def execute(
        self, plan: decision.Plan[Action], state: HostPorts, lease: connection.Lease
    ) -> bool:
        """Carry out the actions of a plan in its order; each is recorded on the host first."""
        self._lease = lease
        self._execute_all(plan, state)
        return True

    def _execute_all(self, plan: decision.Plan[Action], state: HostPorts) -> None:
        for action in plan.actions:
            if self._lease is not None:
                self._lease.check()
            done = self.execute_action(action, state.now)
            if done and not isinstance(action, Reserve):
                self._freed += action.ports

    def execute_action(self, action: Action, now: float) -> bool:
        """Carry out one step; whether there was still something to be done.

        :param now: the host's clock, in seconds since 1970.
        :raises StepError: it failed.
        """
        record = _name_record(now)
        undo = f"ports.restored(record={record!r})"
        # A connection is not brought back.
        recorded = not isinstance(action, CloseConnections)
        try:
            with self.step(action.model_copy(update={"undo": undo}) if recorded else action):
                self.run(
                    commands.execute(action, record, self.spec.grace),
                    f"could not {action.verb} {action.subject}",
                    timeout=self.find_step_limit(action),
                )
        except StepError as error:
            if error.status != commands.ABSENT:
                raise
            announce.show_line(self.host, f"  {action.subject}: it ended by itself")
            return False
        if recorded:
            announce.show_line(self.host, f"  {action.subject}: {undo} brings it back")
        return True

    def verify(
        self, plan: decision.Plan[Action], state: HostPorts
    ) -> Observation[HostPorts, Action]:
        """Observe at once, and again until what was freed has stayed so for a while."""
        since, rounds = time.monotonic(), 0
        while True:
            observed = self._observe_once(fresh=True)
            if observed.state is None:
                raise StepError(f"not proven free: {observed.plan.refusals[0].reason}")
            remaining = list_remaining(self._freed, state, observed.state)
            for port in remaining:
                if port.kind == "back":
                    following = plan_starters(self.spec, self._freed, state, observed.state)
                    if not following.actions or rounds == STARTERS:
                        raise StepError(f"{port.port}: {port.reason}; remedy: {port.remedy}")
                    self.report_plan(following)
                    self._execute_all(following, observed.state)
                    rounds, since = rounds + 1, time.monotonic()
                    break
            waited = time.monotonic() - since
            # What the kernel keeps for a while, or who is slow to let go, has as long as a process
            # has to end.
            settle = self.spec.settle if self._freed else 0
            limit = max(settle, self.spec.grace) if remaining else settle
            if waited >= limit:
                break
            time.sleep(min(PAUSE, limit - waited))
        if remaining:
            reasons = (f"{port.port} is not free: {port.reason}" for port in remaining)
            raise StepError("; ".join(reasons))
        return observed


def _name_record(now: float) -> str:
    """A name that no other record has: the host's second, and our milliseconds within a day."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{time.time_ns() // 1_000_000 % 86_400_000}"


def _is_moving(state: HostPorts | None) -> bool:
    """Whether a holder is seen that is just starting or ending: nobody can be named for it."""
    return state is not None and any(
        _is_unnamed(holder) for port in state.ports for holder in port.holders
    )


def _is_unnamed(holder: Holder) -> bool:
    match holder.kind:
        case "container":
            return holder.container is None
        case "process":
            return holder.process is not None and not holder.process.name
        case "hidden":
            return not holder.sockets
    return False
