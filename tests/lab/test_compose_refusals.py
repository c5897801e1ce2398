"""What cannot be done is said with its reason and the way out, and what runs is left as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stackmend.connectivity.faults import TITLES
from stackmend.retries import ATTEMPTS
from tests.lab import controller
from tests.lab.controller import Run
from tests.lab.engine_runs import Runs
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.registry import Registry
from tests.lab.stacks import EVERYWHERE, Shop
from tests.lab.standing import Standing

#: Where the project's own files and its memory lie.
OURS = ("/opt", "/var/lib/stackmend", "/dev/shm", "/tmp")


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(tmp_path_factory.mktemp("refusals"), lab.take(1)[0])
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def files(host: LabHost, *paths: str) -> dict[str, str]:
    """What lies there, without the engine's own passing files and the times of shared memory."""
    return {
        path: shown
        for path, shown in host.snapshot_files(*paths).items()
        if path not in ("/dev/shm", "/tmp") and not path.startswith("/tmp/runc-process")
    }


@dataclass
class Untouched:
    """A run that may change nothing, and what it said."""

    shop: Shop

    def __call__(self, *, rc: int = 1) -> Run:
        host = self.shop.host
        deployed = host.snapshot_files(self.shop.home)
        with self.shop.watching() as seen:
            done = self.shop.run("-y")
        assert done.rc == rc, done.out
        assert "Traceback" not in done.out
        assert seen.before == seen.after
        assert seen.quiet or seen.kinds() <= {"image", "builder"}, seen.events
        assert host.snapshot_files(self.shop.home) == deployed
        return done

    def errors(self) -> list[str]:
        """What the record of the run calls errors."""
        return [
            error["message"]
            for operation in self.shop.report()["operations"]
            for error in operation["errors"]
        ]


@pytest.fixture
def untouched(shop: Shop) -> Untouched:
    return Untouched(shop)


# Data that would be left behind


def test_an_anonymous_volume_is_left_behind_with_consent_alone(
    shop: Shop, untouched: Untouched
) -> None:
    shop.services["side"]["volumes"] = ["/keep"]
    shop.deploy()
    host = shop.host
    host.docker("exec", shop.id("side"), "sh", "-c", "echo precious >/keep/it")
    (volume,) = (mount["Name"] for mount in shop.container("side")["Mounts"])
    del shop.services["side"]["volumes"]

    done = untouched()

    assert "keeps data in an anonymous volume at /keep" in done.out
    assert '"allow": ["volume:side:/keep"]' in done.out
    shop.settings["allow"] = ["volume:side:/keep"]
    again = shop.run("-y")
    assert again.rc == 0, again.out
    assert shop.container("side")["Mounts"] == []
    assert host.sh(f"cat /var/lib/docker/volumes/{volume}/_data/it") == "precious"


def test_what_only_the_built_image_shows_is_found_before_anything_stops(
    shop: Shop, untouched: Untouched
) -> None:
    side = shop.services["side"]
    side.pop("image")
    side["build"] = "./side"
    shop.put("side/Dockerfile", "FROM lab/box:1\nVOLUME /keep\n")
    shop.deploy()
    image = shop.container("side")["Image"]
    shop.put("side/Dockerfile", "FROM lab/box:1\n")

    done = untouched()

    assert "keeps data in an anonymous volume at /keep" in done.out
    assert shop.host.docker("image", "inspect", "-f", "{{.Id}}", "shop-side") == image


# A compose file, an image or a build that cannot be

SEMANTICS: dict[str, tuple[Callable[[Shop], Any], str]] = {
    # One in the compose file alone is refused before contact.
    "network-not-declared-by-an-override": (
        lambda shop: shop.put("compose.override.yaml", "services: {web: {networks: [nowhere]}}\n"),
        "undefined network",
    ),
    "volume-not-declared-by-an-override": (
        lambda shop: shop.put("compose.override.yaml", "services: {side: {volumes: [no:/x]}}\n"),
        "undefined volume",
    ),
    "not-a-restart-policy": (
        lambda shop: shop.services["web"].update(restart=["always"]),
        "services.web.restart must be a string",
    ),
    "unknown-key-inside": (
        lambda shop: shop.services["web"]["healthcheck"].update(intervall="1s"),
        "intervall",
    ),
    "not-a-duration": (
        lambda shop: shop.services["web"]["healthcheck"].update(interval="soon"),
        "interval",
    ),
    # One that stands alone is refused before contact.
    "variable-required-within-another": (
        lambda shop: shop.services["web"]["environment"].update(A="${B:-${C:?give it a value}}"),
        "give it a value",
    ),
    "depends-on-itself": (
        lambda shop: shop.services["redis"].update(depends_on=["web"]),
        "cycle",
    ),
}


