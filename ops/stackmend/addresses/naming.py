"""Names: which service one leads to, and which one is meant where it leads nowhere. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stackmend.addresses.corrections import (
    explain_apart,
    explain_joining,
    report_ambiguous,
    report_rewritten,
    report_wrong,
)
from stackmend.addresses.kinds import find_kind_of_name, is_address_name
from stackmend.addresses.slips import is_similar
from stackmend.addresses.stack import Stack
from stackmend.addresses.state import Address, Judgement, Reason
from stackmend.addresses.target import classify_target


def classify_name(stack: Stack, address: Address) -> Judgement:
    """What is thought of a name without dots."""
    service, host = address.place.service, address.host
    if stack.names.get_mode(stack.names.owners[service]) == "bridge":
        return _classify_bridge(stack, address)
    found = stack.names.resolve(service, host)
    if stack.names.groups[service].intersection(found):
        return Judgement(address=address)
    if len(found) == 1:
        return classify_target(stack, address, found[0])
    if found:
        return _classify_shared(stack, address, found)
    target = next((name for name in stack.services if name.lower() == host), "")
    if target and stack.is_unselected(address, target):
        return Judgement(address=address)
    if stack.names.is_host(service):
        return _classify_from_host(stack, address)
    if target and stack.names.get_mode(target):
        return _classify_borrowed(stack, address, target)
    linked = stack.names.list_linked(service).get(host)
    if linked and linked in stack.services:
        return _report_not_shared(stack, address, linked)
    if elsewhere := stack.names.list_elsewhere(host):
        if (
            stack.names.has_foreign_names(service)
            or stack.is_unselected(address, elsewhere[0])
            or stack.is_of_another(address)
        ):
            return Judgement(address=address)
        return _report_not_shared(stack, address, elsewhere[0])
    return _classify_unknown(stack, address)


def _report_not_shared(stack: Stack, address: Address, target: str) -> Judgement:
    """A name that a service has on networks of its own alone."""
    service, host = address.place.service, address.host
    cause = explain_apart(stack, service, target)
    remedy = explain_joining(stack, service, target)
    if shared := sorted(stack.names.networks[service] & stack.names.networks[target]):
        joined = ", ".join(shared)
        cause = f"{target} has the name {host} on no network of {service}, and they share {joined}"
        remedy = f"use the name {target}, or give it the alias {host} on {shared[0]}"
    return Judgement(
        address=address, status="wrong", reason="not-shared", cause=cause, remedy=remedy
    )


def _classify_bridge(stack: Stack, address: Address) -> Judgement:
    service, host = address.place.service, address.host
    linked = stack.names.list_linked(service)
    on_bridge = {name for name in stack.services if stack.names.is_on_bridge(name)}
    if target := linked.get(host):
        if target in on_bridge:
            return classify_target(stack, address, target)
        if target not in stack.services:
            return Judgement(address=address)
        return Judgement(
            address=address,
            status="wrong",
            reason="default-bridge",
            cause=f"{service} is on Docker's default bridge and links to {target}, which is not",
            remedy=f"remove network_mode from {service}, or put both on a network of the project",
        )
    known = stack.names.list_elsewhere(host) or [n for n in stack.services if n.lower() == host]
    if not known or stack.is_unselected(address, known[0]):
        return Judgement(address=address)
    cause = f"{service} is on Docker's default bridge, where names lead nowhere"
    aliases = [alias for alias, target in linked.items() if target == known[0]]
    if len(aliases) == 1 and known[0] in on_bridge:
        cause = f"{cause}; its links call {known[0]} {aliases[0]}"
        return report_rewritten(address, "default-bridge", cause, aliases[0], address.port)
    return Judgement(
        address=address,
        status="wrong",
        reason="default-bridge",
        cause=cause,
        remedy=f"remove network_mode from {service}, or put both on a network of the project",
    )


def _classify_from_host(stack: Stack, address: Address) -> Judgement:
    """A name in a service that is on the host's network, where only published ports are."""
    service, host = address.place.service, address.host
    target = next((name for name in stack.services if name.lower() == host), "")
    if not target:
        return Judgement(address=address)
    port = stack.find_port(address)
    ports = sorted(
        published
        for published, targets in stack.names.published.items()
        for name, number, _ in targets
        if name == target and number == port
    )
    if stack.names.is_host(target):
        ports = [port] if port else []
    cause = f"{service} is on the host's network, where {host} leads nowhere"
    if len(ports) != 1:
        remedy = f"publish the port of {target} on 127.0.0.1, and use that"
        return Judgement(
            address=address, status="wrong", reason="host-network", cause=cause, remedy=remedy
        )
    return report_rewritten(address, "host-network", cause, "127.0.0.1", ports[0])


