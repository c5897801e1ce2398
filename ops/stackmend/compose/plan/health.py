"""How healthy a container is, and a stack that is coming up."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from stackmend.compose.plan.declaration import count_replicas, is_kept
from stackmend.compose.plan.serving import explain_serving
from stackmend.compose.state import Container, StackState
from stackmend.frozen import Frozen

#: Restarts by the engine that make a container's young life a loop, and how young that is.
LOOP_RESTARTS = 3
LOOP_SECONDS = 60

#: What is written in place of a healthcheck's own output where it did not even start: by the
#: engine (moby ``daemon/health.go`` keeps runc's error), or by the image's shell.
_UNRUNNABLE = re.compile(
    r"OCI runtime exec failed: (.+)"
    r"|(?:^|/)(?:sh|ash|bash|dash): (?:line \d+: |\d+: )?(\S+: "
    r"(?:command not found|not found|Permission denied))",
    re.MULTILINE,
)

#: What keeps a healthcheck from running until the image is another one, and what to do about it.
_LACKING = (
    ("not found", "use a program that the image has, or install this one in the image"),
    ("no such file", "use a program that the image has, or install this one in the image"),
    ("permission denied", "make the program executable in the image, or run it by `sh`"),
)

#: Seconds that the engine takes for a healthcheck's interval and for its timeout by default.
_ENGINE_DEFAULT = 30.0

#: Seconds after which a healthcheck's result that is due has come, on a busy engine too.
_DELAY = 2.0


class Unrunnable(NamedTuple):
    """Why a healthcheck cannot run.

    :param lasting: whether the image is why; what the host lacks may be there a moment later.
    """

    reason: str
    remedy: str
    lasting: bool


def is_looping(container: Container, now: float) -> bool:
    """Whether the engine restarts it again and again; its restarts of long ago do not count."""
    return (
        container.restart_count >= LOOP_RESTARTS
        and container.health != "healthy"
        and (container.status == "restarting" or is_young(container, now))
    )


def has_failed(container: Container) -> bool:
    """Whether it ended by itself with an error: it is down, or the engine starts it once more."""
    return container.status == "restarting" or (
        container.status == "exited" and container.exit_code not in (0, 143)
    )


def is_complete(container: Container, services: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether it did what it was started for, and ended; what serves is never done.

    :param services: the declared services of its project.
    """
    return (
        container.status == "exited"
        and container.exit_code == 0
        and container.restart in ("no", "on-failure")
        and not container.shape.get("healthcheck")
        and not container.shape.get("ports")
        and not explain_serving(container.service or "", services)
    )


def is_young(container: Container, now: float) -> bool:
    """Whether it was started a moment ago."""
    return now - container.started_at < LOOP_SECONDS


def explain_unrunnable(container: Container) -> Unrunnable | None:
    """Why the healthcheck that made a container unhealthy did not run; ``None`` where it did.

    Whether the service is healthy is not known then: restarting it would be no remedy.

    :param container: one that runs; the engine calls those that ended unhealthy.
    """
    if container.health != "unhealthy":
        return None
    # Where something else wrote after it (`curl ... || wget ...`), that did run.
    last = container.health_output.strip().splitlines()[-1:]
    found = _UNRUNNABLE.search(last[0]) if last else None
    if found is None:
        return None
    reason = next(filter(None, found.groups())).strip().removesuffix(": unknown")
    lower = reason.lower()
    if "no space left" in lower:
        remedy = "free space on the host (`df -h /tmp /run` shows what is full)"
        return Unrunnable(reason, remedy, lasting=False)
    for word, remedy in _LACKING:
        if word in lower:
            return Unrunnable(reason, remedy, lasting=True)
    return Unrunnable(reason, "fix what the engine reports, then run again", lasting=False)


def find_moment(state: StackState) -> float:
    """The host's time after which whatever begins was not yet in a reading of it."""
    return state.now + 1


