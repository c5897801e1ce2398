"""From what was read of a host to what it has, root causes first. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest

from stackmend.compose.state import StackState
from stackmend.decision import Action, Finding, Locked, Refusal
from stackmend.diagnosis import (
    SEVERITIES,
    CheckOutcome,
    DiagnosedFinding,
    Diagnosis,
    Evidence,
    Severity,
)
from stackmend.frozen import Frozen
from stackmend.incidents.known import KNOWN
from stackmend.incidents.spec import Incident, StatePattern, Undetermined
from stackmend.incidents.state import Log, Observations, RoomReading
from stackmend.incidents.texts import rank
from stackmend.text import VALUE_LIMIT, make_printable

#: Lines of evidence that are kept of one finding, steps, and notes of a host.
MOST_EVIDENCE = 8
MOST_STEPS = 20
MOST_NOTES = 50

#: Lines that one incident derives of a host.
MOST_LINES = 100

#: What one line of a log proves where nothing else was asked.
_FROM_LOGS: Severity = "warning"

#: What a remedy has in it that is a line to add to an inventory.
_LINE = re.compile(r'"[a-z_]{1,40}": ')

#: How a container publishes a port: the host's address and port, and the container's.
_BINDING = re.compile(r"(?P<address>.{1,45}):(?P<port>\d{1,5})->\d{1,5}/(?P<protocol>[a-z]{3,4})")

Thing = Finding | Refusal | Action


class Derived(Frozen):
    """What one incident derives from facts.

    :param lines: what each is about, and the line that says so.
    :param problem: why nothing could be derived; empty where it could.
    """

    lines: tuple[tuple[str, Evidence], ...] = ()
    problem: str = ""


@dataclass
class _Case:
    """What is known of one incident on the host.

    :ivar lines: evidence, with what it is about.
    :ivar logs: the same of logs alone.
    :ivar things: what rooms say that means it, with their operations.
    :ivar crash: why it could not be looked for.
    """

    incident: Incident
    lines: list[tuple[str, Evidence]] = field(default_factory=list)
    logs: list[tuple[str, Evidence]] = field(default_factory=list)
    things: list[tuple[RoomReading, Thing]] = field(default_factory=list)
    crash: str = ""
    severity: Severity = "warning"

    @property
    def is_found(self) -> bool:
        return bool(self.lines or self.things)


def derive(incident: Incident, observations: Observations) -> Derived:
    """What an incident derives from facts; one that raises has a problem.

    :param incident: the incident, whose code may be a user's.
    :param observations: what was read of the host.
    """
    try:
        return Derived(
            lines=tuple(
                (_fit(str(subject)), _fit_evidence(Evidence.model_validate(line)))
                for subject, line in islice(incident.find(observations), MOST_LINES)
            )
        )
    except Undetermined as error:
        return Derived(problem=_fit(str(error)))
    except (Exception, SystemExit) as error:  # one that raises, as a user's may, hides no other
        return Derived(problem=_fit(f"its search raised {type(error).__name__}: {error}"))


def diagnose(
    observations: Observations,
    incidents: Iterable[Incident] | None = None,
    derived: Mapping[str, Derived] | None = None,
) -> Diagnosis:
    """What a host has: the incidents found, each with its evidence, and what came of each check.

    A symptom in a log means an incident only where no operation was asked that tells whether the
    host has it: where one was asked and found nothing, the symptom is of the past.

    :param observations: what was read of the host.
    :param incidents: those to look for; by default all that stackmend knows.
    :param derived: what some of them derive from facts, by their ids, where that is known already.
    """
    known = KNOWN if incidents is None else tuple(incidents)
    cases = [_search(incident, observations, derived or {}) for incident in known]
    blinded = dict(_find_blinded(cases))
    problems = {
        room.operation: problem for room in observations.rooms if (problem := _find_problem(room))
    }
    for case in cases:
        _add_logs(case, observations, problems.keys() | blinded.keys())
    found = [case for case in cases if case.is_found]
    claimed = {id(thing) for case in found for _, thing in case.things}
    others = list(_list_others(observations, claimed))
    return Diagnosis(
        findings=(*_arrange(found, observations), *others),
        checks=(
            *_check_incidents(cases, found, observations, problems, blinded),
            *_check_symptoms(observations, blinded),
            *_check_rooms(observations, others),
        ),
        notes=tuple(_list_notes(observations, claimed))[:MOST_NOTES],
    )


def _find_problem(room: RoomReading) -> str:
    """Why a room says nothing for certain; empty where it does."""
    locked = (each.reason for each in room.plan.refusals if isinstance(each, Locked))
    return room.problem or next(locked, "")


# One incident


def _search(
    incident: Incident, observations: Observations, derived: Mapping[str, Derived]
) -> _Case:
    case = _Case(incident, severity=incident.severity)
    for room in observations.rooms:
        case.things += [(room, thing) for thing in _list_met(incident, room)]
    own = derived.get(incident.id) or derive(incident, observations)
    case.lines += own.lines
    case.crash = own.problem
    for log in observations.symptoms.logs:
        if line := _search_log(incident, log):
            case.logs.append((log.subject, line))
    return case


def _list_met(incident: Incident, room: RoomReading) -> Iterator[Thing]:
    for thing in _list_things(room):
        if any(_is_met(state, room, thing) for state in incident.states):
            yield thing


def _list_things(room: RoomReading) -> Iterator[Thing]:
    yield from room.plan.findings
    yield from room.plan.refusals
    yield from room.plan.actions


def _is_met(state: StatePattern, room: RoomReading, thing: Thing) -> bool:
    if state.operation != room.operation:
        return False
    match state.of, thing:
        case "finding", Finding():
            counts = thing.blocks or state.notes
            return counts and state.is_met(thing.kind, thing.subject, thing.cause)
        case "refusal", Refusal():
            return state.is_met("", thing.subject, thing.reason)
        case "step", Action():
            return state.is_met(thing.verb, thing.subject, thing.cause)
    return False


def _search_log(incident: Incident, log: Log) -> Evidence | None:
    """The last line of a log that is a symptom of an incident."""
    patterns = [pattern for pattern in incident.patterns if log.kind in pattern.sources]
    joined = "\n".join(line.text for line in log.lines).lower()
    patterns = [pattern for pattern in patterns if pattern.search(joined)]
    for line in reversed(log.lines) if patterns else ():
        if any(pattern.search(line.text.lower()) for pattern in patterns):
            return Evidence(line=_fit(line.text), source=log.source, age=line.age)
    return None


def _find_blinded(cases: Iterable[_Case]) -> Iterator[tuple[str, str]]:
    """The operations that say nothing else, each with the incident that is why."""
    for case in cases:
        for state in case.incident.states if case.is_found else ():
            if state.blinds and any(_is_met(state, room, thing) for room, thing in case.things):
                yield state.operation, case.incident.id


def _add_logs(case: _Case, observations: Observations, unread: Iterable[str]) -> None:
    """Count what logs say as evidence, or as all that there is, or as of the past."""
    asked = case.incident.list_operations() & {room.operation for room in observations.rooms}
    if not case.is_found and asked and asked.isdisjoint(unread):
        return
    if case.logs and not case.is_found:
        case.severity = max(case.severity, _FROM_LOGS, key=SEVERITIES.index)
    case.lines += case.logs


def _check_incidents(
    cases: Iterable[_Case],
    found: Sequence[_Case],
    observations: Observations,
    problems: Mapping[str, str],
    blinded: Mapping[str, str],
) -> Iterator[CheckOutcome]:
    asked = {room.operation for room in observations.rooms}
    for case in cases:
        name, operations = case.incident.id, case.incident.list_operations() & asked
        causes = [other.incident.id for other in found if name in other.incident.explains]
        causes += [blinded[each] for each in sorted(operations) if each in blinded]
        unread = [problems[each] for each in sorted(operations) if each in problems]
        if case.is_found:
            yield CheckOutcome(name=name, status="finding")
        elif case.crash:
            yield CheckOutcome(name=name, status="unknown", reason=case.crash)
        elif causes and (unread or operations & blinded.keys()):
            yield CheckOutcome(name=name, status="skipped", reason=causes[0])
        elif unread:
            yield CheckOutcome(name=name, status="unknown", reason=unread[0])
        elif operations:
            yield CheckOutcome(name=name, status="ok")
        elif case.incident.patterns and (problem := observations.symptoms_problem):
            yield CheckOutcome(name=name, status="unknown", reason=_fit(problem))
        elif case.incident.patterns and observations.symptoms.logs:
            yield CheckOutcome(name=name, status="ok")


def _describe(case: _Case) -> DiagnosedFinding:
    incident = case.incident
    findings = [thing for _, thing in case.things if isinstance(thing, Finding)]
    refusals = [thing for _, thing in case.things if isinstance(thing, Refusal)]
    subjects = dict.fromkeys(
        [*(thing.subject for _, thing in case.things), *(subject for subject, _ in case.lines)]
    )
    evidence = [line for room, thing in case.things for line in _list_evidence(room, thing)]
    evidence += [line for _, line in case.lines]
    rooms = list({id(room): room for room, _ in case.things}.values())
    steps = tuple(_list_steps(case, rooms, subjects))[:MOST_STEPS]
    refusals += [
        refusal
        for room in rooms
        for refusal in room.plan.refusals
        if refusal.subject in subjects and refusal not in refusals
    ]
    return DiagnosedFinding(
        incident=incident.id,
        title=incident.title,
        severity=case.severity,
        subjects=tuple(filter(None, subjects)),
        evidence=tuple(_interleave(dict.fromkeys(evidence)))[:MOST_EVIDENCE],
        steps=steps,
        remedy=next(_list_remedies(findings, refusals), incident.remedy),
        # What it does anyway needs no line.
        inventory=next(_list_consents(refusals), "" if steps else incident.inventory),
        proof=incident.proof,
    )


def _list_remedies(findings: Iterable[Finding], refusals: Iterable[Refusal]) -> Iterator[str]:
    """What rooms say that mends it, but for what is a line of inventory."""
    yield from (each.remedy for each in findings if each.remedy)
    consents = set(_list_consents(refusals))
    yield from (each.remedy for each in refusals if each.remedy and each.remedy not in consents)


def _list_consents(refusals: Iterable[Refusal]) -> Iterator[str]:
    """The remedies that are a line of inventory."""
    yield from (each.remedy for each in refusals if _LINE.search(each.remedy))


def _list_evidence(room: RoomReading, thing: Thing) -> Iterator[Evidence]:
    if isinstance(thing, Finding):
        lines = (f"{thing.subject}: {thing.kind}: {thing.cause}", *thing.evidence)
    elif isinstance(thing, Refusal):
        lines = (f"{thing.subject}: {thing.reason}",)
    else:
        lines = (f"{thing.subject}: {thing.cause}",)
    for line in lines:
        yield Evidence(line=_fit(line), source=room.operation, age=0.0)


def _list_steps(
    case: _Case, rooms: Iterable[RoomReading], subjects: Mapping[str, None]
) -> Iterator[str]:
    """What the rooms would do about it."""
    mine = {id(thing) for _, thing in case.things}
    for room in rooms:
        actions = [action for action in room.plan.actions if action.subject in subjects]
        if not actions and all(id(each) in mine for each in room.plan.problems):
            actions = list(room.plan.actions)
        yield from (_fit(str(action)) for action in actions)


def _interleave(evidence: Iterable[Evidence]) -> Iterator[Evidence]:
    """Lines in their order, but one of each source before any source says more."""
    by_source: dict[str, list[Evidence]] = {}
    for line in evidence:
        by_source.setdefault(line.source, []).append(line)
    for row in zip_longest(*by_source.values()):
        yield from filter(None, row)


# All of them together


def _arrange(found: Sequence[_Case], observations: Observations) -> Iterator[DiagnosedFinding]:
    """Root causes by severity, each followed by what it explains."""
    place = {case.incident.id: at for at, case in enumerate(found)}
    worst = sorted(
        found, key=lambda case: (SEVERITIES.index(case.severity), place[case.incident.id])
    )
    explained: dict[str, str] = {}
    causes = rank([case.incident for case in found])
    roots = [case for case in worst if not causes[case.incident.id]]
    # Those left explain each other in a circle, or are explained by such: the worst begins.
    for case in (*roots, *worst):
        if case.incident.id not in explained:
            explained[case.incident.id] = ""
            for name in _follow(case.incident, found):
                explained.setdefault(name, case.incident.id)
    parts = {case.incident.id: _separate(case, found, observations) for case in worst}
    groups: list[list[DiagnosedFinding]] = []
    for root in (name for name, cause in explained.items() if not cause):
        below = [
            _describe(part)
            for case in worst
            if explained[case.incident.id] == root and (part := parts[case.incident.id][0])
        ]
        names = tuple(each.incident for each in below)
        # What is a root is one as a whole.
        cause = next(case for case in worst if case.incident.id == root)
        groups.append(
            [
                _describe(cause).model_copy(update={"explains": names}),
                *(each.model_copy(update={"explained_by": root}) for each in below),
            ]
        )
    groups += [
        [_describe(part)]
        for case in worst
        if explained[case.incident.id] and (part := parts[case.incident.id][1])
    ]
    for group in sorted(groups, key=lambda group: SEVERITIES.index(group[0].severity)):
        yield from group


def _separate(
    case: _Case, found: Sequence[_Case], observations: Observations
) -> tuple[_Case | None, _Case | None]:
    """What of an incident others explain, and what none does: it is in services that none is in."""
    causes = [other for other in found if case.incident.id in other.incident.explains]
    confined = [other for other in causes if case.incident.id in other.incident.confined]
    if not causes or len(confined) < len(causes):
        return case, None
    services = _map_services(observations)
    reached: set[str] = set()
    for other in confined:
        for subject in _list_subjects(other):
            if subject not in services:
                # It may be in any service.
                return case, None
            reached |= services[subject]
    left = {
        subject
        for subject in _list_subjects(case)
        if subject in services and not services[subject] & reached
    }
    return _select_part(case, left, among=False), _select_part(case, left, among=True)


def _list_subjects(case: _Case) -> set[str]:
    return {thing.subject for _, thing in case.things} | {subject for subject, _ in case.lines}


def _map_services(observations: Observations) -> dict[str, set[str]]:
    """The services that a subject means: one by its name, and those that want a port."""
    found: dict[str, set[str]] = {}
    for state in observations.list_states(StackState):
        for container in state.containers:
            if container.service is None:
                continue
            found.setdefault(container.service, set()).add(container.service)
            for text in (*container.published, *(container.shape.get("ports") or ())):
                if match := _BINDING.fullmatch(str(text)):
                    subject = f"{match['address']}:{match['port']}/{match['protocol']}"
                    found.setdefault(subject, set()).add(container.service)
    return found


def _select_part(case: _Case, subjects: Collection[str], *, among: bool) -> _Case | None:
    """The same of these subjects alone, or of all others; nothing where none is left."""
    part = replace(
        case,
        things=[each for each in case.things if (each[1].subject in subjects) is among],
        lines=[each for each in case.lines if (each[0] in subjects) is among],
    )
    return part if part.is_found else None


def _follow(incident: Incident, found: Sequence[_Case]) -> Iterator[str]:
    """The ids of those found that an incident may cause, also by way of others."""
    by_id = {case.incident.id: case.incident for case in found}
    pending, met = [incident], {incident.id}
    while pending:
        for name in pending.pop().explains:
            if name in by_id and name not in met:
                met.add(name)
                pending.append(by_id[name])
                yield name


def _list_others(
    observations: Observations, claimed: Collection[int]
) -> Iterator[DiagnosedFinding]:
    """What rooms found, refuse or would do and no incident names: it is not to be lost."""
    for room in observations.rooms:
        left = [thing for thing in _list_things(room) if id(thing) not in claimed]
        named = {
            thing.subject
            for thing in _list_things(room)
            if id(thing) in claimed or isinstance(thing, Finding)
        }
        is_explained = any(id(thing) in claimed for thing in _list_things(room))
        for thing in left:
            if isinstance(thing, Finding) and thing.blocks:
                yield _describe_other(room, thing, f"{thing.subject}: {thing.kind}", "warning")
            elif isinstance(thing, Locked):
                # It says nothing of the host but that it is not to be read now: a check says so.
                continue
            elif isinstance(thing, Refusal) and thing.subject not in named:
                yield _describe_other(room, thing, f"{thing.subject}: refused", "error")
            elif isinstance(thing, Action) and thing.subject not in named and not is_explained:
                yield _describe_other(room, thing, f"{thing.verb} {thing.subject}", "warning")


def _describe_other(
    room: RoomReading, thing: Thing, title: str, severity: Severity
) -> DiagnosedFinding:
    steps = [each for each in room.plan.actions if each.subject == thing.subject]
    refusals = [each for each in room.plan.refusals if each.subject == thing.subject]
    findings = [thing] if isinstance(thing, Finding) else []
    return DiagnosedFinding(
        title=_fit(title),
        severity=severity,
        subjects=(thing.subject,),
        evidence=tuple(_list_evidence(room, thing))[:MOST_EVIDENCE],
        steps=tuple(_fit(str(step)) for step in steps)[:MOST_STEPS],
        remedy=next(_list_remedies(findings, refusals), ""),
        inventory=next(_list_consents(refusals), ""),
        proof=f"{room.operation} finds it no more",
    )


def _check_symptoms(
    observations: Observations, blinded: Mapping[str, str]
) -> Iterator[CheckOutcome]:
    if not (problem := observations.symptoms_problem):
        return
    if blinded:
        yield CheckOutcome(name="symptoms", status="skipped", reason=next(iter(blinded.values())))
    else:
        yield CheckOutcome(name="symptoms", status="unknown", reason=_fit(problem))


def _check_rooms(
    observations: Observations, others: Sequence[DiagnosedFinding]
) -> Iterator[CheckOutcome]:
    sources = {line.source for other in others for line in other.evidence}
    for room in observations.rooms:
        name = room.operation
        if problem := _find_problem(room):
            yield CheckOutcome(name=name, status="unknown", reason=_fit(problem))
        else:
            yield CheckOutcome(name=name, status="finding" if name in sources else "ok")


def _list_notes(observations: Observations, claimed: Collection[int]) -> Iterator[str]:
    for room in observations.rooms:
        for finding in room.plan.findings:
            if not finding.blocks and id(finding) not in claimed:
                yield _fit(f"{finding.subject}: {finding.kind}: {finding.cause}")


def _fit(line: str) -> str:
    return make_printable(line, VALUE_LIMIT)


def _fit_evidence(evidence: Evidence) -> Evidence:
    fields = {"line": _fit(evidence.line), "source": _fit(evidence.source)}
    return evidence.model_copy(update=fields)
