"""What a user's own incidents derive of a host, in a process of their own, which has an end.

The code of :meth:`~stackmend.incidents.spec.Incident.find` is a user's: here it may run for ever,
take all memory or end its process, and costs no more than its own answer.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from stackmend.incidents import custom
from stackmend.incidents.reasoning import Derived, derive
from stackmend.incidents.spec import Incident
from stackmend.incidents.state import Observations

#: Seconds that one search has, all of a host's have, and the start of their process has.
LIMIT = 5.0
ALL = 30.0
START = 30.0

#: Bytes of memory that they have together.
MEMORY = 4 * 1024**3

#: Bytes of one answer.
MAXIMUM = 1024**2

_READY = {"ready": True}


class _Pickler(pickle.Pickler):
    """Knows what a parametrised model of pydantic's is made from, which has no name."""

    def reducer_override(self, value: Any) -> Any:
        made = getattr(value, "__pydantic_generic_metadata__", None)
        if isinstance(value, type) and made and made["origin"] is not None:
            return _make_generic, (made["origin"], made["args"])
        return NotImplemented


def _make_generic(origin: Any, arguments: tuple[Any, ...]) -> Any:
    return origin[arguments]


def search(observations: Observations, paths: Sequence[Path]) -> dict[str, Derived]:
    """What the incidents of these files derive from facts, by their ids.

    :param observations: what was read of the host.
    :param paths: the files, as :func:`stackmend.incidents.custom.load` takes them.

    Takes half a minute at most, and the start of a process; one whose search does not end within
    five seconds, or ends its process, has a problem in place of lines.
    """
    pending = [
        incident.id for incident in custom.load(paths) if type(incident).find is not Incident.find
    ]
    found: dict[str, Derived] = {}
    deadline = time.monotonic() + START + ALL
    while pending:
        if time.monotonic() > deadline:
            found |= dict.fromkeys(pending, Derived(problem="no time was left for its search"))
            break
        try:
            problem = _search_in_process(observations, paths, pending, found)
        except Exception as error:  # what rooms read may be what cannot be given to a process
            problem = f"cannot be searched: {type(error).__name__}: {error}"
        pending = [id_ for id_ in pending if id_ not in found]
        if pending:
            found[pending.pop(0)] = Derived(problem=problem)
    return found


def _search_in_process(
    observations: Observations,
    paths: Sequence[Path],
    pending: Sequence[str],
    found: dict[str, Derived],
) -> str:
    """Add what can be derived; why the next one cannot, where not all can."""
    with tempfile.TemporaryFile() as job:
        _Pickler(job).dump((list(paths), list(pending), observations))
        job.seek(0)
        process = subprocess.Popen(  # noqa: S603 - this very program, and no shell
            [sys.executable, "-c", f"from {__name__} import answer_job; answer_job()"],
            stdin=job,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        answers = _read_answers(process.stdout)
        if next(answers, None) != _READY:
            return "the process of its search does not start"
        for id_, answer in zip(pending, answers, strict=False):
            if answer is None:
                return f"its search did not end within {LIMIT:.0f} s"
            found[id_] = Derived.model_validate(answer)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return "its search ended its process"


def _read_answers(stream: IO[bytes]) -> Iterator[Any]:
    """Lines of JSON as they come; ``None`` where the next one does not come in time."""
    kept, limit = b"", START
    while True:
        deadline = time.monotonic() + limit
        while b"\n" not in kept:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                yield None
                return
            chunk = os.read(stream.fileno(), 65536)
            if not chunk or len(kept) > MAXIMUM:
                return
            kept += chunk
        line, _, kept = kept.partition(b"\n")
        yield json.loads(line)
        limit = LIMIT


def answer_job() -> None:
    """Answer the job on standard input: the body of that process."""
    # It ends even where whoever began it was killed, and whatever it is doing.
    signal.alarm(int(START + ALL))
    # Where that is not known its time alone bounds it.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        # What it prints is no answer.
        os.dup2(2, 1)
        paths, ids, observations = pickle.load(sys.stdin.buffer)  # noqa: S301 - of who began it
        known = {incident.id: incident for incident in custom.load(paths)}
        _answer(out, _READY)
        for id_ in ids:
            _answer(out, derive(known[id_], observations).model_dump(mode="json"))


def _answer(out: IO[str], data: Any) -> None:
    out.write(json.dumps(data) + "\n")
    out.flush()
