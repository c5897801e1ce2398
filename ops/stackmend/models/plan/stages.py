"""Which of a plan's actions wait for which."""

from collections.abc import Iterable
from itertools import groupby

from stackmend.frozen import Frozen
from stackmend.models.plan.model import Action, Create, DeleteBlob, Prune, UpdateRecord


class Chain(Frozen):
    """Actions of which each waits for the one before, and is left out where that fails.

    :param for_model: the key of the desired model that they are for; empty where they are for none.
    """

    for_model: str
    actions: tuple[Action, ...]


class Stage(Frozen):
    """Chains that wait for those of the stages before.

    :param parallel: whether they are executed side by side.
    """

    chains: tuple[Chain, ...]
    parallel: bool


_DELETE, _PULL, _CREATE, _TIDY = range(4)


def arrange(actions: Iterable[Action]) -> tuple[Stage, ...]:
    """A plan's actions in its order, as they wait for each other.

    Broken blobs go first, and what is created may be created from what is pulled.
    """
    return tuple(
        Stage(chains=_group(group), parallel=stage in (_PULL, _CREATE))
        for stage, group in groupby(actions, _find_stage)
    )


def _find_stage(action: Action) -> int:
    match action:
        case DeleteBlob():
            return _DELETE
        case Create():
            return _CREATE
        case Prune() | UpdateRecord():
            return _TIDY
        case _:
            return _PULL


def _group(actions: Iterable[Action]) -> tuple[Chain, ...]:
    chains: dict[object, list[Action]] = {}
    for action in actions:
        # A blob may be needed by several models, and is deleted for whichever comes first.
        alone = isinstance(action, DeleteBlob | Prune | UpdateRecord)
        chains.setdefault(action if alone else _find_model(action), []).append(action)
    return tuple(
        Chain(for_model=_find_model(chain[0]), actions=tuple(chain)) for chain in chains.values()
    )


def _find_model(action: Action) -> str:
    return "" if isinstance(action, Prune | UpdateRecord) else action.for_model
