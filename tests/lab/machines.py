"""Where bare lab hosts take their engine from."""

from __future__ import annotations

from typing import Any

from tests.lab import images, packages
from tests.lab.hosts import LabHost


def mirror() -> str:
    """The address of Debian's packages that this machine, and so every host, takes them from."""
    return images.mirrors("trixie")[0][0]


def closed(host: LabHost) -> None:
    """Put a host of Debian 13 into a closed network: it knows no packages but the lab's copy.

    Reading the lists of all of Debian is half of what an engine's installation then costs.
    """
    host.sh("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*")


def engine(host: LabHost) -> dict[str, Any]:
    """The section ``engine`` of a stack that gives a bare host Debian 13's engine.

    A host of Debian 13 takes it from the lab's copy, which costs half the time.
    """
    if host.kind == "trixie":
        copy = packages.debian()
        return {
            "channel": "distro",
            "repository": copy.line,
            "key": copy.key,
            "key_fingerprint": copy.fingerprint,
        }
    return {"channel": "distro", "repository": f"{mirror()} trixie main"}
