"""What only looks like the project's is left as it is, and named where it stands in the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop
from tests.lab.standing import Standing
from tests.lab.untouched import untouched

COMPOSE = "com.docker.compose"
MARKER = "/precious"


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(tmp_path_factory.mktemp("foreign"), lab.take(1)[0])
    # Names that Compose gives otherwise than by the rule, and several containers of one service.
    shop.services["side"]["container_name"] = "till"
    shop.services["hands"] = {"image": "lab/box:1", "restart": "unless-stopped", "scale": 2}
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Iterator[Shop]:
    shop = standing.renew()
    yield shop
    names = shop.host.docker("ps", "-a", "--format", "{{.Names}}").split()
    foreign = [name for name in names if name.startswith("foreign-") or "set-aside" in name]
    if foreign:
        shop.host.docker("rm", "-f", *foreign)


def start(shop: Shop, name: str, image: str, *words: str) -> str:
    """Somebody's own container, with something in it that no image has."""
    id_ = shop.host.docker("run", "-d", "--name", name, *words, image)
    shop.host.docker("exec", name, "sh", "-c", f"echo {name} >{MARKER}")
    return id_


def snapshot(shop: Shop, service: str, tag: str, *changes: str) -> str:
    """An image of a container of ours: docker commit keeps all of Compose's labels."""
    words = [word for change in changes for word in ("--change", f"LABEL {COMPOSE}.{change}")]
    shop.host.docker("commit", "--pause=false", *words, shop.id(service), tag)
    return tag


def holds(shop: Shop, name: str) -> bool:
    """Whether a container still has what was written into it."""
    return shop.host.docker("exec", name, "cat", MARKER) == name.removesuffix("-set-aside")


def test_what_looks_like_ours_beside_a_well_stack_is_told_and_left_alone(shop: Shop) -> None:
    host = shop.host
    side = snapshot(shop, "side", "snap:side", "container-number=0")
    redis = snapshot(shop, "redis", "snap:redis")
    by_hand = [f"--label={COMPOSE}.project=shop", f"--label={COMPOSE}.service=redis"]
    elsewhere = snapshot(
        shop, "web", "snap:web", "project.working_dir=/opt/elsewhere", "container-number=2"
    )
    looks = {
        "foreign-debug": (side,),
        # It calls itself as Compose would call a third one, and goes when it is stopped.
        "shop-hands-3": (snapshot(shop, "hands", "snap:hands", "container-number=3"), "--rm"),
        "foreign-cache": (redis, "--network", "shop_default"),
        "foreign-labels": ("lab/redis:7", *by_hand),
        "foreign-elsewhere": (elsewhere,),
        "foreign-errand": (snapshot(shop, "hands", "snap:errand", "oneoff=True"),),
        "foreign-imageless": (snapshot(shop, "side", "snap:gone"),),
    }
    for name, (image, *words) in looks.items():
        start(shop, name, image, *words)
    host.docker("image", "rm", "-f", "snap:gone", "snap:web")
    before = host.identities()
    # Asked of a service, this is asked of its own container alone.
    here = {"kind": "exec", "service": "side", "command": ["test", "!", "-e", MARKER]}
    shop.settings["checks"] = [here]

    with shop.watching() as seen, untouched(host, shop.home):
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert shop.report()["outcome"] == "converged"
    assert seen.quiet, seen.events
    assert host.identities() == before
    for name in looks:
        assert holds(shop, name)
        assert f"container:{name} bears this project's labels and is foreign" in done.out, done.out
    host.docker("rm", "-f", *looks)


