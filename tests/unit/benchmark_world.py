"""Measurements of servers that are only computed: of a known speed, with noise of a known kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from stackmend.worker.benchmark import baseline, plan, statistics
from stackmend.worker.benchmark.spec import BenchmarkSpec, Limits
from stackmend.worker.benchmark.state import (
    Comparison,
    Conditions,
    Entry,
    Fingerprint,
    Level,
    Load,
    Record,
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

    + run: standard deviation of the factor of a whole run
    + repeat: the same of a repeat's factor
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
        run: float = 0.0,
    ) -> None:
        self.random = random.Random(seed)
        self.run, self.factor = run, 1.0
        self.repeat, self.request, self.hogged, self.hog = repeat, request, hogged, hog

    def begin_run(self) -> None:
        """Draw the factor that all of a run has in common: where memory lies, the room's heat."""
        self.factor = self.random.lognormvariate(0, self.run) if self.run else 1.0

    def draw(self) -> float:
        factor = self.factor * self.random.lognormvariate(0, self.repeat)
        return factor * (self.hog if self.random.random() < self.hogged else 1)

    def delay(self, seconds: float) -> float:
        return seconds * self.random.lognormvariate(0, self.request)


def measure(
    noise: Noise,
    slower: float | Mapping[int, float] = 1.0,
    loads: Sequence[int] = (1, 2, 4, 8),
    repeats: int = 5,
    slots: int = 4,
    conditions: Conditions | None = None,
) -> tuple[Level, ...]:
    """All levels of a server with so many slots, whose decoding is slower by a factor."""
    levels = []
    for concurrency in loads:
        load = slower.get(concurrency, 1.0) if isinstance(slower, Mapping) else slower
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
                decode = noise.delay(TPOT * load * factor * (TOKENS - 1))
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
    """Measure, compare, and measure again what is unsure: as the reconciler does at first.

    How whole runs differ is not known yet; :class:`Series` goes on from there.
    """
    base = summarize(before)
    levels = measure(noise, slower, loads)
    found = statistics.compare(base, summarize(levels), 0.1, {})
    if unsure := statistics.find_unsure(found):
        more = measure(noise, slower, [load.concurrency for load in unsure])
        levels = statistics.add_repeats(levels, more)
        found = statistics.compare(base, summarize(levels), 0.1, {})
    return found


#: From one run to the next.
WEEK = 7 * 86400.0


class Series:
    """One server that is measured again and again, and the record that its host keeps.

    + noise: what disturbs it
    + spec: what is desired
    + loads: requests at one time
    """

    def __init__(
        self, noise: Noise, spec: BenchmarkSpec | None = None, loads: Sequence[int] = (1, 4)
    ) -> None:
        self.noise, self.loads = noise, loads
        self.spec = spec or BenchmarkSpec(project="ai")
        self.record = Record()

    def run(
        self,
        slower: float | Mapping[int, float] = 1.0,
        conditions: Conditions | None = None,
        change: Callable[[tuple[Level, ...]], tuple[Level, ...]] = lambda levels: levels,
    ) -> tuple[str, ...]:
        """Measure once, as the reconciler does; the causes for which the gate closes."""
        self.noise.begin_run()
        at = WEEK if self.record.latest is None else self.record.latest.at + WEEK
        held = baseline.find_next(self.spec, self.record, FINGERPRINT)
        levels = change(measure(self.noise, slower, self.loads, conditions=conditions))
        past = baseline.list_past(self.record)
        found = statistics.compare(
            [reference.summary for reference in held],
            summarize(levels),
            self.spec.threshold,
            baseline.find_run_spreads(past, FINGERPRINT),
        )
        if unsure := statistics.find_unsure(found):
            again = [load.concurrency for load in unsure]
            more = measure(self.noise, slower, again, conditions=conditions)
            levels = statistics.add_repeats(levels, more)
        new = entry(levels, at)
        self.record = baseline.update(self.record, new, held, self.spec.threshold)
        problems = plan.list_problems(self.spec, self.record)
        return tuple(problem.cause for problem in problems if problem.blocks)
