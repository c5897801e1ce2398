"""A command under way on a host: bytes in, bytes out, one channel."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, Protocol

from paramiko import ChannelException, SSHException
from typing_extensions import override

from .errors import ConnectionLost, RemoteError

if TYPE_CHECKING:
    from paramiko import Channel, Transport

    from .link import Link

#: Seconds to wait for the host to open a channel.
OPEN_TIMEOUT = 30

_CHUNK = 32 * 1024

#: Seconds between two looks whether a command of this machine was let go of meanwhile.
_PAUSE = 0.5


class Process(Protocol):
    """What a running command offers, over SSH and locally alike."""

    @property
    def closed(self) -> bool:
        """Whether the command has ended or the channel is gone."""

    def write(self, data: bytes) -> None:
        """Writes all of data to standard input; ``OSError`` when nobody reads it any more."""

    def close_stdin(self) -> None:
        """Says that no more input comes."""

    def read(self, size: int = _CHUNK) -> bytes:
        """The next bytes of standard output, at most size of them; empty at its end."""

    def read_error(self, size: int = _CHUNK) -> bytes:
        """The next bytes of standard error, at most size of them; empty at its end."""

    def wait(self) -> int:
        """The exit status; -1 where a signal ended the command."""

    def close(self) -> None:
        """Lets go of the command at once."""


class StreamProcess(Process, Protocol):
    """A running command that stands at the end of something like a socket."""

    @property
    def sock(self) -> Channel | socket.socket:
        """What carries its input and its output."""


class SshProcess(StreamProcess):
    """A command on an exec channel of the host's transport.

    :raises ConnectionLost: the transport is dead.
    :raises RemoteError: the host refuses another channel (``MaxSessions``), or the command.
    """

    def __init__(self, link: Link, command: str, doing: str) -> None:

        self._host = link.host.name
        self._doing = doing
        self._transport: Transport = link.open_transport()
        self._channel = self._open()
        # A host that grants a channel and then says no word of the command.
        mute = threading.Timer(OPEN_TIMEOUT, self.close)
        mute.daemon = True
        mute.start()
        try:
            self._channel.exec_command(command.encode())
        except (SSHException, EOFError, OSError) as error:
            if not self._transport.is_active():
                raise ConnectionLost(self._host, doing, f"connection lost: {error}") from error
            reason = str(error) or f"the host did not begin it within {OPEN_TIMEOUT} s"
            raise RemoteError(self._host, doing, f"no command: {reason}") from error
        finally:
            mute.cancel()

    def _open(self) -> Channel:
        for wait in (0.1, 0.3, 1.0, 0):
            try:
                return self._transport.open_session(timeout=OPEN_TIMEOUT)
            except ChannelException as error:
                # A channel just closed counts against sshd's MaxSessions until its command ended.
                if not wait:
                    raise RemoteError(
                        self._host, self._doing, f"no channel: {error.text}"
                    ) from error
                time.sleep(wait)
            except (SSHException, EOFError, OSError) as error:
                raise ConnectionLost(
                    self._host, self._doing, f"connection lost: {error}"
                ) from error
        raise AssertionError("unreachable")

    @property
    @override
    def closed(self) -> bool:
        return self._channel.closed or self._channel.exit_status_ready()

    @property
    @override
    def sock(self) -> Channel:
        return self._channel

    @override
    def write(self, data: bytes) -> None:
        # In pieces: sendall copies all that is left with each packet that it sends.
        for at in range(0, len(data), _CHUNK):
            self._channel.sendall(data[at : at + _CHUNK])

    @override
    def close_stdin(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    @override
    def read(self, size: int = _CHUNK) -> bytes:
        return self._channel.recv(size)

    @override
    def read_error(self, size: int = _CHUNK) -> bytes:
        return self._channel.recv_stderr(size)

    @override
    def wait(self) -> int:
        status = self._channel.recv_exit_status()
        if status == -1:
            # No status came: a signal ended the command, or the transport died. paramiko unlinks
            # the channels of a dying transport a moment before it calls it inactive.
            until = time.monotonic() + 0.5
            while self._transport.is_active() and time.monotonic() < until:
                time.sleep(0.02)
            if not self._transport.is_active():
                raise ConnectionLost(self._host, self._doing, "connection lost")
        return status

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()


class LocalProcess(Process):
    """A command on this machine."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - running commands is what this is for
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            # Ctrl-C at the terminal is for the run, which lets what it has begun come to its end.
            process_group=0,
        )
        self._released = threading.Event()
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout
        self._stderr = self._process.stderr

    @property
    @override
    def closed(self) -> bool:
        return self._process.poll() is not None

    @override
    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._stdin.write(view) :]

    @override
    def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()

    @override
    def read(self, size: int = _CHUNK) -> bytes:
        return _read_next(self._stdout, size, self._released)

    @override
    def read_error(self, size: int = _CHUNK) -> bytes:
        return _read_next(self._stderr, size, self._released)

    @override
    def wait(self) -> int:
        status = _wait_for_exit(self._process, self._released)
        for stream in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                stream.close()
        return max(status, -1)

    @override
    def close(self) -> None:
        self.close_stdin()
        self._released.set()
        if self._stdout.closed:
            return
        # A command that became another user cannot be signalled; the end of its input ends it.
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGTERM)
        _reap(self._process)


