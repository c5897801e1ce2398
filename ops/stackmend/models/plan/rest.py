"""What nobody asked for: blobs of other models, names in the configuration, models to let go."""

from collections.abc import Collection

from stackmend.decision import Finding
from stackmend.models.plan.model import Action
from stackmend.models.plan.words import told
from stackmend.models.spec import ModelsSpec
from stackmend.models.state import StoreState


def notes(spec: ModelsSpec, state: StoreState) -> list[Finding]:
    """What is told and left alone."""
    return [*_others(spec, state), *_unread(spec, state), *_named(spec, state)]


def prune(
    spec: ModelsSpec, state: StoreState, busy: Collection[str]
) -> tuple[list[Action], list[Finding]]:
    """Models that we pulled and nobody wants any more; with a word on those that are kept.

    :param busy: keys of names that other steps need.
    """
    if not spec.prune:
        return [], []
    wanted = (one.name.key for one in spec.wanted)
    kept = {*wanted, *(one.name.key for one in state.named), *busy}
    actions, findings = [], []
    for model in state.models:
        known = state.recorded(model.name)
        if known is None or model.name.key in kept:
            continue
        if known.digest != model.digest:
            findings.append(
                Finding(
                    subject=str(model.name),
                    kind="unwanted",
                    cause="nobody wants it, but it is not the one that we pulled: it is kept",
                    blocks=False,
                )
            )
            continue
        actions.append(
            Action(
                verb="remove",
                subject=str(model.name),
                cause="we pulled it, and nobody wants it any more",
                destructive=True,
                undo=f"ollama pull {model.name}",
                name=model.name,
            )
        )
    return actions, findings


def forget(spec: ModelsSpec, state: StoreState) -> list[Action]:
    """Models that another hand has removed are no longer ours."""
    there = {str(model.name) for model in state.models}
    gone = sorted(set(state.record.models) - there - {str(one) for one in spec.wanted})
    if not gone:
        return []
    return [
        Action(
            verb="record",
            subject=", ".join(gone),
            cause="no longer on the server, so no longer ours",
            forgotten=tuple(gone),
        )
    ]


def _others(spec: ModelsSpec, state: StoreState) -> list[Finding]:
    wanted = {one.name.key for one in spec.wanted}
    kept = {str(model.name) for model in state.models if model.name.key in wanted}
    return [
        Finding(
            subject=", ".join(one.models),
            kind=one.kind,
            cause=f"{told(one)}; nobody wants the model, so it is left alone",
            blocks=False,
        )
        for one in state.problems
        if kept.isdisjoint(one.models)
    ]


def _unread(spec: ModelsSpec, state: StoreState) -> list[Finding]:
    unread = []
    if state.record_problem:
        unread.append((spec.record, f"what we pulled cannot be told: {state.record_problem}"))
    if state.reason:
        unread.append(("blobs", f"whether they are whole cannot be told: {state.reason}"))
    return [
        Finding(subject=subject, kind="unchecked", cause=cause, blocks=False)
        for subject, cause in unread
    ]


def _named(spec: ModelsSpec, state: StoreState) -> list[Finding]:
    """Models that the stack's own configuration names and that nobody saw to."""
    wanted = {one.name.key for one in spec.wanted}
    return [
        Finding(
            subject=str(one.name),
            kind="named",
            cause=f"{one.variable} of {one.service} names it, but it is not on the server; "
            f'"wanted": ["{one.name}"] in the stack\'s "models" section has it pulled',
            blocks=False,
        )
        for one in state.named
        if one.name.key not in wanted and state.model(one.name) is None
    ]
