"""What a run changed, brought back from its record: by operations of ours alone, the last first."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, OperationError, State, operation

from stackmend import reporting
from stackmend.decision import Plan, Refusal
from stackmend.reconcile import Observation, Reconciler, operate
from stackmend.undo.steps import Change, Left, Step, Undo, find_steps

if TYPE_CHECKING:
    from stackmend.connection import Lease
    from stackmend.decision import Action
    from stackmend.reporting import Collector
    from stackmend.reporting.state import RunRecord

__all__ = ["Left", "Step", "Undo", "choose", "find", "listed"]

_records: WeakKeyDictionary[State, RunRecord] = WeakKeyDictionary()
_chosen = ""


def choose(record: str) -> None:
    """Name the record that :func:`find` reads, in place of the data ``undo`` of the hosts.

    :param record: the path of a run's record, or the run's id.
    """
    global _chosen
    _chosen = record


def find(host: Host) -> Undo:
    """What a run did to a host and is to be brought back.

    The record is the one of :func:`choose`, or the one that the host's data ``undo`` names.

    :param host: the host.
    :raises OperationError: there is no such record.
    """
    state = host.state
    record = _records.get(state)
    if record is None:
        name = _chosen or str(host.data.get("undo") or "")
        if not name:
            raise OperationError("no record: name one with --data undo=RECORD")
        try:
            record = reporting.read(reporting.find_record(state, name))
        except ValueError as error:
            raise OperationError(f"no record {name!r}: {error}") from None
        _records[state] = record
    found = record.hosts.get(host.name)
    changes = (
        Change(verb=done.verb, subject=done.subject, undo=done.undo)
        for each in (found.operations if found else ())
        for done in each.done
        if done.result == "done"
    )
    return find_steps(changes)


@operation()
def listed(left: Sequence[Left]) -> Generator[FunctionCommand, None, None]:
    """
    Say what no operation of stackmend brings back, and how a person does.

    + left: what is left, as ``undo.find`` gives it

    It changes nothing and fails on this host alone, as the host is not as it was.

    **Example:**

    .. code:: python

        from stackmend import undo

        undo.listed(name="What is left to do by hand", left=undo.find(host).left)
    """

    def build(report: Collector) -> _Listing:
        return _Listing(host, report, tuple(left))

    yield from operate(host, "undo.listed", build, converged="nothing is left to do by hand")


class _Listing(Reconciler[None, "Action"]):
    """What is left, as refusals."""

    subject = "undo"
    is_restrained = False

    def __init__(self, host: Host, report: Collector, left: tuple[Left, ...]) -> None:
        self.host, self.report, self._left = host, report, left

    def observe(self, *, fresh: bool = False) -> Observation[None, Action]:
        """List it; nothing is read."""
        refusals = tuple(
            Refusal(
                subject=each.what,
                reason="stackmend does not bring it back by itself",
                remedy=f"by hand: {each.how}" if each.how else "declare it as it was, and run site",
            )
            for each in self._left
        )
        return Observation(Plan(refusals=refusals))

    def execute(self, plan: Plan[Action], state: None, lease: Lease) -> bool:
        """Nothing is planned."""
        return True
