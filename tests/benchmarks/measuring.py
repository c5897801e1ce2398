"""What measuring through the connection costs, against a plain client on the host itself.

``python -m tests.benchmarks.measuring`` measures one server on one lab host, which is as fast each
time: in turns through SSH, by the benchmark's own client, and from the host, by a client of
Python's standard library. It runs as operations do, under gevent.
"""
# ruff: noqa: E402  # gevent changes what is imported after it

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from pyinfra.api import StringCommand

from stackmend import connection
from stackmend.worker.benchmark.contact import measure_rtt
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.learning import prepare
from stackmend.worker.benchmark.state import Load
from tests import connected, paced
from tests.calm import urgency
from tests.lab import hosts
from tests.paced.measured import SHORT, run_once

PORT = 18801
SPEED, CONCURRENCY, TOKENS = {"ttft": 0.2, "tpot": 0.01, "slots": 8}, (1, 4, 8), 64
MORE_TPS, MORE_TTFT = 0.02, 1.0
CLIENT = Path(__file__).with_name("local_client.py")


def compare(rounds: int) -> list[dict[str, Any]]:
    """Both clients in turns, at each concurrency: the medians of the rounds."""
    hosts.prepare()
    found = []
    with (
        hosts.lease("managed") as there,
        paced.serving_on(there, PORT, **SPEED),
        connected.lab(there, "operator") as host,
    ):
        there.put("/run/local_client.py", CLIENT.read_bytes())
        endpoint = Endpoint("ollama", "127.0.0.1", PORT, "paced")
        # As every operation does first: with its first command sshd sends at once (TCP_NODELAY),
        # where it would otherwise hold back what follows until the controller has acknowledged.
        assert connection.run(host, StringCommand("true"), readonly=True).ok
        prepared = prepare(host, endpoint, SHORT)
        for number in CONCURRENCY:
            requests = 2 * number
            figures: dict[str, list[tuple[float, list[float]]]] = {"through": [], "local": []}
            trips = []
            for turn in range(rounds):
                trips.append(measure_rtt(host, endpoint))
                for kind in ("through", "local") if turn % 2 else ("local", "through"):
                    if kind == "through":
                        load = Load(concurrency=number)
                        wall, samples = run_once(host, endpoint, prepared, load, requests, TOKENS)
                        firsts = [sample.ttft or 0 for sample in samples]
                    else:
                        asked = f"{PORT} {requests} {number} {TOKENS}"
                        command = f"nice -n -15 python3 /run/local_client.py {asked}"
                        local = json.loads(there.sh(command))
                        wall, firsts = local["wall"], local["ttft"]
                    figures[kind].append((requests * TOKENS / wall, firsts))
            row: dict[str, Any] = {"concurrency": number, "rtt ms": statistics.median(trips) * 1e3}
            for kind, values in figures.items():
                firsts = [first * 1e3 for _, of_run in values for first in of_run]
                row[f"{kind} tokens/s"] = statistics.median(speed for speed, _ in values)
                row[f"{kind} ttft ms"] = statistics.median(firsts)
                row[f"{kind} least ttft ms"] = min(firsts)
            row["tokens/s lost"] = 1 - row["through tokens/s"] / row["local tokens/s"]
            for name in ("ttft", "least ttft"):
                # As it is reported: without the round trip.
                more = row[f"through {name} ms"] - row["rtt ms"] - row[f"local {name} ms"]
                row[f"{name} more, in round trips"] = more / row["rtt ms"]
            found.append({name: round(value, 4) for name, value in row.items()})
        there.sh("rm /run/local_client.py")
    return found


def main() -> None:
    """Measure, print, and fail where it costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    with urgency():
        rows = compare(parser.parse_args().rounds)
    print(json.dumps(rows, indent=2))
    for row in rows:
        # Not more than it may cost; less is the noise of the machine.
        assert row["tokens/s lost"] < MORE_TPS, row
        assert row["ttft more, in round trips"] < MORE_TTFT, row


if __name__ == "__main__":
    main()
