"""Run the fuzz of every probe at length, with new examples, and add up what was run.

``make fuzz``, or ``python -m tests.fuzz [SEED]`` to run the examples of an earlier run again.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MODULES = ("tests/unit/test_hostile_output.py", "tests/unit/test_hostile_answers.py")

#: Fewer examples than this are no run.
MINIMUM = 10_000


def main() -> int:
    """Exit as pytest does, or with 1 where too few examples were run."""
    seed = sys.argv[1] if len(sys.argv) > 1 else str(secrets.randbelow(2**32))
    workers = os.environ.get("WORKERS", "2")
    print(f"seed {seed}: `python -m tests.fuzz {seed}` runs the same again", flush=True)
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(prefix="stackmend-fuzz.") as counts:
        environment = {"STACKMEND_FUZZ": "1", **os.environ, "STACKMEND_FUZZ_COUNTS": counts.name}
        words = ["-q", "-n", workers, f"--hypothesis-seed={seed}", "-p", "no:cacheprovider"]
        # A megabyte in a failing example is no failure of its own.
        words += ["-W", "ignore::hypothesis.errors.HypothesisWarning"]
        done = subprocess.run([sys.executable, "-m", "pytest", *words, *MODULES], env=environment)
        rows = [json.loads(line) for line in Path(counts.name).read_text().splitlines()]
    total: Counter[str] = Counter()
    print(f"{'probe':24} {'examples':>8} {'partly told':>12} {'unknown':>8}")
    for row in sorted(rows, key=lambda row: str(row["probe"])):
        shown = [row.get(key, 0) for key in ("examples", "partly told", "unknown")]
        print("{:24} {:8} {:12} {:8}".format(row["probe"], *shown))
        total["examples"] += shown[0]
    minutes = (time.monotonic() - began) / 60
    print(f"{total['examples']} examples in {minutes:.1f} min, seed {seed}")
    if done.returncode == 0 and total["examples"] < MINIMUM:
        print(f"fewer than {MINIMUM} examples were run", file=sys.stderr)
        return 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
