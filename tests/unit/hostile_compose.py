"""The compose room's host: containers, images and networks of others beside a project's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from stackmend.compose.facts import ComposeStack
from stackmend.compose.observer import Observer
from stackmend.compose.source import File, Source, is_service_name
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Declared, Surroundings
from stackmend.connection import Unknown
from stackmend.errors import StepError
from tests import hostile
from tests.unit.hostile_engine import LABEL, compose_labels, container
from tests.unit.hostile_host import HostileHost, stand_in
from tests.unit.hostile_room import Dump, Room, Slot, at, told_as

SHOP = "/home/shop"
_SHOP_MARK = hostile.computed("shop", SHOP)
_BODIES = (
    f"{'0' * 64}  ../../root/victim",
    f"{'0' * 64}|shop-web-1|shop|shop_default",
    "shop|x",
    'shop"},{"com.docker.compose.project":"shop',
    "x,shop_default",
)
_APPLIED = {
    "project": "shop",
    "directory": SHOP,
    "source": "0" * 64,
    "files": {"compose.yaml": "0" * 64, "a b.conf": "0" * 64, "gone": "0" * 64},
    "config": {"services": {"web": {"image": "lab/box:1"}}},
    "services": {"web": {"image": "lab/box:1", "image_id": "sha256:" + "a" * 64, "shape": {}}},
    "applied_at": 1,
}
_COMPOSE = {"sections": ("files", "outside", "names", "containers", "networks", "images", "mends")}


def _label(**more: Any) -> st.SearchStrategy[str]:
    return hostile.hostile_label(_SHOP_MARK, bodies=_BODIES, **_COMPOSE, **more)


def _path() -> st.SearchStrategy[str]:
    return _label().map(lambda value: "/" + value.replace("\0", ""))


def _lay_compose(host: HostileHost, values: Mapping[str, Any]) -> None:
    def of(slot: str, otherwise: Any) -> Any:
        return values.get(slot, otherwise)

    host.clear("var/lib", "home")
    host.write("home/shop/compose.yaml", "services: {}\n")
    host.write("home/shop/a b.conf", "x\n")
    state = "var/lib/stackmend/shop"
    host.write(f"{state}/applied.json", json.dumps(_APPLIED))
    host.write(f"{state}/files", "compose.yaml\na b.conf\ngone\n")
    host.write(f"{state}/images", "lab/box:1\n")
    host.write(f"{state}/mends", "1800000000 restart web\n")
    host.write(f"{state}/stale/web", "")
    network = {
        "NetworkID": "9" * 64,
        "IPAddress": "172.20.0.2",
        "Aliases": [of("alias", "guest")],
    }
    host.engine.networks = [
        {"Name": "shop_default", "Id": "9" * 64, "Driver": "bridge", "Labels": {}},
        {"Name": of("network", "other"), "Id": "8" * 64, "Driver": "bridge", "Labels": {}},
    ]
    host.engine.images = {
        "lab/box:1": {
            "Id": f"sha256:{'a' * 64}",
            "Config": {
                "Volumes": {of("volume of an image", "/data"): {}},
                "Env": [f"A={of('variable of an image', '1')}"],
                "ExposedPorts": {of("port of an image", "80/tcp"): {}},
            },
        }
    }
    host.engine.containers = [
        container(
            1,
            "shop-web-1",
            Config={
                "Image": "lab/box:1",
                "Hostname": "1" * 12,
                "Cmd": ["serve", of("command", "x")],
                "Env": ["A=1", f"B={of('variable', '2')}"],
                "Labels": compose_labels(
                    "shop",
                    "web",
                    **{
                        "project.working_dir": of("working directory", SHOP),
                        "container-number": of("number", "1"),
                        "oneoff": of("oneoff", "False"),
                    },
                ),
            },
            NetworkSettings={"Networks": {"shop_default": {**network, "Aliases": ["web"]}}},
        ),
        container(
            2,
            "guest",
            State={
                "Error": of("error", "no"),
                "Health": {
                    "Status": "unhealthy",
                    "Log": [{"ExitCode": 1, "Output": of("health", "bad")}],
                },
            },
            Config={
                "Image": "lab/box:1",
                "Hostname": "2" * 12,
                "Cmd": None,
                "Env": [],
                "Labels": {
                    LABEL + "project": of("project of a guest", "else"),
                    LABEL + "service": of("service of a guest", "thing"),
                    of("name of a label", "maintainer"): "x",
                },
            },
            Mounts=[
                {
                    "Type": "bind",
                    "Source": of("source of a mount", "/srv"),
                    "Destination": of("mount", "/data"),
                    "RW": True,
                }
            ],
            NetworkSettings={"Networks": {"shop_default": network}},
        ),
        container(
            3,
            "mydebug",
            Config={
                "Image": "snap:1",
                "Hostname": "3" * 12,
                "Cmd": None,
                "Env": [],
                "Labels": {
                    LABEL + "project": of("project", "mine"),
                    LABEL + "service": of("service", "debug"),
                    "note": of("label", "x"),
                },
            },
            NetworkSettings={"Networks": {of("network", "other"): network}},
        ),
    ]


def _project_of_a_guest(dump: Dump, value: str) -> None:
    dump["names"]["guest"] = value
    dump["neighbours"][0]["project"] = value
    dump["neighbours"][0]["labels"][LABEL + "project"] = value
    dump["neighbours"][0]["shape"]["labels"][LABEL + "project"] = value


def _service_of_a_guest(dump: Dump, value: str) -> None:
    dump["neighbours"][0]["service"] = value
    dump["neighbours"][0]["labels"][LABEL + "service"] = value
    dump["neighbours"][0]["shape"]["labels"][LABEL + "service"] = value
    _rename_elsewhere(dump, "thing", value)


def _service(dump: Dump, value: str) -> None:
    _rename_elsewhere(dump, "debug", value)


def _rename_elsewhere(dump: Dump, before: str, value: str) -> None:
    named = {value} if is_service_name(value) else set()
    dump["elsewhere"] = tuple(sorted({*dump["elsewhere"]} - {before} | named))


def _label_of_a_guest(dump: Dump, value: str) -> None:
    labels = dump["neighbours"][0]["shape"]["labels"]
    del labels["maintainer"]
    labels[value] = "x"


def _alias(dump: Dump, value: str) -> None:
    dump["neighbours"][0]["endpoints"]["shop_default"]["aliases"] = (value,)
    dump["neighbours"][0]["shape"]["networks"]["shop_default"]["aliases"] = [value]


def _mount(dump: Dump, value: str) -> None:
    volumes = dump["neighbours"][0]["shape"]["volumes"]
    volumes[value] = volumes.pop("/data")


def _network(dump: Dump, value: str) -> None:
    del dump["networks"]["other"]
    dump["networks"][value] = "8" * 64
    dump["network_labels"][value] = dump["network_labels"].pop("other")


def _oneoff(dump: Dump, value: str) -> None:
    dump["containers"][0]["oneoff"] = value.lower() == "true"
    dump["containers"][0]["labels"][LABEL + "oneoff"] = value
    dump["containers"][0]["shape"]["labels"][LABEL + "oneoff"] = value


def _working_directory(dump: Dump, value: str) -> None:
    dump["containers"][0]["working_dir"] = value
    dump["containers"][0]["labels"][LABEL + "project.working_dir"] = value


def _number(dump: Dump, value: str) -> None:
    dump["containers"][0]["labels"][LABEL + "container-number"] = value
    dump["containers"][0]["number"] = (
        int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    )


COMPOSE = Room(
    name="compose",
    facts=[(ComposeStack, {"project": "shop", "directory": SHOP})],
    lay=_lay_compose,
    passing=frozenset({"now"}),
    scripts=frozenset({"compose/probe.sh", "compose/images.sh"}),
    few=30,
    many=1700,
    slots=[
        Slot("project", _label().filter(lambda v: v != "shop"), at("names", "mydebug")),
        Slot("service", _label(), _service),
        Slot("label", _label()),
        # One whose name lists ours is looked at with ours, and what is in it told of.
        Slot("network", _label(longest=200).filter(lambda v: v.strip() and "," not in v), _network),
        Slot("project of a guest", _label().filter(lambda v: v != "shop"), _project_of_a_guest),
        Slot("service of a guest", _label(), _service_of_a_guest),
        Slot(
            "name of a label",
            _label().filter(lambda v: not v.startswith(LABEL)),
            _label_of_a_guest,
        ),
        Slot("alias", _label().filter(bool).map(lambda v: f"a{v}"), _alias),
        Slot(
            "source of a mount", _path(), at("neighbours", 0, "shape", "volumes", "/data", "source")
        ),
        Slot("mount", _path(), _mount),
        Slot("error", _label(), at("neighbours", 0, "error")),
        Slot("health", _label(), told_as(str.strip, "neighbours", 0, "health_output")),
        Slot(
            "command",
            _label(),
            told_as(lambda value: ["serve", value], "containers", 0, "shape", "command"),
        ),
        Slot("variable", _label(), at("containers", 0, "shape", "environment", "B")),
        Slot("working directory", _label(), _working_directory),
        Slot("number", _label() | st.sampled_from(["7", "²", "٣", "9" * 5000, "-1", ""]), _number),
        Slot(
            "oneoff",
            _label(),
            _oneoff,
        ),
        Slot(
            "volume of an image",
            _path(),
            told_as(lambda value: (value,), "images", "lab/box:1", "volumes"),
        ),
        Slot("variable of an image", _label(), at("images", "lab/box:1", "env", "A")),
        Slot(
            "port of an image",
            _label(),
            told_as(lambda value: (value,), "images", "lab/box:1", "ports"),
        ),
    ],
)


# compose/resolve.sh

_PLUGIN = """
case "$*" in
  docker-cli-plugin-metadata)
    echo '{"SchemaVersion": "0.1.0", "Vendor": "Docker Inc.", "Version": "v2.26.1"}' ;;
  *' config --format json') cat "$say/config" && cat "$say/problem" >&2 ;;
  *' config --hash '*) echo "web $(printf %064d 0)" ;;
  *' config --images') echo lab/box:1 ;;
  *' version --short') echo 2.26.1 ;;
