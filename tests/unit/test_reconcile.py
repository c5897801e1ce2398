"""The loop of every room, on this machine: what is called when, and what ends it before it acts."""

from __future__ import annotations

import fcntl
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gevent  # type: ignore[import-untyped]
import pytest
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

from stackmend import reconcile
from stackmend.connection import Lease, LeaseHeld, RemoteError, Unknown
from stackmend.decision import Action, Finding, Locked, Plan, Refusal
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.fleet.spec import ReconcilePolicy
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.reporting import announce, journal
from stackmend.reporting.collect import Collector
from tests.connected import local

TURN = Action(verb="turn", subject="it", cause="it is the wrong way round", undo="turn it back")
BEND = Action(verb="bend", subject="it", cause="it is straight")
REFUSAL = Refusal(subject="it", reason="it is somebody's", remedy='"allow": ["it"]')
FINDING = Finding(subject="it", kind="wrong", cause="it is wrong")


@dataclass
class Room(Reconciler[str, Action]):
    """Observes what it is given, one after the other, and writes down what is called."""

    subject = "it"

    host: Host
    report: Collector
    observations: list[Observation[str, Action] | Exception]
    failing: Exception | None = None
    verifiable: bool = True
    calls: list[str] = field(default_factory=list)

    def observe(self, *, fresh: bool = False) -> Observation[str, Action]:
        self.calls.append("observe again" if fresh else "observe")
        observed = self.observations.pop(0)
        if isinstance(observed, Exception):
            raise observed
        return observed

    def wait_until_idle(self) -> None:
        self.calls.append("idle")

    def execute(self, plan: Plan[Action], state: str, lease: Lease) -> bool:
        lease.check()
        for action in plan.actions:
            with self.step(action):
                self.calls.append(f"{action.verb} in {state}")
                if self.failing is not None:
                    raise self.failing
        return self.verifiable


class Partial(Room):
    """Acts although something is refused."""

    all_or_nothing: ClassVar[bool] = False


def wrong(state: str, *actions: Action) -> Observation[str, Action]:
    return Observation(Plan(actions=actions), state)


def right(state: str = "right") -> Observation[str, Action]:
    return Observation(Plan(), state)


def refused(state: str, *actions: Action) -> Observation[str, Action]:
    return Observation(Plan(actions=actions, refusals=(REFUSAL,)), state)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    append = functools.partial(journal.append, path=str(tmp_path / "state/journal.jsonl"))
    monkeypatch.setattr(journal, "append", append)
    monkeypatch.setattr(announce.reporting, "get_run_id", lambda state: "1a2b3c")
    monkeypatch.setattr(fleet, "LOCK", str(tmp_path / "state/lock"))
    with local() as host:
        yield host


@pytest.fixture
def room(host: Host) -> Callable[..., Room]:
    def build(*observations: Any, kind: type[Room] = Room, **more: Any) -> Room:
        return kind(host, Collector("it.turned"), list(observations), **more)

    return build


def run(room: Room) -> bool:
    return reconcile.reconcile(room.host.state, room.host, room)


def list_results(room: Room) -> list[tuple[str, str]]:
    return [(action.verb, action.result) for action in room.report.done]


def list_errors(room: Room) -> list[str]:
    return [error.message for error in room.report.errors]


def test_what_is_executed_is_what_was_read_under_the_lock(room: Any, tmp_path: Path) -> None:
    one = room(wrong("before", TURN), wrong("locked", BEND), right())
    assert run(one)
    assert one.calls == ["observe", "idle", "observe again", "bend in locked", "observe again"]
    assert list_results(one) == [("bend", "done")]
    assert [action.verb for action in one.report.planned] == ["bend"]
    (line,) = (tmp_path / "state/journal.jsonl").read_text().splitlines()
    assert '"action":"bend"' in line.replace(" ", "")


def test_nothing_to_do_takes_no_lock(room: Any, tmp_path: Path) -> None:
    one = room(right())
    assert run(one)
    assert one.calls == ["observe"]
    assert not (tmp_path / "state/lock").exists()


def test_what_became_right_while_the_lock_was_waited_for_stays_as_it_is(room: Any) -> None:
    one = room(wrong("before", TURN), right(), right())
    assert run(one)
    assert list_results(one) == []


