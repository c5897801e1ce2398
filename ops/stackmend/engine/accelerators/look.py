"""Read a host's accelerators and decide; tell what was found. Nothing here changes a host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.acting import Teller, unread
from stackmend.engine.accelerators.facts import HostAccelerators
from stackmend.engine.accelerators.plan import Plan, plan
from stackmend.engine.accelerators.spec import Acceleration
from stackmend.engine.accelerators.state import Accelerators
from stackmend.engine.facts import HostEngines
from stackmend.engine.state import HostEngine
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector

_WITHOUT = 'To go on without them: "accelerator": "none" in the stack\'s "engine" section'


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    engine: HostEngine | None = None
    state: Accelerators | None = None


@dataclass
class Reader(Teller):
    """The accelerators of one host, to be looked at."""

    host: "Host"
    spec: Acceleration
    report: "Collector"

    def look(self) -> Look:
        """Read the host and decide. Changes nothing."""
        if self.spec.vendor == "none":
            return Look(Plan())
        connection.prefetch(self.host, HostEngines)
        connection.prefetch(self.host, HostAccelerators)
        engine = connection.read(self.host, HostEngines)
        return self._decided(engine, connection.read(self.host, HostAccelerators))

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        if self.spec.vendor == "none":
            return Look(Plan())
        facts = (HostEngines, HostAccelerators)
        engine, state = connection.fetch_facts(self.host, [(fact, {}) for fact in facts])
        return self._decided(engine, state)

    def is_well(self) -> bool:
        """Look, and tell what was found: while nothing is executed yet, and where all is well."""
        look = self.look()
        if not self.host.state.is_executing or look.plan.empty:
            self.tell(look.plan)
        return look.plan.empty

    def failed(self, message: str) -> None:
        """Show an error and what goes without accelerators, on the terminal and in the report."""
        first, *rest = message.splitlines() or [""]
        announce.report_error(self.host, self.report, "accelerators", first, [*rest, _WITHOUT])

    def _decided(self, engine: object, state: object) -> Look:
        for one in (state, engine):
            if isinstance(one, connection.Unknown):
                refusal = unread(one, "which accelerators it has", "done on a host")
                return Look(Plan(refusals=(refusal,)))
        assert isinstance(engine, HostEngine)
        assert isinstance(state, Accelerators)
        return Look(plan(self.spec, engine, state), engine, state)
