"""The resolver's probe on a host of namespaces: what it makes of services and files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stackmend.resolver.facts import Resolver
from stackmend.resolver.plan import SetServers
from stackmend.resolver.state import HostResolver
from tests.shells import NAMES
from tests.unit.hostile_host import HostileHost, hostile_host
from tests.unit.resolver_world import FIRST, desired, make_plan


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


@pytest.mark.parametrize("shell", NAMES)
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


NETWORK = "etc/systemd/network/10-lan.network"


@pytest.mark.parametrize("shell", NAMES)
@pytest.mark.parametrize(
    ("files", "lasting"),
    [
        ({NETWORK: "[Network]\nDNS=192.0.2.1 192.0.2.2\nDNS = 192.0.2.3\n"}, "1 2 3"),
        (
            {
                NETWORK: "[DHCPServer]\nDNS=192.0.2.1\n[Network]\nDNS=192.0.2.2\n"
                "[IPv6SendRA]\nDNS=192.0.2.3\n"
            },
            "2",
        ),
        ({NETWORK: "[Network]\nDNS=192.0.2.1\nDNS=\nDNS=192.0.2.2\n"}, "2"),
        (
            {
                NETWORK: "[Network]\nDNS=192.0.2.1\n",
                # Read by their names, wherever they are.
                "etc/systemd/network/10-lan.network.d/30-c.conf": "[Network]\nDNS=192.0.2.3\n",
                "run/systemd/network/10-lan.network.d/20 b.conf": "[Network]\nDNS=\nDNS=192.0.2.2",
            },
            "2 3",
        ),
        (
            {
                NETWORK: "[Network]\nDNS=192.0.2.1\n",
                "etc/systemd/network/10-lan.network.d/20-b.conf": "",
                "run/systemd/network/10-lan.network.d/20-b.conf": "[Network]\nDNS=192.0.2.2\n",
            },
            "1",
        ),
        (
            {
                NETWORK: "[Network]\nDNS=\n",
                "run/systemd/netif/leases/2": "ADDRESS=192.0.2.9\nDNS=192.0.2.4 192.0.2.5\n",
            },
            "4 5",
        ),
        ({NETWORK: ""}, ""),
    ],
)
def test_what_files_of_networkd_name_is_read_as_it_reads_them(
    host: HostileHost, shell: str, files: dict[str, str], lasting: str
) -> None:
    host.write("sys/class/net/lan0/uevent", "IFINDEX=2\n")
    host.write("run/systemd/netif/links/2", f"NETWORK_FILE=/{NETWORK}\n")
    for path, text in files.items():
        host.write(path, text)
    (link,) = read(host, shell).links
    assert link.lasting == tuple(f"192.0.2.{number}" for number in lasting.split())


LIMIT = 65536


@pytest.mark.parametrize("shell", NAMES)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_file_of_64_kib_is_taken_whole_with_or_without_its_last_newline(
    host: HostileHost, shell: str, end: str
) -> None:
    text = ("# 34567\n" * (LIMIT // 8))[: LIMIT - 1 - len(end)] + "x" + end
    host.write("etc/resolv.conf", text)
    state = read(host, shell).model_copy(update={"root": True})
    assert state.file.text == text.removesuffix("\n") + "\n"
    plan = make_plan(state, desired(FIRST))
    assert [type(action) for action in plan.actions] == [SetServers], plan.refusals
    assert plan.actions[0].files[0].text == f"{state.file.text}nameserver {FIRST}\n"


@pytest.mark.parametrize("shell", NAMES)
@pytest.mark.parametrize("more", ["yy", "y\ny", "\ny", "\n\n", "y\n", "yyy\n" * 20000])
def test_a_larger_file_is_refused_and_never_cut(host: HostileHost, shell: str, more: str) -> None:
    host.write("etc/resolv.conf", f"#{'x' * (LIMIT - 1)}{more}")
    state = read(host, shell).model_copy(update={"root": True})
    plan = make_plan(state, desired(FIRST))
    assert not plan.actions
    assert "more than 64 KiB" in plan.refusals[0].reason
