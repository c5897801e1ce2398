"""What of a plan is left alone, and what a host remembers: from values alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend import cli
from stackmend.decision import Action, Deferred, Finding, Paused, Plan, Refusal
from stackmend.pause.plan import make_pause, plan_pause, plan_resume
from stackmend.ports.plan.model import StopProcess
from stackmend.restraint.rules import (
    Desired,
    describe_pause,
    hold_back,
    is_left_alone,
    note_failure,
    note_found,
    note_mends,
    note_success,
)
from stackmend.restraint.spec import PauseSpec, RestraintPolicy, ResumeSpec
from stackmend.restraint.state import MOST_PAUSES, Failing, Limits, Memory, Pause, Series
from stackmend.restraint.times import parse_until
from stackmend.spec import SpecError, parse_machine
from stackmend.worker.move.plan import Repoint, Retire

NOW = 1_800_000_000.0
HOUR = 3600.0
POLICY = RestraintPolicy(mends=2, within=HOUR, backoff=300, longest_backoff=HOUR)
STACK = Desired(operation="compose.stack", fingerprint="a1")
START = Action(verb="start", subject="redis", cause="it exited with code 1")
SIDE = Action(verb="start", subject="side", cause="it exited with code 1")
STOPPED = Finding(subject="redis", kind="exited", cause="it exited with code 1")
REFUSAL = Refusal(subject="disk", reason="it is full", remedy="free some")
BROKEN = Plan(findings=(STOPPED,), actions=(START, SIDE))


class Check(Action):
    """What comes at the end of every plan, and mends nothing."""

    lasts: ClassVar[bool] = False


def pause(only: str = "", until: float | None = None) -> Pause:
    return Pause(only=only, who="ann@laptop", why="disk", since=NOW - 60, until=until)


def remember(*pauses: Pause, limits: Limits | None = None, problem: str = "") -> Memory:
    return Memory(now=NOW, pauses=pauses, limits=limits or Limits(), pauses_problem=problem)


def leave_others(actions: object, held: object) -> tuple[Action, ...]:
    return tuple(each for each in actions if each not in held)  # type: ignore[attr-defined, operator]


# Pauses


@pytest.mark.parametrize("only", ["", "compose"])
@pytest.mark.parametrize("policy", [None, POLICY])
def test_on_a_paused_host_nothing_is_done_and_all_that_was_found_is_said(
    only: str, policy: RestraintPolicy | None
) -> None:
    refused = BROKEN.model_copy(update={"refusals": (REFUSAL,)})
    plan = hold_back(refused, policy, remember(pause(only)), STACK)
    assert plan.actions == ()
    assert STOPPED in plan.findings
    assert [found.cause for found in plan.findings if found.kind == "refused"] == ["it is full"]
    (held,) = plan.refusals
    assert isinstance(held, Paused)
    assert is_left_alone(plan, refused)
    assert "paused by ann@laptop since 2027-01-15 07:59 UTC, for 1 minute, until " in held.reason
    assert held.reason.endswith("left alone: start redis, start side")
    assert "stackmend resume INVENTORY HOST" in held.remedy


@pytest.mark.parametrize(
    "other", [pause("models"), pause("service:web"), pause("", until=NOW), pause("", until=1.0)]
)
def test_a_pause_of_something_else_or_that_ran_out_holds_nothing(other: Pause) -> None:
    assert hold_back(BROKEN, None, remember(other), STACK) == BROKEN


def test_a_host_that_is_well_is_refused_nothing() -> None:
    assert hold_back(Plan(), POLICY, remember(pause()), STACK) == Plan()


def test_a_paused_service_keeps_no_other_from_being_mended_where_they_can_be_told_apart() -> None:
    memory = remember(pause("service:redis"))
    together = hold_back(BROKEN, None, memory, STACK)
    apart = hold_back(BROKEN, None, memory, STACK, leave_others)
    assert (together.actions, apart.actions) == ((), (SIDE,))
    assert is_left_alone(together, BROKEN)
    assert is_left_alone(apart, BROKEN)
    unwell = Finding(subject="api", kind="check", cause="it does not answer")
    worse = BROKEN.model_copy(update={"findings": (STOPPED, unwell)})
    assert not is_left_alone(hold_back(worse, None, memory, STACK, leave_others), worse)
    assert is_left_alone(apart, worse, (), lambda held: ["api"] if "redis" in held else [])
    # Another room's subject of that name is none of the project's services.
    assert hold_back(BROKEN, None, memory, Desired(operation="models.pulled")) == BROKEN


def test_a_pause_of_any_service_holds_what_changes_all_of_the_project() -> None:
    paused = remember(pause("service:chat"))
    worker = Desired(operation="worker.engine", rooms=("compose",))
    for step in (
        Repoint(subject="chat, api", cause="x"),
        Retire(subject="old", cause="x"),
        Action(verb="turn", subject="api, chat", cause="x"),
    ):
        assert hold_back(Plan(actions=(step,)), None, paused, worker).actions == ()
    # As does one of the room whose project it is.
    repoint = Plan(actions=(Repoint(subject="chat, api", cause="x"),))
    assert hold_back(repoint, None, remember(pause("compose")), worker).actions == ()
    assert hold_back(repoint, None, remember(pause("models")), worker) == repoint


def test_a_pause_that_nothing_ends_says_its_age() -> None:
    endless = pause().model_copy(update={"since": NOW - 12.5 * 24 * HOUR})
    assert "for 12 days, until somebody resumes it: disk" in describe_pause(endless, NOW)
    assert "for 1 hour," in describe_pause(endless.model_copy(update={"since": NOW - HOUR}), NOW)
    ending = pause(until=NOW + HOUR)
    assert describe_pause(ending, NOW) == describe_pause(ending)


def test_pauses_that_cannot_be_read_hold_everything_and_are_no_pause() -> None:
    plan = hold_back(BROKEN, None, remember(problem="it is a link"), STACK, leave_others)
    assert plan.actions == ()
    assert not is_left_alone(plan, BROKEN)
    assert "it is a link" in plan.refusals[0].reason
    assert hold_back(Plan(), None, remember(problem="it is a link"), STACK) == Plan()


# Limits


def run(limits: Limits, plan: Plan[Action], now: float) -> tuple[Limits, Plan[Action]]:
    """What one run that nobody attends does and proves, and what is known then."""
    memory = Memory(now=now, limits=limits)
    held = hold_back(plan, POLICY, memory, STACK, leave_others)
    limits = note_found(limits, plan, POLICY, now, STACK)
    return note_mends(limits, held.actions, now, STACK), held


def test_what_was_mended_too_often_is_left_alone_and_tried_once_more_after_a_time() -> None:
    limits, plan = Limits(), Plan(actions=(START, Check(verb="record", subject="ai", cause="x")))
    mended, refused = [], []
    for minute in range(0, 400, 5):
        limits, held = run(limits, plan, NOW + minute * 60)
        if START in held.actions:
            mended.append(minute)
        else:
            refused += held.refusals
    # Counted from the last mend, not from when it was last found broken; each time for longer.
    assert mended == [0, 5, 65, 185]
    assert not isinstance(refused[0], Paused | Deferred)
    assert "mended it 2 times within 5 min (start), last at" in refused[0].reason
    assert "stackmend site INVENTORY" in refused[0].remedy


@pytest.mark.parametrize("every", [300, 1200, HOUR, 2 * HOUR, 24 * HOUR, 7 * 24 * HOUR])
def test_what_breaks_after_every_mend_is_left_alone_at_any_schedule(every: float) -> None:
    limits, refused = Limits(), 0
    for number in range(12):
        limits, held = run(limits, Plan(actions=(START,)), NOW + number * every)
        refused += bool(held.refusals)
        assert number >= 2 or not held.refusals
    assert refused >= 4
    (series,) = limits.series
    assert len(series.mends) >= 2


@pytest.mark.parametrize("every", [300, 1200, 24 * HOUR])
def test_what_a_run_finds_well_once_the_time_is_over_has_lasted(every: float) -> None:
    limits, now = Limits(), NOW
    for _ in range(6):
        limits, held = run(limits, Plan(actions=(START,)), now)
        assert held.actions == (START,)
        for _ in range(int(max(HOUR, every) // every)):
            now += every
            limits, _ = run(limits, Plan(), now)
        assert limits == Limits()
        now += every


def test_what_is_still_a_finding_or_refused_has_not_lasted() -> None:
    limits, _ = run(Limits(), Plan(actions=(START,)), NOW)
    for plan in (Plan(findings=(STOPPED,)), Plan(refusals=(REFUSAL,))):
        assert note_found(limits, plan, POLICY, NOW + 2 * HOUR, STACK) == limits
    other = Desired(operation="models.pulled")
    assert note_found(limits, Plan(), POLICY, NOW + 2 * HOUR, other) == limits


def test_however_a_thing_is_mended_it_is_the_same_and_a_download_is_no_mend() -> None:
    class Pull(Action):
        prepares: ClassVar[bool] = True

    limits = Limits()
    for number, verb in enumerate(("start", "restart")):
        pull = Pull(verb="pull", subject="redis", cause="x")
        plan = Plan(actions=(pull, START.model_copy(update={"verb": verb})))
        limits, held = run(limits, plan, NOW + number * 300)
        assert held.actions == plan.actions
    assert [len(series.mends) for series in limits.series] == [2]
    recreate = START.model_copy(update={"verb": "recreate"})
    _, held = run(limits, Plan(actions=(recreate,)), NOW + 600)
    assert held.actions == ()


def test_a_process_that_takes_a_port_again_is_the_same_whatever_its_pid() -> None:
    def stop(pid: int) -> StopProcess:
        subject = f"redis-server (pid {pid})"
        return StopProcess(subject=subject, cause="x", members=(), ports=("0.0.0.0:6379/tcp",))

    free, limits = Desired(operation="ports.free"), Limits()
    for number in range(2):
        limits = note_mends(limits, [stop(100 + number)], NOW + number * 300, free)
    memory = Memory(now=NOW + 600, limits=limits)
    assert hold_back(Plan(actions=(stop(102),)), POLICY, memory, free).actions == ()


def test_a_person_and_another_declaration_begin_to_count_anew() -> None:
    limits = Limits()
    for minute in (0, 5, 10):
        limits, held = run(limits, Plan(actions=(START,)), NOW + minute * 60)
    assert held.actions == ()
    memory = Memory(now=NOW + 900, limits=limits)
    attended = hold_back(Plan(actions=(START,)), None, memory, STACK)
    assert attended.actions == (START,)
    other = Desired(operation="compose.stack", fingerprint="b2")
    assert hold_back(Plan(actions=(START,)), POLICY, memory, other).actions == (START,)
    assert note_success(limits, STACK, attended=True) == Limits()
    assert note_success(limits, STACK, attended=False) == limits


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=40))
def test_no_more_is_mended_within_the_time_than_the_limit_says(
    runs: list[tuple[int, bool]],
) -> None:
    limits, now, mended = Limits(), NOW, []
    for seconds, broken in runs:
        now += seconds
        limits, held = run(limits, Plan(actions=(START,)) if broken else Plan(), now)
        mended += [now] if START in held.actions else []
        within = [at for at in mended if now - at < POLICY.within]
        assert len(within) <= POLICY.mends
        assert len(limits.series) <= 1
    # What is written is what is read.
    assert Limits.model_validate_json(limits.model_dump_json()) == limits


def test_a_clock_that_was_put_back_leaves_no_limit_for_ever() -> None:
    ahead = Series(
        operation="compose.stack",
        subject="redis",
        verb="start",
        desired="a1",
        mends=(NOW + 10 * HOUR,) * 5,
        tripped=NOW + 10 * HOUR,
        until=NOW + 11 * HOUR,
    )
    _, held = run(Limits(series=(ahead,)), BROKEN, NOW)
    assert held == BROKEN
    behind = ahead.model_copy(update={"mends": (NOW,) * 2, "until": NOW + 10**8})
    _, held = run(Limits(series=(behind,)), BROKEN, NOW + 60)
    assert held == BROKEN
    failing = Failing(operation="compose.stack", runs=1, at=NOW + 10**8, until=NOW + 10**8 + 300)
    _, held = run(Limits(failing=failing), BROKEN, NOW)
    assert held == BROKEN


def test_the_wait_after_failures_doubles_to_its_end_and_a_success_clears_it() -> None:
    limits, now, waits = Limits(), NOW, []
    for _ in range(6):
        limits = note_failure(limits, "port is taken", POLICY, now, STACK)
        assert limits.failing is not None
        waits.append(limits.failing.until - now)
        held = hold_back(BROKEN, POLICY, Memory(now=now + 1, limits=limits), STACK, leave_others)
        (refusal,) = held.refusals
        assert (held.actions, type(refusal)) == ((), Deferred)
        assert "port is taken" in refusal.reason
        # A person need not wait.
        assert hold_back(BROKEN, None, Memory(now=now + 1, limits=limits), STACK) == BROKEN
        now = limits.failing.until
        assert hold_back(BROKEN, POLICY, Memory(now=now, limits=limits), STACK) == BROKEN
    assert waits == [300, 600, 1200, 2400, 3600, 3600]
    assert note_success(limits, Desired(operation="models.pulled"), attended=False) == limits
    assert note_success(limits, STACK, attended=False) == Limits()
    later = note_failure(limits, "again", POLICY, now + 10 * HOUR, STACK)
    assert later.failing is not None
    assert later.failing.runs == 1, "those of long ago are over"


def test_a_limit_that_cannot_be_read_is_said_and_holds_nothing() -> None:
    memory = Memory(now=NOW, limits_problem="version: Input should be 1")
    plan = hold_back(BROKEN, POLICY, memory, STACK)
    assert plan.actions == BROKEN.actions
    assert [found.blocks for found in plan.findings if found.subject == "limits"] == [False]


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"mends": 0}, "mends"),
        ({"within": 0}, "within"),
        ({"backoff": "2h"}, "longest_backoff is 3600 s"),
        ({"backoff": -1}, "backoff"),
        ({"tries": 3}, "tries"),
    ],
)
def test_wrong_limits_are_refused(raw: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        RestraintPolicy.model_validate(raw)


def test_a_wrong_limit_is_named_by_its_path_before_contact() -> None:
    with pytest.raises(SpecError, match=r"stack\.reconcile\.mend: .*did you mean mends\?"):
        parse_machine({"stack": {"engine": {}, "reconcile": {"mend": 3}}})


# Pausing and resuming


def ask(**fields: object) -> Pause:
    return make_pause(PauseSpec.model_validate({"who": "ann@laptop", **fields}), NOW)


def test_a_pause_is_set_once_and_takes_the_place_of_one_of_the_same() -> None:
    asked = ask(why="disk", until=NOW + HOUR)
    (action,) = plan_pause(asked, remember()).actions
    assert action.pauses == (asked,)
    assert plan_pause(asked, remember(asked)) == Plan()
    longer = ask(why="disk", lasts=2 * HOUR)
    over = pause("models", until=NOW - 1)
    (action,) = plan_pause(longer, remember(asked, pause("service:web"), over)).actions
    assert action.pauses == (pause("service:web"), longer)
    assert not action.lasts


@pytest.mark.parametrize(
    ("asked", "memory", "reason"),
    [
        (ask(until=NOW - 1), remember(), "is over by the host's clock"),
        (ask(only="models"), remember(problem="it is a link"), "it is a link"),
        (
            ask(only="models"),
            remember(*(pause(f"service:s{number}") for number in range(MOST_PAUSES))),
            "the most that a host can have",
        ),
    ],
)
def test_a_pause_that_cannot_be_is_refused(asked: Pause, memory: Memory, reason: str) -> None:
    (refusal,) = plan_pause(asked, memory).refusals
    assert reason in refusal.reason


def test_resuming_drops_what_is_asked_and_what_cannot_be_read() -> None:
    memory = remember(pause(), pause("models"))
    (action,) = plan_resume(ResumeSpec(), memory).actions
    assert action.pauses == ()
    (action,) = plan_resume(ResumeSpec(only="models"), memory).actions
    assert action.pauses == (pause(),)
    assert plan_resume(ResumeSpec(only="engine"), memory) == Plan()
    assert plan_resume(ResumeSpec(), remember()) == Plan()
    (action,) = plan_resume(ResumeSpec(), remember(problem="it is no JSON")).actions
    assert action.pauses == ()
    assert plan_resume(ResumeSpec(only="models"), remember(problem="no JSON")).refusals


BERLIN = timezone(timedelta(hours=1))
NIGHT = datetime(2026, 11, 30, 23, 30, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("08:00", datetime(2026, 12, 1, 8, tzinfo=BERLIN)),
        ("23:45", datetime(2026, 11, 30, 23, 45, tzinfo=BERLIN)),
        ("2026-12-24", datetime(2026, 12, 24, tzinfo=BERLIN)),
        ("2026-12-24T08:00", datetime(2026, 12, 24, 8, tzinfo=BERLIN)),
        ("2026-12-24T08:00Z", datetime(2026, 12, 24, 8, tzinfo=UTC)),
    ],
)
def test_a_time_is_the_next_one_where_the_person_is(text: str, at: datetime) -> None:
    assert parse_until(text, NIGHT) == (at.timestamp(), None)


def test_a_time_from_now_on_is_counted_by_the_host() -> None:
    assert parse_until("2h", NIGHT) == (None, 7200)
    assert parse_until("", NIGHT) == (None, None)


@pytest.mark.parametrize(
    "text", ["tomorrow", "5", "0s", "-2h", "2026-01-01", "2026-11-30T22:00Z", "nan", "20261224"]
)
def test_what_is_no_time_to_come_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a time from now on|is over already"):
        parse_until(text, NIGHT)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("pause", "fleet.py", "--until", "gestern"), "--until: must be a time from now on"),
        (("pause", "fleet.py", "--only", "modles"), "did you mean models?"),
        (("pause", "fleet.py", "--why", "x" * 301), "--why: 301 characters are too long"),
        (("resume", "fleet.py", "--only", "redis"), "--only: must be a room or service:NAME"),
        (("pause",), "Missing argument 'INVENTORY'"),
    ],
)
def test_a_wrong_word_is_one_error_before_any_host_is_contacted(
    words: tuple[str, ...], reason: str
) -> None:
    done = CliRunner().invoke(cli.cli, words)
    assert done.exit_code == 2
    assert reason in done.output


def test_what_a_host_remembers_is_bounded() -> None:
    with pytest.raises(ValidationError):
        Failing(operation="x", runs=1, at=NOW, until=float("inf"))
    with pytest.raises(ValidationError):
        Pause(who="x" * 5000, since=NOW)
    with pytest.raises(ValidationError):
        Pause(only="everything", who="x", since=NOW)
    limits = Limits()
    for number in range(300):
        action = START.model_copy(update={"subject": f"s{number}" * 500})
        limits = note_mends(limits, [action], NOW, STACK)
    assert len(limits.series) == 200
    assert Limits.model_validate_json(limits.model_dump_json()) == limits
