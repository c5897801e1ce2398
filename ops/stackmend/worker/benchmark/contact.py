"""What a server is asked by, and how long the way to it is."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.errors import StepError
from stackmend.worker.benchmark.protocols import Protocol, parse_object
from stackmend.worker.benchmark.protocols.ollama import Ollama
from stackmend.worker.benchmark.protocols.openai import OpenAI
from stackmend.worker.benchmark.sending import open_client

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import HTTPClient
    from stackmend.worker.benchmark.endpoint import Endpoint

#: Round trips of which the least counts.
ROUND_TRIPS = 9

#: Seconds for what a server answers at once.
SOON = 30.0


def measure_rtt(host: Host, endpoint: Endpoint) -> float:
    """Seconds of one round trip to a server: the least of several, one after another.

    What is beyond the least is no part of the way: somebody was busy.

    :param host: the host that reaches it.
    :param endpoint: the server.
    :raises StepError: it does not answer.
    """
    with open_client(host, endpoint, SOON) as client:
        protocol = choose_protocol(client, endpoint)
        return measure_round_trips(client, endpoint, protocol.probe)


def measure_round_trips(client: HTTPClient, endpoint: Endpoint, path: str) -> float:
    """As :func:`measure_rtt`, with a client that is open already.

    :param client: of the server.
    :param endpoint: the server.
    :param path: of a request that it answers at once.
    :raises StepError: it does not answer.
    """
    took = []
    # The first one connects.
    for _ in range(ROUND_TRIPS + 1):
        started = time.monotonic()
        try:
            client.get(path, timeout=SOON)
        except connection.HTTPError as error:
            raise StepError(
                f"{endpoint} does not answer: {error}; start it, then run again"
            ) from error
        took.append(time.monotonic() - started)
    return min(took[1:])


def choose_protocol(client: HTTPClient, endpoint: Endpoint) -> Protocol:
    """The API that a server is asked by, with what its list of models says of it.

    :param client: of the server.
    :param endpoint: the server.
    """
    if endpoint.protocol == "ollama":
        return Ollama(endpoint.prefix, endpoint.model)
    protocol = OpenAI(endpoint.prefix, endpoint.model)
    with suppress(connection.HTTPError, ValueError):
        protocol.note_models(parse_object(client.get(protocol.models, timeout=SOON).content))
    return protocol
