"""The table of a terminal."""

from __future__ import annotations

import io
import re

import pytest

from stackmend.worker.benchmark.state import Load, Shortfall
from stackmend.worker.pictures import show
from stackmend.worker.pictures.page import render
from tests.unit.benchmark_results import LOADS, make_queue_result, make_result
from tests.unit.pictures_pages import read_tables


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def show_all(out: io.TextIOBase | None = None) -> str:
    out = out or io.StringIO()
    show(
        [
            make_result("ai1", baseline_speed=1.4, noisy="spread of 14 %", invalid=("short",)),
            make_result("ai2", speed=0.001),
            make_queue_result("ai3"),
        ],
        out,  # type: ignore[arg-type]
    )
    return out.getvalue()  # type: ignore[attr-defined]


def test_it_has_eighty_columns_and_no_colour_where_it_is_no_terminal() -> None:
    output = show_all()
    assert max(map(len, output.splitlines())) <= 80
    assert "\x1b" not in output
    assert "…" not in output, "no figure is cut"
    assert "! noisy at concurrency 8: spread of 14 %" in output
    assert "20 samples do not count: 20 short" in output


def test_its_figures_are_those_of_the_page() -> None:
    result = make_result("ai1", baseline_speed=1.4)
    out = io.StringIO()
    show([result], out)
    tables = {table.title: table for table in read_tables(render([result]))}
    rows = [line.split() for line in out.getvalue().splitlines() if re.match(r"\s+\d+\s", line)]
    assert [row[0] for row in rows] == ["1", "2", "4", "8"]
    for index, row in enumerate(rows):
        assert row[1] == tables["Throughput"].column("median tok/s")[index].text
        assert row[3] == tables["Time to first token"].column("median ms")[index].text
        assert row[4] == tables["Time to first token"].column("95th ms")[index].text
        assert row[5] == tables["Time for each further token"].column("median ms")[index].text
        assert row[-2:] == ["▼", "worse"]


def test_what_fails_for_its_minimum_says_so_first() -> None:
    result = make_result("ai1", noisy="spread of 14 %")
    shortfall = Shortfall(figure="output_tps", minimum=5000, value=793.4, most=1203.2)
    out = io.StringIO()
    show([result.model_copy(update={"shortfalls": (shortfall,)})], out)
    lines = [line for line in out.getvalue().splitlines() if line]
    assert sum(line.rstrip().endswith("▼ minimum") for line in lines) == len(LOADS)
    first = next(at for at, line in enumerate(lines) if line.startswith("!"))
    notes = " ".join(" ".join(lines[first:]).split())
    assert notes.startswith(
        "! below minimum 5,000 tok/s: throughput is 793 at its best load, 1,203 in its best repeat"
    )
    assert max(map(len, lines)) <= 80


def test_a_minimum_that_noise_may_hide_is_no_failure() -> None:
    shortfall = Shortfall(figure="goodput", minimum=2, value=1.5, noise="spread of 14 %")
    result = make_result("ai1").model_copy(update={"shortfalls": (shortfall,)})
    page = render([result, make_result("ai2")])
    assert "minimum 2 requests/s not reached" in page
    assert "▼ minimum" not in page
    failed = result.model_copy(
        update={"shortfalls": (shortfall.model_copy(update={"again": True}),)}
    )
    page = render([failed, make_result("ai2")])
    assert "below minimum 2 requests/s" in page
    assert page.count("▼ minimum") == 1, "a minimum is one of throughput"


def test_a_terminal_gets_colours() -> None:
    output = show_all(Terminal())
    assert "\x1b[31m" in output
    assert "▼" in output


def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in show_all(Terminal())


def test_an_output_that_knows_ascii_only_gets_ascii() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show([make_result("größe", baseline_speed=1.4)], out)
    out.flush()
    output = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "########" in output
    assert "worse" in output


@pytest.mark.parametrize(
    "name", ["\x1b]0;owned\x07", "[red]x[/red]", "a\nb", "\u202egnp", ":smile:"]
)
def test_a_hostile_name_steers_nothing(name: str) -> None:
    out = io.StringIO()
    show([make_result(name, model=name, loads=LOADS[:1])], out)
    output = out.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", output)
    if name[0] in "[:":
        assert output.startswith(name)


def test_a_rate_and_a_missing_figure_are_shown() -> None:
    out = io.StringIO()
    show([make_result(loads=(Load(rate=0.5),), invalid=("error",) * 4)], out)
    (row,) = (line.split() for line in out.getvalue().splitlines() if "0.5/s" in line[:12])
    assert row == ["0.5/s", "-", "-", "-", "-", "-", "!", "0/20", "-"]


@pytest.mark.parametrize(
    ("named", "digest", "shown"),
    [("qwen3:8b", "a" * 64, "qwen3:8b"), ("", "b" * 64, "b" * 12), ("", "tiny 5", "tiny 5")],
)
def test_a_model_is_shown_by_its_name(named: str, digest: str, shown: str) -> None:
    result = make_result("ai1")
    fingerprint = result.measurement.fingerprint.model_copy(update={"model": digest})
    update = {"model": named, "fingerprint": fingerprint}
    out = io.StringIO()
    show(
        [result.model_copy(update={"measurement": result.measurement.model_copy(update=update)})],
        out,
    )
    assert f", model {shown}, on cpu" in out.getvalue().replace("\n", "")
