"""What only looks like the project's: left alone, and refused where it stands in the way.

Docker Compose chooses by labels. Where a container that it did not make bears those of a service,
``docker compose create`` takes it for a replica: it stops and removes it, or keeps it and removes
the one that is the project's. Nothing that lets Compose choose is done to such a service before.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from stackmend import provenance
from stackmend.compose.plan.actions import Disconnect, Recreate, SetAside, Up
from stackmend.compose.plan.declaration import count_replicas, list_container_names
from stackmend.compose.plan.draft import Draft
from stackmend.compose.state import Container, Labelled, StackState

_ALLOW = 'add to the stack: "allow": ["{}"]'


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
    for container in (*state.containers, *state.foreign):
        why = provenance.explain_foreign(container.origin, project, names)
        (foreign if why else own).append(container.model_copy(update={"foreign": why}))
    return state.model_copy(update={"containers": tuple(own), "foreign": tuple(foreign)})


def find_obstructions(
    services: Mapping[str, Mapping[str, Any]], state: StackState, names: Iterable[str]
) -> tuple[str, ...]:
    """Why Compose must not create these services now: what it would take for theirs, and is not."""
    created = _list_created_with(services, names)
    return tuple(
        _format_claim(container)
        for container in state.foreign
        if container.service in created and _is_chosen(container)
    )


def refuse_elsewhere(draft: Draft) -> bool:
    """Refuse where the project's name belongs to a stack that was started from elsewhere."""
    # The one before counts as well where the stack's directory is another now: what it started
    # there would be half of the project.
    origins = {
        provenance.get_start_directory(container.origin) for container in draft.state.containers
    }
    for directory in sorted(origins - {draft.spec.directory}):
        if draft.spec.is_allowed("project", directory):
            continue
        draft.refuse(
            draft.spec.project,
            f"a project of this name was started from {directory}",
            f"to take it over, {_ALLOW.format(f'project:{directory}')}; "
            "or give this stack another project name",
        )
    # Each would overwrite the other's files. One that has no container any more needs none.
    for project in sorted({*draft.state.sharing} & {*draft.state.names.values()}):
        draft.refuse(
            draft.spec.project,
            f"{draft.spec.directory} is the directory of the project {project}, which runs here",
            "give this stack another directory; or, to replace it, run "
            f"`docker compose -p {project} down` in {draft.spec.directory} first",
        )
    return bool(draft.refusals)


def plan_names_and_addresses(draft: Draft) -> None:
    """Free the project's names and addresses that a foreign container has."""
    ours = {container.name for container in draft.state.containers}
    claimants = {container.name: container for container in draft.state.foreign}
    for service, body in draft.services.items():
        for name in list_container_names(draft.spec.project, service, body):
            if name not in draft.state.names or name in ours:
                continue
            owner = draft.state.names[name]
            whose = f"of project {owner}" if owner else "that no project owns"
            if claimant := claimants.get(name):
                whose = f"that is foreign ({claimant.foreign})"
            _take(draft, service, name, f"a container {whose} holds its name {name}", claimant)
    for other in (*draft.state.neighbours, *draft.state.foreign):
        for network, endpoint in other.endpoints.items():
            key = draft.find_key(network)
            if not endpoint.address or key is None:
                continue
            for service, body in draft.services.items():
                networks = body.get("networks") or {}
                held = ""
                if (networks.get(key) or {}).get("ipv4_address") == endpoint.address:
                    held = f"its address {endpoint.address}"
                elif key in networks and service in endpoint.aliases:
                    held = f"its name {service}"
                if held:
                    what = f"container {other.name} holds {held} on network {network}"
                    _disconnect(draft, service, other.name, network, what)


def plan_claimants(draft: Draft) -> None:
    """Deal with containers that bear the labels of the project's, and are foreign."""
    created = _list_created(draft)
    for container in draft.state.foreign:
        subject, what = container.service or container.name, _format_claim(container)
        if subject in created and _is_chosen(container):
            what += f"; Compose would take it for a replica of {subject}, and remove one"
            _take(draft, subject, container.name, what, container)
        else:
            draft.find(subject, "foreign", f"{what}; left alone", blocks=False)


def plan_foreign_networks(draft: Draft) -> None:
    """Keep services out of networks of our names that Compose did not make for this project."""

    def can_join(name: str, key: str, network: str) -> bool:
        current = draft.state.networks.get(network)
        return key in (draft.services[name].get("networks") or {}) and not any(
            (place := container.endpoints.get(network)) and place.network_id == current
            for container in draft.state.list_containers(name)
        )

    _keep_created_out(draft, "network", draft.state.network_labels, can_join)


def plan_foreign_volumes(draft: Draft) -> None:
    """Keep services from volumes of our names that Compose did not make for this project."""

    def can_join(name: str, key: str, volume: str) -> bool:
        return any(
            mount.get("type") == "volume" and mount.get("source") == key
            for mount in draft.services[name].get("volumes") or ()
        ) and not any(
            mount.get("source") == volume
            for container in draft.state.list_containers(name)
            for mount in (container.shape.get("volumes") or {}).values()
        )

    _keep_created_out(draft, "volume", draft.state.volume_labels, can_join)


