"""The outer engine: the Docker daemon that carries the lab's hosts.

An engine that answers is used as it is. If none answers and this is root, the distribution's own
``docker.io`` is installed where it is missing, and started; `shut_down` takes back exactly that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.lab.paths import LABEL, MACHINE_LOCK, MACHINE_RECORD, locked

DAEMON_LOG = Path("/var/log/stackmend-lab-dockerd.log")
MANY_INSTANCES = 1024
PID_FILES = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}


# A user's PATH may lack the directories of administration.
SBIN = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


class LabUnavailable(Exception):
    """No lab can run on this machine. The message says why and what would help."""


class OuterCommandError(Exception):
    """A command on the outer machine failed. The message holds the command and its output."""


def outer(
    *argv: str,
    stdin: bytes | None = None,
    check: bool = True,
    timeout: float | None = 120,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command on the outer machine.

    + argv: the command and its arguments; no shell is involved
    + stdin: what the command reads; nothing when None
    + check: raise `OuterCommandError` when it exits non-zero
    + timeout: seconds, after which it is killed; None waits for ever
    + env: variables added to those of this process
    """
    try:
        done = subprocess.run(
            argv,
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "PATH": SBIN, **(env or {})},
        )
    except FileNotFoundError as error:
        raise OuterCommandError(f"{argv[0]}: not installed") from error
    except subprocess.TimeoutExpired as error:
        raise OuterCommandError(f"{' '.join(argv)}: no end after {timeout} s") from error
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
        raise OuterCommandError(f"{' '.join(argv)}: exit {done.returncode}\n{said}")
    return done


def docker(
    *args: str, stdin: bytes | None = None, check: bool = True, timeout: float | None = 120
) -> str:
    """Run the docker client against the outer engine and return its stdout, stripped.

    >>> docker("version", "--format", "{{.Server.Version}}")
    '20.10.24+dfsg1'
    """
    done = outer("docker", *args, stdin=stdin, check=check, timeout=timeout)
    return done.stdout.decode(errors="replace").strip()


def answers(timeout: float = 20) -> bool:
    """Whether an engine answers this user within `timeout` seconds."""
    if shutil.which("docker") is None:
        return False
    try:
        done = outer(
            "docker", "version", "--format", "{{.Server.Version}}", check=False, timeout=timeout
        )
    except OuterCommandError:
        return False
    return done.returncode == 0


def ensure() -> None:
    """Make an engine answer, or raise `LabUnavailable` with the reason."""
    if answers():
        return
    if os.geteuid() != 0:
        raise LabUnavailable(_why_no_engine_for_this_user())
    with locked(MACHINE_LOCK):
        if answers():
            return
        _remember(
            had_data=Path("/var/lib/docker").exists(),
            had_bridge=Path("/sys/class/net/docker0").exists(),
            ip_forward=_FORWARDING.read_text().strip(),
        )
        if shutil.which("dockerd", path=SBIN) is None:
            install("docker.io")
            if shutil.which("docker") is None:
                install("docker-cli")
        if shutil.which("iptables", path=SBIN) is None:
            install("iptables")
        if not answers(timeout=5):  # a package's own start script may have done it
            _remember(pid=_start())


def shut_down() -> list[str]:
    """Stop the engine if the lab started it, and purge the packages if the lab installed them.

    An engine that carries anything which is not the lab's is left running, and so are its packages.
    Returns what was done, in words.
    """
    if os.geteuid() != 0 or not MACHINE_RECORD.exists():
        return []
    with locked(MACHINE_LOCK):
        record = _read_record()
        if answers() and docker("ps", "-aq"):
            return ["the engine still carries containers: left running"]
        said = []
        pid = record.get("pid")
        if pid and _is_daemon(pid):
            _end(pid)
            said.append("engine stopped")
        packages = record.get("packages", [])
        if "docker.io" in packages and Path("/run/systemd/system").is_dir():
            outer("systemctl", "stop", "docker.socket", "docker", check=False)
            said.append("engine stopped")
        if said and not record.get("had_bridge", True):
            _remove_bridge(record["ip_forward"])
        if packages and (refusal := _purge(packages)):
            said.append(refusal)
        elif packages:
            said.append(f"packages purged: {' '.join(packages)}")
            if not record.get("had_data", True):
                for path in _TRACES:
                    shutil.rmtree(path, ignore_errors=True)
        DAEMON_LOG.unlink(missing_ok=True)
        shutil.rmtree(MACHINE_RECORD.parent, ignore_errors=True)
    return said


