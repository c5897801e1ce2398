"""Why an address is wrong: each reason by several inputs, and beside each what is right."""

from __future__ import annotations

from typing import Any

import pytest

from stackmend.addresses import classify, read
from stackmend.addresses.state import ImageFacts, Running, RunningService, Socket
from tests.unit.addresses_world import findings, judge, mend, project

REDIS: dict[str, Any] = {"image": "redis:7"}
DB: dict[str, Any] = {"image": "postgres:16"}
APP = "example/app:1"
WEB = "example/web:1"


def app(environment: dict[str, str], **body: Any) -> dict[str, Any]:
    return {"image": APP, "environment": environment, **body}


def reasons(config: dict[str, Any], **more: Any) -> list[tuple[str, str, str]]:
    return [found[1:] for found in findings(config, **more)]


@pytest.mark.parametrize(
    ("environment", "others", "right"),
    [
        ({"REDIS_URL": "redis://localhost:6379/0"}, {"redis": REDIS}, "redis:6379"),
        ({"REDIS_URL": "redis://127.0.1.1"}, {"cache": REDIS}, "cache:6379"),
        ({"REDIS_URL": "redis://[::1]:6379"}, {"redis": REDIS}, "redis:6379"),
        ({"REDIS_URL": "redis://LOCALHOST:6379"}, {"redis": REDIS}, "redis:6379"),
        ({"REDIS_URL": "redis://localhost.:6379"}, {"redis": REDIS}, "redis:6379"),
        ({"REDIS_URL": '"redis://localhost:6379"'}, {"redis": REDIS}, "redis:6379"),
        ({"JDBC": "jdbc:postgresql://localhost:5432/n"}, {"db": DB}, "db:5432"),
        ({"DSN": "host=localhost port=5432 dbname=n"}, {"db": DB}, "db:5432"),
        ({"DB": "Server=127.0.0.1,1433;Database=n"}, {"db": DB}, None),
        ({"GO_DSN": "u:p@tcp(127.0.0.1:3306)/n"}, {"db": {"image": "mysql:8"}}, "db:3306"),
        ({"DB_HOST": "localhost"}, {"db": DB}, "db"),
        ({"DB_HOST": "localhost", "DB_PORT": "5432"}, {"db": DB}, "db:5432"),
        ({"MONGO": "mongodb://u:p@localhost:27017/a"}, {"m": {"image": "mongo"}}, "m:27017"),
        # The host's port, where the container has another.
        ({"URL": "redis://localhost:6380"}, {"redis": REDIS | {"ports": ["6380:6379"]}},
         "redis:6379"),
        ({"TIKA": "http://localhost:9998"}, {"tika": {"image": "apache/tika"}}, "tika:9998"),
        ({"WORKER_URL": "http://localhost:7001"}, {"worker": {"expose": ["7001"]}}, "worker:7001"),
        ({"BROKERS": "localhost:9092"}, {"kafka": {"image": "apache/kafka"}}, "kafka:9092"),
    ],
)  # fmt: skip
def test_loopback_where_another_service_is_meant(
    environment: dict[str, str], others: dict[str, Any], right: str | None
) -> None:
    found = reasons(project({"app": app(environment), **others}))
    assert found == ([("wrong", "loopback", right)] if right else [])


MAIL = {"MAIL_HOST": "localhost", "MAIL_PORT": "25"}
SMTP = {"image": "example/smtp:1", "expose": ["25"]}
BARE = {"DB_HOST": "localhost"}


@pytest.mark.parametrize(
    ("environment", "own", "others", "status", "right"),
    [
        # Nothing says that the service has the port.
        (MAIL, {}, {"mail": {"image": APP}}, "", ""),
        (MAIL, {}, {"mail": {"image": APP, "expose": ["1025"]}}, "", ""),
        (MAIL | {"MAIL_PORT": "1025"}, {}, {"mail": {"image": APP, "expose": ["1025"]}},
         "wrong", "mail:1025"),
        # It does; and many images have a mail server of their own there.
        (MAIL, {}, {"mail": SMTP}, "ambiguous", ""),
        (MAIL, {"depends_on": {"mail": {}}}, {"mail": SMTP}, "wrong", "mail:25"),
        (MAIL, {"expose": ["25"]}, {"mail": SMTP}, "", ""),
        # Without a port: what the other one runs has to be known by its image.
        (BARE, {}, {"db": {"image": APP}}, "", ""),
        (BARE, {}, {"db": {"image": APP, "expose": ["5432"]}}, "", ""),
        (BARE, {}, {"db": DB}, "wrong", "db"),
        (BARE, {"depends_on": {"db": {}}}, {"db": DB}, "wrong", "db"),
        # It is for somebody else, or the service has one itself.
        (BARE, {}, {"db": DB, "web": {"image": WEB, "depends_on": {"db": {}}}}, "ambiguous", ""),
        (BARE, {}, {"db": DB, "web": app({"U": "postgresql://db/n"})}, "ambiguous", ""),
        (BARE | {"U": "postgresql://db/n"}, {}, {"db": DB}, "ambiguous", ""),
        (BARE, {"depends_on": {"db": {}}}, {"db": DB, "web": app({"U": "postgresql://db/n"})},
         "wrong", "db"),
        (BARE, {"expose": ["5432"]}, {"db": DB}, "", ""),
    ],
)  # fmt: skip
def test_loopback_is_rewritten_by_evidence_alone(
    environment: dict[str, str],
    own: dict[str, Any],
    others: dict[str, Any],
    status: str,
    right: str,
) -> None:
    config = project({"app": app(environment, **own), **others})
    assert reasons(config) == ([(status, "loopback", right)] if status else [])


def test_a_database_that_listens_in_the_service_itself_is_meant() -> None:
    config = project({"app": app(BARE), "db": DB})
    for port, status in ((5432, "right"), (3306, "right"), (8000, "wrong")):
        sockets = (Socket(port=port, loopback=True),)
        running = Running(services={"app": RunningService(sockets=sockets)})
        assert [one.status for one in judge(config, running)] == [status]


@pytest.mark.parametrize(
    ("environment", "remedy"),
    [
        (
            {"REDIS_URL": "redis://:p@localhost:6379/0"},
            "write redis:6379 instead of localhost:6379 in app.REDIS_URL",
        ),
        (
            {"DB_HOST": "localhost", "DB_PORT": "5433"},
            "write db instead of localhost in app.DB_HOST, and 5432 instead of 5433 in app.DB_PORT",
        ),
        ({"URL": "redis://rediss"}, "write redis instead of rediss in app.URL"),
    ],
)
def test_the_remedy_is_what_is_to_be_written(environment: dict[str, str], remedy: str) -> None:
    services = {"app": app(environment), "redis": REDIS, "db": DB | {"ports": ["5433:5432"]}}
    assert [one.remedy for one in judge(project(services)) if one.remedy] == [remedy]


@pytest.mark.parametrize(
    ("command", "entrypoint", "right"),
    [
        (["celery", "-b", "redis://localhost:6379/0", "worker"], None, "redis:6379"),
        (["app", "--redis-url=redis://127.0.0.1:6379"], None, "redis:6379"),
        (["app", "--redis-host", "localhost"], None, "redis:6379"),
        (["sh", "-c", "exec app --queue 'redis://localhost:6379/1' # redis://127.0.0.1"], None,
         "redis:6379"),
        (None, ["bash", "-ec", "REDIS_HOST=localhost app"], "redis:6379"),
        # It is its own: it listens there, or it does not say whom it calls.
        (["php", "-S", "localhost:6379"], None, None),
        (["sh", "-c", "echo redis at localhost"], None, None),
        (["app", "--listen", "localhost:6379"], None, None),
        (["sh", "-c", "redis-server & sleep 1; app --url redis://localhost:6379"], None, None),
    ],
)  # fmt: skip
def test_loopback_in_a_command(command: Any, entrypoint: Any, right: str | None) -> None:
    body = {"image": APP, "command": command, "entrypoint": entrypoint}
    found = reasons(project({"app": body, "redis": REDIS}))
    assert found == ([("wrong", "loopback", right)] if right else [])


