"""Measuring a model server or a queue of tasks, honestly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reconciler import BenchmarkReconciler as BenchmarkReconciler
    from .spec import BenchmarkSpec as BenchmarkSpec

_MODULES = {"BenchmarkReconciler": "reconciler", "BenchmarkSpec": "spec"}

__all__ = ["BenchmarkReconciler", "BenchmarkSpec"]


def __getattr__(name: str) -> Any:
    # Every run reads the spec, which lies in here: what measures is loaded where it is used.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
