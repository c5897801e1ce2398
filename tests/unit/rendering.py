"""A plan as text, with all that it carries: what the golden files hold."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stackmend.decision import Plan

GOLDEN = Path(__file__).parent / "golden"

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


def assert_golden(folder: str, name: str, text: str) -> None:
    """A text is what the golden file holds; with ``UPDATE_GOLDEN=1`` it is written there before.

    + folder: below ``golden``
    """
    path = GOLDEN / folder / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(golden.splitlines(), text.splitlines(), "golden", "now", "", "")
    assert text == golden, "\n".join(lines)


def list_golden(folder: str) -> set[str]:
    """The names of the golden files in a folder."""
    return {path.stem for path in (GOLDEN / folder).iterdir()}
