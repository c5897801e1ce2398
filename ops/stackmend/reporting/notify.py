"""Send the notices of a run, and remember which were sent."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from stackmend import controller_files
from stackmend.answers import read_json
from stackmend.reporting import files, notices
from stackmend.reporting.notices import Known
from stackmend.text import LINE_LIMIT, make_printable

if TYPE_CHECKING:
    from stackmend.reporting.state import RunRecord

#: Seconds that all messages and the ping of one run may take, the wait for other runs among them.
LIMIT = 10.0

#: Bytes of what is known of very many hosts.
MAXIMUM = 16 * 1024**2

#: Where it is kept, beside the records.
NAME = "notified.json"


class Notified(BaseModel):
    """What each target knows: one that was dead hears later, the others not twice.

    :param version: of this form.
    :param targets: by a digest of the target's address, what it knows of each host.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    targets: dict[str, dict[str, Known]] = {}


def send(
    directory: Path, record: RunRecord, summary: str, targets: Sequence[str], ping: str = ""
) -> list[str]:
    """Send the notices of a run, within ten seconds.

    :param directory: where the records lie; what was sent is remembered there.
    :param record: the run, without secrets; of a dry one nothing is sent.
    :param summary: what a ping carries.
    :param targets: addresses in Apprise's form.
    :param ping: the address of a dead man's switch in the protocol of healthchecks.io; it waits for
        no other run.
    :returns: what did not arrive or cannot be remembered, without its address.
    :raises OSError: what sends them cannot be started.
    """
    if record.mode == "dry":
        return []
    until = time.monotonic() + LIMIT
    pinging = _start_ping(_format_ping(ping, record), summary) if ping else None
    failed: list[str] = []
    try:
        if targets:
            failed += _send_notices(directory, record, targets, until)
    except BlockingIOError as error:
        failed.append(f"nothing was sent: {error}; the next run tries again")
    except OSError as error:
        failed.append(f"what was sent cannot be remembered: {error}")
    finally:
        if pinging is not None and not _finish(pinging, None, until):
            failed.append("the ping did not arrive")
    return failed


def _send_notices(
    directory: Path, record: RunRecord, targets: Sequence[str], until: float
) -> Iterator[str]:
    path = directory / NAME
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files.lock(path, (until - time.monotonic()) / 2):
        notified = _read(path)
        items: list[dict[str, Any]] = []
        # Another inventory may have other targets, and its records here.
        known = {
            key: hosts
            for key, hosts in notified.targets.items()
            if not notices.is_outdated(hosts, record)
        }
        waiting: list[tuple[str, dict[str, Known]]] = []
        for url in dict.fromkeys(targets):
            key = hashlib.sha256(url.encode()).hexdigest()[:16]
            before = notified.targets.get(key, {})
            found, after = notices.decide(before, record)
            known[key] = before if found else after
            if found:
                message = notices.compose(found, platform.node())
                items.append({"url": url, **message.model_dump()})
                waiting.append((key, after))
        arrived = _finish(_start(), json.dumps(items), until) if items else set()
        for number, (key, after) in enumerate(waiting):
            if number in arrived:
                known[key] = after
        changed = Notified(targets=known)
        if changed != notified:
            files.write_json(path, changed.model_dump(mode="json"))
    if missing := len({*range(len(waiting))} - arrived):
        yield f"{missing} of {len(waiting)} messages did not arrive; the next run tries again"


def _format_ping(url: str, record: RunRecord) -> str:
    """The address that says how the run ended, with a name of its own for the run."""
    base, mark, query = url.partition("?")
    # Who has paused a host need not be called.
    bad = [outcome for outcome in record.list_not_well().values() if outcome != "paused"]
    status = int(not record.complete or bool(bad))
    return f"{base.rstrip('/')}/{status}?{query}{mark and '&'}rid={uuid.uuid4()}"


def _read(path: Path) -> Notified:
    """What is known; nothing where the file is none of ours: all is sent once more."""
    try:
        return Notified.model_validate(read_json(controller_files.read(path, MAXIMUM), MAXIMUM))
    except ValueError:
        return Notified()


def _start() -> subprocess.Popen[str]:
    """What sends, which waits for what it is to send."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "stackmend.reporting.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _start_ping(url: str, summary: str) -> subprocess.Popen[str]:
    process = _start()
    assert process.stdin is not None
    # It fits into the pipe, however late the process reads it.
    body = make_printable(summary, LINE_LIMIT)
    with suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps([{"url": url, "kind": "ping", "body": body}]))
    process.stdin = None
    return process


def _finish(process: subprocess.Popen[str], items: str | None, until: float) -> set[int]:
    """The numbers of those that arrived in time; the process is ended then."""
    with process:
        try:
            output, _ = process.communicate(items, timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    return {int(line) for line in output.split() if line.isdecimal()}
