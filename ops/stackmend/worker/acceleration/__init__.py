"""Acceleration: whether models are on the accelerator, and which link is missing where not."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.connection import Unknown

    from .reconciler import AccelerationReconciler as AccelerationReconciler
    from .spec import AccelerationPolicy
    from .spec import AccelerationSpec as AccelerationSpec
    from .state import AcceleratorChain

_MODULES = {"AccelerationReconciler": "reconciler", "AccelerationSpec": "spec"}

__all__ = ["AccelerationReconciler", "AccelerationSpec", "prefetch", "read_chain"]


def prefetch(host: "Host", policy: "AccelerationPolicy", project: str) -> None:
    """Let the next reading of any fact of a host bring what ``worker.accelerated`` needs.

    :param host: the host.
    :param policy: the section of the stack.
    :param project: the Compose project of the server.
    """
    from stackmend import connection
    from stackmend.engine.accelerators.facts import HostAccelerators

    from .facts import Acceleration
    from .spec import AccelerationSpec

    named = {name: getattr(policy, name) for name in policy.model_fields_set}
    spec = AccelerationSpec.model_validate({**named, "project": project})
    connection.prefetch(host, HostAccelerators)
    connection.prefetch(host, Acceleration, **spec.fact_arguments)


def read_chain(host: "Host", spec: "AccelerationSpec") -> "AcceleratorChain | Unknown":
    """The chain from a host's accelerator to its loaded models; reads only.

    :param host: the host.
    :param spec: which server.

    Example:
        >>> read_chain(host, AccelerationSpec(project="ai")).processor
        '35% gpu'
    """
    from stackmend import connection
    from stackmend.engine.accelerators.facts import HostAccelerators

    from .chain import build_chain
    from .facts import Acceleration

    requests = [(HostAccelerators, {}), (Acceleration, spec.fact_arguments)]
    for fact, arguments in requests:
        connection.prefetch(host, fact, **arguments)
    accelerators, state = (connection.read(host, fact, **words) for fact, words in requests)
    for fact in (state, accelerators):
        if isinstance(fact, connection.Unknown):
            return fact
    return build_chain(spec, accelerators, state)


def __getattr__(name: str) -> Any:
    # Imported when first used: every run imports this room, and few runs act.
    if name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
