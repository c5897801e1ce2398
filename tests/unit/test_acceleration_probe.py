"""Each break of the chain as the real probe reads it, on a host that is laid out so.

The host is one of namespaces (``hostile_host.py``): its PCI bus, its device files, its programs and
those of the server's container are files of the test's, the engine and the server answer what the
test says, and what the probe executes in the container is executed, as nobody.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stackmend.decision import Finding
from stackmend.engine.accelerators.facts import HostAccelerators
from stackmend.worker.acceleration.chain import build_chain
from stackmend.worker.acceleration.facts import Acceleration
from stackmend.worker.acceleration.plan import plan
from stackmend.worker.acceleration.spec import AccelerationSpec
from stackmend.worker.acceleration.state import AcceleratorChain
from tests.unit.acceleration_world import BREAKS as KNOWN
from tests.unit.acceleration_world import (
    DROPPED_INTEGRATED,
    DROPPED_TARGET,
    TO_COME,
    TOO_OLD,
    UNSUPPORTED,
    UNSUPPORTED_INTEGRATED,
)
from tests.unit.hostile_engine import compose_labels, container
from tests.unit.hostile_host import HostileHost, hostile_host, stand_in
from tests.unit.hostile_models import SERVER, answer

pytestmark = pytest.mark.slow

DRIVER = "570.86.10"
NVIDIA = ("0000:01:00.0", "0x10de", "0x030200", "nvidia")
AMD = ("0000:03:00.0", "0x1002", "0x038000", "amdgpu")
GIB = 1 << 30
LISTED = f"echo '{DRIVER}, 143771, 3072, NVIDIA H200'"
FOUND = 'time=x level=INFO source=types.go:42 msg="inference compute" id=0 library={} name=x'
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


@dataclass
class Machine:
    """What is laid out: a host whose server computes with its GPU, unless a test says otherwise."""

    devices: list[tuple[str, str, str, str]] = field(default_factory=lambda: [NVIDIA])
    vram: int = 0
    nodes: list[str] = field(default_factory=lambda: ["nvidia0", "nvidiactl", "nvidia-uvm"])
    smi: str | None = LISTED
    tools: bool = True
    runtimes: tuple[str, ...] = ("runc", "nvidia")
    image: str = "ollama/ollama:0.24.0"
    env: tuple[str, ...] = ("NVIDIA_VISIBLE_DEVICES=all",)
    config: dict[str, Any] = field(default_factory=lambda: {"Runtime": "nvidia"})
    inner: list[str] = field(default_factory=lambda: ["nvidia0", "nvidiactl"])
    inner_smi: str | None = "echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'"
    closed: bool = False
    removed: bool = False
    scope: tuple[str, ...] | None = ("/dev/char/1:3 rwm", "char-pts rwm", "char-* m")
    log: tuple[str, ...] = (FOUND.format("CUDA"),)
    size_vram: int = 2 * GIB
    port: int | None = None

    def but(self, **fields: Any) -> Machine:
        for name, value in fields.items():
            setattr(self, name, value)
        return self


def amd(**fields: Any) -> Machine:
    """The same with a card of AMD's."""
    return Machine(
        devices=[AMD],
        vram=16 * GIB,
        nodes=["kfd", "dri/renderD128"],
        smi=None,
        tools=False,
        runtimes=("runc",),
        image="ollama/ollama:0.24.0-rocm",
        env=(),
        config={"Devices": [{"PathOnHost": "/dev/kfd"}, {"PathOnHost": "/dev/dri"}]},
        inner=["kfd", "dri/renderD128"],
        inner_smi=None,
        log=(FOUND.format("ROCm"),),
    ).but(**fields)


def unused(machine: Machine, **fields: Any) -> Machine:
    """The same with a container that was made without anything of a GPU's."""
    return machine.but(
        env=(),
        config={},
        inner=[],
        inner_smi=None,
        log=(FOUND.format("cpu"),),
        size_vram=0,
    ).but(**fields)


def unfound(machine: Machine, *log: str, **fields: Any) -> Machine:
    """The same with a server that found nothing when it started."""
    return machine.but(log=(*log, FOUND.format("cpu")), size_vram=0, **fields)


def fails(text: str, status: int) -> str:
    return f"echo '{text}'; exit {status}"


def show_scope(allowed: tuple[str, ...]) -> str:
    """A ``systemctl show`` of the container's scope; any other unit is not there."""
    lines = ["LoadState=loaded", "DevicePolicy=strict", *(f"DeviceAllow={row}" for row in allowed)]
    shown = "\n".join(lines)
    return (
        f"case $* in *docker-{'1' * 64}.scope) printf '%s\\n' '{shown}' ;;\n"
        "*) printf 'LoadState=not-found\\nDevicePolicy=auto\\n' ;; esac"
    )


