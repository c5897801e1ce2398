"""The loop of every room where something keeps its plan from being executed, on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from stackmend import connection, reconcile, undo
from stackmend.decision import Action, Deferred, Finding, Paused, Plan
from stackmend.engine.restore import ReturnReconciler
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.ports import remedies
from stackmend.ports.reconciler import PortsReconciler
from stackmend.ports.restore import RestoreReconciler
from stackmend.ports.spec import PortsPolicy
from stackmend.reporting.collect import Collector
from stackmend.reporting.state import RunRecord
from stackmend.reporting.summary import format_record
from stackmend.restraint import facts, files
from stackmend.restraint.spec import RestraintPolicy
from tests.unit.test_reconcile import (
    BEND,
    FINDING,
    TURN,
    Partial,
    Room,
    list_results,
    right,
    run,
    wrong,
)
from tests.unit.test_reconcile import host as host
from tests.unit.test_reconcile import room as room

PAUSE = {"who": "ann", "why": "disk", "since": 1}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is remembered of this host, in a directory of the test's."""
    path = tmp_path / "state"
    path.mkdir(0o700)
    monkeypatch.setattr(facts, "STATE_ROOT", str(path))
    for name in ("PAUSES", "LIMITS", "LOCK"):
        place = Path(getattr(files, name)).name
        monkeypatch.setattr(files, name, str(path / place))
    monkeypatch.setattr(reconcile.reporting, "mark_paused", lambda host, reason: None)
    return path


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is named as paused in the line of a host."""
    parts: dict[str, str] = {}
    mark = reconcile.reporting
    monkeypatch.setattr(mark, "mark_part_paused", lambda host, part, why: parts.update({part: why}))
    return parts


@pytest.fixture
def unattended(host: Host) -> RestraintPolicy:
    policy = RestraintPolicy(mends=1)
    reconcile.run_unattended(host, policy)
    return policy


def pause(state: Path, **fields: Any) -> None:
    (state / "pauses.json").write_text(json.dumps({"version": 1, "pauses": [PAUSE | fields]}))


def test_what_is_paused_is_not_executed_and_has_not_failed(
    room: Callable[..., Room], state: Path
) -> None:
    pause(state)
    one = room(wrong("before", TURN))
    assert run(one)
    assert one.calls == ["observe"], "no lock is waited for"
    assert [type(refusal) for refusal in one.report.refusals] == [Paused]
    assert not (state / "lock").exists()


def test_a_pause_that_comes_while_the_lock_is_waited_for_holds_what_cannot_be_told(
    room: Callable[..., Room], state: Path
) -> None:
    class Waiting(Partial):
        def wait_until_idle(self) -> None:
            pause(state, only="it")

    pause(state, only="models")
    one = room(wrong("before", TURN), wrong("locked", TURN), kind=Waiting)
    # "it" is no room that can be paused: then nobody can tell what is.
    assert not run(one)
    assert list_results(one) == []
    assert "pauses cannot be read" in one.report.refusals[0].reason


def test_what_ran_out_is_removed_and_what_holds_is_kept(
    room: Callable[..., Room], state: Path
) -> None:
    held = PAUSE | {"only": "models", "until": None}
    over = PAUSE | {"until": 2}
    (state / "pauses.json").write_text(json.dumps({"version": 1, "pauses": [over, held]}))
    one = room(wrong("before", TURN), wrong("locked", TURN), right())
    assert run(one)
    assert list_results(one) == [("turn", "done")]
    left = json.loads((state / "pauses.json").read_text())
    assert [each["only"] for each in left["pauses"]] == ["models"]
    assert (state / "pauses.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("unattended")
def test_what_does_not_last_is_held_and_stays_so(room: Callable[..., Room], state: Path) -> None:
    assert run(room(wrong("before", TURN), wrong("locked", TURN), right()))
    for _ in range(2):
        one = room(wrong("before", TURN))
        assert not run(one)
        assert list_results(one) == []
        assert "stackmend mended it once (turn), last at" in one.report.refusals[0].reason
    (series,) = json.loads((state / "limits.json").read_text())["series"]
    assert series["tripped"] is not None
    assert (series["operation"], series["subject"]) == ("it.turned", "it")


def test_a_person_begins_to_count_anew(
    room: Callable[..., Room], state: Path, host: Host, unattended: RestraintPolicy
) -> None:
    assert run(room(wrong("before", TURN), wrong("locked", TURN), right()))
    reconcile._unattended.clear()
    one = room(wrong("before", TURN), wrong("locked", TURN), right())
    assert run(one)
    assert list_results(one) == [("turn", "done")]
    assert not (state / "limits.json").exists()
    reconcile.run_unattended(host, unattended)
    assert run(room(wrong("before", TURN), wrong("locked", TURN), right()))


@pytest.mark.usefixtures("unattended")
def test_after_a_failure_the_host_is_left_alone_until_its_time_is_over(
    room: Callable[..., Room], state: Path
) -> None:
    error = StepError("it is stuck")
    assert not run(room(wrong("before", TURN), wrong("locked", TURN), failing=error))
    failing = json.loads((state / "limits.json").read_text())["failing"]
    assert (failing["runs"], failing["reason"]) == (1, "it is stuck")
    one = room(wrong("before", TURN))
    assert not run(one)
    assert [type(refusal) for refusal in one.report.refusals] == [Deferred]
    # What is well by itself ends it.
    assert run(room(right()))
    assert not (state / "limits.json").exists()


def test_what_is_only_refused_is_no_failed_run(
    room: Callable[..., Room], state: Path, unattended: RestraintPolicy
) -> None:
    one = room(wrong("before"), right())
    one.observations[0] = reconcile.Observation(reconcile.Plan(findings=(FINDING,)), "wrong")
    assert not run(one)
    assert not (state / "limits.json").exists()


SIDE = Action(verb="turn", subject="side", cause="it is the wrong way round")


class Services(Partial):
    """Acts on each subject for itself, as a project on its services; its operation is compose's."""

    def leave_out(self, actions: Any, held: Any) -> tuple[Action, ...]:
        return tuple(each for each in actions if each not in held)


