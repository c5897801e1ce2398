"""A move, and the way back, by a controller that is killed again and again: one server answers."""

from __future__ import annotations

import contextlib
import json
from statistics import median

import pytest

from stackmend.worker.move.plan.layer import ORDER
from tests.lab.fixtures import Lab
from tests.lab.moving import LAYER, RECORD, Moving
from tests.lab.observed import HostCommandError

OVERRIDE = "/opt/mv/compose.stackmend.worker.yaml"

#: Moments that are short by nature last a second.
SLOWED = 'cp*|update*|stop*|"volume rm") /bin/sleep 1 ;;'

LOCK = "/var/lib/stackmend/run.lock"
MEASURING = f"{{ [ -e {LOCK} ] && ! flock -n {LOCK} true; }}"


def reached(*stages: str) -> str:
    return f'grep -qE \'"stage":"({"|".join(stages)})"\' {RECORD}'


#: Moments of a move, in their order: each run is killed at the next of them.
MOMENTS = {
    "planned": reached("planned"),
    "what-is-added-is-written": f"[ -s {LAYER} ]",
    "the-new-one-starts": "docker ps --format '{{.Names}}' | grep -qx mv-ollama-1",
    "a-model-is-copied": "pgrep -f 'docker c[p]'",
    "imported": reached("imported"),
    "both-are-measured": f"{reached('imported')} && {MEASURING}",
    "measured": reached("measured"),
    "the-client-is-re-pointed": f"grep -q OPENAI_BASE_URL {LAYER}",
    "re-pointed": reached("repointed"),
    "both-are-measured-again": f"{reached('repointed')} && {MEASURING}",
    "confirmed": reached("confirmed"),
    "the-legacy-one-is-kept": f"grep -q stackmend-kept {OVERRIDE}",
    "it-stops": "pgrep -f 'docker sto[p]'",
}

#: Moments of the way back.
BACK = {
    "it-begins": reached("returning"),
    "the-client-is-recreated": f"! grep -q OPENAI_BASE_URL {OVERRIDE}",
    "what-was-added-is-removed": f"[ ! -e {LAYER} ]",
    "its-volume-is-removed": "pgrep -f 'docker volume r[m]'",
}


def kill_at(stack: Moving, moments: dict[str, str]) -> dict[str, str]:
    """Kill one run after the other, each at its moment.

    Gives the moments that came about in the very run that was killed at them, each with the stage
    that it left. One that the run before had come to already, before it was killed, is none.
    """
    fresh = {}
    for name, condition in moments.items():
        if stack.host.run(condition).returncode == 0:
            continue
        with stack.start_moving() as run:
            for _ in range(40):
                ended = run.process.poll() is not None
                with contextlib.suppress(HostCommandError):
                    stack.host.wait_for(condition, 5)
                    break
                assert not ended, f"it ended before {name}:\n{run.output()}"
            assert not ended, f"it ended before {name}:\n{run.output()}"
            run.kill()
        # What it held on the host is let go once its connection is.
        stack.host.wait_for(f"! {MEASURING}", 30)
        fresh[name] = stack.read_record()["stage"]
    return fresh


