"""The outside world of a lab host: a network namespace in it, with servers that fail at will.

No packet leaves the host: the far side is at the other end of a veth, at 192.0.2.0/24 and
fd00:2::/64.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from stackmend.connectivity.facts import Connectivity
from stackmend.connectivity.plan import Diagnosis, classify_endpoints
from stackmend.connectivity.state import HostConnectivity
from tests.lab.hosts import LabHost

DIRECTORY = "/run/far"
_SERVER = Path(__file__).with_name("far_server.py")
_DAY = datetime.timedelta(days=1)


class FarSide:
    """What a host sees outside; the host's own network but for it is as it was."""

    def __init__(self, host: LabHost) -> None:
        self.host = host

    def resolve_by(self, *servers: int | str) -> None:
        """Set the host's DNS servers: the last number of each, or an address."""
        lines = [
            f"nameserver {server if isinstance(server, str) else f'192.0.2.{server}'}\n"
            for server in servers
        ]
        self.host.put("/run/far/resolv.conf", "".join(lines))
        self.host.sh("cat /run/far/resolv.conf > /etc/resolv.conf")

    @contextlib.contextmanager
    def rules(self, *rules: str, tool: str = "iptables") -> Iterator[None]:
        """The host's packet filter with these rules, given as for ``iptables -I``."""
        for rule in rules:
            self.host.sh(f"{tool} -w 5 -I {rule}")
        try:
            yield
        finally:
            for rule in rules:
                self.host.sh(f"{tool} -w 5 -D {rule}")

    def observe(
        self, endpoints: Sequence[Any], prefix: str = "", **options: Any
    ) -> HostConnectivity:
        """What the probe finds, run as root in the host.

        + prefix: what the shell does before it, such as setting a variable
        """
        fact = Connectivity()
        command = fact.command(endpoints=endpoints, **options).get_raw_value()
        done = self.host.run(f"{prefix} {command}", timeout=120)
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, done.stderr
        return fact.process(output.removesuffix("\n").split("\n"))

    def classify(
        self, endpoints: Sequence[Any], prefix: str = "", **options: Any
    ) -> dict[str, Diagnosis]:
        """The diagnosis of each endpoint, by its origin and path."""
        found = classify_endpoints(self.observe(endpoints, prefix, **options))
        return {str(one.endpoint): one for one in found}

    def faults(self, endpoints: Sequence[Any], prefix: str = "", **options: Any) -> list[str]:
        """The class of each endpoint, in order."""
        return [one.fault for one in classify_endpoints(self.observe(endpoints, prefix, **options))]


@contextlib.contextmanager
def far_side(host: LabHost) -> Iterator[FarSide]:
    """The far side of a host, up and answering; gone afterwards."""
    for kind, content in _make_certificates().items():
        host.put(f"{DIRECTORY}/{kind}.pem", content, mode="0600")
    host.put(f"{DIRECTORY}/server.py", _SERVER.read_bytes())
    six = "sysctl -qw net.ipv6.conf.{0}.disable_ipv6=0"
    own = "".join(f"ip -n far addr add 192.0.2.{last}/24 dev far0\n" for last in range(10, 60))
    host.sh(
        "cp /etc/ssl/certs/ca-certificates.crt /run/far/trusted\n"
        "cat /run/far/authority.pem >> /etc/ssl/certs/ca-certificates.crt\n"
        "ip netns del far 2>/dev/null; ip link del near0 2>/dev/null\n"
        "ip netns add far\n"
        "ip link add near0 type veth peer name far0 netns far || exit 1\n"
        f"{six.format('near0')}; ip netns exec far {six.format('far0')}\n"
        "ip addr add 192.0.2.1/24 dev near0; ip link set near0 gso_max_segs 1 up\n"
        "ip addr add fd00:2::1/64 dev near0 nodad\n"
        f"ip -n far link set lo up; ip -n far link set far0 gso_max_segs 1 up\n{own}"
        "ip -n far addr add fd00:2::10/64 dev far0 nodad\n"
        "ip -n far route add default via 192.0.2.1\n"
        "ip netns exec far sysctl -qw net.core.somaxconn=30000 net.ipv4.tcp_max_syn_backlog=30000\n"
        # Elsewhere: what keeps this host busy does not slow it down.
        "setsid nice -n -15 ip netns exec far python3 /run/far/server.py /run/far "
        ">/run/far/log 2>&1 </dev/null &\n"
    )
    try:
        host.wait_for("grep -q ready /run/far/log")
        side = FarSide(host)
        side.resolve_by(53, 54)
        yield side
    finally:
        host.sh(
            "ip netns pids far | xargs -r kill -9; ip netns del far; ip link del near0\n"
            "cat /run/far/trusted > /etc/ssl/certs/ca-certificates.crt\n"
            "cat /lab/baseline/resolv.conf > /etc/resolv.conf",
            check=False,
        )


def _make_certificates() -> dict[str, str]:
    """A certificate and key for each kind of server, and the authority that the host trusts."""
    now = datetime.datetime.now(datetime.UTC)
    times = {
        "well": (now - _DAY, now + 90 * _DAY),
        "early": (now + 20 * _DAY, now + 90 * _DAY),
        "late": (now - 90 * _DAY, now - 20 * _DAY),
        "foreign": (now - _DAY, now + 90 * _DAY),
    }
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    authority = _sign("lab authority", "lab authority", key, (now - 200 * _DAY, now + 200 * _DAY))
    found = {"authority": authority}
    for kind, span in times.items():
        issuer = "somebody else" if kind == "foreign" else "lab authority"
        found[kind] = _sign("far side", issuer, key, span) + private
    return found


def _sign(
    subject: str,
    issuer: str,
    key: rsa.RSAPrivateKey,
    span: tuple[datetime.datetime, datetime.datetime],
) -> str:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    # Many names, so that a certificate fills a packet.
    names = [x509.DNSName("*.far.test"), *(x509.DNSName(f"{n}.filler.test") for n in range(60))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()
