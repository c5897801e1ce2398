"""A host of namespaces on this machine: its own /etc, /run, /sys and /var/lib, its own processes.

The probes run in it as they are, through the connection room, in whichever shell is its ``sh``.
What it has is laid out by the tests: files, processes, an engine that the real client of Docker
asks, and stand-ins for programs that tell what a test wants them to have found.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra.api.host import Host

from stackmend.connection import fetch_facts
from tests.connected import local
from tests.shells import find
from tests.unit.hostile_engine import Engine

#: The shells that are the ``sh`` of some host, by the directory that has them under that name.
SHELLS = ("dash", "bash", "busybox")

#: What every host has; each probe uses some of them.
TOOLS = (
    "awk base64 basename cat chmod cmp cp curl cut date df dirname env expr false find getent grep "
    "head hostname id ip kill ls mkdir mktemp mv nsenter od printf python3 readlink rm sed setpriv "
    "sha256sum sleep sort ss stat tail tar timeout touch tr true uname uniq unshare wc xargs"
).split()

#: Places that a host has for itself.
PLACES = ("etc", "run", "sys", "var/lib", "home")

_INIT = """
set -e
root=$1
shift
for place; do mount --bind "$root/$place" "/$place"; done
mount -t proc proc /proc
[ ! -e "$root/alone" ] || ip link set lo up
# What ends without a parent ends without a trace.
trap '' CHLD
touch "$root/up"
exec sleep infinity
"""


def stand_in(path: Path, text: str) -> None:
    """A program of the host, as a script of the shell that this machine has."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@dataclass
class HostileHost:
    """The host; `root` is where what it has lies on this machine."""

    root: Path
    engine: Engine
    hosts: Mapping[str, Host]
    pid: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def path(self, place: str | bytes) -> Path:
        """Where this machine has what the host has at `place`."""
        return self.root / os.fsdecode(place).lstrip("/")

    def write(self, place: str | bytes, data: bytes | str) -> None:
        """A file of the host."""
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)

    def clear(self, *places: str) -> None:
        """Leave nothing in these directories."""
        for place in places:
            # The directory itself stays: it is mounted.
            for path in self.path(place).iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def program(self, name: str, text: str) -> None:
        """A stand-in for a program, in every shell's PATH; what it may say lies in ``$say``."""
        for shell in SHELLS:
            path = self.root / f"bin-{shell}" / name
            path.unlink(missing_ok=True)
            stand_in(path, f"say={self.root}/say\n{text}")

    def says(self, name: str, data: bytes | str) -> None:
        """What a stand-in is to say."""
        self.write(f"say/{name}", data)

    def enter(self, *argv: str | bytes) -> list[str | bytes]:
        """A command line that runs in the host."""
        return ["nsenter", *self._namespaces(), "--", *argv]

    def _namespaces(self) -> list[str]:
        words = ["-t", str(self.pid), "-m", "-p"]
        if (self.root / "alone").exists():
            words.append("-n")
        if os.getuid() != 0:
            words += ["-U", "--preserve-credentials"]
        return words

    def run(self, *argv: str | bytes) -> None:
        """Run a command in the host, to its end."""
        subprocess.run(self.enter(*argv), check=True, stdin=subprocess.DEVNULL, timeout=60)

    def start(self, *argv: str | bytes, **more: Any) -> subprocess.Popen[bytes]:
        """A process of the host, until :meth:`stop`."""
        one = subprocess.Popen(
            self.enter(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more
        )
        self.started.append(one)
        return one

    def stand(self, program: str, *argv: str | bytes) -> subprocess.Popen[bytes]:
        """A process that calls itself so and has these arguments, behind those of a shell."""
        path = self.root / "say" / program
        if not path.exists():
            path.symlink_to(Path(find("dash")).resolve())
        one = self.start(str(path), "-c", "echo up; read -r _", *argv)
        assert one.stdout is not None
        assert one.stdout.readline() == b"up\n"
        return one

    def stop(self) -> None:
        """End what was started."""
        for one in self.started:
            # What reads its input ends with it, in the host as well as here.
            try:
                one.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                one.kill()
                one.communicate()
        self.started.clear()

    def fetch_facts(
        self, shell: str, facts: Sequence[tuple[type, Mapping[str, Any]]], **more: Any
    ) -> list[Any]:
        """What facts say of this host, read in one command."""
        return fetch_facts(self.hosts[shell], [(fact, {**asked, **more}) for fact, asked in facts])


@contextlib.contextmanager
def hostile_host(alone: bool = False) -> Iterator[HostileHost]:
    """A host, taken away at the end.

    :param alone: whether it has a network of its own.
    """
    unshare = [find("unshare"), "--mount", "--pid", "--fork", "--kill-child"]
    unshare += ["--propagation", "private"]
    unshare += ["--net"] if alone else []
    unshare += ["-r"] if os.getuid() != 0 else []
    root = Path(tempfile.mkdtemp(prefix="stackmend-host."))
    try:
        # Its users run its programs.
        root.chmod(0o755)
        for place in (*PLACES, "bin", "say", "root"):
            (root / place).mkdir(parents=True)
        if alone:
            (root / "alone").touch()
        for shell in SHELLS:
            _tools(root, shell)
        words = [*unshare, "sh", "-c", _INIT, "init", str(root), *PLACES]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as init:
            try:
                while not (root / "up").exists():
                    assert init.poll() is None, "the host's namespaces cannot be made"
                children = Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text()
                engine = Engine(root / "run/docker.sock")
                hosts: dict[str, Host] = {}
                made = HostileHost(root, engine, hosts, int(children.split()[0]))
                with contextlib.ExitStack() as stack:
                    stack.callback(engine.close)
                    stack.callback(made.stop)
                    for shell in SHELLS:
                        path = root / f"bin-{shell}"
                        environment = (
                            f"PATH={path} HOME={root}/root TMPDIR=/tmp LANG=C.UTF-8 SHELL=/bin/sh"
                        )
                        by = " ".join(["nsenter", *made._namespaces()])
                        enter = root / f"enter-{shell}"
                        stand_in(enter, f'exec {by} -- env -i {environment} {path}/sh "$@"')
                        asked = {"_shell_executable": str(enter), "_timeout": 60}
                        hosts[shell] = stack.enter_context(local(**asked))
                    yield made
            finally:
                init.kill()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _tools(root: Path, shell: str) -> None:
    """A PATH whose ``sh`` is this shell; busybox brings its own tools, too."""
    path = root / f"bin-{shell}"
    path.mkdir()
    for name in TOOLS:
        # Not by way of /etc/alternatives, which is not the host's.
        (path / name).symlink_to(Path(find(name)).resolve())
    if shell == "busybox":
        applets = subprocess.run([find("busybox"), "--list"], capture_output=True, text=True)
        # Those that lack what the probes ask of them are not on such a host either.
        for name in {*applets.stdout.split()} & {*TOOLS} - {"ip", "nsenter", "unshare", "hostname"}:
            (path / name).unlink()
            (path / name).symlink_to(find("busybox"))
    (path / "sh").symlink_to(find(shell))
    (path / "docker").symlink_to(find("docker"))
