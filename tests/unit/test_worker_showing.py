"""What a run shows of its benchmarks when it has ended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.context import ctx_host

from stackmend import reporting, worker
from stackmend.reporting import Ending, collect, write
from stackmend.worker import pictures
from stackmend.worker.benchmark import reader
from stackmend.worker.pictures import ExtraMissingError
from stackmend.worker.showing import Benchmarks
from tests.unit.benchmark_results import make_result


@pytest.fixture
def collected(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "benchmarks" / f"{name}.json" for name in ("b", "a")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(make_result(path.stem).model_dump_json())
    return paths


def show(collected: list[Path], directory: Path) -> None:
    benchmarks = Benchmarks()
    for path in (*collected, *collected):
        benchmarks.add(path)
    benchmarks.show(directory)


def test_a_run_ends_with_a_table_of_all_hosts_and_a_page(
    collected: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(collected, tmp_path)
    shown = capsys.readouterr().err
    page = tmp_path / "benchmarks" / "benchmark.html"
    assert f"the benchmarks as a page: {page}" in shown
    titles = [line for line in shown.splitlines() if line.startswith(("a", "b"))]
    assert len(titles) == 2, shown
    assert "<script" not in page.read_text()


def test_a_file_that_is_no_result_is_named_and_the_others_are_shown(
    collected: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collected[0].write_text(collected[0].read_text()[:1000])
    missing = tmp_path / "c.json"
    show([*collected, missing], tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert [line[0] for line in lines if line.startswith(("a", "b"))] == ["a"], lines
    problems = [line for line in lines if "not shown" in line]
    assert [collected[0].name in problems[0], missing.name in problems[1]] == [True, True]
    assert problems[0].endswith("; remove it, then run again")
    assert problems[1].endswith("; run again")
    assert (tmp_path / "benchmarks" / "benchmark.html").exists()


def test_where_no_file_is_a_result_each_is_named(
    collected: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in collected:
        path.write_text("")
    show(collected, tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_of_more_results_than_a_page_has_the_first_are_shown(
    collected: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "MAXIMUM_RESULTS", 1)
    show(collected, tmp_path)
    shown = capsys.readouterr().err
    assert "1 of 2 results are beyond the 1 of one page; run python -m" in shown
    assert [line[0] for line in shown.splitlines() if line.startswith(("a", "b"))] == ["a"]


def test_without_the_extra_the_table_alone_is_shown(
    collected: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> Path:
        raise ExtraMissingError("pip install 'stackmend[benchmark]'")

    monkeypatch.setattr(pictures, "write_page", refuse)
    show(collected, tmp_path)
    shown = capsys.readouterr().err
    assert "concurrency" in shown
    assert "no page of the benchmarks: pip install 'stackmend[benchmark]'" in shown


def test_a_run_without_a_benchmark_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Benchmarks().show(tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("operation", "options"),
    [
        (worker.benchmarked, {"project": "ai"}),
        (worker.engine, {"project": "ai", "source": "tests/unit", "directory": "/opt/ai"}),
    ],
)
def test_what_measures_hands_its_results_to_the_end_of_the_run(
    operation: Any, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []
    monkeypatch.setattr(worker, "operate", lambda *each, **_: built.append(each[2]) or ())
    ending = Benchmarks()
    monkeypatch.setattr(reporting, "get_ending", lambda _, kind: {Benchmarks: ending}[kind])
    host: Any = SimpleNamespace(name="h", state=None)
    with ctx_host.use(host):
        assert list(operation._inner(**options)) == []
    built[0](None).on_result(Path("a.json"))
    assert [*ending._paths] == [Path("a.json")]


def test_an_ending_that_fails_keeps_no_other_from_being_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Ending):
        def show(self, directory: Path) -> None:
            raise ValueError("a\x1b[31mb")

    class Other(Ending):
        def show(self, directory: Path) -> None:
            print("shown in", directory)

    state = SimpleNamespace(inventory=[], cwd=str(tmp_path))
    run = collect.Run(state, dry=False)  # type: ignore[arg-type]
    assert run.get_ending(Failing) is run.get_ending(Failing)
    run.get_ending(Other)
    write._show_endings(run)
    out, err = capsys.readouterr()
    assert out == f"shown in {tmp_path / 'var/reports'}\n"
    assert "\x1b" not in err
    assert "--> stackmend: a" in err
