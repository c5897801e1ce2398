"""Accelerators: found on the bus, given to containers, and seen from inside one."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.engine.spec import Vendor

    from .apply import Accelerating as Accelerating
    from .spec import Acceleration as Acceleration

_WHERE = {"Accelerating": "apply", "Acceleration": "spec"}

__all__ = ["Accelerating", "Acceleration", "prefetch"]


def prefetch(host: "Host", vendor: "Vendor" = "auto") -> None:
    """Let the next reading of any fact of a host bring what ``engine.accelerated`` needs.

    :param host: the host.
    :param vendor: which accelerators will be wanted of it.
    """
    if vendor != "none":
        from stackmend import connection
        from stackmend.engine.accelerators.facts import HostAccelerators

        connection.prefetch(host, HostAccelerators)


def __getattr__(name: str) -> Any:
    # Loaded when first used: every run reads what may be wanted, and few do anything about it.
    if name in _WHERE:
        value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
