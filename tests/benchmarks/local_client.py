"""``local_client.py PORT PROTOCOL REQUESTS CONCURRENCY TOKENS``: a plain client on the host itself.

Sends what the benchmark sends, over connections that it keeps, and prints the wall time and the
time to each first token as JSON. It is what others are held against: a request is built before it
is sent, what came is parsed once the answer is over, and the kernel says when it came. Standard
library alone: it runs on any host of Linux.
"""

import json
import random
import re
import socket
import struct
import sys
import threading
import time

#: ``SO_TIMESTAMPNS``: when bytes came, in seconds and nanoseconds since 1970.
STAMPS, STAMP = 35, struct.Struct("@ll")

#: What a first token looks like, in either API.
TEXT = re.compile(rb'"(?:response|text)": *"[^"]')

port, protocol = int(sys.argv[1]), sys.argv[2]
requests, concurrency, tokens = map(int, sys.argv[3:])
lock = threading.Lock()
left = list(range(requests))
found = []


def build():
    """A request's bytes."""
    words = " ".join(f"word{random.randrange(10**6)}" for _ in range(20))
    body = {"model": "paced", "prompt": words, "stream": True}
    if protocol == "ollama":
        path, limit = "/api/generate", {"options": {"temperature": 0, "num_predict": tokens}}
    else:
        path, limit = "/v1/completions", {"max_tokens": tokens, "temperature": 0}
        limit["stream_options"] = {"include_usage": True}
    content = json.dumps(body | limit).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def receive(connection):
    """What came, and when, on the monotonic clock."""
    data, messages, _, _ = connection.recvmsg(1 << 16, 64)
    now, wall = time.monotonic(), time.time_ns()
    seconds, nanoseconds = STAMP.unpack(messages[0][2])
    assert data, "the server ended the connection"
    return data, now - (wall - seconds * 10**9 - nanoseconds) / 1e9


def ask(connection):
    """Send a request, and read its answer to the end."""
    request = build()
    sent = time.monotonic()
    connection.sendall(request)
    parts = []
    while not parts or not (parts[-2:][0][0] + parts[-1][0]).endswith(b"\r\n0\r\n\r\n"):
        parts.append(receive(connection))
    first = next(came for data, came in parts if TEXT.search(data))
    found.append((sent, first, parts[-1][1]))


def serve():
    """One client of several."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, STAMPS, 1)
    ready.wait()
    while True:
        with lock:
            if not left:
                return
            left.pop()
        ask(connection)


ready = threading.Barrier(concurrency)
threads = [threading.Thread(target=serve) for _ in range(concurrency)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
wall = max(end for _, _, end in found) - min(sent for sent, _, _ in found)
print(json.dumps({"wall": wall, "ttft": [first - sent for sent, first, _ in found]}))
