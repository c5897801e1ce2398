"""Read a host and decide; tell what was found. Nothing here changes a host."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops import connection
from ops.acting import Teller, unread
from ops.ports.facts import PortHolders
from ops.ports.plan import Plan, plan
from ops.ports.spec import PortsSpec
from ops.ports.state import HostPorts

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from ops.reports import Collector

#: Ports, or what gives them when it is asked; it may ask the host.
Source = Iterable[Any] | str | int | Callable[[], Iterable[Any] | str | int]


class Failure(Exception):
    """A step failed; the text says what."""


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    state: HostPorts | None = None


@dataclass
class Reader(Teller):
    """The wanted ports of one host, to be looked at."""

    about = "ports"

    host: "Host"
    spec: PortsSpec
    report: "Collector"

    def look(self) -> Look:
        """Read the host and decide. Changes nothing."""
        if not self.spec.ports:
            return Look(Plan())
        state = connection.read(self.host, PortHolders, **self._arguments())
        return self._decided(state)

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        if not self.spec.ports:
            return Look(Plan())
        (state,) = connection.gather(self.host, [(PortHolders, self._arguments())])
        return self._decided(state)

    def _arguments(self) -> dict[str, Any]:
        return {
            "ports": ",".join(map(str, self.spec.ports)),
            "project": self.spec.project,
            "directory": self.spec.directory,
        }

    def _decided(self, state: object) -> Look:
        if isinstance(state, connection.Unknown):
            refusal = unread(state, "who holds its ports", "ended on a host")
            return Look(Plan(refusals=(refusal,)))
        assert isinstance(state, HostPorts)
        return Look(plan(self.spec, state), state)


def given(source: Source) -> Any:
    """The ports that a source gives now."""
    return source() if callable(source) else source
