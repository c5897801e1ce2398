"""What is not desired: blobs of other models, names in the configuration, models to remove."""

from collections.abc import Collection, Iterator

from stackmend.decision import Finding
from stackmend.models.plan.format import format_problem
from stackmend.models.plan.model import Prune, UpdateRecord
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import StoreState


def find_unmanaged(spec: ModelsSpec, state: StoreState) -> Iterator[Finding]:
    """What is reported and left alone."""
    desired = {model.name.key for model in spec.wanted}
    managed = {str(model.name) for model in state.models if model.name.key in desired}
    for problem in state.problems:
        if managed.isdisjoint(problem.models):
            yield _make_note(
                ", ".join(problem.models),
                problem.kind,
                f"{format_problem(problem)}; stackmend leaves models alone that are not in "
                '"wanted"',
            )
    if state.record_problem:
        yield _make_note(
            spec.record,
            "unchecked",
            f"cannot tell which models stackmend pulled: {state.record_problem}",
        )
    if state.reason:
        yield _make_note(
            "blobs", "unchecked", f"cannot tell whether they are intact: {state.reason}"
        )
    for model in state.named:
        if model.name.key not in desired and state.find_model(model.name) is None:
            yield _make_note(
                str(model.name),
                "named",
                f"{model.variable} of {model.service} names it, but it is not on the server; to "
                f'have it pulled, add "{model.name}" to "wanted" in the stack\'s "models" section',
            )
    if spec.source is not None:
        yield _make_note(
            "models",
            "renamed",
            f'"source" is called "pull_from" now; replace it by "pull_from": "{spec.source}"',
        )


def prune(
    spec: ModelsSpec, state: StoreState, busy: Collection[str]
) -> tuple[list[Prune], list[Finding]]:
    """Models that stackmend pulled and that are no longer desired; with a note on those it keeps.

    :param busy: keys of names that other steps need.
    """
    if not spec.prune:
        return [], []
    desired = (model.name.key for model in spec.wanted)
    kept = {*desired, *(model.name.key for model in state.named), *busy}
    actions, findings = [], []
    for model in state.models:
        entry = state.find_entry(model.name)
        if entry is None or model.name.key in kept:
            continue
        if entry.digest != model.digest:
            findings.append(
                _make_note(
                    str(model.name),
                    "unwanted",
                    'no longer in "wanted", but not the one that stackmend pulled: it stays',
                )
            )
            continue
        actions.append(
            Prune(
                subject=str(model.name),
                cause='pulled by stackmend, no longer in "wanted"',
                undo=f"ollama pull {model.name}",
                name=model.name,
            )
        )
    return actions, findings


def drop_removed(spec: ModelsSpec, state: StoreState, busy: Collection[str]) -> list[UpdateRecord]:
    """Drop models from the record that somebody else has removed.

    :param busy: keys of names that other steps need.
    """
    present = {str(model.name) for model in state.models}
    present |= {name for name in state.record.models if _find_key(name) in busy}
    removed = sorted(set(state.record.models) - present - {str(model) for model in spec.wanted})
    subject, cause = ", ".join(removed), "no longer on the server"
    return [UpdateRecord(subject=subject, cause=cause, dropped=tuple(removed))] if removed else []


def _find_key(name: str) -> str:
    try:
        return Name.parse(name).key
    except ValueError:
        return ""


def _make_note(subject: str, kind: str, cause: str) -> Finding:
    return Finding(subject=subject, kind=kind, cause=cause, blocks=False)
