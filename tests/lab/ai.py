"""The reference stack with every section that tells of an incident, run by ``stackmend``.

>>> with standing(tmp_path) as ai:
...     assert ai.run("site").rc == 0
...     assert ai.diagnose()["findings"] == []
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.lab import controller, hosts, model_registry
from tests.lab.controller import Controller, Run
from tests.lab.hosts import LabHost
from tests.lab.images import STACK
from tests.lab.model_registry import ModelRegistry
from tests.lab.models_runs import push
from tests.lab.reference_stack import DIRECTORY, VARIABLES

COMMAND = str(Path(sys.executable).with_name("stackmend"))

#: Where a server outside of the stack is to answer, on an address that containers reach as well.
OUTSIDE = "http://172.17.0.1:9999/"
PAGE = "python3 -m http.server --bind 0.0.0.0 9999 --directory /srv"

#: Everything of a host that stackmend may write to, and is not to.
OBSERVED = ("/etc", "/var/lib/stackmend", DIRECTORY)


class Ai:
    """The stack, its settings and the host that it is for.

    + directory: for the inventory and the reports of its runs
    + host: the lab host
    + model: the model that the worker asks for, by the name that hosts pull it by
    """

    def __init__(self, directory: Path, host: LabHost, model: str) -> None:
        self.directory, self.host, self.model = directory, host, model
        self.reports = directory / "reports"
        self.settings: dict[str, Any] = {
            "project": "ai",
            "source": str(STACK),
            "directory": DIRECTORY,
            "env": {
                **VARIABLES,
                "OLLAMA_MODEL": model,
                "OLLAMA_NUM_PREDICT": "32",
                "HEALTH_INTERVAL": "5s",
            },
            "checks": [
                {"kind": "http", "url": "http://127.0.0.1:8000/healthz"},
                {"kind": "redis", "service": "redis", "address": "redis:6379", "inside": "worker"},
            ],
            "stability": 1,
            "health_timeout": 60,
            "minimum_free": "100MiB",
            "mend": {"attempts": 100, "backoff": [0]},
            "links": {},
            "ports": {"on_conflict": "stop", "allow": ["unit:squatter.service"]},
            "models": {"wanted": [model], "insecure": True, "minimum_free": 0},
            "connectivity": {"endpoints": [OUTSIDE], "derived": False},
            "worker": {"accelerated": {"samples": 1}},
        }

    def start(self, command: str, *words: str) -> Controller:
        """``stackmend COMMAND INVENTORY WORDS...``, under way."""
        inventory = controller.write_inventory(
            self.directory, [self.host], stack=copy.deepcopy(self.settings)
        )
        return Controller(
            command,
            str(inventory),
            *words,
            env={"STACKMEND_REPORTS": str(self.reports), "NO_COLOR": "1"},
            program=[COMMAND],
        )

    def run(self, command: str, *words: str, timeout: float = 300) -> Run:
        """The same, to its end."""
        with self.start(command, *words) as running:
            done = running.wait(timeout)
        assert "Traceback" not in done.out, done.out
        return done

    def report(self) -> dict[str, Any]:
        """What the last run recorded of the host."""
        record = json.loads((self.reports / "latest.json").read_text())
        found: dict[str, Any] = record["hosts"][self.host.name]
        return found

    def serve(self, command: str = PAGE) -> None:
        """Have something listen where the server outside is to answer."""
        self.host.sh("systemctl stop outside.service 2>/dev/null || true")
        self.host.sh(f"systemd-run -q --collect --unit=outside {command}")
        self.host.wait_for("ss -ltn | grep -q :9999")

    def deploy(self) -> None:
        """Bring it up, and prove that the next run changes nothing."""
        self.serve()
        for outcome in ("changed", "converged"):
            done = self.run("site")
            assert done.rc == 0, done.out
            assert self.report()["outcome"] == outcome, done.out


def list_found(diagnosis: dict[str, Any]) -> list[str]:
    """The ids of the incidents found; what no incident names by its title."""
    return [each["incident"] or each["title"] for each in diagnosis["findings"]]


def make(directory: Path, host: LabHost, registry: ModelRegistry) -> Ai:
    """The stack for a host that was reset; nothing is there yet."""
    return Ai(directory, host, push(registry, "team/first:1b", 1_500_000, seed=1).name)


@contextlib.contextmanager
def standing(directory: Path) -> Iterator[Ai]:
    """The stack, deployed and well on a host that is held meanwhile."""
    hosts.prepare()
    with hosts.lease() as host, model_registry.lease() as registry:
        host.reset()
        ai = make(directory, host, registry)
        ai.deploy()
        try:
            yield ai
        finally:
            host.reset()


def describe_changes(before: dict[str, Any], after: dict[str, Any]) -> Sequence[str]:
    """What differs between two snapshots, a line for each."""
    return [
        f"{name}: {before.get(name, 'was not there')} → {after.get(name, 'is gone')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
