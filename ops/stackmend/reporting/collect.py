"""What the operations found, planned, did and measured on each host, until it is written."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import to_jsonable_python

from stackmend.reporting.state import Done, ErrorRecord, Measure, Planned

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pyinfra.api.host import Host
    from pyinfra.api.state import State

    from stackmend.decision import Action, Finding, Plan, Refusal
    from stackmend.diagnosis import Diagnosis


class Collector:
    """What one operation on one host found, planned, did, refused and measured.

    All of it passes the redactor when the record is written.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.findings: list[Finding] = []
        self.planned: list[Planned] = []
        self.done: list[Done] = []
        self.refusals: list[Refusal] = []
        self.errors: list[ErrorRecord] = []
        self.measures: dict[str, Measure] = {}

    @property
    def changed(self) -> bool:
        """Whether an action succeeded."""
        return any(action.result == "done" for action in self.done)

    def discard_plan(self) -> None:
        """Drop what was found, planned and refused; keep what was done, failed and measured.

        pyinfra evaluates an operation once to prepare it, again to execute it and again for every
        retry: only the last plan is true, but all that was done was done.
        """
        self.findings.clear()
        self.planned.clear()
        self.refusals.clear()

    def add_plan(self, plan: Plan[Any]) -> None:
        """Add what a plan found, and what follows from it."""
        # Of what was read again the later reading is true.
        later = {(finding.subject, finding.kind) for finding in plan.findings} & {
            (finding.subject, finding.kind) for finding in self.findings if finding.kind == "link"
        }
        self.findings = [
            finding for finding in self.findings if (finding.subject, finding.kind) not in later
        ]
        self.findings += plan.findings
        actions = [Planned.model_validate(_dump_fields(action)) for action in plan.actions]
        done = {(action.verb, action.subject, action.cause) for action in self.done}
        for action in actions:
            # A step that an earlier plan did not come to is done where the later plan has it.
            if (action.verb, action.subject, action.cause) not in done and action in self.planned:
                self.planned.remove(action)
        self.planned += actions
        self.refusals += plan.refusals

    def add_done(self, action: Action, *, started: datetime, seconds: float, ok: bool) -> None:
        """Add an action that was executed.

        :param started: when, with an offset.
        :param seconds: how long it took.
        :param ok: whether it succeeded.
        """
        ended = {"started": started, "seconds": round(seconds, 3)}
        result = "done" if ok else "failed"
        self.done.append(Done.model_validate({**_dump_fields(action), **ended, "result": result}))

    def add_error(self, message: str, log: Iterable[str] = ()) -> None:
        """Add an error.

        :param message: what failed, in one line.
        :param log: the last lines that explain it.
        """
        self.errors.append(ErrorRecord(message=message, log=tuple(log)))

    def add_measure(self, name: str, value: float, unit: str) -> None:
        """Add a number, in place of an earlier one of that name.

        :param name: what was measured.
        :param value: the number.
        :param unit: its unit, such as ``s`` or ``channels``.
        """
        self.measures[name] = Measure(value=value, unit=unit)


def _dump_fields(action: Action) -> dict[str, Any]:
    """An action as its class has it, in JSON's terms; what is hidden stays hidden."""
    fields = action.model_dump(warnings=False)
    return dict(to_jsonable_python(fields, bytes_mode="hex", fallback=str))


class Ending(ABC):
    """What a room shows of all hosts together, once a run has ended."""

    @abstractmethod
    def show(self, directory: Path) -> None:
        """Show it, before the summary of the run.

        :param directory: where the records of runs lie.
        """


E = TypeVar("E", bound=Ending)


class Run:
    """All that is collected during one run of pyinfra."""

    def __init__(self, state: State, *, dry: bool | None) -> None:
        self.state = state
        self.dry = dry
        #: Whether its operations only observe, however it was called.
        self.observed = False
        self.diagnoses: dict[str, Diagnosis] = {}
        #: The hosts that its changes made worse.
        self.worse: set[str] = set()
        #: Of each host that somebody has paused, who and why.
        self.paused: dict[str, str] = {}
        #: Of each host of which a part is paused: by what is, who and why.
        self.paused_parts: dict[str, dict[str, str]] = {}
        #: Whether it says nothing of how its hosts are.
        self.quiet = False
        self.started = datetime.now(UTC)
        self.id = token_hex(3)
        self.collectors: dict[str, dict[str, Collector]] = {}
        self.connect_errors: dict[str, str] = {}
        self.ended_deploys: dict[str, list[str]] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        self.endings: dict[type[Ending], Ending] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._lock = Lock()

    def get_collector(self, host: Host, operation: str | None) -> Collector:
        """The collector of the operation that the host is in, without its last plan."""
        op_hash = host.current_op_hash
        if operation is None:
            names = self.state.op_meta[op_hash].names if op_hash in self.state.op_meta else ()
            operation = ", ".join(sorted(names)) or "run"
        with self._lock:
            ours = self.collectors.setdefault(host.name, {})
            collector = ours.setdefault(op_hash or operation, Collector(operation))
        collector.discard_plan()
        return collector

    def get_ending(self, kind: type[E]) -> E:
        """The one of its kind that this run ends with."""
        with self._lock:
            ending = self.endings.setdefault(kind, kind())
        assert isinstance(ending, kind), "it is kept by its class"
        return ending

    def start_operation(self, host: Host, op_hash: str) -> None:
        """Start the clock of an operation on a host."""
        self._since[host.name, op_hash] = time.monotonic()

    def get_operation(self, host: Host) -> str:
        """The operation that a host is in, by name; empty between operations."""
        collectors = self.collectors.get(host.name, {})
        for name, op_hash in self._since:
            if name == host.name:
                collector = collectors.get(op_hash)
                names = self.state.op_meta[op_hash].names
                return collector.name if collector else ", ".join(sorted(names))
        return ""

    def has_ended(self, host: Host) -> bool:
        """Whether every operation of a host has come to its end."""
        ended = {op_hash for name, op_hash in self.seconds if name == host.name}
        return ended >= self.state.ops[host].keys()

    def explain_pause(self, host: Host) -> str:
        """Who has paused a host, or parts of it, and why; empty where nobody has.

        :param host: the host.
        """
        parts = self.paused_parts.get(host.name, {})
        return self.paused.get(host.name) or "; ".join(parts.values())

    def measure_seconds(self) -> float:
        """Seconds since the run began."""
        return (datetime.now(UTC) - self.started).total_seconds()

    def end_operation(self, host: Host, op_hash: str) -> None:
        """Stop the clock of an operation on a host, and of those nested in it that had a fault."""
        ended = [(host.name, op_hash)]
        if self.state.ops[host][op_hash].parent_op_hash is None:
            # A host is in one operation at a time.
            ended = [each for each in self._since if each[0] == host.name]
        for each in ended:
            if (since := self._since.pop(each, None)) is not None:
                self.seconds[each] = time.monotonic() - since
