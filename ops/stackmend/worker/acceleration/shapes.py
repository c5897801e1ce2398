"""What the memory of a model's context follows from, as the server itself describes the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackmend import connection
from stackmend.answers import read_json
from stackmend.worker.acceleration.advice import is_memory_scarce
from stackmend.worker.acceleration.state import Shape, WorkerAcceleration

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds that the server has to describe a model.
TIMEOUT = 10.0

#: More than any model has of anything, tokens of its context included.
_MOST = 100_000_000


def complete_shape(host: Host, state: WorkerAcceleration) -> WorkerAcceleration:
    """The state with the shape of the largest model, where memory is so scarce that it matters.

    :param host: the host; the server is asked over its connection.
    :param state: what its server computes with.
    """
    largest = state.largest
    if largest is None or state.address is None or state.loaded or not is_memory_scarce(state):
        return state
    try:
        with connection.http(host, *state.address, timeout=TIMEOUT) as client:
            answer = client.post("/api/show", json={"model": largest.name})
            body = read_json(answer.content) if answer.status_code == 200 else None
    except (connection.HTTPError, connection.RemoteError, connection.TooMuch, ValueError):
        # What is not known of it is left out of what is needed.
        return state
    return state.model_copy(update={"shape": parse_shape(body)})


def parse_shape(body: Any) -> Shape | None:
    """The shape of a model as ``/api/show`` describes it; ``None`` where that does not say.

    :param body: the answer.
    """
    information = body.get("model_info") if isinstance(body, Mapping) else None
    if not isinstance(information, Mapping):
        return None
    family = information.get("general.architecture")

    def find(name: str) -> int:
        value = information.get(f"{family}.{name}")
        if not isinstance(value, int) or isinstance(value, bool):
            return 0
        return value if 0 < value <= _MOST else 0

    heads = find("attention.head_count")
    each = find("embedding_length") // heads if heads else 0
    shape = Shape(
        layers=find("block_count"),
        # Models of before have one for each.
        heads=find("attention.head_count_kv") or heads,
        key=find("attention.key_length") or each,
        value=find("attention.value_length") or each,
        trained=find("context_length"),
    )
    return shape if shape.layers and shape.heads and shape.key and shape.value else None
