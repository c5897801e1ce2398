"""Who waited for a turn asks once more whom it would disturb."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stackmend import connection, reconcile
from stackmend.errors import StepError
from stackmend.worker.benchmark import identity, turns
from stackmend.worker.benchmark.endpoint import Endpoint
from stackmend.worker.benchmark.plan import Measure
from stackmend.worker.benchmark.reconciler import BenchmarkReconciler
from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import Answers, BenchmarkState, Machine
from tests.connected import local
from tests.unit.benchmark_server import Asked, Wire, answer, describe, serving

pytestmark = pytest.mark.slow


class Lease:
    """A lock that holds."""

    def check(self) -> None: ...


@contextlib.contextmanager
def reconciling(spec: BenchmarkSpec, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The room as the loop has it, on this machine, without its lock."""

    @contextlib.contextmanager
    def hold_lock(*_: Any) -> Iterator[Lease]:
        yield Lease()

    monkeypatch.setattr(connection, "hold_lock", hold_lock)
    monkeypatch.setattr(connection, "find_holder", lambda *_: "")
    reported: list[Any] = []
    with local() as host:
        report = SimpleNamespace(name="worker.benchmarked", add_measure=lambda *_: None)
        room = BenchmarkReconciler(host, spec, cast(Any, report), lambda _: None)
        monkeypatch.setattr(room, "report_plan", reported.append)
        monkeypatch.setattr(room, "report_error", reported.append)
        yield room, reported


def show_slots(busy: threading.Event) -> Callable[[Wire, Asked], None]:
    """A llama.cpp server whose one slot is at work while it is said to be."""

    def get(wire: Wire, asked: Asked) -> None:
        if asked.path == "/v1/models":
            wire.json({"data": [{"id": "m", "owned_by": "llamacpp"}]})
        elif asked.path == "/slots":
            wire.json([{"id": 0, "is_processing": busy.is_set()}])
        else:
            describe(wire, asked)

    return get


def test_whom_a_measurement_would_disturb_is_asked_once_it_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody begins to use the server while another measurement of this run has the turn."""
    busy = threading.Event()

    with serving(answer, show_slots(busy)) as served:
        spec = BenchmarkSpec(
            target="openai", endpoint=f"http://127.0.0.1:{served.port}/v1", model="m"
        )
        with reconciling(spec, monkeypatch) as (room, reported):
            endpoint = Endpoint("openai", "127.0.0.1", served.port, "")
            other = turns.take_turn(room.host, endpoint, shared=True)
            other.__enter__()

            def leave() -> None:
                busy.set()
                other.__exit__(None, None, None)

            later = threading.Timer(2, leave)
            later.start()
            try:
                assert reconcile._reconcile(room) == "failed"
            finally:
                later.join()
        assert "it has 1 requests of others" in reported[-1].refusals[0].reason
        assert [asked for asked in served.asked if asked.method == "POST"] == []


def test_what_this_run_asks_of_a_shared_server_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server answers another measurement of this run, which ends."""
    busy = threading.Event()
    busy.set()

    with serving(answer, show_slots(busy)) as served:
        spec = BenchmarkSpec(
            target="openai", endpoint=f"http://127.0.0.1:{served.port}/v1", model="m"
        )
        with reconciling(spec, monkeypatch) as (room, reported):
            assert "requests of others" in room.observe().plan.refusals[0].reason
            executed: list[Any] = []

            def execute(plan: Any, *_: Any) -> bool:
                executed.append(plan)
                return False

            @contextlib.contextmanager
            def wait(*_: Any, **__: Any) -> Iterator[None]:
                busy.clear()
                yield

            monkeypatch.setattr(room, "execute", execute)
            monkeypatch.setattr(turns, "take_turn", wait)
            assert reconcile._reconcile(room) == "failed"
    (plan,) = executed
    assert (len(plan.actions), plan.refusals) == (1, ())
    assert len(reported) == 1


def test_nothing_is_measured_without_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is to be collected only, and holds no longer once the lock is held."""
    spec = BenchmarkSpec(target="openai", endpoint="http://127.0.0.1:9/v1", model="m")
    with reconciling(spec, monkeypatch) as (room, _):
        action = Measure.model_construct(subject="x", cause="it is too old", model="m")
        with (
            pytest.raises(StepError, match="holds no longer: it is too old; run again"),
            room.take_turn(SimpleNamespace(actions=())),
        ):
            room._measure(action, None, Lease())


def test_who_has_a_turn_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that several hosts share is asked for its requests in a turn as well."""
    spec = BenchmarkSpec(target="openai", endpoint="http://192.0.2.7:8000/v1", model="m")
    monkeypatch.setattr(turns, "TURN", 0.1)
    monkeypatch.setattr(identity, "complete", lambda *_: Answers(requests=0))
    state = BenchmarkState(machine=Machine(now=1), answers=Answers(address="192.0.2.7", port=8000))
    action = Measure.model_construct(subject="x", cause="it is too old")
    with reconciling(spec, monkeypatch) as (room, _):
        for _ in range(2):
            with room.take_turn(SimpleNamespace(actions=(action,))):
                assert room._complete_answers(state).answers.requests == 0
            connection.invalidate(room.host)
