"""Which layer is broken on the way to each endpoint: one class each. Pure.

A diagnosis goes from the lowest layer up, and stops at the first that explains what is above it.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import ip_address
from math import comb
from typing import Literal

from stackmend import decision
from stackmend.connection.unknown import Unknown
from stackmend.connectivity.faults import TITLES, FaultName
from stackmend.connectivity.remedies import drop_names, find_remedy
from stackmend.connectivity.spec import ConnectivityPolicy, Endpoint, StatusPage
from stackmend.connectivity.state import (
    Answer,
    Burst,
    Connect,
    EndpointState,
    HostConnectivity,
    Lookup,
    ProviderStatus,
    View,
)
from stackmend.decision import Finding
from stackmend.frozen import Frozen

#: Seconds that a clock may be away before certificates suffer.
SKEW = 60.0

#: The faults that a provider's outage may be behind, as far as the host can tell.
_MAYBE_THEIRS: frozenset[FaultName] = frozenset(
    {"timeout", "refused", "route", "reset", "empty-reply", "outage"}
)

#: Milliseconds after which a handshake was not answered at once: kernels send again after a second.
REPEATED_AFTER = 900

#: Why nothing is looked at from a container, where there is none to look from.
NO_STACK = "there is no stack"

#: Bytes of a body after which its rest is no matter: full packets arrive.
LONG_BODY = 16384

#: How curl exits by what a server, a proxy or the way there does; by all else nobody was asked.
_MET = frozenset(
    {5, 6, 7, 8, 16, 18, 28, 35, 51, 52, 53, 54, 55, 56, 58, 59, 60, 63, 64, 66, 77, 80, 82, 83}
    | {90, 91, 92, 97}
)
#: What it calls a protocol that it does not take.
_OTHER_PROTOCOL = re.compile(r"HTTP/[0-9]|HTTP version")

Result = tuple[FaultName, tuple[str, ...]]


class Diagnosis(Frozen):
    """What became of one endpoint.

    :param endpoint: the endpoint.
    :param fault: its one class, or ``healthy``; ``unknown`` where nothing that was looked at fails,
        and nothing proves that it answers.
    :param place: where it was met: on the host, or only in a container.
    :param evidence: what was seen that says so, line by line.
    :param remedy: what would mend it.
    """

    endpoint: Endpoint
    fault: FaultName | Literal["healthy", "unknown"]
    place: Literal["host", "container"] = "host"
    evidence: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def cause(self) -> str:
        """The class in words."""
        if self.fault == "healthy":
            return "healthy"
        if self.fault == "unknown":
            return "whether it answers could not be looked at"
        title = TITLES[self.fault]
        return f"{title}, in containers alone" if self.place == "container" else title


class Plan(decision.Plan[decision.Action]):
    """What was found; there is nothing to do."""


def plan(
    policy: ConnectivityPolicy,
    state: HostConnectivity,
    providers: Mapping[str, ProviderStatus | Unknown],
) -> Plan:
    """What is told about a host: a finding for each endpoint in trouble, and for what is unknown.

    :param policy: says whether a fault fails the operation.
    :param state: what was met.
    :param providers: what the providers that were asked say of themselves, by their names.
    """
    findings = [
        Finding(
            subject=found.endpoint.origin,
            kind=found.fault,
            cause=found.cause,
            evidence=found.evidence,
            remedy=found.remedy,
            blocks=policy.on_fault == "fail",
        )
        for found in classify_endpoints(state, policy.status_pages, providers)
        if found.fault != "healthy"
    ]
    findings += _find_skew(state, findings)
    return Plan(findings=(*findings, *_find_unchecked(state, well=not findings)))


def classify_endpoints(
    state: HostConnectivity,
    pages: Iterable[StatusPage] = (),
    providers: Mapping[str, ProviderStatus | Unknown] | None = None,
) -> tuple[Diagnosis, ...]:
    """The class of each endpoint, in their order.

    :param state: what was met.
    :param pages: the providers' pages, which tell whose endpoint it is.
    :param providers: what the providers that were asked say of themselves, by their names.
    """
    known = providers or {}
    return tuple(
        _add_provider(_classify_endpoint(found, state), pages, known) for found in state.endpoints
    )


def find_pages(
    diagnoses: Iterable[Diagnosis], pages: Sequence[StatusPage]
) -> tuple[StatusPage, ...]:
    """The pages that may explain what the host cannot: no other is asked.

    :param diagnoses: what is known without them.
    :param pages: those that there are.
    """
    known = list(diagnoses)
    # Where nothing is reached the link explains it.
    linked = any(found.fault == "healthy" for found in known)
    open_ = [
        found
        for found in known
        if found.fault in _MAYBE_THEIRS
        and found.place == "host"
        and (linked or found.fault != "route")
    ]
    return tuple(page for page in pages if any(page.is_for(found.endpoint.host) for found in open_))


def _add_provider(
    found: Diagnosis,
    pages: Iterable[StatusPage],
    providers: Mapping[str, ProviderStatus | Unknown],
) -> Diagnosis:
    if found.fault not in _MAYBE_THEIRS or found.place != "host":
        return found
    for page in pages:
        answer = providers.get(page.provider)
        if answer is None or not page.is_for(found.endpoint.host):
            continue
        if isinstance(answer, Unknown):
            line = f"{page.provider}'s status page could not be read: {answer.reason}"
            return found.model_copy(update={"evidence": (*found.evidence, line)})
        line = f"{page.provider}'s status page says {answer.indicator}: {answer.text}".rstrip(": ")
        fault = "outage" if answer.indicator in ("major", "critical") else found.fault
        remedy = find_remedy(fault, "host", found.evidence)
        return found.model_copy(
            update={"fault": fault, "remedy": remedy, "evidence": (*found.evidence, line)}
        )
    return found


def _classify_endpoint(found: EndpointState, state: HostConnectivity) -> Diagnosis:
    endpoint = found.endpoint
    outside = _Classifier(found, found.host, state, inside=False)
    result = outside.classify()
    place: Literal["host", "container"] = "host"
    if result is None and not outside.is_proven():
        unmade = _list_unmade(found.host)
        return Diagnosis(
            endpoint=endpoint,
            fault="unknown",
            evidence=("nothing that was looked at fails", *unmade),
            remedy="mend curl or python3 on the host, whichever asks there, or what it lacks: "
            "space, memory, a library, TLS"
            if unmade
            else "install curl and bash on the host, or look again while it is less busy",
        )
    if result is None and isinstance(found.container, View):
        result = _Classifier(found, found.container, state, inside=True).classify()
        place = "container"
    if result is None:
        return Diagnosis(endpoint=endpoint, fault="healthy")
    fault, evidence = result
    if place == "container":
        evidence = (
            f"the host itself reaches it; looked at from container {state.container}",
            *evidence,
        )
    remedy = find_remedy(fault, place, evidence)
    return Diagnosis(endpoint=endpoint, fault=fault, place=place, evidence=evidence, remedy=remedy)


def _find_skew(state: HostConnectivity, findings: Sequence[Finding]) -> Iterable[Finding]:
    skew = state.clock.skew
    if abs(skew) > SKEW and not any(finding.kind == "clock" for finding in findings):
        yield Finding(
            subject="clock",
            kind="clock",
            cause=f"the host's clock is {_format_skew(skew)} the controller's",
            remedy=find_remedy("clock", "host"),
            blocks=False,
        )


def _find_unchecked(state: HostConnectivity, *, well: bool) -> Iterable[Finding]:
    """What could not be looked at; echoes, and containers of no stack, only where one fails."""
    reasons: dict[str, list[str]] = {}
    for found in state.endpoints:
        for layer, reason in found.host.skipped.items():
            if well and layer == "echo requests":
                continue
            reasons.setdefault(f"{layer}: {reason}", []).append(found.endpoint.origin)
        for line in _list_unmade(found.host):
            reasons.setdefault(f"TLS and HTTP: {line}", []).append(found.endpoint.origin)
        if any(burst.late for burst in found.host.bursts):
            line = "packet loss: the host is so busy that it is late with itself"
            reasons.setdefault(line, []).append(found.endpoint.origin)
        if isinstance(found.container, Unknown):
            if well and found.container.reason == NO_STACK:
                continue
            reasons.setdefault(f"from containers: {found.container.reason}", [])
        else:
            for layer, reason in found.container.skipped.items():
                line = f"{layer}, from the container: {reason}"
                reasons.setdefault(line, []).append(found.endpoint.origin)
            for line in _list_unmade(found.container):
                line = f"TLS and HTTP, from the container: {line}"
                reasons.setdefault(line, []).append(found.endpoint.origin)
    if reasons:
        yield Finding(
            subject="connectivity",
            kind="unchecked",
            cause="not every layer could be looked at",
            evidence=tuple(
                reason + (f" ({', '.join(origins)})" if len(origins) == 1 else "")
                for reason, origins in sorted(reasons.items())
            ),
            blocks=False,
        )


def _is_made(answer: Answer) -> bool:
    """Whether an exchange came to its end, or to one that the host's own tool is no reason of."""
    if answer.exit == 1:
        return bool(_OTHER_PROTOCOL.search(answer.error))
    return not answer.exit or answer.exit in _MET or answer.tunnel >= 400


