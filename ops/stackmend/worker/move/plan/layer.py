"""What is laid over the project's files at each stage of a move. Pure."""

import copy
from typing import Any

import yaml

from stackmend.compose.state import KEPT
from stackmend.worker.move.state import Move, Stage

_HEAD = "# Made by stackmend: moves {legacy} to {target}, see docs/worker.md.\n"

#: How far each stage has come.
ORDER: tuple[Stage, ...] = (
    "planned",
    "added",
    "imported",
    "measured",
    "repointed",
    "confirmed",
    "retired",
)


def has_reached(stage: Stage, other: Stage) -> bool:
    """Whether a stage is another one, or comes after it; on the way back none is reached."""
    return stage in ORDER and ORDER.index(stage) >= ORDER.index(other)


def make_layer(move: Move, stage: Stage) -> str:
    """The compose file that is laid over the project's own at a stage; empty for none.

    :param stage: the stage that it makes.
    """
    services: dict[str, dict[str, Any]] = {}
    if move.added:
        services[move.target] = copy.deepcopy(dict(move.added))
    if has_reached(stage, "repointed"):
        for name, body in move.repointed.items():
            services.setdefault(name, {}).update(copy.deepcopy(dict(body)))
    if has_reached(stage, "retired"):
        services.setdefault(move.legacy, {})[KEPT] = True
    if not has_reached(stage, "added") or not services:
        return ""
    content: dict[str, Any] = {"services": services}
    if move.added and move.volume:
        content["volumes"] = {move.volume: {}}
    head = _HEAD.format(legacy=move.legacy, target=move.target)
    return head + yaml.safe_dump(content, sort_keys=True, width=1000, allow_unicode=True)