def compute_result_limit(container: Container) -> float:
    """Seconds within which the engine has a new result of a container's healthcheck."""
    healthcheck = container.shape.get("healthcheck") or {}
    nanoseconds = (healthcheck.get("Interval"), healthcheck.get("Timeout"))
    return _DELAY + sum((value or 0) / 1e9 or _ENGINE_DEFAULT for value in nanoseconds)


def _is_final(
    container: Container, unrunnable: Unrunnable, since: float, unhealthy_for: float
) -> bool:
    """Whether a healthcheck still cannot run; a result of before says only what was.

    What the host lacks may be passing: it takes two results, of which the last is new.
    """
    failures = container.health_failures
    new = bool(failures) and failures[-1] > since
    if new and (unrunnable.lasting or len(failures) > 1):
        return True
    return unhealthy_for > compute_result_limit(container)


def format_restarts(container: Container) -> str:
    """How often the engine started it again, and how it ended the last time."""
    return (
        f"restarted {container.restart_count} times, exit code "
        f"{container.exit_code}{format_oom(container)}"
    )


def format_oom(container: Container) -> str:
    """What to add where the kernel ended a container because memory ran out."""
    return ", OOM-killed" if container.oom_killed else ""


class Health(Frozen):
    """How far a stack is on its way to health.

    :param waiting: what may still become healthy.
    :param failed: what will not.
    """

    waiting: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def classify(
    services: Mapping[str, Mapping[str, Any]],
    state: StackState,
    since: float,
    unhealthy_for: Mapping[str, float] | None = None,
) -> Health:
    """Whether every service is healthy now, may still become so, or will not.

    :param since: the host's time (:func:`find_moment`); a healthcheck that began after it says
        what is now.
    :param unhealthy_for: the seconds for which containers have been waited for while unhealthy, by
        their ids.
    """
    waiting, failed = [], []
    for name, body in services.items():
        if is_kept(body):
            continue
        containers = state.list_containers(name)
        if len(containers) < count_replicas(body):
            waiting.append(f"{name}: no container yet")
        for container in containers:
            if is_looping(container, state.now):
                failed.append(f"{name}: {format_restarts(container)}")
            elif container.status == "restarting":
                waiting.append(
                    f"{name}: restarting, exit code {container.exit_code}{format_oom(container)}"
                )
            elif is_complete(container, services):
                continue
            elif container.status in ("exited", "dead"):
                failed.append(
                    f"{name}: exited with code {container.exit_code}{format_oom(container)}"
                )
            elif container.status == "created":
                (failed if container.error else waiting).append(
                    f"{name}: {container.error or 'not started yet'}"
                )
            elif container.status == "paused":
                failed.append(f"{name}: paused")
            elif unrunnable := explain_unrunnable(container):
                waited = (unhealthy_for or {}).get(container.id, 0)
                (failed if _is_final(container, unrunnable, since, waited) else waiting).append(
                    f"{name}: its healthcheck cannot run: {unrunnable.reason}"
                )
            elif container.health in ("starting", "unhealthy"):
                # One unhealthy moment must not fail a run: it has until the time-out.
                ended = container.restart_count and is_young(container, state.now)
                waiting.append(
                    f"{name}: {container.health}"
                    + (f", {format_restarts(container)}" if ended else "")
                    + (
                        f": {' '.join(container.health_output.split())}"
                        if container.health_output
                        else ""
                    )
                )
    return Health(waiting=tuple(waiting), failed=tuple(failed))


def find_unstable(
    before: StackState, after: StackState, services: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """What did not stay as it was through the stability window.

    :param services: the declared services.
    """
    problems = []
    earlier = {container.id: container for container in before.containers}
    for container in after.containers:
        was = earlier.get(container.id)
        if was is None or container.oneoff:
            continue
        if container.restart_count > was.restart_count or container.started_at != was.started_at:
            problems.append(
                f"{container.service}: restarted within the stability window, exit code "
                f"{container.exit_code}{format_oom(container)}"
            )
        elif container.status != was.status and not is_complete(container, services):
            problems.append(
                f"{container.service}: {was.status} → {container.status} within the stability "
                "window"
            )
    return tuple(problems)
