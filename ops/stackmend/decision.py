"""What every room's decision is made of: findings, actions, refusals. Pure."""

from typing import ClassVar, Generic, TypeVar

from pydantic import Field

from stackmend.frozen import Frozen


class Finding(Frozen):
    """One thing that is not as it should be, and how that is known.

    :param subject: what it is about: a service, a port, a model.
    :param kind: what sort of thing it is, in a word or two.
    :param cause: what is wrong, in words.
    :param evidence: what was seen that says so, line by line.
    :param remedy: what would mend it, where the plan does not.
    :param blocks: whether the host cannot be called well because of it.
    """

    subject: str
    kind: str
    cause: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    blocks: bool = True


class Refusal(Frozen):
    """Something that is needed and will not be done, why, and what would allow it.

    :param subject: what it is about.
    :param reason: why it is not done.
    :param remedy: what would allow it: the line to add to the inventory, or another way.
    """

    subject: str
    reason: str
    remedy: str


class Locked(Refusal):
    """A refusal because another run is at work there: it holds the lock, and nothing was begun.

    It has no more fields than its kind, and stands in a record as any refusal. Where a host has no
    other, its outcome says so.
    """


class Paused(Refusal):
    """A refusal because somebody has paused the host, or what it is about, and nothing else.

    Where a host has no other, nothing has failed there: its outcome says so. Records have it
    without its own field.

    :param complete: whether all of the plan is left alone, whatever it finds.
    """

    complete: bool = Field(default=True, exclude=True)


class Deferred(Refusal):
    """A refusal because runs failed here lately: the host is broken, and is mended later."""


class Action(Frozen):
    """One step, with its reason and the way back. Each room adds what its steps need.

    :param verb: what is done.
    :param subject: what it is done to.
    :param cause: why.
    :param destructive: whether something of somebody's may be lost by it.
    :param undo: how to take it back, in words or as a command.
    :cvar prepares: whether the host is no other by it, as by a download: where it fails, nothing
        has got worse.
    :cvar lasts: whether it mends something that is then to last, so that a schedule stops mending
        what does not.
    :cvar all_services: whether it changes all of a project: a pause of any service holds it.
    """

    prepares: ClassVar[bool] = False
    lasts: ClassVar[bool] = True
    all_services: ClassVar[bool] = False

    verb: str
    subject: str
    cause: str
    destructive: bool = False
    undo: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}: {self.cause}"

    @property
    def mended(self) -> str:
        """What it mends, by a name that is the same when that breaks again: no id or pid."""
        return self.subject


A = TypeVar("A", bound=Action)


class Plan(Frozen, Generic[A]):
    """What was found, what will be done, in order, and what will not."""

    findings: tuple[Finding, ...] = ()
    actions: tuple[A, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing to do and nothing wrong."""
        return not self.actions and not self.refusals and not self.problems

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that stand against calling the host well."""
        return tuple(finding for finding in self.findings if finding.blocks)
