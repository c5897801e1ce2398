"""The host's journal, written by a real sh."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.reporting import journal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def entry(cause: str, undo: str = "") -> str:
    return journal.format_line(
        time=NOW,
        run="1a2b3c",
        room="compose.stack",
        action="start",
        subject="ai/redis",
        cause=cause,
        undo=undo,
    )


def append(text: str, path: Path, **options: int) -> subprocess.CompletedProcess[bytes]:
    command = journal.append(text, str(path), **options)
    return subprocess.run(["sh", "-c", command.get_raw_value()], capture_output=True, timeout=20)


def test_an_entry_says_when_what_why_and_how_to_undo_it(tmp_path: Path) -> None:
    path = tmp_path / "lib/stackmend/journal.jsonl"
    assert append(entry("exited", "docker stop redis"), path).returncode == 0
    assert append(entry("again"), path).returncode == 0
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "time": "2026-01-02T03:04:05.000+00:00",
        "run": "1a2b3c",
        "room": "compose.stack",
        "action": "start",
        "subject": "ai/redis",
        "cause": "exited",
        "undo": "docker stop redis",
    }
    assert second["cause"] == "again"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
@settings(deadline=None)  # a shell is started for each
@given(cause=st.text(max_size=200).filter(lambda text: "\x00" not in text))
def test_whatever_the_words_hold_arrives_and_never_runs(cause: str) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "it's $(touch bad)" / "journal.jsonl"
        result = append(entry(cause), path)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
        assert json.loads(path.read_text())["cause"] == cause
        assert [found.name for found in Path(directory).iterdir()] == ["it's $(touch bad)"]


@pytest.mark.parametrize("cause", ["x" * 100_000, "ü" * 20_000, '"\\' * 9000])
def test_a_long_entry_is_cut_to_what_is_written_at_once(cause: str) -> None:
    text = entry(cause, "undo " * 3000)
    assert len(text.encode()) <= journal.LINE_LIMIT
    assert json.loads(text)["cause"].endswith("…")
    assert json.loads(text)["room"] == "compose.stack"


def test_entries_of_many_writers_do_not_mix_and_rotation_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    text = entry("x" * 3500)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: append(text, path, rotate_at=300_000), range(100)))
    assert {result.returncode for result in results} == {0}
    lines = [
        line
        for name in ("journal.jsonl", "journal.jsonl.1")
        if (tmp_path / name).exists()
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert lines == [text] * 100
    assert (tmp_path / "journal.jsonl.1").stat().st_size >= 300_000


def test_one_older_journal_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in range(4):
        assert append(entry(f"number {number}"), path, rotate_at=1).returncode == 0
    assert "number 3" in path.read_text()
    assert "number 2" in (tmp_path / "journal.jsonl.1").read_text()
    names = {found.name for found in tmp_path.iterdir()}
    assert names <= {"journal.jsonl", "journal.jsonl.1", "journal.jsonl.lock"}


def test_a_journal_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lib").write_text("a file")
    assert append(entry("x"), tmp_path / "lib/stackmend/journal.jsonl").returncode != 0
