"""The service's own loopback: whether another service is meant. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from stackmend.addresses.corrections import report_ambiguous, report_wrong
from stackmend.addresses.kinds import (
    BROWSED,
    KIND_OF_SCHEME,
    KINDS,
    find_kinds,
    is_loopback,
    is_server,
    is_typical_port,
    split_name,
)
from stackmend.addresses.selection import MEANT
from stackmend.addresses.stack import Stack
from stackmend.addresses.state import Address, Judgement

#: What stands before a port in a command: what a host of a URL follows, and a word.
_WORD_BEFORE = re.compile(r"(://|@)?([\w.-]+)['\",]*[\s:=]+['\"]*$")
#: Images that hold several programs.
_SEVERAL = re.compile(r"all-?in-?one|\baio\b|standalone|omnibus|bundled?\b|monolith|embedded")
#: Words of variables that are for another place than this.
_NOT_HERE = frozenset({"dev", "development", "example", "local", "sample", "test", "testing"})
#: Words of directories in which software keeps its data or its socket, where it is not its name.
_DIRECTORIES: Mapping[str, tuple[str, ...]] = {
    "postgres": ("pgdata",),
    "mysql": ("mysqld",),
    "mongodb": ("/data/db",),
    "rabbitmq": ("rabbitmq",),
}
#: Mounted files that a client has, too.
_SETTING = re.compile(r"\.(?:conf|cnf|cfg|ini|json|toml|ya?ml|xml|sh|py|js|sql|pem|crt|key|ca)$")
#: A value that names a socket, whatever host stands in it.
_BY_SOCKET = re.compile(r"(?i)[?&;\s](?:host|socket|unix_socket|unixsocket|socketpath)=(?:%2f|/)")
#: Variables that have software added to an image at its start.
_INSTALLS = re.compile(r"(?i)(?:^|_)(?:mods?|packages?|services|install\w*|extras?|addons?)$")
#: A longer command may say anything.
_LONGEST = 20_000
#: Words of variables whose address may be for programs on the host.
_ON_HOST = frozenset({"cli", "default", "desktop", "fallback", "laptop", "studio", "tunnel"})
#: Where a mail server of a service's own listens: many images hold one that passes mail on.
_MAIL_PORT = 25
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104
#: Names of variables whose values are compared, and never connected to.
_COMPARED = re.compile("(?i)cors|origin|cookie|allow|trusted|whitelist|bypass|advertis")
#: Words of services' names that variables have for other reasons.
_GENERIC = frozenset({"api", "app", "server", "service", "web", "main"})
#: Variables whose address of an object storage is for the server, whatever it signs for others.
_NEVER_SIGNED = frozenset({"event", "events", "backup", "backups", "internal", "log", "logs"})


def classify_loopback(stack: Stack, address: Address) -> Judgement:
    """What is thought of an address that is the service itself."""
    service, port = address.place.service, stack.find_port(address)
    right = Judgement(address=address)
    if address.host in _EVERYWHERE and not address.scheme:
        return right
    if address.scheme in ("http", "https") and not address.explicit:
        # The site itself, wherever it is.
        return right
    if not _NOT_HERE.isdisjoint(split_name(address.place.hint)):
        return right
    if stack.names.is_host(service) or _is_own(stack, address, port):
        return right
    if address.side == "browser":
        return _classify_browser(stack, address, port)
    if address.side != "server" or (
        address.place.kind in ("command", "entrypoint")
        and not (address.scheme or address.explicit or find_kinds(address.place.word))
    ):
        return right
    found = _find_candidates(stack, address, port)
    variable = address.place.hint
    found = {
        target: number
        for target, number in found.items()
        if not stack.selections[service].is_unselected(variable, stack.names.kinds[target])
    }
    if not found:
        return right
    if len(found) > 1:
        return report_ambiguous(
            stack, address, "loopback", f"{address.text} is {service} itself", found
        )
    ((target, number),) = found.items()
    if _is_text(stack, address, target, port):
        return right
    if doubt := _find_doubt(stack, address, target, port):
        return report_ambiguous(stack, address, "loopback", doubt, found, itself=True)
    if address.place.kind == "image" and not stack.is_needed(service, target):
        return right
    has = f"has port {number}" if number else f"runs {stack.names.kinds[target]}"
    cause = f"{address.text} is {service} itself; {target} {has}"
    return report_wrong(stack, address, "loopback", cause, target, number)


def _classify_browser(stack: Stack, address: Address, port: int) -> Judgement:
    service = address.place.service
    found = {
        name: target
        for name, target, _ in stack.names.published.get(port, ())
        if name not in stack.names.groups[service] and stack.names.can_reach(service, name)
    }
    if not found or not address.scheme or _COMPARED.search(address.place.name):
        return Judgement(address=address)
    cause = f"{address.place.name} is for browsers by its name, and {address.text} is a port of"
    return report_ambiguous(
        stack, address, "loopback", f"{cause} {', '.join(found)}", found, itself=True
    )


def _is_own(stack: Stack, address: Address, port: int) -> bool:
    """Whether a service may listen itself on what it is to call."""
    service = address.place.service
    group = stack.names.groups[service]
    for member in group:
        ran = stack.running.services.get(member)
        if ran and ran.sockets and any(socket.port == port for socket in ran.sockets):
            return True
        if port in stack.names.ports[member] or _has_mention(stack, member, port, address):
            return True
        # Without a port: one of the software that it names.
        usual = set() if port else _list_usual_ports(address)
        listens = {socket.port for socket in ran.sockets or ()} if ran else set()
        if usual & {*stack.names.ports[member], *listens}:
            return True
        hinted = {KIND_OF_SCHEME.get(address.scheme, ""), *find_kinds(address.place.hint)}
        if stack.names.kinds[member] and stack.names.kinds[member] in hinted:
            return True
        if any(kind and is_server(kind, stack.services[member]) for kind in hinted):
            return True
    return any(
        name in group or _is_same(stack, service, name, address)
        for name, _, _ in stack.names.published.get(port, ())
    )


def _list_usual_ports(address: Address) -> set[int]:
    """The ports of the software that a bare name may mean, by what holds it."""
    hint = address.place.hint
    kinds, words = {*find_kinds(hint)}, {*split_name(hint)}
    return {
        port
        for name, kind in KINDS.items()
        if name in kinds or words & MEANT.get(kind.group, frozenset())
        for port in kind.ports
    }


def _is_same(stack: Stack, service: str, other: str, address: Address) -> bool:
    """Whether another service is a part of the same application, whose site it may mean."""
    image = stack.services[service].get("image")
    return (
        image is not None
        and image == stack.services[other].get("image")
        and address.scheme in ("http", "https")
        and "internal" not in split_name(address.place.hint)
    )


def _has_mention(stack: Stack, service: str, port: int, address: Address) -> bool:
    """Whether a service's own settings may have it listen on a port."""
    if not port:
        return False
    if stack.names.classify_listening(service, port, address.place.key) > 1:
        return True
    body = stack.services[service]
    words = " ".join(f"{body.get(key) or ''}" for key in ("entrypoint", "command"))
    if len(words) > _LONGEST:
        return True
    for match in re.finditer(rf"(?<!\d){port}(?!\d)", words):
        before = _WORD_BEFORE.search(words, 0, match.start())
        word = before[2].lower() if before else ""
        called = word in stack.services or bool(find_kinds(word))
        is_url = before is not None and before[1] is not None
        itself = is_loopback(word) and (is_url or bool(find_kinds(address.place.word)))
        if not called and not itself:
            return True
    return False