def install(*packages: str) -> None:
    """Install packages of the machine's own distribution.

    What was not there before is remembered, and purged again by `shut_down`. Raises
    `LabUnavailable` when it cannot be done.
    """
    if os.geteuid() != 0:
        raise LabUnavailable(f"{' '.join(packages)} missing, and not root to install it")
    if shutil.which("apt-get") is None:
        raise LabUnavailable(
            f"{' '.join(packages)} missing, and this machine has no apt-get to install it with"
        )
    before = _installed()
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    options = ("-y", "-q", "-o", "DPkg::Lock::Timeout=180", "--no-install-recommends")
    try:
        outer("apt-get", "update", "-q", timeout=300, env=quiet)
        outer("apt-get", "install", *options, *packages, timeout=600, env=quiet)
    except OuterCommandError as error:
        raise LabUnavailable(f"could not install {' '.join(packages)}: {error}") from error
    new = _installed() - before
    _remember(packages=sorted({*_read_record().get("packages", []), *new}))


def raise_limits() -> None:
    """Let this machine carry many hosts: raise ``fs.inotify.max_user_instances``, never lower it.

    Every host's systemd and its services take some 15 of a user's instances, of which a kernel
    gives 128 by default; a host that gets none does not come up. It stays so until a reboot.
    """
    with contextlib.suppress(OSError, ValueError):
        if int(_INSTANCES.read_text()) < MANY_INSTANCES:
            _INSTANCES.write_text(str(MANY_INSTANCES))


_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_TRACES = ("/var/lib/docker", "/var/lib/containerd", "/etc/docker", "/run/docker")


def _why_no_engine_for_this_user() -> str:
    if shutil.which("docker") is None:
        return "no docker client, and not root: install Docker or run as root"
    said = outer("docker", "version", check=False, timeout=20).stderr.decode(errors="replace")
    if "permission denied" in said:
        return "docker answers, but not to this user: add the user to the group docker"
    return "no Docker engine answers, and not root: start one or run as root"


def _installed() -> set[str]:
    listed = outer("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n").stdout.decode()
    rows = (line.split() for line in listed.splitlines())
    return {row[0] for row in rows if row[1:] == ["installed"]}


def _purge(packages: Sequence[str]) -> str | None:
    """Purge `packages` unless that would take others along; return the refusal, if any."""
    present = sorted(set(packages) & _installed())
    if not present:
        return None
    plan = outer("apt-get", "-s", "purge", *present, check=False).stdout.decode()
    others = {line.split()[1] for line in plan.splitlines() if line.startswith(("Remv", "Purg"))}
    others -= set(present)
    if others:
        return f"packages kept, since {' '.join(sorted(others))} needs them: {' '.join(present)}"
    outer(
        "apt-get",
        "purge",
        "-y",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=180",
        *present,
        timeout=300,
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )
    return None


