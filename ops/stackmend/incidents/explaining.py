"""What is known of an incident itself, whether or not a host has it. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator

from stackmend.diagnosis import Severity
from stackmend.frozen import Frozen
from stackmend.incidents.spec import Incident, StatePattern
from stackmend.incidents.state import SOURCES

#: Operations that look, and change nothing.
_OBSERVING = frozenset({"connectivity.checked", "worker.accelerated"})

_OF = {"finding": "finds", "refusal": "refuses something", "step": "would"}

_LOGS = {
    "container": "containers' logs",
    "engine": "the engine's events",
    "unit": "journals of units",
    "command": "errors of commands",
}


class Explanation(Frozen):
    """What is known of an incident itself.

    :param id: its name.
    :param title: what it is, in one line.
    :param severity: how bad it is.
    :param source: where it is defined: a module of stackmend's, or a user's file.
    :param symptoms: lines, as programs print them where a host has it.
    :param recognised: how the doctor knows that a host has it.
    :param explains: the ids of the incidents that it may cause.
    :param explained_by: the ids of those that may cause it.
    :param does: what stackmend does about it.
    :param remedy: what mends it.
    :param inventory: the line of inventory that asks stackmend for that, or allows it.
    :param proof: what shows that it is mended.
    """

    id: str
    title: str
    severity: Severity
    source: str
    symptoms: tuple[str, ...] = ()
    recognised: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    explained_by: tuple[str, ...] = ()
    does: str
    remedy: str
    inventory: str = ""
    proof: str


def explain(incident: Incident, incidents: Iterable[Incident], source: str = "") -> Explanation:
    """What is known of an incident.

    :param incident: the incident.
    :param incidents: all that there are, which it may cause or be caused by.
    :param source: where it is defined; by default the module of stackmend's.
    """
    return Explanation(
        id=incident.id,
        title=incident.title,
        severity=incident.severity,
        source=source or "stackmend.incidents.known",
        symptoms=tuple(text for each in incident.patterns for text in each.examples),
        recognised=tuple(_list_signs(incident)),
        explains=incident.explains,
        explained_by=tuple(each.id for each in incidents if incident.id in each.explains),
        does=_describe_mending(incident),
        remedy=incident.remedy,
        inventory=incident.inventory,
        proof=incident.proof,
    )


def _list_signs(incident: Incident) -> Iterator[str]:
    yield from map(_describe_state, incident.states)
    if type(incident).find is not Incident.find:
        own = inspect.getdoc(type(incident)) or ""
        text = (own if own != inspect.getdoc(Incident) else "").partition("\n")[0]
        yield f"derived from what operations read{f': {text}' if text else ''}"
    if incident.faults:
        yield f"connectivity tells one of these classes: {', '.join(sorted(incident.faults))}"
    if incident.patterns:
        sources = frozenset.union(*(each.sources for each in incident.patterns))
        places = ", ".join(_LOGS[each] for each in sorted(SOURCES) if each in sources)
        yield f"a line such as these symptoms stands in {places}"
    asked = ", ".join(sorted(incident.list_operations()))
    if asked and incident.patterns:
        yield f"where {asked} was asked and found nothing, such a line is of the past"


def _describe_state(state: StatePattern) -> str:
    kinds = f" {', '.join(sorted(state.kinds))}" if state.kinds else ""
    subject = f", of what matches /{state.subject}/" if state.subject else ""
    cause = f", because of what matches /{state.cause}/" if state.cause else ""
    return f"{state.operation} {_OF[state.of]}{kinds}{subject}{cause}"


def _describe_mending(incident: Incident) -> str:
    operations = incident.list_operations()
    if acting := sorted(operations - _OBSERVING):
        return f"`stackmend site` mends by {', '.join(acting)} what the inventory asks for"
    if operations:
        return f"names it, by {', '.join(sorted(operations))}, and mends nothing"
    return "names it, and mends nothing"
