"""Whose turn it is to be changed, and for how long a run is at work on a host."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra import context
from pyinfra.api import (
    Config,
    FunctionCommand,
    Inventory,
    State,
    StringCommand,
    operation,
    operations,
)
from pyinfra.api.exceptions import NestedOperationError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host, ctx_state

from stackmend import connection, reporting
from stackmend.connection.settings import unwrap
from stackmend.fleet import hosts as fleet
from stackmend.fleet import pace
from stackmend.fleet.clock import Clock
from stackmend.fleet.spec import ReconcilePolicy
from stackmend.fleet.turns import LONGEST_TURN, Result, Turns
from stackmend.reporting import announce, callbacks, reader
from stackmend.reporting.listener import Listener
from tests.connected import local

HOSTS = [f"ai{number}" for number in range(6)]
RESULTS: tuple[Result, ...] = ("well", "worse", "other")


def make(canary: int = 1, parallel: int = 3, stop_after: int = 2) -> Turns:
    return Turns(canary=canary, parallel=parallel, stop_after=stop_after)


def test_one_host_is_changed_first_and_more_once_it_is_proven() -> None:
    turns = make()
    assert turns.begin("ai0", 0.0)
    assert not turns.begin("ai1", 1.0)
    assert turns.begin("ai0", 1.0), "one that is being changed goes on"
    turns.end("ai0", "well")
    assert [turns.begin(host, 2.0) for host in HOSTS[1:5]] == [True, True, True, False]


def test_a_host_that_stays_broken_proves_nothing_and_stops_nothing() -> None:
    turns = make()
    for host in HOSTS:
        assert turns.begin(host, 0.0)
        turns.end(host, "other")
    assert not turns.stopped


def test_hosts_in_a_row_that_got_worse_stop_the_rest() -> None:
    turns = make()
    for host, result in zip(HOSTS, ("worse", "well", "worse"), strict=False):
        assert turns.begin(host, 0.0)
        turns.end(host, result)
    assert turns.begin("ai3", 0.0)
    assert turns.begin("ai4", 0.0)
    turns.end("ai3", "worse")
    assert turns.stopped == ("ai2", "ai3")
    assert turns.begin("ai4", 0.0), "what has begun comes to its end"
    turns.end("ai4", "well")
    assert turns.stopped, "and begins nothing again"
    assert not turns.begin("ai5", 0.0)


def test_never_is_never() -> None:
    turns = make(stop_after=0)
    for host in HOSTS:
        assert turns.begin(host, 0.0)
        turns.end(host, "worse")
    assert turns.begin("ai9", 0.0)


def test_a_host_that_hangs_keeps_no_other_waiting_for_ever() -> None:
    turns = make()
    assert turns.begin("ai0", 0.0)
    assert not turns.begin("ai1", LONGEST_TURN - 1)
    assert turns.begin("ai1", LONGEST_TURN)


def test_a_host_that_comes_to_another_operation_does_not_hang() -> None:
    turns = make()
    assert turns.begin("ai0", 0.0)
    turns.renew("ai0", LONGEST_TURN - 1)
    turns.renew("ai1", LONGEST_TURN - 1)
    assert not turns.begin("ai1", LONGEST_TURN + 1), "its turn began anew, and the other has none"
    assert turns.begin("ai1", 2 * LONGEST_TURN)


def test_a_host_that_was_not_changed_counts_for_nothing() -> None:
    turns = make(stop_after=1)
    turns.end("ai0", "worse")
    assert not turns.stopped


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 3),
    st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(RESULTS)), max_size=30),
)
def test_no_more_than_allowed_are_changed_at_a_time(
    canary: int, parallel: int, stop_after: int, moves: list[tuple[str, Result]]
) -> None:
    turns = make(canary, parallel, stop_after)
    changing: set[str] = set()
    for host, result in moves:
        if host in changing:
            turns.end(host, result)
            changing.remove(host)
        elif turns.begin(host, 0.0):
            assert not turns.stopped
            changing.add(host)
        assert len(changing) <= max(canary, parallel)
        assert not stop_after or len(turns.stopped) in (0, *range(stop_after, 31))


def test_what_a_host_waits_for_others_is_none_of_its_time() -> None:
    clock = Clock()
    assert clock.measure(100.0) == 0
    clock.start(100.0)
    clock.start(105.0)
    clock.drop(2.0)
    clock.stop(110.0)
    assert clock.measure(200.0) == 8
    clock.start(300.0)
    assert clock.measure(301.0) == 9


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(fleet, "LOCK", str(tmp_path / "state/run.lock"))
    monkeypatch.setattr(fleet, "RETRY", 0.1)
    with local() as host:
        yield host
    fleet.release_all()


def set_policy(host: Host, **fields: object) -> None:
    policy = ReconcilePolicy.model_validate(fields)
    host.data.stack = {"project": "ai", "reconcile": policy.model_dump()}


def test_a_run_takes_one_lock_whatever_it_does(host: Host) -> None:
    lease = fleet.hold(host)
    assert fleet.hold(host) is lease
    with local() as other, pytest.raises(connection.LeaseHeld):
        fleet.hold(other)


def test_a_run_waits_for_another_as_long_as_it_is_to(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local() as other:
        fleet.hold(other)
        set_policy(host, wait=0.3)
        monkeypatch.setattr(fleet, "time", Ticking())
        with pytest.raises(connection.LeaseHeld) as caught:
            fleet.hold(host)
        assert f"pid {os.getpid()} since" in caught.value.holder
        waited = fleet.time.waited  # type: ignore[attr-defined]
        assert 0.3 <= waited <= 0.5
        fleet._find(other.state).release(other)
        assert fleet.hold(host)


class Ticking:
    """A clock that goes on by what is slept alone."""

    def __init__(self) -> None:
        self.waited = 0.0

    def monotonic(self) -> float:
        return self.waited

    def sleep(self, seconds: float) -> None:
        self.waited += max(seconds, 0.01)


def test_what_a_run_waits_for_its_turn_is_none_of_what_it_waits_for_another(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local() as other:
        fleet.hold(other)
        set_policy(host, wait=0.5)
        clock = Ticking()
        monkeypatch.setattr(fleet, "time", clock)
        turns = fleet._find(host.state).turns
        assert turns.begin("first", 0.0)
        monkeypatch.setattr(
            fleet.signals, "proceed", lambda: clock.waited > 5 and turns.end("first", "other")
        )
        with pytest.raises(connection.LeaseHeld):
            fleet.hold(host)
        assert clock.waited > 5.4


@pytest.mark.parametrize("own_pace", [True, False])
def test_a_run_that_holds_another_host_over_an_operation_waits_for_none(
    host: Host, monkeypatch: pytest.MonkeyPatch, own_pace: bool
) -> None:
    with local() as other:
        fleet.hold(other)
        set_policy(host, wait=0.3)
        clock = Ticking()
        monkeypatch.setattr(fleet, "time", clock)
        run = fleet._find(host.state)
        run.at_own_pace = own_pace
        run._seats["ai2"] = fleet._Seat(lease=fleet.hold(other))
        with pytest.raises(connection.LeaseHeld):
            fleet.hold(host)
        assert clock.waited == (pytest.approx(0.3, abs=0.1) if own_pace else 0)


def test_a_run_that_has_ended_begins_to_change_no_host(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = fleet._find(host.state).turns
    assert turns.begin("first", time.monotonic())

    def end() -> None:
        fleet.stop(host.state)
        turns.end("first", "well")

    monkeypatch.setattr(fleet.signals, "proceed", end)
    with pytest.raises(fleet.Stopped) as caught:
        fleet.hold(host)
    assert caught.value.hosts == ()


def test_times_that_overlap_are_left_out_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ticking()
    monkeypatch.setattr(fleet, "time", clock)
    seat = fleet._find(host.state).get_seat(host)
    seat.clock.start(0.0)

    @contextmanager
    def turn() -> Iterator[None]:
        clock.sleep(5)
        yield

    with fleet.leave_out(host), fleet.wait_for(host, turn()):
        clock.sleep(10)
    assert seat.clock.measure(clock.waited) == 0
    with fleet.wait_for(host, turn()):
        clock.sleep(10)
    assert seat.clock.measure(clock.waited) == 10


def test_no_step_begins_once_the_time_of_a_host_is_over(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ticking()
    monkeypatch.setattr(fleet, "time", clock)
    set_policy(host, limit="1h")
    fleet.watch(host)
    clock.sleep(3599)
    fleet.check_time(host, "start web")
    clock.sleep(1)
    with pytest.raises(fleet.TimeOver, match=r"at work here for 1 h.*reconcile\.limit"):
        fleet.check_time(host, "start web")
    with fleet.allow_return(host):
        fleet.check_time(host, "put back what was there")
    with pytest.raises(fleet.TimeOver):
        fleet.watch(host)


def test_a_host_got_worse_that_was_well_or_was_made_worse_before(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = False
    monkeypatch.setattr(reporting, "has_got_worse", lambda *_: before)
    seat = fleet._find(host.state).get_seat(host)
    marked: list[Host] = []
    monkeypatch.setattr(reporting, "mark_worse", marked.append)

    def classify() -> Result:
        return fleet._classify(host, seat, "op", changed=False, failed=True)

    seat.before["op"] = True
    assert classify() == "other", "nothing was changed"
    seat.changed.add("op")
    assert classify() == "worse"
    seat.before["op"] = False
    assert classify() == "other", "it was broken before"
    before = True
    assert classify() == "worse"
    assert marked == [host, host]


@operation()
def calm() -> Iterator[str]:
    """Does nothing."""
    return
    yield ""


@pytest.mark.parametrize("own_pace", [False, True])
@pytest.mark.parametrize("prepares", [False, True])
def test_only_a_host_that_was_changed_proves_anything(
    host: Host, own_pace: bool, prepares: bool
) -> None:
    run = fleet._find(host.state)
    run.at_own_pace = own_pace
    host.state.activate_host(host)
    add_op(host.state, calm)
    (op_hash,) = host.state.ops[host]
    assert run.turns.begin(host.name, 0.0)
    host.executing_op_hash = op_hash
    fleet.note_step(host, prepares=prepares)
    host.executing_op_hash = None
    fleet._end(host.state, host, op_hash, failed=False)
    others = [run.turns.begin(name, 0.0) for name in ("a", "b")]
    assert others == [True, not prepares]


def test_each_operation_of_pyinfra_has_its_own_first_host() -> None:
    turns = make()
    assert turns.begin("ai0", 0.0)
    turns.end("ai0", "well")
    turns.begin_operation()
    assert [turns.begin(host, 0.0) for host in HOSTS[:2]] == [True, False]
    state = State(Inventory((["@local"], {})), Config())
    fleet._find(state).turns = turns
    turns.end("ai0", "well")
    state.trigger_callbacks("operation_start", "op")
    assert [turns.begin(host, 0.0) for host in HOSTS[:2]] == [True, False]


def write_run(directory: Path, second: int, mode: str, succeeded: bool | None, worse: bool) -> None:
    operations = [{"name": "other", "succeeded": True}]
    operations += [{"name": "stack", "succeeded": succeeded}]
    run = {"mode": mode, "hosts": {"ai1": {"worse": worse, "operations": operations}}}
    path = directory / f"20260101T1200{second:02}Z-abcdef.json"
    path.write_text(json.dumps(run))


def test_no_run_in_between_makes_it_forgotten_that_a_host_got_worse(tmp_path: Path) -> None:
    def ask(name: str = "stack") -> bool:
        return reader.has_got_worse(tmp_path, "ai1", name)

    assert not ask()
    write_run(tmp_path, 1, "apply", succeeded=False, worse=True)
    assert ask()
    assert not ask("other"), "it succeeded"
    # A dry run or a doctor, a run that was refused, one with --limit, and what is no record.
    write_run(tmp_path, 2, "dry", succeeded=True, worse=False)
    write_run(tmp_path, 3, "apply", succeeded=False, worse=False)
    (tmp_path / "20260101T120004Z-abcdef.json").write_text('{"mode": "apply", "hosts": {}}')
    (tmp_path / "20260101T120005Z-abcdef.json").write_text("[]")
    assert ask()
    write_run(tmp_path, 6, "apply", succeeded=True, worse=False)
    assert not ask()


@operation()
def broken() -> Iterator[str]:
    """Takes the lock, as an operation of the library does, and has a fault."""
    if context.state.is_executing and context.host.name == "@local":
        fleet.hold(unwrap(context.host))
        raise KeyError("name")
    return
    yield ""


@pytest.fixture
def fleet_of_two(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """This machine, and a host that nothing is asked of."""
    monkeypatch.setattr(announce, "show_line", lambda *_: None)
    state = State(Inventory((["@local", "ai2"], {})), Config())
    state.current_stage = StateStage.Execute
    for each in state.inventory:
        state.activate_host(each)
    state.inventory.get_host("@local").connect(raise_exceptions=True)
    with ctx_state.use(state):
        yield state
    reporting._runs.pop(id(state), None)


def test_a_fault_fails_its_host_alone_and_gives_up_what_it_held(fleet_of_two: State) -> None:
    state = fleet_of_two
    reporting._run(state)
    add_op(state, broken)
    pace.run_ops(state)
    first, second = (state.inventory.get_host(name) for name in ("@local", "ai2"))
    assert (first in state.failed_hosts, second in state.failed_hosts) == (True, False)
    run = fleet._find(state)
    assert run.get_seat(first).lease is None
    assert not run.turns._changing
    with local() as other:
        assert fleet.hold(other)
    (collector,) = reporting._run(state).collectors["@local"].values()
    assert [error.message for error in collector.errors] == ["unexpected KeyError: 'name'"]
    (data,) = state.ops[first].values()
    assert data.operation_meta.did_succeed() is False


@pytest.mark.parametrize("ignored", [True, False])
def test_a_host_goes_on_after_a_fault_where_its_operation_ignores_errors(
    fleet_of_two: State, ignored: bool
) -> None:
    state = fleet_of_two
    first = state.inventory.get_host("@local")
    add_op(state, broken, host=first, _ignore_errors=ignored)
    add_op(state, calm, host=first)
    pace.run_ops(state)
    failed, last = (data.operation_meta for data in state.ops[first].values())
    assert failed.did_succeed() is False
    assert last.is_complete() is ignored
    assert (first in state.failed_hosts) is not ignored
    results = state.get_results_for_host(first)
    counted = (results.ops, results.ignored_error_ops, results.error_ops)
    assert counted == ((2, 1, 0) if ignored else (0, 0, 1))
    assert fleet._find(state).get_seat(first).lease is None


def test_a_host_that_comes_to_no_further_operation_gives_up_its_lock_and_its_turn(
    fleet_of_two: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many others have failed while it was in an operation."""
    state = fleet_of_two
    first = state.inventory.get_host("@local")
    add_op(state, holding, False, host=first)
    add_op(state, calm, host=first)
    run = pace._Run(state, state.get_op_order())
    end = fleet._end

    def end_run(*args: Any, **kwargs: Any) -> None:
        run.ended = PyinfraError("Over 20% of hosts failed (50%)")
        end(*args, **kwargs)

    monkeypatch.setattr(fleet, "_end", end_run)
    fleet.set_own_pace(state)
    state.is_executing = True
    run.run_host(first, lambda _: None)
    assert [data.operation_meta.is_complete() for data in state.ops[first].values()] == [
        True,
        False,
    ]
    seats = fleet._find(state)
    assert seats.get_seat(first).lease is None
    assert not seats.turns._changing


