"""What would fight with an engine: what may make room for it, and what is in its way."""

from collections.abc import Sequence

from stackmend.decision import Refusal
from stackmend.engine.plan import versions
from stackmend.engine.plan.source import DOCKER_PACKAGES, Source
from stackmend.engine.spec import Installation
from stackmend.engine.state import HostEngine

#: The engine that stands for each channel's packages, and all that goes with it.
KIN = {
    "docker-ce": (*DOCKER_PACKAGES, "docker-ce-rootless-extras"),
    "docker.io": (
        *("docker.io", "docker-cli", "docker-buildx", "docker-compose", "docker-compose-v2"),
        *("containerd", "runc"),
    ),
    "moby-engine": ("moby-engine", "moby-cli", "moby-compose", "moby-buildx"),
    "podman-docker": ("podman-docker",),
}


def rivals(
    wanted: Installation, state: HostEngine, origin: Source
) -> tuple[list[Refusal], list[str]]:
    """What would fight with the engine: those that are not to be replaced, and those that are."""
    found: dict[str, str] = {
        name: f"{name} {versions.upstream(state.packages[name].version)} is installed"
        for name in ("docker-ce", "docker.io", "moby-engine", "podman-docker")
        if name in state.packages and name not in origin.packages
    }
    if state.snap:
        found["snap"] = (
            "the snap docker is installed; its images, volumes and containers lie in "
            "/var/snap/docker and would not come along"
        )
    refusals = [
        Refusal(
            subject="engine",
            reason=f"{said}, and would fight with {origin.engine}",
            remedy=f'"replace": ["{name}"] in the stack\'s "engine" section' + _keep(name),
        )
        for name, said in found.items()
        if name not in wanted.replace
    ]
    if origin.engine == "docker-ce" and "docker.io" not in state.packages:
        alone = [name for name in ("containerd", "runc") if name in state.packages]
        if alone and not whole(state, "docker-ce"):
            refusals.append(
                Refusal(
                    subject="engine",
                    reason=f"{' and '.join(alone)} of the distribution is installed by itself, and "
                    "Docker's containerd.io would remove it",
                    remedy='"channel": "distro" in the stack\'s "engine" section uses it; or '
                    "remove it there, if nothing else runs on it",
                )
            )
    refusals += _strangers(state)
    return refusals, [name for name in found if name in wanted.replace]


def passing(state: HostEngine, replace: Sequence[str]) -> list[Refusal]:
    """Containers that would be gone for good when the engine stops."""
    return [
        Refusal(
            subject=one.name,
            reason="the container is removed when the engine stops (it was started with --rm)",
            remedy=f'end it first, or "replace": ["container:{one.name}"] in the stack\'s '
            '"engine" section',
        )
        for one in state.containers
        if one.passing and f"container:{one.name}" not in replace
    ]


def _keep(name: str) -> str:
    if name == "docker.io":
        return ', or "channel": "distro" to keep it'
    return ', or "channel": "docker" to keep it' if name == "docker-ce" else ""


def _strangers(state: HostEngine) -> list[Refusal]:
    """Engines that no package manager knows."""
    refusals = []
    program = state.programs.get("dockerd")
    if program is not None and not program.package and "/snap/" not in program.path:
        refusals.append(
            Refusal(
                subject="engine",
                reason=f"{program.path} belongs to no package: a second engine would fight with it",
                remedy=f"remove it there (and {state.service.fragment or 'what starts it'}); or "
                'leave the section "engine" out of the stack to keep it',
            )
        )
    for one in state.daemons:
        if state.service.manager != "systemd" or one.uid or one.unit == "docker.service":
            continue
        if one.unit.startswith("snap."):
            continue
        refusals.append(
            Refusal(
                subject="engine",
                reason=f"process {one.pid} is an engine of its own ({' '.join(one.argv[:6])}"
                + (f"; {one.unit})" if one.unit else ")"),
                remedy="stop it there, and see that nothing starts it again",
            )
        )
    return refusals


def whole(state: HostEngine, name: str) -> bool:
    """Whether a package is installed to the end."""
    return name in state.packages and state.packages[name].whole
