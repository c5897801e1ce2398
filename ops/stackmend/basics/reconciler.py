"""The parts of the loop that are the basics' own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tenacity

from stackmend import connection
from stackmend.basics import commands
from stackmend.basics.facts import Basics, get_arguments
from stackmend.basics.plan import Action, Reserve, plan
from stackmend.basics.state import HostBasics
from stackmend.ports import reserve
from stackmend.reconcile import Observation, Reconciler, observe_unreadable

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.basics.spec import BasicsSpec
    from stackmend.decision import Plan
    from stackmend.reporting import Collector

#: Seconds that a clock has to become right once something keeps it so.
TIMEOUT = 30.0

#: Seconds between two observations of it.
PAUSE = 2.0


@dataclass
class BasicsReconciler(Reconciler[HostBasics, Action]):
    """The basics of one host."""

    subject = "basics"
    step_limit = commands.LIMIT
    all_or_nothing = False

    host: Host
    spec: BasicsSpec
    report: Collector

    def observe(self, *, fresh: bool = False) -> Observation[HostBasics, Action]:
        """Read the host and plan. Changes nothing."""
        (state,) = self.fetch((Basics, get_arguments(self.spec)), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "its clock and what belongs to it")
        return Observation(plan(self.spec, state), state)

    def execute(self, plan: Plan[Action], state: HostBasics, lease: connection.Lease) -> bool:
        """Carry out the actions of a plan in its order."""
        for action in plan.actions:
            lease.check()
            if isinstance(action, Reserve):
                # The ports room reports it, and records how to take it back.
                now = state.clock.now
                reserve(self.host, self.report, action.subject, action.cause, now)
                continue
            command = commands.command(action, state)
            with self.step(action):
                failure = f"could not {action.verb} {action.subject}"
                self.run(command, failure, timeout=commands.LIMIT)
        return True

    def verify(self, plan: Plan[Action], state: HostBasics) -> Observation[HostBasics, Action]:
        """Observe until the plan is empty; a clock may take a moment until it is right."""
        observe = tenacity.retry(
            retry=tenacity.retry_if_result(lambda after: _can_become_right(after.plan)),
            stop=tenacity.stop_after_delay(TIMEOUT),
            wait=tenacity.wait_fixed(PAUSE),
            retry_error_callback=lambda attempt: attempt.outcome.result(),  # type: ignore[union-attr]
        )(self.observe)
        return observe(fresh=True)


def _can_become_right(plan: Plan[Action]) -> bool:
    return not plan.actions and not plan.refusals and bool(plan.problems)
