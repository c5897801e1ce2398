"""The reference stack by itself: started by `docker compose`, looked at with `curl` and `ss`."""

from __future__ import annotations

import random
import time

from tests.lab.hosts import LabHost
from tests.lab.reference_stack import ReferenceStack

# A task of about a second, so that a crash hits it in the middle.
LONG = {"OLLAMA_MODEL": "slow", "OLLAMA_NUM_PREDICT": "600"}


def test_healthy_on_loopback_only_and_answers(host: LabHost) -> None:
    stack = ReferenceStack(host)
    stack.up()
    services = host.containers("ai")
    assert sorted(services) == ["api", "ollama", "redis", "worker"]
    for (container,) in services.values():
        assert container["State"]["Health"]["Status"] == "healthy"
        assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert container["HostConfig"]["LogConfig"] == {
            "Type": "json-file",
            "Config": {"max-size": "10m", "max-file": "3"},
        }
        assert container["HostConfig"]["Memory"] > 0
    for service in ("api", "worker"):
        assert host.docker("exec", f"ai-{service}-1", "id", "-u") == "10001"
        assert host.run(f"docker exec ai-{service}-1 touch /app/x").returncode != 0

    listening = host.sh("ss -H -ltn '! ( sport = :22 )' | awk '{print $4}'").split()
    assert [address for address in listening if not address.startswith("127.")] == []
    assert "127.0.0.1:8000" in listening
    assert not any(address.endswith((":6379", ":11434")) for address in listening)

    done = stack.wait_for(stack.post("hello"), "done")
    assert done["answer"]
    assert done["attempts"] == 1
    assert done["error"] is None
    assert done["model"] == "tiny"
    timings = done["timings"]
    assert timings["submitted_at"] <= timings["started_at"] <= timings["finished_at"]
    assert 0 < timings["first_token_seconds"] <= timings["run_seconds"]
    assert timings["eval_count"] > 0
    assert timings["eval_duration"] < timings["total_duration"]
    health = stack.health()
    assert health["queue"] == {"waiting": 0, "running": 0, "delayed": 0}
    assert [worker["ollama"] for worker in health["workers"].values()] == ["ok"]
    checked = host.docker("exec", "ai-worker-1", "python", "-m", "ai.worker.app", "check")
    assert checked == "ok"


def test_images_are_built_on_the_host(host: LabHost) -> None:
    stack = ReferenceStack(host, {"API_IMAGE": "own/api:1", "WORKER_IMAGE": "own/worker:1"})
    # As an upload leaves them: files that only root may read still make images that run.
    host.sh("chmod -R go-rwx /opt/ai")
    stack.compose("build")
    stack.up()
    assert stack.container("worker")["Config"]["Image"] == "own/worker:1"
    assert stack.wait_for(stack.post("hello"), "done")["answer"]


def test_requests_that_are_refused(host: LabHost) -> None:
    stack = ReferenceStack(host)
    stack.up()
    refusals = {
        '{"prompt": " "}': (400, "prompt must be a string that is not blank"),
        '{"prompt": "x", "modle": "y"}': (400, "unknown field 'modle': prompt and model are known"),
        '{"prompt": "\\ud800"}': (400, "prompt and model must be valid Unicode"),
        "[]": (400, "the body must be a JSON object"),
    }
    for body, (status, reason) in refusals.items():
        said = host.sh(
            "curl -s -w ' %{http_code}' -H 'Content-Type: application/json' "
            f"-d '{body}' http://127.0.0.1:8000/tasks"
        )
        assert said == f'{{"error":"{reason}"}} {status}'
    # What a page elsewhere could make its visitor's browser send.
    said = host.sh('curl -s -d \'{"prompt": "x"}\' http://127.0.0.1:8000/tasks')
    assert said == '{"error":"Content-Type must be application/json"}'
    said = host.sh(
        "head -c 2000000 /dev/zero | curl -s -w ' %{http_code}' -H 'Content-Type: application/json'"
        " --data-binary @- http://127.0.0.1:8000/tasks"
    )
    assert said == '{"error":"the body is longer than 1048576 bytes"} 413'
    assert stack.request("/tasks/nobody")[0] == 404
    assert stack.health()["queue"] == {"waiting": 0, "running": 0, "delayed": 0}


def test_no_task_lost_when_the_worker_is_killed(host: LabHost) -> None:
    stack = ReferenceStack(host, LONG)
    stack.up()
    ids = stack.post_many(10, "once upon a time")
    seen: dict[str, tuple[str, float]] = {}
    moments = random.Random(22)
    for _ in range(5):
        host.wait_for(f"curl -s {_HEALTH} | grep -q '\"running\":1'")
        time.sleep(moments.uniform(0, 0.6))
        stack.crash("worker")
        for task in stack.tasks(ids):
            if task["state"] == "done":
                seen.setdefault(task["id"], (task["answer"], task["timings"]["finished_at"]))
    health = stack.wait_until_finished(len(ids))
    assert health["totals"] == {"done": len(ids), "failed": 0}
    assert health["queue"] == {"waiting": 0, "running": 0, "delayed": 0}
    tasks = stack.tasks(ids)
    assert [task["state"] for task in tasks] == ["done"] * len(ids)
    assert all(task["answer"] for task in tasks)
    # The crashes hit tasks, and what had been answered was not answered anew.
    assert sum(task["attempts"] for task in tasks) > len(ids)
    for task in tasks:
        if task["id"] in seen:
            assert (task["answer"], task["timings"]["finished_at"]) == seen[task["id"]]
    assert stack.container("worker")["RestartCount"] == 5


