"""The answer to an engine that could not bind a port: found out for certain, and freed once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from stackmend import connection, reporting
from stackmend.ports.errors import BindError, parse
from stackmend.ports.spec import PortSpec, PortsPolicy, PortsSpec

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.ports.apply import Freeing
    from stackmend.reporting import Collector


def remedy(
    policy: PortsPolicy, project: str = "", directory: str = ""
) -> Callable[["Host", str], bool]:
    """What answers an engine's bind error on a host, once for each port.

    :param policy: what may be done about a port that is held.
    :param project: the Compose project that is to have the port.
    :param directory: the directory that this project is started from.
    :return: a function of the host and of what the engine said. It says whether the port can be
        bound now, so that what failed is worth being tried once more. It raises nothing that a
        connection could, and changes nothing where the policy does not allow it.
    """
    tried: set[tuple[str, PortSpec]] = set()

    def answer(host: "Host", said: str) -> bool:
        error = parse(said)
        if error is None:
            return False
        from stackmend.ports.apply import (
            Freeing,  # loaded where an engine could not bind, and only there
        )

        wanted = PortSpec(address=error.address, port=error.port, protocol=error.protocol)
        if (host.name, wanted) in tried:
            return False
        tried.add((host.name, wanted))
        spec = PortsSpec.model_validate(
            {
                "project": project,
                "directory": directory,
                **policy.model_dump(),
                "ports": (wanted,),
            }
        )
        return _free(Freeing(host, spec, _report(host)), error)

    return answer


def _free(work: "Freeing", error: BindError) -> bool:
    from stackmend.ports.apply import is_free
    from stackmend.ports.plan import allocated

    connection.invalidate(work.host)
    try:
        look = work.look()
    except connection.RemoteError as problem:
        work.failed(str(problem))
        return False
    if not is_free(look):
        if look.plan.actions and not look.plan.refusals:
            return work.converge(work.host.state, work.host)
        work.tell(look.plan)
        return False
    if not error.allocated_by_engine:
        # It went by itself since the engine was asked.
        return True
    assert look.state is not None, "what can be bound was read"
    work.tell(allocated(look.state.ports[0], error.text))
    return False


def _report(host: "Host") -> "Collector":
    """The collector of the operation that asks, with all that it has told so far."""
    run = reporting.find_run(host.state)
    ours = run.collectors.get(host.name, {}) if run is not None else {}
    found = ours.get(host.current_op_hash or "")
    return found if found is not None else reporting.record(host, "ports.remedy")
