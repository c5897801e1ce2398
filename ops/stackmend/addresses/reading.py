"""Reads every address that a project's services have for each other. Pure."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stackmend.addresses.applications import list_overruled
from stackmend.addresses.files import LARGEST, flatten
from stackmend.addresses.kinds import (
    BROWSED,
    SCHEME_PORTS,
    is_address_name,
    is_known_scheme,
    is_loopback,
)
from stackmend.addresses.networks import Networks
from stackmend.addresses.normalization import normalize, to_number
from stackmend.addresses.state import Address, ImageFacts, Kind, Place, Side

#: A longer value is data, and no address.
LONGEST = 16 * 1024

# Bounded, so that a long value takes no longer than it is long.
_HOST = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?"
_PIECE = re.compile(rf"(?P<host>{_HOST})\.?(?::(?P<port>\d{{1,5}}))?")
_URL = re.compile(
    r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,40})://(?P<authority>[^\s/?#\"'<>`]*)"
)
_NEXT_SCHEME = re.compile(r"[,;|]?[A-Za-z][A-Za-z0-9+.-]{0,40}:$")
_PATH = re.compile(r"/[^\s?#\"'<>`,;]*")
# Not within a longer name, path or login; what has no letter and no dot is no host.
_HOST_AND_PORT = re.compile(rf"(?<![\w.:/@%$\[-])(?P<host>{_HOST}):(?P<port>\d{{1,5}})(?![\w.:@-])")
_LOGIN = re.compile(
    rf"(?<![^\s,;=])[^\s:@/]{{1,128}}:[^\s@]{{1,256}}@(?P<host>{_HOST}):(?P<port>\d{{1,5}})(?![\w:@-])"
)
#: ``host=db port=5432`` and ``Server=db,1433;``.
_KEYWORDS = re.compile(
    rf"(?i)(?<![\w.-])(?:host|hostaddr|server|data source|addr)\s*=\s*(?P<host>{_HOST})"
    r"(?:[,:](?P<port>\d{1,5}))?(?=[\s;&'\"]|$)"
)
_KEYWORD_PORT = re.compile(r"(?i)(?<![\w.-])port\s*=\s*(\d{1,5})(?!\d)")
_BARE = re.compile(rf"\s*(?P<quote>[\"']?)(?P<host>{_HOST})(?P=quote)\s*")

#: Schemes of what lies in no network of the project.
_ELSEWHERE = frozenset(
    "arn aws azure blob data file git gs gcs hdfs jar mailto npipe oci s3 sqlite ssh unix".split()
)
#: What stands before the scheme of a database that is in no container of its own.
_OTHER_JDBC = re.compile(r"(?i)jdbc:[a-z0-9]+:$")
_PORT_NAME = re.compile(r"(?i)(host_?name|host|server|addr(?:ess)?|endpoint)$")

#: Names of variables whose value goes to browsers, or is compared and never connected to.
_PUBLIC = re.compile(
    r"(?i)public|external|expose|webserver|origin|cors|webhook|callback|redirect|advertis|issuer|cookie|domain"
    r"|allow|trusted|whitelist|bypass|browser|frontend|dashboard|logout|login_url|oauth|openid|oidc"
    r"|(?:^|_)sso(?:_|$)|presign|share|(?:^|_)link"
    r"|(?:nextauth|webui|site|app|root|trigger|files|client|home|web|auth|ui)_url|console.*url"
    r"|^(?:next_public|vite|react_app|vue_app|nuxt_public|expo_public|gatsby|ng_app)_"
    r"|^(?:base_url|server_url|hostname|domain|virtual_host|server_name|kc_hostname.*)$"
)
_ADVERTISED = re.compile(r"(?i)advertis")
#: Names of variables whose values are compared, or said to others as they are.
_COMPARED = re.compile(
    r"(?i)cors|origin|cookie|domain|allow|trusted|whitelist|bypass|advertis|listen|bind"
    r"|virtual_host|server_name"
)
_INTERNAL = re.compile(r"(?i)internal|server_?side|private|backchannel")
#: Names of variables that say where the service itself listens.
_BIND = re.compile(
    r"(?i)listen|bind|^host$|^hostname$|^address$|^addr$"
    r"|(?:^|_)(?:http|https|grpc|web|api|app|uvicorn|gunicorn|flask|server)_(?:host|addr|address)$"
)
_NO_ADDRESS = re.compile(r"(?i)no_?proxy|(?:^|_)(?:image|tag|version|label|title)$")

_FLAG = re.compile(r"-{1,2}[A-Za-z][\w.-]*")
_ASSIGNED = re.compile(r"(?P<key>-{0,2}[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)
_SCRIPT = re.compile(r"-[A-Za-z]*c")


class Unread(NamedTuple):
    """A value that may hold an address and is too long to be read.

    :param name: the variable, the part of the service, or the path of a mounted file.
    :param size: its length, in characters; of a file in bytes.
    :param limit: the longest that is read.
    """

    service: str
    name: str
    size: int
    limit: int


class _Found(NamedTuple):
    """An address in a value."""

    start: int
    end: int
    host: str
    port: int = 0
    explicit: bool = False
    scheme: str = ""
    driver: str = ""
    login: str = ""
    path: str = ""
    bare: bool = False


class _Word(NamedTuple):
    """A word of a command: in which item, where in it, and what names it."""

    item: int
    offset: int
    name: str
    value: str


def read(
    config: Mapping[str, Any],
    images: Mapping[str, ImageFacts] | None = None,
    mounted: Mapping[str, bytes] | None = None,
) -> tuple[Address, ...]:
    """Every address that a service has: in its environment, its commands and its healthcheck.

    Nothing is thought of them: what is no service of the project is read as well. A variable that
    its application does not read, because another takes its place, is not.

    :param config: what ``docker compose config --format json`` gives, ``$$`` unescaped.
    :param images: what images bring, by the name that services have for them; for an image that is
        built without a name, ``PROJECT-SERVICE``.
    :param mounted: the content of files that services mount, by their path on the host; what is not
        among them is not read.

    Example:
        >>> config = {"services": {"api": {"environment": {"URL": "redis://:p@localhost"}}}}
        >>> [(one.host, one.port, one.url) for one in read(config)]
        [('localhost', 6379, 'redis://***@localhost')]
        >>> config = {"services": {"api": {"environment": {"URL": "redis://redis"}}, "redis": {}}}
        >>> [(one.target, one.networks) for one in read(config)]
        [('redis', ('default',))]
    """
    images = images or {}
    config = normalize(config)
    services: Mapping[str, Mapping[str, Any]] = config["services"]
    targets = list_targets(services)
    found: list[Address] = []
    for name, body in services.items():
        image = str(body.get("image") or f"{config.get('name', '')}-{name}")
        brought = images[image].env if image in images else {}
        own = {key: str(value) for key, value in (body.get("environment") or {}).items()
               if value is not None}  # fmt: skip
        both = {**brought, **own}
        overruled = list_overruled(body, both)
        for key, value in both.items():
            if key in overruled:
                continue
            kind: Kind = "environment" if key in own else "image"
            found += _read_pair(name, kind, key, value, both)
        for part, words in (
            ("entrypoint", body.get("entrypoint")),
            ("command", body.get("command")),
            ("healthcheck", (body.get("healthcheck") or {}).get("test")),
        ):
            found += _read_words(name, part, words)  # type: ignore[arg-type]
        for source in list_mounted(config, name):
            if source in (mounted or {}):
                found += _read_file(name, source, (mounted or {})[source])
    joined = Networks(services, str(config.get("name") or ""))
    return tuple(_set_target(address, targets, joined) for address in found)


def _set_target(address: Address, targets: Mapping[str, str], joined: Networks) -> Address:
    """An address of a service of the project, which no browser knows and nobody else listens on."""
    place = address.place
    # Of several services that have a name, the one that it leads to from there.
    found = joined.resolve(place.service, address.host)
    linked = joined.list_linked(place.service).get(address.host, "")
    target = found[0] if found else linked or targets.get(address.host, "")
    if not target:
        return address
    shared = joined.list_shared(place.service, target, address.host)
    update: dict[str, Any] = {"target": target, "networks": shared}
    port = address.explicit or address.port_place or address.scheme
    if (
        address.side in ("browser", "bind")
        and port
        and place.kind not in ("image", "healthcheck")
        and target != place.service
        and "." not in address.host
        and not is_loopback(address.host)
        and not _COMPARED.search(place.hint)
    ):
        update["side"] = "server"
    return address.model_copy(update=update)


def list_unread(
    config: Mapping[str, Any], mounted: Mapping[str, bytes] | None = None
) -> tuple[Unread, ...]:
    """What may hold an address and is too long to be read.

    :param config: as for :func:`read`.
    :param mounted: as for :func:`read`.

    Example:
        >>> value = "redis://localhost/" + "x" * 20000
        >>> config = {"services": {"api": {"environment": {"URL": value}}}}
        >>> [(one.service, one.name, one.size) for one in list_unread(config)]
        [('api', 'URL', 20018)]
    """
    config = normalize(config)
    found = []
    for service, body in config["services"].items():
        for key, value in (body.get("environment") or {}).items():
            text = str(value or "")
            if len(text) > LONGEST and _has_address(key, text):
                found.append(Unread(service, key, len(text), LONGEST))
        for part in ("entrypoint", "command"):
            words = body.get(part) or ()
            for text in map(str, words if isinstance(words, list) else [words]):
                if len(text) > LONGEST and _has_address("", text):
                    found.append(Unread(service, part, len(text), LONGEST))
        for source in list_mounted(config, service):
            size = len((mounted or {}).get(source, b""))
            if size > LARGEST:
                found.append(Unread(service, source, size, LARGEST))
    return tuple(found)


def _has_address(key: str, text: str) -> bool:
    start = text[:LONGEST]
    return not _NO_ADDRESS.search(key) and bool(
        is_address_name(key) or _URL.search(start) or _HOST_AND_PORT.search(start)
    )


def list_targets(services: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The names that services have somewhere, in lower case, each with the first that has it."""
    found = {name.lower(): name for name in services}
    for name, body in services.items():
        aliases = [
            str(alias)
            for settings in (body.get("networks") or {}).values()
            for alias in (settings or {}).get("aliases") or ()
        ]
        for alias in (body.get("container_name"), body.get("hostname"), *aliases):
            if alias:
                found.setdefault(str(alias).lower(), name)
    return found


