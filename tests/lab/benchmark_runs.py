"""A server of known speed as a stack's own service, and runs of deploy/benchmark.py against it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests import paced
from tests.lab import controller
from tests.lab.controller import Controller
from tests.lab.hosts import LabHost
from tests.lab.models_runs import Result
from tests.paced import Record

#: Starts the server, and writes each request down before it is answered.
LOGGED = """\
import asyncio, sys
sys.path.insert(0, "/server")
import server
route = server.Server.route
async def logged(self, exchange):
    with open("/server/log", "a") as log:
        print(exchange.method, exchange.path, file=log)
    return await route(self, exchange)
server.Server.route = logged
sys.exit(server.main())
"""

#: What is asked: little, as each measurement of the tests asks it.
PROFILE = {
    "prompt_tokens": 16,
    "output_tokens": 12,
    "concurrency": [2],
    "requests": 4,
    "warmups": 1,
    "timeout": 20,
}

#: Where what was measured lies on a host.
RESULTS = "/var/lib/stackmend/benchmarks"

#: What asks a model for tokens, or to be loaded.
INFERENCE = ("/api/generate", "/api/chat", "/v1/completions", "/v1/chat/completions")


class PacedStack:
    """One Compose project whose model server has a known speed.

    + host: where
    """

    def __init__(self, host: LabHost, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.source = directory / "source"
        self.source.mkdir(exist_ok=True)
        self.pace: dict[str, Any] = {"ttft": 0.05, "tpot": 0.02, "slots": 8, "model": "paced:1b"}
        self.version, self.digest, self.threads, self.replicas = "0.33.0", "a" * 64, 4, 1

    @classmethod
    def stand(cls, host: LabHost, directory: Path) -> PacedStack:
        """One that runs on a host that nothing else seems to use."""
        stack = cls(host, directory)
        stack.up()
        stack.quiet()
        return stack

    def up(self) -> None:
        """Have it run as its fields say, and wait until it answers."""
        source = paced.SERVER.read_text(encoding="utf-8")
        for old, new in (('"0.33.0"', repr(self.version)), ('"a" * 64', repr(self.digest))):
            assert old in source
            source = source.replace(old, new)
        self.host.put("/opt/paced/server.py", source)
        self.host.put("/opt/paced/logged.py", LOGGED)
        options = [f"--{name}={value}" for name, value in self.pace.items()]
        compose = {
            "services": {
                "ollama": {
                    "image": "lab/python:3.11",
                    "init": True,
                    "command": [
                        *("python3", "/server/logged.py", "11434", "--address", "0.0.0.0"),
                        *options,
                    ],
                    "environment": {
                        "LLAMA_ARG_THREADS": str(self.threads),
                        "OLLAMA_API_KEY": "sk-never-shown",
                    },
                    "volumes": ["/opt/paced:/server"],
                }
            }
        }
        text = yaml.safe_dump(compose)
        (self.source / "compose.yaml").write_text(text)
        self.host.put("/opt/ai/compose.yaml", text)
        scale = f"ollama={self.replicas}"
        command = ["docker", "compose", "-p", "ai", "up", "-d", "--scale", scale]
        self.host.sh(f"cd /opt/ai && {shlex.join(command)} 2>&1", timeout=60)
        if self.replicas == 1:
            self.host.sh("docker restart -t 0 ai-ollama-1")
        self.host.wait_for(f"curl -sf http://{self.address}/api/version")

    @property
    def address(self) -> str:
        """Where its first replica answers, from its host."""
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return f"{self.host.docker('inspect', '-f', networks, 'ai-ollama-1')}:11434"

    def set_pace(self, **pace: Any) -> None:
        """Change its speed under way; no setting of the container says so."""
        body = shlex.quote(json.dumps({**self.pace, **pace}))
        self.host.sh(f"curl -sf -X PUT -d {body} http://{self.address}/paced >/dev/null")
        self.clear_log()

    def read_records(self) -> list[Record]:
        """What it answered since its speed was set, in the order in which it was asked."""
        found = json.loads(self.host.sh(f"curl -sf http://{self.address}/paced"))["records"]
        return sorted((Record(**row) for row in found), key=lambda row: row.arrived)

    def clear_log(self) -> None:
        self.host.sh(": >/opt/paced/log")

    def read_log(self) -> list[str]:
        """Each request since, as the server wrote it down: ``GET /api/ps``."""
        lines = self.host.sh("cat /opt/paced/log").splitlines()
        return [line for line in lines if not line.endswith(" /paced")]

    def count_inference(self) -> int:
        """Requests since for which a model has to compute, or to be loaded."""
        return sum(line.split(" ")[-1] in INFERENCE for line in self.read_log())

    # Runs

    @property
    def reports(self) -> Path:
        return self.directory / "reports"

    def start(self, *arguments: str, user: str = "root", **policy: Any) -> Controller:
        """A run, under way."""
        benchmark = {"profile": PROFILE, **policy}
        stack = {
            "project": "ai",
            "source": str(self.source),
            "directory": "/opt/ai",
            "worker": {"benchmark": benchmark},
        }
        inventory = controller.write_inventory(self.directory, [self.host], user=user, stack=stack)
        return controller.start(
            inventory,
            "deploy/benchmark.py",
            *(arguments or ("-y",)),
            env={"STACKMEND_REPORTS": str(self.reports)},
        )

    def run(self, *arguments: str, user: str = "root", **policy: Any) -> Result:
        """Run it to its end."""
        with self.start(*arguments, user=user, **policy) as running:
            done = running.wait()
        assert "Traceback" not in done.out, done.out
        return Result(done, done.report["hosts"])

    def collected(self) -> list[Mapping[str, Any]]:
        """The results on the controller, oldest first."""
        paths = sorted((self.reports / "benchmarks").glob("*.json"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def quiet(self) -> None:
        """Have the host say that nothing else used its CPU, however busy this machine is."""
        self.host.sh("cat /proc/stat >/run/stat && mount --bind /run/stat /proc/stat")
