"""A file of ours that adds services to a project: laid over it where it fits, and what it keeps."""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from stackmend import compose as compose_room
from stackmend import connection
from stackmend.compose import commands, reconciler
from stackmend.compose.closure import find_closure, list_laid_over
from stackmend.compose.layer import (
    LONGEST,
    describe_layer,
    find_covered,
    find_edited,
    include_layer,
    keep_covered,
    mark_kept,
)
from stackmend.compose.plan.actions import Plan
from stackmend.compose.plan.declaration import count_replicas
from stackmend.compose.plan.health import classify
from stackmend.compose.reconciler import ComposeReconciler, Project
from stackmend.compose.source import File, Source, SourceError, make
from stackmend.compose.state import KEPT, LAYER_FILE, LINKS_FILE, Declared
from stackmend.connection import CommandTimeout
from stackmend.errors import StepError
from stackmend.fleet import hosts as fleet
from tests.connected import local
from tests.unit.compose_world import NOW, Desired, World, compose, converge, well

OWN = Source(
    {
        "compose.yaml": File(0o644, b"services:\n  web: {image: a}\n  old: {image: b}\n"),
        "more.yaml": File(0o644, b"services:\n  side: {image: c}\n"),
    }
)
BEFORE = "services:\n  new: {image: n}\n"
LAYER = "services:\n  new: {image: n}\n  old: {x-stackmend-kept: true}\n"


def test_it_is_laid_over_the_projects_own_files() -> None:
    source, problem, _, kept = include_layer(OWN, f"{LAYER}\n\n")
    assert (problem, kept) == ("", {"old"})
    assert source.files[LAYER_FILE] == File(0o600, LAYER.encode())
    assert source.options[-2:] == ("--file", LAYER_FILE)
    assert LAYER_FILE in find_closure(source).files
    assert list_laid_over(source) == ("compose.yaml", LAYER_FILE)
    corrected = source.add_override(b"services: {}\n")
    assert corrected.options[-4:] == ("--file", LAYER_FILE, "--file", LINKS_FILE)


@pytest.mark.parametrize("content", ["", "\n", "  \n", "services: {}\n"])
def test_there_is_none(content: str) -> None:
    assert include_layer(OWN, content) == (OWN, "", "", frozenset())


def test_what_is_only_kept_may_be_gone() -> None:
    own = Source({"compose.yaml": File(0o644, b"services:\n  web: {image: a}\n")})
    layered = include_layer(own, LAYER)
    assert (layered.problem, layered.kept) == ("", frozenset())
    laid = yaml.safe_load(layered.source.files[LAYER_FILE].content)
    assert laid == {"services": {"new": {"image": "n"}}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("services:\n  gone: {environment: {A: b}}\n", "no longer declare gone"),
        ("services: [", "not valid YAML"),
        ("- a\n", "must be a mapping"),
        ("a: " + "x" * LONGEST, "longer than"),
    ],
)
def test_where_it_does_not_fit_nothing_is_done_to_the_project(content: str, problem: str) -> None:
    desired = Desired(compose({"web": {}}))
    world = well(desired)
    nobody = cast("Any", None)
    room = ComposeReconciler(nobody, desired.spec, OWN, nobody)
    observed = room._decide(world.state().model_copy(update={"layer": content}), ())
    (refusal,) = observed.plan.refusals
    assert problem in refusal.reason
    assert "/var/lib/stackmend/shop/layer.yaml" in refusal.remedy
    assert observed.plan.actions == ()
    world.applied = None
    observed = room._decide(world.state().model_copy(update={"layer": content}), ())
    assert observed.plan == Plan(refusals=(refusal,))


def test_compose_tells_nothing_of_what_is_kept() -> None:
    declared = Declared(config={"services": {"old": {"image": "b"}, "web": {}}})
    services = mark_kept(declared, frozenset({"old", "gone"})).services
    assert services == {"old": {"image": "b", KEPT: True}, "web": {}}
    assert mark_kept(declared, frozenset()) is declared


def test_a_service_of_an_included_file_is_declared() -> None:
    assert include_layer(OWN, "services:\n  side: {environment: {A: b}}\n").problem == ""


def test_no_file_can_be_laid_over_those_that_env_names() -> None:
    named = Source({**OWN.files, ".env": File(0o600, b"COMPOSE_FILE=compose.yaml\n")})
    layered = include_layer(named, LAYER)
    assert layered.source is named
    assert "COMPOSE_FILE" in layered.remedy


def test_a_project_cannot_have_a_file_of_its_name() -> None:
    files = {"compose.yaml": OWN.files["compose.yaml"], LAYER_FILE: File(0o600, b"services: {}\n")}
    with pytest.raises(SourceError, match=LAYER_FILE):
        make(Desired(compose({})).spec, files)


def test_it_is_written_and_removed() -> None:
    spec = Desired(compose({})).spec
    assert commands.write_layer(spec, LAYER).get_raw_value().endswith("/shop/layer.yaml yes")
    assert commands.write_layer(spec, "").get_raw_value().endswith("/shop/layer.yaml no")


# What it does, and what changes beneath it

