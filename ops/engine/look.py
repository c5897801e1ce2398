"""Read a host's engine and decide; tell what was found. Nothing here changes a host."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops import connection
from ops.decision import Refusal
from ops.engine.facts import HostEngines
from ops.engine.plan import Plan
from ops.engine.state import HostEngine
from ops.reports import telling

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from ops.reports import Collector


class Failure(Exception):
    """A step failed; the text says what."""


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    state: HostEngine | None = None


class Reader(ABC):
    """One host's engine, to be looked at.

    :param host: the host.
    :param report: the collector of the operation.
    """

    def __init__(self, host: "Host", report: "Collector") -> None:
        self.host = host
        self.report = report

    @abstractmethod
    def decide(self, state: HostEngine) -> Plan:
        """What follows from what the host has."""

    def look(self) -> Look:
        """Read the host and decide, from what was read before if that is still valid."""
        connection.expect(self.host, HostEngines)
        return self._decided(connection.read(self.host, HostEngines))

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        (state,) = connection.gather(self.host, [(HostEngines, {})])
        return self._decided(state)

    def is_well(self) -> bool:
        """Look, and tell what was found while nothing is executed yet."""
        look = self.look()
        if not self.host.state.is_executing:
            self.tell(look.plan)
        return look.plan.empty

    def tell(self, decided: Plan) -> None:
        """Show what was found and what follows, on the terminal and in the report."""
        telling.tell(self.host, self.report, decided)

    def failed(self, message: str) -> None:
        """Show an error, on the terminal and in the report."""
        first, *rest = message.splitlines() or [""]
        telling.failed(self.host, self.report, "engine", first, rest)

    def _decided(self, state: object) -> Look:
        if isinstance(state, connection.Unknown):
            refusal = Refusal(
                subject="host",
                reason=f"which engine it has cannot be read: {state.reason}",
                way_out="see the reason; nothing is done to an engine that cannot be read",
            )
            return Look(Plan(refusals=(refusal,)))
        assert isinstance(state, HostEngine)
        return Look(self.decide(state), state)
