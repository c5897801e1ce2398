"""How long it takes to bring many files and large ones to a host, against ``tar | ssh``.

``python -m tests.benchmarks.files`` does both on a lab host, in interleaved rounds: 10,000 files of
100 bytes, and 50 files of a million. What is held against ``tar | ssh`` is what the files add to a
run: a whole run less one that brings ten files, because a run of any size also reads the host,
takes the lock, asks Compose, proves the services and writes the record, of which ``tar | ssh`` does
nothing. The whole run's ratio is printed beside it. Each run is a process of its own, as a user's
is. ``tar | ssh`` logs in anew, and in every other round it comes first. Then, with the files in
place, a run that finds nothing to do, against one of the same project with ten files. A round
counts only where the host then has the very files. Medians are printed as JSON, and the exit status
is 1 where a limit is not met.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.lab import hosts
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

TIMES_TAR = 2.0
TIMES_TEN = 1.5
#: Files, the bytes of each, and the directories that they are spread over.
CASES = {"10,000 files": (10_000, 100, 100), "50 MB": (50, 1_000_000, 1)}
TEN = (10, 100, 10)


class NotThere(Exception):
    """A run did not do what its time is to tell of."""


def write(shop: Shop, count: int, size: int, directories: int, seed: int) -> None:
    """Put so many files of so many bytes into the source, in the place of those there."""
    shutil.rmtree(shop.source / "data", ignore_errors=True)
    content = random.Random(seed)
    for number in range(count):
        shop.put(f"data/{number % directories}/{number}", content.randbytes(size))


def run(shop: Shop, *, changed: bool) -> float:
    """One run of ours, and its seconds."""
    began = time.perf_counter()
    done = shop.run("-y", timeout=1200, cold=True)
    seconds = time.perf_counter() - began
    if done.rc != 0 or ("1 changed" in done.out) != changed:
        raise NotThere(done.out[-4000:])
    return seconds


def by_hand(shop: Shop) -> float:
    """The same files by ``tar | ssh``, and its seconds."""
    login = shlex.join(shop.host.ssh_argv())
    shop.host.sh("rm -rf /opt/by-hand", timeout=300)
    line = f"tar -C {shlex.quote(str(shop.source))} -c . | {login} 'mkdir /opt/by-hand && "
    began = time.perf_counter()
    subprocess.run(["sh", "-c", line + "tar -C /opt/by-hand -x'"], check=True)
    return time.perf_counter() - began


def prove(host: LabHost, count: int) -> None:
    """The files lie there as they lie where they were brought by hand.

    Directories that are empty now are nobody's: an earlier case has left them.
    """
    listing = "find . -type f -print0 | sort -z | xargs -0 sha256sum"
    ours, theirs = (
        host.sh(f"cd {place} && {listing}", timeout=300) for place in ("/opt/shop", "/opt/by-hand")
    )
    if ours != theirs:
        raise NotThere("what is there differs from what tar brought")
    if (found := ours.count("  ./data/")) != count:
        raise NotThere(f"{found} files, not {count}")


def measure(host: LabHost, directory: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of all rounds."""
    shop = Shop(directory, host, stability=0)
    shop.compose = {"services": {"side": {"image": "lab/box:1", "restart": "unless-stopped"}}}
    write(shop, *TEN, seed=0)
    shop.deploy()
    seconds: dict[str, dict[str, list[float]]] = {
        case: {"tar | ssh": [], "run": [], "ten": [], "no change": [], "no change of ten": []}
        for case in CASES
    }
    for number in range(1, rounds + 1):
        for case, (count, size, directories) in CASES.items():
            took = seconds[case]
            # What the last case left goes meanwhile, and so does what was kept of it: of five
            # generations none with many files is removed in a run that counts.
            for uncounted in range(3):
                write(shop, *TEN, seed=1000 * uncounted + number)
                run(shop, changed=True)
            write(shop, *TEN, seed=3000 + number)
            took["ten"].append(run(shop, changed=True))
            took["no change of ten"].append(run(shop, changed=False))
            write(shop, count, size, directories, seed=number)
            if number % 2:
                took["tar | ssh"].append(by_hand(shop))
            took["run"].append(run(shop, changed=True))
            if not number % 2:
                took["tar | ssh"].append(by_hand(shop))
            prove(host, count)
            took["no change"].append(run(shop, changed=False))
            shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in took.items())
            print(f"round {number}, {case}: {shown}", flush=True)
    return {
        case: {name: statistics.median(values) for name, values in took.items()}
        for case, took in seconds.items()
    }


def main() -> None:
    """Measure, print, and say whether the limits are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    hosts.prepare()
    with hosts.lease("managed") as host, tempfile.TemporaryDirectory() as directory:
        host.reset()
        medians = measure(host, Path(directory), options.rounds)
        host.reset()
    met = True
    for case, took in medians.items():
        took["times tar | ssh"] = (took["run"] - took["ten"]) / took["tar | ssh"]
        took["whole run, times tar | ssh"] = took["run"] / took["tar | ssh"]
        took["no change, times ten"] = took["no change"] / took["no change of ten"]
        met &= took["times tar | ssh"] <= TIMES_TAR and took["no change, times ten"] <= TIMES_TEN
        medians[case] = {name: round(value, 2) for name, value in took.items()}
    print(json.dumps(medians, indent=2))
    print("limits met" if met else "LIMITS NOT MET")
    sys.exit(not met)


if __name__ == "__main__":
    main()
