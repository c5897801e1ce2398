"""Addresses that running containers have, and that their services' sections do not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stackmend.addresses import classify_containers
from stackmend.addresses.state import ImageFacts, Judgement, Running
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.link_checks import make_link_checks, name_check
from stackmend.compose.plan.link_correction import list_correctable, make_correction
from stackmend.compose.plan.links import classify_links, describe_others
from stackmend.decision import Finding
from tests.unit.addresses_world import judge, project
from tests.unit.compose_world import Desired, World, classify_asked, compose, well

IMAGES = {"app:1": ImageFacts(env={"PATH": "/bin", "CACHE_URL": "redis://localhost:6379/9"})}
DECLARED = {"REDIS_URL": "redis://redis:6379", "EMPTY": None}


def classified(
    containers: Mapping[str, Mapping[str, str]], images: Any = IMAGES, **more: Any
) -> tuple[Judgement, ...]:
    body = {"image": "app:1", "environment": DECLARED, **more}
    config = project({"app": body, "redis": {"image": "redis:7"}, "page": {"image": "nginx"}})
    running = Running(environments={"app": containers})
    return classify_containers(config, running, images, (), judge(config, images=images))


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        # What its section and its image say, and what an image that is not known may bring.
        ({"REDIS_URL": "redis://redis:6379", "PATH": "/bin"}, []),
        ({"CACHE_URL": "redis://localhost:6379/9"}, []),
        ({}, []),
        ({"REDIS_URL": "redis://redis:6379/1"}, []),
        (
            {"REDIS_URL": "redis://localhost:6379"},
            [("app.REDIS_URL", "wrong", "loopback", "redis:6379")],
        ),
        (
            {"REDIS_URL": "redis://redis:6379", "QUEUE_URL": "redis://rediss:6379"},
            [("app.QUEUE_URL", "wrong", "unknown-name", "redis:6379")],
        ),
        (
            {"EMPTY": "", "HTTP_PROXY": "http://proxy.lan:3128", "NO_PROXY": "localhost"},
            [("app.UPSTREAM", "wrong", "proxy", "")],
        ),
        ({"HTTP_PROXY": "http://proxy.lan:3128", "no_proxy": "page"}, []),
    ],
)
def test_what_a_container_has_otherwise(environment: dict[str, str], found: list[Any]) -> None:
    declared = {"UPSTREAM": "http://page:80"}
    body = {**DECLARED, **declared}
    judgements = classified({"shop-app-1": {**declared, **environment}}, environment=body)
    assert [(one.subject, one.status, one.reason, one.right) for one in judgements] == found
    for judgement in judgements:
        assert judgement.address.place.source == "running container shop-app-1"
        assert not judgement.correctable
        assert judgement.remedy


def test_what_an_unknown_image_brings_is_nobodys_fault() -> None:
    environment = {"CACHE_URL": "redis://localhost:6379/9", "REDIS_URL": "redis://redis:6379"}
    assert classified({"shop-app-1": environment}, images={}) == ()


def test_docker_sets_what_exempts_from_a_proxy_in_both_cases() -> None:
    proxies = {"HTTP_PROXY": "http://proxy.lan:3128", "NO_PROXY": "x", "no_proxy": "x"}
    body = {"UPSTREAM": "http://page:80"}
    (found,) = classified({"shop-app-1": {**body, **proxies}}, environment=body)
    assert found.remedy == "add page to NO_PROXY and no_proxy of app"


def test_replicas_are_named_with_what_each_has() -> None:
    wrong = {"REDIS_URL": "redis://localhost:6379"}
    typo = {"REDIS_URL": "redis://rediss:6379"}
    containers = {"a": wrong, "b": {"REDIS_URL": "redis://redis:6379"}, "c": typo, "d": wrong}
    found = [(one.address.place.source, one.reason) for one in classified(containers)]
    assert found == [
        ("running container a, d", "loopback"),
        ("running container c", "unknown-name"),
    ]


def test_what_the_declaration_has_too_is_told_of_once() -> None:
    environment = {"REDIS_URL": "redis://localhost:6379/1"}
    assert not classified({"a": environment}, environment={"REDIS_URL": "redis://localhost:6379/2"})


def decide(
    environment: dict[str, str], outcome: str = "failed", **damage: Any
) -> tuple[tuple[Finding, ...], World, Desired]:
    """What a run finds where api was created with this, and nothing else is wrong."""
    desired = Desired(
        compose({"redis": {"image": "redis:7"}, "api": {"environment": DECLARED}}),
        settings={"links": {"on_conflict": "override"}},
    )
    host = well(desired, World(images=["lab/box:1", "redis:7"]))
    (api,) = (one for one in host.containers.values() if one.service == "api")
    host.damage("api", shape={**api.shape, "environment": environment}, **damage)
    if not damage:
        # As Docker's own configuration makes them: the record has the same.
        assert host.applied is not None
        service = host.applied.services["api"]
        shape = {**service.shape, "environment": environment}
        changed = {**host.applied.services, "api": service.model_copy(update={"shape": shape})}
        host.applied = host.applied.model_copy(update={"services": changed})
    declared, state = host.declared(desired), host.state()
    links = classify_links(desired.spec, {}, declared, describe_others(state))
    assert not list_correctable(links)
    assert not make_correction(desired.spec, {}, declared, links, state).content
    checks = make_link_checks(desired.spec, links.links, declared, state)
    results = {
        check.name: CheckResult(
            name=check.name,
            outcome="passed" if "redis:6379" in check.name else outcome,
            evidence=f"{check.name}: connection refused",
        )
        for check in checks
    }
    links = classify_asked(desired, declared, state, results, {})
    assert {name_check(link) for link in links.links} >= {*results}
    decided = plan(desired.spec, desired.files, desired.digest, state, declared, links=links)
    assert {action.subject for action in decided.actions} <= {"api", "shop"}
    return tuple(one for one in decided.findings if one.kind == "link"), host, desired


def test_a_run_names_the_container_and_rewrites_nothing() -> None:
    (finding,), *_ = decide({"REDIS_URL": "redis://:s3cret@localhost:6379"})
    assert finding.subject == "api.REDIS_URL"
    assert finding.cause == "localhost:6379 is api itself; redis has port 6379"
    assert finding.evidence == (
        "running container shop-api-1: REDIS_URL is redis://***@localhost:6379; right: redis:6379",
        "link api → redis://localhost:6379 (REDIS_URL): connection refused",
    )
    assert finding.remedy == "recreate api; its declaration says otherwise"
    assert not finding.blocks
    assert "s3cret" not in finding.model_dump_json()


def test_what_answers_and_what_is_not_running_is_left_alone() -> None:
    wrong = {"REDIS_URL": "redis://localhost:6379"}
    assert decide(wrong, "passed")[0] == ()
    assert decide(wrong, status="exited", exit_code=1)[0] == ()


def test_what_this_run_recreates_is_not_told_of_twice() -> None:
    found, host, desired = decide({"REDIS_URL": "redis://localhost:6379"}, restart="no")
    assert found == ()
    decided = host.observe(desired)
    assert [action.subject for action in decided.actions if action.verb == "recreate"] == ["api"]