@pytest.fixture(scope="module")
def stack(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Moving:
    """A slow legacy worker, deployed."""
    stack = Moving(tmp_path_factory.mktemp("moving"), lab.take(1)[0])
    stack.slow_down()
    stack.start_up()
    return stack


def test_a_slow_one_is_moved(stack: Moving) -> None:
    legacy, own = stack.id("legacy"), stack.host.sh("cat /opt/mv/compose.yaml")
    before = stack.time_tasks()
    with stack.polling() as read_silence:
        with stack.docker_wrapped(SLOWED):
            killed = kill_at(stack, MOMENTS)
        done = stack.move("-y")
        assert done.rc == 0, done.out
        stack.wait_for_tasks()
        assert read_silence() == []
    after = stack.time_tasks()
    assert len(killed) >= 10, killed
    # Each run went on from where the one before was killed.
    stages = [*killed.values()]
    assert stages == sorted(stages, key=ORDER.index)
    assert {*stages} >= {"imported", "confirmed"}
    assert len({*stages}) >= 4, stages
    stack.assert_no_task_lost()
    # By the client's own clock, whatever the move has measured.
    print(f"a task of the client: {median(before):.3f} s before, {median(after):.3f} s after")
    assert median(after) < 0.8 * median(before), (before, after)
    assert stack.log()[-1][2] == "http://ollama:11434/v1"
    assert stack.host.sh("cat /opt/mv/compose.yaml") == own
    kept = stack.container("legacy")
    assert kept["Id"] == legacy
    assert kept["State"]["Status"] == "exited"
    record = stack.read_record()
    assert record["before"]["ratio"] > 1.1
    assert record["after"]["ratio"] > 0
    # The run that measured was killed; the last one shows it.
    stack.assert_measured()
    stack.assert_nothing_changes()


def test_a_setting_that_changes_afterwards_is_followed_or_refused(stack: Moving) -> None:
    moved = stack.id("ollama")
    assert stack.container("ollama")["HostConfig"]["LogConfig"]["Config"] == {
        "max-file": "3",
        "max-size": "10m",
    }
    stack.policy["settings"] = {"mem_limit": "1g"}
    done = stack.move("-y")
    assert done.rc == 0, done.out
    changed = stack.container("ollama")
    assert changed["Id"] != moved
    assert changed["HostConfig"]["Memory"] == 1 << 30
    stack.policy["target"] = "other"
    refused = stack.move("-y")
    assert refused.rc != 0
    assert "its settings changed since it was moved to ollama: target" in refused.out, refused.out
    del stack.policy["target"]
    assert stack.id("ollama") == changed["Id"]


def test_nothing_starts_the_legacy_one_again(stack: Moving) -> None:
    """Neither an engine that starts again nor the stack without the section."""
    # Otherwise it waits for the answer of a server that ends with it.
    stack.host.docker("stop", stack.id("client"))
    stack.host.sh("systemctl restart docker", timeout=60)
    stack.settings.pop("worker", None)
    done = stack.run("-y")
    assert done.rc == 0, done.out
    assert stack.container("legacy")["State"]["Status"] == "exited"
    stack.wait_for_tasks()


def test_it_is_taken_back(stack: Moving) -> None:
    """By hand at first, as the documentation says; then the clients are already re-pointed."""
    stack.settings.pop("worker", None)
    stopped, measured = stack.container("legacy")["Id"], stack.read_record()
    stack.host.sh(f"rm {RECORD} {LAYER}")
    stack.deploy()
    assert stack.health() == {"client": "running", "legacy": "running"}
    assert stack.id("legacy") == stopped
    stack.wait_for_tasks()
    # What somebody pulled into it since is theirs.
    kept = "/var/lib/docker/volumes/mv_stackmend-ollama/_data/kept"
    stack.host.put(kept, "theirs", "0644")
    since, took = len(stack.log()), stack.time_tasks()
    before = stack.files(), stack.client_env(), stack.id("legacy")
    with stack.polling() as read_silence:
        kill_at(stack, {"imported": reached("imported")})
        # What was measured before is only half of what decides.
        measured["before"]["ratio"] = 0.01
        record = {**stack.read_record(), "stage": "measured", "before": measured["before"]}
        stack.host.put(RECORD, json.dumps(record), "0600")
        with stack.docker_wrapped(SLOWED):
            killed = kill_at(stack, BACK)
            assert len(killed) >= 3, killed
        done = stack.move("-y")
        assert done.rc == 0, done.out
        stack.wait_for_tasks()
        assert read_silence() == []
    assert (stack.files(), stack.client_env(), stack.id("legacy")) == before
    assert stack.health() == {"client": "running", "legacy": "running"}
    volumes = stack.host.docker("volume", "ls", "-q").split()
    assert [name for name in volumes if "ollama" in name] == ["mv_stackmend-ollama"]
    assert stack.host.sh(f"cat {kept}") == "theirs"
    # The quickest of each: what else the machine does slows only some of them.
    assert 0.33 < min(stack.time_tasks()) / min(took) < 3
    stack.assert_no_task_lost(since)
