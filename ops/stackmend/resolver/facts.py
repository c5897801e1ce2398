"""Probe text to state: by what a host resolves names, and what servers and caches answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, cast, get_args

from pyinfra.api import FactBase, StringCommand

from stackmend.connection import make_mark, parse_probe, parse_sections, script
from stackmend.resolver.dns import make_question, parse_answer
from stackmend.resolver.state import (
    Answers,
    Cache,
    CacheName,
    Connection,
    HostCaches,
    HostResolver,
    Link,
    Reply,
    ResolvConf,
)

Sections = dict[str, tuple[int, list[str]]]

#: The files that the probe prints, in its order.
FILES = (
    "/etc/systemd/resolved.conf.d/60-stackmend.conf",
    "/etc/resolvconf.conf",
    "/etc/resolvconf/resolv.conf.d/head",
    "/etc/dhcp/dhclient-enter-hooks.d/zz-stackmend",
    "/etc/dhcpcd.conf",
    "/etc/wsl.conf",
    "/etc/tmpfiles.d/60-stackmend-resolver.conf",
)

#: The code of an answer that is cut short.
_CUT = -2

#: What Python's ``int`` takes of a number that a host prints.
_DIGITS = 12


class Resolver(FactBase[HostResolver]):
    """By what a host resolves names: who owns its resolver, and what that one says.

    + names: names that its own resolver is asked for, side by side

    Reads only, in one command; needs root to see all of it.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.resolver.facts.Resolver names=example.com
    """

    _mark = ""
    _names: tuple[str, ...] = ()

    def command(self, names: Sequence[str] = ()) -> StringCommand:
        """The probe, with its arguments quoted."""
        self._mark, self._names = make_mark(), tuple(names)
        return script("stackmend.resolver", "probe", *self._names, mark=self._mark)

    def process(self, output: list[str]) -> HostResolver:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(
            lambda lines: parse(lines, self._mark, self._names), output, "the resolver"
        )


class ServerAnswers(FactBase[Answers]):
    """What DNS servers answer to a host, each asked for itself and over UDP.

    + servers: their addresses
    + names: the names to ask for

    Reads only; takes three seconds for a server that is silent, whatever the number of names.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.resolver.facts.ServerAnswers servers=192.0.2.53 names=a.example
    """

    _mark = ""
    _names: tuple[str, ...] = ()

    def command(self, servers: Sequence[str], names: Sequence[str]) -> StringCommand:
        """The probe, with its arguments quoted."""
        self._mark, self._names = make_mark(), tuple(names)
        return script(
            "stackmend.resolver",
            "ask",
            *(str(len(servers)), *servers, *_make_questions(names, self._mark)),
            mark=self._mark,
            before=["query.bash", "asking"],
        )

    def process(self, output: list[str]) -> Answers:
        """What the servers answered.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(
            lambda lines: parse_answers(lines, self._mark, self._names), output, "DNS servers"
        )


