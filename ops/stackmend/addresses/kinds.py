"""What services of the field speak: kinds of software, their ports, and what people call them."""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import dropwhile
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """One kind of software.

    :param ports: its usual ports, with what each speaks: a scheme of URLs.
    :param images: last parts of the names of images that run it.
    :param tokens: words in names of variables that mean it.
    :param schemes: schemes that nothing else speaks, with the port each implies.
    :param group: what it is chosen for, where software can choose.
    :param internal: whether browsers have no business with it.
    :param clients: programs in its image that connect, and do not serve.
    :param servers: programs that serve.
    :param besides: ports that it may have besides, for its own administration and its like.
    """

    ports: Mapping[int, str]
    images: str
    tokens: str = ""
    schemes: Mapping[str, int] = {}
    group: str = ""
    internal: bool = True
    clients: str = ""
    servers: str = ""
    besides: frozenset[int] = frozenset()


KINDS: Mapping[str, Kind] = {
    "redis": Kind(
        {6379: "redis"},
        "redis valkey keydb dragonfly redis-stack redis-stack-server",
        "redis valkey keydb",
        {"redis": 6379, "rediss": 6379, "valkey": 6379, "valkeys": 6379},
        "cache",
        clients="redis-cli valkey-cli",
        servers="redis-server valkey-server keydb-server docker-entrypoint.sh",
        besides=frozenset({8001, 26379}),
    ),
    "sentinel": Kind(
        {26379: "sentinel"}, "redis-sentinel", "sentinel sentinels", {"sentinel": 26379}, "cache"
    ),
    "postgres": Kind(
        {5432: "postgresql"},
        "postgres postgresql postgis pgvector timescaledb timescaledb-ha pgvecto-rs alloydbomni",
        "postgres postgresql postgresdb pg pgsql pgvector",
        {"postgresql": 5432, "postgres": 5432, "pgsql": 5432},
        "db",
        clients="psql pg_isready pg_dump pg_dumpall pg_restore createdb",
        servers="postgres docker-entrypoint.sh",
        besides=frozenset({8008}),
    ),
    "mysql": Kind(
        {3306: "mysql"},
        "mysql mariadb percona mysql-server percona-server",
        "mysql mariadb",
        {"mysql": 3306, "mariadb": 3306, "mysql2": 3306},
        "db",
        clients="mysql mysqladmin mysqldump mariadb mariadb-admin mariadb-dump",
        servers="mysqld mariadbd docker-entrypoint.sh",
        besides=frozenset({33060, 33062}),
    ),
    "mongodb": Kind(
        {27017: "mongodb"},
        "mongo mongodb mongodb-community-server percona-server-mongodb",
        "mongo mongodb",
        {"mongodb": 27017},
        "db",
        clients="mongosh mongo mongodump mongorestore",
        servers="mongod docker-entrypoint.sh",
    ),
    "rabbitmq": Kind(
        {5672: "amqp", 15672: "http"},
        "rabbitmq lavinmq",
        "amqp rabbitmq rabbit",
        {"amqp": 5672, "amqps": 5671, "pyamqp": 5672},
        "cache",
        clients="rabbitmqadmin",
        servers="rabbitmq-server docker-entrypoint.sh",
        besides=frozenset({1883, 5671, 15692, 25672, 61613}),
    ),
    "clickhouse": Kind(
        {8123: "http", 9000: "clickhouse"},
        "clickhouse clickhouse-server",
        "clickhouse",
        {"clickhouse": 9000},
        "db",
        clients="clickhouse-client",
        servers="clickhouse-server entrypoint.sh",
        besides=frozenset({8443, 9004, 9005, 9009, 9363, 9440}),
    ),
    "ollama": Kind(
        {11434: "http"}, "ollama", "ollama", {}, "ai", clients="ollama", servers="serve"
    ),
    "vllm": Kind({8000: "http"}, "vllm-openai vllm", "vllm", {}, "ai"),
    "litellm": Kind({4000: "http"}, "litellm litellm-database", "litellm", {}, "ai"),
    "localai": Kind({8080: "http"}, "localai local-ai", "localai", {}, "ai"),
    "embeddings": Kind({80: "http"}, "text-embeddings-inference", "tei", {}, "ai"),
    "qdrant": Kind(
        {6333: "http", 6334: "grpc"}, "qdrant", "qdrant", {}, "vector", besides=frozenset({6335})
    ),
    "weaviate": Kind(
        {8080: "http", 50051: "grpc"},
        "weaviate",
        "weaviate",
        {},
        "vector",
        besides=frozenset({2112}),
    ),
    "chroma": Kind({8000: "http"}, "chroma", "chroma chromadb", {}, "vector"),
    "milvus": Kind({19530: "http", 9091: "http"}, "milvus", "milvus", {}, "vector"),
    "meilisearch": Kind(
        {7700: "http"}, "meilisearch", "meili meilisearch", {}, "search", internal=False
    ),
    "typesense": Kind(
        {8108: "http"},
        "typesense",
        "typesense",
        {},
        "search",
        internal=False,
        besides=frozenset({8107}),
    ),
    "elasticsearch": Kind(
        {9200: "http"},
        "elasticsearch",
        "elasticsearch elastic",
        {},
        "search",
        clients="curl",
        servers="elasticsearch eswrapper docker-entrypoint.sh",
        besides=frozenset({9300}),
    ),
    "opensearch": Kind(
        {9200: "http"}, "opensearch", "opensearch", {}, "search", besides=frozenset({9300, 9600})
    ),
    "minio": Kind(
        {9000: "http"},
        "minio",
        "minio s3",
        {},
        "storage",
        internal=False,
        besides=frozenset({9001}),
    ),
    "tika": Kind({9998: "http"}, "tika docker-tika tika-server", "tika", {}, "convert"),
    "gotenberg": Kind({3000: "http"}, "gotenberg", "gotenberg", {}, "convert"),
    "kafka": Kind(
        {9092: "kafka"},
        "kafka cp-kafka redpanda",
        "kafka",
        {"kafka": 9092},
        "queue",
        besides=frozenset({2181, 8082, 9093, 9094, 9644, 19092, 29092}),
    ),
    "nats": Kind(
        {4222: "nats"},
        "nats nats-server",
        "nats",
        {"nats": 4222},
        "queue",
        besides=frozenset({6222, 8222}),
    ),
    "memcached": Kind(
        {11211: "memcached"}, "memcached", "memcached memcache", {"memcached": 11211}, "cache"
    ),
    "neo4j": Kind(
        {7687: "bolt", 7474: "http"},
        "neo4j",
        "neo4j",
        {"bolt": 7687, "neo4j": 7687},
        "db",
        besides=frozenset({7473}),
    ),
    "zookeeper": Kind(
        {2181: "zookeeper"},
        "zookeeper cp-zookeeper",
        "zookeeper zk",
        {},
        "",
        besides=frozenset({2888, 3888, 8080}),
    ),
    "etcd": Kind({2379: "http"}, "etcd", "etcd", {}, "", besides=frozenset({2380, 4001})),
}

