"""What a declaration needs, and the host or the declaration lacks: refused before any step."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from stackmend.compose.plan.actions import RemoveNetwork
from stackmend.compose.plan.contradictions import (
    Network,
    find_contradictions,
    is_overlapping,
    list_subnets,
    parse_network,
)
from stackmend.compose.plan.declaration import count_replicas, list_required_sources
from stackmend.compose.plan.draft import Draft
from stackmend.compose.plan.format import join_few
from stackmend.compose.state import Surroundings

#: How far a host is from giving containers its GPUs, and what brings it further.
_GPUS = {
    "none": ("the host has no NVIDIA GPU", "run it on a host that has one, or without the GPU"),
    "no driver": (
        "the host's NVIDIA GPU has no driver",
        "install NVIDIA's kernel driver on the host, and restart it",
    ),
    "no toolkit": (
        "the engine has no NVIDIA container toolkit",
        'have it installed: a section "engine" of the stack does it',
    ),
}


def refuse_unmet(draft: Draft) -> None:
    """Refuse what ``docker compose up`` could not do, although what runs may be as declared."""
    for subject, reason, remedy in find_contradictions(draft.declared.config):
        draft.refuse(subject, reason, remedy)
    for name, body in draft.services.items():
        if not count_replicas(body):
            continue
        _refuse_missing(draft, "network", list(body.get("networks") or {}), draft.state.networks)
        mounts = [mount for mount in body.get("volumes") or () if mount.get("type") == "volume"]
        keys = [str(mount["source"]) for mount in mounts if mount.get("source")]
        _refuse_missing(draft, "volume", keys, draft.state.volume_labels)
        for target, settings in (body.get("depends_on") or {}).items():
            if settings.get("condition") == "service_healthy" and settings.get("required", True):
                _refuse_without_healthcheck(draft, name, target)


def _refuse_missing(
    draft: Draft, kind: str, keys: list[str], existing: Mapping[str, object]
) -> None:
    """Refuse a network or volume that Compose is told not to make, and that nobody has made."""
    declared = draft.declared.config.get(f"{kind}s") or {}
    for key in keys:
        settings = declared.get(key) or {}
        name = str(settings.get("name") or key)
        if settings.get("external") and name not in existing:
            draft.refuse(
                f"{kind} {name}",
                f"{kind}s.{key} is external, and the host has no {kind} {name}",
                f"create it (`docker {kind} create {name}` on the host), or declare it without "
                "`external: true`",
            )


def refuse_unfit(draft: Draft, created: Collection[str]) -> None:
    """Refuse to create what does not fit in the host.

    :param created: the services that may get new containers.
    """
    around = draft.declared.surroundings
    if around is None:
        return
    for name in sorted(created):
        body = draft.services[name]
        if not count_replicas(body):
            continue
        _refuse_absent(draft, name, around)
        _refuse_cpus(draft, name, around)
        if _is_nvidia_needed(body) and around.gpus in _GPUS:
            lack, remedy = _GPUS[around.gpus]
            draft.refuse(name, f"it reserves a GPU, and {lack}", remedy)
    _refuse_subnets(draft, created, around)


def _refuse_absent(draft: Draft, name: str, around: Surroundings) -> None:
    for path in list_required_sources(draft.declared.config, name):
        inside = draft.relativize(path)
        brought = inside is not None and any(
            other == inside or other.startswith(f"{inside}/") for other in draft.files
        )
        if path in around.absent and not brought:
            draft.refuse(
                name,
                f"it mounts {path}, which is not on the host",
                "put it there, or take the mount out of the compose file",
            )


def _refuse_cpus(draft: Draft, name: str, around: Surroundings) -> None:
    body = draft.services[name]
    limits = ((body.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    cpus = float(body.get("cpus") or limits.get("cpus") or 0)
    if around.cpus and cpus > around.cpus:
        draft.refuse(
            name,
            f"it may use {cpus:g} processors, and the host has {around.cpus}",
            f"set cpus to {around.cpus} or less",
        )


def _is_nvidia_needed(body: Mapping[str, Any]) -> bool:
    """Whether a container is to have GPUs that only NVIDIA's toolkit can give it."""
    resources = (body.get("deploy") or {}).get("resources") or {}
    devices = (resources.get("reservations") or {}).get("devices") or ()
    asked = [device for device in devices if "gpu" in (device.get("capabilities") or ())]
    asked += [device for device in body.get("gpus") or () if isinstance(device, Mapping)]
    return body.get("runtime") == "nvidia" or any(
        (device.get("driver") or "nvidia") == "nvidia" for device in asked
    )


