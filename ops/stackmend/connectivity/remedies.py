"""What would mend each class of trouble. Pure."""

import re
from collections.abc import Iterable
from typing import Literal

from stackmend.connectivity.faults import FaultName

_HOST: dict[FaultName, str] = {
    "name": "check the name's spelling, or add it to the DNS zone that is to have it",
    "timeout": "check the server: it accepts connections and does not answer",
    "refused": "start the service there, or correct the port",
    "resolver": 'give the stack a section "resolver", or restart the host\'s resolver and flush '
    "its cache",
    "dns-server": 'take the server out of the host\'s resolver, or mend it: "resolver": '
    '{"servers": [...]}',
    "dns-blocked": "let UDP and TCP port 53 to the DNS servers through, or name others that "
    'the host reaches: "resolver": {"servers": [...]}',
    "route": "check the link, the default route, and the firewalls between",
    "ipv6": "mend the host's IPv6 route, or take its IPv6 address and route away until it works",
    "loss": "check the link: cable, radio, a shaper, a firewall that drops at random",
    "mtu": "set the MTU that the path carries on the link, and let ICMP 'fragmentation needed' "
    "through",
    "docker-proxy": "start what is to listen in the container that publishes the port, or correct "
    "the published port",
    "proxy": "correct the proxy's address, user and password where the program that fails reads "
    "them: dockerd, ~/.docker/config.json, or the build",
    "portal": "log in on the network's own page, or have the host let through without it",
    "tls": "trust the certificate's issuer on the host, or have the server send the right "
    "certificate",
    "protocol": "correct the scheme or the port of the address: another program answers there",
    "clock": "set the host's clock, and keep it right: chrony or systemd-timesyncd",
    "reset": "let the firewall or middlebox on the way pass it, or ask the provider",
    "empty-reply": "check the server, and the proxy or middlebox on the way that closes",
    "rate-limit": "wait for the reset, log in to the provider, or use a mirror",
    "outage": "wait for the provider, or use a mirror",
    "denied": "log in with an account that may read it",
    "absent": "correct the address: the server has nothing there",
}

_CONTAINER: dict[FaultName, str] = {
    "resolver": 'give Docker servers that containers reach: engine settings, "dns": [...]; '
    "containers take them once they are restarted",
    "dns-server": "restart the container: it keeps the DNS servers of the time when it started",
    "route": "let the host forward for Docker's networks: net.ipv4.ip_forward, the FORWARD and "
    "DOCKER-USER chains",
    "proxy": 'correct "proxies" in ~/.docker/config.json of the user whom docker runs as; '
    "containers take it once they are made anew",
    "timeout": "let the host forward for Docker's networks, and check their MTU",
    "mtu": "give the compose network the path's MTU: driver_opts, com.docker.network.driver.mtu",
}

#: What TLS says of itself, and what mends that; the issuer is a matter of none of them.
_TLS = (
    (
        r"wrong[ _]version[ _]number|packet length too long|unexpected tls packet|http[ _]request"
        r"|does not look like a tls|http response to https",
        "correct the scheme or the port: what answers there does not speak TLS",
    ),
    (
        # The server says it, of what it is sent.
        r"alert[ _](?:(?:bad[ _]|unsupported[ _])?certificate|unknown[ _]ca|access[ _]denied)",
        "send the client certificate that the server asks for, one that it takes and that is valid",
    ),
    (r"expired", "have the server's owner renew its certificate: it has expired"),
    (
        r"not (?:yet )?valid(?: yet)?\b(?! for)|not yet activated",
        "wait until the certificate is valid, or have the server's owner send one that is",
    ),
    (
        r"subject name|subject alternative|hostname|host name|ip address mismatch|not match",
        "correct the name in the address, or have the server send a certificate for that name",
    ),
    (
        r"alert|handshake fail|protocol version|unsupported protocol|no shared cipher|dh key",
        "have the server speak a version and ciphers of TLS that the host takes, or send the "
        "client certificate that it asks for",
    ),
)

#: Of hosts, containers and files; they say nothing of a cause.
_NAMES = re.compile(r"""(?<!\w)(['"])[^'"]*\1|\S*\w\.\w\S*|container \S+""")


def drop_names(text: str) -> str:
    """The text without names, in which any word may be."""
    return _NAMES.sub("", text)


def find_remedy(
    fault: FaultName, place: Literal["host", "container"], evidence: Iterable[str] = ()
) -> str:
    """What would mend a fault, beginning with a verb.

    :param fault: its class.
    :param place: where it was met.
    :param evidence: the lines that say so; of TLS the remedy depends on them.
    """
    if fault == "tls":
        text = drop_names(" ".join(evidence).lower())
        for pattern, remedy in _TLS:
            if re.search(pattern, text):
                return remedy
    if place == "container" and fault in _CONTAINER:
        return _CONTAINER[fault]
    return _HOST[fault]
