"""A plan is what is done: the executor walks its steps in their order, and no others."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from stackmend import connection
from stackmend.compose import commands, observer, reconciler
from stackmend.compose.executor import Executor, Snapshot
from stackmend.compose.observer import Observer
from stackmend.compose.plan.actions import (
    Action,
    Build,
    InstallFiles,
    Plan,
    Pull,
    Record,
    Recreate,
    Remove,
    Restart,
    RestoreFiles,
    Start,
    Up,
)
from stackmend.compose.plan.foreign import sort_out
from stackmend.compose.plan.order import (
    Progress,
    choose_staging,
    decide_with_images,
    is_change,
    split_batches,
)
from stackmend.compose.plan.record import read_declaration
from stackmend.compose.plan.rollback import hold_back, is_intact_before, is_restored, roll_back
from stackmend.compose.reconciler import ComposeReconciler
from stackmend.compose.source import File, Source
from stackmend.compose.state import KEPT, Image, Mended
from stackmend.decision import Refusal
from stackmend.errors import StepError
from stackmend.paths import STATE_ROOT
from stackmend.reporting.collect import Collector
from tests.unit.compose_shop import changed, shop
from tests.unit.compose_world import NOW, PROJECT, Desired, World, compose, labelled, well
from tests.unit.test_compose_plan import SCENARIOS

OK = connection.Result(0, b"", b"")


class Recorder:
    """A host on which every command succeeds, and what is done there, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: str = "") -> None:
        self.steps: list[Action] = []
        self.events: list[str] = []
        self.fails = fails
        monkeypatch.setattr(connection, "run", self._run)

    def _run(self, _host: Any, command: Any, **_: Any) -> connection.Result:
        text = command.get_raw_value()
        if self.fails and self.fails in text:
            return connection.Result(1, b"", b"no")
        return OK

    @contextmanager
    def step(self, *actions: Action) -> Iterator[None]:
        """Record what the block does."""
        self.steps += actions
        self.events.append(" + ".join(f"{action.verb} {action.subject}" for action in actions))
        yield

    def executor(self, desired: Desired, snapshot: Snapshot) -> Executor:
        """What walks a plan on this host."""

        def verify(executor: Executor, _: Snapshot) -> Any:
            self.events.append("verify")
            return desired_record(desired)

        def wait(_declared: Any, _before: Any, names: set[str]) -> None:
            self.events.append(f"wait for {', '.join(sorted(names))}")

        observer: Any = types.SimpleNamespace(
            read_state=lambda: snapshot.state,
            resolve=lambda: snapshot.declared,
            redact=str,
            read_logs=lambda *_: [],
        )
        return Executor(
            host=None,  # type: ignore[arg-type]
            spec=desired.spec,
            source=Source({"compose.yaml": File(0o644, b"")}),
            options=(),
            observer=observer,
            waiter=types.SimpleNamespace(wait_until_healthy=wait),  # type: ignore[arg-type]
            lease=types.SimpleNamespace(check=lambda: None),  # type: ignore[arg-type]
            step=self.step,
            verify=verify,
        )


def desired_record(desired: Desired) -> Any:
    applied = well(desired).applied
    assert applied is not None
    return applied


def snapshot(desired: Desired, world: World) -> Snapshot:
    return Snapshot(world.state(), world.declared(desired))


def done(recorder: Recorder, decided: Plan, desired: Desired, world: World) -> None:
    seen = snapshot(desired, world)
    executor = recorder.executor(desired, seen)
    following = executor.prepare(decided, seen)
    executor.walk(following.actions, seen)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_what_is_planned_is_done_in_its_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decided = SCENARIOS[name]()
    recorder = Recorder(monkeypatch)
    done(recorder, decided, shop(), well(shop()))
    assert tuple(recorder.steps) == decided.actions


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_order_of_a_plan(name: str) -> None:
    """Images before anything is touched, a service after those it needs, the record at the end."""
    actions = SCENARIOS[name]().actions
    order: list[tuple[type, ...]] = [(Pull, Build), (InstallFiles,), (Recreate, Up), (Remove,)]
    ranks = [
        next((rank for rank, kinds in enumerate(order) if isinstance(action, kinds)), None)
        for action in actions
    ]
    placed = [rank for rank in ranks if rank is not None]
    assert placed == sorted(placed)
    assert not any(isinstance(action, Record) for action in actions[:-1])
    for at, action in enumerate(actions):
        for needed in getattr(action, "depends_on", ()):
            assert needed in {before.subject for before in actions[:at]}


