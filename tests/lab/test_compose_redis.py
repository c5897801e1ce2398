"""A redis whose healthcheck is content, and that takes no writes, or not from its clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.stacks import Shop
from tests.lab.standing import Standing

PASSWORD = 'it\'s $a "secret" word'
CHECK = {"kind": "redis", "name": "the queue", "service": "redis", "deadline": 2, "timeout": 5}


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(
        tmp_path_factory.mktemp("redis"),
        lab.take(1)[0],
        checks=[CHECK],
        mend={"attempts": 100, "backoff": [0]},
    )
    # That of many a compose file: it is content with whatever answers.
    shop.services["redis"]["healthcheck"]["test"] = ["CMD-SHELL", "redis-cli ping || true"]
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def cli(shop: Shop, *words: str) -> str:
    return shop.host.docker("exec", shop.id("redis"), "redis-cli", *words)


def finding(shop: Shop) -> dict[str, str]:
    """What the last run found of the check, as one text, and its remedy."""
    found = [
        {"text": finding["cause"], "remedy": finding["remedy"]}
        for operation in shop.report()["operations"]
        for finding in operation["findings"]
        if finding["subject"] == "the queue"
    ]
    return found[0]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["replicaof", "192.0.2.66", "6379"], "it is a replica of 192.0.2.66:6379, link down"),
        (["config", "set", "requirepass", "x"], "it asks for a password that nothing of redis"),
    ],
    ids=["replica", "password"],
)
def test_what_a_restart_takes_back(shop: Shop, words: list[str], text: str) -> None:
    cli(shop, *words)
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert text in done.out
    assert finding(shop)["remedy"]
    assert seen.touched == {"redis"}
    assert seen.recreated == set()
    assert seen.actions("redis").count("restart") == 1
    assert cli(shop, "set", "a", "b") == "OK"
    assert "role:master" in cli(shop, "info", "replication")
    shop.assert_converged()


@pytest.mark.parametrize("inside", ["", "web"])
def test_what_a_restart_would_lose(shop: Shop, inside: str) -> None:
    """A disk that takes no saves: what is in memory only is kept, and the remedy told."""
    if inside:
        shop.settings["checks"] = [{**CHECK, "inside": "web", "address": "redis:6379"}]
    root = ("exec", "-u", "root", shop.id("redis"))
    shop.host.docker(*root, "sh", "-c", "rm -f /data/*; chown root /data; chmod 700 /data")
    cli(shop, "set", "precious", "yes")
    cli(shop, "bgsave")
    shop.host.wait_for(
        f"docker exec {shop.id('redis')} redis-cli info persistence | grep -q status:err"
    )
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert "it cannot save to its disk, and refuses writes: MISCONF " in finding(shop)["text"]
    assert "free space where its data lies" in finding(shop)["remedy"]
    assert cli(shop, "get", "precious") == "yes"
    shop.host.docker(*root, "chown", "redis", "/data")
    cli(shop, "bgsave")
    shop.host.wait_for(
        f"docker exec {shop.id('redis')} redis-cli info persistence | grep -q bgsave_status:ok"
    )
    shop.assert_converged()
    assert cli(shop, "get", "precious") == "yes"


def test_a_full_memory(shop: Shop) -> None:
    keys = cli(shop, "dbsize")
    cli(shop, "config", "set", "maxmemory", "1")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert "its memory is full, and it refuses writes: OOM " in finding(shop)["text"]
    assert "maxmemory-policy" in finding(shop)["remedy"]
    cli(shop, "config", "set", "maxmemory", "0")
    # Nothing was written by asking.
    assert cli(shop, "dbsize") == keys


def test_the_password_of_the_stack(shop: Shop) -> None:
    """From its configuration file, its command and its environment; it is shown nowhere."""
    redis = shop.services["redis"]
    quoted = json.dumps(PASSWORD)
    shop.put("conf/redis.conf", f"# a comment\nrequirepass {quoted}\n")
    ways = (
        {
            "command": ["redis-server", "/etc/redis.conf"],
            "volumes": ["data:/data", "./conf/redis.conf:/etc/redis.conf:ro"],
        },
        {"command": ["redis-server", "--requirepass", PASSWORD.replace("$", "$$")]},
        {
            "command": 'sh -c "redis-server --requirepass \\"$$SHOP_PASSWORD\\""',
            "environment": {"SHOP_PASSWORD": PASSWORD.replace("$", "$$")},
        },
    )
    for way in ways:
        redis.update(way)
        done = shop.run("-y")
        assert done.rc == 0, done.out
        assert "NOAUTH" in cli(shop, "ping")
        assert "OK" in cli(shop, "-a", PASSWORD, "set", "a", "b")
        cli(shop, "-a", PASSWORD, "config", "set", "requirepass", "another")
        with shop.watching() as seen:
            mended = shop.run("-y", "-vvv")
        assert mended.rc == 0, mended.out
        assert "it refuses the password that " in finding(shop)["text"]
        assert seen.actions("redis").count("restart") == 1
        assert "OK" in cli(shop, "-a", PASSWORD, "set", "a", "b")
        told = json.dumps(shop.report()) + done.out + mended.out
        assert PASSWORD not in told


def test_an_error_that_its_password_is_part_of(shop: Shop) -> None:
    shop.services["redis"]["command"] = ["redis-server", "--requirepass", "x"]
    done = shop.run("-y")
    assert done.rc == 0, done.out
    cli(shop, "-a", "x", "config", "set", "maxmemory", "1")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert "its memory is full, and it refuses writes: OOM " in finding(shop)["text"]


def test_an_access_list_is_no_password_that_was_set_by_hand(shop: Shop) -> None:
    """Nobody but the stack's own user gets in, which is as it should be: no restart."""
    users = "--user default off --user app on >word ~* &* +@all"
    shop.services["redis"]["command"] = ["redis-server", *users.split()]
    shop.services["redis"]["healthcheck"]["test"] = ["CMD", "true"]
    shop.settings["checks"] = []
    done = shop.run("-y")
    assert done.rc == 0, done.out
    shop.settings["checks"] = [CHECK]
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert "its access list of redis gives cannot be read from outside" in finding(shop)["text"]


