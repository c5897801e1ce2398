"""One host pulls a model, the others get its blobs from it, relayed over the connections we have.

No host has to reach another: the controller reads from one channel and writes to the other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stackmend import connection
from stackmend.answers import read_json
from stackmend.decision import Refusal
from stackmend.errors import StepError
from stackmend.models import commands, reading
from stackmend.models.client import LOADING, SLOW_DISK, Watchdog, is_full
from stackmend.models.errors import Full, PeerUnavailable, TransientError
from stackmend.models.plan import Plan, has_blob, is_intact
from stackmend.models.progress import Display
from stackmend.models.spec import Name
from stackmend.models.state import Layer, Manifest, Place, StoreState
from stackmend.models.store import parse_layers
from stackmend.reporting import announce

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.reporting import Collector


@dataclass(frozen=True)
class Peer:
    """A host that has an intact model.

    :param host: the host.
    :param settings: pyinfra's own arguments, as whom its files are read.
    :param place: the directory of its models.
    :param names: the names that the model has there, or had.
    """

    host: Host
    settings: Mapping[str, Any]
    place: Place
    names: tuple[Name, ...]


@dataclass(frozen=True)
class _Member:
    """A host that takes part.

    :param arguments: those of the fact that says what it has.
    :param settings: pyinfra's own arguments, as whom it is read.
    :param report: where it is told what others find of it; ``None`` until its own operation runs.
    """

    host: Host
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]
    report: Collector | None


@dataclass
class Fleet:
    """The hosts of one run: they share the slots to fetch in, and may give each other models."""

    _members: dict[str, _Member] = field(default_factory=dict)
    _received: dict[str, list[Peer]] = field(default_factory=dict)
    _turns: dict[str, threading.Lock] = field(default_factory=dict)
    _slots: threading.Semaphore | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def join(
        self, host: Host, arguments: Mapping[str, Any], report: Collector | None = None
    ) -> None:
        """Let a host take part in giving, whatever operation it is at; again replaces the former.

        :param arguments: those of the fact that says what it has.
        :param report: where it is told what others find of it.
        """
        settings = connection.find_arguments(host)
        # What is reported while the run is prepared is of no operation that runs already.
        report = report if host.state.is_executing else None
        with self._lock:
            self._members[host.name] = _Member(host, dict(arguments), settings, report)

    def report_corrupt(self, peer: Peer, digest: str) -> None:
        """Tell a host that it gave a blob with another content: it is not well, whatever it read.

        Where its own turn is still to come in this run, it mends the blob then.

        :param digest: the blob.
        """
        with self._lock:
            report = self._members[peer.host.name].report
        if reading.note_corrupt(peer.host, digest) and report is not None:
            announce.report_plan(peer.host, report, Plan(refusals=(refuse_corrupt(peer, digest),)))
            # Its own turn is over: what is left is that the run as a whole does not end well.
            peer.host.state.failed_hosts.add(peer.host)

    @contextmanager
    def take_slot(self, parallel: int) -> Iterator[None]:
        """Wait until fewer models than allowed are fetched, over all hosts.

        :param parallel: how many are allowed; the first host of the run decides.
        """
        with self._lock:
            self._slots = self._slots or threading.Semaphore(parallel)
        with self._slots:
            yield

    @contextmanager
    def take_turn(self, model: str) -> Iterator[None]:
        """Let only one host at a time decide where it gets a model from, and pull it."""
        with self._lock:
            turn = self._turns.setdefault(model, threading.Lock())
        with turn:
            yield

    def add(self, host: Host, names: Sequence[Name], place: Place) -> None:
        """Note that a host has received a model: it need not be asked whether it has.

        :param names: the one that it is pulled by, and the one that it keeps it by.
        """
        with self._lock:
            peer = Peer(host, self._members[host.name].settings, place, tuple(names))
            self._received.setdefault(names[0].key, []).append(peer)

    def find(
        self,
        host: Host,
        names: Sequence[Name],
        manifest: Manifest | None,
        without: Collection[str] = (),
    ) -> Peer | None:
        """A host that has a model: one that received it in this run, else one that had it before.

        :param host: the host that needs it.
        :param names: the name that the model is pulled by, and the one that hosts keep it by.
        :param manifest: what it has to be; ``None`` where that is not known.
        :param without: names of hosts that are not asked.
        """
        with self._lock:
            members = list(self._members.values())
            received = list(self._received.get(names[0].key, ()))
        excluded = {host.name, *without}
        for peer in received:
            if peer.host.name not in excluded and peer.host.connected:
                return peer
        for member in members:
            other = member.host
            if other.name in excluded or not other.connected:
                continue
            state = reading.read_latest(other, member.arguments, member.settings)
            # Without a container or a server nobody knows where its models are.
            if not isinstance(state, StoreState) or state.server.place is None:
                continue
            for model in state.models:
                # Under whatever name: a mirror's model is kept by another one.
                named = model.name.key in {name.key for name in names}
                same = manifest.is_equal(model) if manifest else named
                if same and model.layers and is_intact(state, model):
                    return Peer(other, member.settings, state.server.place, (model.name,))
        return None


def refuse_corrupt(peer: Peer, digest: str) -> Refusal:
    """The refusal to call a host well whose blob another one could not use."""
    names = " or ".join(map(str, peer.names))
    return Refusal(
        subject=str(peer.names[0]),
        reason=f"blob {digest[:19]} of {names} does not have the content that its digest says; "
        "another host, which got it from here, has found out",
        remedy='to have it deleted and pulled again, set "hashes": true in the stack\'s "models" '
        "section and rerun",
    )


#: The fleets, by the run that they belong to.
_fleets: WeakKeyDictionary[State, Fleet] = WeakKeyDictionary()


def get_fleet(state: State) -> Fleet:
    """The fleet of a run."""
    return _fleets.setdefault(state, Fleet())


def relay(
    peer: Peer,
    host: Host,
    state: StoreState,
    name: Name,
    manifest: Manifest | None,
    stall: float,
    progress: Display,
) -> None:
    """Bring a model from one host to another; resumes what an earlier relay has left.

    The receiving host verifies each blob against its digest before it puts it into its place, and
    the manifest comes last.

    :param peer: the giver.
    :param host: the receiver.
    :param state: what the receiver has.
    :param name: the name that the model is to have.
    :param manifest: what it has to be; ``None`` where that is not known.
    :param stall: seconds without a byte after which it is given up.
    :param progress: shows how many bytes are present.
    :raises PeerUnavailable: the peer cannot give it.
    :raises StepError: the receiver cannot write it.
    :raises TransientError: another attempt may succeed.
    """
    place = state.server.place
    assert place is not None, "a relay needs the disk of the receiver"
    raw = manifest.raw.encode() if manifest is not None else _read_manifest(peer)
    layers = manifest.layers if manifest is not None else _parse_manifest(raw, peer)
    for layer in {layer.digest: layer for layer in layers}.values():
        if not has_blob(state, layer.digest, layer.size):
            _relay_blob(peer, host, place, layer, stall, progress)
    written = connection.run(host, commands.put_manifest(place, name), stdin=raw)
    if not written.ok:
        raise _explain_write("its manifest", written.reason)


def _read_manifest(peer: Peer) -> bytes:
    reason = ""
    for name in peer.names:
        try:
            result = connection.run(
                peer.host,
                commands.show_manifest(peer.place, name),
                readonly=True,
                **peer.settings,
            )
        except connection.RemoteError as error:
            raise PeerUnavailable(str(error)) from error
        if result.ok:
            return result.stdout
        reason = result.reason
    raise PeerUnavailable(f"{peer.host.name} cannot show its manifest: {reason}")


def _parse_manifest(manifest: bytes, peer: Peer) -> tuple[Layer, ...]:
    try:
        return parse_layers(read_json(manifest))
    except ValueError:
        raise PeerUnavailable(f"what {peer.host.name} has under this name is no manifest") from None


def _relay_blob(
    peer: Peer, host: Host, place: Place, layer: Layer, stall: float, progress: Display
) -> None:
    relayed = connection.run(
        host, commands.measure_relayed(place, layer.digest), readonly=True
    ).text.strip()
    if relayed == commands.COMPLETE:
        return
    offset = int(relayed) if re.fullmatch(r"[0-9]{1,18}", relayed) else 0
    offset = offset if offset <= layer.size else 0
    progress.restart(layer.digest, offset)
    present = offset
    writing = threading.Event()
    # A slow disk is written and read as slowly.
    write_timeout = LOADING + layer.size / SLOW_DISK

    def cut() -> None:
        giver.close()
        if writing.is_set():
            receiver.close()

    with (
        _open_blob(peer, layer, offset) as giver,
        connection.spawn(host, commands.take(place, layer.digest, offset)) as receiver,
        Watchdog(stall, cut) as watchdog,
    ):
        while data := _read_piece(giver):
            watchdog.feed()
            writing.set()
            try:
                receiver.write(data)
            except OSError:
                # It has ended, and says below why.
                break
            finally:
                writing.clear()
            present += len(data)
            progress.update(layer.digest, present, layer.size)
        receiver.close_stdin()
        if receiver.wait(write_timeout) != 0:
            if watchdog.fired:
                raise TransientError(f"{host.name} took no byte for {stall:g} s")
            reason = " ".join(receiver.error_text.split())
            raise _explain_write(f"blob {layer.digest[:19]}", reason)
        if watchdog.fired:
            raise TransientError(f"no byte arrived from {peer.host.name} for {stall:g} s")
        if present != layer.size:
            raise _explain_end(peer, giver, f"{present} of {layer.size} bytes")
    accepted = connection.run(host, commands.accept(place, layer.digest), timeout=write_timeout)
    if accepted.status == commands.MISMATCH:
        reason = f"blob {layer.digest[:19]} from {peer.host.name}: {accepted.reason}"
        # The first bytes may have come from another host, and the fault with them.
        if offset:
            raise TransientError(reason, wasted=True)
        raise PeerUnavailable(reason, corrupt=layer.digest)
    if not accepted.ok:
        raise _explain_write(f"blob {layer.digest[:19]}", accepted.reason)


def _open_blob(peer: Peer, layer: Layer, offset: int) -> connection.Stream:
    try:
        return connection.spawn(
            peer.host,
            commands.give(peer.place, layer.digest, offset),
            readonly=True,
            **peer.settings,
        )
    except connection.RemoteError as error:
        raise PeerUnavailable(str(error)) from error


def _read_piece(giver: connection.Stream) -> bytes:
    try:
        return giver.read()
    except (OSError, EOFError):
        return b""


def _explain_end(
    peer: Peer, giver: connection.Stream, amount: str
) -> PeerUnavailable | TransientError:
    """Why a peer gave less than all, and whether it may give the others."""
    try:
        status = giver.wait()
    except connection.RemoteError as error:
        return PeerUnavailable(str(error))
    output = " ".join(giver.error_text.split())
    reason = f"{peer.host.name} gave {amount}" + (f": {output}" if output else "")
    return TransientError(reason) if status < 0 else PeerUnavailable(reason)


def _explain_write(what: str, reason: str) -> StepError:
    """Why the receiver cannot write something."""
    if is_full(reason):
        return Full(f"the disk of the models is full ({reason})")
    return StepError(f"cannot write {what}: {reason or 'it ended without a reason'}")
