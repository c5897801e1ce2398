"""The plan, as text: what is there and what is desired in, what will be done and why out.

Each scenario's plan lies as plain text below ``golden/compose_plan``. ``UPDATE_GOLDEN=1 pytest``
writes them anew; what then changes is to be read as the change of behaviour that it is.
"""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import SecretStr

from stackmend.checks.state import CheckResult
from stackmend.compose.plan.actions import Action, Kind, Plan, RestoreFiles
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.link_checks import name_check
from stackmend.compose.plan.link_correction import add_patch, leave, make_correction
from stackmend.compose.plan.link_findings import find_unheard
from stackmend.compose.plan.links import Links, classify_links
from stackmend.compose.state import (
    KEPT,
    LAYER_FILE,
    LINKS_FILE,
    AppliedService,
    Checkout,
    Container,
    Endpoint,
    Engine,
    Labelled,
    Mended,
    Resolver,
    Surroundings,
)
from tests.unit.compose_shop import ENDED, HEALTH, changed, replicas, shop
from tests.unit.compose_world import (
    DIRECTORY,
    NOW,
    PROJECT,
    Desired,
    World,
    by_hand,
    classify_asked,
    compose,
    digest_of,
    labelled,
    proven,
    render,
    well,
)

GOLDEN = Path(__file__).parent / "golden" / "compose_plan"

SCENARIOS: dict[str, Callable[[], Plan]] = {}


def scenario(build: Callable[[], Plan]) -> Callable[[], Plan]:
    SCENARIOS[build.__name__] = build
    return build


def broken(name: str = "web", desired: Desired | None = None, **changes: Any) -> Plan:
    """The plan for a host that was well until this happened to one container."""
    desired = desired or shop()
    world = well(desired)
    world.damage(name, **changes)
    return world.observe(desired)


# Nothing to do


@scenario
def well_and_recorded() -> Plan:
    """Nothing is wrong."""
    desired = shop()
    return well(desired).observe(desired)


@scenario
def one_shot_that_completed() -> Plan:
    """A service that did what it was started for is well, whatever restart policy it has."""
    desired = Desired(
        compose(
            {
                "migrate": {"restart": "no", "x-completes": True},
                "fill": {"restart": "on-failure", "x-completes": True},
            }
        )
    )
    return well(desired).observe(desired)


@scenario
def no_replica_wanted() -> Plan:
    """A service with scale 0 has no container, and needs no image."""
    desired = Desired(compose({"worker": {"image": "not/here:1", "scale": 0}, "side": {}}))
    return well(desired).observe(desired)


# Missing and not running


@scenario
def nothing_there() -> Plan:
    """A new host: files, images and every service, each after what it depends on."""
    return World(images=["lab/box:1"]).observe(shop())


@scenario
def missing() -> Plan:
    """Someone removed a container."""
    desired = shop()
    world = well(desired)
    world.lose("redis")
    return world.observe(desired)


@scenario
def created() -> Plan:
    """It was created, and the engine could not start it."""
    error = "driver failed: Bind for 127.0.0.1:8080 failed: port is already allocated"
    return broken(status="created", error=error, **ENDED)


@scenario
def created_without_an_error() -> Plan:
    """It was created by an interrupted run and never started."""
    return broken(status="created", **ENDED)


@scenario
def stopped() -> Plan:
    """Someone stopped it: the engine would have restarted what ends by itself."""
    return broken(status="exited", exit_code=143, **ENDED)


@scenario
def killed() -> Plan:
    """It was killed, for want of memory."""
    return broken(status="exited", exit_code=137, oom_killed=True, **ENDED)


@scenario
def crashed_without_a_restart_policy() -> Plan:
    """It crashed and nobody restarts it: a start is a mend, and counts."""
    desired = Desired(compose({"worker": {}}))
    return broken("worker", desired, status="exited", exit_code=3, **ENDED)


@scenario
def server_that_ended_well() -> Plan:
    """A service with a healthcheck or a port serves: that it ended with 0 is not completion."""
    desired = Desired(compose({"redis": {"healthcheck": HEALTH}}))
    return broken("redis", desired, status="exited", exit_code=0, **ENDED)


@scenario
def dead() -> Plan:
    """The engine could not remove it to its end."""
    return broken(status="dead", **ENDED)


@scenario
def paused() -> Plan:
    return broken(status="paused")


@scenario
def starting() -> Plan:
    """It is on its way: it is waited for."""
    return broken(health="starting")


@scenario
def kept_no_longer() -> Plan:
    """It was stopped for good and kept so; the very same container is started again."""
    before = Desired(compose({"worker": {"restart": "always", KEPT: True}}))
    world = well(before)
    one = world.damage("worker", status="exited", exit_code=137, **ENDED)
    assert world.applied is not None
    services = {"worker": AppliedService(image=one.image, image_id=one.image_id, shape=one.shape)}
    world.applied = world.applied.model_copy(update={"services": services})
    world.damage("worker", restart="no", shape={**one.shape, "restart": "no"})
    return world.observe(Desired(compose({"worker": {"restart": "always"}}), {"compose.yaml": "2"}))


# Running, and not well


@scenario
def unhealthy() -> Plan:
    return broken(health="unhealthy", health_output="HTTP 500\n  from /healthz")


@scenario
def healthcheck_that_cannot_run() -> Plan:
    """The host's /tmp is full: nothing is known of the service."""
    output = (
        "OCI runtime exec failed: write /tmp/runc-process3471: no space left on device: unknown"
    )
    return broken(health="unhealthy", health_output=output)


@scenario
def unhealthy_and_tried() -> Plan:
    """A restart in this very run did not help: it is made anew."""
    desired = shop()
    world = well(desired)
    world.damage("web", health="unhealthy")
    return world.observe(desired, tried=["web"])


@scenario
def restart_loop() -> Plan:
    return broken(status="restarting", restart_count=7, exit_code=1, **ENDED)


AOF = (
    "1:M # Bad file format reading the append only file appendonly.aof.1.incr.aof: make "
    "a backup of your AOF file, then use ./redis-check-aof --fix <filename>"
)
LOOP: dict[str, Any] = {"status": "restarting", "restart_count": 9, "exit_code": 1, **ENDED}


@scenario
def redis_that_cannot_read_its_append_only_file() -> Plan:
    """No restart helps: how to mend it by hand, and what to allow to have it done."""
    return broken("redis", log=(AOF,), **LOOP)


@scenario
def redis_whose_append_only_file_may_be_repaired() -> Plan:
    return broken("redis", shop(allow=["repair:redis-aof"]), log=(AOF,), **LOOP)


@scenario
def redis_whose_append_only_file_was_repaired_in_vain() -> Plan:
    desired = shop(allow=["repair:redis-aof"])
    world = well(desired)
    world.damage("redis", log=(AOF,), **LOOP)
    return world.observe(desired, tried=["redis"])


@scenario
def check_on_what_leans_on_a_redis_that_says_what_is_wrong() -> Plan:
    """Nothing is restarted for it."""
    desired = shop(checks=[{"kind": "http", "url": "http://127.0.0.1:8080/", "name": "page"}])
    world = well(desired)
    world.damage("redis", log=(AOF,), **LOOP)
    hop = CheckResult(name="web → redis:6379", outcome="failed", evidence="ask redis: no answer")
    failed = CheckResult(name="page", outcome="failed", evidence="GET /: 502")
    return world.observe(desired, [failed], hops=[hop])


@scenario
def restart_loop_for_want_of_space() -> Plan:
    return broken(log=("write: No space left on device", "bye"), **LOOP)


@scenario
def unhealthy_for_a_wrong_password() -> Plan:
    """One set at run time goes with a restart."""
    return broken("redis", health="unhealthy", health_output="NOAUTH Authentication required.")


@scenario
def unhealthy_for_a_wrong_password_still() -> Plan:
    """No recreation helps then."""
    desired = shop()
    world = well(desired)
    world.damage("redis", health="unhealthy", health_output="NOAUTH Authentication required.")
    return world.observe(desired, tried=["redis"])


@scenario
def unhealthy_for_want_of_memory() -> Plan:
    return broken("web", health="unhealthy", health_output="MemoryError: Cannot allocate memory")


@scenario
def unhealthy_for_want_of_memory_after_a_restart() -> Plan:
    """A leak would be gone."""
    output = "MemoryError: Cannot allocate memory"
    desired = shop()
    world = well(desired)
    world.damage("web", health="unhealthy", health_output=output)
    return world.observe(desired, tried=["web"])


@scenario
def unhealthy_long_after_a_process_in_it_was_killed() -> Plan:
    """The engine goes on saying so of a container that runs."""
    return broken("web", health="unhealthy", health_output="refused", oom_killed=True)


@scenario
def healthcheck_whose_second_half_ran() -> Plan:
    """`curl … || wget …`: the image has no curl, and wget says what is wrong."""
    output = "/bin/sh: curl: not found\nwget: can't connect to remote host: Connection refused"
    return broken("web", health="unhealthy", health_output=output)