def list_mounted(config: Mapping[str, Any], name: str) -> list[str]:
    """The paths on the host that a service mounts: bind mounts, and the files of its configs."""
    body = (config.get("services") or {}).get(name) or {}
    paths = [
        str(mount["source"])
        for mount in body.get("volumes") or ()
        if isinstance(mount, Mapping) and mount.get("type") == "bind" and mount.get("source")
    ]
    for item in body.get("configs") or ():
        definition = (config.get("configs") or {}).get(item.get("source", "")) or {}
        if definition.get("file"):
            paths.append(str(definition["file"]))
    return paths


def _read_pair(
    service: str, kind: Kind, key: str, value: str, siblings: Mapping[str, str]
) -> Iterator[Address]:
    """The addresses in the value of a variable, whose port may be another variable's."""
    for found in find_addresses(key, value):
        port_key = _PORT_NAME.sub(lambda match: _match_case("port", match[0]), key)
        beside = siblings.get(port_key, "") if port_key != key and not found.explicit else ""
        place = Place(service=service, kind=kind, key=key, start=found.start, end=found.end)
        port_place = None
        port = beside.strip("\"' ")
        if found.bare and 0 < to_number(port) < 65536:
            start = beside.index(port)
            port_place = Place(
                service=service, kind=kind, key=port_key, start=start, end=start + len(port)
            )
            found = found._replace(port=to_number(port))
        yield _make_address(place, value, found, key, port_place)


