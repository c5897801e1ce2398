"""A host whose timer somebody else has filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackmend.schedule.facts import Schedule
from tests import hostile
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, decoded

_WORDS = {
    "sections": ("host", "state", "calendar", "service", "timer", "table", "leftovers", "whole"),
    "bodies": ("root 0", "token x", "unit timer", "UnitFileState=enabled", "generation abc"),
}
_NAME = "stackmend-host"
_SERVICE = "/etc/systemd/system/stackmend-host.service"


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc", "var/lib")
    host.path("run/systemd/system").mkdir(parents=True, exist_ok=True)
    host.write(_SERVICE.lstrip("/"), b"[Service]\n" + values.get("service", b"Type=oneshot\n"))
    host.says("systemctl", f"LoadState=loaded\nDropInPaths={values.get('dropins', '/etc/x')}\n")


def _expect_service(dump: Dump, value: bytes) -> None:
    text = f"[Service]\n{decoded(value)}"
    dump["files"][_SERVICE] = text if text.endswith("\n") else f"{text}\n"


def _expect_dropins(dump: Dump, value: str) -> None:
    dump["foreign"] = tuple((value.split() * 2)[:50])


SCHEDULE = Room(
    name="schedule",
    facts=[(Schedule, {"unit": _NAME, "mode": "host"})],
    lay=_lay,
    scripts=frozenset({"schedule/probe.sh"}),
    programs={
        "systemctl": '[ "$1" = --version ] && echo "systemd 252 (252)" || cat "$say/systemctl"',
        "crontab": "",
    },
    dump=lambda state: {
        key: value
        for key, value in state.model_dump().items()
        if key in ("files", "foreign", "generation", "version", "init", "same")
    },
    many=800,
    slots=[
        Slot(
            "service",
            hostile.hostile_bytes(hostile.computed(_NAME), **_WORDS).map(lambda data: data[:9000]),
            _expect_service,
        ),
        Slot("dropins", hostile.hostile_text(**_WORDS, newlines=False), _expect_dropins),
    ],
)
