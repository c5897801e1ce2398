"""What only looks like the project's: left alone, and named where it stands in the way.

Docker Compose chooses by labels. Where a container that it did not make bears those of a service,
``docker compose create`` takes it for a replica: it stops and removes it, or keeps it and removes
the one that is the project's. Nothing that lets Compose choose is done to such a service before.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from stackmend import provenance
from stackmend.compose.plan.declaration import container_names
from stackmend.compose.plan.model import Verb
from stackmend.compose.plan.service import Services
from stackmend.compose.state import Container, Labelled, StackState


def sort_out(state: StackState, project: str, *configs: Mapping[str, Any]) -> StackState:
    """The state with its containers parted: the project's own, and what is foreign.

    :param configs: what the project is or was declared to be, for its ``container_name``s.
    """
    names: dict[str, set[str]] = {}
    for config in (*configs, state.applied.config if state.applied else {}):
        for service, body in (config.get("services") or {}).items():
            if body.get("container_name"):
                names.setdefault(service, set()).add(str(body["container_name"]))
    own: list[Container] = []
    foreign: list[Container] = []
    for one in (*state.containers, *state.foreign):
        why = provenance.why_foreign(one.origin, project, names)
        (foreign if why else own).append(one.model_copy(update={"foreign": why}))
    return state.model_copy(update={"containers": tuple(own), "foreign": tuple(foreign)})


def made_with(services: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> frozenset[str]:
    """The services among whose containers Compose chooses where it makes these.

    ``create`` takes along all that a service leans on.
    """
    made: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in made and name in services:
            made.add(name)
            left += _leaned_on(services[name])
    return frozenset(made)


def obstructed(
    services: Mapping[str, Mapping[str, Any]], state: StackState, names: Iterable[str]
) -> tuple[str, ...]:
    """Why these services must not be made now: what Compose would take for theirs, and is not."""
    made = made_with(services, names)
    return tuple(_claim(one) for one in state.foreign if one.service in made and _is_chosen(one))


def _is_chosen(one: Container) -> bool:
    return provenance.is_chosen_by_compose(one.origin)


def _claim(one: Container) -> str:
    return f"container:{one.name} bears this project's labels and is foreign: {one.foreign}"


class Foreign(Services):
    """Decides about what is not the project's."""

    def _elsewhere(self) -> bool:
        """Whether the project's name belongs to a stack that was started from elsewhere."""
        # The one before counts as well where the stack's directory is another now: what it started
        # there would be half of the project.
        origins = {provenance.started_from(one.origin) for one in self.state.containers}
        for directory in sorted(origins - {self.spec.directory}):
            if self.spec.allows("project", directory):
                continue
            self._refuse(
                self.spec.project,
                f"a project of this name was started from {directory}",
                f'to take it over, add to the stack: allow = ["project:{directory}"]; '
                "or give this stack another project name",
            )
        return bool(self.refusals)

    def _names_and_addresses(self) -> None:
        """Names and addresses of ours that a foreign container has."""
        ours = {container.name for container in self.state.containers}
        claimants = {container.name: container for container in self.state.foreign}
        for name, body in self.services.items():
            for wanted in container_names(self.spec.project, name, body):
                if wanted not in self.state.names or wanted in ours:
                    continue
                owner = self.state.names[wanted]
                whose = f"of project {owner}" if owner else "that no project owns"
                if claimant := claimants.get(wanted):
                    whose = f"that is foreign ({claimant.foreign})"
                self._take(
                    name, wanted, f"its name {wanted} is held by a container {whose}", claimant
                )
        for other in (*self.state.strangers, *self.state.foreign):
            for network, endpoint in other.endpoints.items():
                if not endpoint.address or not self._is_ours(network):
                    continue
                for name, body in self.services.items():
                    key = self._key(network)
                    settings = (body.get("networks") or {}).get(key) or {}
                    what = ""
                    if settings.get("ipv4_address") == endpoint.address:
                        what = f"its address {endpoint.address}"
                    elif key in (body.get("networks") or {}) and name in endpoint.aliases:
                        what = f"its name {name}"
                    if what:
                        what += f" on network {network} is held by container {other.name}"
                        self._disconnect(name, other.name, network, what)

    def _claimants(self) -> None:
        """Containers that bear the labels of the project's, and are foreign."""
        made = self._made()
        for one in self.state.foreign:
            subject, what = one.service or one.name, _claim(one)
            if subject in made and _is_chosen(one):
                what += f"; Compose would take it for a replica of {subject}, and remove one"
                self._take(subject, one.name, what, one)
            else:
                self._find(subject, "foreign", f"{what}; left alone", blocks=False)

    def _made(self) -> frozenset[str]:
        return made_with(
            self.services,
            (
                name
                for name, steps in self.steps.items()
                if any(step.verb in ("recreate", "up") for step in steps)
            ),
        )

    def _foreign_networks(self) -> None:
        """Networks of our names that Compose did not make for this project."""
        made = self._made()
        for key, settings in sorted((self.declared.config.get("networks") or {}).items()):
            network = self._network_name(key)
            what = self._unlike(self.state.network_labels.get(network), key)
            if not what or (settings or {}).get("external"):
                continue
            current = self.state.networks.get(network)
            joins = [
                name
                for name, body in self.services.items()
                if key in (body.get("networks") or {})
                and name in made
                and not any(
                    (place := one.endpoints.get(network)) and place.network_id == current
                    for one in self.state.service(name)
                )
            ]
            self._keep_out(f"network {network}", what, joins, f"networks.{key}", network)

    def _foreign_volumes(self) -> None:
        """Volumes of our names that Compose did not make for this project."""
        made = self._made()
        for key, settings in sorted((self.declared.config.get("volumes") or {}).items()):
            volume = str((settings or {}).get("name") or f"{self.spec.project}_{key}")
            what = self._unlike(self.state.volume_labels.get(volume), key)
            if not what or (settings or {}).get("external"):
                continue
            joins = [
                name
                for name, body in self.services.items()
                if name in made
                and any(
                    mount.get("type") == "volume" and mount.get("source") == key
                    for mount in body.get("volumes") or ()
                )
                and not any(
                    mount.get("source") == volume
                    for one in self.state.service(name)
                    for mount in (one.shape.get("volumes") or {}).values()
                )
            ]
            self._keep_out(f"volume {volume}", what, joins, f"volumes.{key}", volume)

    def _unlike_image(self, name: str) -> str:
        """Why what has the name of a service's own image was not built for it.

        Compose builds ``PROJECT-SERVICE``; a name that the compose file gives may come from
        anywhere.
        """
        ref = self._ref(name)
        image = self.declared.images[ref]
        known = self.applied.services.get(name) if self.applied else None
        proven = {one.image_id for one in self.state.service(name)}
        proven |= {known.image_id} if known else set()
        mine = image.id in proven or image.built_for in (None, (self.spec.project, name))
        if mine or self.services[name].get("image"):
            return ""
        project, service = image.built_for or ("", "")
        whose = f"service {service} of project {project}" if project else "nobody's, by its labels"
        return f"image {ref} was not built for it, but is {whose}"

    def _unlike(self, labelled: Labelled | None, key: str) -> str:
        """Why a network or volume is not the project's own."""
        if labelled is None or (labelled.project, labelled.key) == (self.spec.project, key):
            return ""
        if not labelled.project:
            return "it was not made by Compose"
        return f"it was made as {labelled.key or 'nothing'} of project {labelled.project}"

    def _keep_out(
        self, subject: str, what: str, joins: Collection[str], path: str, name: str
    ) -> None:
        """Say that a network or volume is foreign, and keep services out that are not in it yet."""
        what = f"it has the name of the project's own and is foreign: {what}"
        if not joins:
            self._find(subject, "foreign", f"{what}; left alone", blocks=False)
            return
        self._refuse(
            subject,
            f"{what}; {', '.join(sorted(joins))} would be given it",
            f"to use it, declare {path} with `external: true` and `name: {name}`; otherwise "
            "declare another name, or remove it yourself",
        )

    def _guests(self, network: str) -> None:
        """Foreign containers on a network that is to be removed: it cannot be while they are."""
        for one in (*self.state.strangers, *self.state.foreign):
            if network in one.endpoints:
                self._disconnect(
                    f"network {network}",
                    one.name,
                    network,
                    f"container:{one.name} is attached to it, and is foreign",
                )

    def _take(self, service: str, holder: str, what: str, claimant: Container | None) -> None:
        """Take a container aside; one that bears our labels loses them, for which it is copied."""
        aside = f"{holder}-set-aside"
        undo = f"docker rename {aside} {holder} && docker start {holder}"
        remedy = "to take it"
        if claimant is not None:
            undo += "; the copy has its files and volumes, and no networks, ports, limits or logs"
            remedy = (
                "remove it yourself; or, to have it replaced by a stopped copy of its files and "
                f"volumes called {aside}, without its networks, ports, limits and logs"
            )
        self._with_consent(service, holder, what, "set aside", undo=undo, remedy=remedy)

    def _disconnect(self, service: str, holder: str, network: str, what: str) -> None:
        self._with_consent(
            service,
            holder,
            what,
            "disconnect stranger",
            names=(network,),
            undo=f"docker network connect {network} {holder}",
        )

    def _with_consent(
        self,
        service: str,
        holder: str,
        what: str,
        verb: Verb,
        *,
        undo: str,
        remedy: str = "to take it",
        names: tuple[str, ...] = (),
    ) -> None:
        self._find(service, "drift", what)
        if not self.spec.allows("container", holder):
            remedy += f', add to the stack: allow = ["container:{holder}"]'
            self._refuse(service, what, remedy)
            return
        self._before(verb, holder, f"{service}: {what}", names=names, undo=undo)


def _leaned_on(body: Mapping[str, Any]) -> Iterable[str]:
    """The services that one needs, in every way that Compose knows."""
    yield from body.get("depends_on") or ()
    for key in ("network_mode", "pid", "ipc"):
        kind, _, target = str(body.get(key) or "").partition(":")
        if kind == "service":
            yield target
    for key in ("links", "volumes_from"):
        for item in body.get(key) or ():
            # An alias or a mode may follow.
            yield str(item).partition(":")[0]
