"""What would mend each link of the chain. Pure."""

import re
from collections.abc import Iterator

from stackmend.engine.accelerators.state import Accelerators, Vendor
from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.acceleration.state import WorkerAcceleration

#: What leaves the chain as it is.
OR_CPU = 'or set "processor": "cpu" in the stack\'s "worker": {"accelerated": ...} to run without'

#: Without a channel the section ``engine`` installs Docker's own engine.
ACCELERATED = (
    'run engine.accelerated(vendor="{vendor}"), or add "accelerator": "{vendor}" to the stack\'s '
    '"engine" section, with "channel": "distro" where the engine is the distribution\'s'
)

GPU_LOST = (
    "restart the host; where its kernel log has Xid 79 (the GPU fell off the bus), check the "
    "card's power cable, its slot and its temperature"
)

_RESERVE_NVIDIA = (
    "reserve it in the service {service}, in the compose file or an override of it: "
    "deploy: {{resources: {{reservations: {{devices: "
    "[{{driver: nvidia, count: all, capabilities: [gpu]}}]}}}}}}"
)
_RESERVE_AMD = (
    "use the image's :rocm tag and give the service {service} the devices, in the compose file or "
    'an override of it: devices: ["/dev/kfd", "/dev/dri"]{groups}'
)

_RESERVE_CDI = (
    "reserve it by CDI in the service {service}, in the compose file or an override of it: "
    "deploy: {{resources: {{reservations: {{devices: "
    "[{{driver: cdi, device_ids: [nvidia.com/gpu=all], capabilities: [gpu]}}]}}}}}}"
)

#: Variables by which a server is kept from its accelerators.
_HIDING = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
)

#: Text of the server's log, and what to do about it; ``{service}`` is its name.
_LOGGED = (
    (
        re.compile(r"dropping integrated GPU"),
        "set OLLAMA_IGPU_ENABLE=1 in the environment of {service}: it leaves graphics within the "
        "CPU alone otherwise",
    ),
    (
        re.compile(r"dropping ROCm device|amdgpu is not supported"),
        "set HSA_OVERRIDE_GFX_VERSION in the environment of {service} to a target beside the GPU's "
        "that ROCm supports, such as 10.3.0 for gfx1031",
    ),
    (
        re.compile(r"unsupported Radeon iGPU|amdgpu too old"),
        "use a server of a later version: this one does not compute with such a GPU",
    ),
    (
        re.compile(r"permission problems block access"),
        "add the groups that own /dev/kfd and /dev/dri/renderD* to the service's group_add, by "
        "number",
    ),
    (
        re.compile(r"no compatible rocm library"),
        "use the image's :rocm tag in the service {service}",
    ),
    (
        re.compile(r"driver (?:is )?too old", re.IGNORECASE),
        "update the GPU's driver on the host to one that the server's version knows",
    ),
)


def restart(policy: AccelerationPolicy, state: WorkerAcceleration) -> str:
    """The command that restarts the server.

    :param policy: whose server it is.
    :param state: what it computes with.
    """
    if state.container is not None:
        return f"docker restart {state.container.name}"
    return f"systemctl restart {state.unit or policy.service}"


def recreate(state: WorkerAcceleration) -> str:
    """How the server's container is recreated, of all files that its stack consists of.

    :param state: what the server computes with.
    """
    name = state.container.name if state.container else ""
    return f"docker rm -f {name}, then run deploy/site.py, which recreates the container"


def keep(policy: AccelerationPolicy, state: WorkerAcceleration) -> str:
    """How a container is given NVIDIA's devices so that systemd knows of them.

    :param policy: whose server it is.
    :param state: what it computes with.
    """
    remedy = f"{_RESERVE_CDI.format(service=policy.service)}; then run deploy/site.py"
    if state.engine.cdi:
        return remedy
    return f"{ACCELERATED.format(vendor='nvidia')}, so that the engine reads CDI; then {remedy}"