@scenario
def exited_with_what_it_could_not_write() -> Plan:
    """Somebody may have made room since: a start tells."""
    return broken(status="exited", exit_code=1, log=("fatal: No space left on device",), **ENDED)


@scenario
def exited_again_with_what_it_could_not_write() -> Plan:
    desired = shop()
    world = well(desired)
    log = ("fatal: No space left on device",)
    world.damage("web", status="exited", exit_code=1, log=log, **ENDED)
    return world.observe(desired, tried=["web"])


@scenario
def restart_loop_caught_running() -> Plan:
    """It runs at this moment, and was restarted again and again just before."""
    return broken(health=None, restart_count=4, started_at=NOW - 5, exit_code=137, oom_killed=True)


@scenario
def restarts_of_long_ago() -> Plan:
    """It was restarted often, and has run since: nothing is wrong."""
    desired = Desired(compose({"worker": {"restart": "always"}}))
    return broken("worker", desired, restart_count=9, started_at=NOW - 3600)


@scenario
def hung() -> Plan:
    """Its first process was stopped by a signal: going on may be all it needs."""
    return broken(process="T")


@scenario
def hung_and_tried() -> Plan:
    """Letting it go on did not help."""
    desired = shop()
    world = well(desired)
    world.damage("web", process="T")
    return world.observe(desired, tried=["web"])


@scenario
def process_gone() -> Plan:
    """The engine says that it runs, and its process is no more."""
    return broken("side", process="gone")


# Limits of mending


def unhealthy_after(*ago: float, tried: tuple[str, ...] = (), **mend: Any) -> Plan:
    desired = shop(mend={"attempts": 3, "window": 3600, "backoff": [0, 30, 120], **mend})
    world = well(desired)
    world.damage("web", health="unhealthy")
    world.mends = [Mended(at=NOW - then, service="web", action="restart") for then in ago]
    world.mends.append(Mended(at=NOW - 1, service="redis", action="restart"))
    return world.observe(desired, tried=tried)


@scenario
def mended_before_and_again() -> Plan:
    """The pause since the last mend is over."""
    return unhealthy_after(31)


@scenario
def mended_a_moment_ago() -> Plan:
    return unhealthy_after(20)


@scenario
def mended_twice_a_moment_ago() -> Plan:
    """The pause grows."""
    return unhealthy_after(500, 50)


@scenario
def mended_too_often() -> Plan:
    return unhealthy_after(3000, 2000, 1000)


@scenario
def mended_too_often_long_ago() -> Plan:
    """Mends that left the window do not count."""
    return unhealthy_after(7200, 7000, 3601)


@scenario
def mending_forbidden() -> Plan:
    return unhealthy_after(attempts=0)


@scenario
def mended_in_this_run() -> Plan:
    """The stronger remedy within one run is not held up by the pause."""
    return unhealthy_after(1, tried=("web",))


# Declared otherwise


@scenario
def environment_changed() -> Plan:
    desired = shop()
    environment = {"MODE": "fast", "LEVEL": "3", "REDIS_PASSWORD": "battery staple"}
    return well(desired).observe(changed(desired, environment=environment))


@scenario
def image_changed() -> Plan:
    """Another image, which is not on the host yet."""
    desired = shop()
    return well(desired).observe(changed(desired, image="lab/box:3"))


@scenario
def ports_command_labels_changed() -> Plan:
    desired = shop()
    return well(desired).observe(
        changed(
            desired,
            ports=[{"host_ip": "127.0.0.1", "target": 80, "published": "8081"}],
            command=["serve", "--fast"],
            labels={"owner": "me"},
        )
    )


@scenario
def around_a_service_changed() -> Plan:
    """What Compose does around a container recreates nothing."""
    desired = shop()
    return well(desired).observe(
        changed(desired, depends_on={"side": {"condition": "service_started"}})
    )


@scenario
def service_added() -> Plan:
    desired = shop()
    other = changed(desired)
    other.config["services"]["new"] = {"image": "lab/box:2", "networks": {"default": None}}
    return well(desired).observe(other)


@scenario
def service_removed() -> Plan:
    """What we started is removed when it is no longer declared."""
    desired = shop()
    other = changed(desired)
    del other.config["services"]["side"]
    return well(desired).observe(other)


@scenario
def config_definition_changed() -> Plan:
    """A config whose content stands in the compose file."""
    desired = shop()
    for content, version in (("a = 1", "1"), ("a = 2", "2")):
        before, desired = desired, changed(desired, configs=[{"source": "app", "target": "/app"}])
        desired.config["configs"] = {"app": {"name": "shop_app", "content": content}}
        desired.files["compose.yaml"] = version
    return well(before).observe(desired)


@scenario
def tag_moved() -> Plan:
    """The tag means another image now."""
    desired = shop()
    world = well(desired)
    world.images["lab/box:1"] = f"sha256:{digest_of('rebuilt')}"
    return world.observe(desired)


@scenario
def image_gone() -> Plan:
    """Someone removed the tag of a running container's image: what comes is compared by Compose."""
    desired = shop()
    world = well(desired)
    del world.images["lab/redis:7"]
    return world.observe(desired)


# Built images


def built() -> Desired:
    return Desired(
        compose(
            {
                "api": {"build": {"context": f"{DIRECTORY}/api", "args": {"LEVEL": "1"}}},
                "worker": {"image": f"{PROJECT}-api"},
                "tunnelled": {"network_mode": "service:worker"},
                "side": {},
            }
        ),
        {"compose.yaml": "1", "api/Dockerfile": "1", "conf/other": "1"},
    )


@scenario
def build_context_changed() -> Plan:
    """Built before anything stops; all services on that image follow, and who shares them."""
    desired = built()
    other = copy.deepcopy(desired)
    other.files["api/Dockerfile"] = "2"
    return well(desired).observe(other)


@scenario
def build_arguments_changed() -> Plan:
    desired = built()
    other = copy.deepcopy(desired)
    other.files["compose.yaml"] = "2"
    other.config["services"]["api"]["build"]["args"]["LEVEL"] = "2"
    return well(desired).observe(other)


@scenario
def build_for_the_first_time() -> Plan:
    return World().observe(built())


# Contents of files


@scenario
def mounted_file_changed_in_the_source() -> Plan:
    desired = shop()
    other = copy.deepcopy(desired)
    other.files["conf/web.conf"] = "2"
    return well(desired).observe(other)


@scenario
def mounted_file_changed_on_the_host() -> Plan:
    desired = shop()
    world = well(desired)
    world.files["conf/web.conf"] = "edited by hand"
    return world.observe(desired)


def checked_out(commit: str, **fields: str) -> Checkout:
    return Checkout(
        **{
            "url": "https://git.example.com/shop.git",
            "ref": "main",
            "commit": commit * 40,
            **fields,
        }
    )


def of_commit(world: World, commit: str) -> World:
    """The host, with the record of a source that was this commit."""
    assert world.applied is not None
    world.applied = world.applied.model_copy(update={"checkout": checked_out(commit)})
    return world


@scenario
def commit_that_was_proven() -> Plan:
    return of_commit(well(shop()), "a").observe(shop(), checkout=checked_out("a"))


@scenario
def ref_that_moved() -> Plan:
    desired = shop()
    other = copy.deepcopy(desired)
    other.files["conf/web.conf"] = "2"
    return of_commit(well(desired), "a").observe(other, checkout=checked_out("b"))


@scenario
def ref_that_moved_to_the_same_files() -> Plan:
    return of_commit(well(shop()), "a").observe(shop(), checkout=checked_out("b"))


@scenario
def other_ref_of_another_repository() -> Plan:
    other = checked_out("b", url="https://git.example.com/other.git", ref="v2", path="deploy")
    return of_commit(well(shop()), "a").observe(shop(), checkout=other)


@scenario
def first_commit_in_the_place_of_a_directory() -> Plan:
    return well(shop()).observe(shop(), checkout=checked_out("a"))


@scenario
def files_missing_and_gone() -> Plan:
    """One was deleted on the host, one is no longer in the source, one is new there."""
    desired = shop()
    desired.files |= {"README": "1", "old": "1"}
    world = well(desired)
    del world.files["README"]
    other = copy.deepcopy(desired)
    del other.files["old"]
    other.files["new"] = "1"
    return world.observe(other)


@scenario
def mounted_file_replaced_on_the_host() -> Plan:
    """Its content on the host is right; the container holds the file that was there before."""
    return broken(replaced={"/etc/web.conf": "file"})


@scenario
def mounted_file_replaced_and_changed() -> Plan:
    """It is recreated already: it then mounts what is in place."""
    desired = shop()
    world = well(desired)
    world.files["conf/web.conf"] = "edited"
    world.damage("web", replaced={"/etc/web.conf": "file"})
    return world.observe(desired)


