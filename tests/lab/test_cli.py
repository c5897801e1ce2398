"""The command ``stackmend`` on real hosts: a first inventory, and each of its exit codes."""

from __future__ import annotations

import contextlib
import json
import pprint
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.controller import Controller, Run
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.paths import KEY, KNOWN_HOSTS

COMMAND = str(Path(sys.executable).with_name("stackmend"))
LOCK = "/var/lib/stackmend/run.lock"
COMPOSE: Mapping[str, Any] = {
    "services": {"side": {"image": "lab/box:1", "restart": "unless-stopped", "init": True}}
}


class Fleet:
    """Two hosts and a directory of their user, who has the key and knows theirs."""

    def __init__(self, directory: Path, hosts: list[LabHost]) -> None:
        self.directory, self.hosts = directory, hosts
        self.first, self.second = hosts
        (directory / ".ssh").mkdir()
        (directory / ".ssh/known_hosts").write_bytes(KNOWN_HOSTS.read_bytes())
        (directory / "shop").mkdir()
        self.write_project()

    def write_project(self, compose: Mapping[str, Any] = COMPOSE) -> None:
        (self.directory / "shop/compose.yaml").write_text(yaml.safe_dump(dict(compose)))

    def start(self, *words: str) -> Controller:
        env = {"HOME": str(self.directory), "STACKMEND_REPORTS": "", "NO_COLOR": "1"}
        return Controller(words[0], *words[1:], env=env, cwd=self.directory, program=[COMMAND])

    def run(self, *words: str) -> Run:
        with self.start(*words) as command:
            done = command.wait(120)
        assert "Traceback" not in done.out, done.out
        return done

    def write(self, **stacks: Mapping[str, Any]) -> None:
        """Write ``fleet.py``: the settings of ``first`` and ``second`` by name, of both without.

        A name that no host has is one that nothing listens for.
        """
        named = {"first": self.first, "second": self.second}
        rows = []
        for name, changes in (stacks or {"first": {}}).items():
            host = named.get(name)
            data = dict(host.ssh_data()) if host else {"ssh_hostname": "127.0.0.1", "ssh_port": 1}
            stack = {
                "project": "shop",
                "source": str(self.directory / "shop"),
                "directory": "/opt/shop",
                "stability": 1,
                "minimum_free": "100MiB",
                "mend": {"attempts": 100, "backoff": [0]},
                **changes,
                # The same breaks again and again here, and that is no reason to leave it alone.
                "reconcile": {"mends": 50, "backoff": 0, **changes.get("reconcile", {})},
            }
            rows.append((name, {**data, "stack": stack}))
        text = f"hosts = {pprint.pformat(rows, sort_dicts=False)}\n"
        (self.directory / "fleet.py").write_text(text)

    def record(self) -> dict[str, Any]:
        latest = self.directory / "var/reports/latest.json"
        record: dict[str, Any] = json.loads(latest.read_bytes())
        return record

    def outcomes(self) -> dict[str, str]:
        return {name: host["outcome"] for name, host in self.record()["hosts"].items()}


