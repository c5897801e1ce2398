"""Values for browsers and for services that are exchanged. Pure."""

import re
from collections.abc import Mapping, Sequence

from stackmend.addresses.kinds import is_loopback
from stackmend.addresses.state import Address, Edit, Judgement


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
        if (
            outer.side == "browser"
            and outer.target
            and not inner.target
            and ("." in inner.host or is_loopback(inner.host))
        ):
            found[service, key] = outer
            found[service, outer.place.key] = inner
    return found


def report_swapped(address: Address, other: Address, environment: Mapping[str, str]) -> Judgement:
    """A value that belongs to another variable."""
    key = address.place.key
    value, belongs = (environment[k] for k in (key, other.place.key))
    place = address.place.model_copy(update={"start": 0, "end": len(value)})
    return Judgement(
        address=address,
        status="wrong",
        reason="swapped",
        right=other.url,
        edits=(Edit(place=place, old=value, new=belongs),),
        cause=f"{key} and {other.place.key} hold each other's value: only one of them is for "
        "browsers",
        remedy=f"exchange the values of {key} and {other.place.key}",
    )
