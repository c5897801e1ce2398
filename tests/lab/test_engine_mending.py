"""An engine that somebody broke: mended where the settings say so, judged from outside."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.engine import outer
from tests.lab.engine_runs import DAEMON_JSON, Runs, changed, run_container
from tests.lab.hosts import LabHost

KEPT = "/var/lib/stackmend/engine/kept"
CHANNEL = {"channel": "distro"}

#: What somebody wrote → what dockerd says of it.
BROKEN = {
    '{"dns": [': "line 1, column 10",
    '{"dns": 5}': "cannot unmarshal number",
    '{"insecure-registries": ["registry:5000"], "no-such-key": 1}': "no-such-key",
    '{"hosts": ["unix:///var/run/docker.sock"]}': "hosts as a flag",
}


def held(host: LabHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.read(DAEMON_JSON))
    return found


def kept_broken(host: LabHost) -> str:
    """The content of the broken files that were kept, the last one first."""
    return host.sh(f"cat $(ls -r {KEPT}/*.broken)")


def is_up(host: LabHost) -> bool:
    return host.sh("timeout 20 docker ps >/dev/null 2>&1 && echo up", check=False) == "up"


def test_a_broken_file_is_put_back(host: LabHost, tmp_path: Path) -> None:
    runs = Runs(tmp_path, host)
    assert runs.settings(mtu=1400).run.rc == 0
    one = run_container(host, "one", "--restart=always")
    good = host.read(DAEMON_JSON)
    for text, reason in BROKEN.items():
        host.put(DAEMON_JSON, text)
        host.sh("systemctl restart docker", check=False)
        up = host.sh("systemctl is-active docker", check=False)
        assert up != "active", "dockerd does not start with it"
        began = time.monotonic()
        told = runs.installed(**CHANNEL)
        seconds = time.monotonic() - began
        assert seconds < 40, "no client waits for an engine that cannot start"
        assert told.run.rc != 0, told.run.out
        (refusal,) = told.all("refusals")
        assert reason in refusal["reason"]
        assert f"{KEPT}/proven.json" in refusal["reason"]
        assert '"allow": ["config"]' in refusal["remedy"]
        assert not changed(told)
        assert host.read(DAEMON_JSON).decode() == text
        told = runs.installed(allow=["config"], **CHANNEL)
        assert told.run.rc == 0, told.run.out
        assert host.read(DAEMON_JSON) == good
        assert kept_broken(host).startswith(text)
        assert is_up(host)
        host.wait_for(f"docker ps -q --no-trunc | grep -q {one}", 30)
    again = runs.installed(allow=["config"], **CHANNEL)
    assert again.run.rc == 0, again.run.out
    assert not changed(again), again.run.out


def test_an_engine_that_runs_goes_on(host: LabHost, tmp_path: Path) -> None:
    """Broken under an engine that runs: it would not start again, and need not stop for it."""
    runs = Runs(tmp_path, host)
    assert runs.settings(mtu=1400).run.rc == 0
    run_container(host, "one")
    before, pid = host.identities(), host.sh("pidof dockerd")
    host.put(DAEMON_JSON, '{"dns": [')
    # What is set in the same run joins what is put back.
    told = runs.execute(("installed", "settings"), {**CHANNEL, "allow": ["config"], "mtu": 1400})
    assert told.run.rc == 0, told.run.out
    assert held(host)["mtu"] == 1400
    assert (host.identities(), host.sh("pidof dockerd")) == (before, pid)
    host.put(DAEMON_JSON, '{"mtu": "much"}')
    told = runs.settings(allow=["config"], mtu=1380)
    assert told.run.rc == 0, told.run.out
    assert held(host)["mtu"] == 1380
    assert "insecure-registries" in held(host), "what others had set comes back with it"
    assert '"mtu": "much"' in kept_broken(host)
    assert is_up(host)


def test_without_a_proven_file_the_one_before_or_none(host: LabHost, tmp_path: Path) -> None:
    runs = Runs(tmp_path, host)
    host.put(DAEMON_JSON, '{"dns": [')
    told = runs.installed(allow=["config"], **CHANNEL)
    assert told.run.rc != 0
    (refusal,) = told.all("refusals")
    assert "stackmend knows no earlier one" in refusal["reason"]
    assert host.read(DAEMON_JSON) == b'{"dns": ['
    # The newest is broken itself.
    host.sh(f"mkdir -p -m 0700 {KEPT}")
    host.put(f"{KEPT}/daemon.json.20260101T000000.000000Z", '{"mtu": 1300}')
    host.put(f"{KEPT}/daemon.json.20260102T000000.000000Z", '{"mtu": []}')
    host.put(f"{KEPT}/daemon.json.20260103T000000.000000Z.broken", "{}")
    told = runs.installed(allow=["config"], **CHANNEL)
    assert told.run.rc == 0, told.run.out
    assert held(host) == {"mtu": 1300}
    assert is_up(host)


# Beneath the containers

BRIDGE = "br-shop"


@pytest.fixture
def shop(host: LabHost) -> Iterator[LabHost]:
    """A host with two containers on a network of their own, one of which publishes a port."""
    host.docker(
        *("network", "create", "--subnet=192.168.70.0/24", "-o"),
        *(f"com.docker.network.bridge.name={BRIDGE}", "shop"),
    )
    # What is sent to a bridge without an address is to leave no machine.
    host.sh("ip route replace unreachable 192.168.70.0/24 metric 4000")
    run_container(host, "one", "--network=shop", "-p", "8090:80")
    run_container(host, "two", "--network=shop", "-e", "PORT=80")
    yield host
    # No reset of a host takes these back.
    host.sh(
        "ip route del unreachable 192.168.70.0/24; iptables -P FORWARD ACCEPT;"
        " iptables -D DOCKER-USER -s 192.168.70.99 -j DROP",
        check=False,
    )


def answers_outside(host: LabHost) -> bool:
    """Whether somebody elsewhere reaches the port that is published."""
    asked = outer("curl", "-sf", "-m", "3", f"http://{host.address}:8090/", check=False)
    return asked.returncode == 0


def reaches(host: LabHost) -> bool:
    """Whether one container reaches the other."""
    inspect = "docker inspect -f '{{.NetworkSettings.Networks.shop.IPAddress}}' two"
    asked = f"docker exec one busybox nc -w 3 $({inspect}) 80 </dev/null && echo reached"
    return "reached" in host.sh(f"timeout 10 sh -c {shlex.quote(asked)}", check=False)


#: How rules of the packet filter get lost, in full or in part.
FLUSHES = (
    "iptables -F; iptables -t nat -F",
    # As `nft flush ruleset` leaves it.
    "for t in filter nat; do iptables -t $t -F; iptables -t $t -X; done; iptables -P FORWARD DROP",
    "iptables -t nat -F POSTROUTING",
)


def test_rules_of_the_packet_filter_are_made_again(shop: LabHost, tmp_path: Path) -> None:
    host, runs = shop, Runs(tmp_path, shop)
    assert answers_outside(host)
    assert reaches(host)
    before = host.identities()
    for flush in FLUSHES:
        host.sh(flush)
        lost = host.sh("iptables-save | grep -v '^#'")
        pid = host.sh("pidof dockerd")
        if flush == FLUSHES[0]:
            told = runs.installed(**CHANNEL)
            assert told.run.rc != 0, flush
            (refusal,) = told.all("refusals")
            assert '"allow": ["restart"]' in refusal["remedy"]
            assert f"no rule for {BRIDGE}, the network shop" in refusal["reason"]
            assert not changed(told)
            assert (host.identities(), host.sh("pidof dockerd")) == (before, pid)
        told = runs.installed(allow=["restart"], **CHANNEL)
        assert told.run.rc == 0, told.run.out
        assert host.sh("pidof dockerd") != pid
        made = host.sh("iptables-save | grep -v '^#'")
        assert made != lost
        assert f"-o {BRIDGE} -j MASQUERADE" in made
        assert "--dport 8090 -j DNAT" in made
        assert set(host.docker("ps", "--format", "{{.Names}}").split()) == {"one", "two"}
        assert answers_outside(host), flush
        assert reaches(host), flush
    again = runs.installed(allow=["restart"], **CHANNEL)
    assert again.run.rc == 0, again.run.out
    assert not changed(again), again.run.out


def test_what_lies_beneath_containers_comes_back(shop: LabHost, tmp_path: Path) -> None:
    """A rule of somebody, a bridge that is down and without its address, a port that is off it."""
    host, runs = shop, Runs(tmp_path, shop)
    before, pid = host.identities(), host.sh("pidof dockerd")
    inspect = "docker inspect -f '{{.NetworkSettings.Networks.shop.IPAddress}}' one"
    address = host.sh(inspect)
    rule = f"-A DOCKER-USER -d {address}/32 -j DROP"
    host.sh(f"iptables -I DOCKER-USER -d {address} -j DROP")
    host.sh("iptables -I DOCKER-USER -s 192.168.70.99 -j DROP")
    assert not answers_outside(host)
    told = runs.installed(**CHANNEL)
    assert told.run.rc == 0, told.run.out
    (finding,) = told.all("findings")
    assert finding["cause"].endswith(f"drops traffic of one: {rule}")
    packets = int(finding["evidence"][0].partition(" ")[0])
    assert packets > 0, "those that were sent above"
    assert f'"allow": ["rule:{rule}"]' in finding["remedy"]
    assert not answers_outside(host)
    told = runs.installed(allow=[f"rule:{rule}"], **CHANNEL)
    assert told.run.rc == 0, told.run.out
    rules = host.sh("iptables -S DOCKER-USER")
    assert rule not in rules
    assert "-s 192.168.70.99/32 -j DROP" in rules, "only the one that is named"
    assert answers_outside(host)
    host.sh(
        f"ip address del 192.168.70.1/24 dev {BRIDGE} &&"
        f" ip link set $(ls /sys/class/net/{BRIDGE}/brif | head -n 1) nomaster &&"
        f" ip link set {BRIDGE} down"
    )
    assert not answers_outside(host)
    told = runs.installed(**CHANNEL)
    assert told.run.rc == 0, told.run.out
    assert [row["verb"] for row in told.all("done")] == ["set up", "give back", "attach"]
    assert answers_outside(host)
    assert reaches(host)
    assert (host.identities(), host.sh("pidof dockerd")) == (before, pid)


def test_what_an_engine_needs_to_run(host: LabHost, tmp_path: Path) -> None:
    """containerd that is stopped, a pid file of another process, a corrupt database."""
    runs = Runs(tmp_path, host)
    database = "/var/lib/docker/network/files/local-kv.db"
    host.sh("systemctl stop containerd")
    assert is_up(host), "the engine answers without it"
    told = runs.installed(**CHANNEL)
    assert told.run.rc == 0, told.run.out
    assert host.docker("run", "--rm", "lab/box:1", "echo", "here") == "here"

    host.sh("systemctl stop docker.socket docker")
    pid = host.sh("sleep 900 >/dev/null 2>&1 & echo $! | tee /run/docker.pid")
    told = runs.installed(**CHANNEL)
    assert told.run.rc == 0, told.run.out
    assert host.sh(f"cat /proc/{pid}/comm") == "sleep", "whose number it is lives on"
    assert host.docker("run", "--rm", "lab/box:1", "echo", "here") == "here"

    host.sh("rm /run/docker.sock")
    pid = host.sh("pidof dockerd")
    told = runs.installed(**CHANNEL)
    assert told.run.rc != 0, told.run.out
    (refusal,) = told.all("refusals")
    assert f"dockerd (process {pid}) runs and does not answer" in refusal["reason"]
    told = runs.installed(allow=["restart"], **CHANNEL)
    assert told.run.rc == 0, told.run.out
    assert host.docker("run", "--rm", "lab/box:1", "echo", "here") == "here"

    host.sh(f"rm -f {database}.*.broken")
    try:
        for fault in (
            f"truncate -s 5000 {database}",
            f"dd if=/dev/zero of={database} bs=1k count=64",
        ):
            host.docker("network", "create", "lost")
            host.sh(f"systemctl stop docker.socket docker; {fault} 2>/dev/null")
            host.sh("systemctl start docker", check=False)
            if fault.startswith("truncate"):
                told = runs.installed(**CHANNEL)
                assert told.run.rc != 0, told.run.out
                (refusal,) = told.all("refusals")
                assert refusal["subject"] == database
                assert '"allow": ["repair:networks"]' in refusal["remedy"]
                assert host.sh(f"stat -c %s {database}") == "5000"
            told = runs.installed(allow=["repair:networks"], **CHANNEL)
            assert told.run.rc == 0, told.run.out
            assert host.docker("run", "--rm", "lab/box:1", "echo", "here") == "here"
            assert "lost" not in host.docker("network", "ls", "--format", "{{.Name}}").split()
        assert host.sh(f"ls {database}.*.broken | wc -l") == "2"
    finally:
        if not is_up(host):
            # No reset of a host would start its engine again.
            host.sh(f"rm -f {database}; systemctl reset-failed docker; systemctl restart docker")