def test_a_redis_that_nobody_checks(shop: Shop) -> None:
    shop.settings["checks"] = []
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "No changes" in done.out
    (operation,) = shop.report()["operations"]
    (found,) = operation["findings"]
    assert (found["subject"], found["kind"], found["blocks"]) == ("redis", "check", False)
    assert found["remedy"].endswith('"checks": [{"kind": "redis", "service": "redis"}]')


def test_links_of_a_static_program_to_a_redis_that_is_not_well(shop: Shop) -> None:
    """The section alone finds it: no check is declared, and the caller has no shell."""
    host = shop.host
    box = host.docker("create", "lab/box:1")
    host.sh(f"docker cp {box}:/bin/busybox /opt/busybox && docker rm {box}")
    host.sh("tar -c -C /opt busybox | docker import - lab/static:1 && rm /opt/busybox")
    shop.settings |= {"checks": [], "links": {}}
    shop.services["static"] = {
        "image": "lab/static:1",
        "command": ["/busybox", "sleep", "3600"],
        "init": True,
        "environment": {"REDIS_URL": "redis://redis:6379/1"},
    }
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert not links(shop)
    assert host.run(f"docker exec {shop.id('static')} sh -c true").returncode != 0

    root = ("exec", "-u", "root", shop.id("redis"))

    def fill() -> None:
        host.docker(*root, "sh", "-c", "rm -f /data/*; chown root /data; chmod 700 /data")
        cli(shop, "set", "precious", "yes")
        save("err")

    def save(status: str) -> None:
        cli(shop, "bgsave")
        ask = f"docker exec {shop.id('redis')} redis-cli info persistence"
        host.wait_for(f"{ask} | grep -q bgsave_status:{status}")

    def free() -> None:
        host.docker(*root, "chown", "redis", "/data")
        save("ok")

    states: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "it asks for a password, and REDIS_URL of static holds none: NOAUTH",
            lambda: cli(shop, "config", "set", "requirepass", "x"),
            lambda: cli(shop, "-a", "x", "config", "set", "requirepass", ""),
        ),
        ("it cannot save to its disk, and refuses writes: MISCONF", fill, free),
        (
            "it is a replica of 192.0.2.66:6379, link down",
            lambda: cli(shop, "replicaof", "192.0.2.66", "6379"),
            lambda: cli(shop, "replicaof", "no", "one"),
        ),
    ]
    for text, damage, undo in states:
        damage()
        # A run that may wait for links does so once: the others only look.
        last = text == states[-1][0]
        with shop.watching() as seen:
            done = shop.run("-y" if last else "--dry")
        assert done.rc == last, done.out
        assert seen.touched == set(), seen.events
        found = links(shop)
        (own,) = (one for subject, one in found.items() if "static → " in subject)
        assert text in own["cause"], found
        assert own["blocks"]
        assert own["remedy"]
        # Its healthcheck is content all the while.
        assert shop.health()["redis"] == "healthy"
        undo()
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert not links(shop)


def links(shop: Shop) -> dict[str, dict[str, Any]]:
    """What the last run found of links, by subject."""
    return {
        finding["subject"]: finding
        for operation in shop.report()["operations"]
        for finding in operation["findings"]
        if finding["kind"] == "link"
    }