#: The port that a scheme implies where none is written.
SCHEME_PORTS: Mapping[str, int] = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    **{scheme: port for kind in KINDS.values() for scheme, port in kind.schemes.items()},
}

#: What browsers speak.
BROWSED = frozenset({"http", "https", "ws", "wss"})

#: The kind that alone speaks a scheme.
KIND_OF_SCHEME: Mapping[str, str] = {
    scheme: name for name, kind in KINDS.items() for scheme in kind.schemes
} | {"plaintext": "kafka", "sasl_plaintext": "kafka"}

#: Schemes that mean a host of the network, whatever serves them.
_KNOWN_SCHEMES = frozenset({*SCHEME_PORTS, *KIND_OF_SCHEME})

_LOOPBACK = re.compile(r"localhost|localhost\.localdomain|127(?:\.\d{1,3}){3}|::1|0\.0\.0\.0|::")

#: Programs that start whatever an image is for.
_OF_ANY_IMAGE = frozenset({"docker-entrypoint.sh", "entrypoint.sh"})

#: Words that hand on to the program that follows them.
_WRAPPERS = _OF_ANY_IMAGE | {"--", "dumb-init", "exec", "tini"}
_SHELLS = frozenset({"ash", "bash", "sh"})
#: Options with which a server does something once, and ends.
_ONCE = frozenset("--help --version -V --initialize --initialize-insecure --single".split())

