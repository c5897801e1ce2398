"""A run as a page: one file that needs nothing else, runs nothing, and fetches nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from stackmend.pages import make_policy
from stackmend.reporting.diagnoses import format_when, group_by_reason
from stackmend.reporting.files import write_text
from stackmend.reporting.state import MEANINGS, HostRecord, Outcome, RunRecord
from stackmend.text import LINE_LIMIT, format_limit, make_printable

#: Runs before this one that are shown with it.
MOST_BEFORE = 30

#: Hosts up to which all are unfolded.
MOST_OPEN = 3


def write(path: Path, record: RunRecord, before: Iterable[RunRecord] = ()) -> None:
    """Write a run as a page; a reader sees all of it or nothing.

    :param path: the page; its directory is made if it is missing.
    :param record: the run.
    :param before: runs before it, in any order; the latest 30 are shown.
    :raises OSError: it cannot be written.

    Example:
        >>> write(Path("run.html"), reporting.read(Path("var/reports/latest.json")))
    """
    write_text(path, render(record, before))


def render(record: RunRecord, before: Iterable[RunRecord] = ()) -> str:
    """A run as a page; equal runs make equal pages.

    :param record: the run.
    :param before: runs before it, in any order; the latest 30 are shown.
    """
    style = _read("page.css")
    earlier = sorted((run for run in before if run.ended < record.ended), key=_get_end)
    hosts = list(record.hosts.items())
    return (
        _make_environment()
        .get_template("page.html.jinja")
        .render(
            record=record,
            title=format_outcomes(record),
            hosts=hosts,
            opened={name for name, host in hosts if len(hosts) <= MOST_OPEN or is_troubled(host)},
            earlier=earlier[: -MOST_BEFORE - 1 : -1],
            policy=make_policy(style),
            style=Markup(style),  # noqa: S704  our own file
        )
    )


def format_outcomes(record: RunRecord) -> str:
    """How many hosts a run has of each outcome, those that need a person first."""
    counts = Counter(host.outcome for host in record.hosts.values())
    ranks = {"bad": 0, "warn": 1, "good": 2, "quiet": 3}
    ordered = sorted(counts.items(), key=lambda item: (ranks[_get_mark(item[0])], item[0]))
    listed = ", ".join(f"{count} {outcome}" for outcome, count in ordered)
    return f"{len(record.hosts)} host{'s' if len(record.hosts) != 1 else ''}: {listed}"


def is_troubled(host: HostRecord) -> bool:
    """Whether somebody should look at a host: it is not well, or was not."""
    return host.outcome not in ("converged", "unmanaged")


def _get_end(record: RunRecord) -> datetime:
    return record.ended


def _get_mark(outcome: Outcome) -> str:
    return MEANINGS[outcome].mark


def _count(record: RunRecord | HostRecord, field: str) -> int:
    """How many findings, actions, refusals or errors there are of a host, or of all hosts."""
    if isinstance(record, RunRecord):
        return sum(_count(host, field) for host in record.hosts.values())
    own = len(record.errors) if field == "errors" else 0
    return own + sum(len(getattr(operation, field)) for operation in record.operations)


def _sum_seconds(host: HostRecord) -> float:
    return round(sum((operation.seconds for operation in host.operations), 0.0), 3)


def _format_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _format_duration(record: RunRecord) -> str:
    seconds = (record.ended - record.started).total_seconds()
    return f"{seconds:.1f} s" if seconds < 60 else format_limit(seconds)


def _make_environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_make_visible,
    )
    environment.filters |= {
        "age": format_when,
        "count": _count,
        "duration": _format_duration,
        "exact": repr,
        "mark": _get_mark,
        "outcomes": format_outcomes,
        "reasons": group_by_reason,
        "seconds": _sum_seconds,
        "time": _format_time,
    }
    return environment


def _make_visible(value: Any) -> Any:
    """Text without what a browser obeys though it is escaped, such as marks of direction."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return make_printable(value, LINE_LIMIT)
    return value


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
