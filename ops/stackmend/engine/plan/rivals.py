"""What would conflict with an engine: what may make room for it, and what is in its way."""

from collections.abc import Sequence

from stackmend.decision import Refusal
from stackmend.engine.plan.source import DOCKER_PACKAGES, Source
from stackmend.engine.plan.versions import extract_upstream
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


def find_rivals(
    spec: Installation, state: HostEngine, source: Source
) -> tuple[list[Refusal], list[str]]:
    """What would conflict with the engine: the refusals, and those that may be replaced."""
    rivals: dict[str, str] = {
        name: f"{name} {extract_upstream(state.packages[name].version)} is installed"
        for name in ("docker-ce", "docker.io", "moby-engine", "podman-docker")
        if name in state.packages and name not in source.packages
    }
    if state.snap:
        rivals["snap"] = (
            "the snap docker is installed; its images, volumes and containers lie in "
            "/var/snap/docker and would not come along"
        )
    refusals = [
        Refusal(
            subject="engine",
            reason=f"{reason}, and would conflict with {source.engine}",
            remedy=f'add "replace": ["{name}"] to the stack\'s "engine" section'
            + _suggest_channel(name),
        )
        for name, reason in rivals.items()
        if name not in spec.replace
    ]
    if source.engine == "docker-ce" and "docker.io" not in state.packages:
        alone = [name for name in ("containerd", "runc") if name in state.packages]
        if alone and not is_installed(state, "docker-ce"):
            refusals.append(
                Refusal(
                    subject="engine",
                    reason=f"{' and '.join(alone)} of the distribution is installed by itself, and "
                    "Docker's containerd.io would remove it",
                    remedy='set "channel": "distro" in the stack\'s "engine" section to use it; or '
                    "remove it there, if nothing else runs on it",
                )
            )
    refusals += _refuse_unpackaged(state)
    return refusals, [name for name in rivals if name in spec.replace]


def refuse_auto_removed(state: HostEngine, replace: Sequence[str]) -> list[Refusal]:
    """Containers that would be gone for good when the engine stops."""
    return [
        Refusal(
            subject=container.name,
            reason="the container is removed when the engine stops (it was started with --rm)",
            remedy=f'stop it first, or add "replace": ["container:{container.name}"] to the '
            'stack\'s "engine" section',
        )
        for container in state.containers
        if container.auto_remove and f"container:{container.name}" not in replace
    ]


def is_installed(state: HostEngine, name: str) -> bool:
    """Whether a package is installed to the end."""
    return name in state.packages and state.packages[name].complete


def _suggest_channel(name: str) -> str:
    channel = {"docker.io": "distro", "docker-ce": "docker"}.get(name)
    return f', or set "channel": "{channel}" to keep it' if channel else ""


def _refuse_unpackaged(state: HostEngine) -> list[Refusal]:
    """Engines that no package manager knows."""
    refusals = []
    program = state.programs.get("dockerd")
    if program is not None and not program.package and "/snap/" not in program.path:
        refusals.append(
            Refusal(
                subject="engine",
                reason=f"{program.path} belongs to no package: a second engine would conflict "
                "with it",
                remedy=f"remove it there (and {state.service.fragment or 'what starts it'}); or "
                'leave the section "engine" out of the stack to keep it',
            )
        )
    for daemon in state.daemons:
        if state.service.manager != "systemd" or daemon.uid or daemon.unit == "docker.service":
            continue
        if daemon.unit.startswith("snap."):
            continue
        refusals.append(
            Refusal(
                subject="engine",
                reason=f"process {daemon.pid} is an engine of its own ({' '.join(daemon.argv[:6])}"
                + (f"; {daemon.unit})" if daemon.unit else ")"),
                remedy="stop it there, and keep it from being started again",
            )
        )
    return refusals
