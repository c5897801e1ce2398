"""Probe text to state: who holds the desired ports of a host."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Literal

from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import FactValueError

from stackmend.connection import make_mark, parse_probe, parse_sections, script
from stackmend.ports import darwin, listing, processes, sockets, windows
from stackmend.ports.attribution import Tables
from stackmend.ports.classification import Evidence, classify
from stackmend.ports.format import format_port
from stackmend.ports.spec import PortSpec, PortsSpec, compress_ports, find_ranges, parse_ports
from stackmend.ports.state import HostPorts, Process, Socket

#: How many ranges of ports ss is asked for; beyond that, one range holds them all.
MAXIMUM_RANGES = 200

#: How many arguments of a process are printed for a person.
LONGEST_ARGV = 16

#: What the probe is put together from, before its own text.
_PARTS = ("bind.py", "bind.pl", "bound.py", "sockets", "processes", "units", "engines")

System = Literal["linux", "wsl", "darwin"]
EngineStatus = Literal["up", "absent", "stopped", "forbidden", "unknown"]


class _Printed(HostPorts):
    """The state, as pyinfra prints a fact."""

    def to_json(self) -> dict[str, Any]:
        """As ``pyinfra HOST fact`` prints it: a sentence for each port, and nothing empty."""
        fact = _drop_empty(self.model_dump(mode="json"))
        fact["ports"] = [
            {"message": format_port(port), **_drop_empty(port.model_dump(mode="json"))}
            for port in self.ports
        ]
        # A number is a holder's or an ancestor's; those nobody is named after say nothing more.
        named = {
            holder.process.pid for port in self.ports for holder in port.holders if holder.process
        }
        fact["processes"] = {
            str(pid): _drop_empty(process.model_dump(mode="json"))
            for pid, process in sorted(self.processes.items())
            if pid not in named
        }
        return {**_drop_empty(fact), "root": self.root}


def _drop_empty(value: Any) -> Any:
    """The same without what says nothing: what is empty, what is not so, a number not known."""
    if isinstance(value, dict):
        kept = {key: _drop_empty(item) for key, item in value.items()}
        if len(kept.get("argv") or ()) > LONGEST_ARGV:
            kept["argv"] = [*kept["argv"][:LONGEST_ARGV], "…"]
        return {
            key: item
            for key, item in kept.items()
            if item is not False and item not in (None, "", [], {}, -1)
        }
    return [_drop_empty(item) for item in value] if isinstance(value, list) else value


class PortHolders(FactBase[HostPorts]):
    """Who holds ports of a host, found out by trying to bind them; reads only, in one command.

    + ports: the ports, as ``6379``, ``"127.0.0.1:8000-8010"`` or ``"[::1]:53/udp"``; several with
      commas or as a list.
    + project: the Compose project that is to have them. What a running container of it holds is
      not held but ``ours``.
    + directory: the directory that the project is started from; empty for any.

    Each port is tried as Docker would bind it, with python3 or perl, and closed at once. Where
    neither is there, what ss or /proc/net lists decides, and ``evidence`` says so. Without root
    the owners of other users' sockets are hidden, and ``root`` says so.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.ports.facts.PortHolders ports=6379,127.0.0.1:8000-8010
    """

    _mark = ""
    _spec = PortsSpec()

    def command(self, ports: Any, project: str = "", directory: str = "") -> StringCommand:
        """The probe, with its arguments quoted.

        :raises FactValueError: naming the port that is none.
        """
        try:
            desired = parse_ports(ports)
        except ValueError as error:
            raise FactValueError(f"ports: {error}") from None
        groups = group_ports(desired)
        self._mark = make_mark()
        self._spec = PortsSpec(ports=desired, project=project, directory=directory)
        ranges = find_ranges(port.port for port in desired)
        if len(ranges) > MAXIMUM_RANGES:
            ranges = [(ranges[0][0], ranges[-1][1])]
        return script(
            "stackmend.ports",
            "probe",
            groups,
            _make_filter(ranges),
            " ".join(f"{first}-{last}" for first, last in ranges),
            mark=self._mark,
            before=_PARTS,
        )

    def process(self, output: list[str]) -> HostPorts:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        state = parse_probe(lambda lines: parse(lines, self._mark, self._spec), output, "the ports")
        return _Printed.model_construct(**dict(state))


def list_arguments(spec: PortsSpec) -> dict[str, str]:
    """What the fact is asked with, for what is desired."""
    ports = ",".join(map(str, spec.ports))
    return {"ports": ports, "project": spec.project, "directory": spec.directory}


def group_ports(ports: Iterable[PortSpec]) -> str:
    """Ports as the probe takes them: ``tcp/0.0.0.0/80,8000-8010 udp/::/53``."""

    def get_place(port: PortSpec) -> tuple[str, str]:
        return port.protocol, port.address

    return " ".join(
        f"{protocol}/{address}/{compress_ports(port.port for port in group)}"
        for (protocol, address), group in groupby(sorted(ports, key=get_place), key=get_place)
    )


def _make_filter(ranges: Sequence[tuple[int, int]]) -> str:
    """An expression that the kernel itself keeps ss's rows by."""
    parts = [
        f"sport = :{first}" if first == last else f"( sport >= :{first} and sport <= :{last} )"
        for first, last in ranges
    ]
    return "( " + " or ".join(parts) + " )" if parts else ""


