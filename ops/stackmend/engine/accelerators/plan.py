"""What a host lacks so that containers reach its accelerators. Pure."""

from collections.abc import Sequence
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
from stackmend.engine.plan import Action, File, plan_settings
from stackmend.engine.plan import flags as flag
from stackmend.engine.plan.merge import parsed
from stackmend.engine.plan.versions import numbers
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

#: Where CDI's file is written, where there is none yet.
CDI_FILE = "/etc/cdi/nvidia.yaml"

_NAMES = {"nvidia": "NVIDIA", "amd": "AMD"}
_HEAD = "# Written by stackmend: changes are lost.\n"
_SECTION = 'in the stack\'s "engine" section'
_NONE = f'"accelerator": "none" {_SECTION} leaves it alone'
_DRIVER_HELP = {
    "nvidia": "install NVIDIA's driver from the distribution (Debian: nvidia-driver; Ubuntu: "
    "ubuntu-drivers install --gpgpu) and restart the host",
    "amd": "install a kernel with amdgpu, and AMD's firmware, and restart the host",
}


class Step(decision.Action):
    """One step beyond those that the engine's room has.

    :param path: for ``describe``, the file that is written.
    :param ways: for ``prove``, how containers are given each vendor's devices: ``cdi``,
        ``runtime`` or ``rocm``.
    :param groups: the groups, by number, that AMD's device files need.
    :param evidence: what is remembered as proven.
    """

    verb: Literal["describe", "prove"]
    path: str = ""
    ways: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    evidence: str = ""


class Plan(decision.Plan[decision.Action]):
    """What was found, what will be done, in order, and what will not."""


def plan(spec: Acceleration, engine: HostEngine, state: Accelerators) -> Plan:
    """What is to be done so that containers reach the accelerators that are wanted.

    An engine that is not there yet changes nothing of what is planned: the steps need one, and
    whoever carries them out says so.

    :param spec: which accelerators are wanted, and where NVIDIA's toolkit comes from.
    :param engine: what the host has of container engines.
    :param state: what it has of accelerators.
    """
    if spec.vendor == "none":
        return Plan()
    vendors: tuple[Vendor, ...] = ("nvidia", "amd") if spec.vendor == "auto" else (spec.vendor,)
    devices = [one for one in state.devices if one.vendor in vendors]
    if not devices:
        return _without(spec)
    findings: list[Finding] = []
    refusals: list[Refusal] = []
    for vendor in vendors:
        idle = [one for one in state.of(vendor) if not one.usable]
        if idle:
            told, refused = _idle(spec, vendor, idle, state)
            findings += told
            refusals += refused
    actions: list[decision.Action] = []
    ways: list[str] = []
    if "nvidia" in vendors and state.usable("nvidia"):
        steps, refused = _nvidia(spec, engine, state)
        actions += steps
        refusals += refused
        ways.append("cdi" if _by_cdi(engine) else "runtime")
    if "amd" in vendors and state.usable("amd"):
        if any(one.path == "/dev/kfd" for one in state.rocm):
            ways.append("rocm")
            findings.append(_rocm(state))
        else:
            told, refused = _no_kfd(spec)
            findings += told
            refusals += refused
    if refusals:
        return Plan(findings=tuple(findings), refusals=tuple(refusals))
    if ways:
        seen = evidence(engine, state, ways)
        if actions or state.proof != seen:
            actions.append(_prove(state, ways, seen))
    return Plan(findings=tuple(findings), actions=tuple(actions))


def evidence(engine: HostEngine, state: Accelerators, ways: Sequence[str]) -> str:
    """What a proof rests on, in one line: it holds for as long as that stays."""
    parts = [f"engine {engine.server or '?'}"]
    if "rocm" in ways:
        parts.append("amd " + ",".join(one.address for one in state.usable("amd")))
        parts.append("groups " + ",".join(map(str, state.groups)))
    if "cdi" in ways or "runtime" in ways:
        way = "cdi" if "cdi" in ways else "runtime"
        parts.append("nvidia " + ",".join(one.address for one in state.usable("nvidia")))
        parts.append(f"driver {state.driver or '?'}")
        parts.append(f"toolkit {state.toolkit or state.runtime or '?'} by {way}")
    return "; ".join(parts)


def settings(engine: HostEngine) -> dict[str, Any]:
    """What daemon.json is to hold for NVIDIA's toolkit, as far as nobody has decided it already."""
    try:
        held, _ = parsed(engine.config.text)
    except ValueError:
        held = {}
    runtimes, features = held.get("runtimes"), held.get("features")
    wanted: dict[str, Any] = {}
    flags = flag.given(engine.service.flags).get("runtimes", ())
    given = any(one.startswith("nvidia=") for one in flags)
    if not given and not (isinstance(runtimes, dict) and "nvidia" in runtimes):
        wanted["runtimes"] = {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
    if _new_enough(engine) and not (isinstance(features, dict) and "cdi" in features):
        wanted["features"] = {"cdi": True}
    return wanted


def _without(spec: Acceleration) -> Plan:
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
        remedy=f'"accelerator": "auto" {_SECTION} takes what is there, if anything; in a virtual '
        "machine, the device has to be handed to it first",
    )
    return Plan(refusals=(refusal,))


