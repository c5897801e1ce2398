"""What a declaration needs and does not find: refused while the stack of before still runs."""

from __future__ import annotations

from pathlib import Path

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


def refused(shop: Shop) -> dict[str, dict[str, str]]:
    """The refusals of a run that must not have touched anything, by subject."""
    files = shop.host.sh(f"cd {shop.home} && sha256sum compose.yaml")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert shop.host.sh(f"cd {shop.home} && sha256sum compose.yaml") == files
    (operation,) = shop.report()["operations"]
    return {refusal["subject"]: refusal for refusal in operation["refusals"]}


def networks(shop: Shop, service: str) -> set[str]:
    form = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    return set(shop.host.docker("inspect", "-f", form, shop.id(service)).split())


def test_external_networks_and_volumes_that_nobody_made(shop: Shop) -> None:
    shop.compose["networks"] = {"default": {"external": True, "name": "ai-shared"}}
    shop.compose["volumes"]["logs"] = {"external": True, "name": "ai-logs"}
    shop.services["side"]["volumes"] = ["logs:/logs"]
    found = refused(shop)
    assert found.keys() == {"network ai-shared", "volume ai-logs"}
    assert "docker network create ai-shared" in found["network ai-shared"]["remedy"]
    assert "docker volume create ai-logs" in found["volume ai-logs"]["remedy"]

    shop.host.docker("network", "create", "ai-shared")
    shop.host.docker("volume", "create", "ai-logs")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert all(networks(shop, name) == {"ai-shared"} for name in shop.services)
    with shop.watching() as seen:
        again = shop.run("-y")
    assert (again.rc, seen.quiet) == (0, True), again.out


def test_a_network_of_another_name(shop: Shop) -> None:
    """The services' own sections say nothing of it."""
    shop.compose["networks"] = {"default": {"name": "ours"}}
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert all(networks(shop, name) == {"ours"} for name in shop.services)
    assert shop.page()


def test_other_networks_of_one_service(shop: Shop) -> None:
    """``networks: [front]`` says no more than the name."""
    shop.compose["networks"] = {"front": {}, "back": {}}
    for names in (["front"], ["back"], ["front", "back"], ["back"]):
        shop.services["side"]["networks"] = names
        with shop.watching() as seen:
            done = shop.run("-y")
        assert done.rc == 0, done.out
        assert networks(shop, "side") == {f"shop_{name}" for name in names}
        assert seen.recreated == {"side"}


def test_a_volume_of_another_name_would_leave_data_behind(shop: Shop) -> None:
    shop.compose["volumes"] = {"data": {"name": "elsewhere"}}
    found = refused(shop)
    assert '"allow": ["volume:redis:/data"]' in found["volume data"]["remedy"]

    shop.settings["allow"] = ["volume:redis:/data"]
    done = shop.run("-y")
    assert done.rc == 0, done.out
    form = "{{range .Mounts}}{{.Name}} {{end}}"
    assert shop.host.docker("inspect", "-f", form, shop.id("redis")).split() == ["elsewhere"]
    assert "shop_data" in shop.host.docker("volume", "ls", "-q").split()


@pytest.mark.parametrize("how", ["none declared", "disabled", "NONE"])
def test_a_wait_for_the_health_of_what_has_no_healthcheck(shop: Shop, how: str) -> None:
    shop.services["web"]["depends_on"]["side"] = {"condition": "service_healthy"}
    if how != "none declared":
        check = {"disable": True} if how == "disabled" else {"test": ["NONE"]}
        shop.services["side"]["healthcheck"] = check
    found = refused(shop)
    assert found["web"]["reason"] == (
        "depends_on.side waits until side is healthy, and side has no healthcheck"
    )
    # Docker Compose itself fails at it, once it has begun.
    shop.services["web"]["depends_on"]["side"] = {"condition": "service_started"}
    done = shop.run("-y")
    assert done.rc == 0, done.out


@pytest.mark.parametrize("left", [(), ("side",)], ids=["all", "but one"])
def test_a_network_that_was_removed_beneath_its_containers(
    shop: Shop, left: tuple[str, ...]
) -> None:
    for name in shop.services:
        if name not in left:
            shop.host.docker("network", "disconnect", "-f", "shop_default", shop.id(name))
    if left:
        # It ends, and keeps the id of a network that is gone.
        shop.host.docker("stop", "-t", "0", *map(shop.id, left))
    shop.host.docker("network", "rm", "shop_default")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert all(networks(shop, name) == {"shop_default"} for name in shop.services)
    assert shop.page()
    with shop.watching() as seen:
        again = shop.run("-y")
    assert (again.rc, seen.quiet) == (0, True), again.out
