"""The chain from an accelerator of a host to the loaded models: which link is missing. Pure."""

import math
import re
from collections.abc import Iterator, Sequence

from stackmend.engine.accelerators.state import DRIVERS, Accelerators, Vendor
from stackmend.worker.acceleration import remedies, retention
from stackmend.worker.acceleration.expected import (
    choose_vendor,
    describe_idle,
    has_found,
    has_reservation,
    is_gpu,
)
from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.acceleration.state import (
    AcceleratorChain,
    Container,
    Inside,
    Link,
    LinkName,
    LinkStatus,
    LoadedModel,
    WorkerAcceleration,
    describe_processor,
)

_NAMES: dict[Vendor, str] = {"nvidia": "NVIDIA", "amd": "AMD"}
_GIB = 1 << 30
_MIB = 1 << 20

#: ``nvidia-smi`` of a GPU that the bus has lost.
_LOST = re.compile(
    r"GPU is lost|fallen off|No devices were found|Unable to determine the device handle"
)

#: A GPU as ``nvidia-smi -L`` lists it.
_LISTED = re.compile(r"GPU [0-9]+: ")

#: The links that say nothing once one before them is broken.
_DEPENDENT = ("container", "server", "model", "reload")

#: The device files of NVIDIA's Jetson, which are not those of its cards.
_TEGRA = ("/dev/nvhost-", "/dev/nvmap", "/dev/nvgpu")


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
    vendor = choose_vendor(policy, accelerators, state)
    if not state.is_local:
        return AcceleratorChain(
            processor=find_processor(state), links=tuple(_check_elsewhere(policy, state))
        )
    links = [
        _check_host(policy, accelerators, state, vendor),
        _check_driver(accelerators, state, vendor),
        _check_toolkit(accelerators, state, vendor),
        _check_reservation(policy, accelerators, state, vendor),
        _check_container(accelerators, state, vendor),
        _check_server(policy, accelerators, state, vendor),
        _check_model(policy, state, vendor),
        _check_reload(policy, state, vendor),
    ]
    return AcceleratorChain(
        processor=find_processor(state),
        links=tuple(_complete(_drop_proven(links))),
        notes=tuple(_list_notes(accelerators, state, vendor)),
    )


def _list_notes(
    accelerators: Accelerators, state: WorkerAcceleration, vendor: Vendor | None
) -> Iterator[str]:
    if vendor is None and (idle := describe_idle(accelerators)):
        yield idle
    if state.log.reason:
        yield f"the server's log was not read to its end: {state.log.reason}"


def _check_elsewhere(policy: AccelerationPolicy, state: WorkerAcceleration) -> Iterator[Link]:
    """The chain of a server on another host, of which only the models are known."""
    names: tuple[LinkName, ...] = ("host", "driver", "toolkit", "reservation", "container")
    for name in names:
        yield _mark_unused(name, "the server is on another host")
    if any(model.size_vram for model in state.loaded):
        yield _mark_ok("server", "it has a model on an accelerator")
    else:
        yield _mark_unknown("server", "the server is on another host")
    yield _check_model(policy, state, None)
    yield _mark_unused("reload", "the server is on another host")


