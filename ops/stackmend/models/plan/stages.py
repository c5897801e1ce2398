"""Which of a plan's actions wait for which."""

from collections.abc import Iterator, Sequence

from stackmend.frozen import Frozen
from stackmend.models.plan import model
from stackmend.models.plan.model import Action

#: The stages of a plan in its order: the actions in each, and whether those of different models are
#: executed side by side. What is created may be created from what is pulled.
STAGES: tuple[tuple[type | tuple[type, ...], bool], ...] = (
    (model.DeleteBlob, False),
    ((model.Pull, model.Copy, model.RemoveName), True),
    (model.Create, True),
    ((model.Prune, model.UpdateRecord), False),
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
        chains: dict[object, list[Action]] = {}
        for action in actions:
            if isinstance(action, kinds):
                chains.setdefault(action.for_model if parallel else action, []).append(action)
        if chains:
            yield Stage(chains=tuple(map(tuple, chains.values())), parallel=parallel)
