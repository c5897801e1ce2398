"""What is desired of a host's resolver: validated before any host is contacted."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from stackmend.problems import abbreviate, show
from stackmend.raw import IntegerSeconds

#: Servers that glibc reads of ``/etc/resolv.conf`` (``MAXNS``); it ignores those behind them.
MAXIMUM_SERVERS = 3

#: Domains that older versions of glibc search, and characters that they may have together.
MAXIMUM_SEARCH, MAXIMUM_SEARCH_TEXT = 6, 256

#: Names that the host resolves where none are given: the registries that a stack pulls from.
CHECK_NAMES = ("registry-1.docker.io", "registry.ollama.ai")

#: Addresses at which a resolver of the host itself listens, and what it is.
_OWN = {
    "127.0.0.53": "systemd-resolved",
    "127.0.0.54": "systemd-resolved",
    "127.0.0.11": "Docker's resolver inside containers",
}

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SCOPE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")


def _wrap_single(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _check_server(value: str) -> str:
    try:
        address = ip_address(value)
    except ValueError:
        hint = ", not a name" if _NAME.fullmatch(value) else ""
        raise ValueError(
            f"must be the address of a DNS server, such as 192.0.2.53{hint}; got "
            f"{abbreviate(value)}"
        ) from None
    text = str(address)
    scope = address.scope_id if isinstance(address, IPv6Address) else None
    if text in _OWN:
        raise ValueError(f"{show(text)} is {_OWN[text]} itself; name the server that it is to ask")
    if address.is_unspecified or address.is_multicast or text == "255.255.255.255":
        raise ValueError(f"{show(text)} is no address of a server")
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise ValueError(f"{show(text)} is an IPv4 address; write {address.ipv4_mapped}")
        if address.is_link_local and scope is None:
            raise ValueError(f"{show(text)} is link-local; name its link: {text}%eth0")
        if scope is not None and (not address.is_link_local or not _SCOPE.fullmatch(scope)):
            raise ValueError(
                f"only a link-local address has a link behind it, such as fe80::1%eth0; got "
                f"{abbreviate(value)}"
            )
    return text


def _check_name(value: str) -> str:
    plain = value.rstrip(".").lower()
    try:
        ip_address(plain)
    except ValueError:
        if plain.rpartition(".")[2] == "invalid":
            raise ValueError(
                f"{show(plain)} can have no address: .invalid stands for none"
            ) from None
        if len(plain) <= 253 and _NAME.fullmatch(plain):
            return plain
    raise ValueError(f"must be a name such as registry.example.com; got {abbreviate(value)}")


def _check_domain(value: str) -> str:
    if value.startswith("~"):
        raise ValueError(
            f"{show(value)} routes names to a link; give a domain that is searched, such as "
            "example.com"
        )
    return _check_name(value)


def _check_distinct(values: Sequence[str]) -> Sequence[str]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{show(value)} is there twice")
    return values


def _check_count(values: Sequence[str]) -> Sequence[str]:
    if len(values) > MAXIMUM_SERVERS:
        raise ValueError(
            f"must be at most {MAXIMUM_SERVERS}: glibc asks no others; got {len(values)}"
        )
    return values


def _check_search(values: Sequence[str]) -> Sequence[str]:
    if len(values) > MAXIMUM_SEARCH or len(" ".join(values)) > MAXIMUM_SEARCH_TEXT:
        raise ValueError(
            f"must be at most {MAXIMUM_SEARCH} domains of {MAXIMUM_SEARCH_TEXT} characters together"
        )
    return values


Servers = Annotated[
    tuple[Annotated[str, AfterValidator(_check_server)], ...],
    BeforeValidator(_wrap_single),
    Field(min_length=1),
    AfterValidator(_check_distinct),
    AfterValidator(_check_count),
]
Search = Annotated[
    tuple[Annotated[str, AfterValidator(_check_domain)], ...],
    BeforeValidator(_wrap_single),
    AfterValidator(_check_distinct),
    AfterValidator(_check_search),
]
CheckNames = Annotated[
    tuple[Annotated[str, AfterValidator(_check_name)], ...],
    BeforeValidator(_wrap_single),
    Field(min_length=1, max_length=8),
    AfterValidator(_check_distinct),
]


class ServersSpec(BaseModel):
    """The DNS servers that a host is to ask.

    :param servers: their addresses, 3 at most, in the order in which they are asked.
    :param search: domains behind which short names are looked up; empty leaves them as they are.
    :param check_names: names that each server has to answer before anything changes, and that the
        host has to resolve afterwards. Name an internal one as well, where there is one.
    :param on_conflict: ``force`` consents to what is refused otherwise: to change an immutable
        or append-only file, and to change servers where a VPN or a routing domain has its own.
    :param revert_after: seconds after which the host reverts a change that no run has confirmed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    servers: Servers
    search: Search = ()
    check_names: CheckNames = CHECK_NAMES
    on_conflict: Literal["refuse", "force"] = "refuse"
    revert_after: IntegerSeconds = Field(default=120, ge=5, le=3600)


class CachesSpec(BaseModel):
    """When the DNS caches of a host are flushed.

    :param when: ``symptom`` flushes a cache whose answer differs from that of the server behind
        it; ``always`` flushes each that holds something, or may.
    :param check_names: names that a cache is asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: Literal["symptom", "always"] = "symptom"
    check_names: CheckNames = CHECK_NAMES


class ResolverPolicy(BaseModel):
    """The section ``resolver`` of a stack: the host's DNS servers and its caches.

    :param servers: addresses of DNS servers, 3 at most, in the order in which they are asked;
        without them the servers are not managed.
    :param search: domains behind which short names are looked up; empty leaves them as they are.
    :param check_names: names that each server has to answer before anything changes, and that the
        host has to resolve afterwards. Name an internal one as well, where there is one.
    :param on_conflict: ``force`` consents to what is refused otherwise: to change an immutable
        or append-only file, and to change servers where a VPN or a routing domain has its own.
    :param revert_after: seconds after which the host reverts a change that no run has confirmed.
    :param flush: when caches are flushed: ``symptom`` where an answer is stale, ``always``, or
        ``never``; the operation ``resolver.cache_flushed`` calls it ``when``.

    Example, in ``group_data/all.py``::

        stack = {"resolver": {"servers": ["192.0.2.53"], "check_names": ["git.example.com"]}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    servers: Servers | None = None
    search: Search = ()
    check_names: CheckNames = CHECK_NAMES
    on_conflict: Literal["refuse", "force"] = "refuse"
    revert_after: IntegerSeconds = Field(default=120, ge=5, le=3600)
    flush: Literal["symptom", "always", "never"] = "symptom"

    @model_validator(mode="after")
    def _check_use(self) -> Self:
        for name in ("search", "on_conflict", "revert_after"):
            if self.servers is None and name in self.model_fields_set:
                raise ValueError(f"{name} goes with servers, and none are named: nothing follows")
        return self
