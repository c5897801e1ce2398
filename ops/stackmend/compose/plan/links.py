"""The links of a project: the addresses that its services are given for each other. Pure.

They are read and classified in the room ``addresses``; here stand the checks that prove them, what
is found of them, and what corrects those that are wrong.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Any

from stackmend import addresses
from stackmend.addresses import Sources
from stackmend.addresses.gateway import GATEWAYS
from stackmend.addresses.listing import make_link
from stackmend.addresses.secrecy import show
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
from stackmend.checks.spec import (
    LONGEST_NAME,
    Check,
    GreetingCheck,
    NameCheck,
    RedisCheck,
    TcpCheck,
    make_if_valid,
)
from stackmend.checks.state import CheckResult
from stackmend.compose import drift
from stackmend.compose.plan.declaration import count_replicas, is_redis
from stackmend.compose.plan.draft import Draft
from stackmend.compose.plan.health import is_complete
from stackmend.compose.plan.keepers import find_keeper, is_kept
from stackmend.compose.plan.path import Hop, find_role, has_file
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import LINKS_FILE, Change, Correction, Declared, StackState
from stackmend.frozen import Frozen
from stackmend.text import make_printable

#: Seconds for one call, which a service beside it answers at once.
CALL_TIMEOUT = 3
#: Links of one project that are proven; of more that is said.
MAXIMUM_LINKS = 256

#: What listens: pairs of an address and a port, by a container's id or for the host.
Listeners = Mapping[str, Sequence[tuple[str, int]]]

#: Schemes, and the protocol by whose greeting they are proven; what speaks TLS is connected to.
_PROTOCOLS = {
    "http": "http",
    "ws": "http",
    "postgres": "postgres",
    "postgresql": "postgres",
    "pgsql": "postgres",
    "amqp": "amqp",
    "pyamqp": "amqp",
    "mysql": "mysql",
    "mysql2": "mysql",
    "mariadb": "mysql",
    "mongodb": "mongodb",
    "clickhouse": "clickhouse",
    "redis": "redis",
    "valkey": "redis",
}
#: Why an address is wrong although what it names may answer a call.
_BEYOND_CALLS = ("proxy", "form", "swapped", "shared-alias")
#: Why an address is wrong as long as the one it names is as it is now.
_OF_A_MOMENT = ("not-up", "not-listening", "loopback-only")
_REDIS_SCHEMES = ("redis", "valkey")
#: A name that a network of Docker's may have; others are asked for on the Internet.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
#: What holds an address, at the end of the name of its check.
_HOLDER = re.compile(r" \([^()]*\)$")
_TCP_PORT = re.compile(r"([0-9]{1,5})(?:/tcp)?")
#: A line of a log that reports a call that failed.
_FAILED_CALL = re.compile(
    r"refused|unreachable|resolv|cannot|can't|could not|fail|error|timed? ?out", re.I
)
#: Why a project has no correction at all, although one is desired.
_NAMED = "the project's .env names its compose files, and no other one can be laid over them"
_CONSENT = 'have stackmend do it: add to the stack "links": {"on_conflict": "override"}'


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
            judgement.reason in _BEYOND_CALLS or judgement.address in self.covered
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
        if judgement.reason in _OF_A_MOMENT:
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
    images = _list_images(declared)
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
        links.addresses, declared.config, running, _list_images(declared), ignore
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
    override = addresses.make_override(wrong, declared.config, sources, _list_images(declared))
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
            (judgement.status == "wrong" and judgement.reason not in _BEYOND_CALLS)
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


def _list_images(declared: Declared) -> dict[str, ImageFacts]:
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
    for container in state.containers:
        if container.running and container.service and not container.oneoff:
            environment = container.shape.get("environment") or {}
            environments.setdefault(container.service, {})[container.name] = environment
    return Running(
        joined=frozenset(
            network
            for container in (*state.neighbours, *state.foreign)
            for network in container.endpoints
        ),
        elsewhere=frozenset(name.lower() for name in state.elsewhere),
        environments=environments,
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


def name_check(link: Link) -> str:
    """The name of the check that proves a link, or asks for its name."""
    if link.name_only:
        return _fit_name(f"name {link.host} in {link.source}")
    scheme = f"{link.scheme}://" if link.scheme else ""
    host = f"[{link.host}]" if ":" in link.host else link.host
    variable = f" ({link.variable})" if link.variable else ""
    return _fit_name(f"link {link.source} → {scheme}{host}:{link.port}{variable}")


def _fit_name(text: str) -> str:
    """A check's name of what a compose file holds: printable, and another one for each text."""
    name = make_printable(text, len(text)).strip()
    if name == text and len(name) <= LONGEST_NAME:
        return name
    mark = f" #{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"{name[: LONGEST_NAME - len(mark)]}{mark}"


