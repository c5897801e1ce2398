"""Links in the compose room: what is asked, what corrects them, and what is still called."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackmend.addresses import Sources
from stackmend.addresses.state import Link
from stackmend.checks.facts import CheckResults
from stackmend.checks.spec import Check, GreetingCheck, NameCheck, RedisCheck, TcpCheck
from stackmend.checks.state import CheckResult, Hint, Outcome
from stackmend.compose import drift
from stackmend.compose.closure import read_sources
from stackmend.compose.correction import apply_correction, is_possible, restore_correction
from stackmend.compose.listening import parse_listening
from stackmend.compose.plan.actions import Plan, Record
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.link_checks import make_link_checks, name_check
from stackmend.compose.plan.link_correction import (
    add_patch,
    find_excess,
    leave,
    list_correctable,
    make_correction,
)
from stackmend.compose.plan.link_findings import find_unheard
from stackmend.compose.plan.links import Links, classify_links, describe_others
from stackmend.compose.plan.path import find_hops, list_containers, make_checks
from stackmend.compose.reconciler import ComposeReconciler
from stackmend.compose.source import (
    File,
    Source,
    SourceError,
    is_service_name,
    make,
    name_files,
)
from stackmend.compose.state import LINKS_FILE, Change, Correction, Declared, Mended
from stackmend.decision import Finding
from stackmend.reporting.collect import Collector
from tests.marks import MARK
from tests.unit.compose_world import Desired, World, classify_asked, compose, well

OVERRIDE = {"links": {"on_conflict": "override"}}
ENVIRONMENT = {"REDIS_URL": "redis://localhost:6379", "QUEUE": "redis://redis:6379"}


def world(environment: dict[str, Any], **settings: Any) -> tuple[Desired, World, Declared]:
    desired = Desired(
        compose({"redis": {"image": "redis:7"}, "api": {"environment": environment}}),
        settings=settings or OVERRIDE,
    )
    made = well(desired, World(images=["lab/box:1", "redis:7"]))
    return desired, made, made.declared(desired)


def classified(environment: dict[str, Any], **settings: Any) -> Links:
    desired, _, declared = world(environment, **settings)
    return classify_links(desired.spec, {}, declared)


@pytest.mark.parametrize(
    ("variable", "value", "kind", "more"),
    [
        ("R", "redis://:p@redis:6379/0", RedisCheck, {"service": "redis", "password_from": "R"}),
        ("REDIS_HOST", "redis", RedisCheck, {"service": "redis", "password_from": None}),
        ("R", "rediss://redis:6379", TcpCheck, {}),
        ("U", "http://redis:6379/x", GreetingCheck, {"protocol": "http"}),
        ("U", "postgresql+asyncpg://u:p@redis/n", GreetingCheck, {"protocol": "postgres"}),
        ("U", "https://redis:6379", TcpCheck, {}),
        ("U", "http://host.docker.internal:9000", GreetingCheck, {"protocol": "http"}),
    ],
)
def test_each_scheme_is_asked_in_its_own_way(
    variable: str, value: str, kind: type, more: dict[str, Any]
) -> None:
    environment = {variable: value, "REDIS_PORT": "6379"}
    desired, host, declared = world(environment)
    links = classify_links(desired.spec, {}, declared)
    (check,) = make_link_checks(desired.spec, links.links, declared, host.state())
    assert type(check) is kind
    assert check.source == "api"
    assert {key: getattr(check, key) for key in more} == more
    assert check.name.startswith("link api → ")
    assert ":p@" not in check.model_dump_json()


def test_a_variable_that_steers_a_terminal_is_asked_for_without_it() -> None:
    environment = {"BAD\x1b[31m": "redis://redis:6379/0", "BAD\x1b[32m": "redis://redis:6379/1"}
    desired, host, declared = world(environment)
    links = classify_links(desired.spec, {}, declared)
    (check,) = make_link_checks(desired.spec, links.links, declared, host.state())
    # No program can be asked for the login that such a variable may hold.
    assert type(check) is TcpCheck
    assert check.name.startswith("link api → redis://redis:6379 (BAD\\x1b[31m) #")
    assert check.name == name_check(links.links[0])


@given(texts=st.lists(st.text(min_size=1, max_size=400), unique=True, max_size=5))
def test_names_of_checks_are_short_printable_and_as_many_as_links(texts: list[str]) -> None:
    links = [
        Link(source=text, target="redis", host=text, port=6379, variable=text, name_only=only)
        for text in texts
        for only in (False, True)
    ]
    names = {name_check(link) for link in links}
    assert len(names) == len(links)
    assert all(TcpCheck(name=name, address="a:1").name == name for name in names)


HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "-x", ".a", "a b", "$(id)", "\x1b[31m", "localhost", "redis", "::1"]),
)
ADDRESSES = st.builds(
    lambda form, host, port: form.format(host, port),
    st.sampled_from(["redis://{}:{}/0", "http://:p@{}:{}", "{}:{}", "{1}", "amqp://[{}]:{}", "{}"]),
    HOSTILE,
    st.one_of(st.integers(-1, 10**6).map(str), HOSTILE),
)


@given(
    name=st.text("-._az9", min_size=1, max_size=200).filter(is_service_name),
    environment=st.dictionaries(
        st.one_of(HOSTILE, st.builds("{}_URL".format, HOSTILE)), ADDRESSES, max_size=6
    ),
)
def test_no_value_of_a_compose_file_keeps_links_from_being_asked_for(
    name: str, environment: dict[str, str]
) -> None:
    called = {**environment, "HOSTILE_URL": f"redis://{name}:6379"}
    services = {
        name: {"image": "redis:7", "environment": {"R": "redis://redis:6379", **environment}},
        "redis": {"image": "redis:7", "environment": called, "depends_on": {name: {}}},
    }
    desired = Desired(compose(services), settings={"links": {}})
    host = well(desired, World(images=["redis:7"]))
    declared = host.declared(desired)
    links = classify_links(desired.spec, {}, declared)
    checks = make_link_checks(desired.spec, links.links, declared, host.state())
    assert {check.name for check in checks} <= {name_check(link) for link in links.links}
    make_checks(find_hops(services, "shop", ["redis", name]), services, host.state())


def test_nobody_asks_from_or_for_what_has_ended() -> None:
    desired, host, declared = world(ENVIRONMENT)
    links = classify_links(desired.spec, {}, declared)
    assert make_link_checks(desired.spec, links.links, declared, host.state())
    host.damage("api", status="exited", health=None)
    assert not make_link_checks(desired.spec, links.links, declared, host.state())


def test_a_link_to_what_ended_well_is_asked_and_fails() -> None:
    """Exit code 0 without a restart policy is how a server ends that somebody stops."""
    desired, host, declared = world({"QUEUE": "redis://redis:6379"})
    host.damage("redis", status="exited", exit_code=0, health=None, restart="no")
    links = classify_links(desired.spec, {}, declared)
    (check,) = make_link_checks(desired.spec, links.links, declared, host.state())
    result = CheckResult(name=check.name, outcome="failed", evidence="redis is not running")
    links = classify_asked(desired, declared, host.state(), {check.name: result}, {"host": ()})
    known = desired.spec, desired.files, desired.digest, host.state(), declared
    decided = plan(*known, links=links)
    assert [action.subject for action in decided.actions if action.verb == "start"] == ["redis"]
    # It is started as often as the limits allow; then the link says what is wrong.
    host.mends = [Mended(at=host.now - 1, service="redis", action="start")] * 9
    left = plan(*(desired.spec, desired.files, desired.digest, host.state(), declared), links=links)
    assert left.problems


def test_each_service_has_what_speaks_there_asked() -> None:
    urls = {
        "api": "redis://redis:6379",
        "side": "redis://redis:6379",
        "web": "redis://:p@redis:6379",
        "other": "http://redis:6379",
    }
    services = {name: {"environment": {"U": url}} for name, url in urls.items()}
    desired = Desired(compose({"redis": {"image": "redis:7"}, **services}), settings=OVERRIDE)
    host = well(desired, World(images=["lab/box:1", "redis:7"]))
    declared = host.declared(desired)
    links = classify_links(desired.spec, {}, declared)
    checks = make_link_checks(desired.spec, links.links, declared, host.state())
    kinds = {check.source: type(check) for check in checks}
    assert kinds == {
        "api": RedisCheck,
        "side": RedisCheck,
        "web": RedisCheck,
        "other": GreetingCheck,
    }


def test_containers_that_were_read_are_named_to_the_probe() -> None:
    _, host, _ = world(ENVIRONMENT)
    rows = list_containers(host.state())
    assert [row.split(" ")[:3] for row in rows] == [
        ["api", "1", "running"],
        ["redis", "1", "running"],
    ]
    host.damage("api", service="api\nredis 0 running 0 x")
    assert [row.split(" ")[0] for row in list_containers(host.state())] == ["redis"]
    command = CheckResults().command("ai", [TcpCheck(address="a:1", inside="api")], containers=rows)
    assert f"checks_known '{rows[0]}' '{rows[1]}'" in command.get_raw_value()
    assert "\nchecks_containers\n" not in command.get_raw_value()


def test_what_answers_is_not_wrong() -> None:
    links = classified(ENVIRONMENT)
    (wrong,) = links.wrong
    assert wrong.subject == "api.REDIS_URL"
    name = next(name_check(link) for link in links.links if link.host == "localhost")
    passed = {name: CheckResult(name=name, outcome="passed", evidence="it answers")}
    assert not links.model_copy(update={"results": passed}).wrong


UNKNOWN = {"QUEUE": "redis://zzqq:6379", "MODEL": "https://api.openai.com:443", "REDIS_HOST": "x"}


def ask_names(
    environment: dict[str, Any], outcome: Outcome, hints: tuple[Hint, ...] = ()
) -> tuple[tuple[Check, ...], Links, tuple[Finding, ...]]:
    """The checks of these addresses, and what follows where those of names have this outcome."""
    desired, host, declared = world(environment, links={})
    links = classify_links(desired.spec, {}, declared)
    checks = make_link_checks(desired.spec, links.links, declared, host.state())
    results = {
        check.name: CheckResult(name=check.name, outcome=outcome, evidence="asked", hints=hints)
        for check in checks
        if isinstance(check, NameCheck)
    }
    listeners = {"host": [("0.0.0.0", 6379)]}
    links = classify_asked(desired, declared, host.state(), results, listeners)
    decided = plan(desired.spec, desired.files, desired.digest, host.state(), links=links)
    return checks, links, tuple(one for one in decided.findings if one.kind == "link")


def test_of_a_name_that_no_service_has_nothing_but_the_name_is_asked_for() -> None:
    checks, links, found = ask_names(UNKNOWN, "failed", ("name-not-resolved",))
    (check,) = checks
    assert isinstance(check, NameCheck)
    assert (check.hostname, check.inside) == ("zzqq", "api")
    (finding,) = found
    assert finding.subject == "api.QUEUE"
    assert finding.cause == "the name zzqq does not resolve in api; no service has it"
    assert not finding.blocks
    assert not links.is_waiting
    assert not list_correctable(links)


def test_a_name_that_resolves_is_right() -> None:
    _, links, found = ask_names(UNKNOWN, "passed")
    assert not found
    assert not links.wrong


def test_a_name_that_cannot_be_asked_for_is_not_wrong() -> None:
    _, links, found = ask_names(UNKNOWN, "unknown")
    assert not links.wrong
    assert not [one for one in found if one.blocks]


def test_one_name_is_asked_for_once_in_each_service() -> None:
    urls = {f"URL_{port}": f"http://nas:{port}" for port in (5000, 5001, 5002)}
    checks, _, found = ask_names(urls, "failed", ("name-not-resolved",))
    assert [check.name for check in checks] == ["name nas in api"]
    assert {one.subject for one in found} == {f"api.{name}" for name in urls}


def test_a_port_of_the_host_is_filtered_only_where_the_host_was_called() -> None:
    environment = {
        "REDIS_URL": "redis://localhost:6379",
        "QUEUE": "redis://zzqq:6379",
        "UPSTREAM": "http://host.docker.internal:6379",
    }
    desired, host, declared = world(environment, links={})
    declared.config["services"]["api"]["extra_hosts"] = ["host.docker.internal:host-gateway"]
    links = classify_links(desired.spec, {}, declared)
    listeners = {"host": [("0.0.0.0", 6379)]}
    cases = (("localhost", ""), ("zzqq", ""), ("host.docker.internal", "host-firewall"))
    for called, reason in cases:
        (name,) = [name_check(link) for link in links.links if link.host == called]
        results = {name: CheckResult(name=name, outcome="failed", evidence="no answer")}
        found = classify_asked(desired, declared, host.state(), results, listeners)
        (gateway,) = [one for one in found.judgements if one.subject == "api.UPSTREAM"]
        assert gateway.reason == reason


def test_containers_of_others_on_a_network_of_the_project_keep_names_from_being_rewritten() -> None:
    environment = {"REDIS_URL": "redis://rediss:6379"}
    desired, host, declared = world(environment)
    assert list_correctable(classify_asked(desired, declared, host.state()))
    endpoints = next(iter(host.containers.values())).endpoints
    host.neighbour("peer-redis-1", "peer", endpoints=endpoints)
    links = classify_asked(desired, declared, host.state())
    assert not list_correctable(links)
    assert [one.status for one in links.judgements] == ["ambiguous"]


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize(
    ("name", "service"), [("peer-rediss-1", "rediss"), ("Rediss", None), ("peer-web-1", "web")]
)
def test_a_name_of_another_project_on_the_host_is_not_rewritten(
    name: str, service: str | None, running: bool
) -> None:
    """It is down, and on no network of the project's; before the first deployment as well."""
    desired, host, declared = world({"REDIS_URL": "redis://rediss:6379", "RHOST": "rediss"})
    host.neighbour(name, "peer" if service else None, service=service)
    host.neighbours[name] = host.neighbours[name].model_copy(update={"status": "exited"})
    state = host.state()
    if running:
        links = classify_asked(desired, declared, state)
    else:
        links = classify_links(desired.spec, {}, declared, describe_others(state))
    found = {judgement.subject: judgement for judgement in links.judgements}["api.REDIS_URL"]
    if service == "web":
        assert (found.status, found.right) == ("wrong", "redis:6379")
    else:
        assert not list_correctable(links)
        assert found.status == "ambiguous"
        assert "a container of another project on this host has that name" in found.cause


