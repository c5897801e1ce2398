"""Where bare lab hosts take their engine from."""

from __future__ import annotations

from typing import Any

from tests.lab import images, packages
from tests.lab.hosts import LabHost

KEYRING = "/etc/apt/keyrings/lab.asc"


def mirror() -> str:
    """The address of Debian's packages that this machine, and so every host, takes them from."""
    return images.mirrors("trixie")[0][0]


def closed(host: LabHost, *, copy: bool = True) -> None:
    """Put a host into a closed network, where all of Debian is what the lab has a copy of.

    That is Debian 13's engine for a host of Debian 13, and nothing for others. Reading the lists
    of all of Debian is half of what an installation costs otherwise.

    + copy: whether the host knows of that copy; if not, a stack has to name it (`mirrored`)
    """
    host.sh("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*")
    if copy and host.kind == "trixie":
        there = packages.debian()
        host.sh(f"curl -fsS --create-dirs -o {KEYRING} {there.key}")
        host.put("/etc/apt/sources.list.d/lab.list", f"deb [signed-by={KEYRING}] {there.line}\n")


def engine(host: LabHost) -> dict[str, Any]:
    """The section ``engine`` of a stack that gives a bare host Debian 13's engine."""
    if host.kind == "trixie":
        return {"channel": "distro"}
    return {"channel": "distro", "repository": f"{mirror()} trixie main"}


def mirrored() -> dict[str, Any]:
    """The same for a host of Debian 13, from a mirror with a key of its own: the lab's copy."""
    there = packages.debian()
    return {
        "channel": "distro",
        "repository": there.line,
        "key": there.key,
        "key_fingerprint": there.fingerprint,
    }
