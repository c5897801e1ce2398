"""What the benchmark measures of a server on a host, over SSH, is how fast that server is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api import StringCommand
from pyinfra.api.host import Host

from stackmend import connection
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.learning import Prepared, prepare
from stackmend.worker.benchmark.sending import open_client
from tests import connected, paced
from tests.calm import calmly, exactly, urgency
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.paced import Paced
from tests.paced.measured import (
    DELAY,
    SHORT,
    SPEEDS,
    Speed,
    check_delay,
    check_speed,
    list_concurrencies,
)

PORT = 18800


@pytest.fixture(scope="module", autouse=True)
def _before_others() -> Iterator[None]:
    with urgency():
        yield


@pytest.fixture(scope="module")
def there(lab: Lab) -> LabHost:
    return lab.take(1)[0]


@pytest.fixture(scope="module")
def server(there: LabHost) -> Iterator[Paced]:
    with paced.serving_on(there, PORT) as running:
        yield running


@pytest.fixture(scope="module")
def host(there: LabHost) -> Iterator[Host]:
    with connected.lab(there, "operator") as logged_in:
        run_first(logged_in)
        yield logged_in


def run_first(host: Host) -> None:
    """As every operation does first: with its first command sshd sends at once (TCP_NODELAY).

    Before that, tokens that come while others are under way wait up to 40 ms for those behind them.
    """
    assert connection.run(host, StringCommand("true"), readonly=True).ok


@pytest.fixture(scope="module")
def endpoint(server: Paced) -> Endpoint:
    return Endpoint("ollama", "127.0.0.1", PORT, "paced")


@pytest.fixture(scope="module")
def prepared(host: Host, endpoint: Endpoint) -> Prepared:
    return prepare(host, endpoint, SHORT)


@exactly
@pytest.mark.parametrize("speed", SPEEDS, ids=str)
def test_five_speeds_at_each_concurrency(
    host: Host, server: Paced, endpoint: Endpoint, prepared: Prepared, speed: Speed
) -> None:
    check_speed(host, server, endpoint, prepared, speed, list_concurrencies(speed, lab=True))


@exactly
def test_over_a_long_way(there: LabHost, server: Paced, endpoint: Endpoint, tmp_path: Path) -> None:
    """SSH itself is delayed, and all that goes through it."""
    with paced.relayed(there.port, there=0.025, back=0.025) as port:
        known = {"ssh_port": port, "ssh_known_hosts_file": str(tmp_path / "known")}
        anew = {"ssh_strict_host_key_checking": "accept-new"}
        with connected.lab(there, "operator", **known, **anew) as far:
            run_first(far)
            check_delay(far, server, endpoint, 0.05)


@calmly
def test_tokens_that_wait_to_be_read_keep_their_moments(
    host: Host, server: Paced, endpoint: Endpoint
) -> None:
    """Whatever this process does meanwhile: all have long come over SSH when the first is read."""
    server.set(trap="", ttft=0.1, tpot=0.05, slots=1)
    asked = {"model": "paced", "prompt": "a b", "options": {"num_predict": 6}}
    with (
        open_client(host, endpoint, 20) as client,
        client.stream("POST", "/api/generate", json=asked) as answer,
    ):
        departed = connection.read_departure(answer)
        time.sleep(0.6)
        came = [connection.read_arrival(answer) for _ in connection.iterate_lines(answer)]
    (record,) = server.read_records()
    # Containers have this machine's clock.
    assert 0 < record.arrived - departed < DELAY
    assert abs(came[0] - record.first) < DELAY
    assert came[5] - came[0] == pytest.approx(record.last - record.first, abs=DELAY)
