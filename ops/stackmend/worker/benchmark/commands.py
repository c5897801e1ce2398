"""From an action to the command that does it: the only place where values are quoted."""

from collections.abc import Sequence

from pyinfra.api import QuoteString, StringCommand

from stackmend.connection import script, write_own


def write(path: str) -> StringCommand:
    """Replace a file by standard input, in one step.

    :param path: the file.
    """
    return write_own(path)


def reserve(room: int, paths: Sequence[str]) -> StringCommand:
    """Write so many bytes beside files of one directory, and take them away again.

    :param room: bytes.
    :param paths: the files.
    """
    arguments = (str(room), *paths)
    return script("stackmend.worker.benchmark", "reserve", *arguments, shared=["walk"])


def mark(path: str, *, present: bool) -> StringCommand:
    """Have a file, or have it no more.

    :param path: the file.
    :param present: whether there is to be one.
    """
    return write_own(path, present=present)


def find_mark(path: str, minutes: int) -> StringCommand:
    """Print the path of a file that was written so many minutes ago at most.

    :param path: the file.
    :param minutes: its age.
    """
    return StringCommand("find", QuoteString(path), "-type", "f", "-mmin", f"-{minutes}")


def read(path: str, longest: int) -> StringCommand:
    """Write a file to standard output.

    :param path: the file.
    :param longest: bytes of it at most.
    """
    return StringCommand("head", "-c", str(longest), "--", QuoteString(path))
