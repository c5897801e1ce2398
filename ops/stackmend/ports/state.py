"""Who holds a host's ports: models only, filled by the probe, read by the plan."""

from collections.abc import Mapping
from typing import Literal

from stackmend.frozen import Frozen
from stackmend.ports.spec import PortSpec

#: ``free``: a bind succeeded. ``held``: a bind failed, or a socket stands in its way. ``ours``: a
#: running container of the project has exactly this port. ``unknown``: it could not be found out.
PortStatus = Literal["free", "ours", "held", "unknown"]

#: What sort of thing holds a port, which decides how it is asked to let go.
#: ``socket unit``: systemd itself listens for a service. ``outgoing``: the kernel gave the port to
#: a connection of a process to elsewhere. ``node port``: a packet filter takes it before a socket
#: could. ``reserved``: Windows keeps the range. ``hidden``: no owner can be seen, even by root.
HolderKind = Literal[
    "process",
    "unit",
    "socket unit",
    "program",
    "container",
    "outgoing",
    "node port",
    "windows",
    "reserved",
    "hidden",
]


class Socket(Frozen):
    """One socket of the host's own network namespace.

    :param state: the kernel's word: LISTEN, ESTAB, TIME-WAIT, UNCONN, or BOUND where it is bound
        and not listening.
    :param dual: an IPv6 socket on ``::`` that takes IPv4 as well; ``None`` where that is unknown.
    :param peer: address and port of the other end, where it is connected.
    """

    protocol: str
    address: str
    port: int
    state: str
    inode: int = 0
    dual: bool | None = None
    peer: str = ""
    pids: tuple[int, ...] = ()


class Process(Frozen):
    """One process, with what tells it from a later one of the same number.

    :param started: its start time in clock ticks since boot (``/proc/PID/stat``, field 22).
    :param name: the kernel's short name of it (``/proc/PID/comm``).
    :param exe: its program's path; empty where it cannot be read.
    :param parent: its parent's number.
    :param unit: the systemd unit that its control group names, if any.
    :param manager: ``system``, or the name of the user whose manager has that unit.
    :param session: whether that unit is a login session's scope, or a service that starts what
        users tell it to (ssh, cron): then systemd did not start this process.
    :param container: the container that its control group names, if any; where the host itself is
        a container of another machine, that one does not count.
    :param seconds: how long it has been running.
    """

    pid: int
    started: int = 0
    name: str = ""
    exe: str = ""
    argv: tuple[str, ...] = ()
    cwd: str = ""
    uid: int = -1
    user: str = ""
    parent: int = 0
    unit: str = ""
    manager: str = ""
    session: bool = False
    container: str = ""
    seconds: float = 0


class Unit(Frozen):
    """One unit of systemd.

    :param manager: ``system``, or the name of the user whose manager has it.
    :param active: its ActiveState.
    :param enabled: its UnitFileState.
    :param triggered_by: the sockets and timers that start it.
    :param triggers: what it starts.
    :param listens: for a socket, the addresses it listens on, as systemd writes them.
    """

    name: str
    manager: str = "system"
    active: str = ""
    enabled: str = ""
    restart: str = ""
    main_pid: int = 0
    triggered_by: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    fragment: str = ""


class Container(Frozen):
    """One container of whatever engine the host has.

    :param engine: ``docker``, ``docker:unix:///path`` for a further daemon, ``podman``, or
        ``podman:USER`` for a user's own.
    :param project: the Compose project that its labels name, where they are no image's.
    :param foreign: why it is not one that Compose made for that project; empty where it is.
    :param published: ``address:port/protocol`` as the host has it, one each.
    :param host_network: whether it shares the host's network, and publishes nothing itself.
    :param pid: its first process on the host.
    """

    id: str
    name: str
    engine: str = "docker"
    project: str = ""
    service: str = ""
    working_dir: str = ""
    oneoff: bool = False
    foreign: str = ""
    running: bool = True
    restart: str = "no"
    published: tuple[str, ...] = ()
    host_network: bool = False
    pid: int = 0


class Program(Frozen):
    """A process that a supervisor other than systemd keeps.

    :param supervisor: ``supervisord``, ``runit``, ``s6``, ``openrc``, ``snap``, …
    :param name: the supervisor's name of it.
    :param stop: the words of the command that stops it for good; empty where the supervisor
        cannot be asked, and would start it again if it were ended otherwise.
    :param start: those that bring it back.
    """

    supervisor: str
    name: str
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()


class WindowsProcess(Frozen):
    """A process on the Windows side of a WSL2 machine.

    :param services: the services that it hosts.
    """

    pid: int
    image: str = ""
    services: tuple[str, ...] = ()


class Holder(Frozen):
    """Who holds a port, and on what evidence.

    Exactly the fields that its kind speaks of are filled; ``process`` also where the kind is
    another one and the process that has the socket is known.

    :param sockets: the sockets that stand in the way.
    :param evidence: what it rests on: ``ss``, ``/proc``, ``docker ps``, ``systemctl``, …
    :param why_hidden: why no owner is known, or what keeps a range reserved.
    """

    kind: HolderKind
    evidence: tuple[str, ...] = ()
    sockets: tuple[Socket, ...] = ()
    process: Process | None = None
    unit: Unit | None = None
    program: Program | None = None
    container: Container | None = None
    windows: WindowsProcess | None = None
    why_hidden: str = ""


class PortState(Frozen):
    """One desired port as the host has it now.

    :param evidence: what the status rests on: ``bind (python3)``, ``bind (perl)``, ``ss``,
        ``/proc/net``, ``netstat.exe``, with the error where there is one.
    :param problem: why its status is unknown, or why this host can never bind it (an address that
        it does not have).
    """

    desired: PortSpec
    status: PortStatus
    evidence: str = ""
    holders: tuple[Holder, ...] = ()
    problem: str = ""


class HostPorts(Frozen):
    """The desired ports of one host, and what must be known to free one without harm.

    :param system: ``linux``, ``wsl`` or ``darwin``.
    :param engine: ``up``, ``absent``, ``stopped``, ``forbidden`` or ``unknown``.
    :param live_containers: containers that run although the engine is stopped.
    :param processes: every process that is named by a holder, with all its ancestors, by number.
    :param guarded: the numbers of our own shell and its ancestors, and of the sshd that we came
        through and its listener.
    :param ephemeral: the first and the last port that the kernel gives to outgoing connections.
    :param reserved: those that it keeps from them, as ``ip_local_reserved_ports`` has them.
    :param tools: what was found to look with.
    :param root: whether everything could be seen.
    """

    ports: tuple[PortState, ...] = ()
    system: Literal["linux", "wsl", "darwin"] = "linux"
    engine: Literal["up", "absent", "stopped", "forbidden", "unknown"] = "unknown"
    engine_reason: str = ""
    live_restore: bool = False
    live_containers: int = 0
    processes: Mapping[int, Process] = {}
    guarded: tuple[int, ...] = ()
    ephemeral: tuple[int, int] = (32768, 60999)
    reserved: str = ""
    tools: tuple[str, ...] = ()
    root: bool = True
    now: float = 0