def _match_case(word: str, like: str) -> str:
    return word.upper() if like.isupper() else word


def _read_words(service: str, kind: Kind, words: Any) -> Iterator[Address]:
    """The addresses in a command."""
    items = [str(word) for word in words] if isinstance(words, list) else [str(words or "")]
    listed = list(_split_words(items, script=not isinstance(words, list) or kind == "healthcheck"))
    flags = {word.name: word for word in listed if word.name}
    for word in listed:
        for found in find_addresses(word.name, word.value):
            if found.bare and not is_address_name(word.name):
                continue
            start = word.offset + found.start
            place = Place(
                service=service,
                kind=kind,
                key=str(word.item),
                start=start,
                end=start + len(items[word.item][start : word.offset + found.end]),
                word=word.name,
            )
            port_place = None
            beside = flags.get(
                _PORT_NAME.sub(lambda match: _match_case("port", match[0]), word.name)
            )
            if found.bare and beside is not None and beside is not word:
                port = beside.value
                if 0 < to_number(port) < 65536:
                    port_place = place.model_copy(
                        update={
                            "key": str(beside.item),
                            "start": beside.offset,
                            "end": beside.offset + len(port),
                        }
                    )
                    found = found._replace(port=to_number(port))
            yield _make_address(place, items[word.item], found, word.name, port_place)


