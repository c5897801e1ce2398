"""What stackmend relies on of OpenAI's API as Ollama speaks it, asked of every server there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.servers import MODEL, SAID, USER, Server

ASKED = {"model": MODEL, "temperature": 0, "seed": 1, "max_tokens": 4}
USAGE = {"completion_tokens", "prompt_tokens", "total_tokens"}


def events(server: Server, path: str, **body: Any) -> list[dict[str, Any]]:
    """The objects of a stream, which ends as OpenAI's do."""
    response = server.post(path, **ASKED, stream=True, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_models(server: Server) -> None:
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    (model,) = [row for row in listed["data"] if row["id"] == f"{MODEL}:latest"]
    assert model["object"] == "model"
    assert model["owned_by"] == "library"
    assert isinstance(model["created"], int)


def test_a_chat(server: Server) -> None:
    answer = server.post("/v1/chat/completions", **ASKED, messages=USER).json()
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == MODEL
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": SAID}
    assert choice["finish_reason"] == "length"
    assert set(answer["usage"]) >= USAGE
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["prompt_tokens"] >= 5


def test_a_chat_that_is_streamed(server: Server) -> None:
    parts = events(server, "/v1/chat/completions", messages=USER)
    assert {part["object"] for part in parts} == {"chat.completion.chunk"}
    deltas = [part["choices"][0]["delta"] for part in parts if part["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == SAID
    assert parts[-1]["choices"][0]["finish_reason"] == "length"
    assert not any(part.get("usage") for part in parts)


@pytest.mark.parametrize(
    ("path", "more"),
    [("/v1/chat/completions", {"messages": USER}), ("/v1/completions", {"prompt": "hello"})],
)
def test_usage_comes_last_where_it_is_asked_for(
    server: Server, path: str, more: dict[str, Any]
) -> None:
    *_, last = events(server, path, stream_options={"include_usage": True}, **more)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4


def test_a_completion(server: Server) -> None:
    answer = server.post("/v1/completions", **ASKED, prompt="hello").json()
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    assert choice["text"] == SAID
    assert choice["finish_reason"] == "length"
    parts = events(server, "/v1/completions", prompt="hello")
    assert "".join(part["choices"][0]["text"] for part in parts if part["choices"]) == SAID


def test_a_model_that_is_missing(server: Server) -> None:
    response = server.post("/v1/chat/completions", model="nowhere", messages=USER)
    assert response.status_code == 404
    error = response.json()["error"]
    assert "not found" in error["message"]
    assert error["type"] == "not_found_error"


def test_messages_that_are_missing(server: Server) -> None:
    response = server.post("/v1/chat/completions", model=MODEL, messages=[])
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_a_model_of_a_blob_answers_under_its_name(server: Server) -> None:
    """As a move gives a server the file of another one: its name needs no tag to be asked for."""
    digest = next(
        layer["digest"]
        for layer in json.loads(
            server.read(f"manifests/registry.ollama.ai/library/{MODEL}/latest")
        )["layers"]
        if layer["mediaType"].endswith(".model")
    )
    # A blob that somebody else put into the store counts as one that was sent.
    assert server.client.head(f"/api/blobs/{digest}").status_code == 200
    made = server.lines("/api/create", model="team-model", files={"tiny.gguf": digest})
    assert made[-1] == {"status": "success"}
    body = {**ASKED, "model": "team-model"}
    answer = server.post("/v1/chat/completions", **body, messages=USER)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4
    server.client.request("DELETE", "/api/delete", json={"model": "team-model"})
