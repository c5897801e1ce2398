"""A legacy worker is moved to Ollama where that is faster, and is left as it was where it is not.

Its engine is real llama.cpp, its client speaks OpenAI's API, and both are at work all the time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from stackmend.worker.move.plan.layer import ORDER
from tests.lab.fixtures import Lab
from tests.lab.moving import Moving, limit_cpu
from tests.lab.observed import HostCommandError

RECORD = "/var/lib/stackmend/mv/move.json"
LAYER = "/var/lib/stackmend/mv/layer.yaml"
OVERRIDE = "/opt/mv/compose.stackmend.worker.yaml"


def reached(*stages: str) -> str:
    return f'grep -qE \'"stage":"({"|".join(stages)})"\' {RECORD}'


#: Moments of a move, in their order: each run is killed at the next of them, or a little later.
MOMENTS = {
    "planned": reached("planned", "added"),
    "what-is-added-is-written": f"[ -s {LAYER} ]",
    "the-new-one-starts": "docker ps --format '{{.Names}}' | grep -qx mv-ollama-1",
    "added": reached("added"),
    "a-model-is-copied": "pgrep -f 'docker c[p]'",
    "imported": reached("imported"),
    "measured": reached("measured"),
    "the-client-is-re-pointed": f"grep -q OPENAI_BASE_URL {LAYER}",
    "re-pointed": reached("repointed"),
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


@contextlib.contextmanager
def slowed(stack: Moving) -> Iterator[None]:
    """Moments that are short by nature last a second."""
    real = stack.host.sh("PATH=/usr/bin:/bin command -v docker")
    lines = [
        "#!/bin/sh",
        'case "$1 $2" in cp*|update*|stop*|"volume rm") /bin/sleep 1 ;; esac',
        f'exec {real} "$@"',
    ]
    stack.host.put("/usr/local/bin/docker", "\n".join(lines) + "\n", "0755")
    try:
        yield
    finally:
        stack.host.sh("rm -f /usr/local/bin/docker")


def read_record(stack: Moving) -> dict[str, Any]:
    """Where the move stands, as the host has it."""
    found: dict[str, Any] = json.loads(stack.host.sh(f"cat {RECORD}"))
    return found


def kill_at(stack: Moving, moments: dict[str, str]) -> list[str]:
    """Kill one run after the other, each at its moment; the stages at which they were killed."""
    stages = []
    for name, condition in moments.items():
        with stack.start_moving() as run:
            for _ in range(40):
                ended = run.process.poll() is not None
                with contextlib.suppress(HostCommandError):
                    stack.host.wait_for(condition, 5)
                    break
                assert not ended, f"it ended before {name}:\n{run.output()}"
            assert not ended, f"it ended before {name}:\n{run.output()}"
            run.kill()
        stages.append(read_record(stack)["stage"])
    return stages


@pytest.fixture(scope="module")
def stack(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Moving:
    """A legacy worker that may take a CPU of its own, deployed."""
    host = lab.take(1)[0]
    host.load_images("lab/legacy:1")
    stack = Moving(tmp_path_factory.mktemp("moving"), host)
    stack.deploy()
    stack.wait_for_tasks()
    return stack


def test_a_fast_one_is_left_as_it_was(stack: Moving) -> None:
    before = stack.files(), stack.client_env(), stack.host.docker("ps", "-aq", "--no-trunc")
    volumes = stack.host.docker("volume", "ls", "-q")
    stack.policy["settings"] = limit_cpu(0.25)
    with stack.polling() as read_silence:
        done = stack.move("-y")
        assert done.rc == 0, done.out
        assert read_silence() == []
    assert "legacy: legacy worker: it stays: ollama is not 10% faster than legacy" in done.out
    after = stack.files(), stack.client_env(), stack.host.docker("ps", "-aq", "--no-trunc")
    assert after == before
    assert stack.host.docker("volume", "ls", "-q") == volumes
    stack.assert_no_task_lost()

    with stack.watching() as changes:
        again = stack.move("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    assert changes.quiet, changes.events


def test_a_slow_one_is_moved_by_a_controller_that_is_killed_again_and_again(stack: Moving) -> None:
    stack.services["legacy"].update(limit_cpu(0.15))
    stack.policy["settings"] = {}
    stack.settings.pop("worker", None)
    stack.deploy()
    stack.wait_for_tasks()
    since = len(stack.log())
    legacy, own = stack.id("legacy"), stack.host.sh("cat /opt/mv/compose.yaml")
    with stack.polling() as read_silence:
        with slowed(stack):
            stages = kill_at(stack, MOMENTS)
        done = stack.move("-y")
        assert done.rc == 0, done.out
        stack.wait_for_tasks()
        assert read_silence() == []
    # Each run went on from where the one before was killed.
    assert stages == sorted(stages, key=ORDER.index)
    assert {*stages} >= {"imported", "confirmed"}
    assert len({*stages}) >= 4, stages
    tasks = stack.assert_no_task_lost(since)
    slow, fast = (
        [seconds for url, seconds in tasks if name in url] for name in ("legacy", "ollama")
    )
    assert len(slow) > 1
    assert len(fast) > 1
    # None waited for a server that was not there.
    assert max(slow + fast) < 30
    assert stack.log()[-1][2] == "http://ollama:11434/v1"
    assert stack.host.sh("cat /opt/mv/compose.yaml") == own
    kept = stack.container("legacy")
    assert kept["Id"] == legacy
    assert kept["State"]["Status"] == "exited"
    record = read_record(stack)
    assert record["before"]["ratio"] > 1.1
    assert record["after"]["ratio"] > 0

    with stack.watching() as changes:
        again = stack.move("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    assert changes.quiet, changes.events

    # Neither an engine that starts again nor the stack without the section starts the legacy one.
    stack.host.sh("systemctl restart docker", timeout=60)
    stack.settings.pop("worker", None)
    done = stack.run("-y")
    assert done.rc == 0, done.out
    assert stack.container("legacy")["State"]["Status"] == "exited"
    stack.wait_for_tasks()


def test_it_is_taken_back_by_a_controller_that_is_killed_again_and_again(stack: Moving) -> None:
    """By hand at first, as the documentation says; then the clients are already re-pointed."""
    stack.settings.pop("worker", None)
    stopped = stack.container("legacy")["Id"]
    stack.host.sh(f"rm {RECORD} {LAYER}")
    stack.deploy()
    assert stack.health() == {"client": "running", "legacy": "running"}
    assert stack.id("legacy") == stopped
    stack.wait_for_tasks()
    # What somebody pulled into it since is theirs.
    kept = "/var/lib/docker/volumes/mv_stackmend-ollama/_data/kept"
    stack.host.put(kept, "theirs", "0644")
    since = len(stack.log())
    before = stack.files(), stack.client_env(), stack.id("legacy")
    with stack.polling() as read_silence:
        kill_at(stack, {"re-pointed": reached("repointed", "confirmed")})
        # What was measured before is only half of what decides.
        record = read_record(stack)
        record["before"]["ratio"] = 0.01
        stack.host.put(RECORD, json.dumps({**record, "stage": "repointed"}), "0600")
        with slowed(stack):
            kill_at(stack, BACK)
        done = stack.move("-y")
        assert done.rc == 0, done.out
        stack.wait_for_tasks()
        assert read_silence() == []
    assert (stack.files(), stack.client_env(), stack.id("legacy")) == before
    assert stack.health() == {"client": "running", "legacy": "running"}
    volumes = stack.host.docker("volume", "ls", "-q").split()
    assert [name for name in volumes if "ollama" in name] == ["mv_stackmend-ollama"]
    assert stack.host.sh(f"cat {kept}") == "theirs"
    stack.assert_no_task_lost(since)
