"""A host whose model server computes with its GPU, and what may be broken about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stackmend.engine.accelerators.state import Accelerators, CdiFile, Node, Vendor
from stackmend.engine.accelerators.state import Device as HostDevice
from stackmend.worker.acceleration.state import (
    Container,
    Cpu,
    Device,
    DeviceRequest,
    Engine,
    Gpu,
    InnerNode,
    Inside,
    LoadedModel,
    Memory,
    Scope,
    ServerLog,
    Smi,
    StoredModel,
    WorkerAcceleration,
)

GIB = 1 << 30
NVIDIA = HostDevice(
    address="0000:01:00.0", vendor="nvidia", model="0x2330", kind="0x030200", driver="nvidia"
)
AMD = HostDevice(
    address="0000:03:00.0", vendor="amd", model="0x740f", kind="0x038000", driver="amdgpu"
)
HOST = Accelerators(
    devices=(NVIDIA,),
    nodes=(
        Node(path="/dev/nvidia0", group=0, mode="666"),
        Node(path="/dev/nvidia-uvm", group=0, mode="666"),
    ),
    driver="570.86.10",
    smi="/usr/bin/nvidia-smi",
    ctk="/usr/bin/nvidia-ctk",
    runtime="/usr/bin/nvidia-container-runtime",
    toolkit="1.17.8-1",
    cdi=(CdiFile(path="/etc/cdi/nvidia.yaml", versions=("570.86.10",), devices=("/dev/nvidia0",)),),
)
AMD_HOST = Accelerators(
    devices=(AMD,),
    nodes=(
        Node(path="/dev/kfd", group=105, mode="660"),
        Node(path="/dev/dri/renderD128", group=105, mode="660"),
    ),
)
NO_HOST = Accelerators()

CONTAINER = Container(
    id="c" * 64,
    name="ai-ollama-1",
    status="running",
    image="ollama/ollama:0.24.0",
    runtime="runc",
    requests=(DeviceRequest(driver="nvidia", count=-1, capabilities=("gpu",)),),
)
LOADED = LoadedModel(
    name="llama3.2:1b", digest="a" * 64, size=2 * GIB, size_vram=2 * GIB, context=4096
)
CUDA = Device(library="CUDA", name="NVIDIA H200", memory="139.8 GiB")
CPU = Device(library="cpu", name="cpu", memory="31.3 GiB")

STATE = WorkerAcceleration(
    now=1_800_000_000,
    cpu=Cpu(
        model="Xeon",
        cores=8,
        processors=16,
        architecture="x86_64",
        flags=("avx", "avx2", "f16c", "fma"),
        governors=("powersave intel_pstate balance_performance",),
    ),
    memory=Memory(total=32 * GIB, available=20 * GIB, swapped_in=(10, 10)),
    smi=Smi(
        status=0,
        driver="570.86.10",
        gpus=(Gpu(name="NVIDIA H200", memory=140 * GIB, used=3 * GIB),),
    ),
    engine=Engine(
        version="28.0.0",
        runtimes=("nvidia", "runc"),
        default_runtime="runc",
        cdi=True,
        cgroup_driver="systemd",
    ),
    container=CONTAINER,
    version="0.24.0",
    inside=Inside(
        nodes=(InnerNode(path="/dev/nvidia0"), InnerNode(path="/dev/nvidiactl")),
        smi=0,
        output="GPU 0: NVIDIA H200",
    ),
    scope=Scope(
        policy="strict",
        allowed=(
            ("/dev/char/195:255", "rwm"),
            ("/dev/char/195:0", "rwm"),
            ("char-pts", "rwm"),
            ("char-*", "m"),
        ),
        numbers=(("/dev/nvidia0", "195:0"),),
    ),
    samples=((LOADED,), (LOADED,)),
    stored=(StoredModel(name="llama3.2:1b", size=GIB),),
    log=ServerLog(devices=(CUDA,)),
    gateways=("172.18.0.1",),
)

#: The same on a host of AMD's.
AMD_STATE = STATE.model_copy(
    update={
        "smi": Smi(),
        "engine": Engine(version="28.0.0", runtimes=("runc",), default_runtime="runc"),
        "container": CONTAINER.model_copy(
            update={
                "image": "ollama/ollama:0.24.0-rocm",
                "requests": (),
                "devices": ("/dev/kfd", "/dev/dri"),
            }
        ),
        "inside": Inside(nodes=(InnerNode(path="/dev/kfd"), InnerNode(path="/dev/dri/renderD128"))),
        "log": ServerLog(devices=(Device(library="ROCm", name="AMD Instinct"),)),
    }
)

#: A server that computes with the CPU of a host that has nothing else.
CPU_STATE = STATE.model_copy(
    update={
        "smi": Smi(),
        "engine": Engine(version="28.0.0", runtimes=("runc",), default_runtime="runc"),
        "container": CONTAINER.model_copy(update={"requests": ()}),
        "inside": Inside(),
        "samples": ((LOADED.model_copy(update={"size_vram": 0}),),) * 2,
        "log": ServerLog(devices=(CPU,)),
    }
)


def change(state: WorkerAcceleration, **fields: Any) -> WorkerAcceleration:
    """The state with other fields; a mapping changes those of what stands there."""
    update = {
        name: getattr(state, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return state.model_copy(update=update)


def load(**fields: Any) -> tuple[tuple[LoadedModel, ...], ...]:
    """Samples with one model that differs so."""
    return ((LOADED.model_copy(update=fields),),) * 2


def host(vendor: Vendor = "nvidia", driver: str | None = None, **fields: Any) -> Accelerators:
    """A host with an accelerator that differs so."""
    made = HOST if vendor == "nvidia" else AMD_HOST
    if driver is not None:
        device = made.devices[0].model_copy(update={"driver": driver})
        made = made.model_copy(update={"devices": (device,)})
    return made.model_copy(update=fields)


#: A container that was made without anything of a GPU's, and finds none.
WITHOUT: dict[str, Any] = {
    "inside": Inside(),
    "log": ServerLog(devices=(CPU,)),
    "samples": load(size_vram=0),
}

#: llama.cpp's own server, which says no more than its layers.
LLAMA_CPP = STATE.model_copy(
    update={
        "reason": "what answers is not Ollama",
        "version": "",
        "samples": (),
        "stored": (),
        "log": ServerLog(layers=(33, 33)),
    }
)

#: Lines of Ollama's log, each of the version that has them.
DROPPED_INTEGRATED = (
    'time=2026-07-01T08:00:00.000Z level=INFO source=runner.go:405 msg="dropping integrated GPU; '
    'to enable, set OLLAMA_IGPU_ENABLE=1" id=0 library=ROCm compute=gfx1036 name=ROCm0'
)
DROPPED_TARGET = (
    'time=2026-07-01T08:00:00.000Z level=WARN source=amd.go:470 msg="dropping ROCm device — no '
    'rocblas support for gfx target" device=ROCm0 gfx_target=gfx1031'
)
UNSUPPORTED = (
    "time=2025-01-01T08:00:00.000Z level=WARN source=amd_linux.go:378 "
    'msg="amdgpu is not supported (supported types:[gfx1030 gfx1100])" gpu_type=gfx1031 gpu=0'
)
UNSUPPORTED_INTEGRATED = (
    "time=2025-01-01T08:00:00.000Z level=INFO source=amd_linux.go:297 "
    'msg="unsupported Radeon iGPU detected skipping" id=0 total="512.0 MiB"'
)
TOO_OLD = (
    "time=2026-07-01T08:00:00.000Z level=WARN source=cuda_compat.go:65 "
    'msg="NVIDIA driver too old" driver=11.4'
)

#: Why a server finds no accelerator, each with its own remedy.
SEARCHES: tuple[dict[str, Any], ...] = (
    {"container": {"settings": (("CUDA_VISIBLE_DEVICES", ""),)}},
    {"container": {"settings": (("GGML_VK_VISIBLE_DEVICES", "-1"),)}},
    {"container": {"settings": (("GPU_DEVICE_ORDINAL", "-1"),)}},
    {"container": {"settings": (("NVIDIA_DRIVER_CAPABILITIES", "utility"),)}},
    {"container": {"requests": (), "privileged": True}},
    {"accelerators": HOST.model_copy(update={"nodes": HOST.nodes[:1]})},
    *(
        {"accelerators": AMD_HOST, "state": AMD_STATE, "warnings": (line,)}
        for line in (DROPPED_INTEGRATED, DROPPED_TARGET, UNSUPPORTED, UNSUPPORTED_INTEGRATED)
    ),
    {"warnings": (TOO_OLD,)},
)

World = tuple[Accelerators, WorkerAcceleration]


def _denied(problem: str) -> Inside:
    nodes = (
        InnerNode(path="/dev/nvidia0", problem=problem),
        InnerNode(path="/dev/nvidiactl", problem=problem),
    )
    return Inside(nodes=nodes)


#: Each break of the chain, by the kind of its finding.
BREAKS: dict[str, Callable[[], World]] = {
    "no accelerator": lambda: (NO_HOST, change(STATE, **WITHOUT)),
    "no driver": lambda: (host(driver="nouveau"), change(STATE, **WITHOUT)),
    "no driver ": lambda: (host(driver=""), change(STATE, **WITHOUT)),
    "no driver  ": lambda: (host(driver="vfio-pci"), change(STATE, **WITHOUT)),
    "no driver   ": lambda: (host("amd", driver=""), change(AMD_STATE, **WITHOUT)),
    "no ROCm": lambda: (host("amd", nodes=()), change(AMD_STATE, **WITHOUT)),
    "driver mismatch": lambda: (
        HOST,
        change(
            STATE,
            smi=Smi(
                status=18,
                output="Failed to initialize NVML: Driver/library version mismatch NVML library "
                "version: 580.95",
            ),
        ),
    ),
    "driver hangs": lambda: (HOST, change(STATE, smi=Smi(status=124))),
    "driver fails": lambda: (
        HOST,
        change(
            STATE,
            smi=Smi(
                status=9,
                output="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA "
                "driver.",
            ),
        ),
    ),
    "GPU lost": lambda: (
        HOST,
        change(STATE, smi=Smi(status=6, output="No devices were found")),
    ),
    "GPU lost ": lambda: (
        HOST,
        change(
            STATE,
            smi=Smi(
                status=15,
                output="Unable to determine the device handle for GPU0000:01:00.0: GPU is lost. "
                "Reboot the system to recover this GPU",
            ),
        ),
    ),
    "GPU lost  ": lambda: (
        HOST,
        change(STATE, inside={"smi": 6, "output": "No devices were found"}),
    ),
    "driver hangs in the container": lambda: (HOST, change(STATE, inside={"smi": 124})),
    "no toolkit": lambda: (
        host(toolkit="", ctk="", runtime="", cdi=()),
        change(STATE, **WITHOUT, engine={"runtimes": ("runc",)}),
    ),
    "toolkit not registered": lambda: (
        host(cdi=()),
        change(STATE, **WITHOUT, engine={"runtimes": ("runc",), "cdi": True}),
    ),
    "not reserved": lambda: (HOST, change(STATE, **WITHOUT, container={"requests": ()})),
    "not reserved ": lambda: (
        HOST,
        change(
            STATE,
            **WITHOUT,
            container={
                "requests": (),
                "runtime": "nvidia",
                "settings": (("NVIDIA_VISIBLE_DEVICES", "void"),),
            },
        ),
    ),
    "not reserved  ": lambda: (
        AMD_HOST,
        change(AMD_STATE, **WITHOUT, container={"devices": ("/dev/dri",)}),
    ),
    "image without ROCm": lambda: (
        AMD_HOST,
        change(
            AMD_STATE,
            container={"image": "ollama/ollama:0.24.0"},
            inside=Inside(),
            log=ServerLog(devices=(CPU,)),
            samples=load(size_vram=0),
        ),
    ),
    "not visible": lambda: (HOST, change(STATE, inside=Inside())),
    "not visible ": lambda: (
        AMD_HOST,
        change(AMD_STATE, inside=Inside(nodes=(InnerNode(path="/dev/dri/renderD128"),))),
    ),
    "access lost": lambda: (HOST, change(STATE, inside=_denied("Operation not permitted"))),
    "access lost ": lambda: (
        HOST,
        change(STATE, inside={"smi": 255, "output": "Failed to initialize NVML: Unknown Error"}),
    ),
    "not permitted": lambda: (
        AMD_HOST,
        change(
            AMD_STATE,
            inside=Inside(nodes=(InnerNode(path="/dev/kfd", problem="Permission denied"),)),
        ),
    ),
    "device removed": lambda: (HOST, change(STATE, inside=_denied("No such device or address"))),
    "driver fails in the container": lambda: (
        HOST,
        change(
            STATE,
            inside={
                "smi": 18,
                "output": "Failed to initialize NVML: Driver/library version mismatch",
            },
        ),
    ),
    "not found by the server": lambda: (
        HOST,
        change(
            STATE,
            samples=((), ()),
            log=ServerLog(devices=(CPU,), warnings=("no compatible GPUs were discovered",)),
        ),
    ),
    "not found by the server ": lambda: (
        HOST,
        change(
            STATE,
            samples=load(size_vram=0),
            log=ServerLog(devices=(CPU,)),
            container={"settings": (("CUDA_VISIBLE_DEVICES", "-1"),)},
        ),
    ),
    **{
        f"not found by the server{' ' * (number + 2)}": lambda fields=fields: (  # type: ignore[misc]
            fields.get("accelerators", HOST),
            change(
                fields.get("state", STATE),
                samples=((), ()),
                log=ServerLog(devices=(CPU,), warnings=fields.get("warnings", ())),
                container=fields.get("container", {}),
            ),
        )
        for number, fields in enumerate(SEARCHES)
    },
    "model partly on CPU ": lambda: (HOST, change(LLAMA_CPP, log=ServerLog(layers=(20, 33)))),
    "model on CPU": lambda: (HOST, change(STATE, samples=load(size_vram=0))),
    "lost at a daemon-reload": lambda: (HOST, change(STATE, scope={"allowed": BEHIND})),
    "lost at a daemon-reload ": lambda: (
        HOST,
        change(STATE, scope={"allowed": BEHIND}, engine={"cdi": False}),
    ),
    "model partly on CPU": lambda: (
        HOST,
        change(
            STATE,
            samples=load(size=20 * GIB, size_vram=7 * GIB, context=32768),
            container={"settings": (("OLLAMA_NUM_PARALLEL", "4"),)},
        ),
    ),
}

#: What systemd lists of a container whose devices the toolkit opened by itself.
BEHIND = (("/dev/char/1:3", "rwm"), ("char-pts", "rwm"), ("char-*", "m"), ("block-*", "m"))

#: Breaks that are still to come: they are reported, and fail nothing.
TO_COME = ("lost at a daemon-reload",)

#: What is as it should be, each in its own way.
HEALTHY: dict[str, Callable[[], World]] = {
    "a scope that restricts no devices": lambda: (
        HOST,
        change(STATE, scope={"policy": "auto", "allowed": ()}),
    ),
    "a scope that lists devices by their paths": lambda: (
        HOST,
        change(STATE, scope={"allowed": (*BEHIND, ("/dev/nvidia0", "rw"))}),
    ),
    "a scope that lists devices by their kind": lambda: (
        HOST,
        change(STATE, scope={"allowed": (*BEHIND, ("char-nvidia-frontend", "rwm"))}),
    ),
    "a device of unknown numbers": lambda: (
        HOST,
        change(STATE, scope={"allowed": BEHIND, "numbers": ()}),
    ),
    "no scope": lambda: (HOST, change(STATE, scope=None)),
    "control groups of the engine's own": lambda: (
        HOST,
        change(STATE, engine={"cgroup_driver": "cgroupfs"}, scope={"allowed": BEHIND}),
    ),
    "nvidia": lambda: (HOST, STATE),
    "amd": lambda: (AMD_HOST, AMD_STATE),
    "cpu only": lambda: (NO_HOST, CPU_STATE),
    "no model loaded": lambda: (HOST, change(STATE, samples=((), ()))),
    "an old log": lambda: (HOST, change(STATE, log=ServerLog())),
    "no log and no model": lambda: (HOST, change(STATE, log=ServerLog(), samples=((), ()))),
    "no smi anywhere": lambda: (
        HOST,
        change(STATE, smi=Smi(), inside={"smi": None, "output": ""}),
    ),
    "the runtime alone": lambda: (
        host(cdi=()),
        change(
            STATE,
            engine={"cdi": False},
            container={
                "requests": (),
                "runtime": "nvidia",
                "settings": (("NVIDIA_VISIBLE_DEVICES", "all"),),
            },
        ),
    ),
    "CDI alone": lambda: (
        HOST,
        change(
            STATE,
            engine={"runtimes": ("runc",)},
            container={"requests": (DeviceRequest(driver="cdi", ids=("nvidia.com/gpu=all",)),)},
        ),
    ),
    "devices by hand": lambda: (
        HOST,
        change(STATE, container={"requests": (), "devices": ("/dev/nvidia0", "/dev/nvidiactl")}),
    ),
    "privileged": lambda: (
        host(toolkit="", ctk="", runtime="", cdi=()),
        change(STATE, container={"requests": (), "privileged": True}),
    ),
    "no device on the bus, and the container has one": lambda: (
        NO_HOST,
        change(STATE, inside=Inside(nodes=(InnerNode(path="/dev/nvidia0"),), smi=0)),
    ),
    "no shell in the container": lambda: (
        HOST,
        change(STATE, inside=Inside(reason='exec: "sh": executable file not found in $PATH')),
    ),
    "llama.cpp": lambda: (HOST, LLAMA_CPP),
    "graphics within an AMD CPU that nothing asks for": lambda: (
        AMD_HOST,
        change(CPU_STATE, vram=(("0000:03:00.0", GIB // 2),)),
    ),
    "graphics within an AMD CPU of an unknown memory": lambda: (AMD_HOST, CPU_STATE),
    "graphics within an AMD CPU that the server uses": lambda: (
        AMD_HOST,
        change(AMD_STATE, vram=(("0000:03:00.0", GIB // 2),)),
    ),
    "a card that is handed to virtual machines": lambda: (host(driver="vfio-pci"), CPU_STATE),
    "a screen's card with nouveau": lambda: (host(driver="nouveau"), CPU_STATE),
    "NVIDIA without its driver beside graphics within an AMD CPU": lambda: (
        Accelerators(devices=(host(driver="").devices[0], AMD)),
        CPU_STATE,
    ),
    "a warning of nvidia-smi's": lambda: (
        HOST,
        change(
            STATE,
            smi={"status": 14, "output": "WARNING: infoROM is corrupted at gpu 0000:01:00.0"},
        ),
    ),
    "one of eight GPUs lost": lambda: (
        HOST,
        change(
            STATE,
            smi={
                "status": 15,
                "output": "Unable to determine the device handle for GPU7: GPU is lost.",
                "gpus": STATE.smi.gpus * 7,
            },
            inside={"smi": 15, "output": "GPU 0: NVIDIA H200 (UUID: GPU-1) Unable to determine"},
        ),
    ),
    "a Jetson": lambda: (
        NO_HOST,
        change(
            STATE,
            smi=Smi(),
            container={
                "requests": (),
                "runtime": "nvidia",
                "settings": (("NVIDIA_VISIBLE_DEVICES", "all"),),
            },
            inside=Inside(),
        ),
    ),
    "a Jetson with its device files": lambda: (
        NO_HOST,
        change(
            STATE,
            smi=Smi(),
            container={
                "requests": (),
                "runtime": "nvidia",
                "settings": (("NVIDIA_VISIBLE_DEVICES", "all"),),
            },
            inside=Inside(nodes=(InnerNode(path="/dev/nvhost-ctrl-gpu"),)),
        ),
    ),
    "Windows' own device file": lambda: (
        NO_HOST,
        change(
            STATE,
            has_dxg=True,
            container={"requests": (), "devices": ("/dev/dxg",)},
            inside=Inside(nodes=(InnerNode(path="/dev/dxg"),)),
        ),
    ),
    "a log that no longer has the start": lambda: (
        HOST,
        change(STATE, samples=((), ()), log=ServerLog(layers=(0, 25))),
    ),
    "Vulkan on AMD with the plain image": lambda: (
        AMD_HOST,
        change(
            AMD_STATE,
            container={"image": "ollama/ollama:0.32.0"},
            log=ServerLog(devices=(Device(library="Vulkan", name="AMD Radeon"),)),
        ),
    ),
}