esac
"""


def _lay_resolved(host: HostileHost, values: Mapping[str, Any]) -> None:
    def of(slot: str, otherwise: Any) -> Any:
        return values.get(slot, otherwise)

    host.clear("home")
    plugin = host.path("root/.docker/cli-plugins/docker-compose")
    if not plugin.exists():
        plugin.parent.mkdir(parents=True)
        stand_in(plugin, f"say={host.root}/say\n{_PLUGIN}")
    host.write("home/shop/compose.yaml", of("file on the host", b"services: {}\n"))
    # Compose writes each dollar twice.
    variable = of("variable", "1").replace("$", "$$")
    web = {"image": "lab/box:1", "environment": {"A": variable}}
    host.says("config", json.dumps({"name": "shop", "services": {"web": web}}, indent=2) + "\n")
    host.says("problem", of("problem", "") + "\n")
    host.engine.images = {
        "lab/box:1": {
            "Id": f"sha256:{'a' * 64}",
            "Config": {
                "Volumes": {of("volume of an image", "/data"): {}},
                "Env": [f"A={of('variable of an image', '1')}"],
                "ExposedPorts": {of("port of an image", "80/tcp"): {}},
            },
        }
    }
    ours = {LABEL + "project": "shop", "note": of("label", "x")}
    host.engine.networks = [
        {"Name": "shop_default", "Id": "9" * 64, "Driver": "bridge", "Labels": ours},
        {
            "Name": of("network", "other"),
            "Id": "8" * 64,
            "Driver": "bridge",
            "Labels": ours,
            "Options": {"o": of("option", "x")},
        },
    ]


def _declared(host: HostileHost, shell: str) -> Declared | Unknown:
    spec = ComposeSpec.model_validate({"project": "shop", "source": ".", "directory": SHOP})
    source = Source({"compose.yaml": File(0o644, _FILE)})
    try:
        return Observer(host.hosts[shell], spec, source).resolve({})  # type: ignore[arg-type]
    except StepError as error:
        return Unknown(str(error))


def _declared_network(dump: Dump, value: str) -> None:
    dump["networks"][value] = dump["networks"].pop("other")


def _differs(dump: Dump, value: bytes) -> None:
    if value != _FILE:
        dump["differs"], dump["hashes"] = ("compose.yaml",), {}


_FILE = b"services: {}\n"

RESOLVE = Room(
    name="resolve",
    read=_declared,
    lay=_lay_resolved,
    scripts=frozenset({"compose/resolve.sh", "compose/images.sh", "connection/walk.sh"}),
    few=15,
    many=500,
    slots=[
        Slot("option", _label(), at("networks", "other", "driver_opts", "o")),
        Slot(
            "network",
            _label(longest=500).filter(lambda v: v.strip() and v != "shop_default"),
            _declared_network,
        ),
        Slot("label", _label()),
        Slot("problem", _label()),
        Slot("variable", _label(), at("config", "services", "web", "environment", "A")),
        Slot(
            "volume of an image",
            _path(),
            told_as(lambda value: (value,), "images", "lab/box:1", "volumes"),
        ),
        Slot("variable of an image", _label(), at("images", "lab/box:1", "env", "A")),
        Slot(
            "port of an image",
            _label(),
            told_as(lambda value: (value,), "images", "lab/box:1", "ports"),
        ),
        Slot("file on the host", hostile.hostile_bytes(**_COMPOSE, nul=True), _differs),
    ],
)


# compose/free.sh


def _lay_mounts(host: HostileHost, values: Mapping[str, Any]) -> None:
    if host.path("home/mounted").exists():
        host.run("umount", host.path("home/mounted").read_bytes())
    host.clear("home")
    place = b"/home/" + values.get("name of a directory", b"engine")
    host.path(place).mkdir()
    # Who mounts says what it is that is mounted.
    what = values.get("what is mounted", b"disk")
    host.run("mount", "-t", "tmpfs", "-o", "size=1m", b"x" + what, place)
    if place != b"/home/engine":
        host.path("/home/engine").symlink_to(os.fsdecode(place))
    host.write("home/mounted", place)


def _free(host: HostileHost, shell: str) -> Free:
    spec = ComposeSpec.model_validate({"project": "shop", "source": ".", "directory": SHOP})
    return Free(free=Observer(host.hosts[shell], spec, Source({})).measure_free())  # type: ignore[arg-type]


class Free(BaseModel):
    """What is free, by path."""

    free: dict[str, int]


def _only_the_engines(state: Free) -> Dump:
    return {
        "free": state.free.get("/home/engine"),
        "paths": sorted(state.free),
    }


_MOUNT = {"bodies": (" 1 2 3 4% /", "\n9|/\n", " 9 9 9 9 9% /home/engine", "|/")}

FREE = Room(
    name="free",
    read=_free,
    lay=_lay_mounts,
    scripts=frozenset({"compose/free.sh"}),
    dump=_only_the_engines,
    few=10,
    many=300,
    slots=[
        Slot("what is mounted", hostile.hostile_bytes(**_MOUNT, longest=1000)),
        Slot("name of a directory", hostile.hostile_name(**_MOUNT)),
    ],
)


# compose/surroundings.sh


def _lay_surroundings(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("home")
    pools = [{"Subnet": "10.9.0.0/16"}, {"Gateway": values.get("gateway", "10.9.0.1")}]
    host.engine.networks = [
        {
            "Name": values.get("network", "theirs"),
            "Id": "9" * 64,
            "IPAM": {"Config": pools},
            "Options": {"o": values.get("option", "x")},
        }
    ]


def _surroundings(host: HostileHost, shell: str) -> Surroundings:
    spec = ComposeSpec.model_validate({"project": "shop", "source": ".", "directory": SHOP})
    mounts = [
        {"type": "bind", "source": f"/home/{name}.conf", "target": "/etc/app.conf"}
        for name in ("gone", "absent' $(id)")
    ]
    declared = Declared(config={"services": {"web": {"volumes": mounts}}})
    return Observer(host.hosts[shell], spec, Source({})).read_surroundings(declared)  # type: ignore[arg-type]


def _known_surroundings(state: Surroundings) -> Dump:
    return {"subnets": dict(state.subnets), "absent": state.absent, "gpus": state.gpus}


def _network_around(dump: Dump, value: str) -> None:
    dump["subnets"][value] = dump["subnets"].pop("theirs")


SURROUNDINGS = Room(
    name="surroundings",
    read=_surroundings,
    lay=_lay_surroundings,
    scripts=frozenset({"compose/surroundings.sh"}),
    dump=_known_surroundings,
    few=10,
    many=300,
    slots=[
        Slot("network", _label(longest=500).filter(lambda v: v.strip()), _network_around),
        Slot("gateway", _label()),
        Slot("option", _label()),
    ],
)
