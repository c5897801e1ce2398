"""The ports room's host: a process that calls itself as it likes and holds a port; containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from stackmend.ports.facts import PortHolders
from stackmend.ports.processes import MAXIMUM_ARGV
from tests import hostile
from tests.shells import find
from tests.unit.hostile_engine import LABEL, compose_labels, container
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, at, decoded, told_as

_REQUEST = '{"desired": "tcp/0.0.0.0/6379", "project": "", "directory": ""}'
_MARK = hostile.computed(_REQUEST)
_PORTS: dict[str, Any] = {
    "sections": (
        *("host", "settings", "sockets ss", "owners", "bound", "guards", "processes", "links"),
        *("users", "units system", "containers docker", "engine docker", "shims", "done"),
    ),
    "bodies": (
        "system darwin",
        "root 1000",
        'users:(("x",pid=1,fd=3))',
        "\nlrwxrwxrwx 1 0 0 0 Jan  1 00:00 /proc/1/exe -> /bin/true\n",
        f"\n{'2' * 64}|host|0.0.0.0:6379->6379/tcp\n",
        "Id=ssh.service",
        " begin engine docker\nup\n",
    ),
}

_HOLDER = """
import os, socket, sys
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(("0.0.0.0", 6379))
one.listen()
os.chdir(os.environb[b"CWD"])
if os.environb[b"COMM"]:
    with open("/proc/self/comm", "wb") as file:
        file.write(os.environb[b"COMM"])
print("up", flush=True)
sys.stdin.read()
"""


def _lay(host: HostileHost, values: Mapping[str, Any]) -> None:
    def of(slot: str, otherwise: Any) -> Any:
        return values.get(slot, otherwise)

    host.clear("home")
    work, program = (
        b"/home/at/" + of("directory", b"x"),
        b"/home/bin/" + of("program", b"holder"),
    )
    host.path(work).mkdir(parents=True)
    host.path("home/bin").mkdir()
    kept = host.path("say/python")
    if not kept.exists():
        shutil.copy(Path(find("python3")).resolve(), kept)
    host.path(program).hardlink_to(kept)
    environment = {b"CWD": work, b"COMM": of("name", b"")}
    one = host.start(
        program,
        *("-I", "-S", "-c", _HOLDER),
        *of("arguments", []),
        env={**os.environb, **environment},
    )
    assert one.stdout is not None
    assert one.stdout.readline() == b"up\n"
    host.engine.containers = [
        container(
            1,
            "cache",
            Config={
                "Labels": {
                    **compose_labels("shop", "redis"),
                    LABEL + "project": of("project", "shop"),
                    LABEL + "service": of("service", "redis"),
                    LABEL + "project.working_dir": of("working directory", "/opt/shop"),
                    LABEL + "oneoff": of("oneoff", "False"),
                    "note": of("label", "x"),
                }
            },
            HostConfig={"NetworkMode": "host"},
            NetworkSettings={
                "Networks": {"host": {}},
                "Ports": {"6379/tcp": [{"HostIp": "0.0.0.0", "HostPort": "6379"}]},
            },
        ),
        container(
            2,
            "other",
            HostConfig={"NetworkMode": "x"},
            NetworkSettings={"Networks": {of("network", "x"): {}}, "Ports": {}},
        ),
    ]


def _process(state: Dump) -> Dump:
    (process,) = [one["process"] for one in state["ports"][0]["holders"] if one["process"]]
    found: Dump = process
    return found


def _put(key: str, form: Any) -> Any:
    def expect(dump: Dump, value: Any) -> None:
        _process(dump)[key] = form(value)

    return expect


def _argv(dump: Dump, values: list[bytes]) -> None:
    process = _process(dump)
    first = [part.encode() for part in process["argv"]]
    words = b"".join(word + b"\0" for word in (*first, *values))[:MAXIMUM_ARGV]
    process["argv"] = tuple(decoded(words).removesuffix("\0").split("\0"))


def _program(dump: Dump, name: bytes) -> None:
    process = _process(dump)
    process["exe"] = f"/home/bin/{decoded(name)}"
    process["name"] = decoded(name[:15])
    path = b"/home/bin/" + name
    first = (path, *(part.encode() for part in process["argv"][1:]))
    process["argv"] = tuple(map(decoded, first))


def _program_unread(dump: Dump, name: bytes) -> None:
    _program(dump, name)
    _process(dump)["exe"] = ""


def _unread(key: str) -> Any:
    """Where a link is told as another, it is not believed."""
    return _put(key, lambda _: "")


def _dump(state: Any) -> Dump:
    dump: Dump = state.model_dump()
    for port in dump["ports"]:
        for one in port["holders"]:
            # Which process it is, and which socket, is another one each time.
            one["sockets"] = len(one["sockets"])
            # Where a name breaks a row of ss, the kernel's own table tells the same.
            one["evidence"] = tuple(
                "ss" if part == "/proc/net" else part for part in one["evidence"]
            )
            if one["container"]:
                # Why it is nobody's own follows from these labels: that is tested by itself.
                one["container"]["foreign"] = None
            if one["process"]:
                for key in ("pid", "started", "seconds"):
                    one["process"][key] = 0
    dump["processes"] = len(dump["processes"])
    dump["guarded"] = len(dump["guarded"])
    return dump


def _name(**more: Any) -> st.SearchStrategy[bytes]:
    return hostile.hostile_name(_MARK, **_PORTS, **more)


PORTS = Room(
    name="ports",
    facts=[(PortHolders, {"ports": "6379"})],
    lay=_lay,
    alone=True,
    scripts=frozenset(
        f"ports/{name}.sh" for name in ("probe", "sockets", "processes", "units", "engines")
    ),
    passing=frozenset({"now", "processes"}),
    dump=_dump,
    few=20,
    many=500,
    slots=[
        Slot(
            "arguments",
            st.lists(hostile.hostile_argument(_MARK, **_PORTS), min_size=1, max_size=3),
            _argv,
        ),
        Slot("program", _name(), _program, otherwise=_program_unread),
        Slot(
            "name",
            hostile.hostile_comm(_MARK).filter(lambda name: name != b"supervisord"),
            # The kernel keeps fifteen bytes.
            _put("name", lambda name: decoded(name[:15])),
        ),
        Slot(
            "directory",
            _name(),
            _put("cwd", lambda name: f"/home/at/{decoded(name)}"),
            otherwise=_unread("cwd"),
        ),
        Slot(
            "project",
            # Without one it is no project's, whatever its other labels say.
            hostile.hostile_label(_MARK, **_PORTS).filter(bool),
            at("ports", 0, "holders", 0, "container", "project"),
        ),
        Slot(
            "service",
            hostile.hostile_label(_MARK, **_PORTS),
            at("ports", 0, "holders", 0, "container", "service"),
        ),
        Slot(
            "working directory",
            hostile.hostile_label(_MARK, **_PORTS),
            at("ports", 0, "holders", 0, "container", "working_dir"),
        ),
        Slot(
            "oneoff",
            hostile.hostile_label(_MARK, **_PORTS),
            told_as(
                lambda value: value.lower() == "true",
                *("ports", 0, "holders", 0, "container", "oneoff"),
            ),
        ),
        Slot("label", hostile.hostile_label(_MARK, **_PORTS)),
        Slot("network", hostile.hostile_text(_MARK, **_PORTS, longest=300).filter(str.strip)),
    ],
)
