"""Lab hosts: created, leased, and put back as they were. What is seen of one: `seen`.

A host is a container of the outer engine with systemd as pid 1, sshd, and (kind ``managed``) an
engine of its own on a volume. Runs share hosts through leases: a file lock per host, so that xdist
workers, a demo and a second terminal never hold the same one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import addresses, engine, images
from tests.lab.changes import changed_files
from tests.lab.engine import LabUnavailable, OuterCommandError, docker, outer
from tests.lab.inside import inside
from tests.lab.observed import HostCommandError, Kind, ObservedHost
from tests.lab.paths import (
    HOME_LABEL,
    IMAGE_TARS,
    KEY,
    LAB_LOCK,
    LABEL,
    LEASES,
    LOCKS,
    PREFIX,
    PROJECT,
    VAR,
    locked,
)

MAX_HOSTS = 24

# A privileged container would ask for capabilities that the machine itself may lack.
_CAPABILITIES = (
    "SYS_ADMIN NET_ADMIN NET_RAW SYS_PTRACE SYS_CHROOT MKNOD AUDIT_WRITE DAC_READ_SEARCH SYS_NICE "
    "SYS_MODULE SETFCAP KILL AUDIT_CONTROL SYSLOG SYS_TIME LEASE IPC_LOCK SYS_BOOT SYS_TTY_CONFIG "
    "LINUX_IMMUTABLE"
).split()
_RESET = (Path(__file__).parent / "reset.sh").read_bytes()
_SNAPSHOT = (Path(__file__).parent / "snapshot.sh").read_bytes()


class LabHost(ObservedHost):
    """One host of the lab, which can be put back as it was, and made anew."""

    def load_images(self, *names: str) -> None:
        """Give an engine that a test installed the lab's own images, as every managed host has.

        + names: those that the test needs; all by default
        """
        if not names:
            _load_images(self)
        elif steps := [step for name in names for step in _loading(name)]:
            self.sh(" && ".join(steps), timeout=120)

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
            done = self._put_back()
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
        addresses.write()
        done = self._put_back()
        if not done.stdout.decode(errors="replace").rstrip().endswith("clean"):
            if with_engine_data:
                raise HostCommandError(f"{self.name}: not clean when new: {done.stdout!r}")
            self.recreate(with_engine_data=True)

    def power_cut(self) -> None:
        """Kill everything in the host at once, and start it again as after a loss of power."""
        docker("kill", "-s", "KILL", self.container)
        docker("start", self.container)
        _ready(self)
        addresses.write()

    def _put_back(self) -> subprocess.CompletedProcess[bytes]:
        words = ("sh", "-s", self.kind)
        return inside(self.container, *words, stdin=_RESET, check=False, timeout=90)

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
        addresses.write()
    return host


@contextlib.contextmanager
def lease(kind: Kind = "managed", timeout: float = 600) -> Iterator[LabHost]:
    """Hold a host nobody else holds, making one if all are taken. It is not reset here.

    + timeout: seconds to wait for one when the lab is full
    """
    LEASES.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
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
    addresses.write()


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
        addresses.clear()
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
        stdin=_SNAPSHOT,
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
