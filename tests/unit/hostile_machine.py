"""The hosts of the rooms that look at a machine: its accelerators, users, clock and engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from stackmend.access.facts import Operator
from stackmend.basics.facts import Basics
from stackmend.engine.accelerators.facts import HostAccelerators
from stackmend.engine.facts import HostEngines
from tests import hostile
from tests.shells import find
from tests.unit.hostile_engine import container
from tests.unit.hostile_host import HostileHost
from tests.unit.hostile_room import Dump, Room, Slot, decoded, told_as

# engine/accelerators/probe.sh

_CARDS = {
    "sections": ("pci", "nodes", "proof", "driver", "tools", "package", "whole"),
    "bodies": ("0000:01:00.0 0x10de 0x2330 0x030200 nvidia", "installed 1.0", "nvidia-smi /x"),
}
_DESCRIBED = b"kind: nvidia.com/gpu\n/dev/nvidia0\nlibcuda.so.550.1\n"


def _lay_accelerators(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc", "var/lib", "sys")
    card = "sys/bus/pci/devices/0000:01:00.0"
    for name, text in {"vendor": "0x10de", "class": "0x030200", "device": "0x2330"}.items():
        host.write(f"{card}/{name}", f"{text}\n")
    host.path(f"{card}/driver").symlink_to("../../drivers/nvidia")
    host.write("sys/module/nvidia/version", "550.1\n")
    host.write("var/lib/stackmend/engine/accelerated", values.get("proof", b"seen\n"))
    name = b"n" + values.get("name of a description", b"vidia") + b".yaml"
    host.write(b"etc/cdi/" + name, _DESCRIBED + values.get("description", b""))
    host.says("dpkg-query", f"installed {values.get('version', '1.17.0')}\n")


def _first(text: str) -> str:
    return next((line for line in text.split("\n") if line), "").strip()


ACCELERATORS = Room(
    name="accelerators",
    facts=[(HostAccelerators, {})],
    lay=_lay_accelerators,
    scripts=frozenset({"engine/accelerators/probe.sh"}),
    programs={
        "dpkg-query": 'cat "$say/dpkg-query"',
        "nvidia-smi": "",
        "nvidia-ctk": "",
    },
    many=2200,
    slots=[
        Slot(
            "name of a description",
            hostile.hostile_name(**_CARDS).map(lambda name: name[:240]),
            told_as(lambda name: f"/etc/cdi/n{decoded(name)}.yaml", "cdi", 0, "path"),
        ),
        Slot("description", hostile.hostile_bytes(**_CARDS, nul=True)),
        Slot(
            "proof",
            hostile.hostile_bytes(**_CARDS, nul=True),
            told_as(lambda proof: _first(decoded(proof)), "proof"),
        ),
        Slot(
            "version",
            hostile.hostile_text(**_CARDS, newlines=False),
            told_as(lambda text: f"installed {text}".strip().partition(" ")[2], "toolkit"),
        ),
    ],
)

# access/probe.sh

_ACCESS = {
    "sections": ("host", "account", "group", "groups", "sudo", "check", "settings", "keys", "end"),
    "bodies": ("root 0", "    (ALL : ALL) NOPASSWD: ALL", "permitrootlogin yes", "ops:x:0:0::/:/"),
}
_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHN0YWNrbWVuZCBmdXp6IHN0YWNrbWVuZCBmdXp6 ops\n"


def _lay_access(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc", "var/lib", "home")
    about = values.get("about oneself", "")
    host.write(
        "etc/passwd", f"root:x:0:0::/root:/bin/sh\nops:x:1000:1000:{about}:/home/ops:/bin/sh\n"
    )
    host.write("etc/group", "root:x:0:\nops:x:1000:\n")
    host.write("home/ops/.ssh/authorized_keys", values.get("keys", _KEY))
    host.says("sudo", "User ops may run the following commands:\n    (ALL : ALL) NOPASSWD: ALL\n")
    host.says(
        "sshd",
        "pubkeyauthentication yes\npasswordauthentication no\npermitrootlogin no\n"
        "authorizedkeysfile .ssh/authorized_keys\n",
    )


def _keys(value: bytes) -> tuple[str, ...]:
    return tuple(line for line in decoded(value).split("\n") if line.strip())


ACCESS = Room(
    name="access",
    facts=[(Operator, {"user": "ops"})],
    lay=_lay_access,
    scripts=frozenset({"access/probe.sh"}),
    programs={
        "sudo": 'cat "$say/sudo"',
        "sshd": '[ "$1" = -t ] || cat "$say/sshd"',
        "visudo": "",
        # runuser -u ops -- COMMAND...: without PAM, which the host has no settings for.
        "runuser": f'shift 3\nexec {find("setpriv")} --reuid=1000 --regid=1000 --clear-groups "$@"',
    },
    many=2200,
    slots=[
        Slot(
            "keys",
            hostile.hostile_bytes(hostile.computed("ops"), **_ACCESS, nul=True),
            told_as(_keys, "keys"),
        ),
        Slot(
            # chfn takes neither colons nor control characters.
            "about oneself",
            hostile.hostile_text(hostile.computed("ops"), **_ACCESS, longest=500).map(
                lambda text: "".join(part for part in text if part.isprintable() and part != ":")
            ),
        ),
    ],
)

# basics/probe.sh

_BASICS = {
    "sections": ("host", "ports", "services", "packages", "settings", "timers", "whole"),
    "bodies": ("root 1", "now 0", "manager apk", "Id=x.service", "outside none"),
}


def _lay_basics(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc")
    host.path("run/systemd/system").mkdir(parents=True, exist_ok=True)
    name = values.get("name of the system", "Debian")
    more = values.get("more of the system", b"")
    host.write("etc/os-release", b'ID=debian\nPRETTY_NAME="%s"\n' % name.encode() + more + b"\n")
    host.says(
        "systemctl",
        f"Id=chrony.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\n"
        f"Id={values.get('unit', 'ntp.service')}\nLoadState={values.get('load', 'masked')}\n"
        "ActiveState=inactive\nUnitFileState=\n\n"
        "Id=ntpd.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n",
    )
    host.says("apt-config", f'APT::Periodic::Enable "{values.get("setting", "1")}";\n')
    host.says("dpkg-query", "installed unattended-upgrades\n")


def _load(dump: Dump, value: str) -> None:
    for units in (dump["clock"]["services"], dump["updates"]["timers"]):
        units[1]["load"] = value


def _unit(dump: Dump, value: str) -> None:
    for units in (dump["clock"]["services"], dump["updates"]["timers"]):
        units[1]["name"] = value


def _line(*banned: str, **more: Any) -> st.SearchStrategy[str]:
    """Text of one line, such as a setting of a file of lines holds it."""
    text = hostile.hostile_text(**more, newlines=False)
    return text.filter(lambda value: not any(part in value for part in banned))


def _listed(state: Any) -> Dump:
    dump: Dump = state.model_dump()
    dump["clock"] = {
        key: value
        for key, value in dump["clock"].items()
        if key in ("services", "outside", "synchronized")
    }
    return dump


ESSENTIALS = Room(
    name="basics",
    facts=[(Basics, {"updates": True})],
    lay=_lay_basics,
    scripts=frozenset({"basics/probe.sh"}),
    programs={
        "systemctl": 'cat "$say/systemctl"',
        "systemd-detect-virt": "echo none",
        "timedatectl": "echo yes",
        "apt-get": "",
        "apt-config": 'cat "$say/apt-config"',
        "dpkg-query": 'cat "$say/dpkg-query"',
    },
    dump=_listed,
    many=1500,
    slots=[
        Slot(
            "name of the system",
            _line('"', longest=3000, **_BASICS),
            told_as(str.strip, "system"),
        ),
        Slot(
            "more of the system",
            hostile.hostile_bytes(hostile.computed("basics"), **_BASICS, nul=True).filter(
                lambda value: b"PRETTY_NAME=" not in value
            ),
        ),
        Slot("unit", _line(**_BASICS).filter(lambda value: value != "chrony.service"), _unit),
        Slot("load", _line(**_BASICS).filter(lambda value: value not in ("", "not-found")), _load),
        Slot(
            "setting",
            _line(**_BASICS),
            told_as(str.strip, "updates", "settings", "APT::Periodic::Enable"),
        ),
    ],
)

# engine/probe.sh

_ENGINES = {
    "sections": ("host", "packages", "programs", "daemons", "systemd", "config", "text", "done"),
    "bodies": ("root 1", "docker-ce 1 installed", "dockerd|/x|/x|docker-ce", "path /etc/passwd"),
}


def _lay_engine(host: HostileHost, values: Mapping[str, Any]) -> None:
    host.clear("etc", "var/lib")
    host.path("run/systemd/system").mkdir(parents=True, exist_ok=True)
    host.write("etc/os-release", b"ID=debian\n" + values.get("more of the system", b"") + b"\n")
    host.write("etc/docker/daemon.json", values.get("daemon.json", b"{}\n"))
    host.write("etc/default/docker", b"A=1\n" + values.get("environment", b""))
    host.write("etc/apt/sources.list", b"# docker\n" + values.get("sources", b"") + b"\n")
    host.write("etc/apt/keyrings/stackmend-docker.asc", values.get("key", b"none"))
    host.write("var/lib/stackmend/engine/left", values.get("left", b"a\n"))
    flags = values.get("flags", "-H fd://")
    host.says(
        "systemctl",
        "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"
        "FragmentPath=/usr/lib/systemd/system/docker.service\nDropInPaths=\n"
        f"Environment={values.get('variables', 'B=2')}\n"
        "EnvironmentFiles=/etc/default/docker (ignore_errors=yes)\n"
        f"ExecStart={{ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd {flags} ; ignore_errors=no ;"
        " start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n",
    )
    host.says("dpkg-query", "docker.io 20.10 installed\n")
    host.says("ip", "7: br-one: <BROADCAST,UP> mtu 1500\n")
    host.stand("dockerd", *values.get("arguments", ()))
    host.engine.containers = [
        container(1, "one", Config={"Labels": {"x": values.get("label", "y")}})
    ]


def _words(values: list[bytes]) -> tuple[str, ...]:
    return tuple(word for word in map(decoded, values) if word)


def _text(value: bytes) -> tuple[str, str]:
    text = decoded(value).removesuffix("\n")
    return ("", "it is not text in UTF-8") if "\ufffd" in text else (text, "")


def _daemon_json(dump: Dump, value: bytes) -> None:
    dump["config"]["text"], dump["config"]["problem"] = _text(value)


def _arguments(dump: Dump, value: list[bytes]) -> None:
    first = [word.encode() for word in dump["daemons"][0]["argv"]]
    # A command line is read so far and no further.
    words = b"\0".join([*first, *value])[:65536].split(b"\0")
    dump["daemons"][0]["argv"] = _words(words)


def _sources(dump: Dump, value: bytes) -> None:
    dump["origins"][0]["text"] = f"# docker\n{decoded(value)}\n"


def _engines(state: Any) -> Dump:
    dump: Dump = state.model_dump()
    for daemon in dump["daemons"]:
        daemon["pid"] = 0
    return dump


ENGINE = Room(
    name="engine",
    facts=[(HostEngines, {})],
    lay=_lay_engine,
    scripts=frozenset({"engine/probe.sh"}),
    programs={
        "ip": """cat "$say/ip" """,
        "systemctl": """
            case "$*" in
              *--value*)
                key=${*%% --value*}
                key=${key##* }
                sed -n "s/^$key=//p" "$say/systemctl" ;;
              *) cat "$say/systemctl" ;;
            esac""",
        "apt-get": "",
        "dpkg": "echo amd64",
        "dpkg-query": 'case "$1" in -S) exit 1 ;; esac; cat "$say/dpkg-query"',
    },
    dump=_engines,
    few=20,
    many=1000,
    slots=[
        Slot(
            "more of the system",
            hostile.hostile_bytes(hostile.computed("engines"), **_ENGINES, nul=True).filter(
                lambda value: b"=" not in value.replace(b"==", b"")
            ),
        ),
        Slot(
            "daemon.json",
            hostile.hostile_bytes(hostile.computed("engines"), **_ENGINES, nul=True),
            _daemon_json,
        ),
        Slot(
            "arguments",
            st.lists(hostile.hostile_argument(**_ENGINES), min_size=1, max_size=3),
            _arguments,
        ),
        Slot(
            "sources",
            hostile.hostile_bytes(hostile.computed("engines"), **_ENGINES, nul=True),
            _sources,
        ),
        Slot("key", hostile.hostile_bytes(**_ENGINES, nul=True)),
        Slot(
            "left",
            hostile.hostile_bytes(hostile.computed("engines"), **_ENGINES, nul=True),
            told_as(
                lambda value: tuple(line for line in decoded(value).split("\n") if line), "left"
            ),
        ),
        Slot("label", hostile.hostile_label(hostile.computed("engines"), **_ENGINES)),
    ],
)
