"""What of the desired models is on the server, and what is not."""

from collections.abc import Collection, Mapping

from stackmend.models.spec import ModelSpec, ModelsSpec, Name
from stackmend.models.state import (
    Answered,
    BlobProblem,
    Manifest,
    Record,
    Recorded,
    StoredModel,
    StoreState,
)


def select_to_check(spec: ModelsSpec, state: StoreState) -> tuple[ModelSpec, ...]:
    """The desired models whose registry is to be asked: no intact one with ``check: local``."""
    if state.server.status != "up":
        return ()
    return tuple(
        model
        for model in spec.wanted
        if not model.is_created
        and (spec.check == "registry" or not is_intact(state, state.find_model(model.name)))
    )


def is_intact(state: StoreState, model: StoredModel | None) -> bool:
    """Whether the server has a model, and all of it."""
    return model is not None and model.served is not False and not find_problems(state, model)


def find_problems(state: StoreState, model: StoredModel) -> tuple[BlobProblem, ...]:
    """What is wrong with a model's blobs."""
    return tuple(problem for problem in state.problems if str(model.name) in problem.models)


def has_blob(state: StoreState, digest: str, size: int) -> bool:
    """Whether the server has a blob, and nothing is known to be wrong with it."""
    if any(problem.digest == digest for problem in state.problems):
        return False
    if state.blobs is not None:
        return state.blobs.get(digest) == size
    return any(layer.digest == digest for model in state.models for layer in model.layers or ())


def measure_present(state: StoreState, manifest: Manifest | None) -> dict[str, int]:
    """Bytes that are there before a model is fetched, by blob.

    Where its manifest is not known these are those of every blob.
    """
    if manifest is not None:
        missing = measure_missing(state, manifest)
        return {
            layer.digest: layer.size - missing.get(layer.digest, 0) for layer in manifest.layers
        }
    broken = {problem.digest for problem in state.problems}
    partial = {download.digest: download.bytes for download in state.partials}
    blobs = (state.blobs or {}).items()
    return partial | {digest: size for digest, size in blobs if digest not in broken}


def measure_missing(state: StoreState, manifest: Manifest | None) -> dict[str, int]:
    """Bytes of a model that have still to be fetched, by blob."""
    return _subtract(state, manifest, {x.digest: x.bytes for x in state.partials})


def measure_unallocated(state: StoreState, manifest: Manifest | None) -> dict[str, int]:
    """Bytes of a model that the disk has still to give, by blob."""
    # A partial download is sparse: its size is not what it takes.
    return _subtract(state, manifest, {x.digest: x.allocated for x in state.partials})


def _subtract(
    state: StoreState, manifest: Manifest | None, partial: Mapping[str, int]
) -> dict[str, int]:
    return {
        layer.digest: max(0, layer.size - partial.get(layer.digest, 0))
        for layer in (manifest.layers if manifest is not None else ())
        if not has_blob(state, layer.digest, layer.size)
    }


def add_corrupt(state: StoreState, digests: Collection[str]) -> StoreState:
    """A state with blobs that are known to have another content than their digests say."""
    known = {problem.digest for problem in state.problems}
    found = []
    for digest in sorted(set(digests) - known):
        users = [
            (str(model.name), layer.size)
            for model in state.models
            for layer in model.layers or ()
            if layer.digest == digest
        ]
        if users and (state.blobs or {}).get(digest) is not None:
            found.append(
                BlobProblem(
                    digest=digest,
                    kind="corrupt",
                    models=tuple(dict.fromkeys(name for name, _ in users)),
                    size=users[0][1],
                    found=(state.blobs or {})[digest],
                )
            )
    return state.model_copy(update={"problems": (*state.problems, *found)})


def merge_problems(now: StoreState, before: StoreState) -> StoreState:
    """A state whose contents were not read, with what an earlier reading found of them.

    :param before: the earlier one. A corrupt blob of it stays corrupt while its size is the same.
    """
    if now.blobs is None or not before.hashed:
        return now
    known = {problem.digest for problem in now.problems}
    problems = list(now.problems)
    for problem in before.problems:
        users = tuple(
            str(model.name)
            for model in now.models
            if any(layer.digest == problem.digest for layer in model.layers or ())
        )
        same = now.blobs.get(problem.digest) == problem.found and problem.digest not in known
        if problem.kind == "corrupt" and same and users:
            problems.append(problem.model_copy(update={"models": users}))
    return now.model_copy(update={"problems": tuple(problems), "hashed": True})


def add_entry(record: Record, name: Name, entry: Recorded) -> Record:
    """A record with one model more, or with another entry for it."""
    return record.model_copy(update={"models": {**record.models, str(name): entry}})


def drop_entries(record: Record, names: Collection[str]) -> Record:
    """A record without some models."""
    kept = {name: entry for name, entry in record.models.items() if name not in names}
    return record.model_copy(update={"models": kept})


def drop_answers(record: Record, keys: Collection[str]) -> Record:
    """A record without the answers of models that are about to change."""
    kept = {key: answered for key, answered in record.answered.items() if key not in keys}
    return record.model_copy(update={"answered": kept})


def add_answer(spec: ModelsSpec, record: Record, state: StoreState, name: Name) -> Record:
    """A record with a model that has answered, and without those that are no longer desired."""
    model = state.find_model(name)
    if model is None:
        return record
    desired = {other.name.key for other in spec.wanted}
    answered = {key: entry for key, entry in record.answered.items() if key in desired}
    answered[name.key] = Answered(digest=model.digest, server=state.server.instance, at=state.now)
    return record.model_copy(update={"answered": answered})


def select_to_ask(spec: ModelsSpec, state: StoreState) -> tuple[ModelSpec, ...]:
    """The desired models that are intact and have to prove that they answer."""
    return tuple(
        model
        for model in spec.wanted
        if (stored := state.find_model(model.name)) is not None
        and is_intact(state, stored)
        and not state.has_answered(stored)
    )


def add_digests(record: Record, state: StoreState, bases: Mapping[str, Name]) -> Record:
    """A record with the digests that the server gave to models which were recorded without one.

    :param bases: the models that they were made from.
    """
    digests = {str(model.name): model.digest for model in state.models}
    models = dict(record.models)
    for name, entry in record.models.items():
        if not entry.digest and name in digests:
            base = state.find_model(bases[name]) if name in bases else None
            known = {"digest": digests[name], "base": base.digest if base is not None else ""}
            models[name] = entry.model_copy(update=known)
    return record.model_copy(update={"models": models})
