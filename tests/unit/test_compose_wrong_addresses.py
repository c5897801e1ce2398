"""Wrong addresses for whoever explains a host: in its files, and in its containers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stackmend.checks.spec import NameCheck
from stackmend.checks.state import CheckResult
from stackmend.compose import drift
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.link_checks import make_link_checks
from stackmend.compose.plan.links import classify_links, describe_others
from stackmend.compose.plan.wrong_addresses import find_wrong_addresses
from stackmend.decision import Finding
from tests.unit.compose_world import Desired, World, classify_asked, compose, well

RIGHT, WRONG = "redis://redis:6379", "redis://localhost:6379"
REFUSED = "Error 111 connecting to localhost:6379. Connection refused."


def explain(
    declared: str,
    lived: str | None,
    *,
    links: Mapping[str, Any] | None = None,
    applied: bool = True,
    outcome: str = "failed",
    **damage: Any,
) -> tuple[Finding, ...]:
    """What is explained where the files of api have one address, and its container another.

    + lived: as the container has it; as declared where that is ``None``
    + applied: whether stackmend has applied the files
    + outcome: of each call to localhost, from what runs
    + damage: what else is so of the container
    """
    settings = {} if links is None else {"links": links}
    services = {"redis": {"image": "redis:7"}, "api": {"environment": {"REDIS_URL": declared}}}
    desired = Desired(compose(services), settings=settings)
    host = well(desired, World(images=["lab/box:1", "redis:7"]))
    (api,) = (one for one in host.containers.values() if one.service == "api")
    environment = {"REDIS_URL": lived or declared}
    host.damage("api", shape={**api.shape, "environment": environment}, **damage)
    if not applied:
        host.applied = None
    known, state = host.declared(desired), host.state()
    asking = Desired(desired.config, settings={"links": links or {}})
    found = classify_links(asking.spec, {}, known, describe_others(state))
    results = {
        check.name: CheckResult(
            name=check.name,
            outcome="passed" if "redis:6379" in check.name else outcome,
            evidence=f"{check.name}: connection refused",
            hints=("name-not-resolved",) if isinstance(check, NameCheck) else (),
        )
        for check in make_link_checks(asking.spec, found.links, known, state)
    }
    asked = classify_asked(asking, known, state, results, {})
    decided = plan(desired.spec, desired.files, desired.digest, state, known, links=asked)
    return find_wrong_addresses(desired.spec, state, asked, decided, drift.redact)


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("links", [None, {}, {"on_conflict": "override"}])
def test_what_a_container_has_otherwise_than_its_files_is_named(
    links: Mapping[str, Any] | None, *, applied: bool
) -> None:
    (found,) = explain(RIGHT, WRONG, links=links, applied=applied)
    assert (found.subject, found.kind) == ("api.REDIS_URL", "address")
    assert found.cause == "localhost:6379 is api itself; redis has port 6379"
    assert found.evidence == (
        f"running container shop-api-1: REDIS_URL is {WRONG}; right: redis:6379",
        "link api → redis://localhost:6379 (REDIS_URL): connection refused",
    )
    assert found.remedy == (
        "run `stackmend site`: it recreates api from api.environment.REDIS_URL, which has "
        "redis://redis:6379"
    )
    assert not found.blocks


def test_a_container_that_fails_is_not_asked_and_its_log_says_the_same() -> None:
    (found,) = explain(RIGHT, WRONG, status="restarting", exit_code=1, log=("on", REFUSED, "off"))
    assert found.evidence == (
        f"container shop-api-1: REDIS_URL is {WRONG}; right: redis:6379",
        "shop-api-1 is restarting, exit code 1",
        f"log of shop-api-1: {REFUSED}",
    )


def test_what_the_files_have_is_named_without_the_section_with_the_line_for_it() -> None:
    (found,) = explain(WRONG, None)
    place = "api.environment.REDIS_URL"
    assert found.evidence[0] == f"{place}: REDIS_URL is {WRONG}; right: redis:6379"
    assert found.remedy == (
        "write redis:6379 instead of localhost:6379 in api.REDIS_URL, or add to the stack "
        '"links": {"on_conflict": "override"}'
    )
    # A run with the section says so itself, and fails for it.
    assert not explain(WRONG, None, links={})
    (down,) = explain(WRONG, None, links={}, status="exited", exit_code=3)
    assert "shop-api-1 is exited, exit code 3" in down.evidence


@pytest.mark.parametrize(
    ("declared", "lived", "more"),
    [
        (RIGHT, None, {}),
        (RIGHT, WRONG, {"outcome": "passed"}),
        (RIGHT, WRONG, {"outcome": "unknown"}),
        # Somebody stopped it, or it has done its work: nothing says that it called in vain.
        (RIGHT, WRONG, {"status": "exited", "exit_code": 0}),
        (WRONG, RIGHT, {"status": "restarting", "exit_code": 1}),
    ],
)
def test_without_a_call_that_fails_nothing_is_named(
    declared: str, lived: str | None, more: dict[str, Any]
) -> None:
    assert explain(declared, lived, **more) == ()


def test_files_that_are_wrong_otherwise_are_not_called_right() -> None:
    (found,) = explain("redis://rediss:6379", WRONG)
    assert "stackmend site" not in found.remedy


def test_no_password_is_quoted() -> None:
    (found,) = explain(
        RIGHT,
        "redis://:s3cret@localhost:6379",
        status="restarting",
        log=("cannot connect to redis://:s3cret@localhost:6379: refused",),
    )
    assert "s3cret" not in found.model_dump_json()
    assert "log of shop-api-1" in found.evidence[-1]


def test_a_name_that_resolves_nowhere_is_named_where_the_files_have_another() -> None:
    (found,) = explain(RIGHT, "redis://cache:6379")
    assert found.subject == "api.REDIS_URL"
    assert found.cause == "the name cache does not resolve in api; no service has it"
    assert found.evidence[-1] == "name cache in api: connection refused"
    assert "which has redis://redis:6379" in found.remedy
    assert not explain("redis://cache:6379", None)
