"""The host of the doctor's probe: containers, an engine and units that write what they like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stackmend.incidents.facts import LINES, RecentSymptoms
from stackmend.incidents.support import LINES as SUPPORT_LINES
from stackmend.incidents.support import SupportReading
from stackmend.redaction import format_foreign_lines, format_safe_line
from tests import hostile
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Room, Slot, decoded, told_as

_KNOWN = {
    "sections": ("clock", "containers", "events", "listening", f"log {'0' * 64}", "unit kernel"),
    "bodies": ("1700000000.0 host x: y", '["a","/b","c",true,"2026-01-01T00:00:00Z"]'),
}
_DOCKER = f"""
case $1 in
ps) echo {"0" * 64} ;;
inspect) cat "$say/inspect" ;;
logs) cat "$say/log" ;;
events) cat "$say/events" ;;
esac"""
_JOURNAL = """
case "$*" in
*" -u docker.service "*) cat "$say/journal" ;;
esac"""
_FIRST = b"it begins\n"


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    row = ["0" * 64, "/shop-web-1", values.get("service", "web"), False, "2026-01-01T00:00:00Z"]
    host.says("inspect", json.dumps(row) + "\n")
    for name in ("log", "events", "journal", "listening"):
        host.says(name, _FIRST + values.get(name, b""))


def _list_lines(value: bytes) -> tuple[dict[str, Any], ...]:
    """What is kept of a log: its end, without NUL, and the first 1000 bytes of each line."""
    ended = _FIRST + value
    lines = ended.removesuffix(b"\n").split(b"\n")[-LINES:]
    kept = b"\n".join(lines) + (b"\n" if ended.endswith(b"\n") else b"")
    kept = kept[-131072:].replace(b"\0", b"").removesuffix(b"\n")
    texts = (decoded(line[:1000]) for line in kept.split(b"\n"))
    return tuple({"text": format_safe_line(text), "age": None} for text in texts if text.strip())


def _log(name: str, at: int) -> Slot:
    # A time of its own would move with the clock.
    values = hostile.hostile_bytes(**_KNOWN, nul=True).filter(lambda value: b"17000" not in value)
    return Slot(name, values, told_as(_list_lines, "logs", at, "lines"))


SYMPTOMS = Room(
    name="symptoms",
    facts=[(RecentSymptoms, {})],
    lay=_lay,
    scripts=frozenset({"incidents/symptoms.sh"}),
    programs={"docker": _DOCKER, "journalctl": _JOURNAL, "ss": 'cat "$say/listening"'},
    many=1000,
    slots=[
        Slot(
            "service",
            hostile.hostile_label(**_KNOWN),
            told_as(format_safe_line, "logs", 0, "subject"),
        ),
        _log("log", 0),
        _log("events", 1),
        _log("journal", 2),
        Slot("listening", hostile.hostile_bytes(**_KNOWN, nul=True)),
    ],
)


_SUPPORT_DOCKER = f"""
case "$*" in
*'{{{{.ID}}}}'*) echo {"0" * 64} ;;
inspect*) cat "$say/inspect" ;;
logs*) cat "$say/log" ;;
ps*) cat "$say/table" ;;
esac"""


def _lay_support(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.says("inspect", json.dumps(values.get("name", "/shop-web-1")) + "\n")
    host.says("log", _FIRST + values.get("log", b""))
    host.says("table", _FIRST + values.get("table", b""))


def _list_support_lines(value: bytes) -> tuple[str, ...]:
    """What is kept of a log: its end, without NUL, and the first 2000 bytes of each line."""
    ended = _FIRST + value
    lines = ended.removesuffix(b"\n").split(b"\n")[-SUPPORT_LINES:]
    kept = b"\n".join(lines) + (b"\n" if ended.endswith(b"\n") else b"")
    kept = kept[-131072:].replace(b"\0", b"").removesuffix(b"\n")
    return format_foreign_lines(decoded(line[:2000]) for line in kept.split(b"\n"))


SUPPORT = Room(
    name="support",
    facts=[(SupportReading, {})],
    lay=_lay_support,
    scripts=frozenset({"incidents/support.sh"}),
    programs={"docker": _SUPPORT_DOCKER},
    # What the system says of itself.
    passing=frozenset({"versions", "tables", "names"}),
    slots=[
        Slot(
            "log",
            hostile.hostile_bytes(**_KNOWN, nul=True).filter(lambda value: b"17000" not in value),
            told_as(_list_support_lines, "logs", 0, "lines"),
        ),
        Slot("table", hostile.hostile_bytes(**_KNOWN, nul=True)),
    ],
)
