"""What of a plan is left alone, and what a host remembers afterwards. Pure.

Every room's plan passes through :func:`hold_back`, while it is previewed and while it is executed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from stackmend.decision import Action, Deferred, Finding, Paused, Plan, Refusal
from stackmend.frozen import Frozen
from stackmend.restraint.spec import LONGEST, SERVICE, RestraintPolicy
from stackmend.restraint.state import (
    MOST_MENDS,
    MOST_SERIES,
    Failing,
    Limits,
    Memory,
    Pause,
    Series,
)
from stackmend.text import make_printable

#: Steps that a reason names.
MOST_NAMED = 5

A = TypeVar("A", bound=Action)

#: Of actions and those of them that are held: those that can be executed all the same.
LeaveOut = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]


class Desired(Frozen):
    """What a limit is kept of.

    :param operation: the operation, such as ``compose.stack``.
    :param fingerprint: what tells one declaration from another: a limit that was reached is none of
        the next one's.
    """

    operation: str
    fingerprint: str = ""

    @property
    def room(self) -> str:
        """The first word of the operation."""
        return self.operation.partition(".")[0]


def hold_back(
    plan: Plan[A],
    policy: RestraintPolicy | None,
    memory: Memory,
    desired: Desired,
    leave_out: LeaveOut | None = None,
) -> Plan[A]:
    """The plan without what is left alone, each with a refusal that says why.

    On a host that is paused as a whole nothing is refused for any other reason: what would have
    been is a finding.

    :param plan: what a room would do.
    :param policy: the limits of a run that nobody attends; ``None`` where a person has started it.
    :param memory: what the host remembers.
    :param desired: what the plan is of.
    :param leave_out: the actions of the plan that can be executed without some that are held; none
        can by default.
    """
    if memory.pauses_problem and plan.actions:
        return _hold_all(plan, (refuse_unreadable(memory.pauses_problem),))
    pauses = memory.list_pauses()
    for pause in pauses:
        if pause.only in ("", desired.room) and not plan.empty:
            refused = map(_find_refused, plan.refusals)
            held = _refuse_paused(pause, plan.actions)
            return plan.model_copy(
                update={
                    "findings": (*plan.findings, *refused),
                    "actions": (),
                    "refusals": (held,),
                }
            )
    plan = _hold_services(plan, pauses, desired, leave_out)
    if policy is None:
        return plan
    if memory.limits_problem and plan.actions:
        plan = plan.model_copy(
            update={"findings": (*plan.findings, _find_lost(memory.limits_problem))}
        )
    failing = memory.limits.failing
    if failing is not None and memory.now < failing.until and plan.actions:
        return _hold_all(plan, (_refuse_deferred(failing, memory.now),))
    return _hold_tripped(plan, policy, memory, desired, leave_out)


def is_left_alone(plan: Plan[Any]) -> bool:
    """Whether all that is not as desired is paused, so that nothing has failed."""
    refusals = plan.refusals
    return bool(refusals) and all(isinstance(refusal, Paused) for refusal in refusals)


def describe_pause(pause: Pause) -> str:
    """A pause in a line.

    :param pause: the pause.

    Example:
        >>> describe_pause(Pause(who="ann@laptop", why="disk", since=0))
        'paused by ann@laptop since 1970-01-01 00:00 UTC: disk'
    """
    what = f"{pause.only} " if pause.only else ""
    until = "" if pause.until is None else f" until {format_time(pause.until)}"
    why = f": {make_printable(pause.why)}" if pause.why else ""
    who = make_printable(pause.who)
    return f"{what}paused by {who} since {format_time(pause.since)}{until}{why}"


def format_time(seconds: float) -> str:
    """A time as people read it, to the minute.

    :param seconds: since 1970.
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def refuse_unreadable(problem: str) -> Refusal:
    """The refusal to change a host of which nobody can tell whether it is paused.

    :param problem: why not.
    """
    return Refusal(
        subject="pauses",
        reason=f"the host's pauses cannot be read, so nothing is mended: {problem}",
        remedy="to drop them all and have it mended, run `stackmend resume INVENTORY HOST`",
    )


