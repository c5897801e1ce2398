"""Where the lab keeps its things, and the locks that let several runs share them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
VAR = PROJECT / "var" / "lab"
KEY = VAR / "id_ed25519"
KNOWN_HOSTS = VAR / "known_hosts"
HOSTS_JSON = VAR / "hosts.json"
IMAGE_TARS = VAR / "images"
WHEELS = VAR / "wheels"
REPORTS = VAR / "reports"
LEASES = VAR / "leases"
LOCKS = VAR / "locks"
LAB_LOCK = LOCKS / "lab"

# What belongs to the machine rather than to this checkout. /run: a reboot ends the engine as well.
MACHINE_RECORD = Path("/run/stackmend-lab/engine.json")
MACHINE_LOCK = MACHINE_RECORD.with_name("lock")

LABEL = "stackmend.lab=1"
HOME_LABEL = "stackmend.lab.home"
# Two checkouts on one machine must not take each other's hosts.
PREFIX = f"stackmend-{hashlib.sha256(str(PROJECT).encode()).hexdigest()[:6]}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created if missing); waits for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
