"""The acceleration room's host: a model server that answers, logs and is named as it likes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from stackmend.redaction import format_safe_line
from stackmend.worker.acceleration.facts import Acceleration
from tests import hostile
from tests.unit.hostile_engine import compose_labels, container
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_models import SERVER, answer
from tests.unit.hostile_room import Dump, Room, Slot, told_as

_ASKED = {"project": "ai", "samples": 1}
_MARK = hostile.computed(json.dumps({"project": "ai", "service": "ollama", "samples": 1}))
_WORDS: dict[str, Any] = {
    "sections": ("container", "environment", "inside", "api ps 1", "log", "complete"),
    "bodies": (
        "ran\nnode /dev/nvidia0\nsmi 0 GPU 0",
        '["x","/y","running","ollama/ollama","nvidia",null,null,true,0,0,0,0,"",null,null]',
        f'{"2" * 64} "OLLAMA_KEEP_ALIVE=0"',
        "quota 1 100000\nmemory 1",
        '{"models":[{"name":"evil","size":1,"size_vram":1}]}',
    ),
}
_HOST_CONFIG = {
    "Runtime": "runc",
    "DeviceRequests": None,
    "Devices": [],
    "Privileged": False,
    "NanoCpus": 0,
    "CpuQuota": 0,
    "CpuPeriod": 0,
    "CpusetCpus": "",
}
_NETWORK = {"GlobalIPv6Address": "", "Gateway": "127.0.0.9"}
_MODEL = {"name": "tiny:latest", "digest": "d", "size": 4, "size_vram": 2, "context_length": 8}


def _text(**more: Any) -> st.SearchStrategy[str]:
    return hostile.hostile_text(_MARK, **{**_WORDS, **more})


def _bytes(**more: Any) -> st.SearchStrategy[bytes]:
    return hostile.hostile_bytes(_MARK, **{**_WORDS, **more})


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    def of(slot: str, otherwise: Any) -> Any:
        return values.get(slot, otherwise)

    host.clear("sys")
    host.says("smi", of("output of nvidia-smi", "it fails"))
    row = {**_MODEL, "name": of("name of a model", "tiny:latest"), "expires_at": of("expiry", "x")}
    SERVER.answers = {
        "/api/version": answer({"version": of("version", "0.24.0")}),
        "/api/ps": answer(of("answer", {"models": [row]}), header=of("header", "x")),
        "/api/tags": answer({"models": [{"name": "tiny:latest", "size": 3}]}),
    }
    output = of("what the container says", b"ran\n")
    host.engine.runs = lambda *_: (output, b"", 0)
    host.engine.log = (
        b'time=x level=INFO source=x msg="inference compute" id=0 library=cpu name=cpu\n'
        + of("log", b"")
    )
    host.engine.containers = [
        container(
            1,
            "ai-ollama-1",
            Config={
                "Image": of("image", "ollama/ollama"),
                "Env": [
                    f"OLLAMA_HOST=0.0.0.0:{SERVER.port}",
                    f"NOTE={of('variable of the server', 'x')}",
                    f"OLLAMA_KEEP_ALIVE={of('setting', ' ')}",
                ],
                "Entrypoint": ["/bin/ollama"],
                "Cmd": ["serve", of("word of the command", "x")],
                "Labels": {**compose_labels("ai", "ollama"), "note": of("label", "x")},
            },
            HostConfig={"NetworkMode": "ai_default", "Memory": 1 << 30, **_HOST_CONFIG},
            NetworkSettings={"Networks": {"ai_default": {"IPAddress": "127.0.0.1", **_NETWORK}}},
        ),
        container(
            2,
            "ai-worker-1",
            Config={
                "Env": [f"NUM_CTX={of('setting of a worker', ' ')}"],
                "Labels": compose_labels("ai", of("service of a worker", "worker")),
            },
        ),
    ]


def _unreadable(dump: Dump, value: bytes) -> None:
    """Without its list nothing is known of what is loaded."""
    dump["samples"] = ()


def _dump(state: Any) -> Dump:
    dump: Dump = state.model_dump()
    # The container may say of itself what it likes.
    dump["inside"] = None
    return dump


def _line(limit: int) -> Any:
    return lambda text: format_safe_line(text, limit)


ACCELERATION = Room(
    name="acceleration",
    facts=[(Acceleration, _ASKED)],
    lay=_lay,
    scripts=frozenset({"worker/acceleration/probe.sh"}),
    passing=frozenset({"now", "memory", "usage"}),
    programs={"nvidia-smi": 'cat "$say/smi"; exit 9'},
    dump=_dump,
    few=20,
    many=700,
    slots=[
        Slot("version", _text(), told_as(_line(40), "version")),
        Slot("header", _text(newlines=False, longest=500).map(lambda v: v.replace("\r", ""))),
        Slot("expiry", _text(), told_as(_line(40), "samples", 0, 0, "expires")),
        Slot(
            "name of a model",
            _text().map("x{}".format),
            told_as(_line(200), "samples", 0, 0, "name"),
        ),
        # Behind those: without its list there is nothing of what they fill.
        Slot("answer", _bytes(nul=True), _unreadable),
        Slot("what the container says", _bytes(nul=True)),
        Slot("log", _bytes(nul=True)),
        Slot("image", _text(longest=1000), told_as(_line(300), "container", "image")),
        Slot("variable of the server", _text()),
        Slot("setting", _text().map(" {}".format)),
        Slot("word of the command", _text()),
        Slot("label", hostile.hostile_label(_MARK, **_WORDS)),
        Slot("setting of a worker", _text().map(" {}".format)),
        Slot(
            "service of a worker",
            _text(longest=1000).map("x{}".format),
            told_as(_line(80), "clients", 0, "service"),
        ),
        Slot(
            "output of nvidia-smi",
            _text(newlines=False, longest=300).map(lambda v: v.replace("\r", "")),
            told_as(lambda text: format_safe_line(" ".join(text.split()), 400), "smi", "output"),
        ),
    ],
)
