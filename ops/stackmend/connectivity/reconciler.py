"""The parts of the loop that are this room's own: it looks only, so there is no action."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackmend import connection
from stackmend.connectivity import providers
from stackmend.connectivity.facts import Connectivity
from stackmend.connectivity.plan import classify_endpoints, find_pages, plan
from stackmend.connectivity.state import HostConnectivity, ProviderStatus
from stackmend.decision import Action
from stackmend.errors import StepError
from stackmend.reconcile import Observation, Reconciler, observe_unreadable

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import Unknown
    from stackmend.connectivity.spec import ConnectivitySpec
    from stackmend.decision import Plan
    from stackmend.reporting import Collector


@dataclass
class ConnectivityReconciler(Reconciler[HostConnectivity, Action]):
    """The endpoints of one host."""

    subject = "connectivity"

    host: Host
    spec: ConnectivitySpec
    report: Collector

    def observe(self, *, fresh: bool = False) -> Observation[HostConnectivity, Action]:
        """Look at the host's endpoints, and classify_endpoints. Changes nothing."""
        arguments: dict[str, Any] = {
            "endpoints": [endpoint.model_dump() for endpoint in self.spec.endpoints],
            "packages": self.spec.derived,
            "project": self.spec.project,
            "timeout": self.spec.timeout,
        }
        (state,) = self.fetch((Connectivity, arguments), fresh=fresh)
        if isinstance(state, connection.Unknown):
            return observe_unreadable(state, "what it reaches outside")
        pages = self.spec.status_pages
        status = connection.derive(
            self.host, ("connectivity", pages), [state], lambda: self._ask_providers(state)
        )
        self.report.add_measure("endpoints", len(state.endpoints), "endpoints")
        self.report.add_measure("look", state.took / 1000, "s")
        return Observation(plan(self.spec, state, status), state)

    def report_plan(self, plan: Plan[Action]) -> None:
        """The same; and which endpoints fail the operation, once it does."""
        super().report_plan(plan)
        failing = [f"{found.subject} ({found.kind})" for found in plan.findings if found.blocks]
        if failing and self.host.state.is_executing:
            self.report_error(
                StepError(f'in trouble, with "on_fault": "fail": {", ".join(failing)}')
            )

    def _ask_providers(self, state: HostConnectivity) -> Mapping[str, ProviderStatus | Unknown]:
        pages = find_pages(classify_endpoints(state), self.spec.status_pages)
        if not pages:
            return {}
        with ThreadPoolExecutor(len(pages)) as pool:
            answers = pool.map(providers.ask, pages)
            return {page.provider: status for page, status in zip(pages, answers, strict=True)}

    def execute(self, plan: Plan[Action], state: HostConnectivity, lease: connection.Lease) -> bool:
        """Do nothing: there is no action that this room plans."""
        return True
