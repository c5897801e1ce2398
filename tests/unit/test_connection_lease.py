"""Who holds a lock is told on one line, whatever was written into it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from stackmend.connection import LeaseHeld, RemoteError, hold_lock
from tests.connected import local


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"me@here pid 1\n", "me@here pid 1"),
        (b"a\x1b]0;title\x07\r\nb\0c \xff\n\n", "a ]0;title b c \ufffd"),
        (b"x" * 5_000_000, "x" * 300),
        (b"", "someone"),
        (b"yours\n", "yours"),
    ],
    # A parameter's text in the id is in the environment of all that a test starts.
    ids=["plain", "controls", "endless", "nothing", "ours"],
)
def test_the_holder_is_one_short_line(written: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(written)
    with local() as host, path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LeaseHeld) as caught, hold_lock(host, str(path)):
            pass
    assert caught.value.reason.endswith(told)
    assert len(caught.value.reason) < 400
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("path", ["/proc/lock", "/proc/none/lock"])
def test_a_lock_that_cannot_be_written_says_what_to_do(path: str) -> None:
    with local() as host, pytest.raises(RemoteError) as caught, hold_lock(host, path):
        pass
    assert "cannot" in caught.value.reason
    assert caught.value.reason.endswith("writable, then run again")
    assert "sh: " not in caught.value.reason
