"""What explains what: only where a fact connects the two; else both stand as root causes.

The scenario of the demo lies as plain text below ``golden/incidents_connecting``. ``UPDATE_GOLDEN=1
pytest`` writes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.compose.state import CheckedServices, Container, Declared, StackState
from stackmend.decision import Action, Finding, Refusal
from stackmend.diagnosis import Diagnosis
from stackmend.incidents import Observations, RoomReading, Symptoms, diagnose
from stackmend.models.state import Server, StoreState
from stackmend.reporting.diagnoses import format_text
from tests.unit.test_incidents_diagnosis import container, found, log, room, stack

GOLDEN = Path(__file__).with_name("golden") / "incidents_connecting"
CAUSE = {"stopped": "it exited", "restart loop": "it restarts again and again", "unhealthy": "x"}
IDS = {"stopped": "service-down", "restart loop": "restart-loop", "unhealthy": "unhealthy"}
#: Which of them may cause which in what depends on it.
CAUSES = {"stopped": {"restart loop", "unhealthy"}, "restart loop": {"unhealthy"}}


def declare(services: Mapping[str, Mapping[str, Any]]) -> Declared:
    return Declared(config={"name": "ai", "services": services})


def explain(diagnosis: Diagnosis) -> dict[tuple[str, str], str]:
    """By incident and subject what explains it; empty for a root cause."""
    return {
        (each.incident, subject): each.explained_by
        for each in diagnosis.findings
        for subject in each.subjects
    }


def observe(
    *findings: Finding,
    services: Mapping[str, Mapping[str, Any]],
    containers: tuple[Container, ...] = (),
    rooms: tuple[RoomReading, ...] = (),
    checked: Mapping[str, tuple[str, ...]] | None = None,
    **more: Any,
) -> dict[tuple[str, str], str]:
    """What explains what is found in a stack of these services."""
    made = {each.service: each for each in containers}
    state = stack(*(made.get(name) or container(name) for name in services))
    states = (state, declare(services), CheckedServices(services=checked or {}))
    compose = room("compose.stack", *findings, states=states)
    return explain(diagnose(Observations(rooms=(*rooms, compose), **more)))


DOWN = found("redis", "stopped", "it exited")
LOOP = found("api", "restart loop", "it restarts again and again (9 times)")


def test_what_nothing_connects_is_a_root_cause_of_its_own() -> None:
    found_ = observe(DOWN, LOOP, services={"redis": {}, "api": {}})
    assert found_ == {("service-down", "redis"): "", ("restart-loop", "api"): ""}


@pytest.mark.parametrize(
    "body",
    [
        {"depends_on": {"redis": {"condition": "service_healthy"}}},
        {"environment": {"REDIS_URL": "redis://redis:6379/0"}},
        {"network_mode": "service:redis"},
    ],
)
def test_a_dependency_or_an_address_connects(body: Mapping[str, Any]) -> None:
    found_ = observe(DOWN, LOOP, services={"redis": {}, "api": body})
    assert found_ == {("service-down", "redis"): "", ("restart-loop", "api"): "service-down"}


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("python: No module named nowhere", ""),
        ("redis.exceptions.ConnectionError: Error 111 connecting to redis:6379", "service-down"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "service-down"),
    ],
)
def test_what_a_service_wrote_last_speaks_against_a_dependency(line: str, cause: str) -> None:
    services = {"redis": {}, "api": {"depends_on": {"redis": {}}}}
    api = container("api", status="restarting", log=("starting", line))
    found_ = observe(DOWN, LOOP, services=services, containers=(api,))
    assert found_["restart-loop", "api"] == cause


def test_a_model_is_missing_on_its_own_server_alone() -> None:
    models = room(
        "models.pulled",
        found("assistant", "missing", "it is not on the server"),
        states=(
            StoreState.model_validate(
                {"now": 0, "server": Server(status="up", container_name="ai-ollama-1")}
            ),
        ),
    )
    services = {"redis": {}, "ollama": {}, "api": {"depends_on": {"redis": {}, "ollama": {}}}}
    sick = found("api", "unhealthy", "its healthcheck fails")
    cause = "it asks the DNS servers of when it was started, 192.0.2.53"
    stale = found("ollama", "drift", cause, blocks=False)
    found_ = observe(stale, services=services, rooms=(models,))
    assert found_["stale-resolver", "ollama"] == ""
    # That it could not be pulled for that, nothing says.
    assert found_["model-missing", "assistant"] == ""
    found_ = observe(DOWN, services=services, rooms=(models,))
    assert found_["model-missing", "assistant"] == ""
    paused = found("ollama", "paused", "it is paused")
    found_ = observe(paused, sick, services=services, rooms=(models,))
    assert found_["model-missing", "assistant"] == "service-down"
    found_ = observe(sick, services=services, rooms=(models,))
    assert found_["unhealthy", "api"] == "model-missing"


def test_what_the_host_lacks_outside_explains_a_model_that_was_asked_for_there() -> None:
    outside = room("resolver.servers", found("192.0.2.9", "names do not resolve", "x"))
    refusal = Refusal(subject="llama3:8b", reason="cannot ask registry: no such host", remedy="x")
    missing = found("llama3:8b", "missing", "it is not on the server")
    alone = (outside, room("models.pulled", missing))
    found_ = observe(services={"ollama": {}}, rooms=alone)
    assert found_["model-missing", "llama3:8b"] == ""
    asked = (outside, room("models.pulled", missing, refusals=(refusal,)))
    found_ = observe(services={"ollama": {}}, rooms=asked)
    assert found_["model-missing", "llama3:8b"] == "network-outside"


ADDRESS = found(
    "worker.REDIS_URL",
    "address",
    "localhost:6379 is worker itself; redis has port 6379",
    evidence=("running container ai-worker-1: REDIS_URL is redis://localhost:6379",),
    blocks=False,
)
CALLS = {"redis": {}, "worker": {"depends_on": {"redis": {}}}, "web": {}}


def test_a_wrong_address_is_a_root_cause_and_its_service_fails_for_it() -> None:
    loop = found("worker", "restart loop", "it restarts again and again (9 times)")
    assert observe(ADDRESS, DOWN, loop, found("web", "unhealthy", "x"), services=CALLS) == {
        ("service-down", "redis"): "",
        ("service-unreachable", "worker.REDIS_URL"): "",
        # It depends on redis as well: what is in the service itself is nearer.
        ("restart-loop", "worker"): "service-unreachable",
        ("unhealthy", "web"): "",
    }
    found_ = observe(ADDRESS, loop, services=CALLS)
    assert found_["restart-loop", "worker"] == "service-unreachable"


def test_a_wrong_address_says_what_a_run_does_about_it() -> None:
    step = Action(verb="recreate", subject="worker", cause="environment.REDIS_URL: x → y")
    other = Action(verb="restart", subject="web", cause="z")
    reading = room(
        "compose.stack",
        ADDRESS,
        found("worker", "drift", "environment.REDIS_URL: x → y"),
        found("worker", "drift", "environment.OTHER: x → y"),
        actions=(step, other),
        states=(stack(container("worker"), container("web")), declare(CALLS)),
    )
    first, *others = diagnose(Observations(rooms=(reading,))).findings
    assert (first.incident, first.explained_by) == ("service-unreachable", "")
    assert first.steps == (str(step),)
    assert first.inventory == ""
    # That its environment differs is not said twice.
    assert [each.evidence[0].line for each in others] == ["worker: drift: environment.OTHER: x → y"]


def test_a_call_that_fails_is_explained_by_what_it_calls_and_not_by_its_caller() -> None:
    call = found("link worker → redis://redis:6379 (REDIS_URL)", "link", "connection refused")
    loop = found("worker", "restart loop", "it restarts again and again (9 times)")
    found_ = observe(call, DOWN, services=CALLS)
    assert found_["service-unreachable", call.subject] == "service-down"
    found_ = observe(call, loop, services=CALLS)
    assert found_["service-unreachable", call.subject] == ""
    sick = (found("worker", "unhealthy", "x"), found("redis", "unhealthy", "x"))
    found_ = observe(call, *sick, services=CALLS)
    assert found_["unhealthy", "worker"] == "service-unreachable"
    assert found_["unhealthy", "redis"] == ""


def test_a_check_is_explained_by_what_it_passes_through() -> None:
    check = found("the queue", "check", "nothing listens there")
    assert observe(check, DOWN, services=CALLS)["service-unreachable", "the queue"] == ""
    found_ = observe(check, DOWN, services=CALLS, checked={"the queue": ("worker", "redis")})
    assert found_["service-unreachable", "the queue"] == "service-down"


def test_a_line_of_a_log_is_of_its_own_service() -> None:
    full = Symptoms(logs=(log("OSError: [Errno 28] No space left on device", subject="web"),))
    disk = found("web", "unhealthy", "no space left on device")
    found_ = observe(disk, found("redis", "stopped", "x"), services=CALLS, symptoms=full)
    assert found_["disk-full", "web"] == ""
    assert found_["service-down", "redis"] == ""


names = st.sampled_from("abcde")


@given(
    kinds=st.dictionaries(names, st.sampled_from(sorted(CAUSE)), min_size=1),
    edges=st.sets(st.tuples(names, names).filter(lambda pair: pair[0] < pair[1])),
)
def test_each_that_is_explained_depends_on_one_that_is_found(
    kinds: dict[str, str], edges: set[tuple[str, str]]
) -> None:
    services = {
        name: {"depends_on": {on: {} for one, on in edges if one == name}} for name in "abcde"
    }
    found_ = observe(
        *(found(name, kind, CAUSE[kind]) for name, kind in kinds.items()), services=services
    )
    for name, kind in kinds.items():
        causes = {
            on for one, on in edges if one == name and kind in CAUSES.get(kinds.get(on, ""), set())
        }
        assert bool(found_[IDS[kind], name]) is bool(causes), (name, found_)
        # Whatever explains it is itself found, and is a root cause somewhere.
        if cause := found_[IDS[kind], name]:
            assert "" in {by for (incident, _), by in found_.items() if incident == cause}


def test_the_demo_has_each_incident_for_its_own_reason() -> None:
    """Every way of the runbook at once, a restart loop, and a redis that everybody reaches."""
    services = {
        "redis": {"ports": [{"host_ip": "127.0.0.1", "published": "6379", "target": 6379}]},
        "ollama": {},
        "api": {"depends_on": {"redis": {}}, "environment": {"REDIS_URL": "redis://redis:6379"}},
        "worker": {"depends_on": {"redis": {}, "ollama": {}}},
    }
    state: StackState = stack(
        container("redis", image="redis:7", published=("0.0.0.0:6380->6379/tcp",)),
        container("ollama"),
        container("api", status="restarting", log=("python: No module named nowhere",)),
        container("worker"),
    )
    rooms = (
        room("resolver.servers", found("192.0.2.99", "names do not resolve", "nobody answers")),
        room("ports.free", found("127.0.0.1:6379/tcp", "held", "held by unit squatter.service")),
        room(
            "compose.stack",
            found("redis", "drift", "ports: 0.0.0.0:6380->6379/tcp → 127.0.0.1:6379->6379/tcp"),
            found("api", "restart loop", "it restarts again and again (9 times, last exit code 1)"),
            ADDRESS,
            found("worker", "unhealthy", "its healthcheck fails: Connection refused"),
            states=(state, declare(services)),
        ),
        room(
            "models.pulled",
            found("assistant", "missing", "it is not on the server"),
            states=(
                StoreState.model_validate(
                    {"now": 0, "server": Server(status="up", container_name="ai-ollama-1")}
                ),
            ),
        ),
        room("worker.engine", found("slow", "legacy worker", "one thread", blocks=False)),
    )
    diagnosis = diagnose(Observations(rooms=rooms))
    roots = {each.incident for each in diagnosis.findings if not each.explained_by}
    assert roots >= {
        "network-outside",
        "port-taken",
        "model-missing",
        "service-unreachable",
        "worker-unaccelerated",
        "restart-loop",
        "redis-exposed",
    }
    assert explain(diagnosis)["unhealthy", "worker"] == "service-unreachable"
    text = format_text("ai1", diagnosis) + "\n"
    path = GOLDEN / "demo.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
