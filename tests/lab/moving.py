"""A stack with a legacy worker: real llama.cpp on one thread, and a client with tasks for it.

>>> stack = Moving(tmp_path, lab.take(1)[0])
>>> stack.host.load_images("lab/legacy:1")
>>> stack.deploy()
>>> with stack.polling() as silent:
...     done = stack.move("-y")
>>> assert silent() == []
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.lab.controller import Controller, Run
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

#: Speaks OpenAI's API, one task after another; what it has under way it ends before it ends itself.
CLIENT = """\
import json, os, signal, time, urllib.request

url, model = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_MODEL"]
ending = False


def end(*_):
    global ending
    ending = True


signal.signal(signal.SIGTERM, end)
log = open("/data/log", "a+")
log.seek(0)
number = 1 + sum(line.split()[1] == "done" for line in log)
while not ending:
    question = [{"role": "user", "content": f"task {number}"}]
    body = {"model": model, "messages": question, "max_tokens": 4}
    request = urllib.request.Request(
        url + "/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            words = json.load(answer)["usage"]["completion_tokens"]
        line = f"{number} done {words} {url}"
        number += 1
    except Exception as error:
        line = f"{number} failed {error!r} {url}"
    log.write(line + "\\n")
    log.flush()
    os.fsync(log.fileno())
    time.sleep(0.3)
"""

#: Asks whichever of the two runs, and notes when none answers.
POLLER = """\
: >/tmp/silent; : >/tmp/polls
place='{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
while :; do
  answered=''
  for pair in legacy:8000 ollama:11434; do
    at=$(docker inspect -f "$place" "mv-${pair%:*}-1" 2>/dev/null) || continue
    url=http://$at:${pair#*:}/v1/models
    [ -n "$at" ] && curl -fs -m 8 -o /dev/null "$url" && answered=yes && break
  done
  echo x >>/tmp/polls
  [ -n "$answered" ] || date +%T.%N >>/tmp/silent
  sleep 0.2
done
"""

PROFILE = {
    "prompt_tokens": 256,
    "output_tokens": 16,
    "concurrency": 1,
    "requests": 1,
    "repeats": 7,
    "warmups": 0,
    "timeout": 60,
}


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
        self.policy: dict[str, Any] = {
            "image": "lab/model:1",
            "profile": PROFILE,
        }

    def move(self, *args: str) -> Run:
        """Run the stack with the section that moves its worker."""
        self.settings["worker"] = {"engine": self.policy}
        return self.run(*args)

    def start_moving(self) -> Controller:
        """The same, under way."""
        self.settings["worker"] = {"engine": self.policy}
        return self.start("-y")

    def log(self) -> list[list[str]]:
        """What the client noted of its tasks."""
        text = self.host.sh("cat /var/lib/docker/volumes/mv_tasks/_data/log")
        return [line.split() for line in text.splitlines()]

    def assert_no_task_lost(self, since: int = 0) -> int:
        """Each task was done once, in its order, and none failed; how many there were.

        + since: lines of the log that do not count
        """
        rows = self.log()[since:]
        assert [row for row in rows if row[1] != "done"] == []
        first = int(rows[0][0])
        assert [int(row[0]) for row in rows] == list(range(first, first + len(rows)))
        return len(rows)

    def wait_for_tasks(self, more: int = 2) -> None:
        """Wait until the client has done some more of them."""
        count = len(self.log()) + more
        path = "/var/lib/docker/volumes/mv_tasks/_data/log"
        self.host.wait_for(f"[ $(wc -l <{path}) -ge {count} ]", 60)

    @contextlib.contextmanager
    def polling(self) -> Iterator[Callable[[], list[str]]]:
        """Within the block somebody asks both; gives what reads the moments when none answered."""
        self.host.put("/tmp/poller", POLLER, "0755")
        self.host.sh("setsid sh /tmp/poller >/dev/null 2>&1 </dev/null & echo $! >/tmp/poller.pid")
        silent: list[str] = []

        def read() -> list[str]:
            silent[:] = self.host.sh("cat /tmp/silent").splitlines()
            assert int(self.host.sh("wc -l </tmp/polls")) > 3
            return silent

        try:
            yield read
        finally:
            self.host.sh("kill $(cat /tmp/poller.pid); rm -f /tmp/poller /tmp/poller.pid")

    def files(self) -> str:
        """Digest, mode and owner of each of the project's files on the host."""
        return self.host.sh(
            "cd /opt/mv && find . -type f -exec sha256sum {} + -exec stat -c '%a %u %n' {} + | sort"
        )

    def client_env(self) -> list[str]:
        """The client's environment, as the engine has it."""
        env: list[str] = sorted(self.container("client")["Config"]["Env"])
        return env
