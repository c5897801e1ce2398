"""How fast the paced server is: by its settings, and by what it recorded."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.paced.server import Pace, Record


@dataclass(frozen=True)
class Truth:
    """What a perfect client would find.

    + output_tps: tokens by the time from the first request to the end of the last answer
    + ttft: median of the seconds from a request to its first token
    + tpot: seconds for each token after the first
    + wall: seconds
    """

    output_tps: float
    ttft: float
    tpot: float
    wall: float


def compute_truth(pace: Pace, concurrency: int, requests: int, tokens: int) -> Truth:
    """By the settings: requests of a closed loop that wait for a slot in order."""
    service = pace.ttft + (tokens - 1) * pace.tpot
    ready = [0.0] * min(concurrency, requests)
    free = [0.0] * pace.slots
    waits: list[float] = []
    wall = 0.0
    heapq.heapify(ready)
    heapq.heapify(free)
    for _ in range(requests):
        sent = heapq.heappop(ready)
        began = max(sent, heapq.heappop(free))
        heapq.heappush(free, began + service)
        heapq.heappush(ready, began + service)
        waits.append(began - sent + pace.ttft)
        wall = max(wall, began + service)
    return Truth(requests * tokens / wall, statistics.median(waits), pace.tpot, wall)


def read_truth(records: Sequence[Record]) -> Truth:
    """By what was sent when, whatever the machine was busy with meanwhile."""
    wall = max(record.ended for record in records) - min(record.arrived for record in records)
    return Truth(
        output_tps=sum(record.tokens for record in records) / wall,
        ttft=statistics.median(record.first - record.arrived for record in records),
        tpot=statistics.median(
            (record.last - record.first) / (record.tokens - 1) for record in records
        ),
        wall=wall,
    )
