"""A stack with a legacy worker: real llama.cpp on one thread, and a client with tasks for it.

>>> stack = Moving(tmp_path, lab.take(1)[0])
>>> stack.start_up()
>>> with stack.polling() as silent:
...     done = stack.move("-y")
>>> assert silent() == []
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.lab import controller
from tests.lab.controller import Controller, Run
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

#: Where the move stands, and what it lays over the project's files.
RECORD = "/var/lib/stackmend/mv/move.json"
LAYER = "/var/lib/stackmend/mv/layer.yaml"


#: Speaks OpenAI's API, one task after another, and notes when each begins and ends: one that was
#: cut off has no end. What it has under way it ends before it ends itself.
CLIENT = """\
import signal

ending = False


def end(*_):
    global ending
    ending = True


# What follows takes a busy machine a second, in which it may be stopped already.
signal.signal(signal.SIGTERM, end)

import json, os, time, urllib.request

text = "please summarise the following letter in a few words " * 16
url, model = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_MODEL"]


def note(*words):
    log.write(" ".join(map(str, words)) + "\\n")
    log.flush()
    os.fsync(log.fileno())


log = open("/data/log", "a+")
log.seek(0)
number = 1 + sum(line.split()[0] == "begin" for line in log)
while not ending:
    # In front of the text the number is what no server has kept.
    question = [{"role": "user", "content": f"{number:06} {text}"}]
    body = {"model": model, "messages": question, "max_tokens": 4}
    request = urllib.request.Request(
        url + "/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    note("begin", number, url)
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] > 0
        note("end", number, url, f"{time.monotonic() - began:.3f}")
    except Exception as error:
        note("failed", number, url, repr(error))
    number += 1
    time.sleep(0.3)
"""

#: Seconds within which one of the two has answered, also while both are measured.
SILENCE = 30.0

#: Asks for the client's model where the client is: one of the two, and where that fails the other.
#: Notes when it began to ask, how many seconds it took, and who answered, if anybody.
POLLER = """\
import json, sys, time, urllib.request