BREAKS: dict[str, Callable[[], Machine]] = {
    "no accelerator": lambda: unused(Machine(devices=[])),
    "no driver": lambda: unused(Machine(devices=[(*NVIDIA[:3], "nouveau")])),
    "no driver: none": lambda: unused(Machine(devices=[(*NVIDIA[:3], "")])),
    "no driver: vfio-pci": lambda: unused(Machine(devices=[(*NVIDIA[:3], "vfio-pci")])),
    "no driver: AMD": lambda: unused(amd(devices=[(*AMD[:3], "")])),
    "no ROCm": lambda: unused(amd(nodes=[])),
    "driver mismatch": lambda: Machine(smi=fails(MISMATCH, 18)),
    "driver hangs": lambda: Machine(smi="exit 124"),
    "driver fails": lambda: Machine(smi=fails("NVIDIA-SMI has failed", 9)),
    "GPU lost": lambda: Machine(smi=fails("No devices were found", 6)),
    "no toolkit": lambda: unused(Machine(tools=False, runtimes=("runc",))),
    "toolkit not registered": lambda: unused(Machine(runtimes=("runc",))),
    "not reserved": lambda: unused(Machine()),
    "not reserved: void": lambda: unused(
        Machine(), config={"Runtime": "nvidia"}, env=("NVIDIA_VISIBLE_DEVICES=void",)
    ),
    "not reserved: AMD": lambda: unused(amd()),
    "image without ROCm": lambda: unfound(amd(image="ollama/ollama:0.24.0", inner=[])),
    "not visible": lambda: Machine(inner=["nvidiactl"]),
    "not visible: AMD": lambda: amd(inner=["dri/renderD128"]),
    "access lost": lambda: Machine(
        inner_smi=fails("Failed to initialize NVML: Unknown Error", 255)
    ),
    "not permitted": lambda: amd(closed=True),
    "device removed": lambda: Machine(removed=True),
    "driver fails in the container": lambda: Machine(inner_smi=fails(MISMATCH, 18)),
    "driver hangs in the container": lambda: Machine(inner_smi="exit 124"),
    "GPU lost: in the container": lambda: Machine(inner_smi=fails("No devices were found", 6)),
    "not found by the server": lambda: unfound(Machine()),
    "model on CPU": lambda: Machine(size_vram=0),
    "model partly on CPU": lambda: Machine(size_vram=GIB),
    "lost at a daemon-reload": lambda: Machine(scope=("/dev/char/1:5 rwm", "char-* m")),
}

#: Why a server found nothing, and what the remedy says about it.
SEARCHES: dict[str, Callable[[], Machine]] = {
    "remove CUDA_VISIBLE_DEVICES= ": lambda: unfound(
        Machine(env=("NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES="))
    ),
    "remove GGML_VK_VISIBLE_DEVICES=-1 ": lambda: unfound(
        Machine(env=("NVIDIA_VISIBLE_DEVICES=all", "GGML_VK_VISIBLE_DEVICES=-1"))
    ),
    "set NVIDIA_DRIVER_CAPABILITIES=compute": lambda: unfound(
        Machine(env=("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"))
    ),
    "the driver's libraries": lambda: unfound(Machine(env=(), config={"Privileged": True})),
    "nvidia-modprobe -u": lambda: unfound(Machine(nodes=["nvidia0", "nvidiactl"])),
    "OLLAMA_IGPU_ENABLE=1": lambda: unfound(amd(), DROPPED_INTEGRATED),
    "set HSA_OVERRIDE_GFX_VERSION": lambda: unfound(amd(), DROPPED_TARGET),
    "HSA_OVERRIDE_GFX_VERSION in": lambda: unfound(amd(), UNSUPPORTED),
    "a later version": lambda: unfound(amd(), UNSUPPORTED_INTEGRATED),
    "update the GPU's driver": lambda: unfound(Machine(), TOO_OLD),
}

