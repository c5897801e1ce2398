"""Which incidents a pasted error is about. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from stackmend.connectivity import texts as outside
from stackmend.diagnosis import Severity
from stackmend.frozen import Frozen
from stackmend.incidents.known import KNOWN
from stackmend.incidents.spec import Incident
from stackmend.redaction import redact, redact_likely
from stackmend.text import VALUE_LIMIT, make_printable

#: Characters of a text that are read, the last ones: the end of a log explains it.
MAXIMUM = 256 * 1024

#: Characters of a line before the match that are shown.
_BEFORE = 120

# Colours, which programs write between words.
_COLOUR = re.compile(r"\x1b\[[0-9;:?]{0,40}[A-Za-z]")


class Match(Frozen):
    """An incident that a text is about.

    :param incident: its id.
    :param title: what it is, in one line.
    :param severity: how bad it is.
    :param line: the line that says so, without secrets and control characters, cut where it is
        long.
    :param number: which line of the text that is, from 1.
    :param remedy: what mends it.
    :param inventory: the line of inventory that asks stackmend for that, or allows it.
    :param proof: what shows that it is mended.
    """

    incident: str
    title: str
    severity: Severity
    line: str
    number: int
    remedy: str
    inventory: str = ""
    proof: str


class _Hit(NamedTuple):
    """Where an incident shows in a text; ``length`` is 0 where a class of trouble says so."""

    incident: Incident
    start: int
    length: int


def diagnose_text(text: str, incidents: Iterable[Incident] | None = None) -> tuple[Match, ...]:
    """The incidents that an error or a piece of a log is about, best first; none where none fits.

    An incident that may cause another one stands before it. One whose own pattern matches stands
    before one that only the class of trouble names (see ``stackmend.connectivity.classify``), one
    with a longer match before one with a shorter.

    :param text: as a program printed it, of any size: of a longer one the last 256 Ki characters
        are read. It is foreign: nothing that it holds is executed, and what is shown of it is safe
        to show.
    :param incidents: those to look for; by default all that stackmend knows.

    Example:
        >>> diagnose_text("Bind for 0.0.0.0:80 failed: port is already allocated")[0].incident
        'port-taken'
    """
    known = KNOWN if incidents is None else tuple(incidents)
    skipped = text[:-MAXIMUM] if len(text) > MAXIMUM else ""
    read = text[len(skipped) :]
    read = _COLOUR.sub("", unicodedata.normalize("NFC", read)).replace("\r\n", "\n")
    lowered = read.lower()
    if len(lowered) != len(read):
        # A letter that becomes two would move all that follows.
        lowered = "".join(low if len(low := char.lower()) == 1 else char for char in read)
    hits: dict[str, _Hit] = {}
    for hit in _find_hits(lowered, known):
        hits.setdefault(hit.incident.id, hit)
    fault = outside.find_cause(read)
    if fault is not None:
        start = max(read.find(fault.line), 0)
        for incident in known:
            if fault.name in incident.faults:
                hits.setdefault(incident.id, _Hit(incident, start, 0))
    order = rank([hit.incident for hit in hits.values()])
    place = {incident.id: at for at, incident in enumerate(known)}
    best = sorted(
        hits.values(),
        key=lambda hit: (
            not hit.length,
            order[hit.incident.id],
            -hit.length,
            place[hit.incident.id],
        ),
    )
    offset = skipped.count("\n") + 1
    return tuple(_make_match(hit, read, offset) for hit in best)


def rank(incidents: Sequence[Incident]) -> dict[str, int]:
    """How many of the others may cause each, also by way of others; root causes have none.

    :param incidents: those that were found.
    """
    causes = {each.id: {c.id for c in incidents if each.id in c.explains} for each in incidents}
    order = {}
    for start in causes:
        above: set[str] = set()
        pending = list(causes[start])
        while pending:
            cause = pending.pop()
            if cause not in above and cause != start:
                above.add(cause)
                pending += causes[cause]
        order[start] = len(above)
    return order


def _find_hits(lowered: str, incidents: Iterable[Incident]) -> Iterator[_Hit]:
    for incident in incidents:
        found = [match for each in incident.patterns if (match := each.search(lowered))]
        if found:
            longest = max(found, key=_measure)
            yield _Hit(incident, longest.start(), _measure(longest))


def _measure(match: re.Match[str]) -> int:
    return match.end() - match.start()


def _make_match(hit: _Hit, text: str, offset: int) -> Match:
    incident = hit.incident
    start = text.rfind("\n", 0, hit.start) + 1
    end = text.find("\n", hit.start)
    line = text[start : end if end >= 0 else len(text)]
    # All of it is cleaned before it is cut: half of a secret would not be known again.
    clean = _hide(line)
    if len(clean) > VALUE_LIMIT:
        begin = max(0, len(_hide(line[: hit.start - start])) - _BEFORE)
        clean = ("…" if begin else "") + clean[begin:]
    return Match(
        incident=incident.id,
        title=incident.title,
        severity=incident.severity,
        line=make_printable(clean.strip(), VALUE_LIMIT),
        number=offset + text.count("\n", 0, hit.start),
        remedy=incident.remedy,
        inventory=incident.inventory,
        proof=incident.proof,
    )


def _hide(line: str) -> str:
    return redact_likely(redact(line))
