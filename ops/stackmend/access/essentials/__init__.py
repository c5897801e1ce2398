"""What a host needs before a stack comes to it: a right clock, kept ports, security updates."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from .apply import Preparing as Preparing
    from .spec import Basics as Basics

_WHERE = {"Basics": "spec", "Preparing": "apply"}

__all__ = ["Basics", "Preparing", "prefetch"]


def prefetch(host: "Host", spec: "Basics") -> None:
    """Let the next reading of any fact of a host bring what ``access.basics`` needs.

    :param host: the host.
    :param spec: what will be wanted of it.
    """
    from stackmend import connection
    from stackmend.access.essentials.facts import HostEssentials, arguments

    connection.prefetch(host, HostEssentials, **arguments(spec))


def __getattr__(name: str) -> Any:
    # Loaded when first used: every run reads what may be wanted, and few do anything about it.
    if name in _WHERE:
        value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
