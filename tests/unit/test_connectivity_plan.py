"""The class of an endpoint: a pure function of what a host met.

Each scenario's plan lies as plain text below ``golden/connectivity_plan``. ``UPDATE_GOLDEN=1
pytest`` writes them anew; the difference is what is to be read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.connection import Unknown
from stackmend.connectivity.faults import TITLES, FaultName
from stackmend.connectivity.plan import classify_endpoints, find_pages, is_lossy, plan
from stackmend.connectivity.remedies import find_remedy
from stackmend.connectivity.spec import ConnectivityPolicy, Endpoint, StatusPage
from stackmend.connectivity.state import (
    Answer,
    Burst,
    Clock,
    Connect,
    EndpointState,
    HostConnectivity,
    Lookup,
    LookupStatus,
    ProviderStatus,
    RateLimit,
    View,
)
from tests.unit.rendering import render

GOLDEN = Path(__file__).parent / "golden" / "connectivity_plan"
FOUR, SIX = "192.0.2.10", "fd00:2::10"
NOBODY = Unknown("project ai has no running container with a network of its own")
RIGHT = Clock(asked=1000, now=1000, answered=1001)


def lookups(*servers: tuple[str, str], addresses: tuple[str, ...] = (FOUR,)) -> tuple[Lookup, ...]:
    return tuple(
        Lookup(
            server=server,
            status=status,  # type: ignore[arg-type]
            addresses=addresses if status == "answered" else (),
        )
        for server, status in servers
        for _ in range(3)
    )


GOOD = lookups(("", "answered"), ("192.0.2.53", "answered"))


def connects(status: str, address: str = FOUR) -> tuple[Connect, ...]:
    return (Connect(address=address, status=status),) * 3  # type: ignore[arg-type]


def answers(**fields: Any) -> tuple[Answer, ...]:
    return (Answer(**{"address": FOUR, "exit": 0, "status": 200, "connected": 1, **fields}),) * 3


def view(**fields: Any) -> View:
    well = {
        "lookups": GOOD,
        "routed": {FOUR: True},
        "connects": connects("connected"),
        "answers": answers(),
    }
    return View(**{**well, **fields})


def met(host: View | None = None, url: Any = "https://api.lan/", **fields: Any) -> EndpointState:
    return EndpointState(
        **{
            "endpoint": Endpoint.model_validate(url),
            "host": host or view(),
            "container": NOBODY,
            **fields,
        }
    )


def host(*endpoints: EndpointState, **fields: Any) -> HostConnectivity:
    well = {"routes": {4: True, 6: False}, "servers": ("192.0.2.53",), "clock": RIGHT}
    return HostConnectivity(**{**well, **fields}, endpoints=endpoints)


def failing(**fields: Any) -> EndpointState:
    return met(view(answers=answers(status=0, **fields)))


DARK = {"routed": {}, "connects": (), "answers": ()}
BOTH = {FOUR: True, SIX: True}
LATE = Clock(asked=1000, now=1000 - 86400, answered=1001)
EARLY = Clock(asked=1000, now=1000 + 86400, answered=1001)
REGISTRY = {"url": "https://hub.lan/v2/", "kind": "registry"}

#: What a host met, and what it is called.
SCENARIOS: dict[str, tuple[HostConnectivity, str]] = {
    "healthy": (host(met()), "healthy"),
    "resolver fails, servers answer": (
        host(met(view(lookups=lookups(("", "failed"), ("192.0.2.53", "answered")), **DARK))),
        "resolver",
    ),
    "a stale cache": (
        host(
            met(
                view(
                    lookups=(
                        *lookups(("", "answered"), addresses=("192.0.2.99",)),
                        *lookups(("192.0.2.53", "answered")),
                    ),
                    connects=(*connects("timeout", "192.0.2.99"), *connects("connected")),
                )
            )
        ),
        "resolver",
    ),
    "other addresses at each question": (
        host(
            met(
                view(
                    lookups=(
                        *lookups(("", "answered"), addresses=("192.0.2.98",)),
                        *lookups(("192.0.2.53", "answered")),
                    )
                )
            )
        ),
        "healthy",
    ),
    "a cache of the host that fails": (
        host(
            met(
                view(
                    lookups=lookups(
                        ("", "failed"), ("127.0.0.53", "failed"), ("192.0.2.53", "answered")
                    ),
                    **DARK,
                )
            )
        ),
        "resolver",
    ),
    "one server denies the name": (
        host(
            met(
                view(
                    lookups=lookups(
                        ("", "failed"), ("192.0.2.55", "absent"), ("192.0.2.53", "answered")
                    ),
                    **DARK,
                )
            )
        ),
        "dns-server",
    ),
    "one server is silent, the other is asked after it": (
        host(
            met(
                view(
                    lookups=lookups(
                        ("", "answered"), ("192.0.2.56", "timeout"), ("192.0.2.53", "answered")
                    )
                )
            )
        ),
        "dns-server",
    ),
    "split DNS behind the host's own cache": (
        host(
            met(
                view(
                    lookups=lookups(
                        ("", "answered"),
                        ("127.0.0.53", "answered"),
                        ("192.0.2.53", "answered"),
                        ("192.0.2.55", "absent"),
                    )
                )
            )
        ),
        "healthy",
    ),
    "no server answers, the link is up": (
        host(
            met(view(lookups=lookups(("", "timeout"), ("192.0.2.53", "timeout")), **DARK)),
            reached=("192.0.2.53",),
        ),
        "dns-blocked",
    ),
    "no server answers, nothing else does": (
        host(
            met(view(lookups=lookups(("", "timeout"), ("192.0.2.53", "timeout")), **DARK)),
            met(view(lookups=(), connects=connects("timeout"), answers=()), "https://192.0.2.10"),
        ),
        "route",
    ),
    "no default route": (
        host(
            met(view(lookups=lookups(("", "failed"), ("192.0.2.53", "unreachable")), **DARK)),
            routes={4: False, 6: False},
        ),
        "route",
    ),
    "the name does not exist": (
        host(met(view(lookups=lookups(("", "failed"), ("192.0.2.53", "absent")), **DARK))),
        "name",
    ),
    "nothing listens": (
        host(met(view(connects=connects("refused"), answers=answers(exit=7, status=0)))),
        "refused",
    ),
    "packets go nowhere": (
        host(met(view(connects=connects("timeout"), answers=answers(exit=28, status=0)))),
        "route",
    ),
    "packets are lost": (
        host(
            met(
                view(
                    bursts=(Burst(address=FOUR, handshakes=99, repeated=9, echoes=100, missing=6),)
                )
            ),
            repeated=12,
        ),
        "loss",
    ),
    "packets are lost, and no echo tells": (
        host(
            met(
                view(
                    connects=(
                        *connects("connected"),
                        Connect(address=FOUR, status="connected", ms=1010),
                    ),
                    bursts=(Burst(address=FOUR, handshakes=50, repeated=6, spells=4),),
                )
            ),
            repeated=12,
        ),
        "loss",
    ),
    "a queue that is full drops handshakes, no packet is lost": (
        host(
            met(
                view(
                    bursts=(Burst(address=FOUR, handshakes=50, repeated=12, spells=5, echoes=100),)
                )
            ),
            repeated=12,
        ),
        "healthy",
    ),
    "a full queue while many come, and no echo tells": (
        host(
            met(view(bursts=(Burst(address=FOUR, handshakes=50, repeated=12, spells=5),))),
            repeated=12,
        ),
        "healthy",
    ),
    "a server that hangs fills its queue": (
        host(
            met(
                view(
                    answers=answers(exit=28, status=0, error="timed out"),
                    bursts=(Burst(address=FOUR, handshakes=50, repeated=49, spells=1),),
                )
            ),
            repeated=60,
        ),
        "timeout",
    ),
    "packets are lost to an address that another endpoint has too": (
        host(
            met(),
            met(
                view(
                    bursts=(Burst(address=FOUR, handshakes=50, repeated=5, echoes=100, missing=9),)
                ),
                "http://api.lan/",
            ),
            repeated=12,
        ),
        "loss",
    ),
    "a reset on a lossy way": (
        host(
            met(
                view(
                    answers=answers(exit=56, status=0, error="Connection reset by peer"),
                    bursts=(Burst(address=FOUR, handshakes=50, repeated=5, echoes=100, missing=9),),
                )
            ),
            repeated=12,
        ),
        "reset",
    ),
    "429 on a lossy way": (
        host(
            met(
                view(
                    answers=answers(status=429),
                    bursts=(Burst(address=FOUR, handshakes=50, repeated=5, echoes=100, missing=9),),
                )
            ),
            repeated=12,
        ),
        "rate-limit",
    ),
    "a server of the host itself whose queue is full": (
        host(
            met(view(own=(FOUR,), connects=connects("timeout"), answers=answers(exit=28, status=0)))
        ),
        "timeout",
    ),
    "a DNS server answers REFUSED": (
        host(
            met(view(lookups=lookups(("", "failed"), ("192.0.2.53", "denied")), **DARK)),
            reached=("192.0.2.53",),
        ),
        "dns-server",
    ),
    "the host's own filter drops questions for DNS": (
        host(met(view(lookups=lookups(("", "failed"), ("192.0.2.53", "filtered")), **DARK))),
        "dns-blocked",
    ),
    "nothing listens on port 53": (
        host(met(view(lookups=lookups(("", "failed"), ("192.0.2.53", "refused")), **DARK))),
        "dns-blocked",
    ),
    "no route to the address": (
        host(met(view(routed={FOUR: False}, connects=(), answers=()))),
        "route",
    ),
    "something else than HTTP answers": (
        host(
            met(
                view(answers=answers(status=0, exit=1, error="Received HTTP/0.9 when not allowed")),
                "http://api.lan/",
            )
        ),
        "protocol",
    ),
    "headers that are none": (
        host(
            met(
                view(answers=answers(status=0, exit=8, error="Header without colon")),
                "http://api.lan/",
            )
        ),
        "protocol",
    ),
    "an exit without a class, over http": (
        host(met(view(answers=answers(status=0, exit=61, error="x")), "http://api.lan/")),
        "unknown",
    ),
    "curl was built without TLS": (
        host(failing(exit=1, error='Protocol "https" not supported or disabled in libcurl')),
        "unknown",
    ),
    "python3 has no TLS": (
        host(
            failing(
                exit=1,
                error="Traceback: File \"/usr/lib/python3/http/client.py\" No module named 'ssl'",
            )
        ),
        "unknown",
    ),
    "curl cannot load a library": (
        host(failing(exit=127, error="error while loading shared libraries: libnghttp2.so.14")),
        "unknown",
    ),
    "curl is killed": (host(failing(exit=137)), "unknown"),
    "the host's disk is full, over https": (
        host(failing(exit=23, error="Failed writing body")),
        "unknown",
    ),
    "the host's disk is full, over http": (
        host(
            met(
                view(answers=answers(status=0, exit=23, error="Failed writing body")),
                "http://api.lan/",
            )
        ),
        "unknown",
    ),
    "curl is killed once, and the others are reset": (
        host(
            met(
                view(
                    answers=(
                        Answer(address=FOUR, exit=137, connected=1),
                        *answers(exit=56, status=0, error="Connection reset by peer")[:2],
                    )
                )
            )
        ),
        "reset",
    ),
    "curl is killed in the container alone": (
        host(met(container=view(answers=answers(status=0, exit=137))), container="ai-api-1"),
        "healthy",
    ),
    "TLS to a port of plain HTTP": (
        host(failing(exit=35, error="error:0A00010B:SSL routines::wrong version number")),
        "tls",
    ),
    "a certificate that has expired": (
        host(failing(exit=60, error="SSL certificate problem: certificate has expired")),
        "tls",
    ),
    "a certificate for another name": (
        host(failing(exit=60, error="SSL: no alternative certificate subject name matches")),
        "tls",
    ),
    "large packets are lost": (
        host(
            met(view(answers=answers(exit=28, status=0, error="timed out"), small=True)),
        ),
        "mtu",
    ),
    "IPv6 goes nowhere": (
        host(
            met(
                view(
                    lookups=lookups(("", "answered"), addresses=(FOUR, SIX)),
                    routed=BOTH,
                    connects=(*connects("connected"), *connects("timeout", SIX)),
                )
            )
        ),
        "ipv6",
    ),
    "no way for IPv6": (
        host(met(view(lookups=GOOD, routed={FOUR: True, SIX: False}))),
        "healthy",
    ),
    "IPv6 connects and does not answer": (
        host(
            met(
                view(
                    routed=BOTH,
                    connects=(*connects("connected"), *connects("connected", SIX)),
                    answers=(*answers(), *answers(address=SIX, exit=28, status=0)),
                )
            )
        ),
        "ipv6",
    ),
    "a reset": (host(failing(exit=56, error="Connection reset by peer")), "reset"),
    "a reset within TLS": (host(failing(exit=35, error="Connection reset by peer")), "reset"),
    "an end within TLS": (host(failing(exit=35, error="SSL_ERROR_SYSCALL")), "empty-reply"),
    "an empty reply": (host(failing(exit=52, error="Empty reply from server")), "empty-reply"),
    "docker-proxy with nothing behind": (
        host(
            met(
                view(lookups=(), own=(FOUR,), answers=answers(exit=56, status=0)),
                "http://192.0.2.10:8080",
                forwarder=True,
            )
        ),
        "docker-proxy",
    ),
    "a proxy wants a password": (
        host(
            met(
                view(answers=answers(address="", exit=56, status=0, tunnel=407)),
                proxy="http://proxy.lan:3128",
            )
        ),
        "proxy",
    ),
    "a proxy that is not there": (
        host(
            met(
                view(answers=answers(address="", exit=7, status=0, connected=0)),
                proxy="http://proxy.lan:3128",
            )
        ),
        "proxy",
    ),
    "407 without a proxy": (host(met(view(answers=answers(status=407)))), "proxy"),
    "200 instead of 204": (
        host(met(url={"url": "http://api.lan/204", "statuses": [204]})),
        "portal",
    ),
    "a page instead of a registry": (
        host(met(view(answers=answers(headers={"content-type": "text/html"})), REGISTRY)),
        "portal",
    ),
    "a registry asks for a login": (
        host(met(view(answers=answers(status=401)), REGISTRY)),
        "healthy",
    ),
    "an untrusted certificate": (
        host(failing(exit=60, error="unable to get local issuer certificate")),
        "tls",
    ),
    "not yet valid, and the clock stands behind": (
        host(failing(exit=60, error="certificate is not yet valid"), clock=LATE),
        "clock",
    ),
    "expired, and the clock stands behind": (
        host(failing(exit=60, error="certificate has expired"), clock=LATE),
        "tls",
    ),
    "429": (
        host(met(view(answers=answers(status=429, headers={"retry-after": "77"})))),
        "rate-limit",
    ),
    "nothing remains of the rate limit": (
        host(
            met(
                view(answers=answers(status=401)),
                REGISTRY,
                rate=RateLimit(status=200, limit="100;w=21600", remaining="0;w=21600"),
            )
        ),
        "rate-limit",
    ),
    "503": (host(met(view(answers=answers(status=503)))), "outage"),
    "the server does not answer": (host(failing(exit=28)), "timeout"),
    "containers do not resolve": (
        host(
            met(
                container=view(
                    lookups=lookups(("127.0.0.11", "failed")), routed={}, connects=(), answers=()
                )
            ),
            container="ai-api-1",
        ),
        "resolver",
    ),
    "the proxy of containers wants a password": (
        host(
            met(
                container=View(
                    proxy="http://proxy.lan:3128",
                    answers=answers(address="", exit=56, status=0, tunnel=407),
                )
            ),
            container="ai-api-1",
        ),
        "proxy",
    ),
    "the proxy of containers answers": (
        host(
            met(container=View(proxy="http://proxy.lan:3128", answers=answers(address=""))),
            container="ai-api-1",
        ),
        "healthy",
    ),
    "containers do not reach": (
        host(
            met(
                container=view(
                    lookups=lookups(("127.0.0.11", "answered")),
                    connects=connects("timeout"),
                    answers=answers(exit=28, status=0),
                )
            ),
            container="ai-api-1",
        ),
        "route",
    ),
    "nothing could be looked at": (
        host(
            met(
                View(
                    skipped={
                        "DNS servers and TCP": "bash is not on the host",
                        "TLS and HTTP": "curl is not on the host",
                    }
                )
            )
        ),
        "unknown",
    ),
    "each try fails in another manner": (
        host(
            met(
                view(
                    answers=(
                        Answer(address=FOUR, exit=28, connected=1),
                        Answer(address=FOUR, exit=0, status=503, connected=1),
                        Answer(address=FOUR, exit=56, connected=1),
                    )
                )
            )
        ),
        "outage",
    ),
    "one of three tries fails": (
        host(met(view(answers=(*answers()[:2], Answer(address=FOUR, exit=28, connected=1))))),
        "healthy",
    ),
}


def test_a_healthy_host_is_silent() -> None:
    """What no echo and no container could add is told where something fails alone."""
    skipped = {"echo requests": "ping and python3 are not on the host"}
    for well, kinds in ((True, []), (False, ["empty-reply", "unchecked"])):
        fields = {} if well else {"answers": answers(exit=52, status=0)}
        found = met(view(skipped=skipped, **fields), container=Unknown("there is no stack"))
        decided = plan(ConnectivityPolicy(), host(found), {})
        assert [row.kind for row in decided.findings] == kinds
    assert len(decided.findings[1].evidence) == 2


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_has_one_class_and_says_why(name: str) -> None:
    state, fault = SCENARIOS[name]
    assert classify_endpoints(state)[0].fault == fault
    text = render(plan(ConnectivityPolicy(), state, {}), lambda action: ())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)


def test_each_class_has_a_remedy() -> None:
    assert set(TITLES) == set(get_args(FaultName))
    for fault in TITLES:
        assert find_remedy(fault, "host")
        assert find_remedy(fault, "container")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            "SSL: no alternative certificate subject name matches target host name 'expired-a.lan'",
            "name",
        ),
        ("certificate subject name (expired.lan) does not match target host name 'alert'", "name"),
        ("SSL: certificate subject name 'x' does not match target host name 'expired'", "name"),
        ("Hostname mismatch, certificate is not valid for 'not-yet-valid.lan'.", "name"),
        ("IP address mismatch, certificate is not valid for '192.0.2.7'.", "name"),
        ("looked at from container expired-api-1 unable to get local issuer certificate", "issuer"),
        ("SSL certificate problem: certificate has expired", "renew"),
        ("SSL certificate problem: certificate has expired, of the server's chain's", "renew"),
        ("SSL certificate problem: certificate is not yet valid", "wait"),
        ("error:0A000415:SSL routines::sslv3 alert certificate expired", "client"),
        ("error:0A000415:SSL routines::ssl/tls alert certificate expired", "client"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_REVOKED] x", "client"),
        ("error:0A000412:SSL routines::sslv3 alert bad certificate", "client"),
        ("error:0A00045C:SSL routines::tlsv13 alert certificate required", "client"),
        ("error:0A000418:SSL routines::tlsv1 alert unknown ca", "client"),
        ("error:0A00042E:SSL routines::tlsv1 alert protocol version", "ciphers"),
        ("error:0A000410:SSL routines::sslv3 alert handshake failure", "ciphers"),
    ],
)
def test_the_remedy_for_tls_goes_by_the_cause(text: str, remedy: str) -> None:
    starts = {
        "name": "correct the name",
        "issuer": "trust the certificate's issuer",
        "renew": "have the server's owner renew",
        "wait": "wait until",
        "client": "send the client certificate",
        "ciphers": "have the server speak",
    }
    assert find_remedy("tls", "host", (text,)).startswith(starts[remedy])
    # A clock that is away makes a certificate expire, and changes no name and nothing that is sent.
    for clock in (LATE, EARLY):
        (found,) = classify_endpoints(host(failing(exit=60, error=text), clock=clock))
        late = {"renew": EARLY, "wait": LATE}.get(remedy)
        assert found.fault == ("clock" if clock is late else "tls")


PAGE = StatusPage(provider="far", url="https://status.lan/", domains=("api.lan",))


@pytest.mark.parametrize(
    ("indicator", "fault", "outcome"),
    [
        ("major", {"exit": 56}, "outage"),
        ("critical", {"exit": 52}, "outage"),
        ("minor", {"exit": 56}, "reset"),
        ("none", {"exit": 28}, "timeout"),
        ("major", {"exit": 60, "error": "self-signed"}, "tls"),
    ],
)
def test_a_provider_explains_only_what_the_host_does_not(
    indicator: Any, fault: dict[str, Any], outcome: str
) -> None:
    state = host(failing(**fault))
    said = ProviderStatus(provider="far", indicator=indicator, text="as it is")
    (found,) = classify_endpoints(state, [PAGE], {"far": said})
    assert found.fault == outcome
    asked = find_pages(classify_endpoints(state), [PAGE])
    assert asked == (() if outcome == "tls" else (PAGE,))
    assert any("status page" in line for line in found.evidence) == bool(asked)


def test_no_page_is_asked_where_the_link_explains_it() -> None:
    dead = met(view(connects=connects("timeout"), answers=answers(exit=28, status=0)))
    assert find_pages(classify_endpoints(host(dead)), [PAGE]) == ()
    assert find_pages(classify_endpoints(host(dead, met())), [PAGE]) == (PAGE,)


def test_a_page_that_could_not_be_read_is_told() -> None:
    (found,) = classify_endpoints(host(failing(exit=56)), [PAGE], {"far": Unknown("HTTP 500")})
    assert found.fault == "reset"
    assert "HTTP 500" in found.evidence[-1]


def test_a_fault_fails_the_run_only_where_that_is_asked() -> None:
    state = host(failing(exit=56))
    assert plan(ConnectivityPolicy(), state, {}).empty
    assert not plan(ConnectivityPolicy(on_fault="fail"), state, {}).empty
    assert plan(ConnectivityPolicy(on_fault="fail"), host(met()), {}).empty


def test_a_clock_that_is_away_is_told_even_where_nothing_fails_of_it() -> None:
    decided = plan(ConnectivityPolicy(on_fault="fail"), host(met(), clock=LATE), {})
    assert [row.cause for row in decided.findings if row.subject == "clock"] == [
        "the host's clock is 86399 s behind the controller's"
    ]
    assert decided.empty


@given(st.integers(0, 100), st.integers(0, 99), st.integers(0, 99), st.integers(0, 9))
def test_no_loss_without_the_kernels_word(
    missing: int, repeated: int, late: int, segments: int
) -> None:
    burst = Burst(
        address=FOUR,
        handshakes=99,
        repeated=repeated,
        control=99,
        late=late,
        echoes=100,
        missing=missing,
    )
    assert not is_lossy(burst, 0, single=True)
    # Echoes that all come back tell that a server's own queue drops, whatever handshakes say.
    assert not is_lossy(burst.model_copy(update={"missing": 0}), segments, single=True)
    # Limited or unanswered echoes alone, and late handshakes in a row, are nothing.
    assert not is_lossy(burst.model_copy(update={"repeated": 0}), segments, single=True)
    silent = burst.model_copy(update={"echoes": 0, "missing": 0, "spells": 1})
    assert not is_lossy(silent, segments, single=True)
    assert not is_lossy(silent.model_copy(update={"spells": 9}), segments, single=False)
    # Half of the echoes lost, and hardly a handshake: who limits them is well.
    limited = burst.model_copy(update={"repeated": 2, "missing": 50})
    assert not is_lossy(limited, segments + 1, single=True)
    both = limited.model_copy(update={"repeated": 9, "missing": 10, "late": 0})
    assert is_lossy(both, segments + 1, single=False)
    # A host that is as late with itself is busy.
    assert not is_lossy(burst.model_copy(update={"late": max(1, repeated)}), segments, single=True)


_addresses = st.sampled_from((FOUR, SIX, "192.0.2.99"))
_texts = st.sampled_from(("", "reset by peer", "certificate has expired", "not yet valid", "x"))
_views = st.builds(
    View,
    lookups=st.lists(
        st.builds(
            Lookup,
            server=st.sampled_from(("", "127.0.0.53", "192.0.2.53", "192.0.2.54", "fe80::1")),
            status=st.sampled_from(get_args(LookupStatus)),
            addresses=st.lists(_addresses, max_size=2).map(tuple),
        ),
        max_size=6,
    ).map(tuple),
    routed=st.dictionaries(_addresses, st.booleans()),
    own=st.lists(_addresses, max_size=1).map(tuple),
    connects=st.lists(
        st.builds(
            Connect,
            address=_addresses,
            status=st.sampled_from(("connected", "refused", "unreachable", "timeout", "failed")),
        ),
        max_size=6,
    ).map(tuple),
    answers=st.lists(
        st.builds(
            Answer,
            address=st.one_of(_addresses, st.just("")),
            exit=st.sampled_from((0, 1, 5, 6, 8, 7, 18, 28, 35, 52, 56, 60, 77, 97)),
            status=st.sampled_from((0, 200, 204, 302, 401, 403, 404, 407, 429, 500, 511)),
            tunnel=st.sampled_from((0, 200, 407)),
            connected=st.integers(0, 1),
            error=_texts,
        ),
        max_size=6,
    ).map(tuple),
    bursts=st.lists(
        st.builds(Burst, address=_addresses, handshakes=st.just(99), repeated=st.integers(0, 99)),
        max_size=1,
    ).map(tuple),
    proxy=st.sampled_from(("", "http://proxy.lan:3128")),
    small=st.sampled_from((None, True, False)),
    skipped=st.just({}),
)
_states = st.builds(
    EndpointState,
    endpoint=st.sampled_from(
        (
            Endpoint.model_validate("https://api.lan"),
            Endpoint.model_validate("ssh://git.lan"),
            Endpoint.model_validate(REGISTRY),
            Endpoint.model_validate({"url": "http://192.0.2.10/204", "statuses": [204]}),
        )
    ),
    host=_views,
    container=st.one_of(st.just(NOBODY), _views),
    proxy=st.sampled_from(("", "http://proxy.lan:3128")),
    forwarder=st.booleans(),
    date=st.sampled_from((None, 0.0, 1000.0, 1e6)),
    rate=st.one_of(st.none(), st.builds(RateLimit, remaining=st.sampled_from(("", "0", "7")))),
)


@settings(deadline=None)
@given(
    st.lists(_states, max_size=3).map(tuple),
    st.integers(0, 9),
    st.sampled_from(((), ("192.0.2.53",))),
)
def test_every_state_has_exactly_one_class_for_each_endpoint(
    states: tuple[EndpointState, ...], repeated: int, servers: tuple[str, ...]
) -> None:
    state = host(*states, repeated=repeated, servers=servers, reached=servers)
    found = classify_endpoints(state)
    assert [one.endpoint for one in found] == [one.endpoint for one in states]
    for one, asked in zip(found, states, strict=True):
        if one.fault == "healthy":
            assert not one.evidence
        else:
            assert one.fault in {*TITLES, "unknown"}
            assert one.evidence
            assert all(line.isprintable() for line in one.evidence)
            assert one.remedy
        if isinstance(asked.container, Unknown):
            assert one.place == "host"
    assert plan(ConnectivityPolicy(), state, {}).empty


@given(_views)
def test_a_container_is_no_matter_where_the_host_itself_fails(inside: View) -> None:
    state = failing(exit=56)
    (alone,) = classify_endpoints(host(state))
    (both,) = classify_endpoints(host(state.model_copy(update={"container": inside})))
    assert both == alone
