"""Bring one model to a server: from its registry, from another host, or from a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import tenacity

from ops import connection
from ops.models import commands, making, peers
from ops.models.client import Client, Full, Passing
from ops.models.facts import ModelStore
from ops.models.plan import Action, absent
from ops.models.progress import Meter, Shown, shown
from ops.models.spec import ModelsSpec
from ops.models.state import Server, StoreState

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

#: The longest pause before a pull is tried again, in seconds. A download that was cut is let go by
#: the server within some seconds, and until then it is not begun anew.
LONGEST = 30.0

#: How many models are fetched at once in a run, over all hosts.
_slots: WeakKeyDictionary[State, threading.Semaphore] = WeakKeyDictionary()


@dataclass
class Bringer:
    """Brings models to the server of one host.

    :param host: the host.
    :param spec: what is wanted of it.
    """

    host: Host
    spec: ModelsSpec
    _meters: list[Meter] = field(default_factory=list)

    @property
    def fetched(self) -> int:
        """Bytes that have come so far, whatever became of them."""
        return sum(meter.fetched for meter in self._meters)

    def pull(self, action: Action, state: StoreState) -> None:
        """Bring what an action pulls.

        :param state: what the server had when that was decided.
        :raises Failed: it cannot be brought.
        :raises Passing: it could not, however often it was tried.
        :raises RemoteError: the host cannot be reached.
        """
        assert action.name is not None, "what is pulled has a name"
        meter = _meter(action, state)
        self._meters.append(meter)
        with shown(self.host, action.subject, meter) as progress:
            if self.spec.source == "peer":
                self._in_turn(action, state, meter, progress)
            else:
                self._from_registry(action, state, meter, progress)

    def create(self, action: Action, state: StoreState) -> None:
        """Give the server what a model is made from, and have it made.

        :raises Failed: it cannot be made.
        :raises OSError: a file of the controller's cannot be read.
        """
        wanted = next(one for one in self.spec.wanted if one.name.key == action.serves)
        recipe = making.recipe(wanted)
        client = Client(self.host, state.server)
        sizes = {digest: path.stat().st_size for digest, path in recipe.blobs().items()}
        meter = Meter({}, sum(sizes.values()))
        with shown(self.host, action.subject, meter) as progress, self._slot():
            for digest, path in recipe.blobs().items():
                if not client.has_blob(digest):
                    told = progress.counting(digest, sizes[digest])
                    client.put_blob(digest, sizes[digest], map(told, making.content(path)))
            client.create(wanted.name, recipe.body(), sum(sizes.values()))

    def _in_turn(self, action: Action, state: StoreState, meter: Meter, progress: Shown) -> None:
        """From a host that has it; where there is none, from the registry, and for the others."""
        name = action.name
        assert name is not None, "what is pulled has a name"
        fleet = peers.fleet(self.host.state)
        with fleet.turn(name.key):
            peer = fleet.find(self.host, name, action.manifest)
            if peer is None:
                self._from_registry(action, state, meter, progress)
                return
        found = peer
        self.host.log(f"{action.subject}: its blobs come from {found.host.name}")

        def once() -> None:
            with self._slot():
                peers.relay(found, self.host, state, name, self.spec.stall, progress)

        self._again(once, meter, action.subject)

    def _from_registry(
        self, action: Action, state: StoreState, meter: Meter, progress: Shown
    ) -> None:
        name, manifest, server = action.name, action.manifest, state.server
        assert name is not None, "what is pulled has a name"
        size = manifest.size if manifest is not None else 0
        first = True

        def once() -> None:
            nonlocal first
            # It may have been started anew, and answer elsewhere, since the last attempt.
            client = Client(self.host, server if first else self._server())
            first = False
            with self._slot():
                client.pull(
                    name,
                    insecure=action.insecure,
                    stall=self.spec.stall,
                    size=size,
                    told=progress.told,
                    said=progress.said,
                )

        try:
            self._again(once, meter, action.subject)
        except Full:
            # What was begun would keep the disk full, for everybody on it.
            self._give_back(action, server)
            raise
        finally:
            # What was read of the host before is no longer so.
            connection.forget(self.host)
        if manifest is not None:
            meter.complete({layer.digest: layer.size for layer in manifest.layers})

    def _give_back(self, action: Action, server: Server) -> None:
        if action.manifest is None or server.place is None:
            return
        for layer in action.manifest.layers:
            connection.run(self.host, commands.delete_partials(server.place, layer.digest))

    def _server(self) -> Server:
        asked = {**self.spec.asked(), "hashes": False}
        (state,) = connection.gather(self.host, [(ModelStore, asked)])
        if isinstance(state, connection.Unknown):
            raise Passing(f"the model server cannot be read: {state.reason}")
        assert isinstance(state, StoreState)
        if state.server.status != "up":
            reason = state.server.reason or state.server.status
            raise Passing(f"the model server does not answer: {reason}")
        return state.server

    def _again(self, once: Callable[[], None], meter: Meter, subject: str) -> None:
        """Try until it is done; attempts that brought nothing that lasts are counted."""
        fruitless, before = 0, meter.fetched

        def failed(attempt: tenacity.RetryCallState) -> None:
            nonlocal fruitless, before
            error = attempt.outcome.exception() if attempt.outcome is not None else None
            wasted = isinstance(error, Passing) and error.wasted
            lasts = meter.fetched > before and not wasted
            fruitless, before = 1 if lasts else fruitless + 1, meter.fetched

        def pause(attempt: tenacity.RetryCallState) -> float:
            return min(LONGEST, 2.0**fruitless)

        def tell(attempt: tenacity.RetryCallState) -> None:
            assert attempt.outcome is not None, "what is tried again has failed"
            assert attempt.next_action is not None, "and what comes next is known"
            self.host.log(
                f"{subject}: {attempt.outcome.exception()}; tried again in "
                f"{attempt.next_action.sleep:g} s"
            )

        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing),
            after=failed,
            stop=lambda attempt: fruitless >= self.spec.attempts,
            wait=pause,
            before_sleep=tell,
            reraise=True,
        )(once)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        slots = _slots.setdefault(self.host.state, threading.Semaphore(self.spec.parallel))
        with slots:
            yield


def _meter(action: Action, state: StoreState) -> Meter:
    layers = action.manifest.layers if action.manifest is not None else ()
    missing = absent(state, action.manifest)
    had = {layer.digest: layer.size - missing.get(layer.digest, 0) for layer in layers}
    return Meter(had, action.manifest.size if action.manifest is not None else 0)
