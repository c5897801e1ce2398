"""Both as they were measured: what decides, and pictures of before and after."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from stackmend.worker import pictures
from stackmend.worker.benchmark.spec import Profile
from stackmend.worker.benchmark.state import Level
from stackmend.worker.move import measuring
from stackmend.worker.move.measuring import make_measurement, make_result, measure
from stackmend.worker.pictures import table
from tests.unit import benchmark_results

PROFILE = Profile(concurrency=(1,), output_tokens=60, timeout=60, repeats=5)


def levels(speed: float) -> tuple[Level, ...]:
    """What a server of some speed was measured at, one request at a time."""
    return benchmark_results.make_result(speed=speed).measurement.levels[:1]


def silent(*found: Level) -> tuple[Level, ...]:
    """The same of one that ended no request in its time."""
    raw: list[dict[str, Any]] = [level.model_dump(mode="json") for level in found]
    for level in raw:
        for repeat in level["repeats"]:
            for sample in repeat["samples"]:
                sample |= {"invalid": "timeout", "reason": "too slow", "end": 60.0, "last": None}
    return tuple(Level.model_validate(level) for level in raw)


def measured(
    monkeypatch: pytest.MonkeyPatch, old: tuple[Level, ...], new: tuple[Level, ...]
) -> measuring.Measured:
    monkeypatch.setattr(measuring, "measure_interleaved", lambda *_: (old, new))
    ends = ("172.18.0.2", 8080), ("172.18.0.3", 11434)
    return measure(None, *ends, "tiny", PROFILE, 0.1)  # type: ignore[arg-type]


def test_a_legacy_worker_that_ends_nothing_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    new = levels(1.0)
    found = measured(monkeypatch, silent(*levels(1.0)), new)
    assert found.comparison.before == 1.0
    assert found.comparison.ratio == found.comparison.after
    assert found.comparison.p < 0.05
    assert "no request to the legacy worker ended within 60 s" in found.comparison.reason
    assert found.slowest == 60.0


def test_both_end_nothing_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(measuring.StepError, match="legacy worker cannot be measured"):
        measured(monkeypatch, silent(*levels(1.0)), silent(*levels(1.0)))


def test_before_and_after_as_a_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a move collects is what pictures are made of."""
    found = measured(monkeypatch, levels(0.2), levels(1.0))
    assert found.comparison.ratio > 3
    old, new = (
        make_measurement("ai1", service, engine, "tiny", each, "moved", 1.7e9)
        for service, engine, each in (
            ("llm", "llama.cpp", found.old),
            ("ollama", "ollama", found.new),
        )
    )
    path = tmp_path / "ai1.json"
    path.write_text(make_result(found, old, new, PROFILE).model_dump_json())
    results = pictures.read_all([path])
    out = io.StringIO()
    table.show(results, out, 200)
    assert "before" in out.getvalue()
    text = pictures.write_pages(results, tmp_path / "pages", png=False).read_text()
    assert "ollama" in text
    assert "llama.cpp" in text
    assert "<svg" in text
