"""A fleet as a page: one file that needs nothing else, runs nothing, and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from stackmend.pages import Fragment, make_environment, make_policy, make_style, read
from stackmend.reporting import fleet
from stackmend.reporting.diagnoses import format_when, group_by_reason
from stackmend.reporting.files import write_text
from stackmend.reporting.fleet import HostStatus, Span
from stackmend.reporting.state import MEANINGS, HostRecord, Outcome, RunRecord
from stackmend.text import format_limit

#: Runs before this one that are listed.
MOST_BEFORE = 30

#: Hosts up to which all are unfolded.
MOST_OPEN = 3

#: Units that a run is wide in a picture of a host's history, that the picture is high, and runs
#: that it has room for at least.
STEP, HEIGHT, FEWEST = 10, 20, 20

#: How high a run stands there, by its mark: the worse, the higher.
_HEIGHTS = {"quiet": 3, "good": 8, "warn": 14, "bad": 20}

#: The colour of an outcome on a page, by that on a terminal.
_COLOURS = {"green": "green", "yellow": "orange", "magenta": "purple", "red": "red", "cyan": "grey"}


def write(
    path: Path,
    record: RunRecord,
    before: Iterable[RunRecord] = (),
    fragments: Iterable[Fragment] = (),
) -> None:
    """Write a fleet as its latest run left it as a page; a reader sees all of it or nothing.

    :param path: the page; its directory is made if it is missing.
    :param record: the run.
    :param before: runs before it, in any order; the latest 30 are listed.
    :param fragments: what other rooms have to show of the fleet.
    :raises OSError: it cannot be written.

    Example:
        >>> write(Path("run.html"), reporting.read(Path("var/reports/latest.json")))
    """
    write_text(path, render(record, before, fragments))


def render(
    record: RunRecord,
    before: Iterable[RunRecord] = (),
    fragments: Iterable[Fragment] = (),
) -> str:
    """A fleet as a page; equal runs make equal pages.

    :param record: its latest run.
    :param before: runs before it, in any order; the latest 30 are listed.
    :param fragments: what other rooms have to show of the fleet.
    """
    parts = [*fragments]
    sheets = dict.fromkeys(part.style for part in parts)
    style = make_style(*sheets, read(__package__, "page.css"))
    earlier = fleet.sort_before(record, before)
    statuses = fleet.build_statuses(record, earlier)
    found = fleet.list_found(statuses)
    return (
        _make_environment()
        .get_template("page.html.jinja")
        .render(
            record=record,
            title=format_outcomes(record, statuses),
            statuses=statuses,
            anchors={status.name: f"h{number}" for number, status in enumerate(statuses, start=1)},
            opened={
                status.name
                for status in statuses
                if status.host is not None
                and status.place != "elsewhere"
                and (len(statuses) <= MOST_OPEN or is_troubled(status.host))
            },
            outcomes=fleet.list_outcomes(statuses),
            box=_make_box(min(len(earlier) + 1, fleet.MOST_RUNS)),
            found=found[: fleet.MOST_FOUND],
            unlisted=max(0, len(found) - fleet.MOST_FOUND),
            earlier=earlier[: -MOST_BEFORE - 1 : -1],
            fragments=parts,
            policy=make_policy(style),
            style=Markup(style),  # noqa: S704  our own files
        )
    )


def format_outcomes(record: RunRecord, statuses: Iterable[HostStatus] = ()) -> str:
    """How many hosts of a run, and left out of it, have each outcome; the worst first.

    :param record: the run.
    :param statuses: of hosts, for those that the run left out.
    """
    left_out = [
        status.host for status in statuses if status.place == "left out" and status.host is not None
    ]
    hosts = [*record.hosts.values(), *left_out]
    return f"{len(hosts)} host{'s' if len(hosts) != 1 else ''}: {fleet.count_outcomes(hosts)}"


def is_troubled(host: HostRecord) -> bool:
    """Whether somebody should look at a host: it is not well, or was not."""
    return host.outcome == "changed" or _get_mark(host.outcome) in ("warn", "bad")


def _get_mark(outcome: Outcome) -> str:
    return MEANINGS[outcome].mark


def _get_colour(outcome: Outcome) -> str:
    return _COLOURS.get(MEANINGS[outcome].colour, "grey")


def _get_height(outcome: Outcome) -> int:
    return _HEIGHTS[_get_mark(outcome)]


def _make_box(runs: int) -> str:
    """What a picture of so many runs shows; the latest stands at its right."""
    start = STEP * min(0, runs - FEWEST)
    return f"{start} 0 {STEP * max(runs, FEWEST)} {HEIGHT}"


def _count(record: RunRecord | HostRecord, field: str) -> int:
    """How many findings, actions, refusals or errors there are of a host, or of all hosts."""
    if isinstance(record, RunRecord):
        return sum(_count(host, field) for host in record.hosts.values())
    # The doctor's findings are made of those of the operations.
    if field == "findings" and record.diagnosis is not None:
        return len(record.diagnosis.findings)
    own = len(record.errors) if field == "errors" else 0
    return own + sum(len(getattr(operation, field)) for operation in record.operations)


def _sum_seconds(host: HostRecord) -> float:
    return round(sum((operation.seconds for operation in host.operations), 0.0), 3)


def _format_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _format_age(status: HostStatus, record: RunRecord) -> str:
    """How long before a run the host was last known."""
    if status.run is None:
        return "never"
    if status.run is record:
        return "in this run"
    seconds = (record.ended - status.run.ended).total_seconds()
    return f"{format_limit(seconds)} before"


def _format_duration(record: RunRecord) -> str:
    seconds = (record.ended - record.started).total_seconds()
    return f"{seconds:.1f} s" if seconds < 60 else format_limit(seconds)


def _format_span(span: Span) -> str:
    if span.length == 1:
        return f"{span.outcome}: {_format_time(span.first)}"
    ends = f"{_format_time(span.first)} to {_format_time(span.last)}"
    return f"{span.length} times {span.outcome}: {ends}"


def _make_environment() -> Environment:
    environment = make_environment(__package__)
    environment.globals |= {"STEP": STEP, "HEIGHT": HEIGHT}
    environment.filters |= {
        "age": format_when,
        "colour": _get_colour,
        "count": _count,
        "count_runs": fleet.count_runs,
        "duration": _format_duration,
        "exact": repr,
        "height": _get_height,
        "known": _format_age,
        "mark": _get_mark,
        "outcomes": format_outcomes,
        "reasons": group_by_reason,
        "seconds": _sum_seconds,
        "span": _format_span,
        "time": _format_time,
    }
    return environment