def test_what_a_service_needs_is_waited_for_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = shop()
    world = World()
    recorder = Recorder(monkeypatch)
    done(recorder, world.observe(desired), desired, world)
    assert recorder.events == [
        "install files /opt/shop",
        "up redis + up side",
        "wait for redis",
        "up web",
        "verify",
        "record shop",
    ]


def test_compose_is_given_together_what_is_of_one_verb_and_one_batch() -> None:
    actions: list[Action] = [
        Restart(subject="a", cause="", container="1"),
        Restart(subject="b", cause="", container="2"),
        Recreate(subject="c", cause=""),
        Recreate(subject="d", cause=""),
        Up(subject="e", cause=""),
        Up(subject="f", cause="", batch=1),
    ]
    assert ["".join(action.subject for action in batch) for batch in split_batches(actions)] == [
        *("a", "b", "cd", "e", "f")
    ]


def test_what_fails_ends_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = shop()
    world = World()
    recorder = Recorder(monkeypatch, fails="install")
    with pytest.raises(Exception, match="cannot put the project's files in place"):
        done(recorder, world.observe(desired), desired, world)
    assert [action.verb for action in recorder.steps] == ["install files"]


def test_what_foreign_containers_obstruct_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a rollback has no need to create it either."""
    desired = shop()
    world = well(desired)
    after = changed(desired, command=["serve"])
    decided = world.observe(after)
    world.impostor("foreign-debug", "web")
    recorder = Recorder(monkeypatch)
    state = sort_out(world.state(), PROJECT, after.config)
    came = Snapshot(state, world.declared(after))
    executor = recorder.executor(after, came)
    with pytest.raises(StepError, match="cannot create web now: container:foreign-debug bears"):
        executor.walk(decided.actions, came)
    assert [action.verb for action in recorder.steps] == ["install files"]
    assert not executor.progress.touched


def test_an_image_that_does_not_come_leaves_the_names_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = shop()
    world = well(before)
    recorder = Recorder(monkeypatch, fails="pull --quiet")
    tags: list[str] = []
    monkeypatch.setattr(commands, "tag", lambda tag: tags.append(tag.name) or commands.IDLE)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    after = changed(before, image="lab/box:3")
    with pytest.raises(Exception, match="web: cannot pull its image: no"):
        done(recorder, world.observe(after), after, world)
    assert [action.verb for action in recorder.steps] == ["pull"]
    assert set(tags) == {"lab/box:1", "lab/redis:7"}


# What is decided once images have come


def test_what_an_image_that_came_would_leave_behind_is_a_refusal() -> None:
    before = shop()
    before.config["services"]["side"]["volumes"] = [{"type": "volume", "target": "/keep"}]
    world = well(before)
    after = changed(before, "side", image="lab/box:3", volumes=[])
    decided = world.observe(after)
    assert [action.verb for action in decided.actions[:1]] == ["pull"]
    came = {"lab/box:3": Image(id="sha256:3", volumes=())}
    declared = world.declared(after).model_copy(update={"images": came})
    following = decide_with_images(decided, after.spec, world.state(), declared)
    assert not following.actions
    assert [refusal.subject for refusal in following.refusals] == ["side"]
    hands_on = {"lab/box:3": Image(id="sha256:3", volumes=("/keep",))}
    declared = declared.model_copy(update={"images": hands_on})
    following = decide_with_images(decided, after.spec, world.state(), declared)
    assert following.actions == decided.actions[1:]
    assert not following.refusals


# What follows from a plan's steps


def test_how_files_are_sent() -> None:
    applied = desired_record(shop())
    digest, record = applied.source, Record(subject="shop", cause="")
    install = InstallFiles(subject="/opt/shop", cause="")
    assert choose_staging([record], applied, digest) == "none"
    assert choose_staging([record], applied, "other") == "archives"
    assert choose_staging([record], None, digest) == "archives"
    assert choose_staging([install, record], applied, digest) == "archives"
    assert choose_staging([Pull(subject="web", cause=""), record], applied, digest) == "tree"
    assert choose_staging([], None, digest) == "none"


def test_a_change_is_what_makes_the_stack_another_one() -> None:
    desired = shop()
    world = well(desired)
    applied, digest = world.applied, desired.digest
    assert not is_change((), applied, digest)
    assert is_change((), applied, "other")
    world.damage("web", health="unhealthy")
    assert not is_change(world.observe(desired).findings, applied, digest)
    world.files["compose.yaml"] = "edited"
    findings = world.observe(desired).findings
    assert is_change(findings, applied, digest)
    assert not is_change(findings, None, digest)


def test_a_service_is_counted_once_a_run() -> None:
    mend = Restart(subject="web", cause="", container="1", mend=True)
    progress = Progress()
    assert not progress.is_counted(mend.model_copy(update={"mend": False}))
    assert progress.is_counted(mend)
    progress = progress.advance(Up(subject="web", cause=""))
    assert (progress.touched, progress.tried) == ({"web"}, set())
    assert progress.is_counted(mend)
    progress = progress.advance(mend)
    assert progress.tried == {"web"}
    assert not progress.is_counted(mend)
    assert progress.advance(Remove(subject="old", cause="", container="1")) == progress


# Back to what was proven


def test_a_rollback_puts_back_files_then_services() -> None:
    before = shop()
    world = well(before)
    applied = world.applied
    assert applied is not None
    after = changed(before, image="lab/box:2")
    after.config["services"]["new"] = {"image": "lab/box:2", "networks": {"default": None}}
    del after.config["services"]["side"]
    after.files["new.conf"] = "1"
    world.files.update(after.files)
    world.up(after, "new")
    (new,) = world._of("new")
    declared = world.declared(after)
    decided = roll_back(after.files, after.digest, applied, declared, world.state(), {"web", "new"})
    restore, recreate, up = decided.actions
    assert isinstance(restore, RestoreFiles)
    assert restore.subject == before.spec.directory
    assert (restore.source, restore.failed) == (before.digest, after.digest)
    assert (restore.removed, restore.outdated) == (("new.conf",), ("web",))
    assert restore.containers == (new.id,)
    assert {tag.name: tag.image_id for tag in restore.tags} == {
        ref: world.images[ref] for ref in ("lab/box:1", "lab/redis:7")
    }
    assert (recreate.verb, recreate.subject) == ("recreate", "web")
    assert (up.verb, up.subject) == ("up", "side")
    blind = roll_back(after.files, after.digest, applied, declared, None, {"web"})
    assert blind.actions[0] == restore.model_copy(update={"containers": ()})


def test_a_rollback_starts_nothing_that_is_kept() -> None:
    services = {"web": {}, "old": {KEPT: True}}
    before = Desired(compose(services))
    world = well(before)
    applied = world.applied
    assert applied is not None
    for services_after in ({"web": {}, "old": {}}, {"web": {}}):
        after = Desired(compose(services_after), files={"compose.yaml": "2"})
        declared, touched = world.declared(after), {"web", "old"}
        decided = roll_back(after.files, after.digest, applied, declared, world.state(), touched)
        assert [str(step).partition(":")[0] for step in decided.actions] == [
            "restore files /opt/shop",
            "recreate web",
        ]


def test_a_rollback_settles_what_the_failed_apply_left() -> None:
    """Compose would stop at the name of a container that it did not come to replace."""
    before = shop()
    world = well(before)
    assert world.applied is not None
    (old,) = world._of("web")
    passing = old.model_copy(
        update={
            "id": "f" * 64,
            "name": f"{old.id[:12]}_{old.name}",
            "replaces": True,
            "status": "created",
            "started_at": 0,
            **labelled(old, replace=old.id),
        }
    )
    world.containers[passing.id] = passing
    after = changed(before, image="lab/box:2")
    declared = world.declared(after)
    decided = roll_back(after.files, after.digest, world.applied, declared, world.state(), {"web"})
    assert [str(action).partition(":")[0] for action in decided.actions] == [
        "restore files /opt/shop",
        "remove leftover web",
        "recreate web",
    ]
    assert decided.actions[1].container == passing.id  # type: ignore[union-attr]


def test_files_that_failed_are_held_back_and_the_stack_before_is_mended() -> None:
    before = shop()
    world = well(before)
    world.mends = [Mended(at=NOW - 1, service="new", action="rollback")]
    world.lose("side")
    decided = hold_back(before.spec, before.files, world.state(), (), "they failed", None)
    assert [(action.verb, action.subject) for action in decided.actions] == [("up", "side")]
    (refusal,) = decided.refusals
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "they failed"
    assert refusal.remedy
    assert not decided.empty


def test_a_rollback_that_was_cut_short_is_brought_to_its_end() -> None:
    before = shop()
    world = well(before)
    after = changed(before, image="lab/box:2")
    world.files.update(after.files)
    world.stale = {"web"}
    state = world.state()
    assert not is_restored(state)
    assert not is_intact_before(state)
    decided = hold_back(before.spec, after.files, state, (), "they failed", world.declared(after))
    assert [(action.verb, action.subject) for action in decided.actions] == [
        ("restore files", "/opt/shop"),
        ("recreate", "web"),
    ]
    world.files.update(before.files)
    assert is_restored(world.state())
    assert not is_intact_before(world.state())
    world.stale = set()
    assert is_intact_before(world.state())


def test_nothing_is_restored_where_the_host_is_refused() -> None:
    before = shop()
    world = well(before)
    world.files["compose.yaml"] = "2"
    state = world.state().model_copy(update={"obstacles": {"compose.yaml": "link"}})
    decided = hold_back(before.spec, before.files, state, (), "they failed", world.declared(before))
    assert not decided.actions
    assert len(decided.refusals) == 2


def test_a_declaration_of_a_record_is_enough_to_walk_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Desired(compose({"web": {}, "side": {}}))
    world = well(before)
    applied = world.applied
    assert applied is not None
    decided = roll_back(
        {}, "0" * 64, applied, world.declared(before), world.state(), {"web", "side"}
    )
    recorder = Recorder(monkeypatch)
    state = world.state()
    executor = recorder.executor(before, snapshot(before, world)).take_record(applied)
    executor.walk(decided.actions, Snapshot(state, read_declaration(applied, state)))
    assert tuple(recorder.steps) == decided.actions
    assert recorder.events == ["restore files /opt/shop", "recreate side + recreate web"]


def test_a_record_that_waits_for_another_mend_is_reported_behind_it() -> None:
    """A restart did not help: the service is recreated before the stack is recorded."""
    report = Collector("compose.stack")
    restart = Restart(subject="web", cause="unhealthy", container="1")
    recreate = Recreate(subject="web", cause="unhealthy still")
    record = Record(subject="shop", cause="proven")
    report.add_plan(Plan(actions=(restart, record)))
    report.add_done(restart, started=datetime.now(UTC), seconds=1, ok=True)
    report.add_plan(Plan(actions=(recreate, record)))
    for action in (recreate, record):
        report.add_done(action, started=datetime.now(UTC), seconds=1, ok=True)
    planned = [(action.verb, action.cause) for action in report.planned]
    assert planned == [(action.verb, action.cause) for action in report.done]
    assert [verb for verb, _ in planned] == ["restart", "recreate", "record"]


def test_what_is_done_twice_is_planned_twice() -> None:
    report = Collector("compose.stack")
    restart = Restart(subject="web", cause="unhealthy", container="1")
    for _ in range(2):
        report.add_plan(Plan(actions=(restart,)))
        report.add_done(restart, started=datetime.now(UTC), seconds=1, ok=True)
    assert [action.verb for action in report.planned] == ["restart", "restart"]


def test_what_fails_before_a_file_is_in_place_counts_as_nothing_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desired = shop()
    world = World()
    install = InstallFiles(subject="/opt/shop", cause="new")
    up = Up(subject="web", cause="it has no container")
    refused = Recorder(monkeypatch, fails="install").executor(desired, snapshot(desired, world))
    with pytest.raises(StepError):
        refused.walk([install, up], snapshot(desired, world))
    assert not refused.progress.is_applied
    executor = Recorder(monkeypatch).executor(desired, snapshot(desired, world))
    executor.walk([install], snapshot(desired, world))
    assert executor.progress.is_applied
    assert Progress().advance(up).is_applied
    applied = well(desired).applied
    assert applied is not None
    decided = roll_back({}, "", applied, world.declared(desired), None, ())
    executor.walk(decided.actions, snapshot(desired, world))


def test_files_that_were_sent_are_removed_where_a_run_ends_before_they_are_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desired = shop()
    ran: list[str] = []

    def run(_host: Any, command: Any, **_: Any) -> connection.Result:
        ran.append(command.get_raw_value())
        return OK

    executor = Recorder(monkeypatch).executor(desired, snapshot(desired, World()))
    monkeypatch.setattr(connection, "run", run)
    room = ComposeReconciler(None, desired.spec, executor.source, None)  # type: ignore[arg-type]
    monkeypatch.setattr(room, "_apply", lambda *_: False)
    decided = Plan(actions=(InstallFiles(subject="/opt/shop", cause="new"),))
    assert not room.execute(decided, snapshot(desired, World()), executor.lease)
    assert f"rm -rf -- {STATE_ROOT}/shop/staged {STATE_ROOT}/shop/staged.new" in ran[-1]

    def fail(*_: Any) -> bool:
        raise StepError("no")

    ran.clear()
    monkeypatch.setattr(room, "_apply", fail)
    with pytest.raises(StepError):
        room.execute(decided, snapshot(desired, World()), executor.lease)
    assert len(ran) == 1
    ran.clear()
    monkeypatch.setattr(room, "_apply", lambda *_: True)
    assert room.execute(decided, snapshot(desired, World()), executor.lease)
    assert not ran


def test_files_that_a_killed_run_sent_go_while_the_stack_before_is_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desired = shop()
    world = well(desired)
    ran: list[str] = []

    def run(_host: Any, command: Any, **_: Any) -> connection.Result:
        ran.append(command.get_raw_value())
        return OK

    executor = Recorder(monkeypatch).executor(desired, snapshot(desired, world))
    monkeypatch.setattr(connection, "run", run)
    room = ComposeReconciler(None, desired.spec, executor.source, None)  # type: ignore[arg-type]
    monkeypatch.setattr(room, "_wait_until_stable", lambda *_: None)
    monkeypatch.setattr(Executor, "walk", lambda *_: None)
    decided = Plan(actions=(Start(subject="web", cause="", container="1"),))
    for staged in (False, True):
        ran.clear()
        world.staged = staged
        held = replace(snapshot(desired, world), held=True)
        assert room.execute(decided, held, executor.lease)
        assert any("/staged.new" in command for command in ran) is staged


@pytest.mark.parametrize("busy", [False, True])
def test_files_of_a_run_that_is_at_work_are_no_leftover(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    desired = shop()
    world = well(desired)
    world.staged = True
    executor = Recorder(monkeypatch).executor(desired, snapshot(desired, world))
    room = ComposeReconciler(None, desired.spec, executor.source, None)  # type: ignore[arg-type]
    monkeypatch.setattr(room, "fetch", lambda *_, **__: [world.state()])
    monkeypatch.setattr(room.observer, "complete", lambda state: state)
    monkeypatch.setattr(reconciler, "find_other_run", lambda *_: busy)
    monkeypatch.setattr(room, "_decide", lambda state, _: state)
    assert room.observe().staged is not busy  # type: ignore[attr-defined]


def test_all_logs_of_a_reading_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"s{number}" for number in range(20)]
    desired = Desired(compose({name: {"scale": 2} for name in names}))
    world = well(desired)
    for name in names:
        for number in (0, 1):
            container = world._of(name)[number]
            world._set(container, status="exited", exit_code=1, health=None, process=None)
    clock = [0.0]

    def run(*_: Any, timeout: float, **__: Any) -> connection.Result:
        # Every log takes long, and one hangs.
        hangs = clock[0] > 10
        clock[0] += timeout if hangs else 3
        if hangs:
            raise connection.CommandTimeout("host", "docker logs", "did not end")
        return connection.Result(0, b"it fell\n", b"")

    monkeypatch.setattr(connection, "run", run)
    monkeypatch.setattr(observer.time, "monotonic", lambda: clock[0])
    reader = Observer(None, desired.spec, None)  # type: ignore[arg-type]
    logs = [each.log for each in reader._add_logs(world.state()).containers]
    assert clock[0] == observer.LOG_TIMEOUT
    assert logs.count(("it fell",)) == 4
    assert logs.count(("(its log could not be read in time)",)) == 36
    clock[0] = 0
    assert len(reader.read_logs(names, world.state())) == 40
    assert clock[0] == observer.LOG_TIMEOUT
    clock[0] = 0
    lives = reader.read_lives(names, world.state())
    assert clock[0] == observer.LOG_TIMEOUT
    assert {name: len(lines) for name, lines in lives.items()} == dict.fromkeys(names, 2)


def test_the_limit_of_a_run_holds_what_logs_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = shop()
    executor = Recorder(monkeypatch).executor(desired, snapshot(desired, World()))
    room = ComposeReconciler(None, desired.spec, executor.source, None)  # type: ignore[arg-type]
    start = Start(subject="web", cause="", container="1")
    limits = []
    for seconds in (observer.LOG_TIMEOUT, 0):
        monkeypatch.setattr(reconciler, "LOG_TIMEOUT", seconds)
        monkeypatch.setattr(reconciler, "OUTPUT_LIMIT", 2 * seconds)
        plans = (Plan(actions=(action,)) for action in (start, Record(subject="shop", cause="")))
        limits.append([room.find_limit(each) for each in plans])
    # Under the lock; before a step, and where it fails, with a log; and what is waited for.
    before, step, waiting = 40, 40 + 40 + 20, 20 + 20
    counted = [long - short for long, short in zip(*limits, strict=True)]
    assert counted == [before + step, before + step + waiting]
