"""The reference stack on a lab host, by hand: `docker compose`, `curl`, and no code of ours."""

from __future__ import annotations

import io
import json
import shlex
import tarfile
import time
from collections.abc import Mapping
from typing import Any

from tests.lab.hosts import LabHost
from tests.lab.images import STACK
from tests.lab.observed import HostCommandError

DIRECTORY = "/opt/ai"
URL = "http://127.0.0.1:8000"

VARIABLES: Mapping[str, str] = {
    "REDIS_IMAGE": "lab/redis:7",
    "OLLAMA_IMAGE": "lab/model:1",
    "API_IMAGE": "stackmend/api:lab",
    "WORKER_IMAGE": "stackmend/worker:lab",
    "PYTHON_IMAGE": "lab/python:3.11",
    "OLLAMA_MODEL": "tiny",
    "HEALTH_INTERVAL": "1s",
    "HEALTH_START_PERIOD": "0s",
}
"""What the lab sets of compose.yaml's variables."""


def put_through(host: LabHost, seconds: float = 60) -> float:
    """Put a task on the queue through the api, from the host, and wait for the model's answer.

    Returns the seconds that it took; raises `HostCommandError` where it is not done in time.
    """
    began = time.monotonic()
    body = json.dumps({"prompt": "Are you well?"})
    created = host.sh(
        f"curl -fsS -m 20 -H 'Content-Type: application/json' -d '{body}' {URL}/tasks"
    )
    task = json.loads(created)["id"]
    state: dict[str, Any] = {}
    while time.monotonic() - began < seconds:
        state = json.loads(host.sh(f"curl -fsS -m 20 {URL}/tasks/{task}"))
        if state["state"] == "done":
            return time.monotonic() - began
        time.sleep(0.2)
    raise HostCommandError(f"task {task} was not answered within {seconds:.0f} s: {state}")


class ReferenceStack:
    """The stack in `DIRECTORY` of a host.

    + host: where
    + variables: set in its .env over `VARIABLES`
    + override: a compose.override.yaml
    """

    def __init__(
        self, host: LabHost, variables: Mapping[str, str] | None = None, override: str = ""
    ) -> None:
        self.host = host
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(STACK, ".", filter=lambda m: None if "__pycache__" in m.name else m)
        host.put("/tmp/stack.tar", packed.getvalue())
        host.sh(f"mkdir -p {DIRECTORY} && tar -C {DIRECTORY} -xf /tmp/stack.tar")
        settings = {**VARIABLES, **(variables or {})}
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        host.put(f"{DIRECTORY}/.env", lines)
        if override:
            host.put(f"{DIRECTORY}/compose.override.yaml", override)

    def compose(self, *args: str, timeout: float = 120) -> str:
        """Run `docker compose` in the stack's directory."""
        return self.host.sh(
            f"cd {DIRECTORY} && docker compose {shlex.join(args)} 2>&1", timeout=timeout
        )

    def up(self) -> None:
        """Start it and wait until every service is healthy."""
        self.compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "90")

    def container(self, service: str) -> dict[str, Any]:
        """The one container of a service, inspected."""
        (found,) = self.host.containers("ai")[service]
        return found

    def crash(self, service: str) -> None:
        """SIGKILL a service's process from outside the engine, which then restarts it."""
        process = f"docker inspect -f '{{{{.State.Pid}}}}' ai-{service}-1"
        # The engine waits before each further restart: until then there is no process to kill.
        self.host.wait_for(f'pid=$({process}); [ "$pid" -gt 0 ] && kill -9 "$pid"')

    def request(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Ask the api from the host; return the status (0 where nobody answers) and the JSON."""
        data = "" if body is None else f"-d {shlex.quote(json.dumps(body))}"
        said = self.host.sh(
            f"curl -s -m 20 -w '\\n%{{http_code}}' -H 'Content-Type: application/json' {data} "
            f"{URL}{path}",
            check=False,
        )
        text, _, status = said.rpartition("\n")
        return int(status), json.loads(text) if text else None

    def post(self, prompt: str, **more: str) -> str:
        """Submit a task; return its id."""
        status, said = self.request("/tasks", {"prompt": prompt, **more})
        assert status == 202, said
        return str(said["id"])

    def post_many(self, number: int, prompt: str) -> list[str]:
        """Submit tasks in one go; return their ids."""
        body = shlex.quote(json.dumps({"prompt": prompt}))
        said = self.host.sh(
            f"for n in $(seq {number}); do curl -sf -H 'Content-Type: application/json' "
            f"-d {body} {URL}/tasks || exit 1; echo; done"
        )
        return [json.loads(line)["id"] for line in said.splitlines()]

    def task(self, task_id: str) -> dict[str, Any]:
        """What the api says of a task."""
        status, said = self.request(f"/tasks/{task_id}")
        assert status == 200, said
        assert isinstance(said, dict)
        return said

    def tasks(self, ids: list[str]) -> list[dict[str, Any]]:
        """What the api says of several tasks, asked in one go."""
        urls = " ".join(f"{URL}/tasks/{task_id}" for task_id in ids)
        said = self.host.sh(f"for url in {urls}; do curl -sf $url || exit 1; echo; done")
        return [json.loads(line) for line in said.splitlines()]

    def health(self) -> dict[str, Any]:
        """What `/healthz` says."""
        status, said = self.request("/healthz")
        assert status == 200, said
        assert isinstance(said, dict)
        return said

    def wait_for(self, task_id: str, state: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until a task is in a state; return it."""
        deadline = time.monotonic() + seconds
        while True:
            task = self.task(task_id)
            if task["state"] == state:
                return task
            assert time.monotonic() < deadline, f"not {state} within {seconds} s: {task}"
            time.sleep(0.1)

    def wait_until_finished(self, number: int, seconds: float = 120) -> dict[str, Any]:
        """Wait until so many tasks are done or failed; return what `/healthz` says then."""
        deadline = time.monotonic() + seconds
        while True:
            health = self.health()
            if sum(health["totals"].values()) >= number:
                return health
            assert time.monotonic() < deadline, health
            time.sleep(0.2)
