"""The model in the server's memory: loaded before a measurement, and let go after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import tenacity

from stackmend import connection
from stackmend.errors import StepError
from stackmend.reporting import announce
from stackmend.text import format_limit
from stackmend.worker.benchmark.contact import SOON
from stackmend.worker.benchmark.definitions import REMEDIES
from stackmend.worker.benchmark.protocols import Protocol, parse_count, parse_object
from stackmend.worker.benchmark.protocols.ollama import Ollama
from stackmend.worker.benchmark.sending import open_client

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import HTTPClient
    from stackmend.worker.benchmark.endpoint import Endpoint

T = TypeVar("T")

#: Seconds that a model may take to load.
LOADING = 900.0

#: What is to be done where the server does not load it.
REMEDY = REMEDIES["error"]

#: Seconds between two requests to a server that loads its model.
PAUSE = 1.0

#: Years until a model is unloaded, from which on somebody wants it kept for ever.
FOR_EVER = 10


def wait_until_loaded(
    host: Host,
    server: str,
    timeout: float,
    attempt: Callable[[], T],
    is_loading: Callable[[T], bool],
) -> T:
    """Ask a server again for as long as it loads its model; what it answers at last.

    :param host: the host that reaches it.
    :param server: the server, in words.
    :param timeout: seconds to wait.
    :param attempt: asks once.
    :param is_loading: whether an answer says that it loads its model.
    """

    def report(call: tenacity.RetryCallState) -> None:
        if call.attempt_number == 1:
            limit = format_limit(timeout)
            announce.show_line(host, f"{server} loads its model: waiting up to {limit}")

    return tenacity.Retrying(
        retry=tenacity.retry_if_result(is_loading),
        stop=tenacity.stop_after_delay(timeout),
        wait=tenacity.wait_fixed(PAUSE),
        before_sleep=report,
        retry_error_callback=lambda call: call.outcome.result(),  # type: ignore[union-attr]
    )(attempt)


def load_model(host: Host, endpoint: Endpoint, protocol: Protocol) -> float | None:
    """Load the model, where the server is told to; how long that took, where it was not loaded.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param protocol: of the server.
    :raises StepError: it does not load the model.
    """
    if not isinstance(protocol, Ollama):
        return None
    with open_client(host, endpoint, SOON) as client:
        loaded = _read_loaded(client, protocol, endpoint.model)
    if loaded is not None:
        # With another context the server would end the one that a client asked for.
        protocol.context = loaded.context
        protocol.expiry = loaded.expiry
        if loaded.expiry > time.time() + FOR_EVER * 365 * 86400:
            # Somebody keeps it for ever; a request of ours with a limit would end that.
            protocol.keep = -1
    with open_client(host, endpoint, LOADING) as client:
        started = time.monotonic()
        _request_load(client, endpoint, protocol, protocol.keep)
    return time.monotonic() - started if loaded is None else None


def release(host: Host, endpoint: Endpoint, protocol: Protocol) -> None:
    """Let the server keep the model as long as it would have by itself.

    One that a client had loaded stays until the time that this one had set, if that is to come.

    :param host: the host that reaches the server.
    :param endpoint: the server.
    :param protocol: by which it was loaded.
    """
    if not isinstance(protocol, Ollama) or protocol.keep < 0:
        return
    left = math.ceil(protocol.expiry - time.time())
    # It is unloaded an hour later where this fails.
    with suppress(StepError), open_client(host, endpoint, SOON) as client:
        _request_load(client, endpoint, protocol, left if left > 0 else None)


def _request_load(
    client: HTTPClient, endpoint: Endpoint, protocol: Ollama, keep: int | None
) -> None:
    request = protocol.build_load(keep)
    try:
        answer = client.post(request.path, content=request.content, timeout=LOADING)
        fields = parse_object(answer.content[:100_000])
    except (connection.HTTPError, ValueError) as error:
        raise StepError(f"{endpoint} does not load the model: {error}; {REMEDY}") from error
    if answer.status_code != 200 or "error" in fields:
        parser = protocol.make_parser(1)
        parser.feed(answer.content[:100_000], 0.0)
        problem = parser.make_answer(0.0).problem
        reason = problem.reason if problem else f"HTTP {answer.status_code}"
        raise StepError(f"{endpoint} does not load the model: {reason}; {REMEDY}")


class _Loaded(NamedTuple):
    """A model in memory.

    :param context: tokens of its context; 0 where the server does not say.
    :param expiry: when it will be unloaded, in seconds since 1970.
    """

    context: int
    expiry: float


def _read_loaded(client: HTTPClient, protocol: Ollama, model: str) -> _Loaded | None:
    """The model as it lies in memory; ``None`` where it does not."""
    with suppress(connection.HTTPError, ValueError, TypeError, KeyError, AttributeError):
        for row in parse_object(client.get(protocol.loaded, timeout=SOON).content)["models"]:
            if model in (row["name"], row["name"].removesuffix(":latest")):
                expiry = datetime.fromisoformat(row["expires_at"]).timestamp()
                return _Loaded(parse_count(row.get("context_length")) or 0, expiry)
    return None
