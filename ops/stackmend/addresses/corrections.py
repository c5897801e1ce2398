"""What is written in place of a wrong address. Pure."""

from collections.abc import Iterable

from stackmend.addresses.kinds import SCHEME_PORTS
from stackmend.addresses.state import Address, Edit, Judgement


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


def split_right(judgement: Judgement) -> tuple[str, int]:
    """The host and the port that are right; empty and 0 where they are not known."""
    if judgement.status != "wrong" or not judgement.edits:
        return "", 0
    host, _, port = judgement.right.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else (judgement.right, 0)


def correct(address: Address, host: str, port: int, services: Iterable[str]) -> Address:
    """The address once another host and port are written for it."""
    target = next((name for name in services if name.lower() == host.lower()), "")
    return address.model_copy(
        update={
            "host": host.lower(),
            "port": port or address.port,
            "target": target,
            "text": f"{host}:{port}" if port else host,
        }
    )
