"""Lab hosts: created, leased, looked at from outside, and put back as they were.

A host is a container of the outer engine with systemd as pid 1, sshd, and (kind ``managed``) an
engine of its own on a volume. Runs share hosts through leases: a file lock per host, so that xdist
workers, a demo and a second terminal never hold the same one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlencode

from tests.lab import engine, images
from tests.lab.changes import changed_files
from tests.lab.engine import LabUnavailable, OuterCommandError, docker, outer
from tests.lab.inside import inside
from tests.lab.paths import (
    HOME_LABEL,
    HOSTS_JSON,
    IMAGE_TARS,
    KEY,
    KNOWN_HOSTS,
    LAB_LOCK,
    LABEL,
    LEASES,
    LOCKS,
    PREFIX,
    PROJECT,
    VAR,
    locked,
)

Kind = Literal["bare", "managed", "trixie"]

KEEPER_PASSWORD = "lab-keeper"
USERS = ("root", "operator", "keeper")
MAX_HOSTS = 24

# A privileged container would ask for capabilities that the machine itself may lack.
_CAPABILITIES = (
    "SYS_ADMIN NET_ADMIN NET_RAW SYS_PTRACE SYS_CHROOT MKNOD AUDIT_WRITE DAC_READ_SEARCH SYS_NICE "
    "SYS_MODULE SETFCAP KILL AUDIT_CONTROL SYSLOG SYS_TIME LEASE IPC_LOCK SYS_BOOT SYS_TTY_CONFIG "
    "LINUX_IMMUTABLE"
).split()
# What sshd is called in the journal: newer ones do their work in programs of other names.
_SSHD = "-t sshd -t sshd-session -t sshd-auth"
# By what name the lab itself writes into the journal.
_FENCE = "lab-fence"
# Engines end an answer with a line break, or do not.
_ASK = "curl -gfsS -w '\\n' --unix-socket /run/docker.sock"
_RESET = (Path(__file__).parent / "reset.sh").read_bytes()
_SETTLE = (Path(__file__).parent / "settle.sh").read_bytes()


class HostCommandError(Exception):
    """A command inside a host failed. The message holds the command, its status and its output."""


class LabHost:
    """One host of the lab, looked at from outside: through ``docker exec``, never through ssh.

    + name: its short name, which is its hostname and its name on the lab's network (``managed-1``)
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = cast(Kind, name.rpartition("-")[0])
        self.container = f"{PREFIX}-{name}"

    def __repr__(self) -> str:
        return f"LabHost({self.name!r})"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 that leads to the host's sshd."""
        # Whatever starts a host writes this anew; the client takes a hundred times as long to ask.
        rows = json.loads(HOSTS_JSON.read_text()) if HOSTS_JSON.exists() else []
        if known := [int(row["port"]) for row in rows if row["name"] == self.name]:
            return known[0]
        published = docker("port", self.container, "22/tcp")
        return int(published.splitlines()[0].rpartition(":")[2])

    @property
    def address(self) -> str:
        """The host's address on the lab's network."""
        return docker(
            "inspect",
            "-f",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            self.container,
        )

    def ssh_data(self, user: str = "root") -> dict[str, Any]:
        """What a pyinfra inventory needs to log in as `user` (root, operator or keeper)."""
        data: dict[str, Any] = {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": self.port,
            "ssh_user": user,
            "ssh_key": str(KEY),
            "ssh_known_hosts_file": str(KNOWN_HOSTS),
            "ssh_strict_host_key_checking": "yes",
        }
        if user != "root":
            data["_sudo"] = True
        if user == "keeper":
            data["_sudo_password"] = KEEPER_PASSWORD
        return data

    def ssh_argv(self, user: str = "root") -> list[str]:
        """The start of an ``ssh`` command line to this host; append the remote command."""
        return [
            "ssh",
            "-i",
            str(KEY),
            "-p",
            str(self.port),
            "-o",
            f"UserKnownHostsFile={KNOWN_HOSTS}",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
            f"{user}@127.0.0.1",
        ]

    def run(
        self, command: str, *, stdin: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a bash command as root inside the host; never raises for its exit status."""
        words = ("bash", "-c", command)
        return inside(self.container, *words, stdin=stdin, check=False, timeout=timeout)

    def sh(self, command: str, check: bool = True, *, timeout: float = 60) -> str:
        """Run a bash command as root inside the host and return its stdout, stripped.

        Raises `HostCommandError` when it exits non-zero, unless `check` is False.

        >>> host.sh("systemctl is-active docker")
        'active'
        """
        done = self.run(command, timeout=timeout)
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
            raise HostCommandError(f"{self.name}: {command}: exit {done.returncode}\n{said}")
        return done.stdout.decode(errors="replace").strip()

    def docker(self, *args: str, check: bool = True, timeout: float = 60) -> str:
        """Run the host's own docker client and return its stdout, stripped.

        >>> host.docker("ps", "-q")
        ''
        """
        return self.sh(shlex.join(["docker", *args]), check, timeout=timeout)

    def api(self, *paths: str) -> list[Any]:
        """What the host's engine answers to a GET of each path, from JSON.

        The same as docker's client shows, at a fifth of its price: tests look often.

        >>> host.api("/containers/json?all=1")
        [[]]
        """
        urls = " ".join(shlex.quote(f"http://docker{path}") for path in paths)
        said = self.sh(f"{_ASK} --fail-early {urls}")
        return [json.loads(line) for line in said.splitlines() if line]

    def inspect(self, container: str) -> dict[str, Any]:
        """``docker container inspect`` of one container."""
        found: dict[str, Any] = self.api(f"/containers/{container}/json")[0]
        return found

    def containers(self, project: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """Every container of a compose project (or of all), inspected, by service.

        A container without compose labels is listed under its own name. Ordered by its number.
        """
        label = {"label": [f"com.docker.compose.project={project}"]} if project else {}
        query = urlencode({"all": 1, "filters": json.dumps(label)})
        (listed,) = self.api(f"/containers/json?{query}")
        found: dict[str, list[dict[str, Any]]] = {}
        number = "com.docker.compose.container-number"
        inspected = self.api(*(f"/containers/{one['Id']}/json" for one in listed)) if listed else []
        for entry in sorted(inspected, key=lambda e: int(e["Config"]["Labels"].get(number, "0"))):
            service = entry["Config"]["Labels"].get("com.docker.compose.service", entry["Name"][1:])
            found.setdefault(service, []).append(entry)
        return found

    def identities(self, project: str | None = None) -> dict[str, tuple[str, str, int]]:
        """Container name → (id, start time, restart count): equal before and after = untouched."""
        return {
            entry["Name"][1:]: (entry["Id"], entry["State"]["StartedAt"], entry["RestartCount"])
            for entries in self.containers(project).values()
            for entry in entries
        }

    def now(self) -> str:
        """The host's clock, to the nanosecond, as `events_since` takes it."""
        return self.sh("date +%s.%N")

    def events_since(self, moment: str) -> list[dict[str, Any]]:
        """The engine's events from `moment` (see `now`) until now, without exec and health probes.

        Healthchecks run all the time and say nothing about who acted.
        """
        events = self.api(f"/events?since={moment}&until={self.now()}")
        noise = ("exec_", "health_status")
        return [event for event in events if not str(event["Action"]).startswith(noise)]

    def journal(self, options: str = "") -> str:
        """What journalctl shows, as bare messages, once the journal holds all said until now.

        + options: for journalctl, as a shell takes them: ``-t sudo -n 20``

        journald takes in what it is told one after the other, so a word said now comes last; its
        own ``--sync`` writes only what it has taken in by then.
        """
        quiet = "journalctl -q --no-pager -o cat"
        return self.sh(
            f'word="{_FENCE} $(cat /proc/sys/kernel/random/uuid)"; '
            f'logger -t {_FENCE} "$word"; SECONDS=0; '
            f'until {quiet} -t {_FENCE} -n 5 | grep -q "$word"; do '
            "[ $SECONDS -lt 20 ] || { echo the journal takes nothing in >&2; exit 1; }; done; "
            f"{quiet} {options}"
        )

    def mark(self) -> str:
        """A point in the host's journal, for `sessions_since`."""
        return self.journal(f"-t {_FENCE} -n 1 --show-cursor").rpartition("cursor: ")[2]

    def sessions_since(self, mark: str) -> list[str]:
        """What sshd began since `mark`: one line per channel, such as ``command for root``.

        A login without a channel is no session; a forwarded connection is no session either.
        """
        begun = [line for line in self.sshd_since(mark) if line.startswith("Starting session: ")]
        return [line.removeprefix("Starting session: ").partition(" from ")[0] for line in begun]

    def logins_since(self, mark: str) -> int:
        """How many logins sshd accepted since `mark`."""
        return sum(line.startswith("Accepted publickey for ") for line in self.sshd_since(mark))

    def sshd_since(self, mark: str) -> list[str]:
        """What sshd wrote since `mark`, line by line."""
        # journalctl leaves out the first entry after a cursor that is none of those asked for.
        asked = f"-t {_FENCE} {_SSHD} --after-cursor={shlex.quote(mark)}"
        return [line for line in self.journal(asked).splitlines() if not line.startswith(_FENCE)]

    def put(self, path: str, content: bytes | str, mode: str = "0644") -> None:
        """Write a file inside the host, creating its directory. `content` is written as it is."""
        data = content.encode() if isinstance(content, str) else content
        quoted = shlex.quote(path)
        done = self.run(
            f'mkdir -p -- "$(dirname -- {quoted})" && cat > {quoted} && chmod {mode} {quoted}',
            stdin=data,
        )
        if done.returncode != 0:
            raise HostCommandError(f"{self.name}: {path}: {done.stderr.decode(errors='replace')}")

    def read(self, path: str) -> bytes:
        """The content of a file inside the host."""
        done = self.run(f"cat -- {shlex.quote(path)}")
        if done.returncode != 0:
            raise HostCommandError(f"{self.name}: {path}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def exists(self, path: str) -> bool:
        """Whether a path exists inside the host (a dangling link does)."""
        quoted = shlex.quote(path)
        return self.run(f"[ -e {quoted} ] || [ -L {quoted} ]").returncode == 0

    def snapshot_files(self, *paths: str) -> dict[str, str]:
        """Every file below `paths` → mode, owner, times and content hash: equal = not written to.

        + paths: directories or files; one that is missing adds nothing
        """
        wanted = shlex.join(paths)
        listed = self.sh(
            f"find {wanted} -xdev \\( -type f -o -type l -o -type d \\) "
            "-printf '%p\\t%y %m %u:%g %T@ %l\\n' 2>/dev/null; "
            f"find {wanted} -xdev -type f -exec sha256sum {{}} + 2>/dev/null "
            "| sed 's/^\\([0-9a-f]*\\)  \\(.*\\)$/\\2\\t\\1/'",
            check=False,
        )
        found: dict[str, str] = {}
        for line in listed.splitlines():
            path, _, rest = line.partition("\t")
            found[path] = f"{found.get(path, '')} {rest}".strip()
        return found

    def load_images(self, *names: str) -> None:
        """Give an engine that a test installed the lab's own images, as every managed host has.

        + names: those that the test needs; all by default
        """
        if not names:
            _load_images(self)
        elif steps := [step for name in names for step in _loading(name)]:
            self.sh(" && ".join(steps), timeout=120)

    def wait_for(self, condition: str, seconds: float = 20) -> None:
        """Wait inside the host until a bash condition holds; raises `HostCommandError` if not.

        >>> host.wait_for("docker ps -q | grep -q .")
        """
        step = (
            f"SECONDS=0; until {condition}; do [ $SECONDS -lt {int(seconds)} ] || exit 1; "
            "sleep 0.1; done"
        )
        if self.run(step, timeout=seconds + 30).returncode != 0:
            raise HostCommandError(f"{self.name}: not within {seconds} s: {condition}")

    def wait_for_container(self, identity: str, pattern: str, seconds: float = 20) -> None:
        """Wait until what the engine shows of a container, as JSON without spaces, matches.

        + pattern: as ``grep -E`` takes it

        >>> host.wait_for_container("shop-web-1", '"Status":"healthy"')
        """
        shown = f"{_ASK} http://docker/containers/{identity}/json"
        self.wait_for(f"{shown} | grep -qE {shlex.quote(pattern)}", seconds)

    def reset(self) -> None:
        """Put the host back as it was when it was new.

        Removed: containers, networks, volumes, build cache and foreign images of its engine,
        strange processes, units, mounts and files. Put back: the engine and its settings, the
        lab's images and tags, /etc, /root, /home, /opt, /srv, /usr/local, packet filter, tc,
        services. Where that is not enough (a package installed, a binary removed) the host is
        made anew.
        """
        why = ""
        try:
            words = ("sh", "-s", self.kind)
            done = inside(self.container, *words, stdin=_RESET, check=False, timeout=90)
            said = done.stdout.decode(errors="replace")
            if done.returncode != 0 or not said.rstrip().endswith("clean"):
                why = f"{said} {done.stderr.decode(errors='replace')}".strip() or "no answer"
            elif lost := [line.split()[1] for line in said.splitlines() if "reload " in line]:
                _load_images(self, lost)
        except OuterCommandError as error:
            why = str(error)
        if not why:
            why = self._strange_files()
        if why:
            print(f"lab: {self.name} is made anew: {why[-600:]}", file=sys.stderr, flush=True)
            self.recreate()

    def recreate(self, *, with_engine_data: bool = False) -> None:
        """Make the host anew; `with_engine_data` throws its engine's data away as well."""
        with locked(LAB_LOCK):
            _remove_host(self.container, volume=with_engine_data)
        _create(self)
        _ready(self)
        _write_hosts_json()
        words = ("sh", "-s", self.kind)
        done = inside(self.container, *words, stdin=_RESET, check=False, timeout=90)
        if not done.stdout.decode(errors="replace").rstrip().endswith("clean"):
            if with_engine_data:
                raise HostCommandError(f"{self.name}: not clean when new: {done.stdout!r}")
            self.recreate(with_engine_data=True)

    def power_cut(self) -> None:
        """Kill everything in the host at once, and start it again as after a loss of power."""
        docker("kill", "-s", "KILL", self.container)
        docker("start", self.container)
        _ready(self)
        _write_hosts_json()

    def _strange_files(self) -> str:
        """Changes outside of what the reset covers, against those seen when the host was new."""
        changed = changed_files(self.container)
        known = set(self.sh("cat /lab/baseline/changed").splitlines())
        strange = sorted(changed - known)
        return f"changed: {' '.join(strange[:8])}" if strange else ""


def up(managed: int = 1, bare: int = 0) -> list[LabHost]:
    """Make at least so many hosts run and answer; quick when they do already.

    Raises `LabUnavailable` when this machine cannot carry a lab.
    """
    prepare()
    names = [f"managed-{n + 1}" for n in range(managed)] + [f"bare-{n + 1}" for n in range(bare)]
    hosts = [LabHost(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ensure_host, hosts))
    return hosts


def prepare() -> None:
    """Engine, images, key and network: all that hosts share."""
    engine.ensure()
    engine.raise_limits()
    with locked(LAB_LOCK):
        _remove_stale()
        _make_key()
        _make_network()
    images.build(["bare", "managed", *images.inner_names()])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(images.tar, images.inner_names()))


def ensure_host(host: LabHost) -> LabHost:
    """Make one host run and answer, with today's images; does not reset it."""
    with locked(LOCKS / host.name):
        ref = images.build([host.kind])[host.kind]
        state = (
            outer(
                "docker",
                "inspect",
                "-f",
                "{{.State.Status}} {{.Config.Image}}",
                host.container,
                check=False,
            )
            .stdout.decode()
            .split()
        )
        if state and state != ["running", ref]:
            _remove_host(host.container)
            state = []
        if not state:
            _create(host)
        try:
            _ready(host)
        except (LabUnavailable, OuterCommandError):
            if not state:
                raise
            # Left as it is by a test that was ended half-way: nothing in it is worth keeping.
            host.recreate()
        _write_hosts_json()
    return host


@contextlib.contextmanager
def lease(kind: Kind = "managed", patience: float = 600) -> Iterator[LabHost]:
    """Hold a host nobody else holds, making one if all are taken. It is not reset here.

    + patience: seconds to wait for one when the lab is full
    """
    LEASES.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    while True:
        for number in range(1, MAX_HOSTS + 1):
            name = f"{kind}-{number}"
            handle = (LEASES / name).open("w")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.close()
                continue
            with handle:
                yield ensure_host(LabHost(name))
            return
        if time.monotonic() > deadline:
            raise LabUnavailable(f"all {MAX_HOSTS} {kind} hosts are held by others")
        time.sleep(0.5)


def discard(hosts: Sequence[LabHost]) -> None:
    """Remove hosts; who leases one of them next gets a new one."""
    with locked(LAB_LOCK), ThreadPoolExecutor(4) as pool:
        list(pool.map(_remove_host, [host.container for host in hosts]))
    _write_hosts_json()


def running() -> list[LabHost]:
    """The hosts of this checkout that run now."""
    prefix = f"{PREFIX}-"
    names = engine.lab_objects(
        "container", f"label={HOME_LABEL}={PROJECT}", "status=running", "label=stackmend.lab.host"
    )
    return [LabHost(name.removeprefix(prefix)) for name in names]


def down() -> list[str]:
    """Remove this checkout's hosts, registry and network; images and engine data stay."""
    with locked(LAB_LOCK):
        gone = engine.lab_objects("container", f"label={HOME_LABEL}={PROJECT}")
        for container in gone:
            _remove_host(container)
        for network in engine.lab_objects("network", f"label={HOME_LABEL}={PROJECT}"):
            docker("network", "rm", network, check=False)
        HOSTS_JSON.unlink(missing_ok=True)
    return gone


def clean() -> list[str]:
    """Remove all that the lab made: hosts, volumes, networks, images, the engine if it was ours.

    Returns what was done, in words. Files below var/lab are the caller's to remove.
    """
    said: list[str] = []
    if engine.answers():
        said += [f"host removed: {name}" for name in down()]
        for volume in engine.lab_objects("volume", f"label={HOME_LABEL}={PROJECT}"):
            docker("volume", "rm", "-f", volume)
            said.append(f"volume removed: {volume}")
        for _ in range(6):  # children before parents
            left = engine.lab_objects("image", f"label={HOME_LABEL}={PROJECT}")
            if not left:
                break
            for image in left:
                outer("docker", "image", "rm", "-f", image, check=False)
        docker("image", "prune", "-f", "--filter", f"label={LABEL}")  # the stages of builds
        said.append("images removed")
    return said + engine.shut_down()


def _make_key() -> None:
    if KEY.exists():
        return
    VAR.mkdir(parents=True, exist_ok=True)
    if shutil.which("ssh-keygen") is None:
        engine.install("openssh-client")
    part = KEY.with_name(f"key.{os.getpid()}")
    outer("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stackmend-lab", "-f", str(part))
    part.with_name(f"{part.name}.pub").rename(KEY.with_name(f"{KEY.name}.pub"))
    part.rename(KEY)


def _make_network() -> None:
    if outer("docker", "network", "inspect", PREFIX, check=False).returncode != 0:
        docker("network", "create", "--label", LABEL, "--label", f"{HOME_LABEL}={PROJECT}", PREFIX)


def _remove_stale() -> None:
    """Remove what lab checkouts that exist no more left on this machine."""
    for kind in ("container", "volume", "network"):
        for name in engine.lab_objects(kind):
            shown = "{{index .Config.Labels %s}}" if kind == "container" else "{{index .Labels %s}}"
            home = docker(kind, "inspect", "-f", shown % json.dumps(HOME_LABEL), name, check=False)
            if home and not Path(home).is_dir():
                if kind == "container":
                    _remove_host(name)
                else:
                    docker(kind, "rm", name, check=False)


def _create(host: LabHost) -> None:
    v2 = docker("info", "-f", "{{.CgroupVersion}}") == "2"
    cgroup = (
        ["--cgroupns=private"]
        if v2
        else ["--cgroupns=host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    )
    if host.kind == "managed":
        volume = f"{host.container}-docker"
        docker("volume", "create", "--label", LABEL, "--label", f"{HOME_LABEL}={PROJECT}", volume)
        data = ["-v", f"{volume}:/var/lib/docker"]
    else:
        # An engine that is installed there later needs a place where an overlay can be mounted.
        data = ["-v", "/var/lib/docker", "-v", "/var/lib/containerd"]
    IMAGE_TARS.mkdir(parents=True, exist_ok=True)
    docker(
        "run",
        "-d",
        "--name",
        host.container,
        "--hostname",
        host.name,
        "--label",
        LABEL,
        "--label",
        f"{HOME_LABEL}={PROJECT}",
        "--label",
        f"stackmend.lab.host={host.kind}",
        "--network",
        PREFIX,
        "--network-alias",
        host.name,
        "-p",
        "127.0.0.1::22",
        *(f"--cap-add={capability}" for capability in _CAPABILITIES),
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "systempaths=unconfined",
        "--security-opt",
        "apparmor=unconfined",
        *cgroup,
        "--tmpfs",
        "/run:size=256m",
        "--tmpfs",
        "/run/lock",
        "-v",
        f"{IMAGE_TARS}:/lab/images:ro",
        *data,
        images.reference(host.kind),
    )


def _ready(host: LabHost) -> None:
    """Wait until the host's services answer; when it is new, remember how it is."""
    key = KEY.with_name(f"{KEY.name}.pub").read_text().strip()
    done = inside(
        *(host.container, "sh", "-s", host.kind),
        stdin=_SETTLE,
        env={"LAB_KEY": key},
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        logs = docker("logs", "--tail", "20", host.container, check=False)
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise LabUnavailable(f"host {host.name} does not come up: {said}\n{logs}")
    if host.kind == "managed":
        _load_images(host)
    if "new" in done.stdout.decode().split():
        baseline = "\n".join(sorted(changed_files(host.container)))
        host.put("/lab/baseline/changed", f"{baseline}\n")


def _load_images(host: LabHost, lost: Sequence[str] = ()) -> None:
    """Load the images whose present version the host's engine does not have.

    + lost: names to load although they were loaded before
    """
    wanted = {name: images.tar(name) for name in images.inner_names()}
    record = "/var/lib/docker/stackmend-lab/images"
    stamps = {f"{name} {path.name}" for name, path in wanted.items()}
    have = set(host.sh(f"cat {record}.tars 2>/dev/null", check=False).splitlines())
    if have == stamps and not lost:
        return
    steps = ["mkdir -p /var/lib/docker/stackmend-lab"]
    for name, path in sorted(wanted.items()):
        if f"{name} {path.name}" in have and not {name, f"{name}:latest"} & set(lost):
            continue
        steps += _loading(name)
    shown = "docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'"
    stamp = "".join(f"{line}\\n" for line in sorted(stamps))
    steps += [
        "docker image prune -f > /dev/null",
        f"{shown} | sort > {record}",
        f"printf {shlex.quote(stamp)} > {record}.tars",
    ]
    host.sh(" && ".join(steps), timeout=300)


def _loading(name: str) -> list[str]:
    """The commands that give a host's engine one of the lab's images."""
    ref = images.reference(name)
    return [
        f"docker load -q -i /lab/images/{images.tar(name).name} > /dev/null",
        f"docker tag {ref} {name}",
        f"docker image rm {ref} > /dev/null",
    ]


def _remove_host(container: str, *, volume: bool = False) -> None:
    """Remove a host's container, thawing what was left paused inside: frozen, it cannot end."""
    outer("docker", "unpause", container, check=False)
    with contextlib.suppress(OuterCommandError):
        inside(container, "sh", "-s", "thaw", stdin=_RESET, check=False, timeout=20)
    done = outer("docker", "rm", "-f", "-v", container, check=False, timeout=60)
    if done.returncode != 0 and outer("docker", "inspect", container, check=False).returncode == 0:
        engine.thaw_container(container)
        docker("rm", "-f", "-v", container, timeout=60)
    if volume:
        docker("volume", "rm", "-f", f"{container}-docker")


def _ports() -> dict[LabHost, int]:
    """The hosts of this checkout that run now, and the ports that lead to their sshds."""
    mine = ("--filter", f"label={HOME_LABEL}={PROJECT}", "--filter", "label=stackmend.lab.host")
    listed = docker("container", "ls", *mine, "--format", "{{.Names}} {{.Ports}}")
    rows = [line.partition(" ") for line in sorted(listed.splitlines())]
    found = {name: re.search(r":([0-9]+)->22/tcp", ports) for name, _, ports in rows}
    return {
        LabHost(name.removeprefix(f"{PREFIX}-")): int(match[1])
        for name, match in found.items()
        if match
    }


def _write_hosts_json() -> None:
    """Name the running hosts, for inventories, and their host keys, for ssh."""
    with locked(LOCKS / "hosts.json"):
        rows: list[dict[str, Any]] = []
        known: list[str] = []
        before = KNOWN_HOSTS.read_text().splitlines() if KNOWN_HOSTS.exists() else []
        for host, port in _ports().items():
            with contextlib.suppress(OuterCommandError):
                rows.append({"name": host.name, "kind": host.kind, "port": port})
                address = f"[127.0.0.1]:{port}"
                shown = host.run("cat /etc/ssh/ssh_host_*_key.pub")
                if shown.returncode == 0:
                    keys = shown.stdout.decode().splitlines()
                    known += [f"{address} {' '.join(key.split()[:2])}\n" for key in keys]
                else:
                    # It restarts just now, and keeps the keys it had.
                    known += [f"{line}\n" for line in before if line.startswith(f"{address} ")]
        _replace(KNOWN_HOSTS, "".join(known))
        _replace(HOSTS_JSON, json.dumps(rows, indent=1) + "\n")


def _replace(path: Path, content: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(content)
    part.rename(path)


def leased(names: Sequence[str]) -> list[str]:
    """Those of `names` that somebody holds now."""
    held = []
    for name in names:
        with contextlib.suppress(FileNotFoundError), (LEASES / name).open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.append(name)
    return held