@pytest.mark.parametrize(
    ("environment", "target", "right"),
    [
        ({"U": "redis://redis:6380/0"}, REDIS | {"ports": ["6380:6379"]}, "redis:6379"),
        ({"REDIS_HOST": "redis", "REDIS_PORT": "16379"}, REDIS | {"ports": ["16379:6379"]},
         "redis:6379"),
        ({"U": "http://redis:8080/x"}, {"image": APP, "ports": ["127.0.0.1:8080:80"]}, "redis"),
        ({"U": "http://redis"}, {"image": APP, "ports": ["80:8000"]}, "redis:8000"),
        ({"U": "redis:6380"}, REDIS | {"ports": ["6380:6379"]}, "redis:6379"),
        # It may listen there as well.
        ({"U": "http://redis:8080"}, {"image": APP, "ports": ["8080:80"], "expose": ["8080"]},
         None),
        ({"U": "http://redis:8080"}, {"image": APP, "ports": ["8080:80"], "environment":
         {"PORT": "8080"}}, None),
        ({"U": "http://redis:8080"}, {"image": APP, "ports": ["8080:80"], "command":
         ["serve", "-l", "8080"]}, None),
    ],
)  # fmt: skip
def test_the_hosts_port_instead_of_the_containers(
    environment: dict[str, str], target: dict[str, Any], right: str | None
) -> None:
    target = target if target is REDIS or "redis" in target["image"] else target | {"image": WEB}
    config = project({"app": app(environment), "redis": target})
    images = {WEB: ImageFacts(ports=(3000,))}
    found = reasons(config, images=images)
    if right == "redis":
        # What a scheme implies need not be written, and stays where it was.
        right = "redis:80"
    assert found == ([("wrong", "published-port", right)] if right else [])
    assert not findings(mend(config, images=images), images=images)


TRAEFIK = {"image": "traefik:v3", "ports": ["8080:80"]}
HAPROXY = {"image": "haproxy:3", "ports": ["5000:5432"]}


def bind(target: str) -> dict[str, Any]:
    return {"volumes": [{"type": "bind", "source": "/opt/shop/x", "target": target}]}


@pytest.mark.parametrize(
    ("value", "target", "images"),
    [
        ("http://it:8080", TRAEFIK, {}),
        ("http://it:8080", TRAEFIK, {"traefik:v3": ImageFacts(ports=(80,))}),
        ("http://it:9000/health", {"image": "quay.io/keycloak/keycloak", "ports": ["9000:8080"]},
         {"quay.io/keycloak/keycloak": ImageFacts(ports=(8080, 8443))}),
        ("http://it:8080/commands", {"image": "zookeeper", "ports": ["8080:2181"]}, {}),
        ("http://it:8080/commands", {"image": "zookeeper"}, {}),
        ("it:2181", {"image": "spotify/kafka", "ports": ["2181:9092"]}, {}),
        ("it:2181", {"image": "spotify/kafka"}, {}),
        ("it:5000", HAPROXY | bind("/usr/local/etc/haproxy/haproxy.cfg"), {}),
        ("it:5000", HAPROXY | bind("/usr/local/etc/haproxy"),
         {"haproxy:3": ImageFacts(ports=(5432,))}),
        ("it:5000", {"build": {"context": "./lb"}, "ports": ["5000:5432"]},
         {"shop-it": ImageFacts(ports=(5432,))}),
        ("http://it:8080", {"image": APP, "ports": ["8080:80"]}, {}),
        *[
            (f"{scheme}it:6380", REDIS | {"ports": ["6380:6379"]} | bind(path), {})
            for scheme in ("redis://", "")
            for path in ("/usr/local/etc/redis/redis.conf", "/conf", "/x/redis.toml", "/Caddyfile")
        ],
        ("redis://it:6380", REDIS | {"ports": ["6380:6379"], "configs": [{"source": "x"}]}, {}),
        ("http://it:9000", {"image": "clickhouse/clickhouse-server"}
         | bind("/etc/clickhouse-server/config.d"), {}),
        ("http://it:3000", {"image": "ollama/ollama"} | bind("/etc/ollama.json"), {}),
    ],
)  # fmt: skip
def test_a_port_that_the_target_may_have_is_not_rewritten(
    value: str, target: dict[str, Any], images: dict[str, ImageFacts]
) -> None:
    config = project({"app": app({"UPSTREAM": value}), "it": target})
    assert {found[0] for found in reasons(config, images=images)} <= {"ambiguous"}
    assert mend(config, images=images) == config


def test_a_port_that_nothing_listens_on_is_no_doubt() -> None:
    ran = Running(services={"it": RunningService(sockets=(Socket(port=5432),))})
    config = project({"app": app({"UPSTREAM": "it:5000"}), "it": HAPROXY | bind("/etc/haproxy")})
    assert reasons(config, running=ran) == [("wrong", "published-port", "it:5432")]


def test_a_port_that_a_mounted_configuration_may_open_is_doubtful() -> None:
    mount = {"type": "bind", "source": "/opt/nginx.conf", "target": "/etc/nginx/nginx.conf"}
    web = {"image": "nginx", "ports": ["8080:80"], "volumes": [mount]}
    config = project({"app": app({"URL": "http://web:8080"}), "web": web})
    assert reasons(config) == [("ambiguous", "published-port", "")]