#: Ports that anything may listen on.
_COMMON_PORTS = frozenset(
    {
        80,
        443,
        3000,
        4000,
        5000,
        5001,
        8000,
        8001,
        8008,
        8080,
        8081,
        8088,
        8443,
        8888,
        9000,
        9090,
        9091,
    }
)

_OF_IMAGE = {image: name for name, kind in KINDS.items() for image in kind.images.split()}
_OF_TOKEN = {token: name for name, kind in KINDS.items() for token in kind.tokens.split()}

#: Words of variables that mean any database.
_DATABASE = frozenset({"db", "database", "sql", "datasource"})
_GLUED = re.compile(r"(.{2,}?)(?:host(?:name)?|port|ur[li]|addr|server)$")
#: Last words of variables whose value may be the bare name of a host.
_ADDRESSES = frozenset(
    "addr address addresses broker brokers endpoint endpoints host hostname hostnames hosts server "
    "servers upstream uri uris url urls".split()
)
#: Words of variables that hold no address, whatever their last one is.
_SECRETS = frozenset("credential credentials pass passwd password pw pwd secret token".split())


def is_known_scheme(scheme: str) -> bool:
    """Whether a scheme means a host of the network, and what it speaks.

    >>> is_known_scheme("redis"), is_known_scheme("vault")
    (True, False)
    """
    return scheme in _KNOWN_SCHEMES


def is_loopback(host: str) -> bool:
    """Whether a host is the one that asks.

    >>> is_loopback("127.0.1.1"), is_loopback("localhost.example.org")
    (True, False)
    """
    return _LOOPBACK.fullmatch(host) is not None


@lru_cache(4096)
def split_name(name: str) -> tuple[str, ...]:
    """The words of a variable's name, in lower case.

    >>> split_name("PAPERLESS_DBHOST"), split_name("spring.datasource.url")
    (('paperless', 'db', 'dbhost'), ('spring', 'datasource', 'url'))
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    found: list[str] = []
    for word in re.split(r"[^A-Za-z0-9]+", spaced):
        lower = word.lower()
        if glued := _GLUED.fullmatch(lower):
            found.append(glued[1])
        if lower:
            found.append(lower)
    return tuple(found)


@lru_cache(4096)
def is_address_name(name: str) -> bool:
    """Whether the value of a variable or flag may be the bare name of a host.

    >>> is_address_name("REDIS_HOST"), is_address_name("PAPERLESS_DBHOST")
    (True, True)
    >>> is_address_name("REDIS_HOST_KEY_PREFIX"), is_address_name("RABBITMQ_VHOST")
    (False, False)
    """
    words = split_name(name)
    if not words or _SECRETS.intersection(words):
        return False
    glued = _GLUED.fullmatch(words[-1])
    named = glued is not None and (glued[1] in _OF_TOKEN or glued[1] in _DATABASE)
    return words[-1] in _ADDRESSES or (named and not words[-1].endswith("port"))


def is_host_name(name: str) -> bool:
    """Whether a variable holds a host by its name, and never what kind of server is chosen.

    >>> is_host_name("DB_HOST"), is_host_name("CELERY_BROKER")
    (True, False)
    """
    last = (split_name(name) or ("",))[-1]
    return last.endswith(("host", "hostname", "addr", "address")) and is_address_name(name)


def find_kinds(name: str) -> tuple[str, ...]:
    """The kinds of software that a variable's name means, or any database.

    >>> find_kinds("REDIS_HOST"), find_kinds("HOST")
    (('redis',), ())
    """
    words = split_name(name)
    if named := dict.fromkeys(_OF_TOKEN[word] for word in words if word in _OF_TOKEN):
        return tuple(named)
    if _DATABASE.intersection(words):
        return tuple(name for name, kind in KINDS.items() if kind.group == "db")
    return ()


def find_kind(name: str, body: Mapping[str, Any]) -> str:
    """The kind of software that a service runs; empty where that is not known.

    :param name: the service's name, which counts where it has no image.
    :param body: its section.
    """
    image = str(body.get("image") or "") or name
    kind = _OF_IMAGE.get(image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower(), "")
    if kind == "redis" and "sentinel" in f"{body.get('command')}{body.get('entrypoint')}":
        return "sentinel"
    return kind


def _list_programs(body: Mapping[str, Any]) -> set[str]:
    """The words of a service's commands, each without its path."""
    words: set[str] = set()
    for key in ("entrypoint", "command"):
        value = body.get(key) or ()
        for text in [value] if isinstance(value, str) else value:
            words.update(re.split(r"[\s;&|()'\"]+", str(text)[:20_000]))
    return {word.rpartition("/")[2] for word in words}


