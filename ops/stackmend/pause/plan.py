"""What is to be done so that a host is left alone, or is not any more. Pure."""

from typing import ClassVar, Literal

from stackmend import decision
from stackmend.decision import Action, Refusal
from stackmend.restraint.rules import describe_pause, format_time
from stackmend.restraint.spec import PauseSpec, ResumeSpec
from stackmend.restraint.state import MOST_PAUSES, Memory, Pause


class SetPause(Action):
    """Have a host, or a part of it, left alone.

    :param pauses: all that are to hold then.
    """

    lasts: ClassVar[bool] = False

    verb: Literal["pause"] = "pause"
    undo: str = "stackmend resume INVENTORY HOST"
    pauses: tuple[Pause, ...]


class DropPauses(Action):
    """Have a host, or a part of it, mended again.

    :param pauses: those that are left.
    """

    lasts: ClassVar[bool] = False

    verb: Literal["resume"] = "resume"
    undo: str = "stackmend pause INVENTORY HOST"
    pauses: tuple[Pause, ...] = ()


Plan = decision.Plan[SetPause | DropPauses]


def make_pause(spec: PauseSpec, now: float) -> Pause:
    """The pause that is asked for.

    :param spec: as it is asked for.
    :param now: the host's clock.
    """
    until = spec.until if spec.lasts is None else now + spec.lasts
    return Pause(only=spec.only, who=spec.who, why=spec.why, since=now, until=until)


def plan_pause(pause: Pause, memory: Memory) -> Plan:
    """Add a pause, in the place of another one of the same.

    :param pause: the pause.
    :param memory: what the host remembers.
    """
    if pause.is_over(memory.now):
        reason = f"{format_time(pause.until or 0)} is over by the host's clock"
        return _refuse(pause.only, reason, "name a later time with --until")
    if memory.pauses_problem and pause.only:
        # Of what cannot be read, the rest of the host may be paused as well.
        return _refuse(
            pause.only,
            f"the host's pauses cannot be read, and count as one of all of it: "
            f"{memory.pauses_problem}",
            "run `stackmend resume INVENTORY HOST` first, or pause the whole host",
        )
    others = [other for other in memory.list_pauses() if other.only != pause.only]
    same = [other for other in memory.list_pauses() if other.only == pause.only]
    if any((other.why, other.until) == (pause.why, pause.until) for other in same):
        return Plan()
    if len(others) >= MOST_PAUSES:
        reason = f"{len(others)} pauses are the most that a host can have"
        return _refuse(pause.only, reason, "resume some of them, or pause the whole host")
    action = SetPause(
        subject=pause.only or "host", cause=describe_pause(pause), pauses=(*others, pause)
    )
    return Plan(actions=(action,))


def plan_resume(spec: ResumeSpec, memory: Memory) -> Plan:
    """Drop pauses, and what cannot be read of them.

    :param spec: which.
    :param memory: what the host remembers.
    """
    if memory.pauses_problem and spec.only is None:
        cause = f"what cannot be read counts as a pause: {memory.pauses_problem}"
        return Plan(actions=(DropPauses(subject="host", cause=cause),))
    if memory.pauses_problem:
        reason = f"the host's pauses cannot be read: {memory.pauses_problem}"
        return _refuse(spec.only or "", reason, "resume the whole host, without --only")
    ended = [each for each in memory.list_pauses() if spec.only in (None, each.only)]
    if not ended:
        return Plan()
    left = tuple(each for each in memory.list_pauses() if each not in ended)
    cause = "; ".join(map(describe_pause, ended))
    return Plan(actions=(DropPauses(subject=spec.only or "host", cause=cause, pauses=left),))


def _refuse(only: str, reason: str, remedy: str) -> Plan:
    return Plan(refusals=(Refusal(subject=only or "host", reason=reason, remedy=remedy),))
