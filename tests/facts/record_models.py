"""Record the models probe's output on a real lab host: ``python -m tests.facts.record_models``.

Each state is brought about with raw ``docker``, and what the probe prints goes into a fixture as it
is. The expected state is written from what the parser makes of it: look at the change before you
commit it.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import yaml

from stackmend.models.facts import ModelStore
from tests.lab import hosts
from tests.lab.hosts import LabHost
from tests.marks import MARK

FIXTURES = Path(__file__).parent / "models.facts.ModelStore"

COMPOSE = """\
services:
  ollama:
    image: lab/model:1
    volumes: ["models:/root/.ollama"]
    healthcheck: {test: ["CMD", "ollama", "list"], interval: 1s}
  worker:
    image: lab/box:1
    entrypoint: ["sleep", "1000"]
    environment:
      OLLAMA_URL: http://ollama:11434
      OLLAMA_MODEL: llama3.2:1b
      EMBEDDING_MODEL: nomic-embed-text
      OLLAMA_KEEP_ALIVE: 5m
  other:
    image: lab/box:1
    entrypoint: ["sleep", "1000"]
    environment: {VISION_MODEL: of-something-else}
volumes: {models: {}}
"""

BLOBS = "/var/lib/docker/volumes/ai_models/_data/models/blobs"
PARTIAL = f"sha256-{'c' * 64}-partial"

#: State → what brings it about, one after the other, and what is asked.
STATES: dict[str, tuple[str, dict[str, str]]] = {
    "whole": (
        """docker exec ai-ollama-1 python3 -c 'import urllib.request as r; """
        """r.urlopen("http://127.0.0.1:11434/api/generate", b"{\\"model\\":\\"tiny\\"}").read()'""",
        {},
    ),
    "truncated_and_begun": (
        f"cd {BLOBS}; truncate -s -7 $(ls -S | head -n 1); "
        f"truncate -s 5000000 {PARTIAL}; "
        f'echo \'{{"N":0,"Offset":0,"Size":5000000,"Completed":4096}}\' >{PARTIAL}-0',
        {},
    ),
    "hashed": (
        f"cd {BLOBS}; rm {PARTIAL}*; printf x | dd of=$(ls -S | tail -n 1) conv=notrunc",
        {"hashes": "true"},
    ),
    "stopped": ("docker stop -t 1 ai-ollama-1", {}),
    "nobody": ("true", {"project": "nobody"}),
    "not_a_model_server": ("true", {"service": "worker"}),
    "engine_stopped": ("systemctl stop docker.socket docker.service", {}),
}


class _Block(str):
    """Text that is written as it stands."""


yaml.SafeDumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def record(name: str, host: LabHost, **arguments: str) -> None:
    asked = ModelStore()
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
