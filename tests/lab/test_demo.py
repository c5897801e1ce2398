"""The demo does what it says: what a newcomer runs first must not be what nobody tests."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.lab import hosts as lab_hosts
from tests.lab.fixtures import Lab
from tests.lab.paths import PROJECT, VAR


def test_demo_mends_what_it_broke_and_says_so(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.demo"],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    plain = done.stdout.rpartition("== In plain words")[2]
    for wrong in (
        "127.0.0.1:8000/tcp: held by unit squatter.service",
        "api: it has no container",
        "ollama: it is paused",
        "redis: it exited with code 0",
        "worker: networks.ai_default: detached",
    ):
        assert wrong in plain
    assert "stop unit squatter.service" in plain
    assert "The second run changed nothing" in plain
    assert "var/lab/demo/latest.json" in plain
    assert json.loads((VAR / "demo" / "latest.json").read_text())["complete"] is True
    # What it leaves for a newcomer to look at: the first host that nobody holds.
    with lab_hosts.lease() as host:
        host.reset()
