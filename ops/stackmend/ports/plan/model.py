"""What this room's decision is made of, beyond what every decision is."""

from typing import Literal

from stackmend import decision
from stackmend.frozen import Frozen
from stackmend.ports.state import Container, Process, Program, Socket, WindowsProcess

_UNDO = "ports.restored with the name of its record"


class Member(Frozen):
    """One process that is stopped, with what tells it from a later one of the same number.

    :param inodes: its sockets that stand in the way.
    """

    process: Process
    inodes: tuple[int, ...] = ()


class Stop(decision.Action):
    """Stop what holds ports.

    :param ports: the desired ports that it frees, as :class:`~stackmend.ports.spec.PortSpec` writes
        them.
    """

    destructive: bool = True
    undo: str = _UNDO
    ports: tuple[str, ...]

    @property
    def mended(self) -> str:
        """The ports: who takes them again is another process each time."""
        return ", ".join(self.ports)


class StopContainer(Stop):
    """Stop a container on its own engine, so that it does not start again by itself."""

    verb: Literal["stop container"] = "stop container"
    container: Container


class StopUnits(Stop):
    """Stop units together.

    :param manager: whose systemd has them: ``system``, or a user.
    """

    verb: Literal["stop unit"] = "stop unit"
    units: tuple[str, ...]
    manager: str = "system"


class StopProgram(Stop):
    """Have a supervisor stop a program that it keeps."""

    verb: Literal["stop program"] = "stop program"
    program: Program


class StopProcess(Stop):
    """End a process, and then those of its descendants that have the same sockets."""

    verb: Literal["stop process"] = "stop process"
    members: tuple[Member, ...]


class StopWindowsProcess(Stop):
    """End a process on the Windows side of a WSL2 machine."""

    verb: Literal["stop windows process"] = "stop windows process"
    process: WindowsProcess


class CloseConnections(Stop):
    """Close outgoing connections, and leave the program that has them alone."""

    verb: Literal["close"] = "close"
    undo: str = "the program connects again by itself where it needs to"
    sockets: tuple[Socket, ...]


class Reserve(decision.Action):
    """Keep ports from outgoing connections; the subject lists them as the kernel does."""

    verb: Literal["reserve"] = "reserve"
    undo: str = _UNDO


Action = (
    StopContainer
    | StopUnits
    | StopProgram
    | StopProcess
    | StopWindowsProcess
    | CloseConnections
    | Reserve
)


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""
