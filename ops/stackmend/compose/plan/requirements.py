"""What a declaration needs, and the host or the declaration lacks: refused before any step."""

from collections.abc import Mapping
from typing import Any

from stackmend.compose.plan.contradictions import find_contradictions
from stackmend.compose.plan.declaration import count_replicas
from stackmend.compose.plan.draft import Draft


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