@pytest.mark.parametrize(("count", "reading"), [(0, 0), (1, 7), (33, 14), (100, 28), (300, 56)])
def test_the_limit_of_a_run_holds_what_links_may_take(count: int, reading: int) -> None:
    environment = {f"URL_{number}": f"http://redis:{7000 + number}" for number in range(count)}
    limits = []
    for settings in ({"checks": ()}, {"links": {}}):
        desired, _, declared = world(environment, **settings)
        own = Source({"compose.yaml": File(0o644, b"services: {}\n")})
        nobody = cast("Any", None)
        room = ComposeReconciler(nobody, desired.spec, own, nobody)
        # Before the first deployment nothing is asked, and it is known how much will be.
        room._read_links(World().state(), declared, ())
        limits.append(room.find_limit(Plan(actions=(Record(subject="shop", cause="new"),))))
    asked = min(count, 256)
    framed = 30 * -(-asked // 64)
    # What listens is read with each; the second reading is the one under the lock.
    assert limits[1] - limits[0] == 20 + (framed + reading + 30) + (framed + 2 * reading + 30)


def test_ignored_addresses_are_left_alone() -> None:
    settings = {"links": {"on_conflict": "override", "ignore": ["api.REDIS_URL"]}}
    assert not classified(ENVIRONMENT, **settings).wrong


@pytest.mark.parametrize("name", [".api", "-api", "...", "a.b"])
def test_an_address_of_a_service_with_any_name_can_be_left_alone(name: str) -> None:
    services = {name: {"environment": ENVIRONMENT}, "redis": {"image": "redis:7"}}
    subject = f"{name}.REDIS_URL"
    for ignored in ((), (subject,)):
        links = {"links": {"ignore": ignored}}
        desired = Desired(compose(services), settings=links)
        host = well(desired, World(images=["lab/box:1", "redis:7"]))
        found = classify_links(desired.spec, {}, host.declared(desired))
        assert [wrong.subject for wrong in found.wrong] == ([] if ignored else [subject])


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("api.REDIS_URL", None),
        ("*.QUEUE", None),
        ("api.REDIS_URI", "name one that there is, such as api.REDIS_URL"),
        ("web.ELSEWHERE", "remove it"),
    ],
)
def test_what_is_to_be_ignored_and_is_nowhere_is_reported(pattern: str, remedy: str | None) -> None:
    desired, host, declared = world(ENVIRONMENT, links={"ignore": pattern})
    links = classify_links(desired.spec, {}, declared)
    decided = plan(desired.spec, desired.files, desired.digest, host.state(), declared, links=links)
    found = [f for f in decided.findings if f.kind == "warning"]
    assert [(f.remedy, f.blocks) for f in found] == ([(remedy, False)] if remedy else [])
    assert all(f'"{pattern}"' in f.cause for f in found)


