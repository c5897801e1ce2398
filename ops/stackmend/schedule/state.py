"""What a host has of a timer: models only."""

from collections.abc import Mapping
from typing import Literal

from stackmend.frozen import Frozen


class Interpreter(Frozen):
    """A Python of the host.

    :param path: its program.
    :param version: such as ``3.11.2``.
    :param tag: what its extension modules are built for, such as ``cp311``.
    """

    path: str
    version: str
    tag: str

    @property
    def number(self) -> tuple[int, ...]:
        """Its version, to compare."""
        return tuple(int(part) for part in self.version.split(".")[:2])


class HostSchedule(Frozen):
    """What a host has of a timer.

    :param root: whether we are root there.
    :param same: whether it is the machine that this run is on.
    :param system: the kernel's name, such as ``Linux``.
    :param machine: the processor's, such as ``x86_64``.
    :param library: the C library and its version, such as ``glibc 2.36``.
    :param login: the home directory of who is to run it; empty where that is not known.
    :param init: what starts timers.
    :param version: systemd's; 0 without it.
    :param misfit: why its ``systemd-analyze`` does not take what ``OnCalendar`` is to hold; empty
        where it does.
    :param cron: where a table of cron's would lie; empty without cron.
    :param cron_runs: whether cron runs.
    :param files: each file of the timer that is there, and what it holds.
    :param inventory: what it runs, where that is a file of the host.
    :param foreign: drop-ins of somebody's that change a unit of it.
    :param unread: whether systemd runs a unit of it otherwise than its files say.
    :param enabled: whether the timer starts with the host.
    :param active: whether it runs.
    :param masked: whether somebody masked one of its units.
    :param leftovers: what else of it lies on the host.
    :param tools: the programs that a table of cron's needs, as far as they are there.
    :param reload_takes: containers that lose a GPU when systemd reads its units again.
    :param interpreters: the Pythons of the host, the best first.
    :param generation: the digest of the program and settings that the host runs by itself.
    :param intact: whether these settings and their files are as they were brought.
    :param starts: whether this program starts.
    :param failure: how the last run that it began ended, where it failed.
    """

    root: bool
    same: bool = False
    system: str = "Linux"
    machine: str = ""
    library: str = ""
    login: str = ""
    init: Literal["systemd", "cron", ""] = ""
    version: int = 0
    misfit: str = ""
    cron: str = ""
    cron_runs: bool = False
    files: Mapping[str, str] = {}
    inventory: str = ""
    foreign: tuple[str, ...] = ()
    unread: bool = False
    enabled: bool = False
    active: bool = False
    masked: bool = False
    leftovers: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    reload_takes: tuple[str, ...] = ()
    interpreters: tuple[Interpreter, ...] = ()
    generation: str = ""
    intact: bool = False
    starts: bool = False
    failure: str = ""
