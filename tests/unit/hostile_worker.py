"""The worker room's host: a project's containers, by what their images, commands and files say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackmend.redaction import format_safe_line, redact_likely
from stackmend.worker.move.facts import LONGEST_WORD, WorkerMove
from tests import hostile
from tests.unit.hostile_engine import compose_labels, container
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, at

_SECTIONS = {
    "sections": (
        "record",
        "layer",
        "containers",
        "images",
        "processes",
        "gpu",
        "free",
        "memory",
        "volumes",
        "engine",
        "read",
    ),
    "bodies": ('{"version":1}', "1\tlibrary\t/usr/lib/libllama.so", "1\tfile\t5\t/x.gguf", "[]"),
}


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("var/lib", "home")
    host.engine.networks = []
    image = {"Id": f"sha256:{'a' * 64}", "Config": {"Labels": {"x": values.get("label", "y")}}}
    host.engine.images = {"lab/box:1": image}
    host.engine.containers = [
        container(
            1,
            "shop-llm-1",
            Config={
                "Image": values.get("image", "lab/box:1"),
                "Cmd": ["serve", values.get("command", "x")],
                "Env": ["PORT=80", f"SECRET={values.get('variable', '1')}"],
                "Labels": compose_labels("shop", "llm"),
            },
            NetworkSettings={
                "Networks": {"shop_default": {"IPAddress": "172.20.0.2"}},
                "Ports": {},
            },
        ),
        container(
            2,
            "else-llm-1",
            Config={
                "Image": "lab/box:1",
                "Labels": {
                    "com.docker.compose.project": values.get("project", "else"),
                    "com.docker.compose.service": "llm",
                },
            },
        ),
    ]


def _command(dump: Dump, value: str) -> None:
    # Shown as one line, without what looks like a secret.
    safe = redact_likely(format_safe_line(value, LONGEST_WORD))
    dump["runners"][0]["command"] = ("serve", safe)


def _text(**more: Any) -> Any:
    return hostile.hostile_text(**_SECTIONS, **more)


WORKER = Room(
    name="worker",
    facts=[(WorkerMove, {"project": "shop"})],
    lay=_lay,
    passing=frozenset({"free", "available", "gpu_free"}),
    scripts=frozenset({"worker/move/probe.sh"}),
    few=15,
    many=400,
    slots=[
        Slot("label", _text(), at("runners", 0, "image_labels", "x")),
        # What follows the name of a secret is not kept.
        Slot("command", _text().filter(lambda v: not v.startswith("-")), _command),
        Slot("variable", _text()),
        Slot("project", _text().filter(lambda v: v != "shop")),
    ],
)
