"""SIGINT, SIGTERM and SIGHUP: no new step begins, and the run ends within five seconds.

One that a timer began has some more, in which its notices are sent.

pyinfra itself waits for the operations of all hosts before it lets go of its connections. Here the
first signal ends the run instead: whatever would begin a new step stops where it is; a step under
way has some seconds to end by itself and goes on at the host otherwise; the locks on the hosts are
given up; what was registered by :func:`install` (the record of the run) is done; and the process
exits with 128 plus the number of the signal. A second signal ends it at once.

Nothing of this waits for somebody to read what the run prints: a stream that takes nothing for a
second after the signal leads nowhere from then on. Where its reader is gone, as behind ``| head``,
the run ends as by a signal of the name SIGPIPE.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from greenlet import getcurrent  # type: ignore[import-untyped]

#: Seconds that steps under way have to end by themselves.
GRACE = 2.0

#: Seconds after a signal at which the process exits whatever keeps it.
DEADLINE = 4.0

#: Seconds after a signal at which it exits with no further word.
LAST = 4.6

#: The variable by which a run knows that a timer began it, and the seconds that it has more: nobody
#: sees it end, so its notices are sent.
TIMER = "STACKMEND_TIMER"
MORE = 14.0

#: Seconds after which a stream that takes nothing is given up.
UNREAD = 1.0

#: Seconds after which something that yields to nothing else is interrupted where it is.
STUCK = 0.5

#: Seconds between two looks at the steps under way.
PAUSE = 0.05

#: The descriptors of what this process prints.
_STDOUT, _STDERR = 1, 2

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(SystemExit):
    """The run was interrupted; the exit status says by which signal."""


@dataclass(eq=False)
class _Step:
    host: str
    doing: str
    greenlet: object


class _Run:
    """What this process knows about its interruption."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.end: Callable[[], None] = lambda: None
        self.steps: list[_Step] = []
        self.stopped: set[object] = set()
        self.cut: list[object] = []
        self.at_terminal: set[object] = set()
        self.locks: list[Callable[[], None]] = []
        self.started = False
        self.ending = False
        self.closing = False
        self.late = False
        self.stuck = False
        self.broken = False


_run = _Run()


def install(end: Callable[[], None]) -> None:
    """Have a signal end this run of pyinfra's command line.

    SIGHUP stays ignored where it is (``nohup``). A program that uses pyinfra's API keeps its
    handlers; only a SIGTERM that would end it without a record raises ``SystemExit`` there.

    :param end: what is to be done before the process exits; called once, and must not wait long.
    """
    if _run.end is end:
        return
    _run.end = end
    # Outside the main thread, and so outside pyinfra's command line, no handler can be set.
    with contextlib.suppress(ValueError):
        for number in _NUMBERS if _is_cli() else (signal.SIGTERM,):
            before = signal.getsignal(number)
            if number is signal.SIGINT or before is signal.SIG_DFL:
                signal.signal(number, _receive)
        if _is_cli():
            # It does nothing where nobody takes it.
            signal.signal(signal.SIGURG, _resume)


def get_signal() -> str:
    """The name of the signal that ends this run, such as ``SIGTERM``; empty without one."""
    return _run.signal.name if _run.signal is not None else ""


def is_timed() -> bool:
    """Whether a timer began this run."""
    return bool(os.environ.get(TIMER))


def _find_more() -> float:
    return MORE if is_timed() else 0.0


def proceed() -> None:
    """Return where a new step may begin; where the run is being ended, never.

    :raises Interrupted: the run is being ended, and nothing else of this process can do it.
    """
    if _run.signal is None:
        return
    if not _is_cli() or getcurrent() is _get_main():
        raise Interrupted(128 + _run.signal)
    # An exception would be caught somewhere and told as a failure of the host.
    _run.stopped.add(getcurrent())
    while True:
        time.sleep(DEADLINE + _find_more())


@contextlib.contextmanager
def step(host: str, doing: str = "", *, cut: bool = False) -> Iterator[None]:
    """Marks something that is better ended than cut off; it has some seconds after a signal.

    :param host: the name of the host it is done to.
    :param doing: what is done, for the record; without it the record does not name it.
    :param cut: it is safe to cut off, and has no time after a signal, nor has what it is a part of.
    """
    this = _Step(host, doing, getcurrent())
    _run.steps.append(this)
    if cut:
        _run.cut.append(this.greenlet)
    try:
        yield
    finally:
        _run.steps.remove(this)
        if cut:
            _run.cut.remove(this.greenlet)


def list_steps(host: str) -> tuple[str, ...]:
    """What is being done to a host, in words."""
    names = (step.doing for step in _run.steps if step.host == host and step.doing)
    return tuple(dict.fromkeys(names))


@contextlib.contextmanager
def hold_terminal() -> Iterator[None]:
    """Marks a time in which a person is asked, and nothing else of this process runs."""
    this = getcurrent()
    _run.at_terminal.add(this)
    try:
        yield
    finally:
        _run.at_terminal.discard(this)


