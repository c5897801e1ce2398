"""One host pulls a model, the others get its blobs from it, relayed over the connections we have.

No host has to reach another: what one writes on its channel the controller writes to the other's.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stackmend import connection
from stackmend.answers import read_json
from stackmend.errors import StepError
from stackmend.models import commands, reading
from stackmend.models.client import LOADING, SLOW_DISK, Watchdog, is_full
from stackmend.models.errors import Full, PeerUnavailable, TransientError
from stackmend.models.plan import stored, whole
from stackmend.models.progress import Shown
from stackmend.models.spec import Name
from stackmend.models.state import Layer, Manifest, Place, StoreState
from stackmend.models.store import layers_of

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State


@dataclass(frozen=True)
class Peer:
    """A host that has a model, whole.

    :param host: the host.
    :param arguments: pyinfra's own, as whom its files are read.
    :param place: where its models lie.
    :param name: the model, as it is called there.
    """

    host: Host
    arguments: Mapping[str, Any]
    place: Place
    name: Name


@dataclass(frozen=True)
class _Member:
    """A host that takes part.

    :param asked: the arguments of the fact that says what it has.
    :param arguments: pyinfra's own, as whom it is read.
    """

    host: Host
    asked: Mapping[str, Any]
    arguments: Mapping[str, Any]


@dataclass
class Fleet:
    """The hosts of one run that give models to each other."""

    _members: dict[str, _Member] = field(default_factory=dict)
    _brought: dict[str, list[Peer]] = field(default_factory=dict)
    _turns: dict[str, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def join(self, host: Host, asked: Mapping[str, Any]) -> None:
        """A host takes part.

        :param asked: the arguments of the fact that says what it has.
        """
        arguments = dict(host.current_op_global_arguments or {})
        with self._lock:
            self._members[host.name] = _Member(host, dict(asked), arguments)

    @contextmanager
    def turn(self, model: str) -> Iterator[None]:
        """Only one host at a time decides where it gets a model from, and pulls it."""
        with self._lock:
            turn = self._turns.setdefault(model, threading.Lock())
        with turn:
            yield

    def has(self, host: Host, name: Name, place: Place) -> None:
        """A host has got a model; it need not be asked whether it has."""
        with self._lock:
            peer = Peer(host, self._members[host.name].arguments, place, name)
            self._brought.setdefault(name.key, []).append(peer)

    def find(
        self, host: Host, name: Name, manifest: Manifest | None, without: Collection[str] = ()
    ) -> Peer | None:
        """A host that has a model: one that got it in this run, else one that had it before.

        :param host: who asks.
        :param name: the model.
        :param manifest: what it has to be; ``None`` where nobody could tell.
        :param without: names of hosts that are not asked.
        """
        with self._lock:
            members = list(self._members.values())
            brought = list(self._brought.get(name.key, ()))
        away = {host.name, *without}
        for peer in brought:
            if peer.host.name not in away and peer.host.connected:
                return peer
        for member in members:
            other = member.host
            if other.name in away or not other.connected:
                continue
            state = reading.latest(other, member.asked, member.arguments)
            if not isinstance(state, StoreState) or state.server.place is None:
                continue
            for model in state.models:
                # Under whatever name: a mirror's model is kept by another one.
                same = manifest.equals(model) if manifest else model.name.key == name.key
                if same and model.layers and whole(state, model):
                    return Peer(other, member.arguments, state.server.place, model.name)
        return None


#: The fleets, by the run that they belong to.
_fleets: WeakKeyDictionary[State, Fleet] = WeakKeyDictionary()


def fleet(state: State) -> Fleet:
    """The fleet of a run."""
    return _fleets.setdefault(state, Fleet())


def relay(
    peer: Peer,
    host: Host,
    state: StoreState,
    name: Name,
    manifest: Manifest | None,
    stall: float,
    progress: Shown,
) -> None:
    """Bring a model from one host to another; resumes what an earlier relay has left.

    Each blob is held against its digest where it has come to before it is put into its place, and
    the manifest comes last.

    :param peer: who has it.
    :param host: who wants it.
    :param state: what the one who wants it has.
    :param name: the name that it is to have.
    :param manifest: what it has to be; ``None`` where nobody could tell.
    :param stall: seconds without a byte after which it is given up.
    :param progress: told how many bytes of a blob there are.
    :raises PeerUnavailable: the peer cannot give it.
    :raises StepError: it cannot be put where it belongs.
    :raises TransientError: it may go better if it is tried again.
    """
    place = state.server.place
    assert place is not None, "what is relayed is written to a disk that is known"
    raw = manifest.raw.encode() if manifest is not None else _shown(peer)
    layers = manifest.layers if manifest is not None else _layers(raw, peer)
    for layer in {one.digest: one for one in layers}.values():
        if not stored(state, layer.digest, layer.size):
            _blob(peer, host, place, layer, stall, progress)
    put = connection.run(host, commands.put_manifest(place, name), stdin=raw)
    if not put.ok:
        raise _ours("its manifest", put.reason)


def _shown(peer: Peer) -> bytes:
    try:
        shown = connection.run(
            peer.host,
            commands.show_manifest(peer.place, peer.name),
            readonly=True,
            **peer.arguments,
        )
    except connection.RemoteError as error:
        raise PeerUnavailable(str(error)) from error
    if not shown.ok:
        raise PeerUnavailable(f"{peer.host.name} cannot show its manifest: {shown.reason}")
    return shown.stdout


def _layers(manifest: bytes, peer: Peer) -> tuple[Layer, ...]:
    try:
        return layers_of(read_json(manifest))
    except ValueError:
        raise PeerUnavailable(f"what {peer.host.name} has under this name is no manifest") from None


def _blob(
    peer: Peer, host: Host, place: Place, layer: Layer, stall: float, progress: Shown
) -> None:
    begun = connection.run(host, commands.begun(place, layer.digest), readonly=True)
    said_of_it = begun.text.strip()
    if said_of_it == "whole":
        return
    offset = int(said_of_it) if re.fullmatch(r"[0-9]{1,18}", said_of_it) else 0
    offset = offset if offset <= layer.size else 0
    progress.at(layer.digest, offset)
    there = offset
    writing = threading.Event()
    # A slow disk is written and read as slowly.
    written = LOADING + layer.size / SLOW_DISK

    def cut() -> None:
        source.close()
        if writing.is_set():
            sink.close()

    with (
        _given(peer, layer, offset) as source,
        connection.spawn(host, commands.take(place, layer.digest, offset)) as sink,
        Watchdog(stall, cut) as watchdog,
    ):
        while data := _next(source):
            watchdog.fed()
            writing.set()
            try:
                sink.write(data)
            except OSError:
                # It has ended, and says below why.
                break
            finally:
                writing.clear()
            there += len(data)
            progress.told(layer.digest, there, layer.size)
        sink.close_stdin()
        if sink.wait(written) != 0:
            if watchdog.fired:
                raise TransientError(f"no byte went to {host.name} for {stall:g} s")
            raise _ours(f"blob {layer.digest[:19]}", " ".join(sink.error_text.split()))
        if watchdog.fired:
            raise TransientError(f"no byte came from {peer.host.name} for {stall:g} s")
        if there != layer.size:
            raise _broken_off(peer, source, f"{there} of {layer.size} bytes")
    accepted = connection.run(host, commands.accept(place, layer.digest), timeout=written)
    if accepted.status == commands.ANOTHER:
        told = f"blob {layer.digest[:19]} from {peer.host.name}: {accepted.reason}"
        # What was there before may have come from another host, and the fault with it.
        raise TransientError(told, wasted=True) if offset else PeerUnavailable(told)
    if not accepted.ok:
        raise _ours(f"blob {layer.digest[:19]}", accepted.reason)


def _given(peer: Peer, layer: Layer, offset: int) -> connection.Stream:
    try:
        return connection.spawn(
            peer.host,
            commands.give(peer.place, layer.digest, offset),
            readonly=True,
            **peer.arguments,
        )
    except connection.RemoteError as error:
        raise PeerUnavailable(str(error)) from error


def _next(source: connection.Stream) -> bytes:
    try:
        return source.read()
    except (OSError, EOFError):
        return b""


def _broken_off(
    peer: Peer, source: connection.Stream, came: str
) -> PeerUnavailable | TransientError:
    """Why a peer gave less than all, and whether it may give the rest."""
    try:
        status = source.wait()
    except connection.RemoteError as error:
        return PeerUnavailable(str(error))
    why = " ".join(source.error_text.split())
    told = f"{peer.host.name} gave {came}" + (f": {why}" if why else "")
    return TransientError(told) if status < 0 else PeerUnavailable(told)


def _ours(what: str, why: str) -> StepError:
    """What was given could not be written."""
    if is_full(why):
        return Full(f"the disk that the models lie on is full ({why})")
    return StepError(f"{what} could not be written: {why or 'it ended without a reason'}")
