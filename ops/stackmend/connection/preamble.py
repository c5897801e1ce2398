"""Where our own part of a channel begins, and what the environment there may not say.

A login shell, a forced command or a profile may write what it likes before it runs a command. So
each command first writes a marker to both its streams, and what came before it is nobody's. The
marker is random for each call, and the command holds it in halves: no echo of it can be one.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackmend.redaction import format_safe_line

if TYPE_CHECKING:
    from .process import Process

#: Seconds that a host has to begin a command that is held open: its shell, and sudo, may ask.
BEGINS_WITHIN = 60

#: Has the shells that a command starts not talk again: bash reads its user's file where sshd seems
#: to have started it, and no other shell around it.
_SILENT = "unset BASH_ENV ENV; SHLVL=2; export SHLVL; "

#: Bytes kept of what came before, for the reason why a command did not begin.
_KEPT = 4 * 1024

#: What a host's environment says of Docker and Compose and what steers them away from what is asked
#: of them. Credentials (DOCKER_CONFIG) and a policy of trust (DOCKER_CONTENT_TRUST) stay.
STEERING = tuple(
    f"DOCKER_{name}"
    for name in (
        "API_VERSION BUILDKIT CERT_PATH CONTEXT DEFAULT_PLATFORM HOST TLS TLS_VERIFY"
    ).split()
) + tuple(
    f"COMPOSE_{name}"
    for name in (
        "ANSI API_VERSION BAKE COMPATIBILITY CONVERT_WINDOWS_PATHS DISABLE_ENV_FILE "
        "DOCKER_CLI_BUILD ENV_FILES EXPERIMENTAL FILE HTTP_TIMEOUT IGNORE_ORPHANS MENU "
        "PARALLEL_LIMIT PATH_SEPARATOR PROFILES PROGRESS PROJECT_NAME REMOVE_ORPHANS STATUS_STDOUT"
    ).split()
)

#: The environment variable that holds the names of those of them that were set.
IGNORED = "STACKMEND_IGNORED"

#: Before a command, on one line. The engine meant is the one on the host's own socket, whatever
#: context the user has chosen; on a Mac it is behind one. The shells that a command starts are no
#: more to talk than the first.
CLEARED = (
    f"{IGNORED}=; for __name in {' '.join(STEERING)}; do "
    f'eval "[ -z \\"\\${{$__name+x}}\\" ] || {IGNORED}=\\"\\${IGNORED} $__name\\""; '
    f'unset "$__name"; done; export {IGNORED}; '
    "[ -d /System/Library ] || { DOCKER_CONTEXT=default; export DOCKER_CONTEXT; }; "
)


@dataclass(frozen=True)
class Marker:
    """What a command writes to both its streams before anything else of it does.

    :param value: the bytes.
    :param command: what writes them, as a command for ``sh``.
    """

    value: bytes
    command: str


def make_marker() -> Marker:
    """A marker for one call."""
    halves = secrets.token_hex(8), secrets.token_hex(8)
    write = "printf %s%s {} {}".format(*halves)
    return Marker("".join(halves).encode(), f"{_SILENT}{write}; {write} >&2; ")


class Preamble:
    """Tells what a stream holds from what came before it."""

    def __init__(self, *marks: bytes) -> None:
        self._marks = list(marks)
        self._received = bytearray()

    @property
    def over(self) -> bool:
        """Whether all marks came, each behind the one before."""
        return not self._marks

    @property
    def before(self) -> bytes:
        """The end of what came, while they are waited for."""
        return bytes(self._received)

    def strip(self, data: bytes) -> bytes:
        """Of the bytes that come next, those behind the marks."""
        if not self._marks:
            return data
        self._received += data
        while self._marks:
            _, mark, after = self._received.partition(self._marks[0])
            if not mark:
                del self._received[:-_KEPT]
                return b""
            self._marks.pop(0)
            self._received = after
        rest, self._received = bytes(self._received), bytearray()
        return rest


def skip(process: Process, mark: bytes) -> Preamble:
    """Reads standard output up to the mark, and no byte further: the rest is somebody else's.

    :param process: the command.
    :param mark: what it writes first.
    :returns: whether it came, and what came before.
    """
    preamble = Preamble(mark)
    late = threading.Timer(BEGINS_WITHIN, process.close)
    late.daemon = True
    late.start()
    with contextlib.suppress(OSError, EOFError, ValueError):
        while not preamble.over:
            received = preamble.before
            missing = next(
                n for n in range(1, len(mark) + 1) if received.endswith(mark[: len(mark) - n])
            )
            if not (data := process.read(missing)):
                break
            preamble.strip(data)
    late.cancel()
    return preamble


def format_silence(before: bytes, error: bytes, status: int | None = None) -> str:
    """Why a command did not begin, on one line: the last that was written instead.

    :param before: what came on standard output.
    :param error: what came on standard error.
    :param status: the exit status, where it is known.
    """
    lines = [
        line.strip()
        for data in (before, error)
        for line in data.decode(errors="replace").splitlines()
        if line.strip()
    ]
    if lines:
        # The last ones: before them the shell may have said whatever it says.
        return format_safe_line("; ".join(lines[-3:])[-300:], 300)
    return "it ended at once" if status is None else f"exit status {status}"
