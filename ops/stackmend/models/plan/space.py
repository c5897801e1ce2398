"""Whether the disk that the models lie on can hold what is to be fetched, and what could go."""

from collections.abc import Collection, Sequence

from stackmend.decision import Refusal
from stackmend.models.plan.model import Action
from stackmend.models.plan.stored import stored, unallocated
from stackmend.models.plan.words import human
from stackmend.models.spec import ModelsSpec
from stackmend.models.state import StoreState

#: How many models that could go are named.
MOST = 5


def lacking(
    spec: ModelsSpec, state: StoreState, fetching: Sequence[Action], deleted: Collection[str]
) -> Refusal | None:
    """A refusal where what is to be fetched does not fit.

    Where it is not known how much is free, or how much is to be fetched, there is none.

    :param fetching: the actions that bring models.
    :param deleted: blobs that are deleted first.
    """
    needs: dict[str, int] = {}
    for action in fetching:
        needs |= unallocated(state, action.manifest)
        if action.made is not None:
            needs |= {k: v for k, v in action.made.files.items() if not stored(state, k, v)}
    if not needs or state.free is None:
        return None
    free = state.free + sum((state.blobs or {}).get(digest, 0) for digest in deleted)
    need = sum(needs.values())
    short = need + spec.minimum_free - free
    if short <= 0:
        return None
    return Refusal(
        subject="space",
        reason=f"what is to be fetched takes {human(need)}, and {human(spec.minimum_free)} must "
        f"stay free, but only {human(free)} are: {human(short)} are missing",
        remedy=_could_go(spec, state, needs),
    )


def _could_go(spec: ModelsSpec, state: StoreState, needs: Collection[str]) -> str:
    users: dict[str, int] = {}
    for model in state.models:
        for digest in {layer.digest for layer in model.layers or ()}:
            users[digest] = users.get(digest, 0) + 1
    wanted = {one.name.key for one in spec.wanted}
    # Blobs that several models share stay when one of them goes.
    alone = [
        (
            sum({one.digest: one.size for one in model.layers if users[one.digest] == 1}.values())
            if model.layers is not None
            else model.size,
            str(model.name),
        )
        for model in state.models
        if model.name.key not in wanted
    ]
    told = [f"{name} ({human(size)})" for size, name in sorted(alone, reverse=True)[:MOST]]
    ways = [f"nobody wants {', '.join(told)}: ollama rm removes them"] if told else []
    stale = sum(one.allocated for one in state.partials if one.digest not in needs)
    if stale:
        ways.append(f"downloads that were begun and are not needed have {human(stale)}")
    return "; ".join(ways or ["give the disk that the models lie on more room"])