def _keep_created_out(
    draft: Draft,
    kind: str,
    labels: Mapping[str, Labelled],
    joins: Callable[[str, str, str], bool],
) -> None:
    created = _list_created(draft)
    for key, settings in sorted((draft.declared.config.get(f"{kind}s") or {}).items()):
        name = str((settings or {}).get("name") or f"{draft.spec.project}_{key}")
        what = explain_foreign(draft, labels.get(name), key)
        if what and not (settings or {}).get("external"):
            joining = [
                service
                for service in draft.services
                if service in created and joins(service, key, name)
            ]
            then = "Compose would give it to"
            if kind == "network" and labels[name].key != key:
                # It does so whoever is on it already, and whatever project it was made for.
                then = "Compose would stop at its labels before it starts"
                joining = [
                    service
                    for service, body in draft.services.items()
                    if key in (body.get("networks") or {}) and count_replicas(body)
                ]
            keep_out(draft, f"{kind} {name}", what, joining, f"{kind}s.{key}", name, then)


def explain_foreign_image(draft: Draft, name: str) -> str:
    """Why what has the name of a service's own image was not built for it.

    Compose builds ``PROJECT-SERVICE``; a name that the compose file gives may come from
    anywhere.
    """
    ref = draft.name_image(name)
    image = draft.declared.images[ref]
    known = draft.applied.services.get(name) if draft.applied else None
    proven = {container.image_id for container in draft.state.list_containers(name)}
    proven |= {known.image_id} if known else set()
    own = image.id in proven or image.built_for in (None, (draft.spec.project, name))
    if own or draft.services[name].get("image"):
        return ""
    project, service = image.built_for or ("", "")
    whose = f"service {service} of project {project}" if project else "nobody's, by its labels"
    return f"image {ref} was not built for it, but is {whose}"


def explain_foreign(draft: Draft, labelled: Labelled | None, key: str) -> str:
    """Why a network or volume is not the project's own."""
    if labelled is None or (labelled.project, labelled.key) == (draft.spec.project, key):
        return ""
    if not labelled.project:
        return "Compose did not make it"
    return f"Compose made it as {labelled.key or 'nothing'} of project {labelled.project}"


def keep_out(
    draft: Draft,
    subject: str,
    what: str,
    joining: Collection[str],
    path: str,
    name: str,
    then: str = "Compose would give it to",
) -> None:
    """Say that a network or volume is foreign, and keep services out that are not in it yet."""
    what = f"it has the name of the project's own and is foreign: {what}"
    if not joining:
        draft.find(subject, "foreign", f"{what}; left alone", blocks=False)
        return
    draft.refuse(
        subject,
        f"{what}; {then} {', '.join(sorted(joining))}",
        f"to use it, declare {path} with `external: true` and `name: {name}`; otherwise "
        "declare another name, or remove it yourself",
    )


def disconnect_guests(draft: Draft, network: str) -> None:
    """Take foreign containers off a network that is to be removed: it cannot be with them on it."""
    for container in (*draft.state.neighbours, *draft.state.foreign):
        if network in container.endpoints:
            _disconnect(
                draft,
                f"network {network}",
                container.name,
                network,
                f"container:{container.name} is attached to it, and is foreign",
            )


def _take(draft: Draft, service: str, holder: str, what: str, claimant: Container | None) -> None:
    """Set a container aside; one that bears our labels loses them, for which it is copied."""
    aside = f"{holder}-set-aside"
    undo = f"docker rename {aside} {holder} && docker start {holder}"
    purpose = "to take it"
    if claimant is not None:
        undo += "; the copy has its files and volumes, and no networks, ports, limits or logs"
        purpose = (
            "remove it yourself; or, to have it replaced by a stopped copy of its files and "
            f"volumes called {aside}, without its networks, ports, limits and logs"
        )
    step = SetAside(subject=holder, cause=f"{service}: {what}", container=holder, undo=undo)
    _clear_if_allowed(draft, service, what, step, purpose)


def _disconnect(draft: Draft, service: str, holder: str, network: str, what: str) -> None:
    step = Disconnect(
        subject=holder,
        cause=f"{service}: {what}",
        container=holder,
        network=network,
        undo=f"docker network connect {network} {holder}",
    )
    _clear_if_allowed(draft, service, what, step, "to take it off the network")


def _clear_if_allowed(
    draft: Draft, service: str, what: str, step: SetAside | Disconnect, purpose: str
) -> None:
    draft.find(service, "drift", what)
    rule = f"container:{step.container}"
    if rule in draft.spec.allow:
        draft.clear_obstacle(step)
    else:
        draft.refuse(service, what, f"{purpose}, {_ALLOW.format(rule)}")


def _list_created(draft: Draft) -> frozenset[str]:
    """The services among whose containers Compose chooses while it carries out the steps."""
    names = (name for name in draft.steps if draft.has_step(name, Recreate, Up))
    return _list_created_with(draft.services, names)


def _list_created_with(
    services: Mapping[str, Mapping[str, Any]], names: Iterable[str]
) -> frozenset[str]:
    """The services among whose containers Compose chooses where it creates these.

    ``create`` takes along all that a service leans on.
    """
    created: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in created and name in services:
            created.add(name)
            left += _list_dependencies(services[name])
    return frozenset(created)


def _list_dependencies(body: Mapping[str, Any]) -> Iterable[str]:
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


def _is_chosen(container: Container) -> bool:
    return provenance.is_chosen_by_compose(container.origin)


def _format_claim(container: Container) -> str:
    return (
        f"container:{container.name} bears this project's labels and is foreign: "
        f"{container.foreign}"
    )
