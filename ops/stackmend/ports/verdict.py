"""Whether a wanted port is free, ours, held, or cannot be told. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from stackmend.ports import attribution, darwin, windows
from stackmend.ports.attribution import Tables
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Container, Holder, PortState, Process, Socket, WindowsProcess

#: What a bind can fail with, in the words of the C library.
_ERRORS = {
    "EADDRINUSE": "address already in use",
    "EACCES": "permission denied",
    "EPERM": "operation not permitted",
    "EADDRNOTAVAIL": "cannot assign requested address",
    "EAFNOSUPPORT": "address family not supported",
}


@dataclass(frozen=True)
class WindowsSide:
    """What the Windows side of a WSL2 machine listed.

    :param desktop: whether the engine is Docker Desktop, whose binds happen on that side.
    """

    sockets: windows.Sockets = field(default_factory=dict)
    processes: Mapping[int, WindowsProcess] = field(default_factory=dict)
    excluded_tcp: tuple[windows.Excluded, ...] = ()
    excluded_udp: tuple[windows.Excluded, ...] = ()
    desktop: bool = False

    def holders(self, wanted: PortSpec, refused: bool) -> tuple[Holder, ...]:
        """Who keeps the port on that side.

        :param refused: whether a bind failed there already, and only who did it is asked.
        """
        return windows.holders(
            wanted,
            self.sockets,
            self.processes,
            self.excluded_tcp,
            self.excluded_udp,
            refused=refused,
        )


@dataclass(frozen=True)
class Seen:
    """All that a verdict rests on.

    :param tool: what binds were tried with; empty where nothing was there to try with.
    :param refused: the error of each bind that failed, by what was wanted.
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


def judge(wanted: PortSpec, seen: Seen) -> PortState:
    """One wanted port as the host has it."""
    error = seen.refused.get(wanted, "")
    evidence, problem, blocked = _bind(wanted, seen, error)
    if problem:
        return PortState(wanted=wanted, verdict="unknown", evidence=evidence, problem=problem)
    holders: tuple[Holder, ...]
    if seen.darwin is not None:
        holders = _darwin(wanted, seen, blocked)
    else:
        holders = attribution.holders(wanted, seen.tables, blocked=blocked)
    if seen.windows is not None:
        holders, problem = _windows(wanted, seen, seen.windows, holders)
        if problem:
            return PortState(wanted=wanted, verdict="unknown", evidence=evidence, problem=problem)
    foreign = tuple(one for one in holders if not _ours(one.container, seen))
    if not holders:
        return PortState(wanted=wanted, verdict="free", evidence=evidence)
    if not foreign:
        return PortState(wanted=wanted, verdict="ours", evidence=evidence, holders=holders)
    if not blocked and all(one.kind in ("windows", "reserved") for one in foreign):
        evidence = "netstat.exe"
    elif not blocked:
        evidence = f"{evidence}, but {', '.join(dict.fromkeys(foreign[0].evidence))}"
    return PortState(wanted=wanted, verdict="held", evidence=evidence, holders=foreign)


def _bind(wanted: PortSpec, seen: Seen, error: str) -> tuple[str, str, bool]:
    """Evidence, why it cannot be told, and whether something stands in the way."""
    if seen.tool and not error:
        return f"bind ({seen.tool})", "", False
    if seen.tool:
        words = f"{_ERRORS[error]} ({error})" if error in _ERRORS else error
        evidence = f"bind ({seen.tool}): {words}"
        if error == "EADDRINUSE":
            return evidence, "", True
        if error not in ("EACCES", "EPERM"):
            return evidence, _impossible(wanted, error), False
        listed = f"{evidence}, so {seen.tables.via}"
    else:
        listed = seen.tables.via
        if seen.addresses and not _has(seen.addresses, wanted):
            return listed, _impossible(wanted, "EADDRNOTAVAIL"), False
    standing = attribution.standing(wanted, seen.tables.sockets)
    if standing and all(one.state == "TIME-WAIT" for one in standing):
        why = "an ended connection had it; only a bind would tell whether it is free again"
        return listed, why, False
    certain = any(attribution.conflicts(wanted, one) for one in standing) or any(
        one.running and attribution.publishes(one, wanted) for one in seen.tables.containers
    )
    if standing and not certain:
        why = "an IPv6 socket has the port, and only a bind would tell whether it takes IPv4 too"
        return listed, why, False
    if not standing:
        listed += "; a socket that is bound and does not listen would not be listed"
    return listed, "", bool(standing)


def _impossible(wanted: PortSpec, error: str) -> str:
    if error == "EADDRNOTAVAIL":
        disabled = ", or IPv6 is disabled on it" if wanted.is_v6 else ""
        return f"the host does not have the address {wanted.address}{disabled}"
    if error == "EAFNOSUPPORT":
        return "IPv6 is disabled on this host" if wanted.is_v6 else "this host has no IPv4"
    if error == "EINVAL" and ip_address(wanted.address.partition("%")[0]).is_link_local:
        return f"{wanted.address} is an address of one link: it needs its interface behind a %"
    return f"a bind to {wanted.address} failed with {error}"


def _has(addresses: frozenset[str], wanted: PortSpec) -> bool:
    address = ip_address(wanted.address.partition("%")[0])
    if address.is_unspecified:
        return address.version == 4 or "::" in addresses
    if address.version == 4 and address.is_loopback:
        return True
    return str(address) in addresses


def _ours(container: Container | None, seen: Seen) -> bool:
    return (
        container is not None
        and bool(seen.project)
        and container.project == seen.project
        and container.running
        and not container.oneoff
        and not container.foreign
        and (not seen.directory or container.working_dir == seen.directory)
    )


def _darwin(wanted: PortSpec, seen: Seen, blocked: bool) -> tuple[Holder, ...]:
    assert seen.darwin is not None
    if not blocked:
        return ()
    published = [
        one for one in seen.tables.containers if one.running and attribution.publishes(one, wanted)
    ]
    if published:
        return tuple(
            Holder(kind="container", container=one, evidence=("docker ps",)) for one in published
        )
    found = darwin.holders(wanted, *seen.darwin, refused=wanted in seen.refused)
    if found:
        return found
    why = "lsof shows nobody" if seen.tables.root else "only root is shown other users' sockets"
    return (Holder(kind="hidden", why_hidden=why),)


def _windows(
    wanted: PortSpec, seen: Seen, side: WindowsSide, here: tuple[Holder, ...]
) -> tuple[tuple[Holder, ...], str]:
    """The holders of both sides, and why it cannot be told.

    The Windows side matters where Docker Desktop binds there, and where nothing on this side
    explains a bind that failed (both sides then share their network).
    """
    seen_here = tuple(one for one in here if one.kind != "hidden")
    if not side.desktop and (seen_here or not here):
        return here, ""
    there = side.holders(wanted, refused=bool(here) and not side.desktop)
    if seen_here:
        # What Docker Desktop or Windows keeps for it stands for what was found on this side.
        there = tuple(
            one
            for one in there
            if one.kind == "windows"
            and one.windows is not None
            and one.windows.image.casefold() not in windows.DOCKER_DESKTOP
        )
        ours = all(_ours(one.container, seen) for one in seen_here)
        return (seen_here if ours else (*seen_here, *there)), ""
    if there:
        return there, ""
    if side.desktop and not side.sockets:
        return (), "Docker Desktop binds on the Windows side, and netstat.exe told nothing of it"
    return here, ""
