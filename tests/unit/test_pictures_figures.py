"""How figures are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.pages import COLOURS
from stackmend.worker import figures
from stackmend.worker.figures import Figure, Unit, format_figure, format_moment
from stackmend.worker.pictures.palette import MARKERS, SERIES


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (None, figures.TOKENS, "-"),
        (float("nan"), figures.TOKENS, "-"),
        (float("inf"), figures.TOKENS, "-"),
        (0.0, figures.TOKENS, "0"),
        (12, figures.PLAIN, "12"),
        (12.0, figures.PLAIN, "12.0"),
        (9.9996, figures.TOKENS, "10.0"),
        (99.96, figures.TOKENS, "100"),
        (999.7, figures.TOKENS, "1,000"),
        (1234.5, figures.TOKENS, "1,234"),
        (0.01234, figures.MILLISECONDS, "12.3"),
        (1e-6, figures.MILLISECONDS, "0.00100"),
        (1e-9, figures.PLAIN, "1.0e-09"),
        (1e300, figures.PLAIN, "1.00e+300"),
        (0.00794, figures.PROBABILITY, "0.0079"),
        (0.0146, figures.PERCENT, "1.5"),
        (1.0, figures.PERCENT, "100"),
        (0.5, figures.TASKS, "30.0"),
        (64 * 1024**3, figures.GIBIBYTES, "64.0"),
    ],
)
def test_a_figure_has_the_digits_that_count(value: float | None, unit: Unit, written: str) -> None:
    assert format_figure(value, unit) == written


@pytest.mark.parametrize(
    ("value", "written"), [(0.232, "+23.2"), (-0.6361, "-63.6"), (0.0, "0"), (-1e-5, "0")]
)
def test_a_change_has_its_sign(value: float, written: str) -> None:
    assert str(Figure(value, figures.PERCENT, signed=True)) == written


@given(st.floats(1e-3, 1e11))
def test_no_figure_is_far_from_what_is_stored(value: float) -> None:
    written = float(format_figure(value).replace(",", ""))
    assert written == pytest.approx(value, rel=0.0051)


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**30), 10**30))
def test_every_number_can_be_written_and_is_short(value: float) -> None:
    for unit in (figures.PLAIN, figures.MILLISECONDS, figures.PERCENT, figures.PROBABILITY):
        assert 0 < len(format_figure(value, unit)) < 24


def test_the_longest_time_decides_on_the_unit() -> None:
    assert figures.choose_time([0.1, None, 9.9]) is figures.MILLISECONDS
    assert figures.choose_time([0.1, 10.0]) is figures.SECONDS
    assert figures.choose_time([]) is figures.MILLISECONDS


@pytest.mark.parametrize("at", [1e300, -1e300, float("nan"), float("inf")])
def test_a_moment_that_no_calendar_has_is_missing(at: float) -> None:
    assert format_moment(at) == "-"


def test_a_moment_is_in_utc() -> None:
    assert format_moment(1_796_018_400) == "2026-11-30 06:00 UTC"
    assert format_moment(1_796_018_400, day=True) == "2026-11-30"


def measure_contrast(first: str, second: str) -> float:
    """By WCAG 2."""

    def shine(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((shine(first), shine(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("name", sorted({*COLOURS} - {"paper", "grid"}))
def test_every_colour_is_readable_on_its_paper(name: str, theme: int) -> None:
    assert measure_contrast(COLOURS[name][theme], COLOURS["paper"][theme]) >= 4.5


def test_lines_side_by_side_differ_in_colour_and_marker() -> None:
    assert len({COLOURS[name][0] for name in COLOURS}) == len(COLOURS)
    assert len({*SERIES}) == len({*MARKERS}) == 8


def test_measurements_of_one_day_have_their_time_below_the_picture() -> None:
    now, day = 1_796_018_400.0, 86400.0
    moments = [now - 2 * day, now - 7200, now - 3600]
    assert figures.format_moments([*moments, now]) == (
        "2026-11-28",
        "2026-11-30 04:00 UTC",
        "2026-11-30 05:00 UTC",
        "2026-11-30 06:00 UTC",
    )
