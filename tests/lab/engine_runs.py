"""Runs of the engine room as a user makes them, and what their records say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import controller
from tests.lab.controller import Controller
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import HostRun

DAEMON_JSON = "/etc/docker/daemon.json"
BOTH = ("installed", "settings")


class Runs:
    """Runs against one host.

    + directory: where inventories and records go, usually ``tmp_path``
    + host: the lab host
    + user: login on it: root, operator or keeper
    """

    def __init__(self, directory: Path, host: LabHost, user: str = "root") -> None:
        self.directory, self.host, self.user = directory, host, user

    def start(self, doing: Sequence[str], policy: dict[str, Any], *words: str) -> Controller:
        """The operations, under way."""
        data = {"engine": policy, "doing": list(doing)}
        inventory = controller.write_inventory(
            self.directory, [self.host], user=self.user, data=data
        )
        return controller.start(
            inventory,
            "tests/lab/set_engine.py",
            *(words or ("-y",)),
            env={"STACKMEND_REPORTS": str(self.directory / "reports")},
        )

    def execute(self, doing: Sequence[str], policy: dict[str, Any], *words: str) -> HostRun:
        """A run to its end, and its record of the host."""
        with self.start(doing, policy, *words) as running:
            done = running.wait(600)
        assert "Traceback" not in done.out, done.out
        return HostRun(done, done.report["hosts"][self.host.name])

    def installed(self, *words: str, **policy: Any) -> HostRun:
        """``engine.installed`` alone."""
        return self.execute(("installed",), policy, *words)

    def settings(self, *words: str, **policy: Any) -> HostRun:
        """``engine.settings`` alone."""
        return self.execute(("settings",), policy, *words)


def changed(run: HostRun) -> bool:
    """Whether a run did anything."""
    return bool(run.all("done"))


def run_container(host: LabHost, name: str, *words: str) -> str:
    """Start a container on a managed host that stays; return its id."""
    return host.docker("run", "-d", "--name", name, *words, "lab/box:1")
