"""Addresses as they stand in a project, and what is thought of them: models only."""

from collections.abc import Mapping
from typing import Any, Literal

from stackmend.frozen import Frozen

Kind = Literal["environment", "command", "entrypoint", "healthcheck", "image", "file"]

#: Who connects: the service, somebody's browser, nobody (it listens there), or it is not known.
Side = Literal["server", "browser", "bind", "unknown"]

Reason = Literal[
    "loopback",  # the service itself, where another service is meant
    "published-port",  # the host's port instead of the container's
    "unknown-name",  # no service, alias or container has the name
    "not-shared",  # the two have no network in common
    "no-extra-host",  # host.docker.internal, which Linux does not know by itself
    "host-loopback",  # a port of the host that only the host itself reaches
    "host-firewall",  # the host's packet filter keeps the bridge out
    "host-network",  # one of the two is on the host's network, where names do not lead
    "shared-namespace",  # it borrows another service's network, and has no name of its own
    "default-bridge",  # one of the two is on Docker's default bridge, which has no names
    "not-up",
    "not-listening",
    "loopback-only",
    "wrong-kind",  # a port of the target that speaks something else
    "shared-alias",  # several services answer to the name
    "proxy",  # an internal name that goes to a proxy
    "swapped",  # the value for browsers and the one for services are exchanged
    "form",  # a separator or a path that its reader does not take
    "",
]


#: Keys of files that mean something by what stands above them alone.
_PLAIN_KEYS = frozenset(
    "addr address connection dsn endpoint host hostname port server uri url urls".split()
)


class ImageFacts(Frozen):
    """What an image brings.

    :param env: its ``Config.Env``.
    :param ports: the TCP ports that it exposes.
    """

    env: Mapping[str, str] = {}
    ports: tuple[int, ...] = ()


class Place(Frozen):
    """Where a text stands.

    :param service: whose configuration it is.
    :param kind: in which part of it; ``image`` is a variable that only the image sets.
    :param key: a variable's name, the index of a word, or a path of keys in a file.
    :param start: where it begins in the value, in characters.
    :param end: where it ends.
    :param file: the file it comes from, where that is known.
    :param line: the line in that file, from 1; 0 is not known.
    :param word: what names it in its value: a flag or a variable of a shell's script.
    """

    service: str
    kind: Kind
    key: str
    start: int
    end: int
    file: str = ""
    line: int = 0
    word: str = ""

    @property
    def name(self) -> str:
        """What people call it: a variable's name, or a word of a command."""
        return self.key if self.kind in ("environment", "image", "file") else self.word or self.kind

    @property
    def hint(self) -> str:
        """What of its name says what it is for: of a path of keys the last that mean something."""
        if self.kind != "file":
            return self.name
        keys = [key for key in self.key.split(".") if not key.isdecimal()]
        short = len(keys) > 1 and keys[-1].lower() in _PLAIN_KEYS
        return "_".join(keys[-2:] if short else keys[-1:])

    @property
    def source(self) -> str:
        """Its file and line, as far as they are known."""
        if not self.file:
            return f"{self.service}.{self.kind}.{self.key}"
        return f"{self.file}:{self.line}" if self.line else self.file


class Address(Frozen):
    """One address that a service has for another.

    :param place: the span of its host, with the port where one stands beside it.
    :param text: that span as it is written.
    :param scheme: in lower case and without a driver; empty where there is none.
    :param driver: what the scheme names besides, such as ``asyncpg``; ``jdbc`` for one of Java.
    :param host: in lower case, without brackets.
    :param port: its port, or what the scheme implies; 0 is not known.
    :param port_place: where the port stands, where that is elsewhere.
    :param published: whether the variable that holds its port is one by which the project publishes
        a port, and which the service has of an env file.
    :param explicit: whether the port is written within the span.
    :param target: the service it names; empty where it names none.
    :param networks: the project's networks on which the service finds its target by that host;
        none where they share none, and ``None`` where it names no service.
    :param side: who connects to it.
    :param user: whether a user's name stands before the host, other than ``default``.
    :param password: whether a password does.
    :param path: what follows the host up to the next separator, without a query.
    :param url: how it may be displayed: without user and password.
    """

    place: Place
    text: str
    scheme: str = ""
    driver: str = ""
    host: str
    port: int = 0
    port_place: Place | None = None
    published: bool = False
    explicit: bool = False
    target: str = ""
    networks: tuple[str, ...] | None = None
    side: Side = "server"
    user: bool = False
    password: bool = False
    path: str = ""
    url: str

    @property
    def is_private(self) -> bool:
        """Whether only its own caller may log in so: with TLS, or as a user of its own."""
        return self.scheme in ("rediss", "valkeys") or self.user