def _list_unmade(view: View) -> Collection[str]:
    """What the host's own tools failed of."""
    return dict.fromkeys(
        f"{row.address or 'the proxy'}: {row.error or 'the tool that asks was ended'} "
        f"(exit {row.exit})"
        for row in view.answers
        if not _is_made(row)
    )


class _Classifier:
    """One endpoint from one place, layer by layer."""

    def __init__(
        self, found: EndpointState, view: View, state: HostConnectivity, *, inside: bool
    ) -> None:
        self.found = found
        self.endpoint = found.endpoint
        self.view = view
        self.state = state
        self.inside = inside
        self.own = frozenset(view.own)
        self.answers = tuple(filter(_is_made, view.answers))
        self.proxy = view.proxy if inside else found.proxy

    def classify(self) -> Result | None:
        """The fault, with its evidence; ``None`` where there is none."""
        layers: tuple[Callable[[], Result | None], ...] = (
            (self.classify_names, self.classify_route, self.classify_exchanges)
            if not self.proxy
            else (self.classify_answers,)
        )
        for classify in (*layers, self.classify_rate, self.classify_ipv6):
            if (result := classify()) is not None:
                return result
        return None

    def is_proven(self) -> bool:
        """Whether something shows that the endpoint answers, and not only that nothing fails."""
        if self.endpoint.scheme == "tcp" and not self.found.proxy:
            return any(connect.status == "connected" for connect in self.view.connects)
        return any(self._classify_answer(answer) is None for answer in self.answers)

    def classify_names(self) -> Result | None:
        """The resolver and the DNS servers."""
        if self.endpoint.is_address:
            return None
        system = [lookup for lookup in self.view.lookups if not lookup.server]
        raw = _group(lookup for lookup in self.view.lookups if lookup.server)
        caches = {server: asked for server, asked in raw.items() if _is_loopback(server)}
        servers = {server: asked for server, asked in raw.items() if server not in caches}
        if self.inside and not servers:
            # Docker's own server, which asks the others for the container.
            servers, caches = caches, {}
        resolves = any(lookup.status == "answered" for lookup in system)
        good = {server for server, asked in servers.items() if _has_answered(asked)}
        bad = sorted(set(servers) - good)
        evidence = tuple(_format_lookups(server, asked) for server, asked in raw.items())
        if system:
            evidence = (_format_lookups("", system), *evidence)
        if resolves or (not system and good):
            if bad and good and not caches:
                return "dns-server", evidence
            return self._classify_cache(system, servers, evidence)
        if self.inside:
            if good:
                return None
            return self._classify_servers(servers, evidence, "resolver") if servers else None
        if good:
            return ("dns-server" if bad else "resolver"), evidence
        if not servers and any(_has_answered(asked) for asked in caches.values()):
            return "resolver", evidence
        if not raw:
            return self._classify_unasked(system, evidence)
        return self._classify_servers(servers or caches, evidence, "dns-server")

    def _classify_unasked(
        self, system: Sequence[Lookup], evidence: tuple[str, ...]
    ) -> Result | None:
        """No DNS server was asked itself, and the system's resolver does not answer."""
        if not self.state.servers:
            return "resolver", (*evidence, "the host is set to use no DNS server")
        if not system:
            return None
        return "name", evidence

    def _classify_servers(
        self,
        servers: Mapping[str, Sequence[Lookup]],
        evidence: tuple[str, ...],
        otherwise: FaultName,
    ) -> Result:
        """None of the servers has an address for the name."""
        statuses = {lookup.status for asked in servers.values() for lookup in asked}
        if statuses <= {"absent", "none"}:
            return "name", evidence
        if self.inside:
            return "resolver", evidence
        if not statuses <= {"timeout", "refused", "filtered", "unreachable"}:
            return otherwise, evidence
        if statuses == {"unreachable"} or (
            self.state.routes and not any(self.state.routes.values())
        ):
            return "route", (*evidence, "the host has no route to any of them")
        alive = self._find_alive()
        if alive or statuses & {"refused", "filtered"}:
            return "dns-blocked", (*evidence, *([f"{alive} by address"] if alive else []))
        if alive is None:
            line = "no address could be tried without a name: the link itself may be down"
            return "dns-blocked", (*evidence, line)
        return "route", (*evidence, "no address that was tried answers either")

    def _find_alive(self) -> str | None:
        """What answers by its address; empty where nothing that was tried does, ``None`` where
        nothing was tried."""
        for server in self.state.reached:
            if _is_loopback(server):
                continue
            return f"{server} answers to TCP on port 53"
        tried = False
        for other in self.state.endpoints:
            for connect in other.host.connects:
                tried = True
                if (
                    connect.status in ("connected", "refused")
                    and connect.address not in other.host.own
                ):
                    return f"{connect.address} answers"
        return "" if tried or self.state.servers else None

    def _classify_cache(
        self,
        system: Sequence[Lookup],
        servers: Mapping[str, Sequence[Lookup]],
        evidence: tuple[str, ...],
    ) -> Result | None:
        """A resolver that answers with addresses that no server knows, and that lead nowhere."""
        old = _list_addresses(system)
        new = _list_addresses(lookup for asked in servers.values() for lookup in asked)
        if not old or set(new) <= set(old):
            return None
        leads = {connect.address for connect in self.view.connects if connect.status == "connected"}
        tried = {connect.address for connect in self.view.connects}
        # Many names have other addresses at each question: only what was tried says anything.
        if not leads & set(new) or leads & set(old) or not tried & set(old):
            return None
        wrong = any(set(_list_addresses(asked)) & set(old) for asked in servers.values())
        return "dns-server" if wrong else "resolver", evidence

    def classify_route(self) -> Result | None:
        """Routes, and whether anything answers to a connection."""
        results = {family: self._classify_family(family) for family in (4, 6)}
        if any(result == "connected" for result in results.values()):
            fault = results[4]
            if fault not in (None, "connected", "no way"):
                return fault  # type: ignore[return-value]
            return None
        for family in (4, 6):
            result = results[family]
            if isinstance(result, tuple):
                return result
        if "no way" in results.values():
            none = ", ".join(address for address, known in self.view.routed.items() if not known)
            return "route", (f"the host has no route to any of its addresses: {none}",)
        return None

    def _classify_family(self, family: int) -> Result | str | None:
        connects = [
            connect for connect in self.view.connects if _get_family(connect.address) == family
        ]
        routed = [
            known for address, known in self.view.routed.items() if _get_family(address) == family
        ]
        if routed and not any(routed):
            return "no way"
        if not connects:
            return None
        statuses = {connect.status for connect in connects}
        if "connected" in statuses:
            return "connected"
        evidence = tuple(_format_connects(connects))
        if statuses == {"refused"}:
            return "refused", evidence
        if statuses == {"timeout"} and self.own >= {connect.address for connect in connects}:
            line = "the address is the host's own: its queue is full, or the host's filter drops"
            return "timeout", (*evidence, line)
        return "route", evidence

    def classify_exchanges(self) -> Result | None:
        """What an answer says itself; else packets that are lost while others arrive."""
        answers = self.classify_answers()
        if answers is None or answers[0] in ("timeout", "mtu"):
            return self.classify_loss() or answers
        return answers

    def classify_loss(self) -> Result | None:
        """Packets that are lost while others arrive: a matter of an address, not of its ports."""
        if self.inside:
            return None
        connected = {found.address for found in self.view.connects if found.status == "connected"}
        late = {
            address
            for other in self.state.endpoints
            for address, ms in (
                *((found.address, found.ms) for found in other.host.connects),
                *((found.address, found.connected) for found in other.host.answers),
            )
            if ms >= REPEATED_AFTER
        }
        for burst in (burst for other in self.state.endpoints for burst in other.host.bursts):
            if burst.address in connected and is_lossy(
                burst, self.state.repeated, single=burst.address in late
            ):
                return "loss", tuple(_format_burst(burst, self.state.repeated))
        return None

    def classify_answers(self) -> Result | None:
        """TLS, HTTP, and what stands between: by what most of the samples show."""
        fallback: Result | None = None
        for family in (4, 6):
            answers = [
                answer
                for answer in self.answers
                if (_get_family(answer.address) if answer.address else 4) == family
            ]
            if not answers:
                continue
            faults = [self._classify_answer(answer) for answer in answers]
            bad = [fault for fault in faults if fault is not None]
            if len(bad) * 2 <= len(faults):
                return None
            # Where they differ, one that is late says least.
            most = max(dict.fromkeys(bad), key=lambda fault: (bad.count(fault), fault != "timeout"))
            lines = dict.fromkeys(
                _format_answer(answer)
                for answer, fault in zip(answers, faults, strict=True)
                if fault == most
            )
            count = f"{faults.count(most)} of {len(faults)} tries"
            fallback = fallback or (most, (*lines, count, *self._explain(most)))
        return fallback

    def _explain(self, fault: FaultName) -> Iterable[str]:
        if fault == "clock":
            yield from self._list_skews()
        if fault == "proxy" and self.proxy:
            whose = "of builds and containers (docker's config.json) " if self.inside else ""
            yield f"the proxy {whose}is {self.proxy}"
        if fault == "docker-proxy":
            yield f"docker-proxy listens on port {self.endpoint.port} of this host"
        if fault == "mtu":
            yield "an answer comes once its packets are made small"
        if fault == "timeout" and self.view.small is None:
            yield "whether a smaller MTU cures it could not be tried"

    def _classify_answer(self, answer: Answer) -> FaultName | None:
        # A body that came for so long is not to be read to its end.
        late = answer.exit in (28, 63) and answer.received >= LONG_BODY
        well = not answer.exit or late
        fault = self._classify_status(answer) if well else self._classify_exit(answer)
        if (
            fault in ("reset", "empty-reply")
            and self.found.forwarder
            and answer.address in self.own
        ):
            return "docker-proxy"
        return fault

    def _classify_exit(self, answer: Answer) -> FaultName:
        text = answer.error.lower()
        unmet = self.proxy and not answer.connected and not answer.tunnel
        if answer.tunnel >= 400 or unmet:
            return "proxy"
        match answer.exit:
            case 5 | 97:
                return "proxy"
            case 6:
                return "name"
            case 7:
                return "refused"
            case 28:
                return "mtu" if self.view.small else "timeout"
            case 35 if "reset" in text:
                return "reset"
            case 35 if re.search(r"syscall|unexpected eof|end of file|zero return", text):
                return "empty-reply"
            case 18 | 52:
                return "empty-reply"
            case 16 | 55 | 56 | 92:
                return "reset"
            case 1 | 8:
                return "protocol"
        if self.endpoint.scheme != "https":
            return "protocol"
        return "clock" if self._is_clock(text) else "tls"

    def _is_clock(self, text: str) -> bool:
        """Whether a certificate is out of its time because the host's clock is."""
        skews = self._find_skews()
        text = drop_names(text)
        if "alert" in text:
            # It is the server that says so.
            return False
        if "not yet valid" in text:
            return any(skew < -SKEW for skew in skews.values())
        return "expired" in text and any(skew > SKEW for skew in skews.values())

    def _find_skews(self) -> dict[str, float]:
        """Seconds that the host is ahead of others, by whose clock."""
        clock = self.state.clock
        skews = {"the controller's": clock.skew}
        if self.found.date is not None:
            skews["the server's"] = clock.now - self.found.date
        return skews

    def _list_skews(self) -> Iterable[str]:
        for whose, skew in self._find_skews().items():
            if abs(skew) > SKEW:
                yield f"the host's clock is {_format_skew(skew)} {whose}"

    def _classify_status(self, answer: Answer) -> FaultName | None:
        status = answer.status
        if status == 407:
            return "proxy"
        if status == 429:
            return "rate-limit"
        if status == 511:
            return "portal"
        if status in self.endpoint.statuses or not status:
            return None
        if status >= 500:
            return "outage"
        if self.endpoint.statuses:
            if status < 400:
                return "portal"
            return "denied" if status in (401, 403) else "absent"
        if self.endpoint.kind == "registry":
            return _classify_registry(answer)
        html = answer.headers.get("content-type", "").lower().startswith("text/html")
        if self.endpoint.kind == "packages":
            if status < 400:
                return "portal" if html else None
            return "denied" if status in (401, 403) else "absent"
        return None

    def classify_rate(self) -> Result | None:
        """What a registry says is left of its rate limit."""
        rate = self.found.rate
        if rate is None or self.inside:
            return None
        if rate.status == 429 or _parse_first(rate.remaining) == 0:
            headers = {"limit": rate.limit, "remaining": rate.remaining, "reset": rate.reset}
            lines = tuple(f"{name} {value}" for name, value in headers.items() if value)
            return "rate-limit", (f"HTTP {rate.status}", *lines)
        return None

    def classify_ipv6(self) -> Result | None:
        """IPv6 that goes nowhere while IPv4 is well."""
        if self.inside or self.found.proxy:
            return None
        six = [connect for connect in self.view.connects if _get_family(connect.address) == 6]
        four = any(
            connect.status == "connected" and _get_family(connect.address) == 4
            for connect in self.view.connects
        )
        routed = any(
            known for address, known in self.view.routed.items() if _get_family(address) == 6
        )
        if not four or not routed or not six:
            return None
        if not any(connect.status == "connected" for connect in six):
            return "ipv6", (*_format_connects(six), "IPv4 connects")
        answers = [answer for answer in self.answers if _get_family(answer.address) == 6]
        if answers and all(
            self._classify_answer(answer) not in (None, "rate-limit") for answer in answers
        ):
            return "ipv6", (*dict.fromkeys(map(_format_answer, answers)), "IPv4 answers")
        return None


