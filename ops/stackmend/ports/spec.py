"""The ports that a stack desires of a host: validated before any host is contacted."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from stackmend.frozen import Frozen
from stackmend.problems import abbreviate, join_problems, show
from stackmend.raw import Seconds

Protocol = Literal["tcp", "udp"]

#: What a rule may name. A pattern may hold ``*``, ``?`` and ``[…]``.
RULE_KINDS = ("exe", "unit", "container", "project", "user", "connection")

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

    address: str = "0.0.0.0"  # noqa: S104 - Docker's own default, only looked up and never bound
    port: int = Field(ge=1, le=65535)
    protocol: Protocol = "tcp"

    @property
    def is_v6(self) -> bool:
        """Whether the address is one of IPv6."""
        return ":" in self.address

    @property
    def is_wildcard(self) -> bool:
        """Whether it is desired on every address of its kind."""
        return self.address in ("0.0.0.0", "::")  # noqa: S104 - as above

    def __str__(self) -> str:
        address = f"[{self.address}]" if self.is_v6 else self.address
        return f"{address}:{self.port}/{self.protocol}"


def parse_port(raw: Any) -> tuple[PortSpec, ...]:
    """Every port that a text, a number or a mapping asks for; a range asks for several.

    ``6379``, ``"6379/udp"``, ``"127.0.0.1:8000-8010"``, ``"[::1]:53/udp"``, or a mapping of
    ``address``, ``port`` and ``protocol``. Without an address it is every address of IPv4.

    :raises ValueError: naming what is wrong and what would be right.
    """
    if isinstance(raw, PortSpec):
        return (raw,)
    if isinstance(raw, Mapping):
        return (PortSpec.model_validate(raw),)
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise ValueError(
            f"must be a port such as 6379 or '127.0.0.1:6379/tcp'; got {abbreviate(raw)}"
        )
    match = _PORT.fullmatch(str(raw).strip())
    if match is None:
        raise ValueError(
            f"{abbreviate(raw)} is not a port: write PORT, FIRST-LAST, ADDRESS:PORT or "
            "[V6ADDRESS]:PORT, each with /tcp or /udp behind it if need be"
        )
    first, last = int(match["first"]), int(match["last"] or match["first"])
    for port in (first, last):
        if not 1 <= port <= 65535:
            raise ValueError(f"{abbreviate(raw)}: {port} is no port; ports go from 1 to 65535")
    if last < first:
        raise ValueError(f"{abbreviate(raw)}: an empty range; write it as {last}-{first}")
    if last - first >= MAXIMUM_PORTS:
        raise ValueError(
            f"{abbreviate(raw)}: {last - first + 1} ports are more than the {MAXIMUM_PORTS} that "
            "may be asked"
        )
    protocol = "tcp" if match["protocol"] is None else match["protocol"]
    if protocol not in ("tcp", "udp"):
        raise ValueError(
            f"{abbreviate(raw)}: {abbreviate(protocol)} is not supported; it must be tcp or udp"
        )
    address = _parse_address(raw, match["address"])
    return tuple(
        PortSpec.model_validate({"address": address, "port": port, "protocol": protocol})
        for port in range(first, last + 1)
    )


def _parse_address(raw: object, text: str | None) -> str:
    if text is None or text in ("", "*"):
        return "0.0.0.0"  # noqa: S104 - as above
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        raise ValueError(
            f"{abbreviate(raw)}: {show(text)} is not an IP address of the host; write it in numbers"
        ) from None


def parse_ports(raw: Any) -> tuple[PortSpec, ...]:
    """Every port of a list, once each, in order; a single text may hold several with commas.

    :raises ValueError: naming the place in the list.
    """
    if isinstance(raw, str):
        raw = [part for part in raw.split(",") if part.strip()]
    elif isinstance(raw, int | Mapping | PortSpec) or not isinstance(raw, Iterable):
        raw = [raw]
    unique: dict[PortSpec, None] = {}
    count = 0
    for index, item in enumerate(raw):
        try:
            ports = parse_port(item)
        except ValueError as error:
            raise ValueError(f"[{index}]: {join_problems(error)}") from None
        # One that is named again counts again: each is parsed.
        count += len(ports)
        if count > MAXIMUM_PORTS:
            raise ValueError(f"more than the {MAXIMUM_PORTS} ports that may be asked")
        unique.update(dict.fromkeys(ports))
    return tuple(sorted(unique, key=lambda port: (port.port, port.protocol, port.address)))


def _check_rule(value: str) -> str:
    kind, colon, pattern = value.partition(":")
    if not colon or kind not in RULE_KINDS or not pattern:
        raise ValueError(
            "must be one of "
            + ", ".join(f"'{kind}:…'" for kind in RULE_KINDS)
            + ", such as 'unit:redis-server.service' or 'exe:/usr/bin/python3*'; got "
            + abbreviate(value)
        )
    return value


Rule = Annotated[str, AfterValidator(_check_rule)]
Ports = Annotated[tuple[PortSpec, ...], BeforeValidator(parse_ports)]


class PortsPolicy(BaseModel):
    """What may be done about a port that is held.

    :param on_conflict: ``report`` says who holds it and changes nothing; ``stop`` stops a holder
        that ``allow`` names.
    :param allow: rules ``exe:``, ``unit:``, ``container:``, ``project:`` or ``user:``, each with a
        name or a pattern: what one of them names may be stopped, and so may a parent that starts it
        again. ``connection:`` with the other end of outgoing connections, such as
        ``connection:192.0.2.7:443``: they may be closed, and their programs are left alone.
    :param protect: rules of the same kinds for what must never be stopped, whatever ``allow`` says.
        What the host itself needs is protected without being named.
    :param grace: seconds that a process has to end by itself before it is killed.
    :param settle: seconds for which a freed port must stay free.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_conflict: Literal["report", "stop"] = "report"
    allow: tuple[Rule, ...] = ()
    protect: tuple[Rule, ...] = ()
    grace: Seconds = Field(default=10, gt=0, le=300, allow_inf_nan=False)
    settle: Seconds = Field(default=3, ge=0, le=60, allow_inf_nan=False)


