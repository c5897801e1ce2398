"""Whose turn it is to measure: of one server one alone, and of all a few at one time."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from stackmend.text import format_limit

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.worker.benchmark.endpoint import Endpoint

#: Measurements of this process at one time, and seconds that one waits for its turn.
MOST_TURNS, TURN = 8, 6 * 3600.0


class Turns:
    """Whose turn it is to measure: so many at one time, and of one server one alone.

    :param most: measurements at one time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, server: str, timeout: float) -> Iterator[None]:
        """Wait for a turn, and have it for as long as the block lasts.

        :param server: what is measured.
        :param timeout: seconds to wait.
        :raises StepError: others are measured for longer.
        """

        def is_free() -> bool:
            return not self._taken[server] and self._taken.total() < self._most

        with self._changed:
            if not self._changed.wait_for(is_free, timeout):
                raise StepError(
                    f"timed out after {format_limit(timeout)} waiting for other measurements of "
                    "this run; run again for this host alone"
                )
            self._taken[server] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[server] -= 1
                self._changed.notify_all()


_turns = Turns(MOST_TURNS)


@contextmanager
def take_turn(host: Host, endpoint: Endpoint, *, shared: bool) -> Iterator[None]:
    """Measure where no other measurement of this process spoils it, once there is none.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param shared: whether several hosts may reach the same server at its address.
    :raises StepError: there are others for too long.
    """
    here = not shared or is_loopback(endpoint.address)
    server = f"{host.name} {endpoint}" if here else f"{endpoint.address} {endpoint.port}"
    with fleet.wait_for(host, _turns.take(server, TURN)):
        yield


@contextmanager
def hold_turn(host: Host, endpoint: Endpoint) -> Iterator[connection.Lease]:
    """Measure a server of a host for another room, where nobody else measures on that host.

    :param host: the host that it runs on.
    :param endpoint: the server.
    :raises LeaseHeld: another run is at work there.
    :raises StepError: there are others of this run for too long.
    """
    lease = fleet.hold(host)
    with take_turn(host, endpoint, shared=False):
        yield lease


def is_loopback(address: str) -> bool:
    """Whether an address is that of each host itself.

    :param address: an IP address or a name.
    """
    if address == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False
