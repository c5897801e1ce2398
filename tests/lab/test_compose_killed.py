"""The controller dies at any moment of an apply: the next run converges, and nothing is left."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.controller import Controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop
from tests.lab.standing import Standing

MEMORY = "/var/lib/stackmend/shop"
# In brackets, so that the command that looks for it does not find itself.
COMPOSE_UP = "pgrep -f 'compos[e].* up --detach'"
COMPOSE_CREATE = "pgrep -f 'compos[e].* create '"
COMPOSE_BUILD = "pgrep -f 'compos[e].* build '"
COMPOSE_CONFIG = "pgrep -f 'compos[e].* config --format'"


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(tmp_path_factory.mktemp("killed"), lab.take(1)[0], stability=3, health_timeout=20)
    # It takes its time to end, so that its replacement waits beside it.
    shop.services["web"]["command"] = [
        "sh",
        "-c",
        "trap 'sleep 2; exit 0' TERM; httpd -f -p 80 -h /www & wait",
    ]
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


#: What puts files in place, whichever of them a host has.
RENAMES = ("mv", "python3", "perl", "ln")


@dataclass(frozen=True)
class Moment:
    """A moment of an apply.

    + when: a condition that holds on the host then, or with ``output`` what has been printed
    + slow: tools of the host that take a second longer, so that the moment lasts
    + change: what the new version has beside another image and another mounted file
    """

    when: str = ""
    output: str = ""
    slow: tuple[str, ...] = ()
    change: Callable[[Shop], Any] = lambda shop: None


def builds(shop: Shop) -> None:
    del shop.services["side"]["image"]
    shop.services["side"]["build"] = "./image"
    shop.put("image/Dockerfile", "FROM lab/box:1\nRUN sleep 3\n")


def turns_healthy_late(shop: Shop) -> None:
    shop.services["web"]["healthcheck"]["test"] = ["CMD-SHELL", "sleep 4"]


MOMENTS = {
    "connected": Moment(output="Connected"),
    "looking": Moment(output="Starting operation"),
    "resolving": Moment(COMPOSE_CONFIG, slow=("docker",)),
    "locked": Moment("[ -s /var/lib/stackmend/run.lock ]"),
    "staging": Moment(f"[ -d {MEMORY}/staged.new ]", slow=("sync",)),
    "building": Moment(COMPOSE_BUILD, change=builds),
    "installing": Moment("ls -A /opt/shop | grep -q '^[.]stackmend[.]'", slow=RENAMES),
    "half-installed": Moment("grep -q lab/box:2 /opt/shop/compose.yaml", slow=RENAMES),
    "replacing": Moment("docker ps -a --format '{{.Names}}' | grep -q '_shop-web-1$'"),
    "starting": Moment(
        "docker ps --filter ancestor=lab/box:2 --format '{{.Names}}' | grep -q '^shop-web-1$'"
    ),
    "waiting-for-health": Moment(
        "docker ps --filter ancestor=lab/box:2 --filter health=starting -q | grep -q .",
        change=turns_healthy_late,
    ),
    "stable-so-far": Moment(
        "docker ps --filter ancestor=lab/box:2 --filter health=healthy -q | grep -q ."
    ),
    "recording": Moment(f"[ -d {MEMORY}/record.new ]", slow=("mv",)),
}


@contextlib.contextmanager
def slowed(host: LabHost, tools: tuple[str, ...]) -> Iterator[None]:
    """Tools of the host take a second longer within the block."""
    for tool in tools:
        real = host.sh(f"PATH=/usr/bin:/bin command -v {tool} || true")
        if not real:
            continue
        host.put(f"/usr/local/bin/{tool}", f'#!/bin/sh\nsleep 1\nexec {real} "$@"\n', "0755")
    try:
        yield
    finally:
        for tool in tools:
            host.sh(f"rm -f /usr/local/bin/{tool}")


def kill_when(run: Controller, host: LabHost, moment: Moment) -> None:
    if moment.output:
        assert run.wait_for_output(moment.output), run.output()
    else:
        host.wait_for(moment.when, 60)
    assert run.process.poll() is None, f"it ended before its moment:\n{run.output()}"
    run.kill()


def new_version(shop: Shop) -> None:
    shop.services["web"]["image"] = "lab/box:2"
    shop.put("conf/web.conf", "answer = 43\n")


def assert_nothing_is_left(shop: Shop) -> None:
    """No lock that is held, no container too many, none of the files that are only on the way."""
    host = shop.host
    names = set(host.docker("ps", "-a", "--format", "{{.Names}}").split())
    assert names == {f"shop-{service}-1" for service in shop.services}
    assert host.sh("flock -n /var/lib/stackmend/run.lock echo free") == "free"
    assert host.sh("ls -A /opt/shop | grep stackmend", check=False) == ""
    assert host.sh("find /opt/shop -name '.stackmend*'") == ""
    assert host.sh("ls -d /dev/shm/stackmend.* /tmp/stackmend.* 2>/dev/null", check=False) == ""
    assert host.sh(f"ls -A {MEMORY} | grep -E 'staged|\\.new'", check=False) == ""


def assert_converges(shop: Shop, page: str) -> None:
    """One run brings it to the new version, and one more finds nothing to do."""
    done = shop.run("-y")
    assert done.rc == 0, done.out
    shop.assert_well()
    assert shop.page() == page
    answer = shop.host.docker("exec", shop.id("web"), "cat", "/etc/web.conf")
    assert answer == (shop.source / "conf/web.conf").read_text().strip()
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert seen.quiet, seen.events
    assert "1 converged" in again.out
    assert_nothing_is_left(shop)


@pytest.mark.rotating(4)
@pytest.mark.parametrize("name", MOMENTS)
def test_killed_while(shop: Shop, name: str) -> None:
    moment = MOMENTS[name]
    shop.host.docker("exec", shop.id("redis"), "redis-cli", "set", "precious", "one")
    new_version(shop)
    moment.change(shop)
    with slowed(shop.host, moment.slow), shop.start("-y") as run:
        kill_when(run, shop.host, moment)
    assert_converges(shop, "box 2")
    assert shop.host.docker("exec", shop.id("redis"), "redis-cli", "get", "precious") == "one"


def test_killed_while_deploying_for_the_first_time(lab: Lab, shop: Shop) -> None:
    shop.host.reset()
    with shop.start("-y") as run:
        kill_when(run, shop.host, Moment(COMPOSE_UP))
    assert_converges(shop, "box 1")


def test_a_command_that_outlives_its_controller_is_waited_for(shop: Shop) -> None:
    """Two runs never change the project at once, though the lock of the first died with it."""
    # The one that is replaced ends slowly enough for the second run to come to the same step.
    stubborn = ["sh", "-c", "trap 'sleep 15; exit' TERM; sleep 1000 & wait"]
    shop.services["side"].update(command=stubborn, stop_grace_period="30s")
    shop.deploy()
    shop.services["side"]["environment"] = {"NEW": "yes"}
    real = shop.host.sh("PATH=/usr/bin:/bin command -v docker")
    shop.host.put(
        "/usr/local/bin/docker",
        "#!/bin/sh\n"
        'case " $* " in\n'
        '  *" build "*|*" create "*|*" up "*) ;;\n'
        f'  *) exec {real} "$@" ;;\n'
        "esac\n"
        'echo "begin $$" >>/tmp/doings\n'
        f'{real} "$@"\n'
        "status=$?\n"
        'echo "end $$" >>/tmp/doings\n'
        "exit $status\n",
        "0755",
    )
    try:
        with shop.start("-y") as run:
            kill_when(run, shop.host, Moment("docker ps -aq --filter name=_shop-side-1$ | grep ."))
        assert shop.host.sh(f"{COMPOSE_CREATE} >/dev/null && echo goes on") == "goes on"
        done = shop.run("-y")
    finally:
        shop.host.sh("rm -f /usr/local/bin/docker")
    assert done.rc == 0, done.out
    doings = [line.split() for line in shop.host.sh("cat /tmp/doings").splitlines()]
    shop.host.sh("rm /tmp/doings")
    assert len(doings) >= 4, doings
    for begun, ended in zip(doings[::2], doings[1::2], strict=True):
        assert (begun[0], ended[0]) == ("begin", "end"), doings
        assert begun[1] == ended[1], doings


def bad_version(shop: Shop) -> None:
    new_version(shop)
    shop.services["web"]["command"] = ["sh", "-c", "echo no way; exit 3"]


ROLLING_BACK = {
    "it-begins": Moment(output="rolling back to what was proven"),
    "files-are-put-back": Moment(f"[ -d {MEMORY}/replaced/failed ]", slow=RENAMES),
    "services-are-put-back": Moment(f"{COMPOSE_UP} && grep -q lab/box:1 /opt/shop/compose.yaml"),
}


@pytest.mark.parametrize("name", ROLLING_BACK)
def test_killed_while_rolling_back(shop: Shop, name: str) -> None:
    moment = ROLLING_BACK[name]
    good = copy.deepcopy(shop.compose)
    bad_version(shop)
    with shop.start("-y") as run:
        if moment.slow:
            assert run.wait_for_output("rolling back to what was proven"), run.output()
        with slowed(shop.host, moment.slow):
            kill_when(run, shop.host, moment)
    # The same bad version again: it ends on what was proven before, and says why.
    shop.settings["mend"] = {"backoff": [0, 600]}
    done = shop.run("-y")
    assert done.rc == 1, done.out
    bad, shop.compose = shop.compose, good
    shop.assert_well()
    assert shop.page() == "box 1"
    assert b"lab/box:2" not in shop.host.read("/opt/shop/compose.yaml")
    assert shop.host.read("/opt/shop/conf/web.conf") == b"answer = 42\n"
    # The version that mends it goes through.
    shop.compose = bad
    shop.services["web"]["command"] = good["services"]["web"]["command"]
    assert_converges(shop, "box 2")


def test_killed_between_the_files_and_the_services_of_a_rollback(shop: Shop) -> None:
    """Nothing that the engine shows differs then: only a mounted file's content did."""
    test = ["CMD-SHELL", "grep -q 'answer = 4' /etc/web.conf"]
    shop.services["web"]["healthcheck"]["test"] = test
    shop.settings["health_timeout"] = 6
    shop.deploy()
    shop.put("conf/web.conf", "answer = 13\n")
    back = Moment("grep -q 'answer = 42' /opt/shop/conf/web.conf")
    with shop.start("-y") as run:
        assert run.wait_for_output("rolling back to what was proven"), run.output()
        with slowed(shop.host, ("sync",)):
            kill_when(run, shop.host, back)
            shop.host.wait_for("! pgrep -x sync")
    assert shop.host.docker("exec", shop.id("web"), "cat", "/etc/web.conf") == "answer = 13"
    # Its owner, too, takes the bad version back before the next run.
    shop.put("conf/web.conf", "answer = 42\n")
    assert_converges(shop, "box 1")