def reserve(policy: AccelerationPolicy, accelerators: Accelerators, vendor: Vendor) -> str:
    """How a service is given an accelerator.

    :param policy: whose service it is.
    :param accelerators: what the host has of accelerators.
    :param vendor: whose accelerator.
    """
    if vendor == "nvidia":
        return _RESERVE_NVIDIA.format(service=policy.service)
    groups = ", ".join(f'"{group}"' for group in accelerators.groups)
    return _RESERVE_AMD.format(
        service=policy.service, groups=f", group_add: [{groups}]" if groups else ""
    )


def list_hiding(state: WorkerAcceleration) -> Iterator[str]:
    """The variables of a server that keep it from its accelerators, with their values.

    :param state: what the server computes with.
    """
    for name in _HIDING:
        value = state.find_setting(name)
        # One that is set and empty names no device; one that is not set hides none.
        if value in ("-1", "none", "NoDevFiles") or (not value and state.has_setting(name)):
            yield f"{name}={value}"
    library = state.find_setting("OLLAMA_LLM_LIBRARY")
    if library.startswith("cpu"):
        yield f"OLLAMA_LLM_LIBRARY={library}"


def find_logged(policy: AccelerationPolicy, state: WorkerAcceleration) -> str:
    """What to do about what the server's log says of accelerators; empty where it says nothing.

    :param policy: whose server it is.
    :param state: what it computes with.
    """
    for line in state.log.warnings:
        for pattern, remedy in _LOGGED:
            if pattern.search(line):
                return remedy.format(service=policy.service)
    return ""


def describe_search(
    policy: AccelerationPolicy,
    accelerators: Accelerators,
    state: WorkerAcceleration,
    vendor: Vendor | None,
) -> str:
    """What has a server find the accelerator that it did not find.

    :param policy: whose server it is.
    :param accelerators: what the host has of accelerators.
    :param state: what the server computes with.
    :param vendor: whose accelerator it is.
    """
    if hidden := list(list_hiding(state)):
        return f"remove {' and '.join(hidden)} from the environment of {policy.service}"
    if logged := find_logged(policy, state):
        return logged
    container = state.container
    if vendor == "nvidia" and container is not None:
        capabilities = state.find_setting("NVIDIA_DRIVER_CAPABILITIES")
        if capabilities and not {"compute", "all"} & set(capabilities.split(",")):
            return (
                f"set NVIDIA_DRIVER_CAPABILITIES=compute,utility in the service {policy.service}: "
                f"{capabilities} brings no library to compute with"
            )
        by_hand = container.privileged or any(
            path.startswith("/dev/nvidia") for path in container.devices
        )
        if by_hand and not container.requests and container.runtime != "nvidia":
            return "the container has device files and not the driver's libraries: " + reserve(
                policy, accelerators, vendor
            )
    paths = {node.path for node in accelerators.nodes}
    if vendor == "nvidia" and "/dev/nvidia0" in paths and "/dev/nvidia-uvm" not in paths:
        return (
            "make /dev/nvidia-uvm, without which nothing computes with CUDA: nvidia-modprobe -u "
            f"-c=0; then {restart(policy, state)}"
        )
    return (
        f"restart the server, which searches when it starts: {restart(policy, state)}; where it "
        "still finds none, update the driver or the server: each needs a version that knows the "
        "other"
    )


def describe_missing_driver(vendor: Vendor, drivers: list[str]) -> str:
    """How a device gets the driver that containers can use it through.

    :param vendor: whose device it is.
    :param drivers: that its devices have.
    """
    if "vfio-pci" in drivers:
        return "take it back from the virtual machines it is handed to, or run the server in one"
    if vendor == "amd":
        return "install a kernel with amdgpu, and AMD's firmware, and restart the host"
    install = (
        "install NVIDIA's driver (Debian: nvidia-driver; Ubuntu: ubuntu-drivers install --gpgpu)"
    )
    if "nouveau" in drivers:
        return f"{install}, which turns nouveau off, and restart the host"
    return f"{install} for the running kernel, and restart the host"
