"""From what was read of a host to what it has: root causes first, nothing lost, nothing made up.

Each scenario's diagnosis lies as plain text below ``golden/incidents_diagnosis``. ``UPDATE_GOLDEN=1
pytest`` writes them anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import jsonschema
import pytest

from stackmend.compose.state import CheckedServices, Container, Engine, StackState
from stackmend.decision import Action, Finding, Locked, Plan, Refusal
from stackmend.diagnosis import Diagnosis, Evidence
from stackmend.incidents import (
    Incident,
    Log,
    LogLine,
    Observations,
    RoomReading,
    StatePattern,
    Symptoms,
    TextPattern,
    diagnose,
    list_incidents,
    schema,
)
from stackmend.reporting.diagnoses import format_text
from stackmend.text import VALUE_LIMIT

GOLDEN = Path(__file__).with_name("golden") / "incidents_diagnosis"


def found(subject: str, kind: str, cause: str, **more: object) -> Finding:
    return Finding.model_validate({"subject": subject, "kind": kind, "cause": cause, **more})


def room(
    operation: str,
    *findings: Finding,
    actions: Iterable[Action] = (),
    refusals: Iterable[Refusal] = (),
    states: Iterable[object] = (),
    problem: str = "",
) -> RoomReading:
    plan = Plan[Action](findings=findings, actions=tuple(actions), refusals=tuple(refusals))
    return RoomReading(operation=operation, plan=plan, states=tuple(states), problem=problem)


def log(
    text: str, *, age: float | None = 12.0, subject: str = "web", kind: str = "container"
) -> Log:
    return Log.model_validate(
        {
            "source": f"log of {subject}",
            "kind": kind,
            "subject": subject,
            "lines": (LogLine(text="starting", age=900.0), LogLine(text=text, age=age)),
        }
    )


def container(name: str, **more: object) -> Container:
    fields = {"id": name, "name": f"ai-{name}-1", "service": name, "status": "running"}
    fields |= {"image": name, "image_id": "sha256:1"}
    return Container.model_validate({**fields, **more})


def stack(*containers: Container) -> StackState:
    return StackState(now=10_000.0, engine=Engine(status="up"), containers=containers)


HELD = found(
    "127.0.0.1:8000/tcp",
    "held",
    "held by unit squatter.service",
    evidence=("tcp 0.0.0.0:8000 LISTEN",),
)
NOT_ALLOWED = Refusal(
    subject="127.0.0.1:8000/tcp",
    reason="held by unit squatter.service",
    remedy='add "on_conflict": "stop", "allow": ["unit:squatter.service"] to "ports"',
)
STOPPED = found("api", "stopped", "it exited with code 0 and was not restarted")
START = Action(verb="start", subject="api", cause=STOPPED.cause)
NO_ENGINE = Refusal(
    subject="engine", reason="the Docker daemon does not run", remedy="start it on the host"
)
NO_SERVER = found("service ollama", "stopped", "the model server is not there yet")

SCENARIOS = {
    "healthy": Observations(
        rooms=(
            room("ports.free"),
            room(
                "compose.stack",
                found("redis", "check", "no check asks whether it takes writes", blocks=False),
                states=(stack(container("redis"), container("ollama")),),
            ),
        ),
        # Both are of the past: what they are symptoms of was asked for, and is not so.
        symptoms=Symptoms(
            logs=(
                log("Error: connect ECONNREFUSED 172.18.0.3:6379"),
                log("Bind for 0.0.0.0:8000 failed: port is already allocated"),
            )
        ),
    ),
    "a port is taken, and its service is down": Observations(
        rooms=(
            room("ports.free", HELD, refusals=(NOT_ALLOWED,)),
            room(
                "compose.stack",
                STOPPED,
                found("check api", "check", "nothing listens there", evidence=("a", "b", "c", "d")),
                actions=(START,),
                states=(
                    stack(
                        container(
                            "api", status="exited", shape={"ports": ["127.0.0.1:8000->8000/tcp"]}
                        )
                    ),
                    CheckedServices(services={"check api": ("api",)}),
                ),
            ),
        ),
        symptoms=Symptoms(logs=(log("port is already allocated", subject="docker", kind="unit"),)),
    ),
    "two services are down, each for another reason": Observations(
        rooms=(
            room("ports.free", HELD),
            room(
                "compose.stack",
                found("api", "stopped", "it exited with code 0"),
                found("worker", "exited", "it exited with code 3"),
                actions=(
                    Action(verb="start", subject="api", cause="it exited with code 0"),
                    Action(verb="start", subject="worker", cause="it exited with code 3"),
                ),
                states=(
                    stack(
                        container(
                            "api",
                            status="exited",
                            shape={"ports": ["127.0.0.1:8000->8000/tcp"]},
                        ),
                        container("worker", status="exited"),
                    ),
                ),
            ),
        ),
    ),
    "two are down and nothing connects them": Observations(
        rooms=(
            room("ports.free", HELD),
            room(
                "compose.stack",
                STOPPED,
                found("check web", "check", "nothing listens there"),
                states=(stack(container("api", status="exited"), container("web")),),
            ),
        ),
    ),
    "without an engine nothing else is known": Observations(
        rooms=(
            room(
                "engine.installed", actions=(Action(verb="start", subject="engine", cause="it is"),)
            ),
            room("compose.stack", refusals=(NO_ENGINE,)),
            room("models.pulled", problem="the model server cannot be read: no engine"),
        ),
    ),
    "a room that fails hides no other": Observations(
        rooms=(
            room("compose.stack", problem="RuntimeError: out of order"),
            room("ports.free", HELD),
        ),
    ),
    "only logs": Observations(
        rooms=(room("ports.free"),),
        symptoms=Symptoms(
            logs=(log("Error 111 connecting to redis:6379. Connection refused.", subject="worker"),)
        ),
    ),
    "no logs": Observations(rooms=(room("ports.free"),), problem="timed out"),
    "a server that is down keeps its models from being read": Observations(
        rooms=(
            room("compose.stack", found("ollama", "paused", "it is paused")),
            room("models.pulled", NO_SERVER),
        ),
    ),
    "killed, exposed and restarted again": Observations(
        rooms=(
            room(
                "compose.stack",
                found("worker", "restart loop", "it restarts again and again (9 times)"),
                states=(
                    stack(
                        container(
                            "worker",
                            status="restarting",
                            oom_killed=True,
                            restart_count=9,
                            started_at=9_990.0,
                        ),
                        container("redis", published=("0.0.0.0:6379->6379/tcp",), image="redis:7"),
                        container(
                            "cache",
                            published=("0.0.0.0:6380->6379/tcp",),
                            image="redis:7",
                            shape={"command": ["redis-server", "--requirepass", "x"]},
                        ),
                        container(
                            "ollama",
                            published=("127.0.0.1:11434->11434/tcp", ":::11434->11434/tcp"),
                            image="ollama/ollama:0.12",
                        ),
                    ),
                ),
            ),
        ),
    ),
    "what no incident names is not lost": Observations(
        rooms=(
            room(
                "compose.stack",
                found("web", "image", "it runs another image"),
                actions=(
                    Action(verb="recreate", subject="web", cause="it runs another image"),
                    Action(verb="remove", subject="network old", cause="nobody uses it"),
                ),
                refusals=(
                    Refusal(subject="volume x", reason="it would be lost", remedy="move its data"),
                ),
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_diagnosed_as_recorded(name: str) -> None:
    diagnosis = diagnose(SCENARIOS[name])
    lines = [format_text("host1", diagnosis)]
    lines += [f"{check.name}: {check.status}" for check in diagnosis.checks]
    rendered = "\n".join(lines) + "\n"
    path = GOLDEN / f"{name.replace(' ', '-').replace(',', '')}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(rendered)
    assert rendered == path.read_text()
    assert max(map(len, format_text("host1", diagnosis).splitlines())) <= 80


def test_the_golden_files_are_those_of_the_scenarios() -> None:
    names = {f"{name.replace(' ', '-').replace(',', '')}.txt" for name in SCENARIOS}
    assert {path.name for path in GOLDEN.iterdir()} == names


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_diagnosis_fits_its_schema_and_comes_back_as_it_was(name: str) -> None:
    diagnosis = diagnose(SCENARIOS[name])
    data = json.loads(json.dumps(diagnosis.to_json()))
    jsonschema.validate(data, json.loads(schema.PATH.read_text()))
    assert Diagnosis.model_validate(data) == diagnosis


def test_the_committed_schema_is_current() -> None:
    """``python -m stackmend.incidents.schema > ops/stackmend/incidents/schema-1.json``."""
    assert json.loads(schema.PATH.read_text()) == json.loads(json.dumps(schema.generate()))


def test_unknown_and_skipped_are_never_healthy() -> None:
    assert diagnose(SCENARIOS["healthy"]).healthy
    assert not diagnose(SCENARIOS["no logs"]).healthy
    down = diagnose(SCENARIOS["without an engine nothing else is known"])
    statuses = {check.name: (check.status, check.reason) for check in down.checks}
    assert statuses["engine-down"] == ("finding", "")
    assert statuses["service-down"] == ("skipped", "engine-down")
    assert statuses["model-missing"] == ("skipped", "engine-down")
    assert statuses["disk-full"][0] == "skipped"


def make(name: str, *explains: str, **more: object) -> Incident:
    fields = {"id": name, "title": name, "severity": "error", "remedy": "mend it", "proof": "none"}
    state = StatePattern(operation="x", kinds=frozenset({name}))
    return Incident.model_validate({**fields, "explains": explains, "states": (state,), **more})


def arrange(*incidents: Incident) -> list[tuple[str, str]]:
    findings = [found("web", each.id, "so it is") for each in incidents]
    diagnosis = diagnose(Observations(rooms=(room("x", *findings),)), incidents)
    return [(each.incident, each.explained_by) for each in diagnosis.findings]


def test_what_explains_what_explains_it_is_the_root() -> None:
    chain = make("c"), make("b", "c"), make("a", "b")
    assert arrange(*chain) == [("a", ""), ("c", "a"), ("b", "a")]


def test_two_roots_are_ordered_by_severity_each_with_its_own() -> None:
    two = make("mild", "x1", severity="warning"), make("x1"), make("bad", severity="critical")
    assert arrange(*two) == [("bad", ""), ("mild", ""), ("x1", "mild")]


def test_incidents_that_explain_each_other_are_all_shown() -> None:
    circle = make("a", "b"), make("b", "a"), make("c", severity="critical")
    assert arrange(*circle) == [("c", ""), ("a", ""), ("b", "a")]


class Raising(Incident):
    """One of a user's that is out of order."""

    def find(self, observations: Observations) -> Iterable[tuple[str, Evidence]]:
        raise RuntimeError("\x1b[31mout of order")


