"""The decision about one service: why it is not as declared, or not healthy, and the remedy."""

from collections.abc import Mapping
from typing import Any

from stackmend.compose import drift
from stackmend.compose.modes import find_mode
from stackmend.compose.plan.actions import (
    Attach,
    Detach,
    Kind,
    Recreate,
    Repair,
    Restart,
    Resume,
    ServiceAction,
    SetPolicy,
    Start,
    Unpause,
    Up,
)
from stackmend.compose.plan.causes import REPAIR_RULE, find_cause
from stackmend.compose.plan.declaration import (
    AROUND,
    REPLICAS,
    count_replicas,
    find_certain_differences,
    is_kept,
    is_published,
    list_sources,
    resolve_service,
)
from stackmend.compose.plan.draft import Draft
from stackmend.compose.plan.format import fit_line, join_few, shorten
from stackmend.compose.plan.health import (
    explain_unrunnable,
    format_oom,
    is_complete,
    is_looping,
)
from stackmend.compose.plan.serving import explain_serving
from stackmend.compose.state import Container

#: The consent to restart what asks DNS servers of before.
RESOLVER_RULE = "restart:resolver"


def plan_service(draft: Draft, name: str) -> None:
    """Note what is wrong with a service, and the steps against it."""
    body = draft.services[name]
    if is_kept(body):
        return
    containers = draft.state.list_containers(name)
    scaled = count_replicas(body)
    if not containers and scaled:
        draft.do("missing", Up(subject=name, cause="it has no container"))
    if not containers:
        return
    if len(containers) != scaled:
        cause = f"{len(containers)} containers where {scaled} should be"
        if draft.is_to_mend(f"services.{name}.scale", name, "scale", cause):
            draft.do("scale", Up(subject=name, cause=cause))
    if causes := _find_declaration_causes(draft, name):
        for kind, text in causes:
            draft.find(name, kind, text)
        adopted = all(kind == "adopted" for kind, _ in causes)
        cause = join_few([text for _, text in causes])
        draft.add((Up if adopted else Recreate)(subject=name, cause=cause))
    for container in containers:
        for action in _plan_shape(draft, name, container):
            draft.do("drift", action, container)
        _plan_mounts(draft, name, container)
        _plan_resolver(draft, name, container)
        if container.status == "exited" and _has_been_kept(draft, name):
            cause = "it was kept stopped, and is not any more"
            step = Start(subject=name, cause=cause, container=container.id)
            draft.do("stopped", step, container)
        else:
            _plan_life(draft, name, container)


def _has_been_kept(draft: Draft, name: str) -> bool:
    """Whether its containers were to stay as they are, by what was proven last."""
    before = (draft.applied.config.get("services") or {}) if draft.applied else {}
    return is_kept(before.get(name) or {})


def _find_declaration_causes(draft: Draft, name: str) -> list[tuple[Kind, str]]:
    """Why the service's containers are not those that its declaration asks for."""
    causes: list[tuple[Kind, str]] = []
    containers = draft.state.list_containers(name)
    applied, declared = draft.applied, draft.declared
    if applied is None or name not in applied.services:
        desired = declared.hashes.get(name)
        if desired is None or any(container.config_hash != desired for container in containers):
            causes.append(("adopted", "nothing is recorded of it; Compose finds what differs"))
    else:
        was = resolve_service(applied.config, name)
        for path, old, new in drift.find_differences(was, resolve_service(declared.config, name)):
            if path.split(".")[0] not in AROUND and path != REPLICAS:
                causes.append(("changed", drift.format_change(path, old, new, draft.secrets)))
        for path, now in declared.outside.items():
            before = applied.outside.get(path)
            if before and now != before and path in list_sources(declared.config, name):
                causes.append(("content", f"{path} on the host changed, which it mounts"))
    for path in _find_changed_mounts(draft, name):
        causes.append(("content", f"{path} changed, which it mounts"))
    if name in draft.state.stale:
        cause = "an earlier run ended before it recreated it from the files in place"
        causes.append(("leftover", cause))
    ref = draft.name_image(name)
    image = declared.images.get(ref)
    for container in containers:
        if image and container.image_id != image.id:
            cause = f"image {ref}: {shorten(container.image_id)} → {shorten(image.id)}"
            # What comes for another reason brings it along.
            if causes or draft.is_to_mend(f"services.{name}.image", name, "image", cause):
                causes.append(("image", cause))
            break
    return causes


