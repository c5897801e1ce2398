"""What a full diagnosis of eight endpoints costs: ``python -m tests.benchmarks.connectivity``.

Its layers are looked at together, so that it may take 1.5 times as long as the slowest of its
single checks. Where all is well that is an endpoint of the eight that is looked at alone; where one
server never answers, it is the one exchange that waits for it. The host's part takes one channel;
all limits are asserted.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.lab import controller, hosts
from tests.lab.far import FarSide, far_side

LIMIT = 1.5
TRIES = 5

WELL = [
    *(f"https://h{last}.far.test/204" for last in (10, 25, 26, 27)),
    "http://h28.far.test/204",
    {"url": "https://h32.far.test/v2/", "kind": "registry"},
    "ssh://h33.far.test",
    "tcp://h35.far.test:80",
]
SILENT = [*WELL[:-1], "https://h19.far.test"]


def measure(side: FarSide, endpoints: list[Any]) -> tuple[float, float, float]:
    """Seconds of the slowest exchange, of the slowest endpoint alone, and of all together.

    The last is the best of some tries.
    """
    alone = max(side.observe([endpoint]).took for endpoint in endpoints)
    states = [side.observe(endpoints) for _ in range(TRIES)]
    best = min(states, key=lambda state: state.took)
    exchange = max(answer.ms for found in best.endpoints for answer in found.host.answers)
    return exchange / 1000, alone / 1000, best.took / 1000


def count_channels(side: FarSide, directory: Path) -> int:
    """Channels that the host's sshd opens for one run of the operation."""
    inventory = controller.write_inventory(
        directory, [side.host], data={"look": {"endpoints": WELL}}
    )
    mark = side.host.mark()
    done = controller.run(inventory, "tests/lab/check_connectivity.py", "-y")
    assert done.rc == 0, done.out
    return len(side.host.sessions_since(mark))


def main() -> int:
    """Measure, print, and hold both limits."""
    hosts.prepare()
    with hosts.lease("managed") as host, far_side(host) as side:
        failed = False
        for name, endpoints in (("all is well", WELL), ("one is silent", SILENT)):
            exchange, alone, together = measure(side, endpoints)
            single = exchange if endpoints is SILENT else alone
            ratio = together / single
            failed |= ratio > LIMIT
            print(
                f"{name}: {len(endpoints)} endpoints in {together:.2f} s, the slowest alone in "
                f"{alone:.2f} s, the slowest exchange in {exchange:.2f} s: {ratio:.2f} times "
                f"(at most {LIMIT})"
            )
        with tempfile.TemporaryDirectory() as directory:
            channels = count_channels(side, Path(directory))
        print(f"channels: {channels} (at most 1)")
        return 1 if failed or channels > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