def asking(*allow: str, tried: tuple[str, ...] = (), **changes: Any) -> Plan:
    """The host has another DNS server by now, and one container asks it already."""
    desired = shop(allow=list(allow))
    for key, value in changes.items():
        desired.config["services"]["web"][key] = value
    world = well(desired)
    world.resolver = Resolver(servers=("192.0.2.53",))
    world.damage("redis", resolver=world.resolver)
    for name in ("web", "side"):
        world.damage(name, resolver=Resolver(servers=("192.0.2.1", "192.0.2.2")))
    return world.observe(desired, tried=tried)


@scenario
def servers_of_before() -> Plan:
    """What still works is not restarted without consent."""
    return asking()


@scenario
def servers_of_before_with_consent() -> Plan:
    """Those that need it, one by one."""
    return asking("restart:resolver")


@scenario
def servers_of_before_although_it_was_restarted() -> Plan:
    """The engine goes on giving them: no restart of a container helps."""
    desired = shop(allow=["restart:resolver"])
    world = well(desired)
    world.resolver = Resolver(servers=("192.0.2.53",))
    world.damage("side", resolver=Resolver(servers=("192.0.2.1",)), started_at=NOW - 60)
    world.mends.append(Mended(at=NOW - 61, service="side", action="restart"))
    return world.observe(desired)


@scenario
def servers_of_before_and_one_that_names_its_own() -> Plan:
    return asking("restart:resolver", dns=["192.0.2.1"])


def sharing(*, read_only: bool = True, **spec: Any) -> Desired:
    """Two services that mount one path of the host, outside of the project."""
    mount = {"type": "bind", "source": "/srv/shared", "target": "/shared", "read_only": read_only}
    return Desired(
        compose({name: {"restart": "always", "volumes": [mount]} for name in ("front", "side")}),
        settings=spec,
    )


def shared(*names: str, tried: tuple[str, ...] = (), **changes: Any) -> Plan:
    desired = sharing()
    world = well(desired)
    for name in names or ("front", "side"):
        world.damage(name, **changes)
    return world.observe(desired, tried=tried)


@scenario
def mounted_directory_replaced_for_two_services() -> Plan:
    """Each of them is restarted."""
    return shared(replaced={"/shared": "directory"})


@scenario
def mounted_data_replaced() -> Plan:
    """A disk that was unmounted: a restart would begin with an empty directory."""
    desired = sharing(read_only=False)
    world = well(desired)
    world.damage("side", replaced={"/shared": "directory"})
    return world.observe(desired)


@scenario
def mounted_data_replaced_with_consent() -> Plan:
    """The one that is there now is the right one."""
    desired = sharing(read_only=False, allow=["volume:side:/shared"])
    world = well(desired)
    world.damage("side", replaced={"/shared": "directory"})
    return world.observe(desired)


@scenario
def mounted_socket_replaced_and_a_restart_that_did_not_help() -> Plan:
    """The stronger remedy."""
    return shared("side", replaced={"/shared": "other"}, tried=("side",))


@scenario
def mounted_file_became_a_directory() -> Plan:
    """No container can be started on that: it is left as it is."""
    return shared("side", replaced={"/shared": "kind"})


@scenario
def mounted_file_gone_from_the_host() -> Plan:
    """The container still has it: that is told, and nothing is done."""
    return shared("side", replaced={"/shared": "missing"})


@scenario
def mount_of_a_stopped_container() -> Plan:
    """It is started, and then mounts what is there."""
    changes: dict[str, Any] = {"status": "exited", "exit_code": 143, **ENDED}
    return shared("side", replaced={"/shared": "file"}, **changes)


@scenario
def mounted_file_outside_the_project_changed() -> Plan:
    desired = shop()
    desired.config["services"]["side"]["volumes"] = [
        {"type": "bind", "source": "/etc/ssl/site.pem", "target": "/site.pem"}
    ]
    world = World()
    world.outside = {"/etc/ssl/site.pem": "1"}
    world = well(desired, world)
    world.outside["/etc/ssl/site.pem"] = "2"
    return world.observe(desired)


# What runs differs from what was proven


@scenario
def detached() -> Plan:
    desired = shop()
    world = well(desired)
    world.detach("redis")
    return world.observe(desired)


@scenario
def detached_and_tried() -> Plan:
    desired = shop()
    world = well(desired)
    world.detach("redis")
    return world.observe(desired, tried=["redis"])


@scenario
def attached_elsewhere() -> Plan:
    desired = shop()
    world = well(desired)
    world.networks["other"] = "net-other"
    world._attach(world._of("redis")[0], "other", "", ["redis"])
    return world.observe(desired)


@scenario
def network_made_anew() -> Plan:
    """Someone removed the network and made another of the same name."""
    desired = shop()
    world = well(desired)
    world.networks[f"{PROJECT}_default"] = "another"
    return world.observe(desired)


@scenario
def network_renamed() -> Plan:
    """Its containers run on the one of the former name."""
    desired = shop()
    other = changed(desired)
    other.config["networks"]["default"]["name"] = "ours"
    return well(desired).observe(other)


@scenario
def network_becomes_one_that_nobody_made() -> Plan:
    desired = shop()
    other = changed(desired)
    other.config["networks"]["default"] = {"name": "ai-shared", "external": True}
    other.config["volumes"]["data"] = {"name": "ai-data", "external": True}
    return well(desired).observe(other)


@scenario
def healthcheck_that_is_waited_for_is_missing() -> Plan:
    desired = shop()
    other = changed(desired)
    other.config["services"]["redis"]["healthcheck"] = {"disable": True}
    return well(desired).observe(other)


def with_healthcheck_of_image(known: bool | None) -> Plan:
    desired = shop()
    other = changed(desired)
    del other.config["services"]["redis"]["healthcheck"]
    world = well(desired)
    if known is not None:
        world.image_healthchecks["lab/redis:7"] = known
    return world.observe(other)


@scenario
def healthcheck_that_is_waited_for_is_the_images() -> Plan:
    return with_healthcheck_of_image(True)


@scenario
def healthcheck_that_is_waited_for_is_not_in_the_image() -> Plan:
    return with_healthcheck_of_image(False)


@scenario
def healthcheck_that_is_waited_for_is_in_no_image_yet() -> Plan:
    return with_healthcheck_of_image(None)


def with_networks(*names: str) -> Desired:
    """``networks: [front, back]``: Compose gives each without settings."""
    desired = shop()
    desired.config["networks"] |= {
        key: {"name": f"{PROJECT}_{key}", "ipam": {}} for key in ("front", "back")
    }
    desired.config["services"]["side"]["networks"] = dict.fromkeys(names)
    return desired


@scenario
def network_of_a_service_is_another() -> Plan:
    other = with_networks("back")
    other.files["compose.yaml"] = "2"
    return well(with_networks("front")).observe(other)


@scenario
def network_of_a_service_is_one_more() -> Plan:
    other = with_networks("front", "back")
    other.files["compose.yaml"] = "2"
    return well(with_networks("front")).observe(other)


@scenario
def network_of_a_service_is_one_less() -> Plan:
    other = with_networks("front")
    other.files["compose.yaml"] = "2"
    return well(with_networks("front", "back")).observe(other)


@scenario
def network_gone() -> Plan:
    desired = shop()
    world = well(desired)
    world.networks.clear()
    return world.observe(desired)


@scenario
def network_gone_and_detached() -> Plan:
    """``docker network disconnect -f`` for each container, then ``docker network rm``."""
    desired = shop()
    world = well(desired)
    world.detach("redis", f"{PROJECT}_default")
    world.networks.clear()
    return world.observe(desired)


@scenario
def network_of_an_adopted_stack_is_gone() -> Plan:
    desired = shop()
    world = by_hand(desired)
    world.detach("redis", f"{PROJECT}_default")
    world.networks.clear()
    return world.observe(desired)


@scenario
def network_of_an_adopted_stack_differs() -> Plan:
    """Nothing is recorded of it: the engine's own network is held against the declaration."""
    desired = shop()
    world = by_hand(desired)
    desired.config["networks"]["default"] = {
        "name": f"{PROJECT}_default",
        "internal": True,
        "ipam": {"config": [{"subnet": "10.9.0.0/24"}]},
    }
    world.network_shapes[f"{PROJECT}_default"] = {
        "driver": "bridge",
        "internal": False,
        "driver_opts": {"com.docker.network.driver.mtu": "1400"},
        "subnets": ["172.18.0.0/16"],
    }
    return world.observe(desired)


@scenario
def network_of_an_adopted_stack_is_right() -> Plan:
    """What the declaration leaves to the engine is the engine's choice."""
    desired = shop()
    world = by_hand(desired)
    world.network_shapes[f"{PROJECT}_default"] = {
        "driver": "bridge",
        "internal": False,
        "subnets": ["172.18.0.0/16"],
    }
    return world.observe(desired)


@scenario
def not_published() -> Plan:
    """The engine lost a port's publication."""
    return broken(published=())


@scenario
def updated_by_hand() -> Plan:
    """docker update changed the restart policy and a limit."""
    desired = shop()
    world = well(desired)
    one = world._of("side")[0]
    world._set(one, shape={**one.shape, "restart": "no", "mem_limit": 1 << 26})
    return world.observe(desired)


