"""The api container's healthcheck: exits 0 if `/healthz` says 200.

Run with `python -I -S health.py`: started every few seconds, so it imports nothing it can spare.
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 4

try:
    port = int(os.environ.get("PORT") or 8000)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
except OSError as error:
    sys.exit(f"127.0.0.1:{port}: {error}")
status = answer.partition(b"\r\n")[0].split(b" ")
if status[1:2] != [b"200"]:
    sys.exit(answer.decode(errors="replace"))