def _split_words(items: Sequence[str], *, script: bool) -> Iterator[_Word]:
    """The words of a command, those of a shell's script in it one by one."""
    before, previous = "", ""
    for index, item in enumerate(items):
        if len(item) > LONGEST:
            before = previous = ""
            continue
        if script or _SCRIPT.fullmatch(previous) or re.search(r"\s", item):
            pieces = list(_split_script(item))
        else:
            pieces = [(0, item)]
        previous = item
        for offset, text in pieces:
            if match := _ASSIGNED.fullmatch(text):
                name = match["key"].strip("-").replace("-", "_")
                yield _Word(index, offset + match.start("value"), name, match["value"])
                before = ""
            else:
                yield _Word(index, offset, before, text)
                is_flag = _FLAG.fullmatch(text)
                before = text.strip("-").replace("-", "_") if is_flag else ""


def _split_script(text: str) -> Iterator[tuple[int, str]]:
    """The words of a shell's script and where they stand; those put together by quotes are left."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    at = 0
    try:
        for word in lexer:
            start = text.find(word, at)
            if start >= 0:
                yield start, word
                at = start + len(word)
    except ValueError:
        # A quote that does not end: the shell would refuse it.
        return


def _read_file(service: str, source: str, content: bytes) -> Iterator[Address]:
    """The addresses in a mounted configuration file."""
    values = flatten(source, content)
    for key, value in values.items():
        for address in _read_pair(service, "file", key, value, values):
            yield address.model_copy(
                update={"place": address.place.model_copy(update={"file": source})}
            )


def find_addresses(key: str, value: str) -> Iterator[_Found]:
    """The addresses in one value.

    :param key: the name of the variable or of the flag, which says whether a bare name is a host.
    """
    if not value or len(value) > LONGEST or _NO_ADDRESS.search(key) or _is_prose(key, value):
        return
    taken: list[tuple[int, int]] = []
    if "://" in value:
        at = 0
        while url := _URL.search(value, at):
            at = _find_end(url, value)
            taken.append((url.start(), at))
            yield from _find_in_url(url, value, at)
    patterns = (_HOST_AND_PORT,) if "://" in value else (_HOST_AND_PORT, _LOGIN)
    for pattern in patterns if ":" in value else ():
        for match in pattern.finditer(value):
            start, end = match.start("host"), match.end("port")
            if any(start < other and begin < end for begin, other in taken):
                continue
            port, host = int(match["port"]), match["host"]
            if 0 < port < 65536 and _is_host(host):
                taken.append((start, end))
                login = value[match.start() : start]
                yield _Found(start, end, host, port, True, login=login)
    if "=" in value:
        beside = _KEYWORD_PORT.search(value)
        for match in _KEYWORDS.finditer(value):
            start = match.start("host")
            end = match.end("port") if match["port"] else match.end("host")
            if any(start < other and begin < end for begin, other in taken):
                continue
            port = int(match["port"] or (beside[1] if beside else 0))
            if port < 65536 and _is_host(match["host"]):
                yield _Found(start, end, match["host"], port, bool(match["port"]))
    if taken or not is_address_name(key):
        return
    bare = _BARE.fullmatch(value)
    if bare is not None and _is_host(bare["host"]):
        yield _Found(bare.start("host"), bare.end("host"), bare["host"], bare=True)


def _is_prose(key: str, value: str) -> bool:
    """Whether a value is a text for people, which may speak of an address."""
    words = value.split()
    return (
        len(words) > 1
        and not is_address_name(key)
        and words[0][0] not in "[{"
        and any(not re.search("[:=/]", word) for word in words)
    )


def _find_end(match: re.Match[str], value: str) -> int:
    """Where the authority of a URL ends: another of a list may begin in what looks like it."""
    start, end = match.span("authority")
    authority = match["authority"]
    if match["scheme"].lower() == "sqlserver":
        return start + len(authority.partition(";")[0])
    if value[end : end + 2] == "//" and (cut := _NEXT_SCHEME.search(authority)):
        return start + cut.start()
    return end


def _find_in_url(match: re.Match[str], value: str, end: int) -> Iterator[_Found]:
    """The hosts of a URL, of which there may be several."""
    scheme, _, driver = match["scheme"].lower().partition("+")
    if scheme == "db" and driver:
        # As Celery has a database for its results.
        scheme, _, driver = driver.partition("+")
    if value[: match.start()].lower().endswith("jdbc:"):
        driver = "jdbc"
    if scheme in _ELSEWHERE or _OTHER_JDBC.search(value, 0, match.start()):
        return
    authority = value[match.start("authority") : end]
    at = authority.rfind("@") + 1
    if not at and ":" in authority and "@" in re.split(r"[\s\"'<>`,;]", value[end:], maxsplit=1)[0]:
        # A password that holds what ends an authority: where the host begins cannot be told.
        return
    login = authority[:at]
    path = _PATH.match(value, end)
    for piece in re.finditer(r"[^,;]+", authority[at:]):
        found = _PIECE.fullmatch(piece[0])
        if found is None or not 0 < int(found["port"] or 1) < 65536 or not _is_host(found["host"]):
            continue
        if not found["port"] and not is_known_scheme(scheme):
            # A vault's path, an application's own link: no host that anybody looks up.
            continue
        start = match.start("authority") + at + piece.start()
        yield _Found(
            start,
            start + len(piece[0]),
            found["host"],
            int(found["port"] or SCHEME_PORTS.get(scheme, 0)),
            found["port"] is not None,
            scheme,
            driver,
            login,
            path[0] if path else "",
        )


def _is_host(text: str) -> bool:
    """Whether a text is a host, and no number."""
    return not text.isdecimal() and (
        text.count(".") == 3 or re.search("[A-Za-z:]", text) is not None
    )


def _make_address(
    place: Place, value: str, found: _Found, key: str, port_place: Place | None
) -> Address:
    user, _, password = found.login.removesuffix("@").partition(":")
    text = value[place.start : place.end]
    scheme = f"{found.scheme}://" if found.scheme else ""
    return Address(
        place=place,
        text=text,
        scheme=found.scheme,
        driver=found.driver,
        host=found.host.strip("[]").lower().removesuffix("."),
        port=found.port,
        port_place=port_place,
        explicit=found.explicit,
        side=find_side(place.hint, found.scheme, bare=found.bare),
        user=user not in ("", "default"),
        password=bool(password),
        path=found.path,
        url=f"{scheme}{'***@' if found.login else ''}{text}",
    )


def find_side(name: str, scheme: str = "", *, bare: bool = False) -> Side:
    """Who connects to an address, by the name of what holds it.

    >>> find_side("LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT")
    'browser'
    >>> find_side("INTERNAL_FILES_URL"), find_side("LISTEN_HOST")
    ('server', 'bind')
    """
    if _INTERNAL.search(name):
        return "server"
    if _BIND.search(name):
        return "bind"
    if _PUBLIC.search(name) and (scheme in ("", *BROWSED) or _ADVERTISED.search(name)):
        return "browser"
    return "unknown" if bare and not name else "server"
