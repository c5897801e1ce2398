"""Record the acceleration probe on a real lab host: ``python -m tests.facts.record_acceleration``.

Each state is brought about with raw ``docker`` and the lab's stand-ins for a GPU, and what the
probe prints goes into a fixture as it is. The expected state is written from what the parser makes
of it: look at the change before you commit it.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import yaml

from stackmend.worker.acceleration.facts import Acceleration
from tests.lab import gpus, hosts
from tests.lab.hosts import LabHost
from tests.marks import MARK

FIXTURES = Path(__file__).parent / "worker.acceleration.facts.Acceleration"

COMPOSE = """\
services:
  ollama:
    image: lab/model:1
    runtime: nvidia
    environment: {NVIDIA_VISIBLE_DEVICES: all, OLLAMA_KEEP_ALIVE: 10m}
    cpus: 1.5
    mem_limit: 2g
    volumes: ["models:/root/.ollama"]
    healthcheck: {test: ["CMD", "ollama", "list"], interval: 1s}
  worker:
    image: lab/box:1
    entrypoint: ["sleep", "1000"]
    environment: {NUM_CTX: "1024", API_KEY: not-read}
volumes: {models: {}}
"""

ASK = (
    """docker exec ai-worker-1 wget -q -O /dev/null --post-data """
    """'{"model":"tiny","prompt":"hello","options":{"num_ctx":%d,"num_predict":2}}' """
    """http://ollama:11434/api/generate; """
)
PID = "$(docker inspect -f '{{.State.Pid}}' ai-ollama-1)"

#: State → what brings it about, one after the other, and what is asked.
STATES: dict[str, tuple[str, dict[str, str]]] = {
    "whole": ("".join(ASK % context for context in (512, 1024)), {}),
    "access_lost": (
        f"cd /proc/{PID}/root/dev && rm nvidia0 && mknod -m 0666 nvidia0 c 195 0; "
        f"echo 'Failed to initialize NVML: Driver/library version mismatch' >{gpus.FAILING}",
        {},
    ),
    "without_devices": (f"rm /proc/{PID}/root/dev/nvidia*", {}),
    "stopped": ("docker stop -t 1 ai-ollama-1", {}),
    "nobody": ("true", {"project": "nobody"}),
    "engine_stopped": ("systemctl stop docker.socket docker.service", {}),
}


class _Block(str):
    """Text that is written as it stands."""


yaml.SafeDumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def record(name: str, host: LabHost, **arguments: str) -> None:
    asked = Acceleration()
    command = asked.command(**arguments).get_raw_value()  # type: ignore[arg-type]
    done = subprocess.run(
        [*host.ssh_argv("root"), "sh"], input=command.encode(), capture_output=True, check=True
    )
    # Blanks at a line's end say nothing and would make the fixture unreadable.
    lines = [line.rstrip() for line in done.stdout.decode().split("\n")]
    fact = asked.process(list(lines)).to_json()
    output = "\n".join(lines).replace(shlex.split(command)[2], MARK)
    fixture = {"arg": arguments, "output": _Block(output), "fact": fact}
    written = yaml.safe_dump(fixture, sort_keys=False, allow_unicode=True, width=1000)
    FIXTURES.mkdir(exist_ok=True)
    (FIXTURES / f"{name}.yaml").write_text(written, encoding="utf-8")


def main() -> None:
    with hosts.lease("managed") as host:
        host.reset()
        try:
            with gpus.bus(host) as bus:
                bus.nvidia()
                bus.toolkit()
                host.sh(
                    f"mkdir -p /opt/ai; cat >/opt/ai/compose.yaml <<'ENDS'\n{COMPOSE}\nENDS\n"
                    "cd /opt/ai && docker compose -p ai up -d --wait",
                    timeout=120,
                )
                for name, (command, asked) in STATES.items():
                    host.sh(command, check=False, timeout=60)
                    record(name, host, **{"project": "ai", **asked})
                host.sh("systemctl start docker.service")
                record("elsewhere_without_an_answer", host, endpoint="http://127.0.0.1:9")
        finally:
            host.reset()
    with hosts.lease("bare") as host:
        host.reset()
        record("not_installed", host, project="ai")


if __name__ == "__main__":
    main()
