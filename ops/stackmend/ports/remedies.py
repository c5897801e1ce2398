"""A port that an engine could not bind, found out about at that very moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stackmend import connection, reporting
from stackmend.ports.errors import parse
from stackmend.ports.spec import PortSpec, PortsPolicy, PortsSpec

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.ports.errors import BindError
    from stackmend.ports.reconciler import PortsReconciler
    from stackmend.reporting import Collector


def make_remedy(
    policy: PortsPolicy, project: str = "", directory: str = ""
) -> Callable[[Host, str], bool]:
    """What answers an engine's bind error on a host, once for each port.

    :param policy: what may be done about a port that is held.
    :param project: the Compose project that is to have the port.
    :param directory: the directory that this project is started from.
    :return: a function of the host and of what the engine wrote. It says whether the port can be
        bound now, so that what failed is worth being tried once more. It raises nothing that a
        connection could, and changes nothing where the policy does not allow it.
    """
    tried: set[tuple[str, PortSpec]] = set()

    def answer_bind_error(host: Host, output: str) -> bool:
        error = parse(output)
        if error is None:
            return False
        port = PortSpec(address=error.address, port=error.port, protocol=error.protocol)
        if (host.name, port) in tried:
            return False
        tried.add((host.name, port))
        stack = {"project": project, "directory": directory}
        spec = PortsSpec.model_validate({**stack, **policy.model_dump(), "ports": (port,)})
        # Loaded where an engine could not bind, and only there.
        from stackmend.ports.reconciler import PortsReconciler

        room = PortsReconciler(host, spec, _find_report(host))
        # It is reported where the engine failed, and held and counted for itself.
        room.operation = "ports.remedy"
        return _free(room, error)

    return answer_bind_error


def _free(room: PortsReconciler, error: BindError) -> bool:
    from stackmend.ports.plan import explain_allocated
    from stackmend.reconcile import mend

    connection.invalidate(room.host)
    try:
        observed = room.observe()
    except connection.RemoteError as problem:
        room.report_error(problem)
        return False
    plan, state = observed.plan, observed.state
    if state is None or not all(port.status in ("free", "ours") for port in state.ports):
        if plan.actions and not plan.refusals:
            return mend(room)
        room.report_plan(plan)
        return False
    if not error.allocated_by_engine:
        # It was released since the engine was asked.
        return True
    room.report_plan(explain_allocated(state.ports[0], error.text))
    return False


def _find_report(host: Host) -> Collector:
    """The collector of the running operation, with all that it has reported so far."""
    run = reporting.find_run(host.state)
    collectors = run.collectors.get(host.name, {}) if run is not None else {}
    found = collectors.get(host.current_op_hash or "")
    return found if found is not None else reporting.record(host, "ports.remedy")
