"""Values for browsers and for services that are exchanged. Pure."""

import re
from collections.abc import Mapping, Sequence

from stackmend.addresses.kinds import is_loopback, split_name
from stackmend.addresses.reading import find_side
from stackmend.addresses.state import Address, Edit, Judgement

#: Words of variables whose value others may call back, services of the project among them.
_CALLED_BACK = frozenset({"webhook", "webhooks", "callback", "callbacks", "redirect", "hook"})
#: Names of networks that browsers outside do not see.
_INSIDE = re.compile(r"\.(?:internal|intranet|private|corp|lan|local|home|svc)(?:\.|$)")


def find_swapped(addresses: Sequence[Address]) -> dict[tuple[str, str], Address]:
    """Values for browsers and for services that are exchanged, each with the other one."""
    by_key = {
        (address.place.service, address.place.key): address
        for address in addresses
        if address.place.kind == "environment" and address.scheme in ("http", "https")
    }
    found: dict[tuple[str, str], Address] = {}
    for (service, key), inner in by_key.items():
        if "INTERNAL" not in key:
            continue
        outer = by_key.get((service, re.sub("INTERNAL_|_INTERNAL", "", key)))
        if outer is None or outer is inner or inner.user or outer.user:
            continue
        if outer.target == service:
            # Its own site, by the name that its copies may use.
            continue
        if (
            find_side(outer.place.hint, outer.scheme) == "browser"
            and outer.target
            and not inner.target
            and ("." in inner.host or is_loopback(inner.host))
        ):
            found[service, key] = outer
            found[service, outer.place.key] = inner
    return found


def report_swapped(address: Address, other: Address, environment: Mapping[str, str]) -> Judgement:
    """A value that belongs to another variable, as far as that is sure."""
    key = address.place.key
    cause = f"{key} and {other.place.key} hold each other's value: only one of them is for browsers"
    if doubt := _find_doubt(address, other):
        return Judgement(
            address=address,
            status="ambiguous",
            reason="swapped",
            readings=(f"{address.text}: as it stands", other.text),
            cause=f"{cause}, or neither; {doubt}",
            remedy=f"exchange the values of {key} and {other.place.key}, or add "
            f'"{address.place.service}.{key}" to "ignore" of the section "links"',
        )
    value, belongs = (environment[k] for k in (key, other.place.key))
    place = address.place.model_copy(update={"start": 0, "end": len(value)})
    return Judgement(
        address=address,
        status="wrong",
        reason="swapped",
        right=other.url,
        edits=(Edit(place=place, old=value, new=belongs),),
        cause=cause,
        remedy=f"exchange the values of {key} and {other.place.key}",
    )


def _find_doubt(address: Address, other: Address) -> str:
    """Why two values may both stand where they belong."""
    keys = {*split_name(address.place.key), *split_name(other.place.key)}
    if keys & _CALLED_BACK:
        return "what is called back may be a service of the project"
    target = address.target or other.target
    outside = other.host if address.target else address.host
    if {*split_name(target)} & keys:
        return f"{target} may be meant by its name"
    if _INSIDE.search(outside) or target.lower() in outside.split("."):
        return f"{outside} may be a name of an internal network"
    return ""
