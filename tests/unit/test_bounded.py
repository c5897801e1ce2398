"""Whatever hangs, an operation ends within the limit that it declares before, with the reason."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.host import Host

from stackmend import connection, reconcile
from stackmend.connection import Lease, Unknown, fetching, lease
from stackmend.decision import Action, Plan
from stackmend.reconcile import Observation, Reconciler, observe_unreadable
from stackmend.reporting import announce, journal
from stackmend.reporting.collect import Collector
from tests.connected import local

TURN = Action(verb="turn", subject="it", cause="it is the wrong way round", undo="turn it back")
HANGS = "sleep 4717"


class Look(FactBase[str]):
    """What a host has, unless reading it hangs, from one reading on."""

    def command(self, hangs: str, number: int) -> str:
        from_there_on = hangs.startswith("reading") and number >= int(hangs[-1])
        return HANGS if from_there_on else "echo it"

    def process(self, output: list[str]) -> str:
        return output[0]


@dataclass
class Room(Reconciler[str, Action]):
    """Turns it once; one of its parts hangs."""

    subject = "it"
    step_limit: ClassVar[float] = 1

    host: Host
    report: Collector
    lock: str
    hangs: str
    number: int = 0

    def observe(self, *, fresh: bool = False) -> Observation[str, Action]:
        self.number += 1
        asked = {"hangs": self.hangs, "number": self.number}
        (state,) = self.fetch((Look, asked), fresh=fresh)
        if isinstance(state, Unknown):
            return observe_unreadable(state, "how it is")
        return Observation(Plan(actions=() if self.number > 3 else (TURN,)), state)

    def execute(self, plan: Plan[Action], state: str, lease: Lease) -> bool:
        with self.step(*plan.actions):
            command = HANGS if self.hangs == "step" else "true"
            self.run(StringCommand(command), "cannot turn it", timeout=self.step_limit)
        return True


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of seconds; those of the product are held in test_limits.py."""
    monkeypatch.setattr(fetching, "PROBE_TIMEOUT", 1)
    monkeypatch.setattr(fetching, "TIMEOUT", 2)
    monkeypatch.setattr(lease, "ANSWER_WITHIN", 1)
    monkeypatch.setattr(reconcile, "OVERHEAD", 3 * 2 + 1)
    append = functools.partial(journal.append, path=str(tmp_path / "state/journal.jsonl"))
    monkeypatch.setattr(journal, "append", append)
    monkeypatch.setattr(announce.reporting, "get_run_id", lambda state: "1a2b3c")


@pytest.fixture
def host(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    flock = tmp_path / "programs/flock"
    flock.parent.mkdir()
    flock.write_text(f"#!/bin/sh\n{HANGS}\n")
    flock.chmod(0o755)
    with local() as host:
        yield host


@pytest.mark.parametrize(
    ("hangs", "reason"),
    [
        ("reading 1", "did not end within 1 s"),
        ("reading 2", "did not end within 1 s"),
        ("lock", "hold"),
        ("reading 3", "did not end within 1 s"),
        ("step", "did not end within 1 s"),
        ("reading 4", "did not end within 1 s"),
    ],
)
def test_an_operation_ends_within_what_it_declares(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str, reason: str
) -> None:
    report = Collector("it.turned")
    room = Room(host, report, str(tmp_path / "state/lock"), hangs)
    host.state.is_executing = True
    started = time.monotonic()
    if hangs == "lock":
        monkeypatch.setenv("PATH", str(tmp_path / "programs"), prepend=os.pathsep)
    outcomes = [
        command.execute(host.state, host, {})
        for command in reconcile.operate(host, "it.turned", lambda _: room, converged="it is right")
    ]
    seconds = time.monotonic() - started
    assert outcomes == [False]
    declared = report.measures["limit"].value if "limit" in report.measures else reconcile.OVERHEAD
    assert declared == reconcile.OVERHEAD + (hangs != "reading 1")
    assert seconds < declared, (seconds, declared)
    reasons = [
        *(refusal.reason for refusal in report.refusals),
        *(error.message for error in report.errors),
    ]
    assert any(reason in each for each in reasons), reasons


def test_a_limit_of_the_inventory_is_counted_in(small: None, tmp_path: Path) -> None:
    with local(_timeout=5) as host:
        assert connection.find_timeout(host) == 5
        report = Collector("it.turned")
        room = Room(host, report, str(tmp_path / "state/lock"), "")
        assert not reconcile.report_observation(room)
    assert report.measures["limit"].value == reconcile.OVERHEAD + 1 + (6 + 1) * 5
