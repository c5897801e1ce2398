"""Incidents themselves, as text of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stackmend.redaction import format_safe_line

if TYPE_CHECKING:
    from stackmend.incidents.explaining import Explanation

#: Characters of a line, and of a label before it.
WIDTH = 80
_LABEL = 11

#: Lines of symptoms that are shown.
MOST_SYMPTOMS = 6


def format_explanation(explanation: Explanation) -> str:
    """What is known of an incident.

    :param explanation: of ``stackmend.incidents.explaining``.
    """
    return "\n".join(_format_lines(explanation))


def format_list(explanations: Sequence[Explanation]) -> str:
    """The incidents that there are, with what each is.

    :param explanations: of ``stackmend.incidents.explaining``.
    """
    width = max((len(each.id) for each in explanations), default=0)
    lines = []
    for each in explanations:
        head = f"{each.id:<{width}}  {each.severity:<8}  "
        lines += textwrap.wrap(
            head + format_safe_line(each.title), WIDTH, subsequent_indent=" " * len(head)
        )
    lines.append("stackmend doctor --explain ID says more of one.")
    return "\n".join(lines)


def _format_lines(each: Explanation) -> Iterator[str]:
    yield from textwrap.wrap(
        format_safe_line(f"{each.severity.upper()}  {each.id}: {each.title}"),
        WIDTH,
        subsequent_indent="  ",
    )
    symptoms = each.symptoms[:MOST_SYMPTOMS]
    if more := len(each.symptoms) - len(symptoms):
        symptoms = (*symptoms, f"… ({more} more with --json)")
    for label, texts in (
        ("symptoms", symptoms),
        ("recognised", each.recognised),
        ("causes", (", ".join(each.explains),)),
        ("caused by", (", ".join(each.explained_by),)),
        ("does", (each.does,)),
        ("remedy", (each.remedy,)),
        ("allow", (each.inventory,)),
        ("proof", (each.proof,)),
        ("source", (each.source,)),
    ):
        for text in filter(None, texts):
            yield from textwrap.wrap(
                f"  {label:<{_LABEL}}{format_safe_line(text)}",
                WIDTH,
                subsequent_indent=" " * (_LABEL + 4),
                break_on_hyphens=False,
            )
            label = ""
