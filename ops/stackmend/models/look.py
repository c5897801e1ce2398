"""Read a server and its registries and decide; tell what was found. Nothing here changes a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from stackmend import connection
from stackmend.acting import Teller
from stackmend.decision import Finding, Refusal
from stackmend.errors import StepError
from stackmend.models import making, reading, registry
from stackmend.models.plan import Made, Plan, ask, plan
from stackmend.models.spec import ModelsSpec
from stackmend.models.state import Registry, StoreState

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector

#: What a deploy that runs before this operation may still bring.
COMING = ("absent", "stopped", "unreachable")


@dataclass(frozen=True)
class Look:
    """One reading of a server, and what follows from it."""

    plan: Plan
    state: StoreState | None = None
    registry: Registry = field(default_factory=dict)
    made: Mapping[str, Made] = field(default_factory=dict)


#: What the registries said when a reading was decided upon: good for as long as the reading is.
_asked: WeakKeyDictionary[Host, tuple[StoreState, ModelsSpec, Registry]] = WeakKeyDictionary()


@dataclass
class Reader(Teller):
    """The models of one host, to be looked at."""

    about = "models"

    host: Host
    spec: ModelsSpec
    report: Collector

    def look(self) -> Look:
        """Read the server and decide. Changes nothing."""
        return self._decided(reading.read(self.host, self.spec.asked()))

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        return self._decided(reading.read(self.host, self.spec.asked(), anew=True))

    def is_well(self) -> bool:
        """Look, and tell what was found, unless acting upon it tells it."""
        look = self.look()
        if not self.host.state.is_executing:
            self.tell(self._not_yet(look))
        elif look.plan.empty:
            # Nothing follows that would tell the notes.
            self.tell(look.plan)
        return look.plan.empty

    def state(self, *, changed: bool) -> StoreState:
        """What the server has now.

        :param changed: whether blobs were changed since the last look.
        :raises StepError: it cannot be read.
        """
        state = reading.read(self.host, self.spec.asked(), anew=True, changed=changed)
        if isinstance(state, connection.Unknown):
            raise StepError(f"the model server cannot be read: {state.reason}")
        return state

    def _decided(self, state: StoreState | connection.Unknown) -> Look:
        if isinstance(state, connection.Unknown):
            refusal = Refusal(
                subject="models",
                reason=f"the model server cannot be read: {state.reason}",
                remedy="see the reason; nothing is done to a server that cannot be read",
            )
            return Look(Plan(refusals=(refusal,)))
        said, made = self._said(state), making.made(self.spec)
        return Look(plan(self.spec, state, said, made), state, said, made)

    def _said(self, state: StoreState) -> Registry:
        known = _asked.get(self.host)
        if known is not None and known[0] is state and known[1] == self.spec:
            return known[2]
        wanted = ask(self.spec, state)
        if not wanted:
            return {}
        names = [str(model.name) for model in state.models]
        said = registry.ask(self.host, wanted, self.spec, names, state.server)
        _asked[self.host] = (state, self.spec, said)
        return said

    def _not_yet(self, look: Look) -> Plan:
        """Before anything is executed a server of the stack's own may still be to come."""
        server = look.state.server if look.state is not None else None
        if server is None or self.spec.endpoint or server.status not in COMING:
            return look.plan
        finding = Finding(
            subject=f"service {self.spec.service}",
            kind=server.status,
            cause="the model server is not there yet; its models are seen to once it is",
        )
        return Plan(findings=(finding,))
