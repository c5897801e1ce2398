"""A fleet now: the latest that is known of each host, how it was before, and what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from stackmend.reporting.state import MEANINGS, WELL, HostRecord, Outcome, RunRecord

#: Runs of a host's history.
MOST_RUNS = 60

#: Findings of a fleet that are listed, and subjects of each.
MOST_FOUND, MOST_SUBJECTS = 200, 3

#: How a host stands to the latest run: it was of it, its inventory has it and ``--limit`` left it
#: out, or it is known from earlier runs alone.
Place = Literal["here", "left out", "elsewhere"]

_RANKS = ("critical", "failed", "error", "refused", "found", "warning", "mended")
_MARKS = {"refused": "warn", "warning": "warn", "mended": "good"}
_OUTCOME_RANKS = ("bad", "warn", "good", "quiet")


class Span(NamedTuple):
    """Runs one after the other that left a host in the same way.

    :param start: the place of the first of them among all runs shown.
    :param length: how many.
    :param outcome: how.
    :param first: when the first ended.
    :param last: when the last ended.
    """

    start: int
    length: int
    outcome: Outcome
    first: datetime
    last: datetime


class HostStatus(NamedTuple):
    """One host.

    :param name: its name.
    :param place: how it stands to the latest run.
    :param run: the run that is the latest to know it; ``None`` where none does.
    :param host: what that run says of it.
    :param spans: how it was over the runs, the oldest first.
    """

    name: str
    place: Place
    run: RunRecord | None
    host: HostRecord | None
    spans: tuple[Span, ...]

    @property
    def since(self) -> datetime | None:
        """When the first run ended that left it as it is now, without another one since."""
        return self.spans[-1].first if self.spans else None


class Found(NamedTuple):
    """Something that hosts have.

    :param word: how bad it is, or what came of it.
    :param mark: the same as of an outcome.
    :param text: what it is.
    :param hosts: the names of those that have it.
    """

    word: str
    mark: str
    text: str
    hosts: tuple[str, ...]


def build_statuses(record: RunRecord, before: Iterable[RunRecord]) -> tuple[HostStatus, ...]:
    """Every host that is known: those of the run in its order, then the others by name.

    :param record: the latest run.
    :param before: runs before it, in any order.
    """
    runs = [*sort_before(record, before), record]
    latest = {name: run for run in runs for name in run.hosts}
    recent = runs[-MOST_RUNS:]
    left_out = {*record.left_out}
    others = sorted(
        (left_out | latest.keys()) - record.hosts.keys(),
        key=lambda name: (name not in left_out, name),
    )
    statuses = []
    for name in (*record.hosts, *others):
        run = latest.get(name)
        host = None if run is None else run.hosts[name]
        spans = tuple(_list_spans(name, recent))
        statuses.append(HostStatus(name, _place(name, record, left_out), run, host, spans))
    return tuple(statuses)


def sort_before(record: RunRecord, before: Iterable[RunRecord]) -> list[RunRecord]:
    """The runs that ended before one, the oldest first.

    :param record: that one.
    :param before: runs, in any order.
    """
    return sorted((run for run in before if run.ended < record.ended), key=lambda run: run.ended)


def count_outcomes(hosts: Iterable[HostRecord]) -> str:
    """How many hosts have each outcome, those that need a person first.

    :param hosts: the hosts.
    """
    counts = Counter(host.outcome for host in hosts)
    ordered = sorted(
        counts, key=lambda outcome: (_OUTCOME_RANKS.index(MEANINGS[outcome].mark), outcome)
    )
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ordered)


def count_runs(status: HostStatus) -> str:
    """How many runs left a host in each way, in words.

    :param status: the host's.
    """
    counts: Counter[Outcome] = Counter()
    for span in status.spans:
        counts[span.outcome] += span.length
    total = counts.total()
    listed = ", ".join(f"{counts[outcome]} {outcome}" for outcome in MEANINGS if counts[outcome])
    return f"{total} run{'s' if total != 1 else ''}: {listed}" if total else "in no run shown here"


def list_outcomes(statuses: Iterable[HostStatus]) -> list[Outcome]:
    """The outcomes that hosts have had, in the order of the table of outcomes.

    :param statuses: of the hosts.
    """
    had = {span.outcome for status in statuses for span in status.spans}
    return [outcome for outcome in MEANINGS if outcome in had]


def list_found(statuses: Sequence[HostStatus]) -> tuple[Found, ...]:
    """What the hosts have, the worst first: each once, with those that have it.

    What another finding explains is left out, and so are hosts of another inventory.

    :param statuses: of the hosts.
    """
    hosts: dict[tuple[str, str], dict[str, None]] = {}
    for status in statuses:
        if status.host is not None and status.place != "elsewhere":
            for key in _list_host(status.host):
                hosts.setdefault(key, {})[status.name] = None
    ordered = sorted(hosts, key=lambda key: _RANKS.index(key[0]))
    return tuple(
        Found(word, _MARKS.get(word, "bad"), text, tuple(hosts[word, text]))
        for word, text in ordered
    )


def _place(name: str, record: RunRecord, left_out: set[str]) -> Place:
    if name in record.hosts:
        return "here"
    return "left out" if name in left_out else "elsewhere"


def _list_spans(name: str, runs: Sequence[RunRecord]) -> Iterator[Span]:
    span: Span | None = None
    for index, run in enumerate(runs):
        if (host := run.hosts.get(name)) is None:
            continue
        adjacent = span is not None and span.start + span.length == index
        if span is not None and adjacent and span.outcome == host.outcome:
            span = span._replace(length=span.length + 1, last=run.ended)
            continue
        if span is not None:
            yield span
        span = Span(index, 1, host.outcome, run.ended, run.ended)
    if span is not None:
        yield span


def _list_host(host: HostRecord) -> Iterator[tuple[str, str]]:
    if host.diagnosis is not None:
        for finding in host.diagnosis.findings:
            if not finding.explained_by:
                title = ": ".join(filter(None, (finding.incident, finding.title)))
                yield finding.severity, title + _format_subjects(finding.subjects)
    for error in host.errors:
        yield "failed", error.message
    for operation in host.operations:
        for error in operation.errors:
            yield "failed", f"{operation.name}: {error.message}"
        for refusal in operation.refusals:
            yield "refused", f"{refusal.subject}: {refusal.reason}"
        # What the doctor has named is not named once more.
        if host.diagnosis is None:
            for found in operation.findings:
                word = "mended" if host.outcome in WELL else "found"
                if found.blocks:
                    kind = f"{found.kind}: " if found.kind else ""
                    yield word, f"{found.subject}: {kind}{found.cause}"


def _format_subjects(subjects: Sequence[str]) -> str:
    if not subjects:
        return ""
    left = len(subjects) - MOST_SUBJECTS
    more = f" and {left} more" if left > 0 else ""
    return f" ({', '.join(subjects[:MOST_SUBJECTS])}{more})"