def is_lossy(burst: Burst, repeated: int, *, single: bool) -> bool:
    """Whether so much is lost that chance, a busy host or server, or limited echoes are no reason.

    :param burst: what was exchanged with one address.
    :param repeated: the segments that the host's kernel sent again meanwhile.
    :param single: whether one of the few other connections with it was late, too.
    """
    # A host that is too busy to shake its own hand in time is late with others', too.
    busy = burst.late / max(burst.control, 1)
    if burst.late and burst.repeated < max(0.2, 3 * busy) * burst.handshakes:
        return False
    # The kernel's own count, which is one for all that it speaks with, has to agree.
    late = min(burst.repeated, repeated)
    if not late or burst.repeated == burst.handshakes:
        return False
    if burst.missing < burst.echoes:
        # A server whose queue of connections is full drops what opens one, and answers echoes; who
        # limits echoes loses more of these. Both have to be one rate.
        rate = burst.missing / burst.echoes
        return burst.missing >= 2 and rate >= 0.02 and _compute_chance(burst, rate) >= 0.005
    # A full queue drops in a row, and only while many come.
    return burst.spells >= 3 and late >= 3 and single


def _compute_chance(burst: Burst, rate: float) -> float:
    """How likely so few late handshakes are, or fewer, at a rate of loss."""
    return sum(
        comb(burst.handshakes, count) * rate**count * (1 - rate) ** (burst.handshakes - count)
        for count in range(burst.repeated + 1)
    )


