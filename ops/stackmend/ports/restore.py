"""Bring back what a record on the host holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stackmend import connection, decision
from stackmend.decision import Plan
from stackmend.errors import StepError
from stackmend.ports import commands
from stackmend.reconcile import Observation, Reconciler

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector


class Restore(decision.Action):
    """Bring back what a record holds, to the state that it had."""

    verb: Literal["bring back"] = "bring back"
    cause: str = "what was stopped is desired again"
    undo: str = "ports.free stops it again"


@dataclass
class RestoreReconciler(Reconciler[str, Restore]):
    """One record of one host, to be brought back; the state is the record's name."""

    subject = "ports"
    # A person asks for it, most of all where runs are paused.
    is_restrained: ClassVar[bool] = False

    host: Host
    record: str
    report: Collector

    def observe(self, *, fresh: bool = False) -> Observation[str, Restore]:
        """Ask the host whether all that the record holds is as it was. Changes nothing."""
        command = commands.restore(self.record, observe=True)
        result = connection.run(self.host, command, readonly=True)
        if not result.ok and result.status != commands.DUE:
            raise StepError(f"record {self.record}: {result.reason}")
        # "latest" is another one as soon as somebody frees a port.
        self.record = result.text.strip()
        actions = () if result.ok else (Restore(subject=self.record),)
        return Observation(Plan(actions=actions), self.record)

    def execute(self, plan: Plan[Restore], state: str, lease: connection.Lease) -> bool:
        """Bring it back."""
        for action in plan.actions:
            lease.check()
            command = commands.restore(action.subject, observe=False)
            with self.step(action):
                self.run(command, f"record {action.subject}")
        return True
