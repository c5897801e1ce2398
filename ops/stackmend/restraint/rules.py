"""What of a plan is left alone, and what a host remembers afterwards. Pure.

Every room's plan passes through :func:`hold_back`, while it is previewed and while it is executed.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
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

#: Seconds that something is left alone at most, once it did not last.
LONGEST_WAIT = 86400.0

#: Steps that a reason names.
MOST_NAMED = 5

A = TypeVar("A", bound=Action)

#: Of actions and those of them that are held: those that can be executed all the same.
LeaveOut = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]


class Desired(Frozen):
    """What a limit is kept of.

    :param operation: the operation, such as ``compose.stack``.
    :param rooms: rooms besides its own whose pauses are of it as well.
    :param fingerprint: what tells one declaration from another: a limit that was reached is none of
        the next one's.
    """

    operation: str
    rooms: tuple[str, ...] = ()
    fingerprint: str = ""

    def list_rooms(self) -> tuple[str, ...]:
        """The rooms whose pauses are of it: its own, the first word of the operation, first."""
        return (self.operation.partition(".")[0], *self.rooms)

    def is_covered(self, pause: Pause, action: Action) -> bool:
        """Whether a pause is of one of its actions.

        :param pause: the pause.
        :param action: the action.
        """
        if action.all_services and pause.only.startswith(SERVICE):
            return True
        return any(pause.is_of(room, action.subject) for room in self.list_rooms())


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
        if pause.only in ("", *desired.list_rooms()) and not plan.empty:
            refused = map(_find_refused, plan.refusals)
            held = _refuse_paused(pause, plan.actions, memory.now, complete=True)
            return plan.model_copy(
                update={
                    "findings": (*plan.findings, *refused),
                    "actions": (),
                    "refusals": (held,),
                }
            )
    plan = _hold_services(plan, pauses, memory.now, desired, leave_out)
    if policy is None:
        return plan
    if memory.limits_problem and plan.actions:
        plan = plan.model_copy(
            update={"findings": (*plan.findings, _find_lost(memory.limits_problem))}
        )
    failing = memory.limits.failing
    # One that would last longer than any was written by a clock that was put back since.
    if (
        failing is not None
        and 0 < failing.until - memory.now <= policy.longest_backoff
        and plan.actions
    ):
        return _hold_all(plan, (_refuse_deferred(failing, memory.now),))
    return _hold_tripped(plan, policy, memory, desired, leave_out)


def is_left_alone(
    plan: Plan[Any],
    found: Plan[Any],
    drift: Collection[str] = (),
    list_affected: Callable[[Collection[str]], Collection[str]] | None = None,
) -> bool:
    """Whether all that is not as desired is paused, so that nothing has failed.

    Where services are paused, and not all that the plan is of, that is no more than themselves,
    what is held along with them, and what cannot be well without them.

    :param plan: what of it is left once what is held is held.
    :param found: what was found.
    :param drift: the kinds of findings that say no more than that the host is not as desired.
    :param list_affected: what cannot be well while something is left alone.
    """
    refusals = plan.refusals
    paused = [refusal for refusal in refusals if isinstance(refusal, Paused)]
    if not paused or len(paused) < len(refusals):
        return False
    if any(refusal.complete for refusal in paused):
        return True
    # What is executed is proven afterwards, and not by what was found before.
    excused = {*(action.subject for action in found.actions)}
    excused |= {refusal.subject for refusal in paused}
    held = excused - {action.subject for action in plan.actions}
    if list_affected is not None:
        excused |= {*list_affected(held)}
    # A change that is held as one is not there yet, in whatever it differs.
    expected = {*drift} if found.actions and not plan.actions else set()
    return all(finding.subject in excused or finding.kind in expected for finding in found.problems)


def describe_pause(pause: Pause, now: float | None = None) -> str:
    """A pause in a line.

    :param pause: the pause.
    :param now: the host's clock, for the age of one that nothing ends; ``None`` to leave that out.

    Example:
        >>> describe_pause(Pause(who="ann@laptop", why="disk", since=0))
        'paused by ann@laptop since 1970-01-01 00:00 UTC: disk'
        >>> describe_pause(Pause(who="ann@laptop", since=0), 3 * 86400)
        'paused by ann@laptop since 1970-01-01 00:00 UTC, for 3 days, until somebody resumes it'
    """
    what = f"{pause.only} " if pause.only else ""
    until = "" if pause.until is None else f" until {format_time(pause.until)}"
    if pause.until is None and now is not None:
        until = f", for {_format_age(now - pause.since)}, until somebody resumes it"
    why = f": {make_printable(pause.why)}" if pause.why else ""
    who = make_printable(pause.who)
    return f"{what}paused by {who} since {format_time(pause.since)}{until}{why}"


def _format_age(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) > 0:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


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


def _refuse_paused(
    pause: Pause, actions: Sequence[Action], now: float, *, complete: bool
) -> Paused:
    only = f" --only {pause.only}" if pause.only else ""
    left = f"; left alone: {_name(actions)}" if actions else ""
    return Paused(
        subject=pause.only.removeprefix(SERVICE) or "host",
        reason=f"{describe_pause(pause, now)}{left}",
        remedy=f"to have it mended, run `stackmend resume INVENTORY HOST{only}`",
        complete=complete,
    )


def _name(actions: Sequence[Action]) -> str:
    names = [f"{action.verb} {action.subject}" for action in actions]
    left = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {left} more" if left > 0 else "")


def _hold_services(
    plan: Plan[A],
    pauses: Iterable[Pause],
    now: float,
    desired: Desired,
    leave_out: LeaveOut | None,
) -> Plan[A]:
    held: list[A] = []
    refusals = []
    for pause in pauses:
        covered = [each for each in plan.actions if desired.is_covered(pause, each)]
        if covered and pause.only.startswith(SERVICE):
            held += covered
            refusals.append(_refuse_paused(pause, covered, now, complete=False))
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
        until = None if series is None else _find_until(series, policy, memory.now)
        if series is None or until is None:
            continue
        held.append(action)
        refusals.append(_refuse_tripped(action, series, until))
    return _hold(plan, held, dict.fromkeys(refusals), leave_out) if held else plan


def _get_key(action: Action, desired: Desired) -> tuple[str, str, str]:
    # However it is mended: what was started in vain may be restarted in vain as well.
    return desired.operation, action.mended[:LONGEST], desired.fingerprint


def _find_until(series: Series, policy: RestraintPolicy, now: float) -> float | None:
    """Until when something that is broken now is left alone; ``None`` where it is to be mended."""
    last = series.mends[-1]
    # What is of the future was written by a clock that was put back since.
    if len(series.mends) < policy.mends or last > now:
        return None
    longest = max(policy.within, LONGEST_WAIT)
    until = series.until
    if until is None:
        tries = len(series.mends) - policy.mends
        wait = min(policy.within * 2 ** min(tries, 20), longest)
        # Where runs are rarer than that, at least the next one leaves it alone.
        until = max(last + wait, now + min(now - last, LONGEST_WAIT))
    return until if 0 < until - now <= longest else None


def _refuse_tripped(action: Action, series: Series, until: float) -> Refusal:
    times = series.mends
    minutes = max(1, round((times[-1] - times[0]) / 60))
    often = f"{len(times)} times within {minutes} min" if len(times) > 1 else "once"
    return Refusal(
        subject=action.subject,
        reason=f"{action.cause}. stackmend mended it {often} ({series.verb}), last at "
        f"{format_time(times[-1])}, and it did not last: it is left alone until "
        f"{format_time(until)}",
        remedy="find out what breaks it; then run `stackmend site INVENTORY --limit HOST`, which "
        "mends it and begins to count anew",
    )


# What is remembered


def note_mends(limits: Limits, actions: Iterable[Action], now: float, desired: Desired) -> Limits:
    """The limits once a run that nobody attends has mended something, and proven it.

    :param limits: what was known before.
    :param actions: what it did.
    :param now: the host's clock.
    :param desired: what they are of.
    """
    known = {series.key: series for series in limits.series}
    for action in actions:
        if not action.lasts or action.prepares:
            continue
        key = _get_key(action, desired)
        before = known.pop(key, None)
        mends = before.mends if before is not None and before.mends[-1] <= now else ()
        # Several steps that mend one thing are one mend.
        mends = mends if now in mends else (*mends, now)[-MOST_MENDS:]
        operation, subject, fingerprint = key
        known[key] = Series(
            operation=operation,
            subject=subject,
            verb=action.verb,
            desired=fingerprint,
            mends=mends,
        )
    return limits.model_copy(update={"series": tuple(known.values())[-MOST_SERIES:]})


def note_found(
    limits: Limits, plan: Plan[Any], policy: RestraintPolicy, now: float, desired: Desired
) -> Limits:
    """The limits once a run has found what is broken, and what has stayed well.

    A mend has lasted once a run finds it so when ``within`` is over; then it is forgotten. What no
    run has found well in between counts as broken since, however rare the runs are.

    :param limits: what was known before.
    :param plan: what the operation found and would do without any limit.
    :param policy: the limits.
    :param now: the host's clock.
    :param desired: what it is of.
    """
    broken = {_get_key(action, desired) for action in plan.actions}
    problems = {finding.subject for finding in plan.problems}
    found = []
    for series in limits.series:
        over = not 0 <= now - series.mends[-1] < policy.within
        if series.key in broken:
            until = _find_until(series, policy, now)
            if until is not None and until != series.until:
                series = series.model_copy(update={"tripped": now, "until": until})
        elif series.operation == desired.operation and over:
            other = series.desired != desired.fingerprint
            # Of a plan that is refused nothing else is known.
            if other or (not plan.refusals and series.subject not in problems):
                continue
        found.append(series)
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
