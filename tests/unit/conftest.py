"""What unit tests share that speak to a server of known speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyinfra.api.host import Host

from tests import paced
from tests.connected import local
from tests.paced import Paced


@pytest.fixture(scope="module")
def here() -> Iterator[Host]:
    """This machine."""
    with local() as host:
        yield host


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Paced]:
    """A server as fast as the module's `PACE` says."""
    with paced.serving(**request.module.PACE) as server:
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest, running: Paced) -> Paced:
    """The same, honest and as fast as it was, whatever a test before made of it."""
    running.set(**request.module.PACE)
    return running
