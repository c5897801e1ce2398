"""The controller: pyinfra as a user runs it, in a process group of its own.

>>> inventory = write_inventory(tmp_path, [host], stack={"project": "shop", ...})
>>> first = run(inventory, "deploy/site.py", "-y")
>>> assert first.rc == 0, first.out
"""

from __future__ import annotations

import contextlib
import json
import os
import pprint
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.lab import warm
from tests.lab.hosts import LabHost
from tests.lab.paths import PROJECT, REPORTS


@dataclass(frozen=True)
class Run:
    """A finished run.

    + rc: exit status; negative when a signal ended it
    + out: stdout and stderr, in the order they were written
    + stdout: stdout alone
    + seconds: wall time
    """

    rc: int
    out: str
    stdout: str
    seconds: float

    @property
    def json(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.stdout)

    @property
    def report(self) -> dict[str, Any]:
        """The record of the run, which its last line names."""
        named = re.findall(r"report: (\S+\.json)", self.out)
        record: dict[str, Any] = json.loads(Path(named[-1]).read_text())
        return record


class Controller:
    """A run under way: wait for it, read it so far, or end it. Leaving the context kills it."""

    def __init__(
        self,
        inventory: Path | str,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path = PROJECT,
        stdin: bytes = b"",
        program: Sequence[str] = (),
    ) -> None:
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._started = time.monotonic()
        separate = "--json" in args
        self._err: IO[bytes] = tempfile.TemporaryFile() if separate else self._out  # noqa: SIM115
        self._in: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._in.write(stdin)
        self._in.seek(0)
        settings = {
            "PYINFRA_PROGRESS": "off",
            "PYTHONUNBUFFERED": "1",
            "STACKMEND_REPORTS": str(REPORTS),  # a user's own records are not to be buried
            **(env or {}),
        }
        arguments = [str(inventory), *args]
        environment = {**os.environ, **settings}
        # What changes how Python itself starts needs a start of its own.
        cold = program or any(name.startswith("PYTHON") for name in env or {})
        self.process: subprocess.Popen[bytes] | warm.WarmProcess = (
            subprocess.Popen(
                [*(program or pyinfra_argv()), *arguments],
                cwd=cwd,
                env=environment,
                stdin=self._in,
                stdout=self._out,
                stderr=self._err,
                start_new_session=True,
            )
            if cold
            else warm.start(arguments, environment, cwd, self._in, self._out, self._err)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        for stream in {self._out, self._err, self._in}:
            stream.close()

    def read(self) -> bytes:
        """The bytes that it has written so far."""
        written = _read(self._out)
        return written if self._err is self._out else written + _read(self._err)

    def output(self) -> str:
        """What it has written so far."""
        return self.read().decode(errors="replace")

    def wait(self, timeout: float = 300) -> Run:
        """Wait until it ends by itself; past `timeout` seconds kill it and raise `TimeoutError`."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"no end after {timeout} s:\n{self.output()[-4000:]}"
            raise TimeoutError(message) from None
        seconds = time.monotonic() - self._started
        stdout = _read(self._out).decode(errors="replace")
        return Run(self.process.returncode, self.output(), stdout, seconds)

    def wait_for_output(self, text: str, timeout: float = 60) -> bool:
        """Wait until `text` has been written; False when the run ends or time is up before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if text in self.output():
                return True
            if self.process.poll() is not None:
                return text in self.output()
            time.sleep(0.02)
        return False

    def kill(self) -> None:
        """SIGKILL the whole process group, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_after(self, seconds: float) -> Run:
        """Let it run for so long from its start, then SIGKILL it (if it still runs)."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, seconds - (time.monotonic() - self._started)))
        self.kill()
        return self.wait()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """A signal to the whole process group, as Ctrl-C in a terminal sends it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def start(inventory: Path | str, *args: str, **options: Any) -> Controller:
    """Start ``pyinfra INVENTORY ARGS...`` and return at once; see `Controller` for `options`.

    >>> with start(inventory, "deploy/site.py", "-y") as controller:
    ...     controller.kill_after(1.5)
    """
    return Controller(inventory, *args, **options)


def run(inventory: Path | str, *args: str, timeout: float = 300, **options: Any) -> Run:
    """Run ``pyinfra INVENTORY ARGS...`` to its end. Its exit status is the caller's to judge."""
    with Controller(inventory, *args, **options) as controller:
        return controller.wait(timeout)


def pyinfra_argv() -> list[str]:
    """The pyinfra of the environment that runs the tests."""
    return [str(Path(sys.executable).with_name("pyinfra"))]


def write_inventory(
    directory: Path,
    hosts: Sequence[LabHost],
    *,
    stack: Mapping[str, Any] | None = None,
    user: str = "root",
    data: Mapping[str, Any] | None = None,
    per_host: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "lab_inventory",
) -> Path:
    """Write an inventory file of lab hosts and return its path.

    + directory: where, usually `tmp_path`
    + stack: becomes ``host.data.stack`` of every host; plain Python data
    + user: login on every host: root, operator (sudo) or keeper (sudo with password)
    + data: further data of every host
    + per_host: further data by host name; wins over `data` and `stack`
    + name: file name without ``.py``; also the name of the group
    """
    rows = []
    for host in hosts:
        own: dict[str, Any] = dict(host.ssh_data(user))
        if stack is not None:
            own["stack"] = dict(stack)
        own.update(data or {})
        own.update((per_host or {}).get(host.name, {}))
        rows.append((host.name, own))
    path = directory / f"{name}.py"
    path.write_text(f"hosts = {pprint.pformat(rows, sort_dicts=False)}\n")
    return path


def _read(stream: IO[bytes]) -> bytes:
    # pread: the child shares this file's offset.
    return os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0)
