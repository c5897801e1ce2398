"""``make demo``: a stack on a real host, broken in every way of the runbook, named, mended.

What it runs are the commands that a user has, in a directory as a user has one: ``var/lab/demo``.
"""

from __future__ import annotations

import json
import os
import pprint
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import yaml

from tests.lab import hosts, names
from tests.lab.engine import LabUnavailable, OuterCommandError
from tests.lab.hosts import LabHost
from tests.lab.images import STACK
from tests.lab.moving import CLIENT, PROFILE
from tests.lab.paths import PROJECT, VAR
from tests.lab.reference_stack import VARIABLES, put_through

#: Where the demo's inventory, stack and reports lie.
HOME = VAR / "demo"
PAGE = "report.html"

#: The host's name in the inventory: that of the container says nothing to anybody.
NAME = "ai1"
WIDTH = 80

#: What begins a line of the command's own output, and its colour.
COLOURS = {
    **dict.fromkeys(("CRITICAL", "ERROR", "failed"), "31"),
    **dict.fromkeys(("WARNING", "refused"), "33"),
    **dict.fromkeys(("done", "ai1: healthy", "ai1: converged", "ai1: changed"), "32"),
    "ai1: ": "1",
    "$ ": "1",
}

#: What the host asks for names, an address where nobody answers, and what it reaches outside.
DNS, NOBODY = names.FIRST, "192.0.2.99"
OUTSIDE = "registry.example.com"

#: What the demo adds to the reference stack: the worker that the runbook began with, which is
#: llama-cpp-python on one thread, and somebody who asks it.
ADDED: dict[str, Any] = {
    "slow": {
        "image": "lab/legacy:1",
        # Token by token, as a processor without the hardware does.
        "command": ["--model", "/models/slow.gguf", "--alias", "letters", "--ubatch-size", "1"],
        "restart": "always",
        "stop_grace_period": "3s",
        "volumes": ["weights:/models"],
    },
    "letters": {
        "image": "lab/python:3.11",
        "init": True,
        "command": ["python3", "-u", "/client.py"],
        "environment": {"OPENAI_BASE_URL": "http://slow:8000/v1", "OPENAI_MODEL": "letters"},
        "restart": "unless-stopped",
        # What it has under way it ends before it ends itself: a while where the machine is busy.
        "stop_grace_period": "60s",
        "volumes": ["./client.py:/client.py:ro", "letters:/data"],
        "depends_on": {"slow": {"condition": "service_started"}},
    },
}

#: What the host is to be, but for the worker's engine, which is asked for once it is known slow.
SETTINGS: dict[str, Any] = {
    "project": "ai",
    "directory": "/opt/ai",
    "env": {**VARIABLES, "OLLAMA_MODEL": "assistant", "HEALTH_INTERVAL": "2s"},
    "checks": [
        {"kind": "http", "url": "http://127.0.0.1:8000/healthz"},
        {"kind": "redis", "service": "redis", "address": "redis:6379", "inside": "worker"},
    ],
    "resolver": {"servers": [DNS], "check_names": [OUTSIDE]},
    "connectivity": {"endpoints": [f"http://{OUTSIDE}/"], "derived": False},
    # What may be ended where it holds a port of the stack.
    "ports": {"on_conflict": "stop", "allow": ["unit:squatter.service"]},
    "links": {"on_conflict": "override"},
    "models": {"wanted": [{"name": "assistant", "modelfile": str(HOME / "assistant.modelfile")}]},
    "stability": 2,
    "minimum_free": "512MiB",
    "mend": {"attempts": 20, "backoff": [0]},
}

