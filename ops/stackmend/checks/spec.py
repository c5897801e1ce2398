"""Health criteria of a stack beyond healthchecks, as its owner declares them.

A container that runs is not yet a stack that works. A check names one thing that must be true
from outside: an HTTP answer, an open TCP port, a server that speaks the right protocol, a command
that succeeds in a container, a redis that takes and keeps what is written. Checks only read: the
probe runs them, in `--dry` too, and so does the verification of a change.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stackmend.problems import abbreviate
from stackmend.raw import Seconds

_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token"}
)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


#: Checks that one probe of a host can hold.
MAXIMUM_CHECKS = 64

#: Characters that a check's name can have.
LONGEST_NAME = 200


def _make_error(message: str) -> PydanticCustomError:
    # The message of a custom error reaches the user as it stands; pydantic puts "Value error, "
    # before that of a ValueError.
    return PydanticCustomError("check", message)


def _check_text(value: str) -> str:
    if "\x00" in value:
        raise _make_error("must not hold a NUL character: no command can be given one")
    return value


def _check_service(value: str) -> str:
    if not _SERVICE.fullmatch(value):
        raise _make_error(
            f"{abbreviate(value)} is not a service name, which has letters, digits, '.', '_' and "
            "'-'"
        )
    return value


def _check_host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    try:
        name = value if value.isascii() else value.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise _make_error(f"{abbreviate(value)} is not a host name or an address")
    return name


def _check_port(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 9 and 1 <= int(value) <= 65535):
        raise _make_error(f"port {abbreviate(value)} must be a number from 1 to 65535")
    return int(value)


def _check_host_and_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (host and colon) or (":" in host and not bracketed):
        raise _make_error(
            f"must be host:port, such as redis:6379 or [::1]:6379, not {abbreviate(value)}"
        )
    _check_host(host[1:-1] if bracketed else host)
    _check_port(port)
    return value


def _split_address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    return _check_host(host.strip("[]")), _check_port(port)


Service = Annotated[str, AfterValidator(_check_service)]
#: The longest text that a check may hold: all checks of a stack are asked in one command.
MAXIMUM_TEXT = 16_384

Text = Annotated[str, Field(max_length=MAXIMUM_TEXT), AfterValidator(_check_text)]
AttemptSeconds = Annotated[Seconds, Field(gt=0, le=30, allow_inf_nan=False)]


class _Check(BaseModel):
    """What every kind of check has.

    :param name: as it stands in findings and reports, unique in a stack; derived from the rest
        where it is not given.
    :param deadline: seconds for which a verification keeps trying until the check passes; a probe
        tries twice at most.
    :param timeout: seconds that one attempt may take, 30 at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=LONGEST_NAME)] = ""
    deadline: Annotated[Seconds, Field(ge=0, le=3600, allow_inf_nan=False)] = 30
    timeout: AttemptSeconds = 5

    @field_validator("name", mode="before")
    @classmethod
    def _allow_no_name(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if _CONTROL.search(value):
            raise _make_error("must be one line of text without control characters")
        return value.strip()

    @model_validator(mode="after")
    def _derive_name(self) -> _Check:
        if not self.name:
            # The model is frozen for its users; here it is still being made.
            object.__setattr__(self, "name", self.asked[:LONGEST_NAME])
        return self

    @property
    def asked(self) -> str:
        """What is asked and from where, in words, as the evidence begins."""
        raise NotImplementedError

    @property
    def source(self) -> str | None:
        """The service from whose network, or in whose container, the check runs."""
        raise NotImplementedError

    @property
    def host(self) -> str | None:
        """The host name or address that is asked; None for an exec check."""
        return None

    @property
    def port(self) -> int | None:
        """The TCP port that is asked; None for an exec check."""
        return None

    def list_services(self, known: Collection[str] | None = None) -> tuple[str, ...]:
        """Return the services that this check touches, the source first.

        A check from the host itself touches the service that publishes `port`, which only the
        compose file knows: it returns nothing here.

        :param known: the stack's services. The host that is asked counts when it is one of them;
            without them, when it looks like one (a plain name, not an address).

        Example: `TcpCheck(address="redis:6379", inside="api").list_services() == ("api", "redis")`
        """
        found = [] if self.source is None else [self.source]
        if self.source is not None and self.host is not None and self.host not in found:
            plain = "." not in self.host and ":" not in self.host and self.host != "localhost"
            if self.host in known if known is not None else plain:
                found.append(self.host)
        return tuple(found)


def _parse_codes(value: Any) -> Any:
    items = value if isinstance(value, (list, tuple)) else [value]
    codes = []
    for item in items:
        text = str(item).strip().lower() if not isinstance(item, bool) else "?"
        family = re.fullmatch(r"([1-5])xx", text)
        bounds = re.fullmatch(r"(\d{3})(?:\s*-\s*(\d{3}))?", text)
        if family:
            low, high = int(family[1]) * 100, int(family[1]) * 100 + 99
        elif bounds:
            low, high = int(bounds[1]), int(bounds[2] or bounds[1])
        else:
            low, high = 0, 0
        if not 100 <= low <= high <= 599:
            raise _make_error(
                f"{abbreviate(item)} is not a status: a code (200), a range ('200-299') or a "
                "family ('2xx')"
            )
        codes.append(f"{low}" if low == high else f"{low}-{high}")
    if not codes:
        raise _make_error("names no status: give at least one, such as 200")
    return tuple(codes)


def _redact_login(url: str) -> str:
    """A URL that is wrong may hold a password all the same, and stands in a message."""
    return re.sub(r"[^/]*@", "(redacted)@", url)


class HttpCheck(_Check):
    """A URL that must answer with the right status, and with the right text if one is given.

    Redirections are not followed: name 302 if that is right. An answer that does not end within
    ``timeout`` has not passed, unless what it must hold was already there.

    :param kind: ``http``.
    :param url: http:// or https://, without user and password.
    :param inside: a service, to ask from its network and with its resolver and hosts file; without
        it the host itself asks.
    :param method: GET, HEAD or OPTIONS, because a check changes nothing.
    :param status: a code, a range such as "200-299", a family such as "2xx", or a list of these.
    :param contains: text that the first MiB of the answer must hold.
    :param headers: sent with the request. Those that carry secrets are refused: the request is
        visible in the host's process list.
    :param insecure: accept any certificate.

    Example: `{"kind": "http", "url": "http://127.0.0.1:8000/healthz", "contains": "ok"}`
    """

    kind: Literal["http"] = "http"
    url: Annotated[Text, Field(max_length=4096)]
    inside: Service | None = None
    method: Literal["GET", "HEAD", "OPTIONS"] = "GET"
    status: Annotated[int | str | tuple[int | str, ...], BeforeValidator(_parse_codes)] = ("200",)
    contains: Annotated[Text, Field(min_length=1, max_length=4096)] | None = None
    headers: dict[str, Text] = Field(default_factory=dict)
    insecure: bool = False

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if any(character.isspace() or ord(character) < 33 for character in value):
            raise _make_error(
                "must not hold blanks or control characters: write them percent-encoded"
            )
        try:
            parts = urlsplit(value)
            port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
            host = parts.hostname or ""
        except ValueError as error:
            raise _make_error(f"{abbreviate(_redact_login(value))} is not a URL: {error}") from None
        if parts.scheme not in ("http", "https") or not value.partition(":")[2].startswith("//"):
            redacted = _redact_login(value)
            raise _make_error(
                f"must be http:// or https:// followed by a host, not {abbreviate(redacted)}"
            )
        if "@" in parts.netloc:
            raise _make_error(
                "must not hold a user or password: it would be visible in the host's process list"
            )
        _check_host(host)
        if port:
            _check_port(port)
        return value

    @field_validator("method", mode="before")
    @classmethod
    def _check_method(cls, value: Any) -> Any:
        method = value.upper() if isinstance(value, str) else value
        if method not in ("GET", "HEAD", "OPTIONS"):
            raise _make_error(
                f"must be GET, HEAD or OPTIONS, not {abbreviate(value)}: a check changes nothing; "
                "use an exec check for anything else"
            )
        return method

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for key, content in value.items():
            if not _HEADER.fullmatch(key):
                raise _make_error(f"{abbreviate(key)} is not the name of a header")
            if key.lower() in _SECRET_HEADERS:
                raise _make_error(
                    f"{key} carries a secret, and a check is visible in the host's process list: "
                    "use an exec check that reads the secret in the container"
                )
            if not content.strip():
                raise _make_error(f"the value of {key} is empty")
            if _CONTROL.search(content):
                raise _make_error(f"the value of {key} must be one line without control characters")
        return value

    @model_validator(mode="after")
    def _check_body(self) -> HttpCheck:
        if self.method == "HEAD" and self.contains is not None:
            raise _make_error("contains: the answer to HEAD has no text; use GET")
        return self

    @property
    def target(self) -> str:
        """The URL as it is sent: without fragment, percent-encoded, the host in ASCII."""
        parts = urlsplit(self.url)
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if parts.port is not None else ""
        path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._") or "/"
        query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
        return f"{parts.scheme}://{host}{port}{path}{query}"

    @property
    def host(self) -> str:
        """The host of the URL."""
        return _check_host(urlsplit(self.url).hostname or "")

    @property
    def port(self) -> int:
        """The port of the URL, that of the scheme when it names none."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def codes(self) -> tuple[str, ...]:
        """The accepted statuses: `"200"` or `"200-299"`."""
        return self.status if isinstance(self.status, tuple) else (str(self.status),)  # type: ignore[return-value]

    @property
    def source(self) -> str | None:
        """The service from whose network the URL is asked."""
        return self.inside

    @property
    def asked(self) -> str:
        """What is asked and from where, in words."""
        return f"{self.method} {self.url} from {_format_place(self.inside)}"


class _AddressCheck(_Check):
    """What is asked at an address, from the host or from a service's network."""

    address: Text
    inside: Service | None = None

    @field_validator("address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        return _check_host_and_port(value)

    @property
    def host(self) -> str:
        """The host of the address."""
        return _split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port of the address."""
        return _split_address(self.address)[1]

    @property
    def source(self) -> str | None:
        """The service from whose network it is asked."""
        return self.inside


class TcpCheck(_AddressCheck):
    """A TCP port that must accept a connection.

    :param kind: ``tcp``.
    :param address: ``host:port``, an IPv6 address in brackets.
    :param inside: a service, to connect from its network and with its resolver and hosts file;
        without it the host itself connects.

    Example: `{"kind": "tcp", "address": "redis:6379", "inside": "api"}`
    """

    kind: Literal["tcp"] = "tcp"

    @property
    def asked(self) -> str:
        """What is asked and from where, in words."""
        return f"connect to {self.address} from {_format_place(self.inside)}"


class GreetingCheck(_AddressCheck):
    """A server that answers the first words of its protocol as one that is ready does.

    An open port is not yet the right server: this one is told from another that listens there, and
    from one that is still starting. Nobody logs in, and TLS is not spoken.

    :param kind: ``greeting``.
    :param address: ``host:port``, an IPv6 address in brackets.
    :param protocol: ``http`` (any status counts), ``postgres``, ``amqp`` (RabbitMQ), ``mysql``
        (MariaDB too), ``mongodb``, ``clickhouse`` (its native protocol), or ``redis``, of which a
        check of the kind ``redis`` asks more.
    :param inside: a service, to ask from its network and with its resolver and hosts file; without
        it the host itself asks.
    :param user: whom a postgres is asked for; an error about that role then fails the check.
    :param database: which database a postgres is asked for, by default that of the user's name. A
        postgres that asks for a password says nothing of either.

    Example: `{"kind": "greeting", "address": "db:5432", "protocol": "postgres", "inside": "api"}`
    """

    kind: Literal["greeting"] = "greeting"
    protocol: Literal["http", "postgres", "amqp", "mysql", "mongodb", "clickhouse", "redis"]
    user: Annotated[Text, Field(min_length=1, max_length=63)] | None = None
    database: Annotated[Text, Field(min_length=1, max_length=63)] | None = None

    @field_validator("address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        return _check_host_and_port(value)

    @model_validator(mode="after")
    def _check_login(self) -> GreetingCheck:
        if self.protocol != "postgres" and (self.user or self.database):
            raise _make_error("user, database: only a postgres is asked for them")
        return self

    @property
    def host(self) -> str:
        """The host of the address."""
        return _split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port of the address."""
        return _split_address(self.address)[1]

    @property
    def asked(self) -> str:
        """What is asked and from where, in words."""
        return f"greet {self.protocol} at {self.address} from {_format_place(self.inside)}"


class NameCheck(_Check):
    """A name that must have an address.

    Nothing is connected to: only the resolver and the hosts file are asked. An answer that does not
    come within ``timeout`` is not known.

    :param kind: ``name``.
    :param hostname: the name.
    :param inside: a service, to ask its resolver and its hosts file; without it the host's.

    Example: `{"kind": "name", "hostname": "redis", "inside": "api"}`
    """

    kind: Literal["name"] = "name"
    hostname: Annotated[Text, AfterValidator(_check_host)]
    inside: Service | None = None

    @property
    def host(self) -> str:
        """The name."""
        return self.hostname

    @property
    def source(self) -> str | None:
        """The service whose resolver is asked."""
        return self.inside

    @property
    def asked(self) -> str:
        """What is asked and from where, in words."""
        return f"resolve {self.hostname} from {_format_place(self.inside)}"


class ExecCheck(_Check):
    """A command that must end with the right exit code in a service's container.

    It runs as `docker exec` does: as the container's own user, with its environment. What is still
    running after `timeout` is ended where the host permits. With several replicas it runs in the
    first.

    :param kind: ``exec``.
    :param service: the service in whose container it runs.
    :param command: a list of arguments, or a string for ``sh -c``.
    :param exit_code: what it must end with.
    :param contains: text that its first 64 KiB of output must hold.

    Example: `{"kind": "exec", "service": "redis", "command": ["redis-cli", "ping"],
    "contains": "PONG"}`
    """

    kind: Literal["exec"] = "exec"
    service: Service
    command: tuple[Text, ...]
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    contains: Annotated[Text, Field(min_length=1, max_length=4096)] | None = None

    @field_validator("command", mode="before")
    @classmethod
    def _wrap_shell(cls, value: Any) -> Any:
        return ("sh", "-c", value) if isinstance(value, str) and value.strip() else value

    @field_validator("command")
    @classmethod
    def _check_program(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not value[0]:
            raise _make_error("names no program")
        if value[0].startswith("-"):
            raise _make_error(
                f"the program {abbreviate(value[0])} must not begin with '-': it would be an option"
            )
        return value

    @property
    def source(self) -> str:
        """The service in whose container the command runs."""
        return self.service

    @property
    def asked(self) -> str:
        """What is run and where, in words."""
        words = self.command[2:] if self.command[:2] == ("sh", "-c") else self.command
        text = _CONTROL.sub(" ", " ".join(words))
        return f"run {text if len(text) <= 120 else text[:117] + '...'} in {self.service}"


class RedisCheck(_Check):
    """A redis (or one that speaks as it does) that answers, takes writes and can keep them.

    ``redis-cli ping`` is content with a replica, and exits 0 where redis asks for a password or
    refuses writes. This asks for PING, for its role, for its last saves, and makes a write that
    changes nothing (SETRANGE of nothing to a key that is not there). It logs in with the password
    that the service has: ``--requirepass`` in its command, its configuration file, or the
    environment (``REDIS_PASSWORD``, ``REDISCLI_AUTH``, ``VALKEY_PASSWORD``, or such a ``_FILE``);
    or, with ``password_from``, as its caller does. TLS is not spoken.

    :param kind: ``redis``.
    :param service: the service that runs redis.
    :param address: ``host:port``; by default port 6379 of the service's own loopback.
    :param inside: a service, to ask from its network and with its resolver and hosts file; by
        default ``service`` itself.
    :param role: ``master``, ``replica``, or ``any`` of them, as which also counts what its
        configuration file makes a replica. A replica need not take writes.
    :param password_from: the variable of ``inside`` that holds the password, an address with it
        (``redis://:PASSWORD@redis:6379/0``), or the path of a file with either (``..._FILE``); or
        ``command``, for an address in its command. The host reads it there: what the caller would
        be answered is then the check's outcome, and where it holds none, none is sent.

    Example: `{"kind": "redis", "service": "redis", "address": "redis:6379", "inside": "api",
    "password_from": "REDIS_URL"}`
    """

    kind: Literal["redis"] = "redis"
    service: Service
    address: Text | None = None
    inside: Service | None = None
    role: Literal["master", "replica", "any"] = "master"
    password_from: Annotated[str, Field(max_length=200)] | None = None

    @field_validator("address")
    @classmethod
    def _check_address(cls, value: str | None) -> str | None:
        return value if value is None else _check_host_and_port(value)

    @field_validator("password_from")
    @classmethod
    def _check_variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise _make_error(
                f"{abbreviate(value)} is not the name of a variable: never give the password itself"
            )
        return value

    @model_validator(mode="after")
    def _check_caller(self) -> RedisCheck:
        if self.password_from is not None and self.inside is None:
            raise _make_error("password_from: name the service that has it, as inside")
        return self

    @property
    def host(self) -> str:
        """The host of the address; the service, where it is asked in its own network."""
        return self.service if self.address is None else _split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port of the address."""
        return 6379 if self.address is None else _split_address(self.address)[1]

    @property
    def source(self) -> str:
        """The service from whose network it is asked."""
        return self.inside or self.service

    def list_services(self, known: Collection[str] | None = None) -> tuple[str, ...]:
        """Return the services that this check touches, the source first."""
        return tuple(dict.fromkeys([*super().list_services(known), self.service]))

    @property
    def asked(self) -> str:
        """What is asked and from where, in words."""
        where = f" at {self.address}" if self.address else ""
        return f"ask redis{where} of {self.service} from inside {self.source}"


def _format_place(inside: str | None) -> str:
    return "the host" if inside is None else f"inside {inside}"


_KINDS: dict[str, type[_Check]] = {
    "http": HttpCheck,
    "tcp": TcpCheck,
    "greeting": GreetingCheck,
    "name": NameCheck,
    "exec": ExecCheck,
    "redis": RedisCheck,
}


def _choose_kind(value: Any, _handler: Callable[[Any], Any]) -> Any:
    # A tagged union of pydantic's own would put the tag into the path of every error:
    # checks.0.http.url instead of checks.0.url.
    if isinstance(value, _Check):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _make_error(
            "must be a mapping whose kind is http, tcp, greeting, name, exec or redis, not "
            f"kind {abbreviate(kind)}"
        )
    return _KINDS[kind].model_validate(dict(value))


def _check_together(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    if len(checks) > MAXIMUM_CHECKS:
        raise _make_error(
            f"{len(checks)} checks: {MAXIMUM_CHECKS} are the most that one probe of a host can hold"
        )
    names: set[str] = set()
    for check in checks:
        if check.name in names:
            raise _make_error(
                f"two checks have the name {abbreviate(check.name)}: give each its own name"
            )
        names.add(check.name)
    return checks


Check = Annotated[
    HttpCheck | TcpCheck | GreetingCheck | NameCheck | ExecCheck | RedisCheck,
    WrapValidator(_choose_kind),
]
"""One check, its kind named by `kind`; for use as a type in other models."""

Checks = Annotated[tuple[Check, ...], AfterValidator(_check_together)]
"""The checks of a stack, 64 at most, each with its own name; for use as a type in other models."""

_Made = TypeVar("_Made", bound=_Check)


def make_if_valid(kind: type[_Made], **fields: Any) -> _Made | None:
    """A check of values that a compose file holds; ``None`` where they make none.

    :param kind: its class.
    :param fields: its fields.

    Example: `make_if_valid(TcpCheck, address="re dis:6379") is None`
    """
    try:
        return kind(**fields)
    except ValidationError:
        return None


_CHECKS: TypeAdapter[tuple[Check, ...]] = TypeAdapter(Checks)


def parse_checks(values: Iterable[Check | Mapping[str, Any]]) -> tuple[Check, ...]:
    """Return validated checks.

    :param values: mappings, or checks.
    :raises pydantic.ValidationError: with the path of the wrong field, such as `0.url`.

    Example: `parse_checks([{"kind": "tcp", "address": "127.0.0.1:6379"}])`
    """
    return _CHECKS.validate_python(tuple(values))
