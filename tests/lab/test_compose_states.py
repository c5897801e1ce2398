"""What breaks while a stack runs: found, named with its cause, and only that mended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.stacks import Shop

NETWORK = "shop_default"


@dataclass(frozen=True)
class Break:
    """One way to break the shop.

    + service: what is broken, and all that may be touched
    + do: breaks it
    + found: what the run must say, as a regular expression
    + done: the step it must take
    + kept: whether the container must still be the same one
    """

    service: str
    do: Callable[[Shop], Any]
    found: str
    done: str
    kept: bool = True


def docker(*words: str) -> Callable[[Shop], Any]:
    """A docker command; ``{web}`` is the id of the service's container."""

    def do(shop: Shop) -> None:
        ids = {name: shop.id(name) for name in shop.services}
        shop.host.docker(*(word.format(**ids) for word in words))

    return do


def freeze_child(shop: Shop) -> None:
    """The server stands still, while the container's first process waits for it."""
    shop.host.sh(f"docker exec {shop.id('web')} sh -c 'kill -STOP $(pidof httpd)'")
    shop.wait_state("web", "unhealthy")


def lose_page(shop: Shop) -> None:
    """A file of the container's writable layer goes; no restart brings it back."""
    shop.host.sh(f"docker exec {shop.id('web')} rm /www/index.html")
    shop.wait_state("web", "unhealthy")
    shop.settings["health_timeout"] = 8


def break_program(shop: Shop) -> None:
    """What the container starts is spoiled in its writable layer: it crashes for ever."""
    web = shop.id("web")
    shop.host.sh(
        f'docker exec {web} sh -c \'printf "#!/bin/sh\\necho no license >&2; exit 3\\n" '
        f"> /bin/serve'"
    )
    # With its first program the whole container ends, and with it what ended that.
    shop.host.sh(f"docker exec {web} sh -c 'kill -KILL $(pidof httpd)'", check=False)
    shop.host.wait_for_container(web, '"RestartCount":([4-9]|[1-9][0-9])', 30)


def stop_process(shop: Shop) -> None:
    """Its first process is stopped by a signal from the host, as a debugger does."""
    pid = shop.container("redis")["State"]["Pid"]
    shop.host.sh(f"kill -STOP {pid}")
    shop.host.wait_for(f"grep -q '^State:.T' /proc/{pid}/status")


def without_aliases(shop: Shop) -> None:
    """Back on its network, but nobody finds it under its name any more."""
    redis = shop.id("redis")
    shop.host.docker("network", "disconnect", NETWORK, redis)
    shop.host.docker("network", "connect", NETWORK, redis)
    assert not shop.answers_inside("web", "redis", 6379)


def changed_by_hand(old: str, new: str) -> Callable[[Shop], Any]:
    """Someone edits the files on the host and applies them with Compose."""

    def do(shop: Shop) -> None:
        shop.host.sh(f"sed -i 's/{old}/{new}/' {shop.home}/compose.yaml")
        shop.by_hand("up", "-d", "--no-deps", "web")

    return do


def extra_network(shop: Shop) -> None:
    shop.host.docker("network", "create", "elsewhere")
    shop.host.docker("network", "connect", "elsewhere", shop.id("side"))


