"""pyinfra hosts for tests that call the connection room themselves, without the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pyinfra.api import Config, Inventory, State
from pyinfra.api.host import Host
from pyinfra.connectors.sshuserclient.client import get_host_keys
from pyinfra.context import ctx_state

from tests.lab.hosts import LabHost


@contextlib.contextmanager
def connected(name: str, **data: Any) -> Iterator[Host]:
    """A connected host; its connection is closed at the end, which pyinfra itself leaves open."""
    # pyinfra reads a file of host keys once in a process; here hosts are made anew meanwhile.
    get_host_keys.cache.clear()  # type: ignore[attr-defined]
    inventory = Inventory(([name], data))
    with ctx_state.use(State(inventory, Config())):
        host = inventory.get_host(name)
        host.connect(raise_exceptions=True)
        try:
            yield host
        finally:
            if client := getattr(host.connector, "client", None):
                client.close()


def local(**data: Any) -> contextlib.AbstractContextManager[Host]:
    """This machine, as ``@local``."""
    return connected("@local", **data)


def lab(host: LabHost, user: str = "root", **data: Any) -> contextlib.AbstractContextManager[Host]:
    """A lab host over ssh, logged in as `user`."""
    return connected(host.name, **{**host.ssh_data(user), **data})
