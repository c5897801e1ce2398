"""``worker.accelerated`` on a real host: a GPU of stand-ins, a model server, and what breaks."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pyinfra.api.host import Host

from stackmend import connection
from stackmend.decision import Finding
from stackmend.engine.accelerators.facts import HostAccelerators
from stackmend.worker.acceleration import AccelerationSpec, read_chain
from stackmend.worker.acceleration.facts import Acceleration
from stackmend.worker.acceleration.plan import plan
from stackmend.worker.acceleration.shapes import complete_shape
from stackmend.worker.acceleration.state import AcceleratorChain, Memory
from stackmend.worker.context import Shape
from tests import connected
from tests.lab import gpus
from tests.lab.fixtures import Lab
from tests.lab.gpus import Bus
from tests.lab.model_server import ModelServer
from tests.lab.stacks import HEALTH, Shop

GPU = {"runtime": "nvidia", "environment": {"NVIDIA_VISIBLE_DEVICES": "all"}}


@pytest.fixture(scope="module")
def shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A stack of a model server and a worker that asks it."""
    shop = Shop(tmp_path_factory.mktemp("acceleration"), lab.take(1)[0])
    shop.compose = {
        "services": {
            "ollama": {
                "image": "lab/model:1",
                "volumes": ["models:/root/.ollama"],
                "healthcheck": {"test": ["CMD", "ollama", "list"], **HEALTH, "interval": "30s"},
                **GPU,
                "environment": {
                    **GPU["environment"],  # type: ignore[dict-item]
                    "OLLAMA_MAX_LOADED_MODELS": "1",
                },
            },
            "worker": {"image": "lab/box:1", "environment": {"NUM_CTX": "1024"}},
        },
        "volumes": {"models": {}},
    }
    shop.settings["worker"] = {"accelerated": {"processor": "gpu"}}
    return shop


@pytest.fixture(scope="module")
def bus(shop: Shop) -> Iterator[Bus]:
    with gpus.bus(shop.host) as made:
        made.nvidia()
        made.toolkit()
        yield made


@pytest.fixture(scope="module")
def server(shop: Shop, bus: Bus) -> ModelServer:
    """The server of the stack, once ``deploy/site.py`` has brought it."""
    shop.deploy()
    return ModelServer(shop.host, project=shop.project)


@pytest.fixture
def to(server: ModelServer) -> Iterator[Host]:
    with connected.lab(server.host) as host:
        yield host


def find(to: Host, **options: Any) -> tuple[Finding, ...]:
    spec = AccelerationSpec(project="shop", **{"samples": 1, "processor": "gpu", **options})
    facts = [(HostAccelerators, {}), (Acceleration, spec.fact_arguments)]
    accelerators, state = connection.fetch_facts(to, facts)
    assert not isinstance(state, connection.Unknown), state
    return plan(spec, accelerators, state).findings


def kinds(to: Host, **options: Any) -> list[str]:
    return [finding.kind for finding in find(to, **options)]


def read(to: Host) -> AcceleratorChain:
    connection.invalidate(to)
    chain = read_chain(to, AccelerationSpec(project="shop", samples=1))
    assert isinstance(chain, AcceleratorChain), chain
    return chain


def ask(server: ModelServer, name: str = "tiny", **options: Any) -> None:
    """Have the worker ask for a model."""
    body = {"model": name, "prompt": "hello", "stream": False, **options}
    body["options"] = {"num_predict": 2, **options.get("options", {})}
    server.host.sh(
        f"docker exec {server.project}-worker-1 wget -q -O /dev/null --post-data "
        f"{shlex.quote(json.dumps(body))} http://ollama:11434/api/generate"
    )


@contextlib.contextmanager
def inside(server: ModelServer, command: str, undo: str) -> Iterator[None]:
    """Do something in the container's file system, from the host."""
    pid = server.host.docker("inspect", "-f", "{{.State.Pid}}", server.container)
    server.host.sh(f"cd /proc/{pid}/root && {command}")
    try:
        yield
    finally:
        server.host.sh(f"cd /proc/{pid}/root && {undo}")


def test_a_healthy_chain_has_no_finding_and_nothing_is_changed(
    shop: Shop, server: ModelServer, to: Host
) -> None:
    chain = read(to)
    assert (str(chain), chain.processor) == (
        "host ok, driver ok, toolkit ok, reservation ok, container ok, server ok, model unknown, "
        "reload ok",
        "",
    )
    ask(server)
    chain = read(to)
    assert {link.status for link in chain.links} == {"ok"}
    assert chain.processor == "gpu"
    server.host.sh("systemctl daemon-reload")
    files, mark = server.host.snapshot_files("/etc", "/var/lib/stackmend"), server.host.mark()
    with shop.watching() as observed:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "processor: gpu; host ok, driver ok, toolkit ok" in again.out
    assert observed.touched == set()
    assert len(server.host.sessions_since(mark)) == 1
    assert server.host.snapshot_files("/etc", "/var/lib/stackmend") == files


