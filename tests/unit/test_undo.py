"""What of a record is brought back, by whom, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api import OperationError
from pyinfra.api.host import Host

from stackmend import undo
from stackmend.engine.commands import COPY
from stackmend.engine.plan.restore import Kept, plan_return
from stackmend.ports.commands import RECORD
from stackmend.undo.steps import Change, find_steps
from tests.connected import local
from tests.unit.engine_world import engine

STOPPED = "ports.restored(record='20260101T120000Z-17')"
RUNNING = engine({"docker-ce": "5:28.5.1-1~debian.13~trixie"})
SET = "engine.restored(copy='20260101T120001.000001Z')"


def change(verb: str, subject: str = "it", undo: str = "") -> Change:
    return Change(verb=verb, subject=subject, undo=undo)


def test_the_last_thing_is_brought_back_first() -> None:
    found = find_steps(
        [
            change("stop unit", "redis.service", STOPPED),
            change("set", "/etc/docker/daemon.json", SET),
            change("start", "web", "docker stop"),
            change("install files", "/opt/ai", "the files before lie in /var/lib"),
        ]
    )
    assert [(step.room, step.name) for step in found.steps] == [
        ("engine", "20260101T120001.000001Z"),
        ("ports", "20260101T120000Z-17"),
    ]
    assert found.steps[0].arguments == {"copy": "20260101T120001.000001Z"}
    assert found.steps[1].arguments == {"record": "20260101T120000Z-17"}
    (left,) = found.left
    assert (left.what, left.how) == (
        "install files /opt/ai",
        "the files before lie in /var/lib",
    )


def test_what_is_there_twice_is_brought_back_once() -> None:
    found = find_steps([change("stop unit", undo=STOPPED), change("stop unit", undo=STOPPED)])
    assert len(found.steps) == 1


@pytest.mark.parametrize(
    "text",
    [
        "ports.restored(record='latest')",
        "ports.restored(record='../../etc')",
        "ports.restored(record='20260101T120000Z-1'); rm -rf /",
        "ports.restored(record='20260101T120000Z-1')\n",
        "os.system('id')",
        "compose.restored(record='20260101T120000Z-1')",
        "$(id)",
    ],
)
def test_no_text_of_a_record_is_executed(text: str) -> None:
    found = find_steps([change("stop unit", undo=text)])
    assert found.steps == ()
    assert [left.how for left in found.left] == [text]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=60) | st.just(STOPPED) | st.just(SET), max_size=5))
def test_whatever_a_record_says_a_step_names_a_copy_and_nothing_else(texts: list[str]) -> None:
    for step in find_steps(change("stop unit", undo=text) for text in texts).steps:
        assert step.room in ("ports", "engine")
        assert set(step.name) <= set("0123456789TZ.-")


def test_the_names_are_those_that_the_rooms_take() -> None:
    steps = find_steps([change("a", undo=STOPPED), change("b", undo=SET)]).steps
    kinds = {"ports": RECORD, "engine": COPY}
    assert all(kinds[step.room].fullmatch(step.name) for step in steps)


@pytest.mark.parametrize(
    ("kept", "verbs", "reasons"),
    [
        ("as before", [], []),
        ("due", ["put back"], []),
        ("changed", [], ["it was changed since 20260101T120001.000001Z"]),
        ("unknown", [], ["the host keeps no copy"]),
    ],
)
def test_a_setting_is_taken_back_where_nobody_has_changed_it_since(
    kept: Kept, verbs: list[str], reasons: list[str]
) -> None:
    plan = plan_return(RUNNING, "/etc/docker/daemon.json", "20260101T120001.000001Z", kept)
    assert [action.verb for action in plan.actions] == verbs
    assert all(
        refusal.reason.startswith(reason)
        for refusal, reason in zip(plan.refusals, reasons, strict=True)
    )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("STACKMEND_REPORTS", str(tmp_path))
    monkeypatch.setattr(undo, "_chosen", "")
    with local() as host:
        yield host


def write(path: Path, **done: Any) -> None:
    step = {"cause": "c", "started": None, "seconds": 1, "result": "done", "subject": "it", **done}
    operation = {"name": "ports.free", "done": [step]}
    record = {
        "schema_version": 2,
        "started": "2026-01-01T12:00:00Z",
        "ended": "2026-01-01T12:00:01Z",
        "controller": "here",
        "mode": "apply",
        "complete": True,
        "hosts": {"@local": {"outcome": "changed", "operations": [operation]}},
    }
    path.write_text(json.dumps(record))


def test_a_record_is_found_by_its_path_and_by_its_run(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "20260101T120000Z-1a2b3c.json"
    write(path, verb="stop unit", undo=STOPPED)
    undo.choose("1a2b3c")
    assert len(undo.find(host).steps) == 1
    undo._records.clear()
    undo.choose(str(path))
    assert len(undo.find(host).steps) == 1


def test_what_a_run_failed_to_do_is_not_brought_back(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write(path, verb="stop unit", undo=STOPPED, result="failed")
    undo.choose(str(path))
    assert undo.find(host) == undo.Undo()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ffffff", "0 records of a run ffffff"),
        ("/nowhere/record.json", "no record '/nowhere/record.json'"),
        ("", "no record: name one"),
    ],
)
def test_a_record_that_is_none_ends_it(host: Host, name: str, reason: str) -> None:
    undo.choose(name)
    with pytest.raises(OperationError, match=reason):
        undo.find(host)
