"""Results of benchmarks for tests: plausible, and the same at every call."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence

from stackmend.worker.benchmark.state import (
    Comparison,
    Conditions,
    Figures,
    Fingerprint,
    Invalid,
    Level,
    Load,
    Measurement,
    Past,
    Repeat,
    Result,
    Sample,
    Steadiness,
    Summary,
)

#: 2026-11-30 06:00 UTC.
NOW = 1_796_018_400.0

DAY = 86_400.0

LOADS = tuple(Load(concurrency=count) for count in (1, 2, 4, 8))


def make_result(
    host: str = "ai1",
    *,
    name: str = "service ollama",
    model: str = "qwen3:4b",
    engine: str = "ollama",
    loads: Sequence[Load] = LOADS,
    repeats: int = 5,
    speed: float = 1.0,
    baseline_speed: float | None = None,
    baseline_engine: str = "ollama",
    past: int = 0,
    invalid: tuple[Invalid, ...] = (),
    failed_repeat: bool = False,
    conditions: Conditions | None = None,
    noisy: str = "",
    reason: str = "",
    seed: int = 1,
) -> Result:
    """A result of one server.

    :param speed: of the server, by that of a small one.
    :param baseline_speed: the same of a baseline; ``None`` for none.
    :param past: earlier measurements.
    :param invalid: why the first samples of each repeat do not count.
    :param failed_repeat: whether no sample of the last repeat of the last level counts.
    :param conditions: of the last repeat of each level.
    :param noisy: why the last level is.
    """
    generator = random.Random(f"{seed} {host} {name}")
    measurement = make_measurement(
        generator, host, name, model, engine, loads, repeats, speed, NOW,
        invalid=invalid, failed_repeat=failed_repeat, conditions=conditions, reason=reason,
    )  # fmt: skip
    summaries = summarize(measurement, noisy)
    baseline = None
    if baseline_speed is not None:
        baseline = make_measurement(
            generator, host, name, model, baseline_engine, loads, repeats, baseline_speed,
            NOW - 10 * DAY,
        )  # fmt: skip
    before = summarize(baseline) if baseline else ()
    comparisons = [
        compare(old, new, figure)
        for old, new in zip(before, summaries, strict=False)
        for figure in ("output_tps", "ttft", "tpot")
    ]
    history = tuple(
        Past(
            at=NOW - (past - index) * DAY * 3 - 3600,
            output_tps=tuple(
                (str(item.load), item.output_tps.median * generator.uniform(0.93, 1.06))
                for item in summaries
            ),
        )
        for index in range(past)
    )
    return Result(
        measurement=measurement,
        summaries=summaries,
        baseline=baseline,
        baseline_summaries=before,
        comparisons=tuple(item for item in comparisons if item),
        history=history,
    )


def make_measurement(
    generator: random.Random,
    host: str,
    name: str,
    model: str,
    engine: str,
    loads: Sequence[Load],
    repeats: int,
    speed: float,
    at: float,
    *,
    invalid: tuple[Invalid, ...] = (),
    failed_repeat: bool = False,
    conditions: Conditions | None = None,
    reason: str = "",
) -> Measurement:
    """The raw samples of one measurement."""
    levels = []
    for load in loads:
        made = []
        for number in range(repeats):
            last = number == repeats - 1
            broken = failed_repeat and last and load == loads[-1]
            samples = make_samples(generator, load, speed, invalid, reason, broken=broken)
            quiet = Conditions(throttled=0.0, steal=0.0, busy=0.84, swapped=0, load_average=7.5)
            made.append(
                Repeat(
                    wall=max(sample.sent + sample.end for sample in samples),
                    samples=samples,
                    conditions=conditions if conditions and last else quiet,
                )
            )
        levels.append(Level(load=load, repeats=tuple(made)))
    return Measurement(
        target="ollama" if engine == "ollama" else "openai",
        name=name,
        host=host,
        at=at,
        cause="nothing was measured before",
        fingerprint=Fingerprint(
            parameters="1 prompt 512 output 128",
            engine=engine,
            version="0.33.1",
            image="sha256:" + "4f" * 32,
            model=model,
            settings=("OLLAMA_NUM_PARALLEL=4", "OLLAMA_FLASH_ATTENTION=1"),
            context=8192,
            processor="cpu",
            cpu="AMD EPYC 7B13",
            cores=16,
            quota=8.0,
            threads=8,
            memory=64 * 1024**3,
        ),
        rtt=0.0123,
        load=3.21,
        levels=tuple(levels),
    )


def make_samples(
    generator: random.Random,
    load: Load,
    speed: float,
    invalid: tuple[Invalid, ...],
    reason: str,
    *,
    broken: bool,
) -> tuple[Sample, ...]:
    count = max(4, load.concurrency)
    parallel = max(1, load.concurrency)
    samples = []
    for index in range(count):
        ttft = (0.35 + 0.12 * parallel) / speed * generator.uniform(0.95, 1.12)
        tpot = 0.04 * (1 + 0.09 * parallel) / speed * generator.uniform(0.98, 1.03)
        why = invalid[index] if index < len(invalid) else None
        samples.append(
            Sample(
                sent=(index // parallel) * (ttft + tpot * 127),
                ttft=ttft,
                ttft_output=ttft,
                last=ttft + tpot * 127,
                end=ttft + tpot * 128,
                prompt_tokens=512,
                output_tokens=128,
                chunks=128,
                prefill=ttft * 0.9,
                decode=tpot * 127,
                invalid="error" if broken else why,
                reason=(reason or "the server said so") if broken or why else "",
            )
        )
    return tuple(samples)


def summarize(measurement: Measurement, noisy: str = "") -> tuple[Summary, ...]:
    """What its levels come to, in the simplest way."""
    found = []
    for level in measurement.levels:
        repeats = tuple(map(figure_out, level.repeats))
        counted = [repeat for repeat in repeats if repeat.valid]
        found.append(
            Summary(
                load=level.load,
                repeats=repeats,
                median=take_medians(counted) if counted else repeats[0],
                output_tps=steady([repeat.output_tps for repeat in counted] or [0.0]),
                ttft=steady([r.ttft[0] for r in counted if r.ttft]) if counted else None,
                tpot=steady([r.tpot[0] for r in counted if r.tpot]) if counted else None,
                noisy=noisy if level is measurement.levels[-1] else "",
            )
        )
    return tuple(found)


def figure_out(repeat: Repeat) -> Figures:
    valid = repeat.valid
    invalid = Counter(sample.invalid for sample in repeat.samples if sample.invalid)
    if not valid:
        return Figures(output_tps=0, requests_ps=0, valid=0, invalid=tuple(invalid.items()))
    return Figures(
        output_tps=sum(sample.output_tokens or 0 for sample in valid) / repeat.wall,
        requests_ps=len(valid) / repeat.wall,
        ttft=pair([sample.ttft for sample in valid if sample.ttft]),
        ttft_output=pair([sample.ttft_output for sample in valid if sample.ttft_output]),
        tpot=pair([sample.tpot for sample in valid if sample.tpot]),
        end=pair([sample.end for sample in valid]),
        prefill_tps=512 / statistics.median(sample.prefill or 1 for sample in valid),
        decode_tps=127 / statistics.median(sample.decode or 1 for sample in valid),
        valid=len(valid),
        invalid=tuple(invalid.items()),
    )


def take_medians(repeats: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    plain: dict[str, object] = {}
    for name in Figures.model_fields:
        values = [getattr(repeat, name) for repeat in repeats]
        if name == "invalid" or any(value is None for value in values):
            continue
        if isinstance(values[0], tuple):
            plain[name] = tuple(map(statistics.median, zip(*values, strict=True)))
        else:
            plain[name] = statistics.median_low(values)
    return Figures.model_validate(plain)


def pair(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def steady(values: Sequence[float]) -> Steadiness:
    mean = statistics.fmean(values)
    return Steadiness(
        median=statistics.median_low(values),
        low=min(values),
        high=max(values),
        spread=statistics.pstdev(values) / mean if mean else 0.0,
    )


def compare(before: Summary, after: Summary, figure: str) -> Comparison | None:
    old, new = getattr(before, figure), getattr(after, figure)
    if old is None or new is None or not old.median or not new.median:
        return None
    ratio = new.median / old.median
    change = ratio - 1 if figure == "output_tps" else 1 - ratio
    outcome = "worse" if change < -0.1 else "better" if change > 0.1 else "equal"
    return Comparison(
        load=after.load,
        figure=figure,
        before=old.median,
        after=new.median,
        ratio=ratio,
        threshold=0.1,
        p=0.0079 if outcome != "equal" else 0.42,
        outcome=outcome,
    )


def make_queue_result(host: str = "ai1") -> Result:
    """A result of a queue: tasks, and no tokens."""
    plain = make_result(host, name="queue of api", model="")
    past = (Past(at=NOW - DAY, output_tps=tuple((str(load), 0.0) for load in LOADS)),)
    summaries = tuple(
        summary.model_copy(
            update={
                "repeats": tuple(map(drop_tokens, summary.repeats)),
                "median": drop_tokens(summary.median),
                "output_tps": Steadiness(median=0, low=0, high=0, spread=0),
                "ttft": None,
                "tpot": None,
            }
        )
        for summary in plain.summaries
    )
    measurement = plain.measurement.model_copy(update={"target": "queue"})
    return plain.model_copy(
        update={"measurement": measurement, "summaries": summaries, "history": past}
    )


def drop_tokens(figures: Figures) -> Figures:
    nothing = dict.fromkeys(("ttft", "ttft_output", "tpot", "prefill_tps", "decode_tps"))
    return figures.model_copy(update={"output_tps": 0.0, **nothing})