@pytest.mark.parametrize(
    ("environment", "others", "status", "right"),
    [
        ({"URL": "redis://rediss:6379"}, {"redis": REDIS}, "wrong", "redis:6379"),
        ({"URL": "postgresql://db/n"}, {"db_postgres": DB}, "wrong", "db_postgres:5432"),
        ({"URL": "redis://redis"}, {"cache": REDIS}, "wrong", "cache:6379"),
        ({"DB_HOST": "postgres"}, {"database": DB}, "wrong", "database"),
        ({"URL": "http://chat_api:8000"}, {"chat-api": {"expose": ["8000"]}}, "wrong",
         "chat-api:8000"),
        ({"REDIS": "redis://redis"}, {"redis-a": REDIS, "redis-b": REDIS}, "ambiguous", ""),
        # A host of the network here, another number of what is deliberately alike, another kind.
        ({"URL": "http://nas:5000"}, {"app2": {"expose": ["5000"]}}, "", ""),
        ({"URL": "http://ollama2:11434"}, {"ollama": {"image": "ollama/ollama"}}, "", ""),
        ({"URL": "redis://redis"}, {"redis-exporter": {"image": "oliver006/redis_exporter"}}, "",
         ""),
        ({"URL": "postgresql://rediss:5432"}, {"redis": REDIS}, "", ""),
        ({"BACKEND": "redis-cluster"}, {"redis": REDIS}, "", ""),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist(
    environment: dict[str, str], others: dict[str, Any], status: str, right: str
) -> None:
    found = reasons(project({"app": app(environment), **others}))
    assert found == ([(status, "unknown-name", right)] if status else [])


@pytest.mark.parametrize(
    "host", ["cache", "REDIS", "shop-redis-1", "shop-redis-3", "store", "mine"]
)
def test_every_name_that_a_service_has_is_right(host: str) -> None:
    networks = {"default": {"aliases": ["store"]}}
    redis = REDIS | {"hostname": "cache", "deploy": {"replicas": 3}, "networks": networks}
    named = {"image": "mysql:8", "container_name": "mine"}
    config = project({"app": app({"REDIS_HOST": host}), "redis": redis, "other": named})
    assert findings(config) == []


@pytest.mark.parametrize(
    "more",
    [
        {"networks": {"outside": None, "default": None}},
        {"dns_search": ["lan"]},
        {"extra_hosts": ["rediss=192.168.1.2"]},
        {"external_links": ["other:rediss"]},
        {"links": ["redis:rediss"]},
        {"hostname": "rediss"},
    ],
)
def test_a_name_that_something_else_may_have(more: dict[str, Any]) -> None:
    body = app({"URL": "redis://rediss:6379"}, **more)
    redis = REDIS | ({"networks": more["networks"]} if "networks" in more else {})
    config = project({"app": body, "redis": redis}, networks={"outside": {"external": True}})
    assert findings(config) == []


def test_a_name_that_nobody_knows_when_asked_is_wrong_without_a_right_one() -> None:
    config = project({"app": app({"URL": "http://nas:5000"}), "redis": REDIS})
    nobody = Running(services={"app": RunningService(names={"nas": False})})
    known = Running(services={"app": RunningService(names={"nas": True})})
    assert reasons(config, running=nobody) == [("wrong", "unknown-name", "")]
    assert reasons(config, running=known) == []


@pytest.mark.parametrize(
    ("environment", "more"),
    [
        # Nobody asks for a name of the Internet, of an example, or of something that is not used.
        ({"URL": "https://api.openai.com:443"}, {}),
        ({"GREETING": "nas"}, {}),
        ({"VECTOR_DB": "chroma", "QDRANT_URI": "http://nas:6333"}, {}),
        ({"VECTOR_STORE": "weaviate", "OPENSEARCH_HOST": "nas", "OPENSEARCH_PORT": "9200"}, {}),
        ({"URL": "http://nas:5000"}, {"networks": {"outside": None}}),
        ({"PUBLIC_URL": "http://nas:5000"}, {}),
    ],
)
def test_a_name_that_asking_tells_nothing_of(
    environment: dict[str, str], more: dict[str, Any]
) -> None:
    networks = {"outside": {"external": True}}
    config = project({"app": app(environment, **more), "redis": REDIS}, networks=networks)
    nobody = Running(services={"app": RunningService(names={"nas": False})})
    for judgement in (*judge(config), *judge(config, nobody)):
        assert (judgement.status, judgement.reason) == ("right", ""), judgement


@pytest.mark.parametrize("known", [None, False])
@pytest.mark.parametrize(
    ("networks", "joined"),
    [
        ({}, {"shop_default"}),
        ({"default": {"name": "ai"}}, set()),
        ({"default": {"name": "ai"}}, {"ai"}),
    ],
)
def test_a_name_that_a_project_on_the_same_network_may_have_is_not_rewritten(
    networks: dict[str, Any], joined: set[str], known: bool | None
) -> None:
    config = project(
        {"app": app({"URL": "redis://rediss:6379"}), "redis": REDIS}, networks=networks
    )
    names = {} if known is None else {"rediss": known}
    services = {"app": RunningService(names=names)}
    running = Running(services=services, joined=frozenset(joined))
    (found,) = [one for one in judge(config, running) if one.status != "right"]
    assert (found.status, found.reason, found.edits) == ("ambiguous", "unknown-name", ())
    assert found.readings == ("rediss:6379: as it stands", "redis:6379")
    elsewhere = running.model_copy(update={"joined": frozenset({"other_default", "bridge"})})
    if not networks:
        assert reasons(config, running=elsewhere) == [("wrong", "unknown-name", "redis:6379")]


@pytest.mark.parametrize(
    ("mine", "its", "host", "cause", "remedy"),
    [
        (
            {"networks": {"front": None}},
            {"networks": {"back": None}},
            "redis",
            "app and redis have no network in common: app is on front, redis is on back",
            "add one network to both app and redis",
        ),
        (
            {"networks": {"front": None}},
            {"networks": {"back": {"aliases": ["cache"]}}},
            "cache",
            "app and redis have no network in common: app is on front, redis is on back",
            "add one network to both app and redis",
        ),
        (
            {"networks": {"front": None, "other": None}},
            {"networks": {"back": None}, "container_name": "my-redis"},
            "my-redis",
            "app and redis have no network in common: app is on front, other, redis is on back",
            "add one network to both app and redis",
        ),
        (
            {"networks": {"front": None, "back": None}},
            {"networks": {"back": {}, "third": {"aliases": ["cache"]}}},
            "cache",
            "redis has the name cache on no network of app, and they share back",
            "use the name redis, or give it the alias cache on back",
        ),
    ],
)
def test_a_name_on_a_network_that_is_not_shared(
    mine: dict[str, Any], its: dict[str, Any], host: str, cause: str, remedy: str
) -> None:
    config = project({"app": app({"URL": f"redis://{host}:6379"}, **mine), "redis": REDIS | its})
    assert reasons(config) == [("wrong", "not-shared", "")]
    (found,) = judge(config)
    assert found.address.networks == ()
    assert (found.cause, found.remedy) == (cause, remedy)


def test_loopback_for_a_service_that_cannot_be_reached_is_not_rewritten() -> None:
    config = project(
        {
            "app": app({"URL": "redis://localhost"}, networks={"a": None}),
            "redis": REDIS | {"networks": {"b": None}},
        }
    )
    (found,) = (one for one in judge(config) if one.status == "wrong")
    assert (found.right, found.edits) == ("", ())
    expected = "app and redis have no network in common: app is on a, redis is on b"
    assert found.cause.endswith(f"; {expected}")


GATEWAY = "host.docker.internal"


@pytest.mark.parametrize(
    "environment",
    [
        {"OLLAMA_BASE_URL": f"http://{GATEWAY}:11434"},
        {"OLLAMA_HOST": GATEWAY},
        {"API_HOST": GATEWAY, "MYSQL_HOST": GATEWAY, "MYSQL_PORT": "3306"},
    ],
)
def test_the_host_without_extra_hosts(environment: dict[str, str]) -> None:
    config = project({"app": app(environment)})
    assert {one[1:] for one in findings(config)} == {("wrong", "no-extra-host", "")}
    mended = mend(config)
    assert mended["services"]["app"]["extra_hosts"] == [f"{GATEWAY}:host-gateway"]
    assert findings(mended) == []


@pytest.mark.parametrize("form", [f"{GATEWAY}:host-gateway", f"{GATEWAY}=host-gateway"])
@pytest.mark.parametrize(
    ("running", "found"),
    [
        (None, []),
        (Running(host=(Socket(port=11434),)), []),
        (Running(host=(Socket(port=11434, loopback=True),)), [("wrong", "host-loopback", "")]),
        (
            Running(host=(Socket(port=11434, loopback=True), Socket(port=11434))),
            [],
        ),
        (Running(host=(Socket(port=22),)), [("wrong", "not-listening", "")]),
        (Running(host=(Socket(port=11434),), filtered=(11434,)), [("wrong", "host-firewall", "")]),
    ],
)
def test_a_process_of_the_host(form: str, running: Any, found: list[Any]) -> None:
    body = app({"OLLAMA_BASE_URL": f"http://{GATEWAY}:11434"}, extra_hosts=[form])
    assert reasons(project({"app": body}), running=running) == found


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_service_published_on_the_hosts_loopback_is_reached_by_name(address: str) -> None:
    body = app({"URL": f"http://{GATEWAY}:9000"}, extra_hosts=[f"{GATEWAY}:host-gateway"])
    port = {"target": 8000, "published": "9000", "protocol": "tcp", "host_ip": address}
    config = project({"app": body, "api": {"ports": [port]}})
    assert reasons(config) == [("wrong", "host-loopback", "api:8000")]


@pytest.mark.parametrize(
    ("services", "right"),
    [
        # It has no name, and others reach it through the host.
        (
            {
                "app": app({"U": "http://ollama:11434"}),
                "ollama": {"image": "ollama/ollama", "network_mode": "host"},
            },
            f"{GATEWAY}:11434",
        ),
        # It knows no names, and reaches published ports on its own loopback.
        (
            {
                "app": app({"U": "redis://redis:6379"}, network_mode="host"),
                "redis": REDIS | {"ports": ["127.0.0.1:6380:6379"]},
            },
            "127.0.0.1:6380",
        ),
        (
            {"app": app({"U": "redis://redis:6379"}, network_mode="host"), "redis": REDIS},
            "",
        ),
        (
            {
                "app": app({"U": "redis://redis:6379"}, network_mode="host"),
                "redis": REDIS | {"network_mode": "host"},
            },
            "127.0.0.1:6379",
        ),
    ],
)
def test_the_hosts_network(services: dict[str, Any], right: str) -> None:
    config = project(services)
    assert reasons(config) == [("wrong", "host-network", right)]
    if right:
        assert findings(mend(config)) == []


@pytest.mark.parametrize("scheme", ["http", "https", "redis"])
def test_a_borrowed_network_has_the_name_of_its_owner(scheme: str) -> None:
    config = project(
        {
            "app": app({"U": f"{scheme}://torrents:8080"}),
            "vpn": {"image": "gluetun"},
            "torrents": {"image": "qbittorrent", "network_mode": "service:vpn"},
        }
    )
    assert reasons(config) == [("wrong", "shared-namespace", "vpn:8080")]
    assert findings(mend(config)) == []


@pytest.mark.parametrize(
    ("mine", "its", "found"),
    [
        ({"network_mode": "bridge"}, {}, [("wrong", "default-bridge", "")]),
        ({}, {"network_mode": "bridge"}, [("wrong", "default-bridge", "")]),
        ({"network_mode": "bridge"}, {"network_mode": "bridge"}, [("wrong", "default-bridge", "")]),
        (
            {"network_mode": "bridge", "links": ["redis:redis"]},
            {"network_mode": "bridge"},
            [],
        ),
        (
            {"network_mode": "bridge", "links": ["redis:store"]},
            {"network_mode": "bridge"},
            [("wrong", "default-bridge", "store:6379")],
        ),
        (
            {"network_mode": "bridge", "links": ["redis:store", "redis:cache"]},
            {"network_mode": "bridge"},
            [("wrong", "default-bridge", "")],
        ),
        ({"network_mode": "bridge", "links": ["redis"]}, {}, [("wrong", "default-bridge", "")]),
        (
            {"network_mode": "bridge", "links": ["redis:store"]},
            {},
            [("wrong", "default-bridge", "")],
        ),
        ({"network_mode": "bridge", "links": ["gone:redis"]}, {}, []),
        ({}, {"network_mode": "none"}, [("wrong", "not-shared", "")]),
    ],
)
def test_the_default_bridge_has_no_names(
    mine: dict[str, Any], its: dict[str, Any], found: list[Any]
) -> None:
    config = project({"app": app({"U": "redis://redis:6379"}, **mine), "redis": REDIS | its})
    assert reasons(config) == found


@pytest.mark.parametrize(
    ("url", "link", "found"),
    [
        # The host's port, by a name that leads there and by one that does not.
        ("redis://redis:16379", "redis:redis", [("wrong", "published-port", "redis:6379")]),
        ("redis://store:16379", "redis:store", [("wrong", "published-port", "store:6379")]),
        ("redis://redis:16379", "redis:store", [("wrong", "default-bridge", "store:6379")]),
        ("redis://store:6379", "redis:store", []),
    ],
)
def test_a_link_on_the_default_bridge_has_the_containers_port(
    url: str, link: str, found: list[Any]
) -> None:
    bridge = {"network_mode": "bridge"}
    redis = REDIS | bridge | {"ports": ["127.0.0.1:16379:6379"]}
    config = project({"app": app({"U": url}, links=[link], **bridge), "redis": redis})
    assert reasons(config) == found
    mended = mend(config)
    assert findings(mended) == []
    assert mended["services"]["app"]["environment"]["U"].endswith(":6379")


BRIDGE = {"network_mode": "bridge"}


@pytest.mark.parametrize(
    ("url", "mine", "its", "cause", "remedy"),
    [
        (
            "redis://localhost:6379",
            {"links": ["page:redis"]},
            {},
            "in app the name redis is page's, by its links",
            "remove page:redis from the links of app, and use redis:6379",
        ),
        (
            "redis://localhost:6379",
            BRIDGE,
            {},
            "have no network in common: app has network_mode: bridge, redis is on default",
            "remove network_mode from app, and put both on one network, and use redis:6379",
        ),
        (
            "redis://localhost:6379",
            BRIDGE,
            BRIDGE,
            "app and redis are on Docker's default bridge, where names lead nowhere",
            "remove network_mode from app and redis, and put both on one network, and use "
            "redis:6379",
        ),
        (
            "redis://localhost:6379",
            {},
            BRIDGE,
            "have no network in common: app is on default, redis has network_mode: bridge",
            "remove network_mode from redis, and put both on one network, and use redis:6379",
        ),
        (
            "redis://localhost:6379",
            {"networks": {"front": None}},
            {},
            "have no network in common: app is on front, redis is on default",
            "add one network to both app and redis, and use redis:6379",
        ),
        (
            "redis://store:6379",
            {"links": ["redis:store"]},
            BRIDGE,
            "have no network in common: app is on default, redis has network_mode: bridge",
            "remove network_mode from redis, and put both on one network",
        ),
    ],
)
def test_why_no_name_leads_there_and_what_compose_takes(
    url: str, mine: dict[str, Any], its: dict[str, Any], cause: str, remedy: str
) -> None:
    page = {"image": "example/page:1"}
    config = project({"app": app({"U": url}, **mine), "page": page, "redis": REDIS | its})
    (found,) = [one for one in judge(config) if one.status != "right"]
    assert found.status == "wrong"
    assert not found.correctable
    assert found.cause.endswith(cause)
    assert found.remedy == remedy


def test_a_link_between_two_that_share_no_network_leads_nowhere() -> None:
    body = app({"U": "redis://store:6379"}, links=["redis:store"], networks={"front": None})
    right = project({"app": body, "redis": REDIS | {"networks": {"front": None}}})
    apart = project({"app": body, "redis": REDIS | {"networks": {"back": None}}})
    assert reasons(right) == []
    assert reasons(apart) == [("wrong", "not-shared", "")]
    assert judge(right)[0].address.networks == ("front",)
    assert judge(apart)[0].address.target == "redis"


def test_a_link_that_takes_anothers_name_leads_to_its_own() -> None:
    """Within the service that has it, and only there."""
    environment = {"U": "redis://redis:6379"}
    services = {
        "app": app(environment, links=["page:redis"]),
        "side": app(environment),
        "page": {"image": "example/page:1"},
        "redis": REDIS,
    }
    running = Running(services={"page": RunningService(sockets=(Socket(port=80),))})
    found = [(one.subject, one.reason, one.cause) for one in judge(project(services), running)]
    assert found == [
        ("app.U", "not-listening", "nothing in page listens on port 6379 (it listens on: 80)"),
        ("side.U", "", ""),
    ]


@pytest.mark.parametrize(
    ("ran", "found"),
    [
        (RunningService(), []),
        (RunningService(up=False), [("wrong", "not-up", "")]),
        (RunningService(sockets=(Socket(port=6379),)), []),
        (RunningService(sockets=(Socket(port=6379, loopback=True),)),
         [("wrong", "loopback-only", "")]),
        (RunningService(sockets=(Socket(port=7000),)), [("wrong", "not-listening", "")]),
        (RunningService(sockets=()), [("wrong", "not-listening", "")]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["redis://redis:6379/0", "redis://redis", "redis:6379"])
def test_what_runs_of_the_target(value: str, ran: RunningService, found: list[Any]) -> None:
    config = project({"app": app({"U": value}), "redis": REDIS})
    assert reasons(config, running=Running(services={"redis": ran})) == found


@pytest.mark.parametrize(
    "ran",
    [
        RunningService(up=False),
        RunningService(sockets=()),
        RunningService(sockets=(Socket(port=6379, loopback=True),)),
        RunningService(sockets=(Socket(port=6379),)),
    ],
)
def test_what_is_right_stays_right_where_the_target_does_not_run(ran: RunningService) -> None:
    config = project({"app": app({"U": "redis://localhost"}), "redis": REDIS})
    assert reasons(config, running=Running(services={"redis": ran})) == [
        ("wrong", "loopback", "redis:6379")
    ]


def test_the_port_that_listens_is_the_right_one_where_it_is_the_usual_one() -> None:
    ran = RunningService(sockets=(Socket(port=6379),))
    config = project({"app": app({"U": "redis://redis:7777"}), "redis": REDIS})
    assert reasons(config, running=Running(services={"redis": ran})) == [
        ("wrong", "not-listening", "redis:6379")
    ]


CLICKHOUSE = {"image": "clickhouse/clickhouse-server"}


@pytest.mark.parametrize(
    ("environment", "target", "status", "right"),
    [
        ({"U": "http://it:9000"}, CLICKHOUSE, "wrong", "it:8123"),
        ({"MIGRATION_URL": "clickhouse://it:8123"}, CLICKHOUSE, "wrong", "it:9000"),
        ({"U": "amqp://it:15672"}, {"image": "rabbitmq:4"}, "wrong", "it:5672"),
        ({"U": "bolt://it:7474"}, {"image": "neo4j:5"}, "wrong", "it:7687"),
        ({"DB_HOST": "it", "DB_PORT": "3306"}, DB, "wrong", "it:5432"),
        ({"U": "http://it:8080"}, {"image": "ollama/ollama"}, "wrong", "it:11434"),
        ({"U": "redis://it:5432"}, DB, "wrong", ""),
        ({"U": "mysql://it:5432/n"}, DB, "wrong", ""),
        # Drivers that speak HTTP below a scheme of their own.
        ({"U": "jdbc:clickhouse://it:8123/n"}, CLICKHOUSE, "", ""),
        ({"U": "clickhouse+http://it:8123/n"}, CLICKHOUSE, "", ""),
        ({"U": "clickhouse://it:8123/n"}, CLICKHOUSE, "ambiguous", ""),
        ({"U": "http://it:6334"}, {"image": "qdrant/qdrant"}, "", ""),
        ({"U": "redis://it:26379"}, {"image": "redis", "command": ["redis-sentinel"]}, "", ""),
        ({"U": "http://it:8080"}, {"image": "ollama/ollama", "environment":
         {"OLLAMA_HOST": "0.0.0.0:8080"}}, "", ""),
    ],
)  # fmt: skip
def test_a_port_of_the_wrong_kind(
    environment: dict[str, str], target: dict[str, Any], status: str, right: str
) -> None:
    config = project({"app": app(environment), "it": target})
    assert reasons(config) == ([(status, "wrong-kind", right)] if status else [])
    if right:
        assert findings(mend(config)) == []


@pytest.mark.parametrize(
    ("one", "other", "right"),
    [
        (REDIS, DB, "a:6379"),
        ({"image": APP, "expose": ["6379"]}, {"image": "nginx", "expose": ["80"]}, "a:6379"),
        (REDIS, {"image": "valkey:8"}, ""),
    ],
)
def test_two_services_with_one_alias(
    one: dict[str, Any], other: dict[str, Any], right: str
) -> None:
    alias = {"networks": {"default": {"aliases": ["store"]}}}
    config = project(
        {"app": app({"U": "redis://store:6379"}), "a": one | alias, "b": other | alias}
    )
    images = {"nginx": ImageFacts(ports=(80,))}
    assert reasons(config, images=images) == [("wrong", "shared-alias", right)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"image": "acme/api:1", "expose": ["80"]}, {"image": "acme/api:2", "expose": ["80"]}),
        ({"image": "vllm/vllm-openai", "command": ["--device", "0"]},
         {"image": "vllm/vllm-openai", "command": ["--device", "1"]}),
        ({"image": "localhost:5000/api@sha256:0"}, {"image": "localhost:5000/api@sha256:1"}),
    ],
)  # fmt: skip
def test_two_versions_and_a_pool_may_share_a_name(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    alias = {"networks": {"default": {"aliases": ["api"]}}}
    config = project({"app": app({"U": "http://api:8000"}), "a": one | alias, "b": other | alias})
    assert findings(config) == []


def test_a_shared_name_is_not_rewritten_where_the_other_may_have_the_port_too() -> None:
    alias = {"networks": {"default": {"aliases": ["store"]}}}
    a, b = {"image": APP, "expose": ["6379"]} | alias, {"image": "acme/x"} | alias
    config = project({"app": app({"U": "redis://store:6379"}), "a": a, "b": b})
    assert reasons(config) == [("wrong", "shared-alias", "")]


def test_copies_of_one_service_may_share_a_name() -> None:
    alias = {"networks": {"default": {"aliases": ["store"]}}}
    config = project({"app": app({"U": "redis://store"}), "a": REDIS | alias, "b": REDIS | alias})
    assert findings(config) == []


@pytest.mark.parametrize(
    ("proxy", "no_proxy", "found"),
    [
        ({"HTTP_PROXY": "http://proxy.lan:3128"}, {}, True),
        ({"http_proxy": "http://proxy.lan:3128"}, {"no_proxy": "localhost,127.0.0.1"}, True),
        ({"ALL_PROXY": "socks5://10.0.0.1:1080"}, {"NO_PROXY": "tik,atika,.tika.x"}, True),
        ({"HTTP_PROXY": "http://proxy.lan:3128"}, {"NO_PROXY": "localhost, tika"}, False),
        ({"HTTP_PROXY": "http://proxy.lan:3128"}, {"no_proxy": "*"}, False),
        ({"HTTP_PROXY": "http://proxy.lan:3128"}, {"NO_PROXY": "tika:9998"}, False),
        ({"HTTPS_PROXY": "http://proxy.lan:3128"}, {}, False),
        ({"HTTP_PROXY": ""}, {}, False),
        # A proxy of the project knows the project's names.
        ({"HTTP_PROXY": "http://squid:3128"}, {}, False),
    ],
)
def test_internal_names_that_go_to_a_proxy(
    proxy: dict[str, str], no_proxy: dict[str, str], found: bool
) -> None:
    body = app({"TIKA_URL": "http://tika:9998"} | proxy | no_proxy)
    config = project({"app": body, "tika": {"image": "apache/tika"}, "squid": {"image": "squid"}})
    assert reasons(config) == ([("wrong", "proxy", "")] if found else [])
    mended = mend(config)
    assert findings(mended) == []
    if found:
        environment = mended["services"]["app"]["environment"]
        keys = [*no_proxy] or ["NO_PROXY", "no_proxy"]
        assert all(environment[key].endswith("tika") for key in keys)
        assert all(environment[key].startswith(value) for key, value in no_proxy.items())


@pytest.mark.parametrize("host", ["corp-squid", "egress", "squid", "shop-proxy-1", "my-squid"])
@pytest.mark.parametrize("login", ["", "user:p@w@"])
def test_a_proxy_of_the_project_knows_its_names(host: str, login: str) -> None:
    body = app({"TIKA_URL": "http://tika:9998", "HTTP_PROXY": f"http://{login}{host}:3128"})
    squid = {"image": "ubuntu/squid", "container_name": "corp-squid", "hostname": "my-squid"}
    networks = {"default": {"aliases": ["egress", "squid"]}}
    services = {"app": body, "tika": {"image": "apache/tika"}, "proxy": {"image": "squid"}}
    config = project(services | {"gate": squid | {"networks": networks}})
    assert findings(config) == []


def test_a_proxy_on_a_foreign_network_may_know_the_names() -> None:
    both = {"networks": {"default": None, "edge": None}}
    body = app({"TIKA_URL": "http://tika:9998", "HTTP_PROXY": "http://squid:3128"}) | both
    services = {"app": body, "tika": {"image": "apache/tika"} | both}
    assert findings(project(services, networks={"edge": {"external": True}})) == []


@pytest.mark.parametrize(
    "variable", ["HOST_DATABASE_URL", "STUDIO_DATABASE_URL", "DEFAULT_CONNECTION_STRING"]
)
def test_an_address_for_programs_on_the_host_is_not_rewritten(variable: str) -> None:
    value = "postgresql://u:p@localhost:5432/n"
    config = project({"app": app({variable: value}), "db": DB | {"ports": ["5432:5432"]}})
    assert {found[0] for found in reasons(config)} <= {"ambiguous"}
    assert mend(config) == config


def test_an_address_beside_the_right_one_may_be_for_the_host() -> None:
    urls = {"DATABASE_URL": "postgresql://db:5432/n", "DB_URL": "postgresql://localhost:5432/n"}
    config = project({"app": app(urls), "db": DB | {"ports": ["5432:5432"]}})
    assert [found[0] for found in reasons(config)] == ["ambiguous"]
    assert mend(config) == config


@pytest.mark.parametrize("host", ["ollama-gpu", "ollama_big", "prod-ollama"])
def test_a_name_that_says_more_may_be_of_another_project(host: str) -> None:
    environment = {"OLLAMA_BASE_URL": f"http://{host}:11434"}
    config = project({"app": app(environment), "ollama": {"image": "ollama/ollama"}})
    assert [found[0] for found in reasons(config)] == ["ambiguous"]
    assert mend(config) == config


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("https://files.example.org", "http://api:5001"),
        ("http://localhost:5001", "http://api:5001"),
        ("http://192.0.2.7:5001/files", "http://api:5001/files"),
    ],
)
def test_values_that_are_exchanged(inner: str, outer: str) -> None:
    body = app({"INTERNAL_FILES_URL": inner, "FILES_URL": outer})
    config = project({"app": body, "api": {"expose": ["5001"]}})
    assert {found[2] for found in findings(config)} == {"swapped"}
    environment = mend(config)["services"]["app"]["environment"]
    assert environment == {"INTERNAL_FILES_URL": outer, "FILES_URL": inner}


