"""Which names lead where: what Docker's resolver answers inside each service of a project. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stackmend.addresses.kinds import (
    KINDS,
    find_kind,
    find_kinds,
    is_client,
    is_loopback,
    split_name,
)
from stackmend.addresses.networks import Networks
from stackmend.addresses.normalization import normalize, to_number
from stackmend.addresses.state import ImageFacts, Running

#: Hosts of a variable that stand for each of the service's own addresses.
_ANYWHERE = frozenset({"", "0.0.0.0", "::", "[::]", "*"})  # noqa: S104
#: An option of a command that says on which port it listens.
_FLAG = re.compile(r"(?:^|[\s'\"])--?(?:http-|server-|listen-)?port[= ](\d{2,5})(?!\d)")
#: Where mounts hold data, and nothing of where a service listens.
_HARMLESS = re.compile(
    r"^/data$|^/var/lib/|^/root/\.ollama|^/docker-entrypoint-initdb\.d|\.sock$|^/etc/(?:localtime|timezone)$"
)
#: Images that listen on more ports than they expose, for their own administration.
_SEVERAL_PORTS = frozenset(
    "apisix caddy consul envoy haproxy keycloak kong nginx-proxy-manager nomad tyk-gateway traefik "
    "vault".split()
)
#: Names of variables that may say where a service listens.
_LISTENS = re.compile("(?i)port|listen|bind|addr|host")
#: Words of variables whose port is the service's own.
_OWN_PORT = frozenset(
    "admin api app application bind container debug dev exporter grpc h2c health healthcheck http "
    "http2 https inner internal listen listener listening local management metric metrics node "
    "number own port probe prometheus rest serve server service ssl tcp tls ui web webserver "
    "websocket ws".split()
)
_BINDS = re.compile("(?i)listen|bind")
#: What stands before and behind the host of an address to listen on.
_ITEM = re.compile(
    r"(?:[A-Za-z][\w+.-]{0,40}://)?(?P<host>\[[^\]\s]{0,45}\]|[^\s:/@=]{0,253}):(\d{1,5})/?"
)


class Names:
    """The names, networks and ports of a project's services.

    :param config: what ``docker compose config --format json`` gives.
    :param images: what images bring, as for :func:`stackmend.addresses.read`.
    :param running: what runs.
    :param listening: ports on which services listen, as their own settings say.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        images: Mapping[str, ImageFacts] | None = None,
        running: Running | None = None,
        listening: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        config = normalize(config)
        self.services: Mapping[str, Mapping[str, Any]] = config["services"]
        self.running = running or Running()
        self.kinds = {name: find_kind(name, body) for name, body in self.services.items()}
        #: The services that run a client out of a server's image.
        self.clients = {
            name: kind
            for name, kind in self.kinds.items()
            if kind and is_client(kind, self.services[name])
        }
        self.kinds |= dict.fromkeys(self.clients, "")
        self._declared = config.get("networks") or {}
        self._project = str(config.get("name") or "")
        self._joined = Networks(self.services, self._project)
        self.owners, self.networks = self._joined.owners, self._joined.networks
        #: The services that share a network namespace, themselves among them.
        self.groups = {
            name: frozenset(
                other
                for other, owner in self.owners.items()
                if owner and owner == self.owners[name]
            )
            | {name}
            for name in self.services
        }
        # The services whose image is known to expose something.
        self._exposing = {
            name
            for name, body in self.services.items()
            if (facts := (images or {}).get(str(body.get("image")))) and facts.ports
        }
        own = {
            name: frozenset(
                [*self._list_ports(name, body, images or {}), *(listening or {}).get(name, ())]
            )
            for name, body in self.services.items()
        }
        #: The ports that each network namespace has, as far as they are declared.
        self.ports = {
            name: frozenset(port for member in group for port in own[member])
            for name, group in self.groups.items()
        }
        #: On the host: which service's port each published one leads to, and whether it is
        #: published on the host's loopback alone.
        self.published: dict[int, list[tuple[str, int, bool]]] = {}
        for name, body in self.services.items():
            for port in body.get("ports") or ():
                for published, target in _list_published(port):
                    local = str(port.get("host_ip") or "").startswith(("127.", "::1"))
                    self.published.setdefault(published, []).append((name, target, local))

    def get_mode(self, name: str) -> str:
        """A service's ``network_mode``; empty where it has networks."""
        return self._joined.get_mode(name)

    def resolve(self, source: str, host: str) -> tuple[str, ...]:
        """The services that a name leads to inside of another."""
        return self._joined.resolve(source, host)

    def list_elsewhere(self, host: str) -> tuple[str, ...]:
        """The services that answer to a name on any network."""
        return self._joined.list_elsewhere(host)

    def list_linked(self, source: str) -> Mapping[str, str]:
        """The names that a service has for others by its ``links``, each with whose it is."""
        return self._joined.list_linked(source)

    def is_on_bridge(self, name: str) -> bool:
        """Whether a service is on Docker's default bridge."""
        return self._joined.is_on_bridge(name)

    def is_elsewhere(self, source: str, host: str) -> bool:
        """Whether a service's own configuration says where a name leads."""
        body = self.services[self.owners[source] or source]
        own = [
            str(item).replace("=", ":").partition(":")[0] for item in _as_items(body, "extra_hosts")
        ]
        linked = [str(item).rpartition(":")[2] for item in body.get("external_links") or ()]
        return host in {name.lower() for name in (*own, *linked)}

    def has_foreign_names(self, source: str) -> bool:
        """Whether names that the project does not have may still be known inside of a service."""
        body = self.services[source]
        outside = any(
            (self._declared.get(key) or {}).get("external") for key in self.networks[source]
        )
        return bool(outside or body.get("dns") or body.get("dns_search") or body.get("domainname"))

    def is_joined(self, source: str) -> bool:
        """Whether another project may have names on a network of a service.

        Containers of others are on it, or it has a name of its own by which they find it.
        """
        for key in self.networks[source]:
            made = f"{self._project}_{key}"
            name = str((self._declared.get(key) or {}).get("name") or made)
            if name in self.running.joined or (self._project and name != made):
                return True
        return False

    def can_reach(self, source: str, target: str) -> bool:
        """Whether two services share a network, and the name of the one leads the other there."""
        return target in self.resolve(source, target.lower())

    def is_absent(self, name: str) -> bool:
        """Whether a service is to have no container."""
        body = self.services[name]
        replicas = (body.get("deploy") or {}).get("replicas")
        return (body.get("scale") if replicas is None else replicas) == 0

    def is_host(self, name: str) -> bool:
        """Whether a service is on the host's network."""
        return self.get_mode(self.owners[name] or name) == "host"

    def name_target(self, name: str) -> str:
        """The service by whose name another can be reached: the owner of its network."""
        return self.owners[name] or name

    def has_mention(self, name: str, port: int) -> bool:
        """Whether a service's own settings speak of a port, which it may then listen on."""
        number = str(port)
        for member in self.groups[name]:
            body = self.services[member]
            words = [*_as_items(body, "command"), *_as_items(body, "entrypoint")]
            words += [value for _, value in self.list_own_ports(member)]
            if any(number in _split_numbers(word) for word in map(str, words)):
                return True
        return False

    def is_configured(self, name: str) -> bool:
        """Whether a service has a file or directory that may say where it listens."""
        for member in self.groups[name]:
            body = self.services[member]
            if body.get("configs"):
                return True
            for mount in body.get("volumes") or ():
                is_bind = isinstance(mount, Mapping) and mount.get("type") == "bind"
                if is_bind and not _HARMLESS.search(str(mount.get("target", ""))):
                    return True
        return False

    def can_listen(self, name: str, port: int) -> bool:
        """Whether a service may listen on a port that nothing declares.

        It may not where its sockets are known, or where it is of a kind that has no such port, and
        neither its build nor a mounted file can have changed that.
        """
        ran = self.running.services.get(name)
        listening = {socket.port for socket in ran.sockets or ()} if ran and ran.up else set()
        if listening & self.ports[name]:
            # It has begun to serve.
            return port in listening
        body = self.services[name]
        if body.get("build") or self.is_configured(name):
            return True
        if kind := KINDS.get(self.kinds[name]):
            return port in kind.besides
        image = str(body.get("image") or "").partition("@")[0].rpartition("/")[2].partition(":")[0]
        return name not in self._exposing or image in _SEVERAL_PORTS

    def _list_ports(
        self, name: str, body: Mapping[str, Any], images: Mapping[str, ImageFacts]
    ) -> Iterator[int]:
        for port in body.get("ports") or ():
            if port.get("protocol", "tcp") == "tcp" and (target := to_number(port.get("target"))):
                yield target
        for exposed in body.get("expose") or ():
            first, _, last = str(exposed).partition("/")[0].partition("-")
            if start := to_number(first):
                yield from range(start, min(to_number(last or first), 65535) + 1)
        image = str(body.get("image") or f"{self._project}-{name}")
        if image in images and name not in self.clients:
            yield from images[image].ports
        if kind := KINDS.get(self.kinds[name]):
            yield from kind.ports
        own = {*split_name(name), *split_name(image), "http", "server", "listen"}
        for key, value in self.list_own_ports(name):
            number = to_number(value)
            if number and {*split_name(key)} - {"port"} <= own:
                yield number
        for word in find_flags(body):
            yield int(word)

    def list_own_ports(self, name: str) -> Iterator[tuple[str, str]]:
        """The variables that may say where a service listens, and not whom it calls."""
        environment = self.services[name].get("environment") or {}
        for key, value in environment.items():
            if not _LISTENS.search(key) or value is None:
                continue
            kinds = find_kinds(key)
            if kinds and self.kinds[name] not in kinds:
                continue
            host = re.sub("(?i)port$", "HOST", key)
            beside = {host, f"{host}NAME"} & environment.keys() if host != key else set()
            if all(str(environment[other]) in _ANYWHERE for other in beside):
                yield key, str(value)

    def classify_listening(self, name: str, port: int, besides: str = "") -> int:
        """How far a service's own variables say that it listens on a port: 2 surely, 1 maybe.

        :param besides: the variable that holds the address in question.
        """
        own = _OWN_PORT.union(
            split_name(name), split_name(str(self.services[name].get("image") or ""))
        )
        rates = [0]
        for key, value in self.list_own_ports(name):
            if str(port) in _split_numbers(value):
                rate = self._classify_listener(key, value.strip(" \"'"), port, own)
                rates.append(min(rate, 1) if key == besides else rate)
        return max(rates)

    def _classify_listener(self, key: str, value: str, port: int, own: frozenset[str]) -> int:
        if to_number(value) == port:
            return 2 if own.issuperset(split_name(key)) or _BINDS.search(key) else 1
        items = [item for item in re.split(r"[\s,;|]+", value) if item]
        matches = [_ITEM.fullmatch(item) for item in items]
        hosts = [match["host"].strip("[]").lower() if match else None for match in matches]
        here = [match for match in matches if match and int(match[2]) == port]
        if any(match["host"].lower() in _ANYWHERE for match in here):
            return 2
        if _BINDS.search(key):
            return 2
        # What is a list of others, or a connection in another notation, is where it calls.
        return 1 if here and all(host is not None and is_loopback(host) for host in hosts) else 0


def _as_items(body: Mapping[str, Any], key: str) -> list[Any]:
    value = body.get(key) or []
    if isinstance(value, Mapping):
        return [f"{name}={item}" for name, item in value.items()]
    return value if isinstance(value, list) else [value]


def find_flags(body: Mapping[str, Any]) -> list[str]:
    """The ports that a command's ``--port`` names."""
    words = " ".join(str(word) for word in _as_items(body, "command"))
    return _FLAG.findall(words)


def _split_numbers(text: str) -> set[str]:
    return set("".join(c if c.isascii() and c.isdigit() else " " for c in text).split())


def _list_published(port: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    first, _, last = str(port.get("published") or "").partition("-")
    published, target = to_number(first), to_number(port.get("target"))
    if port.get("protocol", "tcp") != "tcp" or not (published and target):
        return
    # Of a range the engine chooses one.
    if not last or last == first:
        yield published, target
