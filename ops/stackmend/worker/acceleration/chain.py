"""The chain from an accelerator of a host to the loaded models: which link is missing. Pure."""

from collections.abc import Iterator, Sequence

from stackmend.engine.accelerators.state import Accelerators, Vendor
from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.acceleration.state import (
    AcceleratorChain,
    Container,
    DeviceRequest,
    Inside,
    Link,
    LinkName,
    LinkStatus,
    LoadedModel,
    WorkerAcceleration,
    describe_processor,
)

_NAMES: dict[Vendor, str] = {"nvidia": "NVIDIA", "amd": "AMD"}
_ACCELERATED = 'add "accelerator": "{vendor}" to the stack\'s "engine" section'
_RECREATE = "recreate the container: docker compose up -d --force-recreate {service}"
_RESERVE_NVIDIA = (
    "reserve it in the service {service}, in the compose file or an override of it: "
    "deploy: {{resources: {{reservations: {{devices: "
    "[{{driver: nvidia, count: all, capabilities: [gpu]}}]}}}}}}"
)
_RESERVE_AMD = (
    "use the image's :rocm tag and give the service {service} the devices, in the compose file or "
    'an override of it: devices: ["/dev/kfd", "/dev/dri"]{groups}'
)
#: Variables by which a server is kept from its accelerators.
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_GIB = 1 << 30


def build_chain(
    policy: AccelerationPolicy, accelerators: Accelerators, state: WorkerAcceleration
) -> AcceleratorChain:
    """What lies between an accelerator of a host and the loaded models, link by link.

    A container that opens an accelerator's devices proves the links before it, and a server that
    has found one or has a model on it proves those up to the container. Whether the container can
    open the devices is always read: a model that is on the accelerator stays there when the
    container loses the devices, and the next one does not get there.

    :param policy: what models have to be on.
    :param accelerators: what the host has of accelerators.
    :param state: what the server computes with.
    """
    vendor = choose_vendor(accelerators, state)
    links = [
        _check_host(policy, accelerators, state, vendor),
        _check_driver(accelerators, state, vendor),
        _check_toolkit(accelerators, state, vendor),
        _check_reservation(policy, accelerators, state, vendor),
        _check_container(policy, state, vendor),
        _check_server(policy, state, vendor),
        _check_model(policy, state, vendor),
    ]
    return AcceleratorChain(
        processor=find_processor(state), links=tuple(_complete(_drop_proven(links)))
    )


def choose_vendor(accelerators: Accelerators, state: WorkerAcceleration) -> Vendor | None:
    """Whose accelerator the server is to use; ``None`` where the host has none that is known."""
    vendors: tuple[Vendor, ...] = ("nvidia", "amd")
    container = state.container
    reserved = next(
        (name for name in vendors if container and _has_reservation(container, name)), None
    )
    if reserved and (accelerators.list_devices(reserved) or not accelerators.devices):
        return reserved
    with_driver = (name for name in vendors if accelerators.list_with_driver(name))
    present = (name for name in vendors if accelerators.list_devices(name))
    return next(with_driver, None) or next(present, None)


def is_accelerated(
    policy: AccelerationPolicy, accelerators: Accelerators, state: WorkerAcceleration
) -> bool:
    """Whether models are expected to be on an accelerator."""
    if policy.processor != "auto":
        return policy.processor == "gpu"
    vendors: tuple[Vendor, ...] = ("nvidia", "amd")
    has_driver = any(accelerators.list_with_driver(vendor) for vendor in vendors)
    container = state.container
    is_reserved = container is not None and any(
        _has_reservation(container, name) for name in vendors
    )
    return has_driver or is_reserved or _has_found(state) is True


def find_processor(state: WorkerAcceleration) -> str:
    """Where the loaded models are: ``cpu``, ``gpu``, ``35% gpu``; empty where that is not known."""
    loaded = [model for model in state.loaded if model.size]
    if loaded:
        return describe_processor(
            sum(model.size for model in loaded),
            sum(min(model.size, model.size_vram) for model in loaded),
        )
    if state.log.layers is not None and state.log.devices is None:
        on, of = state.log.layers
        return describe_processor(of, on)
    found = _has_found(state)
    return "cpu" if found is False else ""


def _has_found(state: WorkerAcceleration) -> bool | None:
    """Whether the server has found an accelerator; ``None`` where its log does not say."""
    if state.log.devices is None:
        return None
    return any(device.library.lower() != "cpu" for device in state.log.devices)


