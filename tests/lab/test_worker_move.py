"""A legacy worker is moved to Ollama where that is faster, and is left as it was where it is not.

Its engine is real llama.cpp, its client speaks OpenAI's API, and both are at work all the time.
"""

from __future__ import annotations

from statistics import median

import pytest

from tests.lab.fixtures import Lab
from tests.lab.moving import Moving, limit_cpu


@pytest.fixture(scope="module")
def stack(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Moving:
    """A legacy worker that may take a CPU of its own, deployed."""
    stack = Moving(tmp_path_factory.mktemp("moving"), lab.take(1)[0])
    stack.start_up()
    return stack


def test_one_that_is_at_work_is_not_moved_without_consent(stack: Moving) -> None:
    stack.policy["allow"] = []
    with stack.long_request():
        before = stack.picture()
        done = stack.move("-y")
        assert stack.picture() == before
    assert done.rc != 0
    assert "requests of others" in done.out, done.out
    assert '"allow": ["busy"]' in done.out
    stack.policy["allow"] = ["busy"]


def test_one_that_is_faster_is_left_as_it_was(stack: Moving) -> None:
    before = stack.picture()
    # On a busy machine neither has more than that.
    stack.policy.update(settings=limit_cpu(0.5), margin=0.5)
    took = stack.time_tasks()
    with stack.polling() as read_silence:
        done = stack.move("-y")
        assert done.rc == 0, done.out
        assert read_silence() == []
    stack.assert_measured()
    assert "legacy: legacy worker: it stays, by what was measured at 20" in done.out
    assert ": ollama is not 50% faster than legacy" in done.out
    assert "to try it again now, remove /var/lib/stackmend/" in done.out
    assert stack.picture() == before
    stack.assert_no_task_lost()
    stack.assert_nothing_changes()
    # The quickest of each: what else the machine does slows only some of them.
    assert 0.33 < min(stack.time_tasks()) / min(took) < 3


def test_it_is_moved_to_an_ollama_of_the_project(stack: Moving) -> None:
    """At first a step fails, and all is put back; then the legacy worker's container is removed."""
    stack.services["ollama"] = {"image": "lab/model:1", "restart": "unless-stopped"}
    stack.slow_down()
    stack.settings.pop("worker")
    stack.deploy()
    stack.wait_for_tasks()
    stack.policy.update(settings={}, margin=0.1, keep_legacy=False)
    since, before = len(stack.log()), stack.time_tasks()
    env, legacy = stack.client_env(), stack.id("legacy")
    with stack.polling() as read_silence:
        with stack.docker_wrapped("cp*) echo no space left >&2; exit 1 ;;"):
            failed = stack.move("-y")
        assert failed.rc != 0, failed.out
        assert "cannot copy /models/slow.gguf to ollama" in failed.out, failed.out
        record = stack.read_record()
        assert (record["stage"], record["failures"]) == ("returned", 1)
        assert (stack.client_env(), stack.id("legacy")) == (env, legacy)
        done = stack.move("-y")
        assert done.rc == 0, done.out
        stack.wait_for_tasks()
        assert read_silence() == []
    # By the client's own clock, whatever the move has measured.
    after = stack.time_tasks()
    assert median(after) < 0.8 * median(before), (before, after)
    stack.assert_no_task_lost(since)
    assert stack.log()[-1][2] == "http://ollama:11434/v1", done.out
    assert stack.health() == {"client": "running", "ollama": "running"}
    assert "mv_weights" in stack.host.docker("volume", "ls", "-q").split()
    stack.assert_nothing_changes()
