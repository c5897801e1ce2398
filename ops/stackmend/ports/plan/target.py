"""What would have to be ended for a holder to let go, and which rules may allow it. Pure."""

import re
from collections.abc import Hashable, Iterable, Sequence

from stackmend.frozen import Frozen
from stackmend.ports.plan import words
from stackmend.ports.plan.model import Member, Verb
from stackmend.ports.spec import names
from stackmend.ports.state import Container, Holder, Process, Program, Unit, WindowsProcess

#: Units that start what others ask for: a process there that is not the unit's own program is
#: nobody's service. Without a login manager, what a login started stays in the SSH server's unit.
_LENDING = re.compile(
    r"user@.*\.service|(?:ssh|sshd|cron|crond|cronie|atd|getty|console-getty|serial-getty)"
    r"(?:@.*)?\.service|.*\.scope|.*\.slice"
)
_OWN_PROGRAM = re.compile(r"systemd|sshd|sshd-session|sshd-auth|cron|crond|atd|agetty|login")

_VERBS: tuple[Verb, ...] = (
    "stop container",
    "stop unit",
    "stop program",
    "stop process",
    "stop windows process",
)


class Target(Frozen):
    """One thing that holds wanted ports, and what it would take to end it.

    :param holders: what was seen of it.
    :param ports: the wanted ports that it holds.
    """

    verb: Verb
    ports: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    container: Container | None = None
    units: tuple[str, ...] = ()
    manager: str = "system"
    program: Program | None = None
    members: tuple[Member, ...] = ()
    windows: WindowsProcess | None = None

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands on the ladder; the same for the same things in whatever order."""
        return _VERBS.index(self.verb), self.subject

    @property
    def subject(self) -> str:
        """What it is called."""
        if self.container is not None:
            one = self.container
            return one.name or one.id[:12]
        if self.units:
            manager = "" if self.manager == "system" else f" of user {self.manager}"
            return " ".join(self.units) + manager
        if self.program is not None:
            return words.shown(f"{self.program.supervisor} program {self.program.name}")
        if self.windows is not None:
            image = words.shown(self.windows.image) or "a program"
            return f"{image} (Windows pid {self.windows.pid})"
        first = self.members[0].process
        more = f" and {len(self.members) - 1} of its own" if len(self.members) > 1 else ""
        return f"{words.name(first)} (pid {first.pid}){more}"

    @property
    def said(self) -> str:
        """Who it is, in words."""
        if self.container is not None:
            one = self.container
            service = f", service {one.service}" if one.service else ""
            project = f" of Compose project {one.project}{service}" if one.project else ""
            engine = "" if one.engine == "docker" else f" of {one.engine}"
            return f"container {self.subject}{engine}{project}"
        if self.units:
            running = next((h.process for h in self.holders if _worker(h.process)), None)
            which = f" ({words.process(running)})" if running else ""
            noun = "units" if len(self.units) > 1 else "unit"
            return f"{noun} {self.subject}{which}"
        if self.program is not None or self.windows is not None:
            running = next((h.process for h in self.holders if h.process), None)
            return self.subject + (f" ({words.process(running)})" if running else "")
        return words.some(words.process(member.process) for member in self.members)


def _worker(process: Process | None) -> bool:
    return process is not None and process.pid != 1


def target(holder: Holder) -> Target | None:
    """What would be ended for a holder; ``None`` where nothing of it can be."""
    process, unit = holder.process, holder.unit
    if holder.kind in ("outgoing", "node port", "reserved", "hidden"):
        return None
    if holder.container is not None:
        return Target(verb="stop container", holders=(holder,), container=holder.container)
    if holder.kind == "container" or (process is not None and process.container):
        return None
    if holder.kind == "program":
        if holder.program is None or not holder.program.stop:
            return None
        return Target(verb="stop program", holders=(holder,), program=holder.program)
    if holder.kind == "windows":
        if holder.windows is None:
            return None
        return Target(verb="stop windows process", holders=(holder,), windows=holder.windows)
    if unit is None and process is not None and process.unit.endswith(".service"):
        unit = Unit(name=process.unit, manager=process.manager or "system")
    if unit is not None and not _bare(unit, process):
        together = unit.triggers if unit.name.endswith(".socket") else unit.triggered_by
        return Target(
            verb="stop unit",
            holders=(holder,),
            units=tuple(sorted({unit.name, *together}, key=_sockets_first)),
            manager=unit.manager,
        )
    if process is None:
        return None
    inodes = tuple(sorted({one.inode for one in holder.sockets if one.inode}))
    member = Member(process=process, inodes=inodes)
    return Target(verb="stop process", holders=(holder,), members=(member,))


def _sockets_first(name: str) -> tuple[bool, str]:
    return not name.endswith(".socket"), name


def _bare(unit: Unit, process: Process | None) -> bool:
    """Whether a process is nobody's service although a unit's control group has it."""
    if process is None:
        return False
    if process.session:
        return True
    if not lending(unit.name):
        return False
    return process.pid != unit.main_pid and not _OWN_PROGRAM.fullmatch(words.program(process))


def lending(unit: str) -> bool:
    """Whether a unit starts what others ask for, so that its control group says little."""
    return _LENDING.fullmatch(unit) is not None


def united(targets: Iterable[Target], parents: dict[int, int]) -> list[Target]:
    """Each thing once, however many ports it holds.

    :param parents: the parent of each process, by number.
    """
    alike: dict[Hashable, list[Target]] = {}
    for one in targets:
        alike.setdefault(_key(one), []).append(one)
    found: list[Target] = []
    for one in (_joined(same, parents) for same in alike.values()):
        same = [other for other in found if _same(one, other, parents)]
        if same:
            one = _joined([*same, one], parents)
            found = [other for other in found if all(other is not its for its in same)]
        found.append(one)
    return sorted(found, key=lambda one: one.order)


def _key(one: Target) -> Hashable:
    """What is equal for the same thing; units and processes may belong together beyond it."""
    if one.container is not None:
        return "container", one.container.engine, one.container.id
    if one.program is not None:
        return "program", one.program.supervisor, one.program.name
    if one.windows is not None:
        return "windows", one.windows.pid
    if one.units:
        return "units", one.manager, one.units
    return "process", one.members[0].process.pid


def _same(one: Target, other: Target, parents: dict[int, int]) -> bool:
    if one.units and other.units:
        return one.manager == other.manager and bool({*one.units} & {*other.units})
    return any(
        _related(mine, its, one, other, parents) for mine in one.members for its in other.members
    )


def _related(
    mine: Member, its: Member, one: Target, other: Target, parents: dict[int, int]
) -> bool:
    a, b = mine.process.pid, its.process.pid
    shared = {*mine.inodes} & {*its.inodes}
    if not shared and (mine.inodes or its.inodes or not {*one.ports} & {*other.ports}):
        return False
    return a in _ancestors(b, parents) or b in _ancestors(a, parents)


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    above: set[int] = set()
    while (pid := parents.get(pid, 0)) > 0 and pid not in above:
        above.add(pid)
    return above


def _joined(same: Sequence[Target], parents: dict[int, int]) -> Target:
    members: dict[int, Member] = {}
    for member in (member for one in same for member in one.members):
        pid = member.process.pid
        before = members[pid].inodes if pid in members else ()
        members[pid] = member.model_copy(
            update={"inodes": tuple(sorted({*before, *member.inodes}))}
        )
    # What started the others comes first: it might start them again.
    ordered = sorted(members, key=lambda pid: (len(_ancestors(pid, parents) & {*members}), pid))
    units = {unit for one in same for unit in one.units}
    holders = {holder.model_dump_json(): holder for one in same for holder in one.holders}
    first = min(same, key=lambda one: one.model_dump_json())
    return first.model_copy(
        update={
            "ports": tuple(dict.fromkeys(port for one in same for port in one.ports)),
            "holders": tuple(holders[key] for key in sorted(holders)),
            "units": tuple(sorted(units, key=_sockets_first)),
            "members": tuple(members[pid] for pid in ordered),
        }
    )


def rule_values(one: Target, kind: str) -> tuple[str, ...]:
    """Everything of a target that a rule of this kind may name, to protect it."""
    processes = [member.process for member in one.members]
    processes += [h.process for h in one.holders if h.process is not None and _worker(h.process)]
    match kind:
        case "exe":
            images = (one.windows.image,) if one.windows is not None else ()
            return (*(exe for process in processes for exe in _exes(process)), *images)
        case "user":
            return tuple(process.user for process in processes)
        case "unit":
            return (*one.units, *(process.unit for process in processes))
        case "container":
            return (one.container.name, one.container.id) if one.container is not None else ()
        case "project":
            return (one.container.project,) if one.container is not None else ()
    raise AssertionError(f"{kind} is no kind of rule")


def allowed(one: Target, allow: Sequence[str]) -> bool:
    """Whether rules consent to end a target.

    A container is named by itself or its project; a unit also by its program or user; of several
    processes each must be named.
    """
    if one.windows is not None:
        # Windows knows no case in names; who started a process is not told.
        folded = [rule.casefold() for rule in allow]
        return names(folded, "exe", one.windows.image.casefold())
    if one.container is not None:
        kinds: tuple[str, ...] = ("container", "project")
    elif one.members:
        return all(
            names(allow, "exe", *_exes(member.process)) or names(allow, "user", member.process.user)
            for member in one.members
        )
    else:
        kinds = ("unit", "exe", "user")
    return any(names(allow, kind, *rule_values(one, kind)) for kind in kinds)


def consent(one: Target) -> tuple[str, ...]:
    """The rules that name exactly this target and would allow to end it."""
    if one.container is not None:
        return (f"container:{exactly(one.subject)}",)
    if one.units:
        return (f"unit:{exactly(one.units[-1])}",)
    if one.windows is not None:
        return (f"exe:{exactly(one.windows.image)}",) if one.windows.image else ()
    processes = [member.process for member in one.members]
    processes += [h.process for h in one.holders if h.process is not None and one.program]
    rules = []
    for process in processes:
        exes = _exes(process)
        if exes:
            rules.append(f"exe:{exactly(exes[-1])}")
        elif process.user:
            rules.append(f"user:{exactly(process.user)}")
        else:
            return ()
    return tuple(dict.fromkeys(rules))


def exactly(value: str) -> str:
    """A pattern that this value matches, and no other."""
    return re.sub(r"([*?\[])", r"[\1]", value)


def _exes(process: Process) -> tuple[str, ...]:
    """The path of a process's program, also as it was before an update took its file away."""
    if not process.exe:
        return ()
    return tuple(dict.fromkeys((process.exe, process.exe.removesuffix(" (deleted)"))))
