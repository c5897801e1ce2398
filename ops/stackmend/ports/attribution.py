"""Who holds a desired port: the tables of a host, put together. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from stackmend.ports.processes import is_in_session
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Container, Holder, Process, Program, Socket, Unit

Address = IPv4Address | IPv6Address

#: Programs that hold a port for a container, by the kernel's names of them, cut at 15 bytes: those
#: of Docker, those of Podman, and those that both use.
DOCKERS = frozenset(("docker-proxy", "dockerd", "rootlesskit"))
PODMANS = frozenset(("rootlessport", "rootlessport-ch", "conmon", "podman"))
EITHER = frozenset(("exe", "slirp4netns", "pasta", "pasta.avx2", "passt"))

#: States in which a socket takes a port for itself rather than for one connection.
WAITING = frozenset(("LISTEN", "UNCONN", "BOUND"))


@dataclass(frozen=True)
class Tables:
    """What a host listed.

    :param via: what listed the sockets: ``ss`` or ``/proc/net``.
    :param rules: protocol and port of what a packet filter takes for Kubernetes.
    :param root: whether every process could be seen.
    :param searched: whether sockets that are in no list were looked for.
    :param bound_via: what found them.
    """

    via: str = "ss"
    sockets: tuple[Socket, ...] = ()
    processes: Mapping[int, Process] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()
    containers: tuple[Container, ...] = ()
    programs: Mapping[int, Program] = field(default_factory=dict)
    rules: frozenset[tuple[str, int]] = frozenset()
    root: bool = True
    wsl: bool = False
    searched: bool = True
    bound_via: str = "pidfd_getfd"


def is_conflicting(desired: PortSpec, socket: Socket) -> bool | None:
    """Whether a socket of the same network namespace stands in the way of a bind.

    ``None``: an IPv6 socket on every address, of which it is not known whether it takes IPv4 too.
    """
    if (socket.protocol, socket.port) != (desired.protocol, desired.port):
        return False
    address, own = ip_address(socket.address), _parse_address(desired)
    if address.version == own.version:
        return _is_overlapping(address, own)
    # What is bound to an IPv6 address is bound with V6ONLY by Docker, and never meets IPv4.
    if address.version == 6 and address.is_unspecified:
        return socket.dual
    return False


def _parse_address(port: PortSpec) -> Address:
    return ip_address(port.address.partition("%")[0])


def _is_overlapping(address: Address, other: Address) -> bool:
    return address == other or address.is_unspecified or other.is_unspecified


def has_port(container: Container, desired: PortSpec) -> bool:
    """Whether a container has the port at an address that leaves none for the desired one."""
    own = _parse_address(desired)
    return any(
        address.version == own.version and _is_overlapping(address, own)
        for address in _list_addresses(container, desired.protocol, desired.port)
    )


def has_socket(container: Container, socket: Socket) -> bool:
    """Whether a socket is where a container publishes, not merely in the way of the same bind."""
    bound = ip_address(socket.address)
    return any(
        # One socket may take both kinds of "every address".
        address == bound or (address.is_unspecified and bound.is_unspecified)
        for address in _list_addresses(container, socket.protocol, socket.port)
    )


def _list_addresses(container: Container, protocol: str, port: int) -> Iterator[Address]:
    """The addresses at which a container has a port."""
    for published in container.published:
        address, colon, suffix = published.rpartition(":")
        if colon and suffix == f"{port}/{protocol}":
            yield ip_address(address.strip("[]"))


def find_conflicts(desired: PortSpec, sockets: Iterable[Socket]) -> tuple[Socket, ...]:
    """The sockets that stand in the way.

    One of which it is not known whether it takes IPv4 counts only where no other explains it.
    Connections to elsewhere count only where nobody waits on the port.
    """
    conflicts = [(socket, is_conflicting(desired, socket)) for socket in sockets]
    certain = [socket for socket, conflict in conflicts if conflict]
    possible = certain or [socket for socket, conflict in conflicts if conflict is None]
    waiting = [socket for socket in possible if socket.state in WAITING and not socket.peer]
    return tuple(waiting or possible)


def find_holders(desired: PortSpec, tables: Tables, *, blocked: bool) -> tuple[Holder, ...]:
    """Who holds the port, each once.

    :param blocked: whether a bind failed, or would by what is listed. Otherwise only containers
        of the default engine count, whose allocator refuses what the kernel would give.
    """
    return _Search(desired, tables).run(blocked)


class _Search:
    """One port's holders as they are found, by what tells one from another."""

    def __init__(self, desired: PortSpec, tables: Tables) -> None:
        self.desired = desired
        self.tables = tables
        self.holders: dict[tuple[str, ...], Holder] = {}
        self.units = {(unit.manager, unit.name): unit for unit in tables.units}

    def run(self, blocked: bool) -> tuple[Holder, ...]:
        containers = [
            container
            for container in self.tables.containers
            if container.running
            and has_port(container, self.desired)
            and (blocked or container.engine == "docker")
        ]
        for container in containers:
            self._add(("container", container.engine, container.id), _make_holder(container))
        if blocked:
            for socket in find_conflicts(self.desired, self.tables.sockets):
                self._add_socket(socket, containers)
            self._merge_triggered()
        if (self.desired.protocol, self.desired.port) in self.tables.rules and not self.holders:
            self._add(("node port",), Holder(kind="node port", evidence=("iptables",)))
        if blocked and not self.holders:
            self._add(("hidden",), self._make_hidden(None))
        return tuple(self.holders[key] for key in sorted(self.holders))

    def _add(self, key: tuple[str, ...], holder: Holder, socket: Socket | None = None) -> None:
        known = self.holders.get(key, holder)
        sockets = known.sockets
        evidence = known.evidence
        if socket is not None and socket not in sockets:
            sockets = (*sockets, socket)
        if socket is not None:
            via = self.tables.bound_via if socket.state == "BOUND" else self.tables.via
            evidence = tuple(dict.fromkeys((via, *evidence, *holder.evidence)))
        process = known.process
        if process is None or (holder.process and holder.process.pid < process.pid):
            process = holder.process
        self.holders[key] = known.model_copy(
            update={"sockets": sockets, "evidence": evidence, "process": process}
        )

    def _add_socket(self, socket: Socket, containers: list[Container]) -> None:
        outgoing = socket.state not in WAITING or bool(socket.peer)
        if not socket.pids:
            if outgoing:
                self._add(("outgoing",), self._make_outgoing(socket, None), socket)
            elif publishing := [owner for owner in containers if has_socket(owner, socket)]:
                # Another user's proxy is not shown to us, but its container is.
                self._add(_make_key(publishing[0]), _make_holder(publishing[0]), socket)
            else:
                self._add(("hidden",), self._make_hidden(socket), socket)
        held = [self.tables.processes.get(pid) or Process(pid=pid) for pid in socket.pids]
        if any(self._is_proxy(process) for process in held):
            # An engine that hands its proxy the socket has it as well.
            held = [process for process in held if process.name != "dockerd"]
        for process in held:
            pid = process.pid
            if outgoing:
                holder = self._make_outgoing(socket, process)
                self._add(("outgoing", f"{pid:010}"), holder, socket)
                continue
            proxied = self._find_proxied(process, socket, containers)
            if proxied is not None:
                holder = _make_holder(proxied).model_copy(update={"process": process})
                if proxied not in containers and not self._is_proxy(process):
                    holder = holder.model_copy(update={"evidence": ("conmon",)})
                self._add(_make_key(proxied), holder, socket)
            elif self._is_proxy(process):
                unknown = Holder(
                    kind="container", process=process, why_hidden=_explain_proxy(process)
                )
                self._add(("proxy", f"{pid:010}"), unknown, socket)
            else:
                self._add(*self._find_owner(process, socket), socket)

    def _find_proxied(
        self, process: Process, socket: Socket, containers: list[Container]
    ) -> Container | None:
        """The container that a proxy or an engine holds the port for."""
        if process.name not in DOCKERS | PODMANS | EITHER:
            return None
        engines = [
            container
            for container in containers
            if process.name not in (DOCKERS if container.engine.startswith("podman") else PODMANS)
            # Two engines may publish one port, each at an address of its own.
            and has_socket(container, socket)
        ]
        if engines:
            return engines[0]
        if self._is_proxy(process):
            return self._find_configured(socket)
        if process.name in DOCKERS or process.name == "exe":
            return None
        # The user's own podman did not answer; where one container is all there is, it is that.
        monitors = [
            monitor
            for monitor in self.tables.processes.values()
            if monitor.name == "conmon" and monitor.uid == process.uid
        ]
        if len(monitors) == 1 and (id_ := _find_argument(monitors[0].argv, "-c")):
            name = _find_argument(monitors[0].argv, "-n") or id_[:12]
            return Container(id=id_, name=name, engine=_name_engine(monitors[0]))
        return None

    def _find_configured(self, socket: Socket) -> Container | None:
        """The container that a proxy of the engine was started for, though it is not listed so."""
        configured = [
            container
            for container in self.tables.containers
            if container.engine == "docker" and has_socket(container, socket)
        ]
        likely = [container for container in configured if container.running] or configured
        # Its port is its own as long as its proxy has it.
        return likely[0].model_copy(update={"running": True}) if len(likely) == 1 else None

    def _is_proxy(self, process: Process) -> bool:
        """Whether a process is the proxy of a container, rather than one that is called so."""
        parent = self.tables.processes.get(process.parent)
        started = process.unit == "docker.service" or (
            parent is not None and parent.name == "dockerd"
        )
        return process.name == "docker-proxy" and started

    def _find_owner(self, process: Process, socket: Socket) -> tuple[tuple[str, ...], Holder]:
        container, inside = self._find_container(process)
        if container is not None:
            return _make_key(container), Holder(
                kind="container", container=container, process=process, evidence=inside
            )
        if process.pid == 1 or process.name == "systemd":
            listening = self._find_listening(process, socket)
            if listening is not None:
                return ("socket unit", listening.manager, listening.name), Holder(
                    kind="socket unit", unit=listening, process=process, evidence=("systemctl",)
                )
        program = self._find_program(process)
        if program is not None:
            return ("program", program.supervisor, program.name), Holder(
                kind="program", program=program, process=process, evidence=(program.supervisor,)
            )
        if process.unit.endswith(".service") and not self._is_in_session(process):
            key = (process.manager, process.unit)
            unit = self.units.get(key) or Unit(name=process.unit, manager=process.manager)
            evidence = ("/proc/PID/cgroup", *(("systemctl",) if key in self.units else ()))
            return ("unit", *key), Holder(
                kind="unit", unit=unit, process=process, evidence=evidence
            )
        return ("process", f"{process.pid:010}"), Holder(kind="process", process=process)

    def _is_in_session(self, process: Process) -> bool:
        unit = self.units.get((process.manager, process.unit))
        return is_in_session(process, unit.main_pid if unit else 0)

    def _find_container(self, process: Process) -> tuple[Container | None, tuple[str, ...]]:
        """The container that a process of the host's own network belongs to, and the evidence."""
        id_, evidence, monitor = process.container, "/proc/PID/cgroup", None
        if not id_:
            # A user's engine may have no control groups to give; its monitor is then the parent.
            for ancestor in list_ancestors(process, self.tables.processes):
                id_ = _find_monitored(ancestor)
                if id_:
                    evidence, monitor = ancestor.name, ancestor
                    break
        if not id_:
            return None, ()
        for known in self.tables.containers:
            if known.id == id_:
                return known, (evidence, *_make_holder(known).evidence)
        engine, name = "containerd", id_[:12]
        if monitor is not None and monitor.name == "conmon":
            engine, name = _name_engine(monitor), _find_argument(monitor.argv, "-n") or name
        elif re.fullmatch(r"[0-9a-f]{64}", id_) is None:
            engine, name = "machine", id_
        return Container(id=id_, name=name, engine=engine, host_network=True), (evidence,)

    def _find_listening(self, process: Process, socket: Socket) -> Unit | None:
        """The socket unit that systemd, or a user's, listens on this address for."""
        manager = "system" if process.pid == 1 else process.user
        kind = {"tcp": "Stream", "udp": "Datagram"}[socket.protocol]
        units = [
            unit
            for unit in self.tables.units
            if unit.name.endswith(".socket") and unit.manager == manager
        ]
        address = f"[{socket.address}]" if ":" in socket.address else socket.address
        exact = [unit for unit in units if f"{address}:{socket.port} ({kind})" in unit.listens]
        same_port = [
            unit
            for unit in units
            if any(place.endswith(f":{socket.port} ({kind})") for place in unit.listens)
        ]
        return next(iter([*exact, *same_port]), None)

    def _find_program(self, process: Process) -> Program | None:
        for kept in (process, *list_ancestors(process, self.tables.processes)):
            program = self.tables.programs.get(kept.pid)
            if program is not None and (program.name or kept is not process):
                name = program.name or process.name
                return program.model_copy(update={"name": name})
            parent = self.tables.processes.get(kept.parent)
            if parent is not None and (program := _find_supervised(parent)):
                return program
        return None

    def _merge_triggered(self) -> None:
        """A service that its socket unit started has the same socket: they are one holder."""
        for key, holder in list(self.holders.items()):
            if holder.kind != "socket unit" or holder.unit is None:
                continue
            for name in holder.unit.triggers:
                service = self.holders.pop(("unit", holder.unit.manager, name), None)
                if service is not None:
                    self.holders[key] = holder.model_copy(update={"process": service.process})

    def _make_outgoing(self, socket: Socket, process: Process | None) -> Holder:
        why = ""
        if process is None:
            why = (
                "a connection that has ended; the kernel keeps its port for about a minute"
                if socket.state == "TIME-WAIT"
                else f"a connection ({socket.state}) of a process that cannot be seen"
            )
        return Holder(kind="outgoing", process=process, why_hidden=why)

    def _make_hidden(self, socket: Socket | None) -> Holder:
        if not self.tables.root:
            why = "only root is shown the owners of other users' sockets"
        elif self.tables.wsl:
            why = (
                "nothing in this distribution has it: it may be another distribution's, "
                "which shares the network but not the processes"
            )
        elif socket is not None:
            why = (
                "a socket is listed and no process of this host has it: the kernel itself has it, "
                "or a process outside this host's own process namespace"
            )
        elif not self.tables.searched:
            why = (
                "no socket is listed: one that is bound and does not listen is in no list, and "
                "cannot be looked for without python3 or a newer ss"
            )
        else:
            why = "no socket is listed, and no process was found that has one bound"
        return Holder(kind="hidden", why_hidden=why)


