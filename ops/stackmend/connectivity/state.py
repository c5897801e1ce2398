"""What a host, or a container on it, met on its way to each endpoint: models only."""

from collections.abc import Mapping
from typing import Literal

from stackmend.connection.unknown import Unknown
from stackmend.connectivity.spec import Endpoint
from stackmend.frozen import Frozen

Family = Literal[4, 6]

#: What a question about a name came to; ``none``: it has no address of that family; ``denied``: the
#: server's answer is REFUSED, where ``refused`` is an ICMP message; ``filtered``: the host itself
#: did not let the question out.
LookupStatus = Literal[
    "answered",
    "none",
    "absent",
    "failed",
    "denied",
    "refused",
    "filtered",
    "timeout",
    "unreachable",
    "unreadable",
]
ConnectStatus = Literal["connected", "refused", "unreachable", "timeout", "failed"]


class Lookup(Frozen):
    """One question for the addresses of a name.

    :param server: whom it was put to: the address of a DNS server; empty for the system's resolver.
    :param family: which addresses were asked for; ``None`` for all.
    :param ms: how long it took.
    """

    server: str
    status: LookupStatus
    family: Family | None = None
    addresses: tuple[str, ...] = ()
    ms: int = 0


class Connect(Frozen):
    """One TCP connection to an address, closed at once."""

    address: str
    status: ConnectStatus
    ms: int = 0


class Answer(Frozen):
    """One exchange over TLS and HTTP, or one greeting of an SSH server.

    :param address: where to; empty where a proxy was asked.
    :param exit: 0, or curl's number of what went wrong.
    :param status: the HTTP status; 0 where none came.
    :param tunnel: the status that a proxy answered to CONNECT.
    :param connected: milliseconds until TCP was connected; 0 where it was not.
    :param secured: the same for TLS.
    :param ms: until it ended.
    :param received: bytes of the body.
    :param error: what the tool said of it.
    :param headers: of the answer, in small letters.
    """

    address: str
    exit: int
    status: int = 0
    tunnel: int = 0
    connected: int = 0
    secured: int = 0
    ms: int = 0
    received: int = 0
    error: str = ""
    headers: Mapping[str, str] = {}


class Burst(Frozen):
    """Many small exchanges with one address, for the rate at which packets are lost.

    :param handshakes: TCP handshakes begun.
    :param repeated: those of them that took so long that a packet was sent again.
    :param spells: how often one of these came after one in time.
    :param control: the same with the host itself meanwhile, where no packet can be lost.
    :param late: those of these that took as long: how busy the host is.
    :param echoes: echo requests sent.
    :param missing: those of them that nothing answered.
    """

    address: str
    handshakes: int = 0
    repeated: int = 0
    spells: int = 0
    control: int = 0
    late: int = 0
    echoes: int = 0
    missing: int = 0


class View(Frozen):
    """One endpoint as it is seen from one place.

    :param routed: whether there is a route to each address.
    :param own: the addresses that are the host's own.
    :param proxy: that of its programs, where it is of this place alone, without user and password.
    :param small: whether an answer came once its packets were made small; ``None``: not tried.
    :param skipped: the layers that could not be looked at, and why.
    """

    lookups: tuple[Lookup, ...] = ()
    routed: Mapping[str, bool] = {}
    own: tuple[str, ...] = ()
    connects: tuple[Connect, ...] = ()
    answers: tuple[Answer, ...] = ()
    bursts: tuple[Burst, ...] = ()
    proxy: str = ""
    small: bool | None = None
    skipped: Mapping[str, str] = {}


class RateLimit(Frozen):
    """What a registry says of its rate limit: the header's own words."""

    status: int = 0
    limit: str = ""
    remaining: str = ""
    reset: str = ""


class EndpointState(Frozen):
    """What was met on the way to one endpoint.

    :param proxy: the proxy that its programs are set to use, without user and password.
    :param forwarder: docker-proxy holds its port, and its address is the host's own.
    :param date: what the server's clock says, in seconds since 1970, where it said it.
    :param container: the same from within a container's network.
    """

    endpoint: Endpoint
    host: View
    container: View | Unknown
    proxy: str = ""
    forwarder: bool = False
    date: float | None = None
    rate: RateLimit | None = None


class Clock(Frozen):
    """The host's clock against the controller's, in seconds since 1970.

    :param asked: the controller's when the host was asked.
    :param now: the host's then.
    :param answered: the controller's when the answer was there.
    """

    asked: float
    now: int
    answered: float

    @property
    def skew(self) -> float:
        """Seconds that the host is ahead, at the least; zero where it may be right."""
        least, most = self.now - self.answered, self.now + 1 - self.asked
        return 0.0 if least <= 0 <= most else least if least > 0 else most


class HostConnectivity(Frozen):
    """What one look at a host found.

    :param routes: whether there is a default route, by family.
    :param servers: the DNS servers that the host is set to use, its own cache among them.
    :param reached: those of them that answer to a TCP connection on their port.
    :param repeated: the segments that the host's kernel sent again meanwhile, for anybody.
    :param container: the container that was looked from; empty for none.
    :param took: milliseconds that the whole look took on the host.
    """

    clock: Clock
    endpoints: tuple[EndpointState, ...]
    routes: Mapping[Family, bool] = {}
    servers: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    repeated: int = 0
    container: str = ""
    took: int = 0


class ProviderStatus(Frozen):
    """What a provider says of itself.

    :param indicator: ``none``, ``minor``, ``major`` or ``critical``.
    :param text: in its own words.
    """

    provider: str
    indicator: Literal["none", "minor", "major", "critical"]
    text: str = ""
