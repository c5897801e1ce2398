"""Carry out what sets an engine, and prove it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stackmend import connection
from stackmend.acting import act_upon
from stackmend.engine import commands
from stackmend.engine.look import Look, Reader
from stackmend.engine.plan import Action, Plan, plan_settings
from stackmend.engine.state import HostEngine
from stackmend.errors import StepError
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.connection import Lease
    from stackmend.reporting import Collector


class Setting(Reader):
    """One host whose engine is to be set.

    :param wanted: what daemon.json is to hold, among what others have in it.
    :param replace: ``container:NAME`` for those that may be gone when the engine is restarted.
    """

    def __init__(
        self,
        host: "Host",
        wanted: Mapping[str, Any],
        report: "Collector",
        replace: Sequence[str] = (),
    ) -> None:
        super().__init__(host, report)
        self.wanted = dict(wanted)
        self.replace = tuple(replace)

    def decide(self, state: HostEngine) -> Plan:
        """What is to be done so that daemon.json holds the settings and the engine has them."""
        return plan_settings(self.wanted, self.replace, state)

    def converge(self, state: "State", host: "Host") -> bool:
        """Set the engine, prove that it runs with it, and say whether it does.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            return act_upon(self.look(), self, commands.LOCK)
        except (StepError, connection.RemoteError) as error:
            self.failed(str(error))
        return False

    def carry_out(self, look: Look, lease: "Lease") -> bool:
        """Do what a reading asks for, while the room's lock is held; whether it is proven.

        :raises StepError: dockerd refuses the settings, or does not come up with them.
        """
        if look.state is None or look.plan.refusals:
            return False
        if look.state.status == "absent":
            raise StepError("there is no engine to be set: engine.installed has to succeed first")
        for action in look.plan.actions:
            lease.check()
            with announce.track(self.host, self.report, action):
                self._act(action, look.state)
        again = self.look_again()
        if not again.plan.empty:
            self.tell(again.plan)
            if again.plan.actions:
                left = "; ".join(str(one) for one in again.plan.actions)
                self.failed(f"not proven: this would still be to be done: {left}")
        return again.plan.empty

    def _act(self, action: Action, state: HostEngine) -> None:
        if action.verb == "take up":
            result = connection.run(
                self.host, commands.again(action.subject), timeout=commands.LIMIT
            )
        else:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            result = connection.run(
                self.host,
                commands.switch(action.subject, state.service.flags, stamp, restart=action.restart),
                stdin=action.text.encode(),
                timeout=commands.LIMIT,
            )
        if result.ok:
            return
        said = result.error_text.strip() or f"exit status {result.status}"
        raise StepError(
            _OUTCOMES.get(result.status, "{file} cannot be set: {said}").format(
                file=action.subject, said=said
            )
        )


_OUTCOMES = {
    commands.REFUSED: "dockerd refuses these settings, and nothing was changed: {said}",
    commands.FAILED: "the engine does not come up with these settings; {file} is as it was before, "
    "and the engine runs with that: {said}",
    commands.DOWN: "the engine does not come up, neither with these settings nor with {file} as it "
    "was before, which is back: {said}",
    commands.CONTAINERS: "the settings are in place and the engine runs: {said}",
}
