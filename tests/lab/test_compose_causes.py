"""A service says what is wrong with it: that is the cause, and no recreation is spent on it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.stacks import HEALTH, Shop
from tests.lab.standing import Standing

AOF = "/data/appendonlydir/appendonly.aof.1.incr.aof"
#: What side needs before it serves: room to write, memory, and a redis that lets it in.
SIDE = """
[ ! -e /srv/eat ] || exec tail /dev/zero
cp /srv/room/full /srv/room/copy || exit 1
[ -e /srv/room/password ] || exec serve
password=$(cat /srv/room/password)
answer=$(printf 'AUTH shop %s\\r\\nQUIT\\r\\n' "$password" | nc redis 6379 | sed 1q)
case $answer in *WRONGPASS*) echo "$answer"; exit 1 ;; esac
exec serve
"""


#: A small place on the host, as full as a test makes it.
ROOM = """
mkdir -p /srv/room; rm -f /srv/eat
mountpoint -q /srv/room || mount -t tmpfs -o size=64k small /srv/room
rm -f /srv/room/*; echo x >/srv/room/full
"""


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    host = lab.take(1)[0]
    shop = Shop(tmp_path_factory.mktemp("causes"), host, mend={"attempts": 100, "backoff": [0]})
    redis, side = shop.services["redis"], shop.services["side"]
    redis["command"] = ["redis-server", "--appendonly", "yes", "--save", ""]
    redis["healthcheck"] = {
        **HEALTH,
        "test": ["CMD-SHELL", "redis-cli ping | tee /proc/self/fd/2 | grep -q PONG"],
        "interval": "2s",
        "start_period": "0s",
    }
    side["command"] = ["sh", "-c", SIDE.replace("$", "$$")]
    side["volumes"] = ["/srv:/srv"]
    # What starts a healthcheck in it needs some ten of them.
    side["mem_limit"] = "32m"
    return Standing(shop, lambda: host.sh(ROOM))


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def loop(shop: Shop, service: str) -> None:
    """Restart its container, and wait until the engine has done so again and again."""
    identity = shop.id(service)
    shop.host.sh(f"docker restart {identity} || :")
    shop.host.wait_for(
        f"[ $(docker inspect -f '{{{{.RestartCount}}}}' {identity}) -ge 3 ]", seconds=60
    )


def finding(shop: Shop, service: str) -> dict[str, Any]:
    (found,) = (
        finding
        for operation in shop.report()["operations"]
        for finding in operation["findings"]
        if finding["subject"] == service
    )
    return dict(found)


def told(shop: Shop, service: str) -> dict[str, Any]:
    """The finding of a run that must leave the service as it is."""
    identity = shop.id(service)
    done = shop.run("-y")
    assert done.rc == 1, done.out
    (operation,) = shop.report()["operations"]
    assert not operation["done"], operation["done"]
    assert shop.id(service) == identity
    found = finding(shop, service)
    assert f"remedy: {found['remedy']}" in done.out
    return found


def break_file(shop: Shop) -> None:
    """A key is written, the file broken in its middle, and redis started on that."""
    cli = f"docker exec {shop.id('redis')} redis-cli"
    shop.host.sh(
        f"{cli} set kept yes; docker exec -u root {shop.id('redis')} sh -c "
        f"'echo broken-by-a-bad-disk >>{AOF}'; {cli} set lost yes"
    )
    loop(shop, "redis")


def test_an_append_only_file_that_cannot_be_read(shop: Shop) -> None:
    break_file(shop)
    found = told(shop, "redis")
    assert found["kind"] == "restart loop"
    assert "Bad file format reading the append only file" in found["cause"]
    assert "redis-check-aof --fix appendonlydir/appendonly.aof.manifest" in found["remedy"]
    assert '"allow": ["repair:redis-aof"]' in found["remedy"]
    # By the remedy's own words, a person puts it right.
    command = found["remedy"].split("`")[3]
    shop.host.sh(f"docker stop {shop.id('redis')}")
    shop.host.sh(f"echo y | {command.replace(' -it ', ' -i ')}")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.host.docker("exec", shop.id("redis"), "redis-cli", "get", "kept") == "yes"
    shop.host.docker("exec", shop.id("redis"), "rm", "-r", "/data/appendonlydir.copy")


def test_an_append_only_file_that_may_be_repaired(shop: Shop) -> None:
    shop.settings["allow"] = ["repair:redis-aof"]
    break_file(shop)
    identity = shop.id("redis")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "repair redis: it says what is wrong: " in done.out
    assert shop.id("redis") == identity
    shop.assert_well()
    cli = ("exec", identity, "redis-cli")
    # What stands behind the broken place is in the copy alone.
    assert shop.host.docker(*cli, "get", "kept") == "yes"
    assert shop.host.docker(*cli, "get", "lost") == ""
    kept = shop.host.docker(
        "exec",
        identity,
        "sh",
        "-c",
        f"cat /data/appendonlydir.before-repair-*/{AOF.rpartition('/')[2]}",
    )
    assert "broken-by-a-bad-disk" in kept
    assert "lost" in kept.partition("broken-by-a-bad-disk")[2]
    assert any(step["verb"] == "repair" for step in shop.report()["operations"][0]["done"])
    shop.assert_converged()


@pytest.mark.parametrize(
    ("harm", "cure", "cause", "remedy"),
    [
        (
            "head -c 40000 /dev/zero >/srv/room/full",
            "echo x >/srv/room/full; rm -f /srv/room/copy",
            "No space left on device",
            "free space where it writes",
        ),
        ("touch /srv/eat", "rm /srv/eat", "it is OOM-killed at its limit", "mem_limit"),
    ],
    ids=["disk", "memory"],
)
def test_what_only_its_owner_can_put_right(
    shop: Shop, harm: str, cure: str, cause: str, remedy: str
) -> None:
    shop.host.sh(harm)
    loop(shop, "side")
    found = told(shop, "side")
    assert cause in found["cause"]
    assert remedy in found["remedy"]
    shop.host.sh(f"{cure}; docker restart {shop.id('side')}")
    done = shop.run("-y")
    assert done.rc == 0, done.out


def test_a_wrong_password_of_one_that_calls(shop: Shop) -> None:
    shop.host.docker(
        *("exec", shop.id("redis"), "redis-cli"),
        *("acl", "setuser", "shop", "on", ">right", "+@all"),
    )
    shop.host.sh("echo wrong >/srv/room/password")
    loop(shop, "side")
    found = told(shop, "side")
    assert "WRONGPASS" in found["cause"]
    assert "the same password" in found["remedy"]
    shop.host.sh(f"echo right >/srv/room/password; docker restart {shop.id('side')}")
    done = shop.run("-y")
    assert done.rc == 0, done.out


def test_a_password_that_its_healthcheck_lacks(shop: Shop) -> None:
    """Set at run time: one restart takes it back, and nothing is recreated."""
    cli = ("exec", shop.id("redis"), "redis-cli")
    shop.host.docker(*cli, "config", "set", "requirepass", "x")
    shop.wait_state("redis", "unhealthy")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "it says what is wrong: NOAUTH" in done.out
    assert seen.recreated == set()
    assert seen.actions("redis").count("restart") == 1
    shop.assert_converged()
