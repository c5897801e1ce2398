"""Try each desired port as Docker would bind it; print the error of each that is refused."""

import errno
import sys

try:
    # What "socket" wraps loads in a fraction of its time.
    import _socket as socket
except ImportError:
    import socket  # type: ignore[no-redef]


def _try(kind: str, address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sort = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    listener = socket.socket(family, sort)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == "tcp":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        if kind == "tcp":
            listener.listen(1)
    finally:
        listener.close()


for group in sys.argv[1:]:
    kind, address, ports = group.split("/")
    for part in ports.split(","):
        first, _, last = part.partition("-")
        for port in range(int(first), int(last or first) + 1):
            try:
                _try(kind, address, port)
            except OSError as error:
                print(errno.errorcode.get(error.errno or 0, f"E{error.errno}"), kind, address, port)
print("done")
