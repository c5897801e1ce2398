"""Runs of which something hangs on some hosts, and what they declared before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stackmend.reconcile import OVERHEAD
from tests.lab import controller
from tests.lab.controller import Run
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

MINUTE = 60
#: Seconds by which machines that carry several hosts are slower, at least.
SLOWNESS = 30
#: What a connection, sshd's greeting and a login have, as docs/limits.md says.
CONNECTING = 10 + 15 + 30


class Shops:
    """Hosts that have the shop each, worked on in one run.

    + directory: where the shop's files are written
    + hosts: lab hosts
    + slowness: seconds by which this machine may be slower than others: what a first run took
    """

    slowness: float = SLOWNESS

    def __init__(self, directory: Path, hosts: Sequence[LabHost]) -> None:
        self.shop = Shop(directory, hosts[0], health_timeout=20)
        self.hosts = hosts
        self.directory = directory

    def run(
        self,
        *args: str,
        data: Mapping[LabHost, Mapping[str, Any]] | None = None,
        stacks: Mapping[LabHost, Mapping[str, Any]] | None = None,
        more: str = "",
    ) -> Run:
        """All hosts in one run, which has to end within what it declares.

        + data: further data of single hosts
        + stacks: settings of their stacks that the others do not have
        + more: further lines of the inventory
        """
        self.shop.write()
        own = {host.name: dict((data or {}).get(host, {})) for host in self.hosts}
        for host, settings in (stacks or {}).items():
            own[host.name]["stack"] = {**self.shop.settings, **settings}
        inventory = controller.write_inventory(
            self.directory, self.hosts, stack=self.shop.settings, per_host=own
        )
        with inventory.open("a") as file:
            file.write(more)
        done = controller.run(inventory, "deploy/site.py", *(args or ("-y",)), timeout=600)
        assert "Traceback" not in done.out, done.out
        assert done.seconds < max(find_limit(done, host) for host in self.hosts), done.out
        return done

    def greet(self, text: str) -> None:
        """Give every host something to do."""
        self.shop.services["web"]["environment"]["GREETING"] = text

    def greets(self, host: LabHost) -> bool:
        """Whether a host runs what is declared, and healthy, as its engine shows it."""
        declared = self.shop.services["web"]["environment"]["GREETING"]
        webs = host.containers(self.shop.project).get("web", [])
        return [
            (
                f"GREETING={declared}" in web["Config"]["Env"],
                web["State"].get("Health", {})["Status"],
            )
            for web in webs
        ] == [(True, "healthy")]

    def assert_well(self) -> None:
        """Run it where nothing hangs any more: all hosts are as declared."""
        for host in self.hosts:
            # Docker runs a healthcheck again in its own time: until then its last result stands.
            host.wait_for('[ -z "$(docker ps -q -f health=unhealthy -f health=starting)" ]', 120)
        done = self.run()
        assert done.rc == 0, done.out
        assert all(map(self.greets, self.hosts)), done.out


def find_limits(done: Run, host: LabHost) -> list[float]:
    """The seconds within which each operation of a run that had something to do was to end."""
    return [
        operation["measured"]["limit"]["value"]
        for operation in done.report["hosts"][host.name]["operations"]
        if "limit" in operation["measured"]
    ]


def find_limit(done: Run, host: LabHost) -> float:
    """The seconds within which a run was to end on a host, by its own words and docs/limits.md.

    An operation that plans nothing says nothing, and has the time of its readings.
    """
    declared = find_limits(done, host)
    silent = len(done.report["hosts"][host.name]["operations"]) - len(declared)
    return CONNECTING + sum(declared) + silent * OVERHEAD


def list_reasons(done: Run, host: LabHost) -> list[str]:
    """What a run says of a host for people: reasons, messages, causes and what belongs to them."""
    return list(_list_texts(done.report["hosts"][host.name]))


def _list_texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _list_texts(part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _list_texts(part)
