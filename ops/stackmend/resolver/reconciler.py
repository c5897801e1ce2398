"""The parts of the loop that are the resolver's own."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackmend import connection, decision
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.resolver import commands
from stackmend.resolver.facts import Caches, Resolver, ServerAnswers
from stackmend.resolver.plan import (
    Enable,
    Flush,
    SetServers,
    check_servers,
    plan_caches,
    plan_servers,
)
from stackmend.resolver.plan.servers import NO_SUCH_NAME
from stackmend.resolver.spec import CachesSpec, ServersSpec
from stackmend.resolver.state import Answers, CacheName, HostCaches, HostResolver

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector


@dataclass
class ServersReconciler(Reconciler[HostResolver, SetServers | Enable]):
    """The DNS servers of one host."""

    subject = "resolver"

    host: Host
    spec: ServersSpec
    report: Collector

    def observe(self, *, fresh: bool = False) -> Observation[HostResolver, SetServers | Enable]:
        """Read the host, ask the servers where they are to be set or names fail, and plan."""
        (state,) = self.fetch((Resolver, {"names": self.spec.check_names}), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "by what it resolves names")
        planned = plan_servers(self.spec, state)
        if planned.empty or planned.refusals:
            return Observation(planned, state)
        answers = self._ask(fresh=fresh)
        if isinstance(answers, connection.Unknown):
            return observe_unreadable(answers, "what the DNS servers answer")
        return Observation(plan_servers(self.spec, state, answers), state)

    def _ask(self, *, fresh: bool) -> Answers | connection.Unknown:
        names = (*self.spec.check_names, NO_SUCH_NAME)
        arguments = {"servers": self.spec.servers, "names": names}
        (answers,) = self.fetch((ServerAnswers, arguments), fresh=fresh)
        found: Answers | connection.Unknown = answers
        return found

    def execute(
        self,
        plan: decision.Plan[SetServers | Enable],
        state: HostResolver,
        lease: connection.Lease,
    ) -> bool:
        """Set the servers; they stay only where names resolve, seen from a new connection."""
        for action in plan.actions:
            lease.check()
            with self.step(action):
                if isinstance(action, Enable):
                    self.run(commands.set_startup(), f"could not enable {action.subject}")
                else:
                    self._set(action)
        return True

    def _set(self, action: SetServers) -> None:
        mark = secrets.token_hex(4)
        command = commands.set_servers(action, mark, self.spec.revert_after)
        self.run(command, f"could not {action.verb} {action.subject}")
        try:
            self._verify_answers()
            with connection.open_new_login(self.host):
                self.run(
                    commands.confirm(mark, self.spec.check_names),
                    f"the change is not confirmed within {self.spec.revert_after} s",
                    closing=True,
                )
        except (StepError, connection.RemoteError) as error:
            result = connection.run(self.host, commands.revert(mark), closing=True)
            outcome = "was reverted" if result.ok else f"is not reverted yet: {result.reason}"
            raise StepError(f"{error}. The change of the servers {outcome}") from None

    def _verify_answers(self) -> None:
        """The servers answer still, each for itself."""
        answers = self._ask(fresh=True)
        if isinstance(answers, connection.Unknown):
            raise StepError(f"the servers cannot be asked any more: {answers.reason}")
        for refusal in check_servers(self.spec, answers):
            raise StepError(f"{refusal.subject} {refusal.reason}")


@dataclass
class CachesReconciler(Reconciler[HostCaches, Flush]):
    """The DNS caches of one host."""

    subject = "resolver"

    host: Host
    spec: CachesSpec
    report: Collector
    _flushed: list[CacheName] = field(default_factory=list)

    def observe(self, *, fresh: bool = False) -> Observation[HostCaches, Flush]:
        """Read the caches, and plan."""
        return self._observe((), fresh=fresh)

    def _observe(
        self, flushed: Sequence[CacheName], *, fresh: bool
    ) -> Observation[HostCaches, Flush]:
        (state,) = self.fetch((Caches, {"names": self.spec.check_names}), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "what its DNS caches hold")
        return Observation(plan_caches(self.spec, state, flushed), state)

    def execute(
        self, plan: decision.Plan[Flush], state: HostCaches, lease: connection.Lease
    ) -> bool:
        """Flush the caches, in the order of the plan."""
        for action in plan.actions:
            lease.check()
            with self.step(action):
                self.run(commands.flush(action.cache), f"could not flush {action.cache}")
                self._flushed.append(action.cache)
        return True

    def verify(
        self, plan: decision.Plan[Flush], state: HostCaches
    ) -> Observation[HostCaches, Flush]:
        """Observe again; a cache that was flushed is not flushed once more."""
        return self._observe(self._flushed, fresh=True)
