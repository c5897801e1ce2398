"""What unit tests share: no lock of this machine's, and servers of known speed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from pyinfra.api.host import Host

from stackmend.fleet import hosts as fleet
from tests import paced
from tests.connected import local
from tests.paced import Paced

_NUMBERS = count()


@pytest.fixture(scope="session")
def lock_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the locks of tests lie."""
    return tmp_path_factory.mktemp("locks")


@pytest.fixture(autouse=True)
def own_lock(lock_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of the host that no other test has, where this machine is the host."""
    monkeypatch.setattr(fleet, "LOCK", str(lock_directory / str(next(_NUMBERS)) / "run.lock"))


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
