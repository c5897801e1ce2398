"""What a command exits with, from records alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.cli.exit_codes import classify_record
from stackmend.diagnosis import Diagnosis
from stackmend.reporting.state import Outcome, RunRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OUTCOMES = get_args(Outcome)


def record(*outcomes: Outcome, complete: bool = True, interrupted: str = "") -> RunRecord:
    hosts = {f"ai{number}": {"outcome": outcome} for number, outcome in enumerate(outcomes)}
    times = {"started": NOW, "ended": NOW, "controller": "here", "mode": "apply"}
    ended = {"complete": complete, "interrupted": interrupted}
    return RunRecord.model_validate({**times, **ended, "hosts": hosts})


@pytest.mark.parametrize(
    ("outcomes", "plain", "detailed"),
    [
        (["converged"], 0, 0),
        (["changed"], 0, 10),
        (["drifted"], 0, 10),
        (["converged", "changed", "converged"], 0, 10),
        (["converged", "unmanaged"], 0, 0),
        # Somebody wants it so: a timer's unit does not fail.
        (["paused"], 0, 0),
        (["paused", "changed"], 0, 10),
        (["paused", "failed"], 1, 1),
        (["converged", "failed", "converged"], 1, 1),
        (["changed", "refused"], 1, 1),
        (["unknown", "converged"], 1, 1),
        (["unmanaged"], 2, 2),
        ([], 2, 2),
        (["converged", "unreachable"], 3, 3),
        (["unmanaged", "unreachable"], 3, 3),
        (["locked", "changed"], 4, 4),
        # What most needs a person comes first.
        (["locked", "unreachable"], 3, 3),
        (["locked", "unreachable", "failed"], 1, 1),
        (["unreachable", "refused"], 1, 1),
    ],
)
def test_each_end_has_its_code(outcomes: list[Outcome], plain: int, detailed: int) -> None:
    assert classify_record(record(*outcomes)) == plain
    assert classify_record(record(*outcomes), detailed=True) == detailed


def test_what_the_doctor_found_is_no_dry_run_that_would_change_something() -> None:
    drifted = record("converged", "drifted")
    host = drifted.hosts["ai1"].model_copy(update={"diagnosis": Diagnosis()})
    diagnosed = drifted.model_copy(update={"hosts": {**drifted.hosts, "ai1": host}})
    assert classify_record(drifted) == 0
    assert classify_record(diagnosed) == 1
    assert classify_record(diagnosed, detailed=True) == 1


@pytest.mark.parametrize("outcome", ["converged", "changed", "unreachable", "locked"])
def test_a_run_that_was_ended_early_has_proven_nothing(outcome: Outcome) -> None:
    assert classify_record(record(outcome, complete=False)) == 1
    assert classify_record(record(outcome, complete=False, interrupted="SIGTERM")) == 1


@given(st.lists(st.sampled_from(OUTCOMES), max_size=6))
def test_codes_say_what_they_promise(outcomes: list[Outcome]) -> None:
    code = classify_record(record(*outcomes))
    # 0 is said of a run only where its hosts say so, each of them.
    fine = {"converged", "changed", "drifted", "unmanaged", "paused"}
    assert (code == 0) == (set(outcomes) <= fine and bool(set(outcomes) - {"unmanaged"}))
    # A change has a code only where all is well, and nothing else is said differently for it.
    detailed = classify_record(record(*outcomes), detailed=True)
    changed = bool({"changed", "drifted"} & set(outcomes))
    assert detailed == (10 if code == 0 and changed else code)
    # The order of hosts says nothing, nor does how many are alike.
    assert classify_record(record(*reversed(outcomes), *outcomes)) == code


@given(st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=6), st.sampled_from(OUTCOMES))
def test_no_host_that_is_well_hides_one_that_is_not(outcomes: list[Outcome], more: Outcome) -> None:
    ranks = {1: 0, 3: 1, 4: 2}
    before, after = (classify_record(record(*them)) for them in (outcomes, [*outcomes, more]))
    if before in ranks:
        assert ranks[after] <= ranks[before]
