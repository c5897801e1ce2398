"""What is written in place of a wrong address. Pure."""

from collections.abc import Iterable, Mapping

from stackmend.addresses.kinds import SCHEME_PORTS, is_loopback
from stackmend.addresses.secrecy import show
from stackmend.addresses.stack import Stack
from stackmend.addresses.state import Address, Edit, Judgement, Reason


def make_edits(address: Address, host: str, port: int) -> tuple[Edit, ...]:
    """What is to be written so that an address leads elsewhere, and nothing more.

    :param host: the host that is right.
    :param port: its port; 0 leaves the port as it is.
    """
    place, text = address.place, address.text
    if address.explicit:
        new = f"{host}:{port or address.port}"
        return (Edit(place=place, old=text, new=new),) if new != text else ()
    edits = []
    if address.port_place is not None:
        if port and port != address.port:
            edits.append(Edit(place=address.port_place, old=str(address.port), new=str(port)))
    elif port and address.scheme and port != SCHEME_PORTS.get(address.scheme):
        host = f"{host}:{port}"
    if host != text:
        edits.insert(0, Edit(place=place, old=text, new=host))
    return tuple(edits)


def format_edits(edits: Iterable[Edit]) -> str:
    """What is to be written where, in words."""
    return "write " + ", and ".join(
        f"{show(edit.new)} instead of {show(edit.old)} in {edit.place.service}.{edit.place.name}"
        for edit in edits
    )


def split_right(judgement: Judgement) -> tuple[str, int]:
    """The host and the port that are right; empty and 0 where they are not known."""
    if judgement.status != "wrong" or not judgement.edits:
        return "", 0
    host, _, port = judgement.right.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else (judgement.right, 0)


def replace_host(address: Address, host: str, port: int, services: Iterable[str]) -> Address:
    """The address once another host and port are written for it."""
    target = next((name for name in services if name.lower() == host.lower()), "")
    return address.model_copy(
        update={
            "host": host.lower(),
            "port": port or address.port,
            "target": target,
            "networks": None,
            "text": f"{host}:{port}" if port else host,
        }
    )


def is_reachable_name(name: str) -> bool:
    """Whether containers can reach a service by its name at all.

    >>> is_reachable_name("redis"), is_reachable_name("redis."), is_reachable_name("localhost")
    (True, False, False)
    """
    return not name.endswith(".") and not is_loopback(name.lower())


def explain_unreachable(name: str) -> str:
    """Why containers cannot reach a service by its name."""
    if name.endswith("."):
        return f"no container reaches the service {name} by its name, which ends in a dot"
    return f"no container reaches the service {name} by its name, which every one has for itself"


def explain_apart(stack: Stack, service: str, target: str) -> str:
    """Why a service finds another by no name of its own, with the networks that each is on."""
    names = stack.names
    if shadow := _name_shadow(stack, service, target):
        return f"in {service} the name {target} is {shadow}'s, by its links"
    if names.is_on_bridge(service) and names.is_on_bridge(target):
        return f"{service} and {target} are on Docker's default bridge, where names lead nowhere"
    joined = []
    for name in (service, target):
        if mode := names.get_mode(names.name_target(name)):
            joined.append(f"{name} has network_mode: {mode}")
        else:
            joined.append(f"{name} is on {', '.join(sorted(names.networks[name])) or 'none'}")
    return f"{service} and {target} have no network in common: {', '.join(joined)}"


def explain_joining(stack: Stack, service: str, target: str) -> str:
    """What would have a service find another by its name, as a remedy."""
    names = stack.names
    if shadow := _name_shadow(stack, service, target):
        return f"remove {shadow}:{target} from the links of {service}"
    # Compose refuses networks beside a network_mode.
    owners = dict.fromkeys(names.name_target(name) for name in (service, target))
    if alone := [name for name in owners if names.get_mode(name)]:
        return f"remove network_mode from {' and '.join(alone)}, and put both on one network"
    return f"add one network to both {service} and {target}"


def _name_shadow(stack: Stack, service: str, target: str) -> str:
    """The service that has another's name by the links of a third; empty for none."""
    found = stack.names.resolve(service, target.lower())
    shared = stack.names.networks[service] & stack.names.networks[target]
    return found[0] if shared and len(found) == 1 and found[0] != target else ""


def report_wrong(
    stack: Stack, address: Address, reason: Reason, cause: str, target: str, port: int
) -> Judgement:
    """A wrong address that a service's own name and port correct, where it can be reached."""
    service, name = address.place.service, stack.names.name_target(target)
    if not is_reachable_name(name):
        return Judgement(
            address=address,
            status="wrong",
            reason=reason,
            cause=f"{cause}; {explain_unreachable(name)}",
            remedy=f"rename the service {name}, and use its new name",
        )
    if stack.names.can_reach(service, name):
        return report_rewritten(address, reason, cause, name, port)
    if stack.names.resolve(service, address.host) == (target,):
        # By a name of its links it does.
        return report_rewritten(address, reason, cause, address.host, port)
    written = f"{name}:{port}" if port else name
    return Judgement(
        address=address,
        status="wrong",
        reason=reason,
        cause=f"{cause}; {explain_apart(stack, service, name)}",
        remedy=f"{explain_joining(stack, service, name)}, and use {written}",
    )


def report_rewritten(
    address: Address, reason: Reason, cause: str, host: str, port: int
) -> Judgement:
    """A wrong address that another host and port correct."""
    edits = make_edits(address, host, port)
    written = f"{host}:{port}" if port else host
    return Judgement(
        address=address,
        status="wrong",
        reason=reason,
        right=written,
        edits=edits,
        cause=cause,
        remedy=format_edits(edits),
    )


def report_ambiguous(
    stack: Stack,
    address: Address,
    reason: Reason,
    cause: str,
    found: Mapping[str, int],
    *,
    itself: bool = False,
) -> Judgement:
    """An address that may be meant in several ways.

    :param found: the services that may be meant, with the port of each; 0 is not known.
    :param itself: whether it may be meant as it stands, too.
    """
    readings = [f"{address.text}: as it stands"] if itself else []
    for name, port in found.items():
        host = stack.names.name_target(name)
        written = f"{host}:{port}" if port else host
        if not is_reachable_name(host):
            written = f"the service {host} by another name: {explain_unreachable(host)}"
        readings.append(written)
    return Judgement(
        address=address,
        status="ambiguous",
        reason=reason,
        readings=tuple(readings),
        cause=cause,
        remedy=f"write what is meant in {address.place.service}.{address.place.name}, or add "
        f'"{address.place.service}.{address.place.name}" to "ignore" of the section "links"',
    )
