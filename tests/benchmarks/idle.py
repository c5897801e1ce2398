"""What an idle run of a host that mends itself costs: ``python -m tests.benchmarks.idle``.

CPU seconds of the whole host, its engine included, as its control group counts them: for a run of
the timer's service that finds nothing to do, and for ``docker compose up -d`` that finds nothing to
do, in turns, less what the host spends in the same time with neither. Ends with 1 where the first
is more than the second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.lab import hosts
from tests.lab.engine import docker
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

UNIT = "stackmend-host"
HOME = f"/var/lib/stackmend/schedule/{UNIT}"
COUNTERS = (
    ("/sys/fs/cgroup/docker/{}/cpu.stat", 1e6),
    ("/sys/fs/cgroup/system.slice/docker-{}.scope/cpu.stat", 1e6),
    ("/sys/fs/cgroup/cpuacct/docker/{}/cpuacct.usage", 1e9),
    ("/sys/fs/cgroup/cpuacct/system.slice/docker-{}.scope/cpuacct.usage", 1e9),
)


def make_counter(host: LabHost) -> Callable[[], float]:
    """A function that reads the CPU seconds that a host has spent since it was made."""
    identity = docker("inspect", "-f", "{{.Id}}", host.container)
    paths = {Path(pattern.format(identity)): unit for pattern, unit in COUNTERS}
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise SystemExit("no control group of this machine counts what the host spends")

    def read() -> float:
        # The first number of cpu.stat, or the only one.
        text = path.read_text().replace("usage_usec", "").split()[0]
        return int(text) / paths[path]

    return read


def measure(
    host: LabHost, commands: Mapping[str, str], rounds: int, repeats: int
) -> dict[str, list[float]]:
    """CPU seconds of each command, once a round, the host's own spending taken off."""
    read = make_counter(host)
    spent: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            begun, started = read(), time.monotonic()
            host.sh(f"for _ in $(seq {repeats}); do {command} || exit 1; done", timeout=300)
            seconds, used = time.monotonic() - started, read() - begun
            begun = read()
            time.sleep(seconds)
            spent[name].append((used - (read() - begun)) / repeats)
    return spent


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    hosts.prepare()
    with hosts.lease("managed") as host, tempfile.TemporaryDirectory() as directory:
        host.reset()
        shop = Shop(Path(directory), host)
        shop.settings["schedule"] = {"mode": "host", "every": "24h", "random_delay": 0}
        for _ in range(2):
            done = shop.run("-y", timeout=400)
            if done.rc != 0:
                print(done.out)
                return 1
        venv = f"{HOME}/current/venv/bin"
        commands = {
            "stackmend": f"systemctl start {UNIT}.service",
            "compose": f"(cd {shop.home} && docker compose -p {shop.project} up -d 2>/dev/null)",
            "imports": f"{venv}/python -c 'import pyinfra_cli.cli, stackmend.compose.reconciler'",
        }
        with shop.watching() as seen:
            spent = measure(host, commands, options.rounds, options.repeats)
        if not seen.quiet:
            print(f"something was changed, so these figures say nothing: {seen.events}")
            return 1
        host.reset()
    for name, values in spent.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:<10} {middle:.3f} CPU s a run ({low:.3f} to {high:.3f})")
    ratio = statistics.median(spent["stackmend"]) / statistics.median(spent["compose"])
    print(f"ratio      {ratio:.2f} (target: at most 1)")
    return 1 if ratio > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