def _find_candidates(stack: Stack, address: Address, port: int) -> dict[str, int]:
    """The services that may be meant, each with the port that it has there; 0 is not known."""
    service = address.place.service
    others = [
        name
        for name in stack.services
        if name not in stack.names.groups[service]
        and name not in stack.names.clients
        and not stack.names.is_absent(name)
    ]
    found: dict[str, int] = {}
    if port:
        found = {name: port for name in others if port in stack.names.ports[name]}
        found |= {
            name: target
            for name, target, _ in stack.names.published.get(port, ())
            if name in others
        }
    hints = stack.list_hints(address)
    if hints:
        kinds = stack.names.kinds
        named = {name: number for name, number in found.items() if kinds[name] in hints}
        found = named or {name: number for name, number in found.items() if not kinds[name]}
        if not found and not address.explicit and address.port_place is None:
            found = {name: 0 for name in others if kinds[name] in hints}
    elif not address.scheme and not address.explicit and not port:
        return {}
    # By the one name that leads to several of one network.
    found = {stack.names.name_target(name): number for name, number in found.items()}
    if (
        not address.scheme
        and len(found) == 1
        and not _is_named(stack, address, next(iter(found)), port)
    ):
        # Where it listens, as likely as not.
        return {}
    return _prefer_named(stack, address, found)


def _is_named(stack: Stack, address: Address, target: str, port: int) -> bool:
    """Whether the name of what holds an address, or its port, says which service is meant."""
    kind, words = stack.names.kinds[target], {*split_name(address.place.hint)}
    if kind and (
        kind in stack.list_hints(address)
        or is_typical_port(port, kind)
        or words & MEANT.get(KINDS[kind].group, frozenset())
    ):
        return True
    own = {*split_name(target)} - _GENERIC
    return bool(own) and own <= words


