"""What of a record is brought back, by whom, and in which order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api import Config, Inventory, OperationError, State
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


def change(verb: str, subject: str = "it", undo: str = "", *, done: bool = True) -> Change:
    return Change(verb=verb, subject=subject, undo=undo, done=done)


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
    assert found.steps[0].arguments == {"copy": "20260101T120001.000001Z", "required": True}
    assert found.steps[1].arguments == {"record": "20260101T120000Z-17", "required": True}
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


def write(
    path: Path,
    *,
    name: str = "@local",
    host: Mapping[str, Any] = MappingProxyType({}),
    complete: bool = True,
    **done: Any,
) -> None:
    step = {"cause": "c", "started": None, "seconds": 1, "result": "done", "subject": "it", **done}
    operation = {"name": "ports.free", "done": [step]}
    record = {
        "schema_version": 2,
        "started": "2026-01-01T12:00:00Z",
        "ended": "2026-01-01T12:00:01Z",
        "controller": "here",
        "mode": "apply",
        "complete": complete,
        "hosts": {name: {"outcome": "changed", "operations": [operation], **host}},
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


def test_what_failed_may_have_taken_effect_and_the_host_knows(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write(path, verb="stop unit", undo=STOPPED, result="failed")
    undo.choose(str(path))
    (step,) = undo.find(host).steps
    assert step.arguments == {"record": "20260101T120000Z-17", "required": False}
    assert "which failed" in step.what


def test_what_failed_and_is_done_at_last_has_a_copy_for_certain() -> None:
    found = find_steps([change("set", undo=SET, done=False), change("set", undo=SET)])
    assert [step.done for step in found.steps] == [True]


def test_where_a_run_was_cut_short_is_for_a_person(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write(path, host={"interrupted_at": "ports.free: stop unit redis"}, verb="pull")
    undo.choose(str(path))
    (left,) = undo.find(host).left
    assert left.what == "the run was cut short at ports.free: stop unit redis"
    undo._records.clear()
    write(path, host={"outcome": "unknown"}, verb="pull", complete=False)
    (left,) = undo.find(host).left
    assert left.what.startswith("the run was cut short at")


def test_a_host_that_the_record_does_not_have_is_left_where_it_has_others(
    host: Host, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    undo.choose(str(path))
    write(path, name="ai1", verb="set", undo=SET)
    with pytest.raises(OperationError, match="the record has no host @local; it has ai1"):
        undo.find(host)
    undo._records.clear()
    state = State(Inventory((["@local", "ai1"], {})), Config())
    assert undo.find(state.inventory.get_host("@local")) == undo.Undo()
    assert len(undo.find(state.inventory.get_host("ai1")).steps) == 1


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


UNDO = """
import sys
from stackmend import cli
cli.main(sys.argv[1:])
"""


def undo_by_command(directory: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", UNDO, "undo", "@local", *words],
        cwd=directory,
        env={**os.environ, "STACKMEND_REPORTS": "", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"verb": "pull"}, 0, "nothing to bring back"),
        ({"verb": "set", "undo": "by hand"}, 1, "by hand: by hand"),
        ({"name": "ai1", "verb": "pull"}, 2, "the record has no host @local; it has ai1"),
    ],
    ids=["nothing", "left", "another"],
)
@pytest.mark.parametrize("dry", [(), ("--dry",)], ids=["", "dry"])
def test_each_end_of_undo_has_its_code(
    tmp_path: Path, fields: dict[str, Any], code: int, text: str, dry: tuple[str, ...]
) -> None:
    path = tmp_path / "record.json"
    write(path, **fields)
    rc, out, err = undo_by_command(tmp_path, str(path), *dry)
    assert (rc, (out + err).count(text)) == (code, 1), out + err
    assert "ignored" not in out + err


@pytest.mark.slow
def test_a_step_that_is_refused_keeps_no_other_from_being_taken(tmp_path: Path) -> None:
    """Neither copy is on this machine; each is asked for, and the host has failed."""
    path = tmp_path / "record.json"
    first = {"verb": "stop unit", "subject": "a", "undo": STOPPED, "cause": "c", "seconds": 1}
    last = {**first, "subject": "b", "undo": STOPPED.replace("-17", "-18")}
    steps = [{**step, "started": None, "result": "done"} for step in (first, last)]
    write(path, host={"operations": [{"name": "ports.free", "done": steps}]}, verb="pull")
    rc, out, err = undo_by_command(tmp_path, str(path))
    assert rc == 1, out + err
    assert out.index("20260101T120000Z-18") < out.index("20260101T120000Z-17")
    assert "@local: failed" in err