# What is held


def _hold_all(plan: Plan[A], refusals: tuple[Refusal, ...]) -> Plan[A]:
    return plan.model_copy(update={"actions": (), "refusals": (*plan.refusals, *refusals)})


def _hold(
    plan: Plan[A],
    held: Sequence[A],
    refusals: Iterable[Refusal],
    leave_out: LeaveOut | None,
) -> Plan[A]:
    actions = leave_out(plan.actions, held) if leave_out is not None else ()
    return plan.model_copy(
        update={"actions": actions, "refusals": (*plan.refusals, *refusals)},
    )


def _find_refused(refusal: Refusal) -> Finding:
    return Finding(
        subject=refusal.subject, kind="refused", cause=refusal.reason, remedy=refusal.remedy
    )


def _find_lost(problem: str) -> Finding:
    return Finding(
        subject="limits",
        kind="unknown",
        cause=f"what was mended here lately cannot be read, and is counted anew: {problem}",
        blocks=False,
    )


def _refuse_paused(pause: Pause, actions: Sequence[Action]) -> Paused:
    only = f" --only {pause.only}" if pause.only else ""
    left = f"; left alone: {_name(actions)}" if actions else ""
    return Paused(
        subject=pause.only.removeprefix(SERVICE) or "host",
        reason=f"{describe_pause(pause)}{left}",
        remedy=f"to have it mended, run `stackmend resume INVENTORY HOST{only}`",
    )


def _name(actions: Sequence[Action]) -> str:
    names = [f"{action.verb} {action.subject}" for action in actions]
    left = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {left} more" if left > 0 else "")


def _hold_services(
    plan: Plan[A], pauses: Iterable[Pause], desired: Desired, leave_out: LeaveOut | None
) -> Plan[A]:
    held: list[A] = []
    refusals = []
    for pause in pauses:
        covered = [each for each in plan.actions if pause.is_of(desired.room, each.subject)]
        if covered and pause.only.startswith(SERVICE):
            held += covered
            refusals.append(_refuse_paused(pause, covered))
    return _hold(plan, held, refusals, leave_out) if held else plan


