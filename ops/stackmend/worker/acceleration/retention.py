"""Which devices a container keeps when systemd reads its units again. Pure.

NVIDIA's toolkit opens a device to a container behind systemd's back, where Docker hands it no more
than a request for a GPU. At the next ``systemctl daemon-reload`` systemd sets the container's
control group to what it knows itself, and the device is closed to it. Devices that are part of the
container's own description (CDI, ``devices:``) are listed in its scope, and stay.
"""

import re

from stackmend.worker.acceleration.state import Scope

#: The policies under which only what is listed may be opened.
RESTRICTING = ("strict", "closed")

#: Every device, and every one of NVIDIA's GPUs, as systemd lists kinds of them.
_KINDS = re.compile(r"char-(?:\*|195|nvidia(?:-frontend|ctl)?)")


def list_lost(scope: Scope, paths: tuple[str, ...]) -> tuple[str, ...]:
    """The devices that the container may open now, and not after a daemon-reload.

    :param scope: what systemd knows of the container's control group.
    :param paths: the device files of GPUs that the container opens.
    """
    if scope.policy not in RESTRICTING:
        return ()
    allowed = [name for name, access in scope.allowed if {"r", "w"} <= {*access}]
    if any(map(_KINDS.fullmatch, allowed)):
        return ()
    numbers = dict(scope.numbers)
    # One whose numbers are not known is not known to be lost.
    return tuple(
        path
        for path in paths
        if path in numbers and not {path, f"/dev/char/{numbers[path]}"} & {*allowed}
    )