def _classify_borrowed(stack: Stack, address: Address, target: str) -> Judgement:
    """A service without networks of its own."""
    service, mode = address.place.service, stack.names.get_mode(target)
    owner = stack.names.owners[target]
    if not owner or stack.names.has_foreign_names(service):
        return Judgement(address=address)
    if owner != target and not stack.names.get_mode(owner):
        cause = f"{target} has the network of {owner} (network_mode: {mode}) and no name there"
        return report_wrong(
            stack, address, "shared-namespace", cause, owner, stack.find_port(address)
        )
    if stack.names.is_host(target):
        gateway = "host.docker.internal"
        cause = f"{target} is on the host's network, where no container finds it by name"
        return report_rewritten(address, "host-network", cause, gateway, stack.find_port(address))
    reason: Reason = "default-bridge" if mode == "bridge" else "not-shared"
    return Judgement(
        address=address,
        status="wrong",
        reason=reason,
        cause=f"{target} has network_mode: {mode}, and no name that {service} could ask for",
        remedy=f"remove network_mode from {target}",
    )


def _classify_shared(stack: Stack, address: Address, found: Sequence[str]) -> Judgement:
    """A name that several services answer to."""
    shapes = {
        (stack.names.kinds[name], _name_image(body) or str(body.get("build")))
        for name in found
        if (body := stack.services[name])
    }
    if len(shapes) == 1:
        # Copies of one service that share their callers, two versions of it, or a pool.
        return Judgement(address=address)
    port = stack.find_port(address)
    serving = [name for name in found if port and port in stack.names.ports[name]]
    cause = f"{' and '.join(found)} both answer to {address.host}; which does is chance"
    doubtful = any(stack.names.can_listen(name, port) for name in found if name not in serving)
    if (
        len(serving) == 1
        and not doubtful
        and stack.names.resolve(address.place.service, serving[0].lower()) == (serving[0],)
    ):
        return report_wrong(stack, address, "shared-alias", cause, serving[0], port)
    return Judgement(
        address=address,
        status="wrong",
        reason="shared-alias",
        cause=cause,
        remedy=f"give the alias {address.host} to one of them",
    )


def _name_image(body: Mapping[str, Any]) -> str:
    """A service's image without its tag."""
    path, slash, last = str(body.get("image") or "").partition("@")[0].rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}"