# Replicas


@scenario
def updated_by_hand_in_an_adopted_stack() -> Plan:
    """What is certainly not as declared is mended, though nothing is recorded of it."""
    desired = changed(shop(), "side", mem_reservation="33554432", cpuset="0", cpus=0.5)
    world = by_hand(desired)
    updated = {"mem_reservation": 1, "cpuset": "0-1", "cpus": 1.0, "cpu_shares": 9, "pids_limit": 7}
    world.damage("side", shape={**world._of("side")[0].shape, **updated})
    return world.observe(desired)


@scenario
def made_otherwise_in_an_adopted_stack() -> Plan:
    """Privileged, as another user, with another healthcheck, and with another mount."""
    mount = {"type": "bind", "source": "/srv/pages", "target": "/pages"}
    desired = changed(shop(), "side", user="1000", volumes=[mount])
    world = by_hand(desired)
    shape = dict(world._of("side")[0].shape)
    elsewhere = {"type": "bind", "source": "/srv/old", "read_only": False}
    shape |= {"privileged": True, "user": "0", "volumes": {"/pages": elsewhere}}
    world.damage("side", shape=shape)
    check = {"Test": ["CMD", "false"]}
    world.damage("web", shape={**world._of("web")[0].shape, "healthcheck": check})
    return world.observe(desired)


@scenario
def attached_without_its_name_in_an_adopted_stack() -> Plan:
    """`docker network connect` by hand: nobody finds it by its service's name."""
    desired = shop()
    world = by_hand(desired)
    network = f"{PROJECT}_default"
    shape = dict(world._of("redis")[0].shape)
    shape["networks"] = {network: {"aliases": [], "address": ""}}
    world.damage("redis", shape=shape)
    return world.observe(desired)


@scenario
def cut_short_between_files_and_service() -> Plan:
    """The files were put in place, and whoever was to make the service anew was killed."""
    desired = shop()
    world = well(desired)
    world.stale.add("web")
    return world.observe(desired)


@scenario
def cut_short_and_put_right_otherwise() -> Plan:
    """Files were sent and never put in place, and nothing else is to be done."""
    desired = shop()
    world = well(desired)
    world.staged = True
    return world.observe(desired)


def keeping(**settings: Any) -> tuple[Desired, World]:
    """A service with data in an anonymous volume, whose image is about to change."""
    anonymous = [{"type": "volume", "target": "/data"}]
    desired = Desired(
        compose({"side": {"restart": "always", "volumes": anonymous}}), settings=settings
    )
    return changed(desired, "side", image="lab/box:2", volumes=[]), well(desired)


@scenario
def anonymous_volume_would_be_left_behind() -> Plan:
    """Neither the new image nor the new declaration has a volume there."""
    desired, world = keeping()
    world.image_volumes["lab/box:2"] = ("/elsewhere",)
    return world.observe(desired)


@scenario
def anonymous_volume_left_behind_with_consent() -> Plan:
    desired, world = keeping(allow=["volume:side:/data"])
    world.image_volumes["lab/box:2"] = ()
    return world.observe(desired)


@scenario
def anonymous_volume_is_handed_on() -> Plan:
    """The new image makes a volume at the same place."""
    desired, world = keeping()
    world.image_volumes["lab/box:2"] = ("/data",)
    return world.observe(desired)


@scenario
def replica_missing() -> Plan:
    desired = replicas(3)
    world = well(desired)
    del world.containers[world._of("worker")[1].id]
    return world.observe(desired)


@scenario
def scale_raised() -> Plan:
    """Only the new ones are made."""
    return well(replicas(1)).observe(replicas(3, "2"))


@scenario
def scale_to_nothing() -> Plan:
    return well(replicas(2)).observe(replicas(0, "2"))


@scenario
def one_replica_stopped() -> Plan:
    """The container is named, not only its service."""
    desired = replicas(2)
    world = well(desired)
    world.damage("worker", 2, status="exited", exit_code=143, **ENDED)
    return world.observe(desired)


def interrupted(
    desired: Desired, service: str = "side", number: int = 1, **changes: Any
) -> tuple[World, Container]:
    """A host where Compose was interrupted while it replaced a container, and the new one."""
    world = well(desired)
    one = next(one for one in world._of(service) if one.number == number)
    world.made += 1
    passing = {
        "id": f"{world.made:064x}",
        "name": f"{one.id[:12]}_{one.name}",
        "replaces": True,
        "status": "created",
        "started_at": 0,
        **ENDED,
        **labelled(one, replace=one.id),
        **changes,
    }
    new = world.containers[passing["id"]] = one.model_copy(update=passing)
    return world, new


@scenario
def leftover() -> Plan:
    """Compose was interrupted before it removed the container that it replaced."""
    return interrupted(shop())[0].observe(shop())


@scenario
def leftover_of_what_is_to_change() -> Plan:
    """The twin goes first; then Compose has one container to put another in the place of."""
    world, _ = interrupted(shop())
    return world.observe(changed(shop(), "side", environment={"MODE": "fast"}))


@scenario
def leftover_alone() -> Plan:
    """Compose was interrupted before it gave the new container its name."""
    world, _ = interrupted(shop())
    del world.containers[world._of("side")[0].id]
    return world.observe(shop())


@scenario
def leftover_that_ran_and_a_twin_that_never_did() -> Plan:
    """What may hold data is kept."""
    world, _ = interrupted(shop(), status="exited", started_at=NOW - 60)
    world.damage("side", status="created", started_at=0, **ENDED)
    return world.observe(shop())


@scenario
def leftover_that_ended_and_a_twin_that_runs_otherwise() -> Plan:
    """The twin holds the name and runs, though not as declared: it is put right."""
    world, _ = interrupted(shop(), status="exited", started_at=NOW - 60)
    twin = next(one for one in world._of("side") if not one.replaces)
    world._set(twin, shape={**twin.shape, "command": ["sleep", "1"]})
    return world.observe(shop())


@scenario
def leftovers_of_replicas() -> Plan:
    """One replica has a twin, the other one is left without its name."""
    world, _ = interrupted(replicas(2), "worker", 1)
    second = next(one for one in world._of("worker") if one.number == 2)
    world._set(
        world.rename(second.id, f"0123456789ab_{second.name}"),
        **labelled(second, replace="0123456789ab"),
    )
    return world.observe(replicas(2))


@scenario
def leftover_of_a_replica_that_is_no_longer_desired() -> Plan:
    world, _ = interrupted(replicas(2), "worker", 2)
    return world.observe(replicas(1, "2"))


@scenario
def leftover_whose_name_is_foreign() -> Plan:
    """What holds the name is somebody's: refused, and nothing of ours is removed before."""
    world, _ = interrupted(shop())
    del world.containers[world._of("side")[0].id]
    world.neighbour("shop-side-1")
    return world.observe(shop())


@scenario
def leftover_with_data_of_its_own() -> Plan:
    """It ran, and wrote to an anonymous volume that its twin does not have."""
    world, _ = interrupted(
        shop(), status="exited", started_at=NOW - 60, anonymous={"/data": "d" * 64}
    )
    return world.observe(shop())


@scenario
def leftover_with_data_that_is_handed_on() -> Plan:
    """Compose gives the new container the anonymous volumes of the one before."""
    held = {"/data": "d" * 64}
    world, _ = interrupted(shop(), status="exited", started_at=NOW - 60, anonymous=held)
    world.damage("side", anonymous=held)
    return world.observe(shop())


# What a host has to have


def on_host(desired: Desired | None = None, **around: Any) -> Plan:
    """The plan for a new host that has this much room."""
    world = World()
    world.surroundings = Surroundings(**around)
    return world.observe(desired or shop())


def with_subnet(subnet: str) -> Desired:
    desired = shop()
    desired.config["networks"]["default"]["ipam"] = {"config": [{"subnet": subnet}]}
    return desired


def with_gpu(**device: Any) -> Desired:
    devices = [{"capabilities": ["gpu"], "count": -1, **device}]
    resources = {"reservations": {"devices": devices}}
    return changed(shop(), "side", deploy={"resources": resources})


@scenario
def fits_in() -> Plan:
    """Another network, a route elsewhere, one subnet that is left."""
    return on_host(
        with_subnet("10.9.0.0/16"),
        subnets={"bridge": ("172.17.0.0/16",)},
        routes=("172.17.0.0/16", "192.168.1.0/24"),
        pools=(("172.17.0.0/16", 16), ("172.18.0.0/16", 16)),
        cpus=2,
        gpus="none",
    )


@scenario
def subnet_of_another_network_and_of_the_host() -> Plan:
    return on_host(
        with_subnet("10.9.0.0/16"),
        subnets={"other_default": ("10.9.1.0/24",), "bridge": ("172.17.0.0/16",)},
        routes=("10.9.1.0/24", "172.17.0.0/16", "10.8.0.0/15"),
    )


