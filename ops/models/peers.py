"""One host pulls a model, the others get its blobs from it, relayed over the connections we have.

No host has to reach another: what one writes on its channel the controller writes to the other's.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ops import connection
from ops.models import commands
from ops.models.client import Failed, Passing, Watchdog
from ops.models.facts import ModelStore
from ops.models.plan import stored, whole
from ops.models.progress import Shown
from ops.models.spec import Name
from ops.models.state import Layer, Manifest, Place, StoredModel, StoreState
from ops.models.store import layers_of

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State


@dataclass(frozen=True)
class Peer:
    """A host that has a model, whole.

    :param host: the host.
    :param arguments: pyinfra's own, as whom its files are read.
    :param place: where its models lie.
    :param model: the model.
    """

    host: Host
    arguments: Mapping[str, Any]
    place: Place
    model: StoredModel


@dataclass
class Fleet:
    """The hosts of one run that give models to each other."""

    _members: dict[str, tuple[Host, dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    _turns: dict[str, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def join(self, host: Host, asked: Mapping[str, Any]) -> None:
        """A host takes part.

        :param asked: the arguments of the fact that says what it has.
        """
        arguments = dict(host.current_op_global_arguments or {})
        with self._lock:
            self._members[host.name] = (host, dict(asked), arguments)

    @contextmanager
    def turn(self, model: str) -> Iterator[None]:
        """Only one host at a time decides where it gets a model from, and pulls it."""
        with self._lock:
            turn = self._turns.setdefault(model, threading.Lock())
        with turn:
            yield

    def find(self, host: Host, name: Name, manifest: Manifest | None) -> Peer | None:
        """A host that has a model.

        :param host: who asks.
        :param name: the model.
        :param manifest: what it has to be; ``None`` where nobody could tell.
        """
        with self._lock:
            members = list(self._members.values())
        for other, asked, arguments in members:
            if other.name == host.name or not other.connected:
                continue
            state = connection.read(other, ModelStore, **{**arguments, **asked})
            if not isinstance(state, StoreState) or state.server.place is None:
                continue
            model = state.model(name)
            if model is None or not model.layers or not whole(state, model):
                continue
            if manifest is None or manifest.equals(model):
                return Peer(other, arguments, state.server.place, model)
        return None


#: The fleets, by the run that they belong to.
_fleets: WeakKeyDictionary[State, Fleet] = WeakKeyDictionary()


def fleet(state: State) -> Fleet:
    """The fleet of a run."""
    return _fleets.setdefault(state, Fleet())


def relay(
    peer: Peer, host: Host, state: StoreState, name: Name, stall: float, progress: Shown
) -> None:
    """Bring a model from one host to another; resumes what an earlier relay has left.

    Each blob is held against its digest where it has come to before it is put into its place, and
    the manifest comes last.

    :param peer: who has it.
    :param host: who wants it.
    :param state: what the one who wants it has.
    :param name: the name that it is to have.
    :param stall: seconds without a byte after which it is given up.
    :param progress: told how many bytes of a blob there are.
    :raises Failed: it cannot be brought.
    :raises Passing: it may go better if it is tried again.
    """
    place = state.server.place
    if place is None:
        raise Failed("its models lie where no files can be written")
    shown = connection.run(
        peer.host,
        commands.show_manifest(peer.place, peer.model.name),
        readonly=True,
        **peer.arguments,
    )
    layers = _layers(shown.stdout)
    if layers is None or hashlib.sha256(shown.stdout).hexdigest() != peer.model.digest:
        raise Failed(f"{peer.host.name} has another model under this name by now")
    for layer in {one.digest: one for one in layers}.values():
        if not stored(state, layer.digest, layer.size):
            _blob(peer, host, place, layer, stall, progress)
    put = connection.run(host, commands.put_manifest(place, name), stdin=shown.stdout)
    if not put.ok:
        raise Failed(f"its manifest could not be written: {_said(put)}")


def _blob(
    peer: Peer, host: Host, place: Place, layer: Layer, stall: float, progress: Shown
) -> None:
    begun = connection.run(host, commands.begun(place, layer.digest), readonly=True)
    if begun.text.strip() == "whole":
        return
    there = int(begun.text) if begun.text.strip().isdigit() else 0
    there = there if there <= layer.size else 0
    progress.had(layer.digest, there)
    with (
        connection.spawn(
            peer.host,
            commands.give(peer.place, layer.digest, there),
            readonly=True,
            **peer.arguments,
        ) as source,
        connection.spawn(host, commands.take(place, layer.digest, there)) as sink,
        Watchdog(stall, source.close) as watchdog,
    ):
        while data := source.read():
            watchdog.fed()
            sink.write(data)
            there += len(data)
            progress.told(layer.digest, there, layer.size)
        sink.close_stdin()
        if sink.wait() != 0:
            said = " ".join(sink.error_text.split())
            raise Failed(f"blob {layer.digest[:19]} could not be written: {said}")
        if watchdog.fired:
            raise Passing(f"no byte came from {peer.host.name} for {stall:g} s")
    if there != layer.size:
        raise Passing(f"{peer.host.name} gave {there} of {layer.size} bytes")
    accepted = connection.run(host, commands.accept(place, layer.digest))
    if accepted.status == commands.ANOTHER:
        raise Passing(f"what {peer.host.name} gave is another blob: {_said(accepted)}", wasted=True)
    if not accepted.ok:
        raise Failed(f"blob {layer.digest[:19]} could not be put in place: {_said(accepted)}")


def _layers(manifest: bytes) -> tuple[Layer, ...] | None:
    try:
        return layers_of(json.loads(manifest))
    except ValueError:
        return None


def _said(result: connection.Result) -> str:
    return " ".join(result.error_text.split()) or f"exit status {result.status}"
