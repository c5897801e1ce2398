"""What the memory of a model's context follows from, as the server itself describes the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.answers import read_json
from stackmend.worker.acceleration.advice import is_memory_scarce
from stackmend.worker.acceleration.state import WorkerAcceleration
from stackmend.worker.context import parse_shape

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds that the server has to describe a model.
TIMEOUT = 10.0


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
