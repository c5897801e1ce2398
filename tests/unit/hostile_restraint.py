"""The host of what keeps runs from mending it: files that anything may stand in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackmend.restraint.facts import Restraints
from tests import hostile
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot

_KNOWN = {
    "sections": ("clock", "pauses", "limits"),
    "bodies": ('{"version": 1, "pauses": []}', '{"version": 1}', "1700000000"),
}
_PAUSES = '{"version": 1, "pauses": [{"who": "ann", "why": "%s", "since": 1}]}\n'


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.write("var/lib/stackmend/pauses.json", values.get("pauses", (_PAUSES % "x").encode()))
    host.write("var/lib/stackmend/limits.json", values.get("limits", b'{"version": 1}'))


def _unreadable(name: str) -> Any:
    def expect(dump: Dump, value: bytes) -> None:
        # Nothing of it holds, and it is said to be so.
        dump["pauses" if name == "pauses" else "limits"] = (
            () if name == "pauses" else {"version": 1, "series": (), "failing": None}
        )
        dump[f"{name}_problem"] = ANY_REASON

    return expect


class _AnyReason(str):
    """Equal to each reason: what JSON says of its fault is not ours."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other) and "\n" not in other


ANY_REASON = _AnyReason("a reason")


def _values() -> Any:
    return hostile.hostile_bytes(**_KNOWN).filter(lambda value: value.lstrip()[:1] != b"{")


RESTRAINT = Room(
    name="restraint",
    facts=[(Restraints, {})],
    lay=_lay,
    scripts=frozenset({"restraint/probe.sh"}),
    passing=frozenset({"now"}),
    many=1000,
    slots=[
        Slot("pauses", _values(), _unreadable("pauses")),
        Slot("limits", _values(), _unreadable("limits")),
    ],
)
