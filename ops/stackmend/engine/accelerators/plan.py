"""What a host needs so that containers reach its accelerators. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from stackmend import decision
from stackmend.decision import Finding, Refusal
from stackmend.engine.accelerators.spec import (
    NVIDIA_FINGERPRINT,
    NVIDIA_KEY,
    NVIDIA_REPOSITORIES,
    Acceleration,
)
from stackmend.engine.accelerators.state import DRIVERS, Accelerators, Device, Vendor
from stackmend.engine.plan import File, Install, SettingsAction, Trust, WriteSource, plan_settings
from stackmend.engine.plan.flags import parse_flags
from stackmend.engine.plan.merge import parse_config
from stackmend.engine.plan.versions import parse_version
from stackmend.engine.state import HostEngine
from stackmend.paths import STATE_ROOT

#: The first Engine that knows CDI.
CDI = (25,)

#: What NVIDIA's toolkit is installed as.
PACKAGE = "nvidia-container-toolkit"

#: Where our file of its repository goes, and the key, by package manager.
SOURCES = {
    "apt": "/etc/apt/sources.list.d/stackmend-nvidia.sources",
    "dnf": "/etc/yum.repos.d/stackmend-nvidia.repo",
}
KEYRINGS = {
    "apt": "/etc/apt/keyrings/stackmend-nvidia.asc",
    "dnf": "/etc/pki/rpm-gpg/stackmend-nvidia.asc",
}

#: Where CDI's file goes, where the host has none yet.
CDI_FILE = "/etc/cdi/nvidia.yaml"

_NAMES = {"nvidia": "NVIDIA", "amd": "AMD"}
_HEAD = "# Written by stackmend: changes are lost.\n"
_SECTION = 'in the stack\'s "engine" section'
_NONE = f'set "accelerator": "none" {_SECTION} to leave it alone'
_DRIVER_REMEDIES = {
    "nvidia": "install NVIDIA's driver from the distribution (Debian: nvidia-driver; Ubuntu: "
    "ubuntu-drivers install --gpgpu) and restart the host",
    "amd": "install a kernel with amdgpu, and AMD's firmware, and restart the host",
}


class Describe(decision.Action):
    """Write what CDI knows of NVIDIA's devices to a file, the subject."""

    verb: Literal["describe"] = "describe"


class Verify(decision.Action):
    """Reach the devices from inside a container.

    :param modes: how containers are given each vendor's devices: ``cdi``, ``runtime``, ``rocm``.
    :param groups: the groups, by number, that AMD's device files need.
    :param evidence: what the proof rests on, which the host remembers.
    """

    verb: Literal["prove"] = "prove"
    modes: tuple[str, ...]
    groups: tuple[int, ...]
    evidence: str


Action = Trust | WriteSource | Install | SettingsAction | Describe | Verify


class Plan(decision.Plan[Action]):
    """What was found, what will be done, in order, and what will not."""


def plan(spec: Acceleration, engine: HostEngine, state: Accelerators) -> Plan:
    """What is to be done so that containers reach the accelerators of the spec.

    An engine that is not there yet does not change the plan: its actions need one, and fail
    without.

    :param spec: which accelerators, and where NVIDIA's toolkit comes from.
    :param engine: what the host has of container engines.
    :param state: what it has of accelerators.
    """
    if spec.vendor == "none":
        return Plan()
    vendors: tuple[Vendor, ...] = ("nvidia", "amd") if spec.vendor == "auto" else (spec.vendor,)
    if not any(device.vendor in vendors for device in state.devices):
        return _plan_nothing(spec)
    findings: list[Finding] = []
    refusals: list[Refusal] = []
    for vendor in vendors:
        idle = [device for device in state.list_devices(vendor) if not device.has_driver]
        if idle:
            found, refused = _assess_idle(spec, vendor, idle, state)
            findings += found
            refusals += refused
    actions: list[Action] = []
    modes: list[str] = []
    if "nvidia" in vendors and state.list_with_driver("nvidia"):
        planned, refused = _plan_nvidia(spec, engine, state)
        actions += planned
        refusals += refused
        modes.append("cdi" if _has_cdi(engine) else "runtime")
    if "amd" in vendors and state.list_with_driver("amd"):
        if any(node.path == "/dev/kfd" for node in state.rocm):
            modes.append("rocm")
            findings.append(_describe_rocm(state))
        else:
            found, refused = _assess_missing_kfd(spec)
            findings += found
            refusals += refused
    if refusals:
        return Plan(findings=tuple(findings), refusals=tuple(refusals))
    if modes:
        evidence = format_evidence(engine, state, modes)
        if actions or state.proof != evidence:
            actions.append(_plan_proof(state, modes, evidence))
    return Plan(findings=tuple(findings), actions=tuple(actions))


