"""The reference stack's queue, measured end to end; and left alone while tasks wait in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.images import STACK
from tests.lab.models_runs import Result
from tests.lab.reference_stack import ReferenceStack

PROFILE = {
    "prompt_tokens": 24,
    "concurrency": [2],
    "requests": 4,
    "warmups": 1,
    "timeout": 60,
}


class Measured:
    """The stack on one host, and runs of deploy/benchmark.py against its queue."""

    def __init__(self, stack: ReferenceStack, directory: Path) -> None:
        self.stack, self.directory = stack, directory

    def start(self, **policy: Any) -> controller.Controller:
        """A run, under way."""
        benchmark = {"target": "queue", "profile": PROFILE, **policy}
        settings = {
            "project": "ai",
            "source": str(STACK),
            "directory": "/opt/ai",
            "worker": {"benchmark": benchmark},
        }
        inventory = controller.write_inventory(self.directory, [self.stack.host], stack=settings)
        reports = {"STACKMEND_REPORTS": str(self.directory)}
        return controller.start(inventory, "deploy/benchmark.py", "-y", env=reports)

    def run(self, **policy: Any) -> Result:
        with self.start(**policy) as running:
            done = running.wait()
        assert "Traceback" not in done.out, done.out
        return Result(done, done.report["hosts"])

    def read_latest(self) -> Mapping[str, Any]:
        path = sorted((self.directory / "benchmarks").glob("*.json"))[-1]
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def list_tasks(self) -> list[dict[str, Any]]:
        """All tasks that there ever were, as the api tells them."""
        keys = self.stack.host.docker("exec", "ai-redis-1", "redis-cli", "--scan")
        names = [key for key in keys.split() if key.startswith("task:")]
        return self.stack.tasks([name.removeprefix("task:") for name in names])


@pytest.fixture(scope="module")
def measured(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    stack = ReferenceStack(lab.take(1)[0], {"OLLAMA_NUM_PREDICT": "16"})
    stack.up()
    return Measured(stack, tmp_path_factory.mktemp("queue"))


def test_the_figures_are_those_of_the_tasks(measured: Measured) -> None:
    before = measured.stack.health()["totals"]
    result = measured.run()
    assert result.run.rc == 0, result.run.out
    latest = measured.read_latest()
    (level,) = latest["measurement"]["levels"]
    samples = [sample for repeat in level["repeats"] for sample in repeat["samples"]]
    assert len(samples) == 20
    # Two to find out, and two to warm up.
    assert measured.stack.health()["totals"] == {"done": before["done"] + 24, "failed": 0}

    tasks = sorted(measured.list_tasks(), key=lambda task: task["timings"]["submitted_at"])
    times = [task["timings"] for task in tasks[-20:]]
    assert sorted(sample["total"] for sample in samples) == pytest.approx(
        sorted(row["queued_seconds"] + row["run_seconds"] for row in times), abs=1e-6
    )
    assert sum(sample["output_tokens"] for sample in samples) == sum(
        row["eval_count"] for row in times
    )
    excesses = []
    for number, repeat in enumerate(level["repeats"]):
        own = times[4 * number : 4 * number + 4]
        wall = max(row["finished_at"] for row in own) - min(row["submitted_at"] for row in own)
        excesses.append(repeat["wall"] / wall - 1)
        assert all(sample["end"] >= sample["total"] for sample in repeat["samples"])
    # Between lies the way of the first task to the queue; a stall of this machine adds to it.
    assert min(excesses) > -0.02
    assert min(excesses) < 0.1
    (summary,) = latest["summaries"]
    figures = result.host["operations"][0]["measured"]
    tasks_pm = figures["tasks, concurrency 2"]
    assert tasks_pm["unit"] == "tasks/min"
    assert tasks_pm["value"] == pytest.approx(60 * summary["requests_ps"]["median"])
    fingerprint = latest["measurement"]["fingerprint"]
    assert (fingerprint["engine"], fingerprint["model"]) == ("queue", "tiny")
    worker = measured.stack.container("worker")
    assert (fingerprint["worker_image"], fingerprint["replicas"]) == (worker["Image"], 1)


def test_a_second_run_submits_no_task(measured: Measured) -> None:
    before = measured.stack.health()["totals"]
    assert measured.run().outcomes == {"converged"}
    assert measured.stack.health()["totals"] == before


def test_what_a_killed_run_left_in_the_queue_is_waited_for(measured: Measured) -> None:
    """A task is still there when the next run comes, which measures once that is over."""
    stack = measured.stack
    done = stack.health()["totals"]["done"]
    with measured.start(max_age=0) as killed:
        while stack.health()["totals"]["done"] < done + 6:
            assert killed.process.poll() is None, killed.output()
        killed.kill()
    # Its model is missing: it would be put off for a quarter of an hour.
    stack.post("once upon a time", model="later")
    stack.host.wait_for("curl -s http://127.0.0.1:8000/healthz | grep -q '\"delayed\":1'")
    with measured.start(max_age=0) as running:
        assert running.wait_for_output("a measurement ended before its tasks did"), running.output()
        stack.host.docker("exec", "ai-redis-1", "redis-cli", "DEL", "tasks:delayed")
        ended = running.wait()
    assert ended.rc == 0, ended.out
    # All of its own are over: the next run has nobody to wait for.
    assert "asking" not in stack.host.sh("ls /var/lib/stackmend/benchmarks")


def test_it_ends_before_the_host_runs_out_of_memory(measured: Measured) -> None:
    host = measured.stack.host
    before = measured.stack.health()["totals"]["done"]
    kept = measured.read_latest()["measurement"]["at"]
    host.sh(
        "sed 's/^MemTotal:.*/MemTotal: 1000000 kB/; s/^MemAvailable:.*/MemAvailable: 40000 kB/' "
        "/proc/meminfo >/run/meminfo && mount --bind /run/meminfo /proc/meminfo"
    )
    try:
        stopped = measured.run(max_age=0)
    finally:
        host.sh("umount /proc/meminfo")
    assert stopped.run.rc != 0
    assert "stopped measuring: 4.0% of the host's memory are left" in stopped.run.out
    # Two to find out, two to warm up, and a single repeat.
    assert measured.stack.health()["totals"]["done"] == before + 8
    assert measured.read_latest()["measurement"]["at"] == kept


def test_a_server_that_computes_for_others_is_left_alone(measured: Measured) -> None:
    """Past the queue, which knows nothing of it."""
    host = measured.stack.host
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = host.docker("inspect", "-f", networks, "ai-ollama-1")
    body = json.dumps({"model": "slow", "prompt": "x", "options": {"num_predict": 100_000}})
    host.sh(
        f"setsid curl -sN -m 60 -d '{body}' http://{address}:11434/api/generate "
        ">/run/answer 2>/dev/null </dev/null & echo $! >/run/asking"
    )
    try:
        host.wait_for("test -s /run/answer")
        refused = measured.run(target="ollama", model="slow", allow=["memory", "model"])
    finally:
        host.sh("kill $(cat /run/asking)", check=False)
    assert refused.run.rc != 0
    ((_, reason),) = refused.reasons
    assert "ai-ollama-1 is computing: it used " in reason
    # Idle again, it is nobody's.
    host.wait_for(f"curl -s http://{address}:11434/api/ps | grep -q slow")
    profile = {**PROFILE, "output_tokens": 2, "concurrency": [1], "requests": 2, "warmups": 0}
    allowed = measured.run(target="ollama", model="slow", allow="model", profile=profile)
    assert "is computing" not in allowed.run.out
    assert allowed.all("done"), allowed.run.out


def test_a_queue_with_tasks_is_left_alone_without_consent(measured: Measured) -> None:
    stack = measured.stack
    # Their model is missing: they wait for it.
    waiting = [stack.post("once upon a time", model="later") for _ in range(2)]
    stack.host.wait_for("curl -s http://127.0.0.1:8000/healthz | grep -q '\"delayed\":2'")
    before = stack.health()["totals"]
    refused = measured.run(max_age=0)
    assert refused.run.rc != 0
    ((_, reason),) = refused.reasons
    assert (
        "the queue is not empty: 2 waiting (2 put off after a failed attempt), 0 running" in reason
    )
    assert '"busy"' in refused.run.out
    # It is the line before the model server as well.
    server = measured.run(target="ollama", model="tiny")
    assert server.run.rc != 0
    assert (
        "the queue is not empty: 2 waiting (2 put off after a failed attempt), 0 running"
        in server.reasons[0][1]
    )
    assert stack.health()["totals"] == before

    allowed = measured.run(max_age=0, allow="busy")
    assert allowed.run.rc == 0, allowed.run.out
    # Beside others it may be slower than the baseline, and is then measured once more.
    assert stack.health()["totals"]["done"] - before["done"] in (24, 46)
    assert {stack.task(task)["state"] for task in waiting} <= {"queued", "running"}
