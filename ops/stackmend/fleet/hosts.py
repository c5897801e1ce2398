"""What a run has of each of its hosts: the lock, the time that is left, the turn to change it."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pyinfra.api.state import BaseStateCallback
from typing_extensions import override

from stackmend import connection, reporting
from stackmend.connection import signals
from stackmend.fleet.clock import Clock
from stackmend.fleet.spec import ReconcilePolicy
from stackmend.fleet.turns import Result, Turns, find_worst
from stackmend.paths import STATE_ROOT
from stackmend.reporting import announce
from stackmend.text import format_limit

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

#: The file on a host whose lock says that a run changes it.
LOCK = f"{STATE_ROOT}/run.lock"

#: Seconds between two tries to get what another host, or another run, has.
PAUSE = 0.2
RETRY = 2.0

#: Seconds that a host waits for what another host of the run is to bring, and between two looks.
LONGEST_WAIT = 1800.0
WAIT_PAUSE = 5.0


class TimeOver(connection.RemoteError):
    """The run has been at work on a host for as long as it may: no further step begins there."""


class Stopped(Exception):
    """The run begins to change no other host, because those before got worse, or it has ended.

    :ivar hosts: the names of those that got worse; none where the run has ended.
    """

    def __init__(self, hosts: tuple[str, ...]) -> None:
        super().__init__(", ".join(hosts))
        self.hosts = hosts


@dataclass
class _Seat:
    """One host of a run.

    :ivar before: by operation: whether the host was well before it was changed.
    :ivar changed: the operations that have begun to change the host.
    :ivar result: how the host is by those of them that have ended; at its own pace it has its turn
        over all of them.
    :ivar returning: how many blocks are taking back what was done.
    :ivar waits: how many blocks are waiting for others, and when the first of them began.
    :ivar awaits: the host that this one waits for, by its name; empty where it waits for none.
    """

    clock: Clock = field(default_factory=Clock)
    held: ExitStack = field(default_factory=ExitStack)
    lease: connection.Lease | None = None
    before: dict[str, bool] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    result: Result | None = None
    returning: int = 0
    waits: int = 0
    waits_since: float = 0.0
    awaits: str = ""


class _Run:
    """All hosts of a run.

    :ivar at_own_pace: whether a host goes on to its next operation without waiting for the others.
    :ivar running: where it does: the names of the hosts that have operations left.
    """

    def __init__(self, state: State) -> None:
        policies = [find_policy(host) for host in state.inventory]
        self.at_own_pace = False
        self.running: set[str] = set()
        self.turns = Turns(
            canary=_choose(policies, "canary"),
            parallel=_choose(policies, "parallel"),
            stop_after=_choose(policies, "stop_after"),
        )
        self._seats: dict[str, _Seat] = {}

    def get_seat(self, host: Host) -> _Seat:
        """What the run has of a host."""
        return self._seats.setdefault(host.name, _Seat())

    def is_free_to_wait(self, host: Host) -> bool:
        """Whether the run may wait for another one on a host.

        Where all hosts wait for each other after each operation, those that it holds meanwhile
        would be held for as long, and two runs could wait for each other.
        """
        others = (seat.lease for name, seat in self._seats.items() if name != host.name)
        return self.at_own_pace or not any(others)

    def is_waiting(self, name: str, other: str) -> bool:
        """Whether a host waits for another one, or for one that does."""
        passed: set[str] = set()
        while name and name not in passed:
            if name == other:
                return True
            passed.add(name)
            name = self._seats[name].awaits if name in self._seats else ""
        return False

    def release_all(self) -> None:
        """Give up the locks of all hosts."""
        for seat in self._seats.values():
            seat.lease = None
            seat.held.close()

    def release(self, host: Host) -> None:
        """Give up the lock of a host, where it is held."""
        seat = self.get_seat(host)
        seat.lease = None
        seat.held.close()


_runs: WeakKeyDictionary[State, _Run] = WeakKeyDictionary()
#: What the command line says in place of every host's own setting.
_wait: float | None = None


def set_wait(seconds: float) -> None:
    """Have every run of this process wait so long for others, whatever its hosts' settings say.

    :param seconds: as of ``reconcile.wait``.
    """
    global _wait
    _wait = seconds


def find_policy(host: Host) -> ReconcilePolicy:
    """The section ``reconcile`` of a host; its defaults where it has none.

    :param host: the host.
    """
    stack = host.data.get("stack")
    section: Any = getattr(stack, "reconcile", None)
    if isinstance(stack, Mapping):
        section = stack.get("reconcile")
    if isinstance(section, ReconcilePolicy):
        return section
    # It was validated before any host was contacted.
    return ReconcilePolicy.model_validate(section or {})


def find_wait(host: Host) -> float:
    """Seconds that a run waits for another one on a host.

    :param host: the host.
    """
    return find_policy(host).wait if _wait is None else _wait


def set_own_pace(state: State) -> None:
    """Note that each host goes through its operations without waiting for the others.

    :param state: the pyinfra state of the run.
    """
    run = _find(state)
    run.at_own_pace = True
    run.running = {host.name for host in state.inventory.get_active_hosts()}


def note_over(host: Host) -> None:
    """Note that a host that goes at its own pace has no operation left.

    :param host: the host.
    """
    _find(host.state).running.discard(host.name)


def find_host(state: State, address: str) -> Host | None:
    """The host of a run that an address is of, by its name or its ``ssh_hostname``.

    :param state: the pyinfra state of the run.
    :param address: a name or an address, without a port.
    """
    for host in state.inventory:
        names = (host.name, str(host.data.get("ssh_hostname") or ""))
        if address.lower() in map(str.lower, names):
            return host
    return None


def wait_for_host(host: Host, other: Host, is_ready: Callable[[], bool]) -> bool:
    """Wait until what another host of the run is to bring is there, or its operations are over.

    Returns whether it waited.

    Half an hour at most. Others may be changed meanwhile in the host's place. Does nothing where
    the hosts wait for each other after each operation, or where the other one waits for this one.

    :param host: the host that waits.
    :param other: the one that it waits for.
    :param is_ready: whether it is there.
    """
    run = _find(host.state)
    if other.name not in run.running or run.is_waiting(other.name, host.name):
        return False
    seat = run.get_seat(host)
    seat.awaits = other.name
    # It changes nothing while it waits, and the other one may need its turn.
    run.turns.end(host.name, "other")
    announce.show_line(host, f"  waits up to {format_limit(LONGEST_WAIT)} for {other.name}")
    until = time.monotonic() + LONGEST_WAIT
    try:
        with leave_out(host):
            while other.name in run.running and time.monotonic() < until and not is_ready():
                signals.proceed()
                time.sleep(WAIT_PAUSE)
    finally:
        seat.awaits = ""
    return True


def watch(host: Host) -> None:
    """Count the time of an operation that begins on a host.

    :param host: the host.
    :raises TimeOver: the run may be at work there no longer.
    """
    run = _find(host.state)
    run.get_seat(host).clock.start(time.monotonic())
    check_time(host, "begin an operation")


def check_time(host: Host, doing: str) -> None:
    """Make sure that a run may begin another step on a host.

    :param host: the host.
    :param doing: what is to be begun, in words.
    :raises TimeOver: its time there is over, and the step is none that takes something back.
    """
    seat, limit = _find(host.state).get_seat(host), find_policy(host).limit
    if seat.returning or seat.clock.measure(time.monotonic()) < limit:
        return
    raise TimeOver(
        host.name,
        doing,
        f"this run was at work here for {format_limit(limit)}, and begins no further step: "
        "reconcile.limit",
    )


def check_lock(host: Host) -> None:
    """Make sure that what this run holds of a host is still held; where it holds none, it is well.

    :param host: the host.
    :raises ConnectionLost: it was lost, and another run may be at work there.
    """
    lease = _find(host.state).get_seat(host).lease
    if lease is not None:
        lease.check()


@contextmanager
def leave_out(host: Host) -> Iterator[None]:
    """Mark a time in which a run waits for others, and which is none of the host's.

    Of times that overlap, each moment counts once.

    :param host: the host.
    """
    seat = _find(host.state).get_seat(host)
    if not seat.waits:
        seat.waits_since = time.monotonic()
    seat.waits += 1
    try:
        yield
    finally:
        seat.waits -= 1
        if not seat.waits:
            seat.clock.drop(time.monotonic() - seat.waits_since)


@contextmanager
def wait_for(host: Host, block: AbstractContextManager[None]) -> Iterator[None]:
    """Enter a block for which a run waits for others, and which itself is of the host's time.

    :param host: the host.
    :param block: what is entered.

    Example:
        >>> with fleet.wait_for(host, turns.take(server)):
        ...     measure()
    """
    with ExitStack() as stack:
        with leave_out(host):
            stack.enter_context(block)
        yield


@contextmanager
def allow_return(host: Host) -> Iterator[None]:
    """Mark a time in which what was done is taken back, which no limit of the host keeps from it.

    :param host: the host.
    """
    seat = _find(host.state).get_seat(host)
    seat.returning += 1
    try:
        yield
    finally:
        seat.returning -= 1


def is_returning(host: Host) -> bool:
    """Whether what was done to a host is being taken back at this moment.

    :param host: the host.
    """
    return _find(host.state).get_seat(host).returning > 0


def hold(host: Host) -> connection.Lease:
    """The lock of a host, held until the last operation of this run there has ended.

    Waits for the turn to change the host, and for another run as long as the host's settings say.
    Facts read before are no longer valid: whoever had the lock may have changed what they say.

    :param host: the host.
    :raises LeaseHeld: another run has it.
    :raises RemoteError: it cannot be had.
    :raises Stopped: no further host may be changed.

    Example:
        >>> lease = fleet.hold(host)
        >>> lease.check()
    """
    run = _find(host.state)
    seat = run.get_seat(host)
    if seat.lease is not None and seat.lease.lost:
        run.release(host)
    until: float | None = None
    with leave_out(host):
        while True:
            _wait_for_turn(host, run)
            if seat.lease is not None:
                return seat.lease
            try:
                seat.lease = seat.held.enter_context(connection.hold_lock(host, LOCK))
            except connection.LeaseHeld as error:
                # Whoever has no lock changes nothing, and keeps no other host waiting.
                run.turns.end(host.name, "other")
                now, wait = time.monotonic(), find_wait(host)
                if until is None:
                    until = now + wait
                    if wait and run.is_free_to_wait(host):
                        announce.show_line(
                            host, f"  waits up to {format_limit(wait)} for {error.holder}"
                        )
                if now >= until or not run.is_free_to_wait(host):
                    raise
                time.sleep(max(0.0, min(RETRY, until - now)))
            except BaseException:
                run.turns.end(host.name, "other")
                raise


def _wait_for_turn(host: Host, run: _Run) -> None:
    waiting = False
    while not run.turns.begin(host.name, time.monotonic()):
        if run.turns.is_over:
            raise Stopped(run.turns.stopped)
        if not waiting:
            announce.show_line(host, "  waits until other hosts are proven well")
        waiting = True
        signals.proceed()
        time.sleep(PAUSE)


def stop(state: State) -> None:
    """Have a run begin to change no further host; what has begun comes to its end.

    :param state: the pyinfra state of the run.
    """
    _find(state).turns.stop()


def note_before(host: Host, *, well: bool) -> None:
    """Note how a host is before an operation changes it.

    :param host: the host.
    :param well: whether nothing that was found stands against calling it well.
    """
    _find(host.state).get_seat(host).before.setdefault(_get_operation(host), well)


def note_step(host: Host, *, prepares: bool) -> None:
    """Note that an operation begins a step on a host.

    :param host: the host.
    :param prepares: whether the host is no other by it.
    """
    seat = _find(host.state).get_seat(host)
    if not prepares:
        seat.changed.add(_get_operation(host))


def _get_operation(host: Host) -> str:
    return host.executing_op_hash or host.current_op_hash or ""


def release(host: Host) -> None:
    """Give up the lock of a host and its turn, where it has them yet: its last operation has ended.

    :param host: the host.
    """
    run = _find(host.state)
    run.turns.end(host.name, run.get_seat(host).result or "other")
    run.release(host)


def release_all() -> None:
    """Give up every lock that this process holds for a run; the end of the process does so."""
    for run in list(_runs.values()):
        run.release_all()


def _find(state: State) -> _Run:
    run = _runs.get(state)
    if run is None:
        if not _runs:
            # A channel that the end of the process cuts off is noticed later.
            atexit.register(release_all)
        run = _runs[state] = _Run(state)
        state.add_callback_handler(Watch())  # type: ignore[no-untyped-call]
    return run


def _choose(policies: list[ReconcilePolicy], name: str) -> int:
    """What the first host says that says anything of it; the default where none does."""
    named = (getattr(policy, name) for policy in policies if name in policy.model_fields_set)
    return int(next(named, getattr(ReconcilePolicy(), name)))


class Watch(BaseStateCallback):
    """Counts the time of each operation, and gives up what a host was held with at its end."""

    @staticmethod
    @override
    def operation_start(state: State, op_hash: str) -> None:
        """Begin an operation on all hosts, which wait for each other: another first one is due."""
        _find(state).turns.begin_operation()

    @staticmethod
    @override
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:
        """Start the clock of the host, and its turn anew where it has it."""
        if op_hash in state.ops[host]:
            run, now = _find(state), time.monotonic()
            run.get_seat(host).clock.start(now)
            if state.ops[host][op_hash].parent_op_hash is None:
                run.turns.renew(host.name, now)

    @staticmethod
    @override
    def operation_host_success(
        state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        """End the operation."""
        _end(state, host, op_hash, failed=False)

    @staticmethod
    @override
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """End the operation, and the host with it unless it may go on."""
        _end(state, host, op_hash, failed=True)


def _end(state: State, host: Host, op_hash: str, *, failed: bool) -> None:
    data = state.get_op_data_for_host(host, op_hash)
    if data.parent_op_hash is not None:
        # Its operation goes on, whatever became of it.
        return
    run = _find(state)
    seat = run.get_seat(host)
    seat.clock.stop(time.monotonic())
    # pyinfra calls it complete only after this.
    left = (each for name, each in state.ops[host].items() if name != op_hash)
    is_final = failed and not data.global_arguments["_ignore_errors"]
    over = is_final or all(each.operation_meta.is_complete() for each in left)
    changed = op_hash in seat.changed
    result = _classify(host, seat, op_hash, changed=changed, failed=failed)
    if not run.at_own_pace:
        run.turns.end(host.name, result)
    elif changed or is_final:
        # One that changed nothing says nothing of the host, unless it ends there.
        seat.result = find_worst(seat.result, result)
    if over:
        release(host)


def _classify(host: Host, seat: _Seat, op_hash: str, *, changed: bool, failed: bool) -> Result:
    if not failed:
        return "well" if changed else "other"
    if op_hash not in seat.changed:
        return "other"
    # What an earlier run made worse, and nobody has mended since, is no better for being so still.
    if seat.before.get(op_hash) or reporting.has_got_worse(host, op_hash):
        reporting.mark_worse(host)
        return "worse"
    return "other"