#: In words, and as commands on the host, in the stack's directory.
BREAKAGES = (
    ("the model was never pulled", "docker exec ai-ollama-1 ollama rm assistant"),
    (
        "something else holds redis's port, 6379",
        "docker stop -t 1 ai-redis-1\n"
        "systemd-run -q --unit=squatter python3 -m http.server --bind 127.0.0.1 6379",
    ),
    (
        "so somebody publishes redis to everybody, without a password",
        "sed -i s/127.0.0.1:6379:6379/0.0.0.0:6380:6379/ compose.yaml",
    ),
    (
        "the api is to run a program that is not there: it restarts for ever",
        "sed -i 's/^  api:/&\\n    command: [python, -m, nowhere]/' compose.yaml",
    ),
    (
        "the worker looks for redis on localhost, which is itself",
        "sed -i '/^  worker:/,$ s,redis://redis,redis://localhost,' compose.yaml\n"
        "docker compose up -d --no-build",
    ),
    (
        "the host asks a DNS server that is no more",
        f"echo nameserver {NOBODY} >/etc/resolv.conf",
    ),
    ("the worker of letters computes on one thread, token by token", ""),
)


def main() -> int:
    """Run the demo; return 0 when the stack was mended and the run after it changed nothing."""
    try:
        _chapter("A host of its own: systemd, sshd, Docker")
        _say("(the first time this builds the lab's images: some minutes)")
        hosts.prepare()
        with hosts.lease() as host:
            # What a demo before this one left beside what a reset covers.
            names.stop_serving(host)
            host.reset()
            _write_home(host)
            _make_outside(host)
            host.load_images("lab/legacy:1")
            _say(f"{NAME} answers.")
            return _show(host)
    except (LabUnavailable, OuterCommandError) as error:
        print(f"\nThe demo needs a lab host, and there is none: {error}", file=sys.stderr)
        return 1


def _show(host: LabHost) -> int:
    _chapter("The stack is deployed: an api, a worker, redis and a model server")
    if _stackmend("site", keep="-->") != 0:
        _say("The stack did not come up; the report says why.")
        return 1
    _say(f"It works: {_ask(host)}")

    _chapter("Now it is broken, in every way of the runbook at once")
    _break(host)

    _chapter("What is wrong? The doctor looks, and changes nothing")
    before = host.identities("ai")
    _stackmend("doctor")
    if {name: found[:1] for name, found in host.identities("ai").items()} != {
        name: found[:1] for name, found in before.items()
    }:
        _say("The doctor touched the host. It must not.")
        return 1

    _chapter("Mend it (here is what was done; the report has all of it)")
    began = time.monotonic()
    if _stackmend("site", keep="done:") != 0:
        _say("It was not mended; the report says why.")
        return 1
    _say(f"Mended in {time.monotonic() - began:.0f} s. It works again: {_ask(host)}")

    _chapter("Once more: there must be nothing left to do")
    if _stackmend("doctor") != 0:
        _say("The doctor still finds something.")
        return 1
    containers, moment = host.identities(), host.now()
    if _stackmend("site", keep="-->") != 0:
        return 1
    outcome = _read_report()["outcome"]
    if outcome != "converged" or host.identities() != containers or host.events_since(moment):
        _say(f"The second run ended as {outcome!r} and should have changed nothing.")
        return 1
    _say("The same containers, started at the same times, and no event on the engine.")

    _chapter("The report")
    opens = ["--open"] if _has_screen() else []
    _stackmend("report", "var/reports", "--html", PAGE, *opens)
    _say(f"The page: {(HOME / PAGE).relative_to(PROJECT)}")
    _say(
        f"The host stays up. Look at it: .venv/bin/python -m tests.lab shell {host.name}\n"
        "Remove everything: make demo-clean"
    )
    return 0


def _break(host: LabHost) -> None:
    _say("(on the host, in /opt/ai)")
    for number, (words, command) in enumerate(BREAKAGES, start=1):
        _say(f"{number}. {words}")
        if command:
            print(textwrap.indent(command, "     "), flush=True)
            host.sh(f"cd /opt/ai && {{ {command}\n}} >/dev/null 2>&1", timeout=120)
        if "localhost" in command:
            # In the project's own files as well: what is wrong there nobody puts right by hand.
            _write_stack("redis://localhost:6379/0")
    move = {"image": "lab/model:1", "profile": PROFILE, "allow": ["busy"], "margin": 0.1}
    _write_inventory(host, worker={"engine": move})


