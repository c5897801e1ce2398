"""Blobs that no model needs: those that are stackmend's doing go, others are told."""

from collections.abc import Collection, Iterable, Iterator

from stackmend.decision import Finding
from stackmend.models.plan.format import format_size
from stackmend.models.plan.model import Action, Copy, Create, DropBlob, Pull
from stackmend.models.state import Record, StoreState

#: Seconds after its last byte for which a partial download may be somebody's pull: a blob that is
#: there already may be one that it needs.
PULLING = 600.0


def add_leftovers(record: Record, state: StoreState, actions: Iterable[Action]) -> Record:
    """A record with the blobs that actions may leave behind, to be written before they start.

    :param state: what the server has before.
    """
    digests = set(record.leftovers)
    for action in actions:
        if isinstance(action, Pull | Copy | Create):
            replaced = state.find_model(action.name)
            layers = replaced.layers if replaced is not None else None
            digests |= {layer.digest for layer in layers or ()}
        if isinstance(action, Create):
            digests |= {x for x in action.source.files if x not in (state.blobs or {})}
    return record.model_copy(update={"leftovers": tuple(sorted(digests))})


def drop_leftovers(state: StoreState, needed: Collection[str] = ()) -> list[DropBlob]:
    """The blobs of the record that no model needs.

    :param needed: digests that are about to be needed.
    """
    unneeded = _find_unneeded(state, needed)
    return [
        DropBlob(
            subject=digest[:19],
            cause=f"no model needs it any more ({format_size(unneeded[digest])})",
            digest=digest,
        )
        for digest in state.record.leftovers
        if digest in unneeded
    ]


def keep_leftovers(record: Record, state: StoreState) -> Record:
    """A record without the blobs that are gone or that models need now."""
    if state.blobs is None:
        return record
    used = {layer.digest for model in state.models for layer in model.layers or ()}
    kept = tuple(x for x in record.leftovers if x in state.blobs and x not in used)
    return record.model_copy(update={"leftovers": kept})


def find_unneeded(state: StoreState, needed: Collection[str]) -> Iterator[Finding]:
    """What takes space for no model, and is not stackmend's own.

    :param needed: digests that are about to be needed.
    """
    blobs = _find_unneeded(state, {*needed, *state.record.leftovers})
    partials = {x.digest: x.allocated for x in state.partials if x.digest not in needed}
    for kind, sizes in (("blob", blobs), ("partial download", partials)):
        if sizes:
            yield Finding(
                subject="blobs",
                kind="unneeded",
                cause=f"{len(sizes)} {kind}{'s' if len(sizes) > 1 else ''} "
                f"({format_size(sum(sizes.values()))}) belong to no model that the server lists",
                evidence=tuple(sorted(sizes)),
                remedy="restart the server while it pulls nothing: it removes what is older than "
                "an hour, unless OLLAMA_NOPRUNE is set there",
                blocks=False,
            )


def _find_unneeded(state: StoreState, needed: Collection[str]) -> dict[str, int]:
    """Bytes by digest. Where not all blobs of all models are known, none is called unneeded."""
    pulling = any(state.now - partial.modified < PULLING for partial in state.partials)
    if pulling or any(model.layers is None for model in state.models):
        return {}
    used = {layer.digest for model in state.models for layer in model.layers or ()}
    used.update(needed)
    return {digest: size for digest, size in (state.blobs or {}).items() if digest not in used}
