"""The doctor against a run with nothing to do: ``python -m tests.benchmarks.doctor``.

Both on the same 4 lab hosts that carry the same healthy stack, in alternating rounds, each as a
user begins it. The doctor has to find nothing, and may take 1.5 times as long; 1 is the exit status
where it takes longer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.noop import (
    LINKS,
    STACK,
    WORK,
    NotANoop,
    Sample,
    adopt,
    healthy_hosts,
    prepare,
    timed,
    write_inventory,
)

#: How many times the seconds of a run with nothing to do.
TARGET = 1.5

COMMAND = str(Path(sys.executable).with_name("stackmend"))


def run(command: str, inventory: Path) -> Sample:
    """One run that must find every host converged."""
    sample = timed([COMMAND, command, str(inventory)], env={"STACKMEND_REPORTS": f"{WORK}/reports"})
    record = json.loads((WORK / "reports/latest.json").read_bytes())
    outcomes = {host["outcome"] for host in record["hosts"].values()}
    if outcomes != {"converged"}:
        raise NotANoop(f"{command}: {outcomes}\n{sample.output[-4000:]}")
    return sample


def compare(rounds: int, number_of_hosts: int) -> float:
    """The ratio of the medians of both, after so many rounds."""
    times: dict[str, list[float]] = {"site": [], "doctor": []}
    with healthy_hosts(number_of_hosts) as hosts:
        adopt(hosts)
        sections = {**STACK, "ports": {}, "links": LINKS}
        inventory = write_inventory(WORK / "doctor.py", hosts, stack=sections)
        contenders: dict[str, Callable[[], Sample]] = {
            "site": lambda: run("site", inventory),
            "doctor": lambda: run("doctor", inventory),
        }
        for contender in contenders.values():
            contender()
        for number in range(rounds):
            # Neither always comes after the other.
            for name in list(contenders)[:: 1 if number % 2 else -1]:
                times[name].append(contenders[name]().seconds)
            shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in times.items())
            ratio = times["doctor"][-1] / times["site"][-1]
            print(f"round {number + 1}: {shown}, {ratio:.2f} times", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["doctor"] / medians["site"]
    print(
        f"medians: site {medians['site']:.2f} s, doctor {medians['doctor']:.2f} s: {ratio:.2f} "
        f"times, at most {TARGET}: {'PASS' if ratio <= TARGET else 'MISS'}"
    )
    return ratio


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the ratio. Returns 1 for a miss, or without a result."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.doctor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hosts", type=int, default=4)
    chosen = parser.parse_args(arguments)
    prepare()
    try:
        return int(compare(chosen.rounds, chosen.hosts) > TARGET)
    except NotANoop as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
