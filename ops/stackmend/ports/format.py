"""Ports, holders and processes as text for people, without what is secret. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stackmend.ports.state import Container, Holder, PortState, Process, Socket
from stackmend.redaction import redact_likely


def format_port(port: PortState) -> str:
    """What is known of a port, in one sentence.

    >>> format_port(PortState(desired=PortSpec(port=80), status="free"))
    '0.0.0.0:80/tcp is free'
    """
    if port.status == "free":
        return f"{port.desired} is free"
    if port.status == "unknown":
        return f"{port.desired}: status unknown: {port.problem or 'no reason given'}"
    holders = " and ".join(map(format_holder, port.holders)) or "an unknown owner"
    if port.status == "ours":
        return f"{port.desired} is held by our own {holders}"
    return f"{port.desired} is held by {holders}"


def format_holder(holder: Holder) -> str:
    """A holder in a few words."""
    process = holder.process
    match holder.kind:
        case "container" if holder.container:
            return format_container(holder.container)
        case "container":
            return f"a container that is just starting or ending: {holder.why_hidden}"
        case "unit" | "socket unit" if holder.unit:
            unit = holder.unit
            manager = "" if unit.manager == "system" else f" of user {unit.manager}"
            starts = f" (starts {', '.join(unit.triggers)})" if holder.kind == "socket unit" else ""
            running = process if process and process.pid != 1 else None
            return f"unit {unit.name}{manager}{starts}{format_running(running)}"
        case "program" if holder.program:
            program = holder.program
            return f"{program.supervisor} program {program.name}{format_running(process)}"
        case "outgoing":
            peer = next((socket.peer for socket in holder.sockets if socket.peer), "elsewhere")
            owner = format_running(process) if process else f" ({holder.why_hidden})"
            return f"outgoing connection to {peer}{owner}"
        case "node port":
            return "a Kubernetes NodePort rule of the packet filter"
        case "windows" if holder.windows:
            windows = holder.windows
            services = f" ({', '.join(windows.services)})" if windows.services else ""
            return f"Windows process {windows.image or '?'} {windows.pid}{services}"
        case "reserved":
            return f"Windows, which keeps the range: {holder.why_hidden}"
        case "hidden":
            return f"an owner that cannot be seen: {holder.why_hidden}"
    return format_process(process) if process else "an unknown process"


def format_process(process: Process) -> str:
    """``python3.11 (pid 812 of user bob): python3 -m http.server``.

    It is called what its program's file is called, not what it calls itself.
    """
    user = f" of {_format_user(process)}" if _format_user(process) else ""
    command = format_argv(process.argv)
    return f"{format_program(process)} (pid {process.pid}{user})" + (command and f": {command}")


def format_running(process: Process | None) -> str:
    """The process of something else, to stand behind it; empty where none is known."""
    if process is None:
        return ""
    user = f", {_format_user(process)}" if _format_user(process) else ""
    return f" ({format_program(process)}, pid {process.pid}{user})"


def _format_user(process: Process) -> str:
    return f"user {process.user}" if process.user else f"uid {process.uid}" * (process.uid >= 0)


def format_program(process: Process) -> str:
    """The short name of a process's program."""
    return replace_controls(name_program(process)) or "a program"


def name_program(process: Process) -> str:
    """What a process's program is called: by its file, or by itself where that is not known."""
    return process.exe.rpartition("/")[2].removesuffix(" (deleted)") or process.name


def format_argv(argv: Sequence[str]) -> str:
    """A command line, with what looks like a secret replaced."""
    return shorten(redact_likely(" ".join(argv)))


def format_container(container: Container) -> str:
    """A container in a few words."""
    service = f", service {container.service}" if container.service else ""
    project = f" of Compose project {container.project}{service}" if container.project else ""
    engine = "" if container.engine == "docker" else f" of {container.engine}"
    network = " in the host's network" if container.host_network else ""
    return f"container {container.name or container.id[:12]}{engine}{project}{network}"


def _format_socket(socket: Socket) -> str:
    """One socket as ``ss`` would list it."""
    address = f"[{socket.address}]" if ":" in socket.address else socket.address
    peer = f" to {socket.peer}" if socket.peer else ""
    return f"{socket.protocol} {address}:{socket.port} {socket.state}{peer}"


def list_evidence(holder: Holder) -> list[str]:
    """What is known of a holder, line by line."""
    evidence = [f"seen by {', '.join(holder.evidence)}"] if holder.evidence else []
    evidence += map(_format_socket, holder.sockets)
    if holder.process is not None:
        evidence.append(format_process(holder.process))
    return evidence


def replace_controls(text: str) -> str:
    """Text without what would tell a terminal to do something."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def shorten(text: str, limit: int = 160) -> str:
    """Text on one line, cut where it is long."""
    joined = replace_controls(" ".join(text.split()))
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def join_some(items: Iterable[str], limit: int = 6) -> str:
    """The first items of a list as one text, and how many more there are."""
    listed = list(dict.fromkeys(items))
    more = [f"and {len(listed) - limit} more"] if len(listed) > limit else []
    return ", ".join([*listed[:limit], *more])