def _read_record() -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(MACHINE_RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return record


def _remember(**facts: Any) -> None:
    """Add to the record of what the lab did to this machine; what it says already stays."""
    MACHINE_RECORD.parent.mkdir(parents=True, exist_ok=True)
    record = _read_record()
    again = {name: value for name, value in facts.items() if name in ("pid", "packages")}
    MACHINE_RECORD.write_text(json.dumps({**facts, **record, **again}))


def _remove_bridge(ip_forward: str) -> None:
    """Remove what an ended engine leaves in the network: its bridge, its packet filter rules."""
    for tool in ("iptables", "ip6tables"):
        saved = outer(f"{tool}-save", check=False).stdout.decode().splitlines()
        kept = [line for line in saved if not re.search("docker", line, re.IGNORECASE)]
        # The engine closes forwarding where it was the one to open it.
        if ip_forward == "0":
            kept = [re.sub("^:FORWARD DROP", ":FORWARD ACCEPT", line) for line in kept]
        if kept != saved:
            outer(f"{tool}-restore", stdin="".join(f"{line}\n" for line in kept).encode())
    outer("ip", "link", "delete", "docker0", check=False)
    _FORWARDING.write_text(ip_forward)


def _start() -> int | None:
    """Start the daemon; return its pid, or None where systemd keeps it."""
    if Path("/run/systemd/system").is_dir():
        outer("systemctl", "start", "docker", check=False)
        if not _wait():
            journal = outer("journalctl", "-u", "docker", "-n", "30", "--no-pager", check=False)
            raise LabUnavailable(f"docker.service does not start: {journal.stdout.decode()}")
        return None
    _clear_remains_of_killed_engine()
    with DAEMON_LOG.open("ab") as log:
        # A session of its own, so that the engine survives the terminal and the test run.
        daemon = subprocess.Popen(
            [str(shutil.which("dockerd", path=SBIN))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PATH": SBIN},
            start_new_session=True,
        )
    if not _wait(daemon):
        tail = DAEMON_LOG.read_text(errors="replace")[-3000:]
        raise LabUnavailable(f"dockerd does not start:\n{tail}")
    pid = daemon.pid
    daemon.returncode = 0  # it outlives us on purpose: nothing to reap, nothing to warn of
    return pid


def _wait(daemon: subprocess.Popen[bytes] | None = None, seconds: float = 90) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answers(timeout=10):
            return True
        if daemon is not None and daemon.poll() is not None:
            return False
        time.sleep(0.3)
    return False


def _clear_remains_of_killed_engine() -> None:
    """Remove what a killed engine leaves that keeps the next one from starting.

    Called only when no engine answers. Of the containers that outlived it, only the lab's own are
    ended: one that is frozen inside would keep the new engine waiting.
    """
    for path, program in PID_FILES.items():
        with contextlib.suppress(OSError, ValueError):
            argv = _argv(int(path.read_text()))
            # Another process may have been given the number since.
            if not argv or Path(argv[0]).name != program:
                path.unlink()
    if any(_is_daemon(pid) for pid in _processes()):
        return
    for shim in _own_shims():
        family = (*_descendants(shim), shim)
        for pid in family:
            _thaw(pid)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _own_root(pid: int) -> bool:
    """Whether the process lives in this machine's own pid namespace, not inside a container."""
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    except OSError:
        return False


def _is_daemon(pid: int) -> bool:
    argv = _argv(pid)
    return bool(argv) and Path(argv[0]).name == "dockerd" and _own_root(pid)


def _own_shims() -> list[int]:
    """The shims of containers that bear the lab's label, read from the engine's own files."""
    found = []
    for pid in _processes():
        argv = _argv(pid)
        if not argv or not Path(argv[0]).name.startswith("containerd-shim") or not _own_root(pid):
            continue
        container = argv[argv.index("-id") + 1] if "-id" in argv[:-1] else ""
        with contextlib.suppress(OSError, ValueError, KeyError):
            config = Path(f"/var/lib/docker/containers/{container}/config.v2.json").read_text()
            labels = json.loads(config)["Config"]["Labels"] or {}
            if "=".join(("stackmend.lab", labels.get("stackmend.lab", ""))) == LABEL:
                found.append(pid)
    return found


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for child in _processes():
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{child}/stat").read_text()
            parent = int(status.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(child)
    found: list[int] = []
    queue = list(children.get(pid, []))
    while queue:
        found.append(queue[0])
        queue.extend(children.get(queue.pop(0), []))
    return found


def _thaw(pid: int) -> None:
    """Thaw the freezer cgroup of one process (never a parent of it: others live there)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if path == "/":
                continue
            if controllers == "freezer":
                (Path("/sys/fs/cgroup/freezer") / path[1:] / "freezer.state").write_text("THAWED")
            elif number == "0":
                (Path("/sys/fs/cgroup") / path[1:] / "cgroup.freeze").write_text("0")


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while _is_daemon(pid) and time.monotonic() < deadline:
        time.sleep(0.1)


def thaw_container(container: str) -> None:
    """Thaw whatever is frozen below one container of the outer engine (as root only)."""
    pid = docker("inspect", "-f", "{{.State.Pid}}", container, check=False)
    if pid.isdigit() and int(pid) > 0:
        for process in (int(pid), *_descendants(int(pid))):
            _thaw(process)


def lab_objects(kind: str, *filters: str) -> list[str]:
    """Names of the outer engine's objects that bear the lab's label.

    + kind: `container`, `volume`, `network` or `image`
    + filters: further `docker ... ls --filter` values, such as `status=running`
    """
    column = {"container": "{{.Names}}", "image": "{{.ID}}"}.get(kind, "{{.Name}}")
    wanted = [part for value in (f"label={LABEL}", *filters) for part in ("--filter", value)]
    scope = ["-a"] if kind == "container" else []
    listed = docker(kind, "ls", *scope, *wanted, "--format", column)
    return sorted(set(listed.split()))
