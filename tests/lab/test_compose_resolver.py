"""Containers that cannot resolve while their host can: those that need it are restarted, alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.engine_runs import DAEMON_JSON
from tests.lab.hosts import LabHost
from tests.lab.names import DATA, FIRST, SECOND, serve, stop_serving
from tests.lab.stacks import Shop

#: An address where no server is.
NONE = "192.0.2.55"
NAME, ADDRESS = "queue.lab.test", "192.0.2.10"
CHECK = {
    "kind": "exec",
    "name": "the name",
    "service": "side",
    "command": ["busybox", "nslookup", f"{NAME}."],
    "contains": ADDRESS,
    "deadline": 5,
}


@pytest.fixture
def names(host: LabHost) -> Iterator[LabHost]:
    """A host that asks the first of two servers, which both know the name."""
    serve(host, FIRST, SECOND, name=NAME, address=ADDRESS)
    host.sh(f"ip address add {NONE}/32 dev dns0; echo 'nameserver {FIRST}' >/etc/resolv.conf")
    before = host.read(DAEMON_JSON)
    yield host
    host.put(DAEMON_JSON, before)
    stop_serving(host)
    host.sh("systemctl restart docker")


def resolves(shop: Shop, service: str) -> bool:
    found = shop.host.run(f"docker exec {shop.id(service)} busybox nslookup {NAME}.")
    return ADDRESS.encode() in found.stdout


def started(shop: Shop) -> dict[str, tuple[str, str]]:
    """Each service's container, and when it was started."""
    found = {name: shop.container(name) for name in ("redis", "side", "web")}
    return {name: (one["Id"], one["State"]["StartedAt"]) for name, one in found.items()}


def test_the_host_got_new_servers(names: LabHost, tmp_path: Path) -> None:
    """The container whose check fails is restarted for it; the others are told, or with consent."""
    shop = Shop(tmp_path, names, checks=[CHECK])
    shop.deploy()
    assert resolves(shop, "side")
    names.sh(f"echo dead >{DATA}/{FIRST}; echo 'nameserver {SECOND}' >/etc/resolv.conf")
    assert not resolves(shop, "side")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert seen.touched == {"side"}
    assert resolves(shop, "side")
    assert not resolves(shop, "web")
    shop.settings["checks"] = []
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert seen.quiet, seen.events
    told = [
        row
        for operation in shop.report()["operations"]
        for row in operation["findings"]
        if row["kind"] == "drift"
    ]
    assert {row["subject"] for row in told} == {"redis", "web"}
    assert all(
        f"{FIRST}; a container that starts now asks {SECOND}" in row["cause"] for row in told
    )
    assert all('"allow": ["restart:resolver"]' in row["remedy"] for row in told)
    shop.settings["allow"] = ["restart:resolver"]
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert seen.touched == {"redis", "web"}
    assert seen.recreated == set()
    assert resolves(shop, "web")
    shop.assert_converged()


def test_the_engine_gives_servers_that_do_not_answer(names: LabHost, tmp_path: Path) -> None:
    """Its settings are mended, and with live-restore those are restarted that need it."""
    settings = json.loads(names.read(DAEMON_JSON))
    names.put(DAEMON_JSON, json.dumps({**settings, "live-restore": True, "dns": [NONE]}))
    names.sh("systemctl restart docker")
    shop = Shop(tmp_path, names)
    shop.services["redis"]["dns"] = [FIRST]
    shop.deploy()
    assert names.sh(f"getent hosts {NAME}").split()[0] == ADDRESS
    assert not resolves(shop, "side")
    shop.settings |= {
        "engine": {"channel": "distro", "dns": [FIRST]},
        "allow": ["restart:resolver"],
        "checks": [CHECK],
    }
    before = started(shop)
    done = shop.run("-y", timeout=300)
    assert done.rc == 0, done.out
    after = started(shop)
    assert {name for name in before if after[name] != before[name]} == {"side", "web"}
    assert resolves(shop, "side")
    assert resolves(shop, "web")
    shop.assert_converged()


def test_a_server_on_the_hosts_own_loopback_is_refused_before_contact(
    host: LabHost, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, host, engine={"channel": "distro", "dns": ["127.0.0.53"]})
    done = shop.run("-y")
    assert done.rc == 1
    assert "stack.engine.dns" in done.out
    assert "Connected" not in done.out
