"""Hosts made by hand for the tests of the ports room: holders, and what ending them leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stackmend.ports.plan import Action, Plan
from stackmend.ports.plan.model import (
    CloseConnections,
    Reserve,
    StopContainer,
    StopProcess,
    StopProgram,
    StopUnits,
    StopWindowsProcess,
)
from stackmend.ports.spec import PortsSpec, compress_ports, parse_ports, parse_ranges
from stackmend.ports.state import (
    Container,
    Holder,
    HostPorts,
    PortState,
    Process,
    Program,
    Socket,
    Unit,
    WindowsProcess,
)
from tests.unit import rendering

NOW = 1_700_000_000.0
WANTED = "0.0.0.0:6379/tcp"
#: Rules that together match whatever holds a port.
EVERYTHING = ("exe:*", "unit:*", "container:*", "project:*", "user:*")


def spec(ports: Any = 6379, **more: Any) -> PortsSpec:
    return PortsSpec.model_validate({"ports": parse_ports(ports), **more})


def stop(ports: Any = 6379, *allow: str, **more: Any) -> PortsSpec:
    """What is desired, with consent to end what these rules name."""
    return spec(ports, on_conflict="stop", allow=allow, **more)


def process(pid: int = 812, exe: str = "/usr/bin/python3.11", **more: Any) -> Process:
    given = {
        "pid": pid,
        "started": pid * 10,
        "name": exe.rpartition("/")[2][:15],
        "exe": exe,
        "argv": (exe,),
        "cwd": "/",
        "uid": 1000,
        "user": "bob",
        "parent": 700,
        **more,
    }
    return Process.model_validate(given)


def socket(port: int = 6379, inode: int = 5000, **more: Any) -> Socket:
    given = {"protocol": "tcp", "address": "0.0.0.0", "port": port, "state": "LISTEN", **more}
    return Socket.model_validate({"inode": inode, **given})


def bare(pid: int = 812, port: int = 6379, inode: int = 0, **more: Any) -> Holder:
    one = process(pid, **more)
    held = socket(port, inode or pid * 100, pids=(pid,))
    return Holder(kind="process", evidence=("ss",), sockets=(held,), process=one)


def unit(name: str = "redis-server.service", pid: int = 900, **more: Any) -> Holder:
    exe = more.pop("exe", "/usr/bin/redis-server")
    user = more.pop("user", "redis")
    one = Unit.model_validate({"name": name, "active": "active", "main_pid": pid, **more})
    return Holder(
        kind="unit",
        evidence=("ss", "systemctl"),
        sockets=(socket(inode=90_000, pids=(pid,)),),
        process=process(pid, exe, unit=name, user=user, parent=1),
        unit=one,
    )


def socket_unit(name: str = "web.socket", **more: Any) -> Holder:
    one = Unit.model_validate({"name": name, "active": "active", **more})
    first = process(1, "/usr/lib/systemd/systemd", user="root", uid=0, parent=0)
    return Holder(kind="socket unit", evidence=("systemctl",), process=first, unit=one)


def container(name: str = "cache", pid: int = 0, exe: str = "", **more: Any) -> Holder:
    one = Container.model_validate({"id": name[0] * 64, "name": name, "restart": "always", **more})
    by = process(pid, exe or "/usr/bin/docker-proxy", user="root") if pid else None
    return Holder(kind="container", evidence=("docker ps",), process=by, container=one)


def program(name: str = "web", **more: Any) -> Holder:
    words = {"stop": ("supervisorctl", "stop", name), "start": ("supervisorctl", "start", name)}
    one = Program.model_validate({"supervisor": "supervisord", "name": name, **words, **more})
    return Holder(kind="program", process=process(950), program=one)


def on_windows(image: str = "redis-server.exe", pid: int = 4321, *services: str) -> Holder:
    one = WindowsProcess(pid=pid, image=image, services=services)
    return Holder(kind="windows", evidence=("netstat.exe",), windows=one)


def outgoing(
    pid: int = 333,
    peer: str = "192.0.2.7:443",
    exe: str = "/usr/bin/curl",
    inode: int = 5000,
) -> Holder:
    one = process(pid, exe)
    held = socket(inode=inode, state="ESTAB", peer=peer, pids=(pid,))
    return Holder(kind="outgoing", sockets=(held,), process=one)


def hidden(why: str = "") -> Holder:
    return Holder(kind="hidden", sockets=(socket(),), why_hidden=why)


def held(*holders: Holder, ports: Any = 6379, **more: Any) -> HostPorts:
    """A host on which these hold each of the ports."""
    states = [
        PortState(desired=one, status="held" if holders else "free", holders=holders)
        for one in parse_ports(ports)
    ]
    return host(states, **more)


def host(states: Iterable[PortState], **more: Any) -> HostPorts:
    states = tuple(states)
    known = {
        holder.process.pid: holder.process
        for state in states
        for holder in state.holders
        if holder.process is not None
    }
    first = process(1, "/usr/lib/systemd/systemd", user="root", uid=0, parent=0)
    shell = process(700, "/usr/bin/bash", parent=1)
    given = {"engine": "up", "now": NOW, "guarded": (1, 600, 601), **more}
    processes = {1: first, 700: shell, **known, **given.pop("processes", {})}
    return HostPorts(ports=states, processes=processes, **given)


def ends(action: Action, holder: Holder) -> bool:
    """Whether an action would make a holder let go, as the host itself would have it."""
    match action:
        case StopContainer(container=container):
            return holder.container == container
        case StopUnits(units=units, manager=manager):
            # A user's unit may be called as one of the system's is.
            names = {(holder.unit.manager, holder.unit.name)} if holder.unit else set()
            if holder.process is not None and holder.process.unit:
                names.add((holder.process.manager or "system", holder.process.unit))
            return holder.container is None and any((manager, unit) in names for unit in units)
        case StopProgram(program=program):
            return holder.program == program
        case StopWindowsProcess(process=process):
            return holder.windows == process
        case CloseConnections(sockets=sockets):
            return holder.kind == "outgoing" and {*holder.sockets} <= {*sockets}
        case StopProcess(members=members) if holder.kind == "process" and holder.process:
            identity = (holder.process.pid, holder.process.started)
            return identity in {(m.process.pid, m.process.started) for m in members}
    return False


def after(decided: Plan, state: HostPorts) -> HostPorts:
    """The host when a plan has been carried out."""
    ports = []
    for port in state.ports:
        rest = tuple(h for h in port.holders if not any(ends(a, h) for a in decided.actions))
        freed = port.status == "held" and not rest
        ports.append(
            port.model_copy(update={"holders": rest, "status": "free" if freed else port.status})
        )
    reserved = parse_ranges(state.reserved)
    for action in decided.actions:
        if isinstance(action, Reserve):
            reserved |= parse_ranges(action.subject)
    return state.model_copy(update={"ports": tuple(ports), "reserved": compress_ports(reserved)})


def render(decided: Plan) -> str:
    """A plan as text, with all that it carries."""

    def carries(action: Action) -> Iterator[str]:
        if not isinstance(action, Reserve):
            yield f"ports {' '.join(action.ports)}"
        match action:
            case StopContainer(container=container):
                yield f"container {container.engine} {container.id[:12]}"
            case StopUnits():
                yield f"units of {action.manager}: {' '.join(action.units)}"
            case StopProgram(program=program):
                yield f"stop {' '.join(program.stop)}"
            case StopProcess(members=members):
                for member in members:
                    one = member.process
                    yield f"process {one.pid} {one.started} {one.exe} {member.inodes}"
            case StopWindowsProcess(process=process):
                yield f"windows {process.pid} {process.image}"

    return rendering.render(decided, carries)
