"""The shapes in which applications take addresses: each right, and as it goes wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from stackmend.addresses import list_links, read
from stackmend.addresses.state import ImageFacts
from tests.unit.addresses_world import findings, mend, project


class Shape(NamedTuple):
    """Services beside an application, its right environment, and what goes wrong with it.

    Each wrong one: what is changed, and what is found: subject, status, reason, right value.
    """

    others: dict[str, Any]
    right: dict[str, str]
    wrong: list[tuple[dict[str, str], list[tuple[str, str, str, str]]]]
    body: dict[str, Any] = {}  # noqa: RUF012 (a tuple's, which nobody changes)


REDIS: dict[str, Any] = {"image": "redis:7"}
OLLAMA: dict[str, Any] = {"image": "ollama/ollama", "ports": ["11434:11434"]}
POSTGRES: dict[str, Any] = {"image": "postgres:16"}
WEBUI = {"image": "ghcr.io/open-webui/open-webui:main", "ports": ["3000:8080"]}


def wrong(variable: str, reason: str, right: str) -> tuple[str, str, str, str]:
    return (f"app.{variable}", "wrong", reason, right)


def doubtful(variable: str, reason: str) -> tuple[str, str, str, str]:
    return (f"app.{variable}", "ambiguous", reason, "")


SHAPES: dict[str, Shape] = {
    "1 open-webui": Shape(
        {"ollama": OLLAMA},
        {"OLLAMA_BASE_URL": "http://ollama:11434"},
        [
            (
                {"OLLAMA_BASE_URL": "http://localhost:11434"},
                [wrong("OLLAMA_BASE_URL", "loopback", "ollama:11434")],
            ),
            (
                {"OLLAMA_BASE_URL": "http://ollama:11434/api"},
                [wrong("OLLAMA_BASE_URL", "form", "ollama:11434")],
            ),
        ],
        WEBUI,
    ),
    "2 open-webui, several": Shape(
        {"a": {"image": "ollama/ollama"}, "b": {"image": "ollama/ollama"}},
        {"OLLAMA_BASE_URLS": "http://a:11434;http://b:11434"},
        [
            (
                {"OLLAMA_BASE_URLS": "http://a:11434,http://b:11434"},
                [wrong("OLLAMA_BASE_URLS", "form", "a:11434;")],
            ),
            # The one that it takes the place of is read by nobody.
            ({"OLLAMA_BASE_URL": "http://localhost:11434"}, []),
            ({"OLLAMA_BASE_URL": "http://a:11434/api"}, []),
            (
                {
                    "OLLAMA_BASE_URL": "http://a:11434",
                    "OLLAMA_BASE_URLS": "http://a:11434;http://b:11434/api",
                },
                [wrong("OLLAMA_BASE_URLS", "form", "b:11434")],
            ),
            # Which of the two the second one is cannot be known.
            (
                {"OLLAMA_BASE_URLS": "http://a:11434;http://localhost:11434"},
                [doubtful("OLLAMA_BASE_URLS", "loopback")],
            ),
        ],
        WEBUI,
    ),
    "3 open-webui, OpenAI": Shape(
        {
            "litellm": {"image": "ghcr.io/berriai/litellm:main", "ports": ["4000:4000"]},
            "ollama": OLLAMA,
            "vllm": {"image": "vllm/vllm-openai"},
        },
        {
            "OPENAI_API_BASE_URL": "http://litellm:4000/v1",
            "OPENAI_API_BASE_URLS": "http://litellm:4000/v1;https://api.openai.com/v1",
        },
        [
            (
                {"OPENAI_API_BASE_URLS": "http://localhost:4000/v1;https://api.openai.com/v1"},
                [wrong("OPENAI_API_BASE_URLS", "loopback", "litellm:4000")],
            ),
            (
                {
                    "OPENAI_API_BASE_URL": "http://localhost:4000/v1",
                    "OPENAI_API_BASE_URLS": "",
                },
                [wrong("OPENAI_API_BASE_URL", "loopback", "litellm:4000")],
            ),
            ({"OPENAI_API_BASE_URL": "http://localhost:4000/v1"}, []),
            (
                {"OPENAI_API_BASE_URLS": "http://litellm:4000/v1,https://api.openai.com/v1"},
                [wrong("OPENAI_API_BASE_URLS", "form", "litellm:4000;")],
            ),
            # LiteLLM has its API without /v1, too; Ollama and vLLM have another one there, or none.
            ({"OPENAI_API_BASE_URLS": "http://litellm:4000"}, []),
            (
                {"OPENAI_API_BASE_URLS": "http://ollama:11434"},
                [doubtful("OPENAI_API_BASE_URLS", "form")],
            ),
            (
                {"OPENAI_API_BASE_URLS": "http://litellm:4000/v1;http://vllm:8000/"},
                [doubtful("OPENAI_API_BASE_URLS", "form")],
            ),
            ({"OPENAI_API_BASE_URLS": "http://ollama:11434/v1;http://vllm:8000/v1"}, []),
        ],
        WEBUI,
    ),
    "4 AnythingLLM": Shape(
        {"ollama": OLLAMA},
        {"LLM_PROVIDER": "ollama", "OLLAMA_BASE_PATH": "http://ollama:11434"},
        [
            (
                {"OLLAMA_BASE_PATH": "http://127.0.0.1:11434"},
                [wrong("OLLAMA_BASE_PATH", "loopback", "ollama:11434")],
            ),
            (
                {"OLLAMA_BASE_PATH": "http://host.docker.internal:11434"},
                [wrong("OLLAMA_BASE_PATH", "no-extra-host", "")],
            ),
        ],
        {"image": "mintplexlabs/anythingllm", "ports": ["3001:3001"]},
    ),
    "5 AnythingLLM, pgvector": Shape(
        {"db": {"image": "pgvector/pgvector:pg16"}},
        {"PGVECTOR_CONNECTION_STRING": "postgresql://u:p@db:5432/n", "VECTOR_DB": "pgvector"},
        [
            (
                {"PGVECTOR_CONNECTION_STRING": "postgresql://u:p@localhost:5432/n"},
                [wrong("PGVECTOR_CONNECTION_STRING", "loopback", "db:5432")],
            ),
        ],
    ),
    "6 dify, pairs": Shape(
        {
            "db_postgres": {"image": "postgres:15", "ports": ["5433:5432"]},
            "redis": {"image": "redis:6", "ports": ["6380:6379"]},
        },
        {
            "DB_TYPE": "postgresql",
            "DB_HOST": "db_postgres",
            "DB_PORT": "5432",
            "REDIS_HOST": "redis",
            "REDIS_PORT": "6379",
            "VECTOR_STORE": "weaviate",
        },
        [
            ({"DB_HOST": "localhost"}, [wrong("DB_HOST", "loopback", "db_postgres:5432")]),
            ({"REDIS_HOST": "localhost"}, [wrong("REDIS_HOST", "loopback", "redis:6379")]),
            ({"DB_PORT": "5433"}, [wrong("DB_HOST", "published-port", "db_postgres:5432")]),
            ({"REDIS_PORT": "6380"}, [wrong("REDIS_HOST", "published-port", "redis:6379")]),
            (
                {"DB_HOST": "127.0.0.1", "DB_PORT": "5433"},
                [wrong("DB_HOST", "loopback", "db_postgres:5432")],
            ),
        ],
        {"image": "langgenius/dify-api:1.0"},
    ),
    "7 dify, Celery": Shape(
        {"redis": REDIS},
        {"REDIS_HOST": "redis", "CELERY_BROKER_URL": "redis://:pw@redis:6379/1"},
        [
            (
                {"CELERY_BROKER_URL": "redis://:pw@localhost:6379/1"},
                [wrong("CELERY_BROKER_URL", "loopback", "redis:6379")],
            ),
            (
                {"CELERY_BROKER_URL": "redis://:pw@rediss:6379/1"},
                [wrong("CELERY_BROKER_URL", "unknown-name", "redis:6379")],
            ),
        ],
    ),
    "8 dify, sentinels": Shape(
        {name: {"image": "redis:7", "expose": ["26379"]} for name in ("a", "b")},
        {
            "REDIS_SENTINELS": "a:26379,b:26379",
            "CELERY_BROKER_URL": "sentinel://:pw@a:26379/1;sentinel://:pw@b:26379/1",
        },
        [
            (
                {"REDIS_SENTINELS": "a:6379,localhost:26379"},
                [doubtful("REDIS_SENTINELS", "loopback")],
            ),
            (
                {"REDIS_SENTINELS": "a:26379;b:26379"},
                [wrong("REDIS_SENTINELS", "form", "a:26379,")],
            ),
            (
                {"REDIS_SENTINELS": "sentinel://a:26379;sentinel://b:26379"},
                [
                    wrong("REDIS_SENTINELS", "form", "a:26379,"),
                    wrong("REDIS_SENTINELS", "form", "b:26379"),
                ],
            ),
            # What stands before the host belongs elsewhere.
            (
                {"REDIS_SENTINELS": "sentinel://:pw@a:26379"},
                [wrong("REDIS_SENTINELS", "form", "")],
            ),
            (
                {"CELERY_BROKER_URL": "sentinel://:pw@a:26379/1,sentinel://:pw@b:26379/1"},
                [wrong("CELERY_BROKER_URL", "form", "a:26379;")],
            ),
        ],
        {"image": "langgenius/dify-api:1.0"},
    ),
    "9 dify, inside and outside": Shape(
        {"api": {"image": "langgenius/dify-api:1.0", "ports": ["5001:5001"]}},
        {"INTERNAL_FILES_URL": "http://api:5001", "FILES_URL": "https://files.example.org"},
        [
            (
                {
                    "INTERNAL_FILES_URL": "https://files.example.org",
                    "FILES_URL": "http://api:5001",
                },
                [
                    wrong("INTERNAL_FILES_URL", "swapped", "http://api:5001"),
                    wrong("FILES_URL", "swapped", "https://files.example.org"),
                ],
            ),
        ],
    ),
    "10 langfuse": Shape(
        {
            "postgres": {"image": "postgres:17", "ports": ["127.0.0.1:5432:5432"]},
            "clickhouse": {
                "image": "clickhouse/clickhouse-server",
                "ports": ["127.0.0.1:8123:8123", "127.0.0.1:9000:9000"],
            },
        },
        {
            "DATABASE_URL": "postgresql://postgres:postgres@postgres:5432/postgres",
            "CLICKHOUSE_URL": "http://clickhouse:8123",
            "CLICKHOUSE_MIGRATION_URL": "clickhouse://clickhouse:9000",
        },
        [
            (
                {
                    "CLICKHOUSE_URL": "http://clickhouse:9000",
                    "CLICKHOUSE_MIGRATION_URL": "clickhouse://clickhouse:8123",
                },
                [
                    wrong("CLICKHOUSE_URL", "wrong-kind", "clickhouse:8123"),
                    wrong("CLICKHOUSE_MIGRATION_URL", "wrong-kind", "clickhouse:9000"),
                ],
            ),
            (
                {"DATABASE_URL": "postgresql://postgres:postgres@localhost:5432/postgres"},
                [wrong("DATABASE_URL", "loopback", "postgres:5432")],
            ),
        ],
        {"image": "langfuse/langfuse:3", "ports": ["3000:3000"]},
    ),
    "11 langfuse, events": Shape(
        {"minio": {"image": "minio/minio", "ports": ["9090:9000", "127.0.0.1:9091:9001"]}},
        {"LANGFUSE_S3_EVENT_UPLOAD_ENDPOINT": "http://minio:9000"},
        [
            (
                {"LANGFUSE_S3_EVENT_UPLOAD_ENDPOINT": "http://localhost:9090"},
                [wrong("LANGFUSE_S3_EVENT_UPLOAD_ENDPOINT", "loopback", "minio:9000")],
            ),
        ],
        {"image": "langfuse/langfuse-worker:3"},
    ),
    "12 LibreChat": Shape(
        {
            "mongodb": {"image": "mongo:7", "container_name": "chat-mongodb"},
            "meilisearch": {"image": "getmeili/meilisearch:v1.12"},
        },
        {
            "MONGO_URI": "mongodb://mongodb:27017/LibreChat",
            "MEILI_HOST": "http://meilisearch:7700",
        },
        [
            (
                {"MONGO_URI": "mongodb://127.0.0.1:27017/LibreChat"},
                [wrong("MONGO_URI", "loopback", "mongodb:27017")],
            ),
            (
                {"MEILI_HOST": "http://0.0.0.0:7700"},
                [wrong("MEILI_HOST", "loopback", "meilisearch:7700")],
            ),
            ({"MONGO_URI": "mongodb://chat-mongodb:27017/LibreChat"}, []),
        ],
        {"image": "ghcr.io/danny-avila/librechat-dev", "ports": ["3080:3080"]},
    ),
    "13 paperless": Shape(
        {
            "broker": {"image": "redis:8"},
            "db": {"image": "postgres:17"},
            "tika": {"image": "apache/tika"},
        },
        {
            "PAPERLESS_REDIS": "redis://broker:6379",
            "PAPERLESS_DBHOST": "db",
            "PAPERLESS_TIKA_ENDPOINT": "http://tika:9998",
        },
        [
            (
                {"PAPERLESS_REDIS": "redis://redis:6379"},
                [wrong("PAPERLESS_REDIS", "unknown-name", "broker:6379")],
            ),
            ({"PAPERLESS_DBHOST": "postgres"}, [wrong("PAPERLESS_DBHOST", "unknown-name", "db")]),
            (
                {"PAPERLESS_TIKA_ENDPOINT": "http://localhost:9998"},
                [wrong("PAPERLESS_TIKA_ENDPOINT", "loopback", "tika:9998")],
            ),
        ],
        {"image": "ghcr.io/paperless-ngx/paperless-ngx"},
    ),
    "15 n8n": Shape(
        {"postgres": POSTGRES},
        {"DB_TYPE": "postgresdb", "DB_POSTGRESDB_HOST": "postgres"},
        [
            (
                {"DB_POSTGRESDB_HOST": "localhost"},
                [wrong("DB_POSTGRESDB_HOST", "loopback", "postgres:5432")],
            ),
        ],
        {"image": "n8nio/n8n", "ports": ["5678:5678"]},
    ),
    "16 flowise": Shape(
        {"postgres": POSTGRES, "redis": REDIS},
        {
            "DATABASE_TYPE": "postgres",
            "DATABASE_HOST": "postgres",
            "REDIS_URL": "redis://redis:6379",
        },
        [
            ({"DATABASE_HOST": "localhost"}, [wrong("DATABASE_HOST", "loopback", "postgres")]),
            (
                {"REDIS_URL": "redis://localhost:6379"},
                [wrong("REDIS_URL", "loopback", "redis:6379")],
            ),
        ],
        {"image": "flowiseai/flowise"},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_right_and_as_it_goes_wrong(name: str) -> None:
    shape = SHAPES[name]
    body = {"image": "example/app:1", **shape.body}
    found = {"right": findings(stack(shape, body, shape.right))}
    expected: dict[str, Any] = {"right": []}
    for changed, outcome in shape.wrong:
        found[str(changed)] = findings(stack(shape, body, shape.right | changed))
        expected[str(changed)] = outcome
    assert found == expected


@pytest.mark.parametrize(
    ("name", "wrong_value", "right_value"),
    [
        ("REDIS_SENTINELS", "a:26379;b:26379", "a:26379,b:26379"),
        ("REDIS_SENTINELS", "Sentinel://a:26379;sentinel://b:26379", "a:26379,b:26379"),
        ("REDIS_SENTINELS", "sentinel://a:26379,sentinel://b:26379", "a:26379,b:26379"),
        # No space is left where it is not known that the reader takes it away.
        ("REDIS_SENTINELS", "a:26379; b:26379", "a:26379,b:26379"),
        ("REDIS_SENTINELS", "sentinel://a:26379; sentinel://b:26379", "a:26379,b:26379"),
        ("REDIS_SENTINELS", "sentinel://a:26379, sentinel://b:26379", "a:26379,b:26379"),
        (
            "CELERY_BROKER_URL",
            "sentinel://:pw@a:26379/1,sentinel://:pw@b:26379/1",
            "sentinel://:pw@a:26379/1;sentinel://:pw@b:26379/1",
        ),
        (
            "CELERY_BROKER_URL",
            "sentinel://:pw@a:26379/1, sentinel://:pw@b:26379/1",
            "sentinel://:pw@a:26379/1;sentinel://:pw@b:26379/1",
        ),
    ],
)
def test_8_a_list_is_written_as_its_reader_takes_it(
    name: str, wrong_value: str, right_value: str
) -> None:
    shape = SHAPES["8 dify, sentinels"]
    config = mend(stack(shape, shape.body, {name: wrong_value}))
    assert config["services"]["app"]["environment"][name] == right_value
    assert findings(config) == []


@pytest.mark.parametrize("image", ["example/app:1", "langgenius/dify-web:1"])
def test_8_what_another_application_takes_is_not_known(image: str) -> None:
    shape = SHAPES["8 dify, sentinels"]
    for value in ("a:26379;b:26379", "sentinel://a:26379"):
        found = findings(stack(shape, {"image": image}, {"REDIS_SENTINELS": value}))
        assert bool(found) == ("dify" in image)


def test_4_the_host_with_extra_hosts_is_right() -> None:
    shape = SHAPES["4 AnythingLLM"]
    environment = {
        "LLM_PROVIDER": "ollama",
        "OLLAMA_BASE_PATH": "http://host.docker.internal:11434",
    }
    body = shape.body | {"extra_hosts": ["host.docker.internal:host-gateway"]}
    assert findings(stack(shape, body, environment)) == []


def test_2_nobody_calls_what_is_not_read() -> None:
    shape = SHAPES["2 open-webui, several"]
    single = {"OLLAMA_BASE_URL": "http://a:11434"}
    for more, called in (({}, ["a"]), ({"OLLAMA_BASE_URLS": "http://b:11434"}, ["b"])):
        links = list_links(read(stack(shape, shape.body, single | more)))
        assert [link.host for link in links] == called


def stack(shape: Shape, body: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    return project({"app": body | {"environment": environment}, **shape.others})


def test_14_immich_has_its_names_in_its_image() -> None:
    images = {
        "immich": ImageFacts(env={"REDIS_HOSTNAME": "redis", "DB_HOSTNAME": "database"}),
    }
    server = {"image": "immich", "depends_on": {"cache": {}, "database": {}}}
    database = {"image": "ghcr.io/immich-app/postgres:14"}
    right = project({"server": server, "redis": {"image": "valkey:8"}, "database": database})
    renamed = project({"server": server, "cache": {"image": "valkey:8"}, "database": database})
    assert findings(right, images=images) == []
    assert findings(renamed, images=images) == [
        ("server.REDIS_HOSTNAME", "wrong", "unknown-name", "cache")
    ]


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("ollama:11434", []),
        ("localhost:11434", [("pull.OLLAMA_HOST", "wrong", "loopback", "ollama:11434")]),
    ],
)
def test_15_a_link_inside_a_shell_command(host: str, found: list[Any]) -> None:
    script = f"sleep 3; OLLAMA_HOST={host} ollama pull llama3.2"
    pull = {"image": "ollama/ollama", "entrypoint": ["/bin/sh"], "command": ["-c", script]}
    assert findings(project({"ollama": OLLAMA, "pull": pull})) == found


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("ollama", []),
        (
            "localhost",
            [
                (
                    "litellm.model_list.0.litellm_params.api_base",
                    "wrong",
                    "loopback",
                    "ollama:11434",
                )
            ],
        ),
    ],
)
def test_16_litellm_has_it_in_a_mounted_file(host: str, found: list[Any]) -> None:
    content = f"""
model_list:
  - model_name: llama
    litellm_params:
      model: ollama/llama3.2
      api_base: http://{host}:11434
"""
    mount = {"type": "bind", "source": "/opt/shop/config.yaml", "target": "/app/config.yaml"}
    config = project(
        {"ollama": OLLAMA, "litellm": {"image": "berriai/litellm", "volumes": [mount]}}
    )
    assert findings(config, mounted={"/opt/shop/config.yaml": content.encode()}) == found
