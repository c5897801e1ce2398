"""What is sent to a model server, and what its lines mean, whatever they are."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.redaction import format_safe_line
from stackmend.worker.benchmark.definitions import (
    Answer,
    Problem,
    Question,
    Reference,
    find_problem,
)
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.fingerprint import list_changes
from stackmend.worker.benchmark.prompts import WORDS, Prompts, Scale
from stackmend.worker.benchmark.protocols import Protocol, find_others
from stackmend.worker.benchmark.protocols.ollama import Ollama
from stackmend.worker.benchmark.protocols.openai import OpenAI
from stackmend.worker.benchmark.sending import make_arrivals
from stackmend.worker.benchmark.state import Fingerprint

OLLAMA, OPENAI, CHAT = Ollama("", "m"), OpenAI("/v1", "m"), OpenAI("/v1", "m", chat=True)
BOTH = pytest.mark.parametrize("protocol", [OLLAMA, OPENAI], ids=["ollama", "openai"])


def read(protocol: Protocol, *lines: bytes | dict[str, Any] | str, asked: int = 3) -> Answer:
    """The answer that lines are, one each second."""
    parser = protocol.make_parser(asked)
    parser.keep = True
    for number, line in enumerate(lines, 1):
        if not isinstance(line, bytes):
            text = line if isinstance(line, str) else json.dumps(line)
            line = (b"" if isinstance(protocol, Ollama) else b"data: ") + text.encode()
        parser.feed(line, float(number))
    return parser.make_answer(99.0)


def test_another_model_that_the_server_has() -> None:
    protocol = OpenAI("/v1", "m")
    piece = {"choices": [{"text": "a"}]}
    protocol.note_models({"data": [{"id": "m"}, {"id": "big"}, {"id": "m-2024-08-06"}, 7]})
    found = read(protocol, {"model": "big", **piece}).problem
    assert found == Problem("error", "another model answers: big")
    # A path, an alias or the version that a name stands for is a name as well.
    for name in ("m", "M", "/models/m.gguf", "gpt-3.5-turbo", "m-2024-08-06", None):
        assert read(protocol, {"model": name, **piece}).problem is None
    ollama = Ollama("", "m:latest")
    rows = [("m:latest", "aa"), ("m:1b", "aa"), ("tiny:latest", "bb")]
    ollama.note_models({"models": [{"name": name, "digest": digest} for name, digest in rows]})
    assert ollama.others == {"tiny:latest"}
    parser = ollama.make_parser(3)
    parser.feed(b'{"model": "tiny:latest", "response": "a", "done": false}', 1.0)
    assert parser.invalid == "error"


@pytest.mark.parametrize(
    ("rows", "others"),
    [
        # vLLM answers by the first of the names that it has for a model.
        ([{"id": "a", "root": "/w"}, {"id": "m", "root": "/w"}, {"id": "b", "root": "/x"}], {"b"}),
        ([{"id": "base", "root": "/w"}, {"id": "m", "root": "/l", "parent": "base"}], set()),
        ([{"id": "a"}, {"id": "b"}], set()),
        ([{"id": ["m"]}, {"id": "m"}, {}], set()),
        (None, set()),
        ({"m": 1}, set()),
    ],
)
def test_which_models_are_surely_others(rows: Any, others: set[str]) -> None:
    assert find_others("m", rows, "id", "root") == others


# What is sent


def test_ollamas_request_sets_nothing_that_loads_the_model_again() -> None:
    body = dict(OLLAMA.build("x", 16, 7).body)
    assert body["raw"] is body["stream"] is True
    assert set(body["options"]) == {"temperature", "seed", "num_predict"}
    assert body["keep_alive"] > 0
    assert "format" not in body


def test_the_text_of_an_answer_is_kept_only_where_it_is_read() -> None:
    parser = OLLAMA.make_parser(3)
    parser.feed(b'{"response": "yes", "done": false}', 1.0)
    answer = parser.make_answer(2.0)
    assert (answer.content, len(answer.texts)) == ("", 1)


def test_openais_request_asks_for_the_count_and_for_all_tokens() -> None:
    body = OPENAI.build("x", 16, 7).body
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert body["min_tokens"] == body["max_tokens"] == 16
    assert CHAT.build("x", 16, 7).path == "/v1/chat/completions"
    assert CHAT.build("x", 16, 7).body["messages"] == [{"role": "user", "content": "x"}]


def test_an_endpoint_keeps_its_key_to_itself() -> None:
    endpoint = Endpoint("openai", "fd00::1", 8000, "m", tls=True, api_key="s3cret")
    assert str(endpoint) == "https://[fd00::1]:8000/v1"
    assert "s3cret" not in repr(endpoint)
    assert Endpoint("openai", "a", 1, "m", base_path="/x/v1/").prefix == "/x/v1"
    assert Endpoint("ollama", "a", 1, "m").prefix == ""


def test_prompts_differ_from_their_first_words_on() -> None:
    prompts = Prompts(5)
    made = [prompts.make(100) for _ in range(200)]
    beginnings = Counter(tuple(prompt.split()[:4]) for prompt in made)
    assert beginnings.most_common(1)[0][1] == 1
    assert made != [Prompts(6).make(100) for _ in range(200)]
    assert {len(prompt.split()) for prompt in made} == {100}


def test_prompts_of_as_many_words_have_as_many_tokens() -> None:
    """For a tokenizer that counts letters, the most uneven there is."""
    prompts = Prompts(5)
    lengths = [len(prompts.make(2 * len(WORDS) + 10)) for _ in range(50)]
    assert max(lengths) - min(lengths) < 0.03 * min(lengths)


def test_what_a_word_has_in_tokens_is_learned_without_chance() -> None:
    """From two prompts of complete decks, whatever a tokenizer makes of each word."""
    prompts = Prompts(5)

    def count(words: int) -> int:
        return 3 + sum(1 + len(word) // 4 for word in prompts.make(words).split())

    few, more = len(WORDS), 2 * len(WORDS)
    slopes = {(count(more) - count(few)) / (more - few) for _ in range(20)}
    assert len(slopes) == 1
    base = count(few) - slopes.copy().pop() * few
    words = Scale(base, slopes.pop()).find_words(512)
    assert all(abs(count(words) - 512) < 0.02 * 512 for _ in range(20))


def test_no_part_of_a_prompt_comes_in_another() -> None:
    # Some servers find known parts in the middle of a prompt as well.
    prompts = Prompts(5)

    def parts(prompt: str) -> set[tuple[str, ...]]:
        words = prompt.split()
        return {tuple(words[at : at + 6]) for at in range(len(words) - 5)}

    first, second = parts(prompts.make(500)), parts(prompts.make(500))
    assert not first & second


def test_words_of_a_prompt() -> None:
    assert Scale(1, 1.5).find_words(512) == 341
    assert Scale(30, 1.5).find_words(8) == 1


def test_arrivals_are_even_but_for_their_jitter() -> None:
    moments = make_arrivals(50, 10.0, seed=1)
    assert moments == make_arrivals(50, 10.0, seed=1) != make_arrivals(50, 10.0, seed=2)
    for number, moment in enumerate(moments):
        assert number / 10 <= moment < (number + 0.5) / 10


# Ollama


def test_ollamas_answer() -> None:
    found = read(
        OLLAMA,
        {"response": "", "done": False},
        {"thinking": "hm", "response": "", "done": False},
        {"response": "yes", "done": False},
        {
            "response": "",
            "done": True,
            "done_reason": "length",
            "total_duration": 4_000_000_000,
            "load_duration": 10_000_000,
            "prompt_eval_count": 12,
            "prompt_eval_duration": 1_000_000_000,
            "eval_count": 3,
            "eval_duration": 2_000_000_000,
        },
    )
    assert [(text.at, text.characters, text.reasoning) for text in found.texts] == [
        (2.0, 2, True),
        (3.0, 3, False),
    ]
    assert (found.complete, found.end, found.content) == (True, 4.0, "hmyes")
    counts = found.counts
    assert (counts.prompt, counts.output, counts.full, counts.kept) == (12, 3, True, None)
    assert (counts.load, counts.prefill, counts.decode, counts.total) == (0.01, 1.0, 2.0, 4.0)


# OpenAI


def test_llama_cpps_answer() -> None:
    found = read(
        OPENAI,
        {"choices": [{"text": "a", "index": 0, "finish_reason": None}]},
        b"",
        b": still here",
        {"choices": [{"text": "b", "index": 0, "finish_reason": None}]},
        {
            "choices": [{"text": "", "index": 0, "finish_reason": "length"}],
            "usage": {"completion_tokens": 3, "prompt_tokens": 12},
            "timings": {
                "cache_n": 2,
                "prompt_n": 10,
                "prompt_ms": 7.5,
                "predicted_n": 3,
                "predicted_ms": 5.0,
            },
        },
        "[DONE]",
    )
    assert [text.at for text in found.texts] == [1.0, 4.0]
    assert (found.complete, found.end) == (True, 6.0)
    counts = found.counts
    assert (counts.prompt, counts.kept, counts.output, counts.full) == (12, 2, 3, True)
    assert (counts.prefill, counts.decode) == (0.0075, 0.005)


def test_vllms_answer_with_reasoning() -> None:
    found = read(
        CHAT,
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning_content": "hm", "content": None}}]},
        {"choices": [{"delta": {"content": "yes"}, "finish_reason": "length"}], "usage": None},
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 12,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
        },
        "[DONE]",
    )
    assert found.counts.reasoning == 1
    assert [(text.at, text.reasoning) for text in found.texts] == [(2.0, True), (3.0, False)]
    assert (found.counts.kept, found.counts.output) == (4, 3)


def test_a_server_that_counts_nothing_and_says_that_its_limit_was_reached() -> None:
    choices = [{"text": "a"}], [{"text": "b", "finish_reason": "length"}]
    found = read(OPENAI, *({"choices": part} for part in choices), "[DONE]")
    assert found.counts.output == 3
    choices = [{"text": "a"}], [{"text": "b", "finish_reason": "stop"}]
    found = read(OPENAI, *({"choices": part} for part in choices), "[DONE]")
    assert found.counts.output is None
    problem = find_problem(found, Question(3), Reference())
    assert problem is not None
    assert problem.invalid == "uncounted"


# Errors


@pytest.mark.parametrize(
    ("protocol", "line"),
    [
        (OLLAMA, b'{"error": "out of memory"}'),
        (OPENAI, b'data: {"error": {"message": "out of memory", "code": 500}}'),
        (OPENAI, b'{"error": {"message": "out of memory"}}'),
        (OPENAI, b'error: {"message": "out of memory"}'),
    ],
)
def test_an_error_within_an_answer(protocol: Protocol, line: bytes) -> None:
    found = read(protocol, line)
    assert found.problem is not None
    assert found.problem.invalid == "error"
    assert "out of memory" in found.problem.reason


def test_a_message_that_steers_terminals_does_not() -> None:
    found = read(OLLAMA, {"error": "\x1b]0;owned\x07\x1b[2J\u202e password=hunter2 " + "x" * 9999})
    assert found.problem is not None
    assert found.problem.reason.isprintable()
    assert "hunter2" not in found.problem.reason
    assert len(found.problem.reason) < 500


@BOTH
@pytest.mark.parametrize(
    "junk",
    [
        b"}{",
        b"[]",
        b"7",
        b'{"response": {"a": 1}, "choices": 7}',
        b'{"response": "x", "done": "yes", "choices": ["x"]}',
        b'{"done": true, "response": "", "eval_count": -1, "usage": {"completion_tokens": 1.5}}',
        b'{"done": true, "response": "", "load_duration": 1e300, "usage": []}',
        b'{"done": true, "response": "", "eval_count": true, "timings": {"prompt_ms": "1"}}',
        b"[" * 99999,
    ],
)
def test_lines_that_are_no_answer(protocol: Protocol, junk: bytes) -> None:
    line = junk if protocol is OLLAMA else b"data: " + junk
    found = read(protocol, line)
    assert found.problem is not None
    assert found.problem.invalid == "error"
    assert "form of this API" in found.problem.reason


NAMES = st.sampled_from(
    "response thinking done done_reason error eval_count prompt_eval_count load_duration choices "
    "delta content text reasoning_content finish_reason usage prompt_tokens completion_tokens "
    "prompt_tokens_details cached_tokens timings cache_n prompt_n prompt_ms message".split()
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
hostile = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())


@BOTH
@given(st.lists(st.tuples(st.sampled_from([b"", b"data: ", b"error: "]), hostile), max_size=6))
def test_whatever_comes_is_an_answer(protocol: Protocol, lines: list[tuple[bytes, bytes]]) -> None:
    found = read(protocol, *(before + line for before, line in lines))
    if found.problem is not None:
        assert found.problem.reason == format_safe_line(found.problem.reason, 1000)
    assert all(text.characters > 0 for text in found.texts)
    find_problem(found, Question(3, 10), Reference(10, 100))


def test_a_model_whose_layers_a_server_splits_a_little_differently_is_the_same() -> None:
    before = Fingerprint(parameters="p", engine="ollama", processor="35% gpu")
    for after, changed in (("40% gpu", 0), ("41% gpu", 1), ("cpu", 1), ("\x1b% gpu", 1)):
        now = before.model_copy(update={"processor": after})
        assert len(list_changes(before, now)) == changed
