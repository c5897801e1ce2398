"""A bad new version: taken back, with the data of the old one intact and the reason shown."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import HEALTH, Shop, compose
from tests.lab.standing import Standing

PROGRAM = """
grep -q 42 /etc/web.conf || { echo the configuration is wrong; exit 4; }
echo mode is $MODE
[ "$MODE" != broken ] || exit 5
exec serve
"""


def base() -> dict[str, Any]:
    """The shop, with an anonymous volume and a program that looks at what it is given."""
    shop = compose()
    web = shop["services"]["web"]
    web["command"] = ["sh", "-c", PROGRAM.replace("$", "$$")]
    web["volumes"].append("/scratch")
    web["environment"]["MODE"] = "${MODE:-calm}"
    return shop


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(
        tmp_path_factory.mktemp("failures"),
        lab.take(1)[0],
        mend={"backoff": [0, 600]},
    )
    shop.compose = base()
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


@dataclass(frozen=True)
class Bad:
    """A version that cannot work.

    + change: makes it of the good one
    + touched: the services that may be touched on the way there and back
    + said: what the terminal must say of it, as a regular expression
    + log: a line that the failing container wrote; empty where it never ran
    """

    change: Callable[[Shop], Any]
    touched: frozenset[str]
    said: str
    log: str = ""


def says(text: str, code: int) -> list[str]:
    return ["sh", "-c", f"echo {text}; exit {code}"]


def crashes(shop: Shop) -> None:
    shop.services["web"].update(image="lab/box:2", command=says("cannot open the vault", 3))


def never_healthy(shop: Shop) -> None:
    shop.settings["health_timeout"] = 8
    shop.services["web"].update(
        image="lab/box:2",
        command=["sh", "-c", "echo waiting for the moon; exec serve"],
        healthcheck={**HEALTH, "test": ["CMD-SHELL", "echo no moon; exit 1"], "start_period": "0s"},
    )


def dependency_crashes(shop: Shop) -> None:
    shop.services["redis"]["command"] = says("disk is on fire", 7)


def new_service_crashes(shop: Shop) -> None:
    shop.services["extra"] = {
        "image": "lab/box:1",
        "restart": "unless-stopped",
        "command": says("extra gives up", 9),
    }


def one_shot_fails(shop: Shop) -> None:
    shop.services["migrate"] = {"image": "lab/box:1", "command": says("no such table", 2)}
    shop.services["web"]["environment"]["GREETING"] = "after the migration"
    shop.services["web"]["depends_on"]["migrate"] = {"condition": "service_completed_successfully"}


def no_such_program(shop: Shop) -> None:
    shop.services["web"]["command"] = ["/no/such/program"]


def port_is_taken(shop: Shop) -> None:
    shop.services["web"]["ports"] = ["22:80"]


def configuration_is_wrong(shop: Shop) -> None:
    shop.put("conf/web.conf", "answer = 41\n")


def variable_is_wrong(shop: Shop) -> None:
    shop.settings["env"] = {"MODE": "broken"}


def another_service_is_dropped(shop: Shop) -> None:
    del shop.services["side"]
    crashes(shop)


VERSIONS = {
    "crashes": Bad(
        crashes,
        frozenset({"web"}),
        r"web: restarted .+, exit code 3",
        "cannot open the vault",
    ),
    "never-healthy": Bad(
        never_healthy, frozenset({"web"}), "not healthy after 8 s: web: ", "waiting for the moon"
    ),
    "dependency-crashes": Bad(
        dependency_crashes,
        frozenset({"redis"}),
        r"redis: restarted .+, exit code 7",
        "disk is on fire",
    ),
    "new-service-crashes": Bad(
        new_service_crashes,
        frozenset({"extra"}),
        r"extra: restarted .+, exit code 9",
        "extra gives up",
    ),
    "one-shot-before-it-fails": Bad(
        one_shot_fails,
        frozenset({"web", "migrate"}),
        "migrate: exited with code 2",
        "no such table",
    ),
    "no-such-program": Bad(no_such_program, frozenset({"web"}), "/no/such/program"),
    "port-is-taken": Bad(port_is_taken, frozenset({"web"}), "address already in use"),
    "mounted-configuration": Bad(
        configuration_is_wrong,
        frozenset({"web"}),
        r"web: restarted .+, exit code 4",
        "the configuration is wrong",
    ),
    "variable": Bad(
        variable_is_wrong,
        frozenset({"web"}),
        r"web: restarted .+, exit code 5",
        "mode is broken",
    ),
    "drops-another-service": Bad(
        another_service_is_dropped,
        frozenset({"web", "side"}),
        r"web: restarted .+, exit code 3",
        "cannot open the vault",
    ),
}


def fill(shop: Shop) -> None:
    """Put something into the named volume and into the anonymous one."""
    shop.host.docker("exec", shop.id("redis"), "redis-cli", "set", "precious", "one")
    shop.host.docker("exec", shop.id("web"), "sh", "-c", "echo two > /scratch/note")


def assert_data(shop: Shop) -> None:
    assert shop.host.docker("exec", shop.id("redis"), "redis-cli", "get", "precious") == "one"
    assert shop.host.docker("exec", shop.id("web"), "cat", "/scratch/note") == "two"


def files(shop: Shop) -> dict[str, tuple[str, str]]:
    """The project's files on the host: mode and content digest."""
    listed = shop.host.sh(
        f"cd {shop.home} && find . -type f -printf '%m ' -exec sha256sum {{}} ';' | sort"
    )
    rows = (line.split(maxsplit=2) for line in listed.splitlines())
    return {path: (mode, digest) for mode, digest, path in rows}


