"""From a host's settings to how it is reached the first time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackmend.access.keys import public_keys
from stackmend.access.spec import AccessPolicy
from stackmend.controller_files import expand
from stackmend.raw import validate

if TYPE_CHECKING:
    from stackmend.connection import Contact


def contact(data: Mapping[str, Any]) -> Contact | None:
    """How a host is reached whose settings have a section ``access``; None for any other.

    :param data: the host's data, as ``host.data.dict()`` gives it; validated already.
    """
    stack = data.get("stack")
    given = stack.get("access") if isinstance(stack, Mapping) else getattr(stack, "access", None)
    if given is None:
        return None
    from stackmend.connection import Contact

    policy = given if isinstance(given, AccessPolicy) else validate(AccessPolicy, given)
    return Contact(
        user=policy.user,
        keys=tuple(key.private for key in public_keys(policy.public_keys) if key.private),
        fingerprint=policy.fingerprint,
        known_hosts=expand(policy.known_hosts) if policy.known_hosts else None,
        wait=policy.wait,
    )
