"""Get one model onto a server: from its registry, from another host, or from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tenacity

from stackmend import connection
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.models import commands, modelfiles, peers, reading
from stackmend.models.client import VERIFYING, Client
from stackmend.models.errors import Full, PeerUnavailable, TransientError
from stackmend.models.plan import Create, Pull, measure_present
from stackmend.models.progress import Meter, Tally, display
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import Manifest, Place, Server, StoreState
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api import StringCommand
    from pyinfra.api.host import Host

#: The longest pause before a pull is tried again, in seconds. The server lets go of a download that
#: was cut within some seconds, and does not resume it until then.
LONGEST_PAUSE = 30.0


@dataclass
class Puller:
    """Gets models onto the server of one host.

    :param host: the host.
    :param spec: what is desired of it.
    """

    host: Host
    spec: ModelsSpec
    _fetched: Tally = field(default_factory=Tally)
    _relayed: Tally = field(default_factory=Tally)
    _unmeasured: list[tuple[Name, Meter]] = field(default_factory=list)

    @property
    def fetched(self) -> int:
        """Bytes that arrived from registries so far, whatever became of them."""
        return self._fetched.received

    @property
    def relayed(self) -> int:
        """Bytes that arrived from other hosts so far, likewise."""
        return self._relayed.received

    def pull(self, action: Pull, state: StoreState) -> None:
        """Pull a model.

        :param state: what the server had when that was planned.
        :raises StepError: it cannot be pulled.
        :raises TransientError: no attempt succeeded.
        :raises RemoteError: the host cannot be reached.
        """
        place = state.server.place
        if self.spec.from_peers and place is not None:
            self._pull_from_fleet(action, state, place)
        else:
            self._pull_from_registry(action, state)

    def create(self, action: Create, state: StoreState) -> None:
        """Send the server what a model is created from, and have it created.

        :raises StepError: it cannot be created.
        :raises OSError: a file of the controller cannot be read.
        """
        model = next(model for model in self.spec.wanted if model.name.key == action.for_model)
        request = modelfiles.build_request(model)
        client = Client(self.host, state.server)
        sizes = {digest: path.stat().st_size for digest, path in request.blobs.items()}
        with (
            display(self.host, action.subject, Meter(Tally(), sizes)) as progress,
            self._take_slot(),
        ):
            for digest, path in request.blobs.items():
                if not client.has_blob(digest):
                    size, pieces = sizes[digest], modelfiles.read_pieces(path)
                    client.put_blob(digest, size, progress.count_pieces(digest, size, pieces))
            client.create(model.name, request.body, sum(sizes.values()))

    def count_unmeasured(self, state: StoreState) -> None:
        """Count blobs that the server never named, of models whose manifest was not known.

        :param state: what the server has now.
        """
        for name, meter in self._unmeasured:
            model = state.find_model(name)
            if model is not None and model.layers is not None:
                meter.complete({layer.digest: layer.size for layer in model.layers})
        self._unmeasured.clear()

    def _pull_from_fleet(self, action: Pull, state: StoreState, place: Place) -> None:
        """From a host that has it; where there is none, from the registry, and for the others."""
        hosts = peers.get_fleet(self.host.state)
        tried: set[str] = set()
        kept = [model.name for model in self.spec.wanted if model.name.key == action.for_model]
        names = (action.name, *kept)
        while True:
            # The puller keeps the turn until it is done: only then do the others look for it.
            with fleet.wait_for(self.host, hosts.take_turn(action.name.key)):
                peer = hosts.find(self.host, names, action.manifest, tried)
                if peer is None:
                    if tried:
                        self._clear(commands.delete_relayed, place, action.manifest)
                    self._pull_from_registry(action, self._refresh(state) if tried else state)
                    hosts.add(self.host, names, place)
                    return
            announce.show_line(self.host, f"{action.subject}: its blobs come from {peer.host.name}")
            try:
                self._pull_from_peer(peer, action, state, place)
            except (PeerUnavailable, TransientError) as error:
                tried.add(peer.host.name)
                if isinstance(error, PeerUnavailable) and error.corrupt:
                    hosts.report_corrupt(peer, error.corrupt)
                announce.show_line(
                    self.host,
                    f"{action.subject}: {peer.host.name} cannot give it ({error}); "
                    "trying the other hosts",
                )
            else:
                hosts.add(self.host, names, place)
                return

    def _pull_from_peer(
        self, peer: peers.Peer, action: Pull, state: StoreState, place: Place
    ) -> None:
        manifest = action.manifest
        self._relayed.start(measure_present(state, manifest))
        meter = Meter(self._relayed, _list_sizes(manifest))

        def attempt() -> None:
            with self._take_slot():
                peers.relay(
                    peer, self.host, state, action.name, manifest, self.spec.stall, progress
                )

        with display(self.host, action.subject, meter) as progress:
            try:
                self._retry(attempt, meter, action.subject)
            except Full:
                self._clear(commands.delete_relayed, place, manifest)
                raise

    def _pull_from_registry(self, action: Pull, state: StoreState) -> None:
        if action.unreachable:
            raise StepError(f"no other host can give it; {action.unreachable}")
        name, manifest, server = action.name, action.manifest, state.server
        if state.blobs is not None:
            self._fetched.start(measure_present(state, manifest))
        meter = Meter(self._fetched, _list_sizes(manifest), guess=state.blobs is None)
        first = True

        def on_status(status: str) -> None:
            if status.startswith(VERIFYING):
                meter.complete()
            progress.show_status(status)

        def attempt() -> None:
            nonlocal first
            # After a restart the server may have another address.
            client = Client(self.host, server if first else self._find_server())
            first = False
            try:
                with self._take_slot():
                    client.pull(
                        name,
                        insecure=action.insecure,
                        stall=self.spec.stall,
                        size=manifest.size if manifest is not None else 0,
                        on_progress=progress.update,
                        on_status=on_status,
                    )
            except TransientError as error:
                for digest in error.lost:
                    progress.restart(digest, 0)
                raise

        with display(self.host, action.subject, meter) as progress:
            try:
                self._retry(attempt, meter, action.subject)
            except Full:
                # Partial downloads would keep the disk full, for everybody on it.
                if server.place is not None:
                    self._clear(commands.delete_partials, server.place, manifest)
                raise
            finally:
                # The server has changed the host, which no reading from before shows.
                connection.invalidate(self.host)
        meter.complete()
        if manifest is None:
            self._unmeasured.append((name, meter))

    def _clear(
        self,
        command: Callable[[Place, str], StringCommand],
        place: Place,
        manifest: Manifest | None,
    ) -> None:
        """Remove the partial blobs of a model."""
        for digest in _list_sizes(manifest):
            connection.run(self.host, command(place, digest), closing=True)

    def _refresh(self, state: StoreState) -> StoreState:
        """What the server has now, without contents; what it had where that cannot be read."""
        now = self._read()
        return state if isinstance(now, connection.Unknown) else now

    def _find_server(self) -> Server:
        state = self._read()
        if isinstance(state, connection.Unknown):
            raise TransientError(f"cannot read the model server: {state.reason}")
        if state.server.status != "up":
            reason = state.server.reason or state.server.status
            raise TransientError(f"the model server does not answer: {reason}")
        return state.server

    def _read(self) -> StoreState | connection.Unknown:
        return reading.read(self.host, {**self.spec.fact_arguments, "hashes": False}, fresh=True)

    def _retry(self, attempt: Callable[[], None], meter: Meter, subject: str) -> None:
        """Attempt it until it succeeds; attempts without lasting progress are limited."""
        fruitless, before = 0, meter.received

        def count(call: tenacity.RetryCallState) -> None:
            nonlocal fruitless, before
            error = call.outcome.exception() if call.outcome is not None else None
            wasted = isinstance(error, TransientError) and error.wasted
            progressed = meter.received > before and not wasted
            fruitless, before = 1 if progressed else fruitless + 1, meter.received

        def report(call: tenacity.RetryCallState) -> None:
            assert call.outcome is not None, "what is tried again has failed"
            assert call.next_action is not None, "and what comes next is known"
            announce.show_line(
                self.host,
                f"{subject}: {call.outcome.exception()}; next attempt in "
                f"{call.next_action.sleep:g} s",
            )

        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            after=count,
            stop=lambda call: fruitless >= self.spec.attempts,
            wait=lambda call: min(LONGEST_PAUSE, 2.0**fruitless),
            before_sleep=report,
            reraise=True,
        )(attempt)

    @contextmanager
    def _take_slot(self) -> Iterator[None]:
        slot = peers.get_fleet(self.host.state).take_slot(self.spec.parallel)
        with fleet.wait_for(self.host, slot):
            yield


def _list_sizes(manifest: Manifest | None) -> dict[str, int]:
    """Bytes of a model's blobs, as far as they are known."""
    return {layer.digest: layer.size for layer in manifest.layers} if manifest is not None else {}
