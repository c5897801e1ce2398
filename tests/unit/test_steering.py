"""What would lead Docker and Compose elsewhere is told, and blocks nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given

from stackmend.compose.plan.decide import plan
from stackmend.compose.state import Engine
from stackmend.connection import read_script
from stackmend.engine.plan import plan_engine, plan_settings
from stackmend.engine.spec import Installation
from stackmend.steering import find_ignored, parse_ignored
from tests import hostile
from tests.unit import engine_world
from tests.unit.compose_shop import shop
from tests.unit.compose_world import well

SCRIPT = read_script("stackmend.connection", "steering")


@pytest.mark.parametrize(
    ("ignored", "config", "expected"),
    [
        ("", "", ()),
        (" DOCKER_HOST COMPOSE_FILE", "", ("DOCKER_HOST", "COMPOSE_FILE")),
        ("", '{\n\t"auths": {},\n\t"currentContext": "desktop"\n}', ("context desktop",)),
        ("", '{"currentContext" : "a.b-c_d+1","x":1}', ("context a.b-c_d+1",)),
        ("", '{"currentContext": "default"}', ()),
        ("", '{"currentContext": ""}', ()),
        ("", '{"currentContext": "$(id)"}', ()),
        (" DOCKER_TLS", '{"currentContext": "x\x1b[2Jy"}', ("DOCKER_TLS",)),
        ("", "not json", ()),
    ],
)
def test_what_the_script_reads(
    tmp_path: Path, ignored: str, config: str, expected: tuple[str, ...]
) -> None:
    if config:
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker/config.json").write_text(config)
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "STACKMEND_IGNORED": ignored}
    command = ["sh", "-c", f"{SCRIPT}steering"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert parse_ignored(done.stdout.split("\n")) == expected


@given(hostile.hostile_text())
def test_no_line_of_a_host_is_a_name_unless_it_looks_like_one(line: str) -> None:
    for name in parse_ignored([line, f"variable {line}", f"context {line}"]):
        assert name.replace("context ", "").replace(".", "").isascii()
        assert name.isprintable()


def test_nothing_ignored_is_nothing_found() -> None:
    assert find_ignored("shop", ()) == ()


def test_a_stack_that_is_well_stays_so_and_the_variable_is_named() -> None:
    desired = shop()
    state = (
        well(desired)
        .state()
        .model_copy(
            update={"ignored": ("DOCKER_HOST", "context far"), "defaults": (".env", *desired.files)}
        )
    )
    decided = plan(desired.spec, desired.files, desired.digest, state)
    steered, stray = (found for found in decided.findings if found.kind == "ignored")
    assert decided.empty
    assert not decided.actions
    assert "DOCKER_HOST, context far" in steered.cause
    assert '"_env": {"DOCKER_HOST"' in steered.remedy
    assert f"{desired.spec.directory}/.env;" in stray.cause
    assert not any(name in stray.cause for name in desired.files)


def test_what_is_recorded_is_no_stray() -> None:
    """It was the project's a moment ago, and goes with the change."""
    desired = shop()
    world = well(desired)
    state = world.state()
    assert state.applied is not None
    recorded = state.applied.model_copy(update={"files": {**state.applied.files, ".env": "1" * 64}})
    state = state.model_copy(update={"defaults": (".env",), "applied": recorded})
    decided = plan(desired.spec, desired.files, desired.digest, state)
    assert not [found for found in decided.findings if found.kind == "ignored"]


def test_an_engine_that_is_well_stays_so_and_the_variable_is_named() -> None:
    state = engine_world.bare(ignored=("DOCKER_HOST",))
    decided = plan_engine(Installation(channel="distro"), state)
    assert [found.kind for found in decided.findings] == ["ignored"]
    assert not decided.problems


def test_an_engine_that_hangs_is_refused_with_its_remedy_and_not_started() -> None:
    listed = {"docker.io": "26.1.5+dfsg1-9", "docker-compose": "2.26.1-4"}
    state = engine_world.engine(listed, status="hung", reason="docker did not answer")
    for decided in (
        plan_engine(Installation(channel="distro"), state),
        plan_settings({"live-restore": True}, (), state),
    ):
        assert not decided.actions
        (refusal,) = decided.refusals
        assert refusal.reason == "the engine hangs: docker did not answer"
        assert "systemctl restart docker" in refusal.remedy
    # Where nothing is to be changed, the one refusal is enough.
    assert plan_settings({}, (), state).empty
    desired = shop()
    world = well(desired)
    world.engine = Engine(status="hung", reason="does not answer within 10 s")
    decided = world.observe(desired)
    (refusal,) = decided.refusals
    assert refusal.reason == "the Docker daemon hangs: it does not answer within 10 s"
    assert "systemctl restart docker" in refusal.remedy
