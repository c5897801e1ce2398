"""The benchmark room's host: a server whose settings, and a record whose content, anybody wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from stackmend.worker.benchmark.facts import BenchmarkHost, clean_line
from tests import hostile
from tests.unit.hostile_engine import compose_labels, container
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, told_as

_RECORD = "/var/lib/stackmend/benchmarks/x.json"
_ASKED = {"project": "ai", "record": _RECORD}
_MARK = hostile.computed(json.dumps(_ASKED))
_WORDS: dict[str, Any] = {
    "sections": (
        *("clock", "record", "cpu", "cores", "memory", "gpus", "engine", "complete"),
        *(f"server {'1' * 64}", f"worker {'2' * 64}", "limits 1", "process 1"),
        *(f"queue {'3' * 64}", "usage"),
    ),
    "bodies": (
        'setting "OLLAMA_NUM_PARALLEL=99"',
        "cpu 1 100000\nmemory 1\nthreads 999",
        "threads 999",
        'address "10.0.0.1"',
        '{"schema_version": 1}',
        "evil, 1, 1, 1",
        "1 0.1 0 0\n1 0.6 99 9",
    ),
}


def _text(**more: Any) -> st.SearchStrategy[str]:
    return hostile.hostile_text(_MARK, **{**_WORDS, **more})


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    def of(slot: str, otherwise: Any) -> Any:
        return values.get(slot, otherwise)

    host.clear("var/lib", "sys")
    host.write(_RECORD.lstrip("/"), of("record", b"no record"))
    host.says("smi", f"{of('name of a GPU', 'GPU')}, 1024, 1000, 550.1\n")
    host.engine.containers = [
        container(
            1,
            "ai-ollama-1",
            Args=["serve", of("argument", "x")],
            Config={
                "Env": [
                    f"OLLAMA_NOTE={of('setting', 'x')}",
                    f"OLLAMA_API_KEY={of('secret', 'x')}",
                    f"NOTE={of('variable', 'x')}",
                ],
                "Labels": {**compose_labels("ai", "ollama"), "note": of("label", "x")},
            },
            HostConfig={"NetworkMode": "ai_default"},
            NetworkSettings={
                "Networks": {
                    "ai_default": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": ""},
                }
            },
        ),
        container(
            2, "ai-other-1", Config={"Labels": compose_labels("ai", of("service", "worker"))}
        ),
    ]


def _is_command(text: str) -> bool:
    """Whether an argument is no option."""
    return not text.startswith("-")


def _keep_setting(text: str) -> str:
    harmless = re.fullmatch(
        r"-?[0-9]{0,9}(\.[0-9]{1,6})?|(?i:true|false|on|off|yes|no|auto|none)", text
    )
    return f"OLLAMA_NOTE={text if harmless else '…'}"


def _keep_argument(text: str) -> str:
    plain = re.fullmatch(r"[a-z][a-z0-9_.-]{0,30}|/[A-Za-z0-9_./-]{1,120}", text)
    return f"arguments: serve {text if plain else '…'}"


BENCHMARK = Room(
    name="benchmark",
    facts=[(BenchmarkHost, _ASKED)],
    lay=_lay,
    scripts=frozenset({"worker/benchmark/probe.sh"}),
    programs={"nvidia-smi": 'cat "$say/smi"', "sleep": ":"},
    passing=frozenset({"now", "available", "swap"}),
    few=15,
    many=600,
    slots=[
        Slot(
            "setting",
            _text(),
            told_as(_keep_setting, "servers", 0, "settings", 0),
        ),
        Slot(
            "argument",
            _text().filter(_is_command),
            told_as(_keep_argument, "servers", 0, "settings", 1),
        ),
        Slot("secret", _text()),
        Slot("variable", _text()),
        Slot("label", hostile.hostile_label(_MARK, **_WORDS)),
        Slot("service", _text(longest=1000).filter(lambda text: text != "ollama")),
        Slot("record", hostile.hostile_bytes(_MARK, **_WORDS, nul=True)),
        Slot(
            "name of a GPU",
            _text(newlines=False).map(lambda text: text.replace("\r", "")),
            told_as(lambda text: clean_line(text), "gpus", 0, "name"),
        ),
    ],
    dump=lambda state: _listed(state.model_dump()),
)


def _listed(dump: Dump) -> Dump:
    """Settings as a list, whose entries are slots; without what changes from moment to moment."""
    dump["servers"] = [
        {**server, "settings": list(server["settings"]), "usage": None}
        for server in dump["servers"]
    ]
    dump["gpus"] = list(dump["gpus"])
    return dump
