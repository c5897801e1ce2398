"""What a project says beside one address: names, environments, who calls whom. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stackmend.addresses.kinds import KIND_OF_SCHEME, KINDS, find_kinds, is_loopback, split_name
from stackmend.addresses.names import Names
from stackmend.addresses.selection import Selection
from stackmend.addresses.state import Address, ImageFacts, Running


class Stack:
    """A project, as far as its addresses are classified by it.

    :param addresses: all that it has.
    :param config: what ``docker compose config --format json`` gives.
    :param running: what runs.
    :param images: what images bring.
    """

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
        #: The services that have a host in a variable of a name.
        self.holders: dict[tuple[str, str], set[str]] = {}
        #: The addresses of each service.
        self.addresses: dict[str, list[Address]] = {}
        for address in addresses:
            service = address.place.service
            self.addresses.setdefault(service, []).append(address)
            if address.place.kind == "environment":
                self.holders.setdefault((address.place.key, address.host), set()).add(service)
            if address.target and address.target != service:
                self.addressed.setdefault(service, set()).add(address.target)

    def find_port(self, address: Address) -> int:
        """The port of an address, or the usual one of what its name means; 0 is not known."""
        if address.port:
            return address.port
        kinds = find_kinds(address.place.hint)
        ports = {port for kind in kinds for port in KINDS[kind].ports}
        return ports.pop() if len(ports) == 1 else 0

    def list_hints(self, address: Address) -> set[str]:
        """The kinds of software that an address means, by its scheme and by its name."""
        if kind := KIND_OF_SCHEME.get(address.scheme):
            return {kind}
        return {*find_kinds(address.place.hint)}

    def is_needed(self, service: str, target: str) -> bool:
        """Whether a service waits for another that it has no other address for."""
        needs = self.services[service].get("depends_on") or {}
        return target in needs and target not in self.addressed.get(service, ())

    def find_user(self, service: str, target: str) -> str:
        """The other service that a target is for by its name, and that uses it; empty for none."""
        if target in (self.services[service].get("depends_on") or {}):
            return ""
        words = {*split_name(target)}
        return next(
            (
                name
                for name, body in self.services.items()
                if name not in (service, target)
                and {*split_name(name)} < words
                and not {*split_name(name)} <= {*split_name(service)}
                and (
                    target in self.addressed.get(name, ())
                    or target in (body.get("depends_on") or {})
                )
            ),
            "",
        )

    def is_unselected(self, address: Address, target: str) -> bool:
        """Whether a service could use what an address leads to, and does not."""
        kind = self.names.kinds[target]
        return self.selections[address.place.service].is_unselected(address.place.hint, kind)

    def list_users(self, target: str) -> tuple[str, ...]:
        """The services that have an address of another, or wait for it."""
        return tuple(
            name
            for name, body in self.services.items()
            if name != target
            and (target in self.addressed.get(name, ()) or target in (body.get("depends_on") or {}))
        )

    def is_unused(self, address: Address) -> bool:
        """Whether an address is of something that a service could use and does not."""
        hint, selection = address.place.hint, self.selections[address.place.service]
        if kinds := self.list_hints(address):
            return all(
                selection.is_unselected(hint, kind) or selection.is_other_store(hint, kind)
                for kind in kinds
            )
        return selection.is_unused(hint)

    def is_of_another(self, address: Address) -> bool:
        """Whether a service has a variable only because another, which can use it, has the same."""
        return any(
            self.names.resolve(name, address.host)
            for name in self.holders.get((address.place.key, address.host), ())
        )
