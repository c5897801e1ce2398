"""The links of a project: which service calls which, as its addresses say. Pure."""

from collections.abc import Iterable

from stackmend.addresses.reading import find_side
from stackmend.addresses.state import Address, Judgement, Link


def is_call(address: Address) -> bool:
    """Whether a service connects to another of the project by an address."""
    place = address.place
    return (
        bool(address.target)
        and address.target != place.service
        and place.kind != "healthcheck"
        and address.side not in ("browser", "bind")
    )


def is_for_browsers(address: Address) -> bool:
    """Whether an address of a service is for browsers by the name of what holds it.

    The service that has it may call it or not: no run fails because of it.
    """
    return bool(address.target) and find_side(address.place.hint, address.scheme) == "browser"


def list_links(addresses: Iterable[Address | Judgement]) -> tuple[Link, ...]:
    """What services connect to within the project, each once, in the order of the addresses.

    Addresses for browsers, of healthchecks and to listen on are none. An address that is corrected
    stands as it is written; read the corrected configuration for the others.

    :param addresses: addresses, or what is thought of them.

    Example:
        >>> from stackmend.addresses.reading import read
        >>> services = {"api": {"environment": {"URL": "redis://redis"}}, "redis": {}}
        >>> [str(link) for link in list_links(read({"services": services}))]
        ['api → redis:6379 (URL)']
    """
    found: dict[tuple[str, str, int, str], Link] = {}
    for item in addresses:
        address = item.address if isinstance(item, Judgement) else item
        if is_call(address):
            link = make_link(address)
            found.setdefault((link.source, link.host, link.port, link.scheme), link)
    return tuple(found.values())


def make_link(address: Address) -> Link:
    """An address as it is to be proven."""
    return Link(
        source=address.place.service,
        target=address.target,
        host=address.host,
        port=address.port,
        scheme=address.scheme,
        variable=address.place.name,
        place=address.place,
        login=address.user or address.password,
    )
