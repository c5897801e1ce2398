"""The links of a project: the addresses that its services are given for each other. Pure.

They are read and classified in the room ``addresses``; ``link_checks.py`` has what proves them,
``link_findings.py`` what is found of them, and ``link_correction.py`` what corrects the wrong ones.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address

from stackmend import addresses
from stackmend.addresses import Sources
from stackmend.addresses.gateway import GATEWAYS
from stackmend.addresses.listing import make_link
from stackmend.addresses.spec import LinksPolicy
from stackmend.addresses.state import (
    Address,
    ImageFacts,
    Judgement,
    Link,
    Running,
    RunningService,
    Socket,
)
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.declaration import count_replicas
from stackmend.compose.plan.health import has_failed, is_complete
from stackmend.compose.plan.link_checks import name_check
from stackmend.compose.plan.path import Hop
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Change, Correction, Declared, StackState
from stackmend.frozen import Frozen

#: What listens: pairs of an address and a port, by a container's id or for the host.
Listeners = Mapping[str, Sequence[tuple[str, int]]]
#: Why an address is wrong although what it names may answer a call.
BEYOND_CALLS = ("proxy", "form", "swapped", "shared-alias")
#: Why an address is wrong as long as the one it names is as it is now.
OF_A_MOMENT = ("not-up", "not-listening", "loopback-only")
#: A name that a network of Docker's may have; others are asked for on the Internet.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_TCP_PORT = re.compile(r"([0-9]{1,5})(?:/tcp)?")


class Links(Frozen):
    """What is known of a project's links.

    :param addresses: all that the declaration has, with their lines.
    :param judgements: what they are by the declaration, and by what runs.
    :param running: what is not right of what containers have otherwise than it declares.
    :param links: those that are to be proven.
    :param results: what asking for them found, by the checks' names.
    :param covered: the addresses that may answer by what only the running containers have, such as
        what a correction added: of the declaration a call tells nothing then.
    :param correction: what corrects the project's own files.
    :param patch: the lines of the same change to these files.
    :param omitted: what is wrong and not in the patch, each with why.
    :param refused: the addresses that no file of ours would correct, if one were desired.
    :param unread: what may hold an address and is too long to be read, each in words.
    :param variables: what may hold an address, by service.
    :param unheard: a value that was corrected, and a line of a log with the one before.
    :param proven: whether the stack was proven with these addresses before.
    """

    addresses: tuple[Address, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    running: tuple[Judgement, ...] = ()
    links: tuple[Link, ...] = ()
    results: Mapping[str, CheckResult] = {}
    covered: frozenset[Address] = frozenset()
    correction: Correction | None = None
    patch: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()
    variables: Mapping[str, frozenset[str]] = {}
    unheard: tuple[tuple[Change, str], ...] = ()
    proven: bool = False

    @property
    def wrong(self) -> tuple[Judgement, ...]:
        """The addresses that are wrong; one that answers is not."""
        return tuple(
            judgement
            for judgement in self.judgements
            if judgement.status == "wrong" and self.get_outcome(judgement) != "passed"
        )

    @property
    def is_waiting(self) -> bool:
        """Whether a link that should work does not yet."""
        return any(
            judgement.status == "right" and self.is_broken(judgement)
            for judgement in self.judgements
        )

    def get_link(self, judgement: Judgement) -> Link | None:
        """How an address was asked for; ``None`` where nobody does."""
        if judgement.status == "wrong" and (
            judgement.reason in BEYOND_CALLS or judgement.address in self.covered
        ):
            return None
        address = judgement.address
        key = (address.place.service, address.host, address.port, address.scheme)
        for link in self.links:
            if (link.source, link.host, link.port, link.scheme) == key:
                return link
        return None

    def get_result(self, judgement: Judgement) -> CheckResult | None:
        """What asking for an address found."""
        link = self.get_link(judgement)
        return self.results.get(name_check(link)) if link else None

    def is_cause(self, judgement: Judgement) -> bool:
        """Whether a wrong address is why a check fails that its service has a part in.

        Where the stack was proven with it, it is no cause, unless it is known that nothing answers.
        What runs otherwise after a restart may well answer then.
        """
        if judgement.reason in OF_A_MOMENT:
            return False
        return self.is_broken(judgement) or not self.proven

    def is_broken(self, judgement: Judgement) -> bool:
        """Whether nothing answers a call that a service depends on.

        Of a name that has no address nobody knows, nor whether an address for browsers is called.
        """
        link = self.get_link(judgement)
        if link is None or link.name_only or addresses.is_for_browsers(judgement.address):
            return False
        return self.get_outcome(judgement) == "failed"

    def get_outcome(self, judgement: Judgement) -> str:
        """The same in a word; empty where it was not asked."""
        result = self.get_result(judgement)
        return result.outcome if result else ""


def classify_links(
    spec: ComposeSpec,
    files: Sources | Mapping[str, bytes],
    declared: Declared,
    others: Running | None = None,
) -> Links:
    """What the addresses in a declaration are, before anything is asked.

    :param files: the project's own files, in which the line of each is looked for.
    :param others: of :func:`describe_others`.
    """
    policy = spec.links or LinksPolicy()
    images = list_images(declared)
    sources = Sources.make(files)
    placed = {f"{spec.directory}/{path}": content for path, content in sources.files.items()}
    read = addresses.read(declared.config, images, placed if policy.files else None)
    unread = tuple(
        f"{value.service}.{value.name} is too long to be read: it has {value.size} characters, "
        f"and stackmend looks for addresses in up to {value.limit}"
        for value in addresses.list_unread(declared.config, placed if policy.files else None)
        if not any(fnmatchcase(f"{value.service}.{value.name}", of) for of in policy.ignore)
    )
    found = addresses.locate(read, sources)
    judgements = addresses.classify(found, declared.config, others, images, policy.ignore)
    lived = addresses.classify_containers(
        declared.config, others or Running(), images, policy.ignore, judgements
    )
    return Links(
        addresses=found,
        judgements=judgements,
        running=lived,
        links=(*_list_calls(judgements), *_list_calls(lived)),
        refused=_list_refused(spec, judgements, sources, declared),
        unread=unread,
        variables=_list_variables(found, declared, images) if policy.ignore else {},
    )


def add_results(
    spec: ComposeSpec,
    files: Sources | Mapping[str, bytes],
    declared: Declared,
    links: Links,
    state: StackState,
    results: Mapping[str, CheckResult],
    listeners: Listeners,
) -> Links:
    """What the addresses in a declaration are, by what asking for them found.

    :param links: of :func:`classify_links`.
    :param state: what runs.
    :param results: what asking found, by the checks' names.
    :param listeners: what listens.
    """
    running = _describe_running(links.links, declared, state, results, listeners)
    ignore = spec.links.ignore if spec.links else ()
    judgements = addresses.classify(
        links.addresses, declared.config, running, list_images(declared), ignore
    )
    refused = _list_refused(spec, judgements, Sources.make(files), declared)
    update = {
        "judgements": judgements,
        "results": results,
        "refused": refused,
        "covered": _list_covered(judgements, state),
    }
    return links.model_copy(update=update)


def _list_covered(judgements: Iterable[Judgement], state: StackState) -> frozenset[Address]:
    """The addresses by a host's name that they need and the containers of their service have."""
    return frozenset(
        judgement.address
        for judgement in judgements
        for item in judgement.needs.get("extra_hosts") or ()
        for container in state.list_containers(judgement.address.place.service)
        if _name_host(item) == judgement.address.host
        and _name_host(item) in map(_name_host, container.shape.get("extra_hosts") or ())
    )


