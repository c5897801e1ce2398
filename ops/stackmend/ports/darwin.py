"""The sockets and processes of macOS: what ``lsof`` and ``ps`` say there.

Pure: the texts come from the probe, which asks

.. code:: shell

    LC_ALL=C lsof -nP +c0 -iTCP -iUDP -FpRcuLfdtPTn
    LC_ALL=C TZ=UTC0 ps -axww -o pid= -o ppid= -o uid= -o user= -o lstart= -o comm=

A field is one line, its first letter says which (lsof(8), "OUTPUT FOR OTHER PROGRAMS"): a process
begins with ``p``, each of its sockets with ``f``. Proven on texts put together from published
output, never on a Mac.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address

from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Holder, Process, Socket

#: Where macOS keeps what is its own: launchd starts it again, or the machine does not survive it.
SYSTEM_DIRECTORIES = ("/System/", "/usr/libexec/", "/usr/sbin/", "/sbin/")

#: Where Docker Desktop lives.
DOCKER_DESKTOP = "/Applications/Docker.app/"

_SYSTEM_NAMES = frozenset(
    {"ControlCenter", "ControlCe", "launchd", "kernel_task", "rapportd", "mDNSResponder", "sshd"}
)

# ss's words for what lsof calls by other names.
_STATES = {"ESTABLISHED": "ESTAB", "CLOSED": "BOUND", "IDLE": "BOUND"}

_NAME = re.compile(r"(?P<address>\*|\[[^\]]*\]|[0-9.]+):(?P<port>[0-9]{1,5})(?:->(?P<peer>\S+))?")

_PS = re.compile(
    r"\s*(?P<pid>[0-9]{1,10})\s+(?P<ppid>[0-9]{1,10})\s+(?P<uid>-?[0-9]{1,10})\s+(?P<user>\S+)\s+"
    r"[A-Z][a-z]{2}\s+(?P<month>[A-Z][a-z]{2})\s+(?P<day>[0-9]{1,2})\s+"
    r"(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})\s+(?P<year>[0-9]{4})\s+(?P<exe>\S.*)"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _split_groups(lsof: str) -> Iterable[tuple[dict[str, str], list[dict[str, str]]]]:
    """Each process with its files, as field letter → text."""
    process: dict[str, str] = {}
    files: list[dict[str, str]] = []
    for line in lsof.split("\n"):
        field, text = line[:1], line[1:]
        if field == "p":
            if process:
                yield process, files
            process, files = {"p": text}, []
        elif field == "f":
            files.append({"f": text})
        elif field == "T" and files:
            key, _, value = text.partition("=")
            files[-1][f"T{key}"] = value
        elif field and process:
            (files[-1] if files else process)[field] = text
    if process:
        yield process, files


def parse_sockets(lsof: str) -> tuple[Socket, ...]:
    """The sockets of ``lsof``'s field output; one that several processes share is given once.

    :param lsof: what it wrote. Without root it shows the user's own processes only.
    """
    found: dict[object, Socket] = {}
    for process, files in _split_groups(lsof):
        pid = _parse_number(process["p"])
        for file in files:
            socket = _parse_socket(file, pid)
            if socket is None:
                continue
            key: object = socket.inode or (pid, file["f"])
            known = found.get(key)
            if known is not None and pid not in known.pids:
                socket = known.model_copy(update={"pids": (*known.pids, pid)})
            found[key] = socket
    return tuple(found.values())


def _parse_socket(file: Mapping[str, str], pid: int) -> Socket | None:
    name = _NAME.fullmatch(file.get("n", ""))
    protocol = file.get("P", "").lower()
    if name is None or protocol not in ("tcp", "udp") or not 1 <= int(name["port"]) <= 65535:
        return None
    v6 = file.get("t") == "IPv6"
    address = _parse_address(name["address"], v6)
    if not address:
        return None
    peer = name["peer"] or ""
    state = file.get("TST", "")
    if protocol == "udp":
        state = "ESTABLISHED" if peer else "UNCONN"
    device = file.get("d", "")
    return Socket(
        protocol=protocol,
        address=address,
        port=int(name["port"]),
        state=_STATES.get(state, state.replace("_", "-")),
        inode=int(device, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", device) else 0,
        peer=peer,
        pids=(pid,),
    )


def _parse_address(text: str, v6: bool) -> str:
    if text == "*":
        return "::" if v6 else "0.0.0.0"  # noqa: S104 - as read
    try:
        return str(ip_address(text.strip("[]").partition("%")[0]))
    except ValueError:
        return ""


def _parse_number(text: str | None) -> int:
    return int(text) if text and re.fullmatch(r"[0-9]{1,10}", text) else 0


def parse_processes(lsof: str, ps: str = "") -> Mapping[int, Process]:
    """The processes of ``lsof``'s field output, with what ``ps`` says of them and their ancestors.

    ``Process.started`` is in seconds since 1970, for macOS gives no ticks; ``Process.exe`` is
    known from ``ps`` alone.

    :param lsof: what it wrote.
    :param ps: what it wrote, of every process.
    """
    found: dict[int, Process] = {}
    for line in ps.split("\n"):
        row = _PS.fullmatch(line)
        if row is not None:
            exe = row["exe"].strip()
            found[int(row["pid"])] = Process(
                pid=int(row["pid"]),
                started=_parse_time(row),
                name=exe.rpartition("/")[2],
                exe=exe if exe.startswith("/") else "",
                uid=int(row["uid"]),
                user=row["user"],
                parent=int(row["ppid"]),
            )
    for process, _ in _split_groups(lsof):
        pid = _parse_number(process["p"])
        if pid and pid not in found:
            found[pid] = Process(
                pid=pid,
                # lsof writes what is no plain letter as \x20.
                name=re.sub(
                    r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), process.get("c", "")
                ),
                uid=int(process["u"]) if re.fullmatch(r"\d{1,10}", process.get("u", "")) else -1,
                user=process.get("L", ""),
                parent=_parse_number(process.get("R")),
            )
    return found


def _parse_time(row: re.Match[str]) -> int:
    if row["month"] not in _MONTHS:
        return 0
    hour, minute, second = map(int, row["clock"].split(":"))
    try:
        moment = datetime(
            int(row["year"]),
            _MONTHS.index(row["month"]) + 1,
            int(row["day"]),
            hour,
            minute,
            second,
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    return int(moment.timestamp())


def find_holders(
    desired: PortSpec,
    sockets: Iterable[Socket],
    processes: Mapping[int, Process],
    *,
    refused: bool = False,
) -> tuple[Holder, ...]:
    """Who holds a desired port, each process once.

    :param desired: the port.
    :param sockets: what :func:`parse_sockets` made of it.
    :param processes: what :func:`parse_processes` made of it.
    :param refused: whether a bind was refused already. A bind with SO_REUSEADDR, as an engine does
        it, is refused on macOS for certain only where the same address is taken; with this set,
        what merely overlaps is named as well.
    """
    by_process: dict[int, list[Socket]] = {}
    for socket in sockets:
        if (socket.protocol, socket.port) != (desired.protocol, desired.port):
            continue
        if socket.address == desired.address or (
            refused and _is_overlapping(desired, socket.address)
        ):
            for pid in socket.pids:
                by_process.setdefault(pid, []).append(socket)
    return tuple(
        Holder(
            kind="outgoing" if all(socket.peer for socket in held) else "process",
            evidence=("lsof",),
            sockets=tuple(held),
            process=processes.get(pid, Process(pid=pid)),
        )
        for pid, held in by_process.items()
    )


def _is_overlapping(desired: PortSpec, address: str) -> bool:
    if (":" in address) is not desired.is_v6:
        # A listener on every address of IPv6 takes IPv4 as well, unless it was asked not to.
        return address == "::" or desired.address == "::"
    return desired.is_wildcard or address in ("0.0.0.0", "::")  # noqa: S104 - as read


def is_protected(holder: Holder) -> bool:
    """Whether a holder must never be stopped, whatever a rule says.

    What macOS keeps for itself (launchd starts it again at once), Docker Desktop, and a process of
    which nothing is known.
    """
    process = holder.process
    if process is None or process.pid <= 1 or not (process.exe or process.name):
        return True
    if process.exe.startswith((*SYSTEM_DIRECTORIES, DOCKER_DESKTOP)):
        return True
    return process.name in _SYSTEM_NAMES or process.name.startswith("com.docker")


def explain(holder: Holder) -> str:
    """What a holder is that cannot simply be stopped, and what stops it; else empty."""
    process = holder.process
    if process is None:
        return ""
    if process.name in ("ControlCenter", "ControlCe"):
        return (
            "the Control Center listens on 5000 and 7000 for AirPlay and comes back when it is "
            "ended: turn AirPlay Receiver off in System Settings, General, AirDrop & Handoff, or "
            "publish another port"
        )
    if process.exe.startswith(DOCKER_DESKTOP) or process.name.startswith("com.docker"):
        return (
            "this is Docker Desktop itself, which holds the port for a container or has not let "
            "go of it: stop that container, or restart Docker Desktop"
        )
    if process.exe == "/usr/sbin/httpd":
        return "this is the Apache of macOS: `sudo apachectl stop` stops it for good"
    if is_protected(holder):
        return "macOS keeps it for itself, and starts it again when it is ended"
    return ""