@pytest.mark.parametrize(
    ("service", "inner", "outer", "value", "target", "status"),
    [
        ("n8n", "INTERNAL_WEBHOOK_URL", "WEBHOOK_URL", "http://localhost:5678/", "n8n:5678", ""),
        ("api", "INTERNAL_CALLBACK_URL", "CALLBACK_URL", "https://a.example", "api:80", ""),
        ("app", "INTERNAL_CALLBACK_URL", "CALLBACK_URL", "https://a.example", "api:80",
         "ambiguous"),
        ("app", "FRONTEND_INTERNAL_URL", "FRONTEND_URL", "http://frontend.corp.example:3000",
         "frontend:3000", "ambiguous"),
        ("app", "FILES_INTERNAL_URL", "FILES_URL", "http://store.home.lan", "api:80", "ambiguous"),
    ],
)  # fmt: skip
def test_values_that_may_belong_where_they_are_are_not_exchanged(
    service: str, inner: str, outer: str, value: str, target: str, status: str
) -> None:
    environment = {inner: value, outer: f"http://{target}"}
    name, _, port = target.partition(":")
    config = project({name: {"image": "x", "expose": [port]}} | {service: app(environment)})
    assert {found[0] for found in reasons(config)} == ({status} if status else set())
    assert mend(config) == config