def test_twenty_healthy_runs_have_no_finding(server: ModelServer, to: Host) -> None:
    for number in range(20):
        if number % 5 == 0:
            ask(server)
        assert find(to) == (), number


def test_access_that_is_lost_is_found_while_the_model_is_still_on_the_gpu(
    shop: Shop, server: ModelServer, to: Host
) -> None:
    ask(server)
    # As after a daemon-reload: the file is there, and the control group does not let it be opened.
    with inside(
        server,
        "mv dev/nvidia0 dev/kept && mknod -m 0666 dev/nvidia0 c 195 0",
        "mv -f dev/kept dev/nvidia0",
    ):
        (finding,) = find(to)
        assert (finding.kind, finding.blocks) == ("access lost", True)
        assert finding.evidence[0] == "/dev/nvidia0: Operation not permitted"
        assert finding.remedy.startswith(f"docker restart {server.container};")
        assert read(to).processor == "gpu"
        failed = shop.run("-y")
        assert failed.rc == 1, failed.out
        assert "ollama (access lost)" in failed.out
    assert find(to) == ()


def test_device_files_that_are_not_there_are_found(server: ModelServer, to: Host) -> None:
    with inside(server, "mv dev/nvidia0 dev/kept", "mv dev/kept dev/nvidia0"):
        assert kinds(to) == ["not visible"]


def test_what_breaks_on_the_host_is_found(bus: Bus, server: ModelServer, to: Host) -> None:
    host = server.host
    message = "Failed to initialize NVML: Driver/library version mismatch"
    host.put(gpus.FAILING, f"{message}\n")
    (finding,) = find(to)
    assert finding.kind == "driver mismatch"
    assert message in finding.evidence[-1]
    host.sh(f"rm {gpus.FAILING}")
    bus.put(gpus.ADDRESS, "0x10de", "0x030200", "nouveau")
    (finding,) = find(to)
    assert (finding.kind, "nouveau" in finding.cause) == ("no driver", True)
    bus.put(gpus.ADDRESS, "0x10de", "0x030200", "nvidia")
    assert find(to) == ()


def test_each_kind_of_reload_is_found_with_who_asks(server: ModelServer, to: Host) -> None:
    # Of those that follow, none is within what the tests before have left.
    assert kinds(to, maximum_reloads=0) == []
    for context in (512, 1024, 512, 1024):
        ask(server, options={"num_ctx": context})
    (finding,) = find(to)
    assert finding.kind == "reloaded for its context"
    assert "worker (" in finding.evidence[0]
    assert "worker has NUM_CTX=1024" in finding.evidence
    for name in ("slow", "tiny") * 3:
        ask(server, name, options={"num_ctx": 1024})
    assert kinds(to) == ["reloaded for its context", "reloaded after an eviction"]
    for _ in range(4):
        ask(server, options={"num_ctx": 1024}, keep_alive=0)
    found = find(to)
    assert [finding.kind for finding in found] == [
        "reloaded for its context",
        "reloaded after an eviction",
        "reloaded after an unload",
    ]
    assert not any(finding.blocks for finding in found)
    assert "the server has OLLAMA_MAX_LOADED_MODELS=1" in found[1].evidence


def test_what_another_container_breaks_is_found(shop: Shop, server: ModelServer, to: Host) -> None:
    service = shop.services["ollama"]
    service["environment"]["LAB_GPU_SHARE"] = "0.35"
    replace(shop, server)
    ask(server)
    (finding,) = find(to)
    assert finding.kind == "model partly on CPU"
    assert read(to).processor == "35% gpu"
    assert kinds(to, share=0.3) == []
    # Without a reservation the server computes with the CPU, and says nothing of it.
    del service["runtime"]
    replace(shop, server)
    ask(server)
    (finding,) = find(to)
    assert finding.kind == "not reserved"
    assert "driver: nvidia" in finding.remedy
    assert read(to).processor == "cpu"
    # Who wants the CPU has no chain, and one thread is not too many for half a CPU.
    server.host.docker(
        "update", "--cpus", "0.5", "--memory", "1g", "--memory-swap", "2g", server.container
    )
    spec = AccelerationSpec(project="shop", samples=1)
    (state,) = connection.fetch_facts(to, [(Acceleration, spec.fact_arguments)])
    assert (state.container.quota, state.container.memory) == (0.5, 1 << 30)
    assert state.usage.resident > 0
    assert kinds(to, processor="cpu", maximum_reloads=9) == []
    # Where memory is scarce the server is asked what a context of its largest model takes.
    scarce = {"memory": Memory(total=1 << 20), "container": None, "samples": ()}
    shape = complete_shape(to, state.model_copy(update=scarce)).shape
    assert shape == Shape(layers=2, heads=4, key=128, value=128, trained=8192)


def replace(shop: Shop, server: ModelServer) -> None:
    """Make the server's container of what the compose file says now."""
    text = yaml.safe_dump(shop.compose)
    server.host.put(f"{shop.home}/compose.yaml", text)
    server.compose("up", "-d", "--wait", "--wait-timeout", "60", "ollama")
