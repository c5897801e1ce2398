"""What the benchmark finds is what real engines count themselves: llama.cpp, and Ollama."""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest
from pyinfra.api.host import Host

from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.learning import Prepared, prepare
from stackmend.worker.benchmark.loading import release
from stackmend.worker.benchmark.spec import Profile
from stackmend.worker.benchmark.state import Load, Sample
from tests.calm import exactly, urgency
from tests.connected import local
from tests.contract.conftest import free_address
from tests.contract.servers import Server, manifest_of, wait
from tests.lab import images
from tests.lab.engine import docker
from tests.lab.fixtures import Lab
from tests.lab.paths import HOME_LABEL, LABEL, PREFIX, PROJECT
from tests.paced.measured import run_once

MODEL = "measured"
TOKENS = 200
PROFILE = Profile(prompt_tokens=400, output_tokens=TOKENS, timeout=60)

#: Tokens that two prompts may begin with in common, where each letter of a word is one.
COMMON = 12

#: The share by which figures may differ.
SHARE = 0.03


@pytest.fixture(scope="module", autouse=True)
def _before_others() -> Iterator[None]:
    with urgency():
        yield


@pytest.fixture(scope="module")
def here() -> Iterator[Host]:
    with local() as host:
        yield host


@dataclass(frozen=True)
class Measured:
    """A real server, and what is known of it.

    + url: of its API
    """

    url: str
    endpoint: Endpoint
    prepared: Prepared


def know(host: Host, protocol: str, url: str, model: str) -> Measured:
    parts = httpx.URL(url)
    port = parts.port
    assert port is not None
    assert protocol in ("ollama", "openai")
    kind = "ollama" if protocol == "ollama" else "openai"
    endpoint = Endpoint(kind, parts.host, port, model)  # type: ignore[arg-type]
    return Measured(url, endpoint, prepare(host, endpoint, PROFILE))


@pytest.fixture(scope="module")
def llama_cpp(lab: Lab, here: Host) -> Iterator[Measured]:
    """llama.cpp's own server, as a legacy worker has it."""
    image = images.build(["lab/legacy:1"])["lab/legacy:1"]
    name = f"{PREFIX}-legacy-{os.getpid()}"
    labels = ("--label", LABEL, "--label", f"{HOME_LABEL}={PROJECT}")
    address = free_address()
    where = ("--network", PREFIX, "-p", f"{address}:8000")
    docker("run", "-d", "--name", name, *labels, *where, image)
    try:
        wait(f"http://{address}", "/health")
        yield know(here, "openai", f"http://{address}", "any")
    finally:
        docker("rm", "-f", name)


@pytest.fixture(scope="module", params=["lab_server", "real_server"], ids=["lab", "ollama"])
def ollama(request: pytest.FixtureRequest, lab_server: Server, here: Host) -> Measured:
    """A server that answers like Ollama, with a model that takes a millisecond a token."""
    found: Server = request.getfixturevalue(request.param)
    manifest = json.loads(lab_server.read(manifest_of("slow")))
    (digest,) = (
        layer["digest"] for layer in manifest["layers"] if layer["mediaType"].endswith(".model")
    )
    weights = lab_server.read(f"blobs/{digest.replace(':', '-')}")
    assert f"sha256:{hashlib.sha256(weights).hexdigest()}" == digest
    assert found.client.post(f"/api/blobs/{digest}", content=weights).status_code in (200, 201)
    steps = found.lines(
        "/api/create", model=MODEL, files={"slow.gguf": digest}, template="{{ .Prompt }}"
    )
    assert steps[-1] == {"status": "success"}
    return know(here, "ollama", str(found.client.base_url), MODEL)


def measure(host: Host, server: Measured) -> Sequence[Sample]:
    """Samples of answers one after another."""
    load = Load(concurrency=1)
    _, samples = run_once(host, server.endpoint, server.prepared, load, 5, TOKENS)
    return samples


def agree(samples: Sequence[Sample], rtt: float) -> None:
    """The client's times are those that the server counts for itself."""
    for sample in samples:
        assert sample.output_tokens == TOKENS
        assert sample.prompt_tokens == pytest.approx(PROFILE.prompt_tokens, rel=SHARE)
    writing = [(s.last or 0) - (s.ttft or 0) for s in samples]
    decode = [s.decode or 0 for s in samples]
    line = f"{writing} {decode} {[(s.ttft, s.prefill) for s in samples]} rtt {rtt}"
    print(line)
    found, counted = statistics.median(writing), statistics.median(decode)
    assert abs(found - counted) < SHARE * counted, line
    reading = statistics.median((s.ttft or 0) - rtt for s in samples)
    prefill = statistics.median(s.prefill or 0 for s in samples)
    # Between the two lie the server's own handling, and the first token.
    assert (1 - SHARE) * prefill < reading < (1 + SHARE) * prefill + 0.02, line


def read_counters(server: Measured) -> dict[str, float]:
    """What llama.cpp counted since it began."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    rows = re.findall(r"^llamacpp:(\w+) ([0-9.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in rows}


@exactly
def test_it_agrees_with_the_counters_of_llama_cpp(here: Host, llama_cpp: Measured) -> None:
    before = read_counters(llama_cpp)
    samples = measure(here, llama_cpp)
    after = read_counters(llama_cpp)

    def counted(name: str) -> float:
        return after[name] - before[name]

    read = sum(sample.prompt_tokens or 0 for sample in samples)
    assert read == pytest.approx(counted("prompt_tokens_total"), rel=SHARE)
    written = sum(sample.output_tokens or 0 for sample in samples)
    assert written == pytest.approx(counted("tokens_predicted_total"), rel=SHARE)
    seconds = sum(sample.decode or 0 for sample in samples)
    assert seconds == pytest.approx(counted("tokens_predicted_seconds_total"), rel=SHARE, abs=0.01)
    assert all((sample.cached_tokens or 0) <= COMMON for sample in samples)
    agree(samples, llama_cpp.prepared.rtt)


@exactly
def test_it_agrees_with_the_counters_of_ollama(here: Host, ollama: Measured) -> None:
    samples = measure(here, ollama)
    assert all((sample.load or 0) < 0.1 for sample in samples)
    agree(samples, ollama.prepared.rtt)


def test_a_prompt_that_llama_cpp_has_kept_is_recognised(here: Host, llama_cpp: Measured) -> None:
    # Learned when it was asked the same twice: a real engine reads a kept prompt far faster.
    reference = llama_cpp.prepared.reference
    assert reference.warm > 4 * reference.cold
    assert reference.kept <= COMMON


def test_the_model_is_given_back(here: Host, ollama: Measured) -> None:
    release(here, ollama.endpoint, ollama.prepared.protocol)
    (loaded,) = (
        model
        for model in httpx.get(f"{ollama.url}/api/ps", trust_env=False).json()["models"]
        if model["name"] == f"{MODEL}:latest"
    )
    assert not loaded["expires_at"].startswith("2318")
