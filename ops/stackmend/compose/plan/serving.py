"""Which services serve others, and are no jobs that are done once they ended well. Pure."""

from collections.abc import Mapping
from typing import Any

from stackmend.addresses import is_call, read
from stackmend.addresses.kinds import find_served_kind
from stackmend.compose.plan.declaration import count_replicas


def explain_serving(name: str, services: Mapping[str, Mapping[str, Any]]) -> str:
    """Why a service serves others for as long as they run; empty where it may be a job.

    Others wait for the start of a job as well, so that alone says nothing: who serves is called by
    an address, waited for until it is healthy, or starts a known server, and others wait for its
    start or the engine is to restart it. What others wait for to end is a job.

    :param services: those of the project, as Compose resolved them.
    """
    waiting = {
        other: str((condition or {}).get("condition"))
        for other, body in services.items()
        if isinstance(body.get("depends_on"), Mapping)
        for target, condition in body["depends_on"].items()
        if target == name != other and name in services
    }
    if "service_completed_successfully" in waiting.values():
        return ""
    for other, condition in waiting.items():
        if condition == "service_healthy":
            return f"{other} needs it healthy"
    for address in read({"services": services}):
        other = address.place.service
        # A name alone may be a word.
        if (
            address.target == name
            and is_call(address)
            and (address.scheme or address.explicit or address.port_place)
            and count_replicas(services[other])
        ):
            return f"{other} calls it ({address.place.name})"
    body = services.get(name) or {}
    if kind := find_served_kind(body):
        for other in waiting:
            if count_replicas(services[other]):
                return f"{other} needs it, which runs {kind}"
        if policy := _find_policy(body):
            return f"it runs {kind}, with the restart policy {policy}"
    return ""


def _find_policy(body: Mapping[str, Any]) -> str:
    """When the engine is to restart a service; empty for never."""
    deployed = (body.get("deploy") or {}).get("restart_policy") or {}
    policy = str(deployed.get("condition") or body.get("restart") or "no")
    return "" if policy in ("no", "none") else policy
