"""Carry out a plan and prove it. What is to be done is decided by ``plan``, never here."""

import secrets
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.access import commands
from stackmend.access.look import Look, Reader
from stackmend.access.plan import Action
from stackmend.access.state import HostAccess
from stackmend.acting import act_upon
from stackmend.errors import StepError
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

#: What a fresh login runs where it is to become root, and where not.
AS_ROOT, AS_ITSELF = "sudo -n true", "true"

#: Steps after which the login is to be proven, and before which it has to be.
RISKY = ("drop", "set")


class Admitting(Reader):
    """The way of one user into one host, to be made and proven."""

    def converge(self, state: "State", host: "Host") -> bool:
        """Make what is missing, prove it by a fresh login, and say whether all is as wanted.

        pyinfra fails the operation on this host alone where this returns False.
        """
        try:
            return act_upon(self.look(), self, commands.LOCK)
        except (StepError, connection.RemoteError) as error:
            announce.report_error(self.host, self.report, f"user {self.spec.user}", str(error))
        return False

    def carry_out(self, look: Look, lease: "connection.Lease") -> bool:
        """Make what a look found missing; what could lock out comes last, and is proven."""
        if look.state is None or look.plan.refusals:
            return False
        safe = [action for action in look.plan.actions if action.verb not in RISKY]
        risky = [action for action in look.plan.actions if action.verb in RISKY]
        for action in safe:
            lease.check()
            with announce.track(self.host, self.report, action):
                self._run(action, look.state)
        if self.identities:
            self._come_in()
        elif safe:
            announce.show_line(
                self.host,
                f"  not proven: this machine has no private key of {self.spec.user}'s to try",
            )
        for action in risky:
            lease.check()
            with announce.track(self.host, self.report, action):
                if action.verb == "set":
                    self._set(action, look.state)
                else:
                    self._run(action, look.state)
                    self._come_in()
        look = self.look_again()
        if not look.plan.empty:
            announce.report_plan(self.host, self.report, look.plan)
        return look.plan.empty

    def _run(self, action: Action, state: HostAccess, mark: str = "") -> None:
        result = connection.run(self.host, commands.step(action, self.spec, state, mark))
        if not result.ok:
            raise StepError(f"could not {action.verb} {action.subject}: {_said(result)}")

    def _come_in(self, then: str = "") -> None:
        """Log in anew as the user, and become root where that is wanted."""
        as_root = self.spec.sudo and self.spec.user != "root"
        command = then or (AS_ROOT if as_root else AS_ITSELF)
        try:
            result = connection.fresh(self.host, self.spec.user, self.identities, command)
        except connection.NoLogin as error:
            raise StepError(
                f"a fresh login as {self.spec.user} does not work: {error.reason}; the host's own "
                "log (journalctl -u ssh) says why"
            ) from None
        if not result.ok:
            raise StepError(f"{self.spec.user} comes in, but {command} fails: {_said(result)}")
        announce.show_line(
            self.host, f"  a fresh login as {self.spec.user} works" + ", sudo too" * as_root
        )

    def _set(self, action: Action, state: HostAccess) -> None:
        """Change sshd; the change stays only where a fresh login still works under it."""
        mark = secrets.token_hex(4)
        self._run(action, state, mark)
        try:
            self._come_in()
            self._ways()
        except (StepError, connection.RemoteError) as error:
            result = connection.run(self.host, commands.revert(mark), closing=True)
            back = "taken back" if result.ok else f"to be taken back: {_said(result)}"
            raise StepError(f"{error}. The change of sshd's was {back}") from None
        self._confirm(mark)

    def _ways(self) -> None:
        if self.spec.password_login is not False:
            return
        for user in dict.fromkeys((self.spec.user, "root")):
            offered = connection.ways_in(self.host, user)
            if any(way in offered for way in ("password", "keyboard-interactive")):
                raise StepError(f"sshd still offers {user} {', '.join(offered)}")

    def _confirm(self, mark: str) -> None:
        confirm = commands.confirm(mark).get_raw_value()
        if self.spec.sudo or self.spec.user == "root":
            # From a fresh connection, which so proves itself once more.
            command = confirm if self.spec.user == "root" else f"sudo -n {confirm}"
            result = connection.fresh(self.host, self.spec.user, self.identities, command)
        else:
            result = connection.run(self.host, commands.confirm(mark), closing=True)
        if not result.ok:
            raise StepError(f"the change of sshd's could not be confirmed: {_said(result)}")


def _said(result: "connection.Result") -> str:
    return result.reason
