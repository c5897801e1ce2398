"""From what was read of a host to what it has, root causes first. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, zip_longest

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
from stackmend.incidents.connecting import Connections
from stackmend.incidents.known import KNOWN
from stackmend.incidents.spec import Incident, StatePattern, Undetermined
from stackmend.incidents.state import Log, Observations, RoomReading
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

#: How a service fails that has a wrong address.
_FAILING = ("restart-loop", "service-down", "unhealthy")

#: A variable of a service that is not as it should be.
_VARIABLE = re.compile(r"environment\.(?P<name>[^:\s]{1,200}): ")

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
        findings=(*_arrange(found, Connections(observations)), *others),
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
        causes = [other.incident.id for other in found if name in other.incident.everywhere]
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


def _describe(case: _Case, connections: Connections) -> DiagnosedFinding:
    incident = case.incident
    findings = [thing for _, thing in case.things if isinstance(thing, Finding)]
    refusals = [thing for _, thing in case.things if isinstance(thing, Refusal)]
    subjects = _list_subjects(case)
    # What has a wrong address is made again as a whole.
    holders = filter(None, map(connections.find_holder, subjects))
    mended = {**subjects, **dict.fromkeys(holders)}
    evidence = [line for room, thing in case.things for line in _list_evidence(room, thing)]
    evidence += [line for _, line in case.lines]
    rooms = list({id(room): room for room, _ in case.things}.values())
    steps = tuple(_list_steps(case, rooms, mended))[:MOST_STEPS]
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


def _arrange(found: Sequence[_Case], connections: Connections) -> Iterator[DiagnosedFinding]:
    """Root causes by severity, each followed by what it explains."""
    place = {case.incident.id: at for at, case in enumerate(found)}
    worst = sorted(
        found, key=lambda case: (SEVERITIES.index(case.severity), place[case.incident.id])
    )
    parts = [_place(part, connections) for case in worst for part in _split(case)]
    places: dict[str, list[int]] = {}
    for at, part in enumerate(parts):
        places.setdefault(part.id, []).append(at)
    parents: dict[int, tuple[int, int]] = {}
    for start, part in enumerate(parts):
        for at in (at for name in part.list_possible() for at in places.get(name, ())):
            distance = part.measure_distance(parts[at], connections)
            if distance is not None:
                parents[at] = min(parents.get(at, (distance, start)), (distance, start))
    groups: dict[str, list[_Case]] = {}
    for at, part in enumerate(parts):
        root = parts[_find_root(at, parents)].id
        # What ends where it began is one with it.
        groups.setdefault("" if part.id == root else root, []).append(part.case)
    for case in _merge(groups.get("", ())):
        name = case.incident.id
        below = _merge(groups.get(name, ()))
        names = tuple(each.incident.id for each in below)
        yield _describe(case, connections).model_copy(update={"explains": names})
        for each in below:
            yield _describe(each, connections).model_copy(update={"explained_by": name})


@dataclass(frozen=True)
class _Part:
    """What an incident is in one thing that has it, and which services of the host that means.

    :ivar subject: what has it; empty where that is not known.
    :ivar services: those that it is about.
    :ivar sources: those of them that have the trouble.
    :ivar called: those whose trouble would show in it.
    """

    case: _Case
    subject: str
    services: frozenset[str]
    sources: frozenset[str]
    called: frozenset[str]

    @property
    def id(self) -> str:
        return self.case.incident.id

    @property
    def is_address(self) -> bool:
        """Whether it is an address that is wrong."""
        return any(
            isinstance(thing, Finding) and thing.kind == "address" for _, thing in self.case.things
        )

    def list_possible(self) -> Collection[str]:
        """The ids of the incidents that it may cause."""
        # A service may end for an address that is wrong.
        return dict.fromkeys((*self.case.incident.explains, *(_FAILING if self.is_address else ())))

    def measure_distance(self, other: _Part, connections: Connections) -> int | None:
        """How far one of those that it may cause is from it; ``None`` where no fact connects them.

        Of several causes the nearest counts: one in the same service, before one that all of the
        host has, before one in what the service depends on.
        """
        incident = self.case.incident
        # An address that is wrong is so whatever else there is.
        if other.is_address:
            return None
        same = self.sources & other.services or (self.subject and self.subject == other.subject)
        if self.is_address and other.id in _FAILING:
            return 0 if same else None
        if other.id in incident.everywhere:
            return 1
        if other.id in incident.outward:
            return 2 if self.sources & other.called else None
        if same:
            return 0
        confined = other.id in incident.confined
        return (
            None if confined or not connections.has_dependency(other.services, self.sources) else 2
        )


def _place(case: _Case, connections: Connections) -> _Part:
    """What a part of an incident that is about one subject means on the host."""
    subject, operation = next(
        ((thing.subject, room.operation) for room, thing in case.things),
        next(((subject, "") for subject, _ in case.lines), ("", "")),
    )
    return _Part(
        case,
        subject,
        services=connections.find_services(subject, operation),
        sources=connections.find_sources(subject, operation),
        called=connections.find_called(subject),
    )


def _split(case: _Case) -> Iterator[_Case]:
    """An incident apart for each that has it: what explains one may not explain another."""
    for subject in _list_subjects(case):
        yield replace(
            case,
            things=[each for each in case.things if each[1].subject == subject],
            lines=[each for each in case.lines if each[0] == subject],
        )


def _merge(parts: Iterable[_Case]) -> list[_Case]:
    """One case for each incident, in the order of its first part."""
    found: dict[str, _Case] = {}
    for part in parts:
        name = part.incident.id
        known = found.get(name, replace(part, things=[], lines=[]))
        found[name] = replace(
            known, things=[*known.things, *part.things], lines=[*known.lines, *part.lines]
        )
    return list(found.values())


def _list_subjects(case: _Case) -> dict[str, None]:
    subjects = (thing.subject for _, thing in case.things), (subject for subject, _ in case.lines)
    return dict.fromkeys(chain(*subjects))


def _find_root(start: int, parents: Mapping[int, tuple[int, int]]) -> int:
    """The place of the root cause; of those that explain each other in a circle the worst is."""
    path = [start]
    while path[-1] in parents:
        at = parents[path[-1]][1]
        if at in path:
            return min(path[path.index(at) :])
        path.append(at)
    return path[-1]


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
        wrong = {each.subject for each in room.plan.findings if each.kind == "address"}
        for thing in left:
            if (match := _VARIABLE.match(_get_cause(thing))) and (
                f"{thing.subject}.{match['name']}" in wrong
            ):
                # That it differs is said with its address.
                continue
            if isinstance(thing, Finding) and thing.blocks:
                yield _describe_other(room, thing, f"{thing.subject}: {thing.kind}", "warning")
            elif isinstance(thing, Locked):
                # It says nothing of the host but that it is not to be read now: a check says so.
                continue
            elif isinstance(thing, Refusal) and thing.subject not in named:
                yield _describe_other(room, thing, f"{thing.subject}: refused", "error")
            elif isinstance(thing, Action) and thing.subject not in named and not is_explained:
                yield _describe_other(room, thing, f"{thing.verb} {thing.subject}", "warning")


def _get_cause(thing: Thing) -> str:
    return thing.cause if isinstance(thing, Finding) else ""


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
