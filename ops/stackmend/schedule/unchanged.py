"""Runs that a host that mends itself can do without, since nothing has happened to it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stackmend.compose.spec import ComposeSpec
from stackmend.connection import read_script
from stackmend.schedule.facts import HOME
from stackmend.schedule.units import MARK, PATH

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackmend.reporting.state import RunRecord
    from stackmend.schedule.spec import TimerSpec


def make_files(spec: TimerSpec, settings: BaseModel) -> Iterator[tuple[str, bytes]]:
    """The files by which a host finds out that nothing has happened to it; none unless it may.

    :param spec: when it is run.
    :param settings: a validated ``Stack`` or ``Machine``.
    :returns: the path of each below what the host runs, and what it holds.
    """
    if spec.full_every is None:
        return
    stack = settings if isinstance(settings, ComposeSpec) else None
    variables = {
        "room": f"{HOME}/{spec.unit}",
        "full_every": str(int(spec.full_every)),
        # A timer is never exact: the run that comes next to it is the full one.
        "slack": str(int((spec.interval or 0) / 2)),
        "project": stack.project if stack else "",
        "directory": stack.directory if stack else "",
        "PATH": PATH,
    }
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    yield "unchanged.sh", (head + read_script("stackmend.schedule", "unchanged")).encode()
    if spec.ping is not None:
        yield "ping", format_ping(spec.ping.get_secret_value()).encode()


def format_ping(url: str) -> str:
    """What curl reads so that a dead man's switch hears of a run that was not needed.

    :param url: its address.
    """
    base, mark, query = url.partition("?")
    address = f"{base.rstrip('/')}/0{mark}{query}".replace("\\", "\\\\").replace('"', '\\"')
    body = "stackmend: nothing has happened on this host since the last full run"
    # Without a value curl would take the signs of a URL for lists of URLs.
    return f'globoff\nurl = "{address}"\ndata = "{body}"\n'


def keep(record: RunRecord | None) -> None:
    """Remember how the host was when this run began, where it found nothing to do; else forget it.

    :param record: the run; ``None`` where there is no record of it.
    """
    if not (unit := os.environ.get(MARK)):
        return
    path = Path(HOME, unit, "unchanged")
    # It waits where the host was looked at before this run, by unchanged.sh.
    waiting = path.with_suffix(".new")
    with suppress(OSError):
        if (
            record is not None
            and record.complete
            and not record.left_out
            and {host.outcome for host in record.hosts.values()} == {"converged"}
        ):
            waiting.replace(path)
        else:
            path.unlink(missing_ok=True)
            waiting.unlink(missing_ok=True)
