"""What of a diagnosis is asked for: single incidents, or all that one room tells of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from stackmend.diagnosis import Diagnosis
from stackmend.incidents.spec import Incident
from stackmend.problems import Problem, show

#: The rooms whose operations a host can be asked for.
ROOMS = (
    "access",
    "compose",
    "connectivity",
    "engine",
    "models",
    "ports",
    "resolver",
    "worker",
)

#: The key of a host's data that chooses, as names with commas.
KEY = "doctor_only"


def parse(raw: object, incidents: Iterable[Incident]) -> tuple[str, ...]:
    """The incidents and rooms that a text chooses; none where there is no text.

    :param raw: names with commas, such as ``port-taken,compose``.
    :param incidents: those that there are.
    :raises Problem: it chooses something that there is not; the text suggests what is meant.
    """
    if raw is None:
        return ()
    known = (*(incident.id for incident in incidents), *ROOMS)
    names = [name.strip() for name in str(raw).split(",") if name.strip()]
    if not names:
        raise Problem("--only: name an incident or a room")
    for name in names:
        if name not in known:
            raise Problem(f"--only: no incident or room is called {suggest(name, known)}")
    return tuple(dict.fromkeys(names))


def suggest(name: str, known: Sequence[str]) -> str:
    """A wrong name, what it may be meant for, and all that there are.

    :param name: the name.
    :param known: those that would be right.

    Example:
        >>> suggest("port-takn", ["port-taken", "mtu"])
        'port-takn (did you mean port-taken?); known are port-taken, mtu'
    """
    meant = get_close_matches(name[:100], known, 3)
    question = f" (did you mean {' or '.join(meant)}?)" if meant else ""
    return f"{show(name)}{question}; known are {', '.join(known)}"


def select(diagnosis: Diagnosis, names: Sequence[str], incidents: Iterable[Incident]) -> Diagnosis:
    """The part of a diagnosis that is about these incidents and rooms; all of it without any.

    What explains a finding stays named there, whether or not it is chosen.

    :param diagnosis: all that a host has.
    :param names: of incidents, and of rooms: all that one tells of.
    :param incidents: those that were looked for.
    """
    if not names:
        return diagnosis
    rooms = tuple(f"{name}." for name in names if name in ROOMS)
    revealed = {
        incident.id
        for incident in incidents
        if any(operation.startswith(rooms) for operation in incident.list_operations())
    }
    findings = [
        finding
        for finding in diagnosis.findings
        if (finding.incident and finding.incident in names)
        or any(line.source.startswith(rooms) for line in finding.evidence)
    ]
    found = {finding.incident for finding in findings}
    checks = tuple(
        check
        for check in diagnosis.checks
        if check.name in names
        or check.name.startswith(rooms)
        # What one finds by another room is not what this room tells of.
        or (check.name in revealed and (check.status != "finding" or check.name in found))
    )
    return Diagnosis(
        findings=tuple(
            finding.model_copy(
                update={"explains": tuple(name for name in finding.explains if name in found)}
            )
            for finding in findings
        ),
        checks=checks,
        only=tuple(names),
    )