def _mark_ok(name: LinkName, *evidence: str) -> Link:
    return Link(name=name, status="ok", evidence=evidence)


def _mark_unknown(name: LinkName, reason: str) -> Link:
    return Link(name=name, status="unknown", reason=reason)


def _mark_unused(name: LinkName, reason: str) -> Link:
    return Link(name=name, status="unused", reason=reason)


def _mark_broken(name: LinkName, kind: str, reason: str, remedy: str, *evidence: str) -> Link:
    return Link(
        name=name, status="broken", kind=kind, reason=reason, remedy=remedy, evidence=evidence
    )


def _check_host(
    policy: AccelerationPolicy,
    accelerators: Accelerators,
    state: WorkerAcceleration,
    vendor: Vendor | None,
) -> Link:
    devices = accelerators.list_devices(vendor) if vendor else ()
    if devices:
        return _mark_ok(
            "host", *(f"{_NAMES[device.vendor]} at {device.address}" for device in devices)
        )
    whose = f"{_NAMES[vendor]}'s" if vendor else "NVIDIA's or AMD's"
    if vendor is None and policy.processor != "gpu":
        return _mark_unused("host", "no accelerator of NVIDIA's or AMD's is on the PCI bus")
    if policy.endpoint is not None and state.container is None and not state.log.devices:
        return _mark_unknown("host", "the server may be on another host")
    return _mark_broken(
        "host",
        "no accelerator",
        f"no accelerator of {whose} is on the host's PCI bus",
        'put one in, hand one to the virtual machine, or set "processor": "cpu" to run without',
    )