def corrected(environment: dict[str, Any], new: dict[str, Any]) -> str:
    """What is wrong with what Compose makes of a correction."""
    desired, _, declared = world(environment)
    other = copy.deepcopy(desired.config)
    for service, body in new.items():
        other["services"][service].update(body)
    links = classify_links(desired.spec, {}, declared)
    return find_excess(declared, declared.model_copy(update={"config": other}), links)


@pytest.mark.parametrize(
    ("new", "excess"),
    [
        ({}, ""),
        ({"api": {"environment": {**ENVIRONMENT, "REDIS_URL": "redis://redis:6379"}}}, ""),
        ({"api": {"environment": {**ENVIRONMENT, "QUEUE": "x"}}}, "api.environment.QUEUE"),
        ({"api": {"environment": {}}}, "api.environment"),
        ({"api": {"command": ["x"]}}, "api.command"),
        ({"redis": {"environment": {"REDIS_URL": "x"}}}, "redis.environment"),
    ],
)
def test_a_correction_that_changes_more_is_not_used(new: dict[str, Any], excess: str) -> None:
    found = corrected(ENVIRONMENT, new)
    assert found == (f"it would change {excess}" if excess else "") or found.startswith(
        f"it would change {excess}."
    )


def test_a_needed_variable_allows_no_other_one_to_change() -> None:
    environment = {"HTTP_PROXY": "http://proxy.lan:3128", "UPSTREAM": "http://redis:6379"}
    desired, _, declared = world(environment)
    links = classify_links(desired.spec, {}, declared)
    assert [set(one.needs) for one in links.wrong] == [{"environment"}]
    needed = {"NO_PROXY": "redis", "no_proxy": "redis"}
    for more, excess in (
        ({}, ""),
        ({"OTHER": "x"}, "it would change api.environment.OTHER"),
        ({"HTTP_PROXY": ""}, "it would change api.environment.HTTP_PROXY"),
    ):
        other = copy.deepcopy(desired.config)
        other["services"]["api"]["environment"] |= needed | more
        assert find_excess(declared, declared.model_copy(update={"config": other}), links) == excess


