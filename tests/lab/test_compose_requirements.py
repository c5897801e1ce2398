"""What a declaration needs and does not find: refused while the stack of before still runs."""

from __future__ import annotations

import json
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


# What the files alone say


def before_contact(shop: Shop) -> str:
    """What a run says that ends before any host is contacted."""
    mark = shop.host.mark()
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc != 0, done.out
    assert seen.quiet, seen.events
    assert shop.host.logins_since(mark) == 0
    return done.out


def test_what_the_files_alone_say_is_told_before_contact(shop: Shop) -> None:
    shop.services["side"] |= {
        "ports": ["8080:9000"],
        "mem_limit": "4m",
        "networks": {"one": {"ipv4_address": "10.77.0.5"}, "two": None},
    }
    pools = {"one": "10.78.0.0/16", "two": "10.78.8.0/24"}
    shop.compose["networks"] = {
        key: {"ipam": {"config": [{"subnet": subnet}]}} for key, subnet in pools.items()
    }
    told = before_contact(shop)
    for text in (
        "port 8080/tcp is published by web as well",
        "mem_limit is 4m, and the engine takes no less than 6m",
        "networks.one.ipv4_address is 10.77.0.5, which is in no subnet of network one",
        "its subnet 10.78.8.0/24 overlaps 10.78.0.0/16 of network one",
    ):
        assert text in told


@pytest.mark.parametrize(
    "mount",
    [
        "./conf/gone.conf:/etc/side.conf:ro",
        "./certificate:/etc/side.pem",
        {"type": "bind", "source": "./gone.sql", "target": "/docker-entrypoint-initdb.d/"},
    ],
    ids=str,
)
def test_a_mounted_file_that_the_source_lacks(shop: Shop, mount: object) -> None:
    shop.services["side"]["volumes"] = [mount]
    assert "services.side.volumes.0: " in (told := before_contact(shop))
    assert "is not among the project's files" in told


def test_a_file_that_cannot_be_read(shop: Shop) -> None:
    shop.put("conf/web.conf", "answer = 44\n")
    (shop.source / "conf/other.conf").symlink_to("nowhere")
    assert "conf/other.conf is a link that leads nowhere" in before_contact(shop)


# What only the host says


def test_subnets_that_another_network_or_the_host_has(shop: Shop) -> None:
    theirs = shop.host.docker("network", "create", "--subnet", "10.79.4.0/24", "theirs")
    own = shop.host.sh("ip -o -4 route show dev eth0 scope link | cut -d' ' -f1 | head -1")
    shop.compose["networks"] = {
        "one": {"ipam": {"config": [{"subnet": "10.79.0.0/16"}]}},
        "two": {"ipam": {"config": [{"subnet": own}]}},
    }
    shop.services["side"]["networks"] = ["one", "two"]
    found = refused(shop)
    assert "overlaps 10.79.4.0/24 of network theirs" in found["network shop_one"]["reason"]
    assert f"{own}, which the host is in" in found["network shop_two"]["reason"]

    shop.host.docker("network", "rm", theirs)
    shop.compose["networks"]["two"] = {}
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert networks(shop, "side") == {"shop_one", "shop_two"}


def test_address_pools_that_are_used_up(shop: Shop) -> None:
    """The engine says the same, and leaves one subnet out for each that a test takes."""
    made: list[str] = []
    while True:
        name = f"theirs-{len(made)}"
        done = shop.host.run(f"docker network create {name}")
        if done.returncode:
            break
        made.append(name)
    shop.compose["networks"] = {"front": {}}
    shop.services["side"]["networks"] = ["front"]
    found = refused(shop)
    assert found.keys() == {"network shop_front"}
    assert "the engine's address pools are used up" in found["network shop_front"]["reason"]

    # One is left, and one is needed.
    shop.host.docker("network", "rm", made.pop())
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert networks(shop, "side") == {"shop_front"}
    shop.host.docker("network", "rm", *made)


