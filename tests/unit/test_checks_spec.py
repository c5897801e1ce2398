"""What may be declared as a check, and what the user is told when it may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from stackmend.checks import Checks, ExecCheck, HttpCheck, TcpCheck, parse_checks


class Stack(BaseModel):
    checks: Checks = ()


def messages(*checks: Any) -> list[str]:
    with pytest.raises(ValidationError) as raised:
        Stack(checks=checks)
    return [
        f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
        for error in raised.value.errors(include_url=False)
    ]


HTTP = {"kind": "http", "url": "http://127.0.0.1:8000/healthz"}
TCP = {"kind": "tcp", "address": "redis:6379", "inside": "api"}
NAME = {"kind": "name", "hostname": "redis", "inside": "api"}
GREETING = {"kind": "greeting", "address": "db:5432", "protocol": "postgres", "inside": "api"}
EXEC = {"kind": "exec", "service": "redis", "command": ["redis-cli", "ping"]}


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({**HTTP, "url": "ftp://x"}, "checks.0.url: must be http:// or https://"),
        ({**HTTP, "url": "http:/x"}, "checks.0.url: must be http:// or https://"),
        ({**HTTP, "url": "-o/etc/passwd"}, "checks.0.url: must be http:// or https://"),
        ({**HTTP, "url": "http://"}, "checks.0.url: '' is not a host name or an address"),
        ({**HTTP, "url": "http://a b/"}, "checks.0.url: must not hold blanks"),
        ({**HTTP, "url": "http://a/\r\nX: y"}, "checks.0.url: must not hold blanks"),
        ({**HTTP, "url": "http://me:pw@a/"}, "checks.0.url: must not hold a user or password"),
        ({**HTTP, "url": "http://a:0/"}, "checks.0.url: port '0' must be a number from 1 to 65535"),
        ({**HTTP, "url": "http://a:65536"}, "checks.0.url: port '65536' must be"),
        ({**HTTP, "url": "http://a:b/"}, "checks.0.url: port 'b' must be"),
        ({**HTTP, "url": "http://[::1/"}, "checks.0.url: 'http://[::1/' is not a URL"),
        ({**HTTP, "url": "http://a$(id)/"}, "checks.0.url: 'a$(id)' is not a host name"),
        ({**HTTP, "method": "POST"}, "checks.0.method: must be GET, HEAD or OPTIONS, not 'POST'"),
        ({**HTTP, "status": 99}, "checks.0.status: 99 is not a status"),
        ({**HTTP, "status": "300-200"}, "checks.0.status: '300-200' is not a status"),
        ({**HTTP, "status": []}, "checks.0.status: names no status"),
        ({**HTTP, "status": True}, "checks.0.status: True is not a status"),
        ({**HTTP, "headers": {"A b": "c"}}, "checks.0.headers: 'A b' is not the name of a header"),
        ({**HTTP, "headers": {"A": "b\nc"}}, "checks.0.headers: the value of A must be one line"),
        ({**HTTP, "headers": {"Authorization": "x"}}, "checks.0.headers: Authorization carries a"),
        ({**HTTP, "contains": ""}, "checks.0.contains: "),
        ({**HTTP, "contains": "a", "method": "HEAD"}, "checks.0: contains: the answer to HEAD"),
        ({**HTTP, "timeout": 31}, "checks.0.timeout: "),
        ({**HTTP, "contains": "a\0"}, "checks.0.contains: must not hold a NUL"),
        ({**HTTP, "inside": "-x"}, "checks.0.inside: '-x' is not a service name"),
        ({**HTTP, "inside": "a b"}, "checks.0.inside: 'a b' is not a service name"),
        ({**HTTP, "timeout": 0}, "checks.0.timeout: "),
        ({**HTTP, "timeout": float("inf")}, "checks.0.timeout: "),
        ({**HTTP, "deadline": -1}, "checks.0.deadline: "),
        ({**HTTP, "tiemout": 3}, "checks.0.tiemout: Extra inputs are not permitted"),
        ({**HTTP, "name": "a\nb"}, "checks.0.name: must be one line of text"),
        ({"kind": "http"}, "checks.0.url: Field required"),
        ({**TCP, "address": "redis"}, "checks.0.address: must be host:port"),
        ({**TCP, "address": ":6379"}, "checks.0.address: must be host:port"),
        ({**TCP, "address": "::1:6379"}, "checks.0.address: must be host:port"),
        ({**TCP, "address": "redis:0"}, "checks.0.address: port '0' must be"),
        ({**TCP, "address": "-e:1"}, "checks.0.address: '-e' is not a host name"),
        ({**EXEC, "command": []}, "checks.0.command: names no program"),
        ({**EXEC, "command": ""}, "checks.0.command: "),
        (
            {**EXEC, "command": ["--privileged", "x"]},
            "checks.0.command: the program '--privileged'",
        ),
        ({**EXEC, "command": ["a\0"]}, "checks.0.command.0: must not hold a NUL"),
        ({**EXEC, "exit_code": 256}, "checks.0.exit_code: "),
        (
            {"kind": "ping"},
            "checks.0: must be a mapping whose kind is http, tcp, greeting, name, exec",
        ),
        (
            "http://a",
            "checks.0: must be a mapping whose kind is http, tcp, greeting, name, exec or redis",
        ),
        ({**NAME, "hostname": "redis:6379"}, "checks.0.hostname: 'redis:6379' is not a host name"),
        ({**NAME, "hostname": "-e"}, "checks.0.hostname: '-e' is not a host name"),
        ({**NAME, "inside": "a b"}, "checks.0.inside: 'a b' is not a service name"),
        ({**GREETING, "protocol": "kafka"}, "checks.0.protocol: "),
        ({**GREETING, "address": "db"}, "checks.0.address: must be host:port"),
        ({**GREETING, "inside": "a b"}, "checks.0.inside: 'a b' is not a service name"),
        ({**GREETING, "user": "a\0"}, "checks.0.user: must not hold a NUL"),
        ({**GREETING, "password": "x"}, "checks.0.password: Extra inputs"),
        (
            {**GREETING, "protocol": "amqp", "user": "x"},
            "checks.0: user, database: only a postgres is asked for them",
        ),
    ],
)
def test_a_wrong_one_is_named_by_its_path(check: Any, message: str) -> None:
    found = messages(check)
    assert len(found) == 1
    assert found[0].startswith(message), found


def test_every_wrong_field_is_named() -> None:
    assert [line.partition(":")[0] for line in messages(HTTP, {**TCP, "address": "x", "a": 1})] == [
        "checks.1.address",
        "checks.1.a",
    ]


def test_names_are_unique() -> None:
    assert "two checks have the name 'GET http://127.0.0.1" in messages(HTTP, HTTP)[0]
    assert len(Stack(checks=[HTTP, {**HTTP, "name": "again"}]).checks) == 2


def test_names_are_derived() -> None:
    assert [check.name for check in parse_checks([HTTP, TCP, EXEC])] == [
        "GET http://127.0.0.1:8000/healthz from the host",
        "connect to redis:6379 from inside api",
        "run redis-cli ping in redis",
    ]
    assert parse_checks([{**HTTP, "name": None}])[0].name.startswith("GET ")


def test_they_survive_being_written_and_read() -> None:
    stack = Stack(
        checks=[{**HTTP, "status": ["2xx", 404]}, TCP, EXEC, {**EXEC, "command": "a | b"}]
    )
    assert Stack.model_validate(stack.model_dump()) == stack
    assert Stack.model_validate_json(stack.model_dump_json()) == stack
    assert Stack(checks=stack.checks) == stack


def test_they_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        HttpCheck(url="http://a").url = "http://b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        (200, ("200",)),
        ("2xx", ("200-299",)),
        ("200 - 204", ("200-204",)),
        ([200, "301-302", "5XX"], ("200", "301-302", "500-599")),
        (("200-200",), ("200",)),
    ],
)
def test_statuses(given: Any, codes: tuple[str, ...]) -> None:
    assert HttpCheck(url="http://a", status=given).codes == codes


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("http://a", "a", 80, "http://a/"),
        ("https://A.example/x", "a.example", 443, "https://a.example/x"),
        ("http://[::1]:8/#top", "::1", 8, "http://[::1]:8/"),
        ("http://bücher.example/ü?q=ö&r=%20", "xn--bcher-kva.example", 80, None),
        ("http://ai_api-1:80?a=b", "ai_api-1", 80, "http://ai_api-1:80/?a=b"),
    ],
)
def test_what_is_asked(url: str, host: str, port: int, target: str | None) -> None:
    check = HttpCheck(url=url)
    assert (check.host, check.port) == (host, port)
    assert check.target == target or (
        target is None and check.target == f"http://{host}/%C3%BC?q=%C3%B6&r=%20"
    )
    assert check.target.isascii()


@pytest.mark.parametrize(
    ("check", "touched"),
    [
        (HttpCheck(url="http://api:8000/", inside="worker"), ("worker", "api")),
        (HttpCheck(url="http://worker/", inside="worker"), ("worker",)),
        (HttpCheck(url="http://10.0.0.1/", inside="worker"), ("worker",)),
        (HttpCheck(url="http://example.com/", inside="worker"), ("worker",)),
        (HttpCheck(url="http://localhost:80/", inside="worker"), ("worker",)),
        (HttpCheck(url="http://127.0.0.1:8000/"), ()),
        (TcpCheck(address="[::1]:80", inside="worker"), ("worker",)),
        (TcpCheck(address="redis:6379", inside="api"), ("api", "redis")),
        (ExecCheck(service="redis", command=("true",)), ("redis",)),
    ],
)
def test_the_services_it_touches(check: HttpCheck | TcpCheck, touched: tuple[str, ...]) -> None:
    assert check.list_services() == touched


def test_only_known_services_are_touched_where_they_are_known() -> None:
    check = TcpCheck(address="my.redis:6379", inside="api")
    assert check.list_services() == ("api",)
    assert check.list_services({"api", "my.redis"}) == ("api", "my.redis")
    assert TcpCheck(address="redis:1", inside="api").list_services({"api"}) == ("api",)


def test_a_string_is_for_the_shell() -> None:
    assert ExecCheck.model_validate({**EXEC, "command": "a | b"}).command == ("sh", "-c", "a | b")


def test_as_many_as_one_look_can_hold() -> None:
    checks = [{**TCP, "address": f"a:{port}"} for port in range(1, 66)]
    assert "65 checks: 64 are the most" in messages(*checks)[0]
    assert len(Stack(checks=checks[:64]).checks) == 64
