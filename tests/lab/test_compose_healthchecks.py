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


def test_a_host_whose_tmp_is_full(shop: Shop) -> None:
    """The engine writes there what it executes: every healthcheck of the host fails."""
    shop.host.sh(
        "mount -t tmpfs -o size=4k,nr_inodes=2 full /tmp && head -c 9000 /dev/zero >/tmp/x; :"
    )
    try:
        shop.wait_state("web", "unhealthy")
        finding = left_alone(shop)
    finally:
        shop.host.sh("umount -l /tmp")
    assert finding["cause"].startswith("its healthcheck cannot run, so its health is not known: ")
    assert "no space left on device" in finding["cause"]
    assert "free space on the host" in finding["remedy"]
    shop.wait_state("web", "healthy")
    done = shop.run("-y")
    assert done.rc == 0, done.out


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
    shop.services["web"]["healthcheck"]["test"] = test
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "web: its healthcheck cannot run: " in done.out
    assert reason in done.out
    shop.assert_well()
    assert "restarted" not in done.out
