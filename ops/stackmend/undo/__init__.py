"""What a run changed, brought back from its record: by operations of ours alone, the last first."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, OperationError, State, operation

from stackmend import reporting
from stackmend.decision import Finding, Plan, Refusal
from stackmend.reconcile import Observation, Reconciler, operate
from stackmend.undo.steps import Change, Left, Step, Undo, find_steps

if TYPE_CHECKING:
    from pyinfra.api.operation import OperationMeta

    from stackmend.connection import Lease
    from stackmend.decision import Action
    from stackmend.reporting import Collector
    from stackmend.reporting.state import RunRecord

__all__ = ["Left", "Step", "Undo", "choose", "completed", "find", "listed"]

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
    :raises OperationError: there is no such record, or it has none of the hosts of this run.
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
    known = {each.name for each in state.inventory if state.is_host_in_limit(each)}
    if not known & record.hosts.keys():
        names = ", ".join(sorted(record.hosts)) or "none"
        raise OperationError(f"the record has no host {host.name}; it has {names}")
    found = record.hosts.get(host.name)
    if found is None:
        return Undo()
    changes = (
        Change(verb=done.verb, subject=done.subject, undo=done.undo, done=done.result == "done")
        for each in found.operations
        for done in each.done
    )
    cut_short = found.interrupted_at
    if not cut_short and found.outcome == "unknown" and not record.complete:
        cut_short = "a step that its record does not name"
    return find_steps(changes, cut_short=cut_short)


@operation()
def listed(found: Undo) -> Generator[FunctionCommand, None, None]:
    """
    Say what no operation of stackmend brings back, and how a person does.

    + found: what the run did to this host, as ``undo.find`` gives it

    It changes nothing. Where anything is left, it fails on this host alone, as the host is not as
    it was; where the run did nothing that is to be brought back, it says so.

    **Example:**

    .. code:: python

        from stackmend import undo

        undo.listed(name="What is left to do by hand", found=undo.find(host))
    """

    def build(report: Collector) -> _Listing:
        return _Listing(host, report, found)

    yield from operate(host, "undo.listed", build, converged="nothing is left to do by hand")


@operation()
def completed(operations: Sequence[OperationMeta]) -> Generator[FunctionCommand, None, None]:
    """
    Fail on this host where something was not brought back, once all else was.

    + operations: what has brought things back before, each with ``_ignore_errors=True``

    **Example:**

    .. code:: python

        from stackmend import engine, undo

        first = engine.restored(copy="20260101T120000.000000Z", _ignore_errors=True)
        undo.completed(name="All is as it was", operations=[first])
    """
    if host.state.is_executing and not all(each.did_succeed() for each in operations):
        # Each has said why.
        yield FunctionCommand(lambda state, host: False, (), {})


class _Listing(Reconciler[None, "Action"]):
    """What is left, as refusals."""

    subject = "undo"
    is_restrained = False

    def __init__(self, host: Host, report: Collector, found: Undo) -> None:
        self.host, self.report, self._found = host, report, found

    def observe(self, *, fresh: bool = False) -> Observation[None, Action]:
        """List it; nothing is read."""
        if self._found == Undo():
            nothing = Finding(
                subject="undo",
                kind="nothing to bring back",
                cause="the run did nothing to this host that it would have to be taken back from",
                blocks=False,
            )
            return Observation(Plan(findings=(nothing,)))
        refusals = tuple(
            Refusal(
                subject=each.what,
                reason="stackmend does not bring it back by itself",
                remedy=f"by hand: {each.how}" if each.how else "declare it as it was, and run site",
            )
            for each in self._found.left
        )
        return Observation(Plan(refusals=refusals))

    def execute(self, plan: Plan[Action], state: None, lease: Lease) -> bool:
        """Nothing is planned."""
        return True
