"""What a host of a fleet costs the controller in a run with nothing to do.

``python -m tests.benchmarks.fleet`` runs stackmend and pyinfra's own operations in turns over 1, 4,
16, 50 and 200 names that share 3 lab hosts with the same healthy stack. Of each run it measures the
wall time, the controller's processor time (user and system, its children's included) and its peak
memory. The wall time has the hosts' own work in it, which many names on one host wait for.

The cost of a host is the slope between two numbers of names, so that the start of a run is not in
it. 1 is the exit status where a host costs more than `CPU` or `MEMORY`, or where the cost is not
linear.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.noop import (
    WORK,
    NotANoop,
    Sample,
    adopt,
    healthy_hosts,
    prepare,
    stackmend,
    stock,
    write_inventory,
)
from tests.lab.hosts import LabHost

NAMES = (1, 4, 16, 50, 200)

#: A host may cost so many seconds of processor time, and so many MB.
CPU, MEMORY = 0.035, 0.2

#: From how many names on a host's cost is measured, where there are more.
BASE = 16

#: The cost of a host at the second number of names, in times that at the first: linear up to this.
LINEAR, FEW, MANY = 1.25, 50, 200

CONTENDERS: Mapping[str, Callable[[Path], Sample]] = {"stackmend": stackmend, "stock": stock}

#: Each name is a login of its own, where sshd would let in ten at once. The last file counts.
SSHD = "/etc/ssh/sshd_config.d/zz-fleet.conf"


@dataclass(frozen=True)
class Row:
    """The medians of a contender's runs over so many names."""

    names: int
    seconds: float
    cpu: float
    peak_mib: float

    @classmethod
    def from_samples(cls, names: int, samples: Sequence[Sample]) -> Row:
        """The medians of some runs."""
        seconds, cpu, peak = (
            statistics.median(getattr(sample, field) for sample in samples)
            for field in ("seconds", "cpu", "peak_mib")
        )
        return cls(names, seconds, cpu, peak)


@dataclass(frozen=True)
class Cost:
    """What one more host costs: seconds of processor time, and MB."""

    cpu: float
    memory: float

    @classmethod
    def from_rows(cls, few: Row, many: Row) -> Cost:
        """The slope between two numbers of names."""
        more = many.names - few.names
        return cls((many.cpu - few.cpu) / more, (many.peak_mib - few.peak_mib) * 1.048576 / more)


def find_cost(rows: Sequence[Row]) -> Cost | None:
    """What a host costs from `BASE` names on, or from the fewest; None where there is no slope."""
    first = next((row for row in rows if row.names >= BASE), rows[0])
    if first is rows[-1]:
        first = rows[0]
    return None if first is rows[-1] else Cost.from_rows(first, rows[-1])


def find_growth(rows: Sequence[Row]) -> float | None:
    """The cost of a host at `MANY` names in times that at `FEW`; None where one was not measured.

    Both are counted from the fewest names.
    """
    by_names = {row.names: row for row in rows}
    if not {FEW, MANY} <= by_names.keys() or rows[0].names >= FEW:
        return None
    few, many = (Cost.from_rows(rows[0], by_names[names]) for names in (FEW, MANY))
    return many.cpu / few.cpu


@contextlib.contextmanager
def crowded_logins(hosts: Sequence[LabHost]) -> Iterator[None]:
    """Hosts that let in as many at once as there are names."""
    for host in hosts:
        host.put(SSHD, b"MaxStartups 1000:30:2000\n")
        host.sh("systemctl reload ssh")
    try:
        yield
    finally:
        for host in hosts:
            host.sh(f"rm -f {SSHD} && systemctl reload ssh")


def measure(names: Sequence[int], rounds: int, number_of_hosts: int) -> dict[str, list[Row]]:
    """Both contenders over each number of names, in interleaved rounds."""
    samples: dict[tuple[str, int], list[Sample]] = {}
    with healthy_hosts(number_of_hosts) as hosts, crowded_logins(hosts):
        adopt(hosts)
        inventories = {
            number: write_inventory(WORK / f"fleet-{number}.py", hosts, number) for number in names
        }
        for run in CONTENDERS.values():
            # Once unmeasured, with each host: files that another's notion of them would change.
            run(write_inventory(WORK / "fleet.py", hosts))
        before = [host.identities() for host in hosts]
        for turn in range(rounds):
            for number, inventory in inventories.items():
                # Neither always comes after the other.
                for name in list(CONTENDERS)[:: 1 if turn % 2 else -1]:
                    sample = CONTENDERS[name](inventory)
                    samples.setdefault((name, number), []).append(sample)
                    print(
                        f"round {turn + 1}, {number} names: {name} {sample.seconds:.2f} s, "
                        f"CPU {sample.cpu:.2f} s, {sample.peak_mib:.0f} MiB",
                        flush=True,
                    )
        if [host.identities() for host in hosts] != before:
            raise NotANoop("a container was touched")
    return {
        name: [Row.from_samples(number, samples[name, number]) for number in names]
        for name in CONTENDERS
    }


def list_lines(found: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """The table, with both contenders and their ratio side by side."""
    titles = ("wall s", "CPU s", "peak MiB")
    yield " " * 6 + "".join(f" | {title:^26}" for title in titles)
    yield f"{'names':>6}" + f" | {'ours':>8} {'stock':>8} {'ratio':>8}" * len(titles)
    for ours, theirs in zip(found["stackmend"], found["stock"], strict=True):
        pairs = [
            (ours.seconds, theirs.seconds),
            (ours.cpu, theirs.cpu),
            (ours.peak_mib, theirs.peak_mib),
        ]
        yield f"{ours.names:6}" + "".join(f" | {a:8.2f} {b:8.2f} {a / b:8.2f}" for a, b in pairs)
    costs = {name: find_cost(rows) for name, rows in found.items()}
    ours_more, theirs_more = costs["stackmend"], costs["stock"]
    if ours_more is not None and theirs_more is not None:
        for what, mine, other in (
            ("ms of CPU", ours_more.cpu * 1000, theirs_more.cpu * 1000),
            ("MB", ours_more.memory, theirs_more.memory),
        ):
            yield f"a host costs {mine:.2f} {what}, stock {other:.2f}: {mine / other:.2f} times"


def list_targets(rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    """Each target in words, and whether stackmend reaches it."""
    cost = find_cost(rows)
    if cost is not None:
        yield f"{cost.cpu * 1000:.1f} ms of CPU a host, at most {CPU * 1000:g}", cost.cpu <= CPU
        yield f"{cost.memory:.2f} MB a host, at most {MEMORY}", cost.memory <= MEMORY
    growth = find_growth(rows)
    if growth is not None:
        yield (
            f"{growth:.2f} times the CPU a host at {MANY} names as at {FEW}, at most {LINEAR}",
            growth <= LINEAR,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the numbers as JSON. Returns 1 for a miss, or without a result."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet", description=__doc__)
    parser.add_argument("--names", nargs="+", type=int, default=NAMES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--json", type=Path, default=WORK / "fleet.json")
    chosen = parser.parse_args(arguments)
    prepare()
    try:
        found = measure(sorted(set(chosen.names)), chosen.rounds, chosen.hosts)
    except NotANoop as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    rows = {name: [vars(row) for row in each] for name, each in found.items()}
    chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    for line in list_lines(found):
        print(line)
    targets = list(list_targets(found["stackmend"]))
    for words, met in targets:
        print(f"{'PASS' if met else 'MISS'}: {words}")
    print(f"written to {chosen.json}")
    return int(not all(met for _, met in targets))


if __name__ == "__main__":
    sys.exit(main())
