"""The doctor on a healthy host under load: ``python -m tests.lab.healthy --minutes 60 --runs 20``.

Each run has to find nothing and to change nothing: the hashes of all files below /etc,
/var/lib/stackmend and the stack's directory, the ids and start times of containers, and the events
of the engine. The load has to go on: of each kind more was answered than at the run before, and
nothing failed. A line is printed of each, and 1 is the exit status where one missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.ai import OBSERVED, Ai, describe_changes, list_found, standing

LOAD = Path(__file__).with_name("load.py")
COUNTS = "/run/load.json"

#: What the load asks for; what failed of it has its error behind it.
KINDS = ("api healthz", "api tasks", "redis", "ollama")


def start_load(ai: Ai) -> None:
    """Have the host ask each service of its stack, again and again."""
    addresses = {
        service: next(iter(container["NetworkSettings"]["Networks"].values()))["IPAddress"]
        for service, (container,) in ai.host.containers("ai").items()
    }
    ai.host.put("/run/load.py", LOAD.read_bytes())
    ai.host.sh(
        "systemd-run -q --collect --unit=load python3 /run/load.py http://127.0.0.1:8000 "
        f"{addresses['redis']} http://{addresses['ollama']}:11434 {ai.model} {COUNTS}"
    )
    ai.host.wait_for(f"[ -s {COUNTS} ]", 30)


def read_counts(ai: Ai) -> dict[str, int]:
    """How many requests were answered since the load began, and how many were not, by kind."""
    found: dict[str, int] = json.loads(ai.host.read(COUNTS))
    return found


def compare_counts(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """What of the load stands still, or has failed, since it was counted before.

    >>> compare_counts({"redis": 1}, {"redis": 1, "api healthz": 2, "api tasks": 1, "ollama": 1})
    ['load: redis stands at 1']
    """
    still = [
        f"load: {kind} stands at {after.get(kind, 0)}"
        for kind in KINDS
        if after.get(kind, 0) <= before.get(kind, 0)
    ]
    return still + [
        f"load: {number - before.get(kind, 0)} x {kind}"
        for kind, number in sorted(after.items())
        if kind not in KINDS and number > before.get(kind, 0)
    ]


def check_once(ai: Ai) -> tuple[list[str], float]:
    """One run of the doctor: what is wrong with it, and its seconds."""
    host = ai.host
    files, containers = host.snapshot_files(*OBSERVED), host.identities()
    moment = host.now()
    done = ai.run("doctor")
    events = host.events_since(moment)
    wrong = [] if done.rc == 0 else [f"exit status {done.rc}"]
    report = ai.report()
    diagnosis = report["diagnosis"]
    if report["outcome"] != "converged":
        wrong.append(f"outcome {report['outcome']}")
    if found := list_found(diagnosis):
        wrong.append(f"found {', '.join(found)}\n{done.out}")
    wrong += [
        f"check {check['name']}: {check['status']}: {check['reason']}"
        for check in diagnosis["checks"]
        if check["status"] != "ok"
    ]
    wrong += describe_changes(files, host.snapshot_files(*OBSERVED))
    wrong += describe_changes(containers, host.identities())
    wrong += [f"event {event['Type']} {event['Action']}" for event in events]
    return wrong, done.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Load a host, run the doctor on it; return 1 where a run found or changed something."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.healthy", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--runs", type=int, default=20)
    chosen = parser.parse_args(arguments)
    missed = 0
    with tempfile.TemporaryDirectory() as directory, standing(Path(directory)) as ai:
        start_load(ai)
        begun, counts = time.monotonic(), read_counts(ai)
        pause = chosen.minutes * 60 / max(1, chosen.runs - 1)
        for number in range(chosen.runs):
            time.sleep(max(0.0, begun + number * pause - time.monotonic()))
            wrong, seconds = check_once(ai)
            before, counts = counts, read_counts(ai)
            wrong += compare_counts(before, counts)
            missed += bool(wrong)
            state = "MISS" if wrong else "healthy, untouched"
            minute = (time.monotonic() - begun) / 60
            print(
                f"{minute:5.1f} min  run {number + 1:2}: {state} ({seconds:.1f} s)  "
                f"load so far: {json.dumps(counts)}",
                flush=True,
            )
            for line in wrong:
                print(f"    {line}", flush=True)
    print(f"{chosen.runs - missed} of {chosen.runs} runs found and changed nothing under load")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
