"""A healthcheck that cannot run says nothing of its service: no restart is spent on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop, standing


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    return lab.take(1)[0]


@pytest.fixture
def shop(host: LabHost, tmp_path: Path) -> Shop:
    return standing(tmp_path, host)


def left_alone(shop: Shop) -> dict[str, Any]:
    """The finding of a run that must not have touched a container."""
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert not seen.touched & {"web", "redis"}, seen.events
    (operation,) = shop.report()["operations"]
    assert not operation["done"]
    (finding,) = (found for found in operation["findings"] if found["subject"] == "web")
    assert f"web: {finding['kind']}: {finding['cause']}" in done.out
    assert f"remedy: {finding['remedy']}" in done.out
    return dict(finding)


FILL = "mount -t tmpfs -o size=4k,nr_inodes=2 full /tmp && head -c 9000 /dev/zero >/tmp/x; :"
FREE = "umount -l /tmp"


def last_result(shop: Shop, service: str) -> dict[str, Any]:
    """The last result of a service's healthcheck, as the engine has it."""
    result: dict[str, Any] = shop.container(service)["State"]["Health"]["Log"][-1]
    return result


def test_a_host_whose_tmp_is_full(shop: Shop) -> None:
    """The engine writes there what it executes: every healthcheck of the host fails.

    Once there is room again, what it found before says nothing any more: redis is asked so rarely
    that only its old result is there when the run begins.
    """
    shop.services["web"]["healthcheck"]["interval"] = "2s"
    shop.services["redis"]["healthcheck"]["interval"] = "20s"
    shop.deploy()
    shop.host.sh(FILL)
    try:
        shop.wait_state("redis", "unhealthy")
        shop.wait_state("web", "unhealthy")
        finding = left_alone(shop)
    finally:
        shop.host.sh(FREE)
    assert finding["cause"].startswith("its healthcheck cannot run, so its health is not known: ")
    assert "no space left on device" in finding["cause"]
    assert "free space on the host" in finding["remedy"]
    shop.wait_state("web", "healthy")
    before = last_result(shop, "redis")
    assert before["ExitCode"] != 0
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert not seen.touched, seen.events
    after = last_result(shop, "redis")
    assert after["ExitCode"] == 0
    assert after["Start"] > before["Start"]
    shop.assert_well()


def test_a_tmp_that_is_full_for_a_moment_after_a_change(shop: Shop) -> None:
    """The first result of a new container cannot be had; the change is right, and stays."""
    side = shop.services["side"]
    side["healthcheck"] = {"test": ["CMD", "true"], "interval": "3s", "retries": 1}
    was = shop.id("side")
    named = "docker ps -q --no-trunc -f name=^shop-side-1$"
    with shop.start("-y") as run:
        shop.host.wait_for(f'now=$({named}) && [ "${{now:-{was}}}" != {was} ]')
        shop.host.sh(FILL)
        try:
            shop.wait_state("side", "unhealthy")
        finally:
            shop.host.sh(FREE)
        done = run.wait()
    assert done.rc == 0, done.out
    log = shop.container("side")["State"]["Health"]["Log"]
    assert "no space left on device" in log[0]["Output"]
    assert (log[0]["ExitCode"] != 0, log[-1]["ExitCode"]) == (True, 0)
    assert shop.id("side") != was
    shop.assert_well()


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (["CMD", "curl", "-f", "http://127.0.0.1/"], '"curl": executable file not found in $PATH'),
        (["CMD-SHELL", "curl -f http://127.0.0.1/"], "curl: not found"),
        (["CMD", "/etc/web.conf"], "permission denied"),
    ],
    ids=["no such program", "no such program for the shell", "not executable"],
)
def test_an_image_that_lacks_the_program(shop: Shop, test: list[str], reason: str) -> None:
    """It fails as soon as the engine gives up, and the version before is put back."""
    # The engine gives up once this is over.
    shop.services["web"]["healthcheck"].update(test=test, start_period="1s")
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "web: its healthcheck cannot run: " in done.out
    assert reason in done.out
    shop.assert_well()
    assert "restarted" not in done.out