@pytest.mark.parametrize(
    ("environment", "others", "value"),
    [
        # The host's port, and what it leads to speaks something else.
        (
            {"CLICKHOUSE_URL": "http://localhost:9001"},
            {"clickhouse": CLICKHOUSE | {"ports": ["9001:9000"]}},
            "http://clickhouse:8123",
        ),
        (
            {"CLICKHOUSE_URL": "http://clickhuose:9001"},
            {"clickhouse": CLICKHOUSE | {"ports": ["9001:9000"]}},
            "http://clickhouse:8123",
        ),
        (
            {"OLLAMA_BASE_URL": "http://localhost:11434/api"},
            {"ollama": {"image": "ollama/ollama"}},
            "http://ollama:11434",
        ),
        (
            {"OLLAMA_BASE_URLS": "http://olama:11434/api/;http://ollama:11434"},
            {"ollama": {"image": "ollama/ollama"}},
            "http://ollama:11434;http://ollama:11434",
        ),
        (
            {"OLLAMA_BASE_URL": "http://ollama:80"},
            {"ollama": {"image": "ollama/ollama", "network_mode": "host"}},
            "http://host.docker.internal:80",
        ),
    ],
)
def test_several_faults_of_one_address_are_corrected_at_once(
    environment: dict[str, str], others: dict[str, Any], value: str
) -> None:
    body = app(environment) | {"image": "ghcr.io/open-webui/open-webui:main"}
    config = project({"app": body, **others})
    mended = mend(config)
    assert [*mended["services"]["app"]["environment"].values()] == [value]
    assert findings(mended) == []


