"""The servers that the contract's tests ask.

`lab` is the lab's model server (`tests/lab/images/model`), which stands in for Ollama where no
image of it can be had. `ollama` is Ollama itself: the binary that STACKMEND_TEST_OLLAMA names, or
the one on PATH. Both are given the same tiny model through the same API.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.contract.servers import MODEL, Server, manifest_of, running, wait
from tests.lab import images
from tests.lab.engine import docker
from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry
from tests.lab.paths import HOME_LABEL, LABEL, PREFIX, PROJECT

LAB_MODELS = "/root/.ollama/models"


def free_address() -> str:
    """A `host:port` of loopback that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="module")
def remote(model_registry: ModelRegistry) -> ModelRegistry:
    """The lab's registry of models, as what a server pulls from."""
    return model_registry


@pytest.fixture(scope="module")
def lab_server(lab: Lab, remote: ModelRegistry) -> Iterator[Server]:
    """The lab's server, in a container of the outer engine."""
    image = images.build(["lab/model:1"])["lab/model:1"]
    name = f"{PREFIX}-contract-{os.getpid()}"
    labels = ("--label", LABEL, "--label", f"{HOME_LABEL}={PROJECT}")
    # A port of its own choice would be another one after a restart.
    address = free_address()
    where = ("--network", PREFIX, "-p", f"{address}:11434")
    docker("run", "-d", "--name", name, *labels, *where, image)

    def ollama(*args: str, host: str = "127.0.0.1:11434") -> subprocess.CompletedProcess[str]:
        command = ["docker", "exec", "-e", f"OLLAMA_HOST={host}", name, "ollama", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    def shell(script: str) -> bytes:
        command = ["docker", "exec", "-w", LAB_MODELS, name, "sh", "-ec", script]
        return subprocess.run(command, capture_output=True, timeout=30, check=True).stdout

    def logged() -> str:
        return docker("logs", name)

    def restart() -> None:
        docker("restart", name)
        wait(f"http://{address}")

    try:
        with running(f"http://{address}") as client:
            yield Server(client, ollama, shell, logged, restart, remote.http, remote.https)
    finally:
        docker("rm", "-f", name)


@pytest.fixture(scope="module")
def real_server(
    remote: ModelRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Ollama itself, on loopback, with an empty directory of models."""
    binary = os.environ.get("STACKMEND_TEST_OLLAMA") or shutil.which("ollama")
    if not binary:
        pytest.skip("no ollama on PATH, and STACKMEND_TEST_OLLAMA names none")
    directory = tmp_path_factory.mktemp("ollama")
    address = free_address()
    keep = ("PATH", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"HOME": str(directory), "OLLAMA_MODELS": str(directory / "models")}

    def ollama(*args: str, host: str = address) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *args],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**environment, "OLLAMA_HOST": host},
        )

    def shell(script: str) -> bytes:
        command = ["sh", "-ec", script]
        there = directory / "models"
        return subprocess.run(
            command, cwd=there, capture_output=True, timeout=30, check=True
        ).stdout

    def logged() -> str:
        return (directory / "log").read_text(errors="replace")

    def start() -> subprocess.Popen[bytes]:
        with (directory / "log").open("ab") as log:
            return subprocess.Popen(
                [binary, "serve"],
                stdout=log,
                stderr=log,
                env={**environment, "OLLAMA_HOST": address, "OLLAMA_NO_CLOUD": "1"},
            )

    processes = [start()]

    def stop() -> None:
        processes[-1].terminate()
        processes[-1].wait(20)

    def restart() -> None:
        stop()
        processes.append(start())
        wait(f"http://{address}")

    try:
        with running(f"http://{address}") as client:
            secure = remote.outer_https
            yield Server(client, ollama, shell, logged, restart, remote.outer, secure)
    finally:
        stop()


@pytest.fixture(scope="module")
def weights(lab_server: Server) -> bytes:
    """The tiny model that the lab's image carries."""
    manifest = json.loads(lab_server.read(manifest_of("tiny")))
    (digest,) = (
        layer["digest"] for layer in manifest["layers"] if layer["mediaType"].endswith(".model")
    )
    return lab_server.read(f"blobs/{digest.replace(':', '-')}")


@pytest.fixture(scope="module", params=["lab_server", "real_server"], ids=["lab", "ollama"])
def server(request: pytest.FixtureRequest, weights: bytes) -> Server:
    """A server that has the tiny model under the name `MODEL`."""
    found: Server = request.getfixturevalue(request.param)
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    assert found.client.post(f"/api/blobs/{digest}", content=weights).status_code in (200, 201)
    steps = found.lines(
        "/api/create",
        model=MODEL,
        files={"tiny.gguf": digest},
        template="{{ .Prompt }}",
    )
    assert steps[-1] == {"status": "success"}
    return found
