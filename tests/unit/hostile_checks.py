"""The checks room's host: peers that answer anything, and commands in containers that say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from stackmend.checks import GreetingCheck, parse_checks
from stackmend.checks.facts import CheckResults
from stackmend.checks.greetings import read_greeting
from tests import hostile
from tests.unit.hostile_engine import compose_labels, container
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_models import SERVER, answer
from tests.unit.hostile_room import Dump, Room, Slot, decoded

_CHECKS: dict[str, Any] = {
    "sections": ("end", "checks", "fatal"),
    "bodies": (
        "\n0 result passed\n",
        "\n1 result passed\n2 result passed\n",
        "\nchecks 9\n",
        "\nend\n",
        "\nfatal x\n",
        "\n2 spec {}\n",
        f"\nweb 1 running {'2' * 64} evil\n",
        f"web 0 running {'2' * 64} evil",
        "HTTP/1.1 200 OK",
        "method curl",
    ),
}
_URL = f"http://127.0.0.1:{SERVER.port}"
_ASKED = [
    {"kind": "http", "url": f"{_URL}/well", "contains": "all is well", "timeout": 30},
    {"kind": "http", "url": f"{_URL}/ill", "timeout": 30},
    {"kind": "exec", "service": "web", "command": ["say"], "timeout": 30},
    {"kind": "exec", "service": "web", "command": ["fail"], "timeout": 30},
    {"kind": "greeting", "address": f"127.0.0.1:{SERVER.port}", "protocol": "http", "timeout": 30},
]


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    def of(slot: str, otherwise: Any) -> Any:
        return values.get(slot, otherwise)

    head = {"reason": of("reason", "OK"), "header": of("header", "x")}
    SERVER.answers = {
        # The text is looked for in the first MiB.
        "/well": answer(of("answer", b"")[:9999] + b"all is well" + of("answer", b""), **head),
        "/ill": answer(of("answer", b"no"), **{**head, "status": 500}),
        "/": of("greeting", b"HTTP/1.1 200 OK\r\n\r\n"),
    }
    said = of("output", b"no")

    def runs(argv: list[str], _: bytes) -> tuple[bytes, bytes, int]:
        return (said, b"", 0) if argv == ["say"] else (said, b"", 3)

    host.engine.runs = runs
    host.engine.containers = [
        container(1, "shop-web-1", Config={"Labels": compose_labels("shop", "web")}),
        container(
            2,
            "evil",
            Config={"Labels": compose_labels("shop", of("service", "other"))},
            State={"Error": of("error", "")},
        ),
    ]


def _shown(value: bytes) -> str:
    """What was said, as one line that a terminal does not obey, and no more than fits there."""
    return re.sub(r"[\0-\x1f\x7f-\x9f]", " ", decoded(value[:200])).strip()


def _said(dump: Dump, value: bytes) -> None:
    text = _shown(value)
    evidence = dump["results"][3]["evidence"].partition(";")[0]
    dump["results"][3]["evidence"] = f"{evidence}; it said{f': {text}' if text else ' nothing'}"


def _begins(dump: Dump, value: bytes) -> None:
    text = _shown(value)
    begins = [f"the answer begins: {text}"] if text else []
    dump["results"][1]["details"] = (*begins, *dump["results"][1]["details"][1:])


def _greets(dump: Dump, value: bytes) -> None:
    """What any first bytes are read as: they reach the reader as they were sent."""
    (check,) = parse_checks(_ASKED[4:])
    assert isinstance(check, GreetingCheck)
    outcome, text, remedy = read_greeting(check, value[:512])
    took = " in time" if outcome == "passed" else ""
    if outcome == "failed":
        # The diagnosis is that of another check of the same port, but for what it was answered.
        dump["results"][4]["details"] = dump["results"][1]["details"][1:]
        dump["results"][4]["hints"] = dump["results"][1]["hints"]
    dump["results"][4] |= {
        "outcome": outcome,
        "evidence": f"{check.asked}: {text}{took}",
        "remedy": remedy,
    }


def _dump(state: Any) -> Dump:
    results = [one.model_dump() for one in state]
    for one in results:
        one["seconds"] = 0
        one["evidence"] = re.sub(r"in \d+ ms", "in time", one["evidence"])
    return {"results": results}


def _header(**more: Any) -> st.SearchStrategy[str]:
    text = hostile.hostile_text(**_CHECKS, newlines=False, longest=500, **more)
    return text.map(lambda value: value.replace("\r", ""))


CHECKS = Room(
    name="checks",
    facts=[
        (CheckResults, {"project": "shop", "checks": _ASKED, "attempts": 1, "diagnose": False}),
    ],
    lay=_lay,
    scripts=frozenset({"checks/probe.sh", "checks/attempt.sh"}),
    dump=_dump,
    few=10,
    many=400,
    slots=[
        Slot("answer", hostile.hostile_bytes(**_CHECKS, nul=True), _begins),
        Slot("reason", _header()),
        Slot("header", _header()),
        Slot("output", hostile.hostile_bytes(**_CHECKS, nul=True), _said),
        Slot("service", hostile.hostile_label(**_CHECKS).filter(lambda value: value != "web")),
        Slot("greeting", hostile.hostile_bytes(**_CHECKS, nul=True).filter(bool), _greets),
        Slot("error", hostile.hostile_label(**_CHECKS)),
    ],
)
