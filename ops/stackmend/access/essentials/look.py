"""Read a host and decide; tell what was found. Nothing here changes a host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.access.essentials.facts import HostEssentials, arguments
from stackmend.access.essentials.plan import Plan, plan
from stackmend.access.essentials.spec import Basics
from stackmend.access.essentials.state import HostBasics
from stackmend.acting import Teller, unread

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reports import Collector


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    state: HostBasics | None = None


@dataclass
class Reader(Teller):
    """The basics of one host, to be looked at."""

    about = "basics"

    host: "Host"
    spec: Basics
    report: "Collector"

    def look(self) -> Look:
        """Read the host and decide. Changes nothing."""
        return self._decided(connection.read(self.host, HostEssentials, **arguments(self.spec)))

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        asked = (HostEssentials, arguments(self.spec))
        (state,) = connection.fetch_facts(self.host, [asked])
        return self._decided(state)

    def is_well(self) -> bool:
        """Look, and tell what was found while nothing is executed yet."""
        look = self.look()
        if not self.host.state.is_executing or look.plan.empty:
            self.tell(look.plan)
        return look.plan.empty

    def _decided(self, state: object) -> Look:
        if isinstance(state, connection.Unknown):
            refusal = unread(state, "its clock and what belongs to it", "done on a host")
            return Look(Plan(refusals=(refusal,)))
        assert isinstance(state, HostBasics)
        return Look(plan(self.spec, state), state)
