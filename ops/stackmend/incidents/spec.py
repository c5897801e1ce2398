"""What an incident is: the typed interface, for the built-in ones and for those of users."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stackmend.connectivity.faults import FaultName
from stackmend.diagnosis import Evidence, Severity
from stackmend.frozen import Frozen
from stackmend.incidents.state import SOURCES, Observations, Source

#: How many count a pattern may match from one place of a text: what bounds its time.
MOST_MATCHES = 4096

_LITERALS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.S)
# The beginning of a group, its end, an alternative, an option, a bound; all but the options that
# give nothing back.
_STEP = re.compile(r"(\()\??|([)|])|\?(?!\+)|\{(\d*),(\d+)\}(?!\+)")


def _check_pattern(pattern: str) -> str:
    """Hold a pattern against what takes time in proportion to any text.

    :raises ValueError: saying what to write instead.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if compiled.search(""):
        raise ValueError("matches the empty text; name at least one word of the symptom")
    bare = _LITERALS.sub("x", pattern)
    if re.search(r"\*|(?<![?}])\+", bare):
        raise ValueError("repeats without an end (* or +); write {0,200} or {1,200}")
    if re.search(r"\{\d*,\}", bare):
        raise ValueError("repeats without an end ({n,}); write {n,200}")
    if re.search(r"\)(?:\{|\?\+)", bare):
        raise ValueError("repeats a group; write its alternatives out")
    count = _count_matches(bare)
    if count > MOST_MATCHES:
        raise ValueError(
            f"may match in {count} ways; {MOST_MATCHES} are the most: lower its bounds, have them "
            "give nothing back ({1,63}+), or name fewer alternatives"
        )
    if re.search(r"[A-Z]", re.sub(r"\\.", "", pattern)):
        raise ValueError("must be in small letters: texts are compared without regard to case")
    return pattern


def _count_matches(bare: str) -> int:
    """In how many ways a pattern may match at one place: what follows it is tried after each."""
    # Of each group that is open: those of the alternatives before, and of the one that is read.
    open_groups = [[0, 1]]
    for opens, closes, least, most in _STEP.findall(bare):
        if opens:
            open_groups.append([0, 1])
        elif closes == "|":
            open_groups[-1] = [sum(open_groups[-1]), 1]
        elif closes and len(open_groups) > 1:
            matches = sum(open_groups.pop())
            open_groups[-1][1] *= matches
        elif not closes:
            open_groups[-1][1] *= int(most) - int(least or 0) + 1 if most else 2
    return sum(open_groups[-1])


def _check_optional(pattern: str) -> str:
    return _check_pattern(pattern) if pattern else ""


class TextPattern(Frozen):
    """A symptom as people meet it: part of one line of a log, a journal or an error.

    :param pattern: a regular expression in small letters, compared with one line without regard to
        case; each of its repetitions has an end.
    :param examples: lines, as programs print them, that it matches.
    :param sources: where it counts; by default everywhere.
    """

    pattern: Annotated[str, Field(max_length=2000), AfterValidator(_check_pattern)]
    examples: tuple[str, ...] = Field(min_length=1)
    sources: frozenset[Source] = SOURCES

    def search(self, lowered: str) -> re.Match[str] | None:
        """Where it matches first.

        :param lowered: a text in small letters.
        """
        return _compile(self.pattern).search(lowered)


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


class StatePattern(Frozen):
    """What a room finds, refuses or would do that means an incident.

    :param operation: the room's operation, such as ``compose.stack``.
    :param of: of what it says this is about: findings, refusals, steps that it would take.
    :param kinds: kinds of findings, verbs of steps; empty for any. Refusals have none.
    :param subject: what the subject matches, as in :class:`TextPattern`; empty for any.
    :param cause: the same of its cause, or a refusal's reason.
    :param notes: whether findings count as well that fail nothing.
    :param blinds: whether its operation says nothing of anything else where this is met, as one of
        a server that does not run.
    """

    operation: str
    of: Literal["finding", "refusal", "step"] = "finding"
    kinds: frozenset[str] = frozenset()
    subject: Annotated[str, AfterValidator(_check_optional)] = ""
    cause: Annotated[str, AfterValidator(_check_optional)] = ""
    notes: bool = False
    blinds: bool = False

    def is_met(self, kind: str, subject: str, cause: str) -> bool:
        """Whether something of its operation means the incident.

        :param kind: the kind of a finding or the verb of a step; empty for a refusal.
        :param subject: what it is about.
        :param cause: why, or what is wrong.
        """
        if self.kinds and kind not in self.kinds:
            return False
        pairs = ((self.subject, subject), (self.cause, cause))
        return all(_compile(want).search(has.lower()) for want, has in pairs if want)


class Undetermined(Exception):
    """What :meth:`Incident.find` raises where it cannot tell whether a host has an incident.

    The check is ``unknown`` then, with the text as its reason.
    """


class Incident(Frozen):
    """What goes wrong with a stack in one way: symptoms, diagnosis, remedy, proof.

    Subclass it to derive an incident from facts: override :meth:`find`.

    :param id: its name, such as ``port-taken``.
    :param title: what it is, in one line.
    :param severity: how bad it is.
    :param patterns: what programs print where a host has it.
    :param faults: classes of trouble with the outside world, as
        ``stackmend.connectivity.classify`` tells them from a text, that mean it.
    :param states: what rooms find or refuse where a host has it.
    :param operations: the operations that say whether a host has it: where they ran and found
        nothing, its symptoms in logs are of the past. Those of ``states`` belong to them.
    :param explains: the ids of incidents that it may cause. One that a host has stands behind it
        where a fact connects the two: they are about the same, or about services of which one
        depends on the other or calls it; else both are root causes.
    :param confined: those of ``explains`` that it causes in its own services alone, and in none
        that depends on them.
    :param outward: those of ``explains`` that it causes in what calls its own services, and not in
        these themselves.
    :param everywhere: those of ``explains`` that rest on it whatever they are about, as all
        containers rest on their engine.
    :param remedy: what mends it; begins with a verb.
    :param inventory: the line of inventory that asks stackmend for that, or allows it.
    :param proof: what shows that it is mended.

    Example:
        >>> Incident(
        ...     id="fan-stopped",
        ...     title="The fan of the accelerator stands still",
        ...     severity="warning",
        ...     patterns=(TextPattern(pattern="fan stall", examples=("GPU fan stall",)),),
        ...     remedy="clean or replace the fan",
        ...     proof="the kernel's log names it no more",
        ... )
    """

    id: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")
    title: str = Field(min_length=1, max_length=200)
    severity: Severity
    patterns: tuple[TextPattern, ...] = ()
    faults: frozenset[FaultName] = frozenset()
    states: tuple[StatePattern, ...] = ()
    operations: frozenset[str] = frozenset()
    explains: tuple[str, ...] = ()
    confined: frozenset[str] = frozenset()
    outward: frozenset[str] = frozenset()
    everywhere: frozenset[str] = frozenset()
    remedy: str = Field(min_length=1)
    inventory: str = ""
    proof: str = Field(min_length=1)

    def list_operations(self) -> frozenset[str]:
        """The operations that say whether a host has it."""
        return self.operations | {state.operation for state in self.states}

    def find(self, observations: Observations) -> Iterable[tuple[str, Evidence]]:
        """Derive it from what was read of a host; by default there is nothing to derive.

        :param observations: all that was read; ``observations.list_states(SomeState)`` gives what
            a room read, as its ``state.py`` has it.
        :returns: pairs of what it is about, such as a service, and the line that says so.
        :raises Undetermined: what would tell could not be read.
        """
        return ()
