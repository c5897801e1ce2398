"""A model server whose speed is exactly known, for tests of what measures servers.

>>> with paced.serving(ttft=0.1, tpot=0.01) as server:
...     measure_something(server.port)
...     server.read_records()
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.calm import URGENT
from tests.lab.hosts import LabHost
from tests.paced.server import TRAPS, Pace, Record
from tests.paced.truth import Truth, compute_truth, read_truth

__all__ = [
    "TRAPS",
    "Pace",
    "Paced",
    "Record",
    "Truth",
    "compute_truth",
    "read_truth",
    "relayed",
    "serving",
    "serving_on",
]

SERVER = Path(__file__).with_name("server.py")
RELAY = Path(__file__).with_name("relay.py")


class Paced:
    """A server that runs.

    + port: on loopback of where it runs
    + reached: the address and port at which this process speaks to it
    """

    def __init__(self, port: int, reached: tuple[str, int] | None = None) -> None:
        self.port = port
        self._reached = reached or ("127.0.0.1", port)

    def set(self, **pace: Any) -> None:
        """Change how it behaves, by the fields of `Pace`; what it recorded is cleared."""
        self._ask("PUT", pace)

    def read_records(self) -> list[Record]:
        """What it answered since it was set."""
        return [Record(**record) for record in self._ask("GET")["records"]]

    def read_loads(self) -> list[Any]:
        """The ``keep_alive`` of each request that only loads the model, since it was set."""
        loads: list[Any] = self._ask("GET")["loads"]
        return loads

    def read_pace(self) -> Pace:
        """How it behaves."""
        return Pace(**self._ask("GET")["pace"])

    def _ask(self, method: str, body: dict[str, Any] | None = None) -> Any:
        address, port = self._reached
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{address}:{port}/paced", content, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            return json.load(answer)


@contextlib.contextmanager
def serving(**pace: Any) -> Iterator[Paced]:
    """A server on a free port of this machine, in a process of its own; ended afterwards."""
    Pace(**pace)
    options = [_format_option(name, value) for name, value in pace.items()]
    with _running(SERVER, "0", *options) as port:
        yield Paced(port)


@contextlib.contextmanager
def serving_on(host: LabHost, port: int, **pace: Any) -> Iterator[Paced]:
    """A server on a lab host, which has Python; ended afterwards. It and sshd run before others."""
    options = " ".join(_format_option(name, value) for name, value in pace.items())
    host.put("/run/paced/server.py", SERVER.read_bytes())
    host.sh(
        f"renice -n {URGENT} -p $(pgrep -x sshd) >/dev/null\n"
        f"setsid nice -n {URGENT} python3 /run/paced/server.py {port} --address 0.0.0.0 {options} "
        ">/run/paced/log 2>&1 </dev/null & echo $! >/run/paced/pid"
    )
    try:
        host.wait_for("grep -q ready /run/paced/log")
        yield Paced(port, (host.address, port))
    finally:
        host.sh(
            "kill $(cat /run/paced/pid); rm -rf /run/paced; renice -n 0 -p $(pgrep -x sshd)",
            check=False,
        )


def _format_option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{name}"
    return f"--{name}={value}"


@contextlib.contextmanager
def relayed(port: int, there: float = 0.05, back: float = 0.0) -> Iterator[int]:
    """A port that passes on to another one of this machine, later."""
    options = (f"--there={there}", f"--back={back}")
    with _running(RELAY, "0", "127.0.0.1", str(port), *options) as relay:
        yield relay


@contextlib.contextmanager
def _running(program: Path, *arguments: str) -> Iterator[int]:
    command = [sys.executable, "-I", str(program), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().split()
        assert line[:1] == ["ready"], f"{program.name} did not start"
        yield int(line[1])
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
