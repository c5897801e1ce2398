"""A check on one service fails because of another: the one that is broken is mended, and named."""

from __future__ import annotations

import re

import pytest

from tests.lab.fixtures import Lab
from tests.lab.stacks import HEALTH, Shop
from tests.lab.standing import Standing

#: What web does for a visitor: it asks redis, and fails where that does not answer as it should.
PAGE = """#!/bin/sh
answer=$(printf 'SET visit 1\\r\\nQUIT\\r\\n' | nc -w 2 redis 6379 | head -n 1)
case $answer in
+OK*) printf 'Content-Type: text/plain\\r\\n\\r\\nserved\\n' ;;
*) printf 'Status: 503 Unavailable\\r\\nContent-Type: text/plain\\r\\n\\r\\nno redis\\n' ;;
esac
"""
CHECK = {
    "kind": "http",
    "name": "the shop",
    "url": "http://127.0.0.1:8080/cgi-bin/visit",
    "contains": "served",
    "deadline": 4,
    "timeout": 4,
}
#: The end on the host of a container's link.
LINK = (
    "index=$(nsenter -t $(docker inspect -f '{{.State.Pid}}' %s) -n ip -o link show eth0 | "
    r"sed -n 's/.*@if\([0-9]*\):.*/\1/p'); "
    r'ip -o link | sed -n "s/^$index: \([^:@]*\).*/\1/p"'
)


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(
        tmp_path_factory.mktemp("path"),
        lab.take(1)[0],
        checks=[CHECK],
        mend={"attempts": 100, "backoff": [0]},
    )
    shop.put("conf/visit", PAGE)
    web = shop.services["web"]
    web["command"] = [
        *("sh", "-c"),
        "mkdir -p /www/cgi-bin; cp /visit /www/cgi-bin; chmod 755 /www/cgi-bin/visit; exec serve",
    ]
    web["volumes"] += ["./conf/visit:/visit:ro"]
    # Their own healthchecks are content throughout.
    shop.services["redis"]["healthcheck"]["test"] = ["CMD-SHELL", "redis-cli ping || true"]
    shop.services["redis"]["volumes"] += ["./conf/redis.conf:/etc/redis.conf:ro"]
    shop.services["redis"]["command"] = ["redis-server", "/etc/redis.conf"]
    shop.put("conf/redis.conf", "appendonly no\n")
    shop.services["side"]["healthcheck"] = {**HEALTH, "test": ["CMD", "true"]}
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def link(shop: Shop, service: str) -> str:
    found = shop.host.sh(LINK % shop.id(service))
    assert found.startswith("veth"), found
    return found


def served(shop: Shop) -> bool:
    return shop.host.sh("curl -s -m 5 http://127.0.0.1:8080/cgi-bin/visit; :") == "served"


def mend(shop: Shop, service: str, *evidence: str) -> None:
    """One run restarts the service that is broken, once, and no other."""
    assert not served(shop)
    dry = shop.run("--dry")
    assert f"restart {service}: check the shop fails: " in dry.out
    assert not served(shop)
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    for text in evidence:
        assert text in done.out, done.out
    assert seen.touched == {service}, seen.events
    assert seen.recreated == set()
    assert seen.actions(service).count("restart") == 1
    assert served(shop)
    shop.assert_converged()


def test_a_password_set_at_run_time(shop: Shop) -> None:
    shop.host.docker("exec", shop.id("redis"), "redis-cli", "config", "set", "requirepass", "x")
    mend(
        shop,
        "redis",
        "broken: web → redis:6379: it asks for a password",
        "remedy: it was set at run time",
    )


def test_a_replica_at_run_time(shop: Shop) -> None:
    """Its configuration file may declare it one: what it answers to a write tells all the same."""
    shop.host.docker("exec", shop.id("redis"), "redis-cli", "replicaof", "192.0.2.66", "6379")
    mend(shop, "redis", "broken: web → redis:6379: ")


def test_the_link_of_the_one_that_is_called(shop: Shop) -> None:
    shop.host.sh(f"ip link set {link(shop, 'redis')} nomaster")
    mend(shop, "redis", "redis answers itself, and neither web nor the host")


