"""From a bare machine to a healthy stack: two commands, and nothing by hand between them."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts as lab_hosts
from tests.lab import machines
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.newcomer import ROOT_PASSWORD, Login, Newcomer, hand_over
from tests.lab.observed import Kind
from tests.lab.reference_stack import VARIABLES

#: What a second run may open on a host.
LIMIT = 2

STACK: dict[str, Any] = {
    "project": "ai",
    "source": "deploy/stacks/ai",
    "directory": "/opt/ai",
    "env": dict(VARIABLES),
    "checks": [{"kind": "http", "url": "http://127.0.0.1:8000/healthz"}],
    "stability": 1,
    "minimum_free": "256MiB",
}


@pytest.fixture
def me(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


def arriving(me: Newcomer, host: LabHost, login: Login, **more: Any) -> dict[str, str]:
    """Write the inventory for a host that is handed over in some way; what the run needs to know.

    Nothing in the inventory but the provider's key or user says how one comes in.
    """
    hand_over(host, login, me.public("root"))
    data: dict[str, Any] = {} if login == "root password" else {"ssh_key": str(me.key("root"))}
    if login == "sudo user":
        data["ssh_user"] = "provider"
    me.expects([host], more, **data)
    return {"STACKMEND_ROOT_PASSWORD": ROOT_PASSWORD} if login == "root password" else {}


@pytest.mark.parametrize(
    ("kind", "login"),
    [("trixie", "root password"), ("bare", "root key"), ("trixie", "sudo user")],
)
def test_a_bare_machine_carries_a_healthy_stack_after_two_commands(
    lab: Lab, me: Newcomer, kind: Kind, login: Login
) -> None:
    (host,) = lab.take(1, kind)
    if kind == "trixie":
        machines.closed(host)
    wanted = {
        **STACK,
        "access": me.access(password_login=False),
        "engine": {**machines.engine(host), "log": {"max_size": "10m", "max_file": 2}},
    }
    env = arriving(me, host, login, **wanted)

    first = me.run("deploy/bootstrap.py", env=env, timeout=600)
    assert first.rc == 0, first.out
    host.load_images()  # the lab has no hub that they could be pulled from
    site = me.run("deploy/site.py", timeout=600)
    assert site.rc == 0, site.out

    services = host.containers("ai")
    assert set(services) == {"redis", "ollama", "api", "worker"}
    for service, (container,) in services.items():
        assert container["State"]["Health"]["Status"] == "healthy", service
    assert "ok" in host.sh("curl -fsS http://127.0.0.1:8000/healthz")
    assert "uid=0(root)" in me.logs_in(host, command="sudo -n id")

    before = host.identities("ai")
    mark = host.mark()
    again = me.run("deploy/bootstrap.py", timeout=300)
    assert again.rc == 0, again.out
    assert "1 host: 1 converged" in again.out
    sessions = host.sessions_since(mark)
    print(f"{len(sessions)} channel(s)")
    assert 1 <= len(sessions) <= LIMIT, sessions
    mark = host.mark()
    site = me.run("deploy/site.py", timeout=300)
    assert "1 host: 1 converged" in site.out, site.out
    sessions = host.sessions_since(mark)
    print(f"site.py: {len(sessions)} channel(s)")
    assert 1 <= len(sessions) <= LIMIT, sessions
    assert host.identities("ai") == before


#: Hosts of the large run that answer.
ANSWERING = 19


@pytest.fixture
def fleet(lab: Lab) -> Iterator[list[LabHost]]:
    """New hosts of Debian 13, removed at the end: their engines would take from other tests."""

    hosts: list[LabHost] = []

    def arrive(_: int) -> None:
        host = stack.enter_context(lab_hosts.lease("trixie"))
        hosts.append(host)
        host.reset()
        machines.closed(host, copy=False)
        hand_over(host, "root password")

    with contextlib.ExitStack() as stack:
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(arrive, range(ANSWERING)))
            yield hosts
        finally:
            lab_hosts.discard(hosts)


def test_of_twenty_hosts_the_one_that_cannot_be_reached_fails_alone(
    fleet: list[LabHost], me: Newcomer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    wanted = {"access": me.access(password_login=False), "engine": machines.mirrored()}
    me.expects(fleet, wanted)
    row = f"hosts.append(('gone', {{**hosts[0][1], 'ssh_port': {nobody}}}))\n"
    me.inventory.write_text(me.inventory.read_text() + row)

    done = me.run(
        "deploy/bootstrap.py", env={"STACKMEND_ROOT_PASSWORD": ROOT_PASSWORD}, timeout=900
    )

    assert done.rc == 1
    assert re.search(rf"\[gone\] +refused: nothing listens at 127.0.0.1 port {nobody}", done.out)
    assert "20 hosts: 19 changed, 1 unreachable; not well: gone (unreachable)" in done.out
    for host in fleet:
        assert "uid=0(root)" in me.logs_in(host, command="sudo -n id"), host
        assert "passwordauthentication no" in host.sh("sshd -T"), host
        assert host.docker("version", "--format", "{{.Server.Version}}"), host