@pytest.mark.parametrize("image", ["nginx", "acme/gateway:1", "ghcr.io/berriai/litellm"])
@pytest.mark.parametrize("path", ["/api", "/api/"])
def test_the_path_of_a_gateway_is_its_own(image: str, path: str) -> None:
    webui = {"image": "ghcr.io/open-webui/open-webui:main"}
    body = app({"OLLAMA_BASE_URL": f"http://gateway:8080{path}"}) | webui
    gateway = {"image": image, "expose": ["8080"]}
    config = project({"app": body, "gateway": gateway, "ollama": {"image": "ollama/ollama"}})
    assert findings(config) == []


#: What a service may well run itself, beside another application's.
BUNDLED: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({"DATABASE_URL": "postgresql://u:p@localhost:5432/n"}, bind("/var/lib/postgresql/data")),
    ({"DB_HOST": "localhost", "DB_PORT": "5432"}, bind("/var/lib/postgresql/data")),
    ({"PGHOST": "localhost"}, bind("/config/pgdata")),
    ({"REDIS_URL": "redis://localhost:6379"}, bind("/var/lib/redis")),
    ({"DB_HOST": "localhost", "DB_TYPE": "mysql"}, bind("/var/run/mysqld")),
    ({"MYSQL_HOST": "localhost"}, bind("/run/mysqld/mysqld.sock")),
    ({"MYSQL_HOST": "localhost", "DB_SOCKET": "/tmp/x.sock"}, {}),
    ({"DATABASE_URL": "postgresql://u:p@localhost/prod?host=/cloudsql/p:r:i"}, {}),
    ({"DATABASE_URL": "mysql://u:p@localhost/prod?unix_socket=/run/x.sock"}, {}),
    ({"DATABASE_URL": "postgresql://u:p@localhost/prod?sslmode=off&host=%2Ftmp"}, {}),
    ({"DSN": "mysql://u:p@localhost:3306/n?a=b&socket=/tmp/m.sock"}, {}),
    ({"REDIS_HOSTNAME": "localhost", "DOCKER_MODS": "imagegenius/mods:universal-redis"}, {}),
    ({"REDIS_URL": "redis://localhost:6379", "INSTALL_PACKAGES": "redis nano"}, {}),
]


