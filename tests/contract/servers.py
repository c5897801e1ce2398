"""A server that answers like Ollama, as the contract's tests see it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

MODEL = "contract"
USER = [{"role": "user", "content": "hello"}]
# One thread: on a busy machine several wait for one another far longer than they compute.
GREEDY = {"temperature": 0, "seed": 1, "num_predict": 4, "num_thread": 1}
SAID = "+.Dr"
"""What the tiny model says to `hello`: the same weights, whoever does the arithmetic."""


@dataclass(frozen=True)
class Server:
    """A server under test.

    + client: of its API
    + ollama: runs its `ollama` command; the first argument is what OLLAMA_HOST is set to, if any
    + shell: runs a command of `sh` in its models' directory; returns what it prints
    + logged: returns what it has printed since it started
    + restart: ends it with SIGTERM, and starts it again; returns when it answers
    + registry: the lab's registry of models as this server reaches it, by plain HTTP
    + secure: the same by HTTPS, with a certificate that it does not trust
    """

    client: httpx.Client
    ollama: Callable[..., subprocess.CompletedProcess[str]]
    shell: Callable[[str], bytes]
    logged: Callable[[], str]
    restart: Callable[[], None]
    registry: str
    secure: str

    def read(self, path: str) -> bytes:
        """A file of its models' directory."""
        return self.shell(f"cat '{path}'")

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def answer(self, path: str, **body: Any) -> dict[str, Any]:
        """The one JSON object of an answer that is not streamed."""
        response = self.post(path, **body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        found: dict[str, Any] = response.json()
        return found

    def lines(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The lines of an answer that is streamed."""
        response = self.post(path, **body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in response.text.splitlines()]

    def listed(self, path: str) -> dict[str, dict[str, Any]]:
        """The models of `/api/tags` or `/api/ps` by name."""
        return {model["name"]: model for model in self.client.get(path).json()["models"]}

    def wait_until_unloaded(self, seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while self.listed("/api/ps"):
            assert time.monotonic() < deadline, self.listed("/api/ps")
            time.sleep(0.05)


@contextlib.contextmanager
def running(url: str) -> Iterator[httpx.Client]:
    """A client of a server, once it answers."""
    wait(url)
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def wait(url: str, path: str = "/api/version") -> None:
    """Return once a server answers by status 200: one that loads its model says 503 to anything."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        deadline = time.monotonic() + 30
        last = "nothing"
        while last != "200":
            assert time.monotonic() < deadline, f"{url}{path} answers {last}"
            try:
                last = str(client.get(path).status_code)
            except httpx.TransportError as error:
                last = str(error)
            if last != "200":
                time.sleep(0.05)


def manifest_of(name: str) -> str:
    return f"manifests/registry.ollama.ai/library/{name}/latest"


def moment(text: str) -> datetime:
    """A time as Go writes it: up to nine digits of a second's fraction."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert found.tzinfo is not None
    return found
