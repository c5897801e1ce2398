"""Fixtures of the tests that need real hosts; `tests/conftest.py` makes them known everywhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from tests.lab import hosts as lab_hosts
from tests.lab import machines
from tests.lab import model_registry as lab_model_registry
from tests.lab import packages as lab_packages
from tests.lab import registry as lab_registry
from tests.lab.engine import LabUnavailable, OuterCommandError
from tests.lab.hosts import LabHost
from tests.lab.observed import Kind


class Lab:
    """The lab of one test process: leases hosts, and keeps them until the process ends."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._held: dict[Kind, list[LabHost]] = {
            "managed": [],
            "bare": [],
            "names": [],
            "trixie": [],
        }
        self._calm: set[LabHost] = set()
        self._models: lab_model_registry.ModelRegistry | None = None

    def take(self, count: int, kind: Kind = "managed") -> list[LabHost]:
        """`count` hosts as they were when new, held by this process alone."""
        held = self._lease(count, kind)
        for host in held:
            if host not in self._calm:
                host.reset()
        self._calm.difference_update(held)
        return held

    def hold(self, count: int, kind: Kind = "managed") -> list[LabHost]:
        """The same hosts as the last test of this process left them."""
        held = self._lease(count, kind)
        self._calm.difference_update(held)
        return held

    def models(self) -> lab_model_registry.ModelRegistry:
        """The registry of models of this process, empty and answering."""
        if self._models is None:
            self._models = self._stack.enter_context(lab_model_registry.lease())
        else:
            self._models.reset()
        return self._models

    def calm(self) -> None:
        """Reset what was used: a stack left running takes from the tests of others."""
        for host in (host for held in self._held.values() for host in held):
            if host not in self._calm:
                host.reset()
                self._calm.add(host)

    def give_back(self) -> None:
        """Remove the hosts without an engine of their own.

        They are cheap to make, and an engine that a test gave one would have it made anew for
        nobody.
        """
        self._held.pop("managed")
        lab_hosts.discard([host for held in self._held.values() for host in held])

    def _lease(self, count: int, kind: Kind) -> list[LabHost]:
        held = self._held[kind]
        while len(held) < count:
            held.append(self._stack.enter_context(lab_hosts.lease(kind)))
        return held[:count]


#: The lab of this process, once a test has asked for it.
_labs: list[Lab] = []


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab. Skips where none can run, and says why; with CI=true that is a failure."""
    with contextlib.ExitStack() as stack:
        try:
            lab_hosts.prepare()
        except (LabUnavailable, OuterCommandError) as error:
            if os.environ.get("CI") == "true":
                pytest.fail(f"no lab: {error}", pytrace=False)
            pytest.skip(f"no lab: {error}")
        held = Lab(stack)
        _labs.append(held)
        yield held
        _labs.clear()
        held.give_back()


@pytest.fixture(scope="module", autouse=True)
def calm_lab() -> Iterator[None]:
    """After each module: its hosts as they were when new, whatever its last test left there."""
    yield
    for held in _labs:
        held.calm()


@pytest.fixture
def host(lab: Lab) -> LabHost:
    """A managed host (Docker, Compose), reset."""
    return lab.take(1)[0]


@pytest.fixture
def hosts(lab: Lab) -> Callable[[int], list[LabHost]]:
    """``hosts(3)``: so many managed hosts, reset."""
    return lab.take


@pytest.fixture
def bare_host(lab: Lab) -> LabHost:
    """A host as it comes from the provider, without Docker, reset."""
    return lab.take(1, "bare")[0]


@pytest.fixture
def trixie_host(lab: Lab) -> LabHost:
    """The same with Debian 13."""
    return lab.take(1, "trixie")[0]


@pytest.fixture
def closed_host(trixie_host: LabHost) -> LabHost:
    """The same in a closed network: it knows no packages but the lab's (`machines.closed`)."""
    machines.closed(trixie_host)
    return trixie_host


@pytest.fixture
def registry(lab: Lab) -> Iterator[lab_registry.Registry]:
    """The registry that hosts reach as ``registry:5000``, empty, held by this test alone."""
    with lab_registry.lease() as held:
        yield held


@pytest.fixture
def packages(lab: Lab) -> Iterator[lab_packages.Packages]:
    """The server of packages that hosts reach as ``packages:8080``, empty, held by this test."""
    with lab_packages.lease() as held:
        yield held


@pytest.fixture(scope="module")
def model_registry(lab: Lab) -> lab_model_registry.ModelRegistry:
    """The registry of models of this process (``model_registry.http``), empty for each module."""
    return lab.models()