@pytest.mark.parametrize(("environment", "body"), BUNDLED)
def test_what_a_service_may_run_itself_is_not_rewritten(
    environment: dict[str, str], body: dict[str, Any]
) -> None:
    others = {"redis": REDIS, "db": DB, "mysql": {"image": "mysql:8"}}
    config = project({"app": app(environment, **body), **others})
    assert {found[0] for found in reasons(config)} <= {"ambiguous"}
    assert mend(config) == config


#: Addresses of a service's own loopback, or that merely have its name, which nobody is to touch.
RIGHT: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("it serves that port", {"SELF": "http://localhost:8080"}, {"expose": ["8080"]}),
    ("it publishes that port", {"SELF": "http://localhost:6379"}, {"ports": ["6379:80"]}),
    ("it runs it as well", {"REDIS_URL": "redis://localhost:6379"},
     {"command": ["sh", "-c", "redis-server --port 6379 & exec app"]}),
    ("its image has it", {"REDIS_URL": "redis://localhost:6379"}, {"image": "gitlab:all-in-one"}),
    ("a switch says so", {"REDIS_HOST": "localhost", "USE_EMBEDDED_REDIS": "true"}, {}),
    ("its image has it", {"REDIS_URL": "redis://localhost"}, {"image": "sentry:omnibus"}),
    ("it keeps its data", {"DATABASE_URL": "postgresql://localhost/n"},
     {"volumes": [{"type": "volume", "source": "pg", "target": "/var/lib/postgresql/data"}]}),
    ("for tests", {"TEST_REDIS_URL": "redis://localhost:6379"}, {}),
    ("for a laptop", {"REDIS_URL_LOCAL": "redis://localhost:6379"}, {}),
    ("switched off", {"REDIS_URL": "redis://localhost:6379", "REDIS_ENABLED": "false"}, {}),
    ("switched off", {"REDIS_URL": "redis://localhost:6379", "DISABLE_REDIS": "1"}, {}),
    ("another is chosen", {"REDIS_HOST": "127.0.0.1", "CACHE_DRIVER": "file"}, {}),
    ("another is chosen", {"CACHE_BACKEND": "memcached", "REDIS_URL": "redis://localhost"}, {}),
    ("it listens there", {"LISTEN_ADDR": "localhost:6379"}, {}),
    ("it listens there", {"BIND": "127.0.0.1:6379"}, {}),
    ("it listens there", {"HOST": "localhost", "PORT": "6379"}, {}),
    ("it listens there", {"METRICS_ADDR": "localhost:9090"}, {}),
    ("everywhere", {"REDIS_ADDR": "0.0.0.0:6379"}, {}),
    ("for browsers", {"CORS_ORIGINS": "http://localhost:6379"}, {}),
    ("for browsers", {"SITE_URL": "http://localhost"}, {}),
    ("compared", {"ALLOWED_HOSTS": "localhost,redis,127.0.0.1"}, {}),
    ("compared", {"NO_PROXY": "localhost,127.0.0.1"}, {}),
    ("compared", {"TRUSTED_PROXIES": "127.0.0.1"}, {}),
    ("a text", {"MOTD": "redis runs at localhost:6379 or redis://localhost:6379 here"}, {}),
    ("a word", {"MODE": "localhost"}, {}),
    ("no host", {"URL": "redis://localhost.example.org:6379"}, {}),
    ("no host", {"URL": "redis://my-localhost:6379"}, {}),
    ("a database of its own", {"DB_HOST": "localhost"}, {"image": "mysql:8"}),
    ("an agent beside every program", {"STATSD_HOST": "localhost", "STATSD_PORT": "8125"}, {}),
    ("an agent beside every program", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}, {}),
    ("a file", {"DATABASE_URL": "sqlite:////data/localhost.db"}, {}),
    ("a bucket", {"BUCKET": "s3://redis/localhost"}, {}),
    ("a socket", {"DATABASE_URL": "postgresql:///app?host=/var/run/postgresql"}, {}),
    ("a template", {"URL": "redis://${HOST}:6379"}, {}),
    ("a template", {"URL": "http://{{ host }}:6379"}, {}),
    ("an image", {"RUNNER_IMAGE": "redis:7"}, {}),
    ("a time", {"AT": "10:30"}, {}),
    ("a path", {"SUBPATH": "/redis:6379/x"}, {}),
    ("a password", {"URL": "http://u:localhost@example.org"}, {}),
    ("a password", {"URL": "postgresql://u:pass/w@redis:5432/n"}, {}),
    ("on the host", {"REDIS_URL": "redis://localhost:6379"}, {"network_mode": "host"}),
    ("beside it", {"REDIS_URL": "redis://localhost:6379"}, {"network_mode": "service:redis"}),
    ("of a foreign one", {"REDIS_URL": "redis://localhost:6379"}, {"network_mode": "container:x"}),
    ("alone", {"REDIS_URL": "redis://localhost:6379"}, {"network_mode": "none"}),
    ("a port of nobody", {"URL": "http://localhost:1234"}, {}),
    ("a cluster's other member", {"seed_hosts": "localhost:9300"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("why", "environment", "body"), RIGHT)
def test_what_is_right_is_left_alone(
    why: str, environment: dict[str, str], body: dict[str, Any]
) -> None:
    config = project({"app": app(environment) | body, "redis": REDIS, "db": DB})
    found = findings(config)
    doubtful = {"its image has it", "a switch says so", "it keeps its data"}
    assert found == [] or (why in doubtful and [one[1] for one in found] == ["ambiguous"]), why
    assert mend(config) == config


@pytest.mark.parametrize(
    ("environment", "body", "status"),
    [
        ({"DB_HOST": "localhost"}, {}, "ambiguous"),
        ({"DB_HOST": "postgres"}, {}, "ambiguous"),
        ({"DATABASE_URL": "postgresql://localhost/n"}, {}, "ambiguous"),
        ({"DB_HOST": "localhost"}, {"depends_on": {"keycloak-db": {}}}, "wrong"),
        ({"DB_HOST": "postgres"}, {"depends_on": {"keycloak-db": {}}}, "wrong"),
        ({"DB_HOST": "keycloack-db"}, {"depends_on": {"keycloak-db": {}}}, "wrong"),
    ],
)
def test_what_another_service_has_for_itself_is_not_meant_for_sure(
    environment: dict[str, str], body: dict[str, Any], status: str
) -> None:
    keycloak = {"image": "keycloak", "environment": {"KC_DB_URL_HOST": "keycloak-db"}}
    services = {"app": app(environment) | body, "keycloak": keycloak, "keycloak-db": DB}
    assert [found[0] for found in reasons(project(services))] == [status]


#: Words that are no hosts, though their variables have a host, a server or a URL in their names.
WORDS: list[dict[str, str]] = [
    {"KC_DB_URL_DATABASE": "postgres", "KC_DB": "postgres"},
    {"GHOST_DATABASE_NAME": "ghost_db", "GHOST_DB_CLIENT": "mysql"},
    {"SERVER_DB_USER": "postgres", "SERVER_DB_NAME": "postgres", "SERVER_DB_TYPE": "postgres"},
    {"SERVER_DB_PASSWORD": "postgres", "SERVER_REDIS_PASSWORD": "Redis-Hunter"},
    {"SECURITY_SESSION_STORE": "redis", "SECURITY_CACHE": "redis"},
    {"DATABASE_URL_SCHEME": "postgresql", "DATABASE_SERVER_DIALECT": "postgres"},
    {"RABBITMQ_VHOST": "rabbitmq", "RABBITMQ_DEFAULT_VHOST": "redis"},
    {"S3_ENDPOINT_BUCKET": "minio-data", "S3_ENDPOINT_REGION": "minio"},
    {"REDIS_HOST_KEY_PREFIX": "redis_session", "REDIS_URL_PREFIX": "redis"},
    {"MONGO_URI_REPLICASET": "mongo-rs", "MONGO_SERVER_VERSION": "mongo"},
    {"CACHE_BACKEND": "redis", "SESSION_BACKEND": "redis"},
    {"CELERY_BROKER": "redis", "WEB_SERVER": "minio-x", "MESSAGE_BROKER": "redis"},
]


@pytest.mark.parametrize("environment", WORDS)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"network_mode": "host"},
        {"network_mode": "service:pod"},
        {"network_mode": "bridge"},
        {"networks": {"apart": None}},
    ],
)
@pytest.mark.parametrize("names", ["usual", "other"])
def test_a_word_that_is_no_host_is_left_alone(
    environment: dict[str, str], body: dict[str, Any], names: str
) -> None:
    own = {"pod": {"image": "pause"}, "minio": {"image": "minio/minio"}, "db": DB}
    more = {"mongo": {"image": "mongo"}, "rabbit": {"image": "rabbitmq"}}
    cache = {"redis": REDIS} if names == "usual" else {"cache": REDIS}
    config = project({"app": app(environment, **body), **own, **more, **cache})
    assert [one for one in findings(config) if one[1] == "wrong"] == []
    assert mend(config) == config


