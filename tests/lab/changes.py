"""What changed in a lab host against its image, as far as a reset does not put it back."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.lab.engine import docker

# What the reset restores itself, or what the system writes at will.
_COVERED = (
    "/etc",
    "/root",
    "/home",
    "/opt",
    "/srv",
    "/usr/local",
    "/tmp",
    "/var/tmp",
    "/run",
    "/lab",
    "/var/log",
    "/var/spool",
    "/var/lib/systemd",
    "/var/lib/stackmend",
    "/var/cache",
    "/var/backups",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/dev",
    "/var/lib/sudo",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists",
    "/var/lib/ebtables",
    "/var/lib/dbus",
    "/var/mail",
    "/mnt",
    "/media",
    "/usr/lib/python3",
    "/var/lib/dpkg/triggers",
)


def _diff(container: str) -> Iterator[str]:
    """What differs from the image, as ``docker diff`` tells it; of what is there only that it is.

    The engine compares all files; those that may differ are in a directory of the overlay's own.
    """
    driver = json.loads(docker("inspect", "-f", "{{json .GraphDriver}}", container))
    upper = Path(driver["Data"].get("UpperDir", "/nowhere"))
    below = [Path(one) for one in driver["Data"].get("LowerDir", "").split(":")]
    if driver["Name"] != "overlay2" or not os.access(upper, os.R_OK | os.X_OK):
        yield from docker("diff", container).splitlines()
        return
    for directory, directories, files in os.walk(upper):
        # An empty directory is told as itself, any other by what is in it.
        for name in files if files or directories else ("",):
            path = Path(directory, name).relative_to(upper)
            now = _identify(upper / path)
            before = next(filter(None, (_identify(layer / path) for layer in below)), ())
            # A file that is gone is a device without a number there.
            gone = bool(now) and stat.S_ISCHR(now[0]) and now[1] == 0
            if now and now != before:
                yield f"{'D' if gone else 'C'} /{path}"


def _identify(path: Path) -> tuple[float, ...]:
    """By what a file is told from another one; empty where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return ()
    kept = (found.st_mode, found.st_rdev, found.st_uid, found.st_gid)
    return kept if stat.S_ISDIR(found.st_mode) else (*kept, found.st_size, found.st_mtime)


def changed_files(container: str) -> set[str]:
    """Files that differ from the image, outside of what a reset covers."""
    changed = set()
    for line in _diff(container):
        kind, _, path = line.partition(" ")
        covered = any(path == part or path.startswith(f"{part}/") for part in _COVERED)
        if not covered and not (kind == "C" and any(p.startswith(f"{path}/") for p in _COVERED)):
            changed.add(line)
    # A changed directory says no more than its children do.
    paths = [line.partition(" ")[2] for line in changed]
    return {
        line
        for line in changed
        if not (line.startswith("C ") and any(p.startswith(f"{line[2:]}/") for p in paths))
        and line not in ("C /", "C /usr", "C /var", "C /var/lib")
    }
