"""How long the probe of ports takes on a crowded host, against one ``ss -ltnup`` there.

``python -m tests.benchmarks.ports`` makes a lab host with 1,000 processes and 5,000 sockets, and
asks for 50 ports: every second one is held. What is measured runs on the host itself, in
interleaved rounds: ss alone, the probe as it is, and the probe without ss and without python3.
Numbers are also written as JSON.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from stackmend.ports.facts import PortHolders
from tests.lab.hosts import LabHost, lease, prepare
from tests.lab.paths import VAR

PROCESSES, SOCKETS = 1000, 5000
FIRST = 10000
#: One port of a process of its own, then one of nobody, 25 times.
WANTED = [port for number in range(25) for port in (FIRST + 4 * number, FIRST + 20000 + number)]
TARGET = 3.0

# Every process listens on four ports of TCP and has one of UDP.
CROWD = f"""
import os, resource, signal, socket
resource.setrlimit(resource.RLIMIT_NPROC, (65536, 65536))
for number in range({PROCESSES}):
    if os.fork():
        continue
    os.setsid()
    kept = []
    for offset in range({SOCKETS // PROCESSES} - 1):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("0.0.0.0", {FIRST} + 4 * number + offset))
        one.listen(1)
        kept.append(one)
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("0.0.0.0", {FIRST} + number))
    kept.append(one)
    signal.pause()
"""

# Takes [[name, words, hidden paths], …] and the number of rounds; prints name → seconds.
TIMER = """
import json, os, subprocess, sys, time
contenders, rounds = json.loads(sys.argv[1]), int(sys.argv[2])
took, printed = {}, {}
for turn in range(rounds + 1):
    for name, words, hidden in contenders:
        for path in hidden:
            os.rename(path, path + ".hidden")
        try:
            begun = time.perf_counter()
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)
            seconds = time.perf_counter() - begun
        finally:
            for path in hidden:
                os.rename(path + ".hidden", path)
        if turn:  # the first round warms the caches
            took.setdefault(name, []).append(seconds)
        printed[name] = done.stdout.decode(errors="replace")
print(json.dumps([took, printed]))
"""

#: What is asked, and then read from what is printed.
FACT = PortHolders()


def crowd(host: LabHost) -> None:
    """Fill the host with processes and sockets."""
    host.put("/tmp/crowd.py", CROWD)
    host.sh(
        "systemd-run -q --unit=crowd -p TasksMax=infinity -p Type=forking python3 /tmp/crowd.py"
    )
    host.wait_for(f'[ "$(ss -Hltu | wc -l)" -ge {SOCKETS} ]', 120)


def measure(host: LabHost, rounds: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of every round, and what each contender printed last, by contender."""
    command = FACT.command(ports=WANTED).get_raw_value()
    ss, python = host.sh("readlink -f $(command -v ss)"), host.sh("command -v python3")
    probe = ["sh", "-c", command]
    contenders: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("ss -ltnup", ["ss", "-ltnup"], []),
        ("probe", probe, []),
        ("probe without ss and python3", probe, [ss, python]),
    ]
    host.put("/tmp/timer.py", TIMER)
    words = [python, "/tmp/timer.py", json.dumps(contenders), str(rounds)]
    took, printed = json.loads(host.sh(shlex.join(words), timeout=600))
    return took, printed


def check(printed: Mapping[str, str]) -> None:
    """A time says something only of a probe that told the truth."""
    for name, text in printed.items():
        if not name.startswith("probe"):
            continue
        state = FACT.process(text.split("\n"))
        held = {row.desired.port for row in state.ports if row.status == "held"}
        assert held == {port for port in WANTED if port < FIRST + 20000}, (name, held)
        for row in state.ports:
            assert all(one.kind == "unit" and one.process for one in row.holders), (name, row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds: int = parser.parse_args().rounds
    prepare()
    with lease("managed") as host:
        host.reset()
        try:
            crowd(host)
            processes = int(host.sh("ls -d /proc/[0-9]* | wc -l"))
            sockets = int(host.sh("ss -Hatu | wc -l"))
            took, printed = measure(host, rounds)
        finally:
            host.reset()
    check(printed)
    middle = {name: statistics.median(seconds) for name, seconds in took.items()}
    base = middle["ss -ltnup"]
    print(f"{len(WANTED)} ports, {processes} processes, {sockets} sockets, {rounds} rounds")
    for name, seconds in middle.items():
        print(f"{name:30} {seconds * 1000:8.1f} ms  {seconds / base:5.2f} x")
    said = "within" if middle["probe"] <= TARGET * base else "beyond"
    print(f"the probe is {said} {TARGET:g} times ss")
    result: dict[str, Any] = {
        "ports": len(WANTED),
        "processes": processes,
        "sockets": sockets,
        "seconds": took,
        "ratio": {name: seconds / base for name, seconds in middle.items()},
    }
    path = VAR.parent / "bench" / "ports.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
