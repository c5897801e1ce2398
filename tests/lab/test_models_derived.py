"""Models made from other models: in order, from what is ours, and again where that changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, push

SIZE = 1_500_000


@pytest.fixture(scope="module")
def server(lab: Lab) -> ModelServer:
    server = ModelServer(lab.take(1)[0])
    server.up()
    return server


@pytest.fixture
def runs(tmp_path: Path, server: ModelServer, model_registry: ModelRegistry) -> Runs:
    model_registry.clear()
    return Runs(tmp_path, [server.host])


def made_from(directory: Path, base: str, name: str) -> dict[str, Any]:
    """A model that is made from another."""
    modelfile = directory / f"{name}.modelfile"
    modelfile.write_text(f"FROM {base}\nPARAMETER temperature 0.5\n")
    return {"name": name, "modelfile": str(modelfile)}


def test_made_models_are_made_in_the_order_of_their_bases_and_again_with_them(
    runs: Runs, server: ModelServer, tmp_path: Path
) -> None:
    whole = server.host.read(server.blob(server.weights("tiny").digest))
    gguf = tmp_path / "own.gguf"
    gguf.write_bytes(whole + b"\1")
    wanted = [
        made_from(tmp_path, "ours2", "ours3"),
        made_from(tmp_path, "ours1", "ours2"),
        {"name": "ours1", "gguf": str(gguf)},
        made_from(tmp_path, "ours1", "beside"),
    ]
    order = runs.converge(wanted).did("create")
    assert order[0] == "ours1:latest"
    assert order.index("ours2:latest") < order.index("ours3:latest")
    names = [f"{name}:latest" for name in ("ours1", "ours2", "ours3", "beside")]
    assert sorted(order) == sorted(names)
    assert server.answers(*names)
    moment = server.host.now()
    assert runs.converge(wanted).outcomes == {"converged"}
    assert server.asked(moment) == []

    gguf.write_bytes(whole + b"\2")
    assert sorted(runs.converge(wanted).did("create")) == sorted(names)
    digests = {server.weights(name).digest for name in names}
    assert len(digests) == 1
    assert server.host.read(server.blob(digests.pop())) == whole + b"\2"
    # Somebody else makes the one in the middle anew: what rests on it follows.
    body = {"model": "ours2", "from": "ours1", "parameters": {"temperature": 0.9}, "stream": False}
    assert server.ask("POST", "/api/create", body)[0] == 200
    assert runs.converge(wanted).did("create") == ["ours2:latest", "ours3:latest"]
    assert runs.converge(wanted).outcomes == {"converged"}


def test_a_base_that_fails_is_asked_for_nowhere_else(
    runs: Runs, server: ModelServer, tmp_path: Path
) -> None:
    gguf = tmp_path / "bad.gguf"
    gguf.write_bytes(b"no model at all")
    wanted = [
        made_from(tmp_path, "bad2", "bad3"),
        made_from(tmp_path, "bad1", "bad2"),
        {"name": "bad1", "gguf": str(gguf)},
    ]
    moment = server.host.now()
    result = runs.pull([*wanted, "tiny"], check="local")
    assert result.run.rc == 1
    assert "could not create bad2:latest: bad1:latest failed, its base" in result.run.out
    assert "could not create bad3:latest: bad2:latest failed, its base" in result.run.out
    assert len(server.asked(moment, "/api/create")) == 1
    assert server.asked(moment, "/api/pull") == []
    # Nor is one that nobody desires and the server does not have.
    result = runs.pull([made_from(tmp_path, "nobodys", "orphan")])
    assert result.outcomes == {"refused"}
    assert 'add "nobodys:latest" to "wanted"' in result.reason("orphan:latest")
    assert len(server.asked(moment, "/api/create")) == 1


def test_what_is_made_from_a_tag_that_moved_is_made_again(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry, tmp_path: Path
) -> None:
    mirrored = push(model_registry, "mirror/base:1b", SIZE, seed=1)
    wanted = [
        made_from(tmp_path, "base:1b", "brief"),
        {"name": "base:1b", "source": mirrored.name},
    ]
    runs.converge(wanted)
    old = server.weights("brief").digest
    assert runs.converge(wanted).outcomes == {"converged"}
    push(model_registry, "mirror/base:1b", SIZE, seed=2)
    told = runs.converge(wanted, update="never")
    assert told.outcomes == {"converged"}
    assert runs.converge(wanted).did("create") == ["brief:latest"]
    assert server.weights("brief").digest == server.weights("base:1b").digest != old
    assert server.answers("brief", "base:1b")


# What is left on the disk, and under which names


def unneeded(server: ModelServer) -> set[str]:
    """Blobs that no manifest on the disk names."""
    listed = set(server.host.sh(f"ls {server.root}/blobs").split())
    named = server.host.sh(
        f"grep -rhoE 'sha256:[0-9a-f]{{64}}' {server.root}/manifests | tr : - | sort -u"
    )
    return listed - set(named.split())


def test_a_mirrors_tag_that_moves_leaves_nothing_of_the_old_one(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """Nor where a run is killed before it could copy, or before it could remove a name."""
    first = push(model_registry, "mirror/moving:1b", SIZE, seed=20)
    wanted = [{"name": "moving:1b", "source": first.name}]
    runs.converge(wanted)
    assert unneeded(server) == set()
    second = push(model_registry, "mirror/moving:1b", SIZE, seed=21)
    runs.converge(wanted)
    assert server.digests()["moving:1b"] == second.digest
    assert unneeded(server) == set()
    # Killed when the weights have come: what is left then is the mirror's name.
    third = push(model_registry, "mirror/moving:1b", SIZE, seed=22)
    model_registry.rate(300_000)
    with runs.start(wanted) as run:
        server.host.wait_for(f"ls {server.root}/blobs | grep -q partial", 120)
        run.kill()
    model_registry.rate(None)
    server.pull(third)
    assert third.name in server.tags()
    runs.converge(wanted)
    assert server.digests()["moving:1b"] == third.digest
    assert third.name not in server.tags()
    assert unneeded(server) == set()
    # The same after the copy.
    server.ask("POST", "/api/copy", {"source": "moving:1b", "destination": third.name})
    record = "/var/lib/stackmend/models/ai.ollama.json"
    server.host.sh(
        f"python3 - <<'ENDS'\nimport json\nrecord = json.load(open('{record}'))\n"
        f"record['models']['{third.name}'] = dict(record['models']['moving:1b'])\n"
        f"json.dump(record, open('{record}', 'w'))\nENDS"
    )
    assert runs.converge(wanted).steps == [("remove", third.name)]
    assert third.name not in server.tags()
    assert server.answers("moving:1b")


def test_a_name_of_the_mirror_that_somebody_else_pulled_stays(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "mirror/kept:1b", SIZE, seed=25)
    server.pull(model)
    runs.converge([{"name": "kept:1b", "source": model.name}])
    assert {"kept:1b", model.name} <= set(server.tags())


def test_what_the_server_refuses_does_not_stay_on_its_disk(
    runs: Runs, server: ModelServer, tmp_path: Path
) -> None:
    (tmp_path / "garbage.gguf").write_bytes(b"garbage" * 100_000)
    wanted = [{"name": "garbage:1", "gguf": str(tmp_path / "garbage.gguf")}]
    before = server.files()
    result = runs.pull(wanted)
    assert result.outcomes == {"failed"}
    assert server.files() == before
    # What somebody else left there is told, and stays.
    server.host.sh(f"echo stray >{server.root}/blobs/sha256-{'5' * 64}")
    told = runs.converge(["tiny"], check="local").about("findings", "5" * 64)
    assert [finding["kind"] for finding in told] == ["unneeded"]
    assert unneeded(server) == {f"sha256-{'5' * 64}"}
    server.host.sh(f"rm {server.root}/blobs/sha256-{'5' * 64}")
