"""What may be right is not rewritten, and what is not read is not passed over in silence."""

from __future__ import annotations

from typing import Any

import pytest

from stackmend.addresses import list_links, list_unread, locate, make_override, read
from stackmend.addresses.reading import LONGEST
from stackmend.addresses.sources import Sources
from stackmend.addresses.state import ImageFacts, Judgement, Running, RunningService
from tests.unit.addresses_world import judge, project, write

REDIS = {"image": "redis:7"}
WEB = {"image": "nginx:1", "ports": ["8081:80"]}
EXPOSING = {"nginx:1": ImageFacts(ports=(80,))}


def judge_variables(
    others: dict[str, Any], environment: dict[str, str], *args: Any, **api: Any
) -> dict[str, Judgement]:
    """What is thought of the variables of a service ``api``, by their names."""
    body = {"image": "example/api:1", "environment": environment, **api}
    config = project({"api": body, **others})
    return {one.address.place.key: one for one in judge(config, *args)}


# Names that nobody has


@pytest.mark.parametrize("host", ["corp-cache", "zzqq", "broker", "kv", "cache01", "main"])
@pytest.mark.parametrize(
    "beside", [{}, {"REDIS_URL": "redis://localhost:6379/0"}, {"B": "http://web:80"}]
)
@pytest.mark.parametrize("resolves", [None, True, False])
def test_a_name_that_resembles_no_service_is_never_rewritten(
    host: str, beside: dict[str, str], resolves: bool | None
) -> None:
    names = {} if resolves is None else {host: resolves}
    running = Running(services={"api": RunningService(names=names)})
    found = judge_variables(
        {"redis": REDIS, "web": WEB},
        {"OTHER_URL": f"redis://{host}:6379/0", **beside},
        running,
        depends_on={"redis": {}},
    )["OTHER_URL"]
    assert found.status == ("right" if resolves else "ambiguous")
    assert not found.edits
    assert ("does not resolve" in found.cause) is (resolves is False)


@pytest.mark.parametrize("host", ["rediss", "reddis"])
def test_a_slip_of_a_services_name_is_still_corrected(host: str) -> None:
    found = judge_variables({"redis": REDIS}, {"U": f"redis://{host}:6379"})["U"]
    assert (found.status, found.right) == ("wrong", "redis:6379")


# Names of services that are in variables for browsers


@pytest.mark.parametrize(
    "name",
    ["WEBHOOK", "WEB_URL", "CALLBACK_URL", "SITE_URL", "PUBLIC_URL", "OIDC_ISSUER", "BACKEND_URL"],
)
def test_no_browser_knows_a_services_name(name: str) -> None:
    wrong = judge_variables({"web": WEB}, {name: "http://web:8081"}, None, EXPOSING)[name]
    assert (wrong.status, wrong.reason, wrong.right) == ("wrong", "published-port", "web:80")
    # What its image exposes is not known: it may listen there as well.
    doubtful = judge_variables({"web": WEB}, {name: "http://web:8081"})[name]
    assert (doubtful.status, doubtful.edits) == ("ambiguous", ())
    config = project({"api": {"environment": {name: "http://web:80"}}, "web": WEB})
    assert [str(link) for link in list_links(read(config))] == [f"api → web:80 ({name})"]
    # Not rewritten for any other reason: the service may not call it at all.
    apart = judge_variables({"web": {**WEB, "networks": {"o": None}}}, {name: "http://web:80"})
    assert apart[name].status == ("wrong" if name == "BACKEND_URL" else "ambiguous")
    assert apart[name].edits == ()


def test_a_pair_of_a_services_name_and_its_port_is_no_address_to_listen_on() -> None:
    environment = {"WEB_HOST": "web", "WEB_PORT": "8081"}
    found = judge_variables({"web": WEB}, environment, None, EXPOSING)["WEB_HOST"]
    assert (found.status, found.right) == ("wrong", "web:80")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORS_ORIGINS", "http://web:8081"),
        ("ALLOWED_HOSTS", "web:8081"),
        ("VIRTUAL_HOST", "web"),
        ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://web:8081"),
        ("SITE_URL", "http://api:8081"),
        ("SITE_URL", "http://web.example.org:8081"),
        ("SITE_URL", "http://nas:8081"),
    ],
)
def test_what_is_compared_or_outside_is_left_alone(name: str, value: str) -> None:
    assert judge_variables({"web": WEB}, {name: value}, None, EXPOSING)[name].status == "right"