def _name_host(item: str) -> str:
    """The name in one of a service's ``extra_hosts``."""
    return re.split("[:=]", item)[0].lower()


def _list_refused(
    spec: ComposeSpec, judgements: Iterable[Judgement], sources: Sources, declared: Declared
) -> frozenset[str]:
    """The wrong addresses that a file of ours would leave, where none is desired yet."""
    wrong = [judgement for judgement in judgements if judgement.correctable]
    if spec.links is None or is_correcting(spec) or not wrong:
        return frozenset()
    if b"COMPOSE_FILE" in sources.files.get(".env", b""):
        return frozenset(judgement.subject for judgement in wrong)
    override = addresses.make_override(wrong, declared.config, sources, list_images(declared))
    return frozenset(left.subject for left in override.left)


def _list_variables(
    found: Iterable[Address], declared: Declared, images: Mapping[str, ImageFacts]
) -> dict[str, frozenset[str]]:
    """What services call their values: their variables, and whatever else has an address."""
    names: dict[str, set[str]] = {}
    for name, body in declared.services.items():
        image = images.get(str(body.get("image")))
        names[name] = {*(body.get("environment") or {}), *(image.env if image else ())}
    for address in found:
        names.setdefault(address.place.service, set()).add(address.place.name)
    return {name: frozenset(keys) for name, keys in names.items()}


def _list_calls(judgements: Sequence[Judgement]) -> tuple[Link, ...]:
    """What is to be asked: links within the project, wrong ones, and those to the host itself.

    Of a name that may be known elsewhere nothing but the name is asked for.
    """
    others = (
        judgement.address
        for judgement in judgements
        if judgement.address.port
        and (
            (judgement.status == "wrong" and judgement.reason not in BEYOND_CALLS)
            or (judgement.address.host in GATEWAYS and judgement.address.side == "server")
        )
    )
    names = (
        make_link(judgement.address).model_copy(update={"name_only": True})
        for judgement in judgements
        if judgement.address.port
        and judgement.status != "wrong"
        and judgement.reason == "unknown-name"
        and _LABEL.fullmatch(judgement.address.host)
    )
    return (*addresses.list_links(judgements), *map(make_link, others), *names)


