"""The checks that prove the links of a project. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Any

from stackmend.addresses.state import (
    Link,
)
from stackmend.checks.spec import (
    LONGEST_NAME,
    Check,
    GreetingCheck,
    NameCheck,
    RedisCheck,
    TcpCheck,
    make_if_valid,
)
from stackmend.compose.plan.declaration import is_redis
from stackmend.compose.plan.health import is_complete
from stackmend.compose.plan.path import find_role, has_file
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Declared, StackState
from stackmend.text import make_printable

#: Seconds for one call, which a service beside it answers at once.
CALL_TIMEOUT = 3
#: Links of one project that are proven; of more that is said.
MAXIMUM_LINKS = 256
#: Schemes, and the protocol by whose greeting they are proven; what speaks TLS is connected to.
_PROTOCOLS = {
    "http": "http",
    "ws": "http",
    "postgres": "postgres",
    "postgresql": "postgres",
    "pgsql": "postgres",
    "amqp": "amqp",
    "pyamqp": "amqp",
    "mysql": "mysql",
    "mysql2": "mysql",
    "mariadb": "mysql",
    "mongodb": "mongodb",
    "clickhouse": "clickhouse",
    "redis": "redis",
    "valkey": "redis",
}
_REDIS_SCHEMES = ("redis", "valkey")


def name_check(link: Link) -> str:
    """The name of the check that proves a link, or asks for its name."""
    if link.name_only:
        return _fit_name(f"name {link.host} in {link.source}")
    scheme = f"{link.scheme}://" if link.scheme else ""
    host = f"[{link.host}]" if ":" in link.host else link.host
    variable = f" ({link.variable})" if link.variable else ""
    return _fit_name(f"link {link.source} → {scheme}{host}:{link.port}{variable}")


def _fit_name(text: str) -> str:
    """A check's name of what a compose file holds: printable, and another one for each text."""
    name = make_printable(text, len(text)).strip()
    if name == text and len(name) <= LONGEST_NAME:
        return name
    mark = f" #{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"{name[: LONGEST_NAME - len(mark)]}{mark}"


def make_link_checks(
    spec: ComposeSpec, links: Sequence[Link], declared: Declared, state: StackState | None
) -> tuple[Check, ...]:
    """The checks that prove links, each from the network of the service that calls.

    What has done its work and ended calls nobody, and is called by nobody. What speaks at an
    address is asked by each, since what answers one may refuse another.

    :param state: what runs; ``None`` for the checks once all does.
    """
    made: dict[str, Check] = {}
    callers = (
        {container.service for container in state.containers if container.running}
        if state
        else {*declared.services}
    )
    for link in links:
        target = state.list_containers(link.target) if state and link.target else ()
        ended = bool(target) and all(is_complete(other, declared.services) for other in target)
        if 0 < link.port < 65536 and link.source in callers and not ended:
            name = name_check(link)
            check = _make_check(name, link, declared, spec.project)
            # A name that nobody can be called by has no link to be proven.
            if check is None:
                continue
            made.setdefault(name, check)
    return tuple(made.values())[:MAXIMUM_LINKS]


def _make_check(name: str, link: Link, declared: Declared, project: str) -> Check | None:
    """What proves a link: what speaks there is asked as its caller asks it, where that is known."""
    common: dict[str, Any] = {"name": name, "inside": link.source, "timeout": CALL_TIMEOUT}
    if link.name_only:
        return make_if_valid(NameCheck, hostname=link.host, **common)
    host = f"[{link.host}]" if ":" in link.host else link.host
    common["address"] = f"{host}:{link.port}"
    body = declared.services.get(link.target) or {}
    image = str(body.get("image") or f"{project}-{link.target}")
    check: Check | None = None
    if body and is_redis(image, body) and link.scheme in ("", *_REDIS_SCHEMES):
        role = "any" if has_file(body) else find_role(body)
        more: dict[str, Any] = {"service": link.target, "role": role}
        if link.scheme:
            variable = link.place is not None and link.place.kind in ("environment", "image")
            more["password_from"] = link.variable if variable else "command"
        check = make_if_valid(RedisCheck, **common, **more)
    elif protocol := _PROTOCOLS.get(link.scheme):
        check = make_if_valid(GreetingCheck, protocol=protocol, **common)
    # Of a variable that no program can be asked for, the login is not known.
    return check or make_if_valid(TcpCheck, **common)
