"""How often the benchmark's gate is wrong: ``python -m tests.benchmarks.gate [SERIES]``.

Computed, not measured: servers of a known speed are measured fifty times each, with noise of known
kinds, and the record goes from one run to the next as it does on a host.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from tests.unit.benchmark_world import Noise, Series

#: What differs: of whole runs, of repeats, and of requests.
KINDS: Mapping[str, Mapping[str, float]] = {
    "runs 1 %": {"run": 0.01, "repeat": 0.01, "request": 0.02},
    "runs 2 %": {"run": 0.02, "repeat": 0.01, "request": 0.02},
    "runs 3 %": {"run": 0.03, "repeat": 0.01, "request": 0.02},
    "runs 5 %": {"run": 0.05, "repeat": 0.02, "request": 0.02},
    "repeats 4 %": {"repeat": 0.04, "request": 0.05},
    "requests 50 %": {"request": 0.5},
    "hogged repeats": {"repeat": 0.02, "hogged": 0.3, "hog": 2.0},
}

RUNS = 50


def count_alarms(kind: str, seed: int, runs: int = RUNS) -> int:
    """Runs of an unchanged server that fail."""
    series = Series(Noise(seed=seed, **KINDS[kind]))
    return sum(bool(series.run()) for _ in range(runs))


def has_caught(kind: str, seed: int, slower: float, runs: int = 20) -> tuple[bool, bool]:
    """Whether a server that becomes slower fails, and whether it fails still five runs later."""
    series = Series(Noise(seed=seed, **KINDS[kind]))
    for _ in range(runs):
        series.run()
    found = [bool(series.run(slower)) for _ in range(5)]
    return found[0], found[-1]


def list_rows(series: int) -> Iterator[str]:
    """The table, line by line."""
    titles = ("false alarms", "20 % slower", "43 % slower", "5 runs on")
    yield " ".join((f"{'noise':16}", *(f"{title:>12}" for title in titles)))
    for kind in KINDS:
        alarms = sum(count_alarms(kind, seed) for seed in range(series)) / (series * RUNS)
        small = [has_caught(kind, seed, 1.2) for seed in range(series)]
        great = [has_caught(kind, seed, 1 / 0.7) for seed in range(series)]
        shares = (
            sum(row[0] for row in small) / series,
            sum(row[0] for row in great) / series,
            sum(row[1] for row in great) / series,
        )
        yield f"{kind:16} {alarms:12.1%} {shares[0]:12.0%} {shares[1]:12.0%} {shares[2]:12.0%}"


if __name__ == "__main__":
    # Intervals decide nothing here, and take most of the time.
    sys.modules["scipy.stats"] = None  # type: ignore[assignment]
    for line in list_rows(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        print(line, flush=True)
