"""What of the wanted models is on the server, and what is not."""

from collections.abc import Collection

from stackmend.models.spec import ModelSpec, ModelsSpec, Name
from stackmend.models.state import BlobProblem, Manifest, Record, Recorded, StoredModel, StoreState


def ask(spec: ModelsSpec, state: StoreState) -> tuple[ModelSpec, ...]:
    """The wanted models whose registry is to be asked: none that is whole with ``check: local``."""
    if state.server.status != "up":
        return ()
    return tuple(
        one
        for one in spec.wanted
        if not one.created and (spec.check == "registry" or not whole(state, state.model(one.name)))
    )


def whole(state: StoreState, model: StoredModel | None) -> bool:
    """Whether the server has a model, and all of it."""
    return model is not None and model.served is not False and not broken(state, model)


def broken(state: StoreState, model: StoredModel) -> tuple[BlobProblem, ...]:
    """What is wrong with a model's blobs."""
    return tuple(one for one in state.problems if str(model.name) in one.models)


def stored(state: StoreState, digest: str, size: int) -> bool:
    """Whether the server has a blob, and nothing is wrong with it, as far as was looked."""
    if any(one.digest == digest for one in state.problems):
        return False
    if state.blobs is not None:
        return state.blobs.get(digest) == size
    return any(layer.digest == digest for model in state.models for layer in model.layers or ())


def begun(state: StoreState, manifest: Manifest | None) -> dict[str, int]:
    """Bytes that are there before a model is fetched, by blob.

    Where nobody knows what it is made of these are those of every blob.
    """
    if manifest is not None:
        missing = absent(state, manifest)
        return {one.digest: one.size - missing.get(one.digest, 0) for one in manifest.layers}
    bad = {one.digest for one in state.problems}
    there = {one.digest: one.bytes for one in state.partials}
    return there | {key: size for key, size in (state.blobs or {}).items() if key not in bad}


def carried(now: StoreState, before: StoreState) -> StoreState:
    """A state whose contents were not read, with what an earlier reading found of them.

    :param before: the earlier one. What it found corrupt is so as long as it is as long.
    """
    if now.blobs is None or not before.hashed:
        return now
    known = {one.digest for one in now.problems}
    problems = list(now.problems)
    for one in before.problems:
        users = tuple(
            str(model.name)
            for model in now.models
            if any(layer.digest == one.digest for layer in model.layers or ())
        )
        same = now.blobs.get(one.digest) == one.found and one.digest not in known
        if one.kind == "corrupt" and same and users:
            problems.append(one.model_copy(update={"models": users}))
    return now.model_copy(update={"problems": tuple(problems), "hashed": True})


def absent(state: StoreState, manifest: Manifest | None) -> dict[str, int]:
    """Bytes of a model that have still to be fetched, by blob."""
    begun = {one.digest: one.bytes for one in state.partials}
    return {key: max(0, size - begun.get(key, 0)) for key, size in _missing(state, manifest)}


def unallocated(state: StoreState, manifest: Manifest | None) -> dict[str, int]:
    """Bytes of a model that the disk has still to give, by blob."""
    # A download that was begun is sparse: what it is for is not what it takes.
    begun = {one.digest: one.allocated for one in state.partials}
    return {key: max(0, size - begun.get(key, 0)) for key, size in _missing(state, manifest)}


def _missing(state: StoreState, manifest: Manifest | None) -> list[tuple[str, int]]:
    layers = manifest.layers if manifest is not None else ()
    return [(one.digest, one.size) for one in layers if not stored(state, one.digest, one.size)]


def remembered(record: Record, name: Name, entry: Recorded) -> Record:
    """A record with one model more, or with another entry for it."""
    return Record(models={**record.models, str(name): entry})


def forgotten(record: Record, names: Collection[str]) -> Record:
    """A record without some models."""
    return Record(models={key: one for key, one in record.models.items() if key not in names})