def test_two_schemes_of_one_address_are_two_checks() -> None:
    environment = {"URLS": "http://redis:6379,redis://redis:6379"}
    desired, host, declared = world(environment)
    links = classify_links(desired.spec, {}, declared)
    checks = make_link_checks(desired.spec, links.links, declared, host.state())
    assert sorted(type(check).__name__ for check in checks) == ["GreetingCheck", "RedisCheck"]
    results = {
        check.name: CheckResult(name=check.name, outcome="passed", evidence="it answers")
        for check in checks
        if isinstance(check, RedisCheck)
    }
    known = links.model_copy(update={"results": results})
    assert sorted(map(known.get_outcome, links.judgements)) == ["", "passed"]


def test_more_links_than_are_proven_are_told() -> None:
    environment = {f"URL_{number}": f"http://redis:{7000 + number}" for number in range(300)}
    desired, host, declared = world(environment, links={})
    links = classify_links(desired.spec, {}, declared)
    assert len(make_link_checks(desired.spec, links.links, declared, host.state())) == 256
    found = plan(desired.spec, desired.files, desired.digest, host.state(), links=links).findings
    (more,) = [one for one in found if "proven by one run" in one.cause]
    assert more.cause.startswith("of 300 links 256 are")
    assert not more.blocks


@pytest.mark.parametrize(
    ("body", "role"),
    [
        ({}, "master"),
        ({"command": ["redis-server", "--appendonly", "yes"]}, "master"),
        ({"command": ["redis-server", "--replicaof", "redis", "6379"]}, "any"),
        ({"command": ["redis-server", "/conf/ro.conf"]}, "any"),
        ({"command": ["sh", "-c", "exec redis-server /conf/ro.conf"]}, "any"),
        ({"command": ["redis-server", "ro.conf"]}, "any"),
        ({"volumes": [{"type": "bind", "source": "/c", "target": "/usr/local/etc/redis"}]}, "any"),
        ({"configs": [{"source": "c", "target": "/redis.conf"}]}, "any"),
        ({"volumes": [{"type": "volume", "source": "d", "target": "/data"}]}, "master"),
    ],
)
def test_a_redis_with_a_file_of_its_own_may_be_a_replica(body: dict[str, Any], role: str) -> None:
    desired, host, declared = world({"REDIS_URL": "redis://redis:6379"})
    declared.config["services"]["redis"].update(body)
    links = classify_links(desired.spec, {}, declared)
    (check,) = make_link_checks(desired.spec, links.links, declared, host.state())
    assert isinstance(check, RedisCheck)
    assert check.role == role