def _find_changed_mounts(draft: Draft, name: str) -> list[str]:
    """Changed project files that the service's containers see through a mount."""
    mounted = [
        inside
        for source in list_sources(draft.declared.config, name)
        if (inside := draft.relativize(source)) is not None
    ]
    return [
        path
        for path in draft.list_changed_files()
        if any(
            source == "" or path == source or path.startswith(source + "/") for source in mounted
        )
    ]


def _plan_shape(draft: Draft, name: str, container: Container) -> list[ServiceAction]:
    """What is to be done where the container differs from the one that was proven healthy.

    Each cause says what is, and then what will be.
    """
    steps: list[ServiceAction] = []
    differences: list[tuple[str, Any, Any]] = []
    known = draft.applied.services.get(name) if draft.applied else None
    if known and known.image_id == container.image_id:
        desired, actual = dict(known.shape), dict(container.shape)
        steps += _plan_networks(
            draft, name, desired.pop("networks", {}), actual.pop("networks", {}), container
        )
        differences += drift.find_differences(desired, actual)
    elif not known:
        body = draft.services[name]
        steps += _plan_missing_networks(draft, name, body, container)
        differences += find_certain_differences(body, container.shape)
    causes: list[str] = []
    for path, desired, has in differences:
        cause = drift.format_change(path, has, desired, draft.secrets)
        if not draft.is_to_mend(f"services.{name}.{path}", name, "drift", cause):
            continue
        if path == "restart" and _has_been_kept(draft, name):
            # Whoever stopped it for good set that; a recreation would lose what it has.
            policy = SetPolicy(
                subject=name, cause=cause, container=container.id, policy=str(desired)
            )
            steps.append(policy)
        else:
            causes.append(cause)
    for network, endpoint in container.endpoints.items():
        current = draft.state.networks.get(network)
        if endpoint.network_id and current != endpoint.network_id:
            what = "is gone" if current is None else "was removed and made again"
            cause, path = f"its network {network} {what}", f"services.{name}.networks.{network}"
            if draft.is_to_mend(path, name, "drift", cause):
                causes.append(cause)
    ids = {other.id for other in draft.state.containers}
    for key, id_ in container.borrows.items():
        cause = f"{key}: the container it shares it with is gone"
        if id_ not in ids and draft.is_to_mend(f"services.{name}.{key}", name, "drift", cause):
            causes.append(cause)
    if container.running and container.shape.get("network_mode") != "host":
        missing = [
            port
            for port in container.shape.get("ports", ())
            if not is_published(port, container.published)
        ]
        cause, path = f"the engine does not publish {', '.join(sorted(missing))}", "ports"
        unpublished = missing and container.endpoints
        if unpublished and draft.is_to_mend(f"services.{name}.{path}", name, "drift", cause):
            causes.append(cause)
    return [*steps, *(Recreate(subject=name, cause=cause) for cause in causes)]


def _plan_mounts(draft: Draft, name: str, container: Container) -> None:
    """Restart a container that holds a file or directory that was replaced on the host since."""
    for place, kind in container.replaced.items():
        mount = (container.shape.get("volumes") or {}).get(place) or {}
        source = mount.get("source")
        # What comes for another reason mounts what is there then.
        if not source or not container.running or draft.has_step(name, Recreate):
            continue
        text = f"{source}, which it mounts, was replaced or removed on the host"
        inside = draft.relativize(source)
        if inside in draft.files and find_mode(draft.spec.drift, f"files.{inside}") != "mend":
            continue
        if not draft.is_to_mend(f"services.{name}.volumes.{place}", name, "drift", text):
            continue
        if kind == "missing":
            if draft.relativize(source) not in draft.files:
                cause = f"{source}, which it mounts, is gone from the host"
                remedy = f"put {source} back: {container.name} cannot be started without it"
                draft.find(name, "drift", cause, remedy=remedy, blocks=False)
        elif kind == "kind":
            cause = f"{source} on the host is of another kind than what it mounted from there"
            remedy = (
                f"put back at {source} what was there; {container.name} still has it at {place}"
            )
            draft.find(name, "drift", cause, remedy=remedy)
        elif (
            kind == "directory"
            and not mount.get("read_only")
            and (rule := f"volume:{name}:{place}") not in draft.spec.allow
        ):
            # A disk that was unmounted, a directory moved away: a restart would begin with no data.
            reason = (
                f"{source} is another directory on the host by now; {container.name} still works "
                f"in the one before, at {place}, and its data may be there"
            )
            remedy = (
                f"put the one before back at {source} (`mount`, `mv`); or, where {name} is to use "
                f'the one that is there now, add to the stack: "allow": ["{rule}"]'
            )
            draft.refuse(name, reason, remedy)
            draft.spared.add(name)
        else:
            cause = f"{source} was replaced on the host; it still has the one before"
            tried = name in draft.tried
            step = (
                Recreate(subject=name, cause=cause)
                if tried
                else Restart(subject=name, cause=cause, container=container.id)
            )
            draft.do("drift", step, container)


