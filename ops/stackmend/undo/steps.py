"""What of a run's record can be brought back by a command of ours. Pure.

A record is a file that anybody may have written: of its texts only the names of copies are taken,
where they are written exactly as stackmend writes them; whether a host has them, it says itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from stackmend.frozen import Frozen
from stackmend.paths import STATE_ROOT

#: Steps that took nothing away and set nothing: there is nothing to bring back.
_HARMLESS = frozenset(
    {"pull", "build", "start", "start again", "restart", "unpause", "resume", "flush", "record"}
    | {"ask", "measure", "collect", "prove", "describe", "close", "bring back", "take up"}
)

#: What a person does about a step that no record knows the end of.
_CUT_SHORT = f"see there what that step has done; {STATE_ROOT} has its copies and the journal"

#: The undo of a step, as the step itself writes it.
_UNDO = re.compile(
    r"(?P<room>ports|engine)\.restored\((?:record|copy)='(?P<name>[0-9TZ.-]{1,40})'\)"
)


class Step(Frozen):
    """One thing that an operation of ours brings back.

    :param room: whose ``restored`` does so.
    :param name: of the record or the copy that it is brought back from, on the host.
    :param what: what the run did, in words.
    :param done: whether the run came to the end of it: else the host may have no copy.
    """

    room: Literal["ports", "engine"]
    name: str
    what: str
    done: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """What the operation is called with."""
        return {"record" if self.room == "ports" else "copy": self.name, "required": self.done}


class Left(Frozen):
    """One thing that a person has to bring back.

    :param what: what the run did, in words.
    :param how: how to bring it back, in words; empty where nobody knows.
    """

    what: str
    how: str


class Undo(Frozen):
    """What there is to bring back on a host, the last thing first.

    :param steps: what our own operations bring back.
    :param left: what they do not.
    """

    steps: tuple[Step, ...] = ()
    left: tuple[Left, ...] = ()


class Change(Frozen):
    """A step that a run carried out.

    :param verb: what it did.
    :param subject: what it did it to.
    :param undo: how to take it back, as the record has it.
    :param done: whether it came to its end; one that failed may have taken effect.
    """

    verb: str
    subject: str
    undo: str
    done: bool = True


def find_steps(changes: Iterable[Change], *, cut_short: str = "") -> Undo:
    """What there is to bring back.

    :param changes: what a run carried out on a host, in its order.
    :param cut_short: where the run was when it ended before its time, as the record has it.

    Example:
        >>> change = Change(
        ...     verb="stop unit",
        ...     subject="redis.service",
        ...     undo="ports.restored(record='20260101T120000Z-1')",
        ... )
        >>> find_steps([change]).steps[0].name
        '20260101T120000Z-1'
    """
    found = [each for change in changes if (each := _classify(change)) is not None]
    if cut_short:
        found.append(Left(what=f"the run was cut short at {cut_short}", how=_CUT_SHORT))
    found.reverse()
    steps = (each for each in found if isinstance(each, Step))
    return Undo(
        steps=tuple(_drop_repeated(steps)),
        left=tuple(each for each in found if isinstance(each, Left)),
    )


def _classify(change: Change) -> Step | Left | None:
    what = f"{change.verb} {change.subject}"
    if not change.done:
        what += ", which failed"
    if match := _UNDO.fullmatch(change.undo):
        room: Literal["ports", "engine"] = "ports" if match["room"] == "ports" else "engine"
        return Step(room=room, name=match["name"], what=what, done=change.done)
    if change.verb in _HARMLESS:
        return None
    return Left(what=what, how=change.undo)


def _drop_repeated(steps: Iterable[Step]) -> Iterator[Step]:
    known: set[tuple[str, str]] = set()
    for step in steps:
        if (step.room, step.name) not in known:
            known.add((step.room, step.name))
            yield step