def test_a_dead_workers_task_goes_to_another(host: LabHost) -> None:
    stack = ReferenceStack(host, {**LONG, "TASK_LEASE_SECONDS": "2", "OLLAMA_NUM_PREDICT": "1200"})
    stack.up()
    task_id = stack.post("once upon a time")
    stack.wait_for(task_id, "running")
    # Stopped by hand: the engine does not restart it, and it could not say goodbye.
    host.docker("kill", "ai-worker-1")
    stack.compose("run", "--no-deps", "-d", "--name", "other", "worker")
    done = stack.wait_for(task_id, "done", 60)
    assert done["attempts"] == 2
    assert stack.health()["totals"] == {"done": 1, "failed": 0}


def test_no_task_lost_when_redis_is_killed(host: LabHost) -> None:
    stack = ReferenceStack(host, LONG)
    stack.up()
    ids = stack.post_many(8, "once upon a time")
    for _ in range(3):
        host.wait_for(f"curl -s {_HEALTH} | grep -q '\"running\":1'")
        stack.crash("redis")
        host.wait_for(f"curl -sf {_HEALTH}")
    host.docker("stop", "ai-redis-1")
    status, said = stack.request("/healthz")
    assert (status, said["redis"]) == (503, "away")
    assert stack.request("/tasks", {"prompt": "x"})[0] == 503
    host.docker("start", "ai-redis-1")
    host.wait_for(f"curl -sf {_HEALTH}")
    health = stack.wait_until_finished(len(ids))
    assert health["totals"] == {"done": len(ids), "failed": 0}
    assert health["queue"] == {"waiting": 0, "running": 0, "delayed": 0}
    assert [task["state"] for task in stack.tasks(ids)] == ["done"] * len(ids)
    # Away for a moment is no reason for anybody to be restarted.
    assert stack.container("worker")["RestartCount"] == 0
    assert stack.container("api")["RestartCount"] == 0


def test_tasks_wait_for_a_model_server_that_is_away(host: LabHost) -> None:
    stack = ReferenceStack(host, {"TASK_RETRY_MAX_SECONDS": "2"})
    stack.up()
    host.docker("stop", "ai-ollama-1")
    ids = stack.post_many(3, "hello")
    host.wait_for(f"curl -s {_HEALTH} | grep -q '\"delayed\":3'")
    waiting = stack.task(ids[0])
    assert waiting["state"] == "queued"
    assert waiting["error"].startswith("the model server cannot be reached: ")
    host.wait_for(f"curl -s {_HEALTH} | grep -q 'the model server cannot be reached'")
    assert stack.container("worker")["State"]["Health"]["Status"] == "healthy"
    host.docker("start", "ai-ollama-1")
    assert stack.wait_until_finished(3)["totals"] == {"done": 3, "failed": 0}
    tasks = stack.tasks(ids)
    assert all(task["state"] == "done" and task["error"] is None for task in tasks)
    assert all(task["attempts"] > 1 for task in tasks)


def test_a_model_that_is_missing_is_said_and_waited_for(host: LabHost) -> None:
    stack = ReferenceStack(host, {"OLLAMA_MODEL": "later", "TASK_RETRY_MAX_SECONDS": "2"})
    stack.up()
    check = host.run("docker exec ai-worker-1 python -m ai.worker.app check")
    assert (check.returncode, check.stdout) == (1, b"model 'later' not found\n")
    task_id, other = stack.post("hello"), stack.post("hello", model="tiny")
    # A task that waits for its model does not keep another from its own.
    assert stack.wait_for(other, "done")["model"] == "tiny"
    host.wait_for(f"curl -s {_HEALTH} | grep -q '\"delayed\":1'")
    assert stack.task(task_id)["error"] == "model 'later' not found"
    address = host.docker(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "ai-ollama-1"
    )
    host.sh(
        f"curl -sf http://{address}:11434/api/copy"
        ' -d \'{"source": "tiny", "destination": "later"}\''
    )
    assert stack.wait_for(task_id, "done")["model"] == "later"


def test_given_up_after_so_many_attempts(host: LabHost) -> None:
    stack = ReferenceStack(host, {"TASK_MAX_ATTEMPTS": "2"})
    stack.up()
    failed = stack.wait_for(stack.post("hello", model="nowhere"), "failed")
    assert failed["error"] == "given up after 2 attempts: model 'nowhere' not found"
    assert failed["attempts"] == 2
    assert failed["answer"] is None
    assert stack.health()["totals"] == {"done": 0, "failed": 1}


def test_stopping_the_worker_ends_or_gives_back_its_task(host: LabHost) -> None:
    stack = ReferenceStack(host, LONG, "services: {worker: {environment: {SHUTDOWN_SECONDS: 8}}}\n")
    stack.up()
    task_id = stack.post("once upon a time")
    stack.wait_for(task_id, "running")
    host.docker("stop", "ai-worker-1")
    assert stack.container("worker")["State"]["ExitCode"] == 0
    assert stack.task(task_id)["state"] == "done"

    host.put(
        "/opt/ai/compose.override.yaml",
        ("services: {worker: {environment: {SHUTDOWN_SECONDS: 0, OLLAMA_NUM_PREDICT: 30000}}}\n"),
    )
    stack.up()
    task_id = stack.post("once upon a time")
    stack.wait_for(task_id, "running")
    host.docker("stop", "ai-worker-1")
    assert stack.container("worker")["State"]["ExitCode"] == 0
    given_back = stack.task(task_id)
    assert (given_back["state"], given_back["attempts"]) == ("queued", 0)
    assert stack.health()["queue"] == {"waiting": 1, "running": 0, "delayed": 0}
    assert stack.health()["workers"] == {}


_HEALTH = "http://127.0.0.1:8000/healthz"
