"""The loop of every room where something keeps its plan from being executed, on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from stackmend import reconcile
from stackmend.decision import Deferred, Paused
from stackmend.errors import StepError
from stackmend.restraint import facts, files
from stackmend.restraint.spec import RestraintPolicy
from tests.unit.test_reconcile import (
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
    assert json.loads((state / "limits.json").read_text())["failing"] is None


def test_what_is_only_refused_is_no_failed_run(
    room: Callable[..., Room], state: Path, unattended: RestraintPolicy
) -> None:
    one = room(wrong("before"), right())
    one.observations[0] = reconcile.Observation(reconcile.Plan(findings=(FINDING,)), "wrong")
    assert not run(one)
    assert not (state / "limits.json").exists()
