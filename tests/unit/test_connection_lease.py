"""Who holds a lock is told on one line, whatever was written into it."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

import pytest

from stackmend.connection import ConnectionLost, LeaseHeld, RemoteError, hold_lock, lease
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


class Suspended:
    """A clock that also counts what this machine was suspended for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asleep = 0.0
        monkeypatch.setattr(lease, "read_clock", lambda: time.monotonic() + self.asleep)


def test_a_lock_is_lost_where_the_controller_was_suspended_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Suspended(monkeypatch)
    with local() as host, hold_lock(host, str(tmp_path / "lock")) as held:
        clock.asleep = 60.0
        held.check()
        clock.asleep = 91.0
        assert held.lost
        with pytest.raises(ConnectionLost, match=r"the lock was lost.*suspend"):
            held.check()


def test_a_sign_of_life_after_a_suspend_gives_no_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.05)
    clock = Suspended(monkeypatch)
    with local() as host, hold_lock(host, str(tmp_path / "lock")) as held:
        clock.asleep = 91.0
        held._beating.join(10)
        assert not held._beating.is_alive()
        assert held.lost
        clock.asleep = 0.0
        assert held.lost, "it is let go of"


def test_answers_keep_a_lock_and_silence_of_the_host_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.05)
    clock = Suspended(monkeypatch)
    with local() as host, hold_lock(host, str(tmp_path / "lock")) as held:
        for _ in range(4):
            clock.asleep += 30
            now = lease.read_clock()
            until = time.monotonic() + 30
            while held._alive < now and time.monotonic() < until:
                time.sleep(0.02)
            held.check()
        # What a partition of the network does: the host hears nothing, and says nothing.
        monkeypatch.setattr(held._stream, "read", lambda: time.sleep(60))
        clock.asleep += 75
        assert held.lost
        assert not held._stream.closed
        with pytest.raises(ConnectionLost, match="the lock was lost"):
            held.check()


def test_its_clock_counts_the_time_in_suspend() -> None:
    assert abs(lease.read_clock() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
