"""Every row of the table of classes, on a host whose outside fails in exactly that way."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stackmend.connection import Unknown
from stackmend.connectivity.plan import classify_endpoints
from tests.lab import controller
from tests.lab.far import FarSide, far_side
from tests.lab.fixtures import Lab
from tests.lab.ports_runs import HostRun

WELL = "https://h10.far.test/204"


@pytest.fixture(scope="module")
def side(lab: Lab) -> Iterator[FarSide]:
    host = lab.take(1)[0]
    install = "apt-get install -y -q --no-install-recommends iputils-ping"
    host.sh(f"apt-get update -q && {install}", timeout=300)
    with far_side(host) as made:
        yield made


def expecting(last: int, scheme: str = "https") -> dict[str, Any]:
    return {"url": f"{scheme}://h{last}.far.test/204", "statuses": [204]}


#: What a server does at each stage, and what it is called.
SERVERS: list[tuple[Any, str]] = [
    (WELL, "healthy"),
    (expecting(10), "healthy"),
    (expecting(10, "http"), "healthy"),
    ({"url": "https://h25.far.test/v2/", "kind": "registry"}, "healthy"),
    ("https://h26.far.test/large", "healthy"),
    ("ssh://h10.far.test", "healthy"),
    ("tcp://h10.far.test:80", "healthy"),
    ("https://h11.far.test", "empty-reply"),
    ("http://h11.far.test", "empty-reply"),
    ("ssh://h11.far.test", "empty-reply"),
    ("https://h13.far.test", "empty-reply"),
    ("https://h34.far.test", "empty-reply"),
    ("https://h12.far.test", "reset"),
    ("http://h12.far.test", "reset"),
    ("https://h14.far.test", "reset"),
    ("http://h15.far.test", "proxy"),
    (expecting(16, "http"), "portal"),
    ({"url": "http://h16.far.test/v2/", "kind": "registry"}, "portal"),
    (expecting(24), "portal"),
    ("https://h17.far.test", "rate-limit"),
    ("https://h18.far.test", "outage"),
    ("https://h19.far.test", "timeout"),
    ("https://h22.far.test", "tls"),
    ("https://h23.far.test", "tls"),
    # Its certificate begins in 20 days and its Date is 30 days on: the host's clock stands behind.
    ("https://h21.far.test", "clock"),
    ("https://h10.far.test:444", "refused"),
    ("tcp://h10.far.test:444", "refused"),
    ("https://nowhere.far.test", "name"),
]


def test_what_servers_do_at_each_stage(side: FarSide) -> None:
    found = side.faults([endpoint for endpoint, _ in SERVERS])
    assert found == [fault for _, fault in SERVERS]


def test_with_what_a_host_has(side: FarSide) -> None:
    """Without curl Python speaks; what neither does, and what bash alone does, is unknown."""
    here = "mkdir -p /run/far/bin; cd /run/far/bin; ln -sf /usr/bin/* .; rm {}; cd /; "
    here += "export PATH=/run/far/bin; "
    names = ("10", "11", "12", "13", "17", "18", "22", "23", "34")
    asked = [(end, fault) for end, fault in SERVERS if str(end)[9:11] in names and "https" in end]
    found = side.faults([endpoint for endpoint, _ in asked], here.format("curl"))
    assert found == [fault for _, fault in asked]
    asked = [("http://h11.far.test", "empty-reply"), ("http://h12.far.test", "reset")]
    found = side.faults([endpoint for endpoint, _ in asked], here.format("curl"))
    assert found == [fault for _, fault in asked]
    rules = "INPUT -s 192.0.2.20 -m length --length 900:65535 -j DROP"
    with side.rules(rules):
        assert side.faults(["https://h20.far.test/"], here.format("curl")) == ["mtu"]
    ends = ["https://h10.far.test", "tcp://h10.far.test:80"]
    assert side.faults(ends, here.format("curl python3*")) == ["unknown", "healthy"]
    state = side.observe(ends[:1], here.format("ping"))
    assert "ping is not on the host" in state.endpoints[0].host.skipped.values()
    state = side.observe(ends[:1], here.format("bash"))
    assert [one.fault for one in classify_endpoints(state)] == ["healthy"]
    assert "bash is not on the host" in state.endpoints[0].host.skipped.values()


def test_what_remains_of_a_rate_limit(side: FarSide) -> None:
    hub = {"url": "https://h31.far.test/v2/", "kind": "registry", "rate_limit": "a/b"}
    (found,) = side.classify([hub]).values()
    assert found.fault == "rate-limit"
    assert found.evidence == ("HTTP 200", "limit 100;w=21600", "remaining 0;w=21600")


def test_packets_that_do_not_arrive(side: FarSide) -> None:
    drop = "-m statistic --mode random --probability"
    rules = (
        "INPUT -s 192.0.2.20 -m length --length 900:65535 -j DROP",
        "INPUT -s 192.0.2.25 -j DROP",
        f"INPUT -s 192.0.2.26 {drop} 0.05 -j DROP",
        f"OUTPUT -d 192.0.2.26 {drop} 0.05 -j DROP",
        f"INPUT -s 192.0.2.27 {drop} 0.3 -j DROP",
        "OUTPUT -p tcp -d 192.0.2.28 -j REJECT --reject-with icmp-host-unreachable",
        "INPUT -p tcp -s 192.0.2.32 --sport 443 -j REJECT --reject-with tcp-reset",
    )
    asked = {
        "https://h20.far.test/": "mtu",
        "http://h20.far.test/large": "mtu",
        "https://h25.far.test/": "route",
        "https://h26.far.test/": "loss",
        "https://h27.far.test/": "loss",
        "https://h28.far.test/": "route",
        "https://h33.far.test/": "healthy",
    }
    with side.rules(*rules[:-1]):
        found = side.classify(list(asked))
    assert {name: one.fault for name, one in found.items()} == asked
    (rate,) = [line for line in found["https://h27.far.test/"].evidence if "handshakes" in line]
    assert 10 <= int(rate.rpartition(": ")[2].split()[0]) <= 55
    # Echo requests are a second witness; who limits them alone is well.
    echoes = "INPUT -p icmp --icmp-type echo-reply -s 192.0.2.{} "
    limited = (f"{echoes.format(33)}{drop} 0.5 -j DROP", f"{echoes.format(29)}-j DROP")
    with side.rules(*rules[2:5], *limited):
        found = side.classify([f"https://h{last}.far.test/" for last in (26, 27, 29, 33)])
    assert [one.fault for one in found.values()] == ["loss", "loss", "healthy", "healthy"]
    (rate,) = [line for line in found["https://h27.far.test/"].evidence if "echo" in line]
    assert 10 <= int(rate.rpartition(": ")[2].split()[0]) <= 55
    # Small answers alone are no trouble of the MTU.
    with side.rules(rules[0]):
        assert side.faults(["http://h20.far.test/204"]) == ["healthy"]


def test_dns_servers(side: FarSide) -> None:
    try:
        for servers, fault in (
            ((53, 55), "dns-server"),
            ((55, 53), "dns-server"),
            ((56, 53), "dns-server"),
            ((57,), "dns-server"),
            ((58, 53), "dns-server"),
            ((), "resolver"),
            ((56,), "dns-blocked"),
            ((54, 53), "healthy"),
        ):
            side.resolve_by(*servers)
            assert side.faults([WELL], timeout=3) == [fault], servers
        # UDP alone is blocked, on the way out or back; then everything is.
        for rule in ("OUTPUT -p udp --dport 53 -j DROP", "INPUT -p udp --sport 53 -j DROP"):
            with side.rules(rule):
                assert side.faults([WELL], timeout=3) == ["dns-blocked"]
        with side.rules("INPUT -i near0 -j DROP"):
            assert side.faults([WELL, "https://192.0.2.10"], timeout=3) == ["route", "route"]
        # Port 53 alone, TCP as well: an address that is named tells that the link is up.
        with side.rules("INPUT -p udp --sport 53 -j DROP", "INPUT -p tcp --sport 53 -j DROP"):
            named = {"url": WELL, "addresses": ["192.0.2.10"]}
            assert side.faults([named], timeout=3) == ["dns-blocked"]
    finally:
        side.resolve_by(53, 54)


def test_the_hosts_own_resolver(side: FarSide) -> None:
    host = side.host
    try:
        host.sh("sed -i.lab 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf")
        assert side.faults([WELL, "https://h25.far.test"]) == ["resolver", "resolver"]
        host.sh("mv /etc/nsswitch.conf.lab /etc/nsswitch.conf")
        # An old address, as a stale cache has it.
        host.sh("cp /etc/hosts /run/far/hosts; echo 192.0.2.99 h25.far.test >> /etc/hosts")
        assert side.faults([WELL, "https://h25.far.test"]) == ["healthy", "resolver"]
    finally:
        host.sh("cat /run/far/hosts > /etc/hosts", check=False)


def test_ipv6_apart(side: FarSide) -> None:
    host = side.host
    asked = ["https://six.far.test", "https://dead-six.far.test", WELL]
    assert side.faults(asked, timeout=3) == ["healthy", "ipv6", "healthy"]
    with side.rules("INPUT -s fd00:2::/64 -p tcp -j DROP", tool="ip6tables"):
        assert side.faults(asked, timeout=3) == ["ipv6", "ipv6", "healthy"]
    # Without a way there, nobody tries it: that is no trouble.
    host.sh("ip addr del fd00:2::1/64 dev near0")
    try:
        assert side.faults(asked, timeout=3) == ["healthy", "healthy", "healthy"]
    finally:
        host.sh("ip addr add fd00:2::1/64 dev near0 nodad")
    with side.rules("INPUT -s 192.0.2.10 -p tcp -j DROP"):
        assert side.faults(asked[:1], timeout=3) == ["route"]


def test_proxies_of_the_programs(side: FarSide) -> None:
    host = side.host
    own = "export https_proxy=http://somebody:s3cret@192.0.2.30:3128;"
    registry = {"url": "https://h25.far.test/v2/", "kind": "registry"}
    found = side.classify([WELL, registry], own)
    assert [one.fault for one in found.values()] == ["proxy", "healthy"]
    assert "407" in " ".join(found[WELL].evidence)
    assert "s3cret" not in str(found)
    assert side.faults([WELL], "export https_proxy=http://192.0.2.30:9;") == ["proxy"]
    assert side.faults([WELL], f"{own} export no_proxy=far.test;") == ["healthy"]
    # What dockerd is set to use is of registries alone.
    host.put(
        "/etc/docker/daemon.json",
        json.dumps({"proxies": {"https-proxy": "http://somebody:s3cret@192.0.2.30:3128"}}),
    )
    found = side.classify([WELL, registry])
    assert [one.fault for one in found.values()] == ["healthy", "proxy"]
    assert "s3cret" not in str(found)
    host.sh("cp /lab/pristine/etc/docker/daemon.json /etc/docker/daemon.json")


def test_a_clock_that_is_wrong_inside_the_host(side: FarSide) -> None:
    # The clock of the machine under the lab is not to be touched: what the probe reads is, and the
    # certificate is one that a right clock takes, too.
    program = (
        '#!/bin/sh\n[ "$*" = +%s ] || exec /bin/date "$@"\necho $(($(/bin/date +%s) + AWAY))\n'
    )
    side.host.put("/usr/local/bin/date", program.replace("AWAY", str(30 * 86400)), mode="0755")
    try:
        # Expired for a host that is 30 days ahead: so is one that expired by its clock alone.
        assert side.faults(["https://h22.far.test", WELL]) == ["clock", "healthy"]
        # Not yet valid is no matter of a clock that is ahead.
        assert side.faults(["https://h23.far.test"]) == ["tls"]
    finally:
        side.host.sh("rm /usr/local/bin/date")


COMPOSE = """\
services:
  web:
    image: lab/box:1
    command: [sleep, "100000"]
    stop_grace_period: 0s
