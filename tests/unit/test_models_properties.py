"""What holds of every plan: done once it is done, and nothing of others is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackmend.models.plan import Plan, ask, plan, remembered
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import (
    BlobProblem,
    Record,
    Recorded,
    Registry,
    RegistryAnswer,
    StoreState,
)
from tests.unit.models_world import UNREACHABLE, found, hexed, problem, spec, state, stored

NAMES = ("a", "b", "c", "d")
SOURCE = "mirror:5000/team/{}:1"

kinds = st.sampled_from(("missing", "truncated", "corrupt"))
versions = st.sampled_from(("1", "2"))
answers = st.sampled_from(("1", "2", "absent", "unreachable"))


@st.composite
def worlds(draw: Any) -> tuple[ModelsSpec, StoreState, Registry]:
    """What is wanted, what is there and what the registries say."""
    present = {name: draw(versions) for name in NAMES if draw(st.booleans())}
    broken = [name for name in present if draw(st.integers(0, 3)) == 0]
    models = [stored(name, version) for name, version in present.items()]
    problems = [problem(name, draw(kinds), version=present[name]) for name in broken]
    record = {
        str(Name.parse(name)): Recorded(digest=hexed(f"manifest {name} {draw(versions)}"))
        for name in NAMES
        if draw(st.booleans())
    }
    wanted = [
        {"name": name, "source": SOURCE.format(name)} if draw(st.booleans()) else name
        for name in NAMES
        if draw(st.booleans())
    ]
    asked = spec(
        *wanted,
        update=draw(st.sampled_from(("always", "never"))),
        check=draw(st.sampled_from(("registry", "local"))),
        prune=draw(st.booleans()),
        minimum_free=0,
    )
    there = state(models, problems, record, free=draw(st.sampled_from((0, 150, 10**6))) * 1024**2)
    said = {}
    for one in ask(asked, there):
        answer = draw(answers)
        said[str(one.pulled)] = {
            "absent": RegistryAnswer(status="absent"),
            "unreachable": UNREACHABLE,
        }.get(answer) or found(one.name.model, answer)
    return asked, there, said


def carried_out(decided: Plan, there: StoreState) -> StoreState:
    """The server as a plan's actions leave it."""
    models = {model.name.key: model for model in there.models}
    problems: list[BlobProblem] = list(there.problems)
    record = there.record
    for action in decided.actions:
        if action.verb == "delete blob":
            problems = [
                one.model_copy(update={"kind": "missing", "found": None})
                if one.digest == action.digest
                else one
                for one in problems
            ]
        elif action.verb in ("pull", "copy"):
            assert action.name is not None
            assert action.manifest is not None
            has = stored("a").model_copy(
                update={
                    "name": action.name,
                    "digest": action.manifest.digest,
                    "layers": action.manifest.layers,
                }
            )
            models[action.name.key] = has
            fetched = {layer.digest for layer in action.manifest.layers}
            # What is there already is taken for whole: only what is missing comes.
            problems = [p for p in problems if p.digest not in fetched or p.kind != "missing"]
            entry = Recorded(digest=action.manifest.digest)
            record = remembered(record, action.name, entry)
        elif action.verb == "remove":
            assert action.name is not None
            models.pop(action.name.key)
            record = Record(
                models={k: v for k, v in record.models.items() if k != str(action.name)}
            )
        elif action.verb == "record":
            record = Record(
                models={k: v for k, v in record.models.items() if k not in action.forgotten}
            )
    needed = {layer.digest for model in models.values() for layer in model.layers or ()}
    return state(
        models.values(),
        [one for one in problems if one.digest in needed],
        record.models,
        free=there.free,
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_a_plan_that_was_carried_out_is_empty_but_for_what_it_refused(world: Any) -> None:
    asked, there, said = world
    decided = plan(asked, there, said)
    after = plan(asked, carried_out(decided, there), said)
    assert after.actions == ()
    assert [one.subject for one in after.refusals] == [one.subject for one in decided.refusals]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_what_others_put_there_is_never_removed(world: Any) -> None:
    asked, there, said = world
    decided = plan(asked, there, said)
    wanted = {one.name.key for one in asked.wanted}
    for action in decided.actions:
        if action.verb != "remove":
            continue
        assert action.name is not None
        if action.serves:
            # The name on a mirror that the plan's own pull brings.
            assert there.model(action.name) is None
            continue
        assert asked.prune
        assert action.name.key not in wanted
        known, has = there.recorded(action.name), there.model(action.name)
        assert known is not None
        assert has is not None
        assert known.digest == has.digest


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_a_blob_is_deleted_only_where_it_is_broken_and_comes_again(world: Any) -> None:
    asked, there, said = world
    decided = plan(asked, there, said)
    broken = {one.digest for one in there.problems if one.kind != "missing"}
    coming = {
        layer.digest
        for action in decided.actions
        if action.verb == "pull" and action.manifest is not None
        for layer in action.manifest.layers
    }
    for action in decided.actions:
        if action.verb == "delete blob":
            assert action.digest in broken & coming


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_what_is_fetched_always_fits(world: Any) -> None:
    asked, there, said = world
    decided = plan(asked, there, said)
    deleted = [one.digest for one in decided.actions if one.verb == "delete blob"]
    blobs = there.blobs or {}
    needs: dict[str, int] = {}
    for action in decided.actions:
        if action.verb == "pull" and action.manifest is not None:
            for layer in action.manifest.layers:
                if layer.digest in deleted or blobs.get(layer.digest) != layer.size:
                    needs[layer.digest] = layer.size
    assert there.free is not None
    freed = sum(blobs.get(digest, 0) for digest in deleted)
    assert sum(needs.values()) <= there.free + freed