BREAKS = {
    "killed": Break(
        "web", docker("kill", "{web}"), r"web: exited: it exited with code 137", "start"
    ),
    "stopped": Break(
        "redis", docker("stop", "{redis}"), r"redis: stopped: it exited with code 0", "start"
    ),
    "removed": Break(
        "web", docker("rm", "-f", "{web}"), r"web: missing: it has no container", "up", kept=False
    ),
    "removed with data on its volume": Break(
        "redis",
        docker("rm", "-f", "{redis}"),
        r"redis: missing: it has no container",
        "up",
        kept=False,
    ),
    "paused": Break("web", docker("pause", "{web}"), r"web: paused: it is paused", "unpause"),
    "unhealthy": Break("web", freeze_child, r"web: unhealthy: its healthcheck fails", "restart"),
    "unhealthy beyond a restart": Break(
        "web",
        lose_page,
        r"web: unhealthy: its healthcheck fails: .*404 Not Found",
        "recreate",
        kept=False,
    ),
    "restart loop": Break(
        "web",
        break_program,
        r"web: restart loop: it restarts again and again \(\d+ times, last exit code 3\)",
        "recreate",
        kept=False,
    ),
    "stopped by a signal": Break(
        "redis", stop_process, r"redis: hung: its process is stopped by a signal", "resume"
    ),
    "detached from its network": Break(
        "redis",
        docker("network", "disconnect", NETWORK, "{redis}"),
        r"redis: drift: networks\.shop_default: detached",
        "attach",
    ),
    "detached with a published port": Break(
        "web",
        docker("network", "disconnect", NETWORK, "{web}"),
        r"web: drift: networks\.shop_default: detached",
        "attach",
    ),
    "attached without its names": Break(
        "redis",
        without_aliases,
        r"redis: drift: networks\.shop_default: .* → .*aliases=.*redis",
        "attach",
    ),
    "attached to another network": Break(
        "side", extra_network, r"side: drift: networks\.elsewhere: attached, and not", "detach"
    ),
    "restart policy": Break(
        "web",
        docker("update", "--restart=no", "{web}"),
        r"web: drift: restart: no → unless-stopped",
        "recreate",
        kept=False,
    ),
    "environment": Break(
        "web",
        changed_by_hand("good morning", "good night"),
        r"web: drift: environment\.GREETING: good night → good morning",
        "recreate",
        kept=False,
    ),
    "command": Break(
        "web",
        changed_by_hand(
            "    image: lab.box:1", "    command: [serve, nicely]\\n    image: lab\\/box:1"
        ),
        r"web: drift: command: serve nicely → /bin/serve",
        "recreate",
        kept=False,
    ),
    "published port": Break(
        "web",
        changed_by_hand("127.0.0.1:8080:80", "127.0.0.1:8081:80"),
        r"web: drift: ports: 127\.0\.0\.1:8081->80/tcp → 127\.0\.0\.1:8080->80/tcp",
        "recreate",
        kept=False,
    ),
    "mount": Break(
        "web",
        changed_by_hand("web.conf:ro", "web.conf:rw"),
        r"web: drift: volumes\./etc/web\.conf\.read_only: False → True",
        "recreate",
        kept=False,
    ),
    "image": Break(
        "web",
        changed_by_hand("lab.box:1", "lab\\/box:2"),
        r"web: image: image lab/box:1: [0-9a-f]{12} → [0-9a-f]{12}",
        "recreate",
        kept=False,
    ),
    "memory limit": Break(
        "side",
        docker("update", "--memory=64m", "--memory-swap=64m", "{side}"),
        r"side: drift: mem_limit: 67108864 → \(none\)",
        "recreate",
        kept=False,
    ),
}


@pytest.mark.rotating(6)
@pytest.mark.parametrize("name", BREAKS)
def test_one_service_is_mended_alone(shop: Shop, name: str) -> None:
    case = BREAKS[name]
    shop.host.sh(f"docker exec {shop.id('redis')} sh -c 'redis-cli set order 17; redis-cli save'")
    identity = shop.id(case.service)
    case.do(shop)

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert re.search(case.found, done.out), done.out
    assert f"→ {case.done} {case.service}: " in done.out
    assert seen.touched == {case.service}, seen.events
    assert (shop.id(case.service) == identity) is case.kept
    assert _told(shop, case.service, case.done)
    assert shop.host.docker("exec", shop.id("redis"), "redis-cli", "get", "order") == "17"
    assert shop.page() == "box 1"
    if name == "attached to another network":
        # Not ours, so it stays; this would fail where it did not.
        shop.host.docker("network", "rm", "elsewhere")
    shop.assert_converged()


LIMITS = {"cpus": 0.5, "mem_limit": "64m", "memswap_limit": "64m", "pids_limit": 100}

#: What somebody does with ``docker update``, whether limits are declared, and what the run says.
UPDATES: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "cpus": (["--cpus=0.25"], LIMITS, "cpus: 0.25 → 0.5"),
    "quota": (["--cpu-quota=50000"], {}, "cpus: 0.5 → (none)"),
    "shares": (["--cpu-shares=512"], {}, "cpu_shares: 512 → (none)"),
    "cpuset": (["--cpuset-cpus=0"], {}, "cpuset: 0 → (none)"),
    "memory": (["--memory=96m", "--memory-swap=96m"], LIMITS, "mem_limit: 100663296 → 67108864"),
    "reservation": (["--memory-reservation=32m"], {}, "mem_reservation: 33554432 → (none)"),
    "pids": (["--pids-limit=50"], LIMITS, "pids_limit: 50 → 100"),
    "policy": (["--restart=on-failure:3"], {}, "restart: on-failure:3 → unless-stopped"),
}


