"""Both as they were measured: what decides, and pictures of before and after."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api.host import Host

from stackmend.errors import StepError
from stackmend.worker import pictures
from stackmend.worker.benchmark import occupation
from stackmend.worker.benchmark.learning import TooSlow
from stackmend.worker.benchmark.protocols.ollama import KEEP
from stackmend.worker.benchmark.spec import BenchmarkSpec, Profile
from stackmend.worker.benchmark.state import Level, Machine, Server, Usage
from stackmend.worker.benchmark.statistics import SIGNIFICANT
from stackmend.worker.move import measuring
from stackmend.worker.move.client import read_answer
from stackmend.worker.move.measuring import make_measurement, make_result, measure_both
from stackmend.worker.pictures import table
from stackmend.worker.pictures.common import MISSING
from tests import paced
from tests.connected import local
from tests.unit import benchmark_results

pytestmark = pytest.mark.slow

PROFILE = Profile(concurrency=(1,), output_tokens=60, timeout=60, repeats=5)


def levels(speed: float) -> tuple[Level, ...]:
    """What a server of some speed was measured at, one request at a time."""
    return benchmark_results.make_result(speed=speed).measurement.levels[:1]


def measured(
    monkeypatch: pytest.MonkeyPatch, old: tuple[Level, ...], new: tuple[Level, ...]
) -> measuring.Measured:
    monkeypatch.setattr(measuring, "measure_interleaved", lambda *_: (old, new))
    ends = ("172.18.0.2", 8080), ("172.18.0.3", 11434)
    return measure_both(None, *ends, "tiny", PROFILE, 0.1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def here() -> Iterator[Host]:
    with local() as host:
        yield host


#: A hundred tokens take more than the second that a request has; the other one says nothing at all.
SLOW = {"slow": {"ttft": 0.02, "tpot": 0.02}, "silent": {"ttft": 30}}
FAST = {"ttft": 0.02, "tpot": 0.002}
BRIEF = Profile(
    prompt_tokens=16, output_tokens=100, concurrency=(1,), requests=4, warmups=0, timeout=1
)


@pytest.mark.parametrize("pace", SLOW)
def test_a_legacy_worker_that_ends_nothing_in_time(here: Host, pace: str, tmp_path: Path) -> None:
    with paced.serving(**SLOW[pace]) as old, paced.serving(**FAST) as new:
        ends = ("127.0.0.1", old.port), ("127.0.0.1", new.port)
        found = measure_both(here, *ends, "paced", BRIEF, 0.1)
    # A hundred tokens in the second that it had, at most.
    assert found.comparison.before == 100
    assert found.comparison.outcome == "better"
    assert found.comparison.after > 200
    assert "no request to the legacy worker ended within 1 s" in found.comparison.reason
    assert found.slowest == 1
    assert (found.old, len(found.new)) == ((), 1)
    text = draw(found, tmp_path)
    assert "ollama" in text


def test_a_new_one_that_ends_nothing_in_time(here: Host) -> None:
    with paced.serving(**FAST) as old, paced.serving(**SLOW["slow"]) as new:
        ends = ("127.0.0.1", old.port), ("127.0.0.1", new.port)
        with pytest.raises(TooSlow, match="did not end within 1 s"):
            measure_both(here, *ends, "paced", BRIEF, 0.1)


def test_both_have_the_model_before_anything_counts(here: Host) -> None:
    """The new one has just been given it, and a load within the measurement would be its loss."""
    with paced.serving(**FAST) as old, paced.serving(**FAST, cold=True, load=0.5) as new:
        ends = ("127.0.0.1", old.port), ("127.0.0.1", new.port)
        found = measure_both(here, *ends, "paced", BRIEF, 0.1)
        loads, records = new.read_loads(), new.read_records()
        paths = {record.path for record in old.read_records()}
    # Loaded and kept first; left to the server's own time at the end.
    assert loads == [KEEP, None]
    assert {record.load for record in records} == {0.0}
    assert {record.path for record in records} == {"/api/generate"}
    assert paths == {"/v1/completions"}
    assert found.comparison.ratio == pytest.approx(1, abs=0.15)
    sides = [
        {sample.prompt_tokens for repeat in level.repeats for sample in repeat.valid}
        for level in (*found.old, *found.new)
    ]
    assert sides[0] == sides[1]


def test_a_load_within_the_measurement_is_no_slowness_of_the_new_one(here: Host) -> None:
    with paced.serving(**FAST) as old, paced.serving(**FAST, trap="reload", load=0.3) as new:
        ends = ("127.0.0.1", old.port), ("127.0.0.1", new.port)
        with pytest.raises(StepError, match="loaded the model for this request"):
            measure_both(here, *ends, "paced", BRIEF, 0.1)


def draw(found: measuring.Measured, directory: Path) -> str:
    """The table and the page of what a move collects."""
    old, new = (
        make_measurement("ai1", target, service, engine, "tiny", each, "moved", 1.7e9)
        for target, service, engine, each in (
            ("openai", "llm", "llama.cpp", found.old),
            ("ollama", "ollama", "ollama", found.new),
        )
    )
    path = directory / "ai1.json"
    path.write_text(make_result(found, old, new, PROFILE).model_dump_json())
    results = pictures.read_all([path])
    out = io.StringIO()
    table.show(results, out, 200)
    assert "before" in out.getvalue()
    (directory / "table.txt").write_text(out.getvalue())
    return pictures.write_pages(results, directory / "pages", png=False).read_text()


def test_before_and_after_as_a_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a move collects is what pictures are made of."""
    found = measured(monkeypatch, levels(0.2), levels(1.0))
    assert found.comparison.ratio > 3
    text = draw(found, tmp_path)
    assert "ollama" in text
    assert "llama.cpp" in text
    assert "<svg" in text


def test_a_picture_says_what_decided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measured in turns, both are disturbed by the same: what is noisy alone decides here."""
    old, new = levels(0.2), levels(1.0)
    disturbed = tuple(level.model_copy(update={"noisy": "the host was busy"}) for level in new)
    found = measured(monkeypatch, old, disturbed)
    assert found.comparison.outcome == "noisy"
    assert found.comparison.p < SIGNIFICANT
    draw(found, tmp_path)
    text = (tmp_path / "table.txt").read_text()
    assert "throughput is better than before" in text
    assert "throughput is too noisy" not in text


def test_a_round_trip_that_was_not_measured_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = draw(measured(monkeypatch, levels(0.2), levels(1.0)), tmp_path)
    words = re.sub("<[^>]*>", " ", text).split()
    at = words.index("round")
    assert words[at : at + 4] == ["round", "trip", MISSING, "before"]


@pytest.mark.parametrize("connections", [0, 1])
def test_one_that_may_end_an_answer_is_asked_by_the_rule_of_a_benchmark(
    here: Host, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    server = Server(connections=connections, usage=Usage(used=0.0, during=0.5))
    machine = Machine(now=1.7e9, servers=(server,))
    monkeypatch.setattr(occupation, "_read_machine", lambda *_: machine)
    spec = BenchmarkSpec(project="ai", target="openai", service="llm")
    with paced.serving(**FAST, trap="interrupts") as running:
        found = read_answer(here, spec, "127.0.0.1", running.port)
        assert found is not None
        assert found.serial
        assert bool(found.silence) is bool(connections)
        assert found.names == (() if connections else ("paced",))