class LocalStream(StreamProcess):
    """A command on this machine whose input and output are one socket, as a channel is."""

    def __init__(self, command: str) -> None:
        self._released = threading.Event()
        self._sock, theirs = socket.socketpair()
        with theirs:
            # gevent's sockets do not block; the command expects one that does.
            os.set_blocking(theirs.fileno(), True)
            self._process = subprocess.Popen(  # noqa: S603 - as above
                ["/bin/sh", "-c", command],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                bufsize=0,
                process_group=0,  # as above
            )
        assert self._process.stderr
        self._stderr = self._process.stderr

    @property
    @override
    def sock(self) -> socket.socket:
        return self._sock

    @property
    @override
    def closed(self) -> bool:
        return self._process.poll() is not None

    @override
    def write(self, data: bytes) -> None:
        self._sock.sendall(data)

    @override
    def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    @override
    def read(self, size: int = _CHUNK) -> bytes:
        return self._sock.recv(size)

    @override
    def read_error(self, size: int = _CHUNK) -> bytes:
        return _read_next(self._stderr, size, self._released)

    @override
    def wait(self) -> int:
        return max(_wait_for_exit(self._process, self._released), -1)

    @override
    def close(self) -> None:
        self._released.set()
        # No signal: the end of its input ends the command and lets it put things in order first.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        _reap(self._process)


def _read_next(stream: IO[bytes], size: int, released: threading.Event) -> bytes:
    """The next bytes; none once it is let go of, whatever else may hold the other end."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    while not released.is_set():
        if poll.poll(_PAUSE * 1000):
            return stream.read(size)
    return b""


def _wait_for_exit(process: subprocess.Popen[bytes], released: threading.Event) -> int:
    """The exit status of a process that ends; -1 where it is let go of before."""
    while True:
        try:
            return process.wait(_PAUSE)
        except subprocess.TimeoutExpired:
            if released.is_set():
                return -1


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Collects an ending process in the background; whoever closes it is not made to wait."""

    def collect() -> None:
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    threading.Thread(target=collect, daemon=True).start()


def start(link: Link, command: str, doing: str) -> Process:
    """Starts a command, given as one line for the login shell of the host."""
    return LocalProcess(command) if link.is_local else SshProcess(link, command, doing)


def start_stream(link: Link, command: str, doing: str) -> StreamProcess:
    """Starts a command to be held open, given as one line for the login shell of the host."""
    return LocalStream(command) if link.is_local else SshProcess(link, command, doing)
