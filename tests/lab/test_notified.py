"""Who is on call hears of ``stackmend reconcile`` over HTTP: a change, once."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from stackmend.reporting.notify import LIMIT
from tests.calm import Lateness
from tests.lab.ai import COMMAND
from tests.lab.controller import Controller, Run
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.notified import Target, dead, listening
from tests.lab.stacks import Shop

#: What a service needs to be healthy, and no run of stackmend brings.
NEEDED = "/srv/needed/file"


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A target on the controller, where each test has a path of its own."""
    with listening() as found:
        yield found


@pytest.fixture(scope="module")
def shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A service that is well while a file of the host is there."""
    shop = Shop(tmp_path_factory.mktemp("notified"), lab.take(1)[0])
    health = {"interval": "1s", "retries": 1, "start_period": "0s"}
    shop.compose = {
        "services": {
            "web": {
                "image": "lab/box:1",
                "restart": "unless-stopped",
                "init": True,
                "ports": ["127.0.0.1:8080:80"],
                "volumes": [f"{Path(NEEDED).parent}:/needed:ro"],
                "healthcheck": {"test": ["CMD", "test", "-f", "/needed/file"], **health},
            }
        }
    }
    shop.settings |= {"ports": {}, "health_timeout": 8, "reconcile": {"mends": 50}}
    shop.host.sh(f"mkdir -p {Path(NEEDED).parent}")
    restore(shop.host)
    shop.deploy()
    return shop


def restore(host: LabHost) -> None:
    host.sh(f"touch {NEEDED}")


def reconcile(shop: Shop, *urls: str) -> Run:
    """A run in a process of its own, as a timer begins it."""
    shop.settings["report"]["notify"] = list(urls)
    shop.write()
    env = {"STACKMEND_REPORTS": str(shop.reports), "NO_COLOR": "1"}
    with Controller("reconcile", str(shop.inventory()), env=env, program=[COMMAND]) as running:
        done = running.wait(120)
    assert "Traceback" not in done.out, done.out
    return done


def read_titles(target: Target, path: str) -> list[str]:
    """What the messages to a path are about, without the name of the host."""
    titles = [json.loads(body)["title"] for body in target.list_bodies(path)]
    return [title.rpartition(": ")[2] for title in titles]


@pytest.mark.slow
def test_one_when_it_breaks_none_between_and_one_when_it_is_well(
    shop: Shop, target: Target
) -> None:
    url = f"json://127.0.0.1:{target.port}/breaks"
    done = reconcile(shop, url)
    assert (done.rc, read_titles(target, "/breaks")) == (0, []), done.out
    shop.host.sh(f"rm {NEEDED}")
    health = "docker inspect -f '{{.State.Health.Status}}' shop-web-1"
    shop.host.wait_for(f"{health} | grep -qx unhealthy", 30)
    try:
        for _ in range(4):
            done = reconcile(shop, url)
            assert done.rc == 1, done.out
            assert read_titles(target, "/breaks") == ["broke"], done.out
    finally:
        restore(shop.host)
    shop.host.wait_for(f"{health} | grep -qx healthy", 30)
    for _ in range(2):
        done = reconcile(shop, url)
        assert done.rc == 0, done.out
        assert read_titles(target, "/breaks") == ["broke", "well again"], done.out
    broke, _ = target.list_bodies("/breaks")
    assert "unhealthy" in json.loads(broke)["message"]


@pytest.mark.slow
def test_what_was_mended_at_once_and_what_needs_you(shop: Shop, target: Target) -> None:
    url = f"json://127.0.0.1:{target.port}/mended"
    shop.host.docker("stop", "-t", "0", "shop-web-1")
    done = reconcile(shop, url)
    assert (done.rc, read_titles(target, "/mended")) == (0, ["mended"]), done.out
    shop.host.docker("stop", "-t", "0", "shop-web-1")
    with squatter(shop.host):
        for _ in range(2):
            done = reconcile(shop, url)
            assert done.rc == 1, done.out
            assert read_titles(target, "/mended") == ["mended", "needs you"], done.out
    done = reconcile(shop, url)
    assert done.rc == 0, done.out
    assert read_titles(target, "/mended") == ["mended", "needs you", "well again"], done.out
    asked = json.loads(target.list_bodies("/mended")[1])["message"]
    assert "unit:squatter.service" in asked


@contextlib.contextmanager
def squatter(host: LabHost) -> Iterator[None]:
    """Something that nobody allows to end has the port of the service."""
    serve = "python3 -m http.server --bind 127.0.0.1 8080"
    host.sh(f"systemd-run -q --collect --unit=squatter {serve}")
    host.wait_for("ss -ltn | grep -q :8080")
    try:
        yield
    finally:
        host.sh("systemctl stop squatter.service")


@pytest.mark.slow
def test_a_dead_target_changes_no_exit_code_and_costs_no_more_than_its_limit(
    shop: Shop, target: Target, record_property: Callable[[str, object], None]
) -> None:
    """It takes the connection and never answers; the one beside it hears all the same."""
    alive = f"json://127.0.0.1:{target.port}/beside"
    with Lateness() as late, dead() as never:
        # What Python itself takes to end, where nobody is to hear of it.
        done, own = measure_end(shop)
        assert done.rc == 0, done.out
        # Longer than a run has for it: what ends this is the run's own limit.
        url = f"json://127.0.0.1:{never.port}/x?rto=60&cto=60"
        shop.host.docker("stop", "-t", "0", "shop-web-1")
        done, seconds = measure_end(shop, url, alive)
        assert never.accepted
    assert done.rc == 0, done.out
    assert "1 of 2 messages did not arrive; the next run tries again" in done.out
    delay = seconds - own
    record_property("delay", delay)
    print(f"{delay:.1f} s more than {own:.1f} s from the run's end to that of its process")
    assert LIMIT / 2 <= delay <= LIMIT + 1 + late.seconds
    assert read_titles(target, "/beside") == ["mended"]


def measure_end(shop: Shop, *urls: str) -> tuple[Run, float]:
    """A run, and the seconds from its end to that of its process."""
    done = reconcile(shop, *urls)
    ended = time.time()
    return done, ended - datetime.fromisoformat(read_record(shop)["ended"]).timestamp()


def read_record(shop: Shop) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((shop.reports / "latest.json").read_text())
    return record