def _plan_resolver(draft: Draft, name: str, container: Container) -> None:
    """Restart a container that asks the DNS servers of the time when it was started."""
    has, now, body = container.resolver, draft.state.resolver, draft.services[name]
    if has is None or now is None or has == now or not container.running or body.get("dns"):
        return
    if draft.has_step(name, Recreate, Restart):
        return
    cause = (
        f"it asks the DNS servers of when it was started, {', '.join(has.servers) or 'none'}; a "
        f"container that starts now asks {', '.join(now.servers)}"
    )
    restarted = [mend.at for mend in draft.state.mends if mend.service == name]
    if any(container.started_at > at - 1 for at in restarted):
        # The engine itself may ask the host's file only when it starts.
        remedy = (
            "restart the engine there (`systemctl restart docker`): a restart of it did not help"
        )
        draft.find(name, "drift", cause, remedy=remedy, blocks=False)
        return
    if RESOLVER_RULE in draft.spec.allow:
        step = Restart(subject=name, cause=cause, container=container.id)
        draft.mend("drift", step, container)
        return
    remedy = (
        f"run `docker restart {container.name}`; to have it done, add to the stack: "
        f'"allow": ["{RESOLVER_RULE}"]'
    )
    draft.find(name, "drift", cause, remedy=remedy, blocks=False)


def _plan_networks(
    draft: Draft,
    name: str,
    desired: Mapping[str, Any],
    actual: Mapping[str, Any],
    container: Container,
) -> list[ServiceAction]:
    steps: list[ServiceAction] = []
    for network in sorted({*desired, *actual}):
        should, has = desired.get(network), actual.get(network)
        path = f"networks.{network}"
        if should is None:
            cause = f"{path}: attached, and not declared"
            step = Detach(subject=name, cause=cause, container=container.id, network=network)
            if draft.is_to_mend(f"services.{name}.{path}", name, "drift", cause):
                steps.append(step)
            continue
        if has == should:
            continue
        cause = f"{path}: detached" if has is None else drift.format_change(path, has, should)
        if not draft.is_to_mend(f"services.{name}.{path}", name, "drift", cause):
            continue
        # Compose makes a network that is gone, for a container that it creates.
        if container.service in draft.tried or network not in draft.state.networks:
            steps.append(Recreate(subject=name, cause=cause))
            continue
        steps.append(
            Attach(
                subject=name,
                cause=cause,
                container=container.id,
                network=network,
                address=should.get("address", ""),
                aliases=tuple(should["aliases"]),
            )
        )
    return steps


def _plan_missing_networks(
    draft: Draft, name: str, body: Mapping[str, Any], container: Container
) -> list[ServiceAction]:
    """Attach a container of which nothing is recorded to the networks that are declared for it."""
    steps: list[ServiceAction] = []
    for key in body.get("networks") or {}:
        network = draft.name_network(key)
        settings = (body["networks"] or {}).get(key) or {}
        aliases = tuple(dict.fromkeys([name, *(settings.get("aliases") or ())]))
        has = (container.shape.get("networks") or {}).get(network) or {}
        lacking = sorted({*aliases} - {*has.get("aliases", ())})
        if network in container.endpoints and not lacking:
            continue
        cause = f"networks.{network}: " + (
            f"without the name {', '.join(lacking)}"
            if network in container.endpoints
            else "detached"
        )
        if not draft.is_to_mend(f"services.{name}.networks.{network}", name, "drift", cause):
            continue
        if network not in draft.state.networks:
            steps.append(Recreate(subject=name, cause=cause))
            continue
        steps.append(
            Attach(
                subject=name,
                cause=cause,
                container=container.id,
                network=network,
                address=settings.get("ipv4_address") or "",
                aliases=aliases,
            )
        )
    return steps


