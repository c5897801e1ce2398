"""Send echo requests to an address as ping does, for a host without it: prints SENT RECEIVED."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time

COUNT, GAP, LAST = 100, 0.02, 1.0

address = sys.argv[1]
six = ":" in address
family = socket.AF_INET6 if six else socket.AF_INET
protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
raw = False
try:
    echo = socket.socket(family, socket.SOCK_DGRAM, protocol)
except OSError:
    raw = True
    echo = socket.socket(family, socket.SOCK_RAW, protocol)
token = os.urandom(16)
name = os.urandom(2)


def _make(number: int) -> bytes:
    rest = name + number.to_bytes(2, "big") + token
    total = (128 if six else 8) << 8
    total += sum(int.from_bytes(rest[i : i + 2], "big") for i in range(0, len(rest), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return bytes([128 if six else 8, 0]) + (~total & 0xFFFF).to_bytes(2, "big") + rest


def _read() -> int:
    """The number of the request that a packet answers; -1 for anything else."""
    data = echo.recv(2048)
    if raw and not six:
        data = data[4 * (data[0] & 15) :]
    if data[:1] != (b"\x81" if six else b"\0") or data[8:24] != token:
        return -1
    return int.from_bytes(data[6:8], "big")


echo.connect((address, 0))
echo.setblocking(False)
answered: set[int] = set()
sent = 0
following = time.monotonic()
while True:
    if sent < COUNT and time.monotonic() >= following:
        sent += 1
        following = time.monotonic() + (GAP if sent < COUNT else LAST)
        with contextlib.suppress(OSError):
            echo.send(_make(sent))
    left = following - time.monotonic()
    if sent == COUNT and (left <= 0 or len(answered) == COUNT):
        break
    if select.select([echo], [], [], max(0.0, left))[0]:
        with contextlib.suppress(OSError):
            answered.add(_read())
        answered.discard(-1)
print(sent, len(answered))
