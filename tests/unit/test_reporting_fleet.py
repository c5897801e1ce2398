"""A fleet now: what is known of hosts that a run left out, their history, and what they have."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from stackmend.reporting import fleet, page, reader, write
from stackmend.reporting.state import MEANINGS, Outcome, RunRecord
from stackmend.worker import pictures
from tests.unit.benchmark_results import make_result
from tests.unit.test_reporting_page import DIAGNOSIS, NOW, operation, parse, record


def ago(minutes: float, hosts: dict[str, Outcome], **changes: Any) -> RunRecord:
    listed = {name: {"outcome": outcome} for name, outcome in hosts.items()}
    return record(listed, NOW - timedelta(minutes=minutes), **changes)


def save(directory: Path, run: RunRecord, number: int) -> Path:
    return write.save(run.model_dump(mode="json"), directory, run.ended, f"{number:06x}")


def test_a_host_that_the_run_left_out_stands_with_its_latest_record() -> None:
    before = [ago(10, {"a": "failed", "b": "failed"}), ago(5, {"b": "converged"})]
    run = ago(0, {"a": "changed"}, left_out=("b", "c"))
    here, left_out, never = fleet.build_statuses(run, before)
    assert (here.name, here.place, here.run) == ("a", "here", run)
    assert (left_out.name, left_out.place, left_out.run) == ("b", "left out", before[1])
    assert (never.name, never.place, never.host) == ("c", "left out", None)
    text = page.render(run, before)
    rows = {row[0]: row for row in parse(text).tables["Hosts"][1:]}
    assert rows["a"][7] == "in this run"
    assert rows["b"][1] == "converged"
    assert rows["b"][7] == "5 min before, left out of this run"
    assert rows["c"][1] == "not known"
    assert rows["c"][7] == "never, left out of this run"
    # Those that are known count, whoever was asked.
    assert "<title>2 hosts: 1 changed, 1 converged</title>" in text


def test_a_host_that_left_the_inventory_stands_last_and_counts_for_nothing() -> None:
    before = [ago(60, {"old": "failed", "b": "failed"})]
    statuses = fleet.build_statuses(ago(0, {"a": "converged"}, left_out=("b",)), before)
    assert [(each.name, each.place) for each in statuses] == [
        ("a", "here"),
        ("b", "left out"),
        ("old", "elsewhere"),
    ]
    assert page.format_outcomes(ago(0, {"a": "converged"}), statuses) == (
        "2 hosts: 1 failed, 1 converged"
    )


def test_the_history_of_a_host_joins_runs_that_ended_alike() -> None:
    ends: list[Outcome] = ["converged", "converged", "failed", "changed", "converged", "converged"]
    before = [ago(len(ends) - at, {"a": end}) for at, end in enumerate(ends)]
    before.append(ago(2.5, {"b": "failed"}))
    a, b = fleet.build_statuses(ago(0, {"a": "converged"}, left_out=("b",)), before)
    found = [(span.start, span.length, span.outcome) for span in a.spans]
    # The run that left it out parts what stands beside it.
    assert found == [
        *((0, 2, "converged"), (2, 1, "failed"), (3, 1, "changed")),
        (5, 3, "converged"),
    ]
    assert fleet.count_runs(a) == "7 runs: 5 converged, 1 changed, 1 failed"
    assert fleet.count_runs(b) == "1 run: 1 failed"
    assert a.since == NOW - timedelta(minutes=2)
    text = page.render(ago(0, {"a": "converged"}, left_out=("b",)), before)
    assert 'role="img" aria-label="7 runs: 5 converged, 1 changed, 1 failed"' in text
    assert "<title>3 times converged: 2026-01-02 03:02:05 UTC to 2026-01-02 03:04:05" in text


def test_a_history_is_as_long_as_it_can_be_read() -> None:
    before = [ago(at, {"a": "failed"}) for at in range(1, 2 * fleet.MOST_RUNS)]
    (status,) = fleet.build_statuses(ago(0, {"a": "converged"}), before)
    assert [span.length for span in status.spans] == [fleet.MOST_RUNS - 1, 1]
    text = page.render(ago(0, {"a": "converged"}), before)
    assert f'viewBox="0 0 {page.STEP * fleet.MOST_RUNS} {page.HEIGHT}"' in text


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_each_outcome_of_the_table_has_its_place(outcome: Outcome) -> None:
    text = page.render(ago(0, {"a": outcome}))
    mark = MEANINGS[outcome].mark
    assert f'<span class="outcome {mark}">{outcome}</span>' in text
    assert f"</svg> {outcome}</li>" in text, "the legend has it"
    assert f"<title>{outcome}: 2026" in text


def test_what_hosts_have_stands_once_the_worst_first() -> None:
    hosts = {name: {"outcome": "drifted", "diagnosis": DIAGNOSIS} for name in ("a", "b")} | {
        "c": {"outcome": "changed", "operations": [operation("web")]}
    }
    found = fleet.list_found(fleet.build_statuses(record(hosts), ()))
    assert [(each.word, each.mark, each.text, each.hosts) for each in found] == [
        ("failed", "bad", "web: web", ("c",)),
        (
            *("error", "bad"),
            "port-taken: A port that the stack needs is already allocated (127.0.0.1:8000/tcp)",
            ("a", "b"),
        ),
        ("refused", "warn", "web: web", ("c",)),
        ("warning", "warn", "disk: almost full", ("a", "b")),
        ("mended", "good", "web: web: web", ("c",)),
    ]


def test_pictures_of_benchmarks_stand_on_the_page() -> None:
    fragment = pictures.render_fragment([make_result("ai1", past=3), make_result("ai2")])
    text = page.render(ago(0, {"ai1": "converged"}), (), [fragment])
    assert "<h2>Benchmark: <bdi>ai1</bdi></h2>" in text
    assert "<h2>Benchmark: <bdi>ai2</bdi></h2>" in text
    assert fragment.style in text
    ids = parse(text).ids
    assert len(ids) == len({*ids})


def test_without_what_draws_them_their_tables_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pictures.ExtraMissingError("pictures need matplotlib")

    monkeypatch.setattr("stackmend.worker.pictures.page.check_extra", fail)
    body = pictures.render_fragment([make_result("ai1")]).body
    assert "<svg" not in body
    assert "without pictures: pictures need matplotlib" in body
    assert "<table>" in body


def test_the_latest_of_each_host_is_read_however_long_ago(tmp_path: Path) -> None:
    runs = [
        ago(100, {"old": "failed", "a": "failed"}),
        ago(99, {"old": "changed"}),
        *(ago(50 - at, {"a": "converged"}) for at in range(6)),
    ]
    paths = [save(tmp_path, run, number) for number, run in enumerate(runs)]
    paths[0].write_text("{")
    found = reader.list_before(paths[-1], 3)
    assert [[*run.hosts] for run in found] == [["old"], ["a"], ["a"], ["a"]]
    assert found[0].hosts["old"].outcome == "changed"
    # Fewer than are asked for.
    assert len(reader.list_before(paths[3], 60)) == 2


def test_a_fleet_of_many_records_is_read_in_no_time(tmp_path: Path) -> None:
    host = {"outcome": "failed", "operations": [operation("web")] * 4}
    text = record({f"ai{number}": host for number in range(4)}).model_dump_json()
    assert len(text) > 10_000
    first = tmp_path / "20260101T000000Z-000000.json"
    first.write_text(text)
    for number in range(1, write.KEEP):
        moment = NOW.replace(day=1, hour=0, minute=0, second=0) + timedelta(seconds=number)
        (tmp_path / f"{moment:%Y%m%dT%H%M%SZ}-00000f.json").hardlink_to(first)
    began = time.process_time()
    assert len(reader.list_before(tmp_path / "20260102T000000Z-000001.json", 60)) == 60
    assert time.process_time() - began < 10


# Old records.


def test_the_newest_records_are_kept_and_nothing_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "KEEP", 5)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "20200101T000000Z.json").write_text("mine")
    paths = [save(tmp_path, ago(60 - at, {"a": "converged"}), at) for at in range(12)]
    assert sorted(path.name for path in tmp_path.glob("*Z-*.json")) == [
        path.name for path in paths[-5:]
    ]
    assert (tmp_path / "latest.json").resolve() == paths[-1].resolve()
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "20200101T000000Z.json").exists()


def test_records_take_no_more_room_than_they_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(json.dumps(ago(0, {"a": "converged"}).model_dump(mode="json"), indent=1)) + 1
    monkeypatch.setattr(write, "KEEP_BYTES", 3 * size + size // 2)
    paths = [save(tmp_path, ago(60 - at, {"a": "converged"}), at) for at in range(6)]
    assert sorted(tmp_path.glob("*Z-*.json")) == paths[-3:]
    # However large it is, the last one stays.
    monkeypatch.setattr(write, "KEEP_BYTES", 1)
    last = save(tmp_path, ago(0, {"a": "converged"}), 99)
    assert [*tmp_path.glob("*Z-*.json")] == [last]


def test_what_cannot_be_removed_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "KEEP", 1)
    save(tmp_path, ago(9, {"a": "converged"}), 1)

    def fail(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "unlink", fail)
    assert save(tmp_path, ago(8, {"a": "converged"}), 2).exists()
