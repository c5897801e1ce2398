"""What whoever is on call hears of a run: a change, once. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from stackmend.reporting.state import MEANINGS, WELL, HostRecord, RunRecord, State
from stackmend.text import make_printable

#: What a message says of a host.
Event = Literal["broke", "needs you", "well again", "mended", "flapping"]

#: After this many messages of one host within an hour, one says that it flaps; then none until
#: the host has been as it is for an hour.
MOST, HOUR = 4, 3600.0

#: Hosts, and lines of each, that one message names.
HOSTS, LINES = 20, 5

#: Seconds after which what is known of a host that no run met is dropped.
KEEP = 90 * 86400.0


class Known(BaseModel):
    """What is known of a host, and how a message last had it.

    :param announced: how it was when a message was last sent, or when it was first met.
    :param now: how it is.
    :param changed: when that changed, in seconds since 1970; also by a mend within one run.
    :param met: when a run last met it.
    :param sent: when the messages of the last hour were sent.
    :param flapping: whether a message said that it flaps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    announced: State
    now: State
    changed: float
    met: float
    sent: tuple[float, ...] = ()
    flapping: bool = False


class Notice(BaseModel):
    """One event of one host.

    :param host: its name.
    :param event: what happened to it.
    :param lines: why, and what would mend it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    event: Event
    lines: tuple[str, ...] = ()


class Message(BaseModel):
    """What is sent.

    :param title: one line.
    :param body: lines of plain text.
    :param kind: its kind, in Apprise's words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    body: str
    kind: Literal["failure", "warning", "success", "info"]


def decide(
    known: Mapping[str, Known], record: RunRecord
) -> tuple[tuple[Notice, ...], dict[str, Known]]:
    """The notices after a run, and what is known once they are sent.

    :param known: what was known before, by host.
    :param record: the run; a dry one, and what it says nothing of, changes nothing.
    """
    at = record.ended.timestamp()
    after = {name: host for name, host in known.items() if at - host.met < KEEP}
    notices = []
    for name, host in record.hosts.items() if record.mode == "apply" else ():
        state = MEANINGS[host.outcome].state
        if state is None:
            continue
        mended = host.outcome == "changed" and any(_list_faults(host))
        event, after[name] = _follow(after.get(name), state, at, mended=mended)
        if event is not None:
            notices.append(Notice(host=name, event=event, lines=tuple(_explain(host))))
    return tuple(notices), after


def is_outdated(known: Mapping[str, Known], record: RunRecord) -> bool:
    """Whether no run has met any of these hosts for long."""
    at = record.ended.timestamp()
    return all(at - host.met >= KEEP for host in known.values())


def compose(notices: Sequence[Notice], here: str = "") -> Message:
    """One message of all notices of a run.

    :param notices: at least one.
    :param here: the name of this machine, by which people know what a run calls ``@local``.
    """
    first, *others = notices
    title = f"{_name_host(first, here)}: {first.event}"
    if others:
        counts = dict.fromkeys((notice.event for notice in notices), 0)
        for notice in notices:
            counts[notice.event] += 1
        title = ", ".join(f"{count} {event}" for event, count in counts.items())
    lines = []
    for notice in notices[:HOSTS]:
        lines.append(f"{_name_host(notice, here)}: {notice.event}")
        lines += [f"  {line}" for line in notice.lines]
    if left := len(notices) - HOSTS:
        lines += [f"and {left} more hosts"] if left > 0 else []
    events = {notice.event for notice in notices}
    kind: Literal["failure", "warning", "success", "info"] = "info"
    if "broke" in events:
        kind = "failure"
    elif events & {"needs you", "flapping"}:
        kind = "warning"
    elif "well again" in events:
        kind = "success"
    return Message(title=f"stackmend: {title}", body="\n".join(lines), kind=kind)


def _name_host(notice: Notice, here: str) -> str:
    name = f"{here} (@local)" if here and notice.host == "@local" else notice.host
    return make_printable(name, 80)


def _follow(
    known: Known | None, state: State, at: float, *, mended: bool
) -> tuple[Event | None, Known]:
    """What a host's state after a run says, and what is known of it then."""
    if known is None:
        known = Known(announced="well", now="well", changed=at, met=at)
    known = known.model_copy(
        update={"met": at, "sent": tuple(sent for sent in known.sent if at - sent < HOUR)}
    )
    if state != known.now or mended:
        known = known.model_copy(update={"now": state, "changed": at})
    if known.flapping:
        if at - known.changed < HOUR:
            return None, known
        known = known.model_copy(update={"flapping": False, "sent": ()})
    event = _find_event(known.announced, state, mended=mended)
    if event is None:
        return None, known
    known = known.model_copy(update={"announced": state, "sent": (*known.sent, at)})
    if len(known.sent) > MOST:
        return "flapping", known.model_copy(update={"flapping": True})
    return event, known


def _find_event(announced: State, state: State, *, mended: bool) -> Event | None:
    if state == "well":
        if announced != "well":
            return "well again"
        return "mended" if mended else None
    if state == announced:
        return None
    if state == "needs you":
        return "needs you"
    # Who was asked for help need not hear that the host is still not well.
    return "broke" if announced == "well" else None


def _list_faults(host: HostRecord) -> Iterator[str]:
    for operation in host.operations:
        for finding in operation.findings:
            if finding.blocks:
                kind = f"{finding.kind}: " if finding.kind else ""
                yield f"{finding.subject}: {kind}{finding.cause}"


def _explain(host: HostRecord) -> Iterator[str]:
    """Why a host is as it is: what is to be done first, then what failed, then what was found."""
    lines: list[str] = []
    for operation in host.operations:
        for refusal in operation.refusals:
            remedy = f"; remedy: {refusal.remedy}" if refusal.remedy else ""
            lines.append(f"refused: {refusal.subject}: {refusal.reason}{remedy}")
    if host.outcome not in WELL:
        lines += [error.message for error in host.errors]
        lines += [error.message for operation in host.operations for error in operation.errors]
    lines += _list_faults(host)
    lines += [
        f"done: {action.verb} {action.subject}"
        for operation in host.operations
        for action in operation.done
        if action.result == "done"
    ]
    lines = list(dict.fromkeys(make_printable(line) for line in lines))
    yield from lines[:LINES]
    if left := len(lines[LINES:]):
        yield f"… ({left} more in the report)"