def limits(shop: Shop, name: str) -> dict[str, Any]:
    """What ``docker update`` can change of a container."""
    host = shop.container(name)["HostConfig"]
    keys = "NanoCpus CpuQuota CpuShares CpusetCpus Memory MemoryReservation MemorySwap PidsLimit"
    return {key: host[key] or 0 for key in keys.split()} | host["RestartPolicy"]


def test_every_update_by_hand_is_seen(shop: Shop) -> None:
    for name, (_, declared, _) in UPDATES.items():
        shop.services[name] = {"image": "lab/box:1", "restart": "unless-stopped", **declared}
    shop.deploy()
    declared = {name: limits(shop, name) for name in UPDATES}

    for recorded in (True, False):
        for name, (options, _, _) in UPDATES.items():
            shop.host.docker("update", *options, shop.id(name))
        assert all(limits(shop, name) != declared[name] for name in UPDATES)
        if not recorded:
            shop.host.sh("rm /var/lib/stackmend/shop/applied.json")
        with shop.watching() as seen:
            done = shop.run("-y")
        assert done.rc == 0, done.out
        for name, (_, _, found) in UPDATES.items():
            assert f"{name}: drift: {found}" in done.out
        assert seen.recreated == {*UPDATES}
        assert {name: limits(shop, name) for name in UPDATES} == declared
    shop.assert_converged()


def test_created_but_never_started_is_told_with_the_engines_error(shop: Shop) -> None:
    shop.host.docker("rm", "-f", shop.id("web"))
    shop.host.docker("run", "-d", "--name", "holder", "-p", "127.0.0.1:8080:80", "lab/box:2")
    shop.host.run(f"cd {shop.home} && docker compose -p shop up -d --no-deps web")
    web = shop.container("web")
    assert (web["State"]["Status"], "8080" in web["State"]["Error"]) == ("created", True)

    with shop.watching() as seen:
        held = shop.run("-y")

    assert held.rc != 0
    assert re.search(r"web: created: .*8080.*already allocated", held.out), held.out
    assert seen.touched <= {"web"}, seen.events
    assert shop.page() == "box 2"

    shop.host.docker("rm", "-f", "holder")
    with shop.watching() as seen:
        free = shop.run("-y")

    assert free.rc == 0, free.out
    assert "→ start web: " in free.out
    assert seen.touched == {"web"}
    assert shop.page() == "box 1"
    shop.assert_converged()


def test_a_crash_loop_for_want_of_a_dependency_ends_when_it_is_back(shop: Shop) -> None:
    needs_redis = "nc -w 2 redis 6379 </dev/null || exit 7; exec serve"
    shop.services["web"]["command"] = ["sh", "-c", needs_redis]
    shop.deploy()
    side = shop.id("side")
    shop.host.docker("stop", shop.id("redis"))
    shop.host.docker("restart", shop.id("web"))
    looping = f"[ $(docker inspect -f '{{{{.RestartCount}}}}' {shop.id('web')}) -ge 4 ]"
    shop.host.wait_for(looping, 60)

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "redis: stopped: it exited with code 0" in done.out
    assert re.search(r"web: restart loop: .* last exit code 7", done.out), done.out
    assert seen.touched == {"redis", "web"}
    assert shop.id("side") == side
    shop.assert_converged()


def test_too_many_replicas_are_reduced_to_the_declared(shop: Shop) -> None:
    first = shop.id("side")
    shop.by_hand("up", "-d", "--no-recreate", "--no-deps", "--scale", "side=3", "side")

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "side: scale: 3 containers where 1 should be" in done.out
    assert seen.touched == {"side"}
    assert [entry["Id"] for entry in shop.host.containers("shop")["side"]] == [first]
    shop.assert_converged()


def test_a_missing_replica_is_added_and_the_others_are_left(shop: Shop) -> None:
    shop.services["side"]["deploy"] = {"replicas": 2}
    shop.deploy()
    first = [shop.id("side", 1), shop.id("side", 2)]
    shop.services["side"]["deploy"] = {"replicas": 3}
    grown = shop.run("-y")
    assert grown.rc == 0, grown.out
    assert "side: scale: 2 containers where 3 should be" in grown.out
    assert [shop.id("side", 1), shop.id("side", 2)] == first
    shop.host.docker("rm", "-f", shop.id("side", 2))
    left = [shop.id("side", 1), shop.id("side", 2)]

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "side: scale: 2 containers where 3 should be" in done.out
    assert seen.touched == {"side"}
    after = {entry["Id"]: entry for entry in shop.host.containers("shop")["side"]}
    assert len(after) == 3
    assert set(left) < set(after)
    assert all(seen.before[one] == seen.after[one] for one in left)
    shop.assert_converged()