def test_no_query_of_an_exchanged_value_is_displayed() -> None:
    environment = {
        "INTERNAL_FILES_URL": "http://localhost:6379/f?sig=s3cr",
        "FILES_URL": "http://redis:6379/f?sig=s3cr",
    }
    desired, host, declared = world(environment)
    links = classify_links(desired.spec, {}, declared)
    made = make_correction(desired.spec, {}, declared, links, host.state())
    links = add_patch(links, {}, made)
    found = plan(desired.spec, desired.files, desired.digest, host.state(), links=links).findings
    assert {one.subject for one in found} >= {"api.FILES_URL", "api.INTERNAL_FILES_URL"}
    assert "s3cr" not in f"{found}{made.changes}{made.left}{made.patch}{made.content}"


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("redis://:hunter22@redis:6379", "hunter22"),
        ("mysql://u:p@ss/x@h", ""),
        ("root:hunter22@tcp(localhost:3306)/db", "hunter22"),
        ("root:hunter22@localhost:5432/db", "hunter22"),
        ("http://t0kent0ken@localhost:9200", "t0kent0ken"),
        ("http://app@localhost:9200", "app"),
    ],
)
def test_a_login_is_redacted_in_each_form(value: str, secret: str) -> None:
    config = {"services": {"api": {"environment": {"URL": value}}}}
    if secret not in ("", "app"):
        assert secret in drift.find_secrets(config)
    # A user's name is no secret by itself, but none stands before a host.
    elif secret:
        assert not drift.find_secrets(config)
    shown = drift.redact(value)
    assert not secret or f"{secret}@" not in shown
    assert drift.redact(shown) == shown


def test_a_login_that_names_a_service_is_no_secret() -> None:
    services = {
        "worker-01": {},
        "api": {"environment": {"URL": "http://worker-01@h u:worker-01@h"}},
    }
    assert not drift.find_secrets({"services": services})


def correction(**changes: Any) -> tuple[Desired, Correction]:
    desired, host, declared = world(ENVIRONMENT)
    links = classify_links(desired.spec, {}, declared)
    made = make_correction(desired.spec, {}, declared, links, host.state())
    return desired, made.model_copy(update=changes)


def test_a_correction_holds_no_more_than_what_is_still_wrong() -> None:
    """Of two that it corrects the user mends one, and then the other."""
    wrong = {"REDIS_URL": "redis://localhost:6379", "QUEUE_URL": "redis://rediss:6379/1"}
    right = {"REDIS_URL": "redis://redis:6379", "QUEUE_URL": "redis://redis:6379/1"}
    contents = []
    for environment in (wrong, {**wrong, "QUEUE_URL": right["QUEUE_URL"]}, right):
        desired, host, declared = world(environment)
        links = classify_links(desired.spec, {}, declared)
        made = make_correction(desired.spec, {}, declared, links, host.state())
        assert len(made.changes) == len(links.wrong)
        contents.append(yaml.safe_load(made.content or "{}"))
    assert contents[0] == {"services": {"api": {"environment": right}}}
    assert contents[1] == {"services": {"api": {"environment": {"REDIS_URL": right["REDIS_URL"]}}}}
    assert contents[2] == {}


@pytest.mark.parametrize("hosts", [(), ("host.docker.internal:host-gateway",), ("other:1.2.3.4",)])
def test_what_answers_by_its_correction_alone_is_still_corrected(hosts: tuple[str, ...]) -> None:
    """The container has the name that the files do not say: it was given by the last correction."""
    urls = "http://host.docker.internal:9100;redis://redis:6380"
    ports = [{"target": 6379, "published": "6380", "protocol": "tcp"}]
    services = {"redis": {"image": "redis:7", "ports": ports}, "api": {"environment": {"U": urls}}}
    desired = Desired(compose(services), settings=OVERRIDE)
    host = well(desired, World(images=["lab/box:1", "redis:7"]))
    declared = host.declared(desired)
    (api,) = (one for one in host.containers.values() if one.service == "api")
    host.damage("api", shape={**api.shape, "extra_hosts": list(hosts)})
    state = host.state()
    known = classify_links(desired.spec, {}, declared, describe_others(state))
    # By its declaration alone each of the two is wrong.
    assert {one.right for one in known.wrong} == {"", "redis:6379"}
    checks = make_link_checks(desired.spec, known.links, declared, state)
    assert len(checks) == 2
    results = {
        check.name: CheckResult(name=check.name, outcome="passed", evidence="it answers")
        for check in checks
    }
    links = classify_asked(desired, declared, state, results)
    made = make_correction(desired.spec, {}, declared, links, state)
    covered = "host.docker.internal:host-gateway" in hosts
    assert ("extra_hosts" in made.content) == covered
    assert [one.address.host for one in links.wrong] == (["host.docker.internal"] * covered)
    # What answers as it stands is not rewritten because another address of its value is.
    assert "redis" not in made.content
    assert "environment" not in made.content
    assert not any(map(links.is_broken, links.judgements))


def test_a_correction_says_what_it_changes() -> None:
    _, made = correction()
    assert "redis://redis:6379" in made.content
    assert [(change.variable, change.old, change.new) for change in made.changes] == [
        ("REDIS_URL", "localhost:6379", "redis:6379")
    ]
    left = leave(made, ["api.REDIS_URL"], "Compose refuses it")
    assert (left.content, left.changes, left.problem) == ("", (), "Compose refuses it")
    assert left.left == {"api.REDIS_URL": ""}
    assert list_correctable(classified(ENVIRONMENT)) == {"api.REDIS_URL"}


