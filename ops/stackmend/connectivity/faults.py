"""The classes of trouble with the outside world, and whether trying again can help. Pure."""

from __future__ import annotations

from typing import Literal

#: What an endpoint, or the text of an error, is called. The first three are what a text alone can
#: say; a diagnosis tells which layer it is.
FaultName = Literal[
    "name",
    "timeout",
    "refused",
    "resolver",
    "dns-server",
    "dns-blocked",
    "route",
    "ipv6",
    "loss",
    "mtu",
    "docker-proxy",
    "proxy",
    "portal",
    "tls",
    "protocol",
    "clock",
    "reset",
    "empty-reply",
    "rate-limit",
    "outage",
    "denied",
    "absent",
]

#: Each class in words, as a report has it.
TITLES: dict[FaultName, str] = {
    "name": "the name does not resolve",
    "timeout": "no answer in time",
    "refused": "nothing listens there",
    "resolver": "the host's own resolver or cache",
    "dns-server": "one DNS server",
    "dns-blocked": "no DNS server answers, or port 53 is blocked",
    "route": "link or route",
    "ipv6": "IPv6 goes nowhere, while the name has IPv6 addresses",
    "loss": "packet loss",
    "mtu": "MTU: small packets arrive, large ones do not",
    "docker-proxy": "a port of this host that docker-proxy holds, with nothing behind it",
    "proxy": "the proxy",
    "portal": "a captive portal answers instead",
    "tls": "TLS",
    "protocol": "what answers there does not speak the protocol of the address",
    "clock": "the clock of the host",
    "reset": "something on the way resets the connection",
    "empty-reply": "something on the way closes the connection without an answer",
    "rate-limit": "the provider's rate limit",
    "outage": "an outage of the provider",
    "denied": "the provider denies it: no login, or not the right one",
    "absent": "the provider does not have it",
}


#: Those that may be over by themselves a moment later.
TRANSIENT: frozenset[FaultName] = frozenset(
    {
        "name",
        "timeout",
        "refused",
        "dns-server",
        "loss",
        "reset",
        "empty-reply",
        "outage",
        "rate-limit",
    }
)
