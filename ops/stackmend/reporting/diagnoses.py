"""What the doctor says of hosts, as text for people."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from stackmend import terminal
from stackmend.diagnosis import CheckOutcome, DiagnosedFinding, Diagnosis, Evidence
from stackmend.redaction import format_safe_line

#: Characters of a line, where the terminal is not narrower.
WIDTH = 80

#: Lines of a finding's evidence that are shown.
MOST_EVIDENCE = 4

_COLOURS = {"critical": "red", "error": "red", "warning": "yellow"}

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def show(diagnoses: Mapping[str, Diagnosis], out: TextIO) -> None:
    """Print what hosts have, root causes first, in at most 80 columns.

    :param diagnoses: by the host's name.
    :param out: where to print; in colour on a terminal.
    """
    is_terminal = out.isatty()
    width = min(WIDTH, shutil.get_terminal_size().columns) if is_terminal else WIDTH
    lines = [line for name, found in diagnoses.items() for line in _format_host(name, found, width)]
    if not is_terminal:
        print("\n".join(text for text, _ in lines), file=out)
        return
    # rich costs more to import than all else that is shown.
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, width=width + 1)
    with console.capture() as capture:
        for text, style in lines:
            console.print(Text(text, style=style), soft_wrap=True)
    terminal.write_styled(out, capture.get())


def format_text(name: str, diagnosis: Diagnosis) -> str:
    """What a host has, as plain text of at most 80 columns.

    :param name: the host's.
    :param diagnosis: what it has.
    """
    return "\n".join(text for text, _ in _format_host(name, diagnosis, WIDTH))


def _format_host(name: str, diagnosis: Diagnosis, width: int) -> Iterator[tuple[str, str]]:
    """Lines, each with its style."""
    # Where some alone were asked for, the root of one may not be among them.
    roots = [
        finding for finding in diagnosis.findings if not finding.explained_by or diagnosis.only
    ]
    unknown = [check for check in diagnosis.checks if check.status == "unknown"]
    skipped = [check for check in diagnosis.checks if check.status == "skipped"]
    state = f"{len(roots)} to mend" if roots else "not known" if unknown else "healthy"
    count = f"{len(diagnosis.checks)} checks"
    if diagnosis.only:
        count += f" of {', '.join(diagnosis.only)} alone"
    style = "bold red" if roots else "bold yellow" if unknown else "bold green"
    yield from _wrap(f"{name}: {state} ({count})", "", width, style)
    for finding in diagnosis.findings:
        yield from _format_finding(finding, width)
    for reason, names in group_by_reason(unknown):
        yield from _wrap(f"unknown  {names}: {reason}", "  ", width, "yellow")
    for reason, names in group_by_reason(skipped):
        yield from _wrap(f"skipped  {names}: because of {reason}", "  ", width)
    if diagnosis.notes:
        yield from _wrap("notes, which fail nothing:", "  ", width, "dim")
        for note in diagnosis.notes:
            yield from _wrap(note, "    ", width, "dim")


def group_by_reason(checks: Sequence[CheckOutcome]) -> Iterator[tuple[str, str]]:
    """The reasons, each with the names of the checks that have it.

    :param checks: those of one status.
    """
    for reason in dict.fromkeys(check.reason for check in checks):
        yield reason, ", ".join(check.name for check in checks if check.reason == reason)


def _format_finding(finding: DiagnosedFinding, width: int) -> Iterator[tuple[str, str]]:
    indent = "    " if finding.explained_by else "  "
    title = f"{finding.incident}: {finding.title}" if finding.incident else finding.title
    if finding.explained_by:
        title = f"{title} (explained by {finding.explained_by})"
    head = f"{finding.severity.upper()}  {title}"
    yield from _wrap(head, indent, width, _COLOURS[finding.severity])
    for label, texts in (
        ("about", (", ".join(finding.subjects),)),
        ("found", _format_evidences(finding.evidence)),
        ("does", finding.steps),
        ("remedy", (finding.remedy,)),
        ("allow", (finding.inventory,)),
        ("proof", (finding.proof,)),
    ):
        yield from _format_rows(label, texts, indent, width)


def _format_rows(
    label: str, texts: Iterable[str], indent: str, width: int
) -> Iterator[tuple[str, str]]:
    for text in filter(None, texts):
        yield from _wrap(f"{label:<7}{text}", f"{indent}  ", width, hanging=7)
        label = ""


def _format_evidences(evidence: Sequence[Evidence]) -> Iterator[str]:
    yield from map(_format_evidence, evidence[:MOST_EVIDENCE])
    if left := len(evidence[MOST_EVIDENCE:]):
        yield f"… ({left} more in the report)"


def _format_evidence(evidence: Evidence) -> str:
    return f"{evidence.line} [{evidence.source}{format_when(evidence.age)}]"


def format_when(age: float | None) -> str:
    """When a line was written, to stand behind its source; empty where that is not known.

    :param age: seconds between the line and its reading.
    """
    return "" if age is None else ", now" if age < 1 else f", {_format_age(age)} ago"


def _format_age(seconds: float) -> str:
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "0 s"


def _wrap(
    text: str, indent: str, width: int, style: str = "", hanging: int = 2
) -> Iterator[tuple[str, str]]:
    rows = textwrap.wrap(
        format_safe_line(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + " " * hanging,
        break_on_hyphens=False,
    )
    yield from ((row, style) for row in rows)
