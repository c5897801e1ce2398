"""A host that mends itself, with faults at random: ``python -m tests.lab.soak --minutes 30``.

It prints each fault with the runs that it took, and ends with 1 where one was not healed by the
next run but one, where a run changed what was well, or where files or memory grow.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.lab import hosts
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

UNIT = "stackmend-host"
REPORTS = f"/var/lib/stackmend/schedule/{UNIT}/reports"

#: Runs that may begin after a fault until it is healed.
RUNS = 2

#: Limits of ``reconcile`` under which nothing is left alone: it is broken again on purpose.
LIMITS = {"mends": 50, "within": 1, "backoff": 0}

#: How much more memory daemons may hold at the end, and files there may be.
GROWTH = 1.3
FILES = 5

FAULTS: dict[str, Callable[[Shop], object]] = {
    "kill web": lambda shop: shop.host.docker("kill", shop.id("web")),
    "remove web": lambda shop: shop.host.docker("rm", "-f", shop.id("web")),
    "stop side": lambda shop: shop.host.docker("stop", "-t", "0", shop.id("side")),
    "pause side": lambda shop: shop.host.docker("pause", shop.id("side")),
    "change a mounted file": lambda shop: shop.host.sh(f"echo broken >{shop.home}/conf/web.conf"),
    "disconnect web": lambda shop: shop.host.docker(
        "network", "disconnect", "-f", f"{shop.project}_default", shop.id("web")
    ),
    "remove redis": lambda shop: shop.host.docker("rm", "-f", shop.id("redis")),
}


@dataclass
class Soak:
    """What a soak saw.

    + faults: each fault and the runs that it took
    + runs: how many runs ended
    + wrong: what must not be
    """

    faults: list[tuple[str, int]] = field(default_factory=list)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: tuple[int, int] = (0, 0)
    records: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)


def set_timer(host: LabHost, seconds: int) -> None:
    """Have the timer run each so many seconds, by a drop-in set by hand."""
    host.put(
        f"/etc/systemd/system/{UNIT}.timer.d/soak.conf",
        f"[Timer]\nOnCalendar=\nOnCalendar=*:*:0/{seconds}\nRandomizedDelaySec=0\n"
        if seconds < 60
        else f"[Timer]\nOnCalendar=\nOnCalendar=*:0/{seconds // 60}\nRandomizedDelaySec=0\n",
    )
    host.sh(f"systemctl daemon-reload; systemctl restart {UNIT}.timer")


def soak(
    shop: Shop,
    seconds: float,
    random_: random.Random,
    *,
    show: Callable[[str], object] = lambda line: None,
    least: int = 1,
) -> Soak:
    """Inject faults until the time is up, each once the one before is healed.

    + least: faults of different kinds that there are at least, however long they take
    """
    seen = Soak()
    host = shop.host
    end = time.monotonic() + seconds
    before = measure(host)
    names = list(FAULTS)
    order: list[str] = []
    while time.monotonic() < end or len(seen.faults) < least:
        order = order or random_.sample(names, len(names))
        name = order.pop()
        since = float(host.now())
        FAULTS[name](shop)
        runs = wait_until_healed(shop, since)
        seen.faults.append((name, runs))
        show(f"{name}: " + (f"healed by run {runs}" if runs else "NOT healed"))
        if not runs:
            seen.wrong.append(f"{name}: not healed by the next run but one")
            break
        with shop.watching() as quiet:
            since = float(host.now())
            wait_for_runs(host, since, 1)
        if not quiet.quiet:
            seen.wrong.append(f"after {name} a run changed what was well: {quiet.events}")
    after = measure(host)
    seen.runs = int(host.sh(f"ls {REPORTS} | grep -c '^2'"))
    seen.files, seen.memory, seen.records = zip(before, after, strict=True)
    # Records are kept, one a run, and an index or two; nothing else may lie beside them.
    if after[2] > before[2] + seen.runs + FILES:
        seen.wrong.append(f"records grow: {before[2]} → {after[2]} in {seen.runs} runs")
    if after[0] > before[0] + FILES:
        seen.wrong.append(f"files grow: {before[0]} → {after[0]}")
    if after[1] > before[1] * GROWTH:
        seen.wrong.append(f"memory of daemons grows: {before[1]} → {after[1]} KiB")
    return seen


def measure(host: LabHost) -> tuple[int, int, int]:
    """Files outside of the records, KiB that daemons hold, and records."""
    files = host.sh(
        "find /etc /opt /tmp /run/systemd /var/lib/stackmend /var/log -xdev -type f "
        f"-not -path '{REPORTS}/*' -not -path '/var/log/journal/*' 2>/dev/null | wc -l"
    )
    memory = host.sh(
        "ps -C dockerd,containerd,systemd,systemd-journal -o rss= | awk '{s+=$1} END {print s}'"
    )
    records = host.sh(f"find {REPORTS} -type f 2>/dev/null | wc -l")
    return int(files), int(memory), int(records)


def wait_until_healed(shop: Shop, since: float) -> int:
    """After how many runs that began since then the shop is well; 0 where it is not."""
    for number in range(1, RUNS + 1):
        wait_for_runs(shop.host, since, number)
        try:
            shop.assert_well()
        except AssertionError:
            continue
        return number
    return 0


def wait_for_runs(host: LabHost, since: float, count: int, *, reports: str = REPORTS) -> None:
    """Wait until so many runs have ended that began since then."""
    deadline = time.monotonic() + 240
    while sum(1 for _ in list_runs(host, since, reports)) < count:
        if time.monotonic() > deadline:
            raise AssertionError(
                "the timer does not run: " + host.sh(f"systemctl status {UNIT}", check=False)
            )
        time.sleep(0.3)


def list_runs(host: LabHost, since: float, reports: str = REPORTS) -> Iterator[str]:
    """The moments at which runs began since then, of those that ended."""
    lines = host.sh(
        f"cd {reports} 2>/dev/null && ls | grep '^2' | tail -n 5 | "
        'xargs -r grep -ho \'"started": *"[^"]*"\'',
        check=False,
    )
    for line in lines.splitlines():
        moment = json.loads("{" + line + "}")["started"]
        if datetime.fromisoformat(moment).timestamp() >= since:
            yield moment


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=int, default=60, help="seconds between two runs")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    print(f"seed {seed}", flush=True)
    hosts.prepare()
    with hosts.lease("managed") as host, tempfile.TemporaryDirectory() as directory:
        host.reset()
        shop = Shop(Path(directory), host)
        shop.settings["mend"] = {"attempts": 100, "backoff": [0]}
        shop.settings["reconcile"] = LIMITS
        shop.settings["schedule"] = {"mode": "host", "every": "1min", "random_delay": 0}
        done = shop.run("-y", timeout=400)
        if done.rc != 0:
            print(done.out)
            return 1
        set_timer(host, options.every)
        seen = soak(
            shop,
            options.minutes * 60,
            random.Random(seed),
            show=lambda line: print(line, flush=True),
        )
        host.reset()
    print(f"{len(seen.faults)} faults, {seen.runs} runs")
    print(f"files {seen.files[0]} → {seen.files[1]}")
    print(f"records {seen.records[0]} → {seen.records[1]}")
    print(f"memory of daemons {seen.memory[0]} → {seen.memory[1]} KiB")
    for line in seen.wrong:
        print(f"WRONG: {line}")
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
