"""Hosts of distributions that no test runs on, from ``tests/facts/distributions`` (see its README).

What the probes would print is made of an ``os-release`` file and of lists of packages, and read by
the same parsers as what they print on a host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackmend.basics import facts as basics_facts
from stackmend.basics.state import HostBasics
from stackmend.engine import facts as engine_facts
from stackmend.engine.state import HostEngine
from tests.marks import MARK, framed

FILES = Path(__file__).parents[1] / "facts" / "distributions"
NAMES = sorted(path.stem for path in FILES.glob("*.yaml"))

Section = Sequence[str] | tuple[int, Sequence[str]]


def _parts(sections: Mapping[str, Section]) -> dict[str, tuple[int, Sequence[str]]]:
    return {name: said if isinstance(said, tuple) else (0, said) for name, said in sections.items()}


def described(name: str) -> dict[str, Any]:
    """What is recorded of a distribution."""
    text = (FILES / f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def engine(name: str, having: str = "") -> HostEngine:
    """A host of a distribution with one of its engines running, or with none."""
    told = described(name)
    sections: dict[str, Section] = {
        "host": [
            "system Linux",
            "root 0",
            f"manager {told['manager']}",
            f"architecture {told['architecture']}",
        ],
        "release": told["os_release"].splitlines(),
        "packages": ["ca-certificates 2024 installed"],
        "programs": [],
        "daemons": [],
    }
    if told["init"] == "openrc":
        sections["openrc"] = ["status  * rc-service: service `docker' does not exist"]
    else:
        state = ("loaded", "active", "enabled") if having else ("not-found", "inactive", "")
        keys = ("LoadState", "ActiveState", "UnitFileState")
        sections["systemd"] = [f"{key}={value}" for key, value in zip(keys, state, strict=True)]
    if having:
        one = told["engines"][having]
        sections["packages"] = [f"{package} installed" for package in one["packages"]]
        first = one["packages"][0].split()[0]
        sections["programs"] = [
            f"{program}|/usr/bin/{program}|/usr/bin/{program}|{first}"
            for program in ("docker", "dockerd")
        ]
        sections["versions"] = [f"{one['server']}|{one['server']}"]
        sections["compose"] = [f"v{one['compose']}"]
    return engine_facts.parse(framed(_parts({**sections, "done": []})), MARK)


def basics(name: str, **sections: Section) -> HostBasics:
    """What ``access.basics`` reads of a host of a distribution that nothing keeps the clock of."""
    told = described(name)
    pretty = next(
        line.partition("=")[2].strip('"')
        for line in told["os_release"].splitlines()
        if line.startswith("PRETTY_NAME=")
    )
    now = time.time()
    found: dict[str, Section] = {
        "host": [
            f"now {int(now)}",
            "root 0",
            f"manager {told['manager']}",
            f"init {told['init']}",
            f"system {pretty}",
        ],
        "ports": ["32768\t60999", ""],
        "services": [],
        **sections,
        "whole": [],
    }
    return basics_facts.parse(framed(_parts(found)), MARK, now, now)
