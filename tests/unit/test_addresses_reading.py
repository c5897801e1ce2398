"""Reading: every form in which an address stands, and nothing that is none."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackmend.addresses import classify, list_links, make_override, make_patch, read
from stackmend.addresses.reading import LONGEST, find_addresses, find_side, list_mounted
from stackmend.addresses.spec import LinksPolicy
from tests.unit.addresses_world import project

Found = list[tuple[str, str, int]]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("URL", "redis://:p@redis:6379/0", [("redis", "redis", 6379)]),
        ("URL", "redis://redis", [("redis", "redis", 6379)]),
        ("URL", "HTTP://Web:80/x?y=z#w", [("http", "Web", 80)]),
        ("URL", "postgresql+asyncpg://u:p@ss@db/n", [("postgresql", "db", 5432)]),
        ("URL", "postgres://u%40x:p%2F@db:5433/n", [("postgres", "db", 5433)]),
        ("URL", "db+mysql://u:p@db/n", [("mysql", "db", 3306)]),
        ("URL", "http://[::1]:8080/", [("http", "[::1]", 8080)]),
        ("URL", "jdbc:postgresql://db:5432/n", [("postgresql", "db", 5432)]),
        ("URL", "jdbc:mysql://a:3306,b:3307/n", [("mysql", "a", 3306), ("mysql", "b", 3307)]),
        ("URL", "jdbc:sqlserver://db:1433;databaseName=n;password=a@b", [("sqlserver", "db",
         1433)]),
        ("URL", "mongodb://u:p@a:27017,b/n?replicaSet=r", [("mongodb", "a", 27017),
         ("mongodb", "b", 27017)]),
        ("URL", "mongodb+srv://u:p@cluster.example.org/n", [("mongodb", "cluster.example.org",
         27017)]),
        ("URLS", "http://a:11434;http://b:11434", [("http", "a", 11434), ("http", "b", 11434)]),
        ("URLS", "http://a:1,http://b:2", [("http", "a", 1), ("http", "b", 2)]),
        ("URLS", "http://a http://b", [("http", "a", 80), ("http", "b", 80)]),
        ("URLS", '["https://a:9200","https://b:9200"]', [("https", "a", 9200),
         ("https", "b", 9200)]),
        ("X", '{"url": "redis://a", "on": true}', [("redis", "a", 6379)]),
        ("U", "sentinel://:p@a:26379/1;sentinel://:p@b:26379/1", [("sentinel", "a", 26379),
         ("sentinel", "b", 26379)]),
        ("U", "PLAINTEXT://a:9092,SSL://b:9093", [("plaintext", "a", 9092), ("ssl", "b", 9093)]),
        ("SENTINELS", "a:26379,b:26379", [("", "a", 26379), ("", "b", 26379)]),
        ("SERVERS", "a:1;b:2 c:3", [("", "a", 1), ("", "b", 2), ("", "c", 3)]),
        ("DSN", "host=db port=5432 user=u password=p@x", [("", "db", 5432)]),
        ("DSN", "Server=db,1433;Database=n", [("", "db", 1433)]),
        ("DSN", "Host=db;Port=5432;Username=u", [("", "db", 5432)]),
        ("DSN", "u:p@tcp(db:3306)/n", [("", "db", 3306)]),
        ("DSN", "u:p@db:3306", [("", "db", 3306)]),
        ("DSN", "postgresql:///n?host=db&port=5432", [("", "db", 5432)]),
        ("DB_HOST", "db", [("", "db", 0)]),
        ("DB_HOST", '"db"', [("", "db", 0)]),
        ("spring.redis.host", "10.0.0.1", [("", "10.0.0.1", 0)]),
        # None of these is one.
        ("MODE", "redis", []),
        ("PORT", "6379", []),
        ("HOST_ID", "17", []),
        ("AT", "10:30:00", []),
        ("NO_PROXY", "redis,localhost", []),
        ("BASE_IMAGE", "redis:7", []),
        ("PATHS", "/a:/b:1", []),
        ("MAC", "00:1a:2b:3c", []),
        ("URL", "http://redis:99999", []),
        ("URL", "redis://:p#w@redis:6379", []),
        ("URL", "http://u:p/w@web:80", []),
        ("URL", "http://${HOST}:80", []),
        ("URL", "unix:///var/run/docker.sock", []),
        ("URL", "file://redis/x", []),
        ("URL", "s3://redis/x", []),
        ("TEXT", "ask redis:6379 or http://web for more", []),
        ("EMPTY", "", []),
    ],
)  # fmt: skip
def test_forms(key: str, value: str, expected: Found) -> None:
    found = [(one.scheme, one.host, one.port) for one in find_addresses(key, value)]
    assert found == expected
    # Each stands where it says.
    for one in find_addresses(key, value):
        text = value[one.start : one.end]
        assert text.startswith(one.host)
        assert one.explicit == text.endswith(f":{one.port}") or "," in text


def test_pairs_have_their_ports_elsewhere() -> None:
    environment = {
        "REDIS_HOST": "redis", "REDIS_PORT": "6380",
        "PAPERLESS_DBHOST": "db", "PAPERLESS_DBPORT": "'5432'",
        "db_hostname": "db", "db_port": "1",
        "MAIL_HOST": "mail", "MAIL_PORT": "none",
    }  # fmt: skip
    found = {one.place.key: one for one in read(project({"app": {"environment": environment}}))}
    assert {key: one.port for key, one in found.items()} == {
        "REDIS_HOST": 6380,
        "PAPERLESS_DBHOST": 5432,
        "db_hostname": 1,
        "MAIL_HOST": 0,
    }
    quoted = found["PAPERLESS_DBHOST"].port_place
    assert quoted is not None
    assert (quoted.key, quoted.start, quoted.end) == ("PAPERLESS_DBPORT", 1, 5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["app", "--url", "redis://redis:6379"], [("2", "url", "redis:6379")]),
        (["app", "--db-host=db", "--db-port=5432"], [("1", "db_host", "db")]),
        (["sh", "-c", "A=1 B=http://b:1 run --host h 'redis://x' && nc -z y 2"],
         [("2", "B", "b:1"), ("2", "host", "h"), ("2", "", "x")]),
        (["bash", "-lc", "run # http://comment:1"], []),
        (["sh", "-c", 'run "unclosed http://a:1'], []),
        (["redis"], []),
        ("run --url http://a:1", [("0", "url", "a:1")]),
        (None, []),
    ],
)  # fmt: skip
def test_words_of_commands(words: Any, expected: list[tuple[str, str, str]]) -> None:
    found = read(project({"app": {"command": words}}))
    assert [(one.place.key, one.place.word, one.text) for one in found] == expected
    for one in found:
        text = words if isinstance(words, str) else words[int(one.place.key)]
        assert text[one.place.start : one.place.end] == one.text


@pytest.mark.parametrize(
    ("side", "names"),
    [
        ("browser", "NEXTAUTH_URL WEBUI_URL SITE_URL APP_URL MY_ROOT_URL X_PUBLIC_X TRIGGER_URL "
         "N8N_WEBHOOK_URL CALLBACK_HOST CORS_ALLOW OAUTH_REDIRECT_URI MINIO_CONSOLE_URL FILES_URL "
         "NEXT_PUBLIC_API VITE_X OIDC_ISSUER COOKIE_DOMAIN S3_EXTERNAL_ENDPOINT ALLOWED_ORIGINS"),
        ("bind", "HOST LISTEN_ADDR DIFY_BIND_ADDRESS SERVER_HOST UVICORN_HOST KAFKA_LISTENERS"),
        ("server", "INTERNAL_FILES_URL DATABASE_URL OLLAMA_HOST OLLAMA_BASE_URL MEILI_HOST "
         "S3_ENDPOINT CELERY_BROKER_URL NEXTAUTH_URL_INTERNAL RAG_API_URL"),
    ],
)  # fmt: skip
def test_sides_by_name(side: str, names: str) -> None:
    assert {find_side(name, "http") for name in names.split()} == {side}


def test_no_password_is_in_what_is_read() -> None:
    values = {
        "A": "redis://:hunter2@redis:6379/0",
        "B": "postgresql://user:hunter2@db/n",
        "C": "user:hunter2@db:5432",
        "D": "host=db password=hunter2",
        "E": "sentinel://:hunter2@a:1/1;sentinel://:hunter2@b:1/1",
    }
    found = read(project({"app": {"environment": values}}))
    assert len(found) == 6
    assert "hunter2" not in str(found)
    assert [(one.user, one.password) for one in found[:3]] == [
        (False, True),
        (True, True),
        (True, True),
    ]


def test_links_are_what_is_to_be_proven() -> None:
    services = {
        "app": {
            "environment": {
                "URL": "redis://redis:6379",
                "SAME": "redis://redis:6379/1",
                "PUBLIC_URL": "http://web:80",
                "HOST": "web",
                "OUTSIDE": "http://example.org",
                "SELF_URL": "http://app:1",
                "ALIAS": "http://front:8080",
            },
            "healthcheck": {"test": ["CMD", "curl", "http://web:80"]},
            "command": ["run", "--db-host", "db"],
        },
        "redis": {},
        "web": {"networks": {"default": {"aliases": ["front"]}}},
        "db": {"container_name": "my-db"},
    }
    config = project(services)
    expected = [
        "app → redis:6379 (URL)",
        # By the name of a service no browser finds it.
        "app → web:80 (PUBLIC_URL)",
        "app → front:8080 (ALIAS)",
        "app → db (db_host)",
    ]
    assert [str(link) for link in list_links(read(config))] == expected
    assert [str(link) for link in list_links(classify(read(config), config))] == expected
    assert [link.target for link in list_links(read(config))] == ["redis", "web", "web", "db"]


def test_each_address_knows_the_networks_that_it_leads_over() -> None:
    """Those of the two on which the name is known, by their keys."""
    names = ("redis", "cache", "near", "own", "db", "apart", "shop-redis-1", "localhost", "x.org")
    environment = {f"URL_{number}": f"redis://{name}:6379" for number, name in enumerate(names)}
    services = {
        "app": {
            "environment": environment,
            "networks": {"back": None, "front": None},
            "links": ["db:own"],
        },
        "side": {"environment": environment, "network_mode": "service:app"},
        "edge": {"environment": environment, "network_mode": "host"},
        "redis": {"networks": {"back": {"aliases": ["cache", "near"]}, "front": None}},
        # The name leads to another one of the two in app.
        "other": {"networks": {"far": {"aliases": ["own"]}}},
        "apart": {"networks": {"far": {"aliases": ["cache"]}}},
        "db": {"networks": {"front": None}},
    }
    found = {
        (address.place.service, address.host): (address.target, address.networks)
        for address in read(project(services))
    }
    expected: dict[str, tuple[str, tuple[str, ...] | None]] = {
        "redis": ("redis", ("back", "front")),
        "cache": ("redis", ("back",)),
        "near": ("redis", ("back",)),
        "own": ("db", ("front",)),
        "db": ("db", ("front",)),
        "apart": ("apart", ()),
        "shop-redis-1": ("redis", ("back", "front")),
        "localhost": ("", None),
        "x.org": ("", None),
    }
    assert {name: found["app", name] for name in names} == expected
    # A sidecar has the networks of the one whose namespace it borrows.
    shared = {name: value for name, value in expected.items() if name != "own"}
    assert {name: found["side", name] for name in names if name != "own"} == shared
    assert {found["edge", name][1] for name in names} == {(), None}


def test_what_is_mounted() -> None:
    config = project(
        {
            "app": {
                "volumes": [
                    {"type": "bind", "source": "/opt/a.yaml", "target": "/a.yaml"},
                    {"type": "volume", "source": "data", "target": "/data"},
                ],
                "configs": [{"source": "b"}],
            }
        },
        configs={"b": {"file": "/opt/b.toml"}},
    )
    assert list_mounted(config, "app") == ["/opt/a.yaml", "/opt/b.toml"]


TEXT = st.text(st.sampled_from("ab1:/@.,;=- \n'\"[]{}$#?%()\\éhttp"), max_size=60)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["REDIS_URL", "DB_HOST", "DB_PORT", "X", "HTTP_PROXY"]), TEXT),
    st.one_of(TEXT, st.lists(TEXT, max_size=4)),
    st.sampled_from(["", "host", "none", "service:redis", "service:gone", "container:x"]),
)
def test_whatever_stands_there_is_read_and_nothing_else_is_touched(
    environment: dict[str, str], command: Any, mode: str
) -> None:
    body = {"environment": environment, "command": command}
    if mode:
        body["network_mode"] = mode
    config = project({"app": body, "redis": {"image": "redis:7"}, "db": {"image": "postgres"}})
    addresses = read(config)
    judgements = classify(addresses, config)
    assert len(judgements) == len(addresses)
    make_override(judgements, config, {})
    assert str(make_patch(judgements, {})) == ""


@pytest.mark.parametrize(
    "value",
    [
        "a" * LONGEST,
        "a:" * LONGEST,
        "a@" * LONGEST,
        "http://" * LONGEST,
        "http://" + "a" * LONGEST + "://x",
        "a:b@" * LONGEST,
        "host=" * LONGEST,
        "host " * LONGEST + "=",
        "[" * LONGEST,
        "a.-" * LONGEST,
        "u:" + "p" * LONGEST + "@h:1",
        "http://a," * LONGEST,
        "'" * LONGEST,
    ],
)
def test_a_long_value_takes_no_longer_than_it_is_long(value: str) -> None:
    config = project({"app": {"environment": {"URL": value}, "command": ["sh", "-c", value]}})
    began = time.process_time()
    classify(read(config), config)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("raw", "ignore"),
    [({}, ()), ({"ignore": "api.URL"}, ("api.URL",)), ({"ignore": ["a.*", "*.b"]}, ("a.*", "*.b"))],
)
def test_settings(raw: dict[str, Any], ignore: tuple[str, ...]) -> None:
    policy = LinksPolicy.model_validate(raw)
    assert (policy.on_conflict, policy.files, policy.ignore) == ("report", False, ignore)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"on_conflict": "force"}, "on_conflict"),
        ({"ignore": ["URL"]}, "must be SERVICE.VARIABLE, such as api.REDIS_URL, not 'URL'"),
        ({"ignore": ["a. b"]}, "must be SERVICE.VARIABLE"),
        ({"files": "yes"}, "boolean"),
        ({"files": 1}, "boolean"),
        ({"more": 1}, "more"),
    ],
)
def test_settings_that_are_none(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        LinksPolicy.model_validate(raw)
