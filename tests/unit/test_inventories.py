"""The example fleet is what the README says: it loads, and its settings are right."""

import json
import os
import subprocess
import sys
from pathlib import Path

from stackmend.spec import check
from tests.unit.access_world import public

ROOT = Path(__file__).parents[2]
FLEET = "inventories/example/fleet.py"


def test_the_example_fleet_loads_and_its_settings_are_right() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "--json", FLEET, "debug-inventory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    hosts = {host["name"]: host for host in json.loads(done.stdout)}
    assert set(hosts) == {"ai1.example.com", "ai2.example.com", "ai3.example.com"}
    large = hosts["ai3.example.com"]
    assert "large" in large["groups"]
    for host in hosts.values():
        assert host["data"]["ssh_user"] == "operator"
        stack = check(host["data"])
        assert stack is not None
        assert len(stack.checks) == 3


def test_the_new_machine_loads_and_its_settings_are_right(tmp_path: Path) -> None:
    # The key that it names is the user's own.
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(public())
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "--json", "inventories/new.py", "debug-inventory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    (host,) = json.loads(done.stdout)
    access = host["data"]["stack"]["access"]
    assert access["user"] == "ops"
    assert access["password_login"] is False
