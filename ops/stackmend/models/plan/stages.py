"""Which of a plan's actions wait for which."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby

from stackmend.frozen import Frozen
from stackmend.models.plan import model
from stackmend.models.plan.derived import list_bases
from stackmend.models.plan.model import Action

#: The stages of a plan in its order: the actions in each, and whether those of different models are
#: executed side by side. What is created may be created from what is pulled, or was created.
STAGES: tuple[tuple[type | tuple[type, ...], bool], ...] = (
    (model.DeleteBlob, False),
    ((model.Pull, model.Copy, model.RemoveName), True),
    (model.Create, True),
    ((model.Prune, model.UpdateRecord, model.DropBlob), False),
    # Side by side they would push each other out of memory.
    (model.Ask, False),
)


class Stage(Frozen):
    """Actions that wait for those of the stages before.

    :param chains: actions of which each waits for the one before, and is left out where that fails.
    :param parallel: whether chains are executed side by side.
    """

    chains: tuple[tuple[Action, ...], ...]
    parallel: bool


def arrange(actions: Sequence[Action]) -> Iterator[Stage]:
    """A plan's actions in its order, as they wait for each other."""
    for kinds, parallel in STAGES:
        chosen = [action for action in actions if isinstance(action, kinds)]
        for level in _split_by_base(chosen):
            chains: dict[object, list[Action]] = {}
            for action in level:
                chains.setdefault(action.for_model if parallel else action, []).append(action)
            yield Stage(chains=tuple(map(tuple, chains.values())), parallel=parallel)


def find_missing_base(chain: Iterable[Action], failed: Collection[str]) -> str:
    """The model that one is to be made from and that failed itself; empty where there is none.

    :param chain: the actions of one model.
    :param failed: keys of models.
    """
    for action in chain:
        base = action.source.base if isinstance(action, model.Create) else None
        if base is not None and base.key in failed:
            return str(base)
    return ""


def _split_by_base(actions: Sequence[Action]) -> Iterator[list[Action]]:
    """Actions in groups: none of a group creates from what another one of it creates."""
    bases = {
        action.for_model: action.source.base.key
        for action in actions
        if isinstance(action, model.Create) and action.source.base is not None
    }
    made = {action.for_model for action in actions}

    def count(action: Action) -> int:
        return sum(key in made for key in list_bases(action.for_model, bases))

    for _, level in groupby(sorted(actions, key=count), key=count):
        yield list(level)
