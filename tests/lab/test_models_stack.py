"""``deploy/site.py`` brings the models that the stack wants, once the stack is up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import model_registry
from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import push
from tests.lab.stacks import HEALTH, Shop

SIZE = 1_500_000


@pytest.fixture(scope="module")
def registry(lab: Lab) -> Iterator[ModelRegistry]:
    with model_registry.lease() as held:
        yield held


@pytest.fixture(scope="module")
def shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shop:
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
                "environment": {"OLLAMA_MODEL": "tiny", "OLLAMA_HOST": "http://ollama:11434"},
            },
        },
        "volumes": {"models": {}},
    }
    return shop


def test_a_new_machine_has_stack_and_model_after_one_run(
    shop: Shop, registry: ModelRegistry
) -> None:
    model = push(registry, "team/first:1b", size=SIZE, seed=1)
    shop.settings["models"] = {"wanted": [model.name], "insecure": True, "minimum_free": 0}
    shop.deploy()
    server = ModelServer(shop.host, project=shop.project)
    assert server.whole(model.name)
    assert server.answers(model.name)

    files, moment, mark = server.files(), shop.host.now(), shop.host.mark()
    registry.forget()
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out
    assert seen.quiet, seen.events
    assert server.files() == files
    assert server.asked(moment) == []
    assert [one.method for one in registry.log()] == ["GET"]
    assert len(shop.host.sessions_since(mark)) == 1, shop.host.sessions_since(mark)


def test_a_model_that_the_stack_itself_names_is_missed(shop: Shop, registry: ModelRegistry) -> None:
    """The help for incident 4: nobody asked for it, but the worker will."""
    environment = shop.services["worker"]["environment"]
    environment["OLLAMA_MODEL"] = "llama3.2:1b"
    done = shop.run("-y")
    environment["OLLAMA_MODEL"] = "tiny"
    assert done.rc == 0, done.out
    named = [
        line for line in done.out.splitlines() if "llama3.2:1b" in line and "OLLAMA_MODEL" in line
    ]
    assert named
    assert "worker" in named[0]


def test_without_the_section_models_are_not_managed(shop: Shop, registry: ModelRegistry) -> None:
    kept = shop.settings.pop("models")
    shop.run("-y")
    registry.forget()
    done = shop.run("-y")
    shop.settings["models"] = kept
    assert done.rc == 0, done.out
    assert "models.pulled" not in done.out
    assert registry.log() == []


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"wanted": ["a b"]}, "stack.models.wanted.0"),
        ({"wanted": [{"name": "x", "sorce": "y"}]}, "stack.models.wanted.0.sorce"),
        ({"wanted": ["x"], "update": "sometimes"}, "stack.models.update"),
        ({"wanted": ["x"], "stall": -1}, "stack.models.stall"),
        ({"wanted": ["x"], "endpoint": "ftp://x"}, "stack.models.endpoint"),
    ],
)
def test_a_wrong_section_is_told_before_any_host_is_contacted(
    shop: Shop, section: dict[str, object], said: str
) -> None:
    kept, shop.settings["models"] = shop.settings["models"], section
    mark = shop.host.mark()
    done = shop.run("-y")
    shop.settings["models"] = kept
    assert done.rc == 1, done.out
    assert said in done.out
    assert shop.host.logins_since(mark) == 0


def test_a_service_that_is_no_model_server_fails_the_run(shop: Shop) -> None:
    kept = shop.settings["models"]
    shop.settings["models"] = {**kept, "service": "worker"}
    done = shop.run("-y")
    shop.settings["models"] = kept
    assert done.rc == 1, done.out
    assert "worker" in done.out
