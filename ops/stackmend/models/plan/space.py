"""Whether the disk of the models can hold what is to be fetched, and what could be removed."""

from collections import Counter
from collections.abc import Collection, Iterable

from stackmend.decision import Refusal
from stackmend.models.plan.format import format_size
from stackmend.models.plan.model import Action, Create, DeleteBlob, Pull
from stackmend.models.plan.stored import has_blob, measure_unallocated
from stackmend.models.spec import ModelsSpec
from stackmend.models.state import StoreState

#: How many models that could be removed are named.
MOST = 5


def check_space(spec: ModelsSpec, state: StoreState, actions: Iterable[Action]) -> Refusal | None:
    """A refusal where what is to be fetched does not fit.

    Where it is not known how much is free, or how much is to be fetched, there is none.

    :param actions: those that bring models, and those that delete blobs before.
    """
    needs: dict[str, int] = {}
    deleted: set[str] = set()
    for action in actions:
        match action:
            case Pull():
                needs |= measure_unallocated(state, action.manifest)
            case Create():
                needs |= {
                    digest: size
                    for digest, size in action.source.files.items()
                    if not has_blob(state, digest, size)
                }
            case DeleteBlob():
                deleted.add(action.digest)
    if not needs or state.free is None:
        return None
    free = state.free + sum((state.blobs or {}).get(digest, 0) for digest in deleted)
    need = sum(needs.values())
    lacking = need + spec.minimum_free - free
    if lacking <= 0:
        return None
    return Refusal(
        subject="space",
        reason=f"what is to be fetched takes {format_size(need)}, and "
        f"{format_size(spec.minimum_free)} must stay free, but only {format_size(free)} are: "
        f"{format_size(lacking)} are missing",
        remedy=_suggest_removals(spec, state, needs),
    )


def _suggest_removals(spec: ModelsSpec, state: StoreState, needs: Collection[str]) -> str:
    users = Counter(
        digest for model in state.models for digest in {x.digest for x in model.layers or ()}
    )
    desired = {model.name.key for model in spec.wanted}
    sizes: list[tuple[int, str]] = []
    for model in state.models:
        if model.name.key not in desired:
            # Blobs that several models share stay when one of them is removed.
            own = {x.digest: x.size for x in model.layers or () if users[x.digest] == 1}
            size = model.size if model.layers is None else sum(own.values())
            sizes.append((size, str(model.name)))
    largest = [f"{name} ({format_size(size)})" for size, name in sorted(sizes, reverse=True)[:MOST]]
    remedies = []
    if largest:
        remedies.append(f'remove models that are not in "wanted" (ollama rm): {", ".join(largest)}')
    stale = sum(download.allocated for download in state.partials if download.digest not in needs)
    if stale:
        remedies.append(
            f"remove partial downloads of other models, which take {format_size(stale)}"
        )
    return "; ".join(remedies or ["enlarge the disk that holds the models"])
