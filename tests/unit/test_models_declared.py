"""Which service of a project is its model server, as its files alone say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stackmend import get_deploy_directory
from stackmend.compose.spec import ComposeSpec
from stackmend.models import DeclaredServer, find_server

ASKS = {"image": "api:1", "environment": {"OLLAMA_MODEL": "${MODEL:-mistral}"}}


def declare(source: Any) -> ComposeSpec:
    raw = {"project": "ai", "source": source, "directory": "/opt/ai"}
    return ComposeSpec.model_validate(raw)


def test_the_reference_stack_names_its_model() -> None:
    spec = declare(get_deploy_directory() / "stacks" / "ai")
    assert find_server(spec) == DeclaredServer("ollama", ("llama3.2:1b",))
    named = spec.model_copy(update={"env": {"OLLAMA_MODEL": "qwen3:0.6b"}})
    assert find_server(named) == DeclaredServer("ollama", ("qwen3:0.6b",))


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ({"llm": {"image": "ollama/ollama:0.12"}}, DeclaredServer("llm")),
        ({"llm": {"image": "own/x", "command": ["ollama", "serve"]}}, DeclaredServer("llm")),
        (
            {"ollama": {"image": "own/x", "environment": ["OLLAMA_HOST=0.0.0.0"]}, "api": ASKS},
            DeclaredServer("ollama", ("mistral:latest",)),
        ),
        (
            {
                "llm": {"image": "${I:-ollama/ollama}"},
                "a": {"image": "a", "environment": ["OLLAMA_MODEL=a b"]},
            },
            DeclaredServer("llm"),
        ),
        # Nobody starts it.
        ({"llm": {"image": "ollama/ollama", "profiles": ["gpu"]}}, None),
        ({"llm": {"image": "ollama/ollama", "deploy": {"replicas": 0}}}, None),
        ({"llm": {"image": "ollama/ollama", "scale": 0}}, None),
        # A name alone proves nothing, two servers are not one, and a client is none.
        ({"ollama": {"image": "own/x"}}, None),
        ({"a": {"image": "ollama/ollama"}, "b": {"image": "ollama/ollama"}}, None),
        ({"api": {"image": "own/ollama-client", "environment": {"OLLAMA_HOST": "x"}}}, None),
    ],
)
def test_a_server_is_known_by_what_it_runs(
    tmp_path: Path, services: dict[str, Any], expected: DeclaredServer | None
) -> None:
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"services": services}))
    assert find_server(declare(tmp_path)) == expected


def test_files_that_cannot_be_read_name_none() -> None:
    assert find_server(declare("/nowhere")) is None
    assert find_server(declare({"git": "https://git.lan/o/stack.git"})) is None


def test_a_profile_that_is_asked_for_starts_its_server(tmp_path: Path) -> None:
    services = {
        "gpu": {"image": "ollama/ollama", "profiles": ["gpu"]},
        "cpu": {"image": "ollama/ollama", "profiles": ["cpu"]},
    }
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"services": services}))
    asked = declare(tmp_path).model_copy(update={"profiles": ("cpu",)})
    assert find_server(asked) == DeclaredServer("cpu")
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=gpu\n")
    assert find_server(declare(tmp_path)) == DeclaredServer("gpu")
