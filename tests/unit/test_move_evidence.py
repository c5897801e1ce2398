"""A legacy worker is recognised by what its container, its processes and its server say."""

from __future__ import annotations

from typing import Any

import pytest

from stackmend.worker.move.plan import find_silent, identify, list_candidates
from stackmend.worker.move.plan.evidence import find_port
from stackmend.worker.move.state import Answer, Legacy, Runner

ID = "a" * 64


def runner(service: str = "llm", **more: Any) -> Runner:
    return Runner.model_validate(
        {
            "service": service,
            "id": ID,
            "image": "team/thing:1",
            "addresses": ("172.18.0.2",),
            **more,
        }
    )


def recognised(*runners: Runner, answers: dict[str, Answer] | None = None) -> tuple[Legacy, ...]:
    return identify(list_candidates(runners), answers or {})


@pytest.mark.parametrize(
    ("more", "engine", "evidence"),
    [
        ({"image": "ghcr.io/abetlen/llama-cpp-python:v0.3.1"}, "llama-cpp-python", "its image is"),
        ({"image": "ghcr.io/ggml-org/llama.cpp:server"}, "llama.cpp", "its image is"),
        ({"image": "localai/localai:latest-cpu"}, "LocalAI", "its image is"),
        ({"image": "registry.lan:5000/koboldcpp"}, "koboldcpp", "its image is"),
        (
            {"image_labels": {"org.opencontainers.image.source": "https://x/ggml-org/llama.cpp"}},
            "llama.cpp",
            "its image has the label",
        ),
        ({"command": ("python3", "-m", "llama_cpp.server")}, "llama-cpp-python", "its command has"),
        ({"command": ("/app/llama-server", "--port", "9000")}, "llama.cpp", "its command has"),
        ({"command": ("/srv/run", "-m", "/m/a.gguf")}, "llama.cpp", "its command has"),
        ({"libraries": ("/usr/lib/libllama.so.0",)}, "llama.cpp", "mapped"),
        ({"libraries": ("/app/libggml-base.so",)}, "llama.cpp", "mapped"),
        ({"libraries": ("/x/site-packages/llama_cpp/lib/libllama.so",)}, "llama-cpp-python", "map"),
    ],
)
def test_what_a_container_itself_says(more: dict[str, Any], engine: str, evidence: str) -> None:
    (legacy,) = recognised(runner(**more))
    assert legacy.engine == engine
    assert any(evidence in line for line in legacy.evidence)
    assert legacy.evidence[-1] == "no accelerator is reserved for it"


@pytest.mark.parametrize(
    "more",
    [
        {"image": "ollama/ollama:0.12.6", "libraries": ("/usr/lib/ollama/libggml-base.so",)},
        {"command": ("/bin/ollama", "serve"), "libraries": ("/usr/lib/ollama/libggml.so",)},
        {"image": "redis:7"},
        {"image": "team/api:1", "command": ("uvicorn", "app:main")},
        {"image": "team/llama-farm:1"},
    ],
)
def test_what_is_none(more: dict[str, Any]) -> None:
    assert recognised(runner(**more)) == ()


@pytest.mark.parametrize(
    ("answer", "engine"),
    [
        ({"server": "llama.cpp"}, "llama.cpp"),
        ({"owners": ("llamacpp",), "names": ("a",)}, "llama.cpp"),
        ({"owners": ("me",), "names": ("a",)}, "llama-cpp-python"),
        ({"props": True}, "llama.cpp"),
    ],
)
def test_what_a_server_says(answer: dict[str, Any], engine: str) -> None:
    """Nothing else about it does; it is asked because somebody calls it by OpenAI's API."""
    client = runner("api", id="b" * 64, env={"OPENAI_BASE_URL": "http://llm:9100/v1"})
    server = runner()
    assert list_candidates([server, client]) == ((server, 9100),)
    found = Answer.model_validate({"address": "172.18.0.2", "port": 9100, **answer})
    (legacy,) = recognised(server, client, answers={ID: found})
    assert legacy.engine == engine
    assert "port 9100" in legacy.evidence[0]


def test_another_server_of_that_api_is_none() -> None:
    client = runner("api", id="b" * 64, env={"LLM_URL": "http://llm:9100/v1"})
    answer = Answer(
        address="172.18.0.2", port=9100, server="uvicorn", names=("a",), owners=("vllm",)
    )
    assert recognised(runner(), client, answers={ID: answer}) == ()


def test_only_the_named_service_is_asked() -> None:
    other = runner("other", id="b" * 64, image="ghcr.io/ggml-org/llama.cpp")
    assert list_candidates([runner(), other], "llm") == ((runner(), 8080),)


@pytest.mark.parametrize(
    ("more", "engine", "port"),
    [
        ({"command": ("x", "--port", "9000")}, "llama.cpp", 9000),
        ({"command": ("x", "--port=9001")}, "llama.cpp", 9001),
        ({"env": {"LLAMA_ARG_PORT": "9002"}}, "llama.cpp", 9002),
        ({"ports": (9003,)}, "llama.cpp", 9003),
        ({"ports": (1, 2)}, "llama.cpp", 8080),
        ({}, "llama-cpp-python", 8000),
        ({}, "koboldcpp", 5001),
    ],
)
def test_the_port_that_it_listens_on(more: dict[str, Any], engine: str, port: int) -> None:
    assert find_port(runner(**more), engine) == port


def test_an_accelerator_is_told() -> None:
    (legacy,) = recognised(runner(image="ghcr.io/ggml-org/llama.cpp", accelerated=True))
    assert "no accelerator is reserved for it" not in legacy.evidence


def silent(serial: bool) -> dict[str, Answer]:
    return {
        ID: Answer(
            address="172.18.0.2",
            port=8000,
            serial=serial,
            silence="it may be llama-cpp-python, and 1 connection of others to it last",
        )
    }


def test_one_that_was_not_asked_for_its_models_is_named_by_its_own_description() -> None:
    pairs = ((runner(), 8000),)
    (found,) = identify(pairs, silent(serial=True))
    assert found.engine == "llama-cpp-python"
    assert "at /openapi.json as llama-cpp-python does" in found.evidence[0]


def test_one_that_may_be_asked_later_is_found() -> None:
    pairs = ((runner(), 8000),)
    assert identify(pairs, silent(serial=False)) == ()
    (finding,) = find_silent(pairs, silent(serial=False))
    assert (finding.subject, finding.blocks) == ("llm", False)
    assert "1 connection of others" in finding.cause
    assert '"allow": ["busy"]' in finding.remedy
    assert [*find_silent(pairs, {})] == []
