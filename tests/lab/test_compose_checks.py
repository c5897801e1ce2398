"""Containers that run and are healthy, and a stack that does not work all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.controller import Run
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import HEALTH, Shop
from tests.lab.standing import Standing

REACH = {
    "kind": "tcp",
    "name": "web reaches redis",
    "address": "redis:6379",
    "inside": "web",
    "deadline": 2,
    "timeout": 2,
}
PAGE = {
    "kind": "http",
    "name": "the page",
    "url": "http://127.0.0.1:8080/",
    "contains": "box",
    "deadline": 2,
    "timeout": 2,
}
READY = {
    "kind": "exec",
    "name": "side is ready",
    "service": "side",
    "command": ["cat", "/tmp/ready"],
    "contains": "yes",
    # On a busy machine a program in a container takes its time to start.
    "deadline": 6,
    "timeout": 6,
}


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(tmp_path_factory.mktemp("checks"), lab.take(1)[0], checks=[PAGE, REACH, READY])
    side = shop.services["side"]
    side["command"] = ["sh", "-c", "[ -e /lost ] || echo yes > /tmp/ready; exec serve"]
    side["volumes"] = ["state:/state"]
    side["healthcheck"] = {
        **HEALTH,
        "test": ["CMD-SHELL", "[ ! -e /state/broken ] || exit 1"],
        "interval": "3s",
        "start_period": "0s",
    }
    shop.compose["volumes"]["state"] = {}
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def all_healthy(shop: Shop) -> bool:
    return set(shop.health().values()) <= {"healthy", "running"}


def found(shop: Shop) -> dict[str, str]:
    """What the record of the last run says to have found: subject → cause and evidence."""
    return {
        finding["subject"]: "\n".join([finding["kind"], finding["cause"], *finding["evidence"]])
        for operation in shop.report()["operations"]
        for finding in operation["findings"]
    }


def done_to(shop: Shop) -> list[tuple[str, str]]:
    return [
        (step["verb"], step["subject"])
        for operation in shop.report()["operations"]
        for step in operation["done"]
    ]


def test_checks_that_pass_are_part_of_nothing_to_do(shop: Shop) -> None:
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert seen.quiet
    assert "1 converged" in done.out


# Detached, deaf, cut off


def test_dependency_detached_from_its_network(shop: Shop) -> None:
    shop.host.docker("network", "disconnect", "shop_default", shop.id("redis"))
    assert all_healthy(shop)
    assert not shop.answers_inside("web", "redis", 6379)
    dry = shop.run("--dry")
    assert "web reaches redis: check: connect to redis:6379 from inside web" in dry.out
    assert "networks.shop_default: detached" in dry.out
    assert not shop.answers_inside("web", "redis", 6379)
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "networks.shop_default: detached" in done.out
    assert seen.touched == {"redis"}
    assert seen.recreated == set()
    assert shop.answers_inside("web", "redis", 6379)


def test_service_itself_detached_from_its_network(shop: Shop) -> None:
    shop.host.docker("network", "disconnect", "shop_default", shop.id("web"))
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "networks.shop_default: detached" in done.out
    assert seen.touched == {"web"}
    assert shop.answers_inside("web", "redis", 6379)
    assert shop.page() == "box 1"


def test_dependency_listens_on_loopback_only(shop: Shop) -> None:
    shop.host.docker("exec", shop.id("redis"), "redis-cli", "config", "set", "bind", "127.0.0.1")
    assert not shop.answers_inside("web", "redis", 6379)
    assert all_healthy(shop)
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "shop-redis-1 listens on 127.0.0.1:6379 only" in done.out
    assert "restart redis: check web reaches redis fails" in done.out
    assert "redis" in seen.touched
    assert "side" not in seen.touched
    assert seen.recreated == set()
    assert shop.answers_inside("web", "redis", 6379)
    # What is on the path is restarted in the order of its dependencies.
    restarted = [subject for verb, subject in done_to(shop) if verb == "restart"]
    assert restarted == [name for name in ("redis", "web") if name in restarted]


def test_new_version_listens_on_loopback_only(shop: Shop) -> None:
    """Every container of it is healthy; only the check tells, and it is taken back."""
    shop.services["redis"]["command"] = ["redis-server", "--bind", "127.0.0.1"]
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "shop-redis-1 listens on 127.0.0.1:6379 only" in done.out
    assert "rolled back" in done.out
    assert shop.answers_inside("web", "redis", 6379)
    assert shop.report()["outcome"] == "failed"


def test_first_version_listens_on_loopback_only(host: LabHost, tmp_path: Path) -> None:
    shop = Shop(tmp_path, host, checks=[REACH])
    shop.services["redis"]["command"] = ["redis-server", "--bind", "127.0.0.1"]
    moment = host.now()
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "shop-redis-1 listens on 127.0.0.1:6379 only" in done.out
    assert all_healthy(shop)
    assert not host.exists("/var/lib/stackmend/shop/applied.json")
    # What policy allows was tried, and once.
    restarts = [
        event["Actor"]["Attributes"]["com.docker.compose.service"]
        for event in host.events_since(moment)
        if event["Type"] == "container" and event["Action"] == "restart"
    ]
    assert restarts.count("redis") == 1
    del shop.services["redis"]["command"]
    assert shop.run("-y").rc == 0


@pytest.fixture
def rules(shop: Shop) -> Iterator[Callable[[], None]]:
    """Flushes the host's NAT rules; the engine writes them again after the test."""
    yield lambda: shop.host.sh("iptables -t nat -F") and None
    shop.host.sh("systemctl restart docker")
    shop.host.wait_for("docker info >/dev/null 2>&1")


