"""What a user changes: only what it concerns is recreated, and the cause names the field."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.controller import Run
from tests.lab.fixtures import Lab
from tests.lab.stacks import EngineChanges, Shop
from tests.lab.standing import Standing


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    return Standing(Shop(tmp_path_factory.mktemp("changes"), lab.take(1)[0]))


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def apply(shop: Shop, *more: str) -> tuple[Run, EngineChanges]:
    """Run, and see what happened on the engine."""
    with shop.watching() as seen:
        done = shop.run("-y", *more)
    assert done.rc == 0, done.out
    return done, seen


@dataclass(frozen=True)
class Change:
    """One change of the compose file.

    + service: the service it concerns, and all that may be recreated
    + do: changes the service's section
    + cause: what the run must say, as a regular expression
    + proof: what the engine must show of the new container
    """

    service: str
    do: Callable[[dict[str, Any]], Any]
    cause: str
    proof: Callable[[dict[str, Any]], bool]


CHANGES = {
    "environment value": Change(
        "web",
        lambda web: web["environment"].update(GREETING="good evening"),
        r"web: changed: environment\.GREETING: good morning → good evening",
        lambda shown: "GREETING=good evening" in shown["Config"]["Env"],
    ),
    "image": Change(
        "web",
        lambda web: web.update(image="lab/box:2"),
        r"web: changed: image: lab/box:1 → lab/box:2",
        lambda shown: shown["Config"]["Image"] == "lab/box:2",
    ),
    "port": Change(
        "web",
        lambda web: web.update(ports=["127.0.0.1:8081:80"]),
        r"web: changed: ports: .*8080.* → .*8081",
        lambda shown: shown["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == "8081",
    ),
    "command": Change(
        "web",
        lambda web: web.update(command=["/bin/serve", "nicely"]),
        r"web: changed: command: \(none\) → /bin/serve nicely",
        lambda shown: shown["Config"]["Cmd"] == ["/bin/serve", "nicely"],
    ),
    "label": Change(
        "redis",
        lambda redis: redis["labels"].update(team="sales"),
        r"redis: changed: labels\.team: stock → sales",
        lambda shown: shown["Config"]["Labels"]["team"] == "sales",
    ),
}


@pytest.mark.rotating(2)
@pytest.mark.parametrize("name", CHANGES)
def test_only_the_changed_service_is_made_anew(shop: Shop, name: str) -> None:
    change = CHANGES[name]
    shop.host.docker("exec", shop.id("redis"), "redis-cli", "set", "order", "17")
    change.do(shop.services[change.service])

    done, seen = apply(shop)

    assert re.search(change.cause, done.out), done.out
    assert seen.touched == {change.service}, seen.events
    assert seen.recreated == {change.service}
    assert change.proof(shop.container(change.service))
    assert shop.host.docker("exec", shop.id("redis"), "redis-cli", "get", "order") == "17"
    (operation,) = shop.report()["operations"]
    told = [
        f"{found['kind']}: {found['cause']}"
        for found in operation["findings"]
        if found["subject"] == change.service
    ]
    assert any(re.search(change.cause.partition(": ")[2], found) for found in told), told
    (line,) = [line for line in shop.journal()[-2:] if line["subject"] == f"shop/{change.service}"]
    assert line["action"] == "recreate"
    shop.assert_converged()


def test_a_new_service_is_started_and_no_other_is_touched(shop: Shop) -> None:
    shop.services["extra"] = {"image": "lab/box:2", "restart": "unless-stopped"}

    done, seen = apply(shop)

    assert "extra: missing: it has no container" in done.out
    assert seen.touched == {"extra"}
    shop.assert_converged()


def test_a_removed_service_goes_and_its_volume_stays(shop: Shop) -> None:
    shop.services["cache"] = {
        "image": "lab/redis:7",
        "restart": "unless-stopped",
        "volumes": ["cache:/data"],
    }
    shop.compose["volumes"]["cache"] = {}
    shop.deploy()
    keep = "redis-cli set order 18; redis-cli save"
    shop.host.docker("exec", shop.id("cache"), "sh", "-c", keep)
    section = shop.services.pop("cache")
    del shop.compose["volumes"]["cache"]

    done, seen = apply(shop)

    assert "cache: orphan: no longer in the compose file" in done.out
    assert "→ remove cache: " in done.out
    assert seen.touched == {"cache"}
    assert "cache" not in shop.host.containers("shop")
    assert "shop_cache" in shop.host.docker("volume", "ls", "-q").split()
    shop.assert_converged()

    shop.services["cache"] = section
    shop.compose["volumes"]["cache"] = {}
    shop.deploy()
    assert shop.host.docker("exec", shop.id("cache"), "redis-cli", "get", "order") == "18"


def test_a_volume_under_another_key_needs_consent_and_the_old_ones_data_are_told_of(
    shop: Shop,
) -> None:
    host = shop.host
    host.docker("exec", shop.id("redis"), "sh", "-c", "redis-cli set order 19; redis-cli save")
    shop.services["redis"]["volumes"] = ["store:/data"]
    shop.compose["volumes"] = {"store": {}}

    with shop.watching() as seen:
        refused = shop.run("-y")
    assert refused.rc != 0, refused.out
    assert "keeps data in the volume shop_data at /data" in refused.out
    assert seen.quiet, seen.events

    shop.settings["allow"] = ["volume:redis:/data"]
    done, seen = apply(shop)

    (finding,) = (
        row
        for operation in shop.report()["operations"]
        for row in operation["findings"]
        if row["subject"] == "volume store"
    )
    assert "shop_data, which still holds its data" in finding["cause"]
    assert not finding["blocks"]
    assert finding["remedy"] in done.out
    assert seen.recreated == {"redis"}
    assert {"shop_data", "shop_store"} <= {*host.docker("volume", "ls", "-q").split()}
    assert host.docker("exec", shop.id("redis"), "redis-cli", "get", "order") == ""

    # As it says, with an image that this host has.
    copy = finding["remedy"].partition("copy it: ")[2]
    host.docker("stop", shop.id("redis"))
    host.sh(copy.replace("busybox cp", "--entrypoint cp lab/box:1"))
    done, _ = apply(shop)
    assert host.docker("exec", shop.id("redis"), "redis-cli", "get", "order") == "19"
    shop.assert_converged()


def test_a_comment_changes_a_file_and_no_container(shop: Shop) -> None:
    shop.put("conf/README", "what this is for\n")

    done, seen = apply(shop)

    assert "conf/README" in done.out
    assert seen.quiet, seen.events
    assert shop.host.read(f"{shop.home}/conf/README") == b"what this is for\n"
    shop.assert_converged()


def test_a_dependant_is_restarted_where_compose_says_so_and_not_elsewhere(shop: Shop) -> None:
    needs = {"redis": {"condition": "service_healthy", "restart": True}}
    shop.services["side"]["depends_on"] = needs
    shop.deploy()
    side, web = shop.id("side"), shop.id("web")
    shop.services["redis"]["labels"]["team"] = "sales"

    done, seen = apply(shop)

    assert "→ restart side: depends_on.redis.restart: redis is restarted" in done.out
    assert seen.touched == {"redis", "side"}
    assert seen.recreated == {"redis"}
    assert (shop.id("side"), shop.id("web")) == (side, web)
    shop.assert_converged()


def test_who_shares_a_network_with_a_service_follows_it(shop: Shop) -> None:
    shop.services["side"]["network_mode"] = "service:web"
    shop.services["side"]["environment"] = {"PORT": "81"}
    shop.deploy()
    shop.services["web"]["environment"]["GREETING"] = "good evening"

    done, seen = apply(shop)

    assert "network_mode: web is recreated" in done.out
    assert seen.recreated == {"web", "side"}
    inside = f"docker exec {shop.id('side')} wget -q -O - http://127.0.0.1/"
    assert shop.host.sh(inside) == "box 1"
    shop.assert_converged()


@dataclass(frozen=True)
class Content:
    """A file whose content changes, and where a container sees it."""

    path: str
    old: str
    new: str
    inside: str
    cause: str


CONTENTS = {
    "bind-mounted file": Content(
        "conf/web.conf",
        "answer = 42",
        "answer = 43",
        "cat /etc/web.conf",
        "web: content: conf/web.conf changed, which it mounts",
    ),
    "config": Content(
        "conf/motd",
        "welcome",
        "goodbye",
        "cat /etc/motd",
        "web: content: conf/motd changed, which it mounts",
    ),
    "secret": Content(
        "licence.txt",
        "first-licence",
        "second-licence",
        "cat /run/secrets/licence",
        "web: content: licence.txt changed, which it mounts",
    ),
    "env file": Content(
        "web.env",
        "COLOUR=blue",
        "COLOUR=green",
        "env",
        "web: changed: environment.COLOUR: blue → green",
    ),
}


@pytest.mark.rotating(2)
@pytest.mark.parametrize("name", CONTENTS)
def test_changed_content_is_noticed_and_applied(shop: Shop, name: str) -> None:
    case = CONTENTS[name]
    assert case.old in shop.host.docker("exec", shop.id("web"), *case.inside.split()).splitlines()
    hashed = shop.by_hand("config", "--hash", "web")
    shop.put(case.path, f"{case.new}\n")

    done, seen = apply(shop)

    if name != "env file":
        assert shop.by_hand("config", "--hash", "web") == hashed, "Compose itself would notice"
    assert case.cause in done.out, done.out
    assert seen.touched == seen.recreated == {"web"}
    assert case.new in shop.host.docker("exec", shop.id("web"), *case.inside.split()).splitlines()
    if name == "secret":
        assert case.old not in done.out
        assert case.new not in done.out
    shop.assert_converged()


def test_a_local_tag_that_moved_is_noticed(shop: Shop) -> None:
    shop.host.docker("tag", "lab/box:1", "shop/side:stable")
    shop.services["side"]["image"] = "shop/side:stable"
    shop.deploy()
    shop.assert_converged()
    old, new = (
        shop.host.docker("image", "inspect", "-f", "{{.Id}}", ref)
        for ref in ("lab/box:1", "lab/box:2")
    )
    shop.host.docker("tag", "lab/box:2", "shop/side:stable")

    done, seen = apply(shop)

    short = [identity.removeprefix("sha256:")[:12] for identity in (old, new)]
    assert f"side: image: image shop/side:stable: {short[0]} → {short[1]}" in done.out, done.out
    assert seen.touched == seen.recreated == {"side"}
    assert shop.container("side")["Image"] == new
    shop.assert_converged()


# How every command that reaches the host, or a docker client there, looks in its process list.
LOGGED_SHELL = """#!/bin/bash
printf '%s\\n' "$*" >> /run/argv
exec /bin/bash "$@"
"""
LOGGED_DOCKER = """#!/bin/bash
printf 'docker %s\\n' "$*" >> /run/argv
exec /usr/bin/docker "$@"
"""


def test_a_secret_is_nowhere_to_be_seen(shop: Shop) -> None:
    old = {"PIN": "zebra-4711", "DB_PASSWORD": "old-hunter-22", "url": "old-pw-in-url"}
    new = {"PIN": "gnu-0815", "DB_PASSWORD": "new-hunter-33", "url": "new-pw-in-url"}
    shop.host.put("/usr/local/bin/logged-shell", LOGGED_SHELL, mode="0755")
    shop.host.put("/usr/local/bin/docker", LOGGED_DOCKER, mode="0755")
    shop.host.sh(
        "touch /run/argv; chmod 666 /run/argv; usermod -s /usr/local/bin/logged-shell root"
    )
    said = []

    def want(values: dict[str, str]) -> None:
        # A name that tells of nothing, a name that tells, and a password inside a URL.
        shop.secret_env["PIN"] = values["PIN"]
        shop.settings["env"] = {"DB_PASSWORD": values["DB_PASSWORD"], "URL_PART": values["url"]}
        shop.services["web"]["environment"].update(
            ACCESS="${PIN}",
            DB_PASSWORD="${DB_PASSWORD}",
            DATABASE="postgres://app:${URL_PART}@redis/db",
        )

    want(old)
    said.append(shop.deploy().out)
    want(new)
    for arguments in (["--dry"], ["-y"]):
        done = shop.run(*arguments)
        assert done.rc == 0, done.out
        for field in ("ACCESS", "DB_PASSWORD"):
            assert f"environment.{field}: (redacted) → (redacted)" in done.out, done.out
        said.append(done.out)
    shop.host.docker("stop", shop.id("web"))
    said.append(shop.run("-y", "-vvv").out)
    del shop.secret_env["PIN"]
    del shop.services["web"]["environment"]["ACCESS"]
    done = shop.run("-y")
    assert "environment.ACCESS: (redacted) → (none)" in done.out, done.out
    said.append(done.out)

    # It arrived, and only where it should.
    assert f"DB_PASSWORD={new['DB_PASSWORD']}" in shop.container("web")["Config"]["Env"]
    assert shop.host.sh(f"stat -c %a {shop.home}/.env") == "600"
    argv = shop.host.read("/run/argv").decode()
    assert "docker compose" in argv
    places = {f"output {number}": text for number, text in enumerate(said)}
    places["argv"] = argv
    places["journal"] = shop.host.read("/var/lib/stackmend/journal.jsonl").decode()
    for path in shop.reports.iterdir():
        places[path.name] = path.read_text()
    leaks = {
        (where, value)
        for where, text in places.items()
        for value in (*old.values(), *new.values())
        if value in text
    }
    assert not leaks
    open_to_all = shop.host.sh(
        f"grep -rlE '{'|'.join([*old.values(), *new.values()])}' "
        "/opt /var/lib/stackmend /tmp /var/tmp /dev/shm /root /home | xargs stat -c '%a %n'"
    )
    assert all(line.startswith("600 ") for line in open_to_all.splitlines()), open_to_all
