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
        },
    )
    for row in _running
]
