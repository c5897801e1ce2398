"""Paths from a host: what leads out of its directory is refused, read as well as decided."""

from __future__ import annotations

import json
import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend.compose import facts
from stackmend.compose.plan.decide import plan
from stackmend.compose.state import Applied, StackState
from stackmend.errors import StepError
from stackmend.paths import is_inside, is_name
from tests.marks import MARK, framed
from tests.unit.compose_shop import shop
from tests.unit.compose_world import well

ODD = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\nb",
    "a\0b",
    "a\x1b]0;b",
    "a\x85b",
    "a\udc80",
]
PLAIN = ["a", "a/b", ".env", "..a", "a..", "...", "-rf", "a b", "ä", "it's", "$(id)", "a\\b", "*"]


@pytest.mark.parametrize("path", ODD)
def test_what_leads_elsewhere_or_is_odd_is_not_inside(path: str) -> None:
    assert not is_inside(path)
    assert not is_name(path)


@pytest.mark.parametrize("path", PLAIN)
def test_what_is_inside(path: str) -> None:
    assert is_inside(path)
    assert is_name(path) == ("/" not in path)


@given(st.text() | st.lists(st.sampled_from(["a", "..", ".", "", "b\n"])).map("/".join))
def test_what_is_inside_stays_there(path: str) -> None:
    if is_inside(path):
        whole = posixpath.normpath(posixpath.join("/srv/app", path))
        assert whole == f"/srv/app/{path}"


RECORD: dict[str, Any] = {
    "project": "shop",
    "directory": "/opt/shop",
    "source": "0" * 64,
    "files": {"compose.yaml": "1"},
    "config": {"services": {"web": {"image": "a"}}},
    "outside": {"/etc/hostname": "2"},
    "services": {"web": {"image": "a", "image_id": "sha256:1", "shape": {}}},
    "applied_at": 1,
}


def read(record: object, *files: str, outside: str = "etc/hostname") -> StackState:
    """What is read of a host with such a record and list of files, and without an engine."""
    parts = {
        "clock": (0, ["1"]),
        "writable": (0, []),
        "applied": (0, [record if isinstance(record, str) else json.dumps(record)]),
        "files": (0, [f"{'0' * 64}  {path}" for path in files]),
        "outside": (0, [f"{'0' * 64}  {outside}"]),
        "engine": (1, []),
    }
    return facts.parse(framed(parts), MARK, "shop")


def test_a_record_that_is_ours_is_read() -> None:
    state = read(RECORD, "compose.yaml", "old")
    assert (state.applied, state.applied_problem) == (Applied.model_validate(RECORD), "")
    assert set(state.files) == {"compose.yaml", "old"}
    assert set(state.outside) == {"/etc/hostname"}


@pytest.mark.parametrize(
    "change",
    [
        *({"files": {path: "1"}} for path in ODD if "\udc80" not in path),
        *({"services": {name: RECORD["services"]["web"]}} for name in ("..", "a/b", "", "a\nb")),
        *({"outside": {path: "1"}} for path in ("etc/hostname", "/a\nb", "/a\x1b", "")),
        *({"directory": path} for path in ("/etc", "/", "opt/shop", "/opt/../etc", "/opt/a\nb")),
        *({"source": name} for name in ("../../../root", "", ".", "a/b", "..")),
        {"services": {"web": {"image": "-v", "image_id": "a", "shape": {}}}},
        {"services": {"web": {"image": "a", "image_id": "--all", "shape": {}}}},
        {"project": "another"},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_ours_is_none(change: dict[str, Any]) -> None:
    state = read({**RECORD, **change}, "compose.yaml")
    assert (state.applied, state.applied_problem) == (None, facts.UNREADABLE)


@pytest.mark.parametrize("path", [path for path in ODD if path and "\n" not in path])
def test_a_list_that_leads_elsewhere_is_no_list_of_ours(path: str) -> None:
    state = read(RECORD, "compose.yaml", path)
    assert (state.applied, state.applied_problem) == (None, facts.UNREADABLE)
    assert state.files == {}


@pytest.mark.parametrize("path", ["a\0b", "a\x1b]0;b", "a\x85b"])
def test_a_list_that_holds_what_no_list_can_is_none_of_ours(path: str) -> None:
    state = read(RECORD, "compose.yaml", outside=path)
    assert (state.applied, state.outside) == (None, {})


def test_a_mount_may_be_written_as_one_likes() -> None:
    """What lies outside is read alone; Compose takes such a source as it is."""
    path = "/etc/../etc//hostname"
    record = {**RECORD, "outside": {path: "2"}}
    state = read(record, "compose.yaml", outside=path.removeprefix("/"))
    assert state.applied is not None
    assert state.outside == {path: "0" * 64}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "\ufffd", "\0", "1e999"])
def test_a_record_that_is_no_record(text: str) -> None:
    assert read(text, "compose.yaml").applied_problem == facts.UNREADABLE


@pytest.mark.parametrize("path", ["../../root/victim", "/etc/passwd", "a/..", "x\ny"])
def test_the_plan_removes_nothing_elsewhere(path: str) -> None:
    """Whatever has read it."""
    wanted = shop()
    state = well(wanted).state()
    state = state.model_copy(update={"files": {**state.files, path: "1"}})
    decided = plan(wanted.spec, wanted.files, wanted.digest, state)
    assert decided.actions == ()
    (refusal,) = decided.refusals
    assert repr(path) in refusal.reason
    assert refusal.remedy


def test_without_a_record_nothing_is_removed() -> None:
    wanted = shop()
    world = well(wanted)
    state = world.state().model_copy(update={"files": {"old": "1"}, "applied": None})
    decided = plan(wanted.spec, wanted.files, wanted.digest, state, world.declared(wanted))
    assert not [action for action in decided.actions if "old" in getattr(action, "removed", ())]


def test_a_service_that_is_called_like_a_way_out_is_refused() -> None:
    parts = {
        "unpacked": (0, ["/dev/shm/x"]),
        "config": (0, [json.dumps({"services": {"..": {"image": "a"}}})]),
        "differs": (0, []),
        "images": (0, []),
    }
    # Not as a refusal of Compose's, which takes such a name.
    with pytest.raises(StepError, match=r"^services: stackmend takes no service called '\.\.'; "):
        facts.parse_declared(framed(parts), MARK, "/opt/shop")


def test_an_applied_record_is_validated_wherever_it_is_made() -> None:
    with pytest.raises(ValidationError):
        Applied.model_validate({**RECORD, "files": {"../x": "1"}})
