"""A lock on the host, held by an open channel: it ends with whoever holds it."""

from __future__ import annotations

import getpass
import math
import os
import shlex
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import QuoteString, StringCommand

from . import signals
from .channel import Stream, open_stream, resolve_command, run
from .errors import ConnectionLost, LeaseHeld, RemoteError
from .link import link
from .scripts import read_script
from .settings import unwrap

if TYPE_CHECKING:
    from pyinfra.api.host import Host

#: Seconds between two signs of life.
BEAT = 20

#: Bytes of a lock file that tell who holds it.
HOLDER = 300

#: Seconds without a sign of life after which the host gives the lock up: the controller may be
#: gone without the host's TCP having noticed.
SILENCE = 90

#: Seconds after the last sign of life that the host has answered for which the lock is ours for
#: certain: a step has to begin before the host gives the lock up.
CERTAIN = 70

#: Seconds that a host has to say whether the lock is ours.
ANSWER_WITHIN = 60

#: Seconds for which the end of a run waits for the host to say that a lock is free.
FREE_WITHIN = 1.0

_SCRIPT = """
umask 077
private {directory} || exit
if ! refused=$({{ : >>{path}; }} 2>&1); then
  echo "cannot write the lock: ${{refused##*: }}; make "{directory}" writable, then run again" >&2
  exit 73
fi
exec 9>>{path} || exit
lock() {{
  timeout 20 flock -n 9
  case $? in
  0) ;;
  1) return 1 ;;
  124) echo 'flock does not end' >&2; exit 70 ;;
  *) exit 70 ;;
  esac
}}
if ! lock; then
  # Whoever merely looks has it for a moment.
  sleep 1
  if ! lock; then echo held; cat -- {path}; exit; fi
fi
printf '%s\\n' {holder} >{path}; echo yours
while timeout {silence} sh -c 'IFS= read -r _' 9>&-; do echo || break; done
: >{path}
"""

# A holder's line is in the file for as long as it has the lock; one that was killed leaves it.
_HOLDER = """
for path; do
  reach "${path%/*}" && guarded "$real" || continue
  [ -f "$path" ] && [ -s "$path" ] && [ ! -L "$path" ] || continue
  exec 9<"$path" || continue
  flock -n -s 9 && continue
  head -n 1 -- "$path"
  exit
done
"""

#: The locks that this process has, each with its host.
_held: set[tuple[str, str]] = set()


class Lease:
    """A lock that is held for as long as this object is open.

    :param host: the name of the host.
    :param path: the lock file.
    :param stream: the command that holds it.
    :param since: when that was begun, by :func:`read_clock`.
    """

    def __init__(self, host: str, path: str, stream: Stream, since: float) -> None:
        self._host = host
        self._path = path
        self._stream = stream
        #: When the last sign of life left that the host has answered: it waits from then at least.
        self._alive = since
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    @property
    def lost(self) -> bool:
        """Whether the lock has slipped away, or may have.

        The connection died, the holder was killed, or the host has answered nothing for so long,
        as after a suspend of this machine, that it may have given the lock up.
        """
        return self._stream.closed or self._is_uncertain()

    def check(self) -> None:
        """Makes sure that the lock is still held.

        :raises ConnectionLost: it is not.
        """
        if self._is_uncertain():
            reason = (
                f"the lock was lost: the host answered nothing for {CERTAIN} s, as after a suspend "
                "of this machine; run again"
            )
            raise ConnectionLost(self._host, f"hold {self._path}", reason)
        if self.lost:
            raise ConnectionLost(self._host, f"hold {self._path}", "the lock was lost")

    def release(self) -> None:
        """Gives the lock up. Doing so twice is no error."""
        self._over.set()
        self._stream.close()

    def give_up(self) -> None:
        """Gives the lock up, and waits until it is free, where that takes no longer than a second.

        For the end of a run: a channel that the end of the process closes is noticed later.
        """
        self._over.set()
        self._stream.close_stdin()
        until = time.monotonic() + FREE_WITHIN
        while not self._stream.closed and time.monotonic() < until:
            time.sleep(0.01)
        self.release()

    def _is_uncertain(self) -> bool:
        return read_clock() - self._alive > CERTAIN

    def _beat(self) -> None:
        while not self._is_uncertain():
            now = read_clock()
            try:
                self._stream.write(b"\n")
                if not self._stream.read():
                    return
            except (OSError, EOFError, ValueError):
                return
            if self._is_uncertain():
                break
            self._alive = now
            if self._over.wait(BEAT):
                return
        # No late sign of life makes it look held again, nor a clock that is set back.
        self._alive = -math.inf
        self._stream.close()