@pytest.mark.parametrize("case", SEMANTICS)
def test_what_only_compose_knows_to_be_wrong(shop: Shop, untouched: Untouched, case: str) -> None:
    change, said = SEMANTICS[case]
    change(shop)
    memory = files(shop.host, *OURS)
    done = untouched()
    assert said in done.out
    errors = untouched.errors()
    assert len(errors) == 1, errors
    assert errors[0].startswith("Docker Compose refuses the project's files: ")
    assert said in errors[0]
    # It was read from memory, and nothing of it stays.
    assert files(shop.host, *OURS) == memory
    assert "/dev/shm/" not in done.out


def test_unparsable_on_the_controller(shop: Shop, untouched: Untouched) -> None:
    mark = shop.host.mark()
    with shop.watching() as seen:
        (shop.source / "compose.yaml").write_text("services:\n  web: [\n")
        done = controller.run(shop.inventory(), "deploy/site.py", "-y")
    assert done.rc == 1, done.out
    assert "compose.yaml line 3: not valid YAML" in done.out
    assert seen.quiet
    assert shop.host.logins_since(mark) == 0


def test_image_the_registry_does_not_have(
    shop: Shop, untouched: Untouched, registry: Registry
) -> None:
    shop.services["web"]["image"] = "registry:5000/shop/nothing:9"
    done = untouched()
    (error,) = untouched.errors()
    assert error.startswith("web: cannot pull its image: ")
    assert "not found" in error or "manifest unknown" in error, error
    assert "the provider does not have it" in error
    assert "next attempt" not in done.out
    # Told as it happens and at the end, once each.
    cause = error.rpartition("Error response from daemon: ")[2]
    assert error.count(cause) == 1
    assert done.out.count(cause) == 2, done.out
    assert done.seconds < 60


def test_registry_that_cannot_be_reached(
    shop: Shop, untouched: Untouched, registry: Registry
) -> None:
    registry.push("lab/box:2", "shop/web:2")
    shop.services["web"]["image"] = "registry:5000/shop/web:2"
    registry.stop()
    said = untouched()
    (error,) = untouched.errors()
    assert error.startswith("web: cannot pull its image: ")
    assert "registry" in error
    assert any(f"its image: {title} (" in error for title in TITLES.values()), error
    assert said.out.count("next attempt in") == ATTEMPTS - 1
    # As soon as it answers again, the very same command goes through, also one under way.
    with shop.start("-y") as run:
        assert run.wait_for_output("next attempt in")
        registry.start()
        done = run.wait()
    assert done.rc == 0, done.out
    assert shop.page() == "box 2"


def test_one_image_of_two_cannot_be_had(
    shop: Shop, untouched: Untouched, registry: Registry
) -> None:
    """Nothing is switched until all is there: not even the service whose image came."""
    shop.services["side"]["image"] = registry.push("lab/box:2", "shop/side:2")
    shop.services["web"]["image"] = "registry:5000/shop/nothing:9"
    untouched()
    assert "web: cannot pull its image" in untouched.errors()[0]


def test_build_that_fails(shop: Shop, untouched: Untouched) -> None:
    del shop.services["web"]["image"]
    shop.services["web"]["build"] = "./image"
    shop.put("image/Dockerfile", "FROM lab/box:1\nRUN echo no compiler here && exit 7\n")
    shop.host.docker("image", "rm", "-f", "shop-web", check=False)
    done = untouched()
    (error,) = untouched.errors()
    assert error.startswith("web: cannot build its image: ")
    assert "no compiler here" in done.out
    # What failed leaves no tag behind that a later run would take for the image.
    assert shop.host.docker("image", "ls", "-q", "shop-web") == ""


def test_later_build_that_fails(shop: Shop, untouched: Untouched) -> None:
    del shop.services["web"]["image"]
    shop.services["web"]["build"] = "./image"
    shop.put("image/Dockerfile", "FROM lab/box:1\nRUN echo one > /www/index.html\n")
    shop.deploy()
    tagged = shop.host.docker("image", "inspect", "-f", "{{.Id}}", "shop-web")
    shop.put("image/Dockerfile", "FROM lab/box:1\nRUN exit 7\n")
    untouched()
    assert shop.host.docker("image", "inspect", "-f", "{{.Id}}", "shop-web") == tagged
    assert shop.page() == "one"


