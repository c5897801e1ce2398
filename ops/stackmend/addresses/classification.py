"""Says of each address whether it leads where it should, and what would be right. Pure.

One wrong rewrite is worse than ten faults that are missed: whatever may be right is right, and what
may be meant in two ways is reported with both and never rewritten.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from stackmend.addresses.corrections import correct, make_edits, split_right
from stackmend.addresses.kinds import (
    KIND_OF_SCHEME,
    KINDS,
    SCHEME_PORTS,
    find_kind_of_name,
    find_kinds,
    is_loopback,
    is_server,
    is_telling_port,
    split_name,
)
from stackmend.addresses.names import Names
from stackmend.addresses.proxies import add_exemptions
from stackmend.addresses.selection import MEANT, Selection
from stackmend.addresses.slips import is_similar
from stackmend.addresses.state import Address, Edit, ImageFacts, Judgement, Reason, Running

#: The host, by a name that Docker Desktop knows and Linux does not.
GATEWAYS = frozenset({"host.docker.internal", "gateway.docker.internal"})

#: What stands before a port in a command: what a host of a URL follows, and a word.
_WORD_BEFORE = re.compile(r"(://|@)?([\w.-]+)['\",]*[\s:=]+['\"]*$")
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104
_BARE_NAME = re.compile(r"(?i)host|addr|server|endpoint|url|uri")
#: Names of variables whose values are compared, and never connected to.
_COMPARED = re.compile("(?i)cors|origin|cookie|allow|trusted|whitelist|bypass|advertis")
#: Words of services' names that variables have for other reasons.
_SAYS_NOTHING = frozenset({"api", "app", "server", "service", "web", "main"})
#: Variables whose address of an object storage is for the server, whatever it signs for others.
_NEVER_SIGNED = frozenset({"event", "events", "backup", "backups", "internal", "log", "logs"})
#: What other protocols' schemes are called in the table of kinds.
_SPEAKS = {
    "https": "http",
    "amqps": "amqp",
    "pyamqp": "amqp",
    "neo4j": "bolt",
    "postgres": "postgresql",
    "pgsql": "postgresql",
    "rediss": "redis",
    "valkey": "redis",
    "valkeys": "redis",
    "mariadb": "mysql",
    "mysql2": "mysql",
}
#: Kinds that speak one protocol beside another: what their ports speak says nothing against it.
_RELATED = ({"redis", "sentinel"}, {"elasticsearch", "opensearch"})


def classify(
    addresses: Sequence[Address],
    config: Mapping[str, Any],
    running: Running | None = None,
    images: Mapping[str, ImageFacts] | None = None,
    ignore: Collection[str] = (),
) -> tuple[Judgement, ...]:
    """What is thought of each address, in their order.

    :param addresses: as :func:`stackmend.addresses.read` read them.
    :param config: what ``docker compose config --format json`` gives, ``$$`` unescaped.
    :param running: what runs, as far as it is known; without it the configuration alone decides.
    :param images: what images bring, as for ``read``.
    :param ignore: ``SERVICE.VARIABLE`` each, with ``*`` for any; those are left out.

    Example:
        >>> from stackmend.addresses.reading import read
        >>> services = {"api": {"environment": {"URL": "redis://localhost"}}, "redis": {}}
        >>> [(one.status, one.right) for one in classify(read(c := {"services": services}), c)]
        [('wrong', 'redis')]
    """
    classifier = _Classifier(addresses, config, running, images)
    judgements = [
        classifier.classify(address)
        for address in addresses
        if not any(
            fnmatchcase(f"{address.place.service}.{address.place.name}", pattern)
            for pattern in ignore
        )
    ]
    return add_exemptions(judgements, classifier.names, classifier.environments)


class _Classifier:
    def __init__(
        self,
        addresses: Sequence[Address],
        config: Mapping[str, Any],
        running: Running | None,
        images: Mapping[str, ImageFacts] | None,
    ) -> None:
        listening: dict[str, set[int]] = {}
        for address in addresses:
            # Where it listens, and what its healthcheck asks on its own loopback, is there.
            asked = address.place.kind == "healthcheck" and is_loopback(address.host)
            if address.port and (address.side == "bind" or asked):
                listening.setdefault(address.place.service, set()).add(address.port)
        self.names = Names(config, images, running, listening)
        self.services = self.names.services
        self.running = running or Running()
        project = str(config.get("name") or "")
        self.environments: dict[str, dict[str, str]] = {}
        self.selections: dict[str, Selection] = {}
        for name, body in self.services.items():
            image = str(body.get("image") or f"{project}-{name}")
            brought = (images or {}).get(image, ImageFacts()).env
            own = body.get("environment") or {}
            environment = {k: str(v) for k, v in {**brought, **own}.items() if v is not None}
            self.environments[name] = environment
            words = frozenset(re.split(r"[^a-z0-9]+", f"{name} {image}".lower()))
            self.selections[name] = Selection(environment, words)
        self.addressed: dict[str, set[str]] = {}
        for address in addresses:
            service = address.place.service
            if address.target and address.target != service:
                self.addressed.setdefault(service, set()).add(address.target)
        self.swapped = self._find_swapped(addresses)

    def classify(self, address: Address) -> Judgement:
        judgement = self._classify(address)
        # What is right instead is asked about as well: a port may be the host's there, too.
        for _ in range(3):
            host, port = split_right(judgement)
            if not host or judgement.reason in ("form", "swapped"):
                break
            corrected = correct(address, host, port, self.services)
            after = self._classify(corrected)
            if after.status != "wrong":
                break
            if after.reason == "form":
                form = self._classify_form(address, corrected.target)
                more = form.edits if form else ()
                return judgement.model_copy(update={"edits": (*judgement.edits, *more)})
            if after.needs and not after.right:
                return judgement.model_copy(update={"needs": {**judgement.needs, **after.needs}})
            cause, remedy = f"{judgement.cause}; {after.cause}", after.remedy
            host, port = split_right(after)
            edits = make_edits(address, host, port) if host else ()
            judgement = judgement.model_copy(
                update={"right": after.right, "edits": edits, "cause": cause, "remedy": remedy}
            )
        return judgement

    def _classify(self, address: Address) -> Judgement:
        service = address.place.service
        if address.place.kind == "healthcheck" or address.side == "bind":
            return Judgement(address=address)
        if not self.names.owners[service] or self.names.get_mode(service) == "none":
            return Judgement(address=address)
        if other := self.swapped.get((service, address.place.key)):
            return self._report_swapped(address, other)
        if is_loopback(address.host):
            return self._classify_loopback(address)
        if address.host in GATEWAYS:
            return self._classify_gateway(address)
        if (
            "." in address.host
            or ":" in address.host
            or self.names.is_elsewhere(service, address.host)
        ):
            return Judgement(address=address)
        if address.side != "server":
            return Judgement(address=address)
        if address.host not in {name.lower() for name in self.names.groups[service]}:
            return self._classify_name(address)
        return Judgement(address=address)

    # The service itself.

    def _classify_loopback(self, address: Address) -> Judgement:
        service, port = address.place.service, self._find_port(address)
        right = Judgement(address=address)
        if address.host in _EVERYWHERE and not address.scheme:
            return right
        if address.scheme in ("http", "https") and not address.explicit:
            # The site itself, wherever it is.
            return right
        if self.names.is_host(service) or self._is_own(address, port):
            return right
        if address.side == "browser":
            return self._classify_browser(address, port)
        if address.side != "server" or (
            address.place.kind in ("command", "entrypoint")
            and not (address.scheme or address.explicit or find_kinds(address.place.word))
        ):
            return right
        found = self._find_candidates(address, port)
        variable = address.place.hint
        found = {
            target: number
            for target, number in found.items()
            if not self.selections[service].is_unselected(variable, self.names.kinds[target])
        }
        if not found:
            return right
        if len(found) > 1:
            return self._report_ambiguous(
                address, "loopback", f"{address.text} is {service} itself", found
            )
        ((target, number),) = found.items()
        if doubt := self._find_doubt(address, target, port, number):
            return self._report_ambiguous(address, "loopback", doubt, found, itself=True)
        if address.place.kind == "image" and not self._is_needed(service, target):
            return right
        has = f"has port {number}" if number else f"runs {self.names.kinds[target]}"
        cause = f"{address.text} is {service} itself; {target} {has}"
        return self._report_wrong(address, "loopback", cause, target, number)

    def _find_port(self, address: Address) -> int:
        if address.port:
            return address.port
        kinds = find_kinds(address.place.hint)
        ports = {port for kind in kinds for port in KINDS[kind].ports}
        return ports.pop() if len(ports) == 1 else 0

    def _is_own(self, address: Address, port: int) -> bool:
        """Whether a service may listen itself on what it is to call."""
        service = address.place.service
        group = self.names.groups[service]
        for member in group:
            ran = self.running.services.get(member)
            if ran and ran.sockets and any(socket.port == port for socket in ran.sockets):
                return True
            if port in self.names.ports[member] or self._has_mention(member, port, address):
                return True
            hinted = {KIND_OF_SCHEME.get(address.scheme, ""), *find_kinds(address.place.hint)}
            if self.names.kinds[member] and self.names.kinds[member] in hinted:
                return True
            if any(kind and is_server(kind, self.services[member]) for kind in hinted):
                return True
        return any(
            name in group or self._is_same(service, name, address)
            for name, _, _ in self.names.published.get(port, ())
        )

    def _is_same(self, service: str, other: str, address: Address) -> bool:
        """Whether another service is a part of the same application, whose site it may mean."""
        image = self.services[service].get("image")
        return (
            image is not None
            and image == self.services[other].get("image")
            and address.scheme in ("http", "https")
            and "internal" not in split_name(address.place.hint)
        )

    def _has_mention(self, service: str, port: int, address: Address) -> bool:
        """Whether a service's own settings may have it listen on a port."""
        if not port:
            return False
        if any(str(port) in value for _, value in self.names.list_own_ports(service)):
            return True
        body = self.services[service]
        words = " ".join(f"{body.get(key) or ''}" for key in ("entrypoint", "command"))[:20_000]
        for match in re.finditer(rf"(?<!\d){port}(?!\d)", words):
            before = _WORD_BEFORE.search(words, 0, match.start())
            word = before[2].lower() if before else ""
            called = word in self.services or bool(find_kinds(word))
            is_url = before is not None and before[1] is not None
            itself = is_loopback(word) and (is_url or bool(find_kinds(address.place.word)))
            if not called and not itself:
                return True
        return False

    def _find_candidates(self, address: Address, port: int) -> dict[str, int]:
        """The services that may be meant, each with the port that it has there; 0 is not known."""
        service = address.place.service
        others = [
            name
            for name in self.services
            if name not in self.names.groups[service] and name not in self.names.clients
        ]
        found: dict[str, int] = {}
        if port:
            found = {name: port for name in others if port in self.names.ports[name]}
            found |= {
                name: target
                for name, target, _ in self.names.published.get(port, ())
                if name in others
            }
        hints = self._list_hints(address)
        if hints:
            kinds = self.names.kinds
            named = {name: number for name, number in found.items() if kinds[name] in hints}
            found = named or {name: number for name, number in found.items() if not kinds[name]}
            if not found and not address.explicit and address.port_place is None:
                found = {name: 0 for name in others if kinds[name] in hints}
        elif not address.scheme and not address.explicit and not port:
            return {}
        # By the one name that leads to several of one network.
        found = {self.names.name_target(name): number for name, number in found.items()}
        if (
            not address.scheme
            and len(found) == 1
            and not self._is_named(address, next(iter(found)), port)
        ):
            # Where it listens, as likely as not.
            return {}
        return self._prefer_named(address, found)

    def _is_named(self, address: Address, target: str, port: int) -> bool:
        """Whether the name of what holds an address, or its port, says which service is meant."""
        kind, words = self.names.kinds[target], {*split_name(address.place.hint)}
        if kind and (
            kind in self._list_hints(address)
            or is_telling_port(port, kind)
            or words & MEANT.get(KINDS[kind].group, frozenset())
        ):
            return True
        own = {*split_name(target)} - _SAYS_NOTHING
        return bool(own) and own <= words

    def _list_hints(self, address: Address) -> set[str]:
        """The kinds of software that an address means, by its scheme and by its name."""
        if kind := KIND_OF_SCHEME.get(address.scheme):
            return {kind}
        return {*find_kinds(address.place.hint)}

    def _prefer_named(self, address: Address, found: dict[str, int]) -> dict[str, int]:
        """Of several services the one whose own name the variable bears."""
        if len(found) < 2:
            return found
        words = {*split_name(address.place.hint)}
        named = {
            name: number
            for name, number in found.items()
            if (own := {*split_name(name)}) and own <= words
        }
        return named if len(named) == 1 else found

    def _find_doubt(self, address: Address, target: str, port: int, number: int) -> str:
        """Why an address of the service itself may be meant as it stands."""
        service, kind = address.place.service, self.names.kinds[target]
        image = str(self.services[service].get("image") or "").lower()
        tag = image.rpartition("/")[2].partition(":")[2]
        if kind and (
            self.selections[service].is_bundled(kind)
            or kind in re.split(r"[^a-z0-9]+", tag)
            or "all-in-one" in image
        ):
            return f"{service} may run {kind} itself"
        if (
            port
            and number
            and port
            not in self.names.ports[target]
            | {
                published
                for published, targets in self.names.published.items()
                for name, _, _ in targets
                if name == target
            }
        ):
            return f"{target} has no port {port}"
        if address.scheme not in ("http", "https", "ws", "wss"):
            return ""
        published = any(name == target for name, _, _ in self.names.published.get(port, ()))
        words = {*split_name(address.place.hint)}
        if published and kind and not KINDS[kind].internal and not words & _NEVER_SIGNED:
            return "browsers may be sent to it"
        if published and not kind and "internal" not in words:
            return "it may be for browsers"
        if not self._is_named(address, target, port):
            return f"{service} may have something on port {port} itself"
        return ""

    def _is_needed(self, service: str, target: str) -> bool:
        """Whether a service waits for another that it has no other address for."""
        needs = self.services[service].get("depends_on") or {}
        return target in needs and target not in self.addressed.get(service, ())

    def _classify_browser(self, address: Address, port: int) -> Judgement:
        service = address.place.service
        found = {
            name: target
            for name, target, _ in self.names.published.get(port, ())
            if name not in self.names.groups[service] and self.names.can_reach(service, name)
        }
        if not found or not address.scheme or _COMPARED.search(address.place.name):
            return Judgement(address=address)
        cause = f"{address.place.name} is for browsers by its name, and {address.text} is a port of"
        return self._report_ambiguous(
            address, "loopback", f"{cause} {', '.join(found)}", found, itself=True
        )

    # The host.

    def _classify_gateway(self, address: Address) -> Judgement:
        service, port = address.place.service, address.port
        right = Judgement(address=address)
        hints, selection = self._list_hints(address), self.selections[service]
        if address.side != "server" or (
            all(selection.is_unselected(address.place.hint, kind) for kind in hints)
            if hints
            else selection.is_unused(address.place.hint)
        ):
            return right
        local = [
            (name, target)
            for name, target, is_local in self.names.published.get(port, ())
            if is_local
        ]
        if len(local) == 1 and self.names.can_reach(service, local[0][0]):
            cause = f"{local[0][0]} publishes port {port} on the host's loopback alone"
            return self._report_wrong(address, "host-loopback", cause, *local[0])
        if not self.names.is_elsewhere(service, address.host):
            owner = self.names.owners[service] or service
            if owner != service or self.names.is_host(service):
                # Another's namespace has that one's names; the host's own may know it.
                return right
            return Judgement(
                address=address,
                status="wrong",
                reason="no-extra-host",
                needs={"extra_hosts": [f"{address.host}:host-gateway"]},
                cause=f"Docker on Linux does not know {address.host} without extra_hosts",
                remedy=f'add to {service}: extra_hosts: ["{address.host}:host-gateway"]',
            )
        if port and port in self.running.filtered:
            return Judgement(
                address=address,
                status="wrong",
                reason="host-firewall",
                cause=f"the host's packet filter keeps containers from its port {port}",
                remedy=f"let the bridge of {service} reach port {port} of the host",
            )
        sockets = self.running.host
        if port and sockets is not None:
            listening = [socket for socket in sockets if socket.port == port]
            if listening and all(socket.loopback for socket in listening):
                return Judgement(
                    address=address,
                    status="wrong",
                    reason="host-loopback",
                    cause=f"what listens on port {port} of the host does so on its loopback alone",
                    remedy="have it listen on 0.0.0.0, or on the address of Docker's bridge",
                )
            if not listening and port not in self.names.published:
                return Judgement(
                    address=address,
                    status="wrong",
                    reason="not-listening",
                    cause=f"nothing listens on port {port} of the host",
                    remedy="start it there, or correct the port",
                )
        return right

    # Names.

    def _classify_name(self, address: Address) -> Judgement:
        service, host = address.place.service, address.host
        if self.names.get_mode(self.names.owners[service]) == "bridge":
            return self._classify_bridge(address)
        found = self.names.resolve(service, host)
        if len(found) == 1:
            return self._classify_target(address, found[0])
        if found:
            return self._classify_shared(address, found)
        target = next((name for name in self.services if name.lower() == host), "")
        if target and self._is_unselected(address, target):
            return Judgement(address=address)
        if self.names.is_host(service):
            return self._classify_from_host(address)
        if target and self.names.get_mode(target):
            return self._classify_borrowed(address, target)
        if elsewhere := self.names.list_elsewhere(host):
            if (
                self.names.has_foreign_names(service)
                or self._is_unselected(address, elsewhere[0])
                or self._is_of_another(address)
            ):
                return Judgement(address=address)
            return Judgement(
                address=address,
                status="wrong",
                reason="not-shared",
                cause=f"{service} and {elsewhere[0]} have no network in common",
                remedy=f"add one network to both {service} and {elsewhere[0]}",
            )
        return self._classify_unknown(address)

    def _is_unselected(self, address: Address, target: str) -> bool:
        kind = self.names.kinds[target]
        return self.selections[address.place.service].is_unselected(address.place.hint, kind)

    def _is_of_another(self, address: Address) -> bool:
        """Whether a service has a variable only because another, which can use it, has the same."""
        key = address.place.key
        value = self.environments[address.place.service].get(key)
        return address.place.kind == "environment" and any(
            environment.get(key) == value and self.names.resolve(name, address.host)
            for name, environment in self.environments.items()
        )

    def _classify_bridge(self, address: Address) -> Judgement:
        service, host = address.place.service, address.host
        linked = any(
            host == str(link).rpartition(":")[2].lower()
            for link in self.services[service].get("links") or ()
        )
        known = self.names.list_elsewhere(host) or [n for n in self.services if n.lower() == host]
        if linked or not known or self._is_unselected(address, known[0]):
            return Judgement(address=address)
        return Judgement(
            address=address,
            status="wrong",
            reason="default-bridge",
            cause=f"{service} is on Docker's default bridge, where names lead nowhere",
            remedy=f"remove network_mode from {service}, or put both on a network of the project",
        )

    def _classify_from_host(self, address: Address) -> Judgement:
        """A name in a service that is on the host's network, where only published ports are."""
        service, host = address.place.service, address.host
        target = next((name for name in self.services if name.lower() == host), "")
        if not target:
            return Judgement(address=address)
        port = self._find_port(address)
        ports = sorted(
            published
            for published, targets in self.names.published.items()
            for name, number, _ in targets
            if name == target and number == port
        )
        if self.names.is_host(target):
            ports = [port] if port else []
        cause = f"{service} is on the host's network, where {host} leads nowhere"
        if len(ports) != 1:
            remedy = f"publish the port of {target} on 127.0.0.1, and use that"
            return Judgement(
                address=address, status="wrong", reason="host-network", cause=cause, remedy=remedy
            )
        return self._report_rewritten(address, "host-network", cause, "127.0.0.1", ports[0])

    def _classify_borrowed(self, address: Address, target: str) -> Judgement:
        """A service without networks of its own."""
        service, mode = address.place.service, self.names.get_mode(target)
        owner = self.names.owners[target]
        if not owner or self.names.has_foreign_names(service):
            return Judgement(address=address)
        if owner != target and not self.names.get_mode(owner):
            cause = f"{target} has the network of {owner} (network_mode: {mode}) and no name there"
            return self._report_wrong(
                address, "shared-namespace", cause, owner, self._find_port(address)
            )
        if self.names.is_host(target):
            gateway = "host.docker.internal"
            cause = f"{target} is on the host's network, where no container finds it by name"
            found = self._report_rewritten(
                address, "host-network", cause, gateway, self._find_port(address)
            )
            if self.names.is_elsewhere(service, gateway) or self.names.owners[service] != service:
                return found
            needs = {"extra_hosts": [f"{gateway}:host-gateway"]}
            return found.model_copy(update={"needs": needs})
        reason: Reason = "default-bridge" if mode == "bridge" else "not-shared"
        return Judgement(
            address=address,
            status="wrong",
            reason=reason,
            cause=f"{target} has network_mode: {mode}, and no name that {service} could ask for",
            remedy=f"remove network_mode from {target}",
        )

    def _classify_shared(self, address: Address, found: Sequence[str]) -> Judgement:
        """A name that several services answer to."""
        shapes = {
            str([self.services[name].get(key) for key in ("image", "build", "command")])
            for name in found
        }
        if len(shapes) == 1:
            # Copies of one service that share their callers.
            return Judgement(address=address)
        port = self._find_port(address)
        serving = [name for name in found if port and port in self.names.ports[name]]
        cause = f"{' and '.join(found)} both answer to {address.host}; which does is chance"
        if len(serving) == 1 and self.names.resolve(address.place.service, serving[0].lower()) == (
            serving[0],
        ):
            return self._report_wrong(address, "shared-alias", cause, serving[0], port)
        return Judgement(
            address=address,
            status="wrong",
            reason="shared-alias",
            cause=cause,
            remedy=f"give the alias {address.host} to one of them",
        )

    def _classify_unknown(self, address: Address) -> Judgement:
        """A name that nothing in the project has."""
        service, host, place = address.place.service, address.host, address.place
        right = Judgement(address=address)
        if self.names.has_foreign_names(service) or (
            place.kind in ("command", "entrypoint") and not (address.scheme or address.explicit)
        ):
            return right
        if not address.scheme and not address.explicit and not _BARE_NAME.search(place.name):
            return right
        ran = self.running.services.get(service)
        addresses = ran.names.get(host) if ran else None
        if addresses:
            return right
        found = {
            name: self._map_port(address, name)
            for name in self.services
            if name not in self.names.groups[service]
            and self._is_meant(address, name)
            and self.names.can_reach(service, name)
            and not self._is_unselected(address, name)
        }
        cause = f"no service, alias or container of the project is called {host}"
        if len(found) == 1:
            ((target, number),) = found.items()
            if place.kind != "image" or self._is_needed(service, target):
                return self._report_wrong(address, "unknown-name", cause, target, number)
            return right
        if found:
            return self._report_ambiguous(address, "unknown-name", cause, found)
        if addresses is not None:
            return Judgement(
                address=address,
                status="wrong",
                reason="unknown-name",
                cause=f"{cause}, and Docker's resolver in {service} does not know it either",
                remedy="correct the name, or put what has it on a network of the service",
            )
        return right

    def _map_port(self, address: Address, target: str) -> int:
        """The port of a service that an address means."""
        port = address.port
        if port in self.names.ports[target]:
            return port
        for name, number, _ in self.names.published.get(port, ()):
            if name == target:
                return number
        return port

    def _is_meant(self, address: Address, target: str) -> bool:
        """Whether a name that nothing has may well be meant for a service."""
        kind, host = self.names.kinds[target], address.host
        hints = self._list_hints(address)
        if kind and hints and kind not in hints:
            return False
        ports = self.names.ports[target]
        port = self._find_port(address)
        if hints and not kind and port not in ports:
            return False
        if (
            ports
            and port
            and self._map_port(address.model_copy(update={"port": port}), target) not in ports
        ):
            return False
        if is_similar(host, target.lower()):
            return True
        # A name that is usual for this software, and one service that runs it.
        return bool(
            kind
            and (find_kind_of_name(host) == kind or kind in hints)
            and (find_kind_of_name(host) == kind or self._is_needed(address.place.service, target))
        )

    # A service of the project, by a name that it has.

    def _classify_target(self, address: Address, target: str) -> Judgement:
        port = address.port
        right = Judgement(address=address)
        if self._is_unselected(address, target):
            return right
        if form := self._classify_form(address, target):
            return form
        if not port:
            return self._classify_running(address, target)
        if port in self.names.ports[target]:
            return self._classify_protocol(address, target) or self._classify_running(
                address, target
            )
        ran = self.running.services.get(target)
        if ran and ran.sockets and any(socket.port == port for socket in ran.sockets):
            return self._classify_running(address, target)
        if self.names.has_mention(target, port):
            return right
        group = self.names.groups[target]
        numbers = {
            number
            for name, number, _ in self.names.published.get(port, ())
            if name in group and number != port
        }
        kind = self.names.kinds[target]
        if len(numbers) == 1:
            (number,) = numbers
            cause = f"{port} is the port of {target} on the host; in its network it is {number}"
            if not kind and self.names.is_configured(target):
                return self._report_ambiguous(
                    address, "published-port", cause, {target: number}, itself=True
                )
            return self._report_wrong(address, "published-port", cause, target, number)
        if kind and len(KINDS[kind].ports) == 1 and not self.names.is_configured(target):
            (usual,) = KINDS[kind].ports
            others = {
                number
                for name, other in KINDS.items()
                if name != kind
                for number in (*other.ports, *other.schemes.values())
            }
            declared = self.names.ports[target] == {usual}
            if port in others and declared and (address.explicit or address.port_place):
                cause = f"{target} runs {kind}, which listens on {usual}"
                return self._report_wrong(address, "wrong-kind", cause, target, usual)
        return self._classify_running(address, target)

    def _classify_protocol(self, address: Address, target: str) -> Judgement | None:
        """A port that speaks something else than the address."""
        kind, port = self.names.kinds[target], address.port
        if not kind or not address.scheme or port not in KINDS[kind].ports:
            return None
        ports = KINDS[kind].ports
        scheme = _SPEAKS.get(address.scheme, address.scheme)
        speaks = ports[port]
        if speaks == scheme or {scheme, speaks} & {"grpc", "tcp"}:
            return None
        if scheme in ports.values() and address.scheme not in ("https",):
            (number,) = [number for number, spoken in ports.items() if spoken == scheme]
            cause = f"port {port} of {target} speaks {speaks}, and port {number} {scheme}"
            if scheme == "clickhouse":
                if address.driver:
                    # Drivers that speak HTTP below a scheme of their own.
                    return None
                if "migration" not in split_name(address.place.hint):
                    return self._report_ambiguous(
                        address, "wrong-kind", cause, {target: number}, itself=True
                    )
            return self._report_wrong(address, "wrong-kind", cause, target, number)
        other = KIND_OF_SCHEME.get(address.scheme)
        if not other or other == kind or any({kind, other} <= related for related in _RELATED):
            return None
        return Judgement(
            address=address,
            status="wrong",
            reason="wrong-kind",
            cause=f"{target} runs {kind}, which does not speak {address.scheme}",
            remedy=f"name a service that runs {other}, or use {speaks}://",
        )

    def _classify_running(self, address: Address, target: str) -> Judgement:
        ran, port = self.running.services.get(target), address.port
        right = Judgement(address=address)
        if ran is None:
            return right
        if not ran.up:
            return Judgement(
                address=address,
                status="wrong",
                reason="not-up",
                cause=f"{target} does not run",
                remedy=f"start {target}; its log says why it ended",
            )
        if not port or ran.sockets is None:
            return right
        listening = [socket for socket in ran.sockets if socket.port == port]
        if not listening:
            usual = SCHEME_PORTS.get(address.scheme, 0)
            reachable = {socket.port for socket in ran.sockets if not socket.loopback}
            cause = f"nothing in {target} listens on port {port}"
            if usual in reachable and usual != port and KIND_OF_SCHEME.get(address.scheme):
                return self._report_wrong(address, "not-listening", cause, target, usual)
            has = ", ".join(map(str, sorted(reachable))) or "none"
            return Judgement(
                address=address,
                status="wrong",
                reason="not-listening",
                cause=f"{cause} (it listens on: {has})",
                remedy=f"correct the port, or have {target} listen on {port}",
            )
        if all(socket.loopback for socket in listening):
            return Judgement(
                address=address,
                status="wrong",
                reason="loopback-only",
                cause=f"{target} listens on port {port} of its own loopback alone",
                remedy=f"have {target} listen on 0.0.0.0",
            )
        return right

    def _classify_form(self, address: Address, target: str) -> Judgement | None:
        """What open-webui does not take: a comma between addresses, or a path of Ollama's API."""
        service, place = address.place.service, address.place
        image = str(self.services[service].get("image") or "").partition("@")[0]
        if image.rpartition("/")[2].partition(":")[0] != "open-webui":
            return None
        value = self.environments[service].get(place.key, "")
        if place.key in ("OLLAMA_BASE_URL", "OLLAMA_BASE_URLS") and re.fullmatch(
            "/api/?", address.path
        ):
            start = place.end
            cut = place.model_copy(update={"start": start, "end": start + len(address.path)})
            return Judgement(
                address=address,
                status="wrong",
                reason="form",
                right=address.text,
                edits=(Edit(place=cut, old=address.path, new=""),),
                cause=f"open-webui adds {address.path.rstrip('/')} itself",
                remedy=f"set {place.key} without {address.path}",
            )
        after = value[place.end + len(address.path) :]
        if place.key in ("OLLAMA_BASE_URLS", "OPENAI_API_BASE_URLS") and re.match(
            r"\s*,\s*https?://", after
        ):
            start = place.end + len(address.path)
            comma = start + after.index(",")
            cut = place.model_copy(update={"start": comma, "end": comma + 1})
            return Judgement(
                address=address,
                status="wrong",
                reason="form",
                right=f"{address.text};",
                edits=(Edit(place=cut, old=",", new=";"),),
                cause=f"open-webui separates the addresses of {place.key} by semicolons",
                remedy=f"put a semicolon behind {address.text} in {place.key}",
            )
        if (
            place.key in ("OPENAI_API_BASE_URL", "OPENAI_API_BASE_URLS")
            and self.names.kinds[target] in ("ollama", "vllm")
            and address.path in ("", "/")
        ):
            return Judgement(
                address=address,
                status="ambiguous",
                reason="form",
                readings=(
                    f"{address.text}: as it stands",
                    f"{address.text}/v1: where {target} has OpenAI's API",
                ),
                cause=f"{target} has OpenAI's API below /v1",
                remedy=f"end {place.key} in /v1",
            )
        return None

    # Exchanged values.

    def _find_swapped(self, addresses: Sequence[Address]) -> dict[tuple[str, str], Address]:
        """Values for browsers and for services that are exchanged, each with the other one."""
        by_key = {
            (address.place.service, address.place.key): address
            for address in addresses
            if address.place.kind == "environment" and address.scheme in ("http", "https")
        }
        found: dict[tuple[str, str], Address] = {}
        for (service, key), inner in by_key.items():
            if "INTERNAL" not in key:
                continue
            outer = by_key.get((service, re.sub("INTERNAL_|_INTERNAL", "", key)))
            if outer is None or outer is inner or inner.user or outer.user:
                continue
            if (
                outer.side == "browser"
                and outer.target
                and not inner.target
                and ("." in inner.host or is_loopback(inner.host))
            ):
                found[service, key] = outer
                found[service, outer.place.key] = inner
        return found

    def _report_swapped(self, address: Address, other: Address) -> Judgement:
        service, key = address.place.service, address.place.key
        value, belongs = (self.environments[service][k] for k in (key, other.place.key))
        place = address.place.model_copy(update={"start": 0, "end": len(value)})
        return Judgement(
            address=address,
            status="wrong",
            reason="swapped",
            right=other.url,
            edits=(Edit(place=place, old=value, new=belongs),),
            cause=f"{key} and {other.place.key} hold each other's value: only one of them is for "
            "browsers",
            remedy=f"exchange the values of {key} and {other.place.key}",
        )

    # What is said.

    def _report_wrong(
        self, address: Address, reason: Reason, cause: str, target: str, port: int
    ) -> Judgement:
        service, name = address.place.service, self.names.name_target(target)
        if self.names.can_reach(service, name):
            return self._report_rewritten(address, reason, cause, name, port)
        written = f"{name}:{port}" if port else name
        return Judgement(
            address=address,
            status="wrong",
            reason=reason,
            cause=f"{cause}; {service} and {name} have no network in common",
            remedy=f"add one network to both, and use {written}",
        )

    def _report_rewritten(
        self, address: Address, reason: Reason, cause: str, host: str, port: int
    ) -> Judgement:
        edits = make_edits(address, host, port)
        written = f"{host}:{port}" if port else host
        where = f"{address.place.service}.{address.place.name}"
        return Judgement(
            address=address,
            status="wrong",
            reason=reason,
            right=written,
            edits=edits,
            cause=cause,
            remedy=f"write {written} instead of {address.text} in {where}",
        )

    def _report_ambiguous(
        self,
        address: Address,
        reason: Reason,
        cause: str,
        found: Mapping[str, int],
        *,
        itself: bool = False,
    ) -> Judgement:
        readings = [f"{address.text}: as it stands"] if itself else []
        for name, port in found.items():
            host = self.names.name_target(name)
            readings.append(f"{host}:{port}" if port else host)
        return Judgement(
            address=address,
            status="ambiguous",
            reason=reason,
            readings=tuple(readings),
            cause=cause,
            remedy=f"write what is meant in {address.place.service}.{address.place.name}, or add "
            f'"{address.place.service}.{address.place.name}" to "ignore" of the section "links"',
        )


__all__ = ["classify"]
