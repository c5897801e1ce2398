"""What would have to be stopped for a holder to let go, and which rules may allow it. Pure."""

import json
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from stackmend.frozen import Frozen
from stackmend.ports.format import (
    format_container,
    format_process,
    format_program,
    format_running,
    join_some,
    name_program,
    replace_controls,
)
from stackmend.ports.plan.model import (
    Action,
    CloseConnections,
    Member,
    StopContainer,
    StopProcess,
    StopProgram,
    StopUnits,
    StopWindowsProcess,
)
from stackmend.ports.spec import is_named
from stackmend.ports.state import (
    Container,
    Holder,
    Process,
    Program,
    Socket,
    Unit,
    WindowsProcess,
)

#: Units that start what others ask for: a process there that is not the unit's own program is
#: nobody's service. Without a login manager, what a login started stays in the SSH server's unit.
_LAUNCHERS = re.compile(
    r"user@.*\.service|(?:ssh|sshd|cron|crond|cronie|atd|getty|console-getty|serial-getty)"
    r"(?:@.*)?\.service|.*\.scope|.*\.slice"
)
_OWN_PROGRAM = re.compile(r"systemd|sshd|sshd-session|sshd-auth|cron|crond|atd|agetty|login")


class Units(Frozen):
    """Units that are stopped together.

    :param manager: whose systemd has them: ``system``, or a user.
    """

    names: tuple[str, ...]
    manager: str = "system"


class Processes(Frozen):
    """A process, and then those of its descendants that have the same sockets."""

    members: tuple[Member, ...]


class Connections(Frozen):
    """Outgoing connections of one process, which is left alone."""

    process: Process
    sockets: tuple[Socket, ...]

    @property
    def peers(self) -> tuple[str, ...]:
        """Their other ends."""
        return tuple(dict.fromkeys(socket.peer for socket in self.sockets))


Owner = Container | Units | Program | Processes | WindowsProcess | Connections
_ORDER = (Container, Units, Program, Processes, WindowsProcess, Connections)


