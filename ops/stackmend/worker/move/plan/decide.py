"""Where a move stands, and the steps that are left of it. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime

import yaml

from stackmend.decision import Finding, Refusal
from stackmend.paths import STATE_ROOT
from stackmend.worker.benchmark.state import Comparison
from stackmend.worker.benchmark.statistics import SIGNIFICANT
from stackmend.worker.figures import format_figure
from stackmend.worker.move.plan.actions import (
    Action,
    AddService,
    Change,
    ImportModel,
    Measure,
    Plan,
    PutBack,
    Repoint,
    Retire,
)
from stackmend.worker.move.plan.design import Designed, list_changes, make_added
from stackmend.worker.move.plan.layer import has_reached, make_layer
from stackmend.worker.move.spec import MovePolicy
from stackmend.worker.move.state import HostMove, Legacy, Move, MoveRecord, Stage

#: How often a move may fail before it is not tried again: each time clients may be recreated.
MOST_FAILURES = 3

#: What a figure that decides counts.
_UNITS = {"output_tps": "tokens/s"}

#: The stage that a step ends with.
_AFTER: dict[type, Stage] = {
    AddService: "added",
    ImportModel: "imported",
    Repoint: "repointed",
    Retire: "retired",
}


def plan(
    spec: MovePolicy,
    host: HostMove,
    key: str = "",
    legacies: tuple[Legacy, ...] = (),
    designed: Designed | None = None,
) -> Plan:
    """The steps that are left, what was found, and what is refused.

    :param key: what a new decision would rest on, of ``make_key``.
    :param legacies: the legacy workers that were recognised.
    :param designed: the move of the one of them, where none was begun.
    """
    record = host.record
    if host.record_problem:
        return Plan(
            refusals=(
                Refusal(
                    subject="legacy worker",
                    reason=f"where its move stands cannot be read: {host.record_problem}",
                    remedy="see which of the two services the clients call, then remove that file",
                ),
            )
        )
    if record is not None and record.stage == "retired":
        return _plan_moved(record, host, spec)
    if record is not None and is_final(record, key):
        return _plan_returned(record)
    if record is not None and record.stage != "returned":
        return Plan(findings=_find_evidence(record.move), actions=tuple(_list_steps(record, spec)))
    if not legacies and spec.service is not None:
        return Plan(
            refusals=(
                Refusal(
                    subject=spec.service,
                    reason="no running container of it says that it serves models by an engine "
                    "other than Ollama",
                    remedy="start it, name the service that does, or take the section away",
                ),
            )
        )
    if len(legacies) > 1:
        names = ", ".join(legacy.service for legacy in legacies)
        return Plan(
            refusals=(
                Refusal(
                    subject="legacy worker",
                    reason=f"several services are legacy workers: {names}",
                    remedy='name the one to move: add to the section "engine": "service": "NAME"',
                ),
            )
        )
    if designed is None:
        return Plan()
    if designed.move is None:
        return Plan(refusals=designed.refusals)
    started = begin(designed.move, key, "")
    return Plan(findings=_find_evidence(designed.move), actions=tuple(_list_steps(started, spec)))


def is_final(record: MoveRecord, key: str) -> bool:
    """Whether a move that went back is not tried again, because nothing that decides is new.

    :param key: what a new decision would rest on.
    """
    tried = not record.failed or record.failures >= MOST_FAILURES or bool(record.remedy)
    return record.stage == "returned" and record.key == key and tried


def begin(move: Move, key: str, project: str, before: MoveRecord | None = None) -> MoveRecord:
    """The record of a move of which nothing is done yet.

    :param before: that of one that went back.
    """
    failures = before.failures if before is not None and before.key == key else 0
    return MoveRecord(project=project, key=key, stage="planned", move=move, failures=failures)


def _list_steps(record: MoveRecord, spec: MovePolicy) -> list[Action]:
    """The steps that are left of a move that was begun."""
    move, stage = record.move, record.stage
    if stage == "returning":
        return [PutBack(subject=move.legacy, cause=record.reason)]
    if not has_reached(stage, "repointed") and (reason := explain_changes(record, spec)):
        return [PutBack(subject=move.legacy, cause=reason)]
    steps: list[Action] = []
    names = ", ".join(move.clients)
    if move.added and not has_reached(stage, "added"):
        cause = f"{move.legacy} runs on {move.engine}"
        steps.append(AddService(subject=move.target, cause=cause))
    if not has_reached(stage, "imported"):
        steps += [
            ImportModel(
                subject=model.name,
                cause=f"{model.cause or 'it is needed'}; its file is {model.path} of {move.legacy}",
                name=model.name,
                path=model.path,
                context=model.context,
            )
            for model in move.models
            if not model.present
        ]
    if not has_reached(stage, "measured"):
        cause = f"it is kept only if it is {spec.margin:.0%} faster than {move.legacy}"
        steps.append(Measure(subject=move.target, cause=cause, phase="before"))
    if not has_reached(stage, "repointed"):
        cause = f"it calls {move.legacy}"
        steps.append(Repoint(subject=names, cause=cause))
    if not has_reached(stage, "confirmed"):
        cause = f"what {names} asks weighs on it now, and did on {move.legacy} before"
        steps.append(Measure(subject=move.target, cause=cause, phase="after"))
    cause = f"{names} calls {move.target}"
    steps.append(Retire(subject=move.legacy, cause=cause, remove=not spec.keep_legacy))
    if (changed := change_settings(move, spec)) != move:
        steps.append(_make_change(move, changed))
    return steps


def advance(record: MoveRecord, action: Action) -> MoveRecord:
    """The record once a step is done; of models, once the last of them is."""
    if isinstance(action, Retire):
        record = record.model_copy(update={"removed": action.remove})
    if isinstance(action, ImportModel):
        imported = [model.name for model in record.move.models if not model.present]
        if action.name != imported[-1]:
            return record
    stage = _AFTER.get(type(action))
    return record if stage is None else record.model_copy(update={"stage": stage})


def add_comparison(
    record: MoveRecord, phase: str, comparison: Comparison, margin: float
) -> MoveRecord:
    """The record with a measurement, and what follows from it: forward, or back."""
    known = record.model_copy(update={phase: comparison})
    if reason := explain_return(known, margin):
        return make_return(known, reason)
    stage: Stage = "measured" if phase == "before" else "confirmed"
    return known.model_copy(update={"stage": stage})


def explain_return(record: MoveRecord, margin: float) -> str:
    """Why the new one is not kept by what was measured so far; empty where it is.

    Before its clients are re-pointed what they ask weighs on the legacy worker, and on the new one
    afterwards. Of two that are equally fast the first measurement favours the new one as much as
    the second does the legacy worker, so that the mean of both ratios is right, whatever they ask.
    """
    before, after, move = record.before, record.after, record.move
    if before is None:
        return ""
    clients = ", ".join(move.clients)
    if before.ratio < 1 + margin:
        return (
            f"{move.target} is not {margin:.0%} faster than {move.legacy}: {_format(before)}, "
            f"while {clients} called {move.legacy}"
        )
    # Both were measured in turns: what disturbed one of them disturbed the other.
    if before.p >= SIGNIFICANT:
        return (
            f"it is not proven that {move.target} is faster than {move.legacy}: {_format(before)}, "
            f"while {clients} called {move.legacy}"
        )
    if after is None:
        return ""
    ratio = (before.ratio * after.ratio) ** 0.5
    if ratio < 1 + margin:
        return (
            f"{move.target} is not {margin:.0%} faster than {move.legacy}, but {ratio:.2f} times "
            f"as fast: {_format(before)} before its clients were re-pointed, {_format(after)} after"
        )
    return ""


def explain_grace(move: Move, slowest: float) -> str:
    """Why clients cannot be recreated without the loss of a task; empty where they can.

    :param slowest: seconds that the legacy worker needs for one request.
    """
    for client, grace in sorted(move.grace.items()):
        if grace < slowest:
            return (
                f"{client} has {grace:g} s to end what it has under way, and {move.legacy} needs "
                f"{format_figure(slowest)} s for one request: set its stop_grace_period, or add to "
                'the section "engine": "allow": ["tasks"]'
            )
    return ""


def make_return(record: MoveRecord, reason: str, *, final: bool = True) -> MoveRecord:
    """The record of a move that goes back.

    :param reason: why.
    :param final: whether for good, until what it rests on is another.
    """
    changes = {"stage": "returning", "reason": reason, "failed": False}
    return record.model_copy(update=changes if final else {**changes, "key": ""})


def make_confirmed(record: MoveRecord, reason: str) -> MoveRecord:
    """The record of a move whose legacy worker no longer answers: clients stay where they are.

    :param record: of clients that call the new one.
    :param reason: why it does not answer.
    """
    text = f"{record.move.legacy} no longer answers ({reason}): there is nothing to go back to"
    return record.model_copy(update={"stage": "confirmed", "reason": text})


def return_failed(record: MoveRecord, reason: str, remedy: str = "") -> MoveRecord:
    """The record of a move that goes back because a step failed.

    :param remedy: what has to be done before it is tried again; it is, some times, without one.
    """
    changes = {"stage": "returning", "reason": reason, "remedy": remedy, "failed": True}
    return record.model_copy(update={**changes, "failures": record.failures + 1})


def _find_evidence(move: Move) -> tuple[Finding, ...]:
    return (
        Finding(
            subject=move.legacy,
            kind="legacy worker",
            cause=f"it serves models by {move.engine}; {', '.join(move.clients)} calls it",
            evidence=move.evidence,
            blocks=False,
        ),
    )


def explain_changes(record: MoveRecord, spec: MovePolicy) -> str:
    """Why a move that is under way is not the one that is desired now; empty where it is."""
    move = record.move
    changed = [*list_changes(move, spec), *_list_keys(move, change_settings(move, spec))]
    return f"its settings changed since it was planned: {', '.join(changed)}" if changed else ""


def change_settings(move: Move, spec: MovePolicy) -> Move:
    """A move whose added service has the settings of now.

    :param spec: what is desired.
    """
    added = make_added(move.base, spec)
    changed = move.model_copy(update={"added": added})
    # Written down and read again, a tuple is a list.
    return move if make_layer(changed, "added") == make_layer(move, "added") else changed


def _plan_moved(record: MoveRecord, host: HostMove, spec: MovePolicy) -> Plan:
    """What is left of a move that is over: it follows its settings, as far as these can follow."""
    move, changed = record.move, change_settings(record.move, spec)
    layers = [make_layer(each, "retired") for each in (move, changed)]
    if not any(_is_equal(host.layer, layer) for layer in layers):
        return Plan(findings=(_find_taken_back(move, record.project),))
    if refusals := tuple(_refuse_changes(record, spec)):
        return Plan(findings=(_find_moved(record),), refusals=refusals)
    actions: list[Action] = []
    if changed != move:
        actions.append(_make_change(move, changed))
    if not spec.keep_legacy and not record.removed:
        cause = f"{move.target} has taken its place, and keep_legacy is False"
        actions.append(Retire(subject=move.legacy, cause=cause, remove=True))
    return Plan(findings=(_find_moved(record),), actions=tuple(actions))


def _make_change(move: Move, changed: Move) -> Change:
    keys = ", ".join(_list_keys(move, changed))
    return Change(subject=move.target, cause=f"its settings changed: {keys}")


def _list_keys(move: Move, changed: Move) -> list[str]:
    """The keys of the added service in which two moves differ."""
    before, after = move.added, changed.added
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def _refuse_changes(record: MoveRecord, spec: MovePolicy) -> Iterator[Refusal]:
    """Settings that a move which is over cannot follow."""
    move = record.move
    back = "or go back by hand, as the chapter on moving a legacy worker says, and run again"
    if changed := list_changes(move, spec):
        names = ", ".join(changed)
        yield Refusal(
            subject=move.legacy,
            reason=f"its settings changed since it was moved to {move.target}: {names}; a move "
            "that is over is not done once more",
            remedy=f'put back {names} in the section "engine"; {back}',
        )
    if reason := explain_return(record, spec.margin):
        yield Refusal(
            subject=move.legacy,
            reason=f"it was moved to {move.target} by a smaller margin: {reason}",
            remedy=f'put back margin in the section "engine"; {back}',
        )


def _find_moved(record: MoveRecord) -> Finding:
    move = record.move
    return Finding(
        subject=move.legacy,
        kind="moved",
        cause=f"{', '.join(move.clients)} calls {move.target}; {move.legacy} is stopped",
        evidence=tuple(_list_comparisons(record)),
        blocks=False,
    )


def _find_taken_back(move: Move, project: str) -> Finding:
    return Finding(
        subject=move.legacy,
        kind="legacy worker",
        cause=f"it was moved to {move.target}, and somebody took that back since",
        remedy=f"to have it moved again, remove {_find_path(project)}, then run again",
        blocks=False,
    )


def _is_equal(layer: str, other: str) -> bool:
    """Whether two layers mean the same, however they are written."""
    try:
        return bool(yaml.safe_load(layer) == yaml.safe_load(other))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def _plan_returned(record: MoveRecord) -> Plan:
    if record.failed:
        times = "" if record.remedy else f" {record.failures} times"
        refusal = Refusal(
            subject=record.move.legacy,
            reason=f"its move failed{times}, and is not tried again: {record.reason}",
            remedy=record.remedy or f"fix that, then remove {_find_path(record.project)}",
        )
        return Plan(refusals=(refusal,))
    return Plan(findings=(_find_returned(record),))


def _find_returned(record: MoveRecord) -> Finding:
    return Finding(
        subject=record.move.legacy,
        kind="legacy worker",
        cause=f"it stays{_format_date(record)}: {record.reason}",
        evidence=tuple(_list_comparisons(record)),
        remedy=f"to try it again now, remove {_find_path(record.project)}, then run again",
        blocks=False,
    )


def _find_path(project: str) -> str:
    """Where the record of a project's move is on its host."""
    return f"{STATE_ROOT}/{project}/move.json"


def _format_date(record: MoveRecord) -> str:
    """When both were measured; empty where they were not."""
    if not record.at:
        return ""
    return f", by what was measured at {datetime.fromtimestamp(record.at, UTC):%Y-%m-%d %H:%M} UTC"


def _list_comparisons(record: MoveRecord) -> list[str]:
    move = record.move
    pairs = ((move.legacy, record.before), (move.target, record.after))
    return [f"while clients called {name}: {_format(found)}" for name, found in pairs if found]


def _format(found: Comparison) -> str:
    reason = f"; {found.reason}" if found.reason else ""
    unit = format_unit(found.figure)
    return (
        f"{format_figure(found.before)} → {format_figure(found.after)} {unit} "
        f"({found.ratio:.2f} times, p {found.p:.2g}{reason})"
    )


def format_unit(figure: str) -> str:
    """What a figure counts, in words.

    :param figure: its name.
    """
    return _UNITS.get(figure, figure)
