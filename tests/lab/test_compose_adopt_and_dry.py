"""From nothing, from a stack that someone started by hand, and looking without touching."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import EVERYWHERE, Shop


@pytest.mark.parametrize("user", ["root", "operator", "keeper"])
def test_from_nothing_to_well_and_then_nothing_to_do(
    host: LabHost, tmp_path: Path, user: str
) -> None:
    shop = Shop(tmp_path, host, user=user)

    with shop.watching() as seen:
        first = shop.run("-y")

    assert first.rc == 0, first.out
    for service in shop.services:
        assert f"{service}: missing: it has no container" in first.out
    assert seen.recreated == {"redis", "web", "side"}
    shop.assert_well()
    assert shop.page() == "box 1"
    before = host.identities("shop")
    shop.assert_converged()
    assert host.identities("shop") == before


@pytest.fixture
def shop_by_hand(lab: Lab, tmp_path: Path) -> Shop:
    """The same files, put on the host and started there by a person, of which we know nothing.

    What the last test left running is taken up by Compose: most of the time that a start takes.
    """
    (host,) = lab.hold(1)
    shop = Shop(tmp_path, host)
    host.sh("rm -rf /var/lib/stackmend")
    shop.put_files()
    host.sh(f"cd {shop.home} && docker compose up -d --wait --remove-orphans 2>&1", timeout=120)
    return shop


def test_a_stack_started_by_hand_is_adopted_untouched(shop_by_hand: Shop) -> None:
    shop = shop_by_hand

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert seen.quiet, seen.events
    shop.assert_converged()


def test_what_is_stopped_of_an_adopted_stack_is_started_alone(shop_by_hand: Shop) -> None:
    shop, host = shop_by_hand, shop_by_hand.host
    web = shop.id("web")
    host.docker("stop", web)

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert re.search(r"web: (stopped|exited): it exited with code \d+", done.out), done.out
    assert seen.touched == {"web"}
    assert shop.id("web") == web
    shop.assert_converged()


def test_what_differs_in_an_adopted_stack_is_settled_alone(shop_by_hand: Shop) -> None:
    shop = shop_by_hand
    shop.services["web"]["environment"]["GREETING"] = "good evening"

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "environment.GREETING: good morning → good evening" in done.out, done.out
    assert seen.touched == seen.recreated == {"web"}
    assert "GREETING=good evening" in shop.container("web")["Config"]["Env"]
    shop.assert_converged()


def test_an_adopted_stack_sees_the_files_that_are_wanted(shop_by_hand: Shop) -> None:
    shop, host = shop_by_hand, shop_by_hand.host
    shop.put("conf/web.conf", "answer = 43\n")

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "conf/web.conf" in done.out
    assert seen.touched == seen.recreated == {"web"}
    assert host.docker("exec", shop.id("web"), "cat", "/etc/web.conf") == "answer = 43"
    shop.assert_converged()


@pytest.mark.parametrize(
    ("update", "cause"),
    [
        (["--restart=no"], r"side: drift: restart: no → unless-stopped"),
        (["--memory=64m", "--memory-swap=64m"], r"side: drift: mem_limit: 67108864 → .*"),
    ],
    ids=["restart policy", "memory limit"],
)
def test_what_was_changed_in_a_living_container_is_not_adopted(
    shop_by_hand: Shop, update: list[str], cause: str
) -> None:
    shop, host = shop_by_hand, shop_by_hand.host
    host.docker("update", *update, shop.id("side"))

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert re.search(cause, done.out), done.out
    assert seen.touched == seen.recreated == {"side"}
    settings = shop.container("side")["HostConfig"]
    assert (settings["RestartPolicy"]["Name"], settings["Memory"]) == ("unless-stopped", 0)
    shop.assert_converged()


def test_a_service_without_its_name_is_not_adopted_so(shop_by_hand: Shop) -> None:
    """Off its network and on again by hand: nobody finds it by the service's name."""
    shop, host = shop_by_hand, shop_by_hand.host
    redis = shop.id("redis")
    host.docker("network", "disconnect", "shop_default", redis)
    host.docker("network", "connect", "shop_default", redis)
    find = ("exec", shop.id("side"), "busybox", "nc", "-w", "3", "redis", "6379")
    assert host.run(f"docker {shlex.join(find)} </dev/null").returncode != 0

    done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "without the name redis" in done.out
    assert host.run(f"docker {shlex.join(find)} </dev/null").returncode == 0
    assert shop.id("redis") == redis
    shop.assert_converged()