@pytest.mark.parametrize("how", ["changed", "removed"])
def test_a_project_file_that_someone_touched_on_the_host_is_put_back(shop: Shop, how: str) -> None:
    path = f"{shop.home}/conf/web.conf"
    shop.host.sh(f"echo 'answer = 43' > {path}" if how == "changed" else f"rm {path}")

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    what = "not as in the source" if how == "changed" else "missing"
    assert f"{shop.home}: files: {what}: conf/web.conf" in done.out
    assert "web: content: conf/web.conf changed, which it mounts" in done.out
    assert seen.touched == {"web"}
    assert shop.host.read(path) == b"answer = 42\n"
    assert shop.host.docker("exec", shop.id("web"), "cat", "/etc/web.conf") == "answer = 42"
    shop.assert_converged()


def test_a_container_that_holds_our_name_is_set_aside_with_consent_alone(shop: Shop) -> None:
    shop.host.docker("rm", "-f", shop.id("web"))
    stranger = shop.host.docker("run", "-d", "--name", "shop-web-1", "lab/box:2")

    with shop.watching() as seen:
        refused = shop.run("-y")

    assert refused.rc != 0
    assert "a container that no project owns holds its name shop-web-1" in refused.out
    assert '"allow": ["container:shop-web-1"]' in refused.out
    assert seen.quiet, seen.events
    (operation,) = shop.report()["operations"]
    assert operation["refusals"][0]["subject"] == "web"
    assert '"allow": ["container:shop-web-1"]' in operation["refusals"][0]["remedy"]

    shop.settings["allow"] = ["container:shop-web-1"]
    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    aside = shop.host.inspect(stranger)
    assert aside["Name"] == "/shop-web-1-set-aside"
    assert aside["State"]["Status"] == "exited"
    assert seen.touched == {"web", "shop-web-1-set-aside"}
    entry = next(entry for entry in shop.journal() if entry["action"] == "set aside")
    assert "docker rename shop-web-1-set-aside shop-web-1" in entry["undo"]
    shop.clear("shop-web-1-set-aside")


def test_a_container_that_answers_to_our_name_is_let_go_with_consent_alone(shop: Shop) -> None:
    impostor = shop.host.docker(
        *("run", "-d", "--name", "impostor", "--network", NETWORK),
        *("--network-alias", "redis", "lab/box:2"),
    )

    with shop.watching() as seen:
        refused = shop.run("-y")

    assert refused.rc != 0
    assert f"container impostor holds its name redis on network {NETWORK}" in refused.out
    assert '"allow": ["container:impostor"]' in refused.out
    assert seen.quiet, seen.events

    shop.settings["allow"] = ["container:impostor"]
    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert seen.touched == {"impostor"}
    assert shop.host.inspect(impostor)["State"]["Status"] == "running"
    assert NETWORK not in shop.host.inspect(impostor)["NetworkSettings"]["Networks"]
    shop.clear("impostor")


def test_a_container_that_holds_our_address_is_let_go_with_consent_alone(shop: Shop) -> None:
    subnet = [{"subnet": "10.77.0.0/24"}]
    shop.compose["networks"] = {"fixed": {"ipam": {"config": subnet}}}
    shop.services["side"]["networks"] = {"fixed": {"ipv4_address": "10.77.0.10"}}
    shop.deploy()
    side = shop.id("side")
    shop.host.docker("stop", side)
    shop.host.docker(
        *("run", "-d", "--name", "squatter", "--network", "shop_fixed"),
        *("--ip", "10.77.0.10", "lab/box:2"),
    )

    with shop.watching() as seen:
        refused = shop.run("-y")

    assert refused.rc != 0
    assert "holds its address 10.77.0.10 on network shop_fixed" in refused.out
    assert '"allow": ["container:squatter"]' in refused.out
    assert seen.quiet, seen.events

    shop.settings["allow"] = ["container:squatter"]
    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert seen.touched == {"squatter", "side"}
    networks = shop.container("side")["NetworkSettings"]["Networks"]
    assert (shop.id("side"), networks["shop_fixed"]["IPAddress"]) == (side, "10.77.0.10")
    shop.assert_converged()


