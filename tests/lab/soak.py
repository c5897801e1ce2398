"""A host that mends itself, with faults at random: ``python -m tests.lab.soak --minutes 30``.

It prints each fault with the runs that it took, and ends with 1 where one was not healed by the
next run but one, where a run changed what was well, or where files, memory or processes grow, or
records beyond one a run and their limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from stackmend.reporting import journal
from stackmend.reporting.write import KEEP
from tests.lab import hosts
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

UNIT = "stackmend-host"
STATE = "/var/lib/stackmend"
REPORTS = f"{STATE}/schedule/{UNIT}/reports"

#: Runs that may begin after a fault until it is healed.
RUNS = 2

#: Limits of ``reconcile`` under which nothing is left alone: it is broken again on purpose.
LIMITS = {"mends": 50, "within": 1, "backoff": 0}

#: How much more memory processes may hold at the end, and how many more files, processes and bytes
#: of stackmend's own there may be. What lies beside the records is an index or two.
GROWTH = 1.3
FILES = 5
PROCESSES = 2
BYTES = 64 * 1024

#: The host's own processes, containers' and this look's left out, as a JSON object: the name → how
#: many, and the KiB that they hold. Those of a run that has ended belong to it.
PROCESSES_OF_HOST = """
import collections, json, os
space, own = os.readlink("/proc/1/ns/pid"), os.getsid(0)
found = collections.defaultdict(lambda: [0, 0])
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        if os.readlink(f"/proc/{pid}/ns/pid") != space or os.getsid(int(pid)) == own:
            continue
        with open(f"/proc/{pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
    except OSError:
        continue
    each = found[lines["Name"].strip()]
    each[0] += 1
    each[1] += int(lines.get("VmRSS", "0 kB").split()[0])
print(json.dumps(found))
"""

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


@dataclass(frozen=True)
class Measure:
    """What of a host may grow, while no run is under way.

    + files: outside of the records
    + size: bytes below /var/lib/stackmend, the records and the journal left out
    + journal: bytes of the journal of changes, and of the one before it
    + records: names of the runs' records
    + beside: files beside the records
    + processes: name → how many of the host's own, and the KiB that they hold
    """

    files: int
    size: int
    journal: int
    records: frozenset[str]
    beside: int
    processes: dict[str, tuple[int, int]]

    @property
    def count(self) -> int:
        """How many processes there are."""
        return sum(number for number, _ in self.processes.values())

    @property
    def memory(self) -> int:
        """KiB that they hold."""
        return sum(kib for _, kib in self.processes.values())

    def __str__(self) -> str:
        return (
            f"{self.files} files, {self.size} bytes of stackmend's, {self.journal} of its journal, "
            f"{len(self.records)} records, {self.count} processes with {self.memory} KiB"
        )


@dataclass
class Soak:
    """What a soak saw.

    + faults: each fault and the runs that it took
    + wrong: what must not be
    + before: what there was when it began
    + after: what there was at its end
    """

    faults: list[tuple[str, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    before: Measure | None = None
    after: Measure | None = None


def set_timer(host: LabHost, seconds: int) -> None:
    """Have the timer run each so many seconds, by a drop-in set by hand."""
    host.put(
        f"/etc/systemd/system/{UNIT}.timer.d/soak.conf",
        f"[Timer]\nOnCalendar=\nOnCalendar=*:*:0/{seconds}\nRandomizedDelaySec=0\n"
        if seconds < 60
        else f"[Timer]\nOnCalendar=\nOnCalendar=*:0/{seconds // 60}\nRandomizedDelaySec=0\n",
    )
    host.sh(f"systemctl daemon-reload; systemctl restart {UNIT}.timer")


def unset_timer(host: LabHost) -> None:
    """End that, and leave the timer as stackmend set it."""
    host.sh(
        f"rm -rf /etc/systemd/system/{UNIT}.timer.d; systemctl daemon-reload; "
        f"systemctl restart {UNIT}.timer"
    )


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
    seen.before, seen.after = before, measure(host)
    seen.wrong += list_growth(before, seen.after)
    return seen


def list_growth(before: Measure, after: Measure) -> Iterator[str]:
    """What has grown that may not, a line for each."""
    # Each run keeps one, and the oldest go; nothing else may lie beside them.
    runs = len(after.records - before.records)
    if not runs:
        yield "no run of the timer has left a record"
    if len(after.records) > KEEP:
        yield f"records: {len(after.records)}, and {KEEP} are the limit"
    for what, was, now, more in (
        ("files beside the records", before.beside, after.beside, FILES),
        ("files", before.files, after.files, FILES),
        ("bytes of stackmend's", before.size, after.size, BYTES),
        ("processes", before.count, after.count, PROCESSES),
        ("KiB of memory", before.memory, after.memory, int(before.memory * (GROWTH - 1))),
    ):
        if now > was + more:
            yield f"{what}: {was} → {now} in {runs} runs\n{before.processes}\n{after.processes}"
    # It is moved aside once it is so long, by the run that appends to it.
    if after.journal > 2 * journal.ROTATE_AT + BYTES:
        yield f"the journal holds {after.journal} bytes"


def wait_for_end(host: LabHost) -> None:
    """Wait until no run is under way; a record is there a moment before its run has ended."""
    host.wait_for(f"! systemctl is-active {UNIT}.service | grep -qx activating", 240)


@contextlib.contextmanager
def holding_timer(host: LabHost) -> Iterator[None]:
    """No run is under way, and none begins."""
    host.sh(f"systemctl stop {UNIT}.timer")
    wait_for_end(host)
    try:
        yield
    finally:
        host.sh(f"systemctl start {UNIT}.timer")


def measure(host: LabHost) -> Measure:
    """What of a host may grow, between two runs."""
    with holding_timer(host):
        files = host.sh(
            "find /etc /opt /tmp /run/systemd /var/lib/stackmend /var/log -xdev -type f "
            f"-not -path '{REPORTS}/*' -not -path '/var/log/journal/*' 2>/dev/null | wc -l"
        )
        size = host.sh(
            f"du -sb --exclude reports --exclude 'journal.jsonl*' {STATE} | cut -f 1; "
            f"cat {STATE}/journal.jsonl* | wc -c"
        )
        # Before the first run there is none.
        listed = host.sh(f"find {REPORTS} -type f -printf '%P\n' 2>/dev/null", check=False)
        # A health check that is begun just now is none of those that stay.
        looks = [
            json.loads(host.sh(f"python3 -c {shlex.quote(PROCESSES_OF_HOST)}")) for _ in range(3)
        ]
    own, changes = map(int, size.split())
    names = listed.split()
    records = frozenset(name for name in names if name.startswith("2"))
    fewest = min(looks, key=lambda look: sum(number for number, _ in look.values()))
    processes = {name: (number, kib) for name, (number, kib) in sorted(fewest.items())}
    return Measure(int(files), own, changes, records, len(names) - len(records), processes)


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
    print(f"{len(seen.faults)} faults\nbefore: {seen.before}\nafter: {seen.after}")
    for line in seen.wrong:
        print(f"WRONG: {line}")
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
