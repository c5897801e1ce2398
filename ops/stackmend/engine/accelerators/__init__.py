"""Accelerators: found on the bus, given to containers, and seen from inside one."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.engine.spec import Vendor

    from .reconciler import AcceleratorsReconciler as AcceleratorsReconciler
    from .spec import Acceleration as Acceleration

_MODULES = {"AcceleratorsReconciler": "reconciler", "Acceleration": "spec"}

__all__ = ["Acceleration", "AcceleratorsReconciler", "prefetch"]


def prefetch(host: "Host", vendor: "Vendor" = "auto") -> None:
    """Let the next reading of any fact of a host bring what ``engine.accelerated`` needs.

    :param host: the host.
    :param vendor: which accelerators the spec names.
    """
    if vendor != "none":
        from stackmend import connection
        from stackmend.engine.accelerators.facts import HostAccelerators

        connection.prefetch(host, HostAccelerators)


def __getattr__(name: str) -> Any:
    # Imported when first used: every run imports this room, and few runs act.
    if name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
