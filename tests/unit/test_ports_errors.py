"""Every spelling of a bind error is recognised; what is none is left to be passed through whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.ports.errors import BindError, parse
from stackmend.ports.spec import PortSpec

ENDPOINT = (
    "driver failed programming external connectivity on endpoint shop-web-1 "
    "(0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef): "
)
NETWORKING = "failed to set up container networking: "

#: Real texts: where from, the text, and what it says.
SPELLINGS = (
    # moby, libnetwork/portallocator: the engine's own allocator.
    (
        "allocated, v4: docker/for-win#12474",
        "docker: Error response from daemon: " + ENDPOINT + "Bind for 0.0.0.0:80 failed: "
        "port is already allocated.",
        ("0.0.0.0", 80, "tcp", "engine"),
    ),
    (
        "allocated, one address: moby#31376",
        'level=error msg="Failed to start container 0123abcd: '
        + ENDPOINT
        + 'Bind for 127.0.0.1:9980 failed: port is already allocated"',
        ("127.0.0.1", 9980, "tcp", "engine"),
    ),
    (
        "allocated, v6 without brackets",
        "Error response from daemon: " + NETWORKING + ENDPOINT + "Bind for :::3000 failed: "
        "port is already allocated",
        ("::", 3000, "tcp", "engine"),
    ),
    (
        "allocated, v6 loopback",
        "Bind for ::1:8080 failed: port is already allocated",
        ("::1", 8080, "tcp", "engine"),
    ),
    (
        "allocated, from the time of docker-compose 1: moby#17729",
        "ERROR: Cannot start container 0123abcd: failed to create endpoint xxx_nginx_1 on network "
        "bridge: Bind for 0.0.0.0:443 failed: port is already allocated",
        ("0.0.0.0", 443, "tcp", "engine"),
    ),
    # Docker up to 26: the kernel.
    (
        "in 2015, its last letter lost: moby#12144",
        'Error: Internal Server Error ("Cannot start container 0123abcd: Error starting userland '
        "proxy: listen tcp 0.0.0.0:49197: bind: address already in us",
        ("0.0.0.0", 49197, "tcp", "kernel"),
    ),
    (
        "up to 19: woodjme/unifi-hotspot#11",
        "docker: Error response from daemon: " + ENDPOINT + "Error starting userland proxy: "
        "listen tcp 0.0.0.0:80: bind: address already in use.",
        ("0.0.0.0", 80, "tcp", "kernel"),
    ),
    (
        "20.10 to 26: docker/compose#3277",
        "Error response from daemon: " + ENDPOINT + "Error starting userland proxy: "
        "listen tcp4 0.0.0.0:80: bind: address already in use",
        ("0.0.0.0", 80, "tcp", "kernel"),
    ),
    (
        "20.10 to 26, v6",
        ENDPOINT + "Error starting userland proxy: listen tcp6 [::]:8443: bind: "
        "address already in use",
        ("::", 8443, "tcp", "kernel"),
    ),
    (
        "20.10 to 26, udp",
        ENDPOINT + "Error starting userland proxy: listen udp4 0.0.0.0:53: bind: "
        "address already in use",
        ("0.0.0.0", 53, "udp", "kernel"),
    ),
    (
        "an address that the host does not have: sameersbn/docker-bind#29",
        "docker: Error response from daemon: " + ENDPOINT + "Error starting userland proxy: "
        "listen tcp 172.17.42.1:10000: bind: cannot assign requested address.",
        ("172.17.42.1", 10000, "tcp", "unavailable"),
    ),
    (
        "the endpoint's words around Go's own alone",
        "Error response from daemon: " + ENDPOINT + "listen tcp4 0.0.0.0:80: bind: "
        "address already in use",
        ("0.0.0.0", 80, "tcp", "kernel"),
    ),
    # 27, 28, 29.
    (
        "27: stefanprodan/dockprom#308",
        "Error response from daemon: " + ENDPOINT + "failed to bind port 0.0.0.0:9090/tcp: "
        "Error starting userland proxy: listen tcp4 0.0.0.0:9090: bind: address already in use",
        ("0.0.0.0", 9090, "tcp", "kernel"),
    ),
    (
        "28: winboat-org/winboat#29",
        "Error response from daemon: " + NETWORKING + ENDPOINT + "failed to bind host port for "
        "0.0.0.0:7148:172.18.0.2:7148/tcp: address already in use",
        ("0.0.0.0", 7148, "tcp", "kernel"),
    ),
    (
        "28, v6: how moby's port_mapping_linux_test.go writes a binding",
        NETWORKING + ENDPOINT + "failed to bind host port for "
        "[::]:2222:[fdf8:b88e:bb5c:3483::2]:22/tcp: address already in use",
        ("::", 2222, "tcp", "kernel"),
    ),
    (
        "28, udp",
        NETWORKING + ENDPOINT + "failed to bind host port for "
        "127.0.0.1:5353:172.18.0.2:53/udp: address already in use",
        ("127.0.0.1", 5353, "udp", "kernel"),
    ),
    (
        "28, one of a range: moby's port_mapping_linux.go",
        NETWORKING + ENDPOINT + "failed to bind host port 8005 for "
        "0.0.0.0:8000-8010:172.18.0.2:80/tcp: address already in use",
        ("0.0.0.0", 8005, "tcp", "kernel"),
    ),
    (
        "29: microsoft/WSL#40984",
        "Error response from daemon: " + NETWORKING + ENDPOINT + "failed to bind host port "
        "0.0.0.0:8003/tcp: address already in use",
        ("0.0.0.0", 8003, "tcp", "kernel"),
    ),
    (
        "29, v6",
        "docker: Error response from daemon: " + NETWORKING + "failed to bind host port "
        "[::]:443/tcp: address already in use",
        ("::", 443, "tcp", "kernel"),
    ),
    (
        "29, udp",
        NETWORKING + "failed to bind host port [::1]:53/udp: address already in use",
        ("::1", 53, "udp", "kernel"),
    ),
    # Rootless.
    (
        "rootless: ddev/ddev#8293",
        "Error response from daemon: " + NETWORKING + ENDPOINT + "error while calling RootlessKit "
        "PortManager.AddPort(): listen tcp4 127.0.0.1:33006: bind: address already in use",
        ("127.0.0.1", 33006, "tcp", "kernel"),
    ),
    (
        "rootless: moby#52903",
        "error while calling RootlessKit PortManager.AddPort(): cannot expose port 8080: "
        "listen tcp 0.0.0.0:8080: bind: address already in use",
        ("0.0.0.0", 8080, "tcp", "kernel"),
    ),
    (
        "rootless, below 1024",
        "Error response from daemon: " + NETWORKING + ENDPOINT + "error while calling RootlessKit "
        "PortManager.AddPort(): cannot expose privileged port 80, you can add "
        "'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf (currently 1024), or set "
        "CAP_NET_BIND_SERVICE on rootlesskit binary, or choose a larger port number (>= 1024): "
        "listen tcp4 0.0.0.0:80: bind: permission denied",
        ("0.0.0.0", 80, "tcp", "privilege"),
    ),
    # Podman.
    (
        "podman, rootlessport: podman#6762",
        'Error: failed to expose ports via rootlessport: "listen tcp 0.0.0.0:9080: bind: address '
        'already in use\\n"',
        ("0.0.0.0", 9080, "tcp", "kernel"),
    ),
    (
        "podman, rootlessport, through Compose: ddev/ddev#8293",
        "Error response from daemon: rootlessport listen tcp 127.0.0.1:35133: bind: address "
        "already in use",
        ("127.0.0.1", 35133, "tcp", "kernel"),
    ),
    (
        "podman, rootlessport, v6",
        "Error: rootlessport listen tcp6 [::]:5432: bind: address already in use",
        ("::", 5432, "tcp", "kernel"),
    ),
    (
        "podman as root: no address at all",
        'Error: unable to start container "0123456789ab": cannot listen on the TCP port: '
        "listen tcp4 :18094: bind: address already in use",
        ("0.0.0.0", 18094, "tcp", "kernel"),
    ),
    (
        "podman as root, udp: podman#19108",
        "Error: cannot listen on the UDP port: listen udp4 :53: bind: address already in use",
        ("0.0.0.0", 53, "udp", "kernel"),
    ),
    (
        "podman as root, v6 without an address",
        "Error: cannot listen on the TCP port: listen tcp6 :8080: bind: address already in use",
        ("::", 8080, "tcp", "kernel"),
    ),
    (
        "podman, pasta: cockpit-podman#1586",
        "Container failed to be started: Internal Server Error: pasta failed with exit code 1:\n"
        "No routable interface for IPv6: IPv6 is disabled\n"
        "Failed to bind port 5000 (Address already in use) for option "
        "'-t 5000-5000:5000-5000', exiting",
        ("0.0.0.0", 5000, "tcp", "kernel"),
    ),
    (
        "podman, pasta, udp on one address",
        "Error: pasta failed with exit code 1:\n"
        "Failed to bind port 5353 (Address already in use) for option "
        "'-u 127.0.0.1/5353-5353:53-53'",
        ("127.0.0.1", 5353, "udp", "kernel"),
    ),
    (
        "podman, pasta, below 1024",
        "Error: pasta failed with exit code 1:\n"
        "Failed to bind port 80 (Permission denied) for option '-t 80-80:8080-8080'",
        ("0.0.0.0", 80, "tcp", "privilege"),
    ),
    (
        "podman, pasta of 2026",
        "Error: pasta failed with exit code 1:\n"
        "Listen failed for HOST TCP port 127.0.0.1/34921: Address already in use",
        ("127.0.0.1", 34921, "tcp", "kernel"),
    ),
    # Docker Desktop.
    (
        "macOS: docker/for-mac#6461",
        "Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:7000 -> "
        "0.0.0.0:0: listen tcp 0.0.0.0:7000: bind: address already in use",
        ("0.0.0.0", 7000, "tcp", "kernel"),
    ),
    (
        "macOS, engine 28 and later: a small letter and 127.0.0.1",
        "(HTTP code 500) server error - ports are not available: exposing port TCP 0.0.0.0:5000 "
        "-> 127.0.0.1:0: listen tcp 0.0.0.0:5000: bind: address already in use",
        ("0.0.0.0", 5000, "tcp", "kernel"),
    ),
    (
        "macOS of 2018: docker/for-mac#3755",
        "ERROR: for nginx  Cannot start service nginx: "
        + ENDPOINT
        + "Error starting userland proxy: Bind for 0.0.0.0:80: unexpected error (Failure "
        "EADDRINUSE)\nERROR: Encountered errors while bringing up the project.",
        ("0.0.0.0", 80, "tcp", "kernel"),
    ),
    (
        "Windows, a listener: docker/for-win#14407",
        "Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:4505 -> "
        "0.0.0.0:0: listen tcp4 0.0.0.0:4505: bind: Only one usage of each socket address "
        "(protocol/network address/port) is normally permitted.",
        ("0.0.0.0", 4505, "tcp", "kernel"),
    ),
    (
        "Windows, udp: docker/for-win#14399",
        "(HTTP code 500) server error - Ports are not available: exposing port UDP 0.0.0.0:53 -> "
        "0.0.0.0:0: listen udp4 0.0.0.0:53: bind: Only one usage of each socket address "
        "(protocol/network address/port) is normally permitted.",
        ("0.0.0.0", 53, "udp", "kernel"),
    ),
    (
        "Windows, an excluded range: docker/for-win#14385",
        "Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:8000 -> "
        "0.0.0.0:0: listen tcp 0.0.0.0:8000: bind: An attempt was made to access a socket in a way "
        "forbidden by its access permissions.",
        ("0.0.0.0", 8000, "tcp", "forbidden"),
    ),
    (
        "Windows, before exposing was named: docker/for-win#10008",
        "ERROR: for ddev-db  Cannot start service db: Ports are not available: listen tcp "
        "127.0.0.1:49383: bind: An attempt was made to access a socket in a way forbidden by its "
        "access permissions.",
        ("127.0.0.1", 49383, "tcp", "forbidden"),
    ),
    (
        "Windows in German",
        "Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:80 -> "
        "0.0.0.0:0: listen tcp 0.0.0.0:80: bind: Der Zugriff auf einen Socket war aufgrund der "
        "Zugriffsrechte des Sockets unzulässig.",
        ("0.0.0.0", 80, "tcp", "forbidden"),
    ),
    (
        "Windows in German, as a console of another code page shows it",
        "ERROR: for postgres  Cannot start service postgres: Ports are not available: listen tcp "
        "127.0.0.1:5432: bind: Der Zugriff auf einen Socket war aufgrund der Zugriffsrechte des "
        "Sockets unzulĂ¤ssig.",
        ("127.0.0.1", 5432, "tcp", "forbidden"),
    ),
    (
        "Windows in Chinese",
        "Ports are not available: exposing port TCP 0.0.0.0:3306 -> 127.0.0.1:0: listen tcp "
        "0.0.0.0:3306: bind: 通常每个套接字地址(协议/网络地址/端口)只允许使用一次。",
        ("0.0.0.0", 3306, "tcp", "kernel"),
    ),
    (
        "Windows of 2018: docker/for-win#2614",
        "docker.exe: Error response from daemon: " + ENDPOINT + "Error starting userland proxy: "
        "Bind for 0.0.0.0:8080: unexpected error Permission denied.",
        ("0.0.0.0", 8080, "tcp", "privilege"),
    ),
)


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in SPELLINGS], ids=[r[0] for r in SPELLINGS]
)
def test_a_bind_error_is_recognised(text: str, expected: tuple[str, int, str, str]) -> None:
    error = parse(text)
    assert error is not None
    assert (error.address, error.port, error.protocol, error.reason) == expected
    assert error.allocated_by_engine is (expected[3] == "engine")
    # What is looked at next takes it as it is.
    assert (
        PortSpec(address=error.address, port=error.port, protocol=error.protocol).port
        == expected[1]
    )


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in SPELLINGS], ids=[r[0] for r in SPELLINGS]
)
def test_it_is_recognised_in_the_midst_of_what_compose_says(
    text: str, expected: tuple[str, int, str, str]
) -> None:
    before = " Container shop-redis-1  Started\n Container shop-web-1  Starting\r\n"
    after = "\nGracefully stopping... (press Ctrl+C again to force)\n"
    error = parse(before + text + after)
    assert error is not None
    assert (error.address, error.port, error.protocol, error.reason) == expected
    assert "Container" not in error.text.replace("Container failed", "")
    assert "Gracefully" not in error.text


def test_the_text_is_the_line_that_says_so() -> None:
    line = (
        "Error response from daemon: " + NETWORKING + "failed to bind host port 0.0.0.0:80/tcp: x"
    )
    error = parse(f" Container a  Started\n{line}\nsomething else")
    assert error is not None
    assert error.text == line


def test_the_first_of_several_counts() -> None:
    text = "\n".join(
        f"Error response from daemon: {NETWORKING}failed to bind host port 0.0.0.0:{port}/tcp: "
        "address already in use"
        for port in (8081, 8080)
    )
    error = parse(text)
    assert error is not None
    assert error.port == 8081


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Error response from daemon: No such container: web",
        "Error response from daemon: pull access denied for lab/none, repository does not exist",
        'Error response from daemon: Conflict. The container name "/web" is already in use',
        # A program in a container, and dockerd's own listener, say it of themselves.
        "web-1  | listen tcp :8080: bind: address already in use",
        "failed to load listeners: listen tcp 127.0.0.1:2375: bind: address already in use",
        "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)",
        # No bind: IPv6 is off.
        "Error starting userland proxy: listen tcp6 [::]:80: socket: address family not supported "
        "by protocol",
        # Docker Desktop's own trouble, which no port can cure.
        "Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:5432 -> "
        "127.0.0.1:0: /forwards/expose returned unexpected status: 500",
        "Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:5432 -> "
        "127.0.0.1:0: unexpected status: 500\nweb-1  | bind: address already in use",
        # No port of this kind can be looked at.
        "failed to bind host port 0.0.0.0:5000/sctp: address already in use",
        "failed to bind host port 0.0.0.0:0/tcp: address already in use",
        "failed to bind host port 0.0.0.0:70000/tcp: address already in use",
        "failed to bind host port 999.0.0.0:80/tcp: address already in use",
        "Bind for 0.0.0.0:123456 failed: port is already allocated",
        ENDPOINT + "iptables failed: No chain/target/match by that name.\n"
        "web-1  | listen tcp 0.0.0.0:80: bind: address already in use",
    ],
)
def test_what_is_no_bind_error_is_left_alone(text: str) -> None:
    assert parse(text) is None


PIECES = st.sampled_from(
    [
        *(part for _, text, _ in SPELLINGS for part in (text, text[:60], text[-60:])),
        "listen tcp4 0.0.0.0:", "bind: ", "Bind for ", " failed: port is already allocated",
        "failed to bind host port ", "/tcp: ", "Ports are not available: ", "[::]:", ":::", "0",
        "1", "99999", "65536", "\n", "\x00", " ",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(PIECES, st.text(max_size=12), st.integers().map(str)), max_size=12))
@settings(max_examples=500, deadline=None)
def test_it_never_raises_and_a_port_is_always_one(parts: list[str]) -> None:
    error = parse("".join(parts))
    if error is not None:
        assert isinstance(error, BindError)
        assert 1 <= error.port <= 65535
        assert error.protocol in ("tcp", "udp")
        assert error.text in "".join(parts)
        PortSpec(address=error.address, port=error.port, protocol=error.protocol)


@given(st.sampled_from(SPELLINGS), st.integers(min_value=0, max_value=400))
def test_a_text_that_was_cut_off_never_names_another_port(
    row: tuple[str, str, tuple[str, int, str, str]], at: int
) -> None:
    error = parse(row[1][:at])
    assert error is None or error.port == row[2][1]


def test_a_long_text_is_read_in_no_time() -> None:
    # A pattern that backtracks would take minutes.
    text = ("Error starting userland proxy: " * 3000 + "\n") * 3
    assert parse(text) is None
