"""A room's plan, steps and errors: on the terminal, in the report, in the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import stackmend.reporting as reporting
from stackmend import connection
from stackmend.connection import signals
from stackmend.decision import Finding, Plan
from stackmend.redaction import format_safe_line
from stackmend.reporting import journal

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.decision import Action
    from stackmend.reporting.collect import Collector


def show_line(host: Host, text: str) -> None:
    """Show one line on the terminal.

    :param host: the host it is about
    :param text: the line; what is foreign in it is made safe here
    """
    host.log(format_safe_line(text))


def report_plan(host: Host, report: Collector, plan: Plan[Any]) -> None:
    """Show what was found and what follows, on the terminal and in the report.

    :param host: the host it is about
    :param report: the collector of the operation
    :param plan: the plan
    """
    report.add_plan(plan)
    for finding in plan.findings:
        show_line(host, f"{finding.subject}: {finding.kind}: {finding.cause}")
        for line in finding.evidence:
            show_line(host, f"    {line}")
        if finding.remedy:
            show_line(host, f"    Remedy: {finding.remedy}")
    for action in plan.actions:
        show_line(host, f"  → {action}")
    for refusal in plan.refusals:
        _show_in_red(
            host, f"refused: {refusal.subject}: {refusal.reason}. Remedy: {refusal.remedy}"
        )


def report_error(
    host: Host, report: Collector, subject: str, message: str, log: Sequence[str] = ()
) -> None:
    """Show an error with the last lines that explain it.

    :param host: the host it happened on
    :param report: the collector of the operation
    :param subject: what it is about, such as the project; empty where the message says it
    :param message: what failed, in one line
    :param log: the lines
    """
    lines = [format_safe_line(line) for line in log]
    report.add_error(format_safe_line(message), lines)
    _show_in_red(host, f"{subject}: {message}" if subject else message)
    for line in lines:
        show_line(host, f"    {line}")


@contextmanager
def track(host: Host, report: Collector, *actions: Action, within: str = "") -> Iterator[None]:
    """Report what the block does, however it ends, and journal it where it succeeded.

    :param host: the host it is done to
    :param report: the collector of the operation; its name is the room that the journal names
    :param actions: what the block does
    :param within: what the subjects belong to, such as the project; the journal names it first
    """
    signals.proceed()
    started, clock = datetime.now(UTC), time.monotonic()
    ok = False
    names = ", ".join(f"{action.verb} {action.subject}" for action in actions)
    with signals.step(host.name, format_safe_line(names)):
        try:
            yield
            ok = True
        finally:
            seconds = time.monotonic() - clock
            for action in actions:
                report.add_done(action, started=started, seconds=seconds, ok=ok)
            if ok:
                for action in actions:
                    _write_journal(host, report, action, within)


def _show_in_red(host: Host, text: str) -> None:
    host.log_styled(format_safe_line(text), fg="red")


def _write_journal(host: Host, report: Collector, action: Action, within: str) -> None:
    entry = journal.format_line(
        time=datetime.now(UTC),
        run=reporting.get_run_id(host.state),
        room=report.name,
        action=action.verb,
        subject=format_safe_line(f"{within}/{action.subject}" if within else action.subject),
        cause=format_safe_line(action.cause),
        undo=format_safe_line(action.undo),
    )
    result = connection.run(host, journal.append(entry), closing=True)
    if not result.ok:
        finding = Finding(
            subject=journal.PATH,
            kind="not written",
            cause=f"what was done is not in the host's journal: {result.reason}",
            remedy="see what keeps root from writing it, such as a full disk",
            blocks=False,
        )
        if finding not in report.findings:
            report_plan(host, report, Plan(findings=(finding,)))
