"""What holds of every plan: done once it is done, and nothing of others is lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackmend.models.plan import (
    Ask,
    Copy,
    DeleteBlob,
    DropBlob,
    Plan,
    Prune,
    Pull,
    RemoveName,
    UpdateRecord,
    add_entry,
    arrange,
    drop_entries,
    is_intact,
    plan,
    select_to_check,
)
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import (
    BlobProblem,
    Recorded,
    Registry,
    RegistryAnswer,
    StoredModel,
    StoreState,
)
from tests.unit.models_world import UNREACHABLE, found, hexed, layers, problem, stored
from tests.unit.models_world import spec as make_spec
from tests.unit.models_world import state as make_state

NAMES = ("a", "b", "c", "d")
SOURCE = "mirror:5000/team/{}:1"

kinds = st.sampled_from(("missing", "truncated", "corrupt"))
versions = st.sampled_from(("1", "2"))
statuses = st.sampled_from(("1", "2", "absent", "unreachable"))


@st.composite
def worlds(draw: Any) -> tuple[ModelsSpec, StoreState, Registry]:
    """What is desired, what is observed and what the registries answer."""
    present = {name: draw(versions) for name in NAMES if draw(st.booleans())}
    broken = [name for name in present if draw(st.integers(0, 3)) == 0]
    models = [stored(name, version) for name, version in present.items()]
    # A name of the mirror's may be left over from a run that was cut, or be somebody's.
    for name in NAMES:
        if draw(st.integers(0, 3)) == 0:
            mirrored = Name.parse(SOURCE.format(name))
            models.append(stored(name, draw(versions)).model_copy(update={"name": mirrored}))
    problems = name_models(
        [problem(name, draw(kinds), version=present[name]) for name in broken], models
    )
    record = {
        str(Name.parse(text)): Recorded(digest=hexed(f"manifest {name} {draw(versions)}"))
        for name in NAMES
        for text in (name, SOURCE.format(name))
        if draw(st.booleans())
    }
    specs = [
        {"name": name, "source": SOURCE.format(name)} if draw(st.booleans()) else name
        for name in NAMES
        if draw(st.booleans())
    ]
    desired = make_spec(
        *specs,
        update=draw(st.sampled_from(("always", "never"))),
        check=draw(st.sampled_from(("registry", "local"))),
        prune=draw(st.booleans()),
        minimum_free=0,
    )
    free = draw(st.sampled_from((0, 150, 10**6))) * 1024**2
    state = make_state(models, problems, record, free=free)
    silent = {name for name in present if draw(st.integers(0, 3)) == 0}
    answered = {
        key: answer
        for key, answer in state.record.answered.items()
        if key not in {Name.parse(name).key for name in silent}
    }
    left = {layer.digest: layer.size for name in NAMES for layer in layers(name, "1")}
    record = {
        "answered": answered,
        "leftovers": tuple(digest for digest in left if draw(st.booleans())),
    }
    blobs = {digest: size for digest, size in left.items() if draw(st.booleans())}
    state = state.model_copy(
        update={
            "record": state.record.model_copy(update=record),
            # What is missing stays so.
            "blobs": {
                **{x: size for x, size in blobs.items() if x not in {p.digest for p in problems}},
                **(state.blobs or {}),
            },
        }
    )
    answers = {}
    for model in select_to_check(desired, state):
        answer = draw(statuses)
        answers[str(model.pulled_as)] = {
            "absent": RegistryAnswer(status="absent"),
            "unreachable": UNREACHABLE,
        }.get(answer) or found(model.name.model, answer)
    return desired, state, answers


def name_models(
    problems: Iterable[BlobProblem], models: Collection[StoredModel]
) -> list[BlobProblem]:
    """The problems of blobs that models need, with the models that need them now."""
    needing = {
        x.digest: tuple(
            str(model.name)
            for model in models
            if any(layer.digest == x.digest for layer in model.layers or ())
        )
        for x in problems
    }
    return [
        x.model_copy(update={"models": needing[x.digest]}) for x in problems if needing[x.digest]
    ]


def execute(decided: Plan, state: StoreState) -> StoreState:
    """The server as a plan's actions leave it."""
    models = {model.name.key: model for model in state.models}
    problems: list[BlobProblem] = list(state.problems)
    record = state.record
    for action in decided.actions:
        match action:
            case DeleteBlob():
                problems = [
                    problem.model_copy(update={"kind": "missing", "found": None})
                    if problem.digest == action.digest
                    else problem
                    for problem in problems
                ]
            case Pull() | Copy():
                assert action.manifest is not None
                models[action.name.key] = stored("a").model_copy(
                    update={
                        "name": action.name,
                        "digest": action.manifest.digest,
                        "layers": action.manifest.layers,
                    }
                )
                fetched = {layer.digest for layer in action.manifest.layers}
                # A pull keeps the files that are there: it fetches only what is missing.
                problems = [p for p in problems if p.digest not in fetched or p.kind != "missing"]
                entry = Recorded(digest=action.manifest.digest)
                if action.name.key == action.for_model or state.is_ours(action.name):
                    record = add_entry(record, action.name, entry)
                else:
                    record = drop_entries(record, [str(action.name)])
            case RemoveName() | Prune():
                models.pop(action.name.key)
                record = drop_entries(record, [str(action.name)])
            case UpdateRecord():
                record = drop_entries(record, action.dropped)
    return make_state(
        models.values(),
        name_models(problems, models.values()),
        record.models,
        free=state.free,
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_a_plan_that_was_executed_is_empty_but_for_what_it_refused(world: Any) -> None:
    desired, state, answers = world
    decided = plan(desired, state, answers)
    after = plan(desired, execute(decided, state), answers)
    assert after.actions == ()
    assert [x.subject for x in after.refusals] == [x.subject for x in decided.refusals]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_every_desired_model_that_stays_has_answered_or_is_asked(world: Any) -> None:
    desired, state, _ = world
    decided = plan(*world)
    coming = {action.for_model for action in decided.actions if isinstance(action, Pull | Copy)}
    asked = {action.for_model for action in decided.actions if isinstance(action, Ask)}
    assert not asked & coming
    for model in desired.wanted:
        there = state.find_model(model.name)
        if there is not None and is_intact(state, there) and model.name.key not in coming:
            assert (model.name.key in asked) is not state.has_answered(there)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_what_is_executed_is_the_plan_in_its_order(world: Any) -> None:
    """Each model's steps are one chain, and no chain waits for one that comes later."""
    decided = plan(*world)
    stages = list(arrange(decided.actions))
    chains = [chain for stage in stages for chain in stage.chains]
    assert sum(chains, ()) == decided.actions
    for chain in chains:
        assert len({action.for_model for action in chain}) == 1
    for stage in stages:
        models = {chain[0].for_model for chain in stage.chains}
        assert not stage.parallel or len(models) == len(stage.chains)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_what_others_put_there_is_never_removed(world: Any) -> None:
    desired, state, answers = world
    models = {model.name.key for model in desired.wanted}
    for action in plan(desired, state, answers).actions:
        if isinstance(action, RemoveName):
            # The name on a mirror that the plan's own pull brings, or that an earlier one brought.
            there, ours = state.find_model(action.name), state.find_entry(action.name)
            assert there is None or (ours is not None and ours.digest == there.digest)
        elif action.verb == "remove":
            assert isinstance(action, Prune)
            assert desired.prune
            assert action.name.key not in models
            entry, model = state.find_entry(action.name), state.find_model(action.name)
            assert entry is not None
            assert model is not None
            assert entry.digest == model.digest


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_a_blob_is_deleted_only_where_it_is_broken_and_comes_again(world: Any) -> None:
    desired, state, answers = world
    decided = plan(desired, state, answers)
    broken = {problem.digest for problem in state.problems if problem.kind != "missing"}
    coming = {
        layer.digest
        for action in decided.actions
        if isinstance(action, Pull) and action.manifest is not None
        for layer in action.manifest.layers
    }
    for action in decided.actions:
        if isinstance(action, DeleteBlob):
            assert action.digest in broken & coming


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_what_is_left_over_goes_where_it_is_ours_and_no_model_needs_it(world: Any) -> None:
    _, state, _ = world
    decided = plan(*world)
    needed = {layer.digest for model in state.models for layer in model.layers or ()}
    for action in decided.actions:
        if isinstance(action, Pull) and action.manifest is not None:
            needed |= {layer.digest for layer in action.manifest.layers}
    dropped = {action.digest for action in decided.actions if isinstance(action, DropBlob)}
    ours, there = set(state.record.leftovers), set(state.blobs or {})
    assert dropped <= (there & ours) - needed
    if any(refusal.subject == "space" for refusal in decided.refusals):
        # What a model needs that does not fit now is kept for it.
        return
    assert dropped == (there & ours) - needed
    told = {
        digest
        for finding in decided.findings
        if finding.kind == "unneeded"
        for digest in finding.evidence
    }
    assert told == there - ours - needed


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_what_is_fetched_always_fits(world: Any) -> None:
    desired, state, answers = world
    decided = plan(desired, state, answers)
    deleted = [action.digest for action in decided.actions if isinstance(action, DeleteBlob)]
    blobs = state.blobs or {}
    needs: dict[str, int] = {}
    for action in decided.actions:
        if isinstance(action, Pull) and action.manifest is not None:
            for layer in action.manifest.layers:
                if layer.digest in deleted or blobs.get(layer.digest) != layer.size:
                    needs[layer.digest] = layer.size
    assert state.free is not None
    freed = sum(blobs.get(digest, 0) for digest in deleted)
    assert sum(needs.values()) <= state.free + freed
