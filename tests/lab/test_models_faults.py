"""A pull that is cut, stalled, refused, lied to or killed, and blobs that went bad on the disk.

All faults that do not disturb each other are in one run, each on a model of its own.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.fixtures import Lab
from tests.lab.model_registry import ModelRegistry, Pushed
from tests.lab.model_server import ModelServer
from tests.lab.models_runs import Runs, fetched, push

SIZE = 1_500_000
#: A model that takes a while, and how many bytes a second it then comes at.
LONG, RATE = 6_000_000, 500_000
#: How much of a model may be fetched over all, for whatever went wrong.
BUDGET = 1.2


@pytest.fixture(scope="module")
def server(lab: Lab) -> ModelServer:
    server = ModelServer(lab.take(1)[0])
    server.up()
    return server


@pytest.fixture
def runs(tmp_path: Path, server: ModelServer, model_registry: ModelRegistry) -> Runs:
    model_registry.clear()
    return Runs(tmp_path, [server.host])


def arrived(server: ModelServer, least: int) -> str:
    """A condition on the host: so many bytes of the weights have been fetched."""
    return (
        f"[ $(du -cB1 {server.root}/blobs/*partial 2>/dev/null | tail -n1 | cut -f1) -ge {least} ]"
    )


def test_faults_of_the_registry_are_got_over_in_one_run(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    seed = random.randrange(10**6)
    print(f"random seed {seed}")
    chance = random.Random(seed)
    models: dict[str, Pushed] = {}

    def model(kind: str, /, **fault: Any) -> None:
        short = f"team/{kind}:1b"
        models[kind] = push(model_registry, short, SIZE, seed=len(models) + 1)
        model_registry.fault(short, **fault)

    for number in range(10):
        model(f"cut-{number}", kind="cut", at=chance.randrange(1, SIZE - 200_000))
    model("stalled", kind="stall", at=chance.randrange(1, SIZE - 200_000))
    model("crowded-manifest", kind="status", status=429, on="manifest", times=2)
    model("crowded-blob", kind="status", status=429, on="blob", times=2)
    model("crowded-storage", kind="status", status=429)
    model("broken-manifest", kind="status", status=500, on="manifest")
    model("lied-weights", kind="mismatch")
    # A lie about a small layer.
    models["lied-config"] = push(model_registry, "team/lied-config:1b", SIZE, seed=99)
    model_registry.fault(models["lied-config"].layers[-1].digest, kind="mismatch")
    names = [model.name for model in models.values()]
    model_registry.clear_log()

    # Long for a busy machine, and short beside what the server itself takes for a stall.
    result = runs.converge(names, parallel=8, stall=8)
    assert sorted(result.did("pull")) == sorted(names)
    assert server.is_complete(*names)
    # The run has asked each of them a word; not all must be loaded here once more.
    assert server.answers(*(models[kind].name for kind in ("cut-0", "lied-weights", "lied-config")))
    assert server.partials() == []
    ratios = {
        kind: fetched(model_registry, pushed) / pushed.size for kind, pushed in models.items()
    }
    print(" ".join(f"{kind}={ratio:.2f}" for kind, ratio in ratios.items()))
    # Weights that came whole and wrong can only be fetched again as a whole.
    assert ratios.pop("lied-weights") <= 2 * BUDGET
    assert max(ratios.values()) <= BUDGET, ratios
    # Every fault was met: what it was for has been asked again.
    log = model_registry.log()
    for kind, pushed in models.items():
        on = "manifest" if "manifest" in kind else "blob" if "blob" in kind else "storage"
        blob = pushed.layers[-1] if kind == "lied-config" else pushed.weights
        wanted = f"/team/{kind}/manifests/" if on == "manifest" else blob.digest
        assert sum(row.on == on and wanted in row.path for row in log) > 1, kind
    assert runs.converge(names).outcomes == {"converged"}


def test_a_newer_server_that_is_needed_is_told_at_once(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    new = push(model_registry, "team/too-new:1b", SIZE, seed=30)
    fine = push(model_registry, "team/not-too-new:1b", SIZE, seed=31)
    model_registry.fault("team/too-new:1b", "status", status=412, on="manifest", times=None)
    moment = server.host.now()
    result = runs.pull([new.name, fine.name])
    assert result.run.rc == 1
    assert "newer Ollama" in result.reason(new.name)
    # What could be done was done, and nothing else was tried.
    assert len(server.asked(moment, "/api/pull")) == 1
    assert result.steps == [("pull", fine.name)]
    assert server.answers(fine.name)


def test_a_server_restarted_in_the_middle(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    model = push(model_registry, "team/restarted:1b", LONG, seed=40)
    model_registry.rate(RATE)
    model_registry.clear_log()
    with runs.start([model.name]) as run:
        server.host.wait_for(arrived(server, LONG // 4), 120)
        server.host.docker("restart", server.container)
        model_registry.rate(None)
        done = run.wait()
    assert "Traceback" not in done.out
    if done.rc != 0:
        server.host.wait_for(f"docker exec {server.container} ollama list")
        runs.converge([model.name])
    print("one run" if done.rc == 0 else "two runs", fetched(model_registry, model) / model.size)
    assert server.is_complete(model.name)
    assert server.answers(model.name)
    assert fetched(model_registry, model) <= BUDGET * model.size


def test_a_controller_killed_in_the_middle(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """Twice, and the next run completes it; nobody is left who holds a lock."""
    model = push(model_registry, "team/orphan:1b", LONG, seed=41)
    model_registry.rate(RATE)
    model_registry.clear_log()
    for share in (6, 3):
        with runs.start([model.name]) as run:
            server.host.wait_for(arrived(server, LONG // share), 120)
            run.kill()
    model_registry.rate(None)
    runs.converge([model.name])
    print("fetched", fetched(model_registry, model) / model.size)
    assert server.is_complete(model.name)
    assert server.answers(model.name)
    assert fetched(model_registry, model) <= BUDGET * model.size
    assert server.host.sh("pgrep -fa stackmend", check=False) == ""


def test_a_signal_in_the_middle(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """The run ends at once, and the server lets go of a pull that nobody waits for."""
    model = push(model_registry, "team/interrupted:1b", LONG, seed=42)
    model_registry.rate(RATE)
    with runs.start([model.name]) as run:
        server.host.wait_for(arrived(server, LONG // 8), 120)
        run.interrupt(signal.SIGINT)
        began = time.monotonic()
        done = run.wait(60)
        print(f"{time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 5
    assert done.rc == 130, done.out
    assert server.host.sh("flock -n /var/lib/stackmend/run.lock echo free") == "free"
    assert done.report["interrupted"] == "SIGINT"
    (host,) = done.report["hosts"].values()
    assert host["interrupted_at"] == f"models.pulled: pull {model.name}"
    model_registry.rate(None)
    assert runs.converge([model.name]).outcomes == {"changed"}


def test_blobs_that_went_bad_are_found_and_mended(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    """Behind the server's back; only what is bad is fetched, and the neighbour is left alone."""
    kinds = ("whole", "truncated", "deleted", "flipped")
    pushed = {
        kind: push(model_registry, f"team/{kind}:1b", SIZE, seed=50 + n)
        for n, kind in enumerate(kinds)
    }
    names = [model.name for model in pushed.values()]
    server.pull(*pushed.values())
    weights = {kind: server.weights(model.name) for kind, model in pushed.items()}
    modified = server.modified()
    server.host.sh(f"truncate -s -1000 {server.blob(weights['truncated'].digest)}")
    server.host.sh(f"rm {server.blob(weights['deleted'].digest)}")
    server.flip(weights["flipped"].digest, SIZE // 2)
    model_registry.clear_log()

    result = runs.converge(names)
    assert result.about("findings", weights["truncated"].digest[:12])
    assert result.about("findings", weights["deleted"].digest[:12])
    bad = [pushed[kind] for kind in ("truncated", "deleted")]
    assert server.is_complete(*(model.name for model in bad))
    assert server.answers(*(model.name for model in bad))
    assert result.fetched == fetched(model_registry, *bad) == 2 * SIZE
    # A byte that changed shows in no size: only reading all of it tells.
    assert model_registry.sent() == result.fetched

    result = runs.converge(names, hashes=True)
    assert result.about("findings", weights["flipped"].digest[:12])
    assert server.is_complete(*names)
    assert server.answers(*names)
    assert result.fetched == fetched(model_registry, pushed["flipped"]) == SIZE
    assert model_registry.sent() == 3 * SIZE
    assert server.modified()[pushed["whole"].name] == modified[pushed["whole"].name]
    assert runs.converge(names, hashes=True).outcomes == {"converged"}


def test_a_blob_that_two_models_share_is_mended_for_both(
    runs: Runs, server: ModelServer, model_registry: ModelRegistry
) -> None:
    twins = [push(model_registry, f"team/twin-{n}:1b", SIZE, seed=60) for n in range(2)]
    names = [model.name for model in twins]
    server.pull(*twins)
    (shared,) = {server.weights(name).digest for name in names}
    server.host.sh(f"rm {server.blob(shared)}")
    lacking = server.lacks(*twins)
    model_registry.clear_log()
    result = runs.converge(names)
    assert server.is_complete(*names)
    assert server.answers(*names)
    assert result.fetched == model_registry.sent() == lacking == SIZE