def _classify_registry(answer: Answer) -> FaultName | None:
    kind = answer.headers.get("content-type", "").lower()
    is_registry = "docker-distribution-api-version" in answer.headers or "json" in kind
    if answer.status == 401 or (answer.status == 200 and is_registry):
        return None
    if answer.status < 400:
        return "portal" if not is_registry and ("html" in kind or answer.status >= 300) else None
    return "denied" if answer.status == 403 else "absent" if answer.status == 404 else None


def _group(lookups: Iterable[Lookup]) -> dict[str, list[Lookup]]:
    found: dict[str, list[Lookup]] = {}
    for lookup in lookups:
        found.setdefault(lookup.server, []).append(lookup)
    return found


def _has_answered(asked: Iterable[Lookup]) -> bool:
    return any(lookup.status == "answered" for lookup in asked)


def _list_addresses(lookups: Iterable[Lookup]) -> list[str]:
    return list(dict.fromkeys(address for lookup in lookups for address in lookup.addresses))


def _get_family(address: str) -> int:
    return 6 if ":" in address else 4


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _parse_first(text: str) -> int | None:
    """The number that a header of rate limits begins with: ``76;w=21600``."""
    found = re.match(r"\s*(\d{1,9})", text)
    return int(found[1]) if found else None


_STATUSES = {
    "answered": "answers",
    "none": "says that it has no address",
    "absent": "says that it does not exist",
    "failed": "answers that it failed",
    "denied": "answers that it refuses (REFUSED)",
    "refused": "is refused by ICMP: nothing listens on UDP port 53, or a firewall rejects",
    "filtered": "cannot be asked: the host's own packet filter drops the question",
    "timeout": "does not answer in time",
    "unreachable": "cannot be reached",
    "unreadable": "answers what is no DNS",
}


