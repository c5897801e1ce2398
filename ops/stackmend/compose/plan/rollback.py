"""How a project goes back to what was proven, and stays there while new files are not tried."""

from collections.abc import Collection, Sequence

from stackmend.checks.state import CheckResult
from stackmend.compose.plan.actions import Action, Plan, Recreate, RestoreFiles, Up
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.declaration import is_kept
from stackmend.compose.plan.leftovers import resolve_leftovers
from stackmend.compose.plan.order import drop_record
from stackmend.compose.plan.record import list_tags
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied, Declared, Image, StackState
from stackmend.decision import Refusal

CAUSE = "rolled back to what was proven before"
HOLD_REMEDY = "change them, or run again later; mend.attempts and mend.backoff set the limits"


def restore_spec(spec: ComposeSpec, applied: Applied) -> ComposeSpec:
    """The spec that a record was made with, as far as Compose reads it."""
    changes = {"directory": applied.directory, "profiles": applied.profiles}
    return spec.model_copy(update=changes)


def is_restored(state: StackState) -> bool:
    """Whether the files of the record lie on the host."""
    applied = state.applied
    return applied is None or all(
        state.files.get(path) == digest for path, digest in applied.files.items()
    )


def is_intact_before(before: StackState) -> bool:
    """Whether every service ran on the files of the record before a run.

    What the run did not touch does so then after a rollback as well.
    """
    return is_restored(before) and not before.stale


def roll_back(
    files: Collection[str],
    attempt: str,
    applied: Applied,
    declared: Declared,
    state: StackState | None,
    touched: Collection[str],
) -> Plan:
    """The plan that undoes a run that failed.

    :param files: the paths of the files that failed.
    :param attempt: what is counted of them; empty where nothing of them was applied.
    :param applied: the record that the host goes back to.
    :param declared: what Compose made of the files that failed.
    :param state: what runs now; ``None`` where the engine does not answer.
    :param touched: the services that the run did anything to.
    """
    # What is kept as it is was not started by the record, and is not by its return.
    services = {
        name: body
        for name, body in (applied.config.get("services") or {}).items()
        if not is_kept(body)
    }
    recreated = tuple(sorted(set(touched) & set(services)))
    missing = sorted(set(services) - set(declared.services))
    restore = _restore(files, applied, declared, state).model_copy(
        update={"outdated": recreated, "failed": attempt}
    )
    actions: list[Action] = [restore]
    if state is not None:
        # What failed may have ended while Compose put one container in another's place.
        actions += resolve_leftovers(state, services)[0]
    actions += (Recreate(subject=name, cause=CAUSE) for name in recreated)
    actions += (Up(subject=name, cause=CAUSE) for name in missing)
    return Plan(actions=tuple(actions))


def hold_back(
    spec: ComposeSpec,
    files: Collection[str],
    state: StackState,
    checks: Sequence[CheckResult],
    reason: str,
    declared: Declared | None = None,
    remedy: str = HOLD_REMEDY,
) -> Plan:
    """The plan that mends the stack of the record, while the desired files are not tried.

    :param files: the paths of the files that failed.
    :param reason: why they are not tried: they failed, or cannot be had.
    :param declared: what Compose makes of them, where a rollback did not come to its end.
    :param remedy: what would have them tried.
    """
    applied = state.applied
    assert applied is not None, "only what replaced a record can have been rolled back"
    spec = restore_spec(spec, applied)
    decided = plan(spec, applied.files, applied.source, state, checks=checks)
    actions = drop_record(decided.actions)
    if declared is not None and not decided.refusals:
        restore = _restore(files, applied, declared, state)
        restored = plan(spec, applied.files, applied.source, _apply(restore, state), checks=checks)
        actions = (restore, *drop_record(restored.actions))
    refusal = Refusal(subject=spec.project, reason=reason, remedy=remedy)
    return decided.model_copy(update={"actions": actions, "refusals": (refusal, *decided.refusals)})


def _restore(
    files: Collection[str], applied: Applied, declared: Declared, state: StackState | None
) -> RestoreFiles:
    came = declared.services.keys() - (applied.config.get("services") or {}).keys()
    return RestoreFiles(
        subject=applied.directory,
        cause=CAUSE,
        source=applied.source,
        removed=tuple(path for path in files if path not in applied.files),
        tags=list_tags(applied),
        containers=tuple(
            container.id
            for container in (state.containers if state else ())
            if container.service in came and not container.oneoff
        ),
    )


def _apply(restore: RestoreFiles, state: StackState) -> StackState:
    """The state that restoring the files leaves."""
    assert state.applied is not None, "what is restored is a record's"
    images = {tag.name: Image(id=tag.image_id) for tag in restore.tags}
    containers = (other for other in state.containers if other.id not in restore.containers)
    return state.model_copy(
        update={
            "files": state.applied.files,
            "images": {**state.images, **images},
            "containers": tuple(containers),
        }
    )