def test_a_recorded_correction_counts_for_the_files_it_was_made_for() -> None:
    desired, made = correction()
    own = Source({"compose.yaml": File(0o644, b"services: {}\n")})
    host = well(desired, World(images=["lab/box:1", "redis:7"]))
    assert host.applied is not None
    source = apply_correction(own, made)
    applied = host.applied.model_copy(update={"source": source.digest, "correction": made})
    assert restore_correction(desired.spec, own, applied) == made
    assert source.options[-2:] == ("--file", LINKS_FILE)
    other = Source({"compose.yaml": File(0o644, b"services: {a: {}}\n")})
    assert restore_correction(desired.spec, other, applied) is None
    reported = Desired(desired.config, settings={"links": {}})
    assert restore_correction(reported.spec, own, applied) is None
    assert restore_correction(desired.spec, own, None) is None


def test_the_file_is_named_last_and_is_nobody_elses() -> None:
    paths = [LINKS_FILE, "compose.yaml", "compose.override.yml"]
    assert name_files(paths, names_files=False)[-4:] == (
        *("--file", "compose.override.yml"),
        *("--file", LINKS_FILE),
    )
    desired, _, _ = world(ENVIRONMENT)
    file = File(0o644, b"services: {a: {image: a}}\n")
    with pytest.raises(SourceError, match=LINKS_FILE):
        make(desired.spec, {"compose.yaml": file, LINKS_FILE: file})


def test_files_that_dotenv_names_are_not_corrected() -> None:
    desired, _, _ = world(ENVIRONMENT)
    own = Source({"compose.yaml": File(0o644, b""), ".env": File(0o600, b"COMPOSE_FILE=a.yaml\n")})
    assert not is_possible(desired.spec, own)
    assert is_possible(desired.spec, Source({"compose.yaml": File(0o644, b"")}))


@pytest.mark.parametrize(
    ("line", "heard"),
    [
        ("error: connect to localhost:6379: connection refused", False),
        ("ConnectionError: Error 111 connecting to localhost:6379. Connection refused.", False),
        ('failed: connection to server at "localhost" (127.0.0.1), port 6379: refused', False),
        ("listening, redis is redis:6379", True),
        ("moved from localhost:6379", True),
        ("error: mylocalhost:6379 refused", True),
        ("error: localhost:63790 refused", True),
        ("error: GET from localhost refused", True),
    ],
)
def test_a_log_with_the_address_before_says_that_nobody_listened(line: str, heard: bool) -> None:
    change = Change(
        service="api", variable="R", old="localhost:6379", new="redis:6379", cause="wrong"
    )
    found = find_unheard([change], {"api": ["started", line]})
    assert found == (() if heard else ((change, line),))
    assert not find_unheard([change], {"redis": [line]})


WEBUI: dict[str, Any] = {
    "image": "ghcr.io/open-webui/open-webui:main",
    "volumes": [{"type": "volume", "source": "webui", "target": "/app/backend/data"}],
    "environment": {"OLLAMA_BASE_URL": "http://localhost:11434"},
}


def correct_webui(
    body: dict[str, Any],
    *,
    started: bool = True,
    applied: bool = False,
    unheard: bool = False,
) -> list[Finding]:
    """What a run notes of an application whose address it corrects.

    :param started: whether it has been there before.
    :param applied: whether it was an earlier run that corrected it.
    :param unheard: whether its log says that it calls the one before.
    """
    body = {**WEBUI, **body}
    services = {"ollama": {"image": "ollama/ollama:1"}, "chat": body}
    settings = {"links": {"on_conflict": "override"}}
    desired = Desired(compose(services, volumes={"webui": {}}), settings=settings)
    host = well(desired, World(images=["ollama/ollama:1", str(body["image"])]))
    if not started:
        host.lose("chat")
    declared = host.declared(desired)
    links = classify_links(desired.spec, {}, declared)
    made = make_correction(desired.spec, {}, declared, links, host.state())
    assert [one.new for one in made.changes] == ["ollama:11434"]
    assert host.applied is not None
    if applied:
        # It is made anew of other files, and by now the container has what is right.
        host.applied = host.applied.model_copy(update={"correction": made})
        right = {**body["environment"], "OLLAMA_BASE_URL": "http://ollama:11434"}
        host.up(desired, "chat")
        host.damage("chat", shape={"environment": right})
        made = make_correction(desired.spec, {}, declared, links, host.state())
    links = add_patch(links, {}, made).model_copy(update={"judgements": ()})
    if unheard:
        line = f"error: {made.changes[0].old}: connection refused"
        links = links.model_copy(update={"unheard": find_unheard(made.changes, {"chat": [line]})})
    decided = plan(desired.spec, desired.files, desired.digest, host.state(), links=links)
    (first, *found) = [one for one in decided.findings if one.subject == "chat.OLLAMA_BASE_URL"]
    assert first.cause.startswith("compose.stackmend.yaml corrects it")
    assert not first.blocks
    return found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"volumes": [{"type": "bind", "source": "/srv/app", "target": "/app/backend"}]},
        {"environment": {**WEBUI["environment"], "ENABLE_PERSISTENT_CONFIG": "True"}},
        {"environment": {**WEBUI["environment"], "DATABASE_URL": "x"}, "volumes": []},
    ],
)
@pytest.mark.parametrize("applied", [False, True])
def test_what_an_application_may_have_stored_before_is_not_called_proven(
    body: dict[str, Any], applied: bool
) -> None:
    (found,) = correct_webui(body, applied=applied)
    assert found.cause == (
        "stackmend cannot prove that chat uses ollama:11434: it was started with localhost:11434 "
        "before, and may keep what it stored then; only its own settings show that"
    )
    assert found.remedy == (
        "look at the settings of the application itself, and correct it there, or put "
        "ENABLE_PERSISTENT_CONFIG=False in its environment"
    )
    # Nobody could ever prove it, and a run that fails takes back what it corrected.
    assert not found.blocks