def list_images(declared: Declared) -> dict[str, ImageFacts]:
    """What the images of a project bring along, as far as addresses go by it."""
    return {
        name: ImageFacts(env=image.env, ports=_list_tcp(image.ports))
        for name, image in declared.images.items()
    }


def _list_tcp(ports: Sequence[str]) -> tuple[int, ...]:
    """The numbers of TCP ports in an image's words."""
    return tuple(int(match[1]) for port in ports if (match := _TCP_PORT.fullmatch(port)))


def _describe_running(
    links: Sequence[Link],
    declared: Declared,
    state: StackState,
    results: Mapping[str, CheckResult],
    listeners: Listeners,
) -> Running:
    services = {}
    for name, body in declared.services.items():
        containers = state.list_containers(name)
        known = [listeners[other.id] for other in containers if other.id in listeners]
        # What is not there yet will be, and what has done its work is gone for good.
        ended = all(is_complete(other, declared.services) for other in containers)
        if count_replicas(body) and ended:
            continue
        services[name] = RunningService(
            up=any(container.running for container in containers),
            sockets=_list_sockets(pair for pairs in known for pair in pairs) if known else None,
            names=_list_names(name, links, results),
        )
    host = _list_sockets(listeners["host"]) if "host" in listeners else None
    reachable = {socket.port for socket in host or () if not socket.loopback}
    filtered = {
        link.port
        for link in links
        if link.host in GATEWAYS
        and link.port in reachable
        and (result := results.get(name_check(link))) is not None
        and result.outcome == "failed"
        and "name-not-resolved" not in result.hints
    }
    return describe_others(state).model_copy(
        update={"services": services, "host": host, "filtered": tuple(sorted(filtered))}
    )


def describe_others(state: StackState) -> Running:
    """What is known of a host's containers without asking them: others', and environments."""
    environments: dict[str, dict[str, Mapping[str, str]]] = {}
    down = set()
    for container in state.containers:
        # One that fails may do so because of what it has.
        counts = container.running or has_failed(container)
        if counts and container.service and not container.oneoff:
            environment = container.shape.get("environment") or {}
            environments.setdefault(container.service, {})[container.name] = environment
            down |= set() if container.running else {container.name}
    return Running(
        joined=frozenset(
            network
            for container in (*state.neighbours, *state.foreign)
            for network in container.endpoints
        ),
        elsewhere=frozenset(name.lower() for name in state.elsewhere),
        environments=environments,
        down=frozenset(down),
    )


def _list_names(
    service: str, links: Iterable[Link], results: Mapping[str, CheckResult]
) -> dict[str, bool]:
    """The names of no service that were asked for in one, and whether each has an address."""
    found: dict[str, bool] = {}
    for link in links:
        result = results.get(name_check(link))
        if link.source != service or link.target or result is None:
            continue
        if result.ok:
            found[link.host] = True
        elif "name-not-resolved" in result.hints:
            found.setdefault(link.host, False)
    return found


def _list_sockets(pairs: Iterable[tuple[str, int]]) -> tuple[Socket, ...]:
    """What listens, where one on loopback counts only if nothing else has its port."""
    open_to: dict[int, bool] = {}
    for address, port in pairs:
        loopback = ip_address(address).is_loopback
        open_to[port] = open_to.get(port, True) and loopback
    return tuple(Socket(port=port, loopback=loopback) for port, loopback in sorted(open_to.items()))


# Proving


def is_correcting(spec: ComposeSpec) -> bool:
    """Whether a file of ours is to correct wrong links."""
    return spec.links is not None and spec.links.on_conflict == "override"


def list_wrong(links: Links | None, names: Collection[str], hops: Iterable[Hop]) -> list[Judgement]:
    """The wrong addresses that services have, or by which the calls of a path are made."""
    called = {(hop.source, hop.target, hop.port) for hop in hops}
    return [
        judgement
        for judgement in (links.wrong if links else ())
        if (address := judgement.address).place.service in names
        or (address.place.service, address.target, address.port) in called
    ]


def drop_hops(hops: Iterable[Hop], judgements: Iterable[Judgement]) -> tuple[Hop, ...]:
    """The calls of a path but for those that are made by a wrong address."""
    called = {
        (address.place.service, address.target, address.port)
        for address in (judgement.address for judgement in judgements)
    }
    return tuple(hop for hop in hops if (hop.source, hop.target, hop.port) not in called)