def test_a_network_that_differs_in_an_adopted_stack_is_made_anew_at_once(
    shop_by_hand: Shop,
) -> None:
    shop, host = shop_by_hand, shop_by_hand.host
    shop.compose["networks"] = {
        "default": {"ipam": {"config": [{"subnet": "10.99.0.0/24"}]}, "attachable": True}
    }

    done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "networks.default.attachable: False → True" in done.out, done.out
    shown = json.loads(host.docker("network", "inspect", "shop_default"))[0]
    assert shown["Attachable"] is True
    assert [pool["Subnet"] for pool in shown["IPAM"]["Config"]] == ["10.99.0.0/24"]
    shop.assert_converged()


def test_a_foreign_stack_of_the_same_name_is_taken_over_with_consent_alone(
    host: LabHost, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, host)
    shop.put_files("/opt/elsewhere")
    host.sh("cd /opt/elsewhere && docker compose -p shop up -d --wait 2>&1", timeout=120)
    keep = "redis-cli set order 17; redis-cli save"
    host.docker("exec", shop.id("redis"), "sh", "-c", keep)

    with shop.watching() as seen:
        refused = shop.run("-y")

    assert refused.rc != 0
    assert "a project of this name was started from /opt/elsewhere" in refused.out
    assert '"allow": ["project:/opt/elsewhere"]' in refused.out
    assert seen.quiet, seen.events
    assert not host.exists(shop.home)

    shop.settings["allow"] = ["project:/opt/elsewhere"]
    taken = shop.run("-y")

    assert taken.rc == 0, taken.out
    assert host.docker("exec", shop.id("redis"), "redis-cli", "get", "order") == "17"
    shop.assert_converged()


def files(host: LabHost) -> dict[str, str]:
    """All files of the host that are not the engine's, or the system's own doing."""
    found = host.snapshot_files(*EVERYWHERE, "/var/lib", "/usr", "/run/docker.sock")
    # Healthchecks leave the engine's own files in /tmp for a moment; containerd tidies up when it
    # likes.
    own = ("/var/lib/systemd", "/var/lib/private", "/var/lib/containerd", "/tmp/runc-process")
    # Of these only what lies in them counts: something in memory is made to ask Compose, and gone.
    passing = {"/dev/shm", "/tmp"}
    return {
        path: shown
        for path, shown in found.items()
        if path not in passing and not path.startswith(own)
    }


@pytest.mark.parametrize("user", ["root", "keeper"])
def test_dry_shows_how_a_new_stack_would_come_up_and_touches_nothing(
    host: LabHost, tmp_path: Path, user: str
) -> None:
    shop = Shop(tmp_path, host, user=user)
    before = files(host)

    with shop.watching() as seen:
        dry = shop.run("--dry")

    assert dry.rc == 0, dry.out
    assert seen.quiet, seen.events
    assert files(host) == before
    assert "→ install files /opt/shop: " in dry.out
    for service in shop.services:
        assert f"{service}: missing: it has no container" in dry.out
        assert f"→ up {service}: it has no container" in dry.out
    assert shop.report()["operations"][0]["planned"]


def test_dry_shows_what_would_be_mended_and_changed_and_touches_nothing(shop: Shop) -> None:
    host = shop.host
    host.docker("kill", shop.id("web"))
    host.docker("update", "--memory=64m", "--memory-swap=64m", shop.id("side"))
    shop.services["redis"]["labels"]["team"] = "sales"
    shop.services["extra"] = {"image": "lab/box:2", "restart": "unless-stopped"}
    shop.put("conf/web.conf", "answer = 43\n")
    before = files(host)

    with shop.watching() as seen:
        dry = shop.run("--dry")

    assert dry.rc == 0, dry.out
    assert seen.quiet, seen.events
    assert files(host) == before
    for line in (
        "web: exited: it exited with code 137 and was not restarted",
        "web: content: conf/web.conf changed, which it mounts",
        "side: drift: mem_limit: 67108864 → (none)",
        "redis: changed: labels.team: stock → sales",
        "extra: missing: it has no container",
    ):
        assert line in dry.out, dry.out

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    steps = [line.strip() for line in dry.out.splitlines() if "→ " in line and "  → " in line]
    assert steps
    assert all(step in done.out for step in steps), "it did not do what it had shown"
    assert seen.touched == {"web", "side", "redis", "extra"}
    shop.assert_converged()
