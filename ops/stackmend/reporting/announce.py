"""How a room tells what it decides and does: on the terminal, in the report, in the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import stackmend.reporting as reporting
from stackmend import connection
from stackmend.connection import signals
from stackmend.redaction import safe_line
from stackmend.reporting import journal

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.decision import Action, Plan
    from stackmend.reporting.collect import Collector


def show_line(host: Host, text: str) -> None:
    """Show one line on the terminal.

    + host: the host it is about
    + text: the line, foreign words in it as they came
    """
    host.log(safe_line(text))


def report_plan(host: Host, report: Collector, decided: Plan[Any]) -> None:
    """Show what was found and what follows, on the terminal and in the report.

    + host: the host it is about
    + report: the collector of the operation
    + decided: the plan
    """
    for finding in decided.findings:
        told = f"{finding.kind}: {finding.cause}"
        evidence = [safe_line(one) for one in finding.evidence]
        report.found(safe_line(finding.subject), safe_line(told), "\n".join(evidence))
        show_line(host, f"{finding.subject}: {told}")
        for one in evidence:
            show_line(host, f"    {one}")
    for action in decided.actions:
        report.planned(
            action.verb,
            safe_line(action.subject),
            safe_line(action.cause),
            destructive=action.destructive,
            undo=safe_line(action.undo),
        )
        show_line(host, f"  → {action}")
    for refusal in decided.refusals:
        report.refused(
            safe_line(refusal.subject), safe_line(refusal.reason), safe_line(refusal.remedy)
        )
        _say_in_red(
            host, f"refused: {refusal.subject}: {refusal.reason}. To go on: {refusal.remedy}"
        )


def report_error(
    host: Host, report: Collector, subject: str, message: str, log: Sequence[str] = ()
) -> None:
    """Show an error with the last lines that explain it.

    + host: the host it happened on
    + report: the collector of the operation
    + subject: what it is about, such as the project; empty where the message says it
    + message: what failed, in one line
    + log: the lines
    """
    shown = [safe_line(one) for one in log]
    report.failed(safe_line(message), log=shown)
    _say_in_red(host, f"{subject}: {message}" if subject else message)
    for one in shown:
        show_line(host, f"    {one}")


@contextmanager
def track(host: Host, report: Collector, *actions: Action, within: str = "") -> Iterator[None]:
    """Tell the report and the host's journal what is done, however it ends.

    + host: the host it is done to
    + report: the collector of the operation; its name is the room that the journal names
    + actions: what the block does
    + within: what the subjects belong to, such as the project; the journal names it first

    Only what succeeded is written to the journal.
    """
    signals.proceed()
    started = time.monotonic()
    ok = False
    named = ", ".join(f"{action.verb} {action.subject}" for action in actions)
    with signals.step(host.name, safe_line(named)):
        try:
            yield
            ok = True
        finally:
            seconds = time.monotonic() - started
            for action in actions:
                report.done(
                    action.verb,
                    safe_line(action.subject),
                    safe_line(action.cause),
                    seconds=seconds,
                    ok=ok,
                    undo=safe_line(action.undo),
                )
            if ok:
                for action in actions:
                    _remember(host, report.name, action, within)


def _say_in_red(host: Host, text: str) -> None:
    host.log_styled(safe_line(text), fg="red")


def _remember(host: Host, room: str, action: Action, within: str) -> None:
    entry = journal.line(
        time=datetime.now(UTC),
        run=reporting.run_id(host.state),
        room=room,
        action=action.verb,
        subject=safe_line(f"{within}/{action.subject}" if within else action.subject),
        cause=safe_line(action.cause),
        undo=safe_line(action.undo),
    )
    connection.run(host, journal.append(entry), closing=True)