class Wrong(Incident):
    """One of a user's that finds what is no evidence."""

    def find(self, observations: Observations) -> Iterable[tuple[str, Evidence]]:
        return [("web", "a line")]  # type: ignore[list-item]


class Leaving(Incident):
    """One of a user's that wants to end the run."""

    def find(self, observations: Observations) -> Iterable[tuple[str, Evidence]]:
        raise SystemExit(3)


class Long(Incident):
    """One of a user's that says very much."""

    def find(self, observations: Observations) -> Iterable[tuple[str, Evidence]]:
        return [("web", Evidence(line="x" * 1_000_000, source="y" * 1_000_000))]


def test_what_a_search_finds_is_cut() -> None:
    fields = {"id": "long", "title": "x", "severity": "error", "remedy": "x", "proof": "x"}
    diagnosis = diagnose(SCENARIOS["healthy"], [Long.model_validate(fields)])
    ((evidence,),) = (finding.evidence for finding in diagnosis.findings)
    assert max(len(evidence.line), len(evidence.source)) < 2 * VALUE_LIMIT


def test_one_that_raises_hides_no_other_and_is_not_ok() -> None:
    fields = {"title": "x", "severity": "error", "remedy": "x", "proof": "x"}
    own = [
        Raising.model_validate({"id": "raising", **fields}),
        Wrong.model_validate({"id": "wrong", **fields}),
        Leaving.model_validate({"id": "leaving", **fields}),
    ]
    diagnosis = diagnose(SCENARIOS["a room that fails hides no other"], list_incidents(own))
    checks = {check.name: check for check in diagnosis.checks}
    assert {checks[name].status for name in ("raising", "wrong", "leaving")} == {"unknown"}
    assert checks["raising"].reason == "its search raised RuntimeError: \\x1b[31mout of order"
    assert [each.incident for each in diagnosis.findings] == ["port-taken"]