def _format_lookups(server: str, asked: Sequence[Lookup]) -> str:
    # An absent family is no trouble where the other one is there.
    relevant = [lookup for lookup in asked if lookup.status != "none"] or asked
    statuses = [lookup.status for lookup in relevant]
    parts = [
        f"{_STATUSES[status]} ({statuses.count(status)} of {len(relevant)})"
        for status in dict.fromkeys(statuses)
    ]
    addresses = ", ".join(_list_addresses(asked)[:4])
    subject = f"DNS server {server}" if server else "the system's resolver"
    return f"{subject} {', '.join(parts)}{f': {addresses}' if addresses else ''}"


def _format_connects(connects: Iterable[Connect]) -> Iterable[str]:
    statuses: dict[str, list[str]] = {}
    for connect in connects:
        statuses.setdefault(connect.address, []).append(connect.status)
    for address, found in statuses.items():
        parts = [
            f"{status} ({found.count(status)} of {len(found)})" for status in dict.fromkeys(found)
        ]
        yield f"TCP to {address}: {', '.join(parts)}"


def _format_answer(answer: Answer) -> str:
    place = f"{answer.address}: " if answer.address else ""
    if answer.exit:
        status = f", HTTP {answer.tunnel} to CONNECT" if answer.tunnel >= 400 else ""
        return f"{place}{answer.error or 'no answer'} (curl {answer.exit}{status})"
    extra = [
        f"{name} {answer.headers[name]}"
        for name in (
            "location",
            "retry-after",
            "ratelimit-remaining",
            "x-ratelimit-remaining",
            "ratelimit-reset",
            "x-ratelimit-reset",
            "proxy-authenticate",
            "via",
            "server",
        )
        if name in answer.headers
    ]
    return ", ".join([f"{place}HTTP {answer.status}", *extra])


def _format_burst(burst: Burst, repeated: int) -> Iterable[str]:
    if burst.echoes:
        rate = 100 * burst.missing / burst.echoes
        yield (
            f"{burst.missing} of {burst.echoes} echo requests to {burst.address} are lost: "
            f"{rate:.0f} %"
        )
    if burst.handshakes:
        rate = 100 * burst.repeated / burst.handshakes
        yield (
            f"{burst.repeated} of {burst.handshakes} TCP handshakes with {burst.address} lost a "
            f"packet: {rate:.0f} %"
        )
    yield f"the kernel sent {repeated} segments again meanwhile"


def _format_skew(skew: float) -> str:
    return f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'}"
