"""What listens in the networks of containers and of the host, as the kernel's tables say."""

import re
from collections.abc import Sequence
from ipaddress import ip_address

from pyinfra.api import FactBase, StringCommand

from stackmend.connection import make_mark, parse_probe, parse_sections, script

#: A container's id, or the host, and what listens there: pairs of an address and a port.
Listeners = dict[str, tuple[tuple[str, int], ...]]

_LINE = re.compile(r"(host|[0-9a-f]{64}) (?:-|([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}))")


class Listening(FactBase[Listeners]):
    """What listens for TCP in containers' networks and on the host; reads only.

    What could not be read is not in it.

    + containers: their ids.
    """

    _mark = ""

    def command(self, containers: Sequence[str]) -> StringCommand:
        """The probe, with its arguments quoted."""
        self._mark = make_mark()
        return script("stackmend.compose", "listening", *containers, mark=self._mark)

    def process(self, output: list[str]) -> Listeners:
        """What the probe printed.

        :raises FactProcessError: it did not run to its end.
        """
        return parse_probe(lambda lines: parse_listening(lines, self._mark), output, "what listens")


def parse_listening(output: Sequence[str], mark: str) -> Listeners:
    """Probe output to what listens.

    :raises ValueError: the output is not a probe's, or was cut off.
    """
    found = parse_sections(output, mark)
    if "listening" not in found:
        raise ValueError("it printed nothing that is ours")
    known: dict[str, set[tuple[str, int]]] = {}
    complete = set()
    for line in found["listening"][1]:
        if match := _LINE.fullmatch(line):
            place, address, port = match.groups()
            listeners = known.setdefault(place, set())
            if address is None:
                complete.add(place)
            else:
                listeners.add((_parse_address(address), int(port, 16)))
    return {place: tuple(sorted(known[place])) for place in sorted(complete)}


def _parse_address(text: str) -> str:
    """An address of the kernel's tables, which are words as they lie in a little-endian memory."""
    words = (text[at : at + 8] for at in range(0, len(text), 8))
    address = ip_address(b"".join(bytes.fromhex(word)[::-1] for word in words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
