"""What this room's decision is made of, beyond what every decision is."""

from typing import Literal

from stackmend import decision
from stackmend.decision import Finding, Refusal

__all__ = ["Action", "Finding", "Kind", "Plan", "Refusal", "Verb"]

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
    "foreign",
    "check",
    "unknown",
]

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


class Action(decision.Action):
    """One step towards the declared stack.

    :param subject: the service, image, network or container it is done to.
    :param container: the container's id, where the step is done to one.
    :param names: further names the step needs: files, aliases, a network.
    :param mend: it counts against the limits of mending this service.
    """

    verb: Verb
    container: str = ""
    names: tuple[str, ...] = ()
    mend: bool = False


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""
