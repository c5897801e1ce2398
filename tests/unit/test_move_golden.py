"""Plans of a move as text, with the options that change them.

They lie as plain text below ``golden/move_plan``. ``UPDATE_GOLDEN=1 pytest`` writes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stackmend.worker.move.plan import Designed, begin, make_layer, plan, return_failed
from stackmend.worker.move.spec import MovePolicy
from stackmend.worker.move.state import HostMove, MoveRecord
from tests.unit.rendering import assert_golden, list_golden, render
from tests.unit.test_move_plan import compared, config, designed, legacy, record


def start(policy: dict[str, Any], host: HostMove | None = None, **more: Any) -> Any:
    """The plan where no move was begun."""
    spec = MovePolicy.model_validate(policy)
    found: Designed = designed(spec, **more)
    return plan(spec, host or HostMove(), "k", (legacy(),), found)


def follow(policy: dict[str, Any], stage: str, **more: Any) -> Any:
    """The plan of a move that has come to a stage with the settings of before."""
    known = record(stage, before=compared(1.5), after=compared(1.5), **more)
    layer = make_layer(known.move, known.stage)
    return plan(MovePolicy.model_validate(policy), HostMove(record=known, layer=layer), "k")


def fail(times: int) -> MoveRecord:
    """The record of a move of which a step failed, and all was put back."""
    known = begin(record("planned").move, "k", "ai")
    for _ in range(times):
        known = return_failed(known, "cannot copy /models/tiny.gguf to ollama")
    return known.model_copy(update={"stage": "returned"})


def texts() -> Iterator[tuple[str, Any]]:
    with_ollama = config(ollama={"image": "ollama/ollama"})
    yield "moved", start({})
    yield "moved_to_an_ollama_of_the_project", start({}, project=with_ollama, served=())
    yield "moved_and_not_kept", start({"keep_legacy": False})
    yield "busy", start({}, busy={"llm": "it has 2 requests of others"})
    yield "busy_and_allowed", start({"allow": ["busy"]}, busy={})
    yield "tried_again", start({}, HostMove(record=fail(1)))
    yield "failed_too_often", start({}, HostMove(record=fail(3)))
    yield "over", follow({}, "retired")
    yield "over_with_other_settings", follow({"settings": {"mem_limit": "8g"}}, "retired")
    yield "over_with_another_image", follow({"image": "ollama/ollama:9"}, "retired")
    yield "over_with_another_model", follow({"models": {"big": "/models/big.gguf"}}, "retired")
    yield "over_with_another_target", follow({"target": "other"}, "retired")
    yield "over_with_a_margin_that_holds", follow({"margin": 0.4}, "retired")
    yield "over_with_a_margin_that_does_not", follow({"margin": 0.6}, "retired")
    yield "over_and_no_longer_kept", follow({"keep_legacy": False}, "retired")
    yield "over_and_removed", follow({"keep_legacy": False}, "retired", removed=True)
    yield "under_way_with_another_model", follow({"models": {"b": "/m/b.gguf"}}, "imported")
    yield "under_way_with_other_settings", follow({"settings": {"mem_limit": "8g"}}, "added")
    yield "re-pointed_with_other_settings", follow({"settings": {"mem_limit": "8g"}}, "repointed")


TEXTS = {
    name: render(found, lambda action: [f"removes it: {action.remove}"] if action.verb == "stop"
                 else ())
    for name, found in texts()
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_golden(name: str) -> None:
    assert_golden("move_plan", name, TEXTS[name])


def test_no_golden_is_left_over() -> None:
    assert list_golden("move_plan") == set(TEXTS)
