"""Runs of the models room as a user makes them, and what their records say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import controller
from tests.lab.controller import Controller, Run
from tests.lab.hosts import LabHost

if TYPE_CHECKING:
    from tests.lab.model_registry import ModelRegistry, Pushed

#: Quick to notice in a lab: a stall is one after two seconds.
QUICK: Mapping[str, Any] = {"stall": 2, "minimum_free": 0}


def push(registry: ModelRegistry, name: str, size: int, seed: int) -> Pushed:
    """Push a model; its name is the one that hosts pull it by."""
    pushed = registry.push(name, size, seed)
    return replace(pushed, name=f"{registry.http}/{pushed.name}")


def fetched(registry: ModelRegistry, *models: Pushed) -> int:
    """Bytes of these models' blobs that left the registry since its log was emptied."""
    digests = {layer.digest.removeprefix("sha256:") for model in models for layer in model.layers}
    return sum(one.sent for one in registry.log() if any(digest in one.path for digest in digests))


@dataclass(frozen=True)
class Told:
    """A finished run, and its record by host."""

    run: Run
    hosts: Mapping[str, Any]

    @property
    def host(self) -> dict[str, Any]:
        """The record of the only host."""
        (found,) = self.hosts.values()
        return dict(found)

    @property
    def outcomes(self) -> set[str]:
        """How it ended on every host."""
        return {host["outcome"] for host in self.hosts.values()}

    def all(self, what: str) -> list[dict[str, Any]]:
        """The findings, planned, done, refusals or errors of every operation on every host."""
        return [
            row
            for host in self.hosts.values()
            for operation in host["operations"]
            for row in operation[what]
        ]

    def about(self, what: str, name: str) -> list[dict[str, Any]]:
        """Those of them that name a model."""
        return [row for row in self.all(what) if name in str(row)]

    def did(self, verb: str) -> list[str]:
        """What an action was done to, in order."""
        return [row["subject"] for row in self.all("done") if row["action"] == verb and row["ok"]]

    @property
    def reasons(self) -> list[str]:
        """Why it did not go on: refusals and errors, in their order."""
        return [
            *(
                f"{row['subject']}: {row['reason']} {row['consent']}"
                for row in self.all("refusals")
            ),
            *(row["message"] for row in self.all("errors")),
        ]

    def reason(self, name: str) -> str:
        """The one that names a model; exactly one must."""
        found = [one for one in self.reasons if one.partition(": ")[0].endswith(name)]
        assert len(found) == 1, (name, self.reasons)
        return found[0]


class Runs:
    """Runs of ``models.pulled``.

    + directory: where inventories and records go, usually ``tmp_path``
    + hosts: the lab hosts
    + user: login on them: root, operator or keeper
    + policy: settings beside (or instead of) the quick ones of these tests
    """

    def __init__(
        self, directory: Path, hosts: Sequence[LabHost], user: str = "root", **policy: Any
    ) -> None:
        self.directory, self.hosts, self.user = directory, hosts, user
        self.policy = {**QUICK, "project": "ai", **policy}
        self.environment = {"STACKMEND_REPORTS": str(directory / "reports")}

    def pull(self, models: Iterable[Any] | Any, *words: str, **policy: Any) -> Told:
        """Run it to its end; `words` instead of ``-y`` on the command line."""
        with self.start(models, *words, **policy) as running:
            done = running.wait()
        assert "Traceback" not in done.out, done.out
        return Told(done, done.report["hosts"])

    def well(self, models: Iterable[Any] | Any, *words: str, **policy: Any) -> Told:
        """The same; it must succeed."""
        told = self.pull(models, *words, **policy)
        assert told.run.rc == 0, told.run.out
        return told

    def start(self, models: Iterable[Any] | Any, *words: str, **policy: Any) -> Controller:
        """The same, under way."""
        wanted = models if isinstance(models, str) else list(models)
        given = {**self.policy, **policy, "models": wanted}
        pulled = {key: value for key, value in given.items() if value is not None}
        inventory = controller.write_inventory(
            self.directory, self.hosts, user=self.user, data={"pulled": pulled}
        )
        return controller.start(
            inventory, "tests/lab/pull_models.py", *(words or ("-y",)), env=self.environment
        )