def parse(output: Sequence[str], mark: str, spec: PortsSpec) -> HostPorts:
    """Probe output to state.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "done" not in found:
        raise ValueError("it did not run to its end")
    host = _parse_host(found["host"][1])
    system: System = host["system"]
    root = host["root"] == "0"
    settings = [*found["settings"][1], "", ""]
    tool, refused = _parse_binds(found)
    sockets_section = next((name for name in found if name.startswith("sockets ")), "")
    if (refused or not tool) and not sockets_section and system != "darwin" and spec.ports:
        raise ValueError("it did not list the sockets")
    up = float(host.get("up", "0"))
    known = processes.parse_processes(found, up)
    names = {process.uid: process.user for process in known.values()}
    units = listing.parse_units(found, names)
    known = processes.mark_sessions(known, units)
    engine, reason = _parse_engine(found)
    mac = _parse_darwin(found) if system == "darwin" else None
    unlisted, _ = found.get("sockets ss -B", (1, []))
    via = sockets_section.removeprefix("sockets ").replace("/proc", "/proc/net")
    tables = Tables(
        via="lsof" if mac else via,
        sockets=mac[0] if mac else _parse_sockets(found, sockets_section),
        processes=known,
        units=units,
        containers=listing.parse_containers(found),
        programs=listing.parse_programs(found),
        rules=sockets.parse_rules(found.get("rules", (0, []))[1]),
        root=root,
        wsl=system == "wsl",
        searched="python3" in host["tools"] or unlisted == 0,
        bound_via="ss -B" if unlisted == 0 else "pidfd_getfd",
    )
    evidence = Evidence(
        tables=tables,
        tool=tool,
        refused=refused,
        addresses=sockets.parse_addresses(found.get("addresses", (0, []))[1]),
        project=spec.project,
        directory=spec.directory,
        windows=_parse_windows(found) if system == "wsl" else None,
        darwin=mac,
    )
    return HostPorts(
        ports=tuple(classify(port, evidence) for port in spec.ports),
        system=system,
        engine=engine,
        engine_reason=reason,
        live_restore="live" in found,
        live_containers=len([line for line in found.get("shims", (0, []))[1] if line]),
        processes=dict(mac[1]) if mac else known,
        guarded=processes.find_guarded(found, known),
        ephemeral=_parse_ephemeral(settings[0]),
        reserved=settings[1].strip(),
        tools=tuple(host["tools"]),
        root=root,
        now=float(host["now"]),
    )


def _parse_host(lines: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"tools": []}
    for line in lines:
        word, _, value = line.partition(" ")
        if word == "tool":
            found["tools"].append(value)
        elif word:
            found[word] = value
    return found


def _parse_binds(found: Mapping[str, listing.Section]) -> tuple[str, dict[PortSpec, str]]:
    """What binds were tried with, and the errors of those that failed."""
    section = next(name for name in found if name.startswith("bind"))
    tool = section.removeprefix("bind").strip()
    lines = found[section][1]
    if not tool:
        return "", {}
    if not lines or lines[-1] != "done":
        raise ValueError("the binds were not tried to the end")
    refused = {}
    for line in lines[:-1]:
        row = line.split()
        # What an interpreter warns of stands between the rows.
        if len(row) == 4 and row[0].startswith("E"):
            error, protocol, address, port = row
            fields = {"protocol": protocol, "address": address, "port": int(port)}
            refused[PortSpec.model_validate(fields)] = error
    return tool, refused


def _parse_sockets(found: Mapping[str, listing.Section], section: str) -> tuple[Socket, ...]:
    lines = found.get(section, (0, []))[1]
    if section == "sockets ss":
        listed = sockets.parse_ss(lines)
    else:
        listed = sockets.parse_proc(lines, found.get("owners", (0, []))[1])
    more = sockets.parse_ss(found.get("sockets ss -B", (0, []))[1])
    known = {socket.inode for socket in listed}
    unlisted = [
        socket
        for socket in (*more, *sockets.parse_bound(found.get("bound", (0, []))[1]))
        if socket.inode not in known
    ]
    return (*listed, *unlisted)


def _parse_engine(found: Mapping[str, listing.Section]) -> tuple[EngineStatus, str]:
    if "engine docker" not in found:
        return "absent", "no docker client was found"
    status, lines = found["engine docker"]
    text = "\n".join(lines).strip()
    lower = text.lower()
    if status == 0:
        return "up", ""
    if status in (124, 137):
        return "unknown", "docker did not answer within 10 seconds"
    if "permission denied" in lower:
        return "forbidden", text
    if "cannot connect to the docker daemon" in lower or "connect to the docker api" in lower:
        return "stopped", text
    return "unknown", text or "docker failed and wrote no reason"


def _parse_ephemeral(text: str) -> tuple[int, int]:
    with suppress(ValueError):
        first, last = map(int, text.split())
        return first, last
    return 32768, 60999


def _parse_windows(found: Mapping[str, listing.Section]) -> windows.WindowsSide:
    def unpack(name: str) -> bytes:
        return windows.unpack(found.get(name, (0, []))[1])

    desktop = found.get("desktop", (1, []))[1]
    return windows.WindowsSide(
        sockets=windows.parse_sockets(unpack("netstat")),
        processes=windows.parse_processes(unpack("tasklist")),
        excluded_tcp=tuple(windows.parse_excluded(unpack("excluded4tcp"))),
        excluded_udp=tuple(windows.parse_excluded(unpack("excluded4udp"))),
        desktop=any(line.startswith("Docker Desktop") for line in desktop),
    )


def _parse_darwin(
    found: Mapping[str, listing.Section],
) -> tuple[tuple[Socket, ...], Mapping[int, Process]]:
    lsof = "\n".join(found.get("lsof", (0, []))[1])
    table = "\n".join(found.get("ps", (0, []))[1])
    return tuple(darwin.parse_sockets(lsof)), darwin.parse_processes(lsof, table)
