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
    DATA,
    FIRST,
    INTERNAL,
    OWNERS,
    PUBLIC,
    ROOM,
    SAYS,
    SECOND,
    Names,
    serve,
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
    assert SECOND not in names.host.read("/etc/resolv.conf").decode(), "nor as one of several"
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


def test_servers_as_desired_are_proven_to_resolve(names: Names) -> None:
    names.own("plain file")
    assert names.set(FIRST).run.rc == 0
    names.serve(FIRST, "dead")
    seen = names.observe()
    done = names.set(FIRST)
    assert done.run.rc == 1, done.run.out
    assert f"DNS server {FIRST}" in done.run.out
    assert "does not answer: asked from the host" in done.run.out
    assert f"the host does not resolve {PUBLIC}, {INTERNAL}" in done.run.out
    assert not done.all("done")
    assert names.observe() == seen
    names.serve(FIRST)
    done = names.set(FIRST)
    assert done.run.rc == 0, done.run.out
    assert not done.all("done")


def test_resolved_starts_with_the_host_from_then_on(names: Names) -> None:
    names.own("stub")
    names.host.sh("systemctl disable -q --now systemd-resolved")
    done = names.set(FIRST)
    assert done.run.rc == 0, done.run.out
    assert [action["verb"] for action in done.all("done")] == ["set", "enable"]
    assert names.host.sh("systemctl is-enabled systemd-resolved").strip() == "enabled"
    assert names.resolve() == SAYS[FIRST]
    assert not names.set(FIRST).all("done")


#: What stands where the file should, or is in it, and what is said of it.
BROKEN = {
    "ln -s resolv.conf /etc/resolv.conf": "it is a link that leads to itself",
    "mkdir /etc/resolv.conf": "it is a directory",
    "mkfifo /etc/resolv.conf": "it is no file (a FIFO",
    "ln -s /run/NetworkManager/resolv.conf /etc/resolv.conf": "it is NetworkManager's, which does",
    "echo nameserver 192.0.2.54 >/etc/resolv.conf; chattr +a /etc/resolv.conf": "append-only",
    "mkdir -p /mnt/iso; mount -t tmpfs -o mode=0755 iso /mnt/iso; "
    "echo nameserver 192.0.2.54 >/mnt/iso/resolv.conf; mount -o remount,ro /mnt/iso; "
    "ln -s /mnt/iso/resolv.conf /etc/resolv.conf": "root cannot write to /mnt/iso/",
    "{ echo nameserver 192.0.2.54; yes '# x' | head -c 70000; } >/etc/resolv.conf": "more than 64",
    "printf 'nameserver 192.0.2.54\\n# caf\\351\\n' >/etc/resolv.conf": "no UTF-8 text",
    "printf 'nameserver 192.0.2.54\\n# a\\000b\\n' >/etc/resolv.conf": "no UTF-8 text",
}


def test_what_cannot_be_written_as_it_is_is_refused_first(names: Names) -> None:
    names.own("plain file")
    file = "/etc/resolv.conf"
    look = f"stat -c '%N %F %s' {file}; if [ -f {file} ]; then md5sum {file}; fi"
    for begin, reason in BROKEN.items():
        names.host.sh(f"rm -rf /etc/resolv.conf; {begin}")
        seen = names.host.sh(look)
        done = names.set(FIRST)
        assert done.run.rc == 1, begin
        (refusal,) = done.all("refusals")
        assert refusal["subject"] == "/etc/resolv.conf"
        assert reason in refusal["reason"], begin
        assert refusal["remedy"]
        assert "nmcli" not in done.run.out
        assert done.run.seconds < 30, begin
        assert names.host.sh(look) == seen, begin
        names.host.sh(f"if [ -f {file} ]; then chattr -a {file} 2>/dev/null; fi; true")
    names.host.sh("umount /mnt/iso; rm -rf /etc/resolv.conf")


def test_a_full_disk_is_named_and_nothing_is_left(names: Names) -> None:
    names.own("plain file")
    seen = names.observe()
    full = {
        ROOM: "size=8k",
        "/etc/systemd/system": "size=4k",
    }
    for path, size in full.items():
        fill = "" if path == ROOM else f"; head -c 4096 /dev/zero >{path}/fill"
        names.host.sh(f"mkdir -p {path}; mount -t tmpfs -o mode=0700,{size} full {path}{fill}")
        done = names.set(FIRST)
        left = names.host.sh(f"ls {ROOM} /etc/systemd/system/stackmend* 2>/dev/null", check=False)
        names.host.sh(f"umount {path}")
        assert done.run.rc == 1
        assert f"nothing is changed; {path} is full: see df -h {path}" in done.run.out
        assert set(left.split()) - {"kept", "lock", f"{ROOM}:"} == set()
    assert names.observe() == seen


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


#: What is there while a change waits for its confirmation: the last of it goes last.
REVERTED = f"! [ -e {ROOM}/armed ] && ! [ -e /etc/systemd/system/stackmend-resolver.service ]"


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
            names.host.wait_for(REVERTED, 40)
        elif number == 1:
            names.host.power_cut()
            names.host.wait_for(REVERTED, 30)
        else:
            timer = names.host.sh("systemctl list-units --plain --no-legend 'stackmend-*.timer'")
            names.host.sh(f"systemctl start {timer.split()[0].removesuffix('.timer')}.service")
            names.host.wait_for(REVERTED, 30)
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
    for conflict, code in (("refuse", 1), ("force", 0)):
        same = names.set(FIRST, on_conflict=conflict)
        assert same.run.rc == code, same.run.out
        assert "the routing domain ~. sends all names to link tun0" in same.run.out


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


def test_a_vpn_that_comes_after_the_servers_were_set_keeps_its_own(names: Names) -> None:
    names.own("openresolv")
    assert names.set(FIRST, search=["a.example"]).run.rc == 0
    assert b"lab.internal" not in names.host.read("/etc/resolv.conf")
    own = "192.0.2.55"
    serve(names.host, own, name="db.corp.lan", address="192.0.2.13")
    lines = (f"{name} {SAYS[FIRST]}" for name in CHECKED)
    names.host.put(f"{DATA}/{own}", "\n".join([*lines, "db.corp.lan 192.0.2.13", ""]))
    names.host.sh(
        "ip link add wg0 type veth peer name wg1; "
        f"printf 'nameserver {own}\\nsearch corp.lan\\n' | resolvconf -a wg0 -m 0 -x"
    )
    assert names.resolve("db.corp.lan") == "192.0.2.13"
    seen = names.observe()
    again = names.set(FIRST, search=["a.example"])
    assert again.run.rc == 0, again.run.out
    assert not again.all("done"), again.run.out
    assert names.observe() == seen
    names.host.sh("resolvconf -d wg0")
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


def test_a_cache_whose_servers_are_silent_is_not_called_fresh(names: Names) -> None:
    names.own("stub")
    names.serve(SECOND, "dead")
    done = names.flush()
    assert done.run.rc == 1, done.run.out
    assert f"cannot be told: the servers behind it do not answer: {SECOND}" in done.run.out


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