"""


def test_containers_apart_and_a_port_with_nothing_behind(side: FarSide, tmp_path: Path) -> None:
    host = side.host
    assert isinstance(side.observe([WELL], project="look").endpoints[0].container, Unknown)
    # The section in a stack: what it needs is told, and the stack is brought up all the same.
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    stack = {"project": "look", "source": str(tmp_path), "directory": "/opt/look"}
    section = {"endpoints": [WELL], "timeout": 3, "status_pages": []}
    inventory = controller.write_inventory(
        tmp_path, [host], stack={**stack, "connectivity": section, "stability": 1}
    )
    environment = {"STACKMEND_REPORTS": str(tmp_path / "reports")}
    done = controller.run(inventory, "deploy/site.py", "-y", env=environment)
    assert done.rc == 0, done.out
    record = HostRun(done, done.report["hosts"][host.name])
    kinds = {row["subject"]: row["kind"] for row in record.all("findings")}
    assert kinds["https://registry-1.docker.io"] == "name"
    assert WELL.removesuffix("/204") not in kinds
    sources = [name for name in kinds if name.startswith("http") and "docker.io" not in name]
    assert sources
    assert {kinds[name] for name in sources} <= {"name", "route"}
    host.docker("run", "-d", "--name", "idle", "-p", "18080:80", "lab/box:1", "sleep", "100000")
    asked = ["https://h10.far.test/large", "http://127.0.0.1:18080"]

    def places() -> list[tuple[str, str]]:
        found = side.classify(asked, project="look", timeout=3)
        return [(one.fault, one.place) for one in found.values()]

    assert places() == [("healthy", "host"), ("docker-proxy", "host")]
    del asked[1:]
    with side.rules("DOCKER-USER -p tcp -d 192.0.2.0/24 -j DROP"):
        assert places() == [("route", "container")]
    with side.rules("DOCKER-USER -s 192.0.2.10 -m length --length 900:65535 -j DROP"):
        assert places() == [("mtu", "container")]
    # Its own DNS servers, of the time when it started.
    host.put("/opt/look/compose.yaml", COMPOSE + "    dns: [192.0.2.56]\n")
    host.sh("cd /opt/look && docker compose -p look up -d --quiet-pull")
    assert places() == [("resolver", "container")]
    host.sh("cd /opt/look && docker compose -p look down; docker rm -f idle")


@contextmanager
def status_page(indicator: str) -> Iterator[tuple[str, list[str]]]:
    """A provider's page on this machine, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = {"status": {"indicator": indicator, "description": "as it is"}}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/status.json", asked
    finally:
        server.shutdown()
        server.server_close()


