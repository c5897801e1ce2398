"""Runs of pyinfra that begin where its imports are done: most of a short run's processor time.

A process that has imported pyinfra and this project's modules waits here and forks for each run.
What runs is pyinfra's own command line in a process of its own, which ends as any other; only the
interpreter's start is shared. What asks for another start (a program of its own, settings of
Python's) gets it from `tests.lab.controller`.

>>> process = start(["inventory.py", "deploy/site.py", "-y"], env, PROJECT, stdin, stdout, stderr)
>>> process.wait(60)
0
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from socket import (
    AF_UNIX,
    SO_SNDBUF,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    recv_fds,
    send_fds,
    socket,
    socketpair,
)
from typing import IO, Any

from tests.lab.paths import PROJECT

#: More than any request; what is longer could not be sent in one piece.
_LARGEST = 1 << 20

#: Not ``-m``, by which click would name the program in its messages.
_SERVE = "import sys; from tests.lab import warm; sys.exit(warm.serve({}))"

#: What pyinfra is asked, its environment, and the directory that it runs in.
Request = tuple[list[str], dict[str, str], str]

_PRELOADED = (
    "stackmend.reporting",
    "stackmend.connection.preflight",
    "stackmend.spec",
    "stackmend.compose",
    "stackmend.ports",
    "stackmend.models.reconciler",
)


class WarmProcess:
    """A run that was forked; what `subprocess.Popen` tells of one that was started.

    + pid: its process, the leader of a session of its own
    + returncode: as `subprocess.Popen` has it; None while it runs
    """

    def __init__(self, told: int) -> None:
        self._told = told
        self.returncode: int | None = None
        self.pid = int(self._line(None) or 0)

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended.

        Raises `subprocess.TimeoutExpired` if it does not end within `timeout` seconds.
        """
        if self.returncode is None:
            said = self._line(timeout)
            if not said:
                raise subprocess.TimeoutExpired("pyinfra", timeout or 0)
            self.returncode = int(said)
            os.close(self._told)
        return self.returncode

    def _line(self, timeout: float | None) -> bytes:
        ready, _, _ = select.select([self._told], [], [], timeout)
        if not ready:
            return b""
        said = b""
        while not said.endswith(b"\n"):
            byte = os.read(self._told, 1)
            if not byte:
                raise ChildProcessError("what forks the runs has ended")
            said += byte
        return said


def start(
    arguments: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    stdin: IO[bytes],
    stdout: IO[bytes],
    stderr: IO[bytes],
) -> WarmProcess:
    """Start ``pyinfra ARGUMENTS`` in a directory, in a session of its own."""
    told, tells = os.pipe()
    request = json.dumps([list(arguments), dict(env), str(cwd)]).encode()
    files = [stdin.fileno(), stdout.fileno(), stderr.fileno(), tells]
    try:
        send_fds(_forker(os.getpid()), [request], files)
    finally:
        os.close(tells)
    return WarmProcess(told)


@functools.cache
def _forker(_process: int) -> socket:
    """The end of a socket on which the one who forks takes requests; it ends with this process."""
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
    with theirs:
        ours.setsockopt(SOL_SOCKET, SO_SNDBUF, _LARGEST)
        forker = subprocess.Popen(
            [sys.executable, "-c", _SERVE.format(theirs.fileno())],
            cwd=PROJECT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    atexit.register(_end, ours, forker)
    return ours


def _end(requests: socket, forker: subprocess.Popen[bytes]) -> None:
    requests.close()
    forker.wait()


def _serve(requests: socket, fork: Callable[[], int], waitpid: Any) -> Request:
    """Fork for each request; returns in the fork only, with what was asked for."""
    while True:
        text, files, _, _ = recv_fds(requests, _LARGEST, 4)
        if not text:
            sys.exit()
        *streams, told = files
        # Twice: whoever waits for the run is nobody that the one who forks has to wait for.
        passing = fork()
        if passing:
            for file in files:
                os.close(file)
            waitpid(passing, 0)
            continue
        if fork():
            os._exit(0)
        child = fork()
        if child:
            _, status = waitpid(child, 0)
            with contextlib.suppress(BrokenPipeError):
                os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        os.setsid()
        # Only now can its group be ended.
        os.write(told, f"{os.getpid()}\n".encode())
        for number, file in enumerate(streams):
            os.dup2(file, number)
        for file in (*files, requests.fileno()):
            os.close(file)
        arguments, env, cwd = json.loads(text)
        return arguments, env, cwd


def serve(file: int) -> Any:
    """Import what a run imports and fork for each request; becomes the run in each fork.

    + file: the socket on which requests come
    """
    requests = socket(fileno=file)
    # Ctrl-C is for the tests, which end this process by ending.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from gevent.monkey import get_original
    from pyinfra_cli.main import main

    for name in _PRELOADED:
        importlib.import_module(name)
    # What was imported is shared with the forks as long as nobody writes to it.
    gc.collect()
    gc.freeze()
    # gevent's own would start here what has to begin in each run.
    fork, waitpid = get_original("os", ["fork", "waitpid"])
    arguments, env, cwd = _serve(requests, fork, waitpid)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["pyinfra", *arguments]
    sys.path[0] = str(Path(sys.executable).parent)
    return main()
