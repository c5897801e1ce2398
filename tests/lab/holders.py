"""Everything that may hold a port of a host, put on a real lab host and looked at from outside.

>>> shelf = Shelf(host)
>>> shelf.put("python", "unit")
>>> before = shelf.picture()
>>> ...  # a run that is judged
>>> assert shelf.picture() == before   # nothing happened to any of them
>>> assert shelf.taken() == {"python", "unit"}   # none of their ports can be bound

What it tells comes from a bind, ``/proc``, ``docker``, ``podman``, ``systemctl`` and
``supervisorctl`` on the host, never through the code under test.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.hosts import LabHost

HOME = "/opt/holders"
HOLD = f"/usr/bin/python3 {HOME}/hold.py"
SECOND = "unix:///run/second/docker.sock"
THIRD = "unix:///run/third/docker.sock"
#: What a program was started with, which must come back with it.
CWD = f"{HOME}/a b"
GREETING = "it's $(hostname) \\\n-- 'ä'"
ARGUMENT = "-n \"two words\" $HOME 'ä'"


@dataclass(frozen=True)
class Holder:
    """One holder of one port.

    + port: the port; each holder has its own, so that one host carries all of them
    + put: bash that puts it there, as root
    + session: bash that is run in a login session instead
    + who: bash that tells who it is, word by word: equal before and after = untouched
    + protocol: ``tcp`` or ``udp``
    + conflicts: whether Docker can not have the port on ``0.0.0.0`` beside it
    """

    port: int
    put: str = ""
    session: str = ""
    who: str = ""
    protocol: str = "tcp"
    conflicts: bool = True

    @property
    def desired(self) -> str:
        """The port as a user asks for it."""
        return f"{self.port}/{self.protocol}"


def _catalogue() -> dict[str, Holder]:
    def program(port: int, what: str = "tcp", address: str = "0.0.0.0", more: str = "") -> Holder:
        return Holder(
            port,
            session=_detached(f"{HOLD} {what} {address} {port} {more}"),
            who=f"processes {port}",
            protocol="udp" if "udp" in what else "tcp",
            conflicts="v6only" not in what,
        )

    keeper = "setpriv --reuid keeper --regid keeper --init-groups env HOME=/home/keeper"
    return {
        "python": Holder(
            21001,
            session=f"cd {shlex.quote(CWD)}; GREETING={shlex.quote(GREETING)} "
            + _detached(f"{HOLD} tcp 0.0.0.0 21001 {shlex.quote(ARGUMENT)}"),
            who="processes 21001",
        ),
        "user": Holder(
            21002,
            session=f"cd /home/keeper; {_detached(f'{keeper} {HOLD} tcp 0.0.0.0 21002')}",
            who="processes 21002",
        ),
        "reuseport": Holder(
            21003,
            session="\n".join([_detached(f"{HOLD} tcp,reuseport 0.0.0.0 21003")] * 2),
            who="processes 21003",
        ),
        "loopback": program(21004, address="127.0.0.1"),
        "dual": program(21005, address="::"),
        "v6only": program(21006, "tcp,v6only", "::"),
        "udp": program(21007, "udp"),
        "bound": program(21008, "tcp,bound"),
        "stubborn": program(21009, "tcp,stubborn"),
        "outgoing": Holder(
            21010,
            session=_detached(f"{HOLD} tcp 127.0.0.1 21110")
            + "\nuntil ss -Hltn 'sport = :21110' | grep -q .; do sleep 0.1; done\n"
            + _detached(f"{HOLD} outgoing 127.0.0.1:21110 21010"),
            who="processes 21010",
        ),
        "namespace": Holder(
            21011,
            session=_detached(f"unshare -n {HOLD} tcp 0.0.0.0 21011"),
            who="processes 21011",
            conflicts=False,
        ),
        "unit": Holder(
            21012,
            put=_service("lab-unit", 21012, install=True)
            + "systemctl -q enable --now lab-unit.service",
            who="units lab-unit.service",
        ),
        "always": Holder(
            21013,
            put=_service("lab-always", 21013, more="Restart=always\nRestartSec=200ms")
            + "systemctl start lab-always.service",
            who="units lab-always.service",
        ),
        # Nobody came yet: systemd itself listens.
        "idle": Holder(
            21014,
            put=_socket("lab-idle", 21014) + "systemctl -q enable --now lab-idle.socket",
            who="units lab-idle.socket lab-idle.service",
        ),
        "awake": Holder(
            21015,
            put=_socket("lab-awake", 21015)
            + "systemctl start lab-awake.socket\n: < /dev/tcp/127.0.0.1/21015\n"
            "until systemctl -q is-active lab-awake.service; do sleep 0.1; done",
            who="units lab-awake.socket lab-awake.service",
        ),
        "supervisor": Holder(
            21016,
            put=f"""cat > /etc/supervisor/conf.d/lab.conf <<'END'