def test_a_symptom_that_no_operation_is_asked_for_is_a_finding_of_its_own() -> None:
    own = Incident(
        id="greeting-lost",
        title="x",
        severity="critical",
        patterns=(
            TextPattern(pattern="no greeting", examples=("no greeting",)),
            TextPattern(pattern="starting", examples=("starting",), sources=frozenset({"engine"})),
        ),
        remedy="x",
        proof="x",
    )
    observations = Observations(symptoms=Symptoms(logs=(log("no greeting today"),)))
    (finding,) = diagnose(observations, [own]).findings
    # A line of a log proves less than what an operation reads.
    assert finding.severity == "warning"
    assert finding.evidence == (Evidence(line="no greeting today", source="log of web", age=12.0),)
    assert finding.subjects == ("web",)
    quiet = Observations(symptoms=Symptoms(logs=(log("all is well"),)))
    assert [check.status for check in diagnose(quiet, [own]).checks] == ["ok"]
    assert diagnose(Observations(), [own]).checks == ()


def test_logs_that_cannot_be_read_are_unknown_unless_an_incident_is_why() -> None:
    symptoms = Symptoms(problems=(("the engine", "no answer"),))
    diagnosis = diagnose(Observations(rooms=(room("ports.free"),), symptoms=symptoms))
    statuses = {check.name: (check.status, check.reason) for check in diagnosis.checks}
    assert statuses["symptoms"] == statuses["oom-killed"] == ("unknown", "the engine: no answer")
    assert statuses["port-taken"] == ("ok", "")
    rooms = (room("compose.stack", refusals=(NO_ENGINE,)),)
    diagnosis = diagnose(Observations(rooms=rooms, symptoms=symptoms))
    statuses = {check.name: (check.status, check.reason) for check in diagnosis.checks}
    assert statuses["symptoms"] == ("skipped", "engine-down")


