"""A run is well once every model has answered, and a failed proof is not forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.model_unit import ModelUnit
from tests.lab.models_runs import Result, Runs, push

SIZE = 1_500_000
CHAT = ("/api/chat", "/api/generate")


@pytest.fixture(scope="module")
def host(lab: Lab) -> LabHost:
    return lab.take(1)[0]


@pytest.fixture(scope="module")
def server(host: LabHost) -> ModelServer:
    server = ModelServer(host)
    server.up()
    return server


@pytest.fixture
def runs(tmp_path: Path, host: LabHost, model_registry: ModelRegistry) -> Runs:
    model_registry.clear()
    return Runs(tmp_path, [host])


def fails(result: Result, name: str) -> None:
    assert result.run.rc == 1, result.run.out
    assert result.outcomes == {"failed"}
    assert f"{name} is there, but does not answer: " in result.run.out


def test_a_model_that_did_not_answer_is_asked_again_until_it_does(
    runs: Runs, server: ModelServer, tmp_path: Path
) -> None:
    """Its tensors are cut off: the server takes it, and cannot load it."""
    whole = server.host.read(server.blob(server.weights("tiny").digest))
    gguf = tmp_path / "own.gguf"
    gguf.write_bytes(whole[: len(whole) * 3 // 4])
    wanted: list[Any] = ["tiny", {"name": "own:1", "gguf": str(gguf)}]
    runs.pull(wanted, check="local")
    assert server.chat("own:1")[0] == 500
    for _ in range(2):
        again = runs.pull(wanted, check="local")
        fails(again, "own:1")
        assert again.did("create") == []
        assert again.about("findings", "own:1")[0]["kind"] == "unproven"
    dry = runs.pull(wanted, "--dry", check="local")
    assert dry.outcomes == {"drifted"}
    assert [row["verb"] for row in dry.all("planned")] == ["ask"]
    # The one beside it has answered, and is not asked with it.
    assert dry.about("planned", "tiny") == []
    gguf.write_bytes(whole + b"\0")
    assert runs.converge(wanted, check="local").outcomes == {"changed"}
    moment = server.host.now()
    assert runs.converge(wanted, check="local").outcomes == {"converged"}
    assert server.asked(moment, *CHAT) == []


def test_all_answer_again_on_a_server_that_was_started_again(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    first, second = (push(model_registry, f"team/again-{n}:1b", SIZE, seed=n) for n in range(2))
    names = [first.name, second.name]
    runs.converge(names)
    digest = server.weights(first.name).digest
    server.unload(*names)
    # What no size shows, and no run before the restart would meet.
    server.flip(digest, 0)
    server.host.docker("restart", server.container)
    server.host.wait_for(f"docker exec {server.container} ollama list")
    for _ in range(2):
        again = runs.pull(names)
        fails(again, first.name)
    assert second.name in server.loaded()
    server.flip(digest, 0)
    assert runs.converge(names).did("ask") == [first.name]
    assert runs.converge(names).outcomes == {"converged"}


def test_what_somebody_else_pulled_is_asked_once(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/theirs:1b", SIZE, seed=10)
    server.pull(model)
    result = runs.converge([model.name])
    assert (result.did("pull"), result.did("ask")) == ([], [model.name])
    assert model.name in server.loaded()
    model = push(model_registry, "team/theirs:1b", SIZE, seed=11)
    server.pull(model)
    assert runs.converge([model.name]).did("ask") == [model.name]
    server.unload(model.name)
    assert runs.converge([model.name]).outcomes == {"converged"}
    assert model.name not in server.loaded()
    # With less memory it may answer no more, and nothing else of it has changed.
    server.host.docker("update", "--memory", "900m", "--memory-swap", "900m", server.container)
    assert runs.converge([model.name]).did("ask") == [model.name]
    assert runs.converge([model.name]).outcomes == {"converged"}


# A server without a container, whose unit has mounts of its own


@pytest.fixture(scope="module", params=["/srv/data/models", "/tmp/models"])
def unit(host: LabHost, request: pytest.FixtureRequest) -> Iterator[ModelUnit]:
    """Beside an older directory with the same models in it."""
    unit = ModelUnit(host, request.param, ["PrivateTmp=yes"])
    unit.up()
    host.sh("mkdir -p /root/.ollama && cp -a /srv/model/root/.ollama/models /root/.ollama/")
    yield unit
    unit.down()
    host.sh("rm -r /root/.ollama")


def test_blobs_of_a_unit_with_its_own_mounts_are_found_broken_and_mended(
    runs: Runs, unit: ModelUnit, model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/unit:1b", SIZE, seed=20)
    runs.policy.update(endpoint=unit.endpoint, project=None)
    runs.converge([model.name])
    assert runs.converge([model.name], hashes=True).outcomes == {"converged"}
    blob = unit.weights(model.name).digest
    unit.host.sh(f"truncate -s -1000 {unit.blob(blob)}")
    result = runs.converge([model.name])
    assert result.about("findings", blob[:12])
    assert unit.is_complete(model.name)
    unit.flip(blob, SIZE // 2)
    result = runs.converge([model.name], hashes=True)
    assert result.about("findings", blob[:12])
    assert unit.is_complete(model.name)
    assert unit.answers(model.name)
    assert runs.converge([model.name], hashes=True).outcomes == {"converged"}
    # A limit of its memory that is set while it runs.
    unit.host.sh("systemctl set-property --runtime model MemoryMax=900M")
    assert runs.converge([model.name]).did("ask") == [model.name]
    assert runs.converge([model.name]).outcomes == {"converged"}


def test_hashes_that_cannot_be_read_are_not_well(runs: Runs, unit: ModelUnit) -> None:
    """The endpoint leads to a server, and nothing says whose: its disk is not known."""
    rule = "OUTPUT -t nat -p tcp -d 127.0.0.1 --dport 11999 -j REDIRECT --to-ports 11888"
    unit.host.sh(f"iptables -A {rule}; mv /root/.ollama /root/elsewhere")
    try:
        runs.policy.update(endpoint="http://127.0.0.1:11999", project=None, check="local")
        runs.converge(["tiny"])
        result = runs.pull(["tiny"], hashes=True)
    finally:
        unit.host.sh(f"iptables -D {rule}; mv /root/elsewhere /root/.ollama")
    assert result.run.rc == 1
    assert result.outcomes == {"refused"}
    assert "cannot reach the server's disk" in result.reason("blobs")