[program:shelf]
command={HOLD} tcp 0.0.0.0 21016
autorestart=true
END
systemctl start supervisor""",
            who="supervisorctl pid shelf; supervisorctl status shelf | awk '{ print $2 }'",
        ),
        "project": Holder(
            21017,
            put="""mkdir -p /opt/elsewhere
cat > /opt/elsewhere/compose.yaml <<'END'
services:
  web:
    image: lab/box:1
    restart: "no"
    ports: ["21017:80"]
END
docker compose --project-directory /opt/elsewhere -p elsewhere up -d --quiet-pull""",
            who="containers docker elsewhere-web-1",
        ),
        "restarting": Holder(
            21018,
            put="docker run -d --name restarting --restart always -p 21018:80 -p 21018:80/udp "
            "lab/box:1",
            who="containers docker restarting",
        ),
        "host-network": Holder(
            21019,
            put="docker run -d --name host-network --network host -e PORT=21019 lab/box:1",
            who="containers docker host-network",
        ),
        "second": Holder(
            21020,
            put=_engine("second", 201) + f"docker -H {SECOND} run -d --name second -p 21020:80 box",
            who=f"containers 'docker -H {SECOND}' second",
        ),
        "no-proxy": Holder(
            21021,
            put=_engine("third", 202, "--userland-proxy=false")
            + f"docker -H {THIRD} run -d --name third -p 21021:80 box",
            who=f"containers 'docker -H {THIRD}' third",
        ),
        "podman": Holder(
            21022,
            put="docker save lab/box:1 | podman load -q\n"
            "podman run -d --name pod -p 21022:80 lab/box:1",
            who="containers podman pod",
        ),
        # As cron would: whatever ends comes back a moment later.
        "loop": Holder(
            21023,
            session=_detached(
                "/bin/sh -c "
                + shlex.quote(f"while :; do {HOLD} tcp 0.0.0.0 21023; sleep 0.2; done")
            ),
            who="processes 21023",
        ),
    }


#: Those that Docker can have the port beside.
HARMLESS = frozenset({"v6only", "namespace"})


class Shelf:
    """The holders of one host.

    + host: a lab host; what is put on it is taken off by `clear`
    """

    def __init__(self, host: LabHost) -> None:
        self.host = host
        self.all = HOLDERS
        self.here: list[str] = []

    def __getitem__(self, name: str) -> Holder:
        return self.all[name]

    def put(self, *names: str) -> None:
        """Put holders on the host, and wait until each of them holds its port."""
        host = self.host
        if not host.exists(f"{HOME}/hold.py"):
            here = Path(__file__).parent
            host.put(f"{HOME}/hold.py", (here / "hold.py").read_bytes())
            host.put(f"{HOME}/bind.py", _BIND)
            # For those tests that take python3 away.
            host.sh(f"mkdir -p {shlex.quote(CWD)}; cp /usr/bin/python3 {HOME}/python")
        inside = "\n".join(f"( {self[name].session}\n)" for name in names if self[name].session)
        steps = ["set -e", "exec > /tmp/put.log 2>&1"]
        if inside:
            host.put("/tmp/session.sh", f"set -e\n{inside}\n")
            unit = f"session-90{len(self.here)}.scope"
            steps.append(
                f"systemd-run -q --scope --collect --slice=user-0.slice --unit={unit} "
                "bash /tmp/session.sh"
            )
        steps += [f"( {self[name].put}\n)" for name in names if self[name].put]
        host.put("/tmp/put.sh", "\n".join(steps) + "\n")
        done = host.run("bash /tmp/put.sh", timeout=120)
        assert done.returncode == 0, host.sh("cat /tmp/put.log")
        self.here += names
        want = [name for name in names if self[name].conflicts]
        quiet = [name for name in names if not self[name].conflicts]
        host.wait_for(
            " && ".join(
                [f'[ "$({self._binding(want)} | grep -c .)" = {len(want)} ]']
                + [
                    f"pgrep -f '^[^ ]*python.*hold.py .* {self[name].port}$' > /dev/null"
                    for name in quiet
                ]
            )
        )
        # A process that was only just started has not read its own name yet.
        host.wait_for("! pgrep -f 'setsi[d] .*hold.py' > /dev/null")

    def desired(self, names: Iterable[str] | None = None) -> list[str]:
        """Their ports, as a user asks for them."""
        return [self[name].desired for name in (self.here if names is None else names)]

    def picture(self, *names: str) -> dict[str, str]:
        """Name → who it is and how it is: the same before and after means untouched."""
        names = names or tuple(self.here)
        steps = [_WHO]
        for name in names:
            steps.append(f"echo '== {name}'; {{ {self[name].who}; }} 2>&1")
        shown = self.host.sh("\n".join(steps), timeout=90)
        parts = shown.split("== ")[1:]
        return {key: rest.strip() for key, _, rest in (part.partition("\n") for part in parts)}

    def taken(self, *names: str) -> set[str]:
        """Those whose port cannot be bound as Docker would."""
        return set(self.host.sh(self._binding(names or tuple(self.here))).split())

    def taken_within(self, seconds: float, *names: str) -> set[str]:
        """Those whose port could not be bound at some moment of so many seconds."""
        command = self._binding(names or tuple(self.here), seconds)
        return set(self.host.sh(command, timeout=seconds + 60).split())

    def _binding(self, names: Iterable[str], seconds: float = 0) -> str:
        rows = [f"{name}={self[name].desired}" for name in names]
        return f"{HOME}/python -I {HOME}/bind.py {seconds} {shlex.join(rows)}"

    def clear(self) -> None:
        """Take off the host what its reset does not know of: further engines, podman's network."""
        self.host.sh(_CLEAR, check=False, timeout=90)
        self.here.clear()


