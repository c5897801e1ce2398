"""Read a host's engine and decide; tell what was found. Nothing here changes a host."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.acting import Teller, unread
from stackmend.engine.facts import HostEngines
from stackmend.engine.plan import Plan
from stackmend.engine.state import HostEngine

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    state: HostEngine | None = None


class Reader(Teller, ABC):
    """One host's engine, to be looked at.

    :param host: the host.
    :param report: the collector of the operation.
    """

    about = "engine"

    def __init__(self, host: "Host", report: "Collector") -> None:
        self.host = host
        self.report = report

    @abstractmethod
    def decide(self, state: HostEngine) -> Plan:
        """What follows from what the host has."""

    def look(self) -> Look:
        """Read the host and decide, from what was read before if that is still valid."""
        connection.prefetch(self.host, HostEngines)
        return self._decided(connection.read(self.host, HostEngines))

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        (state,) = connection.fetch_facts(self.host, [(HostEngines, {})])
        return self._decided(state)

    def _decided(self, state: object) -> Look:
        if isinstance(state, connection.Unknown):
            refusal = unread(state, "which engine it has", "done to an engine")
            return Look(Plan(refusals=(refusal,)))
        assert isinstance(state, HostEngine)
        return Look(self.decide(state), state)
