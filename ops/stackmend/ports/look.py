"""Read a host and decide; tell what was found. Nothing here changes a host."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackmend import connection
from stackmend.acting import Teller, another_run, project_lock, unread
from stackmend.ports import commands
from stackmend.ports.facts import PortHolders
from stackmend.ports.plan import Plan, plan
from stackmend.ports.spec import PortsSpec
from stackmend.ports.state import Holder, HostPorts

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector

#: Ports, or what gives them when it is asked; it may ask the host.
Source = Iterable[Any] | str | int | Callable[[], Iterable[Any] | str | int]


#: How often a refusal is looked at again before it stands, and seconds between two looks.
AGAIN = 5
PAUSE = 1.0


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
        return self._steady(self._decided(state))

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        return self._steady(self.glance())

    def glance(self) -> Look:
        """What one new reading says, also of what moves meanwhile."""
        if not self.spec.ports:
            return Look(Plan())
        (state,) = connection.fetch_facts(self.host, [(PortHolders, self._arguments())])
        return self._decided(state)

    def _steady(self, look: Look) -> Look:
        """A look whose refusals rest on what stays: on two readings in a row, and on no other run.

        What another run is making, a container that is restarted or a process that is just ending
        is seen half made.
        """
        locks = (commands.LOCK, *([project_lock(self.spec.project)] if self.spec.project else []))
        for _ in range(AGAIN):
            if look.state is None or not look.plan.refusals:
                break
            if busy := another_run(self.host, *locks):
                return Look(Plan(refusals=(busy,)), look.state)
            time.sleep(PAUSE)
            before, look = look, self.glance()
            if look.plan.refusals == before.plan.refusals and not _passing(look):
                break
        return look

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


def _passing(look: Look) -> bool:
    """Whether a holder is seen that is just starting or ending: nobody can be named for it."""
    ports = look.state.ports if look.state is not None else ()
    return any(_unnamed(holder) for port in ports for holder in port.holders)


def _unnamed(holder: Holder) -> bool:
    match holder.kind:
        case "container":
            return holder.container is None
        case "process":
            return holder.process is not None and not holder.process.name
        case "hidden":
            return not holder.sockets
    return False


def given(source: Source) -> Any:
    """The ports that a source gives now."""
    return source() if callable(source) else source