def test_what_the_machine_has_not(shop: Shop) -> None:
    """All of it at once: a GPU, processors, a file, a directory that is not to be made."""
    devices = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    shop.services["side"] |= {
        "deploy": {"resources": {"reservations": {"devices": devices}}},
        "cpus": 640,
        "volumes": [
            "/etc/nowhere.conf:/etc/side.conf",
            {
                "type": "bind",
                "source": "/srv/nowhere",
                "target": "/srv",
                "bind": {"create_host_path": False},
            },
        ],
    }
    shop.compose["secrets"]["far"] = {"file": "/etc/nowhere.key"}
    shop.services["side"]["secrets"] = ["far"]
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    (operation,) = shop.report()["operations"]
    reasons = " | ".join(refusal["reason"] for refusal in operation["refusals"])
    for text in (
        "it reserves a GPU, and the host has no NVIDIA GPU",
        "it may use 640 processors, and the host has",
        "it mounts /etc/nowhere.conf, which is not on the host",
        "it mounts /etc/nowhere.key, which is not on the host",
    ):
        assert text in reasons
    assert not shop.host.exists("/etc/nowhere.conf")
    assert not shop.host.exists("/srv/nowhere")

    shop.host.sh("touch /etc/nowhere.conf /etc/nowhere.key && mkdir -p /srv/nowhere")
    del shop.services["side"]["deploy"], shop.services["side"]["cpus"]
    done = shop.run("-y")
    assert done.rc == 0, done.out
    shop.host.sh("rm -r /etc/nowhere.conf /etc/nowhere.key /srv/nowhere")


def test_a_volume_that_moved(shop: Shop) -> None:
    """Its driver's options say where its data lies."""
    shop.compose["volumes"]["data"] = {
        "driver_opts": {"type": "none", "o": "bind", "device": "/srv"}
    }
    found = refused(shop)
    assert "volumes.data.driver_opts" in found["volume data"]["reason"]
    assert "copy the data" in found["volume data"]["remedy"]

    # The same where nothing is recorded of it.
    shop.host.sh("rm /var/lib/stackmend/shop/applied.json")
    found = refused(shop)
    assert "volumes.data.driver_opts" in found["volume data"]["reason"]
    assert shop.host.docker("volume", "inspect", "-f", "{{.Options}}", "shop_data") == "map[]"


def test_a_network_in_use_that_compose_would_not_take_again(shop: Shop) -> None:
    ids = [shop.id(name) for name in shop.services]
    for id_ in ids:
        shop.host.docker("network", "disconnect", "-f", "shop_default", id_)
    shop.host.docker("network", "rm", "shop_default")
    shop.host.docker("network", "create", "shop_default")
    for name in shop.services:
        words = ("--alias", name, "shop_default", shop.id(name))
        shop.host.docker("network", "connect", *words)
    found = refused(shop)
    assert "Compose did not make it" in found["network shop_default"]["reason"]
    assert "external: true" in found["network shop_default"]["remedy"]
    # Compose says so itself, once all has ended.
    shop.by_hand("stop")
    down = shop.host.run(f"cd {shop.home} && docker compose -p shop up -d")
    assert down.returncode, down.stdout


def test_what_is_on_another_volume_or_network_than_declared_is_never_proven(shop: Shop) -> None:
    """A record of an earlier version may say that it is right."""
    record = "/var/lib/stackmend/shop/applied.json"
    shop.host.docker("network", "disconnect", "shop_default", shop.id("side"))
    text = shop.host.read(record).decode()
    side = json.loads(text)["services"]["side"]["shape"]
    del side["networks"]
    wrong = json.loads(text)
    wrong["services"]["side"]["shape"] = side
    shop.host.put(record, json.dumps(wrong), "0600")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "side: drift: networks.default: it is not on shop_default" in done.out
    assert networks(shop, "side") == {"shop_default"}


def test_warnings_of_compose_are_told_and_block_nothing(shop: Shop) -> None:
    """``$PORT`` with one dollar is Compose's own variable, in a healthcheck too."""
    shop.services["side"]["healthcheck"] = {
        **shop.services["web"]["healthcheck"],
        "test": ["CMD-SHELL", "test -z $PORT"],
    }
    done = shop.run("-y")
    assert done.rc == 0, done.out
    (again, record) = (shop.run("-y"), shop.report())
    assert again.rc == 0, again.out
    (operation,) = record["operations"]
    (found,) = [item for item in operation["findings"] if item["kind"] == "warning"]
    assert found["cause"] == 'The "PORT" variable is not set. Defaulting to a blank string.'
    assert "write $$" in found["remedy"]
    assert found["blocks"] is False
    assert "1 converged" in again.out