def hide(host: LabHost, *tools: str) -> Callable[[], None]:
    """Make tools of a host impossible to start, as if they were missing; returns the way back.

    What runs already is untouched, and so is its name.
    """
    host.put("/run/absent", "", mode="0644")
    paths = host.sh(
        f"for tool in {shlex.join(tools)}; do "
        "for dir in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do "
        '[ ! -e "$dir/$tool" ] || readlink -f "$dir/$tool"; done; done | sort -u'
    ).split()
    host.sh("; ".join(f"mount --bind /run/absent {path}" for path in paths))

    def back() -> None:
        host.sh("; ".join(f"umount {path}" for path in paths))

    return back


def environment(host: LabHost, pid: int) -> dict[str, str]:
    """What a process of the host has in its environment."""
    raw = host.read(f"/proc/{pid}/environ").decode()
    return dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)


def pids(host: LabHost, port: int) -> list[int]:
    """The programs of this library that hold a port, by their command lines."""
    return [int(pid) for pid in host.sh(f"{_WHO}\nnumbers {port}").split()]


def facts(output: str) -> dict[str, object]:
    """What ``pyinfra HOST fact`` printed, host by host."""
    start = output.index("{")
    parsed: dict[str, object] = json.JSONDecoder().raw_decode(output[start:])[0]
    return parsed


def _detached(command: str) -> str:
    return f"setsid {command} < /dev/null > /dev/null 2>&1 &"


