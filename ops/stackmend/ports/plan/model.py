"""What this room's decision is made of, beyond what every decision is."""

from typing import Literal

from stackmend import decision
from stackmend.frozen import Frozen
from stackmend.ports.state import Container, Process, Program, WindowsProcess

Verb = Literal[
    "stop container",
    "stop unit",
    "stop program",
    "stop process",
    "stop windows process",
    "reserve",
]


class Member(Frozen):
    """One process that is ended, with what tells it from a later one of the same number.

    :param inodes: its sockets that stand in the way.
    """

    process: Process
    inodes: tuple[int, ...] = ()


class Action(decision.Action):
    """One step towards ports that can be bound.

    Exactly the fields that its verb speaks of are filled.

    :param ports: the wanted ports that it frees, as :class:`~stackmend.ports.spec.PortSpec` writes
        them; for ``reserve`` the ranges that are added.
    :param units: the units that are stopped together.
    :param manager: whose systemd has them: ``system``, or a user.
    :param members: the process that is ended first, and then those of its descendants that have
        the same sockets.
    """

    verb: Verb
    ports: tuple[str, ...] = ()
    container: Container | None = None
    units: tuple[str, ...] = ()
    manager: str = "system"
    program: Program | None = None
    members: tuple[Member, ...] = ()
    windows: WindowsProcess | None = None


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""