def _refuse_deferred(failing: Failing, now: float) -> Deferred:
    runs = f"{failing.runs} runs" if failing.runs > 1 else "the last run"
    minutes = max(1, -(-int(failing.until - now) // 60))
    reason = f": {make_printable(failing.reason)}" if failing.reason else ""
    return Deferred(
        subject="host",
        reason=f"{runs} failed here, last in {make_printable(failing.operation)} at "
        f"{format_time(failing.at)}{reason}; stackmend mends it again from "
        f"{format_time(failing.until)} on, in {minutes} min",
        remedy="to mend it now, run `stackmend site INVENTORY --limit HOST`",
    )


def _hold_tripped(
    plan: Plan[A],
    policy: RestraintPolicy,
    memory: Memory,
    desired: Desired,
    leave_out: LeaveOut | None,
) -> Plan[A]:
    known = {series.key: series for series in memory.limits.series}
    held, refusals = [], []
    for action in plan.actions:
        series = known.get(_get_key(action, desired))
        if series is None or not _is_tripped(series, policy, memory.now):
            continue
        held.append(action)
        refusals.append(_refuse_tripped(action, series, policy))
    return _hold(plan, held, dict.fromkeys(refusals), leave_out) if held else plan


def _get_key(action: Action, desired: Desired) -> tuple[str, str, str, str]:
    return desired.operation, action.subject[:LONGEST], action.verb, desired.fingerprint


def _is_tripped(series: Series, policy: RestraintPolicy, now: float) -> bool:
    if not series.mends or abs(now - series.met) >= policy.within:
        return False
    if series.tripped is not None:
        return True
    return sum(abs(now - at) < policy.within for at in series.mends) >= policy.mends


def _refuse_tripped(action: Action, series: Series, policy: RestraintPolicy) -> Refusal:
    times = series.mends[-policy.mends :]
    minutes = max(1, round((times[-1] - times[0]) / 60))
    often = f"{len(times)} times within {minutes} min" if len(times) > 1 else "once"
    return Refusal(
        subject=action.subject,
        reason=f"{action.cause}. stackmend mended it {often} ({action.verb}), last at "
        f"{format_time(times[-1])}, and it did not last: it is left alone until it stayed "
        f"well for {policy.within / 60:g} min",
        remedy="find out what breaks it; then run `stackmend site INVENTORY --limit HOST`, which "
        "mends it and begins to count anew",
    )


# What is remembered


def note_mends(
    limits: Limits, actions: Iterable[Action], policy: RestraintPolicy, now: float, desired: Desired
) -> Limits:
    """The limits once a run that nobody attends begins to mend.

    :param limits: what was known before.
    :param actions: what it does.
    :param policy: the limits.
    :param now: the host's clock.
    :param desired: what they are of.
    """
    known = {series.key: series for series in _list_recent(limits, policy, now)}
    for key in dict.fromkeys(_get_key(each, desired) for each in actions if each.lasts):
        before = known.pop(key, None)
        mends = (*(before.mends if before else ()), now)[-MOST_MENDS:]
        known[key] = _make_series(key, mends, None, now)
    return limits.model_copy(update={"series": tuple(known.values())[-MOST_SERIES:]})


def note_broken(
    limits: Limits, actions: Iterable[Action], policy: RestraintPolicy, now: float, desired: Desired
) -> Limits:
    """The limits once a run has found broken what it leaves alone for them.

    :param limits: what was known before.
    :param actions: what the plan would do without any limit.
    :param policy: the limits.
    :param now: the host's clock.
    :param desired: what they are of.
    """
    keys = {_get_key(action, desired) for action in actions}
    found = [
        series.model_copy(update={"tripped": series.tripped or now, "met": now})
        if series.key in keys and _is_tripped(series, policy, now)
        else series
        for series in _list_recent(limits, policy, now)
    ]
    return limits.model_copy(update={"series": tuple(found)})


def note_failure(
    limits: Limits, reason: str, policy: RestraintPolicy, now: float, desired: Desired
) -> Limits:
    """The limits once a run that nobody attends has failed.

    :param limits: what was known before.
    :param reason: why, in a line.
    :param policy: the limits.
    :param now: the host's clock.
    :param desired: what failed.
    """
    before = limits.failing
    # One of long ago, in what nobody asks for any more, is not followed by this one.
    follows = (
        before is not None and abs(now - before.at) < 2 * policy.longest_backoff + policy.within
    )
    runs = min(before.runs, 10**5) + 1 if before is not None and follows else 1
    wait = min(policy.backoff * 2 ** min(runs - 1, 20), policy.longest_backoff)
    failing = Failing(
        operation=desired.operation[:200],
        reason=make_printable(reason, 300),
        runs=runs,
        at=now,
        until=now + wait,
    )
    return limits.model_copy(update={"failing": failing})


def note_success(limits: Limits, desired: Desired, *, attended: bool) -> Limits:
    """The limits once an operation has found its part of the host well, or brought it there.

    :param limits: what was known before.
    :param desired: what is well.
    :param attended: whether a person has started the run: then all that was counted is dropped.
    """
    series = tuple(
        each for each in limits.series if not (attended and each.operation == desired.operation)
    )
    failing = limits.failing
    if failing is not None and failing.operation == desired.operation:
        failing = None
    return limits.model_copy(update={"series": series, "failing": failing})


def _list_recent(limits: Limits, policy: RestraintPolicy, now: float) -> Iterator[Series]:
    """Those that are not forgotten; of a clock that was put back, what is of the future is."""
    for series in limits.series:
        if abs(now - series.met) < policy.within:
            yield series


def _make_series(
    key: tuple[str, str, str, str], mends: tuple[float, ...], tripped: float | None, met: float
) -> Series:
    operation, subject, verb, desired = key
    return Series(
        operation=operation,
        subject=subject,
        verb=verb,
        desired=desired,
        mends=mends,
        tripped=tripped,
        met=met,
    )