def _classify_unknown(stack: Stack, address: Address) -> Judgement:
    """A name that nothing in the project has."""
    service, host, place = address.place.service, address.host, address.place
    right = Judgement(address=address)
    if stack.names.has_foreign_names(service) or (
        place.kind in ("command", "entrypoint") and not (address.scheme or address.explicit)
    ):
        return right
    if not address.scheme and not address.explicit and not is_address_name(place.hint):
        return right
    ran = stack.running.services.get(service)
    known = ran.names.get(host) if ran else None
    if known:
        return right
    found = {
        name: _map_port(stack, address, name)
        for name in stack.services
        if name not in stack.names.groups[service]
        and not stack.names.is_absent(name)
        and _is_meant(stack, address, name)
        and stack.names.can_reach(service, name)
        and not stack.is_unselected(address, name)
    }
    cause = f"no service, alias or container of the project is called {host}"
    if known is False:
        cause = f"{cause}, and the name does not resolve in {service}"
    if len(found) == 1:
        ((target, number),) = found.items()
        if not _is_alike(stack, host, target):
            # A host of the network by any other name.
            return report_ambiguous(stack, address, "unknown-name", cause, found, itself=True)
        if _is_of_others(stack, address, target) or _is_closer(host, target):
            return report_ambiguous(stack, address, "unknown-name", cause, found, itself=True)
        if stack.names.is_joined(service):
            cause = f"{cause}, and another project may have it on a network of {service}"
            return report_ambiguous(stack, address, "unknown-name", cause, found, itself=True)
        if host in stack.running.elsewhere:
            # Its project may be down now, and join a network of this one again.
            cause = f"{cause}, but a container of another project on this host has that name"
            return report_ambiguous(stack, address, "unknown-name", cause, found, itself=True)
        if not address.port:
            return _classify_bare(stack, address, cause, target)
        if place.kind != "image" or stack.is_needed(service, target):
            return report_wrong(stack, address, "unknown-name", cause, target, number)
        return right
    if found:
        return report_ambiguous(stack, address, "unknown-name", cause, found)
    if not address.port or place.kind == "image" or stack.is_unused(address):
        return right
    if known is None:
        return Judgement(address=address, reason="unknown-name")
    return Judgement(
        address=address,
        status="wrong",
        reason="unknown-name",
        cause=f"the name {host} does not resolve in {service}; no service has it",
        remedy=f"correct the name, or put what has it on a network of {service}",
    )


def _classify_bare(stack: Stack, address: Address, cause: str, target: str) -> Judgement:
    """A bare word that nothing has for a name, and that may be no name."""
    needed = stack.is_needed(address.place.service, target)
    if address.place.kind == "image" and not needed:
        return Judgement(address=address)
    if needed or stack.names.kinds[target] in stack.list_hints(address):
        return report_wrong(stack, address, "unknown-name", cause, target, 0)
    return report_ambiguous(stack, address, "unknown-name", cause, {target: 0}, itself=True)


def _is_of_others(stack: Stack, address: Address, target: str) -> bool:
    """Whether a service is used by others alone, so that a host of the network may be meant."""
    service = address.place.service
    if stack.find_user(service, target):
        return True
    needed = target in (stack.services[service].get("depends_on") or {})
    if needed or is_similar(address.host, target.lower()):
        return False
    return any(target in of for name, of in stack.addressed.items() if name != service)


def _is_alike(stack: Stack, host: str, target: str) -> bool:
    """Whether a name may be a slip of a service's, or is usual for the software that it runs."""
    kind = stack.names.kinds[target]
    return is_similar(host, target.lower()) or bool(kind and find_kind_of_name(host) == kind)


def _is_closer(host: str, target: str) -> bool:
    """Whether a name says more than a service's: another project may have it on the network."""
    words, own = (frozenset(re.split("[-_]", name.lower())) for name in (host, target))
    return words > own


def _map_port(stack: Stack, address: Address, target: str) -> int:
    """The port of a service that an address means."""
    port = address.port
    if port in stack.names.ports[target]:
        return port
    for name, number, _ in stack.names.published.get(port, ()):
        if name == target:
            return number
    return port


def _is_meant(stack: Stack, address: Address, target: str) -> bool:
    """Whether a name that nothing has may well be meant for a service."""
    kind, host = stack.names.kinds[target], address.host
    hints = stack.list_hints(address)
    if kind and hints and kind not in hints:
        return False
    ports = stack.names.ports[target]
    port = stack.find_port(address)
    if hints and not kind and port not in ports:
        return False
    if (
        ports
        and port
        and _map_port(stack, address.model_copy(update={"port": port}), target) not in ports
    ):
        return False
    if _is_alike(stack, host, target):
        return True
    # The one service that runs what the address is for.
    return kind in hints and bool(kind) and stack.is_needed(address.place.service, target)
