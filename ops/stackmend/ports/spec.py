"""What is wanted of a host's ports: validated before any host is contacted."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from stackmend.frozen import Frozen
from stackmend.problems import abbreviate, in_one_line, show

Protocol = Literal["tcp", "udp"]

#: What a rule may name. A pattern may hold ``*``, ``?`` and ``[…]``.
RULE_KINDS = ("exe", "unit", "container", "project", "user")

#: The longest list that a stack may ask for; more is a range that was mistyped.
MAXIMUM_PORTS = 4096

_PORT = re.compile(
    r"(?:(?P<address>\[[^\]]*\]|[^\[\]:/]*):)?"
    r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?"
    r"(?:/(?P<protocol>[^/]*))?"
)


class PortSpec(Frozen):
    """One port that something of ours is to be bound to.

    :param address: the address of the host, as ``ipaddress`` writes it; ``0.0.0.0`` and ``::`` for
        every one of their kind.
    :param port: 1 to 65535.
    :param protocol: ``tcp`` or ``udp``.
    """

    address: str = "0.0.0.0"  # noqa: S104 - Docker's own default, to be looked at and not bound
    port: int = Field(ge=1, le=65535)
    protocol: Protocol = "tcp"

    @property
    def is_v6(self) -> bool:
        """Whether the address is one of IPv6."""
        return ":" in self.address

    @property
    def everywhere(self) -> bool:
        """Whether it is wanted on every address of its kind."""
        return self.address in ("0.0.0.0", "::")  # noqa: S104 - as above

    def __str__(self) -> str:
        address = f"[{self.address}]" if self.is_v6 else self.address
        return f"{address}:{self.port}/{self.protocol}"


def wanted(given: Any) -> tuple[PortSpec, ...]:
    """Every port that a text, a number or a mapping asks for; a range asks for several.

    ``6379``, ``"6379/udp"``, ``"127.0.0.1:8000-8010"``, ``"[::1]:53/udp"``, or a mapping of
    ``address``, ``port`` and ``protocol``. Without an address every address of IPv4 is meant.

    :raises ValueError: naming what is wrong and what would be right.
    """
    if isinstance(given, PortSpec):
        return (given,)
    if isinstance(given, Mapping):
        return (PortSpec.model_validate(given),)
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise ValueError(
            f"must be a port such as 6379 or '127.0.0.1:6379/tcp'; got {abbreviate(given)}"
        )
    found = _PORT.fullmatch(str(given).strip())
    if found is None:
        raise ValueError(
            f"{abbreviate(given)} is not a port: write PORT, FIRST-LAST, ADDRESS:PORT or "
            "[V6ADDRESS]:PORT, each with /tcp or /udp behind it if need be"
        )
    first, last = int(found["first"]), int(found["last"] or found["first"])
    for port in (first, last):
        if not 1 <= port <= 65535:
            raise ValueError(f"{abbreviate(given)}: {port} is no port; ports go from 1 to 65535")
    if last < first:
        raise ValueError(f"{abbreviate(given)}: an empty range; write it as {last}-{first}")
    if last - first >= MAXIMUM_PORTS:
        raise ValueError(
            f"{abbreviate(given)}: {last - first + 1} ports are more than the {MAXIMUM_PORTS} that "
            "may be asked"
        )
    protocol = "tcp" if found["protocol"] is None else found["protocol"]
    if protocol not in ("tcp", "udp"):
        raise ValueError(
            f"{abbreviate(given)}: {abbreviate(protocol)} is not supported; it must be tcp or udp"
        )
    address = _address(given, found["address"])
    return tuple(
        PortSpec.model_validate({"address": address, "port": port, "protocol": protocol})
        for port in range(first, last + 1)
    )


def _address(given: object, text: str | None) -> str:
    if text is None or text in ("", "*"):
        return "0.0.0.0"  # noqa: S104 - as above
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        raise ValueError(
            f"{abbreviate(given)}: {show(text)} is not an IP address of the host; write it in "
            "numbers"
        ) from None


def parse_ports(given: Any) -> tuple[PortSpec, ...]:
    """Every port of a list, once each, in order; a single text may hold several with commas.

    :raises ValueError: naming the place in the list.
    """
    if isinstance(given, str):
        given = [part for part in given.split(",") if part.strip()]
    elif isinstance(given, int | Mapping | PortSpec) or not isinstance(given, Iterable):
        given = [given]
    found: dict[PortSpec, None] = {}
    count = 0
    for index, item in enumerate(given):
        try:
            ports = wanted(item)
        except ValueError as error:
            raise ValueError(f"{index}: {in_one_line(error)}") from None
        # One that is named again counts again: each is looked at.
        count += len(ports)
        if count > MAXIMUM_PORTS:
            raise ValueError(f"more than the {MAXIMUM_PORTS} ports that may be asked")
        found.update(dict.fromkeys(ports))
    return tuple(sorted(found, key=lambda one: (one.port, one.protocol, one.address)))


def _rule(value: str) -> str:
    kind, colon, pattern = value.partition(":")
    if not colon or kind not in RULE_KINDS or not pattern:
        raise ValueError(
            "must be one of "
            + ", ".join(f"'{kind}:…'" for kind in RULE_KINDS)
            + ", such as 'unit:redis-server.service' or 'exe:/usr/bin/python3*'; got "
            + abbreviate(value)
        )
    return value


Rule = Annotated[str, AfterValidator(_rule)]
Ports = Annotated[tuple[PortSpec, ...], BeforeValidator(parse_ports)]


class PortsPolicy(BaseModel):
    """What may be done about a port that is held.

    :param on_conflict: ``report`` says who holds it and changes nothing; ``stop`` ends a holder
        that ``allow`` names.
    :param allow: rules ``exe:``, ``unit:``, ``container:``, ``project:`` or ``user:``, each with a
        name or a pattern: what one of them names may be ended.
    :param protect: rules of the same kinds for what must never be ended, whatever ``allow`` says.
        What the host itself needs is protected without being named.
    :param grace: seconds that a process has to end by itself before it is killed.
    :param settle: seconds for which a freed port must stay free.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_conflict: Literal["report", "stop"] = "report"
    allow: tuple[Rule, ...] = ()
    protect: tuple[Rule, ...] = ()
    grace: float = Field(default=10, gt=0, le=300, allow_inf_nan=False)
    settle: float = Field(default=3, ge=0, le=60, allow_inf_nan=False)


class PortsSpec(PortsPolicy):
    """The ports that something of ours is to be bound to, and what may be done about them.

    :param ports: the ports, see :func:`wanted`.
    :param project: the Compose project that is to have them; what its own running containers hold
        is as it should be.
    :param directory: the directory that this project is started from.
    """

    ports: Ports = ()
    project: str = ""
    directory: str = ""


def names(rules: Iterable[str], kind: str, *values: str | None) -> bool:
    """Whether a rule of this kind names one of the values."""
    return any(
        fnmatchcase(value, pattern)
        for rule in rules
        for rule_kind, _, pattern in [rule.partition(":")]
        if rule_kind == kind
        for value in values
        if value
    )
