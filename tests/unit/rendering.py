"""A plan as text, with all that it carries: what the golden files hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from stackmend.decision import Plan

MARKS = ("destructive", "mend")


def render(decided: Plan[Any], carries: Callable[[Any], Iterable[str]]) -> str:
    """The plan as text.

    + carries: what an action of this room carries beside its cause and its undo, a line each
    """
    lines = ["findings:"]
    for finding in decided.findings:
        told = "" if finding.blocks else " (only told)"
        lines.append(f"  {finding.subject}: {finding.kind}{told}: {finding.cause}")
        lines += [f"      {line}" for line in finding.evidence]
        if finding.remedy:
            lines.append(f"      remedy: {finding.remedy}")
    lines.append("actions:")
    for action in decided.actions:
        marks = [word for word in MARKS if getattr(action, word, False)]
        lines.append(f"  {action}" + (f" [{', '.join(marks)}]" if marks else ""))
        lines += [f"      {line}" for line in carries(action)]
        if action.undo:
            lines.append(f"      undo {action.undo}")
    lines.append("refusals:")
    for refusal in decided.refusals:
        lines += [f"  {refusal.subject}: {refusal.reason}", f"      remedy: {refusal.remedy}"]
    return "\n".join(lines) + "\n"