def make_link_checks(
    spec: ComposeSpec, links: Sequence[Link], declared: Declared, state: StackState | None
) -> tuple[Check, ...]:
    """The checks that prove links, each from the network of the service that calls.

    What has done its work and ended calls nobody, and is called by nobody. What speaks at an
    address is asked by each, since what answers one may refuse another.

    :param state: what runs; ``None`` for the checks once all does.
    """
    made: dict[str, Check] = {}
    callers = (
        {container.service for container in state.containers if container.running}
        if state
        else {*declared.services}
    )
    for link in links:
        target = state.list_containers(link.target) if state and link.target else ()
        ended = bool(target) and all(is_complete(other, declared.services) for other in target)
        if 0 < link.port < 65536 and link.source in callers and not ended:
            name = name_check(link)
            check = _make_check(name, link, declared, spec.project)
            # A name that nobody can be called by has no link to be proven.
            if check is None:
                continue
            made.setdefault(name, check)
    return tuple(made.values())[:MAXIMUM_LINKS]


def _make_check(name: str, link: Link, declared: Declared, project: str) -> Check | None:
    """What proves a link: what speaks there is asked as its caller asks it, where that is known."""
    common: dict[str, Any] = {"name": name, "inside": link.source, "timeout": CALL_TIMEOUT}
    if link.name_only:
        return make_if_valid(NameCheck, hostname=link.host, **common)
    host = f"[{link.host}]" if ":" in link.host else link.host
    common["address"] = f"{host}:{link.port}"
    body = declared.services.get(link.target) or {}
    image = str(body.get("image") or f"{project}-{link.target}")
    check: Check | None = None
    if body and is_redis(image, body) and link.scheme in ("", *_REDIS_SCHEMES):
        role = "any" if has_file(body) else find_role(body)
        more: dict[str, Any] = {"service": link.target, "role": role}
        if link.scheme:
            variable = link.place is not None and link.place.kind in ("environment", "image")
            more["password_from"] = link.variable if variable else "command"
        check = make_if_valid(RedisCheck, **common, **more)
    elif protocol := _PROTOCOLS.get(link.scheme):
        check = make_if_valid(GreetingCheck, protocol=protocol, **common)
    # Of a variable that no program can be asked for, the login is not known.
    return check or make_if_valid(TcpCheck, **common)


# Correcting


def is_correcting(spec: ComposeSpec) -> bool:
    """Whether a file of ours is to correct wrong links."""
    return spec.links is not None and spec.links.on_conflict == "override"


def list_correctable(links: Links) -> frozenset[str]:
    """The addresses that could be corrected."""
    return frozenset(judgement.subject for judgement in links.judgements if judgement.correctable)


def make_correction(
    spec: ComposeSpec,
    files: Sources | Mapping[str, bytes],
    declared: Declared,
    links: Links,
    state: StackState,
    redact: Callable[[str], str] = drift.redact,
) -> Correction:
    """What corrects the wrong links of a project's own files.

    :param files: these files.
    :param declared: what Compose makes of them.
    :param state: what runs.
    :param redact: what a report makes of a line.
    """
    assert spec.links is not None, "only what is desired is corrected"
    override = addresses.make_override(links.wrong, declared.config, files, _list_images(declared))
    left = {left.subject: f"{left.reason}; {left.remedy}" for left in override.left}
    changes = tuple(
        Change(
            service=judgement.address.place.service,
            variable=judgement.address.place.name,
            origin=judgement.address.place.source,
            old=_format_address(judgement),
            new=show(judgement.right),
            cause=judgement.cause,
            kept=_is_kept(judgement, declared, state),
        )
        for judgement in links.wrong
        if judgement.correctable and judgement.subject not in left
    )
    patch, omitted = _make_patch(links, files, redact)
    return Correction(
        policy=spec.links,
        content=override.content.decode(),
        changes=changes,
        left=left,
        patch=patch,
        omitted=omitted,
    )