@scenario
def subnets_used_up() -> Plan:
    """What the host itself is in is left out as well."""
    return on_host(
        subnets={"bridge": ("172.17.0.0/16",), "other": ("192.168.0.0/25",)},
        routes=("192.168.1.0/24",),
        pools=(("172.17.0.0/16", 16), ("192.168.0.0/23", 24)),
    )


@scenario
def subnets_used_up_and_none_needed() -> Plan:
    """Its network is there already."""
    desired = shop()
    world = well(desired)
    world.surroundings = Surroundings(
        subnets={f"{PROJECT}_default": ("172.17.0.0/16",)}, pools=(("172.17.0.0/16", 16),)
    )
    return world.observe(changed(desired, environment={"MODE": "fast"}))


@scenario
def gpu_and_none_there() -> Plan:
    return on_host(with_gpu(), gpus="none")


@scenario
def gpu_without_a_driver() -> Plan:
    return on_host(with_gpu(driver="nvidia"), gpus="no driver")


@scenario
def gpu_without_the_toolkit() -> Plan:
    return on_host(changed(shop(), "side", gpus=[{"count": -1}]), gpus="no toolkit")


@scenario
def gpu_of_another_driver() -> Plan:
    """Whether the engine knows it, it says itself."""
    return on_host(with_gpu(driver="cdi"), gpus="none")


@scenario
def more_processors_than_the_host_has() -> Plan:
    limits = {"limits": {"cpus": "4.5"}}
    return on_host(changed(shop(), "side", deploy={"resources": limits}), cpus=2)


@scenario
def mounts_what_is_not_there() -> Plan:
    """Files by their names, and what says not to be made; what the project brings is none."""
    mounts = [
        {"type": "bind", "source": "/etc/app.conf", "target": "/etc/app.conf"},
        {
            "type": "bind",
            "source": "/srv/models",
            "target": "/models",
            "bind": {"create_host_path": False},
        },
        {"type": "bind", "source": "/srv/data", "target": "/data"},
    ]
    return on_host(
        changed(shop(), "side", volumes=mounts),
        absent=("/etc/app.conf", "/srv/models", f"{DIRECTORY}/conf/web.conf"),
    )


@scenario
def all_that_is_lacking_at_once() -> Plan:
    desired = with_gpu()
    desired.config["services"]["side"] |= {"cpus": 8, "mem_limit": "4194304"}
    desired.config["services"]["redis"]["ports"] = [{"target": 6379, "published": "8080"}]
    return on_host(desired, gpus="none", cpus=2)


@scenario
def volume_of_another_driver() -> Plan:
    """The engine has it otherwise than it is declared, and nothing is recorded."""
    desired = shop()
    desired.config["volumes"]["data"]["driver_opts"] = {"type": "nfs", "device": ":/data"}
    world = by_hand(desired)
    world.volume_shapes = {f"{PROJECT}_data": {"driver": "local", "driver_opts": {}}}
    return world.observe(desired)


@scenario
def volume_as_declared() -> Plan:
    desired = shop()
    world = by_hand(desired)
    world.volume_shapes = {f"{PROJECT}_data": {"driver": "local", "driver_opts": {}}}
    return world.observe(desired)


@scenario
def runs_on_another_volume_than_declared() -> Plan:
    """A container of an adopted stack; its next one would not see the data."""
    desired = shop()
    world = by_hand(desired)
    elsewhere = {"/data": {"type": "volume", "source": "elsewhere"}}
    world.damage("redis", shape={**world._of("redis")[0].shape, "volumes": elsewhere})
    return world.observe(desired)


@scenario
def record_that_was_wrong() -> Plan:
    """It says of a container that it is right to be on another network than declared."""
    desired = shop()
    world = by_hand(desired)
    world.detach("side")
    return proven(desired, world).observe(desired)


@scenario
def warnings_of_compose() -> Plan:
    """They are told, and block nothing."""
    desired = shop()
    world = World()
    world.warnings = (
        'The "PORT" variable is not set. Defaulting to a blank string.',
        "compose.yaml: the attribute `version` is obsolete",
    )
    return world.observe(desired)


@scenario
def warnings_of_compose_are_told_again() -> Plan:
    desired = shop()
    world = by_hand(desired)
    world.warnings = ('The "PORT" variable is not set. Defaulting to a blank string.',)
    return proven(desired, world).observe(desired)


@scenario
def what_lies_around_steers_nothing() -> Plan:
    """Variables, a context, and files that Compose would read: told, kept, and no change."""
    desired = shop()
    world = proven(desired, by_hand(desired))
    world.ignored = ("DOCKER_HOST", "COMPOSE_FILE", "context remote")
    world.defaults = (".env", "compose.override.yaml", "compose.yaml")
    return world.observe(desired)


# Who leans on whom


def leaning() -> Desired:
    return Desired(
        compose(
            {
                "db": {"restart": "always", "healthcheck": HEALTH},
                "api": {
                    "restart": "always",
                    "scale": 2,
                    "depends_on": {
                        "db": {"condition": "service_healthy", "restart": True},
                        "vpn": {"condition": "service_started", "restart": True},
                    },
                },
                "web": {
                    "restart": "always",
                    "depends_on": {"api": {"condition": "service_started", "restart": True}},
                },
                "plain": {
                    "restart": "always",
                    "depends_on": {"db": {"condition": "service_started"}},
                },
                "vpn": {"restart": "always"},
                "tunnelled": {"restart": "always", "network_mode": "service:vpn"},
            }
        )
    )


@scenario
def dependants_restart() -> Plan:
    """depends_on with restart: the ones that lean on it, and those on them; every replica, once."""
    desired = leaning()
    world = well(desired)
    world.damage("db", health="unhealthy")
    world.damage("vpn", status="exited", exit_code=143, **ENDED)
    return world.observe(desired)


@scenario
def dependants_share_a_network() -> Plan:
    """network_mode: service:x shares the container itself, so it goes with it."""
    desired = leaning()
    return well(desired).observe(changed(desired, "vpn", command=["other"]))


@scenario
def shared_container_gone() -> Plan:
    """The one whose network is shared was made anew behind our back."""
    desired = leaning()
    world = well(desired)
    world.up(desired, "vpn", recreate=True)
    return world.observe(desired)


# What is not ours


@scenario
def orphan_of_ours() -> Plan:
    """A container of a service that the record knows and the file no longer does."""
    desired = shop()
    world = well(desired)
    other = changed(desired)
    del other.config["services"]["web"]
    return world.observe(other)


@scenario
def orphan_of_someone_else() -> Plan:
    """Started under our project's name, by someone: told, and left alone."""
    desired = shop()
    world = well(desired)
    guest = changed(desired)
    guest.config["services"]["guest"] = {"image": "lab/box:2"}
    world.create(guest, "guest")
    return world.observe(desired)


@scenario
def orphan_with_consent() -> Plan:
    desired = shop(allow=["container:shop-guest-1"])
    world = well(desired)
    guest = changed(desired)
    guest.config["services"]["guest"] = {"image": "lab/box:2"}
    world.create(guest, "guest")
    return world.observe(desired)


@scenario
def one_off_run_is_left_alone() -> Plan:
    """docker compose run is someone's own business."""
    desired = shop()
    world = well(desired)
    one = world._of("side")[0]
    world.containers["e" * 64] = one.model_copy(
        update={
            "id": "e" * 64,
            "name": "shop-side-run-1",
            "oneoff": True,
            "status": "exited",
            **labelled(one, oneoff="True"),
        }
    )
    return world.observe(desired)


def with_name_taken(**more: Any) -> Plan:
    desired = shop(**more)
    world = well(desired)
    world.lose("web")
    world.neighbour("shop-web-1", project="theirs")
    return world.observe(desired)


@scenario
def name_taken() -> Plan:
    return with_name_taken()


@scenario
def name_taken_with_consent() -> Plan:
    return with_name_taken(allow=["container:shop-web-1"])


@scenario
def name_taken_by_no_project() -> Plan:
    desired = shop()
    desired.config["services"]["side"]["container_name"] = "side"
    world = World()
    world.neighbour("side")
    return world.observe(desired)


def with_stranger_on_our_network(**more: Any) -> Plan:
    desired = shop(**more)
    desired.config["services"]["side"]["networks"] = {"default": {"ipv4_address": "10.0.0.7"}}
    desired.config["networks"]["default"]["ipam"] = {"config": [{"subnet": "10.0.0.0/24"}]}
    world = well(desired)
    world.neighbour(
        "intruder",
        endpoints={
            f"{PROJECT}_default": Endpoint(
                network_id="1", address="10.0.0.7", aliases=("redis", "web")
            ),
            "elsewhere": Endpoint(network_id="2", address="10.0.0.7", aliases=("redis",)),
        },
    )
    return world.observe(desired)


@scenario
def stranger_holds_names_and_an_address() -> Plan:
    return with_stranger_on_our_network()


@scenario
def stranger_with_consent() -> Plan:
    """One step takes it off the network, whatever it holds there."""
    return with_stranger_on_our_network(allow=["container:intruder"])


