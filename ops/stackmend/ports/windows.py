"""The Windows side of a WSL2 machine: what ``netstat.exe``, ``tasklist.exe``, ``netsh.exe`` say.

Pure: the texts come from the probe. Windows translates headers and states, so only their shape
identifies rows, in any language; and it writes in the code page of the console (WSL's interop
hands the bytes on as they are), so texts are decoded here.

Proven on texts in the form of published recordings in English, German, French, Spanish, Japanese
and Chinese (``tests/facts/ports_windows`` names them), never on a Windows machine itself.

Which sockets stand in the way. Docker Desktop binds a published port on Windows, without socket
options. There (Microsoft, "Sharing Transport Addresses", first row of the table) such a bind fails
for certain only where the very same address is taken; ``0.0.0.0`` beside somebody's ``127.0.0.1``
succeeds, and ``127.0.0.1`` beside somebody's ``0.0.0.0`` does unless that one asked to be
exclusive, which no tool shows. A dual-stack listener is shown in a row of IPv4 and one of IPv6
(as com.docker.backend.exe itself, docker/for-win#12474): the families are held apart.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from stackmend.frozen import Frozen
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Holder, Socket, WindowsProcess

#: Docker Desktop's own programs, in small letters: they hold a port for a container, or for a
#: listener inside a distribution.
DOCKER_DESKTOP = frozenset(
    {
        "com.docker.backend.exe",
        "com.docker.proxy.exe",
        "com.docker.service",
        "com.docker.service.exe",
        "com.docker.build.exe",
        "docker desktop.exe",
        "dockerd.exe",
        "vpnkit.exe",
        "vpnkit-bridge.exe",
        "wslhost.exe",
        "wslrelay.exe",
    }
)

#: What Windows itself, or the machine that we run in, does not survive; in small letters.
ESSENTIAL = frozenset(
    {
        "system",
        "system idle process",
        "secure system",
        "registry",
        "memory compression",
        "smss.exe",
        "csrss.exe",
        "wininit.exe",
        "winlogon.exe",
        "services.exe",
        "lsass.exe",
        "lsaiso.exe",
        "svchost.exe",
        "dwm.exe",
        "spoolsv.exe",
        "vmms.exe",
        "vmcompute.exe",
        "vmwp.exe",
        "vmmem",
        "vmmemwsl",
        "wsl.exe",
        "wslservice.exe",
        "wslg.exe",
    }
)

#: The kernel's own number, the same on every Windows since XP.
_SYSTEM = 4

#: What stands for "no services" in the third column; the row of pid 0 says it as well.
_NO_SERVICES = frozenset({"N/A", "Nicht zutreffend", "No disponible", "Non disponible", "暂缺"})

# Words that Windows prints in a code page of two bytes a character: only such a word tells one
# from the other, for nearly any bytes can be read in each of them.
_CODE_PAGES = (
    ("cp932", ("プロトコル", "アドレス", "ポート")),
    ("cp936", ("协议", "地址", "端口", "暂缺")),
    ("cp950", ("通訊協定", "位址", "連接埠")),
    ("cp949", ("프로토콜", "주소", "포트")),
    ("cp866", ("Локальный", "адрес", "порт")),
)

_TCP = re.compile(
    r"\s*TCP\s+(?P<address>\S+):(?P<port>\d{1,5})\s+(?P<peer>\S+):(?P<other>\d{1,5})\s.*?"
    r"(?P<pid>\d{1,10})\s*"
)
_UDP = re.compile(r"\s*UDP\s+(?P<address>\S+):(?P<port>\d{1,5})\s+\S+\s+(?P<pid>\d{1,10})\s*")
_RANGE = re.compile(r"\s*(?P<first>\d{1,5})\s+(?P<last>\d{1,5})\s*(?P<star>\*?)\s*")


class Excluded(Frozen):
    """A range of ports that Windows does not give away.

    :param administered: excluded by hand, from what is given to outgoing connections only: it can
        still be bound by whoever names the port (the cure in docker/for-win#3171). Any other range
        belongs to whoever reserved it, WinNAT mostly, and nobody else can bind a port of it.
    """

    first: int
    last: int
    administered: bool = False


#: Sockets that hold a port, by protocol and port.
Sockets = Mapping[tuple[str, int], tuple[Socket, ...]]


@dataclass(frozen=True)
class WindowsSide:
    """What the Windows side of a WSL2 machine listed.

    :param desktop: whether the engine is Docker Desktop, whose binds happen on that side.
    """

    sockets: Sockets = field(default_factory=dict)
    processes: Mapping[int, WindowsProcess] = field(default_factory=dict)
    excluded_tcp: tuple[Excluded, ...] = ()
    excluded_udp: tuple[Excluded, ...] = ()
    desktop: bool = False


def unpack(lines: Iterable[str]) -> bytes:
    """The bytes that the probe wrote as hexadecimal digits; what was cut off is left out."""
    digits = re.sub(r"[^0-9a-fA-F]", "", "".join(lines))
    return bytes.fromhex(digits[: len(digits) // 2 * 2])


def decode(raw: bytes | str) -> str:
    """What a Windows program wrote, as text; it never raises.

    Digits, addresses and names of services are of ASCII in every code page. Where no more can be
    known, only letters beyond it may be wrong.

    :param raw: its bytes, in UTF-16, UTF-8 or the console's code page.
    """
    if isinstance(raw, str):
        text = raw
    elif raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", errors="replace")
    elif len(raw) > 1 and raw[1::2].count(0) > len(raw) // 4:
        text = raw.decode("utf-16-le", errors="replace")
    else:
        text = _decode_code_page(raw)
    return text.replace("\ufeff", "").replace("\0", "")


def _decode_code_page(raw: bytes) -> str:
    for encoding, signs in (("utf-8", ()), *_CODE_PAGES):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not signs or any(word in text for word in signs):
            return text
    # It takes every byte, and its letters are those of cp437 in the languages of both.
    return raw.decode("cp850")


def parse_sockets(netstat: bytes | str) -> Sockets:
    """The sockets of ``netstat.exe -ano`` that can hold a port, by protocol and port.

    A listener has the foreign address ``0.0.0.0:0`` or ``[::]:0``. Connections hold no port on
    Windows.

    :param netstat: what it wrote. Empty or unreadable, nothing is found: that is not "free".
    """
    found: dict[tuple[str, int], list[Socket]] = {}
    for line in decode(netstat).splitlines():
        protocol, row = "tcp", _TCP.fullmatch(line)
        if row is None:
            protocol, row = "udp", _UDP.fullmatch(line)
        elif (row["peer"], int(row["other"])) not in (("0.0.0.0", 0), ("[::]", 0)):  # noqa: S104 - read
            continue
        if row is None:
            continue
        address, port = _parse_address(row["address"]), int(row["port"])
        if not address or not 1 <= port <= 65535:
            continue
        found.setdefault((protocol, port), []).append(
            Socket(
                protocol=protocol,
                address=address,
                port=port,
                state="LISTEN" if protocol == "tcp" else "UNCONN",
                pids=(int(row["pid"]),),
            )
        )
    return {key: tuple(rows) for key, rows in found.items()}


def _parse_address(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]").partition("%")[0]))
    except ValueError:
        return ""


def parse_processes(tasklist: bytes | str) -> Mapping[int, WindowsProcess]:
    """The processes of ``tasklist.exe /svc /fo csv /nh``, by number.

    :param tasklist: what it wrote.
    """
    rows: dict[int, tuple[str, str]] = {}
    for line in decode(tasklist).splitlines():
        try:
            row = next(csv.reader([line]), [])
        except csv.Error:
            continue
        if len(row) >= 2 and re.fullmatch(r"[0-9]{1,10}", row[1]):
            rows[int(row[1])] = (row[0], row[2] if len(row) > 2 else "")
    nothing = {*_NO_SERVICES, rows[0][1]} if 0 in rows else _NO_SERVICES
    return {
        pid: WindowsProcess(
            pid=pid,
            image=image,
            services=()
            if services in nothing
            else tuple(name.strip() for name in services.split(",") if name.strip()),
        )
        for pid, (image, services) in rows.items()
    }


def parse_excluded(netsh: bytes | str) -> tuple[Excluded, ...]:
    """The ranges of ``netsh.exe interface ipv4 show excludedportrange protocol=…``.

    :param netsh: what it wrote.
    """
    return tuple(
        Excluded(first=int(row["first"]), last=int(row["last"]), administered=bool(row["star"]))
        for line in decode(netsh).splitlines()
        if (row := _RANGE.fullmatch(line)) and 0 < int(row["first"]) <= int(row["last"]) <= 65535
    )


def find_holders(
    desired: PortSpec, side: WindowsSide, *, refused: bool = False
) -> tuple[Holder, ...]:
    """Who keeps a desired port from being bound on the Windows side, each process once.

    Left out: the DNS of Internet Connection Sharing, which WSL2's NAT runs on ``0.0.0.0:53/udp``
    of nearly every machine. A port 53 that is published without an address is had beside it
    (measured with Engine 29.6 on Windows 11; ``0.0.0.0:53`` in so many words is not).

    :param desired: the port.
    :param side: what Windows listed; ``netsh interface ipv4`` speaks of IPv4 only.
    :param refused: whether a bind was refused already, as WSL does in its mirrored networking:
        then what merely may stand in the way is named as well.
    """
    by_process: dict[int, list[Socket]] = {}
    for socket in side.sockets.get((desired.protocol, desired.port), ()):
        if _is_obstructing(desired, socket.address, refused):
            for pid in socket.pids:
                by_process.setdefault(pid, []).append(socket)
    found = [
        Holder(
            kind="windows",
            evidence=("netstat.exe", "tasklist.exe") if pid in side.processes else ("netstat.exe",),
            sockets=tuple(held),
            windows=side.processes.get(pid, WindowsProcess(pid=pid)),
        )
        for pid, held in by_process.items()
        if refused or not _is_shared_dns(desired, side.processes.get(pid))
    ]
    ranges = side.excluded_tcp if desired.protocol == "tcp" else side.excluded_udp
    found.extend(
        Holder(
            kind="reserved",
            evidence=("netsh.exe",),
            why_hidden=(
                f"Windows has reserved the {desired.protocol} ports {ports.first} to {ports.last} "
                "(excluded port range)"
            ),
        )
        for ports in ranges
        if not desired.is_v6
        and not ports.administered
        and ports.first <= desired.port <= ports.last
    )
    return tuple(found)


def _is_obstructing(desired: PortSpec, address: str, refused: bool) -> bool:
    if not refused or address == desired.address:
        return address == desired.address
    if (":" in address) is not desired.is_v6:
        return address == "::" or (desired.is_v6 and desired.is_wildcard)
    return desired.is_wildcard or address in ("0.0.0.0", "::")  # noqa: S104 - as read


def _is_shared_dns(desired: PortSpec, process: WindowsProcess | None) -> bool:
    return (
        (desired.protocol, desired.port) == ("udp", 53)
        and desired.is_wildcard
        and process is not None
        and "SharedAccess" in process.services
    )


def is_protected(holder: Holder) -> bool:
    """Whether a holder on the Windows side must never be stopped, whatever a rule says.

    Docker Desktop's own programs, what Windows does not survive, a process whose program is not
    known, and what is no process at all.
    """
    process = holder.windows
    if holder.kind != "windows" or process is None:
        return True
    image = process.image.casefold()
    return not image or process.pid <= _SYSTEM or image in DOCKER_DESKTOP or image in ESSENTIAL


def explain(holder: Holder) -> str:
    """What a holder on the Windows side is and what can be done about it, in sentences.

    Empty where its name says all there is to say.
    """
    if holder.kind == "reserved":
        return (
            f"{holder.why_hidden}: for Hyper-V and WSL, mostly, and another range after each "
            "start of Windows. In a terminal of an administrator `net stop winnat`, then "
            "`netsh interface ipv4 add excludedportrange protocol=PROTOCOL startport=PORT "
            "numberofports=1`, then `net start winnat` keeps the port for you for good; or "
            "publish another port"
        )
    process = holder.windows
    if process is None:
        return ""
    image = process.image.casefold()
    if image in ("wslrelay.exe", "wslhost.exe"):
        return (
            f"{process.image} passes localhost on to a listener inside a WSL distribution: stop "
            "that listener, or `wsl.exe --shutdown`"
        )
    if image in DOCKER_DESKTOP:
        return (
            f"{process.image} is Docker Desktop itself, which holds the port for a container or "
            "has not let go of it: stop that container, or restart Docker Desktop"
        )
    if process.pid == _SYSTEM:
        return (
            "the Windows kernel holds it for somebody else, mostly http.sys for IIS or another "
            "web service: `netsh http show servicestate` names it, and `net stop w3svc` stops "
            "IIS; 139 and 445 are file sharing"
        )
    if not image:
        return "tasklist.exe does not name this process: look again as an administrator"
    if "iphlpsvc" in process.services:
        return (
            "the service IP Helper (iphlpsvc) forwards the port: `netsh interface portproxy show "
            "all` lists what it forwards, `netsh interface portproxy delete v4tov4 "
            "listenaddress=ADDRESS listenport=PORT` ends one"
        )
    if "SharedAccess" in process.services:
        return (
            "Internet Connection Sharing (SharedAccess) answers DNS for WSL's own network: leave "
            "it; a port published without an address works beside it"
        )
    if len(process.services) == 1:
        name = process.services[0]
        return (
            f"{process.image} is the Windows service {name}, which Windows may start again when "
            f"it is ended: `net stop {name}` as an administrator stops it"
        )
    if process.services:
        return (
            f"{process.image} is home to the Windows services {', '.join(process.services)}: stop "
            "the one that listens with `net stop NAME` as an administrator"
        )
    return ""
