"""What writes the files of a host that keep runs from mending it."""

from pydantic import BaseModel
from pyinfra.api import StringCommand

from stackmend.connection import write_own
from stackmend.paths import STATE_ROOT

PAUSES = f"{STATE_ROOT}/pauses.json"
LIMITS = f"{STATE_ROOT}/limits.json"

#: The file whose lock says that the pauses are being changed.
LOCK = f"{STATE_ROOT}/pauses.lock"


def write(path: str, *, present: bool = True) -> StringCommand:
    """Replace one of the files by standard input, or remove it.

    :param path: ``PAUSES`` or ``LIMITS``.
    :param present: whether there is to be one.
    """
    return write_own(path, present=present)


def dump(content: BaseModel) -> bytes:
    """A file's content.

    :param content: what it is to hold.
    """
    return (content.model_dump_json(indent=1) + "\n").encode()
