"""A real engine with what lies in it: the stand-in of the unit tests tells the same of the same."""

from __future__ import annotations

import shlex
from typing import Any

from stackmend.compose.facts import ComposeStack
from stackmend.compose.state import StackState
from stackmend.connection import fetch_facts
from tests import connected
from tests.hostile import KNOWN_MARK, computed, forged, quoting
from tests.lab.hosts import LabHost
from tests.unit.hostile_engine import LABEL, compose_labels, container
from tests.unit.hostile_host import hostile_host

ASKED = {"project": "shop", "directory": "/opt/shop"}
VICTIM = f"{'0' * 64}  ../../root/victim"

#: What `docker create` takes for a label, a variable and an argument.
VALUES = (
    forged(computed("shop", "/opt/shop"), "files", VICTIM),
    quoting(KNOWN_MARK, "files", VICTIM),
    "shop|x\nshop\r\n\t\x1b]0;owned\x07\x7f\x9b\u2028\u202e",
    'shop"],["' + "0" * 64 + '","shop_default","web","shop',
    '\\n\\"\\u0000 {{.ID}} <no value> &<>',
    "日本語 \U0001f525 " + "x" * 10_000,
)

#: What `docker network create` takes for a name.
NETWORKS = ('n|"x", shop_default', "a\nb", "[\\] {}")


def told(state: Any) -> dict[str, Any]:
    """What came of the values."""
    assert isinstance(state, StackState), state
    return {
        "names": {name: project for name, project in state.names.items() if name != "web"},
        "networks": sorted({*state.networks} - {"bridge", "host", "none"}),
        "ours": [one.name for one in state.containers],
        "files": dict(state.files),
        "neighbours": {
            one.name: (
                one.project,
                one.shape.get("command"),
                one.shape["environment"].get("NOTE"),
                one.shape["labels"].get("note"),
            )
            for one in state.neighbours
        },
    }


def test_a_real_engine_tells_what_the_stand_in_tells(host: LabHost) -> None:
    host.load_images("lab/box:1")
    create = ["docker", "network", "create"]
    words = [[*create, "shop_default"], *([*create, name] for name in NETWORKS)]
    labels = [f"--label={key}={value}" for key, value in compose_labels("shop", "web").items()]
    create = ["docker", "create", "--network=shop_default"]
    words.append([*create, "--name=web", *labels, "lab/box:1"])
    for number, value in enumerate(VALUES):
        more = [f"--label={LABEL}project={value}", f"--label=note={value}", f"--env=NOTE={value}"]
        words.append([*create, f"--name=odd{number}", *more, "lab/box:1", "echo", value])
    host.sh("set -e\n" + "\n".join(f"{shlex.join(line)} >/dev/null" for line in words))
    with connected.lab(host) as reached:
        (real,) = fetch_facts(reached, [(ComposeStack, ASKED)])

    network = {"shop_default": {"NetworkID": "9" * 64, "Aliases": []}}
    settings = {"NetworkSettings": {"Networks": network}}
    with hostile_host() as stand_in:
        stand_in.engine.networks = [
            {"Name": name, "Id": f"{number:x}" * 64, "Driver": "bridge", "Labels": {}}
            for number, name in enumerate(("shop_default", *NETWORKS))
        ]
        web = container(9, "web", Config={"Labels": compose_labels("shop", "web")}, **settings)
        stand_in.engine.containers = [web]
        for number, value in enumerate(VALUES):
            config = {
                "Labels": {LABEL + "project": value, "note": value},
                "Env": [f"NOTE={value}"],
                "Cmd": ["echo", value],
            }
            stand_in.engine.containers.append(
                container(number, f"odd{number}", Config=config, **settings)
            )
        (imitated,) = stand_in.fetch_facts("dash", [(ComposeStack, ASKED)])

    assert told(real)["names"] == {f"odd{at}": value for at, value in enumerate(VALUES)}
    assert told(real) == told(imitated)