@pytest.mark.parametrize("where", ["report_error", "callback"])
def test_an_error_while_a_fault_is_reported_ends_its_host_and_leaves_nothing_at_work(
    fleet_of_two: State, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    state = fleet_of_two
    first, second = (state.inventory.get_host(name) for name in ("@local", "ai2"))

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    if where == "callback":
        monkeypatch.setattr(callbacks.Watch, "operation_host_error", fail)
    else:
        monkeypatch.setattr(announce, "report_error", fail)
    spinning: list[bool] = []

    @contextmanager
    def spin(_: Any) -> Iterator[Callable[[Any], None]]:
        """As pyinfra's own, which is no more at its end where an error leaves the block."""
        spinning.append(True)
        yield lambda _: None
        spinning.clear()

    monkeypatch.setattr(pace, "progress_spinner", spin)
    reporting._run(state)
    add_op(state, broken, host=first)
    add_op(state, calm, host=second)
    with pytest.raises(OSError, match="no space left"):
        pace.run_ops(state)
    assert not spinning
    (failed,), (succeeded,) = (state.ops[each].values() for each in (first, second))
    assert failed.operation_meta.did_succeed() is False
    assert succeeded.operation_meta.did_succeed() is True
    assert (first in state.failed_hosts, second in state.failed_hosts) == (True, False)
    assert fleet._find(state).get_seat(first).lease is None
    assert not fleet._find(state).turns._changing


@operation()
def failing() -> Iterator[StringCommand]:
    """Fails."""
    yield StringCommand("false")


@operation(_set_in_op=False)
def holding(nested: bool) -> Iterator[FunctionCommand]:
    """Takes the lock, has a nested operation fail, and writes down whether it has the lock yet."""

    def hold(state: State, host: Host) -> bool:
        own = unwrap(host)
        fleet.hold(own)
        if nested:
            with suppress(NestedOperationError):
                failing()
        held.append(fleet._find(state).get_seat(own).lease is not None)
        return True

    yield FunctionCommand(hold, (), {})


held: list[bool] = []


@operation(_set_in_op=False)
def changing(succeeds: bool) -> Iterator[FunctionCommand]:
    """Changes a host that was well, and may fail."""

    def change(state: State, host: Host) -> bool:
        own = unwrap(host)
        fleet.hold(own)
        fleet.note_before(own, well=True)
        fleet.note_step(own, prepares=False)
        return succeeds

    yield FunctionCommand(change, (), {})


WORSE, WELL, REFUSED = (changing, False), (changing, True), (failing,)


@pytest.mark.parametrize(
    ("calls", "ended"),
    [
        ([WORSE, WELL, (calm,)], "worse"),
        ([WELL, WORSE], "worse"),
        ([WELL, (calm,)], "well"),
        # What undo lists as left to be done by hand fails, and changes nothing.
        ([REFUSED, WELL, REFUSED], "well"),
        ([(holding, False), REFUSED], "other"),
    ],
)
def test_a_host_is_as_the_worst_of_its_operations_left_it_although_errors_are_ignored(
    fleet_of_two: State, monkeypatch: pytest.MonkeyPatch, calls: list[Any], ended: Result
) -> None:
    """As all of undo's are."""
    state = fleet_of_two
    first = state.inventory.get_host("@local")
    monkeypatch.setattr(reporting, "has_got_worse", lambda *_: False)
    results: list[Result] = []
    turns = fleet._find(state).turns
    end = turns.end

    def note(host: str, result: Result) -> None:
        if host in turns._changing:
            results.append(result)
        end(host, result)

    monkeypatch.setattr(turns, "end", note)
    for number, call in enumerate(calls):
        add_op(state, *call, host=first, name=f"{number}", _ignore_errors=True)
    pace.run_ops(state)
    assert results == [ended]
    assert (first.name in reporting._run(state).worse) is (ended == "worse")


@pytest.mark.parametrize(("last", "ended"), [(REFUSED, "other"), (WORSE, "worse")])
def test_a_host_that_an_operation_ends_is_not_proven_well_by_those_before(
    fleet_of_two: State, monkeypatch: pytest.MonkeyPatch, last: Any, ended: Result
) -> None:
    state = fleet_of_two
    first = state.inventory.get_host("@local")
    monkeypatch.setattr(reporting, "has_got_worse", lambda *_: False)
    add_op(state, changing, True, host=first)
    add_op(state, *last, host=first)
    pace.run_ops(state)
    assert fleet._find(state).get_seat(first).result == ended


def test_the_turn_of_a_host_begins_anew_with_each_of_its_operations(
    fleet_of_two: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with those that are nested in one."""
    state = fleet_of_two
    first, second = (state.inventory.get_host(name) for name in ("@local", "ai2"))
    clock = Ticking()
    monkeypatch.setattr(fleet, "time", clock)
    renewed: list[tuple[str, float]] = []
    turns = fleet._find(state).turns
    monkeypatch.setattr(turns, "renew", lambda *of: renewed.append(of))
    add_op(state, calm, host=second)
    add_op(state, holding, True, host=first)
    pace.run_ops(state)
    assert sorted(name for name, _ in renewed) == ["@local", "ai2"]


@operation(_set_in_op=False)
def nesting() -> Iterator[FunctionCommand]:
    """Has one nested operation fail and another have a fault, and goes on."""

    def nest(state: State, host: Host) -> bool:
        with suppress(NestedOperationError):
            failing()
        with suppress(KeyError):
            faulty()
        return True

    yield FunctionCommand(nest, (), {})


@operation()
def faulty() -> Iterator[str]:
    """Has a fault."""
    raise KeyError("name")
    yield ""


@pytest.mark.parametrize(
    ("calls", "lines"),
    [
        ([(calm, False), (failing, True), (calm, False)], ["failed"]),
        ([(failing, True), (failing, True)], ["failed"]),
        ([(failing, True), (failing, False), (calm, False)], ["failed"]),
        ([(broken, True), (calm, False)], ["failed"]),
        ([(nesting, False), (calm, False)], ["failed"]),
    ],
)
def test_a_host_is_announced_once_and_when_it_has_ended(
    fleet_of_two: State,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[tuple[Any, bool]],
    lines: list[str],
) -> None:
    state = fleet_of_two
    first = state.inventory.get_host("@local")
    listener = Mock(spec=Listener)
    monkeypatch.setattr(reporting, "get_listener", lambda: listener)
    reporting._run(state)
    for number, (call, ignored) in enumerate(calls):
        add_op(state, call, host=first, name=f"{number}", _ignore_errors=ignored)
    pace.run_ops(state)
    announced = [call.args[:2] for call in listener.on_host.call_args_list]
    assert announced == [("@local", each) for each in lines]
    assert not reporting._run(state).get_operation(first)


def test_each_host_says_which_operation_it_begins_and_the_spinner_names_hosts(
    fleet_of_two: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = fleet_of_two
    hosts = [state.inventory.get_host(name) for name in ("@local", "ai2")]
    spinning: list[Host] = []

    @contextmanager
    def spin(items: list[Host]) -> Iterator[Callable[[Host], None]]:
        assert all(isinstance(each, Host) for each in items)
        spinning.extend(items)
        yield spinning.remove

    monkeypatch.setattr(pace, "progress_spinner", spin)
    add_op(state, calm, name="of both")
    add_op(state, calm, host=hosts[0], name="of one")
    add_op(state, failing, host=hosts[0], name="that fails")
    caplog.set_level("INFO", logger="pyinfra")
    pace.run_ops(state)
    begun = sorted(line for line in caplog.messages if "Starting" in line)
    assert [" ".join(line.split()) for line in begun] == [
        "[@local] Starting operation: of both",
        "[@local] Starting operation: of one",
        "[@local] Starting operation: that fails",
        "[ai2] Starting operation: of both",
    ]
    assert not spinning


@operation()
def signalled() -> Iterator[FunctionCommand]:
    """Writes down which operation each host of the run is in."""

    def write(state: State, host: Host) -> bool:
        run = reporting._run(state)
        within.update({each.name: run.get_operation(each) for each in state.inventory})
        return True

    yield FunctionCommand(write, (), {})


within: dict[str, str] = {}


@pytest.mark.parametrize("run_ops", [pace.run_ops, operations.run_ops])
def test_a_host_is_in_no_operation_that_is_none_of_its_own(
    fleet_of_two: State, run_ops: Callable[[State], None]
) -> None:
    """A signal would have it recorded as interrupted there, and so would `undo` take it."""
    first, second = (fleet_of_two.inventory.get_host(name) for name in ("@local", "ai2"))
    reporting._run(fleet_of_two)
    add_op(fleet_of_two, calm, host=second)
    add_op(fleet_of_two, calm, host=first, name="not ai2's")
    add_op(fleet_of_two, signalled, host=first, name="signalled")
    run_ops(fleet_of_two)
    assert within == {"@local": "signalled", "ai2": ""}
    assert reporting._run(fleet_of_two).get_operation(second) == ""


@pytest.mark.parametrize("nested", [False, True])
def test_a_lock_is_held_until_the_last_operation_has_ended_and_no_longer(
    host: Host, nested: bool
) -> None:
    """Also where pyinfra had run some of them before the library had any part in it."""
    held.clear()
    state = host.state
    state.current_stage = StateStage.Execute
    state.activate_host(host)
    add_op(state, calm, name="first")
    add_op(state, holding, nested)
    add_op(state, calm, name="last")
    first, middle, last = state.get_op_order()
    state.is_executing = True
    with ctx_host.use(host):
        run_host_op(state, host, first)
        run_host_op(state, host, middle)
        assert held == [True]
        seat = fleet._find(state).get_seat(host)
        assert seat.lease is not None
        run_host_op(state, host, last)
    assert seat.lease is None


@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        ({}, True),
        ({"_parallel": 1}, False),
        ({"_serial": True}, False),
        ({"_run_once": True}, False),
    ],
)
def test_hosts_go_at_their_own_pace_unless_an_operation_is_to_run_on_a_few(
    fleet_of_two: State, arguments: dict[str, Any], own: bool
) -> None:
    add_op(fleet_of_two, calm)
    add_op(fleet_of_two, calm, **arguments)
    pace.run_ops(fleet_of_two)
    assert fleet._find(fleet_of_two).at_own_pace is own


@pytest.fixture
def waiting(fleet_of_two: State, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Host]:
    """Two hosts at their own pace, and a clock that goes on by what is slept."""
    monkeypatch.setattr(fleet, "time", Ticking())
    fleet.set_own_pace(fleet_of_two)
    first, second = fleet_of_two.inventory
    return first, second


def test_a_host_waits_for_what_another_one_brings(waiting: tuple[Host, Host]) -> None:
    host, other = waiting
    run, asked = fleet._find(host.state), []
    seat = run.get_seat(host)
    seat.clock.start(0.0)
    assert run.turns.begin(host.name, 0.0)

    def is_ready() -> bool:
        assert run.turns.begin(other.name, 0.0), "it may be changed meanwhile"
        asked.append(seat.awaits)
        return len(asked) == 3

    assert fleet.wait_for_host(host, other, is_ready)
    assert asked == [other.name] * 3
    assert not seat.awaits
    assert seat.clock.measure(fleet.time.monotonic()) == 0


@pytest.mark.parametrize("ends", [True, False])
def test_a_host_waits_no_longer_than_another_runs(waiting: tuple[Host, Host], ends: bool) -> None:
    host, other = waiting

    def is_ready() -> bool:
        if ends and fleet.time.monotonic() > 60:
            fleet.note_over(other)
        return False

    assert fleet.wait_for_host(host, other, is_ready)
    assert 0 <= fleet.time.monotonic() - (60 if ends else fleet.LONGEST_WAIT) <= 10
    if ends:
        assert not fleet.wait_for_host(host, other, is_ready)


def test_two_hosts_never_wait_for_each_other(waiting: tuple[Host, Host]) -> None:
    host, other = waiting
    backward: list[bool] = []

    def is_ready() -> bool:
        backward.append(fleet.wait_for_host(other, host, lambda: False))
        return True

    assert fleet.wait_for_host(host, other, is_ready)
    assert backward == [False]
    assert not fleet.wait_for_host(host, host, is_ready)


def test_no_host_waits_where_all_wait_after_each_operation(fleet_of_two: State) -> None:
    first, second = fleet_of_two.inventory
    assert not fleet.wait_for_host(first, second, lambda: False)


def test_a_host_whose_operations_are_over_keeps_none_waiting(fleet_of_two: State) -> None:
    reporting._run(fleet_of_two)
    add_op(fleet_of_two, broken)
    pace.run_ops(fleet_of_two)
    run = fleet._find(fleet_of_two)
    assert run.at_own_pace
    assert not run.running


def test_an_address_is_of_the_host_that_has_it_by_name_or_for_ssh() -> None:
    state = State(
        Inventory((["ai1", ("ai2", {"ssh_hostname": "10.0.0.2"})], {})),
        Config(),
    )
    found = [fleet.find_host(state, text) for text in ("AI1", "10.0.0.2", "ai2", "10.0.0.3")]
    assert [host and host.name for host in found] == ["ai1", "ai2", "ai2", None]
