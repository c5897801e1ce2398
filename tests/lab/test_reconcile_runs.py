"""Runs over hosts that others change as well, that hang, or that get worse by being changed."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

import pytest
import yaml

from tests.lab import locks
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.test_cli import COMPOSE, Fleet, held, kill, list_running

JOURNAL = "/var/lib/stackmend/journal.jsonl"
BROKEN: Mapping[str, Any] = {
    "services": {"side": {**COMPOSE["services"]["side"], "command": ["false"], "restart": "no"}}
}
DOCKER = "$(command -v docker)"
#: Pairs of runs at once.
ROUNDS = 3


@pytest.fixture(scope="module")
def deployed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Two hosts that carry the stack."""
    fleet = Fleet(tmp_path_factory.mktemp("home"), lab.take(2))
    fleet.write(first={}, second={})
    done = fleet.run("reconcile", "fleet.py")
    assert done.rc == 0, done.out
    assert fleet.outcomes() == {"first": "changed", "second": "changed"}
    return fleet


@pytest.fixture
def fleet(deployed: Fleet) -> Fleet:
    deployed.write_project()
    deployed.write()
    return deployed


def read_journal(host: LabHost) -> list[dict[str, str]]:
    return [json.loads(line) for line in host.sh(f"cat {JOURNAL}").splitlines()]


def declare(text: str) -> Mapping[str, Any]:
    """Three services, each of which is made anew for another text."""
    side = {**COMPOSE["services"]["side"], "environment": {"TEXT": text}}
    return {"services": dict.fromkeys(("side", "left", "right"), side)}


#: What the host itself notes of each command that changes its project.
NOTES = "/tmp/notes"


@contextlib.contextmanager
def noted(host: LabHost, sleep: float = 0) -> Iterator[None]:
    """Each `docker` that changes something notes when it begins and ends, and who began it.

    + sleep: seconds that each takes longer
    """
    real = host.sh("PATH=/usr/bin:/bin command -v docker")
    host.put(
        "/usr/local/bin/docker",
        "#!/bin/sh\n"
        'case " $* " in\n'
        '  *" build "*|*" create "*|*" up "*|*" start "*|*" stop "*|*" rm "*|*" restart "*) ;;\n'
        f'  *) exec {real} "$@" ;;\n'
        "esac\n"
        # One connection is one controller.
        'caller=$(echo $SSH_CLIENT | tr " " :)\n'
        f'echo "begin $$ $caller $*" >>{NOTES}\n'
        f"sleep {sleep}\n"
        f'{real} "$@"\n'
        "status=$?\n"
        f'echo "end $$ $caller $*" >>{NOTES}\n'
        "exit $status\n",
        "0755",
    )
    try:
        yield
    finally:
        host.sh(f"rm -f /usr/local/bin/docker {NOTES}")


def list_notes(host: LabHost) -> list[list[str]]:
    return [line.split(None, 3) for line in host.sh(f"cat {NOTES}").splitlines()]


def assert_one_after_the_other(notes: list[list[str]]) -> None:
    """No command began before the one before it had ended."""
    for begun, ended in zip(notes[::2], notes[1::2], strict=True):
        assert (begun[0], ended[0], begun[1]) == ("begin", "end", ended[1]), notes


def test_two_runs_never_change_a_host_at_the_same_time(fleet: Fleet) -> None:
    """Each desires something else, so that each has all to change whichever is first.

    Judged by what the host notes itself, in several rounds of which each begins otherwise.
    """
    other = fleet.directory / "other"
    other.mkdir()
    settings = (fleet.directory / "fleet.py").read_text()
    source = str(fleet.directory / "shop")
    assert source in settings
    (fleet.directory / "other.py").write_text(settings.replace(source, str(other)))
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pauses = random.Random(seed)
    for number in range(ROUNDS):
        # Both differ from what is there, whichever came last in the round before.
        fleet.write_project(declare(f"one {number}"))
        (other / "compose.yaml").write_text(yaml.safe_dump(declare(f"two {number}")))
        known = {*fleet.directory.glob("var/reports/2*.json")}
        written = len(read_journal(fleet.first))
        with noted(fleet.first, sleep=0.2):
            with fleet.start("reconcile", "fleet.py", "--wait", "2min") as one:
                time.sleep(pauses.uniform(0, 2))
                with fleet.start("reconcile", "other.py", "--wait", "2min") as two:
                    ended = [one.wait(240), two.wait(240)]
            notes = list_notes(fleet.first)
        assert [run.rc for run in ended] == [0, 0], ended
        assert len(notes) >= 4, "each has changed it"
        assert_one_after_the_other(notes)
        callers = [caller for _, _, caller, _ in notes]
        assert all(caller.count(":") == 2 for caller in callers), notes
        assert len(set(callers)) == len(list(groupby(callers))) == 2, notes
        # What the runs say of themselves agrees with it.
        first, second = sorted(
            list_times(json.loads(path.read_bytes()))
            for path in {*fleet.directory.glob("var/reports/2*.json")} - known
        )
        assert min(len(first), len(second)) >= 1
        assert max(end for _, end in first) <= min(start for start, _ in second)
        runs = [entry["run"] for entry in read_journal(fleet.first)[written:]]
        assert len(set(runs)) == len(list(groupby(runs))) == 2
    # The other services are nobody's but this test's.
    fleet.write_project()
    assert fleet.run("reconcile", "fleet.py").rc == 0
    assert list_running(fleet.first) == ["shop-side-1"]