def _is_kept(judgement: Judgement, declared: Declared, state: StackState) -> bool:
    body = declared.services[judgement.address.place.service]
    image = declared.images.get(str(body.get("image")))
    environment = {**(image.env if image else {}), **(body.get("environment") or {})}
    return is_kept(judgement, body, environment, state)


def add_patch(
    links: Links,
    files: Sources | Mapping[str, bytes],
    correction: Correction | None,
    redact: Callable[[str], str] = drift.redact,
) -> Links:
    """The same with what corrects the project's own files, and with the patch that does so there.

    :param files: these files.
    :param correction: what corrects them, and was made from addresses as they stand there.
    :param redact: what a report makes of a line.
    """
    patch, omitted = (correction.patch, correction.omitted) if correction else ((), ())
    if not patch:
        patch, omitted = _make_patch(links, files, redact)
    return links.model_copy(update={"correction": correction, "patch": patch, "omitted": omitted})


def _make_patch(
    links: Links, files: Sources | Mapping[str, bytes], redact: Callable[[str], str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lines of a patch that corrects the project's own files, and what it does not correct."""
    wrong = links.wrong
    judgements = [
        judgement
        for judgement in links.judgements
        if judgement.status != "wrong" or judgement in wrong
    ]
    patch = addresses.make_patch(judgements, files, redact)
    omitted = [f"{left.subject}: {left.reason}; {left.remedy}" for left in patch.left]
    omitted += [
        f"{judgement.subject}: no other address mends it; {judgement.remedy}"
        for judgement in wrong
        if not judgement.correctable
    ]
    # A text of YAML may hold what only Python takes for the end of a line.
    lines = patch.text.removesuffix("\n").split("\n") if patch.text else ()
    return tuple(lines), tuple(dict.fromkeys(omitted))


def _format_address(judgement: Judgement) -> str:
    address = judgement.address
    return f"{address.host}:{address.port}" if address.port else address.text


def leave(correction: Correction, subjects: Collection[str], problem: str = "") -> Correction:
    """The same with what is still wrong although it was made.

    :param problem: why it is not laid over the project's files; empty where it is.
    """
    left = {subject: correction.left.get(subject, "") for subject in sorted(subjects)}
    changes = {"content": "", "changes": ()} if problem else {}
    return correction.model_copy(update={"left": left, "problem": problem, **changes})


def find_excess(declared: Declared, corrected: Declared, links: Links) -> str:
    """What a correction changes that it should not; empty where it changes what is wrong alone.

    :param declared: what Compose makes of the project's own files.
    :param corrected: what it makes of them with the file of ours.
    """
    allowed: dict[str, set[str]] = {}
    for judgement in links.wrong:
        place = judgement.address.place
        keys = allowed.setdefault(place.service, set())
        for edit in judgement.edits:
            kind = "environment" if edit.place.kind == "image" else edit.place.kind
            keys.add(f"environment.{edit.place.key}" if kind == "environment" else kind)
        for part, needed in judgement.needs.items():
            keys.update([f"{part}.{key}" for key in needed] if part == "environment" else [part])
    for name in sorted({*declared.services, *corrected.services}):
        pair = declared.services.get(name), corrected.services.get(name)
        for path, _, _ in drift.find_differences(*pair, ""):
            if not any(path == key or path.startswith(f"{key}.") for key in allowed.get(name, ())):
                return f"it would change {name}.{path}"
    rest = [{**config, "services": None} for config in (declared.config, corrected.config)]
    return "" if rest[0] == rest[1] else "it would change more than services"


def find_unheard(
    changes: Collection[Change], logs: Mapping[str, Sequence[str]]
) -> tuple[tuple[Change, str], ...]:
    """The values that were corrected and whose service still calls the address before.

    :param logs: the last lines of services since they were started with the right one.
    """
    found = []
    for change in changes:
        host, colon, port = change.old.rpartition(":")
        # A name alone, without its port, may stand in a log for anything.
        pattern = re.compile(
            rf"(?<![\w.-]){re.escape(host)}(?::|\W.{{0,40}}?port\W{{0,3}}){port}(?![\w-])", re.I
        )
        lines = [
            line
            for line in logs.get(change.service, ())
            if colon and pattern.search(line) and _FAILED_CALL.search(line)
        ]
        found += [(change, lines[-1])] if lines else []
    return tuple(found)


# What is found


def find_links(draft: Draft, links: Links) -> None:
    """Note what is known of each link that is not as it should be."""
    equal: dict[str, list[Judgement]] = {}
    for judgement in links.judgements:
        result = links.get_result(judgement)
        if judgement.status == "right" and result is not None:
            equal.setdefault(result.name, []).append(judgement)
    for judgement in links.judgements:
        result = links.get_result(judgement)
        if judgement.status == "right":
            if result is not None and equal[result.name][0] is judgement:
                _find_unproven(draft, equal[result.name], result)
        elif judgement.status == "ambiguous":
            evidence = [describe(judgement), *judgement.readings, *_quote(result, judgement)]
            draft.find(
                judgement.subject,
                "link",
                judgement.cause,
                evidence=evidence,
                remedy=judgement.remedy,
                blocks=False,
            )
        elif result is not None and result.ok:
            cause = f"it answers, so it is left alone, although {judgement.cause}"
            draft.find(
                judgement.subject, "link", cause, blocks=False, evidence=_quote(result, judgement)
            )
        else:
            _find_wrong(draft, judgement, links)
    for judgement in links.running:
        _find_running(draft, judgement, links)
    for line in links.unread:
        subject, _, cause = line.partition(" is ")
        remedy = f'shorten it, or add "{subject}" to "ignore" of the section "links"'
        draft.find(subject, "link", f"it is {cause}", remedy=remedy, blocks=False)
    correction = links.correction
    for change in correction.changes if correction else ():
        draft.find(
            f"{change.service}.{change.variable}",
            "link",
            f"{LINKS_FILE} corrects it" + (f": {change.old} → {change.new}" if change.new else ""),
            evidence=[f"{change.origin}: {change.cause}"],
            remedy=f"correct it in {change.origin}: then {LINKS_FILE} goes away",
            blocks=False,
        )
    if correction and correction.problem:
        cause = f"wrong links are not corrected by {LINKS_FILE}: {correction.problem}"
        draft.find(draft.spec.project, "link", cause, blocks=False)
    for change, line in links.unheard:
        _find_unheard(draft, change, line)
    unheard = [change for change, _ in links.unheard]
    for change in correction.changes if correction else ():
        if change.kept and change not in unheard:
            _find_kept(draft, change)
    _find_unused_ignores(draft, links)
    count = len({name_check(link) for link in links.links if 0 < link.port < 65536})
    if count > MAXIMUM_LINKS:
        cause = f"of {count} links {MAXIMUM_LINKS} are proven by one run, and the others are not"
        remedy = 'name those that matter less in "ignore" of the section "links"'
        draft.find(draft.spec.project, "link", cause, remedy=remedy, blocks=False)
    if links.patch and links.omitted:
        cause = "the patch leaves wrong links as they are"
        draft.find(draft.spec.project, "link", cause, evidence=links.omitted, blocks=False)
    if links.patch:
        left = dict.fromkeys(line.partition(": ")[0] for line in links.omitted)
        but = f", but for {', '.join(left)}" if left else ""
        draft.find(
            draft.spec.project,
            "patch",
            "this change to the project's own files makes its links right" + but,
            evidence=links.patch,
            remedy="apply it in the source's directory with `git apply`",
            blocks=False,
        )


def _find_unused_ignores(draft: Draft, links: Links) -> None:
    """Tell of what is to be left alone and is nowhere: it may be a slip of the pen."""
    ignored = draft.spec.links.ignore if draft.spec.links else ()
    known = {f"{name}.{key}" for name, keys in links.variables.items() for key in keys}
    for pattern in ignored:
        if any(fnmatchcase(name, pattern) for name in known):
            continue
        similar = get_close_matches(pattern, sorted(known), n=3, cutoff=0.7)
        remedy = f"name one that there is, such as {', '.join(similar)}" if similar else "remove it"
        cause = f'"{pattern}" in "ignore" of the section "links" matches no variable of a service'
        draft.find(draft.spec.project, "warning", cause, remedy=remedy, blocks=False)


def _find_unproven(draft: Draft, judgements: Sequence[Judgement], result: CheckResult) -> None:
    """Note a link that does not work, once for all that hold its address."""
    address = judgements[0].address
    # What is done to either end may well be why it does not answer yet.
    if result.ok or {address.place.service, address.target} & {*draft.steps}:
        return
    cause = result.evidence.removeprefix(f"{result.name}: ")
    lines = dict.fromkeys(line.removeprefix(f"{result.name}: ") for line in result.details)
    details = [line for line in lines if line not in cause]
    needed = not all(addresses.is_for_browsers(judgement.address) for judgement in judgements)
    draft.find(
        _name_link(result, judgements),
        "link",
        cause,
        evidence=[*dict.fromkeys(map(describe, judgements)), *details],
        remedy=result.remedy,
        blocks=needed and result.outcome == "failed",
    )


def _find_wrong(draft: Draft, judgement: Judgement, links: Links) -> None:
    result, address = links.get_result(judgement), judgement.address
    if judgement.reason in _OF_A_MOMENT and address.target in draft.steps:
        return
    evidence = [describe(judgement)]
    reason = links.correction.left.get(judgement.subject, "") if links.correction else _NAMED
    if reason and is_correcting(draft.spec):
        evidence.append(f"{LINKS_FILE} leaves it as it is: {reason}")
    remedy = judgement.remedy
    if judgement.right and not remedy:
        remedy = f"put {show(judgement.right)} in place of {address.text} in {address.place.source}"
    offered = judgement.correctable and judgement.subject not in links.refused
    if offered and not is_correcting(draft.spec):
        remedy += f", or {_CONSENT}"
    draft.find(
        judgement.subject,
        "link",
        judgement.cause,
        evidence=[*evidence, *_quote(result, judgement)],
        remedy=remedy,
        blocks=links.is_broken(judgement),
    )


def _find_running(draft: Draft, judgement: Judgement, links: Links) -> None:
    """Note what a container has otherwise than its declaration, where this run leaves it so."""
    if judgement.address.place.service in draft.steps or links.get_outcome(judgement) == "passed":
        return
    draft.find(
        judgement.subject,
        "link",
        judgement.cause,
        evidence=[
            describe(judgement),
            *judgement.readings,
            *_quote(links.get_result(judgement), judgement),
        ],
        remedy=judgement.remedy,
        blocks=False,
    )


def _find_unheard(draft: Draft, change: Change, line: str) -> None:
    keeper = find_keeper(draft.name_image(change.service))
    known = f", or {keeper.remedy}" if keeper else ""
    draft.find(
        f"{change.service}.{change.variable}",
        "link",
        f"it is {change.new} now, and {change.service} still calls {change.old}: the application "
        "keeps what it was set to at its first start, and ignores its environment",
        evidence=[line],
        remedy=f"change it in the settings of the application itself{known}",
    )


def _find_kept(draft: Draft, change: Change) -> None:
    """Note what no call can tell: whether an application uses what it has now, or stored before.

    It fails no run: what is corrected would be taken back, and never be in place.
    """
    keeper = find_keeper(draft.name_image(change.service))
    known = f", or put {keeper.remedy}" if keeper else ""
    draft.find(
        f"{change.service}.{change.variable}",
        "link",
        f"stackmend cannot prove that {change.service} uses {change.new}: it was started with "
        f"{change.old} before, and may keep what it stored then; only its own settings show that",
        remedy=f"look at the settings of the application itself, and correct it there{known}",
        blocks=False,
    )


def describe(judgement: Judgement) -> str:
    """Where an address stands, what it is, by which networks it leads, and what it should be."""
    place = judgement.address.place
    right = f"; right: {show(judgement.right)}" if judgement.right else ""
    networks = judgement.address.networks
    over = f", over network {', '.join(networks)}" if networks else ""
    return f"{place.source}: {place.name} is {show(judgement.address.url)}{over}{right}"


def _name_link(result: CheckResult, judgements: Iterable[Judgement]) -> str:
    """The name of a link's check, with all that hold its address."""
    names = dict.fromkeys(judgement.address.place.name for judgement in judgements)
    return _HOLDER.sub(lambda _: f" ({', '.join(names)})", result.name)


def _quote(result: CheckResult | None, judgement: Judgement) -> list[str]:
    """What asking for an address found, as of the variable that holds it."""
    if result is None:
        return []
    message = result.evidence.removeprefix(f"{result.name}: ")
    if message == result.evidence:
        return [message]
    return [f"{_name_link(result, [judgement])}: {message}"]


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


def explain_wrong(judgement: Judgement) -> str:
    """A wrong address as evidence of what fails because of it."""
    return f"wrong link: {describe(judgement)}; {judgement.cause}"