@scenario
def stranger_that_is_stopped() -> Plan:
    """It holds nothing while it does not run."""
    desired = shop()
    world = well(desired)
    world.neighbour(
        "quiet", endpoints={f"{PROJECT}_default": Endpoint(network_id="1", aliases=("redis",))}
    )
    return world.observe(desired)


def started_elsewhere(**more: Any) -> Plan:
    desired = shop(**more)
    world = by_hand(desired)
    for one in list(world.containers.values()):
        elsewhere = labelled(
            one,
            project__working_dir="/home/ann/shop",
            project__config_files="/home/ann/shop/compose.yaml",
        )
        world._set(one, working_dir="/home/ann/shop", config_hash="other", **elsewhere)
    world.files.clear()
    return world.observe(desired)


@scenario
def project_started_elsewhere() -> Plan:
    return started_elsewhere()


@scenario
def directory_of_another_project() -> Plan:
    """Each would overwrite the other's files."""
    world = World()
    world.sharing = ("gym", "gone")
    world.neighbour("gym-web-1", "gym")
    return world.observe(shop())


@scenario
def project_started_elsewhere_with_consent() -> Plan:
    return started_elsewhere(allow=["project:/home/ann/shop"])


@scenario
def directory_is_another_now() -> Plan:
    """What runs was proven well where the stack's directory was before."""
    world = well(shop())
    return world.observe(shop(directory="/opt/elsewhere"))


# What only looks like the project's


@scenario
def committed_replica_beside_a_well_stack() -> Plan:
    """docker commit keeps Compose's labels: what runs from it is left alone, and told."""
    desired = shop()
    world = well(desired)
    world.impostor("mydebug", "web")
    return world.observe(desired)


@scenario
def two_labels_beside_a_well_redis() -> Plan:
    """Somebody gave a container two of Compose's labels by hand."""
    desired = shop()
    world = well(desired)
    world.impostor("cache", "redis", given=("project", "service"))
    return world.observe(desired)


@scenario
def two_labels_are_in_nobodys_way() -> Plan:
    """Compose does not choose by them: what is to be done is done."""
    desired = shop()
    world = well(desired)
    world.impostor("cache", "redis", given=("project", "service"))
    world.damage("redis", status="dead", **ENDED)
    return world.observe(desired)


def with_committed_replica(service: str, **more: Any) -> Plan:
    desired = shop(**more)
    world = well(desired)
    world.impostor("mydebug", service)
    return world.observe(changed(desired, environment={"MODE": "fast"}))


@scenario
def committed_replica_of_what_is_to_change() -> Plan:
    return with_committed_replica("web")


@scenario
def committed_replica_of_what_is_leaned_on() -> Plan:
    """Compose takes along what a service depends on, and would choose there, too."""
    return with_committed_replica("redis")


@scenario
def committed_replica_of_what_stays() -> Plan:
    return with_committed_replica("side")


@scenario
def committed_replica_with_consent() -> Plan:
    return with_committed_replica("web", allow=["container:mydebug"])


@scenario
def committed_replica_alone() -> Plan:
    """The project's own container is gone: what has its labels does not stand for it."""
    desired = shop()
    world = well(desired)
    world.lose("side")
    world.impostor("mydebug", "side")
    return world.observe(desired)


@scenario
def committed_replica_of_a_removed_service() -> Plan:
    """It is no orphan of ours, and not removed as one."""
    desired = shop()
    world = well(desired)
    world.impostor("mydebug", "side")
    smaller = changed(desired)
    del smaller.config["services"]["side"]
    return world.observe(smaller)


@scenario
def replica_whose_image_is_gone() -> Plan:
    """What cannot be told is not taken for ours."""
    desired = shop()
    world = well(desired)
    world.impostor("mydebug", "side", image_labels=None)
    return world.observe(desired)


@scenario
def own_container_that_was_renamed() -> Plan:
    """Compose would still choose it by its labels."""
    desired = shop()
    world = well(desired)
    world._set(world._of("side")[0], name="side-for-later")
    return world.observe(desired)


@scenario
def committed_replica_under_our_name() -> Plan:
    desired = shop()
    world = well(desired)
    world.lose("side")
    world.impostor("shop-side-1", "side")
    return world.observe(desired)


def with_labels(project: str, **more: Any) -> World:
    """A host where the network and the volume of the shop's names are of this project."""
    world = World()
    world.networks["shop_default"] = "net-0"
    world.network_labels["shop_default"] = Labelled(project=project, key="default")
    world.volume_labels["shop_data"] = Labelled(project=project, key="data")
    return world


@scenario
def network_and_volume_of_another_project() -> Plan:
    return with_labels("theirs").observe(shop())


@scenario
def network_and_volume_that_nobody_labelled() -> Plan:
    return with_labels("").observe(shop())


@scenario
def network_and_volume_that_are_in_use() -> Plan:
    """What the project's own containers have already is told, and no reason to stop."""
    desired = shop()
    world = well(desired, with_labels("theirs"))
    return world.observe(changed(desired, "redis", environment={"MODE": "fast"}))


@scenario
def network_that_is_in_use_and_has_no_label() -> Plan:
    """Compose could not bring the stack up again, though all of it runs."""
    desired = shop()
    world = well(desired)
    world.network_labels["shop_default"] = Labelled()
    return world.observe(desired)


@scenario
def network_and_volume_of_another_project_declared_so() -> Plan:
    desired = shop()
    desired.config["networks"]["default"]["external"] = True
    desired.config["volumes"]["data"]["external"] = True
    return with_labels("theirs").observe(desired)


def with_changed_network(labels: Labelled, **more: Any) -> Plan:
    desired = shop(**more)
    world = well(desired)
    world.network_labels["shop_default"] = labels
    world.neighbour(
        "guest", endpoints={"shop_default": Endpoint(network_id="1", address="10.0.0.8")}
    )
    other = changed(desired)
    other.config["networks"]["default"]["internal"] = True
    return world.observe(other)


@scenario
def network_that_is_to_go_is_foreign() -> Plan:
    return with_changed_network(Labelled(project="theirs", key="default"))


@scenario
def network_that_is_to_go_has_a_guest() -> Plan:
    return with_changed_network(Labelled(project=PROJECT, key="default"))


@scenario
def network_that_is_to_go_has_a_guest_with_consent() -> Plan:
    ours = Labelled(project=PROJECT, key="default")
    return with_changed_network(ours, allow=["container:guest"])


def with_built(built_for: tuple[str, str], **body: Any) -> Plan:
    desired = shop()
    desired.config["services"]["side"] = {
        "build": {"context": f"{DIRECTORY}/side"},
        "networks": {"default": None},
        **body,
    }
    world = World(images=["lab/box:1", "lab/redis:7", "shop-side", "team/side:1"])
    world.built_for = dict.fromkeys(["shop-side", "team/side:1"], built_for)
    return world.observe(desired)


@scenario
def image_under_our_name_that_is_nobodys() -> Plan:
    return with_built(("", ""))


@scenario
def image_under_our_name_of_another_service() -> Plan:
    return with_built((PROJECT, "web"))


@scenario
def image_that_was_built_for_us_by_hand() -> Plan:
    return with_built((PROJECT, "side"))


@scenario
def image_with_a_name_of_its_own() -> Plan:
    """It may have been built anywhere."""
    return with_built(("", ""), image="team/side:1")


# Adoption


@scenario
def adopted_as_it_is() -> Plan:
    """Started by hand from the same files: nothing is touched, it is only remembered."""
    desired = shop()
    return by_hand(desired).observe(desired)


@scenario
def adopted_with_other_settings() -> Plan:
    """Started by hand from other files: Compose compares and settles."""
    desired = shop()
    return by_hand(desired).observe(changed(desired, environment={"MODE": "fast"}))


@scenario
def adopted_with_another_mounted_file() -> Plan:
    """Compose does not look into mounted files: what differs is ours to see."""
    desired = shop()
    world = by_hand(desired)
    world.files["conf/web.conf"] = "as someone wrote it"
    return world.observe(desired)


@scenario
def adopted_detached_and_updated() -> Plan:
    desired = shop()
    world = by_hand(desired)
    world.detach("redis")
    one = world._of("side")[0]
    world._set(one, shape={**one.shape, "restart": "no"})
    return world.observe(desired)


@scenario
def record_unreadable() -> Plan:
    desired = shop()
    world = by_hand(desired)
    world.applied_problem = "the record of the last apply cannot be read"
    return world.observe(desired)


# Networks and volumes declared otherwise


def with_network(**definition: Any) -> Desired:
    desired = shop()
    desired.config["services"]["redis"]["networks"] = {"back": None}
    desired.config["networks"]["back"] = {"name": f"{PROJECT}_back", "ipam": {}, **definition}
    return desired


@scenario
def network_changed() -> Plan:
    """It has to be made anew, with the services on it, and no others."""
    other = with_network(internal=True)
    other.files["compose.yaml"] = "2"
    return well(with_network()).observe(other)