def list_times(record: Mapping[str, Any]) -> list[tuple[float, float]]:
    """When each step of a run on ``first`` began and ended."""
    steps = [step for each in record["hosts"]["first"]["operations"] for step in each["done"]]
    began = [(datetime.fromisoformat(step["started"]).timestamp(), step) for step in steps]
    return sorted((start, start + step["seconds"]) for start, step in began)


def test_a_run_leaves_a_host_that_another_one_changes(fleet: Fleet) -> None:
    kill(fleet.first)
    with held(fleet.first):
        began = time.monotonic()
        done = fleet.run("reconcile", "fleet.py")
        assert done.rc == 4, done.out
        assert time.monotonic() - began < 30
        assert "another run is at work here: ann@laptop" in done.out
        assert "--wait" in done.out
        waited = fleet.run("reconcile", "fleet.py", "--wait", "3s")
        assert waited.rc == 4, waited.out
    assert list_running(fleet.first) == []


@pytest.mark.parametrize("within", ["a wait", "a step"])
def test_a_lock_is_free_at_once_where_its_controller_was_killed(
    fleet: Fleet, within: str, record_property: Callable[[str, object], None]
) -> None:
    host = fleet.first
    fleet.write(first={"stability": 60})
    kill(host)
    with fleet.start("reconcile", "fleet.py") as one, contextlib.ExitStack() as step:
        if within == "a step":
            step.enter_context(noted(host, sleep=8))
            host.wait_for(f"grep -q begin {NOTES}", 60)
        else:
            host.wait_for("docker ps --format '{{.Names}}' | grep -qx shop-side-1", 60)
        record_property("seconds", locks.assert_free_at_once(host, one.kill))
        if within == "a step":
            # The step itself goes on, and who comes next waits for its end.
            assert list_notes(host)[-1][0] == "begin"
            host.sh("sed -i 's/^sleep .*/:/' /usr/local/bin/docker")
        fleet.write()
        if within == "a wait":
            kill(host)
        done = fleet.run("reconcile", "fleet.py")
        assert done.rc == 0, done.out
        if within == "a step":
            assert_one_after_the_other(list_notes(host))
    assert list_running(host) == ["shop-side-1"]


def test_nothing_to_do_takes_no_lock(fleet: Fleet) -> None:
    assert fleet.run("reconcile", "fleet.py").rc == 0
    with held(fleet.first):
        done = fleet.run("reconcile", "fleet.py", "--detailed-exitcode")
        assert done.rc == 0, done.out
        assert fleet.run("reconcile", "fleet.py", "--dry").rc == 0
        doctor = fleet.run("doctor", "fleet.py")
        assert doctor.rc == 0, doctor.out


def test_a_host_that_hangs_holds_no_other(fleet: Fleet) -> None:
    fleet.write(first={}, second={})
    kill(fleet.first)
    hang = f"d={DOCKER}; mv $d $d.real; printf '#!/bin/sh\\nexec sleep 300\\n' >$d; chmod +x $d"
    fleet.second.sh(hang)
    try:
        with fleet.start("reconcile", "fleet.py") as run:
            fleet.first.wait_for("docker ps -q | grep -q .", 60)
            done = run.wait(240)
    finally:
        fleet.second.sh(f"d={DOCKER}; mv $d.real $d; pkill -x sleep; true")
    assert done.rc == 1, done.out
    assert fleet.outcomes()["first"] == "changed"
    took = {
        name: float(s) for name, s in re.findall(r"(first|second): \w+ \(([0-9.]+) s\)", done.out)
    }
    assert took["first"] < took["second"], done.out


def test_a_host_has_its_time_and_no_more(fleet: Fleet) -> None:
    fleet.write(first={"reconcile": {"limit": "10ms"}}, second={})
    kill(fleet.first)
    kill(fleet.second)
    done = fleet.run("reconcile", "fleet.py")
    assert done.rc == 1, done.out
    assert fleet.outcomes() == {"first": "failed", "second": "changed"}
    assert "begins no further step" in done.out
    assert list_running(fleet.first) == []


