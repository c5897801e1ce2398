"""The cost of a host, computed from runs over fleets of known cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.benchmarks.fleet import Row, find_cost, find_growth, list_lines, list_targets


def make_rows(cpu: Callable[[int], float], *names: int) -> list[Row]:
    return [Row(number, 1 + number / 10, cpu(number), 80 + number / 8) for number in names]


def test_the_start_of_a_run_is_no_cost_of_a_host() -> None:
    cost = find_cost(make_rows(lambda names: 1.5 + 0.03 * names, 1, 16, 200))
    assert cost is not None
    assert cost.cpu == pytest.approx(0.03)
    assert cost.memory == pytest.approx(0.131, abs=0.001)


def test_few_names_have_a_slope_as_well() -> None:
    # What a first host alone costs is not that of a further one where there are enough of them.
    cpu = {1: 1.0, 4: 2.0, 16: 2.6, 50: 4.3}
    few = find_cost(make_rows(lambda names: cpu[names], 1, 4, 16))
    more = find_cost(make_rows(lambda names: cpu[names], *cpu))
    assert few is not None
    assert more is not None
    assert few.cpu == pytest.approx(1.6 / 15)
    assert more.cpu == pytest.approx(1.7 / 34)
    assert find_cost(make_rows(lambda names: cpu[names], 4)) is None


@pytest.mark.parametrize(
    ("cpu", "met"),
    [
        (lambda names: 1 + 0.03 * names, [True, True, True]),
        (lambda names: 1 + 0.04 * names, [False, True, True]),
        (lambda names: 1 + 0.01 * names + 0.0001 * names**2, [True, True, False]),
    ],
)
def test_what_is_reached(cpu: Callable[[int], float], met: list[bool]) -> None:
    rows = make_rows(cpu, 1, 16, 50, 200)
    assert [reached for _, reached in list_targets(rows)] == met


def test_linearity_needs_both_numbers() -> None:
    assert find_growth(make_rows(float, 1, 50, 200)) == pytest.approx(1)
    for names in [(1, 16), (1, 200), (50, 200)]:
        assert find_growth(make_rows(float, *names)) is None


def test_the_table_has_both_side_by_side() -> None:
    ours, stock = (
        make_rows(lambda names, each=each: 1 + each * names, 1, 50) for each in (0.03, 0.06)
    )
    lines = list(list_lines({"stackmend": ours, "stock": stock}))
    assert lines[3].split() == "50 | 6.00 6.00 1.00 | 2.50 4.00 0.62 | 86.25 86.25 1.00".split()
    assert "a host costs 30.00 ms of CPU, stock 60.00: 0.50 times" in lines
