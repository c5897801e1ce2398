"""Measurements of servers that are only computed: of a known speed, with noise of a known kind."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stackmend.worker.benchmark import statistics
from stackmend.worker.benchmark.spec import Limits
from stackmend.worker.benchmark.state import (
    Comparison,
    Conditions,
    Entry,
    Fingerprint,
    Level,
    Load,
    Repeat,
    Sample,
    Summary,
)

TTFT, TPOT, TOKENS = 0.2, 0.02, 64

FINGERPRINT = Fingerprint(
    parameters="protocol 1, prompt 512, output 64",
    engine="ollama",
    version="0.33.0",
    image="sha256:aa",
    model="sha256:bb",
    cpu="EPYC 7003",
    cores=8,
    threads=4,
    memory=64 << 30,
)


class Noise:
    """What disturbs a server: each repeat, and each request, gets a factor of its own.

    + repeat: standard deviation of a repeat's factor
    + request: the same of each request's
    + hogged: how probable it is that a repeat shares the CPU with something else
    + hog: by what that slows it
    """

    def __init__(
        self,
        repeat: float = 0.0,
        request: float = 0.0,
        hogged: float = 0.0,
        hog: float = 2.0,
        seed: int = 0,
    ) -> None:
        self.random = random.Random(seed)
        self.repeat, self.request, self.hogged, self.hog = repeat, request, hogged, hog

    def draw(self) -> float:
        factor = self.random.lognormvariate(0, self.repeat)
        return factor * (self.hog if self.random.random() < self.hogged else 1)

    def delay(self, seconds: float) -> float:
        return seconds * self.random.lognormvariate(0, self.request)


def measure(
    noise: Noise,
    slower: float = 1.0,
    loads: Sequence[int] = (1, 2, 4, 8),
    repeats: int = 5,
    slots: int = 4,
    conditions: Conditions | None = None,
) -> tuple[Level, ...]:
    """All levels of a server with so many slots, whose decoding is slower by a factor."""
    levels = []
    for concurrency in loads:
        rows = []
        for _ in range(repeats):
            factor = noise.draw()
            samples: list[Sample] = []
            free = [0.0] * slots
            clients = [0.0] * concurrency
            for _ in range(max(8, 4 * concurrency)):
                client = min(range(concurrency), key=clients.__getitem__)
                slot = min(range(slots), key=free.__getitem__)
                sent = clients[client]
                begin = max(sent, free[slot])
                ttft = noise.delay(TTFT * factor)
                decode = noise.delay(TPOT * slower * factor * (TOKENS - 1))
                end = begin + ttft + decode
                free[slot] = clients[client] = end
                samples.append(
                    Sample(
                        sent=sent,
                        ttft=begin - sent + ttft,
                        ttft_output=begin - sent + ttft,
                        last=end - sent,
                        end=end - sent,
                        prompt_tokens=512,
                        output_tokens=TOKENS,
                        chunks=TOKENS,
                        load=0.0,
                        prefill=ttft,
                        decode=decode,
                        total=end - sent,
                    )
                )
            wall = max(sample.sent + sample.end for sample in samples)
            rows.append(
                Repeat(wall=wall, samples=tuple(samples), conditions=conditions or Conditions())
            )
        levels.append(Level(load=Load(concurrency=concurrency), repeats=tuple(rows)))
    return tuple(levels)


def summarize(levels: Sequence[Level], rtt: float = 0.0) -> tuple[Summary, ...]:
    return tuple(statistics.summarize(level, Limits(), rtt) for level in levels)


def entry(
    levels: Sequence[Level], at: float = 1000.0, fingerprint: Fingerprint = FINGERPRINT
) -> Entry:
    return Entry(
        at=at, cause="never measured", fingerprint=fingerprint, summaries=summarize(levels)
    )


def hold(
    before: Sequence[Level], noise: Noise, slower: float = 1.0, loads: Sequence[int] = (1, 2, 4, 8)
) -> tuple[Comparison, ...]:
    """Measure, compare, and measure again what is unsure: as the reconciler does."""
    base = summarize(before)
    levels = measure(noise, slower, loads)
    found = statistics.compare(base, summarize(levels), 0.1)
    if unsure := statistics.find_unsure(found):
        more = measure(noise, slower, [load.concurrency for load in unsure])
        levels = statistics.add_repeats(levels, more)
        found = statistics.compare(base, summarize(levels), 0.1)
    return found
