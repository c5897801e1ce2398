"""What a decision is made of: findings, actions, refusals."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal[
    "missing",
    "created",
    "stopped",
    "exited",
    "paused",
    "starting",
    "unhealthy",
    "restart loop",
    "hung",
    "scale",
    "changed",
    "image",
    "content",
    "files",
    "drift",
    "orphan",
    "leftover",
    "adopted",
    "check",
    "unknown",
]


class Frozen(BaseModel):
    """A value that is made once."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Frozen):
    """One thing that is not as it should be, and how that is known."""

    subject: str
    kind: Kind
    cause: str
    evidence: tuple[str, ...] = ()
    blocks: bool = True


class Refusal(Frozen):
    """Something that is needed and will not be done, why, and what would allow it."""

    subject: str
    reason: str
    way_out: str


Verb = Literal[
    "set aside",
    "disconnect stranger",
    "pull",
    "build",
    "install files",
    "remove network",
    "attach",
    "detach",
    "unpause",
    "resume",
    "start",
    "restart",
    "recreate",
    "up",
    "remove",
    "record",
]


class Action(Frozen):
    """One step, with its reason and the way back.

    :param subject: the service, image, network or container it is done to.
    :param container: the container's id, where the step is done to one.
    :param names: further names the step needs: files, aliases, a network.
    :param mend: it counts against the limits of mending this service.
    """

    verb: Verb
    subject: str
    cause: str
    container: str = ""
    names: tuple[str, ...] = ()
    destructive: bool = False
    undo: str = ""
    mend: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}: {self.cause}"


class Plan(Frozen):
    """What was found, what will be done, in order, and what will not."""

    findings: tuple[Finding, ...] = ()
    actions: tuple[Action, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing to do and nothing wrong."""
        return not self.actions and not self.refusals and not self.problems

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that stand against calling the stack converged."""
        return tuple(finding for finding in self.findings if finding.blocks)
