"""The running hosts of the lab (``make lab``), for trying deploys on real machines."""

import json
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

_LAB = Path(__file__).resolve().parents[1] / "var" / "lab"

try:
    _running = json.loads((_LAB / "hosts.json").read_text())
except FileNotFoundError:
    _running = []
_running = [row for row in _running if row["kind"] == "managed"]
if not _running:
    raise PyinfraError("no lab host runs: start one with `make lab`")

# The reference stack on images that the lab builds, with a model server that answers at once.
_STACK = {
    "project": "ai",
    "source": str(Path(__file__).resolve().parents[1] / "deploy/stacks/ai"),
    "directory": "/opt/ai",
    "env": {
        "REDIS_IMAGE": "lab/redis:7",
        "OLLAMA_IMAGE": "lab/model:1",
        "API_IMAGE": "stackmend/api:lab",
        "WORKER_IMAGE": "stackmend/worker:lab",
        "PYTHON_IMAGE": "lab/python:3.11",
        "OLLAMA_MODEL": "tiny",
        "HEALTH_INTERVAL": "2s",
        "HEALTH_START_PERIOD": "0s",
    },
    "checks": [
        {"kind": "http", "url": "http://127.0.0.1:8000/healthz"},
        {"kind": "http", "url": "http://ollama:11434/api/version", "inside": "worker"},
        {"kind": "redis", "service": "redis", "address": "redis:6379", "inside": "worker"},
    ],
    # What may be ended where it holds a port of the stack: the demo starts it to be in the way.
    "ports": {"on_conflict": "stop", "allow": ["unit:squatter.service"]},
    "stability": 2,
    "minimum_free": "512MiB",
    # A lab is there to be broken, again and again.
    "mend": {"attempts": 20, "backoff": [0]},
}

hosts = [
    (
        row["name"],
        {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": row["port"],
            "ssh_user": "root",
            "ssh_key": str(_LAB / "id_ed25519"),
            "ssh_known_hosts_file": str(_LAB / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "stack": _STACK,
        },
    )
    for row in _running
]
