"""Bring back what a record on the host holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stackmend import connection
from stackmend.decision import Plan
from stackmend.errors import StepError
from stackmend.ports import commands
from stackmend.ports.facts import PortHolders, list_arguments
from stackmend.ports.plan.restore import Restore, plan_return
from stackmend.ports.spec import PortsSpec
from stackmend.ports.state import HostPorts
from stackmend.problems import join_problems
from stackmend.reconcile import Observation, Reconciler, observe_unreadable

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector


@dataclass
class RestoreReconciler(Reconciler[str, Restore]):
    """One record of one host, to be brought back; the state is the record's name.

    :param required: whether the record has to be there.
    """

    subject = "ports"
    # A person asks for it, most of all where runs are paused.
    is_restrained: ClassVar[bool] = False

    host: Host
    record: str
    report: Collector
    required: bool = True

    def observe(self, *, fresh: bool = False) -> Observation[str, Restore]:
        """Ask the host whether all that the record holds is as it was. Changes nothing."""
        command = commands.restore(self.record, observe=True)
        result = connection.run(self.host, command, readonly=True)
        if result.status == commands.MISSING and not self.required:
            return Observation(Plan(), self.record)
        if not result.ok and result.status != commands.DUE:
            raise StepError(f"record {self.record}: {result.reason}")
        name, _, rest = result.text.partition("\n")
        # "latest" is another one as soon as somebody frees a port.
        self.record = name.strip()
        if result.ok:
            return Observation(Plan(), self.record)
        ports = self._read_ports(rest.strip())
        if isinstance(ports, connection.Unknown):
            return observe_unreadable(ports, "who holds its ports")
        return Observation(plan_return(self.record, ports), self.record)

    def _read_ports(self, written: str) -> HostPorts | connection.Unknown | None:
        """The ports that would be bound, as they are now; none where the record names none."""
        if not written:
            return None
        try:
            spec = PortsSpec.model_validate({"ports": written.split(",")})
        except ValueError as error:
            raise StepError(f"record {self.record}: its ports: {join_problems(error)}") from None
        (state,) = self.fetch((PortHolders, list_arguments(spec)), fresh=True)
        found: HostPorts | connection.Unknown = state
        return found

    def execute(self, plan: Plan[Restore], state: str, lease: connection.Lease) -> bool:
        """Bring it back."""
        for action in plan.actions:
            lease.check()
            command = commands.restore(action.subject, observe=False)
            with self.step(action):
                self.run(command, f"record {action.subject}")
        return True