@pytest.mark.parametrize(
    "environment",
    [
        {"REDIS_URL": "op://redis-prod/cache/password"},
        {"DATABASE_URL": "vault://postgres/creds/app"},
        {"REDIRECT": "io.supabase.flutter://login-callback/"},
        {"OAUTH_RETURN": "myapp://oauth", "DEEP": "myapp://login"},
        {"PHP": "fastcgi://127.0.0.1:9000", "FPM_URL": "tcp://127.0.0.1:9000"},
        {"JDBC_URL": "jdbc:h2:tcp://localhost:9092/~/test"},
        {"MAILER_DSN": "smtp://localhost:25", "MAILER": "smtps://localhost:465"},
        {"OTEL": "grpc://localhost:50051", "SOCK": "udp://localhost:9092"},
    ],
)
def test_a_scheme_that_nobody_knows_is_left_alone(environment: dict[str, str]) -> None:
    others: dict[str, Any] = {"redis": REDIS, "db": DB, "login": {"image": APP}}
    others |= {"minio": {"image": "minio/minio"}, "kafka": {"image": "apache/kafka"}}
    others |= {"mail": {"image": "mailpit", "expose": ["25", "465"]}}
    others |= {"weaviate": {"image": "semitechnologies/weaviate"}, "auth": {"image": APP}}
    assert findings(project({"app": app(environment), **others})) == []


@pytest.mark.parametrize("value", ["tcp://localhost:6379", "tcp://redis:6380"])
def test_an_unknown_scheme_is_ambiguous_at_most(value: str) -> None:
    redis = REDIS | {"ports": ["6380:6379"]}
    config = project({"app": app({"REDIS_URL": value}), "redis": redis})
    assert [found[0] for found in reasons(config)] == ["ambiguous"]
    assert mend(config) == config


@pytest.mark.parametrize("at", [16 * 1024, 64 * 1024])
@pytest.mark.parametrize("cut", range(1, 22, 4))
@pytest.mark.parametrize("filler", ["x ", "http://a.example,", "redis:6380,"])
def test_a_value_is_never_cut_within_an_address(at: int, cut: int, filler: str) -> None:
    text = (filler * at)[: at - cut] + " redis://localhost:6379/0,redis:63790"
    redis = REDIS | {"ports": ["6380:6379"]}
    for body in (app({"URLS": text}), app({}, command=["sh", "-c", text])):
        config = project({"app": body, "redis": redis})
        assert mend(config) == config


@pytest.mark.parametrize(
    ("environment", "body", "more", "status"),
    [
        ({"DB_HOST": "postgres"}, {}, {}, "wrong"),
        ({"DB_HOST": "postgres"}, {"network_mode": "service:pod"}, {}, "wrong"),
        ({"REDIS_HOST": "redis"}, {"network_mode": "host"}, {"redis": REDIS}, "wrong"),
        ({"REDIS_ADDR": "redis"}, {}, {"redis": REDIS | {"network_mode": "service:pod"}}, "wrong"),
        ({"BILLING_HOST": "billing"}, {}, {"billing-app": {"image": APP}}, "ambiguous"),
    ],
)
def test_a_bare_name_without_a_port_is_never_rewritten(
    environment: dict[str, str], body: dict[str, Any], more: dict[str, Any], status: str
) -> None:
    services = {"app": app(environment, **body), "pod": {"image": "pause"}, "db": DB, **more}
    config = project(services)
    assert [found[0] for found in reasons(config)] == [status]
    assert mend(config) == config


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {"environment": ["REDIS_URL=redis://redis:6379", "X"], "networks": ["default"]},
        {"environment": {"PORT": "9" * 5000, "REDIS_HOST": "redis", "REDIS_PORT": "9" * 5000}},
        {"environment": {"PORT": "\u0663", 8: 9}, "expose": ["9" * 5000, "\u0663", "x-y"]},
        {"deploy": {"replicas": "x"}},
        {"deploy": "x", "scale": "9" * 5000},
        {"ports": ["80:80", {"target": "9" * 5000, "published": "9" * 5000}], "volumes": "x"},
        {"ports": {"80": "80"}, "configs": ["x"], "healthcheck": [], "links": {"a": "b"}},
        {"networks": {"default": {"aliases": "redis"}}, "depends_on": ["redis"]},
        {"command": {"a": "b"}, "entrypoint": 8, "extra_hosts": 8, "image": ["x"]},
    ],
)
def test_a_configuration_of_any_form_is_read(body: Any) -> None:
    for networks in (None, [], {"default": None}):
        config = {"services": {"redis": REDIS, "a": body}, "networks": networks, "name": "shop"}
        assert findings(config) == []


@pytest.mark.parametrize("body", [{"scale": 0}, {"deploy": {"replicas": 0}}])
def test_a_service_without_containers_is_not_meant(body: dict[str, Any]) -> None:
    for value in ("redis://localhost", "redis://rediss"):
        config = project({"app": app({"REDIS_URL": value}), "redis": REDIS | body})
        assert findings(config) == []


@pytest.mark.parametrize(
    "test",
    [
        ["CMD", "redis-cli", "-h", "localhost", "ping"],
        ["CMD-SHELL", "curl -f http://localhost:6379/ || exit 1"],
        ["CMD", "pg_isready", "--host=127.0.0.1"],
    ],
)
def test_a_healthcheck_asks_the_service_itself(test: list[str]) -> None:
    body = app({}, healthcheck={"test": test})
    assert findings(project({"app": body, "redis": REDIS, "db": DB})) == []


@pytest.mark.parametrize(
    ("ignore", "left"),
    [((), 2), (("app.REDIS_URL",), 1), (("app.*",), 0), (("*.REDIS_URL",), 1), (("api.*",), 2)],
)
def test_what_is_to_be_ignored(ignore: tuple[str, ...], left: int) -> None:
    environment = {"REDIS_URL": "redis://localhost", "DATABASE_URL": "postgresql://localhost/n"}
    config = project({"app": app(environment), "redis": REDIS, "db": DB})
    found = classify(read(config), config, ignore=ignore)
    assert len([one for one in found if one.status == "wrong"]) == left


def test_what_an_image_brings_counts_only_where_the_service_waits_for_it() -> None:
    images = {APP: ImageFacts(env={"REDIS_HOST": "localhost"}, ports=(8000,))}
    waits = project({"app": app({}, depends_on={"redis": {}}), "redis": REDIS})
    alone = project({"app": app({}), "redis": REDIS})
    assert reasons(waits, images=images) == [("wrong", "loopback", "redis:6379")]
    assert reasons(alone, images=images) == []
