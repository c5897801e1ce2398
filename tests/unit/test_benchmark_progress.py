"""The progress of a measurement, where it has a terminal and where it has none."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from stackmend.reporting import announce, bars
from stackmend.worker.benchmark import progress

HOST: Any = SimpleNamespace(name="ai1")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(announce, "show_line", lambda _, text: shown.append(text))
    return shown


def set_clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))


def test_a_line_now_and_then_says_what_is_left(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "make_console", lambda: Console(file=io.StringIO()))
    set_clock(monkeypatch, 100)
    with progress.display(HOST, "service ollama") as update:
        set_clock(monkeypatch, 110)
        update(10, 80, "concurrency 1, repeat 1 of 5")
        # It is too early for a line.
        assert lines == []
        set_clock(monkeypatch, 140)
        update(0, 80, "concurrency 1, warm-up")
        assert lines == [], "nothing is known of what is left"
        update(20, 80, "concurrency 1, repeat 2 of 5")
        update(21, 80, "concurrency 1, repeat 2 of 5")
        assert lines == [
            "service ollama: 20 of 80 requests, concurrency 1, repeat 2 of 5, about 2 min left"
        ]
        set_clock(monkeypatch, 180)
        update(60, 80, "concurrency 2, repeat 4 of 5")
        assert lines[1:] == [
            "service ollama: 60 of 80 requests, concurrency 2, repeat 4 of 5, about 1 min left"
        ]
        # Nothing is left at the end.
        set_clock(monkeypatch, 300)
        update(80, 80, "concurrency 2, repeat 5 of 5")
    assert len(lines) == 2


def test_a_terminal_has_a_bar_with_the_time_that_is_left(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "make_console", lambda: console)
    monkeypatch.setattr(bars, "make_console", lambda: console)
    with progress.display(HOST, "service ollama") as update:
        update(20, 80, "concurrency 1, repeat 2 of 5")
        board = progress._board._progress
        assert board is not None
        board.refresh()
        (task,) = board.tasks
        assert (task.completed, task.total) == (20, 80)
    assert "ai1 service ollama" in out.getvalue()
    assert "20/80" in out.getvalue()
    assert "-:--:--" in out.getvalue(), "the time that is left, once it is known"
    # The bar goes with the measurement.
    assert progress._board._progress is None
    assert lines == []
