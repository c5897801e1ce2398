"""``local_client.py PORT REQUESTS CONCURRENCY TOKENS``: a plain client on the host itself.

Sends what the benchmark sends to Ollama's API, over connections that it keeps, and prints the wall
time and the time to each first token as JSON. Standard library alone: it runs on any host.
"""

import http.client
import json
import random
import sys
import threading
import time

port, requests, concurrency, tokens = map(int, sys.argv[1:])
lock = threading.Lock()
left = list(range(requests))
found = []


def ask(connection):
    words = " ".join(f"word{random.randrange(10**6)}" for _ in range(20))
    options = {"temperature": 0, "num_predict": tokens}
    body = {"model": "paced", "prompt": words, "raw": True, "stream": True, "options": options}
    sent = time.monotonic()
    connection.request("POST", "/api/generate", json.dumps(body).encode())
    answer = connection.getresponse()
    first = None
    while line := answer.readline():
        fields = json.loads(line)
        first = first or (fields["response"] and time.monotonic())
        if fields["done"]:
            found.append((sent, first, time.monotonic()))
    answer.read()


def serve():
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/api/version")
    connection.getresponse().read()
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
