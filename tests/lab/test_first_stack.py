"""``stackmend init`` with nothing but a host, ``doctor`` and ``site``: the stack answers a task."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.controller import Controller, Run
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.model_registry import ModelRegistry
from tests.lab.models_runs import push
from tests.lab.paths import KEY, KNOWN_HOSTS
from tests.lab.reference_stack import URL, VARIABLES

COMMAND = str(Path(sys.executable).with_name("stackmend"))
#: The model that the stack's own worker asks for where nobody names another.
MODEL = "llama3.2:1b"


class Beginner:
    """A user with a key, and what ``stackmend init`` wrote in their directory.

    The lab has no internet: its own images stand in for those of the stack, and a mirror for the
    registry. Everything else is as ``init`` writes it.
    """

    def __init__(self, directory: Path, host: LabHost, mirror: str) -> None:
        self.directory, self.host = directory, host
        (directory / ".ssh").mkdir()
        (directory / ".ssh/known_hosts").write_bytes(KNOWN_HOSTS.read_bytes())
        made = self.run("init", "my", "--host", f"ai1=127.0.0.1:{host.port}", "--key", str(KEY))
        assert made.rc == 0, made.out
        env = {name: value for name, value in VARIABLES.items() if name != "OLLAMA_MODEL"}
        self.edit('    # "env": {"OLLAMA_MODEL": "llama3.2:1b"},', f'    "env": {env!r},')
        source = {"name": MODEL, "source": mirror, "insecure": True}
        self.edit(f'"wanted": ["{MODEL}"]', f'"wanted": [{source!r}], "minimum_free": 0')
        self.edit('"minimum_free": "10GiB"', '"minimum_free": "100MiB"')

    @property
    def settings(self) -> Path:
        return self.directory / "my/group_data/all.py"

    def edit(self, old: str, new: str) -> None:
        text = self.settings.read_text()
        assert text.count(old) == 1, text
        self.settings.write_text(text.replace(old, new))

    def run(self, *words: str) -> Run:
        env = {"HOME": str(self.directory), "STACKMEND_REPORTS": "", "NO_COLOR": "1"}
        with Controller(
            words[0], *words[1:], env=env, cwd=self.directory, program=[COMMAND]
        ) as command:
            done = command.wait(240)
        assert "Traceback" not in done.out, done.out
        return done

    def list_found(self) -> list[str]:
        record = json.loads((self.directory / "var/reports/latest.json").read_text())
        return [each["incident"] for each in record["hosts"]["ai1"]["diagnosis"]["findings"]]

    def ask(self, prompt: str) -> dict[str, Any]:
        """What came of a task, as ``curl`` on the host has it."""
        body = json.dumps({"prompt": prompt})
        sent = self.host.sh(f"curl -sf -H 'Content-Type: application/json' -d '{body}' {URL}/tasks")
        task = f"{URL}/tasks/{json.loads(sent)['id']}"
        self.host.wait_for(f'curl -sf {task} | grep -q \'"state":"\\(done\\|failed\\)"\'', 60)
        done: dict[str, Any] = json.loads(self.host.sh(f"curl -sf {task}"))
        return done


@pytest.fixture(scope="module")
def beginner(
    lab: Lab, model_registry: ModelRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Beginner:
    mirror = push(model_registry, "team/first:1b", 1_500_000, seed=1)
    return Beginner(tmp_path_factory.mktemp("first"), lab.take(1)[0], mirror.name)


@pytest.mark.slow
def test_three_commands_make_a_stack_that_answers(beginner: Beginner) -> None:
    before = beginner.run("doctor", "my")
    assert before.rc == 1, before.out
    done = beginner.run("site", "my")
    assert done.rc == 0, done.out
    answered = beginner.ask("hello")
    assert (answered["state"], answered["model"]) == ("done", MODEL), answered
    assert answered["answer"]
    healthy = beginner.run("doctor", "my")
    assert (healthy.rc, beginner.list_found()) == (0, []), healthy.out


@pytest.mark.slow
def test_the_doctor_misses_a_model_that_only_the_stack_names(beginner: Beginner) -> None:
    """Also where the inventory has no section ``models``, and so nobody pulls it."""
    text = beginner.settings.read_text()
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith('    "models": ')]
    assert len(kept) == len(lines) - 1
    beginner.settings.write_text("".join(kept))
    try:
        healthy = beginner.run("doctor", "my")
        assert (healthy.rc, beginner.list_found()) == (0, []), healthy.out
        beginner.host.docker("exec", "ai-ollama-1", "ollama", "rm", MODEL)
        found = beginner.run("doctor", "my")
    finally:
        beginner.settings.write_text(text)
    assert (found.rc, beginner.list_found()) == (1, ["model-missing"]), found.out
    assert MODEL in found.out
