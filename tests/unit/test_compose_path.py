"""The path of a check: the hops that a declaration names, and who is to blame for a broken one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.checks.spec import RedisCheck
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.path import Hop, find_blame, find_hops, list_unknown, make_checks
from tests.unit.compose_world import PROJECT, Desired, World, compose, well

STACK: dict[str, Any] = {
    "api": {"environment": {"REDIS_URL": "redis://redis:6379/0"}, "depends_on": {"model": {}}},
    "redis": {"image": "redis:7"},
    "model": {"expose": ["11434"], "environment": {"PEER": "http://api:8000"}},
    "idle": {},
}


def hops(services: dict[str, Any], *start: str) -> list[str]:
    return [str(hop) for hop in find_hops(services, PROJECT, start)]


def test_a_path_leads_on_from_service_to_service_and_ends() -> None:
    assert hops(STACK, "api") == [
        "api → redis:6379",
        "api → model:11434",
        "model → api:8000",
    ]
    assert hops(STACK, "idle") == hops(STACK, "nobody") == []


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({"URL": "redis://redis"}, 6379),
        ({"URL": "redis://:pa:ss@redis:7000/1"}, 7000),
        ({"URL": "postgresql+psycopg://user@redis/name"}, 5432),
        ({"URL": "http://redis/path"}, 80),
        ({"BROKERS": "other:1,redis:9092"}, 9092),
        ({"REDIS_HOST": "redis", "REDIS_PORT": "6380"}, 6380),
        ({"REDIS_HOST": "redis"}, 6379),
        ({"MODE": "redis"}, None),
        ({"URL": "redis://localhost:6379"}, None),
        ({"URL": "http://redis.example.org:80"}, None),
        ({"URL": "http://my-redis:80"}, None),
        ({"URL": "http://redis:redis@elsewhere"}, None),
        ({"URL": "http://redis:99999"}, None),
    ],
)
def test_addresses_in_the_environment(environment: dict[str, str], port: int | None) -> None:
    services = {"api": {"environment": environment}, "redis": {"image": "redis:7"}}
    assert hops(services, "api") == ([] if port is None else [f"api → redis:{port}"])


@pytest.mark.parametrize(
    ("command", "port"),
    [
        (["celery", "-A", "app", "-b", "redis://redis:6380/0", "worker"], 6380),
        (["sh", "-c", "exec app --queue=redis:6381"], 6381),
        ("app --broker redis://redis", 6379),
        (["redis"], None),
        (["app", "--name", "redis"], None),
    ],
)
def test_addresses_in_a_command(command: Any, port: int | None) -> None:
    services = {"api": {"command": command}, "redis": {"image": "redis:7"}}
    assert hops(services, "api") == ([] if port is None else [f"api → redis:{port}"])


@pytest.mark.parametrize(
    ("url", "redis"),
    [
        ("redis://redis", True),
        ("redis://:password@redis", True),
        ("redis://default:password@redis", True),
        ("redis://app:password@redis", False),
        ("rediss://redis", False),
    ],
)
def test_a_redis_that_only_its_caller_may_ask_is_not_asked_as_such(url: str, redis: bool) -> None:
    services = {"api": {"environment": {"URL": url}}, "redis": {"image": "redis:7"}}
    (hop,) = find_hops(services, PROJECT, ["api"])
    assert hop.redis is redis


def test_each_hop_is_asked_from_three_places() -> None:
    desired = Desired(compose(STACK))
    found = make_checks(
        find_hops(desired.services, PROJECT, ["api"])[:2], desired.services, well(desired).state()
    )
    assert {check.name: (check.kind, check.source, check.host) for check in found} == {
        "api → redis:6379": ("redis", "api", "redis"),
        "redis:6379 in its own network": ("redis", "redis", "127.0.0.1"),
        "host → redis:6379": ("tcp", None, "10.0.0.9"),
        "api → model:11434": ("tcp", "api", "model"),
        "model:11434 in its own network": ("tcp", "model", "127.0.0.1"),
        "host → model:11434": ("tcp", None, "10.0.0.9"),
    }


@pytest.mark.parametrize(
    ("body", "role"),
    [
        ({"command": ["redis-server", "--appendonly", "yes"]}, "master"),
        ({"command": ["--replicaof", "a 1"]}, "any"),
        ({"environment": {"REDIS_REPLICAOF": "a 1"}}, "any"),
        # The check reads the file that the command names, and only there.
        ({"command": ["redis-server", "/etc/redis.conf"]}, "master"),
        ({"command": ["sh", "-c", "exec redis-server /etc/redis.conf"]}, "master"),
        ({"command": ["redis-server", "/etc/redis.conf", "--requirepass", "x"]}, "any"),
        ({"volumes": [{"type": "bind", "source": "/c", "target": "/usr/local/etc/redis"}]}, "any"),
        ({"volumes": [{"type": "volume", "source": "d", "target": "/data"}]}, "master"),
    ],
)
def test_a_declared_replica_need_not_be_a_master(body: dict[str, Any], role: str) -> None:
    services: dict[str, Any] = {
        "api": {"environment": {"R": "redis:1"}},
        "redis": {"image": "redis", **body},
    }
    found = make_checks(find_hops(services, PROJECT, ["api"]), services, World().state())
    assert {check.role for check in found if isinstance(check, RedisCheck)} == {role}


REDIS = Hop(source="api", target="redis", port=6379, redis=True)
MODEL = Hop(source="api", target="model", port=11434)


def results(**outcomes: str) -> dict[str, CheckResult]:
    names = {
        "redis": str(REDIS),
        "own": REDIS.own,
        "outer": REDIS.outer,
        "model": str(MODEL),
    }
    return {
        names[key]: CheckResult(
            name=names[key],
            outcome=value.removeprefix("harmful "),  # type: ignore[arg-type]
            evidence=f"asked: {key} {value}",
            hints=("restart-harms",) if value.startswith("harmful") else (),
            remedy="wait" if value.startswith("harmful") else "",
        )
        for key, value in outcomes.items()
    }


@pytest.mark.parametrize(
    ("outcomes", "service", "spared"),
    [
        # It does not even answer itself: a password, a wrong role, a hung process.
        ({"redis": "failed", "own": "failed", "outer": "passed"}, "redis", ""),
        # Off its bridge, or it listens on its own loopback only.
        ({"redis": "failed", "own": "passed", "outer": "failed"}, "redis", ""),
        # The one that calls is cut off.
        ({"redis": "failed", "own": "passed", "outer": "passed", "model": "failed"}, "api", ""),
        ({"redis": "failed", "own": "passed", "outer": "passed"}, "api", ""),
        # Both ends are well: a rule between them.
        ({"redis": "failed", "own": "passed", "outer": "passed", "model": "passed"}, "", ""),
        # It would lose what it holds.
        ({"redis": "harmful failed", "own": "harmful failed", "outer": "passed"}, "", "redis"),
        ({"redis": "failed", "own": "harmful failed", "outer": "failed"}, "", "redis"),
        # Nothing is known of its ends.
        ({"redis": "failed"}, "redis", ""),
        ({"redis": "failed", "own": "unknown", "outer": "passed"}, "redis", ""),
    ],
)
def test_who_is_to_blame(outcomes: dict[str, str], service: str, spared: str) -> None:
    first, *_ = find_blame([REDIS, MODEL], results(**outcomes))
    assert (first.service, first.spared) == (service, spared)
    assert first.evidence.startswith("api → redis:6379: ")


def test_nobody_is_blamed_for_what_passes_or_is_not_known() -> None:
    assert find_blame([REDIS, MODEL], results(redis="passed", own="failed")) == ()
    unknown = results(redis="unknown", own="failed")
    assert find_blame([REDIS], unknown) == ()
    assert list_unknown([REDIS], unknown) == ("api → redis:6379: redis unknown",)
    assert find_blame([REDIS], {}) == list_unknown([REDIS], {}) == ()


OUTCOMES = st.sampled_from(["passed", "failed", "unknown", "harmful failed"])


@given(st.fixed_dictionaries(dict.fromkeys(("redis", "own", "outer", "model"), OUTCOMES)))
def test_only_an_end_of_a_broken_hop_is_blamed(outcomes: dict[str, str]) -> None:
    found = results(**outcomes)
    broken = {hop for hop in (REDIS, MODEL) if found[str(hop)].outcome == "failed"}
    blamed = find_blame([REDIS, MODEL], found)
    assert bool(blamed) == bool(broken)
    ends = {"", *(end for hop in broken for end in (hop.source, hop.target))}
    assert {blame.service for blame in blamed} <= ends
    if REDIS in broken and "harmful" in outcomes["redis"]:
        assert "redis" not in {blame.service for blame in blamed}
