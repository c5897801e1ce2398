"""What stackmend relies on of Ollama's API, asked of every server there is (see `conftest.py`)."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stackmend.worker.acceleration.serverlog import parse_log
from tests.contract.servers import GREEDY, MODEL, SAID, USER, Server, manifest_of, moment

COUNTS = ("prompt_eval_count", "eval_count")
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def test_it_says_that_it_runs(server: Server) -> None:
    response = server.client.get("/")
    assert (response.status_code, response.text) == (200, "Ollama is running")
    assert server.client.head("/").status_code == 200
    assert server.client.get("/api/version").json()["version"][0].isdigit()


def test_tags(server: Server, weights: bytes) -> None:
    model = server.listed("/api/tags")[f"{MODEL}:latest"]
    assert model["model"] == f"{MODEL}:latest"
    assert model["size"] > len(weights)
    assert abs(datetime.now(UTC) - moment(model["modified_at"])) < timedelta(minutes=10)
    details = model["details"]
    del details["parent_model"]  # where it was made from, if anywhere
    assert details == {
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "115K",
        "quantization_level": "unknown",
    }


def test_a_models_digest_is_that_of_its_manifest(server: Server, weights: bytes) -> None:
    raw = server.read(manifest_of(MODEL))
    tagged = server.listed("/api/tags")[f"{MODEL}:latest"]
    assert tagged["digest"] == hashlib.sha256(raw).hexdigest()
    manifest = json.loads(raw)
    assert manifest["schemaVersion"] == 2
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    sizes = {layer["mediaType"]: layer["size"] for layer in manifest["layers"]}
    assert sizes["application/vnd.ollama.image.model"] == len(weights)
    assert tagged["size"] == sum(sizes.values()) + manifest["config"]["size"]
    for part in (manifest["config"], *manifest["layers"]):
        blob = server.read(f"blobs/{part['digest'].replace(':', '-')}")
        assert f"sha256:{hashlib.sha256(blob).hexdigest()}" == part["digest"]


def test_show(server: Server) -> None:
    shown = server.answer("/api/show", model=MODEL)
    assert shown["details"]["family"] == "llama"
    assert shown["capabilities"] == ["completion"]
    assert shown["template"] == "{{ .Prompt }}"
    assert "digest" not in shown
    information = shown["model_info"]
    assert information["general.architecture"] == "llama"
    assert information["general.parameter_count"] == 115392
    assert information["llama.context_length"] == 8192
    assert information["llama.embedding_length"] == 64
    assert information["tokenizer.ggml.tokens"] is None
    assert moment(shown["modified_at"])


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/show"])
def test_a_model_that_is_missing(server: Server, path: str) -> None:
    for name in ("nowhere", "nowhere:7b"):
        response = server.post(path, model=name, prompt="x", messages=USER)
        assert response.status_code == 404
        assert response.json() == {"error": f"model '{name}' not found"}


def test_requests_that_are_wrong(server: Server) -> None:
    wrong = {
        b"": "missing request body",
        b'{"messages": []}': "model is required",
        b'{"model": "a b", "messages": []}': "invalid model name",
    }
    for body, error in wrong.items():
        response = server.client.post("/api/chat", content=body)
        assert (response.status_code, response.json()) == (400, {"error": error})
    response = server.client.post("/api/chat", content=b"{no")
    assert response.status_code == 400
    assert response.json()["error"]
    assert server.client.get("/api/chat").status_code == 405
    assert server.client.get("/api/nothing").status_code == 404


def test_chat(server: Server) -> None:
    *parts, last = server.lines("/api/chat", model=MODEL, messages=USER, options=GREEDY)
    assert "".join(part["message"]["content"] for part in parts) == SAID
    for part in (*parts, last):
        assert part["model"] == MODEL
        assert part["message"]["role"] == "assistant"
        assert moment(part["created_at"])
    for part in parts:
        assert part["done"] is False
        assert not {*COUNTS, *DURATIONS, "done_reason"} & set(part)
    measured(last)
    assert last["message"]["content"] == ""
    assert last["done_reason"] == "length"

    whole = server.answer("/api/chat", model=MODEL, messages=USER, options=GREEDY, stream=False)
    assert whole["message"] == {"role": "assistant", "content": SAID}
    measured(whole)


def test_generate(server: Server) -> None:
    asked = {"model": MODEL, "prompt": "hello", "options": GREEDY}
    *parts, last = server.lines("/api/generate", **asked)
    assert "".join(part["response"] for part in parts) == SAID
    measured(last)
    # A token a byte, after the three special ones; the tokenizer puts a space (U+2581) first.
    assert last["context"] == [byte + 3 for byte in f"\u2581hello{SAID}".encode()]

    whole = server.answer("/api/generate", **asked, stream=False)
    assert whole["response"] == SAID
    assert whole["context"] == last["context"]
    measured(whole)

    raw = server.answer("/api/generate", **asked, stream=False, raw=True)
    assert raw["response"] == SAID
    assert "context" not in raw
    measured(raw)


def measured(last: dict[str, Any]) -> None:
    """The final message of an answer of 4 tokens to `hello`."""
    assert last["done"] is True
    assert last["done_reason"] == "length"
    assert last["prompt_eval_count"] == 9
    assert last["eval_count"] == 4
    assert all(isinstance(last[name], int) and last[name] > 0 for name in DURATIONS)
    parts = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert parts <= last["total_duration"] * 1.05


def test_a_stop_word_ends_the_answer(server: Server) -> None:
    said = server.answer(
        "/api/generate",
        model=MODEL,
        prompt="hello",
        stream=False,
        options={**GREEDY, "stop": ["Dr"]},
    )
    assert (said["response"], said["done_reason"]) == ("+.", "stop")


def test_options_of_the_wrong_type(server: Server) -> None:
    wrong = {
        "stop": ("Dr", "array"),
        "num_ctx": ("x", "integer"),
        "temperature": ("hot", "float32"),
    }
    for name, (value, kind) in wrong.items():
        response = server.post("/api/generate", model=MODEL, prompt="x", options={name: value})
        assert response.status_code == 500
        assert response.json() == {"error": f'option "{name}" must be of type {kind}'}


def test_the_same_prompt_gives_the_same_counts_when_it_is_cached(server: Server) -> None:
    asked = {"model": MODEL, "prompt": "again and again", "options": GREEDY, "stream": False}
    first, second = (server.answer("/api/generate", **asked) for _ in range(2))
    assert first["prompt_eval_count"] == second["prompt_eval_count"]
    assert first["response"] == second["response"]


def test_a_prompt_longer_than_the_context_is_cut(server: Server) -> None:
    said = server.answer(
        "/api/generate",
        model=MODEL,
        prompt="x" * 2000,
        stream=False,
        options={**GREEDY, "num_ctx": 256},
    )
    assert said["prompt_eval_count"] <= 256
    assert said["eval_count"] == 4


def test_an_answer_may_be_longer_than_the_context(server: Server) -> None:
    said = server.answer(
        "/api/generate",
        model=MODEL,
        prompt="hello",
        stream=False,
        options={**GREEDY, "num_ctx": 128, "num_predict": 300},
    )
    assert (said["eval_count"], said["done_reason"]) == (300, "length")


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_loading_and_unloading(server: Server, path: str) -> None:
    server.answer("/api/generate", model=MODEL, keep_alive=0)
    server.wait_until_unloaded()
    loaded = server.answer(path, model=MODEL, keep_alive=-1)
    assert (loaded["done"], loaded["done_reason"]) == (True, "load")
    ((name, model),) = server.listed("/api/ps").items()
    assert name == f"{MODEL}:latest"
    assert model["digest"] == server.listed("/api/tags")[name]["digest"]
    assert model["size"] > 0
    assert 0 <= model["size_vram"] <= model["size"]
    assert model["context_length"] >= 2048
    assert moment(model["expires_at"]) > datetime.now(UTC) + timedelta(days=36500)
    unloaded = server.answer(path, model=MODEL, keep_alive=0)
    assert (unloaded["done"], unloaded["done_reason"]) == (True, "unload")
    server.wait_until_unloaded()


def test_another_context_reloads_the_model(server: Server) -> None:
    for length in (512, 1024):
        asked = {**GREEDY, "num_ctx": length}
        server.answer("/api/chat", model=MODEL, messages=USER, options=asked, stream=False)
        (model,) = server.listed("/api/ps").values()
        assert model["context_length"] == length


def test_the_log_has_each_load_and_each_request(server: Server) -> None:
    before = len(server.logged().splitlines())
    for length in (512, 1024):
        asked = {**GREEDY, "num_ctx": length}
        server.answer("/api/chat", model=MODEL, messages=USER, options=asked, stream=False)
    # A server answers before it has logged that.
    deadline = time.monotonic() + 10
    while True:
        stamped = [f"2026-01-01T00:00:00Z {line}" for line in server.logged().splitlines()]
        log = parse_log(stamped, stamped[before:])
        calls = [call for call in log.calls if call.path == "/api/chat"]
        if len(calls) >= 2 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert log.devices is not None
    assert [load.context for load in log.loads] == [512, 1024]
    assert all(load.seconds is not None and load.model.startswith("sha256-") for load in log.loads)
    assert len({load.model for load in log.loads}) == 1
    assert [call.status for call in calls] == [200] * 2
    assert all(call.client and call.seconds > 0 for call in calls)


def test_when_a_model_is_to_be_unloaded_changes_with_a_request_alone(server: Server) -> None:
    def ask() -> None:
        server.answer("/api/chat", model=MODEL, messages=USER, options=GREEDY, stream=False)

    def read() -> str:
        (model,) = server.listed("/api/ps").values()
        return str(model["expires_at"])

    ask()
    first = read()
    time.sleep(0.2)
    assert read() == first
    ask()
    assert moment(read()) > moment(first)


def test_a_model_is_unloaded_after_its_time(server: Server) -> None:
    server.answer(
        "/api/chat", model=MODEL, messages=USER, options=GREEDY, stream=False, keep_alive="1s"
    )
    (model,) = server.listed("/api/ps").values()
    assert moment(model["expires_at"]) < datetime.now(UTC) + timedelta(seconds=2)
    server.wait_until_unloaded()
    assert server.post("/api/generate", model=MODEL, keep_alive="soon").status_code == 400


def test_requests_side_by_side_are_all_answered(server: Server) -> None:
    answers: list[str] = []

    def ask() -> None:
        said = server.answer(
            "/api/generate", model=MODEL, prompt="hello", stream=False, options=GREEDY
        )
        answers.append(said["response"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [SAID] * 4


def test_a_caller_that_leaves_does_not_hold_the_model(server: Server) -> None:
    endless = {"model": MODEL, "prompt": "hello", "options": {**GREEDY, "num_predict": 40000}}
    with server.client.stream("POST", "/api/generate", json=endless) as response:
        assert next(response.iter_lines())
    begun = time.monotonic()
    server.answer("/api/generate", model=MODEL, prompt="hello", stream=False, options=GREEDY)
    assert time.monotonic() - begun < 5


def test_copy_and_delete(server: Server) -> None:
    assert server.post("/api/copy", source=MODEL, destination="team/second:x").status_code == 200
    listed = server.listed("/api/tags")
    assert listed["team/second:x"]["digest"] == listed[f"{MODEL}:latest"]["digest"]
    gone = {"json": {"model": "team/second:x"}}
    assert server.client.request("DELETE", "/api/delete", **gone).status_code == 200
    response = server.client.request("DELETE", "/api/delete", **gone)
    assert response.status_code == 404
    assert response.json() == {"error": "model 'team/second:x' not found"}
    # The blobs are still needed by the first.
    assert server.answer("/api/show", model=MODEL)
    response = server.post("/api/copy", source="nowhere", destination="other")
    assert response.status_code == 404
    assert response.json() == {"error": 'model "nowhere" not found'}


def test_blobs(server: Server, weights: bytes) -> None:
    there, absent = (
        f"/api/blobs/sha256:{hashlib.sha256(content).hexdigest()}" for content in (weights, b"?")
    )
    assert server.client.head(there).status_code == 200
    assert server.client.head(absent).status_code == 404
    assert server.client.post(absent, content=b"something else").status_code == 400
    assert server.client.head(absent).status_code == 404


def test_ollama_list_is_a_healthcheck(server: Server) -> None:
    listed = server.ollama("list")
    assert listed.returncode == 0, listed.stderr
    head, *rows = (line.split() for line in listed.stdout.splitlines())
    assert head == ["NAME", "ID", "SIZE", "MODIFIED"]
    model = server.listed("/api/tags")[f"{MODEL}:latest"]
    assert [model["name"], model["digest"][:12]] in [row[:2] for row in rows]
    away = server.ollama("list", host="127.0.0.1:9")
    assert away.returncode == 1
    assert "could not connect to ollama server" in away.stderr
