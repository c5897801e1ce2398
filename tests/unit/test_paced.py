"""The server of known speed is as fast as it claims, and falls into each trap that it names."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests import paced
from tests.calm import calmly
from tests.paced import Paced

TOKENS = 12


@pytest.fixture(scope="module")
def server() -> Iterator[Paced]:
    with paced.serving(ttft=0.05, tpot=0.005) as running:
        yield running


def ask(server: Paced, path: str = "/api/generate", **body: object) -> list[tuple[float, bytes]]:
    """The lines of an answer, with the seconds since it was asked for."""
    asked = {"model": "paced", "prompt": "one two three", "stream": True, "max_tokens": TOKENS}
    asked |= {"options": {"num_predict": TOKENS}, "stream_options": {"include_usage": True}}
    started = time.monotonic()
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=1, trust_env=False) as c,
        c.stream("POST", path, json=asked | body) as answer,
    ):
        assert answer.status_code == 200
        lines = ((time.monotonic() - started, line.encode()) for line in answer.iter_lines())
        return [(at, line) for at, line in lines if line]


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/v1/completions"])
def test_its_schedule(server: Paced, path: str) -> None:
    server.set(trap="", ttft=0.05, tpot=0.005, slots=4)
    ask(server, path, messages=[{"role": "user", "content": "x"}])
    (record,) = server.read_records()
    assert record.tokens == TOKENS
    assert 0.05 <= record.first - record.began < 0.05 + 0.5
    assert record.last - record.began - 0.05 + 1e-6 >= (TOKENS - 1) * 0.005


def test_its_slots(server: Paced) -> None:
    server.set(trap="", slots=2)
    threads = [threading.Thread(target=ask, args=(server,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = server.read_records()
    for record in records:
        under_way = [r for r in records if r.began <= record.began < r.ended]
        assert len(under_way) <= 2
    assert [r.began for r in records] == sorted(r.began for r in records)


def test_the_computed_truth() -> None:
    pace = paced.Pace(ttft=1.0, tpot=0.1, slots=2)
    truth = paced.compute_truth(pace, concurrency=4, requests=8, tokens=11)
    # Two at a time, two seconds each: 8 seconds for 88 tokens; all but the first two wait.
    assert truth.wall == pytest.approx(8)
    assert truth.output_tps == pytest.approx(11)
    assert truth.ttft == pytest.approx(3)


@calmly
def test_the_recorded_truth(server: Paced) -> None:
    server.set(trap="", slots=4)
    for _ in range(3):
        ask(server)
    truth = paced.read_truth(server.read_records())
    assert truth.ttft >= 0.05
    assert truth.tpot == pytest.approx(0.005, rel=0.2)
    assert truth.output_tps <= TOKENS / (0.05 + (TOKENS - 1) * 0.005)


def last(server: Paced, **body: object) -> dict[str, object]:
    value: dict[str, object] = json.loads(ask(server, **body)[-1][1])  # type: ignore[arg-type]
    return value


def test_a_kept_prefix_costs_nothing(server: Paced) -> None:
    server.set(trap="prefix", ttft=0.2)
    words = " ".join(f"w{n}" for n in range(99))
    cold, warm = (last(server, prompt=words) for _ in range(2))
    assert cold["prompt_eval_count"] == warm["prompt_eval_count"] == 100
    assert cold["prompt_eval_duration"] == 200_000_000
    assert warm["prompt_eval_duration"] == 5_000_000
    other = last(server, prompt=f"salt {words}")
    assert other["prompt_eval_duration"] == 200_000_000
    server.set(trap="", ttft=0.05)


@pytest.mark.parametrize("trap", ["early", "no-done"])
def test_no_last_message(server: Paced, trap: str) -> None:
    server.set(trap=trap)
    assert not any(json.loads(line)["done"] for _, line in ask(server))
    assert not any(b"[DONE]" in line for _, line in ask(server, "/v1/completions"))


@pytest.mark.parametrize(
    ("trap", "error"),
    [
        ("abrupt", httpx.RemoteProtocolError),
        ("hang", httpx.ReadTimeout),
        ("hang-first", httpx.ReadTimeout),
    ],
)
def test_broken_off(server: Paced, trap: str, error: type[Exception]) -> None:
    server.set(trap=trap)
    with pytest.raises(error):
        ask(server)


def test_counts(server: Paced) -> None:
    server.set(trap="chunks-as-tokens")
    lines = ask(server)
    assert (len(lines), json.loads(lines[-1][1])["eval_count"]) == (TOKENS // 4 + 1, TOKENS // 4)
    server.set(trap="bundles")
    lines = ask(server)
    assert (len(lines), json.loads(lines[-1][1])["eval_count"]) == (TOKENS // 4 + 1, TOKENS)
    server.set(trap="cut")
    assert last(server, prompt="x " * 99)["prompt_eval_count"] == 40
    server.set(trap="short")
    assert last(server)["eval_count"] == TOKENS // 3
    server.set(trap="uncounted")
    assert "eval_count" not in last(server)
    assert not any(b"usage" in line for _, line in ask(server, "/v1/completions"))


def test_loading(server: Paced) -> None:
    server.set(trap="num-ctx", load=0.1)
    loads = [
        last(server, options={"num_ctx": length, "num_predict": 2})["load_duration"]
        for length in (512, 512, 1024)
    ]
    assert loads[1:] == [10_000_000, 100_000_000]
    server.set(trap="reload", every=2)
    loads = [last(server)["load_duration"] for _ in range(4)]
    assert loads == [10_000_000, 100_000_000] * 2
    server.set(trap="", every=1)


def test_a_delay_of_the_relay(server: Paced) -> None:
    server.set(trap="")
    with paced.relayed(server.port, there=0.05, back=0.05) as port:
        url = f"http://127.0.0.1:{port}/health"
        with httpx.Client(timeout=5, trust_env=False) as client:
            client.get(url)
            took = []
            for _ in range(5):
                started = time.monotonic()
                client.get(url)
                took.append(time.monotonic() - started)
    assert statistics.median(took) >= 0.1
    assert min(took) < 0.2


def test_a_name_that_is_no_trap() -> None:
    with pytest.raises(ValueError, match="no trap"):
        paced.Pace(trap="nonsense")
