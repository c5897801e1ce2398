"""The parts of the loop that are the logins' own."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from stackmend import connection, decision
from stackmend.access import commands
from stackmend.access.admission import PASSWORD_METHODS
from stackmend.access.facts import Operator
from stackmend.access.keys import PublicKey
from stackmend.access.plan import Action, DropKeys, SetPasswordLogin, plan
from stackmend.access.spec import OperatorSpec
from stackmend.access.state import HostAccess
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector

#: What a new login runs where it is to become root, and where not.
AS_ROOT, AS_USER = "sudo -n true", "true"


@dataclass
class OperatorReconciler(Reconciler[HostAccess, Action]):
    """The logins of one user on one host."""

    subject = "access"

    host: Host
    spec: OperatorSpec
    keys: tuple[PublicKey, ...]
    report: Collector

    @cached_property
    def identities(self) -> list[connection.Identity]:
        """The private keys on this machine that belong to the user."""
        public = connection.decode_public_keys(key.blob for key in self.keys)
        files = [key.private for key in self.keys if key.private]
        return connection.find_matching_identities(self.host, public, files)

    def observe(self, *, fresh: bool = False) -> Observation[HostAccess, Action]:
        """Read the host and plan. Changes nothing."""
        (state,) = self.fetch((Operator, {"user": self.spec.user}), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "how a user logs in")
        # Whether the login can be tried only matters to what may lock everyone out.
        risky = self.spec.password_login is not None or self.spec.exclusive_keys
        provable = bool(self.identities) if risky else True
        return Observation(plan(self.spec, self.keys, state, provable=provable), state)

    def execute(
        self, plan: decision.Plan[Action], state: HostAccess, lease: connection.Lease
    ) -> bool:
        """Carry out the actions of a plan in its order; a login proves what could lock out."""
        actions = plan.actions
        risky = [action for action in actions if isinstance(action, DropKeys | SetPasswordLogin)]
        safe = actions[: len(actions) - len(risky)]
        for action in safe:
            lease.check()
            with self.step(action):
                self._run_action(action, state)
        if self.identities:
            self._log_in()
        elif safe:
            announce.show_line(
                self.host,
                f"  login not tried: this machine has no private key of {self.spec.user}'s",
            )
        for action in risky:
            lease.check()
            with self.step(action):
                if isinstance(action, SetPasswordLogin):
                    self._set_password_login(action, state)
                else:
                    self._run_action(action, state)
                    self._log_in()
        return True

    def _run_action(self, action: Action, state: HostAccess, mark: str = "") -> None:
        command = commands.command(action, self.spec.user, state, mark)
        self.run(command, f"could not {action.verb} {action.subject}")

    def _log_in(self) -> None:
        """Log in anew as the user, and become root where the spec says so."""
        user, as_root = self.spec.user, self.spec.sudo and self.spec.user != "root"
        command = AS_ROOT if as_root else AS_USER
        try:
            result = connection.run_new_login(self.host, user, self.identities, command)
        except connection.NoLogin as error:
            raise StepError(
                f"a new login as {user} fails: {error.reason}; the host's own log "
                "(journalctl -u ssh) says why"
            ) from None
        if not result.ok:
            raise StepError(f"{user} logs in, but {command} fails: {result.reason}")
        announce.show_line(self.host, f"  a new login as {user} works" + ", sudo too" * as_root)

    def _set_password_login(self, action: SetPasswordLogin, state: HostAccess) -> None:
        """Change sshd; the change stays only where a new login still works under it."""
        mark = secrets.token_hex(4)
        self._run_action(action, state, mark)
        try:
            self._log_in()
            if not action.enabled:
                self._verify_no_passwords()
        except (StepError, connection.RemoteError) as error:
            result = connection.run(self.host, commands.revert(mark), closing=True)
            outcome = "was reverted" if result.ok else f"is not reverted yet: {result.reason}"
            raise StepError(f"{error}. The change of sshd {outcome}") from None
        self._confirm(mark)

    def _verify_no_passwords(self) -> None:
        for user in dict.fromkeys((self.spec.user, "root")):
            offered = connection.read_auth_methods(self.host, user)
            if any(method in offered for method in PASSWORD_METHODS):
                raise StepError(f"sshd still offers {user} {', '.join(offered)}")

    def _confirm(self, mark: str) -> None:
        failure = "cannot confirm the change of sshd"
        command = commands.confirm(mark)
        if not self.spec.sudo and self.spec.user != "root":
            self.run(command, failure, closing=True)
            return
        # From a new connection, which so proves itself once more.
        line = "sudo -n " * (self.spec.user != "root") + command.get_raw_value()
        result = connection.run_new_login(self.host, self.spec.user, self.identities, line)
        if not result.ok:
            raise StepError(f"{failure}: {result.reason}")