def _idle(
    spec: Acceleration, vendor: Vendor, idle: Sequence[Device], state: Accelerators
) -> tuple[list[Finding], list[Refusal]]:
    """Devices without the driver that containers need."""
    drivers = sorted({one.driver for one in idle})
    has = ", ".join(filter(None, drivers)) or "none"
    addresses = ", ".join(one.address for one in idle)
    cause = f"{_NAMES[vendor]} at {addresses}: its driver is {has}, not {DRIVERS[vendor]}"
    help_ = "it is handed to virtual machines" if "vfio-pci" in drivers else _DRIVER_HELP[vendor]
    if spec.vendor == "auto" or state.usable(vendor):
        finding = Finding(
            subject="accelerators", kind="no driver", cause=f"{cause}; {help_}", blocks=False
        )
        return [finding], []
    return [], [Refusal(subject="accelerators", reason=cause, remedy=help_)]


def _nvidia(
    spec: Acceleration, engine: HostEngine, state: Accelerators
) -> tuple[list[decision.Action], list[Refusal]]:
    there = bool(state.toolkit or (state.ctk and state.runtime))
    steps = _toolkit(spec, engine, there=there)
    if isinstance(steps, Refusal):
        return [], [steps]
    found = plan_settings(settings(engine), spec.replace, engine)
    actions: list[decision.Action] = [*steps, *found.actions]
    described = _describe(engine, state)
    if described is not None:
        actions.append(described)
    return actions, list(found.refusals)


def _toolkit(
    spec: Acceleration, engine: HostEngine, *, there: bool
) -> list[decision.Action] | Refusal:
    """The steps that bring NVIDIA's toolkit, or its repository where that has changed."""
    manager = engine.manager
    ours = next((one for one in engine.origins if one.path == SOURCES.get(manager)), None)
    if there and ours is None:
        return []
    if manager not in NVIDIA_REPOSITORIES:
        name = engine.release.name or engine.system
        return Refusal(
            subject=PACKAGE,
            reason=f"NVIDIA has no packages of it for {name}",
            remedy=f"bring nvidia-ctk and nvidia-container-runtime there by hand; {_NONE}",
        )
    if not engine.root:
        return Refusal(
            subject=PACKAGE,
            reason="it cannot be installed by this user",
            remedy="connect as root, or set _sudo = True in the host's data",
        )
    file = _source(spec, engine)
    steps: list[decision.Action] = []
    if ours is None or ours.text != file.text:
        cause = "NVIDIA's toolkit comes from there"
        key = Action(
            verb="trust",
            subject=KEYRINGS[manager],
            cause=f"{cause}: the key that signs it",
            undo=f"remove {KEYRINGS[manager]}",
            source=spec.key or NVIDIA_KEY,
            expected=(spec.key_fingerprint or NVIDIA_FINGERPRINT,),
            keyring=KEYRINGS[manager],
        )
        source = Action(
            verb="write source",
            subject=file.path,
            cause=cause,
            undo=f"remove {file.path}",
            files=(file,),
        )
        steps += [key, source]
    if not there:
        steps.append(
            Action(
                verb="install",
                subject=PACKAGE,
                cause="containers reach NVIDIA's devices through it, and it is not there",
                undo=f"remove the package {PACKAGE}",
                packages=(PACKAGE,),
            )
        )
    return steps


def _source(spec: Acceleration, engine: HostEngine) -> File:
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


def _describe(engine: HostEngine, state: Accelerators) -> Step | None:
    """The step that writes what CDI knows of the devices, where that is missing or of old."""
    if not _by_cdi(engine):
        return None
    last = state.cdi[-1] if state.cdi else None
    if last is None:
        cause = "no file tells the engine how containers are given NVIDIA's devices"
    elif state.driver and state.driver not in last.versions:
        of = ", ".join(last.versions) or "none"
        cause = f"it is for driver {of}, and {state.driver} is loaded"
    elif missing := [path for path in state.gpus if path not in last.devices]:
        cause = f"it does not know {', '.join(missing)}"
    else:
        return None
    path = last.path if last is not None else CDI_FILE
    return Step(
        verb="describe",
        subject=path,
        cause=cause,
        undo=f"remove {path}" if last is None else f"its copy in {STATE_ROOT}/engine/kept",
        path=path,
    )


def _prove(state: Accelerators, ways: Sequence[str], seen: str) -> Step:
    return Step(
        verb="prove",
        subject="accelerators",
        cause="it was not seen from inside a container yet"
        if not state.proof
        else f"what was seen from inside a container was another: {state.proof}",
        ways=tuple(ways),
        groups=state.groups,
        evidence=seen,
    )


def _rocm(state: Accelerators) -> Finding:
    groups = ", ".join(f'"{group}"' for group in state.groups)
    return Finding(
        subject="accelerators",
        kind="AMD",
        cause='a service reaches it with devices: ["/dev/kfd", "/dev/dri"] and '
        f"group_add: [{groups}]",
        blocks=False,
    )


def _no_kfd(spec: Acceleration) -> tuple[list[Finding], list[Refusal]]:
    reason = "amdgpu has the device, and /dev/kfd is not there"
    help_ = "use a kernel with HSA_AMD, and a device that AMD's ROCm knows"
    if spec.vendor == "auto":
        finding = Finding(
            subject="accelerators", kind="no ROCm", cause=f"{reason}; {help_}", blocks=False
        )
        return [finding], []
    return [], [Refusal(subject="accelerators", reason=reason, remedy=help_)]


def _new_enough(engine: HostEngine) -> bool:
    # One that is not there yet will be new.
    return not engine.server or numbers(engine.server) >= CDI


def _by_cdi(engine: HostEngine) -> bool:
    """Whether containers are given the devices by CDI, which a daemon-reload does not undo."""
    try:
        features = parsed(engine.config.text)[0].get("features")
    except ValueError:
        features = None
    off = isinstance(features, dict) and features.get("cdi") is False
    return _new_enough(engine) and not off