# Disk


def test_too_little_free_for_a_pull(shop: Shop, untouched: Untouched, registry: Registry) -> None:
    shop.services["web"]["image"] = registry.push("lab/box:2", "shop/large:1")
    shop.settings["minimum_free"] = "1000TiB"
    done = untouched()
    assert "MiB are free at " in done.out
    assert "MiB must be" in done.out
    assert "minimum_free" in done.out
    assert shop.host.docker("image", "ls", "-q", "registry:5000/shop/large") == ""
    assert shop.report()["outcome"] == "refused"
    refusal = shop.report()["operations"][0]["refusals"][0]
    assert refusal["subject"] == "disk"


def test_too_little_free_for_a_build(shop: Shop, untouched: Untouched) -> None:
    del shop.services["web"]["image"]
    shop.services["web"]["build"] = "./image"
    shop.put("image/Dockerfile", "FROM lab/box:1\nRUN echo one > /www/index.html\n")
    shop.settings["minimum_free"] = "1000TiB"
    shop.host.docker("image", "rm", "-f", "shop-web", check=False)
    done = untouched()
    assert "MiB must be" in done.out
    assert shop.host.docker("image", "ls", "-q", "shop-web") == ""


def test_too_little_free_matters_only_where_something_is_written(
    shop: Shop, untouched: Untouched
) -> None:
    shop.settings["minimum_free"] = "1000TiB"
    untouched(rc=0)
    shop.host.docker("stop", "-t", "1", shop.id("side"))
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.health()["side"] == "running"


def test_too_little_free_at_first(host: LabHost, tmp_path: Path) -> None:
    shop = Shop(tmp_path, host, minimum_free="1000TiB")
    before = files(host, *EVERYWHERE)
    moment = host.now()
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "MiB must be" in done.out
    assert host.events_since(moment) == []
    assert files(host, *EVERYWHERE) == before


# An engine that cannot be asked


class WithoutSudo(Shop):
    """The shop with the login's way to root left out of the inventory."""

    def inventory(self) -> Path:
        path = super().inventory()
        with path.open("a") as file:
            file.write('hosts[0][1].pop("_sudo")\n')
        return path


def nothing_done(shop: Shop, reason: str, remedy: str) -> None:
    """A first run and a dry one are refused for this reason, and leave no trace."""
    host = shop.host
    before = files(host, *EVERYWHERE)
    for argument in ("-y", "--dry"):
        done = shop.run(argument)
        assert done.rc == (1 if argument == "-y" else 0), done.out
        assert reason in done.out
        assert remedy in done.out
        assert "Traceback" not in done.out
        assert shop.report()["outcome"] == "refused"
        (refusal,) = shop.report()["operations"][0]["refusals"]
        assert reason in refusal["reason"]
    assert files(host, *EVERYWHERE) == before


def test_engine_stopped(host: LabHost, tmp_path: Path) -> None:
    host.sh("systemctl stop docker.socket docker")
    nothing_done(Shop(tmp_path, host), "the Docker daemon does not run", "systemctl start docker")
    assert host.sh("systemctl is-active docker", check=False) == "inactive"


def test_engine_not_installed(bare_host: LabHost, tmp_path: Path) -> None:
    nothing_done(Shop(tmp_path, bare_host), "Docker is not installed", "install Docker Engine")
    assert bare_host.sh("command -v docker || echo none") == "none"


def test_engine_whose_client_nobody_may_execute(host: LabHost, tmp_path: Path) -> None:
    """It is not absent, and the engine not silent: with all consent nothing is done to either."""
    docker = host.sh("readlink -f /usr/bin/docker")
    engine = host.sh("cat /run/docker.pid")
    reason = f"{docker} is there, and nobody may execute it"
    host.sh(f"chmod a-x {docker}")
    try:
        nothing_done(Shop(tmp_path, host), reason, "make it executable again")
        asked = Runs(tmp_path, host).installed(channel="distro", allow=["restart"])
        assert asked.run.rc == 1, asked.run.out
        assert reason in asked.run.out
        assert not asked.all("done")
    finally:
        host.sh(f"chmod a+x {docker}")
    assert host.sh("cat /run/docker.pid") == engine
    assert Shop(tmp_path, host).run("--dry").rc == 0