def find_processor(state: WorkerAcceleration) -> str:
    """Where the loaded models are: ``cpu``, ``gpu``, ``35% gpu``; empty where that is not known."""
    loaded = [model for model in state.loaded if model.size]
    if loaded:
        return describe_processor(
            sum(model.size for model in loaded),
            sum(min(model.size, model.size_vram) for model in loaded),
        )
    if state.log.layers is not None and state.log.devices is None and not state.version:
        on, of = state.log.layers
        return describe_processor(of, on)
    return "cpu" if has_found(state) is False else ""


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
        reason = describe_idle(accelerators)
        return _mark_unused(
            "host", reason or "no accelerator of NVIDIA's or AMD's is on the PCI bus"
        )
    if vendor == "nvidia" and state.has_dxg:
        return _mark_ok("host", "/dev/dxg, Windows' own")
    return _mark_broken(
        "host",
        "no accelerator",
        f"no accelerator of {whose} is on the host's PCI bus",
        f"put one in, hand one to the virtual machine, {remedies.OR_CPU}",
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
    outputs = (version, *([f"nvidia-smi: {smi.output}"] if smi.output else []))
    if smi.status in (124, 137):
        return _mark_broken(
            "driver",
            "driver hangs",
            "nvidia-smi does not answer within 10 s",
            "restart the host; where it stays so, its kernel log names the GPU's fault (Xid)",
        )
    if smi.status is None or smi.gpus:
        # It exits with another status of a warning, and of one lost GPU beside others.
        return _mark_ok("driver", *outputs)
    if "version mismatch" in smi.output:
        return _mark_broken(
            "driver",
            "driver mismatch",
            "NVIDIA's libraries were updated, and the kernel still has the driver of before",
            "restart the host, so that the driver of the libraries' version is loaded",
            *outputs,
        )
    if _LOST.search(smi.output):
        return _mark_broken(
            "driver",
            "GPU lost",
            "the driver has lost the GPU, which is still on the PCI bus",
            remedies.GPU_LOST,
            *outputs,
        )
    if smi.status == 0:
        return _mark_ok("driver", *outputs)
    return _mark_broken(
        "driver",
        "driver fails",
        "nvidia-smi cannot reach the driver",
        "update NVIDIA's driver to one for this kernel, and restart the host",
        *outputs,
    )


def _describe_missing_driver(vendor: Vendor, drivers: Sequence[str]) -> Link:
    bound = [driver for driver in drivers if driver]
    if bound:
        reason = (
            f"{_NAMES[vendor]}'s device has the driver {', '.join(bound)}, not {DRIVERS[vendor]}"
        )
    else:
        reason = f"no driver is bound to the {_NAMES[vendor]} device"
    remedy = remedies.describe_missing_driver(vendor, bound)
    return _mark_broken("driver", "no driver", reason, f"{remedy}, {remedies.OR_CPU}")


def _check_toolkit(
    accelerators: Accelerators, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    if state.container is None:
        return _mark_unused("toolkit", "the server runs in no container")
    if vendor != "nvidia":
        return _mark_unused("toolkit", "only NVIDIA's accelerators need one")
    remedy = remedies.ACCELERATED.format(vendor="nvidia")
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
    if has_reservation(container, vendor):
        image = container.image.rpartition("/")[2]
        if vendor == "amd" and image.startswith("ollama") and "rocm" not in image:
            return _mark_broken(
                "reservation",
                "image without ROCm",
                f"the image {container.image} computes with NVIDIA's accelerators only",
                f"use its :rocm tag in the service {service}",
            )
        return _mark_ok("reservation", _describe_reservation(container))
    remedy = f"{remedies.reserve(policy, accelerators, vendor)}; {remedies.OR_CPU}"
    if vendor == "nvidia" and container.runtime == "nvidia":
        visible = container.find_setting("NVIDIA_VISIBLE_DEVICES") or "not set"
        return _mark_broken(
            "reservation",
            "not reserved",
            f"NVIDIA_VISIBLE_DEVICES is {visible} in the container, which leaves it without",
            f"set NVIDIA_VISIBLE_DEVICES=all in the service {service}, or {remedy}",
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
        if is_gpu(request):
            number = "all" if request.count < 0 else str(request.count or len(request.ids))
            return f"{number} by the driver {request.driver or 'nvidia'}"
    if container.devices:
        return ", ".join(container.devices)
    return f"the runtime {container.runtime}"


def _select_nodes(inside: Inside, vendor: Vendor | None) -> tuple[str, ...]:
    prefixes = (
        ("/dev/kfd", "/dev/dri/") if vendor == "amd" else ("/dev/nvidia", "/dev/dxg", *_TEGRA)
    )
    return tuple(node.path for node in inside.nodes if node.path.startswith(prefixes))


def _is_device(path: str) -> bool:
    """Whether a device file is one of an accelerator itself, and not only of its driver."""
    return path.removeprefix("/dev/nvidia").isdecimal() or path.startswith(
        ("/dev/kfd", "/dev/dxg", *_TEGRA)
    )


def _check_container(
    accelerators: Accelerators, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    container, inside = state.container, state.inside
    if container is None:
        return _mark_unused("container", "the server runs in no container")
    if vendor is None:
        return _mark_unused("container", "the host has no accelerator")
    if inside is None:
        running = container.status == "running"
        reason = "nvidia-smi hangs on the host" if running else f"it is {container.status}"
        return _mark_unknown("container", f"the container {container.name} was not read: {reason}")
    if inside.reason:
        return _mark_unknown("container", f"cannot execute a shell in it: {inside.reason}")
    recreate = remedies.recreate(state)
    paths = _select_nodes(inside, vendor)
    if not any(map(_is_device, paths)):
        used = has_found(state) or any(model.size_vram for model in state.loaded)
        if not inside.nodes and not accelerators.list_devices(vendor) and used:
            # Boards have device files by other names than cards on the bus.
            return _mark_unknown(
                "container", "the container has no device file that is known, and uses a GPU"
            )
        return _mark_broken(
            "container",
            "not visible",
            f"the container {container.name} has no device file of the accelerator",
            recreate,
            *(f"it has {path}" for path in paths),
        )
    denied = [node for node in inside.nodes if node.problem and node.path in paths]
    if denied:
        return _describe_denied(state, vendor, denied[0].problem, [node.path for node in denied])
    if vendor == "nvidia" and inside.smi in (124, 137):
        return _mark_broken(
            "container",
            "driver hangs in the container",
            "nvidia-smi does not answer within 8 s in the container",
            "restart the host; where it stays so, its kernel log names the GPU's fault (Xid)",
        )
    if vendor == "nvidia" and inside.smi not in (None, 0) and not _LISTED.search(inside.output):
        if "Unknown Error" in inside.output:
            return _describe_denied(state, vendor, inside.output, ["nvidia-smi"])
        if _LOST.search(inside.output):
            return _mark_broken(
                "container",
                "GPU lost",
                "the driver has lost the GPU that the container was made with",
                remedies.GPU_LOST,
                f"nvidia-smi: {inside.output}",
            )
        return _mark_broken(
            "container",
            "driver fails in the container",
            "nvidia-smi fails in the container, whose libraries are those of when it was made",
            recreate,
            f"nvidia-smi: {inside.output}",
        )
    return _mark_ok("container", *paths)


def _describe_denied(
    state: WorkerAcceleration, vendor: Vendor, problem: str, paths: Sequence[str]
) -> Link:
    name = state.container.name if state.container else ""
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
            f"restart the host's driver or the host, then {remedies.recreate(state)}",
            *evidence,
        )
    return _mark_broken(
        "container",
        "access lost",
        "the container has the accelerator's device files and may not open them: systemd has read "
        "its units again (systemctl daemon-reload, which upgrades of packages run) and took the "
        "permission away, or it was never there",
        f"docker restart {name}; so that access stays, "
        + remedies.ACCELERATED.format(vendor=vendor),
        *evidence,
    )


def _check_server(
    policy: AccelerationPolicy,
    accelerators: Accelerators,
    state: WorkerAcceleration,
    vendor: Vendor | None,
) -> Link:
    log = state.log
    found = has_found(state)
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
    if found is None and (log.layers is None or state.version):
        # Layers say of another server's start what Ollama's say of one model only.
        return _mark_unknown(
            "server",
            log.reason or "the server's log does not hold what it found when it started",
        )
    evidence = [*remedies.list_hiding(state), *log.warnings]
    if found is None and log.layers:
        evidence.append(f"0 of {log.layers[1]} layers are on an accelerator")
    remedy = remedies.describe_search(policy, accelerators, state, vendor)
    return _mark_broken(
        "server",
        "not found by the server",
        "the server found no accelerator when it started, and computes with the CPU",
        f"{remedy}; {remedies.OR_CPU}",
        *evidence,
    )


def _check_model(
    policy: AccelerationPolicy, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    loaded = [model for model in state.loaded if model.size]
    share = 1.0 if policy.share is None else policy.share
    # Where nobody says what is enough, a larger context fails no run.
    blocks = policy.share is not None or policy.processor == "gpu"
    if not loaded:
        if state.log.layers and state.log.devices is None and not state.samples:
            return _check_layers(policy, state.log.layers, share, blocks=blocks)
        reason = "no model is loaded" if state.samples else f"it is not known: {state.reason}"
        return _mark_unknown("model", reason)
    desired = [model for model in loaded if not _is_for_cpu(policy, model)]
    missing = [model for model in desired if model.size_vram < model.size * share]
    if not missing:
        return _mark_ok("model", *map(_describe_model, loaded))
    if (
        vendor is None
        and policy.processor != "gpu"
        and not any(model.size_vram for model in loaded)
    ):
        where = "the host has no accelerator" if state.is_local else "none is expected"
        return _mark_unused("model", where)
    evidence = [*map(_describe_model, missing), *_list_memory(state)]
    names = ", ".join(f'"{model.name}"' for model in missing)
    if all(model.size_vram == 0 for model in missing):
        # One on the CPU beside another that is not is there on purpose, as embeddings are.
        is_beside = any(model.size_vram >= model.size * share for model in desired)
        return _mark_broken(
            "model",
            "model on CPU",
            f"{_join(missing)} computes with the CPU alone",
            "take a smaller model or a stronger quantization that fits into the accelerator's "
            "memory; num_gpu 0 in a request or a Modelfile keeps a model off it: remove it there, "
            f'or name it: "cpu_models": [{names}]; {remedies.OR_CPU}',
            *evidence,
        ).model_copy(update={"blocks": not is_beside})
    lacking = sum(model.size - model.size_vram for model in missing)
    least = min(model.size_vram / model.size for model in missing)
    settings = _list_context(state)
    return _mark_broken(
        "model",
        "model partly on CPU",
        f"{_join(missing)} is only partly on the accelerator, and the part beside it sets the "
        f"pace: {_format_bytes(lacking)} are lacking",
        "take a smaller model or a stronger quantization, or a smaller num_ctx or "
        "OLLAMA_NUM_PARALLEL; OLLAMA_FLASH_ATTENTION=1 with OLLAMA_KV_CACHE_TYPE=q8_0 halves the "
        "context's share"
        + (f" (now {settings})" if settings else "")
        + f'; or set the share that is enough: "share": {_format_share(least)}',
        *evidence,
    ).model_copy(update={"blocks": blocks})


def _check_layers(
    policy: AccelerationPolicy, layers: tuple[int, int], share: float, *, blocks: bool
) -> Link:
    """The model of a server that only says how many of its layers are on an accelerator."""
    on, of = layers
    if on >= of * share:
        return _mark_ok("model", f"{on} of {of} layers are on the accelerator")
    if on == 0:
        return _mark_unknown("model", "no layer of it is on an accelerator")
    return _mark_broken(
        "model",
        "model partly on CPU",
        f"{on} of {of} layers of the model are on the accelerator, and the others set the pace",
        f"raise the number of layers that {policy.service} puts there (--n-gpu-layers), or take a "
        "smaller model, a stronger quantization or a smaller context; or set the share that is "
        f'enough: "share": {_format_share(on / of)}',
    ).model_copy(update={"blocks": blocks})


def _check_reload(
    policy: AccelerationPolicy, state: WorkerAcceleration, vendor: Vendor | None
) -> Link:
    """Whether the container keeps the devices when systemd reads its units again."""
    if state.container is None:
        return _mark_unused("reload", "the server runs in no container")
    if vendor is None:
        return _mark_unused("reload", "the host has no accelerator")
    if vendor != "nvidia":
        return _mark_unused("reload", "only NVIDIA's toolkit hands out devices without systemd")
    if state.engine.cgroup_driver == "cgroupfs":
        return _mark_ok("reload", "the engine makes control groups without systemd")
    if state.scope is None:
        return _mark_unknown("reload", "systemd has no unit of the container that could be read")
    nodes = state.inside.nodes if state.inside else ()
    opened = tuple(node.path for node in nodes if not node.problem and _is_device(node.path))
    if not opened:
        return _mark_unknown("reload", "the container opens no device file that is known")
    if lost := retention.list_lost(state.scope, opened):
        return _mark_broken(
            "reload",
            "lost at a daemon-reload",
            f"the container {state.container.name} opens the accelerator now, and systemd does not "
            "know of it: at the next systemctl daemon-reload, which upgrades of packages run, it "
            "takes the permission away",
            remedies.keep(policy, state),
            *(f"its scope's DeviceAllow does not list {path}" for path in lost[:4]),
        ).model_copy(update={"blocks": False})
    return _mark_ok("reload", "systemd lets the container's scope open the devices")


def _format_share(value: float) -> str:
    """A share that is not above this one, as a user writes it."""
    return f"{max(0.01, math.floor(value * 100) / 100):g}"


def _format_bytes(value: int) -> str:
    return f"{value / _GIB:.1f} GiB" if value * 10 >= _GIB else f"{max(1, value // _MIB)} MiB"


def _is_for_cpu(policy: AccelerationPolicy, model: LoadedModel) -> bool:
    name = model.name.removesuffix(":latest")
    return name in {desired.removesuffix(":latest") for desired in policy.cpu_models}


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
        if broken and link.status == "broken" and link.name in _DEPENDENT:
            yield _mark_unknown(link.name, "a link before it is broken")
        else:
            yield link
        broken = broken or link.status == "broken"
