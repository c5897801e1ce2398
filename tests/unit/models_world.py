"""Model servers and registries as the tests of the decision want them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stackmend.models.plan import (
    Action,
    Ask,
    Copy,
    Create,
    DeleteBlob,
    DropBlob,
    Plan,
    Prune,
    Pull,
    RemoveName,
    UpdateRecord,
)
from stackmend.models.spec import ModelsSpec, Name
from stackmend.models.state import (
    Answered,
    BlobProblem,
    Layer,
    Manifest,
    Record,
    Recorded,
    RegistryAnswer,
    Server,
    StoredModel,
    StoreState,
)
from tests.unit import rendering

MIB = 1024**2

UP = Server(status="up", version="0.24.0", address="172.18.0.2", port=11434)


def hexed(text: str) -> str:
    """A digest that stands for a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def layer(text: str, size: int = MIB) -> Layer:
    """A blob that stands for a text."""
    return Layer(digest=f"sha256:{hexed(text)}", size=size)


def layers(name: str, version: str = "1") -> tuple[Layer, ...]:
    """The blobs of a model: a licence that all share, a config and weights of its own."""
    return (
        layer(f"config {name} {version}", 500),
        layer(f"weights {name} {version}", 100 * MIB),
        layer("licence", 1000),
    )


def manifest(name: str, version: str = "1") -> Manifest:
    """What a registry has under a name."""
    return Manifest(digest=hexed(f"manifest {name} {version}"), layers=layers(name, version))


def found(name: str, version: str = "1") -> RegistryAnswer:
    """A registry that has a model."""
    return RegistryAnswer(status="found", manifest=manifest(name, version))


UNREACHABLE = RegistryAnswer(status="unreachable", layer="connect", reason="connection refused")


def stored(name: str, version: str = "1", **fields: Any) -> StoredModel:
    """A model that the server has."""
    has = manifest(name, version)
    return StoredModel(
        name=Name.parse(name), digest=has.digest, size=has.size, layers=has.layers, **fields
    )


def state(
    models: Iterable[StoredModel] = (),
    problems: Iterable[BlobProblem] = (),
    record: Mapping[str, Recorded] | None = None,
    **fields: Any,
) -> StoreState:
    """What a server has, all of which has answered; its blobs are those of its models without
    those that are missing.
    """
    models, problems = tuple(models), tuple(problems)
    blobs = {layer.digest: layer.size for model in models for layer in model.layers or ()}
    for problem in problems:
        if problem.found is None:
            blobs.pop(problem.digest, None)
        else:
            blobs[problem.digest] = problem.found
    known = {
        "now": 1000.0,
        "server": UP,
        "blobs": blobs,
        "free": 100 * 1024 * MIB,
        "record": Record(
            models=record or {},
            answered={
                model.name.key: Answered(digest=model.digest, server=UP.instance)
                for model in models
            },
        ),
    }
    return StoreState(**{**known, "models": models, "problems": problems, **fields})


def spec(*wanted: Any, **fields: Any) -> ModelsSpec:
    """What is desired of the server."""
    return ModelsSpec.model_validate({"wanted": wanted, **fields})


def problem(name: str, kind: Any, what: str = "weights", version: str = "1") -> BlobProblem:
    """A blob of a model that is not what it should be."""
    blob = {x.digest: x for x in layers(name, version)}[
        f"sha256:{hexed(f'{what} {name} {version}')}"
    ]
    sizes = {"missing": None, "truncated": blob.size // 2, "corrupt": blob.size}
    return BlobProblem(
        digest=blob.digest,
        kind=kind,
        models=(str(Name.parse(name)),),
        size=blob.size,
        found=sizes[kind],
    )


def steps(decided: Any) -> list[str]:
    """The actions, without their reasons."""
    return [f"{action.verb} {action.subject}" for action in decided.actions]


def render(decided: Plan) -> str:
    """A plan as text, with all that it carries."""

    def carries(action: Action) -> Iterator[str]:
        match action:
            case DeleteBlob() | DropBlob():
                yield f"digest {action.digest[:19]}"
            case Pull():
                yield f"name {action.name}"
                known = action.manifest.digest[:12] if action.manifest else "not known"
                yield f"manifest {known}, {action.bytes} bytes" + (
                    " over plain HTTP" if action.insecure else ""
                )
                if action.unreachable:
                    yield f"not from its registry: {action.unreachable}"
            case Copy():
                yield f"name {action.name} from {action.original}"
            case Create():
                yield f"name {action.name}"
                yield f"created from {action.source.digest[:12]}, {action.bytes} bytes"
                if action.source.base is not None:
                    yield f"base {action.source.base}"
            case RemoveName() | Prune() | Ask():
                yield f"name {action.name}"
            case UpdateRecord():
                yield f"dropped {', '.join(action.dropped)}"
        if not isinstance(action, Prune | UpdateRecord | DropBlob):
            yield f"for {action.for_model}"

    return rendering.render(decided, carries)