def test_nothing_foreign_is_lost_where_a_service_changes(shop: Shop) -> None:
    host = shop.host
    start(shop, "foreign-debug", snapshot(shop, "side", "snap:side"), "--rm")
    start(shop, "foreign-orphan", snapshot(shop, "hands", "snap:old", "service=retired"))
    # What a project's .env may tell Compose about whatever bears its labels.
    shop.settings["env"] = {"COMPOSE_REMOVE_ORPHANS": "1"}
    start(shop, "foreign-cache", snapshot(shop, "redis", "snap:redis"))
    before = host.identities()

    # web leans on redis, and Compose would take both redis along.
    shop.services["web"]["environment"]["GREETING"] = "good evening"
    with shop.watching() as seen, untouched(host):
        refused = shop.run("-y")

    assert refused.rc == 1, refused.out
    assert seen.quiet, seen.events
    (refusal,) = shop.report()["operations"][0]["refusals"]
    assert refusal["subject"] == "redis"
    assert "container:foreign-cache" in refusal["reason"]
    assert '"allow": ["container:foreign-cache"]' in refusal["remedy"]

    # The other one is in nobody's way.
    host.docker("rm", "-f", "foreign-cache")
    with shop.watching() as seen:
        done = shop.run("-y")

    assert done.rc == 0, done.out
    assert seen.recreated == {"web"}
    after = host.identities()
    assert {name for name in before if before[name] != after.get(name)} == {
        "shop-web-1",
        "foreign-cache",
    }
    assert holds(shop, "foreign-debug")
    assert holds(shop, "foreign-orphan")


def test_what_stands_in_the_way_is_kept_aside_with_consent_alone(shop: Shop) -> None:
    host = shop.host
    volume = "/anonymous"
    image = snapshot(shop, "side", "snap:side")
    looks = {"foreign-debug": (), "foreign-passing": ("--rm",)}
    for name, words in looks.items():
        start(shop, name, image, "-v", volume, *words)
        host.docker("exec", name, "sh", "-c", f"echo {name} >{volume}/it")
    host.docker("rm", "-f", "till")
    allow = [f"container:{name}" for name in looks]

    for allowed in ([], allow[:1], allow[1:]):
        shop.settings["allow"] = allowed
        with shop.watching() as seen:
            refused = shop.run("-y")
        assert refused.rc == 1, refused.out
        assert seen.quiet, seen.events
        for rule in set(allow) - set(allowed):
            assert f'"allow": ["{rule}"]' in refused.out
    shop.settings["allow"] = allow
    done = shop.run("-y")

    assert done.rc == 0, done.out
    summary = done.out.rpartition("stackmend: 1 host")[0].rpartition("Disconnecting")[2]
    for name in looks:
        aside = f"{name}-set-aside"
        assert f"undo: docker rename {aside} {name} && docker start {name}" in summary
        assert host.docker("ps", "-aq", "--filter", f"name=^{name}$") == ""
        assert host.inspect(aside)["State"]["Status"] == "created"
        host.docker("start", aside)
        assert holds(shop, aside)
        assert host.docker("exec", aside, "cat", f"{volume}/it") == name
    # What Compose does now does not touch them any more.
    shop.by_hand("up", "-d", "--force-recreate", "side")
    assert all(holds(shop, f"{name}-set-aside") for name in looks)
    shop.assert_converged()


def test_what_comes_while_a_run_is_at_work_is_not_taken_for_ours(shop: Shop) -> None:
    """Compose is asked in rounds: what it would choose from is looked at before each."""
    host = shop.host
    image = snapshot(shop, "web", "snap:web")
    before = host.identities()
    redis = before["shop-redis-1"][0]
    shop.services["redis"]["labels"]["team"] = "sales"
    shop.services["redis"]["healthcheck"] = {
        "test": ["CMD-SHELL", "test -f /go"],
        "interval": "500ms",
        "start_period": "25s",
    }
    shop.services["web"]["environment"]["GREETING"] = "good evening"
    with shop.start("-y") as run:
        host.wait_for(f"docker ps -q --filter name=shop-redis-1 --no-trunc | grep -v {redis}", 60)
        start(shop, "foreign-debug", image)
        host.docker("exec", "shop-redis-1", "touch", "/go")
        done = run.wait(timeout=120)

    assert done.rc == 1, done.out
    assert "cannot create web now: container:foreign-debug bears" in done.out, done.out
    assert holds(shop, "foreign-debug")
    # What was changed before is as it was.
    assert "rolled back" in done.out
    assert host.identities()["shop-web-1"] == before["shop-web-1"]
    assert host.inspect("shop-redis-1")["Config"]["Labels"]["team"] == "stock"
    host.docker("rm", "-f", "foreign-debug")


