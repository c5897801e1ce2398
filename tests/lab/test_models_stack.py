"""``deploy/site.py`` brings the models that the stack wants, once the stack is up."""

from __future__ import annotations

import pytest

from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry, Pushed
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import push
from tests.lab.stacks import HEALTH, Shop

SIZE = 1_500_000


@pytest.fixture(scope="module")
def model(model_registry: ModelRegistry) -> Pushed:
    """The model that the stack wants."""
    return push(model_registry, "team/first:1b", SIZE, seed=1)


@pytest.fixture(scope="module")
def shop(lab: Lab, model: Pushed, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A stack of a model server and somebody whose configuration names a model."""
    shop = Shop(tmp_path_factory.mktemp("models"), lab.take(1)[0])
    shop.compose = {
        "services": {
            "ollama": {
                "image": "lab/model:1",
                "volumes": ["models:/root/.ollama"],
                "healthcheck": {"test": ["CMD", "ollama", "list"], **HEALTH},
            },
            "worker": {
                "image": "lab/box:1",
                "environment": {
                    "OLLAMA_MODEL": "tiny",
                    "OLLAMA_HOST": "http://ollama:11434",
                    # It answers where a model server would, but it is none.
                    "PORT": "11434",
                },
            },
        },
        "volumes": {"models": {}},
    }
    shop.settings["models"] = {"wanted": [model.name], "insecure": True, "minimum_free": 0}
    return shop


def test_a_new_machine_has_stack_and_model_after_one_run(
    shop: Shop, model: Pushed, model_registry: ModelRegistry
) -> None:
    shop.deploy()
    server = ModelServer(shop.host, project=shop.project)
    assert server.is_complete(model.name)
    assert server.answers(model.name)

    files, moment, mark = server.files(), shop.host.now(), shop.host.mark()
    model_registry.clear_log()
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out
    assert seen.quiet, seen.events
    assert server.files() == files
    assert server.asked(moment) == []
    assert [request.method for request in model_registry.log()] == ["GET"]
    assert len(shop.host.sessions_since(mark)) == 1, shop.host.sessions_since(mark)


def test_a_model_that_the_stack_itself_names_is_missed(shop: Shop) -> None:
    """The help for incident 4: nobody asked for it, but the worker will."""
    shop.services["worker"]["environment"]["OLLAMA_MODEL"] = "llama3.2:1b"
    done = shop.run("-y")
    shop.services["worker"]["environment"]["OLLAMA_MODEL"] = "tiny"
    assert done.rc == 0, done.out
    (host,) = done.report["hosts"].values()
    (named,) = [
        finding
        for operation in host["operations"]
        for finding in operation["findings"]
        if finding["subject"] == "llama3.2:1b"
    ]
    assert "OLLAMA_MODEL of worker names it, but it is not on the server" in named["cause"]


def test_a_service_that_is_no_model_server_fails_the_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(shop.settings, "models", {**shop.settings["models"], "service": "worker"})
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "refused: service worker: what answers there is not Ollama" in done.out


@pytest.mark.parametrize("words", ["--dry", "-y"])
def test_a_service_that_the_compose_file_lacks_is_told_before_any_host_is_contacted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    mark = shop.host.mark()
    for name in ("model", "Ollama", "ollama-1"):
        section = {**shop.settings["models"], "service": name}
        monkeypatch.setitem(shop.settings, "models", section)
        done = shop.run(words)
        assert done.rc == 1, done.out
        assert f"stack.models.service: there is no service {name!r}; there are " in done.out
    assert shop.host.logins_since(mark) == 0


def test_a_stopped_server_is_started_by_the_stack(shop: Shop, model: Pushed) -> None:
    server = ModelServer(shop.host, project=shop.project)
    server.compose("stop", "ollama")
    shop.deploy()
    assert model.name in server.loaded()


def test_without_the_section_models_are_not_managed(
    shop: Shop, model_registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(shop.settings, "models")
    model_registry.clear_log()
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "models.pulled" not in done.out
    assert model_registry.log() == []


def test_a_wrong_section_is_told_before_any_host_is_contacted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it at once."""
    section = {
        "wanted": ["a b", {"name": "x", "sorce": "y"}],
        "update": "sometimes",
        "stall": -1,
        "endpoint": "ftp://x",
    }
    monkeypatch.setitem(shop.settings, "models", section)
    mark = shop.host.mark()
    done = shop.run("-y")
    assert done.rc == 1, done.out
    for path in ("wanted[0]", "wanted[1].sorce", "update", "stall", "endpoint"):
        assert f"stack.models.{path}" in done.out
    assert shop.host.logins_since(mark) == 0
