"""The move of a legacy worker to Ollama: recognised, measured, and kept only where it is faster."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyinfra.api import Host

    from stackmend.compose.spec import ComposeSpec
    from stackmend.reconcile import Reconciler
    from stackmend.reporting import Collector
    from stackmend.worker.move.spec import MovePolicy

__all__ = ["make_reconciler", "prefetch"]


def make_reconciler(
    host: "Host",
    policy: "MovePolicy",
    project: "ComposeSpec",
    report: "Collector",
    on_result: Callable[[Path], None],
) -> "Reconciler[Any, Any]":
    """What brings a legacy worker to what is desired, for ``worker.engine``.

    :param host: the host.
    :param policy: what is desired of it.
    :param project: the project, as ``compose.stack`` has it.
    :param report: what is reported to.
    :param on_result: called with where a measurement of both lies on this machine.
    """
    from stackmend.worker.move.reconciler import MoveReconciler

    return MoveReconciler(host, policy, project, report, on_result)


def prefetch(host: "Host", project: str) -> None:
    """Let the next reading of any fact of the host bring what a move will ask for.

    :param host: the host.
    :param project: the Compose project of the legacy worker.
    """
    from stackmend import connection
    from stackmend.worker.move.facts import WorkerMove

    connection.prefetch(host, WorkerMove, project=project)