def found(state: str, *actions: Action, findings: tuple[Finding, ...] = ()) -> Any:
    return reconcile.Observation(Plan(actions=actions, findings=findings), state)


def test_a_step_of_another_plan_is_carried_through_whatever_is_paused(
    room: Callable[..., Room], host: Host, state: Path
) -> None:
    pause(state)
    one = room(wrong("locked", TURN), right())
    with one.hold() as lease:
        assert reconcile.reconcile_locked(one, lease)
    assert list_results(one) == [("turn", "done")]
    # What is not done is never taken for done.
    other = room(wrong("locked", TURN), wrong("after", TURN))
    with other.hold() as lease:
        assert not reconcile.reconcile_locked(other, lease)


def test_what_is_held_in_the_midst_of_another_operation_is_not_done(
    room: Callable[..., Room], state: Path
) -> None:
    pause(state, only="ports")
    one = room(wrong("before", TURN))
    one.operation = "ports.remedy"
    assert not reconcile.mend(one)
    assert list_results(one) == []
    pause(state, only="compose")
    connection.invalidate(one.host)
    one = room(wrong("before", TURN), wrong("locked", TURN), right())
    one.operation = "ports.remedy"
    assert reconcile.mend(one)


@pytest.mark.usefixtures("unattended")
def test_what_takes_something_back_is_restrained_by_nothing(
    room: Callable[..., Room], host: Host, state: Path
) -> None:
    pause(state)
    with fleet.allow_return(host):
        one = room(wrong("before", TURN), wrong("locked", TURN), right())
        assert run(one)
    assert list_results(one) == [("turn", "done")]
    assert not (state / "limits.json").exists()


