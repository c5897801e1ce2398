"""Programs run as root inside the lab's containers.

Where this is root on the engine's own machine, with cgroup v1, a program is put there by the
kernel's own means: into the namespaces, the cgroups and the capabilities of the container, as
``docker exec`` does. That takes a tenth of the time, and a run of the tests does it thousands of
times. Everywhere else ``docker exec`` is used.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.engine import SBIN, OuterCommandError, outer

_CGROUPS = Path("/sys/fs/cgroup")
#: Joins the cgroups that are named before "--", and becomes what is behind it.
_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'


@dataclass(frozen=True)
class _Entry:
    """How one gets into a container: good as long as its first process is the same."""

    pid: int
    started: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def good(self) -> bool:
        return _started(self.pid) == self.started


_entries: dict[str, _Entry] = {}


def inside(
    container: str,
    *argv: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as root inside a container, until it ends; what it leaves running runs on.

    + env: variables beside those of the container
    + check: raise `OuterCommandError` where it does not end with 0
    """
    entry = _entries.get(container)
    if entry is None or not entry.good:
        entry = _find_entry(container)
    if entry is None:
        more = [part for name, value in (env or {}).items() for part in ("-e", f"{name}={value}")]
        words = ("docker", "exec", "-i", *more, container, *argv)
        return outer(*words, stdin=stdin, check=check, timeout=timeout)
    _entries[container] = entry
    done = _run([*entry.argv, *argv], stdin, {**entry.environment, **(env or {})}, timeout)
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
        raise OuterCommandError(f"{container}: {' '.join(argv)}: exit {done.returncode}\n{said}")
    return done


def _run(
    argv: list[str], stdin: bytes, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[bytes]:
    # Into files: through pipes the end of what it left running would be waited for.
    file = tempfile.TemporaryFile
    with file() as given, file() as out, file() as err:
        given.write(stdin)
        given.seek(0)
        program = subprocess.Popen(
            argv, stdin=given, stdout=out, stderr=err, env=env, start_new_session=True
        )
        try:
            status = program.wait(timeout)
        except subprocess.TimeoutExpired as error:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            raise OuterCommandError(f"{' '.join(argv)}: no end after {timeout} s") from error
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(argv, status, out.read(), err.read())


def _find_entry(container: str) -> _Entry | None:
    """The way into a container that runs; None where only the engine has one."""
    _entries.pop(container, None)
    tools = [shutil.which(name, path=SBIN) for name in ("sh", "nsenter", "setpriv")]
    if os.geteuid() != 0 or not (_CGROUPS / "systemd").is_dir():
        return None
    shown = outer("docker", "inspect", container, check=False)
    if shown.returncode != 0 or not all(tools):
        return None
    (found,) = json.loads(shown.stdout)
    state, pid = found["State"], int(found["State"]["Pid"])
    started = _started(pid)
    if not state["Running"] or state["Paused"] or not started:
        return None
    try:
        joined, capabilities = _cgroups(pid, found["Id"]), _capabilities(pid)
    except OSError:
        return None  # it ended meanwhile
    if not joined:
        return None
    shell, nsenter, setpriv = map(str, tools)
    return _Entry(
        pid,
        started,
        (
            *(shell, "-c", _JOIN, "join", *joined, "--"),
            *(nsenter, "--target", str(pid), "--all", "--"),
            *(setpriv, "--bounding-set", capabilities),
        ),
        {
            **dict(entry.partition("=")[::2] for entry in found["Config"]["Env"]),
            "HOSTNAME": found["Config"]["Hostname"],
            "HOME": "/root",
        },
    )


def _started(pid: int) -> str:
    """The moment at which a process of this machine was started; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text() if pid else ""
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19] if stat else ""


def _cgroups(pid: int, identity: str) -> list[str]:
    """The files by which one joins a container's cgroups; none where it is another machine's."""
    files = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        before, found, _ = path.partition(identity)
        directory = {"": "unified"}.get(controllers, controllers.removeprefix("name="))
        if found and (_CGROUPS / directory).is_dir():
            files.append(f"{_CGROUPS / directory}{before}{found}/cgroup.procs")
    return files


def _capabilities(pid: int) -> str:
    """The capabilities of a container, as ``setpriv`` takes them."""
    status = Path(f"/proc/{pid}/status").read_text()
    (row,) = [line for line in status.splitlines() if line.startswith("CapBnd:")]
    bits = int(row.split()[1], 16)
    return ",".join(["-all", *(f"+cap_{bit}" for bit in range(64) if bits >> bit & 1)])
