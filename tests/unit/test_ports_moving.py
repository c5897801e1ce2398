"""How long a holder that is seen ending is observed again, before anything is refused for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from stackmend.ports import reconciler
from stackmend.ports.reconciler import ATTEMPTS, MOVING_ATTEMPTS, PortsReconciler
from stackmend.ports.spec import PortsSpec, parse_ports
from stackmend.ports.state import HostPorts
from stackmend.reporting import Collector
from tests.unit.ports_world import bare, held

SPEC = PortsSpec(ports=tuple(parse_ports(6379)))
ENDING = held(bare(exe="", user="", uid=-1, name=""))
FOREIGN = held(bare())
FREE = held()


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> PortsReconciler:
    monkeypatch.setattr(reconciler, "PAUSE", 0)
    monkeypatch.setattr(reconciler, "find_other_run", lambda host: None)
    return PortsReconciler(cast("Any", None), SPEC, Collector("ports.free"))


def observes(
    room: PortsReconciler, monkeypatch: pytest.MonkeyPatch, states: Iterator[HostPorts]
) -> tuple[list[str], int]:
    """What is refused where the host is read so each time, and how often it was read."""
    readings = []

    def fetch(*_: object, **__: object) -> tuple[HostPorts]:
        readings.append(next(states))
        return (readings[-1],)

    monkeypatch.setattr(room, "fetch", fetch)
    observed = room.observe()
    return [refusal.reason for refusal in observed.plan.refusals], len(readings)


@pytest.mark.parametrize("times", [1, ATTEMPTS + 1, MOVING_ATTEMPTS])
def test_what_ends_at_last_is_not_refused(
    room: PortsReconciler, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    states = iter([*[ENDING] * times, FREE])
    assert observes(room, monkeypatch, states) == ([], times + 1)


def test_what_ends_all_the_time_is_refused_by_its_own_reason(
    room: PortsReconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons, readings = observes(room, monkeypatch, iter([ENDING] * 99))
    assert reasons == ["held by a program (pid 812); it is just ending"]
    assert readings == MOVING_ATTEMPTS + 1


def test_what_stays_is_refused_by_two_readings(
    room: PortsReconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons, readings = observes(room, monkeypatch, iter([FOREIGN] * 99))
    assert len(reasons) == 1
    assert readings == 2


def test_what_is_another_each_time_is_refused_in_the_end(
    room: PortsReconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = (held(bare(pid)) for pid in range(800, 999))
    reasons, readings = observes(room, monkeypatch, others)
    assert len(reasons) == 1
    assert readings == ATTEMPTS + 1
