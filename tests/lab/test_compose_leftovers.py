"""A recreation that was cut short: one right container in each place, under its own name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.fixtures import Lab
from tests.lab.stacks import Shop
from tests.lab.standing import Standing

LABEL = "com.docker.compose."
NAMES = {"shop-redis-1", "shop-side-1", "shop-side-2", "shop-web-1"}
# In brackets, so that the command that looks for it does not find itself.
COMPOSE = "pgrep -f 'compos[e].* -p shop '"
PASSING = "docker ps -a --format '{{.Names}}' | grep -c '_shop-side-' | grep -qx 2"


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(
        tmp_path_factory.mktemp("leftovers"),
        lab.take(1)[0],
        mend={"attempts": 100, "backoff": [0]},
    )
    # They take their time to end, so that their replacements wait beside them.
    command = "trap 'sleep 2; exit 0' TERM; sleep 9999 & wait"
    shop.services["side"] |= {"command": ["sh", "-c", command], "deploy": {"replicas": 2}}
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def names(shop: Shop) -> set[str]:
    return set(shop.host.docker("ps", "-a", "--format", "{{.Names}}").split())


def interrupt(shop: Shop) -> tuple[list[str], list[str]]:
    """Compose is killed while it replaces both replicas; the old ones and the new ones."""
    before = [shop.id("side", number) for number in (1, 2)]
    shop.host.sh(
        f"cd {shop.home} && (docker compose -p shop up -d --no-deps --force-recreate side "
        ">/dev/null 2>&1 &)"
    )
    shop.host.wait_for(PASSING)
    shop.host.sh(f"kill -9 $({COMPOSE})")
    new = [
        shop.host.docker("ps", "-aq", "--no-trunc", "-f", f"name=_shop-side-{number}$")
        for number in (1, 2)
    ]
    return before, new


def put_twin(shop: Shop, like: str) -> str:
    """A container with the right name and Compose's labels, that is not as declared."""
    labels = shop.host.inspect(like)["Config"]["Labels"]
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    return shop.host.docker(
        *("create", "--name", "shop-side-1", "--network", "shop_default", *words),
        *("lab/box:1", "sleep", "4321"),
    )


def stopping(shop: Shop) -> None:
    """The replacements were made; the old ones run, or were just stopped."""
    interrupt(shop)


def ended(shop: Shop) -> None:
    """The old ones have ended, and nobody removed them."""
    before, _ = interrupt(shop)
    shop.host.docker("stop", "-t", "0", *before)


def nameless(shop: Shop) -> None:
    """The old ones are gone, and the new ones have not got their names."""
    before, _ = interrupt(shop)
    shop.host.docker("rm", "-f", *before)


def half_nameless_and_running(shop: Shop) -> None:
    """The same of one of two, which somebody started as it is."""
    before, new = interrupt(shop)
    shop.host.docker("rm", "-f", before[0])
    shop.host.docker("start", new[0])


def exited_beside_a_running_twin(shop: Shop) -> None:
    """The new one ran and ended; a wrong one has its name, and runs."""
    before, new = interrupt(shop)
    shop.host.docker("rm", "-f", *before)
    shop.host.docker("start", *new)
    shop.host.docker("stop", "-t", "0", *new)
    shop.host.docker("start", put_twin(shop, new[0]))


def exited_beside_a_created_twin(shop: Shop) -> None:
    """The new one ran and ended; a wrong one has its name, and was never started."""
    before, new = interrupt(shop)
    shop.host.docker("rm", "-f", *before)
    shop.host.docker("start", *new)
    shop.host.docker("stop", "-t", "0", *new)
    put_twin(shop, new[0])


STATES: tuple[Callable[[Shop], None], ...] = (
    stopping,
    ended,
    nameless,
    half_nameless_and_running,
    exited_beside_a_running_twin,
    exited_beside_a_created_twin,
)


def assert_right(shop: Shop, image: str = "lab/box:1") -> None:
    """One run has made it right: the names, what runs under them, and nothing left to do."""
    assert names(shop) == NAMES
    for number in (1, 2):
        side = shop.container("side", number)
        assert side["Name"] == f"/shop-side-{number}"
        assert side["State"]["Status"] == "running"
        assert side["Config"]["Cmd"][0] == "sh"
        assert side["Config"]["Image"] == image
    with shop.watching() as seen:
        again = shop.run("-y")
    assert (again.rc, seen.quiet) == (0, True), again.out
    # Compose itself finds what it looks for.
    with shop.watching() as seen:
        shop.by_hand("up", "-d", "--no-recreate")
    assert seen.quiet, seen.events


@pytest.mark.rotating(3)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_one_container_is_left_in_each_place(shop: Shop, state: Callable[[Shop], None]) -> None:
    state(shop)
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "side: leftover: an interrupted recreation left" in done.out
    assert seen.touched == {"side"}, seen.events
    assert_right(shop)


def test_a_new_version_over_what_was_left(shop: Shop) -> None:
    before, _ = interrupt(shop)
    shop.host.docker("rm", "-f", before[1])
    shop.services["side"]["image"] = "lab/box:2"
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert_right(shop, "lab/box:2")


def test_a_foreign_container_that_has_the_name_is_refused_and_kept(shop: Shop) -> None:
    before, _ = interrupt(shop)
    shop.host.docker("rm", "-f", *before)
    theirs = shop.host.docker("run", "-d", "--name", "shop-side-2", "lab/box:2")
    with shop.watching() as seen:
        refused = shop.run("-y")
    assert refused.rc != 0
    assert seen.quiet, seen.events
    (operation,) = shop.report()["operations"]
    (refusal,) = operation["refusals"]
    assert "a container that no project owns holds its name shop-side-2" in refusal["reason"]
    assert '"allow": ["container:shop-side-2"]' in refusal["remedy"]

    shop.host.docker("rename", theirs, "theirs")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.host.inspect(theirs)["State"]["Status"] == "running"
    shop.host.docker("rm", "-f", theirs)
    assert_right(shop)


def test_what_it_alone_keeps_in_a_volume_is_left_behind_with_consent_alone(shop: Shop) -> None:
    before, new = interrupt(shop)
    shop.host.docker("stop", "-t", "0", *before)
    labels = shop.host.inspect(new[0])["Config"]["Labels"]
    name = shop.host.inspect(new[0])["Name"].removeprefix("/")
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    shop.host.docker("rm", "-f", new[0])
    shop.host.docker("run", "-d", "--name", name, *words, "-v", "/data", "lab/box:1", "sleep", "99")
    shop.host.docker("stop", "-t", "0", name)
    with shop.watching() as seen:
        refused = shop.run("-y")
    assert refused.rc != 0
    assert seen.quiet, seen.events
    assert '"allow": ["volume:side:/data"]' in refused.out

    volumes = set(shop.host.docker("volume", "ls", "-q").split())
    shop.settings["allow"] = ["volume:side:/data"]
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert set(shop.host.docker("volume", "ls", "-q").split()) == volumes
    assert_right(shop)


@pytest.mark.parametrize("moment", ["replacing", "starting"])
def test_killed_with_its_compose_while_it_replaces_replicas(shop: Shop, moment: str) -> None:
    """As where the machine goes down with the run: nothing of ours is left to end its work."""
    when = PASSING if moment == "replacing" else "pgrep -f 'compos[e].* up --detach'"
    shop.services["side"]["image"] = "lab/box:2"
    with shop.start("-y") as run:
        shop.host.wait_for(when, 60)
        run.kill()
        shop.host.sh(f"kill -9 $({COMPOSE})", check=False)
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert_right(shop, "lab/box:2")