def _make_outside(host: LabHost) -> None:
    """A DNS server, and a server outside that answers by its name."""
    names.serve(host, DNS, name=OUTSIDE, address=DNS)
    host.sh(
        f"ip address add {NOBODY}/32 dev dns0; echo nameserver {DNS} >/etc/resolv.conf; "
        f"systemd-run -q --collect --unit=outside python3 -m http.server --bind {DNS} "
        "--directory /srv 80"
    )


def _write_home(host: LabHost) -> None:
    """The directory that a user would have: an inventory, and the stack's files."""
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.copytree(STACK, HOME / "stack", ignore=shutil.ignore_patterns("__pycache__"))
    (HOME / "stack/client.py").write_text(CLIENT)
    (HOME / "assistant.modelfile").write_text("FROM tiny\nPARAMETER temperature 0.5\n")
    _write_stack("redis://redis:6379/0")
    _write_inventory(host)


def _write_stack(redis: str) -> None:
    compose = yaml.safe_load((STACK / "compose.yaml").read_text())
    services = compose["services"]
    services["redis"]["ports"] = ["127.0.0.1:6379:6379"]
    services["worker"]["environment"]["REDIS_URL"] = redis
    # Nothing that is lost here is waited for.
    services["worker"]["stop_grace_period"] = "3s"
    services |= ADDED
    compose["volumes"] |= {"weights": {}, "letters": {}}
    compose = {key: value for key, value in compose.items() if not key.startswith("x-")}
    (HOME / "stack/compose.yaml").write_text(yaml.safe_dump(compose, sort_keys=False))


def _write_inventory(host: LabHost, **changes: Any) -> None:
    stack = {**SETTINGS, "source": str(HOME / "stack"), **changes}
    row = (NAME, {**host.ssh_data(), "stack": stack})
    (HOME / "fleet.py").write_text(f"hosts = {pprint.pformat([row], sort_dicts=False)}\n")


def _ask(host: LabHost) -> str:
    """Have the stack do what it is for, and say that it does."""
    return f"a task went through\napi, redis, worker and model in {put_through(host):.1f} s."


def _stackmend(command: str, *words: str, keep: str | None = None) -> int:
    """Run the command as a user would, and show what it prints; all of it only where it fails.

    + keep: of the summary, show the lines that begin with this, and the last
    """
    words = words or ("fleet.py",)
    print(f"$ stackmend {' '.join([command, *words])}", flush=True)
    settings = {"PYINFRA_PROGRESS": "off", "STACKMEND_REPORTS": "var/reports"}
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("stackmend")), command, *words],
        cwd=HOME,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # One stream, in the order in which it comes.
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if keep is None or line.lstrip().startswith((keep, "-->", f"{NAME}: ")):
                _print_line(line)
    if keep is not None and process.returncode:
        print("".join(lines))
    return process.returncode


def _print_line(line: str) -> None:
    """A line as wide as a terminal, with paths as they are from the directory of the demo."""
    line = line.rstrip().replace(f"{HOME}/", "")
    colour = next((code for word, code in COLOURS.items() if line.lstrip().startswith(word)), "")
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    for row in textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False):
        print(_paint(row, colour), flush=True)


def _paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if code and sys.stdout.isatty() else text


def _read_report() -> dict[str, Any]:
    hosts_: dict[str, Any] = json.loads((HOME / "var/reports/latest.json").read_text())["hosts"]
    record: dict[str, Any] = hosts_[NAME]
    return record


def _has_screen() -> bool:
    """Whether somebody sits before a browser here."""
    return sys.stdout.isatty() and bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
    )


def _chapter(title: str) -> None:
    print(f"\n{_paint(f'== {title}', '1')}", flush=True)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