def _check_driver(
    accelerators: Accelerators, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    devices = accelerators.list_devices(vendor) if vendor else ()
    if vendor is None or not devices:
        return _mark_unused("driver", "the host has no accelerator")
    if not accelerators.list_with_driver(vendor):
        return _describe_missing_driver(vendor, sorted({device.driver for device in devices}))
    if vendor == "amd":
        if not any(node.path == "/dev/kfd" for node in accelerators.rocm):
            return _mark_broken(
                "driver",
                "no ROCm",
                "amdgpu has the device, and /dev/kfd is missing",
                "use a kernel with HSA_AMD, and a device that AMD's ROCm knows",
            )
        return _mark_ok("driver", "amdgpu")
    smi = state.smi
    version = f"driver {accelerators.driver or smi.driver or 'of an unknown version'}"
    if smi.status in (None, 0):
        return _mark_ok("driver", version)
    if "version mismatch" in smi.output:
        return _mark_broken(
            "driver",
            "driver mismatch",
            "NVIDIA's libraries were updated, and the kernel still has the driver of before",
            "restart the host, so that the driver of the libraries' version is loaded",
            version,
            f"nvidia-smi: {smi.output}",
        )
    if smi.status in (124, 137):
        return _mark_broken(
            "driver",
            "driver hangs",
            "nvidia-smi does not answer within 10 s",
            "restart the host; where it stays so, its kernel log names the GPU's fault (Xid)",
        )
    return _mark_broken(
        "driver",
        "driver fails",
        "nvidia-smi cannot reach the driver",
        "update NVIDIA's driver to one for this kernel, and restart the host",
        version,
        f"nvidia-smi: {smi.output}",
    )


def _describe_missing_driver(vendor: Vendor, drivers: Sequence[str]) -> Link:
    has = ", ".join(filter(None, drivers)) or "none"
    desired = {"nvidia": "nvidia", "amd": "amdgpu"}[vendor]
    if "vfio-pci" in drivers:
        remedy = "it is handed to virtual machines: take it back, or run the server in one of them"
    elif "nouveau" in drivers:
        remedy = (
            "install NVIDIA's driver (Debian: nvidia-driver; Ubuntu: ubuntu-drivers install "
            "--gpgpu), which turns nouveau off, and restart the host"
        )
    elif vendor == "nvidia":
        remedy = (
            "install NVIDIA's driver (Debian: nvidia-driver; Ubuntu: ubuntu-drivers install "
            "--gpgpu) for the running kernel, and restart the host"
        )
    else:
        remedy = "install a kernel with amdgpu, and AMD's firmware, and restart the host"
    reason = f"the driver of {_NAMES[vendor]}'s accelerator is {has}, not {desired}"
    return _mark_broken("driver", "no driver", reason, remedy)


def _check_toolkit(
    accelerators: Accelerators, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    if state.container is None:
        return _mark_unused("toolkit", "the server runs in no container")
    if vendor != "nvidia":
        return _mark_unused("toolkit", "only NVIDIA's accelerators need one")
    remedy = _ACCELERATED.format(vendor="nvidia")
    if not (accelerators.toolkit or accelerators.runtime or accelerators.ctk):
        return _mark_broken(
            "toolkit",
            "no toolkit",
            "NVIDIA's container toolkit is not installed, so that no container reaches the GPU",
            remedy,
        )
    if state.engine.reason:
        return _mark_unknown("toolkit", f"cannot ask Docker: {state.engine.reason}")
    if "nvidia" in state.engine.runtimes:
        return _mark_ok("toolkit", "the engine has the runtime nvidia")
    if state.engine.cdi and accelerators.cdi:
        return _mark_ok("toolkit", f"the engine reads {accelerators.cdi[-1].path}")
    return _mark_broken(
        "toolkit",
        "toolkit not registered",
        "NVIDIA's container toolkit is installed, and the engine does not know it: it has neither "
        "the runtime nvidia nor a description of the devices (CDI)",
        remedy,
        f"runtimes: {', '.join(state.engine.runtimes) or 'none'}",
    )


def _is_gpu(request: DeviceRequest) -> bool:
    names = " ".join(request.ids)
    return (
        request.driver == "nvidia"
        or "gpu" in request.capabilities
        or "nvidia.com/gpu" in names
        or "amd.com/gpu" in names
    )


def _has_reservation(container: Container, vendor: Vendor) -> bool:
    """Whether a container was made with an accelerator of a vendor's."""
    if container.privileged:
        return True
    if vendor == "amd":
        names = " ".join(name for request in container.requests for name in request.ids)
        has_nodes = "/dev/kfd" in container.devices
        return has_nodes or "amd.com/gpu" in names
    if any(
        _is_gpu(request) and not any("amd.com" in name for name in request.ids)
        for request in container.requests
    ):
        return True
    if any(path.startswith("/dev/nvidia") for path in container.devices):
        return True
    visible = container.find_setting("NVIDIA_VISIBLE_DEVICES")
    return container.runtime == "nvidia" and visible not in ("", "void", "none")


def _check_reservation(
    policy: AccelerationPolicy,
    accelerators: Accelerators,
    state: WorkerAcceleration,
    vendor: Vendor | None,
) -> Link:
    container = state.container
    if container is None:
        return _mark_unused("reservation", "the server runs in no container")
    if vendor is None:
        return _mark_unused("reservation", "the host has no accelerator")
    service = policy.service
    if _has_reservation(container, vendor):
        image = container.image.rpartition("/")[2]
        if vendor == "amd" and image.startswith("ollama") and "rocm" not in image:
            return _mark_broken(
                "reservation",
                "image without ROCm",
                f"the image {container.image} computes with NVIDIA's accelerators only",
                f"use its :rocm tag in the service {service}",
            )
        return _mark_ok("reservation", _describe_reservation(container))
    if vendor == "nvidia":
        remedy = _RESERVE_NVIDIA.format(service=service)
        if container.runtime == "nvidia":
            visible = container.find_setting("NVIDIA_VISIBLE_DEVICES") or "not set"
            return _mark_broken(
                "reservation",
                "not reserved",
                f"NVIDIA_VISIBLE_DEVICES is {visible} in the container, which leaves it without",
                f"set NVIDIA_VISIBLE_DEVICES=all in the service {service}, or {remedy}",
            )
    else:
        groups = ", ".join(f'"{group}"' for group in accelerators.groups)
        remedy = _RESERVE_AMD.format(
            service=service, groups=f", group_add: [{groups}]" if groups else ""
        )
    return _mark_broken(
        "reservation",
        "not reserved",
        f"the container {container.name} was made without an accelerator",
        remedy,
    )


def _describe_reservation(container: Container) -> str:
    if container.privileged:
        return "the container is privileged"
    for request in container.requests:
        if _is_gpu(request):
            number = "all" if request.count < 0 else str(request.count or len(request.ids))
            return f"{number} by the driver {request.driver or 'nvidia'}"
    if container.devices:
        return ", ".join(container.devices)
    return f"the runtime {container.runtime}"


def _select_nodes(inside: Inside, vendor: Vendor | None) -> tuple[str, ...]:
    prefixes = ("/dev/kfd", "/dev/dri/") if vendor == "amd" else ("/dev/nvidia", "/dev/dxg")
    return tuple(node.path for node in inside.nodes if node.path.startswith(prefixes))


def _check_container(
    policy: AccelerationPolicy, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    container, inside = state.container, state.inside
    if container is None:
        return _mark_unused("container", "the server runs in no container")
    if vendor is None:
        return _mark_unused("container", "the host has no accelerator")
    if inside is None:
        return _mark_unknown("container", f"the container {container.name} is {container.status}")
    if inside.reason:
        return _mark_unknown("container", f"cannot execute a shell in it: {inside.reason}")
    recreate = _RECREATE.format(service=policy.service)
    paths = _select_nodes(inside, vendor)
    if not any(path.removeprefix("/dev/nvidia").isdecimal() for path in paths) and not any(
        path.startswith(("/dev/kfd", "/dev/dxg")) for path in paths
    ):
        return _mark_broken(
            "container",
            "not visible",
            f"the container {container.name} has no device file of the accelerator",
            recreate,
            *(f"it has {path}" for path in paths),
        )
    denied = [node for node in inside.nodes if node.problem and node.path in paths]
    if denied:
        return _describe_denied(vendor, denied[0].problem, [node.path for node in denied], recreate)
    if vendor == "nvidia" and inside.smi not in (None, 0):
        if "Unknown Error" in inside.output:
            return _describe_denied(vendor, inside.output, ["nvidia-smi"], recreate)
        return _mark_broken(
            "container",
            "driver fails in the container",
            "nvidia-smi fails in the container, whose libraries are those of when it was made",
            recreate,
            f"nvidia-smi: {inside.output}",
        )
    return _mark_ok("container", *paths)


def _describe_denied(vendor: Vendor, problem: str, paths: Sequence[str], recreate: str) -> Link:
    evidence = (*(f"{path}: {problem}" for path in paths[:4]),)
    if "ermission denied" in problem:
        return _mark_broken(
            "container",
            "not permitted",
            "the server's user may not open the accelerator's device files",
            "add the group that owns them to the service's group_add, by number",
            *evidence,
        )
    if "o such device" in problem:
        return _mark_broken(
            "container",
            "device removed",
            "the accelerator that the container was made with is no longer there",
            f"restart the host's driver or the host, then {recreate}",
            *evidence,
        )
    return _mark_broken(
        "container",
        "access lost",
        "the container has the accelerator's device files and may not open them: systemd has read "
        "its units again (systemctl daemon-reload, which upgrades of packages run) and took the "
        "permission away, or it was never there",
        f"{recreate}; {_ACCELERATED.format(vendor=vendor)}, which verifies that access stays",
        *evidence,
    )


def _check_server(
    policy: AccelerationPolicy, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    log = state.log
    found = _has_found(state)
    if found:
        devices = [device for device in log.devices or () if device.library.lower() != "cpu"]
        names = (f"{found.library} {found.name} {found.memory}".strip() for found in devices)
        return _mark_ok("server", *names)
    if any(model.size_vram for model in state.loaded):
        return _mark_ok("server", "it has a model on an accelerator")
    if found is None and log.layers and log.layers[0] > 0:
        return _mark_ok(
            "server", f"{log.layers[0]} of {log.layers[1]} layers are on an accelerator"
        )
    if vendor is None and policy.processor != "gpu":
        return _mark_unused("server", "the host has no accelerator")
    if found is None and log.layers is None:
        return _mark_unknown(
            "server", "the server's log does not hold what it found when it started"
        )
    container = state.container
    hidden = [
        f"{name}={value}"
        for name in _HIDING
        if (value := state.find_setting(name)) in ("-1", "none", "NoDevFiles")
    ]
    library = state.find_setting("OLLAMA_LLM_LIBRARY")
    if library.startswith("cpu"):
        hidden.append(f"OLLAMA_LLM_LIBRARY={library}")
    restart = "docker compose restart" if container else "systemctl restart"
    service = policy.service
    if hidden:
        remedy = f"remove {' and '.join(hidden)} from the environment of {service}"
    else:
        remedy = (
            f"restart the server, which searches when it starts: {restart} {service}; where it "
            "still finds none, update the driver or the server: each needs a version that knows "
            "the other"
        )
    evidence = [*hidden, *log.warnings]
    if found is None and log.layers:
        evidence.append(f"0 of {log.layers[1]} layers are on an accelerator")
    return _mark_broken(
        "server",
        "not found by the server",
        "the server found no accelerator when it started, and computes with the CPU",
        remedy,
        *evidence,
    )


def _check_model(
    policy: AccelerationPolicy, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    loaded = [model for model in state.loaded if model.size]
    if not loaded:
        if state.log.layers and state.log.devices is None and not state.samples:
            on, of = state.log.layers
            if on >= of * policy.share:
                return _mark_ok("model", f"{on} of {of} layers are on the accelerator")
        reason = "no model is loaded" if state.samples else f"it is not known: {state.reason}"
        return _mark_unknown("model", reason)
    missing = [model for model in loaded if model.size_vram < model.size * policy.share]
    if not missing:
        return _mark_ok("model", *map(_describe_model, loaded))
    if (
        vendor is None
        and policy.processor != "gpu"
        and not any(model.size_vram for model in loaded)
    ):
        return _mark_unused("model", "the host has no accelerator")
    evidence = [*map(_describe_model, missing), *_list_memory(state)]
    if all(model.size_vram == 0 for model in missing):
        return _mark_broken(
            "model",
            "model on CPU",
            f"{_join(missing)} computes with the CPU alone",
            "take a smaller model or a stronger quantization that fits into the accelerator's "
            "memory; num_gpu 0 in a request or a Modelfile keeps a model off it: remove it there",
            *evidence,
        )
    lacking = sum(model.size - model.size_vram for model in missing)
    settings = _list_context(state)
    return _mark_broken(
        "model",
        "model partly on CPU",
        f"{_join(missing)} is only partly on the accelerator, and the part beside it sets the "
        f"pace: {lacking / _GIB:.1f} GiB are lacking",
        "take a smaller model or a stronger quantization, or a smaller num_ctx or "
        "OLLAMA_NUM_PARALLEL; OLLAMA_FLASH_ATTENTION=1 with OLLAMA_KV_CACHE_TYPE=q8_0 halves the "
        "context's share" + (f" (now {settings})" if settings else ""),
        *evidence,
    )


def _join(models: Sequence[LoadedModel]) -> str:
    return ", ".join(model.name for model in models)


def _describe_model(model: LoadedModel) -> str:
    on, of = min(model.size, model.size_vram) / _GIB, model.size / _GIB
    context = f", context {model.context}" if model.context else ""
    processor = describe_processor(model.size, model.size_vram)
    return f"{model.name}: {on:.1f} of {of:.1f} GiB on the accelerator ({processor}{context})"


def _list_memory(state: WorkerAcceleration) -> Iterator[str]:
    for gpu in state.smi.gpus:
        if gpu.memory:
            used, memory = gpu.used / _GIB, gpu.memory / _GIB
            yield f"{gpu.name}: {used:.1f} of {memory:.1f} GiB in use"


def _list_context(state: WorkerAcceleration) -> str:
    names = ("OLLAMA_CONTEXT_LENGTH", "OLLAMA_NUM_PARALLEL", "OLLAMA_KV_CACHE_TYPE")
    pairs = ((name, state.find_setting(name)) for name in names)
    return ", ".join(f"{name}={value}" for name, value in pairs if value)


def _drop_proven(links: Sequence[Link]) -> Iterator[Link]:
    """A link that is only there by means of one before it proves that one."""
    by_name = {link.name: link for link in links}
    container = by_name["container"].status == "ok"
    used = by_name["server"].status == "ok" or by_name["model"].status == "ok"
    for link in links:
        proven: LinkStatus = "ok"
        is_before = link.name in ("host", "toolkit", "reservation")
        if link.status == "broken" and is_before and (container or used):
            by = "the container opens its devices" if container else "the server uses it"
            yield Link(name=link.name, status=proven, evidence=(by,))
        else:
            yield link


def _complete(links: Iterator[Link]) -> Iterator[Link]:
    """What follows a broken link is not known, but for what is broken by itself."""
    broken = False
    for link in links:
        if broken and link.status == "broken" and link.name in ("container", "server", "model"):
            yield _mark_unknown(link.name, "a link before it is broken")
        else:
            yield link
        broken = broken or link.status == "broken"
