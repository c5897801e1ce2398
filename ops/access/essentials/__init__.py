"""What a host needs before a stack comes to it: a right clock, kept ports, security updates."""

from typing import TYPE_CHECKING

from ops import connection
from ops.access.essentials.apply import Preparing
from ops.access.essentials.facts import HostEssentials
from ops.access.essentials.look import arguments
from ops.access.essentials.spec import Basics

if TYPE_CHECKING:
    from pyinfra.api.host import Host

__all__ = ["Basics", "Preparing", "expect"]


def expect(host: "Host", spec: Basics) -> None:
    """Let the next reading of any fact of a host bring what ``access.basics`` needs.

    :param host: the host.
    :param spec: what will be wanted of it.
    """
    connection.expect(host, HostEssentials, **arguments(spec))