@pytest.mark.parametrize(
    "body",
    [
        {"environment": {**WEBUI["environment"], "ENABLE_PERSISTENT_CONFIG": "False"}},
        {"image": "ghcr.io/open-webui/other:main"},
        # What it stored goes with its container.
        {"volumes": []},
        {"volumes": [{"type": "volume", "source": "webui", "target": "/app/backend/cache"}]},
    ],
)
def test_an_application_that_keeps_nothing_is_corrected_without_a_word(
    body: dict[str, Any],
) -> None:
    assert correct_webui(body) == []


@pytest.mark.parametrize("applied", [False, True])
def test_an_application_that_is_new_was_started_with_what_is_right(applied: bool) -> None:
    assert correct_webui({}, started=False, applied=applied) == []


def test_an_application_that_still_calls_the_address_before_fails_the_run() -> None:
    (found,) = correct_webui({}, unheard=True)
    assert "chat still calls localhost:11434" in found.cause
    assert found.blocks


def frame(*lines: str) -> list[str]:
    return [
        f"{MARK} begin listening",
        *(f"|{line}" for line in lines),
        ".0",
        f"{MARK} end",
    ]


def test_the_kernels_tables() -> None:
    id_ = "a" * 64
    found = parse_listening(
        frame(
            "host 0100007F:18EB",
            "host 00000000:0016",
            "host -",
            f"{id_} 00000000000000000000000000000000:1F90",
            f"{id_} 0000000000000000FFFF00000100007F:0050",
            f"{id_} 00000000000000000000000001000000:0051",
            f"{id_} nonsense",
            f"{id_} -",
            f"{'b' * 64} 00000000:0050",
        ),
        MARK,
    )
    assert found == {
        "host": (("0.0.0.0", 22), ("127.0.0.1", 6379)),
        id_: (("127.0.0.1", 80), ("::", 8080), ("::1", 81)),
    }
    with pytest.raises(ValueError, match="nothing that is ours"):
        parse_listening([], MARK)


# What people read


def find_all(
    environment: dict[str, Any],
    outcome: Outcome = "failed",
    *,
    evidence: str = "NOAUTH Authentication required",
    services: dict[str, Any] | None = None,
    files: dict[str, bytes] | None = None,
    **links: Any,
) -> list[Finding]:
    """What is found of links whose calls have this outcome."""
    bodies = services or {"redis": {"image": "redis:7"}, "api": {"environment": environment}}
    desired = Desired(compose(bodies), settings={"links": links})
    host = well(desired, World(images=["lab/box:1", "redis:7"]))
    declared = host.declared(desired)
    known = classify_links(desired.spec, files or {}, declared)
    checks = make_link_checks(desired.spec, known.links, declared, host.state())
    results = {
        check.name: CheckResult(
            name=check.name,
            outcome=outcome,
            evidence=f"{check.name}: {evidence}",
            details=(f"{check.name}: {evidence}", evidence, "more"),
        )
        for check in checks
    }
    known = classify_asked(desired, declared, host.state(), results, files=files)
    known = add_patch(known, files or {}, None)
    decided = plan(desired.spec, desired.files, desired.digest, host.state(), links=known)
    return [one for one in decided.findings if one.kind in ("link", "patch")]


def test_equal_links_are_one_finding_that_names_all_variables() -> None:
    url = "redis://redis:6379"
    names = ("CACHE_URL", "REDIS_URL", "RESULT_BACKEND")
    (found,) = find_all(dict.fromkeys(names, url))
    assert found.subject == f"link api → {url} (CACHE_URL, REDIS_URL, RESULT_BACKEND)"
    text = "\n".join([found.cause, *found.evidence])
    assert text.count("NOAUTH") == 1
    assert all(f"{name} is {url}" in text for name in names)
    assert "more" in found.evidence


def test_a_link_bears_the_name_of_what_holds_it() -> None:
    body = {"image": "nginx:1", "ports": [{"target": 80, "published": "8081", "protocol": "tcp"}]}
    names = ("BACKEND_URL", "CALLBACK_URL")
    environment = dict.fromkeys(names, "http://web:8081")
    services = {"web": body, "api": {"environment": environment}}
    found = find_all({}, evidence="refused", services=services)
    assert {one.subject for one in found} == {"api.BACKEND_URL", "api.CALLBACK_URL"}
    for one in found:
        (quoted,) = [line for line in one.evidence if "refused" in line]
        assert f"({one.subject.removeprefix('api.')})" in quoted


@pytest.mark.parametrize(
    ("names", "port", "blocks"),
    [
        # Right, and wrong because it is the host's port.
        (("SITE_URL",), 4000, False),
        (("WEBHOOK_URL",), 8081, False),
        (("BACKEND_URL",), 4000, True),
        (("BACKEND_URL",), 8081, True),
        # What only one of them needs is needed.
        (("SITE_URL", "BACKEND_URL"), 4000, True),
    ],
)
def test_an_address_for_browsers_that_nobody_answers_fails_no_run(
    names: tuple[str, ...], port: int, blocks: bool
) -> None:
    ports = [{"target": 4000, "published": "8081", "protocol": "tcp"}]
    body = {"image": "litellm:1", "ports": ports}
    environment = dict.fromkeys(names, f"http://web:{port}")
    services = {"web": body, "api": {"environment": environment}}
    (found,) = find_all({}, evidence="refused", services=services)
    assert "refused" in "\n".join([found.cause, *found.evidence])
    assert found.blocks is blocks
    desired = Desired(compose(services), settings={"links": {}})
    host = well(desired, World(images=["lab/box:1", "nginx:1"]))
    declared = host.declared(desired)
    links = classify_links(desired.spec, {}, declared).links
    (check,) = make_link_checks(desired.spec, links, declared, host.state())
    results = {check.name: CheckResult(name=check.name, outcome="failed", evidence="refused")}
    known = classify_asked(desired, declared, host.state(), results, {})
    # Nor is anybody waited for who may never come.
    assert known.is_waiting is (blocks and port == 4000)


