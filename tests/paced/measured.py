"""What the benchmark measures of the paced server, held against how fast that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api.host import Host

from stackmend.worker.benchmark.definitions import Question
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.learning import Prepared, prepare
from stackmend.worker.benchmark.sending import Run, Task, open_clients
from stackmend.worker.benchmark.spec import Limits, Profile
from stackmend.worker.benchmark.state import Load, Repeat, Sample
from stackmend.worker.benchmark.statistics import compute_figures
from tests.paced import Paced, Truth, compute_truth, read_truth

#: Shares by which a figure may differ from the truth: tokens a second, and the times of a request.
SPEED, TIMES = 0.03, 0.05

#: Answers that the server gives at one time; others queue.
SLOTS = 4

#: By how much the server itself may be behind its schedule on a machine that is called quiet.
QUIET = 0.01

#: Prompts and answers that take no time.
SHORT = Profile(prompt_tokens=32, output_tokens=8, concurrency=(1, 2), requests=4, warmups=1)

#: Seconds by which the time to the first token may differ from the truth, over a long way.
DELAY = 0.005


@dataclass(frozen=True)
class Speed:
    """A speed, with answers that take about half a second.

    + ttft, tpot: of the server
    + tokens: of an answer
    """

    ttft: float
    tpot: float
    tokens: int


SPEEDS = (
    Speed(0.10, 0.005, 80),
    Speed(0.15, 0.01, 35),
    Speed(0.20, 0.02, 16),
    Speed(0.25, 0.03, 10),
    Speed(0.30, 0.05, 6),
)


#: Requests at one time at which each speed is measured.
CONCURRENCIES = range(1, 9)


def list_concurrencies(speed: Speed, *, lab: bool) -> tuple[int, ...]:
    """Those of a speed that are measured on a lab host, or on this machine: one half each."""
    odd = SPEEDS.index(speed) % 2 == 1
    return tuple(number for number in CONCURRENCIES if (number % 2 == 1) is (odd is lab))


def count_requests(concurrency: int) -> int:
    """Requests by which one cell of speed and concurrency is measured."""
    return max(2, 2 * concurrency)


def run_once(
    host: Host, endpoint: Endpoint, prepared: Prepared, load: Load, requests: int, tokens: int
) -> tuple[float, Sequence[Sample]]:
    """One run of requests; all of them have to count."""
    task = Task(
        protocol=prepared.protocol,
        prompts=prepared.prompts,
        words=prepared.words,
        question=Question(tokens, prepared.prompt_tokens),
        timeout=20,
        reference=prepared.reference,
        rtt=prepared.rtt,
    )
    with open_clients(host, endpoint, load, requests, 20) as clients:
        for client in clients:
            client.get(prepared.protocol.probe)
        run = Run(clients, task)
        if load.concurrency:
            wall, samples = run.run_closed(requests)
        else:
            wall, samples = run.run_open(requests, load.rate, seed=1)
    wrong = [sample.reason for sample in samples if sample.invalid]
    assert not wrong, wrong
    return wall, samples


def summarize(wall: float, samples: Sequence[Sample], rtt: float) -> Truth:
    """The figures of a run, as the product computes them."""
    figures = compute_figures(Repeat(wall=wall, samples=tuple(samples)), Limits(), rtt)
    assert figures.ttft is not None
    assert figures.tpot is not None
    return Truth(
        output_tps=figures.output_tps,
        ttft=figures.ttft[0],
        tpot=figures.tpot[0],
        wall=wall,
    )


def check_speed(
    host: Host,
    server: Paced,
    endpoint: Endpoint,
    prepared: Prepared,
    speed: Speed,
    concurrency: Sequence[int],
) -> None:
    """Hold the figures at each concurrency against what the server recorded, and was set to."""
    for number in concurrency:
        server.set(trap="", ttft=speed.ttft, tpot=speed.tpot, slots=SLOTS)
        requests = count_requests(number)
        load = Load(concurrency=number)
        wall, samples = run_once(host, endpoint, prepared, load, requests, speed.tokens)
        found = summarize(wall, samples, prepared.rtt)
        recorded = read_truth(server.read_records())
        nominal = compute_truth(server.read_pace(), number, requests, speed.tokens)
        line = f"{speed} at {number}: {found}, recorded {recorded}, nominal {nominal}"
        compare(found, recorded, line)
        if was_punctual(recorded, nominal):
            compare(found, nominal, line)


def was_punctual(recorded: Truth, nominal: Truth) -> bool:
    """Whether the server had the speed that it was set to: one that was itself late had another."""
    pairs = zip(dataclasses.astuple(recorded), dataclasses.astuple(nominal), strict=True)
    return all(abs(real / planned - 1) < QUIET for real, planned in pairs)


def compare(found: Truth, truth: Truth, line: str) -> None:
    """Whether figures are as exact as they have to be."""
    print(line)
    assert abs(found.output_tps / truth.output_tps - 1) < SPEED, line
    assert abs(found.ttft / truth.ttft - 1) < TIMES, line
    assert abs(found.tpot / truth.tpot - 1) < TIMES, line


def check_delay(host: Host, server: Paced, endpoint: Endpoint, delay: float) -> None:
    """Hold the time to the first token over a long way against the truth.

    + endpoint: the server, at the far end of that way
    + delay: seconds of one round trip
    """
    prepared = prepare(host, endpoint, SHORT)
    server.set(trap="", ttft=0.2, tpot=0.02, slots=4)
    wall, samples = run_once(host, endpoint, prepared, Load(concurrency=1), 8, 16)
    records = server.read_records()
    truth = read_truth(records)
    pairs = zip(samples, records, strict=True)
    # What the way adds; a busy machine adds to some of them, and never takes away.
    added = [(sample.ttft or 0) - (record.first - record.arrived) for sample, record in pairs]
    found = summarize(wall, samples, prepared.rtt)
    line = f"rtt {prepared.rtt}, added {added}, {found}, recorded {truth}"
    print(line)
    assert delay <= min(added) < delay + DELAY, line
    assert delay <= prepared.rtt < delay + DELAY, line
    assert abs(found.ttft - truth.ttft) < DELAY, line
    # Each of eight answers is a round trip longer than for the server.
    expected = dataclasses.replace(
        truth, output_tps=truth.output_tps * truth.wall / (truth.wall + delay)
    )
    compare(found, expected, line)
