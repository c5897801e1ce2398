"""When bytes leave this machine and when they come to it, whatever this process does meanwhile.

A process of Python handles many connections one after another, so that bytes wait to be read and
to be sent. The kernel notes when they came (``SO_TIMESTAMPNS`` of Linux); where it does not, the
moment of reading stands for that. They left when the kernel was handed them.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from paramiko import Transport
from paramiko.buffered_pipe import BufferedPipe
from typing_extensions import override

#: The option of a socket, and the kind of the message in which the kernel says when bytes came.
_STAMPS = 35
_STAMP = struct.Struct("@ll")

#: Seconds for which bytes may wait to be read; beyond that somebody set the clock.
_MOST_AGE = 60.0

#: Seconds between two readings of a clock without anything in between, and attempts at that.
_AT_ONCE, _ATTEMPTS = 2e-5, 5

#: Pieces of one connection that wait to be read, each with its moment; more of them share one.
_MOST_PIECES = 4096

#: Where paramiko keeps the socket that it reads and writes.
_SOCKET = "_Packetizer__socket"


class Wire:
    """A socket that knows when bytes last left by it, and when those came that were read last.

    :param sock: a socket, or what has its methods.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._is_stamped = _request_stamps(sock)
        #: When bytes last left, and when those that were read last came, on the monotonic clock.
        self.left = self.came = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        """Read, as a socket does."""
        if self._is_stamped:
            data, messages, _, _ = self._sock.recvmsg(size, socket.CMSG_SPACE(_STAMP.size))
            self.came = max(self.came, _read_stamp(messages))
        else:
            data = self._sock.recv(size)
            self.came = time.monotonic()
        return bytes(data)

    def send(self, data: bytes) -> int:
        """Send what the kernel takes, as a socket does."""
        self.left = time.monotonic()
        return int(self._sock.send(data))

    def sendall(self, data: bytes) -> None:
        """Send all, as a socket does."""
        self.left = time.monotonic()
        self._sock.sendall(data)


def find_wire(transport: Transport) -> Wire | None:
    """The socket of an SSH connection; ``None`` where paramiko keeps it elsewhere.

    :param transport: of paramiko.
    """
    sock = getattr(transport.packetizer, _SOCKET, None)
    if isinstance(sock, Wire):
        return sock
    if sock is None or sock is not transport.sock:
        return None
    wire = Wire(sock)
    setattr(transport.packetizer, _SOCKET, wire)
    return wire


if TYPE_CHECKING:
    _Pipe = BufferedPipe[Any]
else:
    _Pipe = BufferedPipe


class Inbox(_Pipe):
    """What came on a channel and is not read yet, each piece with its moment.

    :param wire: by which it comes, whose last bytes are those that are fed.
    """

    def __init__(self, wire: Wire | None) -> None:
        super().__init__()
        self._wire = wire
        #: Bytes of each piece, and when it came.
        self.pieces: deque[tuple[int, float]] = deque()

    @override
    def feed(self, data: bytes) -> None:
        came = self._wire.came if self._wire is not None else time.monotonic()
        size = len(data)
        if len(self.pieces) >= _MOST_PIECES:
            size += self.pieces.pop()[0]
        self.pieces.append((size, came))
        super().feed(data)

    def split(self, data: bytes) -> list[tuple[bytes, float]]:
        """The pieces of what was read, each with its moment.

        :param data: what :meth:`read` gave, in the order of that.
        """
        found = []
        while data:
            size, came = self.pieces.popleft()
            if size > len(data):
                self.pieces.appendleft((size - len(data), came))
            found.append((data[:size], came))
            data = data[size:]
        return found


def _request_stamps(sock: Any) -> bool:
    """Whether the kernel says of a socket from now on when its bytes came."""
    if sys.platform != "linux" or not hasattr(sock, "recvmsg"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, _STAMPS, 1)
    except OSError:
        return False
    return True


def _read_stamp(messages: list[tuple[int, int, bytes]]) -> float:
    """When bytes came, on the monotonic clock; now, where the kernel does not say."""
    now, wall = _read_clocks()
    for level, kind, data in messages:
        if (level, kind, len(data)) == (socket.SOL_SOCKET, _STAMPS, _STAMP.size):
            seconds, nanoseconds = _STAMP.unpack(data)
            age = float(wall - seconds * 10**9 - nanoseconds) / 1e9
            if 0 <= age <= _MOST_AGE:
                return now - age
    return now


def _read_clocks() -> tuple[float, int]:
    """The monotonic clock and, at the same moment, nanoseconds since 1970."""
    for _ in range(_ATTEMPTS):
        now, wall = time.monotonic(), time.time_ns()
        if time.monotonic() - now < _AT_ONCE:
            break
    return now, wall
