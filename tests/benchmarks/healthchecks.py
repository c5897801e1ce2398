"""What the reference stack's healthchecks cost while nothing happens, and how soon it is healthy.

``python -m tests.benchmarks.healthchecks`` starts the stack on a lab host with its own defaults,
with a check every 5 seconds and programs that start once redis is healthy, and without any check.
It reads the processor time that the host, engine included, used meanwhile: what checks cost is the
difference to a stack without any. Numbers are also written as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time

from tests.lab.hosts import LabHost, lease, prepare
from tests.lab.paths import VAR
from tests.lab.reference_stack import DIRECTORY, VARIABLES, ReferenceStack

#: The most that the checks may take, in per cent of a core.
TARGET = 3.0

#: compose.yaml's own values, and those that many stacks have.
SETTINGS = {
    "own": {},
    "every 5 s": {"HEALTH_INTERVAL": "5s", "HEALTH_START_PERIOD": "30s"},
}

#: What the others have in place of compose.yaml's own.
FOR_REDIS = (
    "redis:\n        condition: service_started",
    "redis:\n        condition: service_healthy",
)


def used(host: LabHost) -> float:
    """Seconds of processor time that the host's processes have used, and those that they reaped."""
    ticks = host.sh(
        "for stat in /proc/[0-9]*/stat; do cat $stat 2>/dev/null; done | "
        "sed 's/.*) //' | awk '{ sum += $12 + $13 + $14 + $15 } END { print sum }'"
    )
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def start(host: LabHost, name: str) -> float:
    """Start the stack anew; seconds until it is healthy."""
    host.sh(f"cd {DIRECTORY} 2>/dev/null && docker compose down -t 1 2>&1; rm -rf {DIRECTORY}")
    stack = ReferenceStack(host, SETTINGS.get(name, {}))
    if name == "every 5 s":
        file = host.sh(f"cat {DIRECTORY}/compose.yaml")
        assert FOR_REDIS[0] in file
        host.put(f"{DIRECTORY}/compose.yaml", file.replace(*FOR_REDIS))
    own = {key: value for key, value in VARIABLES.items() if not key.startswith("HEALTH_")}
    chosen = {**own, **SETTINGS.get(name, {})}
    host.put(f"{DIRECTORY}/.env", "".join(f"{key}={value}\n" for key, value in chosen.items()))
    began = time.monotonic()
    stack.up()
    return time.monotonic() - began


def silence(host: LabHost) -> None:
    """Start the stack without any healthcheck."""
    start(host, "own")
    file = host.sh(f"cat {DIRECTORY}/compose.yaml")
    off = "x-health: &health\n  disable: true\n"
    head, _, rest = file.partition("x-health: &health\n")
    host.put(f"{DIRECTORY}/compose.yaml", head + off + rest[rest.index("\nservices:") :])
    host.sh(f"cd {DIRECTORY} && docker compose up -d --no-build 2>&1", timeout=120)


def main() -> int:
    """Exit with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=60, help="how long each is watched")
    given = parser.parse_args()
    prepare()
    cost: dict[str, list[float]] = {"none": []} | {name: [] for name in SETTINGS}
    healthy: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with lease() as host:
        host.reset()
        for _ in range(given.rounds):
            for name in cost:
                if name == "none":
                    silence(host)
                else:
                    healthy[name].append(start(host, name))
                # Checks are more frequent while a container starts, by its start period.
                time.sleep(35)
                before, began = used(host), time.monotonic()
                time.sleep(given.seconds)
                share = (used(host) - before) / (time.monotonic() - began) * 100
                cost[name].append(share)
                print(f"{name}: {share:.2f} % of a core", flush=True)
    idle = statistics.median(cost["none"])
    checks = {name: statistics.median(cost[name]) - idle for name in SETTINGS}
    took = {name: statistics.median(healthy[name]) for name in SETTINGS}
    for name in SETTINGS:
        print(f"checks, {name}: {checks[name]:.2f} % of a core; healthy after {took[name]:.1f} s")
    print(f"ratio of the cost: {checks['own'] / checks['every 5 s']:.2f}; limit {TARGET} %")
    path = VAR.parent / "bench" / "healthchecks.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cost": cost, "healthy": healthy}, indent=1))
    met = checks["own"] <= TARGET and took["own"] <= took["every 5 s"]
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
