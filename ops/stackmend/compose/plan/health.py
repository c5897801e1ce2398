"""How well a container is, and a stack that is coming up."""

from collections.abc import Mapping
from typing import Any

from stackmend.compose.plan.declaration import scale
from stackmend.compose.state import Container, StackState
from stackmend.frozen import Frozen

#: Restarts by the engine that make a container's young life a loop, and how young that is.
LOOP_RESTARTS = 3
LOOP_SECONDS = 60


def loops(container: Container, now: float) -> bool:
    """Whether the engine restarts it again and again; its restarts of long ago do not count."""
    return (
        container.restart_count >= LOOP_RESTARTS
        and container.health != "healthy"
        and (container.status == "restarting" or young(container, now))
    )


def completed(container: Container) -> bool:
    """Whether it did what it was started for, and ended; what serves is never done."""
    return (
        container.status == "exited"
        and container.exit_code == 0
        and container.restart in ("no", "on-failure")
        and not container.shape.get("healthcheck")
        and not container.shape.get("ports")
    )


def young(container: Container, now: float) -> bool:
    """Whether it was started a moment ago."""
    return now - container.started_at < LOOP_SECONDS


def restarts(container: Container) -> str:
    """How often the engine started it again, and how it ended the last time."""
    return (
        f"restarted {container.restart_count} times, exit code "
        f"{container.exit_code}{oom(container)}"
    )


def oom(container: Container) -> str:
    """What to add where the kernel ended a container for want of memory."""
    return ", killed for want of memory" if container.oom_killed else ""


class Verdict(Frozen):
    """How far a stack is on its way to health: settled, still coming, or failed for certain."""

    waiting: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def judge(services: Mapping[str, Mapping[str, Any]], state: StackState) -> Verdict:
    """Whether every service is well now, may still become so, or will not."""
    waiting, failed = [], []
    for name, body in services.items():
        containers = state.service(name)
        if len(containers) < scale(body):
            waiting.append(f"{name}: no container yet")
        for one in containers:
            if loops(one, state.now):
                failed.append(f"{name}: {restarts(one)}")
            elif one.status == "restarting":
                waiting.append(f"{name}: restarting, exit code {one.exit_code}{oom(one)}")
            elif completed(one):
                continue
            elif one.status in ("exited", "dead"):
                failed.append(f"{name}: exited with code {one.exit_code}{oom(one)}")
            elif one.status == "created":
                (failed if one.error else waiting).append(
                    f"{name}: {one.error or 'not started yet'}"
                )
            elif one.status == "paused":
                failed.append(f"{name}: paused")
            elif one.health in ("starting", "unhealthy"):
                # One unhealthy moment must not fail a run: it has until the time-out.
                ended = one.restart_count and young(one, state.now)
                waiting.append(
                    f"{name}: {one.health}"
                    + (f", {restarts(one)}" if ended else "")
                    + (f": {' '.join(one.health_output.split())}" if one.health_output else "")
                )
    return Verdict(waiting=tuple(waiting), failed=tuple(failed))


def unstable(before: StackState, after: StackState) -> tuple[str, ...]:
    """What did not stay as it was through the stability window."""
    problems = []
    earlier = {one.id: one for one in before.containers}
    for one in after.containers:
        was = earlier.get(one.id)
        if was is None or one.oneoff:
            continue
        if one.restart_count > was.restart_count or one.started_at != was.started_at:
            problems.append(
                f"{one.service}: restarted within the stability window, exit code "
                f"{one.exit_code}{oom(one)}"
            )
        elif one.status != was.status and not completed(one):
            problems.append(
                f"{one.service}: {was.status} → {one.status} within the stability window"
            )
    return tuple(problems)
