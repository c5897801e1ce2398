"""From an action to the command that does it: the only place where values are quoted."""

import math
import re

from pyinfra.api import StringCommand

from stackmend.connection import script, text
from stackmend.paths import STATE_ROOT
from stackmend.ports.plan import Action

#: Where a host keeps how to bring back what was ended, one directory each.
ROOT = f"{STATE_ROOT}/ports"

#: The file whose lock says that somebody frees ports of this host.
LOCK = f"{ROOT}/lock"

#: Seconds that a command has beyond the grace of what it ends: a unit or a supervisor has its own.
LIMIT = 600

#: What :func:`restored` takes for a record.
RECORD = re.compile(r"latest|[0-9]{8}T[0-9]{6}Z-[0-9]+")

#: Exit statuses of the scripts: the record's name is taken; what was to be ended is another one by
#: now, and was left alone; it was gone already; (look) it is to be brought back; no such record.
TAKEN, CHANGED, GONE, DUE, MISSING = 73, 75, 76, 3, 66


def end(action: Action, record: str, grace: float, root: str = ROOT) -> StringCommand:
    """Record what an action ends, and end it.

    :param record: the name of its record, which must not be there yet.
    :param grace: seconds that a process has to end by itself.
    :param root: where records lie.
    """
    first = (root, record, ",".join(action.ports))
    match action.verb:
        case "stop container":
            one = action.container
            assert one is not None, "the plan names the container"
            return _script("container", *first, one.engine, one.id, one.name)
        case "stop unit":
            return _script("unit", *first, action.manager, *action.units)
        case "stop program":
            program = action.program
            assert program is not None, "the plan names the program"
            words = (str(len(program.stop)), *program.stop, *program.start)
            return _script("program", *first, program.supervisor, program.name, *words)
        case "stop process":
            processes = [
                word
                for member in action.members
                for word in (
                    str(member.process.pid),
                    str(member.process.started),
                    member.process.exe,
                    ",".join(map(str, member.inodes)),
                )
            ]
            return _script("end", *first, str(math.ceil(grace)), *processes)
        case "stop windows process":
            windows = action.windows
            assert windows is not None, "the plan names the process"
            return _script("taskkill", *first, str(windows.pid), windows.image)
        case "reserve":
            return _script("reserve", *first)


def restore(record: str, *, look: bool, root: str = ROOT) -> StringCommand:
    """Bring back what a record holds; print the record's name.

    :param look: only say, by the exit status, whether there is something to bring back.
    """
    mode = "look" if look else "act"
    launch = text("stackmend.ports", "record") + text("stackmend.ports", "launch")
    return _script("restore", root, record, mode, launch)


def _script(name: str, *arguments: str) -> StringCommand:
    return script("stackmend.ports", name, *arguments, before=["record"], shared=["walk", "put"])