def crash_once(shop: Shop) -> None:
    """It crashes, and the engine itself restarts it."""
    web = shop.container("web")
    shop.host.sh(f"kill -KILL {web['State']['Pid']}")
    shop.host.wait_for_container(web["Id"], '"RestartCount":1,')
    shop.wait_state("web", "healthy")


def guest(shop: Shop) -> None:
    """A container of somebody else's is on our network, under its own name."""
    shop.host.docker("run", "-d", "--name", "guest", "--network", NETWORK, "lab/box:2")


def one_off(shop: Shop) -> None:
    """Somebody runs a command in a container of a service beside the service's own."""
    shop.by_hand("run", "-d", "--no-deps", "--name", "errand", "side", "sleep", "1000")


def orphan(shop: Shop) -> None:
    """A service of the project that stands in another file, started by hand."""
    shop.host.put(f"{shop.home}/extra.yaml", "services: {extra: {image: lab/box:2}}\n")
    shop.by_hand("-f", "compose.yaml", "-f", "extra.yaml", "up", "-d", "--no-deps", "extra")


@pytest.mark.parametrize(
    ("what", "left"),
    [(crash_once, ""), (guest, "guest"), (one_off, "errand"), (orphan, "shop-extra-1")],
    ids=["restarted by the engine", "guest", "one-off", "orphan"],
)
def test_what_is_right_or_not_ours_is_left_alone(
    shop: Shop, what: Callable[[Shop], None], left: str
) -> None:
    what(shop)

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert "No changes" in done.out, done.out
    assert seen.quiet, seen.events
    extra = f"{shop.home}/extra.yaml" if what is orphan else ""
    shop.clear(*([left] if left else []), files=extra)


def test_an_orphan_is_named_and_removed_with_consent_alone(shop: Shop) -> None:
    orphan(shop)
    left = shop.run("--dry")
    assert left.rc == 0, left.out
    assert "extra: orphan: not in the compose file and not started by us; left alone" in left.out
    assert '"allow": ["container:shop-extra-1"]' in left.out

    shop.settings["allow"] = ["container:shop-extra-1"]
    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert seen.touched == {"extra"}
    assert "extra" not in shop.host.containers("shop")
    shop.clear(files=f"{shop.home}/extra.yaml")


def test_a_project_of_the_same_name_from_elsewhere_is_refused(shop: Shop) -> None:
    shop.host.put("/opt/blog/compose.yaml", "services: {blog: {image: lab/box:2}}\n")
    shop.host.sh("cd /opt/blog && docker compose -p shop up -d", timeout=120)

    with shop.watching() as seen:
        refused = shop.run("-y")

    assert refused.rc != 0
    assert "a project of this name was started from /opt/blog" in refused.out
    assert '"allow": ["project:/opt/blog"]' in refused.out
    assert seen.quiet, seen.events

    shop.settings["allow"] = ["project:/opt/blog"]
    with shop.watching() as seen:
        taken = shop.run("-y")

    assert taken.rc == 0, taken.out
    assert seen.quiet, seen.events
    shop.clear("shop-blog-1", files="/opt/blog")


def test_a_lost_published_port_is_found_by_a_check_and_mended(shop: Shop) -> None:
    shop.settings["checks"] = [
        {"kind": "http", "url": "http://127.0.0.1:8080/", "deadline": 5, "timeout": 2}
    ]
    shop.assert_converged()
    # What serves the port on the loopback is a process beside the engine, which never looks at it.
    shop.host.sh("pkill -KILL docker-proxy")

    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert re.search(r"http://127\.0\.0\.1:8080/.*: check: .*refused", done.out), done.out
    assert seen.touched == {"web"}
    assert shop.page() == "box 1"
    shop.assert_converged()


def _told(shop: Shop, service: str, verb: str) -> bool:
    """Whether the report and the host's journal tell of the step, with its cause."""
    (operation,) = shop.report()["operations"]
    reported = any(
        (entry["verb"], entry["subject"], entry["result"]) == (verb, service, "done")
        for entry in operation["done"]
    )
    last = [entry for entry in shop.journal() if entry["subject"] == f"shop/{service}"][-1]
    return reported and last["action"] == verb and bool(last["cause"])
