"""From an action to the command that does it: the only place where values are quoted."""

import math
import re
from collections.abc import Iterable

from pyinfra.api import StringCommand

from stackmend.connection import read_script, script
from stackmend.paths import STATE_ROOT
from stackmend.ports.plan.model import (
    Action,
    CloseConnections,
    Member,
    Reserve,
    StopContainer,
    StopProcess,
    StopProgram,
    StopUnits,
    StopWindowsProcess,
)

#: Where a host keeps how to bring back what was stopped, one directory each.
ROOT = f"{STATE_ROOT}/ports"

#: Seconds that a command has beyond the grace of what it ends: a unit or a supervisor has its own.
LIMIT = 600

#: What :func:`stackmend.ports.restored` takes for a record.
RECORD = re.compile(r"latest|[0-9]{8}T[0-9]{6}Z-[0-9]+")

#: Exit statuses of the scripts: the record's name is taken; what was to be stopped is another one
#: by now, and was left alone; it was gone already; (observe) it is to be brought back; no such
#: record.
TAKEN, CHANGED, ABSENT, DUE, MISSING = 73, 75, 76, 3, 66


def execute(action: Action, record: str, grace: float, root: str = ROOT) -> StringCommand:
    """Record what an action changes where it can be brought back, and carry it out.

    :param record: the name of its record, which must not be there yet.
    :param grace: seconds that a process has to end by itself.
    :param root: where records lie.
    """
    if isinstance(action, Reserve):
        return _build_script("reserve", root, record, action.subject)
    if isinstance(action, CloseConnections):
        # A connection is not brought back: there is nothing to record.
        ends = ((socket.protocol, str(socket.port), str(socket.inode)) for socket in action.sockets)
        return script("stackmend.ports", "close", *(word for end in ends for word in end))
    first = (root, record, ",".join(action.ports))
    match action:
        case StopContainer(container=container):
            return _build_script(
                "container", *first, container.engine, container.id, container.name
            )
        case StopUnits():
            return _build_script("unit", *first, action.manager, *action.units)
        case StopProgram(program=program):
            words = (str(len(program.stop)), *program.stop, *program.start)
            return _build_script("program", *first, program.supervisor, program.name, *words)
        case StopProcess():
            return _build_script(
                "end", *first, str(math.ceil(grace)), *_list_identities(action.members)
            )
        case StopWindowsProcess(process=process):
            return _build_script("taskkill", *first, str(process.pid), process.image)


def _list_identities(members: Iterable[Member]) -> Iterable[str]:
    for member in members:
        process = member.process
        yield from (str(process.pid), str(process.started), process.exe)
        yield ",".join(map(str, member.inodes))


def restore(record: str, *, observe: bool, root: str = ROOT) -> StringCommand:
    """Bring back what a record holds; print the record's name.

    :param observe: only say, by the exit status, whether there is something to bring back; where
        that would be started, its ports are a second line.
    """
    mode = "observe" if observe else "act"
    parts = ("record", "launch.py", "launch")
    launch = "".join(read_script("stackmend.ports", part) for part in parts)
    return _build_script("restore", root, record, mode, launch)


def _build_script(name: str, *arguments: str) -> StringCommand:
    before = ["record", "end.py"] if name == "end" else ["record"]
    return script("stackmend.ports", name, *arguments, before=before, shared=["walk", "put"])
