"""Load on the reference stack, from its host: `python3 load.py API REDIS OLLAMA MODEL COUNTS`.

Tasks and questions to the api, values to redis, prompts to the model server, paced. How many were
answered and how many were not stands in the file COUNTS.
"""

import json
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path

api, redis, ollama, model, counts_file = sys.argv[1:]
counts = {}
lock = threading.Lock()


def count(name, ask):
    try:
        ask()
    except Exception as error:
        name = f"{name}: {type(error).__name__}: {str(error)[:80]}"
    with lock:
        counts[name] = counts.get(name, 0) + 1


def post(url, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        answer.read()


def use_redis():
    with socket.create_connection((redis, 6379), 10) as connection:
        for number in range(200):
            word = f"load-{number}"
            value = "x" * 1000
            connection.sendall(f"SET {word} {value} EX 60\r\nGET {word}\r\n".encode())
            wanted = len(f"+OK\r\n$1000\r\n{value}\r\n")
            got = 0
            while got < wanted:
                got += len(connection.recv(65536))


def repeat(name, pause, ask):
    def run():
        while True:
            count(name, ask)
            time.sleep(pause)

    threading.Thread(target=run, daemon=True).start()


for _ in range(3):
    repeat("api healthz", 0.25, lambda: get(f"{api}/healthz"))
repeat("api tasks", 1.0, lambda: post(f"{api}/tasks", {"prompt": "what is load?"}))
repeat("redis", 0.5, use_redis)
for _ in range(2):
    repeat(
        "ollama",
        0.7,
        lambda: post(
            f"{ollama}/api/generate",
            {"model": model, "prompt": "hi", "stream": False, "options": {"num_predict": 32}},
        ),
    )
while True:
    time.sleep(2)
    with lock:
        text = json.dumps(counts, sort_keys=True)
    part = Path(f"{counts_file}.part")
    part.write_text(text)
    part.rename(counts_file)