# Networks, volumes and images


def test_a_directory_of_another_project(host: LabHost, tmp_path: Path) -> None:
    """Each would overwrite the other's files."""
    shop = Shop(tmp_path, host)
    shop.deploy()
    file = host.read(f"{shop.home}/compose.yaml")
    shop.settings["project"] = "mall"
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert f"{shop.home} is the directory of the project shop, which runs here" in done.out
    assert "give this stack another directory" in done.out
    assert seen.quiet, seen.events
    assert host.read(f"{shop.home}/compose.yaml") == file


def test_networks_and_volumes_of_our_names_that_are_others(host: LabHost, tmp_path: Path) -> None:
    shop = Shop(tmp_path, host)
    labels = [f"--label={COMPOSE}.project=theirs", f"--label={COMPOSE}.volume=data"]
    host.docker("network", "create", "shop_default")
    host.docker("volume", "create", *labels, "shop_data")
    keep = "/var/lib/docker/volumes/shop_data/_data/theirs"
    host.sh(f"echo theirs >{keep}")
    theirs = host.docker("network", "inspect", "-f", "{{.Id}}", "shop_default")

    with shop.watching() as seen, untouched(host):
        refused = shop.run("-y")

    assert refused.rc == 1, refused.out
    assert seen.quiet, seen.events
    subjects = {one["subject"]: one for one in shop.report()["operations"][0]["refusals"]}
    assert subjects.keys() == {"network shop_default", "volume shop_data"}
    assert "Compose did not make it" in subjects["network shop_default"]["reason"]
    assert "as data of project theirs" in subjects["volume shop_data"]["reason"]
    assert "external: true" in subjects["volume shop_data"]["remedy"]

    # Declared as what it is, the one is used; the other one is somebody's no longer.
    shop.compose["volumes"] = {"data": {"external": True, "name": "shop_data"}}
    host.docker("network", "rm", theirs)
    done = shop.run("-y")

    assert done.rc == 0, done.out
    assert host.sh(f"cat {keep}") == "theirs"
    shop.assert_converged()


def test_a_network_that_is_to_change_is_not_taken_from_a_guest(shop: Shop) -> None:
    host = shop.host
    start(shop, "foreign-guest", "lab/box:2", "--network", "shop_default")
    shop.compose["networks"] = {"default": {"attachable": True}}
    before, network = host.identities(), host.docker("network", "inspect", "shop_default")

    with shop.watching() as seen, untouched(host):
        refused = shop.run("-y")

    assert refused.rc == 1, refused.out
    assert "container:foreign-guest is attached to it, and is foreign" in refused.out
    assert seen.quiet, seen.events
    assert host.identities() == before
    assert host.docker("network", "inspect", "shop_default") == network

    shop.settings["allow"] = ["container:foreign-guest"]
    done = shop.run("-y")

    assert done.rc == 0, done.out
    assert host.identities()["foreign-guest"] == before["foreign-guest"]
    assert json.loads(host.docker("network", "inspect", "shop_default"))[0]["Attachable"]
    shop.assert_well()


def test_images_of_our_names_that_are_not_ours_are_kept_and_not_run(shop: Shop) -> None:
    host = shop.host
    made = {"none": "lab/box:2", "other": snapshot(shop, "web", "snap:web")}
    theirs = {}
    for name, image in made.items():
        host.docker("tag", image, f"shop-{name}")
        theirs[name] = host.docker("image", "inspect", "-f", "{{.Id}}", f"shop-{name}")
        shop.services[name] = {"build": f"./{name}"}
        shop.put(f"{name}/Dockerfile", f"FROM lab/box:1\nRUN echo our {name} >/whose\n")

    done = shop.run("-y")

    assert done.rc == 0, done.out
    for name, id_ in theirs.items():
        assert f"image shop-{name} was not built for it" in done.out
        assert host.docker("exec", shop.id(name), "cat", "/whose") == f"our {name}"
        aside = f"shop-{name}:set-aside-{id_.removeprefix('sha256:')[:12]}"
        assert host.docker("image", "inspect", "-f", "{{.Id}}", aside) == id_
    shop.assert_converged()
