"""Collected results, and files that are none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackmend.worker.benchmark import reader
from stackmend.worker.pictures import ResultError, read, read_all
from tests.unit.benchmark_results import make_result

Change = Callable[[dict[str, Any]], object]


def write(path: Path, change: Change = lambda data: None) -> Path:
    data = json.loads(make_result(past=2, baseline_speed=1.2).model_dump_json())
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = make_result(past=2, baseline_speed=1.2)
    assert read(write(tmp_path / "ai1.json")) == result


def test_all_are_read_in_their_order(tmp_path: Path) -> None:
    paths = []
    for host in ("b", "a"):
        paths.append(tmp_path / f"{host}.json")
        paths[-1].write_text(make_result(host).model_dump_json())
    assert [result.measurement.host for result in read_all(paths)] == ["b", "a"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.pop("summaries"), "summaries: missing"),
        (lambda d: d.update(more=1), "more: unknown key"),
        (
            lambda d: d["measurement"].update(schema_version=2),
            "measurement.schema_version: must be 1; got 2; measure again",
        ),
        (
            lambda d: d["summaries"][1]["median"].update(output_tps="nan"),
            "summaries[1].median.output_tps: must be a number",
        ),
        (
            lambda d: d["summaries"][1]["median"].update(output_tps=-1),
            "summaries[1].median.output_tps: must be from 0 to 1e+12; got -1",
        ),
        (
            lambda d: d["baseline_summaries"][0]["ttft"].update(high=1e13),
            "baseline_summaries[0].ttft.high: must be from 0 to 1e+12",
        ),
        (
            lambda d: d["comparisons"][0].update(outcome="fine"),
            "comparisons[0].outcome: must be",
        ),
        (
            lambda d: d["history"][0].update(at=True),
            "history[0].at: must be a number",
        ),
        (
            lambda d: d.update(history=d["history"] * 6000),
            "history: 12000 entries are more than 10000",
        ),
        (
            lambda d: d.update(summaries=d["summaries"] * 20),
            "summaries: 80 entries are more than 64",
        ),
        (lambda d: d["measurement"].update(host=5), "measurement.host: must be"),
        (lambda d: d.update(measurement=[]), "measurement: must be a mapping"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, change: Change, reason: str) -> None:
    path = write(tmp_path / "ai1.json", change)
    with pytest.raises(ResultError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is no result of a benchmark, as it is no JSON: Expecting value"),
        (b"[]", "must be a mapping"),
        (b"\xff", "'utf-8' codec"),
        (b'{"a": 1, "a": 2}', "an object names a key twice"),
        (b'{"history": [{"at": NaN}]}', "a number is not finite"),
        (b'{"history": [{"at": 1e999}]}', "a number is not finite"),
        (b"[" * 100_000, "it lies deeper than"),
    ],
)
def test_what_is_no_json_of_ours_is_one_error(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "ai1.json"
    path.write_bytes(content)
    with pytest.raises(ResultError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {reason}")


def test_a_pipe_and_a_missing_file_are_errors_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ResultError, match=r"pipe\.json: .*pipe"):
        read(tmp_path / "pipe.json")
    with pytest.raises(ResultError, match=r"missing\.json: "):
        read(tmp_path / "missing.json")


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAXIMUM", 1000)
    with pytest.raises(ResultError, match=r"ai1\.json: "):
        read(write(tmp_path / "ai1.json"))


def test_too_many_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="1001 results are more than the 1000"):
        read_all([tmp_path / "ai1.json"] * 1001)


def test_a_file_is_readable_as_long_as_it_is_a_result(tmp_path: Path) -> None:
    path = tmp_path / "ai1.json"
    assert not reader.is_readable(path)
    write(path)
    assert reader.is_readable(path)
    write(path, lambda data: data["summaries"][0]["output_tps"].update(median=1e300))
    assert not reader.is_readable(path)
    write(path)
    assert reader.is_readable(path)
    path.write_text(path.read_text()[:-10])
    assert not reader.is_readable(path)


def test_a_file_that_stays_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "ai1.json")
    read_before = reader.read
    seen: list[Path] = []
    monkeypatch.setattr(reader, "read", lambda file: seen.append(file) or read_before(file))
    assert [reader.is_readable(path) for _ in range(3)] == [True] * 3
    assert seen == [path]
