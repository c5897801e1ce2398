"""Who is on call hears of each change once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.decision import Finding, Refusal
from stackmend.reporting.notices import HOUR, KEEP, MOST, Known, Notice, compose, decide
from stackmend.reporting.state import (
    Done,
    ErrorRecord,
    HostRecord,
    OperationRecord,
    Outcome,
    RunRecord,
)

#: Seconds since 1970 of the first run here, and between two runs.
FIRST, EVERY = 1_700_000_000.0, 300.0

FINDING = Finding(subject="ai/redis", kind="stopped", cause="exited with code 137")


def make_host(outcome: Outcome, *, found: bool = True) -> HostRecord:
    """A host as runs record it, with what such an outcome has."""
    more: dict[str, Any] = {}
    if outcome == "refused":
        more["refusals"] = (Refusal(subject="port 6379", reason="not ours", remedy='"allow": []'),)
    if outcome == "failed":
        more["errors"] = (ErrorRecord(message="redis ended at once"),)
    if outcome == "changed":
        action = {"verb": "start", "subject": "ai/redis", "cause": "stopped", "result": "done"}
        more["done"] = (
            Done.model_validate({**action, "started": datetime.now(UTC), "seconds": 1.0}),
        )
    fault = found and outcome not in ("converged", "unmanaged", "unknown")
    operation = OperationRecord(
        name="compose.stack (ai)", findings=(FINDING,) if fault else (), **more
    )
    return HostRecord(outcome=outcome, operations=(operation,))


def make_run(at: float, mode: str = "apply", **hosts: HostRecord) -> RunRecord:
    when = datetime.fromtimestamp(at, UTC)
    times = {"started": when, "ended": when, "mode": mode}
    return RunRecord.model_validate(
        {**times, "controller": "desk", "complete": True, "hosts": hosts}
    )


def play(*outcomes: Outcome, every: float = EVERY) -> list[str]:
    """The events of one host after runs with these outcomes; empty where nothing is said."""
    known: dict[str, Known] = {}
    events = []
    for number, outcome in enumerate(outcomes):
        run = make_run(FIRST + number * every, web=make_host(outcome))
        notices, known = decide(known, run)
        events.append(" ".join(notice.event for notice in notices))
    return events


@pytest.mark.parametrize(
    ("outcomes", "events"),
    [
        (["converged", "converged"], ["", ""]),
        (["converged", "failed", "failed", "converged"], ["", "broke", "", "well again"]),
        (["failed", "unreachable", "changed", "converged"], ["broke", "", "well again", ""]),
        (["refused", "refused", "failed", "refused"], ["needs you", "", "", ""]),
        (["failed", "refused", "failed", "converged"], ["broke", "needs you", "", "well again"]),
        (["converged", "changed", "converged"], ["", "mended", ""]),
        # Who has paused a host hears nothing of it until it is over.
        (["converged", "paused", "paused", "failed"], ["", "", "", "broke"]),
        (["failed", "paused", "converged"], ["broke", "", "well again"]),
        # What a run that was cut says of a host is nothing.
        (["failed", "unknown", "failed", "converged"], ["broke", "", "", "well again"]),
        (["failed", "unmanaged", "locked", "converged"], ["broke", "", "", "well again"]),
    ],
)
def test_one_message_for_each_change(outcomes: list[Outcome], events: list[str]) -> None:
    assert play(*outcomes) == events


def test_what_only_was_new_is_not_mended() -> None:
    run = make_run(FIRST, web=make_host("changed", found=False))
    assert decide({}, run)[0] == ()


def test_a_dry_run_says_nothing_and_changes_nothing() -> None:
    _, known = decide({}, make_run(FIRST, web=make_host("failed")))
    run = make_run(FIRST + 1, "dry", web=make_host("converged"))
    assert decide(known, run) == ((), known)


def test_a_host_that_flaps_is_said_to_and_then_heard_of_when_it_is_quiet() -> None:
    outcomes: list[Outcome] = ["failed", "converged"] * 10
    events = play(*outcomes)
    assert events[:MOST] == ["broke", "well again"] * (MOST // 2)
    assert events[MOST] == "flapping"
    assert set(events[MOST + 1 :]) == {""}
    # It was said of when it was broken; it is well and stays so for more than an hour.
    quiet: list[Outcome] = ["converged"] * 14
    assert [event for event in play(*outcomes, *quiet)[len(outcomes) :] if event] == ["well again"]
    assert [event for event in play(*["changed"] * 30) if event] == ["mended"] * MOST + ["flapping"]


def test_what_was_long_gone_is_forgotten() -> None:
    _, known = decide({}, make_run(FIRST, web=make_host("failed")))
    _, known = decide(known, make_run(FIRST + KEEP / 2, db=make_host("failed")))
    assert set(known) == {"web", "db"}
    _, known = decide(known, make_run(FIRST + KEEP + 1, db=make_host("failed")))
    assert set(known) == {"db"}


def test_a_message_says_why_and_what_would_mend_it() -> None:
    run = make_run(FIRST, web=make_host("refused"), db=make_host("failed"))
    message = compose(decide({}, run)[0])
    assert (message.title, message.kind) == ("stackmend: 1 needs you, 1 broke", "failure")
    assert message.body.splitlines() == [
        "web: needs you",
        '  refused: port 6379: not ours; remedy: "allow": []',
        "  ai/redis: stopped: exited with code 137",
        "db: broke",
        "  redis ended at once",
        "  ai/redis: stopped: exited with code 137",
    ]
    (notice,), _ = decide({}, make_run(FIRST, web=make_host("changed")))
    assert compose([notice]).title == "stackmend: web: mended"
    assert notice.lines[-1] == "done: start ai/redis"


def test_a_message_of_very_many_hosts_stays_one_message() -> None:
    many = [Notice(host=f"h{number}\x1b[31m", event="broke") for number in range(200)]
    message = compose(many)
    assert message.title == "stackmend: 200 broke"
    assert message.body.splitlines()[-1] == "and 180 more hosts"
    assert len(message.body.splitlines()) == 21
    assert "\x1b" not in message.body


outcomes = st.sampled_from(("converged", "changed", "failed", "unreachable", "refused", "unknown"))
steps = st.lists(st.tuples(outcomes, st.floats(1, 2 * HOUR)), max_size=40)


@given(steps)
def test_there_are_never_more_messages_than_changes_or_than_the_limit(steps: Any) -> None:
    known: dict[str, Known] = {}
    at, times, changes, last = FIRST, [], 0, "well"
    for outcome, seconds in steps:
        at += seconds
        notices, known = decide(known, make_run(at, web=make_host(outcome)))
        state = {"converged": "well", "changed": "well", "unknown": last}.get(outcome, outcome)
        changes += state != last or outcome == "changed"
        last = state
        times += [at] * len(notices)
        assert len(notices) <= 1
        assert len(times) <= changes
        assert len([time for time in times if at - time < HOUR]) <= MOST + 2
    # What was said last is how it is, unless it flaps or somebody was asked for help.
    for host in known.values():
        assert host.announced in (host.now, "needs you") or host.flapping