def test_engine_without_compose(host: LabHost, tmp_path: Path) -> None:
    plugin = host.sh(
        "ls /usr/lib/docker/cli-plugins/docker-compose /usr/libexec/docker/"
        "cli-plugins/docker-compose 2>/dev/null",
        check=False,
    )
    host.sh(f"mv {plugin} /usr/local/kept-compose")
    try:
        nothing_done(
            Shop(tmp_path, host), "Docker has no Compose plugin", "install the Compose plugin"
        )
    finally:
        host.sh(f"mv /usr/local/kept-compose {plugin}")


def test_engine_not_permitted(host: LabHost, tmp_path: Path) -> None:
    shop = WithoutSudo(tmp_path, host, user="operator")
    moment = host.now()
    nothing_done(shop, "this user may not talk to the Docker daemon", "_sudo = True")
    assert host.events_since(moment) == []


def test_engine_stops_while_it_is_waited_for(host: LabHost, tmp_path: Path) -> None:
    shop = Shop(tmp_path, host, stability=20)
    with shop.start("-y") as run:
        host.wait_for("docker ps --filter health=healthy --format '{{.Names}}' | grep -q web", 60)
        host.sh("systemctl stop docker.socket docker")
        done = run.wait(timeout=120)
    assert done.rc == 1, done.out
    assert "Traceback" not in done.out
    assert shop.report()["outcome"] == "failed"
    host.sh("systemctl start docker")
    shop.settings["stability"] = 1
    again = shop.run("-y")
    assert again.rc == 0, again.out
    shop.assert_well()


# Others


def test_someone_else_is_at_it(shop: Shop, untouched: Untouched) -> None:
    host = shop.host
    shop.services["web"]["environment"]["GREETING"] = "not now"
    lock = "/var/lib/stackmend/run.lock"
    host.sh(
        f"echo 'ada@desk pid 7' > {lock}; setsid flock {lock} sleep 60 </dev/null >/dev/null 2>&1 &"
    )
    host.wait_for(f"! flock -n {lock} true")
    done = untouched()
    assert "ada@desk pid 7" in done.out
    host.sh("pkill -x sleep")
    done = shop.run("-y")
    assert done.rc == 0, done.out


@pytest.mark.parametrize("broken", ["engine", "image", "crash", "unreachable"])
def test_one_host_beyond_repair_does_not_stop_the_other(
    hosts: Callable[[int], list[LabHost]], tmp_path: Path, broken: str
) -> None:
    well, other = hosts(2)
    shop = Shop(tmp_path, well, health_timeout=10, mend={"attempts": 1})
    shop.services["web"]["environment"]["GREETING"] = "${GREETING:-hello}"
    shop.services["side"]["image"] = "${SIDE:-lab/box:1}"
    shop.services["side"]["command"] = ["sh", "-c", "${PROGRAM:-exec serve}"]
    stack: dict[str, Any] = dict(shop.settings)
    data: dict[str, Any] = {}
    if broken == "engine":
        other.sh("systemctl stop docker.socket docker; systemctl mask docker docker.socket")
        said = "the Docker daemon does not run"
    elif broken == "image":
        data["stack"] = {**stack, "env": {"SIDE": "lab/nothing:0"}}
        said = "cannot pull its image"
    elif broken == "crash":
        data["stack"] = {**stack, "env": {"PROGRAM": "echo going down; exit 8"}}
        said = "going down"
    else:
        data["ssh_port"] = 9
        said = other.name
    shop.write()
    inventory = controller.write_inventory(
        tmp_path, [other, well], stack=stack, per_host={other.name: data}
    )
    env = {"STACKMEND_REPORTS": str(shop.reports)}
    done = controller.run(inventory, "deploy/site.py", "-y", env=env)
    assert done.rc == 1, done.out
    assert said in done.out
    shop.assert_well()
    assert f"not well: {other.name} (" in done.out
    assert shop.report()["outcome"] == "changed"
    bad = Shop(tmp_path, other)
    expected = {"engine": "refused", "unreachable": "unreachable"}.get(broken, "failed")
    assert bad.report()["outcome"] == expected
    # And again: the well one is left alone.
    before = well.identities("shop")
    again = controller.run(inventory, "deploy/site.py", "-y", env=env)
    assert again.rc == 1, again.out
    assert well.identities("shop") == before
    assert shop.report()["outcome"] == "converged"
