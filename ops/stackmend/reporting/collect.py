"""What the rooms tell about a host while a run lasts, kept until the record is written."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra.api.host import Host
    from pyinfra.api.state import State


class Collector:
    """What one operation on one host has to tell.

    Every method takes words for people. Secrets should be masked by the caller already; values
    given to ``reporting.secret`` are replaced once more when the record is written.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.findings: list[dict[str, Any]] = []
        self.plan: list[dict[str, Any]] = []
        self.actions: list[dict[str, Any]] = []
        self.refusals: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self.measures: dict[str, dict[str, Any]] = {}

    def look_again(self) -> None:
        """Forget what the last look said; keep what was done, what failed and what was measured.

        pyinfra evaluates an operation once to prepare it, again to execute it and again for every
        retry: only the last look is true, but all that was done was done.
        """
        self.findings.clear()
        self.plan.clear()
        self.refusals.clear()

    def found(self, subject: str, cause: str, evidence: str = "") -> None:
        """Tell what is not as it is wanted.

        + subject: what it is about, such as ``ai/redis``
        + cause: what is wrong, in words
        + evidence: what was seen that says so
        """
        self.findings.append(
            {"subject": str(subject), "cause": str(cause), "evidence": str(evidence)}
        )

    def planned(
        self, action: str, subject: str, cause: str, *, destructive: bool = False, undo: str = ""
    ) -> None:
        """Tell an action that is going to be taken, or would be in a dry run.

        + action: the verb, such as ``recreate``
        + subject: what it is done to
        + cause: why
        + destructive: whether something may be lost by it
        + undo: how to take it back
        """
        self.plan.append(
            {
                "action": str(action),
                "subject": str(subject),
                "cause": str(cause),
                "destructive": bool(destructive),
                "undo": str(undo or ""),
            }
        )

    def done(
        self,
        action: str,
        subject: str,
        cause: str = "",
        *,
        seconds: float = 0.0,
        ok: bool = True,
        undo: str = "",
    ) -> None:
        """Tell an action that was taken.

        + action: the verb
        + subject: what it was done to
        + cause: why
        + seconds: how long it took
        + ok: whether it succeeded
        + undo: how to take it back
        """
        self.actions.append(
            {
                "action": str(action),
                "subject": str(subject),
                "cause": str(cause),
                "seconds": round(float(seconds), 3),
                "ok": bool(ok),
                "undo": str(undo or ""),
            }
        )

    def refused(self, subject: str, reason: str, consent: str = "") -> None:
        """Tell what is not done, and why.

        + subject: what it is about
        + reason: why it is not done
        + consent: what would allow it: the line to add to the inventory, or another way out
        """
        self.refusals.append(
            {"subject": str(subject), "reason": str(reason), "consent": str(consent or "")}
        )

    def failed(self, message: str, log: Iterable[str] = ()) -> None:
        """Tell an error.

        + message: what failed, in one line
        + log: the last lines that explain it
        """
        self.errors.append({"message": str(message), "log": [str(line) for line in log]})

    def measured(self, name: str, value: float, unit: str) -> None:
        """Tell a number. The last one told under a name stays.

        + name: what was measured
        + value: the number
        + unit: its unit, such as ``s`` or ``channels``
        """
        self.measures[str(name)] = {"value": float(value), "unit": str(unit)}


class Run:
    """All that is collected during one run of pyinfra."""

    def __init__(self, state: State, *, dry: bool | None) -> None:
        self.state = state
        self.dry = dry
        self.started = datetime.now(UTC)
        self.id = token_hex(3)
        self.collectors: dict[str, dict[str, Collector]] = {}
        self.connect_errors: dict[str, str] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._lock = Lock()

    def collector(self, host: Host, operation: str | None) -> Collector:
        """The collector of the operation that the host is in, emptied of the last look."""
        op_hash = host.current_op_hash
        if operation is None:
            names = self.state.op_meta[op_hash].names if op_hash in self.state.op_meta else ()
            operation = ", ".join(sorted(names)) or "run"
        with self._lock:
            ours = self.collectors.setdefault(host.name, {})
            collector = ours.setdefault(op_hash or operation, Collector(operation))
        collector.look_again()
        return collector

    def operation_started(self, host: Host, op_hash: str) -> None:
        """Start the clock of an operation on a host."""
        self._since[host.name, op_hash] = time.monotonic()

    def at(self, host: Host) -> str:
        """The operation that a host is in, by name; empty between operations."""
        told = self.collectors.get(host.name, {})
        for name, op_hash in self._since:
            if name == host.name:
                collector = told.get(op_hash)
                names = self.state.op_meta[op_hash].names
                return collector.name if collector else ", ".join(sorted(names))
        return ""

    def operation_ended(self, host: Host, op_hash: str) -> None:
        """Stop the clock of an operation on a host."""
        since = self._since.pop((host.name, op_hash), None)
        if since is not None:
            self.seconds[host.name, op_hash] = time.monotonic() - since
