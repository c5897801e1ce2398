"""Record the ports probe's output on a real lab host, anew: ``python -m tests.facts.record_ports``.

Each state is brought about with what the lab has to hold a port; what the probe prints goes into a
fixture as it is, less tabs and blanks at the end of a line. The expected state is written from what
the parser makes of it: look at the change before you commit it.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from stackmend.ports.facts import PortHolders
from tests.lab import hosts
from tests.lab.holders import Shelf, hide
from tests.lab.hosts import LabHost
from tests.marks import MARK

FIXTURES = Path(__file__).parent / "ports.facts.PortHolders"
#: Ports of nobody, an address of nobody, and our own sshd.
QUIET = "22,20000-20003,20003/udp,10.9.9.9:20000,[::1]:20000"
PROCESSES = "python user reuseport loopback dual v6only udp bound outgoing namespace loop".split()
KEPT = "unit always idle awake supervisor".split()
CONTAINERS = "project restarting host-network second no-proxy podman".split()


class _Block(str):
    """Text that is written as it stands."""


yaml.SafeDumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def record(
    name: str, host: LabHost, ports: str | Sequence[str], user: str = "root", project: str = ""
) -> None:
    arguments = {"ports": ports if isinstance(ports, str) else ",".join(ports)}
    if project:
        arguments["project"] = project
    asked = PortHolders()
    command = asked.command(**arguments).get_raw_value()
    done = subprocess.run([*host.ssh_argv(user), command], capture_output=True, check=True)
    # Tabs, and blanks at a line's end, say nothing and would make the fixture unreadable.
    text = done.stdout.decode(errors="replace").replace("\t", " ")
    lines = [line.rstrip() for line in text.split("\n")]
    fact = asked.process(list(lines)).to_json()
    output = "\n".join(lines).replace(shlex.split(command)[2], MARK)
    fixture = {"arg": arguments, "output": _Block(output), "fact": fact}
    written = yaml.safe_dump(fixture, sort_keys=False, allow_unicode=True, width=1000)
    FIXTURES.mkdir(exist_ok=True)
    (FIXTURES / f"{name}.yaml").write_text(written, encoding="utf-8")


@contextlib.contextmanager
def without(host: LabHost, *tools: str) -> Iterator[None]:
    back = hide(host, *tools)
    try:
        yield
    finally:
        back()


def main() -> None:
    with hosts.lease("managed") as host:
        host.reset()
        shelf = Shelf(host)
        try:
            record("quiet", host, QUIET)
            shelf.put(*PROCESSES)
            desired = shelf.desired(PROCESSES)
            record("processes", host, desired)
            with without(host, "python3"):
                record("processes_without_python3", host, desired)
            with without(host, "python3", "perl"):
                record("processes_by_ss_alone", host, [*desired, "10.9.9.9:20000"])
            with without(host, "python3", "perl", "ss"):
                record("processes_by_proc_alone", host, [*desired, "10.9.9.9:20000"])
            record("processes_seen_by_a_user", host, desired, user="operator")
            shelf.put(*KEPT)
            record("kept", host, shelf.desired(KEPT))
            shelf.put(*CONTAINERS)
            desired = [*shelf.desired(CONTAINERS), "127.0.0.1:21017", "21018/udp"]
            record("containers", host, desired)
            record("ours", host, "21017,21018", project="elsewhere")
            host.put("/etc/docker/daemon.json", '{"live-restore": true}\n')
            host.sh("systemctl restart docker && docker start restarting")
            host.sh("systemctl stop docker.socket docker.service")
            record("engine_stopped", host, "21018,22")
        finally:
            shelf.clear()
            host.reset()
    with hosts.lease("bare") as host:
        host.reset()
        record("not_installed", host, QUIET)


if __name__ == "__main__":
    main()