@pytest.mark.usefixtures("unattended")
def test_a_mend_that_failed_counts_for_the_wait_and_not_as_one_that_did_not_last(
    room: Callable[..., Room], state: Path
) -> None:
    error = StepError("the registry is down")
    assert not run(room(wrong("before", TURN), wrong("locked", TURN), failing=error))
    remembered = json.loads((state / "limits.json").read_text())
    assert remembered["series"] == []
    assert remembered["failing"]["runs"] == 1


@pytest.mark.usefixtures("unattended")
def test_what_an_answer_in_between_has_mended_is_not_forgotten_by_who_needed_it(
    room: Callable[..., Room], state: Path
) -> None:
    inner = room(wrong("before", BEND), wrong("locked", BEND), right())
    inner.operation = "ports.remedy"

    class Needing(Room):
        def execute(self, plan: Any, state: Any, lease: Any) -> bool:
            assert reconcile.mend(inner)
            raise StepError("it failed all the same")

    assert not run(room(wrong("before", TURN), wrong("locked", TURN), kind=Needing))
    remembered = json.loads((state / "limits.json").read_text())
    assert [each["operation"] for each in remembered["series"]] == ["ports.remedy"]
    assert remembered["failing"]["operation"] == "it.turned"


def test_a_paused_service_hides_nothing_that_is_wrong_beside_it(
    room: Callable[..., Room], state: Path
) -> None:
    pause(state, only="service:it")
    beside = Finding(subject="side", kind="check", cause="it does not answer")
    one = room(found("before", TURN, findings=(FINDING, beside)), kind=Services)
    one.operation = "compose.stack"
    assert not run(one)
    one = room(found("before", TURN, findings=(FINDING,)), kind=Services)
    one.operation = "compose.stack"
    assert run(one)


@pytest.mark.parametrize("mended", [True, False])
def test_what_is_mended_beside_a_paused_service_is_proven(
    room: Callable[..., Room], state: Path, mended: bool
) -> None:
    pause(state, only="service:it")
    after = found("after", TURN, *([] if mended else [SIDE]), findings=(FINDING,))
    one = room(
        found("before", TURN, SIDE, findings=(FINDING,)),
        found("locked", TURN, SIDE, findings=(FINDING,)),
        after,
        kind=Services,
    )
    one.operation = "compose.stack"
    assert run(one) == mended
    assert [action.subject for action in one.report.done] == ["side"]


def test_a_pause_of_a_part_is_named_where_all_is_well(
    room: Callable[..., Room], state: Path, named: dict[str, str]
) -> None:
    pause(state, only="models")
    one = room(right())
    assert run(one)
    assert "until somebody resumes it: disk" in named["models"]
    (note,) = reconcile._list_notes(one, Plan(), first=True)
    assert (note.kind, note.blocks) == ("paused", False)
    assert "days, until somebody resumes it" in note.cause
    line = {"outcome": "converged", "reason": named["models"]}
    when = "2026-01-01T12:00:00Z"
    record = RunRecord.model_validate(
        {
            "started": when,
            "ended": when,
            "controller": "here",
            "mode": "apply",
            "complete": True,
            "hosts": {"ai1": line},
        }
    )
    assert list(format_record(record)) == [f"ai1: converged: {named['models']}"]


def test_the_answer_to_a_bind_error_is_an_operation_of_its_own(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def free(room: Any, error: Any) -> bool:
        asked.append(reconcile._identify(room).operation)
        return False

    monkeypatch.setattr(remedies, "_free", free)
    monkeypatch.setattr(remedies, "_find_report", lambda host: Collector("compose.stack"))
    answer = remedies.make_remedy(PortsPolicy())
    assert not answer(host, "Bind for 0.0.0.0:8099 failed: port is already allocated")
    assert asked == ["ports.remedy"]


def test_an_undo_is_a_persons_own_act() -> None:
    for kind in (RestoreReconciler, ReturnReconciler, undo._Listing):
        assert not kind.is_restrained
    assert PortsReconciler.is_restrained