def test_what_a_host_says_cannot_steer_the_terminal() -> None:
    name = "web\x1b]0;owned\x07\u202e"
    observations = Observations(
        rooms=(room("ports.free", found(name, "held", f"<b>{name}</b>\nheld")),),
    )
    text = format_text("host1", diagnose(observations))
    assert not [c for c in text if ord(c) < 32 and c != "\n"]
    assert "\u202e" not in text


def test_a_legacy_worker_that_waits_is_named_all_the_same() -> None:
    waits = found("slow", "waits", "not moved: ai is not healthy", blocks=False)
    diagnosis = diagnose(Observations(rooms=(room("worker.engine", waits),)))
    assert [finding.incident for finding in diagnosis.findings] == ["worker-unaccelerated"]


ENTRY = {"entrypoint": ["docker-entrypoint.sh"], "command": ["redis-server"]}


def find_exposed(image: str, shape: dict[str, object]) -> list[str]:
    redis = container("redis", image=image, published=("0.0.0.0:6379->6379/tcp",), shape=shape)
    diagnosis = diagnose(Observations(rooms=(room("compose.stack", states=(stack(redis),)),)))
    return [finding.incident for finding in diagnosis.findings]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        ENTRY,
        {**ENTRY, "command": ["redis-server", "--appendonly", "yes"]},
        {**ENTRY, "command": ["--save", "60 1"]},
        {**ENTRY, "command": ["redis-server", "--save", "", "--protected-mode", "no"]},
        {"entrypoint": ["/usr/local/bin/redis-server", "--appendonly", "yes"]},
        {**ENTRY, "environment": {"REDIS_VERSION": "8.0", "PATH": "/bin"}},
    ],
)
def test_a_redis_that_surely_has_no_password_is_exposed(shape: dict[str, object]) -> None:
    assert find_exposed("docker.io/library/redis:8", shape) == ["redis-exposed"]


@pytest.mark.parametrize(
    "shape",
    [
        {**ENTRY, "command": ["redis-server", "--requirepass", "*"]},
        {**ENTRY, "command": ["redis-server", "/usr/local/etc/redis/redis.conf"]},
        {**ENTRY, "command": ["redis-server", "settings"]},
        {**ENTRY, "command": ["--aclfile", "/users.acl"]},
        {**ENTRY, "command": ["--include", "/more"]},
        {**ENTRY, "command": ["redis-server", "--protected-mode", "yes"]},
        {**ENTRY, "command": ["--protected-mode", "no", "--requirepass", "*"]},
        {**ENTRY, "command": ["sh", "-c", "exec redis-server $OPTIONS"]},
        {"entrypoint": ["/start.sh"]},
        {**ENTRY, "environment": {"REDIS_PASSWORD": "*"}},
        {**ENTRY, "environment": {"REDIS_ARGS": "--requirepass *"}},
        {**ENTRY, "volumes": {"/redis-stack.conf": {}}},
    ],
)
def test_one_that_may_have_a_password_is_not(shape: dict[str, object]) -> None:
    assert find_exposed("redis/redis-stack-server:7", shape) == []


