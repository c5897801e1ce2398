"""Accelerators: found on the bus, given to containers, and seen from inside one."""

from typing import TYPE_CHECKING

from ops import connection
from ops.engine.accelerators.apply import Accelerating
from ops.engine.accelerators.facts import HostAccelerators
from ops.engine.accelerators.spec import Acceleration

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from ops.engine.spec import Vendor

__all__ = ["Accelerating", "Acceleration", "expect"]


def expect(host: "Host", vendor: "Vendor" = "auto") -> None:
    """Let the next reading of any fact of a host bring what ``engine.accelerated`` needs.

    :param host: the host.
    :param vendor: which accelerators will be wanted of it.
    """
    if vendor != "none":
        connection.expect(host, HostAccelerators)