def read_clock() -> float:
    """Seconds on a clock that goes on while this machine is suspended, where it has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if clock is None else time.clock_gettime(clock)


@contextmanager
def hold_lock(
    host: Host, path: str, *, holder: str | None = None, **arguments: Any
) -> Iterator[Lease]:
    """Holds an exclusive lock on a file of the host while the ``with`` block runs.

    The lock (``flock``) belongs to a command on an open channel. It is free again when the block
    ends, when this process dies in whatever way, and 90 seconds after the host last heard of it;
    from 70 seconds on it counts as lost here.
    Facts read before the lock was taken are no longer valid inside: the one who held it before
    may have changed what they say.

    :param host: the host.
    :param path: the lock file, absolute; it is made, with its directory, if it is missing.
    :param holder: one line that tells others who holds the lock; by default user, machine, process
        and time.
    :param **arguments: pyinfra's own, such as ``_sudo=True``.
    :raises LeaseHeld: someone else holds it; nothing is waited for.
    :raises RemoteError: the file cannot be written, or the host has no ``flock``.

    Example:
        >>> with hold_lock(host, "/run/stackmend/ai.lock") as lease:
        ...     apply()
        ...     lease.check()
    """
    if not path.startswith("/"):
        raise ValueError(f"a lock file needs an absolute path: {path}")
    host = unwrap(host)
    doing = f"hold {path}"
    script = read_script(__package__, "walk") + _SCRIPT.format(
        directory=shlex.quote(os.path.dirname(path)),  # noqa: PTH120 - of the host, not of ours
        path=shlex.quote(path),
        holder=shlex.quote(" ".join((holder or _describe_self()).split())),
        silence=SILENCE,
    )
    settings, command = resolve_command(host, StringCommand(script.strip()), arguments)
    since = read_clock()
    with open_stream(link(host), settings, command, doing=doing, limit=None) as stream:
        answer = bytearray()
        mute = threading.Timer(ANSWER_WITHIN, stream.close)
        mute.daemon = True
        mute.start()
        while b"\n" not in answer and (data := stream.read()):
            answer += data
        outcome, _, rest = bytes(answer).partition(b"\n")
        if outcome == b"held":
            while len(rest) < HOLDER and (data := stream.read()):
                rest += data
        mute.cancel()
        if outcome == b"held":
            raise LeaseHeld(host.name, doing, _format_holder(rest) or "someone")
        if outcome != b"yours":
            status = stream.wait()
            reason = " ".join(stream.error_text.split()) or f"exit status {status}"
            raise RemoteError(host.name, doing, reason)
        lease = Lease(host.name, path, stream, since)
        try:
            _held.add((host.name, path))
            with signals.register_release(lease.give_up):
                yield lease
        finally:
            _held.discard((host.name, path))
            lease.release()


def find_holder(host: Host, paths: Iterable[str], **arguments: Any) -> str:
    """The line of whoever else holds one of these locks; empty where nobody does. Looks only.

    :param host: the host.
    :param paths: the lock files; those that this process holds itself are passed over.
    :param **arguments: pyinfra's own, such as ``_sudo=True``.
    :raises RemoteError: the host cannot be asked.

    Example:
        >>> holder(host, ["/var/lib/stackmend/ai/lock"])
        'ann@laptop pid 4711 since 2026-01-01T12:00:00+00:00'
    """
    asked = [path for path in paths if (unwrap(host).name, path) not in _held]
    if not asked:
        return ""
    argv = (
        "sh",
        "-c",
        QuoteString(read_script(__package__, "walk") + _HOLDER),
        "look",
        *map(QuoteString, asked),
    )
    return _format_holder(run(host, StringCommand(*argv), readonly=True, **arguments).stdout)


def _format_holder(written: bytes) -> str:
    """Who holds a lock, on one line; whoever held it before us may have written anything."""
    text = written[:HOLDER].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _describe_self() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"{user}@{socket.gethostname()} pid {os.getpid()} since {now}"