def format_evidence(engine: HostEngine, state: Accelerators, modes: Sequence[str]) -> str:
    """What a proof rests on, in one line: it holds for as long as that stays."""
    parts = [f"engine {engine.server or '?'}"]
    if "rocm" in modes:
        parts.append("amd " + ",".join(device.address for device in state.list_with_driver("amd")))
        parts.append("groups " + ",".join(map(str, state.groups)))
    if "cdi" in modes or "runtime" in modes:
        mode = "cdi" if "cdi" in modes else "runtime"
        parts.append(
            "nvidia " + ",".join(device.address for device in state.list_with_driver("nvidia"))
        )
        parts.append(f"driver {state.driver or '?'}")
        parts.append(f"toolkit {state.toolkit or state.runtime or '?'} by {mode}")
    return "; ".join(parts)


def choose_settings(engine: HostEngine) -> dict[str, Any]:
    """What daemon.json is to hold for NVIDIA's toolkit, unless somebody has decided it already."""
    try:
        config, _ = parse_config(engine.config.text)
    except ValueError:
        config = {}
    runtimes, features = config.get("runtimes"), config.get("features")
    desired: dict[str, Any] = {}
    flags = parse_flags(engine.service.flags).get("runtimes", ())
    has_flag = any(flag.startswith("nvidia=") for flag in flags)
    if not has_flag and not (isinstance(runtimes, dict) and "nvidia" in runtimes):
        desired["runtimes"] = {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
    if _can_use_cdi(engine) and not (isinstance(features, dict) and "cdi" in features):
        desired["features"] = {"cdi": True}
    return desired


def _plan_nothing(spec: Acceleration) -> Plan:
    if spec.vendor == "auto":
        finding = Finding(
            subject="accelerators",
            kind="none",
            cause="no device of NVIDIA's or AMD's is on the PCI bus: nothing to do",
            blocks=False,
        )
        return Plan(findings=(finding,))
    refusal = Refusal(
        subject="accelerators",
        reason=f"no device of {_NAMES[spec.vendor]}'s is on the PCI bus",
        remedy=f'set "accelerator": "auto" {_SECTION} to take what is there, if anything; in a '
        "virtual machine, hand the device to it first",
    )
    return Plan(refusals=(refusal,))


def _assess_idle(
    spec: Acceleration, vendor: Vendor, idle: Sequence[Device], state: Accelerators
) -> tuple[list[Finding], list[Refusal]]:
    """Devices without the driver that containers need."""
    drivers = sorted({device.driver for device in idle})
    has = ", ".join(filter(None, drivers)) or "none"
    addresses = ", ".join(device.address for device in idle)
    cause = f"{_NAMES[vendor]} at {addresses}: its driver is {has}, not {DRIVERS[vendor]}"
    remedy = (
        "it is handed to virtual machines" if "vfio-pci" in drivers else _DRIVER_REMEDIES[vendor]
    )
    if spec.vendor == "auto" or state.list_with_driver(vendor):
        finding = Finding(
            subject="accelerators", kind="no driver", cause=f"{cause}; {remedy}", blocks=False
        )
        return [finding], []
    return [], [Refusal(subject="accelerators", reason=cause, remedy=remedy)]


def _plan_nvidia(
    spec: Acceleration, engine: HostEngine, state: Accelerators
) -> tuple[list[Action], list[Refusal]]:
    present = bool(state.toolkit or (state.ctk and state.runtime))
    toolkit = _plan_toolkit(spec, engine, present=present)
    if isinstance(toolkit, Refusal):
        return [], [toolkit]
    settings = plan_settings(choose_settings(engine), spec.replace, engine)
    actions = [*toolkit, *settings.actions, *_plan_description(engine, state)]
    return actions, list(settings.refusals)


def _plan_toolkit(
    spec: Acceleration, engine: HostEngine, *, present: bool
) -> list[Action] | Refusal:
    """What brings NVIDIA's toolkit, or its repository where that has changed."""
    manager = engine.manager
    ours = next((origin for origin in engine.origins if origin.path == SOURCES.get(manager)), None)
    if present and ours is None:
        return []
    if manager not in NVIDIA_REPOSITORIES:
        name = engine.release.name or engine.system
        return Refusal(
            subject=PACKAGE,
            reason=f"NVIDIA has no packages of it for {name}",
            remedy=f"install nvidia-ctk and nvidia-container-runtime there by hand; or {_NONE}",
        )
    if not engine.root:
        return Refusal(
            subject=PACKAGE,
            reason="this user cannot install it",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    file = _format_source(spec, engine)
    actions: list[Action] = []
    if ours is None or ours.text != file.text:
        cause = "NVIDIA's toolkit comes from there"
        key = Trust(
            subject=KEYRINGS[manager],
            cause=f"{cause}: the key that signs it",
            undo=f"remove {KEYRINGS[manager]}",
            key=spec.key or NVIDIA_KEY,
            fingerprints=(spec.key_fingerprint or NVIDIA_FINGERPRINT,),
            keyring=KEYRINGS[manager],
        )
        source = WriteSource(
            subject=file.path,
            cause=cause,
            undo=f"remove {file.path}",
            files=(file,),
        )
        actions += [key, source]
    if not present:
        actions.append(
            Install(
                subject=PACKAGE,
                cause="containers reach NVIDIA's devices through it, and it is not installed",
                undo=f"remove the package {PACKAGE}",
                packages=(PACKAGE,),
            )
        )
    return actions


def _format_source(spec: Acceleration, engine: HostEngine) -> File:
    """The file that names the toolkit's repository: NVIDIA's own is flat, without suites."""
    manager = engine.manager
    address, _, rest = (spec.repository or NVIDIA_REPOSITORIES[manager]).partition(" ")
    suite, _, components = rest.partition(" ")
    address = address.rstrip("/")
    keyring = KEYRINGS[manager]
    if manager == "dnf":
        text = (
            f"{_HEAD}[stackmend-nvidia]\nname=NVIDIA Container Toolkit\n"
            f"baseurl={address}/$basearch\nenabled=1\n"
            f"gpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file://{keyring}\n"
        )
    elif suite:
        listed = "" if suite.endswith("/") else f"Components: {components or 'main'}\n"
        text = (
            f"{_HEAD}Types: deb\nURIs: {address}\nSuites: {suite}\n{listed}Signed-By: {keyring}\n"
        )
    else:
        text = (
            f"{_HEAD}Types: deb\nURIs: {address}/{engine.architecture}\nSuites: /\n"
            f"Signed-By: {keyring}\n"
        )
    return File(path=SOURCES[manager], text=text)


def _plan_description(engine: HostEngine, state: Accelerators) -> Iterator[Describe]:
    """What writes what CDI knows of the devices, where that is missing or outdated."""
    if not _has_cdi(engine):
        return
    last = state.cdi[-1] if state.cdi else None
    if last is None:
        cause = "no file tells the engine how containers are given NVIDIA's devices"
    elif state.driver and state.driver not in last.versions:
        described = ", ".join(last.versions) or "none"
        cause = f"it is for driver {described}, and {state.driver} is loaded"
    elif missing := [path for path in state.gpus if path not in last.devices]:
        cause = f"it does not know {', '.join(missing)}"
    else:
        return
    path = last.path if last is not None else CDI_FILE
    yield Describe(
        subject=path,
        cause=cause,
        undo=f"remove {path}" if last is None else f"its copy in {STATE_ROOT}/engine/kept",
    )


def _plan_proof(state: Accelerators, modes: Sequence[str], evidence: str) -> Verify:
    return Verify(
        subject="accelerators",
        cause=f"what it rests on has changed since the last proof: {state.proof}"
        if state.proof
        else "no container has reached them yet",
        modes=tuple(modes),
        groups=state.groups,
        evidence=evidence,
    )


def _describe_rocm(state: Accelerators) -> Finding:
    groups = ", ".join(f'"{group}"' for group in state.groups)
    return Finding(
        subject="accelerators",
        kind="AMD",
        cause='a service reaches it with devices: ["/dev/kfd", "/dev/dri"] and '
        f"group_add: [{groups}]",
        blocks=False,
    )


def _assess_missing_kfd(spec: Acceleration) -> tuple[list[Finding], list[Refusal]]:
    reason = "amdgpu has the device, and /dev/kfd is missing"
    remedy = "use a kernel with HSA_AMD, and a device that AMD's ROCm knows"
    if spec.vendor == "auto":
        finding = Finding(
            subject="accelerators", kind="no ROCm", cause=f"{reason}; {remedy}", blocks=False
        )
        return [finding], []
    return [], [Refusal(subject="accelerators", reason=reason, remedy=remedy)]


def _can_use_cdi(engine: HostEngine) -> bool:
    # One that is not there yet will be new.
    return not engine.server or parse_version(engine.server) >= CDI


def _has_cdi(engine: HostEngine) -> bool:
    """Whether containers are given the devices by CDI, which a daemon-reload does not undo."""
    try:
        features = parse_config(engine.config.text)[0].get("features")
    except ValueError:
        features = None
    off = isinstance(features, dict) and features.get("cdi") is False
    return _can_use_cdi(engine) and not off
