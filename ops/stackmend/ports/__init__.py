"""Ports: who holds one for certain, and how it is freed without hurting the wrong thing."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from stackmend import connection, reporting
from stackmend.ports.remedies import remedy
from stackmend.ports.spec import PortsSpec
from stackmend.problems import in_one_line
from stackmend.raw import validate
from stackmend.reconcile import failing, invalid

__all__ = ["free", "remedy", "reserve", "restored"]

if TYPE_CHECKING:
    from pyinfra.api import Host

    from stackmend.reporting import Collector

# Every run reads what ports a stack may want; what looks and acts is loaded where it is used.


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
      a function without arguments that gives them, which is asked whenever the host is looked at
    + on_conflict: ``report`` says who holds a port, fails where one is held, and changes nothing;
      ``stop`` ends those holders that ``allow`` names
    + allow: rules ``exe:``, ``unit:``, ``container:``, ``project:`` and ``user:``, each with a name
      or a pattern: what may be ended
    + protect: rules of the same kinds for what is never ended, whatever ``allow`` says
    + project: the Compose project that is to have the ports; what its own running containers hold
      is as it should be
    + directory: the directory on the host that this project is started from
    + grace: seconds that a process has to end by itself before it is killed
    + settle: seconds for which a freed port must stay free

    A container is stopped on its own engine and does not start again by itself; a systemd unit is
    stopped together with its sockets; what a supervisor keeps is stopped by that supervisor; a
    process is ended by SIGTERM and then SIGKILL, and only while it is proven to be the one that was
    looked at. Each is recorded on the host first: the journal and the report name the record that
    ``ports.restored`` brings it back from. What the host itself, this connection or a container
    engine hangs on is never ended, nor what cannot be seen.

    Where one holder may not be ended, none is: that is a refusal, which fails the operation on this
    host alone and names the line to add. A holder that comes back is named with what started it,
    and not fought. With ``stop``, wanted ports that the kernel may give to outgoing connections are
    added to those that it keeps from them, for good.

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
    from stackmend.ports.apply import Freeing
    from stackmend.ports.look import given

    report = reporting.record(host, "ports.free")
    try:
        spec = validate(
            PortsSpec,
            {
                "ports": given(ports),
                "on_conflict": on_conflict,
                "allow": _rules(allow),
                "protect": _rules(protect),
                "project": "" if project is None else project,
                "directory": "" if directory is None else directory,
                "grace": grace,
                "settle": settle,
            },
        )
    except ValueError as error:
        yield from invalid(host, "ports.free", in_one_line(error))
        return
    except connection.RemoteError as error:
        # What gives the ports asked the host.
        yield from failing(host, "ports.free", str(error))
        return
    work = Freeing(host, spec, report)
    try:
        if work.is_well():
            host.noop("the wanted ports are free, or have what they are wanted for")
            return
        yield FunctionCommand(work.converge, (), {})
    finally:
        report.measured("channels", connection.channels(host), "channels")


@operation()
def restored(record: str = "latest") -> Generator[FunctionCommand, None, None]:
    """
    Bring back what ``ports.free`` ended, to the state that it had.

    + record: the name of its record, as the journal, the report and the undo of each action name
      it; ``latest`` is the last one of the host

    A unit is started, and enabled as before; a container gets its restart policy back and is
    started; a supervisor starts its program; a process is started with the same command line,
    directory, user and environment, detached, its output going nowhere; ports that were reserved
    are given back. What is there already stays as it is. What cannot be brought back (a container
    that was removed when it stopped, a program of Windows, a file that is gone) fails the operation
    on this host alone and is named.

    **Example:**

    .. code:: python

        from stackmend import ports

        ports.restored(name="What held 6379 is back", record="20260101T120000Z-1")
    """
    from stackmend.ports import restoring
    from stackmend.ports.commands import RECORD

    report = reporting.record(host, "ports.restored")
    if not isinstance(record, str) or not RECORD.fullmatch(record):
        reason = f"record: must be a name such as 20260101T120000Z-1, or latest; got {record!r}"
        yield from invalid(host, "ports.restored", reason)
        return
    work = restoring.Restoring(host, record, report)
    if work.is_well():
        host.noop(f"what record {record} holds is as it was")
        return
    yield FunctionCommand(work.converge, (), {})


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
    from stackmend.ports.apply import reserve

    reserve(host, report, ranges, cause, now)


def _rules(given: Sequence[str] | str) -> Sequence[str]:
    # On pyinfra's command line a single rule is a text.
    return (given,) if type(given) is str else given
