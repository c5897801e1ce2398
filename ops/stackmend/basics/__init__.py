"""What a host needs before a stack comes to it: a right clock, kept ports, security updates."""

from typing import TYPE_CHECKING

from stackmend.basics.spec import BasicsSpec

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.basics.reconciler import BasicsReconciler
    from stackmend.reporting import Collector

__all__ = ["BasicsSpec", "make_reconciler", "prefetch"]

# Every run reads what a host is to have; what observes and acts is loaded where it is used.


def make_reconciler(host: "Host", spec: BasicsSpec, report: "Collector") -> "BasicsReconciler":
    """Make what ``access.basics`` reconciles.

    :param host: the host.
    :param spec: what is desired of it.
    :param report: the collector of the operation.
    """
    from stackmend.basics.reconciler import BasicsReconciler

    return BasicsReconciler(host, spec, report)


def prefetch(host: "Host", spec: BasicsSpec) -> None:
    """Let the next reading of any fact of a host bring what ``access.basics`` needs.

    :param host: the host.
    :param spec: what will be desired of it.
    """
    from stackmend import connection
    from stackmend.basics.facts import Basics, arguments

    connection.prefetch(host, Basics, **arguments(spec))
