"""``make demo``: a stack on a real host, broken in several ways, shown, mended, proven mended."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import textwrap
import time
from typing import Any

from tests.lab import hosts
from tests.lab.controller import pyinfra_argv
from tests.lab.engine import LabUnavailable, OuterCommandError
from tests.lab.hosts import LabHost
from tests.lab.paths import PROJECT, VAR

_REPORTS = VAR / "demo"

# What is done to the stack behind its back: in words, and as a command on the host.
BREAKAGES = (
    ("redis is stopped by hand", "docker stop -t 1 ai-redis-1"),
    ("the api's container is removed", "docker rm -f ai-api-1"),
    (
        "something else takes the api's port",
        "systemd-run -q --unit=squatter python3 -m http.server --bind 127.0.0.1 8000",
    ),
    (
        "the worker is taken off its network, and goes on running",
        "docker network disconnect ai_default ai-worker-1",
    ),
    ("the model server is paused", "docker pause ai-ollama-1"),
    (
        "somebody edits the settings on the host",
        "sed -i 's/^OLLAMA_MODEL=.*/OLLAMA_MODEL=edited-by-hand/' /opt/ai/.env",
    ),
)


def main() -> int:
    """Run the demo; return 0 when the stack was mended and the run after it changed nothing."""
    try:
        _chapter("A host of its own: systemd, sshd, Docker")
        _say("(the first time this builds the lab's images: some minutes)")
        hosts.prepare()
        with hosts.lease() as host:
            host.reset()
            _say(f"{host.name} answers on 127.0.0.1:{host.port}.")
            return _show(host)
    except (LabUnavailable, OuterCommandError) as error:
        print(f"\nThe demo needs a lab host, and there is none: {error}", file=sys.stderr)
        return 1


def _show(host: LabHost) -> int:
    _chapter("The stack is deployed: an api, a worker, redis and a model server")
    if _pyinfra(host, "-y", quiet=True) != 0:
        _say("The stack did not come up; the report says why.")
        return 1
    _say(f"It works: {_ask(host)}")

    _chapter("Now it is broken, from outside")
    for words, command in BREAKAGES:
        _say(f"- {words}:\n    {command}")
        host.sh(command)
    _say("What Docker shows on the host:")
    print(host.docker("ps", "-a", "--format", "table {{.Names}}\t{{.Status}}"), flush=True)

    _chapter("What is wrong, and what would be done? (--dry changes nothing)")
    before, moment = host.identities(), host.now()
    if _pyinfra(host, "--dry") != 0:
        return 1
    if host.identities() != before or host.events_since(moment):
        _say("The dry run touched the host. It must not.")
        return 1

    _chapter("Mend it")
    began = time.monotonic()
    if _pyinfra(host, "-y") != 0:
        _say("It was not mended; the report says why.")
        return 1
    seconds = time.monotonic() - began
    mended = _report(host)
    _say(f"It works again: {_ask(host)}")

    _chapter("Once more: there must be nothing left to do")
    before, moment = host.identities(), host.now()
    if _pyinfra(host, "-y") != 0:
        return 1
    quiet = host.identities() == before and not host.events_since(moment)
    outcome = _report(host)["outcome"]
    if outcome != "converged" or not quiet:
        _say(f"The second run ended as {outcome!r} and should have changed nothing.")
        return 1

    _chapter("In plain words")
    _print_report(mended, seconds)
    _say(
        "The second run changed nothing: the same containers, started at the same times, and no "
        "event on the host's engine."
    )
    _say(f"The report of the last run: {(_REPORTS / 'latest.json').relative_to(PROJECT)}")
    _say(f"The runs before it, by time: {_REPORTS.relative_to(PROJECT)}/")
    _say(
        f"The host stays up. Look at it: .venv/bin/python -m tests.lab shell {host.name}\n"
        "Remove everything: make demo-clean"
    )
    return 0


def _print_report(record: dict[str, Any], seconds: float) -> None:
    """What was wrong and what was done, from the record of the run."""
    operations = record["operations"]
    print("What was wrong:")
    for finding in (found for operation in operations for found in operation["findings"]):
        _item(f"{finding['subject']}: {finding['cause']}")
    print(f"What was done, in {seconds:.0f} s:")
    for step in (done for operation in operations for done in operation["done"]):
        _item(f"{step['verb']} {step['subject']} ({step['seconds']:.1f} s): {step['cause']}")


def _ask(host: LabHost) -> str:
    """Put a task on the queue through the api, from the host, and wait for the model's answer."""
    began = time.monotonic()
    url = "http://127.0.0.1:8000/tasks"
    body = json.dumps({"prompt": "Are you well?"})
    created = host.sh(f"curl -fsS -H 'Content-Type: application/json' -d '{body}' {url}")
    task = json.loads(created)["id"]
    while time.monotonic() - began < 60:
        state = json.loads(host.sh(f"curl -fsS {url}/{task}"))
        if state["state"] == "done":
            seconds = time.monotonic() - began
            return f"a task went through api, redis, worker and model in {seconds:.1f} s."
        time.sleep(0.2)
    raise OuterCommandError(f"task {task} was not answered within a minute: {state}")


def _pyinfra(host: LabHost, mode: str, *, quiet: bool = False) -> int:
    """Run the deploy as a user would; with `quiet`, show what it printed only when it fails."""
    argv = ["inventories/lab.py", "--limit", host.name, "deploy/site.py", mode]
    print(f"$ pyinfra {shlex.join(argv)}", flush=True)
    settings = {"PYINFRA_PROGRESS": "off", "STACKMEND_REPORTS": str(_REPORTS)}
    done = subprocess.run(
        [*pyinfra_argv(), *argv],
        cwd=PROJECT,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT,  # pyinfra tells its story there: in the order of ours
        text=True,
        check=False,
        timeout=600,
    )
    if quiet:
        print(done.stdout if done.returncode else done.stdout.strip().rpartition("\n")[2])
    return done.returncode


def _report(host: LabHost) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((_REPORTS / "latest.json").read_text())["hosts"][host.name]
    return record


def _chapter(title: str) -> None:
    print(f"\n\033[1m== {title}\033[0m" if sys.stdout.isatty() else f"\n== {title}", flush=True)


def _say(text: str) -> None:
    print(text, flush=True)


def _item(text: str) -> None:
    print(textwrap.fill(text, 100, initial_indent="  - ", subsequent_indent="    "), flush=True)


if __name__ == "__main__":
    sys.exit(main())
