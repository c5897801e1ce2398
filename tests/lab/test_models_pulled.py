"""``models.pulled``: missing ones come, present ones stay untouched, moved ones are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, push

SIZE = 1_500_000


@pytest.fixture(scope="module")
def server(lab: Lab) -> ModelServer:
    """One server for all: each test has its own names."""
    server = ModelServer(lab.take(1)[0])
    server.up()
    return server


@pytest.fixture
def runs(tmp_path: Path, server: ModelServer, model_registry: ModelRegistry) -> Runs:
    model_registry.clear()
    return Runs(tmp_path, [server.host])


@pytest.fixture(scope="module")
def three(
    server: ModelServer, model_registry: ModelRegistry, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Three models that are there and have answered, pulled by the server itself."""
    present = [push(model_registry, f"team/present-{n}:1b", SIZE, seed=100 + n) for n in range(3)]
    server.pull(*present)
    names = [model.name for model in present]
    Runs(tmp_path_factory.mktemp("three"), [server.host]).converge(names)
    return names


def test_what_is_missing_is_pulled_and_answers(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    pushed = [push(model_registry, f"team/missing-{n}:1b", SIZE, seed=n) for n in range(3)]
    names = [model.name for model in pushed]
    lacking = server.lacks(*pushed)
    model_registry.clear_log()
    result = runs.converge(names)
    assert result.outcomes == {"changed"}
    assert sorted(result.did("pull")) == names
    # Nobody has asked them yet but the run itself.
    assert set(names) <= server.loaded()
    assert server.is_complete(*names)
    assert server.answers(*names)
    digests = server.digests()
    assert {name: digests[name] for name in names} == {model.name: model.digest for model in pushed}
    # What the server had not, and each of it once: some layers are of several models.
    assert model_registry.sent() == lacking
    assert result.fetched == lacking
    assert server.partials() == []


@pytest.mark.parametrize(
    ("user", "words"), [("root", "-y"), ("keeper", "-y"), ("operator", "--dry")]
)
def test_what_is_there_is_left_alone(
    runs: Runs,
    server: ModelServer,
    model_registry: ModelRegistry,
    three: list[str],
    user: str,
    words: str,
) -> None:
    host = server.host
    files, modified, moment, mark = server.files(), server.modified(), host.now(), host.mark()
    model_registry.clear_log()
    result = runs.converge(three, words, user=user)
    assert result.outcomes == {"converged"}
    assert server.files() == files
    assert server.modified() == modified
    assert server.asked(moment) == []
    asked = model_registry.log()
    assert {(request.method, request.on) for request in asked} == {("GET", "manifest")}
    assert len(asked) == len({request.path for request in asked}) == len(three)
    assert len(host.sessions_since(mark)) == 1, host.sessions_since(mark)
    assert host.logins_since(mark) == 1


def test_a_local_check_asks_the_registry_nothing(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry, three: list[str]
) -> None:
    moment, mark = server.host.now(), server.host.mark()
    model_registry.clear_log()
    result = runs.converge(three, check="local")
    assert result.outcomes == {"converged"}
    assert model_registry.log() == []
    assert server.asked(moment) == []
    assert len(server.host.sessions_since(mark)) == 1


def test_a_tag_that_moved_is_reported_or_pulled(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    old = push(model_registry, "team/moving:1b", SIZE, seed=20)
    still = push(model_registry, "team/still:1b", SIZE, seed=21)
    names = [old.name, still.name]
    server.pull(old, still)
    runs.converge(names)
    new = push(model_registry, "team/moving:1b", SIZE, seed=22)
    before, moment = server.files(), server.host.now()

    result = runs.converge(names, update="never")
    assert result.outcomes == {"converged"}
    (finding,) = result.about("findings", old.name)
    assert finding["kind"] == "moved"
    assert server.files() == before
    assert server.asked(moment) == []

    modified, lacking = server.modified()[still.name], server.lacks(new)
    result = runs.converge(names)
    assert result.steps == [("pull", new.name)]
    assert result.fetched == lacking
    assert server.digests()[new.name] == new.digest != old.digest
    assert server.modified()[still.name] == modified
    assert server.is_complete(new.name)
    assert server.answers(new.name)
    assert runs.converge(names).outcomes == {"converged"}


def test_only_what_was_pulled_here_is_pruned(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    kept, ours, theirs = (
        push(model_registry, f"team/prune-{who}:1b", SIZE, seed=30 + n)
        for n, who in enumerate(("kept", "ours", "theirs"))
    )
    server.pull(theirs)
    runs.converge([kept.name, ours.name])
    before = set(server.tags())
    assert {kept.name, ours.name, theirs.name} <= before
    result = runs.converge([kept.name], prune=True)
    # Those that other tests have pulled here go as well: nobody wants them in this run.
    assert ours.name in result.did("remove")
    assert set(server.tags()) == before - set(result.did("remove"))
    assert theirs.name in server.tags()
    assert server.answers(kept.name, theirs.name)


def test_a_mirrors_model_has_its_final_name_and_others_are_made_of_files(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry, tmp_path: Path
) -> None:
    mirrored = push(model_registry, "mirror/llama:1b", SIZE, seed=40)
    gguf, modelfile = tmp_path / "own.gguf", tmp_path / "Modelfile"
    gguf.write_bytes(server.host.read(server.blob(server.weights("tiny").digest)) + b"\0")
    modelfile.write_text("FROM llama3.2:1b\nPARAMETER temperature 0.5\n")
    wanted = [
        {"name": "brief:1", "modelfile": str(modelfile)},
        {"name": "own:1", "gguf": str(gguf)},
        {"name": "llama3.2:1b", "source": mirrored.name},
    ]
    result = runs.converge(wanted)
    # The mirror's name goes once its own is there, and what is made of it comes last.
    assert result.steps[:3] == [
        ("pull", mirrored.name),
        ("copy", "llama3.2:1b"),
        ("remove", mirrored.name),
    ]
    assert sorted(result.steps[3:]) == [("create", "brief:1"), ("create", "own:1")]
    assert server.digests()["llama3.2:1b"] == mirrored.digest
    assert mirrored.name not in server.tags()
    assert server.weights("brief:1").digest == server.weights("llama3.2:1b").digest
    assert server.answers("llama3.2:1b", "own:1", "brief:1")
    moment = server.host.now()
    assert runs.converge(wanted).outcomes == {"converged"}
    assert server.asked(moment) == []
