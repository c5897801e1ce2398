"""``models.pulled``: missing ones come, present ones stay untouched, moved ones are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import model_registry
from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, push

SIZE = 1_500_000


@pytest.fixture(scope="module")
def registry(lab: Lab) -> Iterator[ModelRegistry]:
    with model_registry.lease() as held:
        yield held


@pytest.fixture(scope="module")
def server(lab: Lab) -> ModelServer:
    """One server for all: each test has its own names."""
    server = ModelServer(lab.take(1)[0])
    server.up()
    return server


@pytest.fixture
def runs(tmp_path: Path, server: ModelServer, registry: ModelRegistry) -> Runs:
    registry.clear()
    return Runs(tmp_path, [server.host], insecure=True)


@pytest.fixture(scope="module")
def three(server: ModelServer, registry: ModelRegistry) -> list[str]:
    """Three models that are there, pulled by the server itself."""
    names = [push(registry, f"team/present-{n}:1b", size=SIZE, seed=100 + n).name for n in range(3)]
    for name in names:
        status, said = server.ask(
            "POST", "/api/pull", {"model": name, "insecure": True, "stream": False}
        )
        assert (status, said["status"]) == (200, "success")
    return names


def test_what_is_missing_is_pulled_and_answers(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    pushed = [push(registry, f"team/missing-{n}:1b", size=SIZE, seed=n) for n in range(3)]
    names = [model.name for model in pushed]
    registry.forget()
    told = runs.well(names)
    assert told.outcomes == {"changed"}
    assert sorted(told.did("pull")) == names
    # Nobody has asked them yet but the run itself.
    assert set(names) <= server.loaded()
    assert server.whole(*names)
    assert server.answers(*names)
    digests = server.digests()
    assert {name: digests[name] for name in names} == {one.name: one.digest for one in pushed}
    # Each blob crossed the link once; the template the server had already, of another model.
    sizes = {
        layer.digest: layer.size
        for one in pushed
        for layer in one.layers
        if not layer.media_type.endswith("template")
    }
    size = sum(sizes.values())
    assert registry.sent() == size
    assert server.partials() == []
    # And it tells so; a few bytes that two models share may be counted for both.
    (operation,) = told.host["operations"]
    assert operation["measured"]["fetched"]["value"] == pytest.approx(size, abs=100)


@pytest.mark.parametrize(
    ("user", "words"), [("root", "-y"), ("operator", "-y"), ("keeper", "-y"), ("root", "--dry")]
)
def test_what_is_there_is_left_alone(
    runs: Runs,
    server: ModelServer,
    registry: ModelRegistry,
    three: list[str],
    user: str,
    words: str,
) -> None:
    runs.user = user
    host = server.host
    files, modified, moment, mark = server.files(), server.modified(), host.now(), host.mark()
    registry.forget()
    told = runs.well(three, words)
    assert told.outcomes == {"converged"}
    assert server.files() == files
    assert server.modified() == modified
    assert server.asked(moment) == []
    asked = registry.log()
    assert {(one.method, one.on) for one in asked} == {("GET", "manifest")}
    assert len(asked) == len({one.path for one in asked}) == len(three)
    assert len(host.sessions_since(mark)) == 1, host.sessions_since(mark)
    assert host.logins_since(mark) == 1


def test_a_local_check_asks_the_registry_nothing(
    runs: Runs, server: ModelServer, registry: ModelRegistry, three: list[str]
) -> None:
    moment, mark = server.host.now(), server.host.mark()
    registry.forget()
    told = runs.well(three, check="local")
    assert told.outcomes == {"converged"}
    assert registry.log() == []
    assert server.asked(moment) == []
    assert len(server.host.sessions_since(mark)) == 1


def test_a_tag_that_moved_is_reported_or_pulled(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    old = push(registry, "team/moving:1b", size=SIZE, seed=20)
    still = push(registry, "team/still:1b", size=SIZE, seed=21)
    names = [old.name, still.name]
    runs.well(names)
    new = push(registry, "team/moving:1b", size=SIZE, seed=22)
    before, moment = server.files(), server.host.now()

    told = runs.well(names, update="never")
    assert told.outcomes == {"converged"}
    (finding,) = told.about("findings", old.name)
    assert "moved" in finding["cause"]
    assert server.files() == before
    assert server.asked(moment) == []

    modified = server.modified()[still.name]
    told = runs.well(names)
    assert told.did("pull") == [new.name]
    assert server.digests()[new.name] == new.digest != old.digest
    assert server.modified()[still.name] == modified
    assert server.whole(new.name)
    assert server.answers(new.name)
    assert runs.well(names).outcomes == {"converged"}


def test_only_what_was_pulled_here_is_pruned(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    kept, ours, theirs = (
        push(registry, f"team/prune-{who}:1b", size=SIZE, seed=30 + n).name
        for n, who in enumerate(("kept", "ours", "theirs"))
    )
    server.ask("POST", "/api/pull", {"model": theirs, "insecure": True, "stream": False})
    runs.well([kept, ours])
    assert {kept, ours, theirs} <= set(server.tags())
    told = runs.well([kept], prune=True)
    assert ours in told.did("remove")
    assert {kept, theirs, "tiny:latest"} & set(server.tags()) >= {kept, theirs}
    assert ours not in server.tags()
    assert server.answers(kept, theirs)


def test_a_mirrors_model_has_its_final_name(
    runs: Runs, server: ModelServer, registry: ModelRegistry
) -> None:
    model = push(registry, "mirror/llama:1b", size=SIZE, seed=40)
    wanted = [{"name": "llama3.2:1b", "source": model.name}]
    told = runs.well(wanted)
    assert told.outcomes == {"changed"}
    assert server.digests()["llama3.2:1b"] == model.digest
    assert server.answers("llama3.2:1b")
    moment = server.host.now()
    assert runs.well(wanted).outcomes == {"converged"}
    assert server.asked(moment) == []


def test_a_model_is_made_of_a_file_of_the_controller(
    runs: Runs, server: ModelServer, tmp_path: Path
) -> None:
    gguf = tmp_path / "own.gguf"
    blob = server.blob(server.weights("tiny").digest)
    gguf.write_bytes(server.host.read(blob) + b"\0")
    wanted = [{"name": "own:1", "gguf": str(gguf)}]
    told = runs.well(wanted)
    assert told.did("create") == ["own:1"]
    assert server.answers("own:1")
    moment = server.host.now()
    assert runs.well(wanted).outcomes == {"converged"}
    assert server.asked(moment) == []
