"""Bring one model to a server: from its registry, from another host, or from a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import tenacity

from stackmend import connection
from stackmend.errors import StepError
from stackmend.models import commands, making, peers, reading
from stackmend.models.client import VERIFYING, Client
from stackmend.models.errors import Full, PeerUnavailable, TransientError
from stackmend.models.plan import Action, begun
from stackmend.models.progress import Meter, Tally, shown
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import Manifest, Place, Server, StoreState
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
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
    _fetched: Tally = field(default_factory=Tally)
    _relayed: Tally = field(default_factory=Tally)
    _untold: list[tuple[Name, Meter]] = field(default_factory=list)

    @property
    def fetched(self) -> int:
        """Bytes that have come from registries so far, whatever became of them."""
        return self._fetched.came

    @property
    def relayed(self) -> int:
        """Bytes that have come from other hosts so far, likewise."""
        return self._relayed.came

    def pull(self, action: Action, state: StoreState) -> None:
        """Bring what an action pulls.

        :param state: what the server had when that was decided.
        :raises StepError: it cannot be brought.
        :raises TransientError: it could not, however often it was tried.
        :raises RemoteError: the host cannot be reached.
        """
        if self.spec.source == "peer" and state.server.place is not None:
            self._from_the_fleet(action, state)
        else:
            self._from_registry(action, state)

    def create(self, action: Action, state: StoreState) -> None:
        """Give the server what a model is made from, and have it made.

        :raises StepError: it cannot be made.
        :raises OSError: a file of the controller's cannot be read.
        """
        wanted = next(one for one in self.spec.wanted if one.name.key == action.serves)
        recipe = making.recipe(wanted)
        client = Client(self.host, state.server)
        sizes = {digest: path.stat().st_size for digest, path in recipe.blobs().items()}
        meter = Meter(Tally(), sizes)
        with shown(self.host, action.subject, meter) as progress, self._slot():
            for digest, path in recipe.blobs().items():
                if not client.has_blob(digest):
                    told = progress.counting(digest, sizes[digest])
                    client.put_blob(digest, sizes[digest], map(told, making.content(path)))
            client.create(wanted.name, recipe.body(), sum(sizes.values()))

    def settle(self, state: StoreState) -> None:
        """Count what was too small for the server to speak of, where no manifest told its size.

        :param state: what the server has now.
        """
        for name, meter in self._untold:
            model = state.model(name)
            if model is not None and model.layers is not None:
                meter.complete({layer.digest: layer.size for layer in model.layers})
        self._untold.clear()

    def _from_the_fleet(self, action: Action, state: StoreState) -> None:
        """From a host that has it; where there is none, from the registry, and for the others."""
        name, place = action.name, state.server.place
        assert name is not None, "what is pulled has a name"
        assert place is not None, "what is relayed is written to a disk that is known"
        fleet = peers.fleet(self.host.state)
        tried: set[str] = set()
        while True:
            # Whoever pulls keeps the turn until it is done: only then do the others look.
            with fleet.turn(name.key):
                peer = fleet.find(self.host, name, action.manifest, tried)
                if peer is None:
                    if tried:
                        self._clear(commands.delete_relayed, place, action.manifest)
                    self._from_registry(action, self._now(state) if tried else state)
                    fleet.has(self.host, name, place)
                    return
            announce.show_line(self.host, f"{action.subject}: its blobs come from {peer.host.name}")
            try:
                self._from_peer(peer, action, state, place)
            except (PeerUnavailable, TransientError) as error:
                tried.add(peer.host.name)
                announce.show_line(
                    self.host,
                    f"{action.subject}: {peer.host.name} cannot give it ({error}); "
                    "looked for elsewhere",
                )
            else:
                fleet.has(self.host, name, place)
                return

    def _from_peer(self, peer: peers.Peer, action: Action, state: StoreState, place: Place) -> None:
        name, manifest = action.name, action.manifest
        assert name is not None, "what is pulled has a name"
        self._relayed.begins(begun(state, manifest))
        meter = Meter(self._relayed, _sizes(manifest))

        def once() -> None:
            with self._slot():
                peers.relay(peer, self.host, state, name, manifest, self.spec.stall, progress)

        with shown(self.host, action.subject, meter) as progress:
            try:
                self._again(once, meter, action.subject)
            except Full:
                self._clear(commands.delete_relayed, place, manifest)
                raise

    def _from_registry(self, action: Action, state: StoreState) -> None:
        name, manifest, server = action.name, action.manifest, state.server
        assert name is not None, "what is pulled has a name"
        if action.unreachable:
            raise StepError(f"no other host can give it, and {action.unreachable}")
        if state.blobs is not None:
            self._fetched.begins(begun(state, manifest))
        meter = Meter(self._fetched, _sizes(manifest), guess=state.blobs is None)
        first = True

        def said(words: str) -> None:
            if words.startswith(VERIFYING):
                meter.complete()
            progress.said(words)

        def once() -> None:
            nonlocal first
            # It may have been started anew, and answer elsewhere, since the last attempt.
            client = Client(self.host, server if first else self._server())
            first = False
            try:
                with self._slot():
                    client.pull(
                        name,
                        insecure=action.insecure,
                        stall=self.spec.stall,
                        size=manifest.size if manifest is not None else 0,
                        told=progress.told,
                        said=said,
                    )
            except TransientError as error:
                for digest in error.lost:
                    progress.at(digest, 0)
                raise

        with shown(self.host, action.subject, meter) as progress:
            try:
                self._again(once, meter, action.subject)
            except Full:
                # What was begun would keep the disk full, for everybody on it.
                if server.place is not None:
                    self._clear(commands.delete_partials, server.place, manifest)
                raise
            finally:
                # What was read of the host before is no longer so.
                connection.invalidate(self.host)
        meter.complete()
        if manifest is None:
            self._untold.append((name, meter))

    def _clear(
        self,
        command: Callable[[Place, str], StringCommand],
        place: Place,
        manifest: Manifest | None,
    ) -> None:
        """Remove what was begun of a model."""
        for digest in _sizes(manifest):
            connection.run(self.host, command(place, digest), closing=True)

    def _now(self, state: StoreState) -> StoreState:
        """What the server has by now, without contents; what it had where that cannot be read."""
        asked = {**self.spec.asked(), "hashes": False}
        now = reading.read(self.host, asked, anew=True)
        return state if isinstance(now, connection.Unknown) else now

    def _server(self) -> Server:
        asked = {**self.spec.asked(), "hashes": False}
        state = reading.read(self.host, asked, anew=True)
        if isinstance(state, connection.Unknown):
            raise TransientError(f"the model server cannot be read: {state.reason}")
        if state.server.status != "up":
            reason = state.server.reason or state.server.status
            raise TransientError(f"the model server does not answer: {reason}")
        return state.server

    def _again(self, once: Callable[[], None], meter: Meter, subject: str) -> None:
        """Try until it is done; attempts that brought nothing that lasts are counted."""
        fruitless, before = 0, meter.came

        def failed(attempt: tenacity.RetryCallState) -> None:
            nonlocal fruitless, before
            error = attempt.outcome.exception() if attempt.outcome is not None else None
            wasted = isinstance(error, TransientError) and error.wasted
            lasts = meter.came > before and not wasted
            fruitless, before = 1 if lasts else fruitless + 1, meter.came

        def pause(attempt: tenacity.RetryCallState) -> float:
            return min(LONGEST, 2.0**fruitless)

        def tell(attempt: tenacity.RetryCallState) -> None:
            assert attempt.outcome is not None, "what is tried again has failed"
            assert attempt.next_action is not None, "and what comes next is known"
            announce.show_line(
                self.host,
                f"{subject}: {attempt.outcome.exception()}; tried again in "
                f"{attempt.next_action.sleep:g} s",
            )

        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
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


def _sizes(manifest: Manifest | None) -> dict[str, int]:
    """Bytes of a model's blobs, as far as they are known."""
    return {one.digest: one.size for one in manifest.layers} if manifest is not None else {}
