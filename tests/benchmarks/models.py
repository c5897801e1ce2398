"""What the models room costs: a check of what is present, and a pull against one by hand.

``python -m tests.benchmarks.models`` measures on one lab host. The check is of 20 present models:
its channels are counted by the host's own sshd, its requests by the registry. The pull is of one
large model over connections that each have a given rate, by ``ollama pull`` in the server's
container and by a run of ours, in interleaved rounds on the same server and registry.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.lab import hosts, model_registry
from tests.lab.model_registry import ModelRegistry
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, push

MODELS = 20
CHANNELS, RATIO = 1, 1.1


def check(server: ModelServer, registry: ModelRegistry, runs: Runs, rounds: int) -> dict[str, Any]:
    """A check of many present models, with and without the registry."""
    names = [push(registry, f"bench/m{n}:1b", size=1_000_000, seed=n).name for n in range(MODELS)]
    runs.converge(names, parallel=4)
    found: dict[str, Any] = {"models": MODELS}
    for kind in ("registry", "local"):
        seconds = []
        for _ in range(rounds):
            mark = server.host.mark()
            registry.clear_log()
            result = runs.converge(names, check=kind)
            if result.outcomes != {"converged"}:
                raise AssertionError(result.run.out)
            seconds.append(result.run.seconds)
        found[kind] = {
            "seconds": round(statistics.median(seconds), 2),
            "channels": len(server.host.sessions_since(mark)),
            "requests": [f"{one.method} {one.path}" for one in registry.log()],
        }
    asked = found["registry"].pop("requests")
    found["registry"]["manifest reads"] = len(asked)
    found["local"]["manifest reads"] = len(found["local"].pop("requests"))
    if len(set(asked)) != len(asked) or any("manifests" not in one for one in asked):
        raise AssertionError(asked)
    return found


def pull(
    server: ModelServer, registry: ModelRegistry, runs: Runs, rounds: int, mib: int, rate: float
) -> dict[str, Any]:
    """One large model by hand and by a run, each time from nothing."""
    model = push(registry, "bench/large:1b", size=mib * 2**20, seed=99)
    registry.rate(int(rate * 2**20))
    seconds: dict[str, list[float]] = {"by hand": [], "run": [], "run's pull": []}
    for number in range(rounds):
        server.remove(model.name)
        began = time.perf_counter()
        server.host.sh(
            f"docker exec {server.container} ollama pull --insecure {model.name}", timeout=600
        )
        seconds["by hand"].append(time.perf_counter() - began)
        server.remove(model.name)
        result = runs.converge([model.name], attempts=1, stall=60)
        seconds["run"].append(result.run.seconds)
        (done,) = [row for row in result.all("done") if row["verb"] == "pull"]
        seconds["run's pull"].append(done["seconds"])
        shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        print(f"round {number + 1}: {shown}", flush=True)
    registry.clear()
    server.remove(model.name)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "MiB": mib,
        "MiB a second of each connection": rate,
        "rounds": rounds,
        "median": {name: round(value, 2) for name, value in medians.items()},
        # The login, the look before, the proof with a loaded model and the record are in it.
        "ratio of the whole run": round(medians["run"] / medians["by hand"], 3),
        "ratio of the pull": round(medians["run's pull"] / medians["by hand"], 3),
    }


def main() -> None:
    """Measure, print, and say whether the promises are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rate", type=float, default=12.5, help="MiB a second of each connection")
    options = parser.parse_args()
    hosts.prepare()
    with (
        hosts.lease("managed") as host,
        model_registry.lease() as registry,
        tempfile.TemporaryDirectory() as directory,
    ):
        host.reset()
        server = ModelServer(host)
        server.up()
        runs = Runs(Path(directory), [host], insecure=True)
        checked = check(server, registry, runs, options.rounds)
        pulled = pull(server, registry, runs, options.rounds, options.mib, options.rate)
        host.reset()
    print(json.dumps({"check": checked, "pull": pulled}, indent=2))
    kept = (
        checked["registry"]["channels"] <= CHANNELS
        and checked["registry"]["manifest reads"] == MODELS
        and pulled["ratio of the pull"] <= RATIO
    )
    print("kept" if kept else "NOT KEPT")


if __name__ == "__main__":
    main()