FILES = {
    "compose.yaml": b"services:\n  redis:\n    image: redis:7\n  api:\n    environment:\n"
    b"      REDIS_URL: redis://localhost:6379/1\n      QUEUE: ${QUEUE}\n",
    ".env": b"QUEUE=redis://:s3cr@localhost:6379\n",
}
OF_FILES = {"REDIS_URL": "redis://localhost:6379/1", "QUEUE": "redis://:s3cr@localhost:6379"}


@pytest.mark.parametrize("names_files", [False, True])
def test_a_remedy_offers_the_override_only_where_it_would_correct(names_files: bool) -> None:
    files = FILES | (
        {".env": FILES[".env"] + b"COMPOSE_FILE=compose.yaml\n"} if names_files else {}
    )
    found = {
        one.subject: one for one in find_all(OF_FILES, files=files) if one.subject[:3] == "api"
    }
    assert ("have stackmend do it" in found["api.REDIS_URL"].remedy) is not names_files
    assert found["api.QUEUE"].remedy == "write redis:6379 instead of localhost:6379 in api.QUEUE"


def test_a_patch_names_what_it_leaves() -> None:
    found = find_all(OF_FILES, files=FILES)
    (patch,) = [one for one in found if one.kind == "patch"]
    assert patch.cause.endswith("makes its links right, but for api.QUEUE")
    (left,) = [one for one in found if one.cause == "the patch leaves wrong links as they are"]
    (line,) = left.evidence
    assert line.startswith("api.QUEUE: ")
    assert ".env:1" in line
    assert not left.blocks
    assert not any("s3cr" in text for one in found for text in (one.cause, *one.evidence))
    (patch,) = [one for one in find_all({"REDIS_URL": OF_FILES["REDIS_URL"]}, files=FILES)
                if one.kind == "patch"]  # fmt: skip
    assert patch.cause.endswith("makes its links right")


def test_what_the_inventory_sets_is_in_no_patch() -> None:
    made = 'QUEUE="redis://localhost:6379/0"\n'
    files = FILES | {".env": f"A=1\n{made}".encode()}
    sources = Sources(files, made=made)
    environment = {**OF_FILES, "QUEUE": "redis://localhost:6379/0"}
    desired, _, declared = world(environment, links={})
    links = add_patch(classify_links(desired.spec, sources, declared), sources, None)
    assert "compose.yaml" in "\n".join(links.patch)
    assert ".env" not in "\n".join(links.patch)
    (line,) = links.omitted
    assert line == (
        "api.QUEUE: the inventory sets it; replace localhost:6379 by redis:6379 in stack.env.QUEUE"
    )


def test_the_inventorys_variables_are_not_the_sources_own() -> None:
    spec = Desired(compose({}), settings={"env": {"QUEUE": "redis://localhost:6379"}}).spec
    text = FILES["compose.yaml"].replace(b"api:\n", b"api:\n    image: lab/box:1\n")
    files = {"compose.yaml": File(0o644, text)}
    sources = read_sources(make(spec, files), spec.variables)
    assert sources.read_own(".env") == ""
    assert sources.find_setting(".env", 8) == "stack.env.QUEUE"


def test_what_is_too_long_is_named_once() -> None:
    (found,) = find_all({"BIG_URL": "redis://localhost:6379/?x=" + "x" * 100_000})
    assert found.subject == "api.BIG_URL"
    assert "too long to be read: it has 100026 characters" in found.cause
    assert not found.blocks
    assert find_all({"BIG_URL": "redis://localhost/" + "x" * 100_000}, ignore=["api.BIG_URL"]) == []


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("redis://:${REDIS_PASSWORD}@redis:6379/0", "redis://:${REDIS_PASSWORD}@redis:6379/0"),
        ("amqp://app:${PW}@queue", "amqp://app:${PW}@queue"),
        ("amqp://${USER}:${PW}@queue", "amqp://${USER}:${PW}@queue"),
        ("redis://:${PW:-s3cr}@redis", "redis://:(redacted)@redis"),
        ("redis://:x${PW}@redis", "redis://:(redacted)@redis"),
        ("redis://:$s3cr@redis", "redis://:(redacted)@redis"),
    ],
)
def test_a_variable_in_the_place_of_a_password_is_no_secret(text: str, redacted: str) -> None:
    assert drift.redact(text).replace("://(", "://:(") == redacted


def test_an_address_has_one_status_in_a_run() -> None:
    report = Collector("compose.stack")
    first, last = (
        Finding(subject="api.U", kind="link", cause=cause) for cause in ("8081 or 80", "8081 is 80")
    )
    other = Finding(subject="api.V", kind="link", cause="x")
    report.add_plan(Plan(findings=(first, other)))
    report.add_plan(Plan(findings=(last,)))
    assert report.findings == [other, last]
