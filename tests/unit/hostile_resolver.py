"""The hosts of the resolver's probes: files, services and servers that lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from stackmend.resolver.facts import Caches, Resolver, ServerAnswers, _identify
from tests import hostile
from tests.hostile import KNOWN
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, decoded, told_as

_SEEN = {
    "sections": ("host", "text", "links", "dns", "mode", "settings", "records", "file7", "whole"),
    "bodies": (
        "root 0",
        "armed m",
        "Global: 198.18.0.1",
        's "stub"',
        "tunnel eth0 /x",
        "running x",
    ),
}
_TEXT = b"nameserver 192.0.2.53\n"
_NMCLI = """
case "$*" in
*--active*) printf '%s\\n' a1:802-3-ethernet:eth0:/etc/x ;;
*) cat "$say/nmcli" ;;
esac"""

# resolver/probe.sh


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc", "var/lib", "run", "sys")
    host.write("etc/resolv.conf", _TEXT + values.get("more of resolv.conf", b""))
    # No server answers here, and the name that the probe has resolved is waited for.
    host.write("etc/nsswitch.conf", "hosts: files\n")
    host.write("etc/hosts", "127.0.0.1 localhost\n")
    host.write("etc/resolvconf.conf", b"# a\n" + values.get("resolvconf.conf", b""))
    host.write("var/lib/stackmend/resolver/armed", values.get("armed", "m"))
    host.write("sys/class/net/eth0/uevent", "INTERFACE=eth0\nIFINDEX=2\n")
    host.write("run/systemd/netif/links/2", f"NETWORK_FILE=/etc/{values.get('network', 'x')}\n")
    for place in ("run/resolvconf/interfaces", "run/NetworkManager"):
        host.path(place).mkdir(parents=True, exist_ok=True)
    host.write(
        "run/resolvconf/interfaces/eth0.dhcp", b"nameserver 192.0.2.1\n" + values.get("record", b"")
    )
    host.says("nmcli", f"ipv4.method:auto\nipv4.dns:{values.get('setting', '192.0.2.2')}\n")


def _lines(value: bytes) -> str:
    return "".join(f"{line}\n" for line in decoded(value).split("\n"))


def _whole(first: bytes, value: bytes) -> str:
    # A line that is not ended is one all the same.
    text = decoded(first + value)
    return text if text.endswith("\n") else f"{text}\n"


RESOLVER = Room(
    name="resolver",
    facts=[(Resolver, {"names": ("localhost",)})],
    lay=_lay,
    scripts=frozenset({"resolver/probe.sh"}),
    programs={"nmcli": _NMCLI, "busctl": """printf '%s\\n' 's "default"'"""},
    passing=frozenset({"running"}),
    many=1500,
    slots=[
        Slot(
            "more of resolv.conf",
            hostile.hostile_bytes(hostile.computed("resolver"), **_SEEN).filter(
                lambda value: len(value) < 60000 and b"nameserver" not in value
            ),
            told_as(lambda value: _whole(_TEXT, value), "file", "text"),
        ),
        Slot(
            "resolvconf.conf",
            hostile.hostile_bytes(hostile.computed("resolver"), **_SEEN).filter(
                lambda value: len(value) < 60000
            ),
            told_as(lambda value: _whole(b"# a\n", value), "files", "/etc/resolvconf.conf"),
        ),
        Slot(
            "record",
            hostile.hostile_bytes(hostile.computed("resolver"), **_SEEN).filter(
                lambda value: b"nameserver" not in value
            ),
        ),
        Slot(
            "setting",
            hostile.hostile_text(**_SEEN, newlines=False),
            lambda dump, value: dump["connections"][0]["settings"].__setitem__(
                "ipv4.dns", value.replace(" ", "")
            ),
        ),
    ],
)

# resolver/ask.sh and resolver/caches.sh

_NAME = "a.example"
_SERVER = "192.0.2.53"


def _answer() -> str:
    """A right answer to the question that is asked: 192.0.2.10."""
    identity = _identify(_NAME, f"=={KNOWN[:32]}")
    body = identity + b"\x81\x80\0\1\0\1\0\0\0\0" + b"\1a\7example\0\0\1\0\1"
    return (body + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes((192, 0, 2, 10))).hex()


def _lay_answers(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc", "run")
    host.write("etc/resolv.conf", _TEXT)
    host.write("etc/hosts", b"127.0.0.1 localhost\n" + values.get("hosts", b""))
    host.says("bash", values.get("answer", _answer()))
    host.says("busctl", values.get("statistics", "(ttt) 7 1 2"))


def _drop(dump: Dump, value: str) -> None:
    dump["replies"][_SERVER][_NAME].update(code=-1, addresses=())


_ASKED = {
    "sections": ("answers", "caches", "host", "domain", "missing", "whole"),
    "bodies": (f"{_SERVER} {_NAME} 4 00", "nscd size 9", f"nscd looked {_NAME} 192.0.2.66"),
}
# The answer of bash's script is hexadecimal: od makes it, whatever a server sends.
_HEX = st.text("0123456789abcdef", min_size=1, max_size=400)
_PROGRAMS = {"bash": 'cat "$say/bash"', "dd": ""}

ANSWERS = Room(
    name="answers",
    facts=[(ServerAnswers, {"servers": (_SERVER,), "names": (_NAME,)})],
    lay=_lay_answers,
    scripts=frozenset({"resolver/ask.sh"}),
    programs=_PROGRAMS,
    many=800,
    slots=[Slot("answer", _HEX.filter(lambda text: not text.startswith(_answer()[:4])), _drop)],
)


def _lay_caches(host: HostileHost, values: Mapping[str, Any]) -> None:
    _lay_answers(host, values)
    host.write("run/systemd/resolve/resolv.conf", _TEXT)
    host.stand("systemd-resolve")


def _forget(dump: Dump, value: Any) -> None:
    dump["caches"][0].update(cached={}, raw={})


def _size(dump: Dump, value: str) -> None:
    dump["caches"][0]["size"] = None


CACHES = Room(
    name="caches",
    facts=[(Caches, {"names": (_NAME,)})],
    lay=_lay_caches,
    scripts=frozenset({"resolver/caches.sh"}),
    programs={
        **_PROGRAMS,
        "busctl": 'cat "$say/busctl"',
        "resolvectl": "true",
    },
    many=800,
    slots=[
        Slot("answer", _HEX.filter(lambda text: not text.startswith(_answer()[:4])), _forget),
        Slot(
            "statistics",
            hostile.hostile_text(**_ASKED, newlines=False).filter(
                lambda text: (
                    not any(word.isascii() and word.isdigit() for word in text.split()[1:2])
                )
            ),
            _size,
        ),
        Slot(
            "hosts",
            hostile.hostile_bytes(**_ASKED).filter(lambda value: _NAME.encode() not in value),
        ),
    ],
)
