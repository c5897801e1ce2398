"""Networks: which services are on one, and by which names they find each other there. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from stackmend.addresses.normalization import to_number


class Networks:
    """The networks of a project's services, by their keys in its files.

    :param services: their sections, as ``normalize`` leaves them.
    :param project: the project's name.
    """

    def __init__(self, services: Mapping[str, Mapping[str, Any]], project: str = "") -> None:
        self._services = services
        self._project = project
        #: The service whose network namespace each has; empty for a foreign container's.
        self.owners = {name: self._find_owner(name) for name in services}
        #: The networks that each is on; none where it has a ``network_mode`` of another kind.
        self.networks = {name: self._list_networks(name) for name in services}
        # By name: the services that answer to it, each with the networks they do so on.
        self._names: dict[str, dict[str, set[str]]] = {}
        for name, body in services.items():
            if self.get_mode(name):
                continue
            for network in self.networks[name]:
                aliases = ((body.get("networks") or {}).get(network) or {}).get("aliases") or ()
                for alias in (name, *self._list_container_names(name, body), *aliases):
                    answers = self._names.setdefault(str(alias).lower(), {})
                    answers.setdefault(name, set()).add(network)

    def get_mode(self, name: str) -> str:
        """A service's ``network_mode``; empty where it has networks."""
        return str(self._services[name].get("network_mode") or "")

    def resolve(self, source: str, host: str) -> tuple[str, ...]:
        """The services that a name leads to inside of another."""
        target = self.list_linked(source).get(host)
        if target and self.list_shared(source, target, host):
            return (target,)
        own = self.networks[source]
        answers = self._names.get(host, {})
        return tuple(name for name, networks in answers.items() if networks & own)

    def list_elsewhere(self, host: str) -> tuple[str, ...]:
        """The services that answer to a name on any network."""
        return tuple(self._names.get(host, {}))

    def list_shared(self, source: str, target: str, host: str) -> tuple[str, ...]:
        """The networks on which a service finds another by a name, in the order of their keys."""
        own = self.networks[source]
        if self.list_linked(source).get(host) == target:
            if self.is_on_bridge(source) and self.is_on_bridge(target):
                return ("bridge",)
            return tuple(sorted(own & self.networks.get(target, frozenset())))
        return tuple(sorted(own & self._names.get(host, {}).get(target, set())))

    def list_linked(self, source: str) -> dict[str, str]:
        """The names that a service has for others by its ``links``, each with whose it is."""
        pairs = [str(link).split(":") for link in self._services[source].get("links") or ()]
        return {pair[-1].lower(): pair[0] for pair in reversed(pairs)}

    def is_on_bridge(self, name: str) -> bool:
        """Whether a service is on Docker's default bridge."""
        owner = self.owners.get(name, "")
        return bool(owner) and self.get_mode(owner) == "bridge"

    def _find_owner(self, name: str) -> str:
        for _ in range(len(self._services)):
            mode = self.get_mode(name)
            if mode.startswith("container:"):
                return ""
            if not mode.startswith("service:") or mode[8:] not in self._services:
                return name
            name = mode[8:]
        return name

    def _list_networks(self, name: str) -> frozenset[str]:
        owner = self.owners[name]
        if not owner or self.get_mode(owner):
            return frozenset()
        return frozenset(self._services[owner].get("networks") or {"default": None})

    def _list_container_names(self, name: str, body: Mapping[str, Any]) -> Iterator[str]:
        if body.get("hostname"):
            # Engines from 25 on answer to it.
            yield str(body["hostname"])
        if body.get("container_name"):
            yield str(body["container_name"])
        elif self._project:
            replicas = (body.get("deploy") or {}).get("replicas") or body.get("scale") or 1
            for number in range(1, min(to_number(replicas) or 1, 100) + 1):
                yield f"{self._project}-{name}-{number}"
