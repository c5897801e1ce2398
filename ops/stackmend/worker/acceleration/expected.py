"""Whose accelerator a server is to use, and whether its models are expected to be on it. Pure."""

from stackmend.engine.accelerators.state import DRIVERS, Accelerators, Vendor
from stackmend.worker.acceleration.spec import AccelerationPolicy
from stackmend.worker.acceleration.state import Container, DeviceRequest, WorkerAcceleration

#: Vendors in the order in which a server prefers them.
VENDORS: tuple[Vendor, ...] = tuple(DRIVERS)

#: Bytes of its own memory that a card has and graphics within a CPU seldom take of the host's.
DISCRETE = 5 << 30


def choose_vendor(
    policy: AccelerationPolicy, accelerators: Accelerators, state: WorkerAcceleration
) -> Vendor | None:
    """Whose accelerator the server is to use; ``None`` for nobody's.

    Graphics within a CPU, which every kernel has the driver of, and a card without its driver count
    only where something asks for them: the policy, a reservation, or the server, which uses them.

    :param policy: what models have to be on.
    :param accelerators: what the host has of accelerators.
    :param state: what the server computes with.
    """
    if not state.is_local:
        return None
    container = state.container
    reserved = next((name for name in VENDORS if container and has_named(container, name)), None)
    if reserved and (accelerators.list_devices(reserved) or not accelerators.devices):
        return reserved
    ready = (name for name in VENDORS if _has_card(accelerators, state, name))
    if vendor := next(ready, None):
        return vendor
    if policy.processor != "gpu" and not is_in_use(state):
        return None
    if state.has_dxg and not accelerators.devices:
        return "nvidia"
    with_driver = (name for name in VENDORS if accelerators.list_with_driver(name))
    present = (name for name in VENDORS if accelerators.list_devices(name))
    if is_in_use(state) and (vendor := next(with_driver, None)):
        return vendor
    return next(present, None)


def is_accelerated(
    policy: AccelerationPolicy, accelerators: Accelerators, state: WorkerAcceleration
) -> bool:
    """Whether models are expected to be on an accelerator.

    :param policy: what models have to be on.
    :param accelerators: what the host has of accelerators.
    :param state: what the server computes with.
    """
    if policy.processor != "auto":
        return policy.processor == "gpu"
    if not state.is_local:
        return False
    container = state.container
    return (
        any(_has_card(accelerators, state, name) for name in VENDORS)
        or any(container is not None and has_named(container, name) for name in VENDORS)
        or is_in_use(state)
    )


def _has_card(accelerators: Accelerators, state: WorkerAcceleration, vendor: Vendor) -> bool:
    """Whether the host has a card of a vendor's with its driver."""
    cards = accelerators.list_with_driver(vendor)
    if vendor == "nvidia":
        return bool(cards)
    return any(state.find_vram(card.address) >= DISCRETE for card in cards)


def describe_idle(accelerators: Accelerators) -> str:
    """What the host has of accelerators that nothing asks for; empty for nothing.

    :param accelerators: what the host has of accelerators.
    """
    names = {"nvidia": "NVIDIA's", "amd": "AMD's"}
    idle = [
        f"{names[device.vendor]} device at {device.address} "
        + (
            "is not known to have memory of its own"
            if device.has_driver
            else f"has the driver {device.driver}"
            if device.driver
            else "has no driver"
        )
        for device in accelerators.devices
    ]
    return f"{', '.join(idle)}, and nothing reserves it" if idle else ""


def has_found(state: WorkerAcceleration) -> bool | None:
    """Whether the server has found an accelerator; ``None`` where its log does not say.

    :param state: what the server computes with.
    """
    if state.log.devices is None:
        return None
    return any(device.library.lower() != "cpu" for device in state.log.devices)


def is_in_use(state: WorkerAcceleration) -> bool:
    """Whether the server found an accelerator, or has a model on one.

    :param state: what the server computes with.
    """
    return has_found(state) is True or any(model.size_vram for model in state.loaded)


def has_reservation(container: Container, vendor: Vendor) -> bool:
    """Whether a container was made so that it reaches the accelerators of a vendor.

    :param container: of the server.
    :param vendor: whose accelerators.
    """
    return container.privileged or has_named(container, vendor)


def has_named(container: Container, vendor: Vendor) -> bool:
    """Whether a container was made with an accelerator of a vendor's, by name.

    :param container: of the server.
    :param vendor: whose accelerator.
    """
    if vendor == "amd":
        names = " ".join(name for request in container.requests for name in request.ids)
        return "/dev/kfd" in container.devices or "amd.com/gpu" in names
    if any(
        is_gpu(request) and not any("amd.com" in name for name in request.ids)
        for request in container.requests
    ):
        return True
    if any(path.startswith(("/dev/nvidia", "/dev/dxg")) for path in container.devices):
        return True
    visible = container.find_setting("NVIDIA_VISIBLE_DEVICES")
    return container.runtime == "nvidia" and visible not in ("", "void", "none")


def is_gpu(request: DeviceRequest) -> bool:
    """Whether a container was made with a request for a GPU.

    :param request: as Docker has it.
    """
    names = " ".join(request.ids)
    return (
        request.driver == "nvidia"
        or "gpu" in request.capabilities
        or "nvidia.com/gpu" in names
        or "amd.com/gpu" in names
    )