@scenario
def network_changed_and_already_removed() -> Plan:
    """The apply that changes it was cut short after it was removed."""
    other = with_network(internal=True)
    other.files["compose.yaml"] = "2"
    world = well(with_network())
    world.detach("redis", f"{PROJECT}_back")
    del world.networks[f"{PROJECT}_back"]
    return world.observe(other)


@scenario
def volume_changed() -> Plan:
    """Never emptied by us."""
    desired = shop()
    other = changed(desired)
    other.config["volumes"]["data"]["driver_opts"] = {"type": "tmpfs"}
    return well(desired).observe(other)


@scenario
def volume_renamed_with_consent() -> Plan:
    desired = shop(allow=["volume:redis:/data"])
    other = changed(desired)
    other.config["volumes"]["data"]["name"] = "elsewhere"
    return well(desired).observe(other)


def with_volume_under_another_key(**definition: Any) -> Desired:
    """redis has ``store`` where it had ``data``."""
    mount = {"type": "volume", "source": "store", "target": "/data"}
    other = changed(shop(), "redis", volumes=[mount])
    other.config["volumes"] = {"store": {"name": f"{PROJECT}_store", **definition}}
    return other


@scenario
def volume_under_another_key() -> Plan:
    """Compose makes an empty volume: the old one, which is still there, keeps the data."""
    world = well(shop())
    world.volume_labels[f"{PROJECT}_data"] = Labelled(project=PROJECT, key="data")
    return world.observe(with_volume_under_another_key())


@scenario
def volume_under_another_key_with_consent() -> Plan:
    """It may begin without the data: where they are is told."""
    other = with_volume_under_another_key()
    other.settings["allow"] = ["volume:redis:/data"]
    world = well(shop())
    world.volume_labels[f"{PROJECT}_data"] = Labelled(project=PROJECT, key="data")
    return world.observe(other)


@scenario
def volume_becomes_a_directory() -> Plan:
    """The data would be out of sight."""
    other = changed(shop())
    mount = {"type": "bind", "source": "/srv/data", "target": "/data"}
    other.config["services"]["redis"]["volumes"] = [mount]
    world = well(shop())
    world.volume_labels[f"{PROJECT}_data"] = Labelled(project=PROJECT, key="data")
    return world.observe(other)


@scenario
def volume_at_another_place() -> Plan:
    """The service would begin with an empty directory where it looks."""
    other = changed(shop())
    mount = {"type": "volume", "source": "data", "target": "/var/data"}
    other.config["services"]["redis"]["volumes"] = [mount]
    world = well(shop())
    world.volume_labels[f"{PROJECT}_data"] = Labelled(project=PROJECT, key="data")
    return world.observe(other)


@scenario
def volume_under_another_key_with_the_same_name() -> Plan:
    """The data come along."""
    world = well(shop())
    world.volume_labels[f"{PROJECT}_data"] = Labelled(project=PROJECT, key="data")
    return world.observe(with_volume_under_another_key(name=f"{PROJECT}_data"))


@scenario
def volume_under_another_key_and_the_old_one_removed() -> Plan:
    """Somebody removed it: there is nothing to bring over."""
    return well(shop()).observe(with_volume_under_another_key())


@scenario
def volume_renamed() -> Plan:
    """Another volume: the old one keeps the data."""
    desired = shop()
    other = changed(desired)
    other.config["volumes"]["data"]["name"] = "elsewhere"
    return well(desired).observe(other)


# Declared checks


def check(
    outcome: Any, tried: tuple[str, ...] = (), hints: tuple[Any, ...] = (), **more: Any
) -> Plan:
    desired = shop(
        checks=[{"kind": "tcp", "name": "redis answers", "address": "redis:6379", "inside": "web"}],
        **more,
    )
    result = CheckResult(
        name="redis answers",
        outcome=outcome,
        evidence="connect to redis:6379 from inside web: no answer in 5 s",
        details=("redis listens on 127.0.0.1 only",),
        hints=hints,
    )
    return well(desired).observe(desired, [result], tried)


@scenario
def two_checks_that_fail_for_one_service() -> Plan:
    """It is restarted once, and that counts once."""
    names = ("redis answers", "the queue")
    asked = {"kind": "tcp", "address": "redis:6379", "inside": "web"}
    desired = shop(checks=[{**asked, "name": name} for name in names])
    results = [
        CheckResult(name=name, outcome="failed", evidence=f"{name}: no answer in 5 s")
        for name in names
    ]
    return well(desired).observe(desired, results)


@scenario
def check_passes() -> Plan:
    return check("passed")


@scenario
def check_fails() -> Plan:
    """The services on its path are restarted, each after those it depends on."""
    return check("failed")


@scenario
def check_fails_for_rules_that_are_gone() -> Plan:
    """What is beneath the services is mended by the engine's section: none is restarted."""
    return check("failed", hints=("nat-missing", "nothing-listens"))


@scenario
def check_fails_for_a_rule_of_somebody() -> Plan:
    """No restart gets past it."""
    return check("failed", hints=("traffic-dropped",))


@scenario
def check_fails_still() -> Plan:
    """They were restarted in this run: it stays a finding, and nothing more is done."""
    return check("failed", tried=("redis", "web"))


@scenario
def check_fails_and_mending_is_forbidden() -> Plan:
    return check("failed", mend={"attempts": 0})


@scenario
def check_unknown() -> Plan:
    return check("unknown")


@scenario
def check_from_the_host_fails() -> Plan:
    """The service that publishes the port stands on the path."""
    desired = shop(checks=[{"kind": "http", "url": "http://127.0.0.1:8080/", "name": "page"}])
    result = CheckResult(name="page", outcome="failed", evidence="GET /: 502")
    return well(desired).observe(desired, [result])


def check_behind(
    through: str, own: str, outer: str, *, hints: tuple[Any, ...] = (), **more: Any
) -> Plan:
    """The plan where a page fails, and this came of the calls of its service to redis."""
    desired = shop(checks=[{"kind": "http", "url": "http://127.0.0.1:8080/", "name": "page"}])
    outcomes: dict[str, Any] = {
        "web → redis:6379": through,
        "redis:6379 in its own network": own,
        "host → redis:6379": outer,
    }
    hops = [
        CheckResult(
            name=name,
            outcome=outcome,
            evidence=f"ask redis: it is {outcome}",
            hints=hints if outcome == "failed" else (),
            remedy="put it right" if outcome == "failed" else "",
        )
        for name, outcome in outcomes.items()
    ]
    failed = CheckResult(name="page", outcome="failed", evidence="GET /: 502")
    return well(desired).observe(desired, [failed], hops=hops, **more)


@scenario
def check_fails_because_of_another_service() -> Plan:
    """The one that does not even answer itself is restarted, and named; the addressee is not."""
    return check_behind("failed", "failed", "passed")


@scenario
def check_fails_because_its_service_is_cut_off() -> Plan:
    return check_behind("failed", "passed", "passed")


@scenario
def check_fails_still_once_the_other_service_was_restarted() -> Plan:
    """Then the path of the check itself."""
    return check_behind("failed", "failed", "passed", tried=("redis",))


@scenario
def check_fails_because_of_what_a_restart_would_lose() -> Plan:
    """Nothing is restarted: neither what holds the data, nor what leans on it."""
    return check_behind("failed", "failed", "passed", hints=("restart-harms",))


@scenario
def check_fails_and_its_hops_pass() -> Plan:
    return check_behind("passed", "passed", "passed")


@scenario
def check_fails_and_its_hops_are_not_known() -> Plan:
    return check_behind("unknown", "unknown", "unknown")


@scenario
def check_fails_beside_another_cause() -> Plan:
    """What is known to be wrong is mended first; the check is asked again after that."""
    desired = shop(checks=[{"kind": "http", "url": "http://127.0.0.1:8080/", "name": "page"}])
    world = well(desired)
    world.detach("redis")
    return world.observe(desired, [CheckResult(name="page", outcome="failed", evidence="502")])


# Refused altogether


def engine(status: Any, reason: str = "") -> Plan:
    desired = shop()
    world = well(desired)
    world.engine = Engine(status=status, reason=reason)
    return world.observe(desired)


@scenario
def engine_absent() -> Plan:
    return engine("absent")


@scenario
def engine_that_nobody_may_execute() -> Plan:
    """Somebody took the right away (`chmod -x`): it is installed."""
    return engine("unexecutable", "/usr/bin/docker")


@scenario
def engine_stopped() -> Plan:
    return engine("stopped", "Cannot connect to the Docker daemon")


@scenario
def engine_forbidden() -> Plan:
    return engine("forbidden", "permission denied")


@scenario
def engine_without_compose() -> Plan:
    return engine("no-compose")


@scenario
def engine_unknown() -> Plan:
    return engine("unknown", "Error response from daemon: i/o timeout")


@scenario
def state_not_writable() -> Plan:
    desired = shop()
    world = well(desired)
    world.writable = False
    return world.observe(desired)


