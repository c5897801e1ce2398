"""A user's own search that never ends, ends its process or raises costs its own answer alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stackmend.decision import Action, Finding, Plan
from stackmend.incidents import (
    Observations,
    RoomReading,
    diagnose,
    list_incidents,
    load,
    searching,
)

OWN = '''
import itertools, os
from stackmend.diagnosis import Evidence
from stackmend.incidents import Incident


class Endless(Incident):
    def find(self, observations):
        while True:
            pass


class Counting(Incident):
    """No signal is heard in there."""

    def find(self, observations):
        sum(itertools.count())
        return ()


class Ending(Incident):
    def find(self, observations):
        os._exit(0)


class Raising(Incident):
    def find(self, observations):
        raise RuntimeError("out of order")


class Reading(Incident):
    def find(self, observations):
        print("this is no answer")
        for room in observations.rooms:
            for finding in room.plan.findings:
                yield finding.subject, Evidence(line=finding.cause, source=room.operation)


INCIDENTS = [
    kind(id=kind.__name__.lower(), title="ours", severity="error", remedy="mend it", proof="none")
    for kind in (Endless, Counting, Ending, Raising, Reading)
]
'''

OBSERVED = Observations(
    rooms=(
        RoomReading(
            operation="ports.free",
            plan=Plan[Action](findings=(Finding(subject="80/tcp", kind="odd", cause="held"),)),
        ),
    )
)


def test_each_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "LIMIT", 1.0)
    file = tmp_path / "own.py"
    file.write_text(OWN)
    began = time.monotonic()
    found = searching.search(OBSERVED, [file])
    assert time.monotonic() - began < searching.START + searching.ALL
    problems = {name: derived.problem for name, derived in found.items()}
    assert problems == {
        "endless": "its search did not end within 1 s",
        "counting": "its search did not end within 1 s",
        "ending": "its search ended its process",
        "raising": "its search raised RuntimeError: out of order",
        "reading": "",
    }
    (line,) = found["reading"].lines
    assert (line[0], line[1].line, line[1].source) == ("80/tcp", "held", "ports.free")

    diagnosis = diagnose(OBSERVED, list_incidents(load([file])), found)
    checks = {check.name: check for check in diagnosis.checks}
    assert checks["endless"].status == "unknown"
    assert "did not end" in checks["endless"].reason
    assert checks["reading"].status == "finding"
    assert checks["port-taken"].status == "ok"


def test_without_own_searches_no_process_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching.subprocess, "Popen", None)
    assert searching.search(OBSERVED, []) == {}
