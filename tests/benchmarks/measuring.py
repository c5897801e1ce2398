"""What measuring through the connection costs, against a plain client on the host itself.

``python -m tests.benchmarks.measuring`` measures one server on one lab host, which is as fast each
time: in turns through SSH, by the benchmark's own client, and from the host, by a client of
Python's standard library. It runs as operations do, under gevent. Both clients take times where
bytes leave their machine and come to it. Each turn of the one is held against its neighbour of the
other, and the median of these differences counts.
"""
# ruff: noqa: E402  # gevent changes what is imported after it

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pyinfra.api import StringCommand
from pyinfra.api.host import Host

from stackmend import connection
from stackmend.worker.benchmark.contact import measure_rtt
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.learning import Prepared, prepare
from stackmend.worker.benchmark.state import Load
from tests import connected, paced
from tests.calm import LATE, Lateness, urgency
from tests.lab import hosts
from tests.lab.hosts import LabHost
from tests.paced.measured import SHORT, run_once, summarize

PORT = 18801
SPEED, CONCURRENCY, TOKENS = {"ttft": 0.2, "tpot": 0.01, "slots": 8}, (1, 4, 8), 32
Protocol = Literal["ollama", "openai"]
PROTOCOLS: tuple[Protocol, ...] = ("ollama", "openai")
CLIENT = Path(__file__).with_name("local_client.py")

#: The share of tokens a second, and the round trips of a first token, by which the two may differ:
#: to be better than a client on the host itself is as wrong as to be worse.
MORE_TPS, MORE_TTFT = 0.02, 1.0

#: Turns of which one counts: those in which this machine was late the least.
TURNS = 3

#: Attempts at a run of which all requests count.
ATTEMPTS = 5


class Bench:
    """One server on one host, at which two clients take turns."""

    def __init__(self, there: LabHost, host: Host, server: paced.Paced) -> None:
        self._there, self._host, self._server = there, host, server
        there.put("/run/local_client.py", CLIENT.read_bytes())
        # As every operation does first: with its first command sshd sends at once (TCP_NODELAY),
        # where it would otherwise hold back what follows until the controller has acknowledged.
        assert connection.run(host, StringCommand("true"), readonly=True).ok

    def compare(self, protocol: Protocol, rounds: int) -> Iterator[dict[str, float | str]]:
        """Both clients in turns, at each concurrency: medians over the turns."""
        endpoint = Endpoint(protocol, "127.0.0.1", PORT, "paced")
        prepared = prepare(self._host, endpoint, SHORT)
        for number in CONCURRENCY:
            turns: list[dict[str, float]] = []
            for attempt in range(TURNS * rounds):
                with Lateness() as late:
                    turn = self._take_turn(endpoint, prepared, number, through=attempt % 2)
                turns.append(turn | {"late": late.seconds})
            turns = sorted(turns, key=lambda turn: turn["late"])[:rounds]
            found = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
            found["ttft more, in round trips"] = found["ttft more"] / found["rtt"]
            figures = {name: round(value, 6) for name, value in found.items()}
            yield {"protocol": protocol, "concurrency": number, **figures}

    def _take_turn(
        self, endpoint: Endpoint, prepared: Prepared, number: int, through: int
    ) -> dict[str, float]:
        """Each client once; how much more each finds than the server recorded, and the two."""
        turn = {"rtt": measure_rtt(self._host, endpoint)}
        for kind in ("local", "through")[:: -1 if through else 1]:
            self._server.set(trap="", **SPEED)
            run = self._run_through if kind == "through" else self._run_local
            ttft, speed = run(endpoint, prepared, number, turn["rtt"])
            truth = paced.read_truth(self._server.read_records())
            turn[f"{kind} tokens/s"], turn[f"{kind} ttft"] = speed, ttft
            # The server is late itself at times, which is nothing that a client adds.
            turn[f"{kind} share"], turn[f"{kind} added"] = (
                speed / truth.output_tps,
                ttft - truth.ttft,
            )
        turn["tokens/s lost"] = 1 - turn.pop("through share") / turn.pop("local share")
        turn["ttft more"] = turn["through added"] - turn["local added"]
        return turn

    def _run_through(
        self, endpoint: Endpoint, prepared: Prepared, number: int, rtt: float
    ) -> tuple[float, float]:
        load, requests = Load(concurrency=number), 2 * number
        for attempt in range(1, ATTEMPTS + 1):
            self._server.set(trap="", **SPEED)
            try:
                wall, samples = run_once(self._host, endpoint, prepared, load, requests, TOKENS)
                break
            except AssertionError:
                # An answer within which this machine stopped for a while does not count.
                if attempt == ATTEMPTS:
                    raise
        # As it is reported: without the round trip.
        return summarize(wall, samples, rtt).ttft, requests * TOKENS / wall

    def _run_local(
        self, endpoint: Endpoint, _prepared: Prepared, number: int, _rtt: float
    ) -> tuple[float, float]:
        asked = f"{PORT} {endpoint.protocol} {2 * number} {number} {TOKENS}"
        found = json.loads(self._there.sh(f"nice -n -15 python3 /run/local_client.py {asked}"))
        return statistics.median(found["ttft"]), 2 * number * TOKENS / found["wall"]


@contextlib.contextmanager
def standing() -> Iterator[Bench]:
    """The server on its host, and a connection to that."""
    hosts.prepare()
    with (
        hosts.lease("managed") as there,
        paced.serving_on(there, PORT, **SPEED) as server,
        connected.lab(there, "operator") as host,
    ):
        try:
            yield Bench(there, host, server)
        finally:
            there.sh("rm -f /run/local_client.py")


def is_within(row: dict[str, float | str]) -> bool:
    """Whether the two clients differ by no more than they may, either way."""
    lost, more = float(row["tokens/s lost"]), float(row["ttft more, in round trips"])
    return abs(lost) < MORE_TPS and abs(more) < MORE_TTFT


def main() -> int:
    """Measure, print, and fail where the two differ by more than they may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    missed = []
    with urgency(), standing() as bench:
        for protocol in PROTOCOLS:
            for row in bench.compare(protocol, rounds):
                print(json.dumps(row | {"within": is_within(row)}), flush=True)
                missed += [] if is_within(row) else [row]
    if missed and all(float(row["late"]) > LATE for row in missed):
        print(f"nothing is known: this machine is late by more than {LATE} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
