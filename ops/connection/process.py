"""A command under way on a host: bytes in, bytes out, one channel."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from .errors import ConnectionLost, RemoteError

if TYPE_CHECKING:
    from paramiko import Channel, Transport

    from .link import Link

#: Seconds to wait for the host to open a channel.
OPEN_TIMEOUT = 30

_CHUNK = 32 * 1024


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


class SshProcess(Process):
    """A command on an exec channel of the host's transport.

    Raises:
        ConnectionLost: the transport is dead.
        RemoteError: the host refuses another channel (``MaxSessions``), or the command.
    """

    def __init__(self, link: Link, command: str, doing: str) -> None:
        from paramiko import SSHException

        self._host = link.host.name
        self._doing = doing
        self._transport: Transport = link.transport()
        try:
            self._channel: Channel = self._transport.open_session(timeout=OPEN_TIMEOUT)
            self._channel.exec_command(command.encode())
        except (SSHException, EOFError, OSError) as error:
            if not self._transport.is_active():
                raise ConnectionLost(self._host, doing, f"connection lost: {error}") from error
            raise RemoteError(self._host, doing, f"no channel: {error}") from error

    @property
    @override
    def closed(self) -> bool:
        return self._channel.closed or self._channel.exit_status_ready()

    @override
    def write(self, data: bytes) -> None:
        self._channel.sendall(data)

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
        )
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
        return self._stdout.read(size)

    @override
    def read_error(self, size: int = _CHUNK) -> bytes:
        return self._stderr.read(size)

    @override
    def wait(self) -> int:
        status = self._process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                stream.close()
        return max(status, -1)

    @override
    def close(self) -> None:
        self.close_stdin()
        if self._process.poll() is None:
            # A command that became another user cannot be signalled; the end of its input ends it.
            with contextlib.suppress(OSError):
                self._process.terminate()


def start(link: Link, command: str, doing: str) -> Process:
    """Starts a command, given as one line for the login shell of the host."""
    return LocalProcess(command) if link.is_local else SshProcess(link, command, doing)