def checked(side: FarSide, directory: Path, **look: Any) -> HostRun:
    inventory = controller.write_inventory(directory, [side.host], data={"look": look})
    environment = {"STACKMEND_REPORTS": str(directory / "reports")}
    done = controller.run(inventory, "tests/lab/check_connectivity.py", "-y", env=environment)
    assert "Traceback" not in done.out, done.out
    return HostRun(done, done.report["hosts"][side.host.name])


def test_the_operation_tells_and_looks_only(side: FarSide, tmp_path: Path) -> None:
    host = side.host
    places = ("/etc", "/root", "/var/lib/stackmend", "/run/lock", "/usr/local")
    files, shared = host.snapshot_files(*places), host.sh("ls -A /dev/shm /tmp")
    mark = host.mark()
    with status_page("major") as (url, asked):
        page = {"provider": "far", "url": url, "domains": ["far.test"]}
        told = checked(side, tmp_path, endpoints=[WELL], status_pages=[page])
        assert told.run.rc == 0, told.run.out
        assert host.sessions_since(mark) == ["command for root"]
        assert [row for row in told.all("findings") if row["kind"] != "unchecked"] == []
        # What the host explains is asked of nobody.
        told = checked(side, tmp_path, endpoints=["https://nowhere.far.test"], status_pages=[page])
        assert [row["kind"] for row in told.all("findings")][:1] == ["name"]
        assert asked == []
        told = checked(
            side, tmp_path, endpoints=["https://h18.far.test"], status_pages=[page], on_fault="fail"
        )
        assert told.run.rc == 1, told.run.out
        finding = told.all("findings")[0]
        assert (finding["subject"], finding["kind"]) == ("https://h18.far.test", "outage")
        assert "far's status page says major: as it is" in finding["evidence"]
        assert finding["remedy"]
        assert set(asked) == {"/status.json"}
    told = checked(side, tmp_path, endpoints=["https://h18.far.test"], status_pages=[page])
    assert told.run.rc == 0, told.run.out
    assert "could not be read" in " ".join(told.all("findings")[0]["evidence"])
    assert host.snapshot_files(*places) == files
    assert host.sh("ls -A /dev/shm /tmp") == shared


