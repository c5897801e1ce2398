"""The record as text for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TextIO

from stackmend import terminal
from stackmend.text import LINE_LIMIT, make_printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stackmend.reporting.state import HostRecord, OperationRecord, Planned, RunRecord

#: Lines of a finding's evidence that are shown.
EVIDENCE_LINES = 6

_RESULTS = {"done": "done", "failed": "tried without success"}


def show(record: RunRecord, path: Path | None, out: TextIO, *, all_findings: bool = False) -> None:
    """Print what people need to know at the end of a run: one line if every host was converged.

    Of hosts that the doctor was at, what it says of them.

    :param record: the run
    :param path: where it was written, ``None`` if it was not
    :param out: where to print; on a terminal the hosts are shown as a table
    :param all_findings: whether those that fail nothing are shown where a host was converged, too:
        a run that shows its steps has shown them already
    """
    diagnosed = {n: h.diagnosis for n, h in record.hosts.items() if h.diagnosis is not None}
    if diagnosed:
        from stackmend.reporting import diagnoses

        diagnoses.show(diagnosed, out)
    hosts = {name: host for name, host in record.hosts.items() if host.diagnosis is None}
    others = record.model_copy(update={"hosts": hosts})
    lines = list(format_record(others, all_findings=all_findings))
    if lines:
        if out.isatty():
            _make_table(others, out)
        for line in lines:
            print(f"    {make_printable(line, LINE_LIMIT)}", file=out)
    print(f"--> stackmend: {make_printable(format_last_line(record, path), LINE_LIMIT)}", file=out)


def format_record(record: RunRecord, *, all_findings: bool = False) -> Iterator[str]:
    """What was wrong, what was done and what is left, line by line, of every host that has any."""
    for name, host in record.hosts.items():
        found = any(operation.findings for operation in host.operations)
        if host.outcome == "converged" and not host.reason and not (all_findings and found):
            continue
        yield f"{name}: {host.outcome}{host.reason and ': '}{host.reason}"
        for error in host.errors:
            yield f"  {error.message}"
        if host.interrupted_at:
            yield f"  {record.interrupted} interrupted it at: {host.interrupted_at}"
        for operation in host.operations:
            lines = list(_format_operation(operation, host, record.mode))
            if lines:
                yield f"  {operation.name}"
                yield from (f"    {line}" for line in lines)


def format_last_line(record: RunRecord, path: Path | None) -> str:
    """How many hosts are well, which are not, and where the report lies."""
    counts = Counter(host.outcome for host in record.hosts.values())
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    parts = [f"{len(record.hosts)} host{'s' if len(record.hosts) != 1 else ''}: {outcomes}"]
    if record.mode == "dry":
        parts.append("dry run, nothing was changed")
    if record.interrupted:
        parts.append(f"{record.interrupted} ended the run early")
    elif not record.complete:
        parts.append("the run was ended early")
    if bad := record.list_not_well():
        parts.append("not well: " + ", ".join(f"{name} ({why})" for name, why in bad.items()))
    # Those of hosts that are not converged are listed above.
    count = sum(
        len(operation.findings)
        for host in record.hosts.values()
        if host.outcome == "converged"
        for operation in host.operations
    )
    if count:
        parts.append(
            f"{count} finding{'s' if count != 1 else ''} that fail{'s' * (count == 1)} nothing"
        )
    if path is not None:
        parts.append(f"report: {path}")
    return "; ".join(parts)


def _format_operation(operation: OperationRecord, host: HostRecord, mode: str) -> Iterator[str]:
    for finding in operation.findings:
        kind = f"{finding.kind}: " if finding.kind else ""
        yield f"found: {finding.subject}: {kind}{finding.cause}"
        for line in finding.evidence[:EVIDENCE_LINES]:
            yield f"       {line}"
        if left := len(finding.evidence[EVIDENCE_LINES:]):
            yield f"       … ({left} more in the report)"
        if finding.remedy:
            yield f"       remedy: {finding.remedy}"
    if mode == "dry" or not operation.done:
        for action in operation.planned:
            mark = " (destructive)" if action.destructive else ""
            yield f"planned: {action.verb} {action.subject}{mark}"
            yield from _format_cause(action, operation)
    for done in operation.done:
        yield f"{_RESULTS[done.result]}: {done.verb} {done.subject} ({done.seconds:.1f} s)"
        yield from _format_cause(done, operation)
        if done.destructive and done.undo:
            yield f"      undo: {done.undo}"
    for refusal in operation.refusals:
        yield f"refused: {refusal.subject}: {refusal.reason}"
        if refusal.remedy:
            yield f"         remedy: {refusal.remedy}"
    for error in operation.errors:
        yield f"failed: {_cut(error.message.strip().splitlines())}"
        for line in error.log[-5:]:
            yield f"        | {line}"
    if operation.succeeded is False and not (operation.errors or operation.refusals):
        yield "failed: see the output above"
    if not (operation.done or operation.planned) and operation.changed:
        yield "changed"
    if host.outcome == "unknown" and mode == "apply" and operation.succeeded is None:
        yield "not finished"


def _format_cause(action: Planned, operation: OperationRecord) -> Iterator[str]:
    """Why something is done, where no finding says so, or where another step is called the same."""
    name = (action.verb, action.subject)
    steps = [*operation.planned, *operation.done]
    causes = {each.cause for each in steps if (each.verb, each.subject) == name}
    if action.cause and (not operation.findings or len(causes) > 1):
        yield f"      cause: {action.cause}"


def _cut(lines: Sequence[str]) -> str:
    return "".join(lines[:1]) + (" …" if len(lines) > 1 else "")


def _make_table(record: RunRecord, out: TextIO) -> None:
    # rich costs more to import than the whole report: only where a table is shown.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stackmend.reporting.state import MEANINGS

    table = Table("host", "outcome", "found", "done", "refused", "errors", "seconds")
    for name, host in record.hosts.items():
        operations = host.operations
        table.add_row(
            Text(make_printable(name)),
            Text(host.outcome, style=MEANINGS[host.outcome].colour),
            str(sum(len(op.findings) for op in operations)),
            str(sum(len(op.done) for op in operations)),
            str(sum(len(op.refusals) for op in operations)),
            str(len(host.errors) + sum(len(op.errors) for op in operations)),
            f"{sum(op.seconds for op in operations):.1f}",
        )
    console = Console(file=out)
    with console.capture() as capture:
        console.print(table)
    terminal.write_styled(out, capture.get())