def is_client(kind: str, body: Mapping[str, Any]) -> bool:
    """Whether a service has the image of a server and runs a client of it alone."""
    words = _list_programs(body)
    clients, servers = KINDS[kind].clients.split(), KINDS[kind].servers.split()
    return bool(words.intersection(clients)) and not words.intersection(servers)


def is_server(kind: str, body: Mapping[str, Any]) -> bool:
    """Whether a service's commands start a server of this kind, whatever its image."""
    words, servers = _list_programs(body), {*KINDS[kind].servers.split()} - _OF_ANY_IMAGE
    if "serve" in servers:
        return "serve" in words and kind in words
    return bool(words & servers)


def find_served_kind(body: Mapping[str, Any]) -> str:
    """The kind of server that a service is sure to start; empty for a job, and where in doubt.

    By the image alone where nothing takes the place of what it starts by itself.

    >>> find_served_kind({"image": "redis:7"})
    'redis'
    >>> find_served_kind({"image": "redis:7", "command": ["redis-cli", "-h", "redis", "save"]})
    ''
    """
    kind = find_kind("", body)
    if not kind or body.get("build"):
        return ""
    words = [*_as_words(body.get("entrypoint")), *_as_words(body.get("command"))]
    if not words:
        return kind
    if _ONCE.intersection(words):
        return ""
    programs = [_find_program(script) for script in _split_script(words)]
    options = not body.get("entrypoint") and words[0].startswith("-")
    return kind if options or {*KINDS[kind].servers.split()} & {*programs} else ""


def _as_words(value: Any) -> list[str]:
    """The words of a command, as far as they are read."""
    words = value.split() if isinstance(value, str) else value or ()
    return [str(word)[:20_000] for word in words]


def _split_script(words: list[str]) -> list[list[str]]:
    """The commands that words run: those of the script, where a shell has one."""
    words = list(dropwhile(lambda word: word.rpartition("/")[2] in _WRAPPERS, words))
    shell = len(words) > 2 and words[0].rpartition("/")[2] in _SHELLS
    if not shell or not re.fullmatch(r"-[a-z]*c", words[1]):
        return [words]
    return [command.split() for command in re.split(r"[;&|\n]+", words[2])]


def _find_program(words: list[str]) -> str:
    """The program that a command starts, without its path; empty where it is none's."""
    for word in words:
        name = word.rpartition("/")[2]
        if name not in _WRAPPERS and not re.match(r"[A-Za-z_]\w*=", word):
            return name
    return ""


def is_typical_port(port: int, kind: str) -> bool:
    """Whether a port is usual for this kind of software and for nothing else.

    >>> is_typical_port(6379, "redis"), is_typical_port(8080, "weaviate")
    (True, False)
    """
    return port in KINDS[kind].ports and port not in _COMMON_PORTS


def find_kind_of_name(host: str) -> str:
    """The kind of software that a host's name is usual for."""
    return _OF_TOKEN.get(host.lower()) or _OF_IMAGE.get(host.lower(), "")