def test_a_wrong_endpoint_is_refused_before_contact(side: FarSide, tmp_path: Path) -> None:
    mark = side.host.mark()
    inventory = controller.write_inventory(
        tmp_path, [side.host], data={"look": {"endpoints": ["ftp://x", "https://a:b@c"]}}
    )
    done = controller.run(inventory, "tests/lab/check_connectivity.py", "-y")
    assert done.rc == 1
    assert "without user, password" in done.out
    assert side.host.sessions_since(mark) == []


def test_healthy_endpoints_are_never_called_broken(side: FarSide) -> None:
    """200 of them, while both the host's cores are kept busy."""
    endpoints = [f"https://h{last}.far.test/204" for last in (10, 25, 26, 27, 28, 32, 33, 35)]
    endpoints += [f"http://h{last}.far.test/204" for last in (10, 25, 26, 27, 28, 32, 33, 35)]
    endpoints += [f"ssh://h{last}.far.test" for last in (10, 25, 26, 27)]
    busy = "for i in $(seq $(nproc)); do timeout 300 sh -c 'while :; do :; done' & done; "
    found = []
    for _ in range(10):
        found += classify_endpoints(side.observe(endpoints, busy))
        side.host.sh("pkill -f 'while :; do :; done'", check=False)
    assert len(found) == 200
    assert [one for one in found if one.fault != "healthy"] == []
