"""Carry out a plan and prove it. What is to be done is decided by ``plan``, never here."""

from typing import TYPE_CHECKING

import tenacity

from stackmend import connection
from stackmend.access.essentials import commands
from stackmend.access.essentials.look import Look, Reader
from stackmend.access.essentials.plan import Action
from stackmend.acting import act_upon
from stackmend.errors import StepError
from stackmend.ports.apply import reserve
from stackmend.reports import telling

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

#: Seconds that a clock has to become right once something keeps it so.
PATIENCE = 30.0

#: Seconds between two looks at it.
PAUSE = 2.0


class Preparing(Reader):
    """The basics of one host, to be brought in order."""

    def converge(self, state: "State", host: "Host") -> bool:
        """Do what is to be done, prove it, and say whether it is so.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            return act_upon(self.look(), self, commands.LOCK)
        except (StepError, connection.RemoteError) as error:
            self.failed(str(error))
        return False

    def carry_out(self, look: Look, lease: "connection.Lease") -> bool:
        """Bring in order what a look found wanting, and prove it."""
        for action in look.plan.actions:
            lease.check()
            self._act(action, look)
        return not look.plan.refusals and self._prove()

    def _act(self, action: Action, look: Look) -> None:
        assert look.state is not None, "a plan that acts rests on a state"
        if action.verb == "reserve":
            # The ports room tells it, and records how to take it back.
            now = look.state.clock.now
            reserve(self.host, self.report, action.subject, action.cause, now)
            return
        with telling.doing(self.host, self.report, action):
            result = connection.run(
                self.host, commands.command(action, look.state), timeout=commands.LIMIT
            )
            if not result.ok:
                lines = [line.strip() for line in result.error_text.splitlines() if line.strip()]
                said = "; ".join(lines[-3:]) or f"exit status {result.status}"
                raise StepError(f"could not {action.verb} {action.subject}: {said}")

    def _prove(self) -> bool:
        """Look until all is as wanted; a clock may take a moment until it is right."""
        look = tenacity.retry(
            retry=tenacity.retry_if_result(_may_become_right),
            stop=tenacity.stop_after_delay(PATIENCE),
            wait=tenacity.wait_fixed(PAUSE),
            retry_error_callback=lambda attempt: attempt.outcome.result(),  # type: ignore[union-attr]
        )(self.look_again)()
        if not look.plan.empty:
            self.tell(look.plan)
        return look.plan.empty


def _may_become_right(look: Look) -> bool:
    return not look.plan.actions and not look.plan.refusals and bool(look.plan.problems)