def _plan_life(draft: Draft, name: str, container: Container) -> None:
    """What the container's status asks for."""
    status, id_ = container.status, container.id
    tried = name in draft.tried
    if status == "created":
        cause = container.error or "it was created and never started"
        draft.do("created", Start(subject=name, cause=cause, container=id_), container)
    elif status == "paused":
        cause = "it is paused"
        draft.do("paused", Unpause(subject=name, cause=cause, container=id_), container)
    elif status in ("dead", "removing"):
        draft.do("exited", Recreate(subject=name, cause=f"it is {status}"), container)
    elif _plan_cause(draft, name, container):
        return
    elif status == "exited":
        _plan_exited(draft, name, container)
    elif status == "restarting" or is_looping(container, draft.state.now):
        cause = (
            f"it restarts again and again ({container.restart_count} times, last exit code "
            f"{container.exit_code}{format_oom(container)})"
        )
        draft.mend("restart loop", Recreate(subject=name, cause=cause), container)
    elif container.process in ("T", "t"):
        cause = "its process is stopped by a signal"
        step = Restart if tried else Resume
        draft.do("hung", step(subject=name, cause=cause, container=id_), container)
    elif container.process in ("gone", "Z"):
        cause = "its process is gone"
        draft.mend("hung", Restart(subject=name, cause=cause, container=id_), container)
    elif unrunnable := explain_unrunnable(container):
        reason = fit_line(unrunnable.reason)
        cause = f"its healthcheck cannot run, so its health is not known: {reason}"
        draft.find(name, "unknown", cause, remedy=unrunnable.remedy)
    elif container.health == "unhealthy":
        output = fit_line(drift.redact(container.health_output, draft.secrets))
        cause = "its healthcheck fails" + (f": {output}" if output else "")
        draft.mend(
            "unhealthy",
            Recreate(subject=name, cause=cause)
            if tried
            else Restart(subject=name, cause=cause, container=id_),
            container,
        )
    elif container.health == "starting" and tried:
        cause = "its healthcheck has not passed since it was mended"
        draft.mend("starting", Recreate(subject=name, cause=cause), container)
    elif container.health == "starting":
        draft.find(name, "starting", "its healthcheck has not passed yet")
        draft.add(Up(subject=name, cause="it is still starting and is waited for"))


def _plan_cause(draft: Draft, name: str, container: Container) -> bool:
    """Plan by what a service says is wrong with it; whether that is all there is to do."""
    looping = container.status == "restarting" or is_looping(container, draft.state.now)
    ended = container.status == "exited" and container.exit_code
    unhealthy = container.health == "unhealthy" and not explain_unrunnable(container)
    found = find_cause(container) if looping or ended or unhealthy else None
    if found is None:
        return False
    kind: Kind = "restart loop" if looping else "exited" if ended else "unhealthy"
    cause = found.cause
    if found.kind == "aof" and REPAIR_RULE in draft.spec.allow and name not in draft.tried:
        step = Repair(subject=name, cause=cause, container=container.id)
        draft.mend(kind, step, container)
        return True
    # It may have been put right since it ended: then a start is all it lacks.
    if ended and name not in draft.tried:
        return False
    # A password that was set at run time goes with a restart, as does memory that leaked; a
    # recreation does no more.
    temporary = found.kind in ("password", "memory")
    if temporary and unhealthy and not looping and name not in draft.tried:
        draft.mend(kind, Restart(subject=name, cause=cause, container=container.id), container)
        return True
    draft.find(name, kind, cause, remedy=drift.redact(found.remedy, draft.secrets))
    draft.spared.add(name)
    return True


def _plan_exited(draft: Draft, name: str, container: Container) -> None:
    if is_complete(container, draft.services):
        return
    cause = f"it exited with code {container.exit_code}{format_oom(container)}"
    if not container.exit_code and (serving := explain_serving(name, draft.services)):
        cause = f"{cause}, and {serving}"
    kind: Kind = "stopped" if container.exit_code in (0, 143) else "exited"
    start = Start(subject=name, cause=cause, container=container.id)
    if container.restart in ("no", "on-failure"):
        draft.mend(kind, start, container)
        return
    # The engine restarts what crashes under the other policies: someone stopped it.
    stopped = f"{cause} and was not restarted"
    draft.do(kind, start.model_copy(update={"cause": stopped}), container)