def restarts(seen: Any, service: str) -> int:
    actions: list[str] = seen.actions(service)
    return actions.count("restart")


def test_nat_rules_flushed(lab: Lab, shop: Shop, rules: Callable[[], None]) -> None:
    """What leaves the host gets no answer: no restart of ours can help, and none is called well."""
    neighbour = lab.take(2)[1]
    # Taking the hosts put them back as they were.
    shop.settings["checks"] = [
        {
            "kind": "tcp",
            "name": "web reaches the neighbour",
            "address": f"{neighbour.address}:22",
            "inside": "web",
            "deadline": 1,
            "timeout": 2,
        }
    ]
    shop.deploy()
    rules()
    assert all_healthy(shop)
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "Docker's NAT rules are gone from the host" in done.out
    assert "nothing masquerades for the network shop_default" in done.out
    assert '"allow": ["restart"]' in done.out
    assert seen.touched == set()
    assert seen.recreated == set()
    assert shop.report()["outcome"] == "failed"
    assert any("NAT rules are gone" in cause for cause in found(shop).values())


def test_nat_rules_flushed_before_a_published_port(shop: Shop, rules: Callable[[], None]) -> None:
    settings = shop.host.read("/etc/docker/daemon.json")
    shop.host.sh(
        "sed -i '0,/{/s//{\\n  \"userland-proxy\": false,/' /etc/docker/daemon.json; "
        "systemctl restart docker"
    )
    shop.host.wait_for("docker info >/dev/null 2>&1")
    try:
        shop.deploy()
        rules()
        assert all_healthy(shop)
        with shop.watching() as seen:
            done = shop.run("-y")
    finally:
        shop.host.put("/etc/docker/daemon.json", settings)
    assert done.rc == 1, done.out
    assert "the page: check: GET http://127.0.0.1:8080/ from the host" in done.out
    assert "Docker's NAT rules are gone from the host" in done.out
    assert '"allow": ["restart"]' in done.out
    assert seen.touched == set(), "no restart of a service brings them back"


# A command in a container


def test_restart_that_helps(shop: Shop) -> None:
    shop.host.docker("exec", shop.id("side"), "rm", "/tmp/ready")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "side is ready: check: run cat /tmp/ready in side" in done.out
    assert "No such file or directory" in done.out
    assert seen.touched == {"side"}
    assert seen.recreated == set()
    assert restarts(seen, "side") == 1


def test_restart_that_does_not_help(shop: Shop) -> None:
    """Tried once in a run, never called well, and past the limit left alone."""
    shop.settings["mend"] = {"attempts": 2, "backoff": [0]}
    shop.host.docker("exec", shop.id("side"), "sh", "-c", "touch /lost; rm /tmp/ready")
    for _ in range(2):
        with shop.watching() as seen:
            done = shop.run("-y")
        assert done.rc == 1, done.out
        assert "side is ready" in done.out
        assert "No such file or directory" in done.out
        assert shop.report()["outcome"] in ("failed", "refused")
        assert restarts(seen, "side") <= 1
        assert seen.touched <= {"side"}
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "and leaves it alone" in done.out
    assert "side is ready" in done.out
    assert seen.quiet, seen.events


# The limits of mending


def broken_for_good(shop: Shop) -> None:
    shop.host.docker("exec", shop.id("side"), "touch", "/state/broken")
    shop.wait_state("side", "unhealthy")


def mended(shop: Shop) -> Run:
    return shop.run("-y")


def test_past_the_cap_it_is_reported_and_left_alone(shop: Shop) -> None:
    shop.settings.update(mend={"attempts": 2, "backoff": [0]}, health_timeout=6)
    broken_for_good(shop)
    runs = 0
    for _ in range(3):
        shop.wait_state("side", "unhealthy")
        with shop.watching() as seen:
            done = mended(shop)
        assert done.rc == 1, done.out
        assert seen.touched <= {"side"}
        if seen.quiet:
            break
        runs += 1
    assert runs == 2
    assert "mended it 2 times in the last 60 minutes, and leaves it alone" in done.out
    assert "mend.attempts" in done.out
    assert shop.report()["outcome"] == "refused"
    # It is the host that remembers, by its own clock: once the window is past, it is tried again.
    shop.settings["mend"] = {"attempts": 2, "backoff": [0], "window": 1}
    with shop.watching() as seen:
        done = mended(shop)
    assert done.rc == 1, done.out
    assert seen.touched == {"side"}
    # What mends itself needs no consent of ours.
    shop.settings["mend"] = {"attempts": 2, "backoff": [0]}
    shop.host.docker("exec", shop.id("side"), "rm", "/state/broken")
    shop.wait_state("side", "healthy")
    with shop.watching() as seen:
        done = mended(shop)
    assert done.rc == 0, done.out
    assert "side" not in seen.touched or seen.recreated == {"side"}


def test_between_two_attempts_lies_a_pause(shop: Shop) -> None:
    shop.settings.update(mend={"attempts": 9, "backoff": [0, 600]}, health_timeout=6)
    broken_for_good(shop)
    first = mended(shop)
    assert first.rc == 1, first.out
    shop.wait_state("side", "unhealthy")
    with shop.watching() as seen:
        second = mended(shop)
    assert second.rc == 1, second.out
    assert "run again in" in second.out
    assert "mend.backoff" in second.out
    assert seen.quiet, seen.events


def test_no_attempts_means_none(shop: Shop) -> None:
    shop.settings.update(mend={"attempts": 0})
    broken_for_good(shop)
    with shop.watching() as seen:
        done = mended(shop)
    assert done.rc == 1, done.out
    assert "its healthcheck fails" in done.out
    assert seen.quiet, seen.events
