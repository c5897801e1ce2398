"""pyinfra for one host, with a stopwatch in it: where the seconds of a run go.

``python -m tests.benchmarks.stopwatch INVENTORY DEPLOY -y`` runs as pyinfra does, and writes the
seconds of each phase as JSON to the file that ``STOPWATCH`` names. Each moment belongs to one
phase: what is called within another phase's call ends up with the one that was called last, but
for what waits for something as a whole, its readings included.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import time
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What begins in the order of a run that mends.
PHASES = ("start", "connect", "reading", "locking", "acting", "health", "window", "proof")
PHASES += ("writing", "rest", "end")

#: Whatever is called within these belongs to them.
_CLOSED = {"health", "window", "proof", "writing"}


class Stopwatch:
    """Seconds by phase; one at a time, since there is one host."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.stack = ["start"]
        ticks = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        self.since = time.monotonic() - age

    def lap(self) -> None:
        """Give the time since the last lap to the phase that runs."""
        now = time.monotonic()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time of the block belongs to this phase."""
        self.lap()
        self.stack.append(self.stack[-1] if self.stack[-1] in _CLOSED else name)
        try:
            yield
        finally:
            self.lap()
            self.stack.pop()

    def put(self, owner: Any, name: str, phase: str) -> None:
        """Let each call of a function belong to a phase."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return inner(*args, **kwargs)

        setattr(owner, name, timed)

    def begin(self, phase: str) -> None:
        """From here on, whatever belongs to no other phase belongs to this one."""
        self.lap()
        self.stack[0] = phase


def install(watch: Stopwatch) -> None:
    """Put the stopwatch where the phases begin and end."""
    from pyinfra_cli import cli

    from stackmend import connection
    from stackmend.compose import commands, executor, observer, reconciler, waiter
    from stackmend.connection import fetching
    from stackmend.reporting import announce

    watch.put(cli, "connect_all", "connect")
    connect = cli.connect_all

    def connect_all(*args: Any, **kwargs: Any) -> Any:
        try:
            return connect(*args, **kwargs)
        finally:
            watch.begin("rest")

    cli.connect_all = connect_all
    leave = cli.disconnect_all

    def disconnect_all(*args: Any, **kwargs: Any) -> Any:
        watch.begin("end")
        return leave(*args, **kwargs)

    cli.disconnect_all = disconnect_all
    watch.put(fetching, "_fetch", "reading")
    for name in ("resolve", "measure_free", "read_logs"):
        watch.put(observer.Observer, name, "reading")
    watch.put(reconciler.ComposeReconciler, "wait_until_idle", "locking")
    hold = connection.hold_lock

    @contextlib.contextmanager
    def hold_lock(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            with watch.phase("locking"):
                lease = stack.enter_context(hold(*args, **kwargs))
            yield lease

    connection.hold_lock = hold_lock
    watch.put(waiter.Waiter, "_wait_for_health", "health")
    watch.put(observer.Observer, "read_proof", "proof")
    watch.put(waiter.Waiter, "_wait_for_checks", "proof")
    pause = waiter.time.sleep

    def sleep(seconds: float) -> None:
        # In the loops of health and checks a pause is theirs.
        with watch.phase("window"):
            pause(seconds)

    waiter.time = types.SimpleNamespace(sleep=sleep, monotonic=time.monotonic)  # type: ignore[assignment]
    watch.put(announce, "_write_journal", "writing")
    attempt, record = executor.Executor.attempt, commands.record
    recording: list[Any] = []

    def make_record(*args: Any, **kwargs: Any) -> Any:
        recording.append(record(*args, **kwargs))
        return recording[-1]

    def attempt_timed(self: Any, command: Any, **options: Any) -> Any:
        with watch.phase("writing" if command in recording else "acting"):
            return attempt(self, command, **options)

    commands.record = make_record
    executor.Executor.attempt = attempt_timed  # type: ignore[method-assign]


def main() -> None:
    """Run pyinfra and write what each phase took."""
    watch = Stopwatch()
    from pyinfra_cli.main import main as pyinfra

    # Once the run's own start has imported what it needs; imports belong to the start.
    install(watch)

    def write() -> None:
        watch.lap()
        Path(os.environ["STOPWATCH"]).write_text(json.dumps(dict(watch.seconds)))

    atexit.register(write)
    pyinfra()


if __name__ == "__main__":
    main()
