"""Put back the daemon.json that a change of ``engine.settings`` replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stackmend import connection, decision
from stackmend.engine import commands
from stackmend.engine.facts import HostEngines
from stackmend.engine.plan.restore import Kept, PutConfigBack, plan_return
from stackmend.engine.state import HostEngine
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector

_KEPT: dict[int, Kept] = {0: "as before", 3: "due", 66: "unknown", 75: "changed"}


@dataclass
class ReturnReconciler(Reconciler[HostEngine, PutConfigBack]):
    """One change of daemon.json on one host, to be taken back.

    :param copy: the stamp of the change.
    :param required: whether the host has to have its copies.
    """

    subject = "engine"
    # A person asks for it, most of all where runs are paused.
    is_restrained: ClassVar[bool] = False
    step_limit = commands.LIMIT

    host: Host
    copy: str
    report: Collector
    required: bool = True

    def observe(self, *, fresh: bool = False) -> Observation[HostEngine, PutConfigBack]:
        """Read the host, compare the file with the copies of the change, and plan."""
        (state,) = self.fetch((HostEngines, {}), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "which engine it has")
        path = state.config.real or state.config.path
        result = connection.run(self.host, commands.compare_kept(path, self.copy), readonly=True)
        kept = _KEPT.get(result.status)
        if kept is None:
            raise StepError(f"{path} cannot be compared with its copy: {result.reason}")
        if kept == "unknown" and not self.required:
            kept = "as before"
        return Observation(plan_return(state, path, self.copy, kept), state)

    def execute(
        self,
        plan: decision.Plan[PutConfigBack],
        state: HostEngine,
        lease: connection.Lease,
    ) -> bool:
        """Put it back, and have the engine run with it."""
        for action in plan.actions:
            lease.check()
            with self.step(action):
                self.run(
                    commands.put_config_back(action.subject, action.stamp),
                    f"cannot put {action.subject} back",
                    timeout=commands.LIMIT,
                )
        return True