@contextlib.contextmanager
def register_release(release: Callable[[], None]) -> Iterator[None]:
    """Marks a time in which something on a host is ours that has to be given up at the end.

    :param release: gives it up; must not wait long.
    """
    _run.locks.append(release)
    try:
        yield
    finally:
        _run.locks.remove(release)


def begin_closing() -> None:
    """Marks that the run came to its end: from then on a signal has nothing left to stop."""
    _run.closing = True


def drop(descriptor: int) -> None:
    """Have what is written to a stream lead nowhere, what waits to be written included."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def replace_broken(descriptor: int) -> None:
    """Have a stream lead nowhere whose reader is gone, and end the run for it unless it ends."""
    drop(descriptor)
    _run.broken = True
    # The main thread is the one to end it, whoever has written.
    os.kill(os.getpid(), signal.SIGURG)


def _resume(number: int, frame: FrameType | None) -> None:
    # A write that waited is begun anew by Python, and now leads nowhere.
    if _run.broken and _run.signal is None and not _run.closing:
        _receive(signal.SIGPIPE, frame)


def _receive(number: int, frame: FrameType | None) -> None:
    status = 128 + number
    if _run.stuck:
        # Our own, to where it does not yield.
        _run.stuck = False
        raise Interrupted(status)
    if _run.signal is not None or _run.late:
        os._exit(status)
    if _run.closing:
        _run.late = True
        if _is_cli():
            _set_limits(status)
        return
    _run.signal = signal.Signals(number)
    if not _is_cli():
        raise Interrupted(status)
    _set_limits(status, ending=True)
    # Not by print: the signal may have come in the midst of one.
    if _can_write(_STDERR):
        with contextlib.suppress(OSError):
            os.write(
                _STDERR,
                f"--> stackmend: {_run.signal.name}: no new step begins, and the run ends within "
                f"{5 + _find_more():.0f} seconds; a second signal ends it at once\n".encode(),
            )
    import gevent  # type: ignore[import-untyped]

    # The first of those that run at exit, where Python itself ends before the greenlet does.
    atexit.register(_end)
    gevent.spawn(_end)
    # In the hub everything waits, and what waits begins nothing new. Who computes or asks a person
    # would go on.
    if getcurrent() in {_get_main(), *_run.at_terminal}:
        raise Interrupted(status)


def _set_limits(status: int, *, ending: bool = False) -> None:
    from gevent.monkey import get_original  # type: ignore[import-untyped]

    # Threads of the system's: what keeps all of gevent's waiting does not keep them.
    pause, start = get_original("time", "sleep"), get_original("_thread", "start_new_thread")
    main = get_original("_thread", "get_ident")()
    start(_leave_at_last, (pause, status))
    start(_give_up_unread, (pause, main))
    if ending:
        start(_end_at_last, (pause, main, status - 128))


def _can_write(descriptor: int) -> bool:
    from gevent.monkey import get_original

    poll: select.poll = get_original("select", "poll")()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _leave_at_last(pause: Callable[[float], None], status: int) -> None:
    pause(LAST + _find_more())
    os._exit(status)


def _give_up_unread(pause: Callable[[float], None], main: int) -> None:
    since: dict[int, float] = {}
    while True:
        for descriptor in (_STDOUT, _STDERR):
            now = time.monotonic()
            if _can_write(descriptor):
                since.pop(descriptor, None)
            elif now - since.setdefault(descriptor, now) >= UNREAD:
                drop(descriptor)
                signal.pthread_kill(main, signal.SIGURG)
        pause(PAUSE)


def _is_cli() -> bool:
    # Whoever only reads a report has not loaded it.
    pyinfra = sys.modules.get("pyinfra")
    return pyinfra is not None and bool(pyinfra.is_cli)


def _get_main() -> object:
    from gevent import get_hub

    return get_hub().parent


def _end() -> None:
    _run.started = True
    until = time.monotonic() + GRACE
    while time.monotonic() < until and any(
        step.greenlet not in _run.stopped and step.greenlet not in _run.cut for step in _run.steps
    ):
        time.sleep(PAUSE)
    if _run.ending:
        # Somebody else is at it already.
        time.sleep(DEADLINE + _find_more())
    _run.ending = True
    for release in list(_run.locks):
        with contextlib.suppress(Exception):
            release()
    _exit()


def _end_at_last(pause: Callable[[float], None], main: int, number: int) -> None:
    pause(STUCK)
    if not _run.started:
        # Something computes, and lets nothing else of this process run.
        _run.stuck = True
        signal.pthread_kill(main, number)
    pause(DEADLINE - STUCK + _find_more())
    _exit()


def _exit() -> None:
    assert _run.signal is not None
    end, _run.end = _run.end, lambda: None
    try:
        end()
        # A bar that showed how far something was has hidden it.
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        # Python's own way out waits for every thread, and tells what paramiko thinks of its end.
        os._exit(128 + _run.signal)
