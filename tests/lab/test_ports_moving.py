"""What moves while it is looked at: another run of the project, and containers that restart."""

from __future__ import annotations

import collections
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stackmend.connection import fetch_facts
from stackmend.ports.facts import PortHolders
from stackmend.ports.reconciler import PortsReconciler
from stackmend.ports.spec import PortsSpec, parse_ports
from stackmend.reporting import Collector
from tests import connected
from tests.lab.fixtures import Lab
from tests.lab.holders import Shelf
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import Runs
from tests.lab.stacks import Shop

PORT = 21001
LOOPS = 21201
# What happens once in thirteen times is seen in so many with 96 %.
READINGS = 40


@pytest.fixture(scope="module")
def shelf(lab: Lab) -> Iterator[Shelf]:
    shelf = Shelf(lab.take(1)[0])
    shelf.put("python")
    yield shelf
    shelf.clear()


@pytest.fixture
def shop(shelf: Shelf, tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, shelf.host, ports={}, stability=90)
    shop.compose = {"services": {"web": {"image": "lab/box:1", "ports": ["8080:80"]}}}
    return shop


@pytest.mark.parametrize("words", [("-y",), ("--dry",)])
def test_of_two_runs_the_loser_says_that_another_is_at_work(
    shop: Shop, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Whatever it would have refused: what it sees may be the other's, half made."""
    (tmp_path / "other").mkdir()
    loser = Shop(tmp_path / "other", shop.host, ports={})
    loser.compose = {"services": {"web": {"image": "lab/box:1", "ports": [f"{PORT}:80"]}}}
    with shop.start("-y") as winner:
        shop.host.wait_for("docker ps --format '{{.Names}}' | grep -q '^shop-web-1$'", 60)
        lost = loser.run(*words)
        assert lost.rc == (1 if "-y" in words else 0), lost.out
        assert "another run is at work here: " in lost.out
        assert f"pid {winner.process.pid} since " in lost.out
        assert "held by" not in lost.out
        assert loser.report()["outcome"] == "locked"
        winner.interrupt(signal.SIGTERM)
        winner.wait(10)
    alone = loser.run(*words)
    assert "another run" not in alone.out
    assert f"0.0.0.0:{PORT}/tcp: held by" in alone.out
    shop.host.sh(f"docker compose -p {shop.project} down -t 1; rm -rf {shop.home}")


def test_a_lock_left_by_a_killed_run_is_nobodys(shop: Shop, tmp_path: Path) -> None:
    shop.host.sh("mkdir -p /var/lib/stackmend; echo ann >/var/lib/stackmend/run.lock")
    result = Runs(tmp_path, shop.host).free(str(PORT), project="shop")
    assert "another run" not in result.run.out
    assert f"0.0.0.0:{PORT}/tcp: held by" in result.run.out


@pytest.fixture
def looping(shelf: Shelf) -> Iterator[LabHost]:
    """A container of the project that crashes at once, its backoff begun anew every few seconds."""
    host = shelf.host
    web = {
        "image": "lab/box:1",
        "restart": "always",
        "command": ["sh", "-c", "sleep 0.3; exit 1"],
        "ports": [f"{LOOPS}:80"],
    }
    # Compose itself starts it: whatever else bears its labels is foreign.
    host.put("/opt/loop/compose.yaml", yaml.safe_dump({"services": {"web": web}}).encode())
    host.sh("cd /opt/loop && docker compose up -d", timeout=60)
    host.sh(
        "systemd-run -q --collect --unit=anew sh -c "
        "'while sleep 3; do docker restart -t 0 loop-web-1; done'"
    )
    yield host
    host.sh("systemctl stop anew; cd /opt/loop && docker compose down -t 0; rm -r /opt/loop")


def test_a_proxy_of_a_container_that_crashes_is_never_the_engines(looping: LabHost) -> None:
    seen: collections.Counter[str] = collections.Counter()
    with connected.lab(looping) as connection:
        for _ in range(READINGS):
            asked = {"ports": str(LOOPS), "project": "loop", "directory": "/opt/loop"}
            (state,) = fetch_facts(connection, [(PortHolders, asked)])
            (port,) = state.ports
            kinds = {f"{one.kind} {one.container and one.container.name}" for one in port.holders}
            seen[f"{port.status}: {', '.join(sorted(kinds))}"] += 1
    print(seen)
    assert sum(seen.values()) == READINGS
    # A proxy that has ended meanwhile has neither a name nor a socket any more.
    gone = {"held: process None", "held: hidden None"}
    assert set(seen) <= {"free: ", "ours: container loop-web-1", *gone}
    assert seen["ours: container loop-web-1"] > READINGS / 3


def test_nothing_is_refused_for_the_projects_own_container_that_crashes(
    looping: LabHost, tmp_path: Path
) -> None:
    """As a run looks, many times: one look in thirteen would refuse by a single reading."""
    spec = PortsSpec(ports=tuple(parse_ports(LOOPS)), project="loop", directory="/opt/loop")
    with connected.lab(looping) as connection:
        room = PortsReconciler(connection, spec, Collector("ports.free"))
        for _ in range(READINGS):
            observed = room.observe(fresh=True)
            assert observed.plan.empty, observed.plan
    result = Runs(tmp_path, looping).free(str(LOOPS), project="loop", directory="/opt/loop")
    assert result.run.rc == 0, result.run.out
    assert result.all("refusals") == []
