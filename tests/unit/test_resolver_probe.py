"""The resolver's probe on a host of namespaces: what it makes of services and files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stackmend.resolver.facts import Resolver
from stackmend.resolver.state import HostResolver
from tests.unit.hostile_host import SHELLS, HostileHost, hostile_host


@pytest.fixture(scope="module")
def machine() -> Iterator[HostileHost]:
    with hostile_host() as made:
        yield made


@pytest.fixture
def host(machine: HostileHost) -> HostileHost:
    machine.clear("etc", "run", "sys", "var/lib")
    machine.write("etc/resolv.conf", "nameserver 192.0.2.53\n")
    return machine


def read(host: HostileHost, shell: str) -> HostResolver:
    (state,) = host.fetch_facts(shell, [(Resolver, {})])
    assert isinstance(state, HostResolver), state
    return state


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("says", "startup"),
    [
        ("echo masked; exit 1", "masked"),
        ("echo not-found; exit 4", "not-found"),
        # It does not answer in time, or not at all.
        ("exit 124", ""),
        ("echo 'Failed to connect to bus' >&2; exit 1", ""),
    ],
)
def test_a_service_that_nothing_is_known_of_is_not_called_missing(
    host: HostileHost, shell: str, says: str, startup: str
) -> None:
    host.path("run/systemd/resolve").mkdir(parents=True)
    host.path("run/systemd/system").mkdir()
    host.write("etc/systemd/system/systemd-resolved.service", "[Service]\n")
    host.program("systemctl", says)
    assert read(host, shell).startup == startup
