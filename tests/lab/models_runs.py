"""Runs of the models room as a user makes them, and what their records say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import controller
from tests.lab.controller import Controller, Run
from tests.lab.hosts import LabHost

if TYPE_CHECKING:
    from tests.lab.model_registry import ModelRegistry, Pushed

#: The arguments of every run of these tests. A stall is what the operation itself takes for one: on
#: a busy machine seconds can pass without a byte, so a test that wants one cut says after how long.
DEFAULTS: Mapping[str, Any] = {"minimum_free": 0, "project": "ai", "insecure": True}


def push(registry: ModelRegistry, name: str, size: int, seed: int) -> Pushed:
    """Push a model; its name is the one that hosts pull it by."""
    pushed = registry.push(name, size, seed)
    return replace(pushed, name=f"{registry.http}/{pushed.name}")


def fetched(registry: ModelRegistry, *models: Pushed) -> int:
    """Bytes of these models' blobs that left the registry since its log was emptied."""
    digests = {layer.digest.removeprefix("sha256:") for model in models for layer in model.layers}
    return sum(
        request.sent
        for request in registry.log()
        if any(digest in request.path for digest in digests)
    )


@dataclass(frozen=True)
class Result:
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
        return [subject for done, subject in self.steps if done == verb]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """What was done, and to what, in order."""
        return [
            (row["verb"], row["subject"]) for row in self.all("done") if row["result"] == "done"
        ]

    def measured(self, name: str) -> int:
        """The sum of what the operations on all hosts measured."""
        return sum(
            int(operation["measured"][name]["value"])
            for host in self.hosts.values()
            for operation in host["operations"]
            if name in operation["measured"]
        )

    @property
    def fetched(self) -> int:
        """Bytes that the run itself says came from a registry."""
        return self.measured("fetched")

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Why it did not go on: what each refusal or error is about, and what it says."""
        return [
            *(
                (row["subject"], f"{row['reason']}. {row['remedy']}")
                for row in self.all("refusals")
            ),
            *(_halves(row["message"]) for row in self.all("errors")),
        ]

    def reason(self, subject: str) -> str:
        """The only reason that concerns a model, or whatever else."""
        found = [text for about, text in self.reasons if about == subject]
        assert len(found) == 1, (subject, self.reasons)
        return found[0]


def _halves(message: str) -> tuple[str, str]:
    """What an error is about, and what it says: ``could not pull NAME: REASON``."""
    about, _, text = message.partition(": ")
    return about.removeprefix("could not pull "), text


class Runs:
    """Runs of ``models.pulled``.

    + directory: where inventories and records go, usually ``tmp_path``
    + hosts: the lab hosts
    + policy: settings beside (or instead of) those of all these tests
    """

    def __init__(self, directory: Path, hosts: Sequence[LabHost], **policy: Any) -> None:
        self.directory, self.hosts = directory, hosts
        self.policy = {**DEFAULTS, **policy}
        self.environment = {"STACKMEND_REPORTS": str(directory / "reports")}

    def pull(self, models: Any, *arguments: str, user: str = "root", **policy: Any) -> Result:
        """Run it to its end; `arguments` instead of ``-y`` on the command line."""
        return self.each([{**policy, "models": models}], *arguments, user=user)

    def converge(self, models: Any, *arguments: str, user: str = "root", **policy: Any) -> Result:
        """The same; it must succeed."""
        told = self.pull(models, *arguments, user=user, **policy)
        assert told.run.rc == 0, told.run.out
        return told

    def each(
        self, calls: Sequence[Mapping[str, Any]], *arguments: str, user: str = "root"
    ) -> Result:
        """Several of them in one run; one that fails does not keep the next from being tried."""
        with self.start_each(calls, *arguments, user=user) as running:
            done = running.wait()
        assert "Traceback" not in done.out, done.out
        return Result(done, done.report["hosts"])

    def start(self, models: Any, **policy: Any) -> Controller:
        """A run, under way."""
        return self.start_each([{**policy, "models": models}])

    def start_each(
        self, calls: Sequence[Mapping[str, Any]], *arguments: str, user: str = "root"
    ) -> Controller:
        """Several operations in one run, under way."""
        pulled = [
            {key: value for key, value in {**self.policy, **call}.items() if value is not None}
            for call in calls
        ]
        # All begin at once: what they give to each other meanwhile is what is looked at.
        stack = {"reconcile": {"canary": len(self.hosts)}}
        inventory = controller.write_inventory(
            self.directory, self.hosts, user=user, data={"pulled": pulled}, stack=stack
        )
        return controller.start(
            inventory, "tests/lab/pull_models.py", *(arguments or ("-y",)), env=self.environment
        )