def test_a_model_that_a_service_names_and_the_server_lacks_is_missing() -> None:
    """Nobody declares it: the stack answers nothing all the same."""
    named = found(
        "llama3.2:1b",
        "named",
        "OLLAMA_MODEL of worker names it, but it is not on the server",
        blocks=False,
    )
    diagnosis = diagnose(Observations(rooms=(room("models.pulled", named),)))
    assert [each.incident for each in diagnosis.findings] == ["model-missing"]
    assert diagnosis.findings[0].subjects == ("llama3.2:1b",)
    assert diagnosis.notes == ()
    # As an image of a chat has it, for its own ears.
    other = named.model_copy(update={"cause": "WHISPER_MODEL of chat names it, but it is absent"})
    diagnosis = diagnose(Observations(rooms=(room("models.pulled", other),)))
    assert diagnosis.findings == ()
    assert len(diagnosis.notes) == 1


OPEN = ({"address": "0.0.0.0", "port": 6379}, {"address": "::", "port": 11434})
OWN = ({"address": "127.0.0.1", "port": 6379}, {"address": "172.17.0.1", "port": 11434})


def listen(
    listeners: Iterable[dict[str, object]] | None, *containers: Container
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """What is exposed where this listens, with its subjects; and the status of each check."""
    raw = None if listeners is None else tuple(listeners)
    observations = Observations(
        rooms=(room("compose.stack", states=(stack(*containers),)),),
        symptoms=Symptoms.model_validate({"listeners": raw}),
    )
    diagnosis = diagnose(observations)
    return (
        {each.incident: each.subjects for each in diagnosis.findings},
        {check.name: check.status for check in diagnosis.checks},
    )


def test_what_shares_the_hosts_network_is_exposed_by_what_it_listens_on() -> None:
    shared = {"network_mode": "host"}
    cache = container("cache", image="redis:8", shape=shared)
    model = container("llm", image="ollama/ollama:0.12", shape=shared)
    found, _ = listen(OPEN, cache, model)
    assert found == {"redis-exposed": ("cache",), "ollama-exposed": ("llm",)}
    found, checks = listen(OWN, cache, model)
    assert (found, checks["redis-exposed"], checks["ollama-exposed"]) == ({}, "ok", "ok")
    # Nobody can say so where nothing was read: it is no `ok`.
    found, checks = listen(None, cache, model)
    assert found == {}
    assert (checks["redis-exposed"], checks["ollama-exposed"]) == ("unknown", "unknown")
    moved = cache.model_copy(update={"shape": {**shared, "command": ["--port", "7000"]}})
    assert listen([{"address": "*", "port": 7000}], moved)[0] == {"redis-exposed": ("cache",)}
    guarded = cache.model_copy(update={"shape": {**shared, "command": ["--requirepass", "x"]}})
    assert listen(OPEN[:1], guarded)[0] == {}


def test_a_model_server_that_is_no_container_is_exposed_as_well() -> None:
    unit = {"address": "*", "port": 11434, "program": "ollama"}
    assert listen([unit])[0] == {"ollama-exposed": ("ollama",)}
    assert listen([{**unit, "port": 8080}])[0] == {"ollama-exposed": ("ollama",)}
    assert listen([{**unit, "program": "docker-proxy"}])[0] == {}
    assert listen([{**unit, "address": "127.0.0.1"}, {"address": "*", "port": 22}])[0] == {}


@pytest.mark.parametrize(
    "shape",
    [
        {"entrypoint": ["redis-server"]},
        {"entrypoint": ["docker-entrypoint.sh"], "command": ["valkey-server", "--save", ""]},
    ],
)
def test_a_redis_is_known_by_what_it_runs_as_well(shape: dict[str, object]) -> None:
    assert find_exposed("registry.lan/team/cache:1", shape) == ["redis-exposed"]


def test_another_run_hides_no_finding_and_is_none() -> None:
    locked = Locked(subject="host", reason="another run is at work here: ann", remedy="wait")
    diagnosis = diagnose(
        Observations(rooms=(room("ports.free", refusals=(locked,)), room("compose.stack", STOPPED)))
    )
    assert [each.incident for each in diagnosis.findings] == ["service-down"]
    checks = {check.name: (check.status, check.reason) for check in diagnosis.checks}
    assert checks["ports.free"] == ("unknown", locked.reason)
    assert checks["port-taken"] == ("unknown", locked.reason)
