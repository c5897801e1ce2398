"""Tasks that a measurement of a queue left in it, as it was killed or failed.

A file beside the results says that a queue is being measured; it goes when all tasks have come to
their end. Where a run finds it, the few tasks in the queue may be those of the one before: they
need nobody, and end by themselves, so it waits for them rather than refuse.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from stackmend import connection
from stackmend.errors import StepError
from stackmend.reporting import announce
from stackmend.text import format_limit
from stackmend.worker.benchmark import commands, identity, store
from stackmend.worker.benchmark.sending import MOST_AT_ONCE

if TYPE_CHECKING:
    from pyinfra.api.host import Host

    from stackmend.worker.benchmark.spec import BenchmarkSpec
    from stackmend.worker.benchmark.state import Answers, Queue
    from stackmend.worker.benchmark.store import Files

#: Minutes after which no task of a measurement that ended is left, and seconds to wait for them.
LEFT_MINUTES, WAIT = 60, 900.0

#: Bytes that an empty file needs of a disk.
ROOM = 1024**2

#: Seconds between two readings of how many tasks a queue has.
PAUSE = 1.0


def mark(host: Host, files: Files, *, asking: bool) -> None:
    """Note that a queue is being measured, or that all tasks of that are over.

    :param host: the host.
    :param files: of the queue's measurements.
    :param asking: whether it is being measured.
    :raises StepError: that cannot be written.
    """
    result = connection.run(host, commands.mark(files.asking, present=asking), stdin=b"")
    if not result.ok:
        raise StepError(
            store.explain_failure(files.asking, result.reason, ROOM), status=result.status
        )


def has_own(host: Host, spec: BenchmarkSpec, files: Files, answers: Answers) -> bool:
    """Whether the tasks in a queue may be those that an earlier measurement left.

    :param host: the host that reaches it.
    :param spec: which queue it is.
    :param files: of its measurements.
    :param answers: what it says now.
    """
    if spec.target != "queue" or "busy" in spec.allow or not _has_few(spec, answers.queue):
        return False
    marked = connection.run(host, commands.find_mark(files.asking, LEFT_MINUTES), readonly=True)
    return marked.ok and bool(marked.stdout.strip())


def wait_for_own(host: Host, spec: BenchmarkSpec, files: Files, answers: Answers) -> Answers:
    """What a queue says once the tasks of an earlier measurement are over.

    As it was, where there are none, or tasks of others too.

    :param host: the host that reaches it.
    :param spec: which queue it is.
    :param files: of its measurements.
    :param answers: what it says now.
    """
    if not has_own(host, spec, files, answers):
        return answers
    limit = min(WAIT, max(spec.profile.timeout, PAUSE))
    announce.show_line(
        host,
        f"{spec.server}: a measurement ended before its tasks did; waiting up to "
        f"{format_limit(limit)} until the queue is empty",
    )
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and _has_few(spec, answers.queue):
        time.sleep(PAUSE)
        with suppress(connection.HTTPError, connection.DialError):
            answers = identity.read_queue(host, spec, answers)
    return answers


def _has_few(spec: BenchmarkSpec, queue: Queue | None) -> bool:
    """Whether a queue has as few tasks as a measurement of ours leaves at most."""
    profile = spec.profile
    most = MOST_AT_ONCE if profile.rate is not None else max(profile.concurrency)
    return queue is not None and 0 < queue.waiting + queue.running <= most
