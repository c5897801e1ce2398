"""Make one exchange over TLS and HTTP on a host without curl; it prints and exits as curl does.

Python's TLS tells no reset from an end once a session has begun: both are an empty reply.
"""
# pathlib takes longer to load than this takes to run.
# ruff: noqa: PTH123

import http.client
import signal
import socket
import ssl
import sys
import time

seconds, scheme, host, port, path, address, head = sys.argv[1:8]
began = time.monotonic()
status = received = 0
connected = secured = 0.0


def _end(code: int, error: object = "") -> None:
    took = time.monotonic() - began
    sys.stdout.write(f"{status:03d} 000 {connected:.6f} {secured:.6f} {took:.6f} {received}\n")
    if error:
        sys.stderr.write(f"{error}\n")
    sys.exit(code)


def _raise_timeout(*_: object) -> None:
    raise TimeoutError


signal.signal(signal.SIGALRM, _raise_timeout)
signal.setitimer(signal.ITIMER_REAL, float(seconds))
try:
    peer = socket.create_connection((address, int(port)))
    connected = time.monotonic() - began
    if scheme == "https":
        peer = ssl.create_default_context().wrap_socket(peer, server_hostname=host)
        secured = time.monotonic() - began
    connection = http.client.HTTPConnection(host, int(port))
    connection.sock = peer
    fields = {"User-Agent": "stackmend", "Accept": "*/*", "Connection": "close"}
    connection.request("GET", path, headers=fields)
    answer = connection.getresponse()
    status = answer.status
    with open(head, "wb") as file:
        for name, value in answer.getheaders():
            file.write(f"{name}: {value}\r\n".encode("latin-1", "replace"))
    while True:
        part = answer.read1(65536)
        if not part:
            break
        received += len(part)
    if answer.length:
        _end(18, f"transfer closed with {answer.length} bytes remaining to read")
except ssl.SSLCertVerificationError as error:
    _end(60, f"SSL certificate problem: {error.verify_message}")
except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
    _end(35, "unexpected eof in the handshake")
except ssl.SSLError as error:
    _end(35, error)
except TimeoutError:
    _end(28, f"Operation timed out with {received} bytes received")
except http.client.RemoteDisconnected:
    _end(52, "Empty reply from server")
except http.client.IncompleteRead as error:
    _end(18, error)
except http.client.HTTPException as error:
    _end(8, error)
except ConnectionRefusedError as error:
    _end(7, error)
except OSError as error:
    inside = scheme == "https" and connected and not secured
    _end(35 if inside else 56 if connected else 7, error)
_end(0)