def _refuse_subnets(draft: Draft, created: Collection[str], around: Surroundings) -> None:
    """Refuse a network that the engine, or the host, has no subnet for."""
    removed = {step.subject for step in draft.first if isinstance(step, RemoveNetwork)}
    used = {
        name: [subnet for text in texts if (subnet := parse_network(text))]
        for name, texts in around.subnets.items()
        if name not in removed
    }
    bridges = {subnet for texts in around.subnets.values() for subnet in texts}
    routes = [subnet for text in around.routes if (subnet := parse_network(text))]
    hosts = [subnet for subnet in routes if str(subnet) not in bridges]
    unnamed: list[str] = []
    for key, network in sorted((draft.declared.config.get("networks") or {}).items()):
        name, settings = draft.name_network(key), network or {}
        joined = any(key in (draft.services[service].get("networks") or {}) for service in created)
        exists = name in draft.state.networks and name not in removed
        if not joined or exists or settings.get("external"):
            continue
        subnets = list_subnets(settings)
        if not subnets and settings.get("driver") in (None, "bridge"):
            unnamed.append(name)
        for subnet in subnets:
            held = [
                f"{other} of network {its_name}"
                for its_name, others in used.items()
                for other in others
                if is_overlapping(subnet, other)
            ]
            held += [
                f"{other}, which the host is in" for other in hosts if is_overlapping(subnet, other)
            ]
            if held:
                draft.refuse(
                    f"network {name}",
                    f"its subnet {subnet} overlaps {join_few(held, ', ')}",
                    f"declare another subnet in networks.{key}.ipam, or none",
                )
    taken = [*routes, *(subnet for subnets in used.values() for subnet in subnets)]
    free = sum(1 for _ in islice(_list_free(around.pools, taken), len(unnamed)))
    if around.pools and free < len(unnamed):
        draft.refuse(
            f"network {', '.join(unnamed)}",
            f"the engine's address pools are used up: {free} subnets left, {len(unnamed)} needed",
            "remove networks that nobody uses (`docker network prune` on the host), declare "
            "subnets in the compose file, or add to default-address-pools in daemon.json",
        )


def _list_free(pools: Sequence[tuple[str, int]], taken: Sequence[Network]) -> Iterator[Network]:
    """The subnets that the engine can still choose; those of the host's routes it leaves out."""
    for base, size in pools:
        pool = parse_network(base)
        if pool is None or pool.version != 4 or not pool.prefixlen <= size <= 32:
            continue
        overlapping = [subnet for subnet in taken if is_overlapping(pool, subnet)]
        for subnet in pool.subnets(new_prefix=size):
            if not any(is_overlapping(subnet, other) for other in overlapping):
                yield subnet


def _refuse_without_healthcheck(draft: Draft, name: str, target: str) -> None:
    body = draft.services.get(target)
    if body is None or not count_replicas(body) or _has_healthcheck(draft, target) is not False:
        return
    draft.refuse(
        name,
        f"depends_on.{target} waits until {target} is healthy, and {target} has no healthcheck",
        f"give {target} a healthcheck in the compose file, or wait for `service_started`",
    )


def _has_healthcheck(draft: Draft, name: str) -> bool | None:
    """Whether a service's next container has a healthcheck; ``None`` where only its image tells."""
    declared: Mapping[str, Any] = draft.services[name].get("healthcheck") or {}
    test = declared.get("test")
    if declared.get("disable") or test in (["NONE"], "NONE"):
        return False
    if test:
        return True
    image = draft.declared.images.get(draft.name_image(name))
    return image.healthcheck if image else None
