"""resolver.servers and resolver.cache_flushed, judged by what a host resolves and whom it asks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.names import (
    CHECKED,
    FIRST,
    INTERNAL,
    OWNERS,
    PUBLIC,
    ROOM,
    SAYS,
    SECOND,
    Names,
)

#: What makes an owner say again what it says: it is restarted, or its lease is renewed.
AGAIN = {
    "stub": "systemctl restart systemd-resolved",
    "uplink": "systemctl restart systemd-resolved",
    "networkd": "systemctl restart systemd-networkd && networkctl renew lan0 && sleep 1",
    "NetworkManager": "systemctl restart NetworkManager && nmcli connection up lan",
    "openresolv": f"printf 'nameserver {SECOND}\\n' | resolvconf -a lan0.dhcp",
    "dhclient": "systemctl restart lab-dhclient && sleep 3",
    "plain file": "true",
    "bind mount": "true",
}


@pytest.fixture(scope="module")
def machine(lab: Lab) -> LabHost:
    """One host for all of these tests: each makes its resolver as it needs it."""
    host = lab.take(1, "names")[0]
    # A reset ends the DHCP server beside it.
    host.sh("systemctl restart lab-dns")
    return host


@pytest.fixture
def names(machine: LabHost, tmp_path: Path) -> Names:
    return Names(machine, tmp_path)


def changed(names: Names) -> bool:
    return names.host.exists("/var/lib/stackmend/journal.jsonl")


# Servers that last.


@pytest.mark.parametrize("owner", OWNERS)
def test_servers_last_through_their_owner(names: Names, owner: str) -> None:
    names.own(owner)
    done = names.set(FIRST)
    assert done.run.rc == 0, done.run.out
    assert names.resolve() == SAYS[FIRST]
    assert not names.host.exists(f"{ROOM}/armed")
    assert "stackmend" not in names.host.sh("systemctl list-units --all --no-legend 'stackmend*'")
    seen = names.observe()
    again = names.set(FIRST)
    assert again.run.rc == 0, again.run.out
    assert not again.all("done"), again.run.out
    assert names.observe() == seen
    names.host.sh(AGAIN[owner], timeout=60)
    assert names.resolve() == SAYS[FIRST], "after the owner said it again"
    names.host.power_cut()
    names.wait_for(FIRST)
    assert not names.set(FIRST).all("done"), "after a reboot"


def test_servers_set_at_run_time_alone_are_made_to_last(names: Names) -> None:
    names.own("networkd")
    names.host.sh(f"resolvectl dns lan0 {FIRST}")
    names.wait_for(FIRST)
    done = names.set(FIRST)
    assert done.run.rc == 0, done.run.out
    assert f"lan0 has {FIRST} at run time alone" in done.run.out
    assert not names.set(FIRST).all("done")
    names.host.sh(AGAIN["networkd"], timeout=60)
    assert names.resolve() == SAYS[FIRST]


def test_what_else_a_file_holds_stays(names: Names) -> None:
    names.own("plain file")
    names.host.sh("chmod 0640 /etc/resolv.conf && ln -sf /etc/site.conf /etc/resolv.tmp")
    names.host.sh("mv /etc/resolv.conf /etc/site.conf && mv /etc/resolv.tmp /etc/resolv.conf")
    done = names.set(FIRST, SECOND, search=["a.example", "b.example"])
    assert done.run.rc == 0, done.run.out
    assert names.host.read("/etc/resolv.conf").decode().splitlines() == [
        "# mine",
        "search a.example b.example",
        f"nameserver {FIRST}",
        f"nameserver {SECOND}",
        "options timeout:3",
    ]
    assert names.host.sh("readlink /etc/resolv.conf; stat -c %a /etc/site.conf").split() == [
        "/etc/site.conf",
        "640",
    ]
    names.host.sh("rm /etc/resolv.conf /etc/site.conf")


def test_an_immutable_file_stays_unless_forced(names: Names) -> None:
    names.own("plain file")
    names.host.sh("chattr +i /etc/resolv.conf")
    seen = names.observe()
    done = names.set(FIRST)
    assert done.run.rc == 1
    assert "/etc/resolv.conf: it is immutable (chattr +i)" in done.run.out
    assert '"on_conflict": "force"' in done.run.out
    assert names.observe() == seen
    assert not changed(names)
    forced = names.set(FIRST, on_conflict="force")
    assert forced.run.rc == 0, forced.run.out
    assert names.resolve() == SAYS[FIRST]
    assert "i" in names.host.sh("lsattr -d /etc/resolv.conf").split()[0]
    assert not names.set(FIRST).all("done"), "what is so already needs no consent"


# Servers that are no good.


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["dead"], "does not answer"),
        (["lies"], f"resolves none of the check names: {PUBLIC} (NXDOMAIN), {INTERNAL} (NXDOMAIN)"),
        ([f"{PUBLIC} 192.0.2.11"], f"does not resolve {INTERNAL} (NXDOMAIN); it resolves {PUBLIC}"),
        ([f"{INTERNAL} 192.0.2.11"], f"does not resolve {PUBLIC} (NXDOMAIN); it resolves"),
        (["hijacks"], "invents answers"),
    ],
)
def test_a_server_that_is_no_good_is_refused_by_name(
    names: Names, lines: list[str], reason: str
) -> None:
    names.own("stub" if lines == ["lies"] else "plain file")
    names.serve(FIRST, *lines)
    seen = names.observe()
    done = names.set(SECOND, FIRST)
    assert done.run.rc == 1
    assert f"refused: DNS server {FIRST}: {reason}" in done.run.out
    assert f"DNS server {SECOND}" not in done.run.out
    assert names.observe() == seen
    assert not changed(names)
    assert names.resolve() == SAYS[SECOND]


# A server that dies afterwards.


@pytest.mark.parametrize("owner", ["plain file", "stub"])
def test_a_change_that_nobody_confirms_is_reverted(names: Names, owner: str) -> None:
    """Ten tries each: the server dies after the write, and the controller before the disarming."""
    names.own(owner)
    seen = names.observe()
    # Within the host: nobody from outside is as quick.
    dying = (
        f"setsid sh -c 'until [ -e {ROOM}/armed ] && ! [ -e /run/stackmend-resolver ]; do "
        "sleep 0.01; done; "
        f"echo dead > /var/lib/lab-dns/{FIRST}; date +%s > /run/died' > /dev/null 2>&1 &"
    )
    for number in range(10):
        names.serve(FIRST)
        names.host.sh(f"rm -f /run/died; {dying}")
        # The first waits for what every later one has made short.
        with names.start(servers=[FIRST], revert_after=20 if number == 0 else 600) as running:
            names.host.wait_for("[ -e /run/died ]", 60)
            # At another moment each time, and before it has waited for the dead server.
            time.sleep(number * 0.1)
            assert running.process.poll() is None, running.output()
            running.kill()
        assert names.host.exists(f"{ROOM}/armed"), "killed too late to show anything"
        written = "cat /etc/systemd/resolved.conf.d/60-* /etc/resolv.conf 2>/dev/null"
        assert FIRST in names.host.sh(written, check=False)
        if number == 0:
            names.host.wait_for(f"! [ -e {ROOM}/armed ]", 40)
        elif number == 1:
            names.host.power_cut()
            names.host.wait_for(f"! [ -e {ROOM}/armed ]", 30)
        else:
            timer = names.host.sh("systemctl list-units --plain --no-legend 'stackmend-*.timer'")
            names.host.sh(f"systemctl start {timer.split()[0].removesuffix('.timer')}.service")
            names.host.wait_for(f"! [ -e {ROOM}/armed ]", 30)
        assert names.resolve() == SAYS[SECOND]
        assert names.observe() == seen
    names.serve(FIRST)
    done = names.set(FIRST)
    assert done.run.rc == 0, done.run.out
    assert names.resolve() == SAYS[FIRST]


def test_a_server_that_dies_meanwhile_is_reverted_at_once(names: Names) -> None:
    names.own("NetworkManager")
    seen = names.observe()
    names.host.sh(
        f"setsid sh -c 'until [ -e {ROOM}/armed ]; do sleep 0.01; done; "
        f"echo dead > /var/lib/lab-dns/{FIRST}' > /dev/null 2>&1 &"
    )
    done = names.set(FIRST)
    assert done.run.rc == 1
    assert f"DNS server {FIRST} does not answer" in done.run.out
    assert "The change of the servers was reverted" in done.run.out
    assert not names.host.exists(f"{ROOM}/armed")
    assert names.observe() == seen
    names.wait_for(SECOND)


# Links that are not ours.


@pytest.mark.parametrize(
    "domain",
    [
        "resolvectl domain tun0 '~corp.lab'",
        "resolvectl domain tun0 corp.lab; resolvectl default-route tun0 no",
    ],
)
def test_a_link_with_its_own_domain_keeps_its_servers(names: Names, domain: str) -> None:
    names.own("networkd")
    names.serve(SECOND, *(f"{name} {SAYS[SECOND]}" for name in CHECKED), "db.corp.lab 192.0.2.13")
    names.host.sh(
        "ip link add tun0 type veth peer name tun1; ip link set tun1 up; ip link set tun0 up; "
        f"ip address add 198.18.9.1/24 dev tun0; resolvectl dns tun0 {SECOND}; {domain}"
    )
    names.host.wait_for("getent hosts db.corp.lab")
    done = names.set(FIRST)
    assert done.run.rc == 0, done.run.out
    assert names.resolve() == SAYS[FIRST]
    assert names.resolve("db.corp.lab") == "192.0.2.13"
    shown = names.host.sh("resolvectl dns tun0; resolvectl domain tun0").splitlines()
    assert [line.split()[-1].lstrip("~") for line in shown] == [SECOND, "corp.lab"]
    names.host.sh("resolvectl domain tun0 '~.'")
    names.serve(FIRST)
    refused = names.set(FIRST, SECOND)
    assert refused.run.rc == 1
    assert "the routing domain ~. sends all names to link tun0" in refused.run.out


def test_a_vpn_in_one_list_for_all_names_is_refused(names: Names) -> None:
    names.own("openresolv")
    names.host.sh(
        "ip link add tun0 type veth peer name tun1; "
        f"printf 'nameserver {SECOND}\\nsearch corp.lab\\n' | resolvconf -a tun0.openvpn"
    )
    seen = names.observe()
    done = names.set(FIRST)
    assert done.run.rc == 1
    assert f"VPN tun0.openvpn: it has its own server {SECOND}" in done.run.out
    assert names.observe() == seen
    assert names.set(FIRST, on_conflict="force").run.rc == 0
    assert names.resolve() == SAYS[FIRST]


# Caches.

CACHES = {
    "systemd-resolved": (
        "stub",
        f"printf '[Resolve]\\nDNS={FIRST}\\n' > /etc/systemd/resolved.conf.d/10-site.conf; "
        "systemctl restart systemd-resolved",
    ),
    "nscd": (
        "plain file",
        f"echo nameserver {FIRST} > /etc/resolv.conf; systemctl start nscd",
    ),
    "dnsmasq": (
        "plain file",
        "echo nameserver 127.0.0.1 > /etc/resolv.conf; "
        f"printf 'server={FIRST}\\nno-resolv\\n' > /etc/dnsmasq.conf; "
        "dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq.pid "
        "--listen-address=127.0.0.1 --bind-interfaces",
    ),
    "unbound": (
        "plain file",
        "echo nameserver 127.0.0.1 > /etc/resolv.conf; rm -f "
        "/etc/unbound/unbound.conf.d/root-*; printf 'server:\\n do-ip6: no\\n interface: 127.0.0.1"
        "\\n module-config: iterator\\nforward-zone:\\n "
        f"name: .\\n forward-addr: {FIRST}\\n' > /etc/unbound/unbound.conf.d/lab.conf; "
        "systemctl start unbound",
    ),
}


@pytest.mark.parametrize("cache", CACHES)
def test_a_stale_cache_is_flushed_once(names: Names, cache: str) -> None:
    owner, begin = CACHES[cache]
    names.own(owner)
    names.host.sh(begin)
    names.wait_for(FIRST)
    assert names.resolve(PUBLIC) == SAYS[FIRST]
    fresh = names.flush()
    assert fresh.run.rc == 0, fresh.run.out
    assert not fresh.all("done"), fresh.run.out
    names.serve(FIRST, f"{INTERNAL} 192.0.2.21", f"{PUBLIC} {SAYS[FIRST]}")
    assert names.resolve() == SAYS[FIRST], "it is stale"
    done = names.flush()
    assert done.run.rc == 0, done.run.out
    assert [action["subject"] for action in done.all("done")] == [cache]
    assert names.resolve() == "192.0.2.21"
    # A name that came, where the cache knows that there is none.
    names.serve(FIRST, f"{PUBLIC} {SAYS[FIRST]}")
    names.flush()
    assert names.resolve() == ""
    names.serve(FIRST, f"{INTERNAL} 192.0.2.22", f"{PUBLIC} {SAYS[FIRST]}")
    done = names.flush()
    assert done.run.rc == 0, done.run.out
    assert names.resolve() == "192.0.2.22"
    assert not names.flush().all("done"), "and once it is fresh, nothing"


# In the deploy.


@pytest.mark.parametrize("deploy", ["deploy/bootstrap.py", "deploy/site.py"])
def test_a_deploy_heals_names_first_and_asks_over_one_channel(names: Names, deploy: str) -> None:
    names.own("stub")
    names.serve(SECOND, "dead")
    section = {"servers": [FIRST], "check_names": CHECKED}
    inventory = controller.write_inventory(
        names.directory, [names.host], stack={"resolver": section}, user="operator"
    )
    done = controller.run(inventory, deploy, "-y")
    assert done.rc == 0, done.out
    assert names.resolve() == SAYS[FIRST]
    before = names.host.mark()
    again = controller.run(inventory, deploy, "-y")
    assert again.rc == 0, again.out
    assert " converged" in again.out
    assert len(names.host.sessions_since(before)) == 1
