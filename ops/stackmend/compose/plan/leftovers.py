"""What a recreation that was cut short left: a second container, or one under a passing name.

Compose makes the next container as ``<12 hex>_NAME``, removes the one before, and gives the next
one its name (docker/compose ``pkg/compose/convergence.go``). Where that ended on the way, it takes
both for replicas afterwards, and may stop at a name that the other one has.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from stackmend.compose.plan.actions import RemoveLeftover, Rename, Restart
from stackmend.compose.plan.declaration import count_replicas
from stackmend.compose.plan.draft import Draft
from stackmend.compose.state import Container, StackState
from stackmend.provenance import TEMPORARY_NAME


def plan_leftovers(draft: Draft) -> tuple[Container, ...]:
    """Leave one container in each place, under its own name; what follows is decided on that.

    :returns: what runs in the place of one that never did: the engine may be about to stop it.
    """
    before = draft.state
    doomed: list[Container] = []
    steps, draft.state = resolve_leftovers(before, draft.services)
    for step in steps:
        draft.find(step.subject, "leftover", step.cause)
        draft.first.append(step)
        if isinstance(step, RemoveLeftover):
            leftover = next(c for c in before.containers if c.id == step.container)
            _refuse_loss(draft, leftover)
            doomed += [
                kept
                for kept in draft.state.list_containers(str(leftover.service))
                if kept.number == leftover.number and kept.status == "running"
                if not leftover.started_at
            ]
    return tuple(doomed)


def restart_doomed(draft: Draft, doomed: Iterable[Container]) -> None:
    """Start these again once they are stopped, but for what is replaced or removed anyway."""
    changing = {name for name, steps in draft.steps.items() if steps}
    for container in doomed:
        if container.service not in changing:
            cause = f"{container.name} was being replaced, and may be stopped at any moment"
            step = Restart(subject=str(container.service), cause=cause, container=container.id)
            draft.first.append(step)


def resolve_leftovers(
    state: StackState, services: Mapping[str, Mapping[str, Any]]
) -> tuple[list[RemoveLeftover | Rename], StackState]:
    """The steps that leave one container in each place, and the state that they lead to."""
    steps: list[RemoveLeftover | Rename] = []
    removed: set[str] = set()
    renamed: dict[str, Container] = {}
    for service, body in services.items():
        # Their order is that of their numbers.
        for number, group in groupby(
            state.list_containers(service), lambda container: container.number
        ):
            rivals = list(group)
            if not any(container.replaces for container in rivals):
                continue
            kept = max(rivals, key=_rank) if number <= count_replicas(body) else None
            for container in rivals:
                # A place too many is Compose's to empty.
                if container.replaces if kept is None else container is not kept:
                    steps.append(_remove(service, container, kept))
                    removed.add(container.id)
            if kept and kept.replaces:
                name = TEMPORARY_NAME.sub("", kept.name, count=1)
                steps.append(
                    Rename(
                        subject=service,
                        cause=f"an interrupted recreation left it as {kept.name}",
                        undo=f"docker rename {name} {kept.name}",
                        container=kept.id,
                        name=name,
                    )
                )
                renamed[kept.id] = _rename(kept, name)
    containers = (
        renamed.get(container.id, container)
        for container in state.containers
        if container.id not in removed
    )
    return steps, state.model_copy(update={"containers": tuple(containers)})


def _rank(container: Container) -> tuple[bool, bool, bool, float]:
    """What speaks for keeping a container: it may hold what was written since it started."""
    alive = container.status in ("running", "paused", "restarting")
    started = container.started_at > 0
    return alive, started, not container.replaces, container.started_at


def _remove(service: str, container: Container, kept: Container | None) -> RemoveLeftover:
    beside = f" beside {kept.name}" if kept else ""
    return RemoveLeftover(
        subject=service,
        cause=f"an interrupted recreation left {container.name}{beside}",
        undo=f"make it again from {container.image}; its volumes are kept",
        container=container.id,
    )


def _rename(container: Container, name: str) -> Container:
    """What a container is once it has its own name, which is no alias of it then."""
    shape = dict(container.shape)
    if networks := shape.get("networks"):
        shape["networks"] = {
            key: {**place, "aliases": [a for a in place.get("aliases", ()) if a != name]}
            for key, place in networks.items()
        }
    return container.model_copy(update={"name": name, "replaces": False, "shape": shape})


def _refuse_loss(draft: Draft, container: Container) -> None:
    """Refuse to leave behind what a container wrote to volumes that no other one of it has."""
    others = draft.state.list_containers(str(container.service))
    kept = {volume for other in others for volume in other.anonymous.values()}
    for path, volume in sorted(container.anonymous.items()):
        rule = f"volume:{container.service}:{path}"
        if not container.started_at or volume in kept or rule in draft.spec.allow:
            continue
        draft.refuse(
            str(container.service),
            f"an interrupted recreation left {container.name}, which keeps data in the anonymous "
            f"volume {volume[:12]} at {path}",
            f"copy the data out of it; then, or where it may be left behind, add to the stack: "
            f'"allow": ["{rule}"]',
        )
