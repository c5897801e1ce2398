"""The host's own journal: every change, with its cause and its undo, as one line of JSON.

It lies on the host at ``/var/lib/stackmend/journal.jsonl``, readable by root only, so that whoever
logs in finds out what was done to the machine even when the controller is long gone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pyinfra.api.command import QuoteString, StringCommand

from stackmend import connection
from stackmend.paths import STATE_ROOT

PATH = f"{STATE_ROOT}/journal.jsonl"
#: Bytes at which the journal is moved to ``journal.jsonl.1``; the one that was there is dropped.
ROTATE_AT = 5 * 1024 * 1024
#: Bytes of a line. Shells buffer what printf writes, 4096 bytes at least: a line below that reaches
#: the file in one write, so lines of two controllers never mix.
LINE_LIMIT = 4000

_APPEND = r"""umask 077
journal=$1 line=$2 limit=$3
directory=${journal%/*}
private "$directory" || exit
# A journal that was just moved away holds nothing.
size() { wc -c 2>/dev/null <"$journal" || echo 0; }
if [ -f "$journal" ] && [ "$(size)" -ge "$limit" ]; then
  # Two controllers that rotate at once would drop the older journal: the second looks again.
  (
    if command -v flock >/dev/null; then flock -w 5 9 || exit 0; fi
    [ "$(size)" -lt "$limit" ] || mv -f -- "$journal" "$journal.1"
  ) 9>"$journal.lock" || exit
fi
printf '%s\n' "$line" >>"$journal"
"""


def format_line(
    *,
    time: datetime,
    run: str,
    room: str,
    action: str,
    subject: str,
    cause: str,
    undo: str = "",
) -> str:
    """One entry of the journal, without its newline.

    :param time: when it was done, with an offset
    :param run: the id of the run that did it
    :param room: the operation, such as ``compose.stack``
    :param action: what was done
    :param subject: what it was done to
    :param cause: why; secrets must be redacted already
    :param undo: how to take it back

    An entry that would be too long to be written at once has its longest words cut, marked ``…``.
    """
    entry = {
        "time": time.astimezone(UTC).isoformat(timespec="milliseconds"),
        "run": run,
        "room": room,
        "action": action,
        "subject": subject,
        "cause": cause,
        "undo": undo,
    }
    text = json.dumps(entry, ensure_ascii=True)
    while len(text) > LINE_LIMIT:
        longest = max(entry, key=lambda key: len(entry[key]))
        excess = len(text) - LINE_LIMIT
        entry[longest] = entry[longest][: max(0, len(entry[longest]) - max(excess // 6, 16))] + "…"
        text = json.dumps(entry, ensure_ascii=True)
    return text


def append(text: str, path: str = PATH, rotate_at: int = ROTATE_AT) -> StringCommand:
    """The command that adds a line to the journal of a host.

    :param text: the line, as ``format_line`` makes it
    :param path: the journal
    :param rotate_at: bytes at which it is rotated

    It changes the journal alone: makes it with mode 0600 in a directory of mode 0700, keeps one
    older journal beside it, and exits non-zero where the line could not be written.

    **Example:**

    .. code:: python

        yield journal.append(journal.format_line(time=now, run=run, room="compose.stack", ...))
    """
    return StringCommand(
        "sh",
        "-c",
        QuoteString(connection.read_script("stackmend.connection", "walk") + _APPEND),
        "journal",
        QuoteString(path),
        QuoteString(text),
        QuoteString(str(rotate_at)),
    )
