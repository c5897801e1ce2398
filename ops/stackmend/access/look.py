"""Read a host and decide; tell what was found. Nothing here changes a host."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.access.facts import Operator
from stackmend.access.keys import PublicKey
from stackmend.access.plan import Plan, plan
from stackmend.access.spec import OperatorSpec
from stackmend.access.state import HostAccess
from stackmend.acting import Teller, unread

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.reporting import Collector


@dataclass(frozen=True)
class Look:
    """One reading of a host, and what follows from it."""

    plan: Plan
    state: HostAccess | None = None


@dataclass
class Reader(Teller):
    """The way of one user into one host, to be looked at."""

    host: "Host"
    spec: OperatorSpec
    keys: tuple[PublicKey, ...]
    report: "Collector"

    @cached_property
    def identities(self) -> list["connection.Identity"]:
        """The private keys on this machine that belong to the user."""
        public = connection.public_halves(key.blob for key in self.keys)
        files = [key.private for key in self.keys if key.private]
        return connection.usable(self.host, public, files)

    def look(self) -> Look:
        """Read the host and decide. Changes nothing."""
        return self._decided(connection.read(self.host, Operator, user=self.spec.user))

    def look_again(self) -> Look:
        """The same from a new reading, whatever was read before."""
        (state,) = connection.fetch_facts(self.host, [(Operator, {"user": self.spec.user})])
        return self._decided(state)

    def _decided(self, state: object) -> Look:
        if isinstance(state, connection.Unknown):
            refusal = unread(state, "how one comes in", "changed on a host")
            return Look(Plan(refusals=(refusal,)))
        assert isinstance(state, HostAccess)
        # Whether the login can be tried only matters to what may lock everyone out.
        risky = self.spec.password_login is not None or self.spec.exclusive_keys
        provable = bool(self.identities) if risky else True
        return Look(plan(self.spec, self.keys, state, provable=provable), state)