class Target(Frozen):
    """One thing that holds desired ports.

    :param owner: what would have to be stopped.
    :param ports: the desired ports that it holds.
    :param holders: what is known of it.
    """

    owner: Owner
    ports: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands on the ladder; the same for the same things in whatever order."""
        return _ORDER.index(type(self.owner)), self.subject

    @property
    def units(self) -> tuple[str, ...]:
        """The units that would be stopped."""
        return self.owner.names if isinstance(self.owner, Units) else ()

    @property
    def container(self) -> Container | None:
        """The container that would be stopped."""
        return self.owner if isinstance(self.owner, Container) else None

    @property
    def members(self) -> tuple[Member, ...]:
        """The processes that would be signalled."""
        return self.owner.members if isinstance(self.owner, Processes) else ()

    @property
    def processes(self) -> tuple[Process, ...]:
        """The processes that are known of it, those that would be signalled first."""
        held = (holder.process for holder in self.holders if holder.process is not None)
        return (*(member.process for member in self.members), *held)

    @property
    def workers(self) -> tuple[Process, ...]:
        """The same without systemd, which listens for others."""
        return tuple(process for process in self.processes if process.pid != 1)

    @property
    def subject(self) -> str:
        """What it is called."""
        match self.owner:
            case Container(name=name, id=id_):
                return name or id_[:12]
            case Units(names=names, manager=manager):
                return " ".join(names) + ("" if manager == "system" else f" of user {manager}")
            case Program(supervisor=supervisor, name=name):
                return replace_controls(f"{supervisor} program {name}")
            case WindowsProcess(image=image, pid=pid):
                return f"{replace_controls(image) or 'a program'} (Windows pid {pid})"
            case Processes(members=members):
                first = members[0].process
                more = f" and {len(members) - 1} of its own" if len(members) > 1 else ""
                return f"{format_program(first)} (pid {first.pid}){more}"
            case Connections(peers=peers, process=process):
                return f"connection of pid {process.pid} to {join_some(peers)}"

    @property
    def description(self) -> str:
        """Who it is, for people."""
        match self.owner:
            case Container() as container:
                return format_container(container)
            case Processes(members=members):
                return join_some(format_process(member.process) for member in members)
            case Units(names=names):
                noun = "units" if len(names) > 1 else "unit"
                return f"{noun} {self.subject}{format_running(next(iter(self.workers), None))}"
            case Connections(peers=peers, process=process):
                return f"outgoing connection to {join_some(peers)}{format_running(process)}"
        return self.subject + format_running(next(iter(self.processes), None))

    def stop(self) -> Action:
        """The step that stops it."""
        cause = f"{join_some(self.ports)} held by {self.description}"
        common: dict[str, Any] = {"subject": self.subject, "cause": cause, "ports": self.ports}
        match self.owner:
            case Container() as container:
                return StopContainer(container=container, **common)
            case Units(names=names, manager=manager):
                return StopUnits(units=names, manager=manager, **common)
            case Program() as program:
                return StopProgram(program=program, **common)
            case Processes(members=members):
                return StopProcess(members=members, **common)
            case WindowsProcess() as process:
                return StopWindowsProcess(process=process, **common)
            case Connections(sockets=sockets):
                return CloseConnections(sockets=sockets, **common)


def find_target(holder: Holder) -> Target | None:
    """What would be stopped for a holder; ``None`` where nothing of it can be."""
    owner = _find_owner(holder)
    return None if owner is None else Target(owner=owner, holders=(holder,))


def _find_owner(holder: Holder) -> Owner | None:
    process, unit = holder.process, holder.unit
    if holder.kind == "outgoing":
        # What the kernel itself has is a mount, or is ending already.
        closable = all(socket.peer and socket.inode for socket in holder.sockets)
        if process is None or process.container or not holder.sockets or not closable:
            return None
        return Connections(process=process, sockets=holder.sockets)
    if holder.kind in ("node port", "reserved", "hidden"):
        return None
    if holder.container is not None:
        return holder.container
    if holder.kind == "container" or (process is not None and process.container):
        return None
    if holder.kind == "program":
        return holder.program if holder.program is not None and holder.program.stop else None
    if holder.kind == "windows":
        return holder.windows
    if unit is None and process is not None and process.unit.endswith(".service"):
        unit = Unit(name=process.unit, manager=process.manager or "system")
    if unit is not None and not _is_launched(unit, process):
        together = unit.triggers if unit.name.endswith(".socket") else unit.triggered_by
        return Units(names=_sort_units({unit.name, *together}), manager=unit.manager)
    if process is None:
        return None
    inodes = tuple(sorted({socket.inode for socket in holder.sockets if socket.inode}))
    return Processes(members=(Member(process=process, inodes=inodes),))


def _sort_units(units: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(units, key=lambda name: (not name.endswith(".socket"), name)))


def _is_launched(unit: Unit, process: Process | None) -> bool:
    """Whether a process is nobody's service although a unit's control group has it."""
    if process is None:
        return False
    if process.session:
        return True
    if not is_launcher(unit.name):
        return False
    return process.pid != unit.main_pid and not _OWN_PROGRAM.fullmatch(name_program(process))


def is_launcher(unit: str) -> bool:
    """Whether a unit starts what others ask for, so that its control group says little."""
    return _LAUNCHERS.fullmatch(unit) is not None


def merge_targets(targets: Iterable[Target], parents: dict[int, int]) -> list[Target]:
    """Each thing once, however many ports it holds.

    :param parents: the parent of each process, by number.
    """
    alike: dict[Hashable, list[Target]] = {}
    for target in targets:
        alike.setdefault(_make_key(target), []).append(target)
    merged: list[Target] = []
    for target in (_merge(same, parents) for same in alike.values()):
        same = [other for other in merged if _is_same(target, other, parents)]
        if same:
            target = _merge([*same, target], parents)
            merged = [other for other in merged if all(other is not part for part in same)]
        merged.append(target)
    return sorted(merged, key=lambda target: target.order)


def _make_key(target: Target) -> Hashable:
    """What is equal for the same thing; units and processes may belong together beyond it."""
    match target.owner:
        case Container(engine=engine, id=id_):
            return "container", engine, id_
        case Program(supervisor=supervisor, name=name):
            return "program", supervisor, name
        case WindowsProcess(pid=pid):
            return "windows", pid
        case Units(names=names, manager=manager):
            return "units", manager, names
        case Processes(members=members):
            return "process", members[0].process.pid
        case Connections(process=process):
            return "connections", process.pid


def _is_same(target: Target, other: Target, parents: dict[int, int]) -> bool:
    if isinstance(target.owner, Units) and isinstance(other.owner, Units):
        managers = {target.owner.manager, other.owner.manager}
        return len(managers) == 1 and bool({*target.units} & {*other.units})
    common = bool({*target.ports} & {*other.ports})
    return any(
        _is_related(member, another, parents, common)
        for member in target.members
        for another in other.members
    )


def _is_related(member: Member, other: Member, parents: dict[int, int], common: bool) -> bool:
    shared = {*member.inodes} & {*other.inodes}
    if not shared and (member.inodes or other.inodes or not common):
        return False
    pid, another = member.process.pid, other.process.pid
    return pid in _list_ancestors(another, parents) or another in _list_ancestors(pid, parents)


def _list_ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    above: set[int] = set()
    while (pid := parents.get(pid, 0)) > 0 and pid not in above:
        above.add(pid)
    return above


def _merge(same: Sequence[Target], parents: dict[int, int]) -> Target:
    owner = min(same, key=lambda target: target.model_dump_json()).owner
    if isinstance(owner, Units):
        names = _sort_units({name for target in same for name in target.units})
        owner = owner.model_copy(update={"names": names})
    elif isinstance(owner, Processes):
        owner = Processes(members=_merge_members(same, parents))
    elif isinstance(owner, Connections):
        sockets = {
            socket.model_dump_json(): socket
            for target in same
            if isinstance(target.owner, Connections)
            for socket in target.owner.sockets
        }
        sockets = {key: sockets[key] for key in sorted(sockets)}
        owner = owner.model_copy(update={"sockets": tuple(sockets.values())})
    holders = {holder.model_dump_json(): holder for target in same for holder in target.holders}
    return Target(
        owner=owner,
        ports=tuple(dict.fromkeys(port for target in same for port in target.ports)),
        holders=tuple(holders[key] for key in sorted(holders)),
    )


def _merge_members(same: Sequence[Target], parents: dict[int, int]) -> tuple[Member, ...]:
    members: dict[int, Member] = {}
    for member in (member for target in same for member in target.members):
        pid = member.process.pid
        before = members[pid].inodes if pid in members else ()
        inodes = tuple(sorted({*before, *member.inodes}))
        members[pid] = member.model_copy(update={"inodes": inodes})
    # What started the others comes first: it might start them again.
    ordered = sorted(
        members, key=lambda pid: (len(_list_ancestors(pid, parents) & {*members}), pid)
    )
    return tuple(members[pid] for pid in ordered)


def list_names(target: Target, kind: str, others: Sequence[Process] = ()) -> tuple[str, ...]:
    """Everything of a target that a rule of this kind may name, to protect it.

    :param others: processes that would end with it, although they hold none of the ports.
    """
    owner, workers = target.owner, (*target.workers, *others)
    container = target.container
    match kind:
        case "exe":
            images = (owner.image,) if isinstance(owner, WindowsProcess) else ()
            return (*(exe for process in workers for exe in _list_exes(process)), *images)
        case "user":
            return tuple(process.user for process in workers)
        case "unit":
            return (*target.units, *(process.unit for process in workers))
        case "container":
            return (container.name, container.id) if container is not None else ()
        case "project":
            return (container.project,) if container is not None else ()
        case "connection":
            return owner.peers if isinstance(owner, Connections) else ()
    raise AssertionError(f"{kind} is no kind of rule")


def is_allowed(target: Target, allow: Sequence[str]) -> bool:
    """Whether rules allow a target to be stopped.

    A container is named by itself or its project; a unit also by its program or user; of several
    processes each must be named, and of connections each other end.
    """
    match target.owner:
        case WindowsProcess(image=image):
            # Windows knows no case in names; it does not tell who started a process.
            return is_named([rule.casefold() for rule in allow], "exe", image.casefold())
        case Processes(members=members):
            return all(
                is_named(allow, "exe", *_list_exes(member.process))
                or is_named(allow, "user", member.process.user)
                for member in members
            )
        case Connections(peers=peers):
            return all(is_named(allow, "connection", peer) for peer in peers)
        case Container():
            kinds: tuple[str, ...] = ("container", "project")
        case Units() | Program():
            kinds = ("unit", "exe", "user")
    return any(is_named(allow, kind, *list_names(target, kind)) for kind in kinds)


def suggest_rules(target: Target) -> tuple[str, ...]:
    """The rules that name exactly this target and would allow it to be stopped."""
    match target.owner:
        case Container():
            return (f"container:{escape(target.subject)}",)
        case Units(names=names):
            return (f"unit:{escape(names[-1])}",)
        case WindowsProcess(image=image):
            return (f"exe:{escape(image)}",) if image else ()
        case Connections(peers=peers):
            return tuple(f"connection:{escape(peer)}" for peer in peers)
        case Processes(members=members):
            processes = tuple(member.process for member in members)
        case Program():
            processes = target.processes
    rules = []
    for process in processes:
        exes = _list_exes(process)
        if exes:
            rules.append(f"exe:{escape(exes[-1])}")
        elif process.user:
            rules.append(f"user:{escape(process.user)}")
        else:
            return ()
    return tuple(dict.fromkeys(rules))


def quote_rule(rule: str) -> str:
    """A rule as Python and JSON read it; what is not to be printed is written as its number."""
    return json.dumps(rule, ensure_ascii=not rule.isprintable())


def escape(value: str) -> str:
    """A pattern that this value matches, and no other."""
    return re.sub(r"([*?\[])", r"[\1]", value)


def _list_exes(process: Process) -> tuple[str, ...]:
    """The path of a process's program, also as it was before an update took its file away."""
    if not process.exe:
        return ()
    return tuple(dict.fromkeys((process.exe, process.exe.removesuffix(" (deleted)"))))
