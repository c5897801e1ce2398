"""The doctor against a run with nothing to do: ``python -m tests.benchmarks.doctor``.

Both on the same 4 lab hosts that carry the same healthy stack, with a model server and every
section that tells of an incident, in alternating rounds, each as a user begins it. The doctor has
to find nothing, and may take 1.5 times as long; 1 is the exit status where it takes longer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.noop import (
    LINKS,
    RESOLVER,
    STACK,
    WORK,
    NotANoop,
    Sample,
    adopt,
    healthy_hosts,
    prepare,
    pyinfra,
    timed,
    write_inventory,
)
from tests.lab.ai import OUTSIDE, PAGE
from tests.lab.hosts import LabHost

#: How many times the seconds of a run with nothing to do.
TARGET = 1.5

#: What is added to the stack of the other benchmarks: a server whose model is in its image.
SERVER: dict[str, Any] = {
    "services": {"ollama": {"image": "lab/model:1", "restart": "unless-stopped", "init": True}}
}

#: Every section that a doctor reads. No registry is asked: its answer is not the host's time.
SECTIONS: dict[str, Any] = {
    # Their host came to its DNS server after they were started.
    "allow": ["restart:resolver"],
    "ports": {},
    "links": LINKS,
    "engine": {"channel": "distro"},
    "resolver": RESOLVER,
    "connectivity": {"endpoints": [OUTSIDE], "derived": False},
    "models": {"wanted": ["tiny"], "check": "local", "minimum_free": 0},
    "worker": {"accelerated": {"samples": 1}},
}

COMMAND = str(Path(sys.executable).with_name("stackmend"))


def run(command: str, inventory: Path) -> Sample:
    """One run that must find every host converged."""
    sample = timed([COMMAND, command, str(inventory)], env={"STACKMEND_REPORTS": f"{WORK}/reports"})
    record = json.loads((WORK / "reports/latest.json").read_bytes())
    outcomes = {host["outcome"] for host in record["hosts"].values()}
    if outcomes != {"converged"}:
        raise NotANoop(f"{command}: {outcomes}\n{sample.output[-4000:]}")
    return sample


def make_source() -> Path:
    """The files of the stack, with a model server over them."""
    source = WORK / "doctor-stack"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(STACK["source"], source)
    (source / "compose.override.yaml").write_text(yaml.safe_dump(SERVER))
    return source


def complete(hosts: Sequence[LabHost], inventory: Path) -> None:
    """Bring the rest of the stack up, and a server outside that it asks for."""
    for host in hosts:
        host.sh(f"systemd-run -q --collect --unit=outside {PAGE}")
        host.wait_for("ss -ltn | grep -q :9999")
    pyinfra(inventory, "deploy/site.py")


def compare(rounds: int, number_of_hosts: int) -> float:
    """The ratio of the medians of both, after so many rounds."""
    times: dict[str, list[float]] = {"site": [], "doctor": []}
    with healthy_hosts(number_of_hosts) as hosts:
        adopt(hosts)
        sections = {**STACK, **SECTIONS, "source": str(make_source())}
        inventory = write_inventory(WORK / "doctor.py", hosts, stack=sections)
        complete(hosts, inventory)
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
