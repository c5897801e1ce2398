"""One sentence about a port, for a person. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackmend.ports.state import Container, Holder, PortState, Process


def said(port: PortState) -> str:
    """What is known of a port, in one sentence.

    >>> said(PortState(wanted=PortSpec(port=80), verdict="free"))
    '0.0.0.0:80/tcp is free'
    """
    if port.verdict == "free":
        return f"{port.wanted} is free"
    if port.verdict == "unknown":
        return f"{port.wanted}: could not be told: {port.problem or 'no reason given'}"
    names = " and ".join(holder(one) for one in port.holders) or "an unknown owner"
    if port.verdict == "ours":
        return f"{port.wanted} is held by our own {names}"
    return f"{port.wanted} is held by {names}"


def holder(one: Holder) -> str:
    """A holder in a few words."""
    if one.kind == "container" and one.container:
        return container(one.container)
    if one.kind == "container":
        return f"a container that is just starting or ending: {one.why_hidden}"
    if one.kind in ("unit", "socket unit") and one.unit:
        whose = "" if one.unit.manager == "system" else f" of user {one.unit.manager}"
        starts = f" (starts {', '.join(one.unit.triggers)})" if one.kind == "socket unit" else ""
        by = f" ({_inner(one.process)})" if one.process and one.process.pid != 1 else ""
        return f"unit {one.unit.name}{whose}{starts}{by}"
    if one.kind == "program" and one.program:
        by = f" ({_inner(one.process)})" if one.process else ""
        return f"{one.program.supervisor} program {one.program.name}{by}"
    if one.kind == "outgoing":
        peer = next((socket.peer for socket in one.sockets if socket.peer), "elsewhere")
        whose = f" of {process(one.process)}" if one.process else f" ({one.why_hidden})"
        return f"an outgoing connection to {peer}{whose}"
    if one.kind == "node port":
        return "a Kubernetes NodePort rule of the packet filter"
    if one.kind == "windows" and one.windows:
        services = f" ({', '.join(one.windows.services)})" if one.windows.services else ""
        return f"Windows process {one.windows.image or '?'} {one.windows.pid}{services}"
    if one.kind == "reserved":
        return f"Windows, which keeps the range: {one.why_hidden}"
    if one.kind == "hidden":
        return f"an owner that cannot be seen: {one.why_hidden}"
    return process(one.process) if one.process else "an unknown process"


def process(one: Process) -> str:
    """A process in a few words."""
    user = f" of user {one.user}" if one.user else ""
    return f"{_name(one)} (pid {one.pid}{user})"


def _inner(one: Process) -> str:
    """The same, to stand between brackets."""
    user = f", user {one.user}" if one.user else ""
    return f"{_name(one)}, pid {one.pid}{user}"


def _name(one: Process) -> str:
    # A process calls itself what it likes, control characters of a terminal among it.
    name = one.name or one.exe.rpartition("/")[2] or "a process"
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def container(one: Container) -> str:
    """A container in a few words."""
    project = f" (project {one.project})" if one.project else ""
    engine = "" if one.engine == "docker" else f" of {one.engine}"
    network = " in the host's network" if one.host_network else ""
    return f"container {one.name}{engine}{project}{network}"
