"""What an idle run of a host that mends itself costs: ``python -m tests.benchmarks.idle``.

CPU seconds of the whole host, its engine included, as its control group counts them: for a full run
of the timer's service that finds nothing to do, for one that it skips, and for ``docker compose up
-d`` that finds nothing to do, in turns, less what the host spends in the same time with none. Ends
with 1 where a host that runs each minute, and each half hour in full, spends more a minute than
Compose would.
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

#: Minutes from one full run to the next, with ``every`` of one minute.
FULL_EVERY = 30
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
        # The timer itself begins none.
        shop.settings["schedule"] = {
            "mode": "host",
            "at": "*-01-01 00:00",
            "full_every": f"{FULL_EVERY}min",
        }
        for _ in range(2):
            done = shop.run("-y", timeout=400)
            if done.rc != 0:
                print(done.out)
                return 1
        venv = f"{HOME}/current/venv/bin"
        commands = {
            "full": f"rm -f {HOME}/unchanged && systemctl start {UNIT}.service",
            "skipped": f"systemctl start {UNIT}.service",
            "compose": f"(cd {shop.home} && docker compose -p {shop.project} up -d 2>/dev/null)",
            "imports": f"{venv}/python -c 'import pyinfra_cli.cli, stackmend.compose.reconciler'",
        }
        count = f"ls {HOME}/reports | grep -c '^2'"
        before = int(host.sh(count, check=False))
        with shop.watching() as seen:
            spent = measure(host, commands, options.rounds, options.repeats)
        if not seen.quiet:
            print(f"something was changed, so these figures say nothing: {seen.events}")
            return 1
        if (ran := int(host.sh(count)) - before) != options.rounds * options.repeats:
            print(f"{ran} runs were full ones, so these figures say nothing")
            print(host.sh(f"journalctl -q --no-pager -o cat -t {UNIT} -n 40"))
            return 1
        host.reset()
    for name, values in spent.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:<10} {middle:.3f} CPU s a run ({low:.3f} to {high:.3f})")
    full, skipped, compose = (
        statistics.median(spent[name]) for name in ("full", "skipped", "compose")
    )
    minute = ((FULL_EVERY - 1) * skipped + full) / FULL_EVERY
    print(f"a minute   {minute:.3f} CPU s with a full run each {FULL_EVERY} min")
    print(f"ratio      {minute / compose:.2f} (target: at most 1)")
    print(f"all full   {full / compose:.2f}")
    return 1 if minute > compose else 0


if __name__ == "__main__":
    sys.exit(main())
