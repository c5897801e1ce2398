"""Where the running hosts of this checkout are: ``hosts.json`` for inventories, and host keys."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from tests.lab.engine import OuterCommandError, docker
from tests.lab.inside import inside
from tests.lab.paths import (
    HOME_LABEL,
    HOSTS_JSON,
    KNOWN_HOSTS,
    LOCKS,
    PREFIX,
    PROJECT,
    locked,
)


def port(name: str) -> int | None:
    """The port on 127.0.0.1 that leads to a host's sshd, where it is written down."""
    rows = json.loads(HOSTS_JSON.read_text()) if HOSTS_JSON.exists() else []
    return next((int(row["port"]) for row in rows if row["name"] == name), None)


def write() -> None:
    """Name the running hosts, for inventories, and their host keys, for ssh."""
    with locked(LOCKS / "hosts.json"):
        rows: list[dict[str, Any]] = []
        known: list[str] = []
        before = KNOWN_HOSTS.read_text().splitlines() if KNOWN_HOSTS.exists() else []
        for name, port in _ports().items():
            with contextlib.suppress(OuterCommandError):
                rows.append({"name": name, "kind": name.rpartition("-")[0], "port": port})
                address = f"[127.0.0.1]:{port}"
                words = ("bash", "-c", "cat /etc/ssh/ssh_host_*_key.pub")
                shown = inside(f"{PREFIX}-{name}", *words, check=False, timeout=60)
                if shown.returncode == 0:
                    keys = shown.stdout.decode().splitlines()
                    known += [f"{address} {' '.join(key.split()[:2])}\n" for key in keys]
                else:
                    # It restarts just now, and keeps the keys it had.
                    known += [f"{line}\n" for line in before if line.startswith(f"{address} ")]
        _replace(KNOWN_HOSTS, "".join(known))
        _replace(HOSTS_JSON, json.dumps(rows, indent=1) + "\n")


def clear() -> None:
    """No host runs any more."""
    HOSTS_JSON.unlink(missing_ok=True)


def _ports() -> dict[str, int]:
    """The hosts of this checkout that run now, and the ports that lead to their sshds."""
    mine = ("--filter", f"label={HOME_LABEL}={PROJECT}", "--filter", "label=stackmend.lab.host")
    listed = docker("container", "ls", *mine, "--format", "{{.Names}} {{.Ports}}")
    rows = [line.partition(" ") for line in sorted(listed.splitlines())]
    found = {name: re.search(r":([0-9]+)->22/tcp", ports) for name, _, ports in rows}
    return {
        name.removeprefix(f"{PREFIX}-"): int(match[1]) for name, match in found.items() if match
    }


def _replace(path: Path, content: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(content)
    part.rename(path)