def test_a_refusal_keeps_every_action_from_being_executed(room: Any) -> None:
    one = room(refused("before", TURN), refused("locked", TURN))
    assert not run(one)
    assert list_results(one) == []
    assert one.report.refusals == [REFUSAL]


def test_a_room_may_act_on_what_is_not_refused_and_still_fails(room: Any) -> None:
    one = room(refused("before", TURN), refused("locked", TURN), kind=Partial)
    assert not run(one)
    assert list_results(one) == [("turn", "done")]


def test_a_finding_without_an_action_is_no_success(room: Any) -> None:
    one = room(Observation(Plan(findings=(FINDING,)), "wrong"))
    assert not run(one)
    assert one.report.findings == [FINDING]


@pytest.mark.parametrize("moment", ["at first", "under the lock", "afterwards"])
def test_what_cannot_be_read_is_never_executed_nor_called_well(room: Any, moment: str) -> None:
    unreadable = observe_unreadable(Unknown("the probe ended with 1"), "it")
    observations = [wrong("before", TURN), wrong("locked", TURN), right()]
    place = ["at first", "under the lock", "afterwards"].index(moment)
    observations[place] = unreadable
    one = room(*observations)
    assert not run(one)
    assert list_results(one) == ([("turn", "done")] if moment == "afterwards" else [])
    assert "the probe ended with 1" in one.report.refusals[0].reason


def test_what_is_left_afterwards_is_not_proven(room: Any) -> None:
    one = room(wrong("before", TURN), wrong("locked", TURN), wrong("after", TURN))
    assert not run(one)
    assert list_errors(one) == ["not proven: still to do: turn it: it is the wrong way round"]


def test_what_is_found_again_afterwards_is_reported_once(room: Any) -> None:
    changed = FINDING.model_copy(update={"evidence": ("it is wrong in another place",)})
    plans = [
        Plan(findings=(FINDING,), actions=(TURN,)),
        Plan(findings=(FINDING,), actions=(TURN,)),
        Plan(findings=(FINDING, changed), refusals=(REFUSAL,)),
    ]
    one = room(*(Observation(plan, "it") for plan in plans))
    assert not run(one), "what is left out of the report counts all the same"
    assert one.report.findings == [FINDING, changed]
    assert one.report.refusals == [REFUSAL]


def test_a_room_that_has_reported_why_is_not_verified(room: Any) -> None:
    one = room(wrong("before", TURN), wrong("locked", TURN), verifiable=False)
    assert not run(one)
    assert one.calls[-1] == "turn in locked"


@pytest.mark.parametrize(
    "error", [StepError("it broke", log=["why"]), RemoteError("here", "reading it", "no answer")]
)
def test_a_step_that_fails_ends_it_and_says_so(room: Any, error: Exception, tmp_path: Path) -> None:
    one = room(wrong("before", TURN, BEND), wrong("locked", TURN, BEND), failing=error)
    assert not run(one)
    assert list_results(one) == [("turn", "failed")]
    assert list_errors(one) == [str(error)]
    assert not (tmp_path / "state/journal.jsonl").exists()


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_reading_that_fails_is_told(room: Any, moment: int) -> None:
    observations: list[Any] = [wrong("before", TURN), wrong("locked", TURN), right()]
    observations[moment] = StepError("the disk is gone")
    one = room(*observations)
    assert not run(one)
    assert list_errors(one) == ["the disk is gone"]


@pytest.mark.parametrize("refusing", [True, False])
def test_while_another_run_is_at_work_nothing_is_done(
    room: Any, tmp_path: Path, refusing: bool
) -> None:
    lock = tmp_path / "state/lock"
    lock.parent.mkdir(mode=0o700)
    lock.write_text("me@there pid 7\n")
    one = room(refused("half made") if refusing else wrong("before", TURN))
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not run(one)
    assert list_results(one) == []
    assert list_errors(one) == []
    (refusal,) = one.report.refusals
    assert isinstance(refusal, Locked)
    assert refusal.reason == "another run is at work here: me@there pid 7"
    assert refusal.remedy.startswith("wait for that run to end, then run again; ")


