"""Three hosts and one model: it crosses the outside link once, and nobody trusts what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import model_registry
from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, fetched, push

SIZE = 4_000_000


@pytest.fixture(scope="module")
def registry(lab: Lab) -> Iterator[ModelRegistry]:
    with model_registry.lease() as held:
        yield held


@pytest.fixture(scope="module")
def servers(lab: Lab) -> list[ModelServer]:
    servers = [ModelServer(host) for host in lab.take(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(ModelServer.up, servers))
    return servers


@pytest.fixture
def runs(tmp_path: Path, servers: list[ModelServer], registry: ModelRegistry) -> Runs:
    registry.clear()
    return Runs(tmp_path, [server.host for server in servers], insecure=True, source="peer")


def test_one_download_for_three_hosts(
    runs: Runs, servers: list[ModelServer], registry: ModelRegistry
) -> None:
    model = push(registry, "team/shared:1b", size=SIZE, seed=1)
    registry.forget()
    told = runs.well([model.name])
    assert told.outcomes == {"changed"}
    # All but the template, which is that of a model in the server's image.
    assert 0 <= model.size - fetched(registry, model) < 100
    for server in servers:
        assert server.digests()[model.name] == model.digest
        assert server.whole(model.name)
        assert server.answers(model.name)
        # What is not the server's own looks as if it were.
        owners = server.host.sh(f"stat -c '%u:%g %a' {server.root}/blobs/sha256-*")
        assert len(set(owners.splitlines())) == 1
    registry.forget()
    moments = [server.host.now() for server in servers]
    again = runs.well([model.name])
    assert again.outcomes == {"converged"}
    assert fetched(registry, model) == 0
    assert [server.asked(moment) for server, moment in zip(servers, moments, strict=True)] == [
        []
    ] * 3


def test_a_host_that_has_it_already_gives_it_to_the_others(
    runs: Runs, servers: list[ModelServer], registry: ModelRegistry
) -> None:
    model = push(registry, "team/given:1b", size=SIZE, seed=2)
    pull = {"model": model.name, "insecure": True, "stream": False}
    assert servers[1].ask("POST", "/api/pull", pull)[0] == 200
    registry.forget()
    runs.well([model.name])
    assert fetched(registry, model) == 0
    for server in servers:
        assert server.whole(model.name)
        assert server.answers(model.name)


def test_what_a_peer_has_wrong_is_not_taken(
    runs: Runs, servers: list[ModelServer], registry: ModelRegistry
) -> None:
    """The one who has it, has it with a byte that flipped: the others get what the name says."""
    model = push(registry, "team/rotten:1b", size=SIZE, seed=3)
    pull = {"model": model.name, "insecure": True, "stream": False}
    assert servers[0].ask("POST", "/api/pull", pull)[0] == 200
    servers[0].flip(servers[0].weights(model.name).digest, SIZE // 2)
    told = runs.pull([model.name])
    if told.run.rc != 0:
        runs.well([model.name], hashes=True)
    for server in servers[1:]:
        assert server.whole(model.name)
        assert server.answers(model.name)


def test_a_controller_killed_while_it_relays(
    runs: Runs, servers: list[ModelServer], registry: ModelRegistry
) -> None:
    model = push(registry, "team/relayed:1b", size=40_000_000, seed=4)
    registry.forget()
    begun = f"find {servers[2].root}/blobs -newermt -60seconds -size +4M | grep -q ."
    with runs.start([model.name]) as run:
        servers[2].host.wait_for(begun, 60)
        run.kill()
    runs.well([model.name])
    assert fetched(registry, model) <= 1.2 * model.size
    for server in servers:
        assert server.whole(model.name)
        assert server.answers(model.name)
        strange = server.host.sh(f"ls -A {server.root}/blobs | grep -v '^sha256-[0-9a-f]*$'", False)
        assert strange == ""