class Caches(FactBase[HostCaches]):
    """The DNS caches that run on a host, and what they and the servers behind them answer.

    + names: the names to ask for

    Reads only, in one command.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.resolver.facts.Caches names=example.com
    """

    _mark = ""
    _names: tuple[str, ...] = ()

    def command(self, names: Sequence[str]) -> StringCommand:
        """The probe, with its arguments quoted."""
        self._mark, self._names = make_mark(), tuple(names)
        return script(
            "stackmend.resolver",
            "caches",
            *_make_questions(names, self._mark),
            mark=self._mark,
            before=["query.bash", "asking"],
        )

    def process(self, output: list[str]) -> HostCaches:
        """The caches that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(
            lambda lines: parse_caches(lines, self._mark, self._names), output, "DNS caches"
        )


def _make_questions(names: Iterable[str], mark: str) -> Iterator[str]:
    for name in names:
        identity = _identify(name, mark)
        yield from (name, make_question(name, 4, identity), make_question(name, 6, identity))


def _identify(name: str, mark: str) -> bytes:
    """The two bytes by which an answer of this reading is known."""
    return hashlib.sha256(f"{mark} {name}".encode()).digest()[:2]


def _read(output: list[str], mark: str) -> Sections:
    found = parse_sections(output, mark)
    if "missing" in found:
        raise ValueError(
            "the host has no bash, od, dd, timeout or getent, with which servers are asked"
        )
    if "whole" not in found:
        raise ValueError("it did not run to its end")
    return found


def _index(lines: Iterable[str]) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for line in lines:
        word, _, value = line.partition(" ")
        words.setdefault(word, []).append(value)
    return words


def parse(output: list[str], mark: str, names: Sequence[str] = ()) -> HostResolver:
    """The state that the probe printed.

    :raises ValueError: the probe did not run to its end.
    """
    found = _read(output, mark)
    words = _index(found["host"][1])
    servers, domains = (_parse_scopes(found, name) for name in ("dns", "domain"))
    return HostResolver(
        root=words["root"] == ["0"],
        file=ResolvConf(
            target=words["target"][0],
            mounted="mounted" in words,
            attributes="".join(words.get("attributes", ())),
            kind=cast("Any", "".join(words.get("kind", ["file"])[:1])),
            closed="".join(words.get("closed", ())[:1]),
            text="".join(f"{line}\n" for line in found["text"][1]),
        ),
        mode=_parse_property(found, "mode"),
        running=tuple(words.get("running", ())),
        startup="".join(words.get("startup", ())[:1]),
        dns=_parse_property(found, "dns-mode"),
        resolvconf="".join(words.get("resolvconf", ())[:1]),
        wsl="wsl" in words,
        tools=tuple(words.get("tool", ())),
        servers=servers.get("", ()),
        domains=domains.get("", ()),
        links=tuple(_parse_links(found, servers, domains)),
        connections=tuple(_parse_connections(found)),
        records=_parse_records(_list_lines(found, "records")),
        searches=_parse_records(_list_lines(found, "searches")),
        routes=dict(_parse_pairs(_list_lines(found, "routes"))),
        files={
            path: "".join(f"{line}\n" for line in found[f"file{number}"][1])
            for number, path in enumerate(FILES, 1)
            if f"file{number}" in found
        },
        armed="".join(words["armed"][:1]),
        resolved=tuple(name for name in names if name in found["resolved"][1])
        if "resolved" in found
        else None,
    )


def _list_lines(found: Sections, name: str) -> list[str]:
    return found[name][1] if name in found else []


def _parse_property(found: Sections, name: str) -> str:
    """A text as busctl prints it: ``s "stub"``."""
    line = "".join(_list_lines(found, name)[:1])
    return line[3:-1] if line.startswith('s "') and line.endswith('"') else ""


def _parse_scopes(found: Sections, name: str) -> dict[str, tuple[str, ...]]:
    """Link → what resolvectl prints of it; the empty name is systemd-resolved itself."""
    scopes = {}
    for line in _list_lines(found, name):
        scope, separator, values = line.partition(":")
        if not separator:
            continue
        link = scope.partition("(")[2].rstrip(")") if scope.startswith("Link ") else ""
        if link or scope == "Global":
            scopes[link] = tuple(values.split())
    return scopes


def _parse_links(
    found: Sections,
    servers: Mapping[str, tuple[str, ...]],
    domains: Mapping[str, tuple[str, ...]],
) -> Iterator[Link]:
    default = set(found["default"][1])
    lasting: dict[tuple[str, str], list[str]] = {}
    for line in _list_lines(found, "lasting"):
        name, _, rest = line.partition(" ")
        source, _, named = rest.partition(" ")
        own = lasting.setdefault((name, source), [])
        if not named.split():
            own.clear()
        own.extend(_parse_server(server) for server in named.split())
    for line in found["links"][1]:
        kind, _, rest = line.partition(" ")
        name, _, network = rest.partition(" ")
        yield Link(
            name=name,
            servers=servers.get(name, ()),
            domains=domains.get(name, ()),
            network=network,
            lasting=(*lasting.get((name, "file"), ()), *lasting.get((name, "lease"), ())),
            tunnel=kind == "tunnel",
            default=name in default,
        )


def _parse_server(text: str) -> str:
    """The address of a server as systemd takes it, which may have a port, a link and a TLS name.

    One at another port is another server, and stays as it is.
    """
    server = text.partition("#")[0].partition("%")[0]
    if server.startswith("[") or server.count(":") == 1:
        host, _, port = server.rpartition(":")
        if port == "53":
            server = host
        server = server.removeprefix("[").removesuffix("]")
    try:
        return str(ip_address(server))
    except ValueError:
        return text


def _parse_connections(found: Sections) -> Iterator[Connection]:
    settings: dict[str, dict[str, str]] = {}
    for line in _list_lines(found, "settings"):
        uuid, _, rest = line.partition(" ")
        key, _, value = rest.partition(":")
        own = settings.setdefault(uuid, {})
        if key.startswith(("IP4.DNS", "IP6.DNS")):
            # What it has now, from its profile or from a lease.
            own[f"ipv{key[2]}.has-dns"] = "yes"
            own["dns"] = f"{own['dns']},{value}" if "dns" in own else value
        else:
            own[key] = value.replace(" ", "")
    for line in _list_lines(found, "connections"):
        parts = line.split(":", 3)
        if len(parts) == 4:
            uuid, kind, device, path = parts
            yield Connection(
                uuid=uuid, kind=kind, device=device, path=path, settings=settings.get(uuid, {})
            )


def _parse_records(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    records: dict[str, tuple[str, ...]] = {}
    for server, link in _parse_pairs(lines):
        records[link] = (*records.get(link, ()), server)
    return records


def _parse_pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        first, separator, second = line.partition(" ")
        if separator and second:
            yield first, second


def parse_answers(output: list[str], mark: str, names: Sequence[str]) -> Answers:
    """What the servers answered.

    :raises ValueError: the probe did not run to its end.
    """
    found = _read(output, mark)
    replies: dict[str, dict[str, Reply]] = {}
    for line in found["answers"][1]:
        words = line.split(" ")
        if len(words) >= 4 and words[1] in names:
            known = replies.setdefault(words[0], {})
            _add(known, words[1], words[3], mark, late=words[4:] == ["late"])
            if words[3]:
                known.setdefault(words[1], Reply(code=-1))
    return Answers(replies={server: known for server, known in replies.items() if known})


def _add(replies: dict[str, Reply], name: str, text: str, mark: str, *, late: bool = False) -> None:
    """Add one answer for a name to that for its other family."""
    reply = parse_answer(text, name, _identify(name, mark))
    if reply is None:
        return
    before = replies.get(name)
    if before is None:
        replies[name] = reply.model_copy(update={"late": late})
        return
    # Answers come in any order: the sum of both must not depend on it.
    addresses = tuple(sorted({*before.addresses, *reply.addresses}, key=_sort_key))
    codes = (before.code, reply.code)
    code = 0 if addresses else _CUT if _CUT in codes else max(codes)
    replies[name] = Reply(code=code, addresses=addresses, late=late or before.late)


def _sort_key(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)


def parse_caches(output: list[str], mark: str, names: Sequence[str]) -> HostCaches:
    """The caches that the probe printed.

    :raises ValueError: the probe did not run to its end.
    """
    found = _read(output, mark)
    host = _index(found["host"][1])
    caches: dict[CacheName, Cache] = {}
    asked: set[tuple[str, str]] = set()
    upstream: dict[str, list[str]] = {}
    cached: dict[str, dict[str, Reply]] = {}
    raw: dict[str, dict[str, dict[str, Reply]]] = {}
    for line in found["caches"][1]:
        words = line.split(" ")
        if words[0] not in get_args(CacheName) or len(words) < 3:
            continue
        name = cast("CacheName", words[0])
        if words[1] == "size":
            size = words[2] if words[2].isascii() and words[2].isdecimal() else ""
            caches[name] = Cache(name=name, size=int(size[:_DIGITS]) if size else None)
        elif words[1] == "upstream":
            upstream.setdefault(name, []).append(words[2])
        elif words[1] == "asked":
            asked.add((name, words[2]))
        elif words[2] not in names:
            continue
        elif words[1] == "looked":
            addresses = _list_addresses(words[3:])
            cached.setdefault(name, {})[words[2]] = Reply(
                code=0 if addresses else 3, addresses=addresses
            )
        elif len(words) >= 5:
            replies = (
                cached.setdefault(name, {})
                if words[1] == "cached"
                else raw.setdefault(name, {}).setdefault(words[1], {})
            )
            _add(replies, words[2], words[4], mark)
    if "wsl" in host:
        caches["windows"] = Cache(name="windows")
    if "system" in host:
        caches["macos"] = Cache(name="macos")
    routed = {
        domain.lstrip("~").lower()
        for domains in _parse_scopes(found, "domain").values()
        for domain in domains
    } - {"", "."}
    filled = []
    for cache in caches.values():
        compared = tuple(
            name for name in names if (cache.name, name) in asked and not _is_below(name, routed)
        )
        own, behind = cached.get(cache.name, {}), raw.get(cache.name, {})
        heard = {
            name: tuple(behind[server][name] for server in sorted(behind) if name in behind[server])
            for name in compared
        }
        update = {
            "upstream": tuple(upstream.get(cache.name, ())),
            "names": compared,
            "cached": {name: own[name] for name in compared if name in own},
            "raw": {name: known for name, known in heard.items() if known},
        }
        filled.append(cache.model_copy(update=update))
    return HostCaches(root=host["root"] == ["0"], caches=tuple(filled))


def _list_addresses(words: Sequence[str]) -> tuple[str, ...]:
    found = []
    for word in words:
        try:
            found.append(str(ip_address(word)))
        except ValueError:
            continue
    return tuple(sorted(dict.fromkeys(found), key=_sort_key))


def _is_below(name: str, domains: Iterable[str]) -> bool:
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)