def test_a_lock_of_another_room_that_a_step_needs_is_no_failure(room: Any) -> None:
    held = LeaseHeld("here", "measuring", "me@there pid 7")
    one = room(wrong("before", TURN), wrong("locked", TURN), failing=held)
    assert not run(one)
    assert list_errors(one) == []
    (refusal,) = one.report.refusals
    assert isinstance(refusal, Locked)
    assert refusal.reason == "another run is at work here: me@there pid 7"


def test_a_journal_that_cannot_be_written_is_told_once(room: Any, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/journal.jsonl").mkdir()
    both = (TURN, BEND)
    one = room(wrong("before", *both), wrong("locked", *both), right())
    assert run(one), "what was done is done"
    (finding,) = one.report.findings
    assert (finding.kind, finding.blocks) == ("not written", False)
    assert "journal.jsonl" in finding.cause


def test_the_limit_of_a_command_is_none_of_the_operation(host: Host, tmp_path: Path) -> None:
    """pyinfra ends what a function does after ``_timeout``, wherever it is."""

    class Slow(Room):
        def execute(self, plan: Plan[Action], state: str, lease: Lease) -> bool:
            with self.step(*plan.actions):
                gevent.sleep(0.5)
                assert ctx_host.get() is host
            return True

    one = Slow(
        *(host, Collector("it.turned")),
        [wrong("before", TURN), wrong("before", TURN), wrong("locked", TURN), right()],
    )
    host.state.is_executing = True
    (command,) = reconcile.operate(host, "it.turned", lambda report: one, converged="it is right")
    with gevent.Timeout(0.1, exception=TimeoutError):
        assert command.execute(host.state, host, {})
    assert list_results(one) == [("turn", "done")]


def test_an_operation_that_is_ended_leaves_nothing_that_works_on(host: Host) -> None:
    ended = []

    def work(state: Any, host: Host) -> None:
        try:
            gevent.sleep(30)
        finally:
            ended.append(host)

    command = reconcile._Untimed(work, (), {})
    with gevent.Timeout(0.1, exception=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        command.execute(host.state, host, {})
    assert ended == [host]


@pytest.fixture
def observed(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host of a run that observes and no more."""
    collectors: dict[str, Collector] = {}
    monkeypatch.setattr(reconcile.reporting, "mark_observed", lambda state: None)
    monkeypatch.setattr(
        reconcile.reporting,
        "record",
        lambda host, name: collectors.setdefault(name, Collector(name)),
    )
    reconcile.observe_only(host)
    yield host
    reconcile._readings.pop(host.state)


def operate(host: Host, name: str, build: Callable[[Collector], Any]) -> list[Any]:
    return list(reconcile.operate(host, name, build, converged="it is right"))


def test_a_run_that_only_observes_executes_nothing_and_keeps_what_it_read(
    observed: Host, room: Any, tmp_path: Path
) -> None:
    one = room(wrong("before", TURN))
    assert operate(observed, "it.turned", lambda report: one) == []
    assert one.calls == ["observe"]
    assert not (tmp_path / "state").exists()
    reading = reconcile.list_readings(observed)["it.turned"]
    assert reading.plan.actions == (TURN,)
    assert reading.states == ("before",)
    assert reading.problem == ""


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (StepError("it cannot be read"), "it cannot be read"),
        (RemoteError("host1", "read it", "it is lost"), "host1: it is lost (read it)"),
        (RuntimeError("out of \x1border"), "RuntimeError: out of \\x1border"),
        (ValueError("a wrong argument"), "a wrong argument"),
    ],
)
def test_an_operation_that_fails_while_observed_hides_no_other(
    observed: Host, room: Any, error: Exception, problem: str
) -> None:
    failing, well = room(error), room(right())
    assert operate(observed, "it.turned", lambda report: failing) == []
    assert operate(observed, "it.bent", lambda report: well) == []
    readings = reconcile.list_readings(observed)
    assert readings["it.turned"].problem == problem
    assert readings["it.bent"] == reconcile.Reading(states=("right",))


def test_a_room_that_cannot_be_built_is_a_problem_of_its_own(observed: Host) -> None:
    def build(report: Collector) -> Room:
        raise ValueError("count: must be a number")

    assert operate(observed, "it.turned", build) == []
    assert reconcile.list_readings(observed)["it.turned"].problem == "count: must be a number"


def test_what_cannot_be_read_is_a_problem_while_observed(observed: Host, room: Any) -> None:
    unread = room(observe_unreadable(Unknown("no answer"), "it"))
    assert operate(observed, "it.turned", lambda report: unread) == []
    assert reconcile.list_readings(observed)["it.turned"].problem == (
        "it cannot be read: no answer"
    )


def test_a_host_that_is_only_not_as_desired_was_well(room: Any) -> None:
    one = room()
    drift = FINDING.model_copy(update={"kind": "setting"})
    assert one.is_sound(Plan())
    assert not one.is_sound(Plan(findings=(FINDING,)))
    assert one.is_sound(Plan(findings=(FINDING.model_copy(update={"blocks": False}),)))
    type(one).drift = frozenset({"setting"})
    try:
        assert one.is_sound(Plan(findings=(drift,)))
        assert not one.is_sound(Plan(findings=(drift, FINDING)))
    finally:
        del type(one).drift


def test_once_its_time_is_over_a_host_is_changed_no_further(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = room(wrong("before", TURN, BEND), wrong("locked", TURN, BEND))
    policy = ReconcilePolicy(limit=1e-6)
    monkeypatch.setattr(fleet, "find_policy", lambda _: policy)
    fleet._find(one.host.state).get_seat(one.host).clock.start(0.0)
    assert not run(one)
    assert list_results(one) == []
    (error,) = list_errors(one)
    assert "begins no further step: reconcile.limit (turn it)" in error


def test_a_fault_of_a_room_fails_this_host_and_says_where_it_is(room: Any, host: Host) -> None:
    one = room(KeyError("name"), KeyError("name"))
    assert not reconcile.report_observation(one)
    (error,) = one.report.errors
    assert error.message == "unexpected KeyError: 'name'"
    assert any("test_reconcile.py line" in line for line in error.log)
    host.state.is_executing = True
    assert not reconcile.report_observation(one), "executing says it"
    assert len(one.report.errors) == 1
    with_lock = room(wrong("before", TURN), KeyError("name"))
    assert not run(with_lock)
    assert "unexpected KeyError" in list_errors(with_lock)[0]


def test_pauses_that_cannot_be_read_end_no_other_host(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object) -> Plan[Action]:
        raise RemoteError("@local", "read its pauses", "no answer")

    monkeypatch.setattr(reconcile, "_hold_back", lose)
    one = room(wrong("before", TURN))
    assert not reconcile.report_observation(one)
    assert "no answer" in list_errors(one)[0]


class Suspended(Room):
    """Is suspended for long after its first step, and asks nothing of the lock itself."""

    def execute(self, plan: Plan[Action], state: str, lease: Lease) -> bool:
        for action in plan.actions:
            with self.step(action):
                self.calls.append(action.verb)
            lease._alive -= 100
        return True


def test_no_step_begins_once_the_lock_is_lost(room: Any) -> None:
    one = room(wrong("before", TURN, BEND), wrong("locked", TURN, BEND), kind=Suspended)
    assert not run(one)
    assert list_results(one) == [("turn", "done")]
    (error,) = list_errors(one)
    assert "the lock was lost" in error


def test_once_hosts_got_worse_no_other_is_changed(room: Any) -> None:
    one = room(wrong("before", TURN))
    turns = fleet._find(one.host.state).turns
    for name in ("a", "b", "c"):
        assert turns.begin(name, 0.0)
        turns.end(name, "worse")
    assert not run(one)
    assert list_results(one) == list_errors(one) == []
    (refusal,) = one.report.refusals
    assert refusal.reason == "left as it is: 3 hosts in a row got worse by being changed: a, b, c"
    assert "reconcile.stop_after" in refusal.remedy


def test_a_run_that_waits_observes_once_more(
    room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a refusal that is what the other run has half made, nothing is left then."""
    lock = tmp_path / "state/lock"
    lock.parent.mkdir(mode=0o700)
    lock.write_text("me@there pid 7\n")
    monkeypatch.setattr(fleet, "find_wait", lambda _: 60.0)
    one = room(refused("half made"), wrong("locked", TURN), right())
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        calls: list[list[str]] = []

        def sleep(seconds: float) -> None:
            calls.append([*one.calls])
            fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr(fleet, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
        assert run(one)
    assert calls == [["observe"]]
    assert list_results(one) == [("turn", "done")]
