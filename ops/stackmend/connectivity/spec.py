"""What a host is to reach outside: validated before any host is contacted."""

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from stackmend.frozen import Frozen
from stackmend.problems import abbreviate
from stackmend.raw import IntegerSeconds

#: How a program speaks to an endpoint; ``tcp`` is any protocol, of which only the connection is
#: asked.
Scheme = Literal["https", "http", "ssh", "tcp"]

#: Where an endpoint comes from; what counts as an answer of the right one depends on it.
Kind = Literal["named", "registry", "git", "packages"]

_PORTS = {"https": 443, "http": 80, "ssh": 22, "tcp": 0}

_URL = re.compile(
    r"(?:(?P<scheme>[A-Za-z]+)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[/._-]+[a-z0-9]+)*")


def is_name(text: str) -> bool:
    """Whether a text is a name that a resolver can be asked for."""
    labels = text.rstrip(".").split(".")
    return len(text) <= 253 and all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part) for part in labels)


class Endpoint(Frozen):
    """A place outside that something of a stack speaks to.

    Text is read as ``[scheme://]host[:port][/path]``, with https as the default.

    :param scheme: ``https``, ``http``, ``ssh``, or ``tcp`` with a port.
    :param host: a name or an IP address.
    :param port: the port; the scheme's own by default.
    :param path: what HTTP asks for.
    :param statuses: the HTTP statuses that only the right server answers; any by default. With
        ``[204]`` and a page that answers nothing else, a captive portal is told.
    :param addresses: IP addresses of it, to be tried where no DNS server answers.
    :param rate_limit: the repository of a registry whose manifest is asked for (HEAD) to learn what
        remains of a rate limit.
    :param kind: where it comes from; ``registry`` answers as container registries do.

    Example:
        >>> str(Endpoint.model_validate("registry.lan:5000/v2/"))
        'https://registry.lan:5000/v2/'
    """

    scheme: Scheme = "https"
    host: str
    port: int = Field(default=0, ge=0, le=65535)
    path: str = "/"
    statuses: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()
    addresses: tuple[str, ...] = Field(default=(), max_length=8)
    rate_limit: str = ""
    kind: Kind = "named"

    @model_validator(mode="wrap")
    @classmethod
    def _accept_text(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(raw, str):
            return handler(_parse(raw))
        if isinstance(raw, Mapping) and "url" in raw:
            if {"scheme", "host", "port", "path"} & set(raw):
                raise ValueError("give url, or scheme, host, port and path, not both")
            rest = {key: value for key, value in raw.items() if key != "url"}
            return handler(_parse(str(raw["url"])) | rest)
        if not isinstance(raw, Mapping | cls):
            raise ValueError(
                f"must be an address such as 'https://ghcr.io/v2/', or a mapping; got "
                f"{abbreviate(raw)}"
            )
        return handler(raw)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and not raw.get("port"):
            return {**raw, "port": _PORTS.get(raw.get("scheme", "https"), 0)}
        return raw

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.is_address and not is_name(self.host):
            raise ValueError(f"{abbreviate(self.host)} is neither a name nor an IP address")
        if not self.port:
            raise ValueError("tcp needs a port: 'tcp://host:port'")
        if _URL.fullmatch(f"x{self.path}") is None:
            raise ValueError(f"the path {abbreviate(self.path)} is none of a URL without a query")
        if self.statuses and self.scheme not in ("https", "http"):
            raise ValueError(f"statuses holds HTTP statuses, and {self.scheme} has none")
        if self.rate_limit and not _REPOSITORY.fullmatch(self.rate_limit):
            raise ValueError(f"rate_limit: {abbreviate(self.rate_limit)} is no repository")
        for address in self.addresses:
            try:
                ip_address(address)
            except ValueError:
                raise ValueError(f"addresses: {abbreviate(address)} is no IP address") from None
        return self

    @property
    def is_address(self) -> bool:
        """Whether it is named by an IP address, so that no resolver is needed."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def origin(self) -> str:
        """What it is called in reports, and tells it from others: all but the path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (
            "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        )

    def __str__(self) -> str:
        return self.origin + (self.path if self.scheme in ("https", "http") else "")


def _parse(text: str) -> dict[str, Any]:
    """The fields that a URL names.

    :raises ValueError: it is none, or holds what an endpoint has not.
    """
    found = _URL.fullmatch(text.strip())
    scheme = ((found and found["scheme"]) or "https").lower()
    if found is None or scheme not in _PORTS:
        raise ValueError(
            "must be [https://|http://|ssh://|tcp://]host[:port][/path], without user, password "
            # Either may hold a secret.
            f"and query; got {abbreviate(text) if not set('@?') & set(text) else 'one with such'}"
        )
    host = found["host"]
    if host.startswith("["):
        try:
            host = str(IPv6Address(host.strip("[]")))
        except ValueError:
            raise ValueError(f"{abbreviate(host)} is not an IPv6 address") from None
    port = int(found["port"] or 0)
    if port > 65535 or found["port"] == "0":
        raise ValueError(f"{abbreviate(text)}: ports go from 1 to 65535")
    return {
        "scheme": scheme,
        "host": host.rstrip("."),
        "port": port,
        "path": found["path"] or "/",
    }


class StatusPage(Frozen):
    """A provider's page about its outages, in JSON as statuspage.io or status.io has it.

    :param provider: the provider's name.
    :param url: the page, asked from the controller.
    :param domains: the domains of its endpoints; those below them count too.

    Example:
        >>> page = StatusPage(provider="GitHub", url="https://status.lan/v2/status.json",
        ...                   domains=["github.com"])
        >>> page.is_for("api.github.com"), page.is_for("notgithub.com")
        (True, False)
    """

    provider: str
    url: str = Field(pattern=r"^https?://[!-~]{1,2000}$")
    domains: tuple[str, ...] = Field(min_length=1)

    def is_for(self, host: str) -> bool:
        """Whether an endpoint's host is one of the provider's."""
        return any(f".{host.lower()}".endswith(f".{name.lower()}") for name in self.domains)


STATUS_PAGES = (
    StatusPage(
        provider="GitHub",
        url="https://www.githubstatus.com/api/v2/status.json",
        domains=("github.com", "ghcr.io", "githubusercontent.com"),
    ),
    StatusPage(
        provider="Docker",
        url="https://api.status.io/1.0/status/533c6539221ae15e3f000031",
        domains=("docker.io", "docker.com"),
    ),
    StatusPage(
        provider="PyPI",
        url="https://status.python.org/api/v2/status.json",
        domains=("pypi.org", "pythonhosted.org"),
    ),
    StatusPage(
        provider="Quay",
        url="https://status.redhat.com/api/v2/status.json",
        domains=("quay.io",),
    ),
)


class ConnectivityPolicy(BaseModel):
    """The section ``connectivity`` of a stack: which endpoints outside are looked at, and how.

    :param endpoints: endpoints beside those that follow from the stack: addresses, or mappings as
        :class:`Endpoint` has them.
    :param derived: whether to look at what the stack itself needs: the registries of its images and
        of the bases of its builds, the git remotes that it builds from, the registry of its models,
        and the host's own package sources. ``False`` leaves ``endpoints`` alone to say it.
    :param status_pages: the providers' pages about their outages; a closed network names its own,
        and ``[]`` asks none.
    :param on_fault: ``report``: an endpoint in trouble is told, and the run goes on; ``fail``: it
        fails the operation on that host.
    :param timeout: seconds that one check of one layer may take.

    An operation of one's own, ``connectivity.checked``, takes the same keys as arguments.

    Example, in ``group_data/all.py``::

        stack = {..., "connectivity": {"endpoints": ["https://mirror.lan/v2/"], "derived": False}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoints: tuple[Endpoint, ...] = Field(default=(), max_length=64)
    derived: bool = True
    status_pages: tuple[StatusPage, ...] = Field(default=STATUS_PAGES, max_length=32)
    on_fault: Literal["report", "fail"] = "report"
    timeout: IntegerSeconds = Field(default=5, ge=2, le=30)


class ConnectivitySpec(ConnectivityPolicy):
    """The endpoints of one host.

    :param project: the Compose project from one of whose containers they are looked at as well;
        empty for none.
    """

    project: str = Field(default="", pattern=r"^[a-z0-9_-]{0,200}$")