limit = float(sys.argv[1])
body = {"model": "team-model", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
while True:
    began, reasons, who = time.time(), [], "silent"
    for place in "ollama:11434", "legacy:8000":
        request = urllib.request.Request(
            f"http://{place}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=limit) as answer:
                assert json.load(answer)["choices"]
            who = place
            break
        except Exception as error:
            reasons.append(f"{place}: {error!r}")
    took = time.time() - began
    print(f"{began:.3f}", f"{took:.3f}", who, *(reasons if who == "silent" else ()), flush=True)
    time.sleep(0.3)
"""

#: A token is a byte here, and two prompts that begin with the same word have a dozen of them in
#: common: in a prompt of less than 256 that is one that the server had kept.
PROFILE = {
    # The more of them, the less it matters what else a busy machine does.
    "prompt_tokens": 512,
    # Of more a busy machine reads all at one moment, as of a server that does not stream.
    "output_tokens": 8,
    "concurrency": 1,
    "requests": 1,
    "repeats": 6,
    "warmups": 0,
    "timeout": 60,
}

#: Asks for many tokens, again and again, so that the legacy worker is at work whenever it is asked.
LONG = """\
import json, urllib.request
body = {"model": "team-model", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1900}
while True:
    urllib.request.urlopen(urllib.request.Request(
        "http://legacy:8000/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )).read()
"""


def limit_cpu(share: float) -> dict[str, Any]:
    """Keys of a service that may take a share of one CPU: in slices that are short for a token."""
    return {"cpu_period": 10_000, "cpu_quota": int(10_000 * share)}


class Moving(Shop):
    """The legacy worker, its client, and how they are moved.

    ``policy`` is the section ``worker.engine``; change it and :meth:`move`.
    """

    project = "mv"
    home = "/opt/mv"

    def __init__(self, directory: Path, host: LabHost) -> None:
        super().__init__(directory, host)
        self.compose = {
            "services": {
                "legacy": {
                    "image": "lab/legacy:1",
                    "command": ["--model", "/models/slow.gguf", "--alias", "team-model"],
                    "restart": "always",
                    "volumes": ["weights:/models"],
                },
                "client": {
                    "image": "lab/python:3.11",
                    # The first process of a container ignores what it has no handler for yet.
                    "init": True,
                    "command": ["python3", "-u", "/client.py"],
                    "environment": {
                        "OPENAI_BASE_URL": "http://legacy:8000/v1",
                        "OPENAI_MODEL": "team-model",
                    },
                    "restart": "unless-stopped",
                    "stop_grace_period": "60s",
                    "volumes": ["./client.py:/client.py:ro", "tasks:/data"],
                    "depends_on": {"legacy": {"condition": "service_started"}},
                },
            },
            "volumes": {"weights": {}, "tasks": {}},
        }
        self.put("client.py", CLIENT)
        # Its client is at work all the time.
        self.policy: dict[str, Any] = {
            "image": "lab/model:1",
            "profile": PROFILE,
            "allow": ["busy"],
        }

    def slow_down(self) -> None:
        """Have the legacy worker read prompts token by token.

        That makes it slow on a busy machine too, where nobody has more than a part of a CPU.
        """
        self.services["legacy"]["command"] += ["--ubatch-size", "1"]

    def start_up(self) -> None:
        """Deploy it, with a model that no other server has."""
        self.host.load_images("lab/legacy:1")
        self.deploy()
        self.host.sh("printf . >>/var/lib/docker/volumes/mv_weights/_data/slow.gguf")
        self.wait_for_tasks()

    def move(self, *args: str) -> Run:
        """Run the stack with the section that moves its worker."""
        self.settings["worker"] = {"engine": self.policy}
        # It measures twice, which a busy machine takes its time for.
        return self.run(*args, timeout=300)

    def start_moving(self) -> Controller:
        """The move alone, under way."""
        self.settings["worker"] = {"engine": self.policy}
        self.write()
        deploy = "tests/lab/move_worker.py"
        return controller.start(self.inventory(), deploy, "-y", env=self._environment())

    def log(self) -> list[list[str]]:
        """What the client noted of its tasks."""
        text = self.host.sh("cat /var/lib/docker/volumes/mv_tasks/_data/log")
        return [line.split() for line in text.splitlines()]

    def assert_no_task_lost(self, since: int = 0) -> list[tuple[str, float]]:
        """Each task that began has ended before the next, and none failed.

        Gives the address that each was sent to and its seconds; the last may be under way.

        + since: lines of the log that do not count
        """
        rows = self.log()[since:]
        # A task that was under way before does not count.
        if rows[0][0] != "begin":
            rows = rows[1:]
        begun, ended = rows[::2], rows[1::2]
        lost = [row for row in (*begun, *ended) if row[0] not in ("begin", "end")]
        assert not lost, lost
        # One that is cut off has no end, and the next begins at once.
        at = next((at for at, row in enumerate(rows) if row[0] != ("begin", "end")[at % 2]), None)
        assert at is None, rows[max(0, at - 4) : at + 4]
        pairs = list(zip(begun, ended, strict=False))
        assert [one[1:3] for one, _ in pairs] == [other[1:3] for _, other in pairs]
        first = int(begun[0][1])
        assert [int(row[1]) for row in begun] == list(range(first, first + len(begun)))
        return [(row[2], float(row[3])) for row in ended]

    def wait_for_tasks(self, more: int = 2) -> None:
        """Wait until the client has done some more of them."""
        path = "/var/lib/docker/volumes/mv_tasks/_data/log"
        done = f"grep -c ^end {path} 2>/dev/null"
        count = int(self.host.sh(f"{done} || true") or 0) + more
        self.host.wait_for(f"[ $({done}) -ge {count} ]", 60 + 10 * more)

    def time_tasks(self, count: int = 5) -> list[float]:
        """Seconds of the client's next tasks by its own clock, in their order."""
        since = len(self.log())
        # The one under way does not count.
        self.wait_for_tasks(count + 1)
        return [seconds for _, seconds in self.assert_no_task_lost(since)][:count]

    @contextlib.contextmanager
    def polling(self) -> Iterator[Callable[[], list[str]]]:
        """Within the block somebody asks both; gives what reads the moments when none answered."""
        self.host.put("/tmp/poller.py", POLLER, "0644")
        self.host.docker(
            "run", "-d", "--name", "poller", "--network", "mv_default",
            "-v", "/tmp/poller.py:/poller.py:ro", "lab/python:3.11",
            "python3", "-u", "/poller.py", str(SILENCE),
        )  # fmt: skip
        began = float(self.host.sh("date +%s.%N"))

        def read() -> list[str]:
            lines = self.host.docker("logs", "poller").splitlines()
            rows = [line.split(maxsplit=3) for line in lines]
            # Somebody asked all the time, from the beginning to now.
            asked = [began, *(float(row[0]) for row in rows), float(self.host.sh("date +%s.%N"))]
            assert max(after - before for before, after in pairwise(asked)) < SILENCE
            return [
                line
                for line, row in zip(lines, rows, strict=True)
                if row[2] == "silent" or float(row[1]) > SILENCE
            ]

        try:
            yield read
        finally:
            self.host.docker("rm", "-f", "poller")

    @contextlib.contextmanager
    def long_request(self) -> Iterator[None]:
        """Within the block the legacy worker computes for somebody."""
        self.host.put("/tmp/long.py", LONG, "0644")
        self.host.docker(
            "run", "-d", "--name", "long", "--network", "mv_default",
            "-v", "/tmp/long.py:/long.py:ro", "lab/python:3.11", "python3", "/long.py",
        )  # fmt: skip
        try:
            yield
            assert self.host.docker("inspect", "-f", "{{.State.Running}}", "long") == "true"
        finally:
            self.host.docker("rm", "-f", "long")

    def assert_measured(self) -> None:
        """Both were measured, each result is collected with the old one, and a page shows them."""
        directory = self.reports / "benchmarks"
        paths = [*directory.glob("*move.ollama*.json")]
        assert paths, [*directory.glob("*")]
        for path in paths:
            result = json.loads(path.read_text())
            assert result["baseline"]["fingerprint"]["engine"] == "llama.cpp"
            assert result["measurement"]["fingerprint"]["engine"] == "ollama"
        page = (directory / "benchmark.html").read_text()
        assert "llama.cpp" in page
        assert "<svg" in page

    def read_record(self) -> dict[str, Any]:
        """Where the move stands, as the host has it."""
        found: dict[str, Any] = json.loads(self.host.sh(f"cat {RECORD}"))
        return found

    @contextlib.contextmanager
    def docker_wrapped(self, case: str) -> Iterator[None]:
        """Within the block ``docker`` does something before what it was called for.

        + case: a branch of ``case "$1 $2" in``, as ``cp*) exit 1 ;;``
        """
        real = self.host.sh("PATH=/usr/bin:/bin command -v docker")
        lines = ["#!/bin/sh", f'case "$1 $2" in {case} esac', f'exec {real} "$@"']
        self.host.put("/usr/local/bin/docker", "\n".join(lines) + "\n", "0755")
        try:
            yield
        finally:
            self.host.sh("rm -f /usr/local/bin/docker")

    def picture(self) -> tuple[object, ...]:
        """All that a move that is taken back leaves as it was."""
        containers = self.host.docker("ps", "-aq", "--no-trunc")
        volumes = self.host.docker("volume", "ls", "-q")
        return self.files(), self.client_env(), containers, volumes

    def assert_nothing_changes(self) -> None:
        """One more run finds nothing to do, and the engine sees nothing."""
        with self.watching() as changes:
            again = self.move("-y")
        assert again.rc == 0, again.out
        assert "No changes" in again.out, again.out
        assert changes.quiet, changes.events

    def files(self) -> str:
        """Digest, mode and owner of each of the project's files on the host."""
        return self.host.sh(
            "cd /opt/mv && find . -type f -exec sha256sum {} + -exec stat -c '%a %u %n' {} + | sort"
        )

    def client_env(self) -> list[str]:
        """The client's environment, as the engine has it."""
        env: list[str] = sorted(self.container("client")["Config"]["Env"])
        return env