CALLER = (
    "services:\n  web: {image: a, environment: [URL=http://old/v1, OTHER=x]}\n  old: {image: b}\n"
)
MOVED = "services:\n  new: {image: n}\n  web: {environment: {URL: http://new/v1}, command: [x]}\n"


def make_own(content: str) -> Source:
    return Source({"compose.yaml": File(0o644, content.encode())})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ""),
        (BEFORE, "adds new"),
        (MOVED, "adds new, changes web"),
        (
            MOVED + "  old: {x-stackmend-kept: true}\n",
            "adds new, changes web, keeps as it stands old",
        ),
        (BEFORE + "  gone: {x-stackmend-kept: true}\n", "adds new"),
    ],
)
def test_what_it_does_is_told(content: str, said: str) -> None:
    assert describe_layer(make_own(CALLER), content) == said


@pytest.mark.parametrize(
    ("old", "new", "edited"),
    [
        ("http://old/v1", "http://old/v1", []),
        ("http://old/v1", "http://third/v1", ["web.environment.URL"]),
        ("OTHER=x", "OTHER=y", []),
        ("URL=http://old/v1, ", "", ["web.environment.URL"]),
        ("image: a,", "image: a, command: [y],", ["web.command"]),
    ],
)
def test_what_is_edited_beneath_it_is_found_for_as_long_as_it_covers_it(
    old: str, new: str, edited: list[str]
) -> None:
    first = find_covered(make_own(CALLER), MOVED)
    assert first.keys() == {"web.environment.URL", "web.command"}
    known = keep_covered({}, first)
    for _ in range(2):
        covered = find_covered(make_own(CALLER.replace(old, new)), MOVED)
        assert find_edited(known, covered) == edited
        known = keep_covered(known, covered)
    # What is laid over it was made anew.
    covered = find_covered(make_own(CALLER.replace(old, new)), MOVED.replace("http://new", "x"))
    assert set(find_edited(known, covered)) <= {"web.command"}


@pytest.mark.parametrize(
    "value", ["{1: a, b: c}", "[2026-01-01, .nan, null]", "&x [*x]", "{2026-01-01: a, ~: b}"]
)
def test_whatever_stands_there_can_be_covered(value: str) -> None:
    content = f"services:\n  web: {{labels: {value}, environment: {value}}}\n"
    own = make_own(f"services:\n  web: {{image: a, labels: {value}, environment: {value}}}\n")
    layered = include_layer(own, content)
    if not layered.problem:
        covered = find_covered(own, content)
        assert covered
        assert all(laid == before for laid, before in covered.values())
        assert describe_layer(own, content) == "changes web"


def test_a_stack_tells_of_it_and_of_what_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = Desired(compose({"web": {}, "old": {}}))
    world = well(desired)
    assert world.applied is not None
    covered = find_covered(make_own(CALLER), MOVED)
    source = include_layer(make_own(CALLER.replace("//old", "//third")), MOVED).source
    applied = {"covered": covered, "source": source.digest, "files": source.digests}
    world.applied = world.applied.model_copy(update=applied)
    world.files = dict(source.digests)
    nobody = cast("Any", None)
    room = ComposeReconciler(
        nobody, desired.spec, make_own(CALLER.replace("//old", "//third")), nobody
    )
    state = world.state().model_copy(update={"layer": MOVED})
    found = room._decide(state, ()).plan
    said = [finding.cause for finding in found.findings if finding.kind == "layer"]
    assert said == [
        f"{LAYER_FILE} is laid over its files: it adds new, changes web",
        f"web.environment.URL in its files changed since {LAYER_FILE} was laid over them, and does "
        "not count",
    ]
    assert not found.problems


# How it comes to a project


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state/lock"
    monkeypatch.setattr(fleet, "LOCK", str(path))
    monkeypatch.setattr(compose_room, "_read", lambda _: OWN)
    return path


def is_free(lock: Path) -> bool:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_it_is_written_while_nobody_else_is_at_work(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(_: ComposeReconciler, content: str, lease: connection.Lease) -> bool:
        lease.check()
        assert not is_free(lock)
        written.append(content)
        return True

    monkeypatch.setattr(ComposeReconciler, "apply_layer", write)
    spec, nobody = Desired(compose({})).spec, cast("Any", None)
    with local() as host:
        assert compose_room.apply_layer(host, spec, "a", nobody)
        assert compose_room.apply_layer(host, spec, "b", nobody)
        # Another run, which knows nothing of this one's lock.
        with local() as other, pytest.raises(connection.LeaseHeld):
            compose_room.apply_layer(other, spec, "c", nobody)
    assert written == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "installed", "left"),
    [
        (LAYER, LAYER, LAYER),
        (LAYER, BEFORE, BEFORE),
        (LAYER, None, BEFORE),
        ("", BEFORE, BEFORE),
        ("", None, ""),
        ("services:\n  gone: {environment: {A: b}}\n", None, BEFORE),
    ],
)
@pytest.mark.parametrize("failure", [None, StepError("no"), CommandTimeout("host", "up", "late")])
def test_after_a_failure_it_is_what_the_containers_were_made_from(
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None,
    content: str,
    installed: str | None,
    left: str,
) -> None:
    """Where the files with it were not taken back, it says so to whoever comes next."""
    spec, nobody = Desired(compose({})).spec, cast("Any", None)
    room = ComposeReconciler(nobody, spec, OWN, nobody)
    digest = installed and File(0o600, installed.encode()).sha256
    state = World().state().model_copy(update={"layer": BEFORE, "files": {LAYER_FILE: digest}})
    written: list[str] = []

    def fail(*_: object) -> bool:
        if failure is not None:
            raise failure
        return False

    monkeypatch.setattr(reconciler, "reconcile_locked", fail)
    monkeypatch.setattr(room.observer, "read_state", lambda: state)
    for name, stub in (("_write_layer", written.append), ("wait_until_idle", lambda: None)):
        monkeypatch.setattr(room, name, stub)
    monkeypatch.setattr(room, "report_error", lambda _: None)
    assert not room.apply_layer(content, cast("Any", SimpleNamespace(check=lambda: None)))
    assert written[0] == content
    assert written[-1] == left