def test_the_link_of_the_one_that_is_called_is_down(shop: Shop) -> None:
    shop.host.sh(f"ip link set {link(shop, 'redis')} down")
    mend(shop, "redis", "redis answers itself, and neither web nor the host")


def test_the_link_of_the_one_that_calls(shop: Shop) -> None:
    shop.host.sh(f"ip link set {link(shop, 'web')} nomaster")
    mend(shop, "web", "redis answers itself and the host: web is cut off")


def test_a_mounted_file_of_the_one_that_is_called(shop: Shop) -> None:
    """The drift is found; it is the cause, and nothing else is done for the check."""
    path = "/opt/shop/conf/redis.conf"
    shop.host.sh(f"cp -p {path} {path}~; echo 'requirepass x' >{path}; mv {path}~ {path}")
    # Its container was restarted before it was put right.
    shop.host.sh(f"echo 'requirepass x' >{path}; docker restart {shop.id('redis')}")
    shop.host.sh(f"echo 'appendonly no' >{path}~; mv {path}~ {path}")
    assert not served(shop)
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert f"redis: drift: {path} was replaced on the host" in done.out
    assert seen.touched == {"redis"}
    assert served(shop)
    shop.assert_converged()


def test_a_rule_between_them(shop: Shop) -> None:
    """Each of them answers everybody else: first the one that calls is tried, then the other."""
    web = shop.container("web")["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"]
    rule = f"INPUT -s {web} -p tcp --dport 6379 -j DROP"
    pid = shop.container("redis")["State"]["Pid"]
    shop.host.sh(f"nsenter -t {pid} -n iptables -I {rule}")
    with shop.watching() as seen:
        done = shop.run("-y")
    # The rule is in the network of redis itself, and goes with it; web is blamed at first.
    assert "web → redis:6379: no answer within 3 s" in done.out
    assert done.rc == 0, done.out
    assert seen.actions("web").count("restart") <= 1
    assert seen.actions("redis").count("restart") == 1
    shop.assert_converged()


@pytest.mark.parametrize(
    "rule",
    [
        "raw PREROUTING -s {web} -d {redis} -p tcp -m tcp --dport 6379 -j DROP",
        "mangle FORWARD -d {redis} -j DROP",
        "filter OUTPUT -o lo -p tcp -m tcp --dport 8080 -j REJECT",
    ],
    ids=["raw", "mangle", "loopback"],
)
def test_a_rule_of_the_host(shop: Shop, rule: str) -> None:
    """No restart gets past it: it is named, and nothing is done to either end."""
    addresses = {
        name: shop.container(name)["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"]
        for name in ("web", "redis")
    }
    table, _, words = rule.format(**addresses).partition(" ")
    shop.host.sh(f"iptables -t {table} -I {words}")
    try:
        with shop.watching() as seen:
            done = shop.run("-y")
    finally:
        shop.host.sh(f"iptables -t {table} -D {words}")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    chain, _, rest = words.partition(" ")
    named = shop.report()["operations"][0]["findings"][0]
    text = " ".join((named["cause"], *named["evidence"]))
    assert re.search(rf"somebody's rule .*: -A {chain} ", text), text
    for word in rest.split()[:2]:
        assert word.partition("/")[0] in text
    assert "no restart of a service mends it: remove the rule there" in done.out
    shop.assert_converged()


def test_what_it_holds_is_not_lost(shop: Shop) -> None:
    """A disk that takes no saves fails the page; no restart throws away what is in memory."""
    root = ("exec", "-u", "root", shop.id("redis"))
    shop.host.docker(*root, "sh", "-c", "rm -f /data/*; chown root /data; chmod 700 /data")
    cli = ("exec", shop.id("redis"), "redis-cli")
    shop.host.docker(*cli, "set", "precious", "yes")
    shop.host.docker(*cli, "bgsave")
    shop.host.wait_for(f"docker {' '.join(cli)} info persistence | grep -q bgsave_status:err")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert "broken: web → redis:6379: it cannot save to its disk" in done.out
    assert "remedy: free space where its data lies" in done.out
    assert shop.host.docker(*cli, "get", "precious") == "yes"
    shop.host.docker(*root, "chown", "redis", "/data")
    shop.host.docker(*cli, "bgsave")
