"""The parts of the loop that are this room's own: it reads only, so there is no action."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from stackmend import connection
from stackmend.decision import Action
from stackmend.engine.accelerators.facts import HostAccelerators
from stackmend.engine.accelerators.state import Accelerators
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.reporting import announce
from stackmend.worker.acceleration.chain import build_chain
from stackmend.worker.acceleration.expected import is_accelerated
from stackmend.worker.acceleration.facts import Acceleration
from stackmend.worker.acceleration.plan import plan
from stackmend.worker.acceleration.shapes import complete_shape
from stackmend.worker.acceleration.state import AcceleratorChain, WorkerAcceleration

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.decision import Plan
    from stackmend.reporting import Collector
    from stackmend.worker.acceleration.spec import AccelerationSpec


class HostState(NamedTuple):
    """What a host has of accelerators, and what its model server computes with."""

    accelerators: Accelerators
    acceleration: WorkerAcceleration


@dataclass
class AccelerationReconciler(Reconciler[HostState, Action]):
    """The acceleration of one host's model server."""

    subject = "acceleration"

    host: Host
    spec: AccelerationSpec
    report: Collector
    chain: AcceleratorChain | None = field(default=None, init=False)

    def observe(self, *, fresh: bool = False) -> Observation[HostState, Action]:
        """Read the host, and find the first missing link. Changes nothing."""
        accelerators, state = self.fetch(
            (HostAccelerators, {}), (Acceleration, self.spec.fact_arguments), fresh=fresh
        )
        for fact in (state, accelerators):
            if isinstance(fact, connection.Unknown):
                return observe_unreadable(fact, "what its model server computes with")
        if state.is_local and not is_accelerated(self.spec, accelerators, state):
            read = state
            state = connection.derive(
                self.host, "shape", [read], lambda: complete_shape(self.host, read)
            )
        self.chain = build_chain(self.spec, accelerators, state)
        observed = HostState(accelerators, state)
        return Observation(plan(self.spec, accelerators, state), observed)

    def report_plan(self, plan: Plan[Action]) -> None:
        """The same; the chain before it, and what fails the operation, once it does."""
        if self.chain is not None:
            processor = self.chain.processor or self.chain.get_link("model").reason
            announce.show_line(self.host, f"  processor: {processor}; {self.chain}")
        super().report_plan(plan)
        failing = [f"{found.subject} ({found.kind})" for found in plan.findings if found.blocks]
        if failing and self.host.state.is_executing:
            self.report_error(StepError(f'"on_fault" is "fail": {", ".join(failing)}'))

    def execute(self, plan: Plan[Action], state: HostState, lease: connection.Lease) -> bool:
        """Do nothing: there is no action that this room plans."""
        return True