def list_ancestors(process: Process, processes: Mapping[int, Process]) -> Iterator[Process]:
    """A process's parent, its parent, and so on, as far as they are known."""
    known = {process.pid}
    while process.parent not in known and process.parent in processes:
        process = processes[process.parent]
        known.add(process.pid)
        yield process


def _make_key(container: Container) -> tuple[str, ...]:
    return ("container", container.engine, container.id)


def _make_holder(container: Container) -> Holder:
    client = "podman ps" if container.engine.startswith("podman") else "docker ps"
    return Holder(kind="container", container=container, evidence=(client,))


def _explain_proxy(proxy: Process) -> str:
    """Where a proxy of Docker's forwards to, and why nobody is named."""
    address, port = (
        _find_argument(proxy.argv, "-container-ip"),
        _find_argument(proxy.argv, "-container-port"),
    )
    where = f" at {address} port {port}" if address and port else ""
    return f"docker-proxy forwards to a container{where} that Docker does not list as running"


def _find_monitored(process: Process) -> str:
    """The id of the container that a monitor was started for."""
    if process.name == "conmon":
        return _find_argument(process.argv, "-c")
    if process.name.startswith("containerd-shim"):
        return _find_argument(process.argv, "-id")
    return ""


def _name_engine(monitor: Process) -> str:
    return "podman" if monitor.uid == 0 else f"podman:{monitor.user}"


def _find_argument(argv: tuple[str, ...], name: str) -> str:
    for at, word in enumerate(argv[:-1]):
        if word == name:
            return argv[at + 1]
    return ""


def _find_supervised(parent: Process) -> Program | None:
    """What a supervisor that keeps one process each keeps, by its own directory or arguments."""
    if parent.name == "runsv" and parent.cwd:
        name = parent.argv[1] if len(parent.argv) > 1 else parent.cwd.rpartition("/")[2]
        return Program(
            supervisor="runit",
            name=name.rpartition("/")[2],
            stop=("sv", "down", parent.cwd),
            start=("sv", "up", parent.cwd),
        )
    if parent.name == "s6-supervise" and parent.cwd:
        return Program(
            supervisor="s6",
            name=parent.cwd.rpartition("/")[2],
            stop=("s6-svc", "-d", parent.cwd),
            start=("s6-svc", "-u", parent.cwd),
        )
    if parent.name.startswith("supervise-daem") and len(parent.argv) > 1:
        name = parent.argv[1]
        return Program(
            supervisor="openrc",
            name=name,
            stop=("rc-service", name, "stop"),
            start=("rc-service", name, "start"),
        )
    return None
