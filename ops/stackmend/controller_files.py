"""Files of this machine, read as if somebody else had put them there.

The type of a file is known before it is opened, its size before it is read: a pipe that nobody
writes to, a device and a file of terabytes are an error, and none of them a run that does not end.
"""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

#: The status of a file, and an entry of a directory.
Status = os.stat_result
Entry = os.DirEntry[str]

#: Text that people write: keys, Modelfiles, lists of hosts.
MAXIMUM_TEXT = 1024**2

#: Bytes that are read at once.
CHUNK = 1024**2

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)

# Without O_NONBLOCK what became a pipe since it was looked at would be waited for.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Unreadable(ValueError):
    """A file of this machine cannot be used; the text says why, and does not name it."""


def expand(path: Path) -> Path:
    """A path with its ``~`` taken for the home directory that it names.

    :raises Unreadable: there is no such home directory.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise Unreadable("begins with the home directory of a user who does not exist") from None


def read_status(path: Path | str, *, follow: bool = True) -> os.stat_result:
    """The status of a path.

    :param follow: whether a link is followed.
    :raises Unreadable: the system does not say.
    """
    try:
        return Path(path).stat(follow_symlinks=follow)
    except (OSError, ValueError) as error:
        raise Unreadable(format_reason(error)) from None


def is_there(path: Path) -> bool:
    """Whether anything has this name, a dangling link included.

    :raises Unreadable: the system does not say.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise Unreadable(format_reason(error)) from None
    return True


def check(path: Path) -> os.stat_result:
    """The status of a file that can be read, without reading it.

    :raises Unreadable: it cannot.
    """
    descriptor, found = _open(path)
    os.close(descriptor)
    return found


def read(path: Path | str, limit: int, expected: os.stat_result | None = None) -> bytes:
    """All of a file's content.

    :param limit: bytes that it may have at most.
    :param expected: its status before, if it has to be the same file still.
    :raises Unreadable: it is no file, cannot be read, is too large, or changes meanwhile.
    """
    return b"".join(read_pieces(path, limit, expected))


def read_text(path: Path, limit: int = MAXIMUM_TEXT) -> str:
    """The same as text in UTF-8.

    :raises Unreadable: as :func:`read` does, and where it is no text.
    """
    try:
        return read(path, limit).decode()
    except UnicodeDecodeError:
        raise Unreadable("cannot be read: not text in UTF-8") from None


def read_pieces(
    path: Path | str, limit: int | None = None, expected: os.stat_result | None = None
) -> Iterator[bytes]:
    """The content of a file, piece by piece.

    :param limit: bytes that it may have at most.
    :param expected: its status before, if it has to be the same file still.
    :raises Unreadable: as :func:`read` does.
    """
    descriptor, found = _open(path, expected)
    try:
        if limit is not None and found.st_size > limit:
            raise Unreadable(f"holds {found.st_size} bytes, more than the {limit} that it may")
        if expected is not None and _identify(found) != _identify(expected):
            raise Unreadable(CHANGED)
        left = found.st_size
        while left >= 0 and (data := os.read(descriptor, min(CHUNK, left + 1))):
            left -= len(data)
            if left >= 0:
                yield data
            if not left and len(data) < CHUNK:
                # One byte more was asked for, and did not come.
                break
        if left or _identify(os.fstat(descriptor)) != _identify(found):
            raise Unreadable(CHANGED)
    except OSError as error:
        raise Unreadable(format_reason(error)) from None
    finally:
        os.close(descriptor)


#: The reason where somebody writes to a file meanwhile.
CHANGED = "changed while it was read; run again once nothing writes to it"


def walk_tree(
    root: Path, left_out: Collection[str], limit: int
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a directory, each with its path relative to it; links are not followed.

    :param left_out: names that are passed over, with all below them.
    :param limit: files and directories that there may be at most.
    :raises Unreadable: any part of it cannot be listed, or changes meanwhile.
    """
    waiting = [""]
    listed: list[tuple[str, int]] = []
    count = 0
    while waiting:
        parent = waiting.pop()
        below: list[str] = []
        try:
            directory = root / parent
            listed.append((parent, directory.stat().st_mtime_ns))
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name in left_out:
                        continue
                    count += 1
                    if count > limit:
                        raise Unreadable(f"holds more than {limit} files and directories")
                    path = f"{parent}/{entry.name}" if parent else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        below.append(path)
                    yield path, entry
        except OSError as error:
            raise Unreadable(_make_prefix(parent, format_reason(error))) from None
        waiting += sorted(below, reverse=True)
    for parent, since in listed:
        if read_status(root / parent).st_mtime_ns != since:
            raise Unreadable(_make_prefix(parent, CHANGED))


def describe_kind(found: os.stat_result) -> str:
    """What a path is that is no file, such as ``a directory``; empty for a file."""
    if stat.S_ISREG(found.st_mode):
        return ""
    return next((text for is_kind, text in _KINDS if is_kind(found.st_mode)), "something else")


def format_reason(error: OSError | ValueError) -> str:
    """The reason that a path cannot be read."""
    return f"cannot be read: {getattr(error, 'strerror', None) or 'no name that a file can have'}"


def _make_prefix(path: str, text: str) -> str:
    return f"{path} {text}" if path else text


def _open(path: Path | str, expected: os.stat_result | None = None) -> tuple[int, os.stat_result]:
    # A device may do something when it is opened: it is known for one before that.
    _check_regular(expected or read_status(path))
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        raise Unreadable(format_reason(error)) from None
    try:
        found = os.fstat(descriptor)
        _check_regular(found)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found


def _check_regular(found: os.stat_result) -> None:
    if text := describe_kind(found):
        raise Unreadable(f"is {text}, not a file")


def _identify(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
