"""``hold.py WHAT ADDRESS PORT``: runs on a lab host and holds a port in one way until it is ended.

WHAT is a list with commas: ``tcp`` or ``udp``; ``bound`` (and does not listen), ``reuseport``,
``v6only``, ``stubborn`` (ignores SIGTERM), ``inherited`` (the socket is systemd's), or
``outgoing``: the kernel gives the port to a connection to ADDRESS, which is ``address:port`` of a
listener.
Anything behind PORT is for whoever looks at the command line.
"""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def opened(what: set[str], address: str, port: int) -> socket.socket:
    if "inherited" in what:
        return socket.socket(fileno=3)
    if "outgoing" in what:
        return connection(address, port)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    held = socket.socket(family, socket.SOCK_DGRAM if "udp" in what else socket.SOCK_STREAM)
    if not what & {"udp", "bound"}:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "reuseport" in what:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "v6only" in what)
    held.bind((address, port))
    if not what & {"udp", "bound"}:
        held.listen()
    return held


def connection(peer: str, port: int) -> socket.socket:
    """A connection from a port that the kernel chose, where it had no other choice."""
    address, _, number = peer.rpartition(":")
    before = RANGE.read_text()
    RANGE.write_text(f"{port} {port}")
    try:
        return socket.create_connection((address, int(number)))
    finally:
        RANGE.write_text(before)


if __name__ == "__main__":
    words = set(sys.argv[1].split(","))
    if "stubborn" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kept = opened(words, sys.argv[2], int(sys.argv[3]))
    while True:
        signal.pause()