def test_a_run_stops_after_hosts_that_got_worse(fleet: Fleet) -> None:
    fleet.write(first={}, second={})
    assert fleet.run("reconcile", "fleet.py").rc == 0
    started = {host.name: inspect(host) for host in fleet.hosts}
    fleet.write_project(BROKEN)
    policy = {"reconcile": {"stop_after": 1}}
    fleet.write(first=policy, second=policy)
    done = fleet.run("reconcile", "fleet.py")
    assert done.rc == 1, done.out
    hosts = fleet.record()["hosts"]
    worse = [name for name, host in hosts.items() if host["worse"]]
    assert len(worse) == 1, done.out
    (left,) = hosts.keys() - set(worse)
    assert (hosts[worse[0]]["outcome"], hosts[left]["outcome"]) == ("failed", "refused"), done.out
    assert f"left as it is: {worse[0]} got worse by being changed" in done.out
    untouched = fleet.first if left == "first" else fleet.second
    assert inspect(untouched) == started[untouched.name]


PORT = 7070
HOLDER = f"python3 -m http.server {PORT}"
DAEMON_JSON = "/etc/docker/daemon.json"


def test_what_a_run_ended_and_set_is_brought_back(fleet: Fleet) -> None:
    host = fleet.first
    host.sh(f"setsid {HOLDER} >/dev/null 2>&1 </dev/null &")
    host.wait_for(f"pgrep -f '[p]{HOLDER[1:]}'", 20)
    before = host.read(DAEMON_JSON)
    published = {"services": {"side": {**COMPOSE["services"]["side"], "ports": [f"{PORT}:80"]}}}
    fleet.write_project(published)
    sections = {
        "ports": {"on_conflict": "stop", "allow": ["exe:/usr/bin/python3*"]},
        "engine": {"channel": "distro", "log": {"max_size": "7m"}},
    }
    fleet.write(first=sections)
    done = fleet.run("site", "fleet.py")
    assert done.rc == 0, done.out
    assert host.sh(f"pgrep -f '[p]{HOLDER[1:]}' || echo none") == "none"
    assert host.read(DAEMON_JSON) != before
    latest = (fleet.directory / "var/reports/latest.json").resolve()
    run = latest.stem.rpartition("-")[2]

    dry = fleet.run("undo", "fleet.py", run, "--dry")
    assert "put back" in dry.out, dry.out
    assert host.read(DAEMON_JSON) != before

    # Ours has the port now, and nothing else is kept from being brought back by that.
    undone = fleet.run("undo", "fleet.py", str(latest))
    assert undone.rc == 1, undone.out
    assert host.read(DAEMON_JSON) == before, undone.out
    assert list_done(fleet) == ["put back"]
    # What Compose did is for a person to take back, and the exit code says so.
    assert "by hand: " in undone.out
    assert "is held by container shop-side-1" in undone.out
    assert "take the port from side in project shop and apply that" in undone.out
    assert list_running(host) == ["shop-side-1"]

    fleet.write_project()
    fleet.write()
    assert fleet.run("site", "fleet.py").rc == 0
    undone = fleet.run("undo", "fleet.py", run)
    host.wait_for(f"pgrep -f '[p]{HOLDER[1:]}'", 20)
    assert list_done(fleet) == ["bring back"], undone.out

    again = fleet.run("undo", "fleet.py", run)
    assert list_done(fleet) == [], again.out


def test_what_somebody_has_changed_since_stays(fleet: Fleet) -> None:
    fleet.write(first={"engine": {"channel": "distro", "log": {"max_size": "8m"}}})
    done = fleet.run("site", "fleet.py")
    assert done.rc == 0, done.out
    latest = (fleet.directory / "var/reports/latest.json").resolve()
    theirs = fleet.first.read(DAEMON_JSON) + b"\n"
    fleet.first.put(DAEMON_JSON, theirs.decode())
    fleet.write()
    undone = fleet.run("undo", "fleet.py", str(latest))
    assert undone.rc == 1, undone.out
    assert "changed since" in undone.out
    assert fleet.first.read(DAEMON_JSON) == theirs
    assert fleet.run("undo", "fleet.py", "/etc/passwd").rc == 2
    assert fleet.run("undo", "fleet.py", "ffffff").rc == 2


def list_done(fleet: Fleet) -> list[str]:
    operations = fleet.record()["hosts"]["first"]["operations"]
    return [step["verb"] for operation in operations for step in operation["done"]]


def inspect(host: LabHost) -> str:
    return host.docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", "shop-side-1")
