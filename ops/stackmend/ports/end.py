"""End a process by a handle of it, which never means another one: SIGTERM, wait, SIGKILL.

Arguments: its number, start time, program, the inodes of its sockets (with commas), and seconds of
grace. Exit statuses: those of record.sh; 79: this Python or kernel has no such handles.
"""
# pathlib takes longer to load than this takes to run.
# ruff: noqa: PTH115, PTH123, PTH208

import os
import select
import signal
import sys

_DELETED = b" (deleted)"

pid, started = int(sys.argv[1]), sys.argv[2].encode()
exe, inodes = os.fsencode(sys.argv[3]), os.fsencode(sys.argv[4])
grace = float(sys.argv[5])


def _strip(path: bytes) -> bytes:
    return path[: -len(_DELETED)] if path.endswith(_DELETED) else path


def _identify() -> str:
    """Say what the number means: same, released (without its sockets), changed or gone."""
    root = f"/proc/{pid}/"
    try:
        with open(root + "stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return "gone"
    if not fields:
        return "gone"
    if fields[19] != started:
        return "changed"
    if fields[0] in b"ZXx":
        return "gone"
    try:
        if exe and _strip(os.readlink(os.fsencode(root + "exe"))) != _strip(exe):
            return "changed"
        if not inodes:
            return "same"
        held = {b"socket:[%s]" % inode for inode in inodes.split(b",")}
        for name in os.listdir(root + "fd"):
            try:
                if os.readlink(os.fsencode(root + "fd/" + name)) in held:
                    return "same"
            except FileNotFoundError:
                pass
    except FileNotFoundError:
        return "gone"
    except OSError:
        return "changed"
    return "released"


def _has_ended(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _send(handle: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        sys.exit(0)
    except PermissionError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(77)


def _end() -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        sys.exit(76)
    except (OSError, AttributeError):
        sys.exit(79)
    identity = _identify()
    if identity != "same":
        sys.exit(76 if identity == "gone" else 75)
    _send(handle, signal.SIGTERM)
    if _has_ended(handle, grace):
        sys.exit(0)
    identity = _identify()
    if identity in ("gone", "released"):
        sys.exit(0)
    if identity != "same":
        sys.exit(75)
    _send(handle, signal.SIGKILL)
    sys.exit(0 if _has_ended(handle, 5) else 77)


_end()
