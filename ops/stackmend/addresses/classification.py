"""Says of each address whether it leads where it should, and what would be right. Pure.

One wrong rewrite is worse than ten faults that are missed: whatever may be right is right, and what
may be meant in two ways is reported with both and never rewritten.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from stackmend.addresses.applications import classify_form
from stackmend.addresses.corrections import format_edits, make_edits, replace_host, split_right
from stackmend.addresses.exchanged import find_swapped, report_swapped
from stackmend.addresses.gateway import GATEWAYS, classify_gateway
from stackmend.addresses.kinds import is_host_name, is_known_scheme, is_loopback, is_typical_port
from stackmend.addresses.listing import is_for_browsers
from stackmend.addresses.loopback import classify_loopback
from stackmend.addresses.naming import classify_name
from stackmend.addresses.proxies import add_exemptions
from stackmend.addresses.stack import Stack
from stackmend.addresses.state import Address, ImageFacts, Judgement, Running

#: Why an address is wrong for the service, and maybe not for a browser.
_DOUBTFUL = frozenset(
    {
        "default-bridge",
        "host-network",
        "not-shared",
        "shared-alias",
        "shared-namespace",
        "unknown-name",
        "wrong-kind",
    }
)


def classify(
    addresses: Sequence[Address],
    config: Mapping[str, Any],
    running: Running | None = None,
    images: Mapping[str, ImageFacts] | None = None,
    ignore: Collection[str] = (),
) -> tuple[Judgement, ...]:
    """What is thought of each address, in their order.

    :param addresses: as :func:`stackmend.addresses.read` read them, and
        :func:`stackmend.addresses.locate` found their lines where the project's files are known.
    :param config: what ``docker compose config --format json`` gives, ``$$`` unescaped.
    :param running: what runs, as far as it is known; without it the configuration alone decides.
    :param images: what images bring, as for ``read``.
    :param ignore: ``SERVICE.VARIABLE`` each, with ``*`` for any; those are left out.

    Example:
        >>> from stackmend.addresses.reading import read
        >>> services = {"api": {"environment": {"URL": "redis://localhost"}}, "redis": {}}
        >>> config = {"services": services}
        >>> [(one.status, one.right) for one in classify(read(config), config)]
        [('wrong', 'redis:6379')]
    """
    stack = Stack(addresses, config, running, images)
    swapped = find_swapped(addresses)
    judgements = [
        _hold_back(stack, _classify_thoroughly(stack, address, swapped))
        for address in addresses
        if not any(
            fnmatchcase(f"{address.place.service}.{address.place.name}", pattern)
            for pattern in ignore
        )
    ]
    return add_exemptions(judgements, stack.names, stack.environments)


def _hold_back(stack: Stack, judgement: Judgement) -> Judgement:
    """What is thought of an address, without what is not sure enough to be written.

    A bare word is a host by the name of what holds it alone, and a scheme that nobody knows may be
    of anything.
    """
    address = judgement.address
    if judgement.status == "right":
        return judgement
    if judgement.status == "wrong" and judgement.reason in _DOUBTFUL and is_for_browsers(address):
        cause = f"{address.place.name} is for browsers by its name, and {judgement.cause}"
        return _make_ambiguous(judgement.model_copy(update={"cause": cause}))
    if address.scheme and not is_known_scheme(address.scheme):
        return _hold_back_scheme(stack, judgement)
    if address.port or address.scheme or is_loopback(address.host) or address.host in GATEWAYS:
        return judgement
    if is_host_name(address.place.hint):
        return judgement.model_copy(update={"edits": ()})
    return judgement if judgement.status == "ambiguous" else Judgement(address=address)


def _hold_back_scheme(stack: Stack, judgement: Judgement) -> Judgement:
    address = judgement.address
    if is_loopback(address.host):
        kinds = stack.list_hints(address)
        if not any(is_typical_port(address.port, kind) for kind in kinds):
            return Judgement(address=address)
    return _make_ambiguous(judgement) if judgement.edits else judgement


def _make_ambiguous(judgement: Judgement) -> Judgement:
    """The same, where the address may as well be meant as it stands."""
    as_it_stands = f"{judgement.address.text}: as it stands"
    return Judgement(
        address=judgement.address,
        status="ambiguous",
        reason=judgement.reason,
        readings=(as_it_stands, judgement.right) if judgement.right else (as_it_stands,),
        cause=judgement.cause,
        remedy=judgement.remedy,
    )


def _classify_thoroughly(
    stack: Stack, address: Address, swapped: Mapping[tuple[str, str], Address]
) -> Judgement:
    """What is thought of an address, and of what would be right instead."""
    if other := swapped.get((address.place.service, address.place.key)):
        return report_swapped(address, other, stack.environments[address.place.service])
    judgement = _classify(stack, address)
    # A port may be the host's there, too.
    for _ in range(3):
        host, port = split_right(judgement)
        if not host or judgement.reason == "form":
            break
        corrected = replace_host(address, host, port, stack.services)
        after = _classify(stack, corrected)
        # What does not run is none of the address's.
        if after.status != "wrong" or after.reason in ("not-up", "loopback-only"):
            break
        if after.reason == "not-listening" and not after.right:
            break
        if after.reason == "form" and (form := classify_form(stack, address, corrected.target)):
            return judgement.model_copy(
                update={
                    "edits": (*judgement.edits, *form.edits),
                    "cause": f"{judgement.cause}; {form.cause}",
                    "remedy": f"{judgement.remedy}, and {form.remedy}",
                }
            )
        if after.needs and not after.right:
            return judgement.model_copy(update={"needs": {**judgement.needs, **after.needs}})
        host, port = split_right(after)
        edits = make_edits(address, host, port) if host else ()
        judgement = judgement.model_copy(
            update={
                "right": after.right,
                "edits": edits,
                "cause": f"{judgement.cause}; {after.cause}",
                "remedy": format_edits(edits) if edits else after.remedy,
            }
        )
    return judgement


def _classify(stack: Stack, address: Address) -> Judgement:
    service = address.place.service
    if address.place.kind == "healthcheck" or address.side == "bind":
        return Judgement(address=address)
    if not stack.names.owners[service] or stack.names.get_mode(service) == "none":
        return Judgement(address=address)
    if is_loopback(address.host):
        return classify_loopback(stack, address)
    if address.host in GATEWAYS:
        return classify_gateway(stack, address)
    is_foreign = "." in address.host and not stack.names.resolve(service, address.host)
    if is_foreign or ":" in address.host or stack.names.is_elsewhere(service, address.host):
        return Judgement(address=address)
    if address.side != "server":
        return Judgement(address=address)
    if address.host not in {name.lower() for name in stack.names.groups[service]}:
        return classify_name(stack, address)
    return Judgement(address=address)
