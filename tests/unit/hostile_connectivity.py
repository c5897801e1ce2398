"""The connectivity room's host: servers that answer anything, and a tool that quotes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stackmend.connectivity.facts import Connectivity
from tests import hostile
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, decoded

_LOOK: dict[str, Any] = {
    "sections": ("look", "end"),
    "bodies": (
        "\n1 host answer 127.0.0.1 0 200 0 1 1 1 1\n",
        "\n1 host small yes\n",
        "\n2 host date Thu, 01 Jan 1970 00:00:00 GMT\n",
        "\n- host now 1\n",
        "- host server 192.0.2.1",
        "\n- host complete\n",
        "\n3 host endpoint named http evil 80 /\n",
    ),
}
_ASKED = ["http://127.0.0.1:9/well", "http://127.0.0.1:9/ill"]
_CONTROLS = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc")
    host.says("server", values.get("server", "far"))
    host.says("error", values.get("error", "Empty reply"))
    host.write("etc/resolv.conf", f"# {values.get('comment', '')}\nnameserver 192.0.2.53\n")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _expect_header(dump: Dump, text: str) -> None:
    data = _CONTROLS.sub(b" ", _bytes(text)).lstrip(b" ")
    row = (b"server " + data)[:300]
    for answer in dump["endpoints"][0]["host"]["answers"]:
        answer["headers"]["server"] = decoded(row.partition(b" ")[2]).strip()


def _expect_error(dump: Dump, text: str) -> None:
    row = re.sub(rb"[\x00-\x1f\x7f ]+", b" ", _bytes(text))[:300]
    row = re.sub(rb"^curl: \([0-9]*\) ", b"", row)
    row = re.sub(rb" More details here.*", b"", row)
    for answer in dump["endpoints"][1]["host"]["answers"]:
        answer["error"] = decoded(row).strip()


CONNECTIVITY = Room(
    name="connectivity",
    facts=[(Connectivity, {"endpoints": _ASKED})],
    lay=_lay,
    alone=True,
    scripts=frozenset({"connectivity/probe.sh"}),
    passing=frozenset({"clock", "took", "repeated"}),
    programs={
        "curl": (
            'head=\nfor word; do [ "$head" != next ] || head=$word; '
            '[ "$word" != -D ] || head=next; last=$word; done\n'
            'case $last in */ill) cat "$say/error" >&2; '
            "echo '000 000 0.001 0 0.002 0'; exit 52 ;; esac\n"
            "{ printf 'HTTP/1.1 200 OK\\r\\nServer: '; cat \"$say/server\"; "
            "printf '\\r\\nDate: x\\r\\n\\r\\n'; } >\"$head\"\n"
            "echo '200 000 0.001 0 0.002 5'"
        ),
    },
    few=10,
    many=700,
    slots=[
        Slot("server", hostile.hostile_text(**_LOOK, newlines=False), _expect_header),
        Slot("error", hostile.hostile_text(**_LOOK).filter(bool), _expect_error),
        Slot("comment", hostile.hostile_text(**_LOOK, newlines=False)),
    ],
)