def _service(name: str, port: int, *, more: str = "", install: bool = False) -> str:
    wanted_by = "\n[Install]\nWantedBy=multi-user.target" if install else ""
    return f"""cat > /etc/systemd/system/{name}.service <<'END'
[Service]
ExecStart={HOLD} tcp 0.0.0.0 {port}
{more}{wanted_by}
END
systemctl daemon-reload
"""


def _socket(name: str, port: int) -> str:
    return f"""cat > /etc/systemd/system/{name}.socket <<'END'
[Socket]
ListenStream=0.0.0.0:{port}
[Install]
WantedBy=sockets.target
END
cat > /etc/systemd/system/{name}.service <<'END'
[Service]
ExecStart={HOLD} inherited - {port}
END
systemctl daemon-reload
"""


def _engine(name: str, subnet: int, *options: str) -> str:
    """A further engine with a socket, data and a bridge of its own."""
    run = f"/run/{name}"
    return f"""mkdir -p {run}; echo '{{}}' > {run}/daemon.json
ip link add lab-{name} type bridge; ip address add 10.{subnet}.0.1/24 dev lab-{name}
ip link set lab-{name} up
systemd-run -q --collect --unit={name}-engine dockerd -H unix://{run}/docker.sock \
  --data-root /var/lib/docker/{name} --exec-root {run}/exec --pidfile {run}/pid \
  --config-file {run}/daemon.json --bridge lab-{name} --iptables=false --ip6tables=false \
  --containerd-namespace {name} --containerd-plugins-namespace {name}-plugins {" ".join(options)}
until docker -H unix://{run}/docker.sock version > /dev/null 2>&1; do sleep 0.5; done
docker save lab/box:1 | docker -H unix://{run}/docker.sock load -q
docker -H unix://{run}/docker.sock tag lab/box:1 box
"""


#: The functions that `Holder.who` uses.
_WHO = r"""
numbers() { pgrep -f "^[^ ]*python[^ ]* [^ ]*hold\.py [^ ]* [^ ]* $1( |$)" || true; }
processes() {
    for pid in $(numbers "$1"); do
        echo "$pid $(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 2,20)" \
            "$(stat -c %u "/proc/$pid") $(readlink "/proc/$pid/exe") $(readlink "/proc/$pid/cwd")"
        tr '\0' '\n' < "/proc/$pid/cmdline"
    done
}
units() {
    systemctl show "$@" -p Id,ActiveState,SubState,UnitFileState,MainPID,NRestarts,InvocationID
}
containers() {
    $1 inspect --type container -f '{{.Id}} {{.State.Status}} {{.State.Pid}}
        {{.State.StartedAt}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}' "$2"
}
"""

#: Prints the names whose ports cannot be bound with Docker's options, now or within some seconds.
_BIND = """
import socket, sys, time

def refused(port, protocol):
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as one:
        if protocol == "tcp":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("0.0.0.0", port))
            if protocol == "tcp":
                one.listen()
        except OSError:
            return True
    return False

until = time.monotonic() + float(sys.argv[1])
desired = dict(row.split("=") for row in sys.argv[2:])
found = {}
while True:
    for name, row in desired.items():
        port, protocol = row.split("/")
        if refused(int(port), protocol):
            found[name] = None
    if time.monotonic() >= until:
        break
    time.sleep(0.5)
print("\\n".join(found))
"""

_CLEAR = r"""
for name in second third; do
    socket=unix:///run/$name/docker.sock
    [ ! -S "/run/$name/docker.sock" ] \
        || docker -H "$socket" ps -aq | xargs -r docker -H "$socket" rm -f
    systemctl stop "$name-engine"
    ip link delete "lab-$name"
    rm -rf "/var/lib/docker/$name"
done
if [ -d /run/podman-storage ]; then podman rm -fa -t 0; podman rmi -fa; fi
ip link delete cni-podman0
rm -rf /var/lib/cni /var/lib/containers
true
"""

#: Every holder by its name.
HOLDERS: Mapping[str, Holder] = _catalogue()
