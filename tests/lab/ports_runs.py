"""Runs of the ports room as a user makes them, and what their records say."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import controller
from tests.lab.controller import Controller, Run
from tests.lab.hosts import LabHost

#: The broadest consent there is.
EVERYTHING = tuple(f"{kind}:*" for kind in ("exe", "unit", "container", "project", "user"))
#: What findings, actions, refusals and errors hold for people.
TEXTS = ("subject", "cause", "evidence", "undo", "reason", "remedy", "message", "log")
RECORDS = "/var/lib/stackmend/ports"


@dataclass(frozen=True)
class HostRun:
    """A finished run on one host, and its record of that host."""

    run: Run
    host: dict[str, Any]

    def all(self, what: str) -> list[dict[str, Any]]:
        """The findings, planned, done, refusals or errors of every operation."""
        return [row for operation in self.host["operations"] for row in operation[what]]

    def about(self, what: str, port: int) -> list[dict[str, Any]]:
        """Those of them that name a port, as ``ADDRESS:PORT/PROTOCOL``."""
        return [
            row
            for row in self.all(what)
            if f":{port}/" in json.dumps([row[name] for name in TEXTS if name in row])
        ]

    def rules(self, port: int | None = None) -> list[str]:
        """The consent that the refusals ask for, as they write it."""
        refusals = self.all("refusals") if port is None else self.about("refusals", port)
        return [rule for row in refusals for rule in consent(row["remedy"])]

    @property
    def records(self) -> list[str]:
        """What was ended, as the ways back name it."""
        named = [
            found
            for row in self.all("done")
            for found in re.findall(
                r"ports\.restored\((?:record=)?['\"]([^'\"]+)['\"]", row["undo"]
            )
        ]
        return list(dict.fromkeys(named))


def consent(remedy: str) -> list[str]:
    """The rules in ``"allow": [...]``, read as the JSON and Python that it has to be."""
    return [
        rule for found in re.findall(r'"allow": (\[[^\]]*\])', remedy) for rule in json.loads(found)
    ]


class Runs:
    """Runs against one host.

    + directory: where inventories and records go, usually ``tmp_path``
    + host: the lab host
    + user: login on it: root, operator or keeper
    """

    def __init__(self, directory: Path, host: LabHost, user: str = "root") -> None:
        self.directory, self.host, self.user = directory, host, user
        self.reports = directory / "reports"
        #: Further data of the host.
        self.extra: dict[str, Any] = {}

    def inventory(self, **data: Any) -> Path:
        """Write the inventory with the host's data."""
        return controller.write_inventory(
            self.directory, [self.host], user=self.user, data={**self.extra, **data}
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a controller needs to write its record here."""
        return {"STACKMEND_REPORTS": str(self.reports)}

    def free(self, ports: Sequence[Any] | str, *words: str, **policy: Any) -> HostRun:
        """``ports.free`` of these ports; `words` instead of ``-y`` on the command line."""
        return self.execute(*words, free={"ports": ports, **policy})

    def stop(self, ports: Sequence[Any] | str, *words: str, **policy: Any) -> HostRun:
        """The same with the broadest consent."""
        chosen = {"on_conflict": "stop", "allow": EVERYTHING, "grace": 2, "settle": 1}
        return self.free(ports, *words, **{**chosen, **policy})

    def restored(self, *records: str) -> HostRun:
        """``ports.restored`` of each of these records."""
        return self.execute(restore=records)

    def execute(self, *words: str, **data: Any) -> HostRun:
        """A run, and its record of the host."""
        done = self.run(*words, **data)
        assert "Traceback" not in done.out, done.out
        return HostRun(done, done.report["hosts"][self.host.name])

    def run(self, *words: str, **data: Any) -> Run:
        """Run the deploy file with the host's data; `words` instead of ``-y``."""
        with self.start(*words, **data) as running:
            return running.wait()

    def start(self, *words: str, **data: Any) -> Controller:
        """The same, under way."""
        return controller.start(
            self.inventory(**data),
            "tests/lab/free_ports.py",
            *(words or ("-y",)),
            env=self.environment,
        )

    @contextlib.contextmanager
    def host_session(self) -> Iterator[Callable[[], bool]]:
        """Another login on the host; what it gives says whether it is still there."""
        other = subprocess.Popen(
            [*self.host.ssh_argv(self.user), "echo here; cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdin is not None
        assert other.stdout is not None
        with other:
            assert other.stdout.readline() == b"here\n"
            yield lambda: other.poll() is None
            other.stdin.close()

    def fact(self, ports: str, *words: str) -> dict[str, Any]:
        """PortSpec port → what ``pyinfra HOST fact`` prints of it; the rest under its own names."""
        done = self.fact_run(ports, *words)
        assert done.rc == 0, done.out
        found = _inner(json.loads(done.stdout[done.stdout.index("{") :]))
        rows = found.pop("ports")
        return {**found, "ports": {_key(row["desired"]): row for row in rows}}

    def fact_run(self, ports: str, *words: str, as_json: bool = True) -> Run:
        """``pyinfra HOST fact stackmend.ports.facts.PortHolders ports=PORTS``."""
        return controller.run(
            self.inventory(),
            "fact",
            "stackmend.ports.facts.PortHolders",
            f"ports={ports}",
            *words,
            *(["--json"] if as_json else []),
            env=self.environment,
        )


def _key(desired: Any) -> str:
    """``21001/tcp``: enough to tell the ports of a test apart."""
    if isinstance(desired, str):
        return desired.rpartition(":")[2]
    return f"{desired['port']}/{desired.get('protocol', 'tcp')}"


def _inner(printed: Any) -> dict[str, Any]:
    """The fact itself in what is printed host by host."""
    if isinstance(printed, dict):
        if "ports" in printed:
            return dict(printed)
        for value in printed.values():
            if found := _inner(value):
                return found
    return {}
