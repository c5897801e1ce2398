"""Whether a desired port is free, ours, held, or unknown. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from stackmend.ports import attribution, darwin, windows
from stackmend.ports.attribution import Tables
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Container, Holder, PortState, PortStatus, Process, Socket
from stackmend.ports.windows import WindowsSide

#: What a bind can fail with, in the words of the C library.
_ERRORS = {
    "EADDRINUSE": "address already in use",
    "EACCES": "permission denied",
    "EPERM": "operation not permitted",
    "EADDRNOTAVAIL": "cannot assign requested address",
    "EAFNOSUPPORT": "address family not supported",
}


@dataclass(frozen=True)
class Evidence:
    """All that a status rests on.

    :param tool: what binds were tried with; empty where nothing was there to try with.
    :param refused: the error of each bind that failed, by its port.
    :param addresses: the host's own addresses; asked only where no bind could be tried.
    :param only_v6: whether the kernel binds IPv6 sockets without IPv4 unless told otherwise.
    """

    tables: Tables
    tool: str = ""
    refused: Mapping[PortSpec, str] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    project: str = ""
    directory: str = ""
    windows: WindowsSide | None = None
    darwin: tuple[tuple[Socket, ...], Mapping[int, Process]] | None = None


def classify(desired: PortSpec, evidence: Evidence) -> PortState:
    """One desired port as the host has it."""
    error = evidence.refused.get(desired, "")
    via, problem, blocked = _evaluate_bind(desired, evidence, error)

    def derive_state(status: PortStatus, **fields: Any) -> PortState:
        return PortState(desired=desired, status=status, evidence=via, **fields)

    if problem:
        return derive_state("unknown", problem=problem)
    holders: tuple[Holder, ...]
    if evidence.darwin is not None:
        holders = _find_darwin(desired, evidence, blocked)
    else:
        holders = attribution.find_holders(desired, evidence.tables, blocked=blocked)
    if evidence.windows is not None:
        holders, problem = _find_windows(desired, evidence, evidence.windows, holders)
        if problem:
            return derive_state("unknown", problem=problem)
    foreign = tuple(holder for holder in holders if not _is_ours(holder.container, evidence))
    if not holders:
        return derive_state("free")
    if not foreign:
        return derive_state("ours", holders=holders)
    if not blocked and all(holder.kind in ("windows", "reserved") for holder in foreign):
        via = "netstat.exe"
    elif not blocked:
        via = f"{via}, but {', '.join(dict.fromkeys(foreign[0].evidence))}"
    return derive_state("held", holders=foreign)


def _evaluate_bind(desired: PortSpec, evidence: Evidence, error: str) -> tuple[str, str, bool]:
    """What it rests on, why it is unknown, and whether something stands in the way."""
    if evidence.tool and not error:
        return f"bind ({evidence.tool})", "", False
    if evidence.tool:
        message = f"{_ERRORS[error]} ({error})" if error in _ERRORS else error
        via = f"bind ({evidence.tool}): {message}"
        if error == "EADDRINUSE":
            return via, "", True
        if error not in ("EACCES", "EPERM"):
            return via, _explain_error(desired, error), False
        listed = f"{via}, so {evidence.tables.via}"
    else:
        listed = evidence.tables.via
        if evidence.addresses and not _is_address(evidence.addresses, desired):
            return listed, _explain_error(desired, "EADDRNOTAVAIL"), False
    conflicts = attribution.find_conflicts(desired, evidence.tables.sockets)
    if conflicts and all(socket.state == "TIME-WAIT" for socket in conflicts):
        why = "an ended connection had it; only a bind would tell whether it is free again"
        return listed, why, False
    certain = bool(_list_publishing(desired, evidence)) or any(
        attribution.is_conflicting(desired, socket) for socket in conflicts
    )
    if conflicts and not certain:
        why = "an IPv6 socket has the port, and only a bind would tell whether it takes IPv4 too"
        return listed, why, False
    if not conflicts:
        listed += "; a socket that is bound and does not listen would not be listed"
    return listed, "", bool(conflicts)


def _list_publishing(desired: PortSpec, evidence: Evidence) -> list[Container]:
    return [
        container
        for container in evidence.tables.containers
        if container.running and attribution.has_port(container, desired)
    ]


def _explain_error(desired: PortSpec, error: str) -> str:
    if error == "EADDRNOTAVAIL":
        disabled = ", or IPv6 is disabled on it" if desired.is_v6 else ""
        return f"the host does not have the address {desired.address}{disabled}"
    if error == "EAFNOSUPPORT":
        return "IPv6 is disabled on this host" if desired.is_v6 else "this host has no IPv4"
    if error == "EINVAL" and ip_address(desired.address.partition("%")[0]).is_link_local:
        return f"{desired.address} is an address of one link: it needs its interface behind a %"
    return f"a bind to {desired.address} failed with {error}"


def _is_address(addresses: frozenset[str], desired: PortSpec) -> bool:
    address = ip_address(desired.address.partition("%")[0])
    if address.is_unspecified:
        return address.version == 4 or "::" in addresses
    if address.version == 4 and address.is_loopback:
        return True
    return str(address) in addresses


def _is_ours(container: Container | None, evidence: Evidence) -> bool:
    return (
        container is not None
        and bool(evidence.project)
        and container.project == evidence.project
        and container.running
        and not container.oneoff
        and not container.foreign
        and (not evidence.directory or container.working_dir == evidence.directory)
    )


def _find_darwin(desired: PortSpec, evidence: Evidence, blocked: bool) -> tuple[Holder, ...]:
    assert evidence.darwin is not None
    if not blocked:
        return ()
    published = tuple(
        Holder(kind="container", container=container, evidence=("docker ps",))
        for container in _list_publishing(desired, evidence)
    )
    holders = published or darwin.find_holders(
        desired, *evidence.darwin, refused=desired in evidence.refused
    )
    if holders:
        return holders
    why = "lsof shows nobody" if evidence.tables.root else "only root is shown other users' sockets"
    return (Holder(kind="hidden", why_hidden=why),)


def _find_windows(
    desired: PortSpec, evidence: Evidence, side: WindowsSide, here: tuple[Holder, ...]
) -> tuple[tuple[Holder, ...], str]:
    """The holders of both sides, and why it is unknown.

    The Windows side matters where Docker Desktop binds there, and where nothing on this side
    explains a bind that failed (both sides then share their network).
    """
    visible = tuple(holder for holder in here if holder.kind != "hidden")
    if not side.desktop and (visible or not here):
        return here, ""
    there = windows.find_holders(desired, side, refused=bool(here) and not side.desktop)
    if visible:
        # What Docker Desktop or Windows keeps for it stands for what was found on this side.
        there = tuple(
            holder
            for holder in there
            if holder.kind == "windows"
            and holder.windows is not None
            and holder.windows.image.casefold() not in windows.DOCKER_DESKTOP
        )
        ours = all(_is_ours(holder.container, evidence) for holder in visible)
        return (visible if ours else (*visible, *there)), ""
    if there:
        return there, ""
    if side.desktop and not side.sockets:
        return (), "Docker Desktop binds on the Windows side, and netstat.exe listed nothing"
    return here, ""