def images(shop: Shop) -> dict[str, str]:
    return {
        service: entries[0]["Image"]
        for service, entries in shop.host.containers(shop.project).items()
    }


@pytest.mark.rotating(4)
@pytest.mark.parametrize("version", VERSIONS)
def test_bad_version_is_rolled_back(shop: Shop, version: str) -> None:
    bad = VERSIONS[version]
    good = copy.deepcopy(shop.compose)
    fill(shop)
    files_before, images_before = files(shop), images(shop)
    volumes = shop.host.docker("volume", "ls", "-q")
    bad.change(shop)
    with shop.watching() as seen:
        done = shop.run("-y")
    shop.compose = good
    assert done.rc == 1, done.out
    assert re.search(bad.said, done.out), done.out
    assert "rolled back" in done.out
    assert images(shop) == images_before
    assert files(shop) == files_before
    assert seen.touched <= bad.touched, seen.touched
    shop.assert_well()
    assert_data(shop)
    assert set(volumes.split()) <= set(shop.host.docker("volume", "ls", "-q").split())
    report = shop.report()
    assert report["outcome"] == "failed"
    errors = report["operations"][0]["errors"]
    assert re.search(bad.said, errors[0]["message"])
    if bad.log:
        assert bad.log in done.out
        assert any(bad.log in line for line in errors[0]["log"])


