"""From a host's settings to the first contact with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackmend.access.keys import read_public_keys
from stackmend.access.spec import AccessPolicy
from stackmend.controller_files import expand
from stackmend.raw import validate

if TYPE_CHECKING:
    from stackmend.connection import Contact


def find_contact(data: Mapping[str, Any]) -> Contact | None:
    """How to reach a host whose settings have a section ``access``; None for any other.

    :param data: the host's data, as ``host.data.dict()`` gives it; validated already.
    """
    stack = data.get("stack")
    raw = stack.get("access") if isinstance(stack, Mapping) else getattr(stack, "access", None)
    if raw is None:
        return None
    from stackmend.connection import Contact

    policy = raw if isinstance(raw, AccessPolicy) else validate(AccessPolicy, raw)
    return Contact(
        user=policy.user,
        keys=tuple(key.private for key in read_public_keys(policy.public_keys) if key.private),
        fingerprint=policy.fingerprint,
        known_hosts=expand(policy.known_hosts) if policy.known_hosts else None,
        wait=policy.wait,
    )
