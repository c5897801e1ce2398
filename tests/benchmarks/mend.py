"""How long it takes to mend one killed service, from start to proven, and where each second goes.

``python -m tests.benchmarks.mend`` kills a service of the reference stack on a lab host, again and
again, and has it mended in turn by ``docker compose up -d --wait`` over ssh, by stackmend and by
Ansible (``community.docker.docker_compose_v2``). A round counts only where the service was down
before and is healthy afterwards, as Docker on the host says. stackmend alone waits for its window,
in which the stack must stay healthy, and then proves the declared checks. Numbers are also written
as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import noop
from tests.benchmarks.noop import WORK, Sample, ansible_playbook, timed
from tests.benchmarks.stopwatch import PHASES
from tests.lab.hosts import LabHost, lease, prepare
from tests.lab.images import STACK as SOURCE
from tests.lab.reference_stack import DIRECTORY, VARIABLES

WINDOW = 5.0
#: Seconds that a run may take beyond the window.
TARGET = 3.0
STACK: dict[str, Any] = {
    "project": "ai",
    "source": str(SOURCE),
    "directory": DIRECTORY,
    "env": dict(VARIABLES),
    "checks": [
        {"kind": "http", "url": "http://127.0.0.1:8000/healthz"},
        {"kind": "tcp", "address": "redis:6379", "inside": "worker"},
    ],
    "stability": WINDOW,
    "minimum_free": "512MiB",
    # The same service is mended in every round.
    "mend": {"attempts": 100, "backoff": [0]},
}
CONTENDERS = ("compose", "stackmend", "ansible")


class NotMended(Exception):
    """A contender did not do what is measured."""


def kill(host: LabHost, service: str) -> None:
    """End the service's container with SIGKILL; its engine leaves it as it is."""
    host.docker("kill", f"ai-{service}-1")
    host.wait_for(f'[ "$(docker inspect -f {{{{.State.Running}}}} ai-{service}-1)" = false ]')


def check(host: LabHost, service: str, name: str) -> None:
    """What Docker on the host says of every service once a contender has ended."""
    for other, found in host.containers("ai").items():
        (container,) = found
        health = container["State"].get("Health", {}).get("Status")
        if not container["State"]["Running"] or health != "healthy":
            raise NotMended(f"{name}, {service} killed: {other} is {health}")


def compose(host: LabHost) -> Sample:
    """``docker compose up -d --wait`` over a connection of its own."""
    command = f"cd {DIRECTORY} && docker compose up -d --no-build --wait 2>&1"
    began = time.perf_counter()
    done = subprocess.run([*host.ssh_argv(), command], capture_output=True, timeout=120)
    if done.returncode != 0:
        raise NotMended(f"compose: exit {done.returncode}: {done.stdout.decode()[-2000:]}")
    return Sample(time.perf_counter() - began, 0.0, "")


def stackmend(inventory: Path) -> tuple[Sample, dict[str, float]]:
    """One run of ours, and the seconds of each of its phases."""
    phases = WORK / "phases.json"
    sample = timed(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.stopwatch",
            str(inventory),
            "deploy/site.py",
            "-y",
        ],
        env={"STACKMEND_REPORTS": str(WORK / "reports"), "STOPWATCH": str(phases)},
    )
    record = json.loads((WORK / "reports/latest.json").read_bytes())
    outcomes = {row["outcome"] for row in record["hosts"].values()}
    if outcomes != {"changed"}:
        raise NotMended(f"stackmend: {outcomes}\n{sample.output[-4000:]}")
    return sample, json.loads(phases.read_text())


def main() -> int:
    """Exit with 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--service", default="worker", choices=["api", "worker", "redis", "ollama"])
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    prepare()
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS if name in chosen.only}
    phases: list[dict[str, float]] = []
    with lease("managed") as host:
        host.reset()
        inventory = WORK / "mend_inventory.py"
        inventory.write_text(f"bench = {[(host.name, {**host.ssh_data(), 'stack': STACK})]!r}\n")
        print(f"bringing the stack up on {host.name} …", flush=True)
        noop.pyinfra(inventory, "deploy/site.py")
        if "ansible" in times:
            noop.prepare_ansible([host])

        def run_stackmend() -> Sample:
            sample, took = stackmend(inventory)
            phases.append(took)
            return sample

        contenders: dict[str, Callable[[], Sample]] = {
            "compose": lambda: compose(host),
            "stackmend": run_stackmend,
            "ansible": lambda: ansible_playbook(
                [host], noop.HERE / "ansible/mend.yml", project="ai", directory=DIRECTORY
            ),
        }
        for turn in range(chosen.rounds + 1):
            for name in times:
                kill(host, chosen.service)
                seconds = contenders[name]().seconds
                check(host, chosen.service, name)
                if turn:  # the first round warms caches and writes bytecode
                    times[name].append(seconds)
            if turn:
                shown = ", ".join(f"{name} {took[-1]:.2f} s" for name, took in times.items())
                print(f"round {turn}: {shown}", flush=True)
    medians = {name: statistics.median(took) for name, took in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {seconds:.2f} s")
    result: dict[str, Any] = {"service": chosen.service, "seconds": times, "median": medians}
    met = True
    if "stackmend" in times:
        where = {
            name: statistics.median(row.get(name, 0.0) for row in phases[1:]) for name in PHASES
        }
        for name, seconds in where.items():
            print(f"    {name}: {seconds:.2f} s")
        beyond = medians["stackmend"] - WINDOW
        met = beyond <= TARGET
        print(f"{'PASS' if met else 'MISS'}: {beyond:.2f} s beyond the window (at most {TARGET:g})")
        result |= {"phases": where, "beyond_the_window": beyond}
    (WORK / "mend.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