# What says that a service listens itself


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("HOST_DSN", "host=redis password=x port=6379", "wrong"),
        ("HOST_DSN", "postgresql://db:5432/x?port=6379", "wrong"),
        ("HOSTS", "localhost:6379,redis:6379", "wrong"),
        ("NODE_HOSTS", "a:6379 b:6379", "wrong"),
        ("PORT", "16379", "wrong"),
        ("SOME_PORT", "6379", "ambiguous"),
        ("UPSTREAM_PORT", "6379", "ambiguous"),
        ("SIDE_ADDR", "127.0.0.1:6379", "ambiguous"),
        ("PORT", "6379", "right"),
        ("APP_PORT", "6379", "right"),
        ("API_PORT", "'6379'", "right"),
        ("LISTEN_PORT", "6379", "right"),
        ("SERVER_PORT", "6379", "right"),
        ("HTTP_PORT", "6379", "right"),
        ("SIDE_ADDR", "0.0.0.0:6379", "right"),
        ("SIDE_ADDR", ":6379", "right"),
        ("BIND_ADDR", "tcp://[::]:6379", "right"),
    ],
)
def test_only_a_port_of_its_own_says_that_a_service_listens_itself(
    name: str, value: str, status: str
) -> None:
    environment = {"FROM_ENV": "redis://localhost:6379/1", name: value}
    found = judge_variables({"redis": REDIS}, environment)["FROM_ENV"]
    assert found.status == status
    assert bool(found.edits) is (status == "wrong")


def test_a_list_that_names_the_service_besides_is_not_rewritten() -> None:
    config = project(
        {"api": {"environment": {"NODES": "localhost:6379,redis:6379"}}, "redis": REDIS}
    )
    assert [one.status for one in judge(config)] == ["ambiguous", "right"]


# Names that nobody can be reached by


@pytest.mark.parametrize("name", ["redis.", "localhost", "LocalHost"])
@pytest.mark.parametrize("host", ["redis.", "redis", "localhost", "redsi"])
def test_a_service_that_no_name_reaches_is_never_written(name: str, host: str) -> None:
    config = project({"api": {"environment": {"U": f"redis://{host}:6379"}}, name: REDIS})
    for one in judge(config):
        assert not one.edits
        assert one.right == ""
        if one.status == "wrong":
            assert f"the service {name}" in one.cause
            assert one.remedy.startswith(f"rename the service {name}")
    assert make_override(judge(config), config, write(config)).content == b""
    if host in ("redis.", "redis", "localhost"):
        assert [one.status for one in judge(config)] == ["wrong"]


# What is too long


@pytest.mark.parametrize("size", [LONGEST - 100, 100_000])
def test_what_is_too_long_to_be_read_is_named(size: int) -> None:
    url = "redis://localhost:6379/?x="
    environment = {"U": url + "x" * size, "CERT": "x" * size, "NO_PROXY": url + "x" * size}
    body = {"environment": environment, "command": ["sh", "-c", url + "x" * size]}
    config = project({"api": body, "redis": REDIS})
    found = [(one.service, one.name) for one in list_unread(config)]
    assert found == ([] if size < LONGEST else [("api", "U"), ("api", "command")])
    assert all(one.size > one.limit == LONGEST for one in list_unread(config))


def test_a_mounted_file_that_is_too_large_is_named() -> None:
    mount = {"type": "bind", "source": "/x/app.yaml", "target": "/app.yaml"}
    config = project({"api": {"volumes": [mount]}})
    assert [one.name for one in list_unread(config, {"/x/app.yaml": b"x" * 2_000_000})] == [
        "/x/app.yaml"
    ]
    assert list_unread(config, {"/x/app.yaml": b"a: 1"}) == ()


# Where a value comes from


@pytest.mark.parametrize(
    ("text", "dotenv", "made", "value", "source"),
    [
        ("redis://${RHOST}:6379", "A=1\nRHOST=localhost\n", "", "localhost", ".env:2"),
        ("redis://${RHOST}:6379", "", 'RHOST="localhost"\n', "localhost", "stack.env.RHOST"),
        ("${U}", "A=1\n", 'U="redis://localhost:6379"\n', "localhost", "stack.env.U"),
        ("${U}", "U=redis://localhost:6379\n", 'A="1"\n', "localhost", ".env:1"),
        ("redis://${ELSEWHERE}:6379", "", "", "localhost", "compose.yaml:4"),
    ],
)
def test_each_value_names_where_it_comes_from(
    text: str, dotenv: str, made: str, value: str, source: str
) -> None:
    files = {
        "compose.yaml": f"services:\n  api:\n    environment:\n      U: {text}\n".encode(),
        ".env": f"{dotenv}{made}".encode(),
    }
    config = project({"api": {"environment": {"U": f"redis://{value}:6379"}}, "redis": REDIS})
    (address,) = locate(read(config), Sources(files, made=made))
    assert address.place.source == source


def test_an_address_for_browsers_is_no_reason_for_an_exemption_from_a_proxy() -> None:
    environment = {"HTTP_PROXY": "http://proxy.example.org:3128", "SITE_URL": "http://web:80"}
    assert judge_variables({"web": WEB}, environment)["SITE_URL"].status == "right"
    environment["BACKEND_URL"] = "http://web:80"
    assert judge_variables({"web": WEB}, environment)["BACKEND_URL"].reason == "proxy"
