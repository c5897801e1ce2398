"""What the probe printed of processes, as a table. Pure."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from stackmend.ports.state import Process, Unit

#: How long an argument list may be before it is cut; a Java command line can fill pages.
MAXIMUM_ARGV = 4096

#: Clock ticks a second in /proc/PID/stat: fixed in the kernel's interface to programs.
TICKS = 100

#: Services that start whatever their users say: what runs in them is not theirs.
_LAUNCHERS = re.compile(
    r"(ssh|sshd|dropbear|cron|crond|cronie|atd|anacron|getty|serial-getty|console-getty|user)"
    r"(@.*)?\.service"
)

Section = tuple[int, list[str]]


def parse_processes(found: Mapping[str, Section], up: float) -> dict[int, Process]:
    """Every process that the probe read; what could not be read of one stays empty."""
    _, lines = found.get("processes", (0, []))
    if len(lines) < 2:
        return {}
    with suppress(ValueError):
        order = [int(word) for word in lines[0].split()]
        raw = bytes.fromhex("".join(lines[1:]))
        mark = raw[: raw.index(b"\n") + 1]
        parts = raw.split(mark)[1:]
        # What was cut off cannot be told apart.
        if len(parts) == 3 * len(order):
            links = _parse_links(found)
            names = _parse_names(found.get("users", (0, []))[1])
            read = {
                pid: (parts[3 * at], parts[3 * at + 1], parts[3 * at + 2])
                for at, pid in enumerate(order)
            }
            root = _find_root(_parse_cgroup(read[1][1])) if 1 in read else ""
            return {
                pid: _parse_process(pid, *files, links=links, names=names, root=root, up=up)
                for pid, files in read.items()
                if files[0]
            }
    return {}


def _parse_process(
    pid: int,
    stat: bytes,
    cgroup: bytes,
    cmdline: bytes,
    *,
    links: Mapping[str, tuple[int, str]],
    names: Mapping[int, str],
    root: str,
    up: float,
) -> Process:
    text = stat.decode(errors="replace")
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    started = int(fields[19])
    uid = links.get(f"/proc/{pid}", (-1, ""))[0]
    argv = cmdline[:MAXIMUM_ARGV].decode(errors="replace").removesuffix("\0")
    path = _strip_root(_parse_cgroup(cgroup), root)
    container, manager, unit = _parse_place(path, names)
    return Process(
        pid=pid,
        started=started,
        name=name,
        exe=links.get(f"/proc/{pid}/exe", (0, ""))[1],
        argv=tuple(argv.split("\0")) if argv else (),
        cwd=links.get(f"/proc/{pid}/cwd", (0, ""))[1],
        uid=uid,
        user=names.get(uid, str(uid) if uid >= 0 else ""),
        parent=int(fields[1]),
        unit=unit,
        manager=manager,
        session=re.fullmatch(r"session-.+\.scope", unit) is not None,
        container=container,
        seconds=round(max(0.0, up - started / TICKS), 1) if up else 0,
    )


def _parse_links(found: Mapping[str, Section]) -> dict[str, tuple[int, str]]:
    """``ls -dln``: path → its owner, and what it leads to. What is listed twice is not believed."""
    _, lines = found.get("links", (0, []))
    _, printable = found.get("links masked", (0, []))
    links: dict[str, tuple[int, str]] = {}
    twice = set()
    for line in printable or lines:
        match = re.fullmatch(
            r"[dl]\S+ +\d+ +(\d+) +\d+ .*? (/proc/\d+(?:/exe|/cwd)?)(?: -> (.*))?", line
        )
        if match is None:
            continue
        if match[2] in links:
            twice.add(match[2])
        target = match[3] or ""
        # A question mark may stand for what cannot be printed.
        links[match[2]] = (int(match[1]), "" if "?" in target else target)
    return {path: link for path, link in links.items() if path not in twice}


def _parse_names(lines: Iterable[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for line in lines:
        uid, _, name = line.partition(" ")
        if uid.isdecimal():
            found.setdefault(int(uid), name)
    return found


def _parse_cgroup(text: bytes) -> str:
    """The path in systemd's hierarchy, or in the only one there is."""
    unified, named, other = "", "", ""
    for line in text.decode(errors="replace").split("\n"):
        number, _, hierarchy = line.partition(":")
        controllers, _, path = hierarchy.partition(":")
        if controllers == "name=systemd":
            named = path
        elif number == "0":
            unified = path
        elif len(path) > len(other):
            other = path
    return next((path for path in (named, unified, other) if path not in ("", "/")), "/")


def _find_root(path: str) -> str:
    """Where the host's own tree begins: a host may itself be a container of another machine."""
    return path.removesuffix("/init.scope").rstrip("/")


def _strip_root(path: str, root: str) -> str:
    return path[len(root) :] if root and (path + "/").startswith(root + "/") else path


_IDS = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_GUEST = re.compile(r"/(lxc(?:\.payload)?|machine\.slice)[./](?:systemd-nspawn@)?([^/]+)")


def _parse_place(path: str, names: Mapping[int, str]) -> tuple[str, str, str]:
    """Container, manager and unit that a control group's path names."""
    if ids := _IDS.findall(path):
        return ids[-1], "", ""
    if guest := _GUEST.search(path):
        return guest[2], "", ""
    manager, unit = "system", ""
    parts = path.strip("/").split("/")
    for at, part in enumerate(parts):
        user = re.fullmatch(r"user@(\d+)\.service", part)
        if user and at < len(parts) - 1 and parts[at + 1] != "init.scope":
            manager, unit = names.get(int(user[1]), user[1]), ""
        elif re.search(r"\.(service|scope)$", part) and part != "init.scope":
            unit = part
    return "", manager if unit else "", unit


def find_guarded(found: Mapping[str, Section], known: Mapping[int, Process]) -> tuple[int, ...]:
    """Our own shell and its ancestors, and the sshd that listens for sessions such as ours."""
    _, lines = found.get("guards", (0, []))
    guards = {int(word) for line in lines for word in line.split() if word.isdecimal()}
    sessions = {pid for pid in guards if pid in known and known[pid].name.startswith("sshd")}
    if sessions:
        # The listener may have been restarted since, and be no ancestor of ours any more.
        guards |= {
            pid
            for pid, process in known.items()
            if process.name == "sshd" and process.parent == 1 and process.uid == 0
        }
    return tuple(sorted(guards))


def is_in_session(process: Process, main_pid: int) -> bool:
    """Whether a process merely runs in the control group of a session or of what starts those."""
    if process.session:
        return True
    if _LAUNCHERS.fullmatch(process.unit) is None:
        return False
    return process.pid != main_pid and not process.name.startswith(("sshd", "cron", "dropbear"))


def mark_sessions(processes: Mapping[int, Process], units: Iterable[Unit]) -> dict[int, Process]:
    """The processes, with the sessions marked that only their units reveal."""
    main = {(unit.manager, unit.name): unit.main_pid for unit in units}
    return {
        pid: process.model_copy(update={"session": True})
        if is_in_session(process, main.get((process.manager, process.unit), 0))
        else process
        for pid, process in processes.items()
    }