HEALTHY: dict[str, Callable[[], Machine]] = {
    "nvidia": Machine,
    "nvidia without systemd": lambda: Machine(scope=None),
    "amd": amd,
    "a CPU": lambda: unused(Machine(devices=[], nodes=[], smi=None, tools=False)),
    "graphics within an AMD CPU": lambda: unused(amd(vram=GIB // 2)),
    "nouveau": lambda: unused(Machine(devices=[(*NVIDIA[:3], "nouveau")], smi=None)),
    "a warning": lambda: Machine(smi=f"{LISTED}; {fails('WARNING: infoROM is corrupted', 14)}"),
    "one GPU lost of two": lambda: Machine(
        smi=f"{LISTED}; {fails('Unable to determine the device handle for GPU1', 15)}",
        inner_smi="echo 'GPU 0: NVIDIA H200'; echo 'Unable to determine the handle'; exit 15",
    ),
    "a Jetson": lambda: Machine(devices=[], nodes=[], smi=None, inner=[], inner_smi=None),
}


@dataclass
class Place:
    """The host, and the directories that are its device files and its container's."""

    host: HostileHost
    dev: Path
    inner: Path

    def lay(self, machine: Machine) -> None:
        host = self.host
        host.clear("sys")
        for address, vendor, kind, driver in machine.devices:
            at = f"sys/bus/pci/devices/{address}"
            host.write(f"{at}/vendor", f"{vendor}\n")
            host.write(f"{at}/class", f"{kind}\n")
            host.write(f"{at}/device", "0x1\n")
            if driver:
                host.path(f"{at}/driver").symlink_to(f"../drivers/{driver}")
            if vendor == AMD[1]:
                host.write(f"{at}/mem_info_vram_total", f"{machine.vram}\n")
        host.write("sys/module/nvidia/version", f"{DRIVER}\n")
        for name in ("nvidia-smi", "nvidia-ctk", "nvidia-container-runtime"):
            (host.root / "bin-dash" / name).unlink(missing_ok=True)
        if machine.smi is not None:
            host.program("nvidia-smi", machine.smi)
        (host.root / "bin-dash" / "systemctl").unlink(missing_ok=True)
        if machine.scope is not None:
            host.program("systemctl", show_scope(machine.scope))
        if machine.tools:
            host.program("nvidia-ctk", "exit 0")
            host.program("nvidia-container-runtime", "exit 0")
        self._lay_files(self.dev, machine.nodes, is_device=True)
        self._lay_files(self.inner / "dev", machine.inner, is_device=False)
        if machine.closed:
            for name in machine.inner:
                (self.inner / "dev" / name).chmod(0)
        if machine.removed:
            # Opening a socket's file fails as opening that of a device that is gone does.
            path = self.inner / "dev/nvidia0"
            path.unlink()
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
            path.chmod(0o666)
        smi = self.inner / "bin/nvidia-smi"
        smi.unlink(missing_ok=True)
        if machine.inner_smi is not None:
            stand_in(smi, machine.inner_smi)
        self._lay_engine(machine)
        self._lay_server(machine)

    def _lay_files(self, place: Path, names: list[str], *, is_device: bool) -> None:
        host = self.host
        for path in sorted(place.rglob("*"), reverse=True):
            if path.relative_to(place).parts[0].startswith(("nvidia", "kfd", "dri")):
                if path.is_dir():
                    path.rmdir()
                    continue
                if is_device:
                    host.run("umount", f"/dev/{path.relative_to(place)}")
                path.unlink()
        for name in names:
            path = place / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
            path.chmod(0o666)
            if is_device:
                host.run("mount", "--bind", "/dev/null", f"/dev/{name}")

    def _lay_engine(self, machine: Machine) -> None:
        engine = self.host.engine
        config = {
            "NetworkMode": "ai_default",
            "Runtime": "runc",
            "DeviceRequests": None,
            "Devices": [],
            "Privileged": False,
            "Memory": 0,
            "NanoCpus": 0,
            "CpuQuota": 0,
            "CpuPeriod": 0,
            "CpusetCpus": "",
        }
        network = {"IPAddress": "127.0.0.1", "GlobalIPv6Address": "", "Gateway": "127.0.0.9"}
        port = machine.port or SERVER.port
        engine.containers = [
            container(
                1,
                "ai-ollama-1",
                Config={
                    "Image": machine.image,
                    "Env": [f"OLLAMA_HOST=0.0.0.0:{port}", *machine.env],
                    "Entrypoint": ["/bin/ollama"],
                    "Cmd": ["serve"],
                    "Labels": compose_labels("ai", "ollama"),
                },
                HostConfig={**config, **machine.config},
                NetworkSettings={"Networks": {"ai_default": network}},
            )
        ]
        engine.log = "\n".join(machine.log).encode() + b"\n"
        engine.runs = self._execute
        engine.info = {
            "ServerVersion": "28.0.0",
            "Runtimes": {name: {"path": name} for name in machine.runtimes},
            "DefaultRuntime": "runc",
            "CgroupDriver": "systemd",
        }

    def _execute(self, argv: list[str], given: bytes) -> tuple[bytes, bytes, int]:
        """What is executed in the container: as nobody, with its device files and programs."""
        script = (
            f"mount --bind /dev/null {self.inner}/dev/null && mount --rbind {self.inner}/dev /dev "
            f'&& PATH={self.inner}/bin exec "$@"'
        )
        drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        words = ["unshare", "--mount", "sh", "-c", script, "sh", *drop, *argv]
        done = subprocess.run(self.host.enter(*words), input=given, capture_output=True, timeout=60)
        return done.stdout, done.stderr, done.returncode

    def _lay_server(self, machine: Machine) -> None:
        row = {"name": "tiny:latest", "size": 2 * GIB, "size_vram": machine.size_vram}
        SERVER.answers = {
            "/api/version": answer({"version": "0.24.0"}),
            "/api/ps": answer({"models": [row]}),
            "/api/tags": answer({"models": [{"name": "tiny:latest", "size": GIB}]}),
        }


def read(place: Place, machine: Machine, **options: Any) -> tuple[list[Finding], AcceleratorChain]:
    place.lay(machine)
    spec = AccelerationSpec(project="ai", samples=1, **options)
    facts = [(HostAccelerators, {}), (Acceleration, spec.fact_arguments)]
    accelerators, state = place.host.fetch_facts("dash", facts)
    return list(plan(spec, accelerators, state).findings), build_chain(spec, accelerators, state)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with hostile_host() as host:
        dev, inner = host.root / "devices", host.root / "inner"
        for path in (dev, inner / "dev", inner / "bin"):
            path.mkdir(parents=True)
        (inner / "dev/null").touch()
        for name in ("sh", "tr", "head", "timeout", "setpriv"):
            (inner / "bin" / name).symlink_to((host.root / "bin-dash" / name).resolve())
        for name in ("null", "zero", "urandom"):
            (dev / name).touch()
            host.run("mount", "--bind", f"/dev/{name}", str(dev / name))
        host.run("mount", "--rbind", str(dev), "/dev")
        yield Place(host, dev, inner)


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_the_only_finding(name: str, place: Place) -> None:
    findings, _ = read(place, BREAKS[name](), processor="gpu")
    kind = name.partition(":")[0]
    assert [(found.kind, found.blocks) for found in findings] == [(kind, kind not in TO_COME)]
    assert findings[0].remedy


def test_each_break_that_is_known_is_laid_out_here() -> None:
    assert {name.partition(":")[0] for name in BREAKS} == {name.strip() for name in KNOWN}


@pytest.mark.parametrize("remedy", SEARCHES)
def test_each_reason_of_an_unfound_accelerator_has_its_remedy(remedy: str, place: Place) -> None:
    (finding,), _ = read(place, SEARCHES[remedy](), processor="gpu")
    assert finding.kind == "not found by the server"
    assert remedy in finding.remedy


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_healthy_has_no_finding(name: str, place: Place) -> None:
    findings, chain = read(place, HEALTHY[name]())
    assert findings == []
    assert chain.broken is None


def test_a_server_that_says_nothing_is_asked_once(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
        began = time.monotonic()
        findings, chain = read(place, Machine(port=port))
        seconds = time.monotonic() - began
    assert [(found.kind, found.blocks) for found in findings] == [("no answer", False)]
    assert "sends nothing in time" in chain.get_link("model").reason
    # Each question is given five seconds, and there would be three in two places.
    assert seconds < 15


def test_where_the_gpu_hangs_nothing_asks_it_again(place: Place) -> None:
    asked: list[list[str]] = []
    machine = Machine(smi="exit 124")
    place.lay(machine)
    place.host.engine.runs = lambda argv, _: asked.append(argv) or (b"ran\n", b"", 0)  # type: ignore[func-returns-value]
    spec = AccelerationSpec(project="ai", samples=1)
    (state,) = place.host.fetch_facts("dash", [(Acceleration, spec.fact_arguments)])
    assert (state.smi.status, state.inside) == (124, None)
    assert asked == []


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.0.2.7", False)],
)
def test_a_server_is_on_this_host_by_its_address(address: str, local: bool, place: Place) -> None:
    place.lay(Machine())
    shown = f"[{address}]" if ":" in address else address
    spec = AccelerationSpec(endpoint=f"http://{shown}:9", samples=1)  # type: ignore[arg-type]
    (state,) = place.host.fetch_facts("dash", [(Acceleration, spec.fact_arguments)])
    assert (state.is_local, state.smi.status) == (local, 0 if local else None)


def test_many_requests_push_out_no_load_of_a_model(place: Place) -> None:
    load = (
        'time=x level=INFO source=server.go:1 msg="starting runner" cmd="ollama runner --model /m"',
        'time=x level=INFO source=server.go:1 msg="llama runner started in 1.00 seconds"',
    )
    call = '[GIN] 2026/07/01 - 08:00:00 | 200 | 1.5s | 172.18.0.5 | POST     "/api/chat"'
    read(place, Machine(log=(*load, *[call] * 6000)))
    spec = AccelerationSpec(project="ai", samples=1)
    (state,) = place.host.fetch_facts("dash", [(Acceleration, spec.fact_arguments)])
    assert (len(state.log.loads), len(state.log.calls)) == (1, 4000)
    assert state.log.since is not None