class Edit(Frozen):
    """A text in another's place.

    :param place: the span that is replaced.
    :param old: what stands there.
    :param new: what belongs there.
    """

    place: Place
    old: str
    new: str


class Judgement(Frozen):
    """What is thought of one address.

    :param status: ``ambiguous`` is never corrected.
    :param reason: why it is not right, in a word; of one that is right what only asking can tell.
    :param right: what belongs in its place, as people would write it; empty where that is not
        known, or where another setting than the address is wrong.
    :param edits: the spans that are to be replaced.
    :param needs: what the service's section needs besides, in Compose's words.
    :param readings: what it may mean, each with what would be right then.
    :param cause: one sentence.
    :param remedy: what would mend it.
    """

    address: Address
    status: Literal["right", "wrong", "ambiguous"] = "right"
    reason: Reason = ""
    right: str = ""
    edits: tuple[Edit, ...] = ()
    needs: Mapping[str, Any] = {}
    readings: tuple[str, ...] = ()
    cause: str = ""
    remedy: str = ""

    @property
    def subject(self) -> str:
        """The service and the name of what holds the address."""
        return f"{self.address.place.service}.{self.address.place.name}"

    @property
    def correctable(self) -> bool:
        """Whether it is known what to write instead."""
        return self.status == "wrong" and bool(self.edits or self.needs)


class Socket(Frozen):
    """A TCP port that somebody listens on.

    :param loopback: whether only its own network namespace can reach it.
    """

    port: int
    loopback: bool = False


class RunningService(Frozen):
    """What runs of a service.

    :param up: whether a container of it runs.
    :param sockets: what listens in its network namespace; ``None`` is not known.
    :param names: whether each name that was asked for from there has an address.
    """

    up: bool = True
    sockets: tuple[Socket, ...] | None = None
    names: Mapping[str, bool] = {}


class Running(Frozen):
    """What runs on a host, as far as it is known.

    :param services: by name; what is not in it is not known.
    :param host: what listens on the host itself; ``None`` is not known.
    :param filtered: ports of the host that its packet filter keeps containers from.
    :param joined: the networks, by their names on the host, that containers of others are on.
    :param elsewhere: names that these containers or their services have, whether they run or not,
        in lower case.
    :param environments: those of the containers that run or failed, by service and by their names.
    :param down: the names of those that failed.
    """

    services: Mapping[str, RunningService] = {}
    host: tuple[Socket, ...] | None = None
    filtered: tuple[int, ...] = ()
    joined: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    environments: Mapping[str, Mapping[str, Mapping[str, str]]] = {}
    down: frozenset[str] = frozenset()


class Link(Frozen):
    """An address of a service for another, as it is to be proven.

    :param target: the service; empty where the address is none of the project's.
    :param variable: what holds the address.
    :param login: whether a user or a password stands in it.
    :param name_only: whether nobody connects to it, and only its name is asked for.
    """

    source: str
    target: str
    host: str
    port: int
    scheme: str = ""
    variable: str = ""
    place: Place | None = None
    login: bool = False
    name_only: bool = False

    def __str__(self) -> str:
        name = f" ({self.variable})" if self.variable else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.source} → {host}{f':{self.port}' if self.port else ''}{name}"