@pytest.fixture(scope="module")
def deployed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet whose first host carries the stack, as a new user has brought it there."""
    fleet = Fleet(tmp_path_factory.mktemp("home"), lab.take(2))
    address = f"first=127.0.0.1:{fleet.first.port}"
    words = ("--host", address, "--key", str(KEY), "--project", "shop", "--source", "shop")
    made = fleet.run("init", "my", *words)
    assert made.rc == 0, made.out
    # What is not there yet is named, and not touched.
    found = fleet.run("doctor", "my")
    assert (found.rc, fleet.outcomes()) == (1, {"first": "drifted"}), found.out
    assert "service-down" in found.out, found.out
    assert list_running(fleet.first) == []
    done = fleet.run("site", "my")
    assert done.rc == 0, done.out
    assert fleet.outcomes() == {"first": "changed"}
    assert "done: up side" in done.out, done.out
    return fleet


@pytest.fixture
def fleet(deployed: Fleet) -> Fleet:
    """The same, with the project and an inventory as they are well."""
    deployed.write_project()
    deployed.write()
    return deployed


def list_running(host: LabHost) -> list[str]:
    return host.docker("ps", "--format", "{{.Names}}").split()


def kill(host: LabHost) -> None:
    host.docker("stop", "-t", "0", "shop-side-1")


@contextlib.contextmanager
def held(host: LabHost) -> Iterator[None]:
    """Somebody else holds the lock of the project within the block."""
    hold = f"echo ann@laptop >{LOCK}; exec flock -x {LOCK} sleep 100"
    host.sh(f"setsid sh -c {shlex.quote(hold)} >/dev/null 2>&1 &")
    host.wait_for(f"! flock -n {LOCK} true", 20)
    try:
        yield
    finally:
        host.sh(f"fuser -k {LOCK} >/dev/null 2>&1 || pkill -f 'sleep [1]00'")
        host.wait_for(f"flock -n {LOCK} true", 20)


def test_a_first_inventory_comes_to_a_healthy_stack(deployed: Fleet) -> None:
    assert list_running(deployed.first) == ["shop-side-1"]
    again = deployed.run("site", "my", "--detailed-exitcode")
    assert again.rc == 0, again.out
    assert deployed.outcomes() == {"first": "converged"}
    assert len(again.out.splitlines()) == 2, "a line for the host, and one for all"
    healthy = deployed.run("doctor", "my")
    assert (healthy.rc, "first: healthy" in healthy.out) == (0, True), healthy.out


def test_a_host_that_was_left_out_stands_on_the_page(fleet: Fleet) -> None:
    fleet.write(first={}, away={})
    assert fleet.run("site", "fleet.py").rc == 3
    assert fleet.run("site", "fleet.py", "--limit", "first").rc == 0
    assert fleet.record()["left_out"] == ["away"]
    assert fleet.run("report", "--html", "page.html").rc == 0
    page = (fleet.directory / "page.html").read_text()
    assert "<title>2 hosts: 1 unreachable, 1 converged</title>" in page
    assert "before, left out of this run" in page


def test_a_change_has_a_code_where_it_is_asked_for(fleet: Fleet) -> None:
    kill(fleet.first)
    assert fleet.run("site", "fleet.py", "--dry").rc == 0
    dry = fleet.run("site", "fleet.py", "--dry", "--detailed-exitcode")
    assert (dry.rc, fleet.outcomes()) == (10, {"first": "drifted"}), dry.out
    assert list_running(fleet.first) == []
    done = fleet.run("site", "fleet.py", "--detailed-exitcode")
    assert (done.rc, fleet.outcomes()) == (10, {"first": "changed"}), done.out
    # What was wrong is said once, whoever found it how often.
    lines = [line.strip() for line in done.out.splitlines()]
    found = [line for line in lines if line.startswith("found: ")]
    assert found
    assert len(found) == len({*found})


def test_a_host_that_fails_among_good_ones(fleet: Fleet) -> None:
    broken = fleet.directory / "broken"
    broken.mkdir()
    (broken / "compose.yaml").write_text(yaml.safe_dump({"services": {"side": {"build": "."}}}))
    (broken / "Dockerfile").write_text("FROM lab/box:1\nRUN false\n")
    fleet.write(first={}, second={"source": str(broken)})
    done = fleet.run("site", "fleet.py")
    assert done.rc == 1, done.out
    assert fleet.outcomes() == {"first": "converged", "second": "failed"}
    assert "second: failed (" in done.out


def test_a_host_that_is_refused_something(fleet: Fleet) -> None:
    fleet.write_project({"services": {"side": {**COMPOSE["services"]["side"], "user": "1000"}}})
    fleet.write(first={"minimum_free": "900TiB"})
    done = fleet.run("site", "fleet.py")
    assert (done.rc, fleet.outcomes()) == (1, {"first": "refused"}), done.out
    assert "remedy: " in done.out


@pytest.mark.parametrize("words", [(), ("--dry",)], ids=["apply", "dry"])
def test_a_host_that_cannot_be_reached(fleet: Fleet, words: tuple[str, ...]) -> None:
    fleet.write(first={}, away={})
    done = fleet.run("site", "fleet.py", *words)
    assert done.rc == 3, done.out
    assert fleet.outcomes() == {"first": "converged", "away": "unreachable"}


def test_a_lock_that_another_run_holds(fleet: Fleet) -> None:
    kill(fleet.first)
    with held(fleet.first):
        done = fleet.run("site", "fleet.py", "--json")
        assert done.rc == 4, done.out
        assert done.json == fleet.record()
        host = done.json["hosts"]["first"]
        assert host["outcome"] == "locked"
        reasons = [each["reason"] for op in host["operations"] for each in op["refusals"]]
        assert reasons == ["another run is at work here: ann@laptop"]
        assert list_running(fleet.first) == []
    assert fleet.run("site", "fleet.py").rc == 0


def test_the_doctor_finds_what_is_wrong_and_changes_nothing(fleet: Fleet) -> None:
    assert fleet.run("site", "fleet.py").rc == 0
    healthy = fleet.run("doctor", "fleet.py")
    assert (healthy.rc, fleet.outcomes()) == (0, {"first": "converged"}), healthy.out
    assert "first: converged (" in healthy.out
    kill(fleet.first)
    found = fleet.run("doctor", "fleet.py", "--json")
    assert found.rc == 1, found.out
    host = found.json["hosts"]["first"]
    assert host["outcome"] == "drifted"
    assert host["diagnosis"]["findings"]
    assert fleet.run("report").rc == 1
    assert list_running(fleet.first) == []
    assert fleet.run("site", "fleet.py").rc == 0


def test_another_run_hides_nothing_that_the_doctor_finds(fleet: Fleet) -> None:
    """What it has not made yet may be among it, and a note names that run."""
    kill(fleet.first)
    with held(fleet.first):
        found = fleet.run("doctor", "fleet.py", "--json")
    assert found.rc == 1, found.out
    diagnosis = found.json["hosts"]["first"]["diagnosis"]
    assert [each["incident"] for each in diagnosis["findings"]] == ["service-down"]
    assert diagnosis["notes"][0].startswith("another run is at work here: ann@laptop: what it")
    assert fleet.run("site", "fleet.py").rc == 0


def test_settings_that_are_wrong_reach_no_host(fleet: Fleet) -> None:
    before = (fleet.directory / "var/reports/latest.json").resolve()
    fleet.write(first={"projct": "shop"}, second={})
    done = fleet.run("site", "fleet.py")
    assert done.rc == 2, done.out
    assert "stack.projct: unknown key (did you mean project?)" in done.out
    assert (fleet.directory / "var/reports/latest.json").resolve() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_midst_of_a_change(fleet: Fleet, number: signal.Signals) -> None:
    fleet.write(first={"stability": 60})
    kill(fleet.first)
    with fleet.start("site", "fleet.py", "--json") as command:
        fleet.first.wait_for("docker ps -q | grep -q .", 60)
        command.interrupt(number)
        began = time.monotonic()
        done = command.wait(60)
        seconds = time.monotonic() - began
    assert done.rc == 128 + number, done.out
    assert seconds <= 5, done.out
    assert (done.json["interrupted"], done.json["complete"]) == (number.name, False)
    assert fleet.first.sh(f"flock -n {LOCK} echo free") == "free"
    fleet.write()
    assert fleet.run("site", "fleet.py").rc == 0
    assert list_running(fleet.first) == ["shop-side-1"]


def test_a_benchmark_that_nobody_asks_for_proves_nothing(fleet: Fleet) -> None:
    done = fleet.run("benchmark", "fleet.py")
    assert done.rc == 2, done.out
    assert "no `worker.benchmark` in its `stack`" in done.out