def test_what_was_rolled_back_is_not_tried_for_ever(shop: Shop) -> None:
    good = copy.deepcopy(shop.services["web"])
    crashes(shop)
    assert shop.run("-y").rc == 1
    # The second run is within the pause: it fails, says why, and touches nothing.
    with shop.watching() as seen:
        second = shop.run("-y")
    assert second.rc == 1, second.out
    assert "rolled back; they are tried again in" in second.out
    assert seen.quiet, seen.events
    dry = shop.run("--dry")
    assert "rolled back; they are tried again in" in dry.out
    # What breaks meanwhile is mended, as the files before declare it.
    shop.host.docker("rm", "-f", shop.id("side"))
    web = shop.id("web")
    third = shop.run("-y")
    assert third.rc == 1, third.out
    assert shop.id("web") == web
    assert shop.health()["side"] == "running"
    # Once the pause is over it is tried again, as often as the limit allows, then left alone.
    shop.settings["mend"] = {"backoff": [0], "attempts": 2}
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 1, again.out
    assert "cannot open the vault" in again.out
    assert seen.recreated == {"web"}
    with shop.watching() as seen:
        over = shop.run("-y")
    assert over.rc == 1, over.out
    assert "applied 2 times" in over.out
    assert "left alone until they change" in over.out
    assert seen.quiet, seen.events
    # The version before is proven again, whatever the other one had brought.
    extra = shop.source / "conf/extra"
    shop.put("conf/extra", "1\n")
    assert shop.run("-y").rc == 1
    shop.services["web"] = good
    extra.unlink()
    shop.host.docker("stop", shop.id("side"))
    back = shop.run("-y")
    assert back.rc == 0, back.out
    shop.assert_converged()
    # Another version is another matter.
    shop.services["web"] = {**good, "image": "lab/box:2"}
    fixed = shop.run("-y")
    assert fixed.rc == 0, fixed.out
    assert shop.page() == "box 2"


def test_kept_for_a_look_where_the_policy_says_so(shop: Shop) -> None:
    fill(shop)
    good = copy.deepcopy(shop.services["web"])
    before = images(shop)["web"]
    shop.settings["on_failure"] = "keep"
    crashes(shop)
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "cannot open the vault" in done.out
    assert "rolled back" not in done.out
    assert images(shop)["web"] != before
    assert "cannot open the vault" in shop.host.docker("logs", shop.id("web"))
    assert b"cannot open the vault" in shop.host.read(f"{shop.home}/compose.yaml")
    shop.services["web"] = {**good, "image": "lab/box:2"}
    fixed = shop.run("-y")
    assert fixed.rc == 0, fixed.out
    shop.assert_well()
    assert_data(shop)
    assert shop.page() == "box 2"


def test_built_image_is_rolled_back(shop: Shop) -> None:
    context = shop.source / "image"
    context.mkdir()
    shop.services["web"].pop("image")
    shop.services["web"]["build"] = "./image"
    (context / "Dockerfile").write_text("FROM lab/box:1\nRUN echo built one > /www/index.html\n")
    shop.deploy()
    assert shop.page() == "built one"
    tagged = shop.host.docker("image", "inspect", "-f", "{{.Id}}", "shop-web")
    files_before, images_before = files(shop), images(shop)
    (context / "Dockerfile").write_text(
        "FROM lab/box:1\nRUN printf '#!/bin/sh\\necho built badly\\nexit 6\\n' > /bin/serve\n"
    )
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert re.search(r"web: restarted .+, exit code 6", done.out), done.out
    assert "built badly" in done.out
    assert images(shop) == images_before
    assert files(shop) == files_before
    assert shop.host.docker("image", "inspect", "-f", "{{.Id}}", "shop-web") == tagged
    assert shop.page() == "built one"
    (context / "Dockerfile").write_text("FROM lab/box:1\nRUN echo built two > /www/index.html\n")
    fixed = shop.run("-y")
    assert fixed.rc == 0, fixed.out
    assert shop.page() == "built two"


def test_first_version_is_bad(host: LabHost, tmp_path: Path) -> None:
    """There is nothing to go back to: what is there stays to be looked at."""
    shop = Shop(tmp_path, host)
    good = copy.deepcopy(shop.services["web"])
    crashes(shop)
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert re.search(r"web: restarted .+, exit code 3", done.out), done.out
    assert "cannot open the vault" in done.out
    assert shop.report()["outcome"] == "failed"
    assert not host.exists("/var/lib/stackmend/shop/applied.json")
    redis = shop.id("redis")
    shop.services["web"] = good
    fixed = shop.run("-y")
    assert fixed.rc == 0, fixed.out
    shop.assert_well()
    assert shop.id("redis") == redis
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert seen.quiet, seen.events