def test_of_a_host_that_was_lost_on_the_way_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, nobody = Desired(compose({})).spec, cast("Any", None)
    room = ComposeReconciler(nobody, spec, OWN, nobody)

    def fail(*_: object) -> bool:
        raise connection.ConnectionLost("host", "up", "gone")

    monkeypatch.setattr(reconciler, "reconcile_locked", fail)
    monkeypatch.setattr(room.observer, "read_state", World().state)
    for name in ("_write_layer", "wait_until_idle"):
        monkeypatch.setattr(room, name, lambda *_: None)
    with pytest.raises(connection.ConnectionLost):
        room.apply_layer(LAYER, cast("Any", SimpleNamespace(check=lambda: None)))


@pytest.mark.parametrize("converged", [True, False])
def test_while_another_run_is_at_work_nothing_is_told_of_a_project(
    monkeypatch: pytest.MonkeyPatch, converged: bool
) -> None:
    desired = Desired(compose({}))
    world = well(desired)
    found = Project(world.state(), world.declared(desired), {}, (), False, converged)
    monkeypatch.setattr(compose_room, "_read", lambda _: OWN)
    monkeypatch.setattr(ComposeReconciler, "describe", lambda _: found)
    monkeypatch.setattr(connection, "find_holder", lambda *_: "ann@laptop")
    seen = compose_room.observe_project(cast("Any", None), desired.spec)
    assert seen == (found if converged else "another run is at work here: ann@laptop")


# What is kept


def kept() -> tuple[Desired, World]:
    """A service that was stopped for good, and is kept so."""
    old = {"restart": "unless-stopped"}
    services = {"web": {"depends_on": {"old": {"condition": "service_healthy"}}}, "old": old}
    desired = Desired(compose(services))
    world = well(desired)
    (container,) = (each for each in world.containers.values() if each.service == "old")
    shape = {**container.shape, "restart": "no"}
    stopped = {"status": "exited", "exit_code": 137, "restart": "no", "shape": shape}
    world.containers[container.id] = container.model_copy(update=stopped)
    changed = Desired(
        compose({**services, "old": {**old, KEPT: True}}), files={"compose.yaml": "2"}
    )
    return changed, world


def test_a_service_that_is_kept_is_left_alone() -> None:
    desired, world = kept()
    assert count_replicas(desired.config["services"]["old"]) == 0
    converge(world, desired)
    assert {subject for _, subject in world.done} & {"old", "web"} == set()
    (container,) = (each for each in world.containers.values() if each.service == "old")
    assert container.status == "exited"


def test_it_keeps_no_other_from_being_healthy() -> None:
    desired, world = kept()
    health = classify(desired.config["services"], world.state(), NOW)
    assert (health.waiting, health.failed) == ((), ())


@pytest.mark.parametrize("code", [0, 137])
@pytest.mark.parametrize("recorded", [True, False])
def test_the_same_container_is_started_again_once_it_is_not_kept(code: int, recorded: bool) -> None:
    desired, world = kept()
    converge(world, desired)
    (before,) = (each for each in world.containers.values() if each.service == "old")
    world.containers[before.id] = before.model_copy(update={"exit_code": code})
    if not recorded:
        assert world.applied is not None
        services = {name: one for name, one in world.applied.services.items() if name != "old"}
        world.applied = world.applied.model_copy(update={"services": services})
    plain = {**desired.config["services"], "old": {"restart": "unless-stopped"}}
    world.done.clear()
    converge(world, Desired(compose(plain), files={"compose.yaml": "3"}))
    (container,) = (each for each in world.containers.values() if each.service == "old")
    assert container.id == before.id
    assert container.running
    assert container.restart == container.shape["restart"] == "unless-stopped"
    assert ("set restart policy", "old") in world.done
    assert world.mends == []


def test_what_was_never_proven_is_not_recorded_as_it_stands_stopped() -> None:
    desired, world = kept()
    assert world.applied is not None
    world.applied = world.applied.model_copy(update={"services": {}})
    converge(world, desired)
    assert "old" not in world.applied.services
