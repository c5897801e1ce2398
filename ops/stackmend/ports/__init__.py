"""Ports: who holds one for certain, and how it is freed without hurting the wrong thing."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend.ports.remedies import make_remedy
from stackmend.ports.spec import PortsSpec
from stackmend.raw import validate
from stackmend.reconcile import operate

__all__ = ["free", "make_remedy", "reserve", "restored"]

if TYPE_CHECKING:
    from pyinfra.api import Host

    from stackmend.ports.reconciler import PortsReconciler
    from stackmend.ports.restore import RestoreReconciler
    from stackmend.reporting import Collector

# Every run reads what ports a stack desires; what observes and acts is loaded where it is used.


@operation()
def free(
    ports: Iterable[Any] | str | int | Callable[[], Iterable[Any] | str | int],
    on_conflict: str = "report",
    allow: Sequence[str] | str = (),
    protect: Sequence[str] | str = (),
    project: str | None = None,
    directory: str | None = None,
    grace: float = 10,
    settle: float = 3,
) -> Generator[FunctionCommand, None, None]:
    """
    Make sure that ports of the host can be bound, and say who holds those that cannot.

    + ports: the ports: ``6379``, ``"127.0.0.1:8000-8010/tcp"``, ``"[::1]:53/udp"``, or several; or
      a function without arguments that gives them, which is called whenever the host is observed
    + on_conflict: ``report`` says who holds a port, fails where one is held, and changes nothing;
      ``stop`` stops those holders that ``allow`` names
    + allow: rules ``exe:``, ``unit:``, ``container:``, ``project:`` and ``user:``, each with a name
      or a pattern: what may be stopped; ``connection:`` with the other end of an outgoing
      connection, such as ``connection:192.0.2.7:443``: what may be closed
    + protect: rules of the same kinds for what is never stopped, whatever ``allow`` says
    + project: the Compose project that is to have the ports; what its own running containers hold
      is as it should be
    + directory: the directory on the host that this project is started from
    + grace: seconds that a process has to end by itself before it is killed
    + settle: seconds for which a freed port must stay free

    A container is stopped on its own engine and does not start again by itself; a systemd unit is
    stopped together with its sockets; what a supervisor keeps is stopped by that supervisor; a
    process is ended by SIGTERM and then SIGKILL, and only while it is proven to be the one that was
    observed. Each is recorded on the host first: the journal and the report name the record that
    ``ports.restored`` brings it back from. What the host itself, this connection or a container
    engine hangs on is never stopped, nor what cannot be seen.

    Where one holder may not be stopped, none is: that is a refusal, which fails the operation on
    this host alone and names the line to add. A holder that comes back is named with the parent
    that started it; where ``allow`` names that parent as well (its unit by ``unit:``) and nothing
    protects it, it is stopped too, and otherwise not fought. An outgoing connection is closed by
    the kernel (``ss --kill``, see ss(8)) and its program goes on. With ``stop``, desired ports
    that the kernel may give to outgoing connections are added to those that it keeps from them, for
    good.

    **Example:**

    .. code:: python

        from stackmend import ports

        ports.free(
            name="The stack's ports can be bound",
            ports=["6379", "127.0.0.1:8000"],
            on_conflict="stop",
            allow=["unit:redis-server.service"],
            project="ai",
        )
    """

    def build(report: "Collector") -> "PortsReconciler":
        from stackmend.ports.reconciler import PortsReconciler

        raw = {
            "ports": ports() if callable(ports) else ports,
            "on_conflict": on_conflict,
            "allow": _list_rules(allow),
            "protect": _list_rules(protect),
            "project": "" if project is None else project,
            "directory": "" if directory is None else directory,
            "grace": grace,
            "settle": settle,
        }
        return PortsReconciler(host, validate(PortsSpec, raw), report)

    yield from operate(
        host, "ports.free", build, converged="the ports are free, or held by the project itself"
    )


@operation()
def restored(
    record: str = "latest", required: bool = True
) -> Generator[FunctionCommand, None, None]:
    """
    Bring back what ``ports.free`` stopped, to the state that it had.

    + record: the name of its record, as the journal, the report and the undo of each action name
      it; ``latest`` is the last one of the host
    + required: whether the record has to be there; with ``False`` there is nothing to bring back
      where it is not

    A unit is started, and enabled as before; a container gets its restart policy back and is
    started; a supervisor starts its program; a process is started with the same command line,
    directory, user and environment, detached, its output going nowhere; ports that were reserved
    are given back. What is there already stays as it is. Where another holds one of its ports,
    that is a refusal, which names who, and nothing of it is brought back. What cannot be brought
    back (a container that was removed when it stopped, a program of Windows, a file that is gone)
    fails the operation on this host alone and is named.

    **Example:**

    .. code:: python

        from stackmend import ports

        ports.restored(name="What held 6379 is back", record="20260101T120000Z-1")
    """

    def build(report: "Collector") -> "RestoreReconciler":
        from stackmend.ports.commands import RECORD
        from stackmend.ports.restore import RestoreReconciler

        if not isinstance(record, str) or not RECORD.fullmatch(record):
            raise ValueError(
                f"record: must be a name such as 20260101T120000Z-1, or latest; got {record!r}"
            )
        return RestoreReconciler(host, record, report, required)

    yield from operate(
        host, "ports.restored", build, converged=f"what record {record} holds is as it was"
    )


def reserve(host: "Host", report: "Collector", ranges: str, cause: str, now: float) -> None:
    """Keep ports from outgoing connections for good, for an operation of another room.

    They are added to those that the kernel keeps already. ``ports.restored`` takes it back.

    :param host: the host.
    :param report: the collector of the operation that needs it.
    :param ranges: the ports, such as ``8000-8010,9000``.
    :param cause: why.
    :param now: the host's clock, in seconds since 1970.
    :raises StepError: it could not be done.
    """
    from stackmend.ports.plan import Reserve
    from stackmend.ports.reconciler import PortsReconciler

    PortsReconciler(host, PortsSpec(), report).execute_action(
        Reserve(subject=ranges, cause=cause), now
    )


def _list_rules(raw: Sequence[str] | str) -> Sequence[str]:
    # On pyinfra's command line a single rule is a text.
    return (raw,) if type(raw) is str else raw