def _prefer_named(stack: Stack, address: Address, found: dict[str, int]) -> dict[str, int]:
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


def _list_volumes(body: Mapping[str, Any]) -> list[str]:
    """Where a service mounts volumes, directories and files, in lower case."""
    return [
        str(mount.get("target", "")).lower()
        for mount in body.get("volumes") or ()
        if isinstance(mount, Mapping) and mount.get("type") in ("volume", "bind", "tmpfs")
    ]


def _is_text(stack: Stack, address: Address, target: str, port: int) -> bool:
    """Whether nothing says that a service calls another by a URL that may be for people."""
    if address.scheme not in BROWSED or "internal" in split_name(address.place.hint):
        return False
    place, kind = address.place, stack.names.kinds[target]
    published = any(name == target for name, _, _ in stack.names.published.get(port, ()))
    if place.kind in ("command", "entrypoint") and not place.word:
        return published
    related = target in (stack.services[place.service].get("depends_on") or {})
    unclear = (published and not kind) or not _is_named(stack, address, target, port)
    return unclear and not related


def _is_bundled(stack: Stack, address: Address, kind: str) -> bool:
    """Whether a service may well run such software itself, or has its socket."""
    service, body = address.place.service, stack.services[address.place.service]
    image = str(body.get("image") or "").lower()
    tag = image.rpartition("/")[2].partition(":")[2]
    if (
        stack.selections[service].is_bundled(kind)
        or kind in re.split(r"[^a-z0-9]+", tag)
        or _SEVERAL.search(image)
    ):
        return True
    words = {kind, *KINDS[kind].tokens.split(), *_DIRECTORIES.get(kind, ())}
    for path in _list_volumes(body):
        # A client's own certificate or setting bears the name, and so does no directory of data.
        if not _SETTING.search(path) and any(word in path for word in words if len(word) > 2):
            return True
    for key, value in stack.environments[service].items():
        if key == address.place.key:
            if _BY_SOCKET.search(value):
                return True
            continue
        if _INSTALLS.search(key) and any(word in value.lower() for word in words if len(word) > 2):
            return True
        if "socket" in split_name(key) and value.startswith(("/", "unix:")):
            return True
    return False


def _is_for_people(stack: Stack, address: Address, target: str) -> bool:
    """Whether an address may be for what runs on the host, by its name or by another one beside."""
    words = split_name(address.place.hint)
    if words[:1] == ("host",) or not _ON_HOST.isdisjoint(words):
        return True
    return any(
        other.target == target and other.scheme == address.scheme and other.place != address.place
        for other in stack.addresses.get(address.place.service, ())
        if address.scheme not in ("", *BROWSED) and other.place.kind == "environment"
    )


def _find_doubt(stack: Stack, address: Address, target: str, port: int) -> str:
    """Why an address of the service itself may be meant as it stands."""
    service, kind = address.place.service, stack.names.kinds[target]
    for member in sorted(stack.names.groups[service]):
        if port and stack.names.classify_listening(member, port, address.place.key):
            return f"{member} may listen on port {port} itself, by a variable of its own"
    if any(
        other.target == target
        and other.place.key == address.place.key
        and other.place.start != address.place.start
        for other in stack.addresses.get(service, ())
        if other.place.kind == address.place.kind == "environment"
    ):
        return f"{address.place.name} names {target} besides"
    if kind and _is_bundled(stack, address, kind):
        return f"{service} may run {kind} itself"
    if not stack.is_needed(service, target):
        if port == _MAIL_PORT:
            return f"{service} may have a mail server of its own"
        # A bare name cannot be asked, so that nothing else says whether it is right.
        if not (address.port or address.scheme) and (users := stack.list_users(target)):
            return f"{' and '.join(users)} may be what {target} is for"
    if user := stack.find_user(service, target):
        return f"{target} is for {user} by its name"
    outside = any(
        name == target and number == port
        for number, of in stack.names.published.items()
        for name, _, _ in of
    )
    if outside and _is_for_people(stack, address, target):
        return f"it may be for programs on the host, where {target} has port {port}"
    if address.scheme not in BROWSED:
        return ""
    published = any(name == target for name, _, _ in stack.names.published.get(port, ()))
    words = {*split_name(address.place.hint)}
    if published and kind and not KINDS[kind].internal and not words & _NEVER_SIGNED:
        return "browsers may be sent to it"
    if published and not kind and "internal" not in words:
        return "it may be for browsers"
    if not _is_named(stack, address, target, port):
        return f"{service} may have something on port {port} itself"
    return ""