class PortsSpec(PortsPolicy):
    """The ports that something of ours is to be bound to, and what may be done about them.

    :param ports: the ports, see :func:`parse_port`.
    :param project: the Compose project that is to have them; what its own running containers hold
        is as it should be.
    :param directory: the directory that this project is started from.
    """

    ports: Ports = ()
    project: str = ""
    directory: str = ""


def is_named(rules: Iterable[str], kind: str, *values: str | None) -> bool:
    """Whether a rule of this kind names one of the values."""
    return any(
        fnmatchcase(value, pattern)
        for rule in rules
        for rule_kind, _, pattern in [rule.partition(":")]
        if rule_kind == kind
        for value in values
        if value
    )


def find_ranges(ports: Iterable[int]) -> list[tuple[int, int]]:
    """Ports in order, neighbours as one range: the first and the last of each."""
    ranges: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1] = ranges[-1][0], port
        else:
            ranges.append((port, port))
    return ranges


def compress_ports(ports: Iterable[int]) -> str:
    """Ports as the kernel lists those that it keeps from outgoing connections: ``a,b-c``."""
    ranges = find_ranges(ports)
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_ranges(text: str) -> frozenset[int]:
    """The ports of a list as ``ip_local_reserved_ports`` has it: ``a,b-c``.

    What is no port is left out, so that nothing of ours is taken for reserved that is not.
    """
    ports: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if first.isdecimal() and (last.isdecimal() if dash else True):
            ports.update(range(int(first), min(int(last or first), 65535) + 1))
    return frozenset(port for port in ports if port > 0)


def list_unreserved(
    ports: Iterable[PortSpec], ephemeral: tuple[int, int], reserved: str
) -> frozenset[int]:
    """The ports that an outgoing connection may be given.

    :param ports: those that something of ours is to be bound to.
    :param ephemeral: the first and the last port that the kernel gives to outgoing connections.
    :param reserved: the kernel's list of those that it does not.
    """
    first, last = ephemeral
    outgoing = frozenset(port.port for port in ports if first <= port.port <= last)
    return outgoing - parse_ranges(reserved)
