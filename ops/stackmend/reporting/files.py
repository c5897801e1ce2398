"""Files of this machine that a reader finds whole or not at all."""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

#: Seconds for which another run may keep a file.
BUSY = 15.0

#: What records of runs are called: when they ended, in UTC, and which run it was.
RECORD_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}\.json")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write data so that a reader sees all of it or nothing.

    :param path: the file; its directory is made if it is missing
    :param data: what it is to hold

    Raises ``OSError`` where it cannot be written.
    """
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text so that a reader sees all of it or nothing.

    :param path: the file; its directory is made if it is missing
    :param text: what it is to hold

    Raises ``OSError`` where it cannot be written.
    """
    write(path, text.encode())


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file: a reader sees all of it or nothing, and may read it as soon as it is there.

    :param path: the file; its directory is made if it is missing, for this user alone
    :param data: what it is to hold
    :param mode: who may read and write it

    Raises ``OSError`` where it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def lock(path: Path, wait: float = BUSY) -> Iterator[None]:
    """Keep other runs from a file while it is read, changed and written.

    :param path: the file; the lock lies hidden beside it, and is free once its process has ended.
    :param wait: seconds for which another run may keep it.

    Raises ``BlockingIOError`` where another run keeps it for longer.
    """
    with path.with_name(f".{path.name}.lock").open("a") as file:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise BlockingIOError(f"another run keeps {path}") from None
                time.sleep(0.1)
        yield
