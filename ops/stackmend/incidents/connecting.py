"""Which facts connect what was found of a host: a service, a dependency, an address. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from stackmend import addresses
from stackmend.addresses.state import ImageFacts
from stackmend.compose.state import CheckedServices, Declared, StackState
from stackmend.incidents.state import Observations
from stackmend.models.state import StoreState

#: How a container publishes a port: the host's address and port, and the container's.
_BINDING = re.compile(r"(?P<address>.{1,45}):(?P<port>\d{1,5})->\d{1,5}/(?P<protocol>[a-z]{3,4})")
#: The check of a link: who calls, and the name that is called.
_LINK = re.compile(
    r"link (?P<source>\S{1,200}) → (?:[a-z0-9+.-]{1,40}://)?(?P<host>[^\s:]{1,200}):"
)
#: The check of a name that no service has.
_NAME = re.compile(r"name \S{1,260} in (?P<source>\S{1,200})")
#: What programs write where they cannot reach something.
_CALL = re.compile(
    r"refused|unreachable|resolv|name or service|no such host|timed? ?out|econn|eai_again"
    r"|connection (?:error|reset|closed)|(?:not|failed to|can't) connect",
    re.I,
)
_NETWORK = re.compile(r"network (?P<names>.{1,400})")
#: Ports of the host, as ``ports.free`` names them: an address, and what counts of them else.
_PORT = re.compile(r"\S{1,50}:(?P<port>\d{1,5}/[a-z]{3,4})")
_SERVER = re.compile(r"service (?P<name>\S{1,200})")
#: The operation whose findings are all about one model server.
_MODELS = "models.pulled"


class Connections:
    """What subjects of findings mean in the stack of a host, and what leans on what there.

    :param observations: what was read of the host.
    """

    def __init__(self, observations: Observations) -> None:
        self._observations = observations
        self._containers = [
            each for state in observations.list_states(StackState) for each in state.containers
        ]
        self._declared: Mapping[str, Mapping[str, Any]] = {
            str(name): body if isinstance(body, Mapping) else {}
            for each in observations.list_states(Declared)
            for name, body in (each.config.get("services") or {}).items()
        }
        self._services = {
            *self._declared,
            *(each.service for each in self._containers if each.service),
        }

    def find_services(self, subject: str, operation: str = "") -> frozenset[str]:
        """The services that a finding is about; none where no fact says so.

        :param subject: what it is about, in the words of its operation.
        :param operation: the operation; empty for a log.
        """
        found = self._resolve(subject)
        if not found and operation == _MODELS:
            # A model, or the space that it needs, is that of the one server that was asked.
            return self._servers
        return found

    def find_sources(self, subject: str, operation: str = "") -> frozenset[str]:
        """Those of the services that have the trouble: of a call the one that calls.

        A check that fails is nobody's trouble in particular.

        :param subject: as for :meth:`find_services`.
        :param operation: likewise.
        """
        if match := _LINK.match(subject):
            return frozenset({match["source"]} & self._services)
        return frozenset() if subject in self._checked else self.find_services(subject, operation)

    def find_called(self, subject: str) -> frozenset[str]:
        """The services whose trouble shows in this one: what is called there.

        :param subject: as for :meth:`find_services`.
        """
        if match := _LINK.match(subject):
            return frozenset({match["host"]} & self._services)
        found = self._resolve(subject)
        if subject in self._checked:
            return found
        return frozenset(target for name in found for target in self._leaning.get(name, ()))

    def find_holder(self, subject: str) -> str:
        """The service of what is named ``SERVICE.VARIABLE``; empty where it is no such name.

        :param subject: what a finding is about.
        """
        holders = (name for name in self._services if subject.startswith(f"{name}."))
        return max(holders, key=len, default="")

    def has_dependency(self, services: Collection[str], on: Collection[str]) -> bool:
        """Whether one of the services depends on one of the others, or calls it.

        Where what it wrote last is known and is about something else, it ended for that.

        :param services: those that may depend.
        :param on: those that they may depend on.
        """
        return any(
            other in self._leaning.get(name, ()) and self._can_blame(name, other)
            for name in services
            for other in on
        )

    def _can_blame(self, service: str, other: str) -> bool:
        """Whether nothing that a service wrote last says that it failed for another reason."""
        lines = [line for each in self._containers if each.service == service for line in each.log]
        names = re.compile(rf"(?<![\w-]){re.escape(other)}(?![\w-])", re.I)
        return not lines or any(names.search(line) or _CALL.search(line) for line in lines)

    def _resolve(self, subject: str) -> frozenset[str]:
        if subject in self._services:
            return frozenset({subject})
        if subject in self._named:
            return self._named[subject]
        names: set[str] = set()
        if match := _LINK.match(subject):
            names = {match["source"], match["host"]}
        elif match := _NAME.fullmatch(subject):
            names = {match["source"]}
        elif match := _SERVER.fullmatch(subject):
            names = {match["name"]}
        elif match := _NETWORK.fullmatch(subject):
            names = {*self._list_joined({*match["names"].split(", ")})}
        elif holder := self.find_holder(subject):
            names = {holder}
        else:
            parts = filter(None, map(_PORT.fullmatch, subject.split(", ")))
            names = {name for part in parts for name in self._named.get(part["port"], ())}
        return frozenset(names & self._services)

    def _list_joined(self, networks: Collection[str]) -> Iterator[str]:
        """The services that are declared to be on one of these networks."""
        called = {
            str(key): str((network or {}).get("name") or key)
            for each in self._observations.list_states(Declared)
            for key, network in (each.config.get("networks") or {}).items()
        }
        for name, body in self._declared.items():
            own = body.get("networks") or ()
            if any(key in networks or called.get(key) in networks for key in map(str, own)):
                yield name

    @cached_property
    def _named(self) -> Mapping[str, frozenset[str]]:
        """The services by what else they are called: containers, ports, checks."""
        found: dict[str, set[str]] = {}
        for container in self._containers:
            if container.service is None:
                continue
            found.setdefault(container.name, set()).add(container.service)
            for text in (*container.published, *(container.shape.get("ports") or ())):
                if match := _BINDING.fullmatch(str(text)):
                    port = f"{match['port']}/{match['protocol']}"
                    for subject in (port, f"{match['address']}:{port}"):
                        found.setdefault(subject, set()).add(container.service)
        for name, body in self._declared.items():
            for subject in _list_published(body):
                found.setdefault(subject, set()).add(name)
        for check, services in self._checked.items():
            found.setdefault(check, set()).update(services)
        return {name: frozenset(services) for name, services in found.items()}

    @cached_property
    def _checked(self) -> Mapping[str, tuple[str, ...]]:
        """The services of each check, by its name."""
        return {
            name: services
            for checked in self._observations.list_states(CheckedServices)
            for name, services in checked.services.items()
        }

    @cached_property
    def _servers(self) -> frozenset[str]:
        """The services that the model servers which were asked are of."""
        names = {
            state.server.container_name for state in self._observations.list_states(StoreState)
        }
        return frozenset(
            each.service for each in self._containers if each.service and each.name in names
        )

    @cached_property
    def _leaning(self) -> Mapping[str, frozenset[str]]:
        """What each service depends on or calls, as its declaration says."""
        found: dict[str, set[str]] = {name: set() for name in self._declared}
        for name, body in self._declared.items():
            found[name].update(map(str, body.get("depends_on") or ()))
            for key in ("network_mode", "pid", "ipc"):
                kind, _, target = str(body.get(key) or "").partition(":")
                found[name] |= {target} if kind == "service" else set()
        for declared in self._observations.list_states(Declared):
            images = {name: ImageFacts(env=image.env) for name, image in declared.images.items()}
            for link in addresses.list_links(addresses.read(declared.config, images)):
                found.setdefault(link.source, set()).add(link.target)
        return {name: frozenset(targets) for name, targets in found.items()}


def _list_published(body: Mapping[str, Any]) -> Iterator[str]:
    """The ports of the host that a service is declared to have."""
    for port in body.get("ports") or ():
        if isinstance(port, Mapping) and port.get("published"):
            subject = f"{port['published']}/{port.get('protocol') or 'tcp'}"
            yield from (
                (subject, f"{port['host_ip']}:{subject}") if port.get("host_ip") else (subject,)
            )
