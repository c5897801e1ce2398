"""How soon the lock of a host is free after whoever held it was killed, as the host has it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator

from tests.calm import Lateness
from tests.lab.hosts import LabHost

LOCK = "/var/lib/stackmend/run.lock"

#: Seconds within which it is free, on a machine where no process is late.
FREE_WITHIN = 2

_SCRIPT = f"""
flock -n {LOCK} true && exit 1
echo held
until flock -n {LOCK} true; do sleep 0.1; done
date +%s.%N
"""


def assert_free_at_once(host: LabHost, kill: Callable[[], object]) -> float:
    """Kill whoever holds the lock; the seconds until it is free.

    The host itself tries it ten times a second; its clock is the one of this machine.

    + kill: kills it
    """
    with Lateness() as late, _trying(host) as lines:
        assert next(lines, "free") == "held"
        began = time.time()
        kill()
        seconds = float(next(lines)) - began
    print(f"free {seconds:.2f} s after the kill; a process was late by {late.seconds:.2f} s")
    assert seconds <= FREE_WITHIN + late.seconds
    return seconds


@contextlib.contextmanager
def _trying(host: LabHost) -> Iterator[Iterator[str]]:
    """The lines of the script on the host, each as it comes; 60 seconds at most."""
    command = ["docker", "exec", host.container, "timeout", "60", "sh", "-c", _SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield (line.strip() for line in process.stdout)
        finally:
            process.kill()
