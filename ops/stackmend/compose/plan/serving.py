"""Which services serve others, and are no jobs that are done once they ended well. Pure."""

from collections.abc import Mapping
from typing import Any

from stackmend.addresses import is_call, read
from stackmend.compose.plan.declaration import count_replicas


def explain_serving(name: str, services: Mapping[str, Mapping[str, Any]]) -> str:
    """Why a service serves others for as long as they run; empty where it may be a job.

    Others wait for the start of a job as well, so that alone says nothing: who serves is called by
    an address, or waited for until it is healthy. What others wait for to end is a job.

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
    return ""