@scenario
def disk_full() -> Plan:
    desired = shop(minimum_free="1GiB")
    world = World()
    declared = world.declared(desired).model_copy(
        update={"free": {"/var/lib/docker": 300 * 1024**2, "/": 10 * 1024**3}}
    )
    return plan(desired.spec, desired.files, desired.digest, world.state(), declared)


# Links


@scenario
def files_of_ours_that_a_run_left() -> Plan:
    """A first deployment that failed has no record, and left the files of ours."""
    world = World()
    world.defaults = (LINKS_FILE, LAYER_FILE, "compose.yaml")
    return world.observe(shop())


def test_a_links_file_of_somebody_else_is_not_called_missing() -> None:
    desired = shop()
    desired.files["compose.stackmend.yaml"] = "1"
    kept = "replaced, and kept in /var/lib/stackmend/shop/replaced: compose.stackmend.yaml"

    def explain(world: World) -> list[str]:
        return [f.cause for f in world.observe(desired).findings if f.kind == "files"]

    world = World()
    world.defaults = ("compose.stackmend.yaml",)
    assert f"not recorded as written by stackmend; {kept}" in explain(world)
    world = well(desired)
    world.defaults = ("compose.stackmend.yaml",)
    assert explain(world) == []
    world.files["compose.stackmend.yaml"] = "2"
    assert explain(world) == [f"not as stackmend wrote it; {kept}"]


LINKS = b"""services:
  web:
    environment:
      REDIS_URL: redis://:pa55word@localhost:6379/0
      PAGE_URL: http://localhost:8080
      QUEUE: redis://redis:6379/1
  side:
    environment:
      CACHE_URL: redis://127.0.0.1:6379/2
"""


def linked(more: dict[str, Any], **outcomes: str) -> tuple[Desired, World, Links]:
    """The shop with addresses, some of them wrong, and what asking for them found."""
    desired = shop(**more)
    for name, body in yaml.safe_load(LINKS)["services"].items():
        desired.services[name].setdefault("environment", {}).update(body["environment"])  # type: ignore[index]
    world = well(desired)
    declared, state = world.declared(desired), world.state()
    files = {"compose.yaml": LINKS}
    asked = classify_links(desired.spec, files, declared).links
    results = {
        name_check(link): CheckResult(
            name=name_check(link),
            outcome=outcomes.get(link.variable, "passed"),  # type: ignore[arg-type]
            evidence=f"{name_check(link)}: {outcomes.get(link.variable, 'it answers')}",
        )
        for link in asked
    }
    links = classify_asked(desired, declared, state, results, files=files)
    return desired, world, add_patch(links, files, None)


@scenario
def links_that_are_wrong() -> Plan:
    """A wrong address that nobody answers, one that is answered, and a right one that is not."""
    desired, world, links = linked({"links": {}}, REDIS_URL="failed", QUEUE="failed")
    return plan(desired.spec, desired.files, desired.digest, world.state(), links=links)


@scenario
def links_that_are_corrected() -> Plan:
    """What a file of ours corrects is told; so is an application that ignores it."""
    more = {"links": {"on_conflict": "override"}}
    desired, world, links = linked(more, REDIS_URL="failed", CACHE_URL="failed")
    files = {"compose.yaml": LINKS}
    correction = make_correction(desired.spec, files, world.declared(desired), links, world.state())
    (change, *_) = correction.changes
    links = add_patch(links, files, leave(correction, ["web.REDIS_URL"])).model_copy(
        update={
            "judgements": (),
            "unheard": find_unheard(
                [change], {change.service: [f"error: {change.old}: connection refused"]}
            ),
        }
    )
    return plan(desired.spec, desired.files, desired.digest, world.state(), links=links)


def failing_beside(wrong: str, calls: Mapping[str, Any], **changes: Any) -> Plan:
    """The plan of a failing page whose service has a wrong address, and what came of its calls."""
    checks = [{"kind": "http", "name": "page", "url": "http://127.0.0.1:8080/"}]
    desired, world, links = linked({"checks": checks})
    if wrong:
        (judgement,) = [one for one in links.judgements if one.subject == "web.REDIS_URL"]
        address = judgement.address.model_copy(update={"target": "redis", "port": int(wrong)})
        judgement = judgement.model_copy(update={"address": address})
        links = links.model_copy(update={"judgements": (judgement,)})
    failing = CheckResult(name="page", outcome="failed", evidence="page: status 503")
    hops = [
        CheckResult(name=name, outcome=outcome, evidence=f"ask: it is {outcome}")
        for name, outcome in calls.items()
    ]
    return plan(
        desired.spec,
        desired.files,
        desired.digest,
        world.state(),
        None,
        [failing],
        hops=hops,
        links=links.model_copy(update={"results": {}, **changes}),
    )


@scenario
def links_of_a_failing_check() -> Plan:
    """Without the section they stand in the evidence of what fails, and nothing is restarted."""
    return failing_beside("", {})


@scenario
def links_of_a_failing_check_that_passed_with_them() -> Plan:
    """The stack was proven with the same addresses: they are named, and the rest is mended."""
    return failing_beside("", {}, proven=True)


@scenario
def links_of_a_failing_check_beside_a_broken_service() -> Plan:
    """What does not even answer itself is restarted, whatever the addresses are."""
    calls = {"web → redis:6379": "failed", "redis:6379 in its own network": "failed"}
    return failing_beside("", calls)


@scenario
def links_of_a_failing_check_by_which_a_call_fails() -> Plan:
    """Who is called by a wrong address is not to blame."""
    calls = {"web → redis:6379": "failed", "redis:6379 in its own network": "failed"}
    return failing_beside("6379", calls)


# Secrets


@scenario
def secrets_are_masked() -> Plan:
    """By their values, by their names, and inside URLs; in what changed and in what was said."""
    desired = shop(env={"PIN": SecretStr("tr0ub4dor&3")})
    environment = {
        "MODE": "run with tr0ub4dor&3",
        "REDIS_PASSWORD": "battery staple",
        "URL": "redis://me:pa55word@redis/0",
    }
    other = changed(
        desired,
        environment=environment,
        command=["serve", "--pin", "tr0ub4dor&3"],
        volumes=[{"type": "bind", "source": "/srv/tr0ub4dor&3", "target": "/srv"}],
    )
    world = well(desired)
    world.damage("redis", health="unhealthy", health_output="AUTH correct horse failed")
    world.damage("side", status="created", error='exec: "tr0ub4dor&3": not found', **ENDED)
    return world.observe(other)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_plan(name: str) -> None:
    build = SCENARIOS[name]
    text = f"# {build.__doc__}\n" if build.__doc__ else ""
    text += render(build())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    desired = path.read_text(encoding="utf-8") if path.exists() else ""
    if text != desired:
        lines = difflib.unified_diff(
            desired.splitlines(), text.splitlines(), "golden", "now", "", "", 99
        )
        pytest.fail("\n".join(lines), pytrace=False)


def test_every_text_belongs_to_a_scenario() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SCENARIOS)


def test_every_kind_and_every_verb_is_shown() -> None:
    plans = [build() for build in SCENARIOS.values()]
    kinds = {finding.kind for decided in plans for finding in decided.findings}
    assert kinds == set(get_args(Kind))
    classes = {type(action) for decided in plans for action in decided.actions}
    # What a rollback does is no answer to what a host shows.
    assert classes == set(get_args(Action)) - {RestoreFiles}


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_refusal_comes_with_no_action_and_a_way_out(name: str) -> None:
    decided = SCENARIOS[name]()
    assert not (decided.refusals and decided.actions)
    assert all(refusal.remedy for refusal in decided.refusals)
    assert all(action.cause for action in decided.actions)
    assert all(action.undo for action in decided.actions if action.destructive)


@pytest.mark.parametrize(
    ("kind", "reason", "remedy"),
    [
        ("link", f"{DIRECTORY}/conf is a link", f"remove {DIRECTORY}/conf"),
        ("directory", f"{DIRECTORY}/conf is a directory", f"move {DIRECTORY}/conf elsewhere"),
        ("other", f"{DIRECTORY}/conf is neither the file", f"move {DIRECTORY}/conf elsewhere"),
        (
            "large",
            f"{DIRECTORY}/conf is larger than any file of a project",
            f"move {DIRECTORY}/conf elsewhere",
        ),
        ("odd", "names '", "remove its list of the project's files"),
    ],
)
@pytest.mark.parametrize("seen", ["in the record", "by Compose"])
def test_what_is_in_the_way_of_files_is_a_refusal(
    kind: str, reason: str, remedy: str, seen: str
) -> None:
    """Although nothing else is to be done, and whether the record knows of the file or not."""
    desired = shop()
    world = well(desired)
    state, declared = world.state(), world.declared(desired)
    if seen == "in the record":
        state = state.model_copy(update={"obstacles": {"conf": kind}})
    else:
        declared = declared.model_copy(update={"obstacles": {"conf": kind}})
    decided = plan(desired.spec, desired.files, desired.digest, state, declared)
    (refusal,) = decided.refusals
    assert reason in refusal.reason
    assert remedy in refusal.remedy
    assert not decided.actions
