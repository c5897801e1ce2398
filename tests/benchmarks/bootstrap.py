"""How long it takes to make a new machine a managed one, against a hand-written shell script.

``python -m tests.benchmarks.bootstrap`` does both on lab hosts of Debian 13, in interleaved rounds,
each time on a host that is made anew: ``deploy/bootstrap.py`` over its own first contact, and
``bootstrap.sh`` over OpenSSH's client. Both install the same packages from the same mirror. A round
counts only where the machine is then what it was to become. Numbers are also written as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import hosts
from tests.lab.hosts import LabHost
from tests.lab.newcomer import USER, Newcomer, hand_over
from tests.lab.paths import VAR

TARGET = 1.3
LOG = {"driver": "json-file", "max_size": "10m", "max_file": 3}
SCRIPT = (Path(__file__).parent / "bootstrap.sh").read_bytes()


class NotThere(Exception):
    """A machine is not what it was to become, so its time says nothing."""


def by_stackmend(host: LabHost, newcomer: Newcomer) -> None:
    """``deploy/bootstrap.py``, from the first contact on."""
    stack = {
        "access": newcomer.access(password_login=False),
        "engine": {"channel": "distro", "log": LOG},
    }
    newcomer.expects([host], stack, ssh_user="root", ssh_key=str(newcomer.key()))
    done = newcomer.run("deploy/bootstrap.py", timeout=600)
    if done.rc != 0:
        raise NotThere(done.out)


def by_script(host: LabHost, newcomer: Newcomer) -> None:
    """The script, fed to the host's shell."""
    argv = [
        *("ssh", "-i", str(newcomer.key()), "-p", str(host.port), "-F", "none"),
        *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
        *("-o", "StrictHostKeyChecking=accept-new"),
        *("-o", f"UserKnownHostsFile={newcomer.known_hosts}"),
        *("root@127.0.0.1", f"sh -s -- '{newcomer.public()}'"),
    ]
    done = subprocess.run(argv, input=SCRIPT, capture_output=True, timeout=600, check=False)
    if done.returncode != 0:
        raise NotThere((done.stdout + done.stderr).decode(errors="replace"))


CONTENDERS: dict[str, Callable[[LabHost, Newcomer], None]] = {
    "script": by_script,
    "stackmend": by_stackmend,
}


def timed(host: LabHost, contender: str) -> float:
    """Seconds that a contender takes on a host that is made anew."""
    host.recreate()
    with tempfile.TemporaryDirectory() as directory:
        newcomer = Newcomer(Path(directory))
        hand_over(host, "root key", newcomer.public())
        began = time.perf_counter()
        CONTENDERS[contender](host, newcomer)
        seconds = time.perf_counter() - began
        check(host, newcomer)
    return seconds


def check(host: LabHost, newcomer: Newcomer) -> None:
    """Look from outside whether the machine is what it was to become."""
    if "uid=0(root)" not in newcomer.logs_in(host, USER, command="sudo id"):
        raise NotThere(f"{USER} cannot log in with sudo")
    if "passwordauthentication no" not in host.sh("sshd -T"):
        raise NotThere("passwords are still taken")
    host.sh("docker compose version")
    if host.docker("info", "-f", "{{.LoggingDriver}}") != "json-file":
        raise NotThere("the engine does not have its settings")
    if json.loads(host.read("/etc/docker/daemon.json"))["log-opts"]["max-size"] != "10m":
        raise NotThere("the engine's settings are not there")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds: int = parser.parse_args().rounds
    hosts.prepare()
    took: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with hosts.lease("trixie") as host:
        try:
            for number in range(rounds):
                # The first of a round has the colder caches: each is it in turn.
                for name in list(CONTENDERS)[:: 1 if number % 2 else -1]:
                    took[name].append(timed(host, name))
                    print(f"round {number + 1}: {name} {took[name][-1]:.1f} s", flush=True)
        finally:
            host.recreate()
    middle = {name: statistics.median(seconds) for name, seconds in took.items()}
    ratio = middle["stackmend"] / middle["script"]
    for name, seconds in middle.items():
        print(f"{name:12} {seconds:6.1f} s")
    print(f"stackmend takes {ratio:.2f} times as long as the script (at most {TARGET:g})")
    path = VAR.parent / "bench" / "bootstrap.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": took, "ratio": ratio}, indent=1), encoding="utf-8")
    print(path)
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
