"""What a server is asked by, and how long the way to it is."""

from __future__ import annotations

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

    from stackmend.connection import HTTPClient, HTTPResponse
    from stackmend.worker.benchmark.endpoint import Endpoint

#: Round trips of which the least counts, to each of two paths.
ROUND_TRIPS = 5

#: A path that nothing has: a server says so without asking anybody.
NOWHERE = "/stackmend-round-trip"

#: Bytes that an answer may have that comes at once.
MOST_BYTES = 4 << 20

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

    A request takes a round trip and what the server does for it, which is no part of the way: one
    for a path that it has not is asked as well, and the least of all counts. What connecting takes
    is in none of them.

    :param client: of the server.
    :param endpoint: the server.
    :param path: of a request that it answers at once.
    :raises StepError: it does not answer.
    """
    paths = [each for _ in range(ROUND_TRIPS) for each in (path, NOWHERE)]
    return min(_measure_trip(client, endpoint, each) for each in paths)


def _measure_trip(client: HTTPClient, endpoint: Endpoint, path: str) -> float:
    """Seconds of one request, from when it is sent on a connection that exists."""
    try:
        with client.stream("GET", path, timeout=SOON) as answer:
            took = connection.read_arrival(answer) - connection.read_departure(answer)
            _read_soon(answer)
    except connection.HTTPError as error:
        raise StepError(f"{endpoint} does not answer: {error}; start it, then run again") from error
    return took


def get_soon(client: HTTPClient, path: str) -> bytes:
    """What a server answers at once, within :data:`SOON` in all.

    :param client: of the server.
    :param path: that is asked for.
    :raises HTTPError: it does not answer, or not within that time.
    """
    with client.stream("GET", path, timeout=SOON) as answer:
        return _read_soon(answer)


def _read_soon(answer: HTTPResponse) -> bytes:
    """The content of an answer whose limit is in all, however little comes at a time."""
    connection.end_within(answer, SOON)
    content = bytearray()
    for data in answer.iter_raw():
        content += data
        if len(content) > MOST_BYTES:
            raise connection.TooMuch(f"the answer is longer than {MOST_BYTES} bytes")
    return bytes(content)


def choose_protocol(client: HTTPClient, endpoint: Endpoint) -> Protocol:
    """The API that a server is asked by, with what its list of models says of it.

    :param client: of the server.
    :param endpoint: the server.
    """
    kind = Ollama if endpoint.protocol == "ollama" else OpenAI
    protocol = kind(endpoint.prefix, endpoint.model)
    with suppress(connection.HTTPError, ValueError):
        protocol.note_models(parse_object(get_soon(client, protocol.models)))
    return protocol
