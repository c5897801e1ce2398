"""Probe text to state: what a host's logs, journals and events say of late."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import FactValueError

from stackmend.connection import (
    PROBE_TIMEOUT,
    make_mark,
    parse_probe,
    parse_rows,
    parse_sections,
    script,
)
from stackmend.incidents.state import Listener, Log, LogLine, Symptoms
from stackmend.redaction import format_foreign_lines, format_safe_line

#: How far back logs are read, and how many lines of each.
MINUTES = 10
LINES = 200

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_STAMPED = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d{0,3}(Z|[+-]\d\d:\d\d) (.*)"
)
_SINCE_1970 = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) (.*)")

#: A line of ``ss -Hltnp``; the name of the process stands where root asks.
_LISTENS = re.compile(
    r"LISTEN +\d{1,10} +\d{1,10} +(?P<address>\S{1,60}):(?P<port>\d{1,5}) +\S{1,70}"
    r'(?: +users:\(\("(?P<program>[^"]{1,40})".*)? *'
)

Sections = Mapping[str, tuple[int, list[str]]]


class RecentSymptoms(FactBase[Symptoms]):
    """What the logs of containers, the engine's events and units' journals say of late; reads only.

    + project: the Compose project whose containers' logs are read; empty for all.
    + minutes: how far back.

    Of each log the last 200 lines are read, of 40 containers at most. Of a container that runs only
    what it wrote since its start counts.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.incidents.facts.RecentSymptoms project=ai
    """

    _mark = ""
    limit = PROBE_TIMEOUT

    def command(self, project: str = "", minutes: int = MINUTES) -> StringCommand:
        """The probe, with its arguments quoted.

        :raises FactValueError: naming the argument that is wrong.
        """
        if project and not _PROJECT.fullmatch(project):
            raise FactValueError(f"project: no name of a Compose project: {project!r}")
        if not 1 <= int(minutes) <= 1440:
            raise FactValueError("minutes: must be from 1 to 1440")
        self._mark = make_mark()
        return script(
            "stackmend.incidents",
            "symptoms",
            project,
            str(int(minutes)),
            str(LINES),
            mark=self._mark,
        )

    def process(self, output: list[str]) -> Symptoms:
        """The state that the probe printed."""
        return parse_probe(self._parse, output, "the host's logs")

    def _parse(self, output: list[str]) -> Symptoms:
        sections = parse_sections(output, self._mark)
        now = float(sections["clock"][1][0])
        problems = []
        status, lines = sections.get("containers", (0, []))
        if status:
            problems.append(("the engine", format_safe_line(" ".join(lines))))
        logs = [*_parse_containers(sections, now), *_parse_others(sections, now)]
        return Symptoms(
            logs=tuple(log for log in logs if log.lines),
            problems=tuple(problems),
            listeners=tuple(_parse_listeners(sections["listening"][1]))
            if "listening" in sections
            else None,
        )


def _parse_listeners(lines: Sequence[str]) -> Iterator[Listener]:
    found: dict[Listener, None] = {}
    for line in lines:
        if match := _LISTENS.fullmatch(line):
            # fe80::1%eth0 and 127.0.0.53%lo name the interface as well.
            address = match["address"].strip("[]").partition("%")[0] or "*"
            program = format_safe_line(match["program"] or "")
            listener = Listener(
                address=format_safe_line(address), port=int(match["port"]), program=program
            )
            found[listener] = None
    yield from found


def _parse_containers(sections: Sections, now: float) -> Iterator[Log]:
    for id_, name, service, running, started in parse_rows(
        sections.get("containers", (0, []))[1], 5
    ):
        if not (isinstance(id_, str) and isinstance(name, str)):
            continue
        lines = list(_parse_stamped(sections.get(f"log {id_}", (0, []))[1], now))
        if running is True and isinstance(started, str):
            since = now - _parse_time(started)
            lines = [line for line in lines if line.age is None or line.age <= since]
        title = format_safe_line(name.removeprefix("/"))
        yield Log(
            source=f"log of {title}",
            kind="container",
            subject=format_safe_line(service) if isinstance(service, str) else title,
            lines=tuple(lines),
        )


def _parse_others(sections: Sections, now: float) -> Iterator[Log]:
    for name, (_, lines) in sections.items():
        if name == "events":
            read = _parse_numbered(lines, now)
            yield Log(source="events of the engine", kind="engine", lines=read)
        elif name.startswith("unit "):
            unit = name.removeprefix("unit ")
            yield Log(
                source=f"journal of {unit}",
                kind="unit",
                subject=unit,
                lines=_parse_numbered(lines, now),
            )


def _parse_stamped(lines: Sequence[str], now: float) -> Iterator[LogLine]:
    rows: list[tuple[str, float | None]] = []
    for line in lines:
        age = None
        if match := _STAMPED.fullmatch(line):
            with suppress(ValueError, OverflowError):
                age = _make_age(now, _parse_time(match[1] + match[2]))
            line = match[3]
        rows.append((line, age))
    yield from _make_lines(rows)


def _parse_numbered(lines: Sequence[str], now: float) -> tuple[LogLine, ...]:
    rows: list[tuple[str, float | None]] = []
    for line in lines:
        match = _SINCE_1970.fullmatch(line)
        age = _make_age(now, float(match[1])) if match else None
        rows.append((match[2] if match else line, age))
    return tuple(_make_lines(rows))


def _make_lines(rows: Sequence[tuple[str, float | None]]) -> Iterator[LogLine]:
    """Those that hold something, all of them without secrets: one may be wrapped over several."""
    texts = format_foreign_lines(line for line, _ in rows)
    for text, (line, age) in zip(texts, rows, strict=True):
        if line.strip():
            yield LogLine(text=text, age=age)


def _make_age(now: float, at: float) -> float:
    return round(max(0.0, now - at), 1)


def _parse_time(text: str) -> float:
    """Seconds since 1970 of a time as the engine writes it, with up to nine places."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()
